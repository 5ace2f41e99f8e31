//! The command line: arguments in, sources of a configuration out.
//!
//! Owns the commands, their flags and their help. A flag that stands for a key
//! is taken as text and checked by `config` with everything else, so that all
//! errors appear together. Does not run anything but `check`.

mod check;
mod help;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Flag, Listen, Sources};
use crate::demo;
use crate::handoff::launch;
use crate::limits::{DEMO_LOAD, DEMO_LOAD_MAX, DEMO_LOAD_MIN};

pub use check::check;

/// The exit status for wrong usage or configuration; clap uses the same.
pub const EXIT_USAGE: u8 = 2;
/// The exit status for a command that failed.
pub const EXIT_FAILED: u8 = 1;

/// The command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ebbtide",
    version,
    about = "A reverse proxy that leaves well",
    long_about = help::ABOUT,
    after_help = help::AFTER,
    after_long_help = help::overview(),
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve until told to stop
    #[command(long_about = help::RUN, after_long_help = help::run())]
    Run(RunArgs),
    /// Check the configuration; bind nothing, start nothing
    #[command(long_about = help::CHECK, after_long_help = help::run())]
    Check(RunArgs),
    /// Ask a running process how it is
    #[command(long_about = help::STATUS)]
    Status(StatusArgs),
    /// Replace a running process by the program that is now on disk
    #[command(long_about = help::UPGRADE)]
    Upgrade(UpgradeArgs),
    /// Watch a proxy being stopped under load, and lose nothing
    #[command(long_about = help::DEMO)]
    Demo(DemoArgs),
}

/// The arguments of `run` and `check`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArgs {
    /// Read this TOML file; without --config no file is read
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set any key, such as timeouts.head=10s; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Listen here; may be repeated [key: listen]
    #[arg(long, value_name = "ADDRESS", long_help = help::LISTEN)]
    pub listen: Vec<String>,

    /// Listen here with TLS; may be repeated [key: tls.listen]
    #[arg(long, value_name = "ADDRESS", long_help = help::TLS_LISTEN)]
    pub tls_listen: Vec<String>,

    /// A certificate chain, PEM; may be repeated, each with its --key [key: tls.cert]
    #[arg(long, value_name = "FILE", long_help = help::CERT)]
    pub cert: Vec<String>,

    /// The private key of the --cert in the same place, PEM; may be repeated [key: tls.key]
    #[arg(long, value_name = "FILE")]
    pub key: Vec<String>,

    /// Forward to this app server; may be repeated [key: upstream.endpoints]
    #[arg(long, value_name = "ADDRESS", long_help = help::UPSTREAM)]
    pub upstream: Vec<String>,

    /// Answer health, metrics and status here [key: admin]
    ///
    /// Without it there is no admin listener. Over a unix socket (mode 0600)
    /// everything may be asked; over TCP only /livez, /readyz, /metrics and
    /// /status.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,

    /// Cut requests that last longer than this in a stop [key: drain.stop.drain_timeout]
    #[arg(long, value_name = "DURATION")]
    pub drain_timeout: Option<String>,

    /// Fail readiness this long before listeners close [key: drain.stop.lame_duck]
    #[arg(long, value_name = "DURATION")]
    pub lame_duck: Option<String>,

    /// Use this many threads; default: the cores it may use [key: workers]
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,

    /// Write the access log as json, combined or off [key: log.access]
    #[arg(long, value_name = "FORMAT")]
    pub access_log: Option<String>,

    /// Write the drain report to this file too [key: report]
    #[arg(long, value_name = "FILE")]
    pub report: Option<String>,

    /// Take over from the process that listens here, and listen here [key: upgrade.takeover]
    #[arg(long, value_name = "PATH", long_help = help::TAKEOVER)]
    pub takeover: Option<String>,

    /// Stop, as on SIGTERM, when the process with this number ends, which started this one
    ///
    /// It is an error if the parent is another process by now; a successor, which takes over
    /// from an elder, ends with the same process as the elder. In a shell: --stop-with-parent $$
    #[arg(long, value_name = "PID")]
    pub stop_with_parent: Option<i32>,
}

/// The arguments of `demo`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct DemoArgs {
    /// Show first what is lost without a drain
    ///
    /// The same load twice: the first proxy is killed, which is what SIGTERM does to a
    /// program that has no handler for it; the second one drains.
    #[arg(long)]
    pub compare: bool,

    /// Stop the proxy after this time, 1s to 1m; default: 3s
    #[arg(long, value_name = "DURATION")]
    pub load_for: Option<String>,

    /// Write plain lines on a terminal, too
    #[arg(long)]
    pub plain: bool,
}

