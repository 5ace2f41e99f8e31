//! The command line: arguments, one call, exit code.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use ebbtide::cli::{self, Command, DemoArgs, RunArgs, StatusArgs, UpgradeArgs};
use ebbtide::handoff::launch;
use ebbtide::lifecycle::parent;
use ebbtide::limits::LAST_WORDS;
use ebbtide::telemetry::{Event, Events, Level};
use ebbtide::{admin, config, demo, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if launch::is_launcher() {
        return launch::launcher();
    }
    match cli::parse().command {
        Command::Check(args) => cli::check(&args, cli::environment()),
        Command::Run(args) => run(&args),
        Command::Status(args) => status(&args),
        Command::Upgrade(args) => upgrade(&args),
        Command::Demo(args) => demo(&args),
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let inherited = match launch::predecessor() {
        Ok(inherited) => inherited,
        Err(error) => {
            let text = format!("what this process was started with is no handoff: {error}");
            return refuse("start_failed", vec![text], cli::EXIT_FAILED);
        }
    };
    if let Some(parent) = args.stop_with_parent
        && let Err(error) = parent::stop_with(parent, is_successor())
    {
        return refuse(
            "start_failed",
            vec![format!("--stop-with-parent: {error}")],
            cli::EXIT_FAILED,
        );
    }
    let loaded = match config::load(&args.sources(cli::environment())) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let lines: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
            if let Some(elder) = inherited {
                server::decline(elder, &lines.join("\n"));
            }
            return refuse("config_error", lines, cli::EXIT_USAGE);
        }
    };
    match server::run(loaded, inherited) {
        Ok(status) => ExitCode::from(status),
        Err(error) => refuse("start_failed", vec![error.whole()], cli::EXIT_FAILED),
    }
}

/// Whether an elder has started this process.
fn is_successor() -> bool {
    std::env::var_os(launch::HANDOFF).is_some()
}

fn demo(args: &DemoArgs) -> ExitCode {
    let options = match args.options() {
        Ok(options) => options,
        Err(errors) => return fail(&errors, cli::EXIT_USAGE),
    };
    match demo::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(cli::EXIT_FAILED),
        Err(error) => fail(&format!("ebbtide: {error}"), cli::EXIT_FAILED),
    }
}

/// Says why the process does not start, in the form that its log would have.
fn refuse(event: &'static str, messages: Vec<String>, code: u8) -> ExitCode {
    if !std::io::stderr().is_terminal()
        && let Ok(events) = Events::stderr()
    {
        for message in messages {
            events.emit(Event::new(Level::Error, event).with("message", message));
        }
        events.flush(Instant::now() + LAST_WORDS);
        return ExitCode::from(code);
    }
    fail(&messages.join("\n"), code)
}

fn status(args: &StatusArgs) -> ExitCode {
    match admin::client::status(args.admin.as_deref(), args.json, args.watch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("ebbtide: {error}"), error.exit_code()),
    }
}

fn upgrade(args: &UpgradeArgs) -> ExitCode {
    match admin::upgrade(args.admin.as_deref(), args.binary.as_deref(), args.wait) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("ebbtide: {error}"), error.exit_code()),
    }
}

/// Says why on stderr; the exit code says it if nobody reads there.
fn fail(why: &dyn Display, code: u8) -> ExitCode {
    let _unheard = writeln!(std::io::stderr(), "{}", why.to_string().trim_end());
    ExitCode::from(code)
}
