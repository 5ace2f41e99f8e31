//! The command line: arguments, one call, exit code.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use ebbtide::cli::{self, Command, RunArgs, StatusArgs};
use ebbtide::{admin, config, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse().command {
        Command::Check(args) => cli::check(&args, cli::environment()),
        Command::Run(args) => run(&args),
        Command::Status(args) => status(&args),
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let loaded = match config::load(&args.sources(cli::environment())) {
        Ok(loaded) => loaded,
        Err(errors) => return fail(&errors, cli::EXIT_USAGE),
    };
    match server::run(loaded) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let cause = std::error::Error::source(&error);
            let text = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            fail(&format!("ebbtide: {error}{text}"), cli::EXIT_FAILED)
        }
    }
}

fn status(args: &StatusArgs) -> ExitCode {
    match admin::client::status(args.admin.as_deref(), args.json, args.watch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("ebbtide: {error}"), error.exit_code()),
    }
}

/// Says why on stderr; the exit code says it if nobody reads there.
fn fail(why: &dyn Display, code: u8) -> ExitCode {
    let _unheard = writeln!(std::io::stderr(), "{}", why.to_string().trim_end());
    ExitCode::from(code)
}
