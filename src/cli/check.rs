//! `ebbtide check`: what `run` would do, without doing it.
//!
//! Owns what is printed: the summary on stdout, warnings and errors on stderr.
//! Binds, resolves and starts nothing.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use super::{EXIT_FAILED, EXIT_USAGE, RunArgs};
use crate::config::{self, Config, Loaded};

/// Loads what `args` and `environment` say and prints what came of it.
pub fn check(args: &RunArgs, environment: Vec<(String, String)>) -> ExitCode {
    let written = match config::load(&args.sources(environment)) {
        Ok(loaded) => report(&loaded).map(|()| ExitCode::SUCCESS),
        Err(errors) => writeln!(io::stderr(), "{errors}").map(|()| ExitCode::from(EXIT_USAGE)),
    };
    // With nobody left to read, the status is all that can be said.
    written.unwrap_or(ExitCode::from(EXIT_FAILED))
}

fn report(loaded: &Loaded) -> io::Result<()> {
    let mut out = io::stdout().lock();
    summary(&mut out, &loaded.config)?;
    out.flush()?;
    for warning in &loaded.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    Ok(())
}

/// The lines for a person: who is listened to, who answers, how it stops.
fn summary(out: &mut impl Write, config: &Config) -> io::Result<()> {
    writeln!(out, "ok")?;
    if !config.listen.is_empty() {
        writeln!(out, "listen    {}", joined(&config.listen))?;
    }
    if !config.tls.listen.is_empty() {
        writeln!(out, "tls       {}", joined(&config.tls.listen))?;
    }
    match &config.admin {
        Some(admin) => writeln!(out, "admin     {admin}")?,
        None => writeln!(out, "admin     none")?,
    }
    writeln!(out, "upstream  {}", joined(&config.upstream.endpoints))?;
    for route in config.routes.iter() {
        writeln!(out, "route     {route}")?;
    }
    writeln!(out, "workers   {}", config.workers)?;
    writeln!(out, "drain     {}", config.stop.sum_line())
}

fn joined<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
