//! The command line: arguments, one call, exit code.

use std::io::Write as _;
use std::process::ExitCode;

use ebbtide::cli::{self, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse().command {
        Command::Check(args) => cli::check(&args, cli::environment()),
        // Wired with `server`.
        Command::Run(_) => unavailable("run"),
        // Wired with the admin client.
        Command::Status(_) => unavailable("status"),
    }
}

/// The failure of a command that this build does not have.
fn unavailable(command: &str) -> ExitCode {
    match writeln!(
        std::io::stderr(),
        "ebbtide: this build cannot {command} yet"
    ) {
        Ok(()) | Err(_) => ExitCode::from(cli::EXIT_FAILED),
    }
}
