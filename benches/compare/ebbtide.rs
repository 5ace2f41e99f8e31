//! ebbtide as its users have it: all defaults, but for the access log.

use std::process::Command;

use crate::program::{ADMIN, Program, Setting, Variant};
use crate::support::Error;
use crate::support::proxy::Launch;

/// The lock file that it was built by; it does not print the versions of its libraries.
const LOCK: &str = include_str!("../../Cargo.lock");

pub(crate) fn command(program: &Program, setting: &Setting<'_>) -> Result<Command, Error> {
    let launch = Launch {
        listen: setting.doors.h1,
        tls_listen: setting.tls()?,
        identity: Some(setting.identity),
        access_log: if setting.variant == Variant::Logged { "combined" } else { "off" },
        scheme: if setting.variant == Variant::Grpc { "h2c://" } else { "" },
        ..Launch::plain(&program.path, setting.upstream)
    };
    let mut command = launch.command();
    if setting.variant == Variant::Replaced {
        command.arg("--admin").arg(format!("unix:{}", setting.directory.join(ADMIN).display()));
    }
    Ok(command)
}

/// Its TLS library and the version of it.
pub(crate) fn tls() -> String {
    let version = |name: &str| {
        let mut lines = LOCK.lines().skip_while(|line| *line != format!("name = \"{name}\""));
        lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
    };
    let [rustls, aws_lc] =
        ["rustls", "aws-lc-rs"].map(|name| format!("{name} {}", version(name).unwrap_or("?")));
    format!("{rustls} with {aws_lc}")
}