/// The arguments of `status`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusArgs {
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,

    /// Ask again every second until the process is gone
    #[arg(long)]
    pub watch: bool,

    /// The admin listener to ask; default: EBBTIDE_ADMIN
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
}

/// The arguments of `upgrade`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeArgs {
    /// The unix admin socket to ask, unix:PATH; default: EBBTIDE_ADMIN
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,

    /// Start this program; default: what is now where the running one was started
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,

    /// Wait until the old process has gone, not only until its successor serves
    #[arg(long)]
    pub wait: bool,
}

/// Reads the arguments of this process. Wrong usage ends it with status 2, a
/// question for help or version with 0.
#[must_use]
pub fn parse() -> Cli {
    Cli::parse()
}

/// The environment of this process as far as it is about ebbtide.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        // What is not Unicode is no valid name or value: it is shown and refused.
        .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
        .filter(|(name, _): &(String, String)| name.starts_with("EBBTIDE_") && !is_internal(name))
        .collect()
}

/// What is no key: the way to an elder, and what is for tests.
fn is_internal(name: &str) -> bool {
    [launch::HANDOFF, launch::LAUNCH].contains(&name) || is_for_tests(name)
}

/// What breaks a rule in a test build; to any other build it is an unknown variable.
fn is_for_tests(name: &str) -> bool {
    cfg!(feature = "sabotage") && name == crate::drain::SABOTAGE
}

impl RunArgs {
    /// What these arguments and this environment say, as sources of a configuration.
    #[must_use]
    pub fn sources(&self, environment: Vec<(String, String)>) -> Sources {
        let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
        let one = |value: &Option<String>| value.clone().map(|value| vec![value]);
        let flags = [
            ("--listen", "listen", list(&self.listen)),
            ("--tls-listen", "tls.listen", list(&self.tls_listen)),
            ("--cert", "tls.cert", list(&self.cert)),
            ("--key", "tls.key", list(&self.key)),
            ("--upstream", "upstream.endpoints", list(&self.upstream)),
            ("--admin", "admin", one(&self.admin)),
            ("--drain-timeout", "drain.stop.drain_timeout", one(&self.drain_timeout)),
            ("--lame-duck", "drain.stop.lame_duck", one(&self.lame_duck)),
            ("--workers", "workers", one(&self.workers)),
            ("--access-log", "log.access", one(&self.access_log)),
            ("--report", "report", one(&self.report)),
            ("--takeover", "upgrade.takeover", one(&self.takeover)),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(name, key, values)| Some(Flag { name, key, values: values? }));
        Sources {
            file: self.config.clone(),
            environment,
            set: self.set.clone(),
            flags: flags.collect(),
        }
    }
}

impl DemoArgs {
    /// What these arguments ask for.
    ///
    /// # Errors
    ///
    /// If the time is none, or out of bounds.
    pub fn options(&self) -> Result<demo::Options, config::Errors> {
        let load = self.load_for.as_deref().map_or(Ok(DEMO_LOAD), |text| {
            config::duration("--load-for", text, DEMO_LOAD_MIN..=DEMO_LOAD_MAX)
        })?;
        Ok(demo::Options { compare: self.compare, load, plain: self.plain })
    }
}

impl StatusArgs {
    /// The admin listener to ask.
    ///
    /// # Errors
    ///
    /// If none is given, or it is no address.
    pub fn address(&self, environment: &[(String, String)]) -> Result<Listen, config::Errors> {
        config::admin_address(self.admin.as_deref(), environment)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_that_stands_for_a_key_names_one() {
        let text = || Some(String::from("x"));
        let args = RunArgs {
            config: None,
            set: Vec::new(),
            listen: vec!["x".to_owned()],
            tls_listen: vec!["x".to_owned()],
            cert: vec!["x".to_owned()],
            key: vec!["x".to_owned()],
            upstream: vec!["x".to_owned()],
            admin: text(),
            drain_timeout: text(),
            lame_duck: text(),
            workers: text(),
            access_log: text(),
            report: text(),
            takeover: text(),
            stop_with_parent: Some(1),
        };
        let flags = args.sources(Vec::new()).flags;
        assert_eq!(flags.len(), 12);
        for flag in flags {
            assert!(config::find(flag.key).is_some(), "{}", flag.key);
        }
    }

    #[test]
    fn flags_that_are_not_given_set_nothing() {
        assert_eq!(RunArgs::default().sources(Vec::new()), Sources::default());
    }
}
