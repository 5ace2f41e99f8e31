//! HAProxy, configured to do what ebbtide does by default: one thread, keep-alive on both
//! sides, the same fields added.

use std::fs;
use std::process::Command;

use crate::program::{LEFT_S, Program, Setting, Variant};
use crate::support::Error;

/// More than any row opens. It wants two descriptors for each, and is told below to be
/// content with fewer.
const CONNECTIONS: usize = 12_000;

/// Apache's combined format, as nginx and ebbtide write it.
const COMBINED: &str =
    r#"%ci - - [%trl] \"%HM %HU %HV\" %ST %B \"%[capture.req.hdr(0)]\" \"%[capture.req.hdr(1)]\""#;

/// Version and TLS library from what `haproxy -vv` says.
pub(crate) fn identify(said: &str) -> Option<(String, String)> {
    let after = |begins: &str| said.lines().find_map(|line| line.strip_prefix(begins));
    let version = after("HAProxy version ")?.split([' ', '-']).next()?;
    let library: Vec<_> =
        after("Running on OpenSSL version : ")?.split_whitespace().take(2).collect();
    Some((version.to_owned(), library.join(" ")))
}

pub(crate) fn command(program: &Program, setting: &Setting<'_>) -> Result<Command, Error> {
    let Setting { doors, upstream, identity, directory, variant } = setting;
    let (h1, h2, tls) = (doors.h1, doors.h2, setting.tls()?);
    let certificate = identity.both.display();
    // It writes no files itself; standard output is the log's file.
    let log = match variant {
        Variant::Logged => format!(
            "    log stdout format raw local0
    capture request header Referer len 128
    capture request header User-Agent len 128
    log-format \"{COMBINED}\"
"
        ),
        _ => String::new(),
    };
    let proto = if *variant == Variant::Grpc { " proto h2" } else { "" };
    let left = match variant {
        Variant::Replaced => format!("    hard-stop-after {LEFT_S}s\n"),
        _ => String::new(),
    };
    let text = format!(
        "global
{left}    nbthread 1
    maxconn {CONNECTIONS}
    no strict-limits
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    timeout tunnel 1h
    option forwardfor
    http-reuse always
frontend cost
{log}    bind {h1}
    bind {h2} proto h2
    bind {tls} ssl crt {certificate} alpn h2,http/1.1
    unique-id-format %[uuid]
    unique-id-header X-Request-Id
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Request-Start t=%Ts
    default_backend app
backend app
    server app {upstream}{proto}
"
    );
    let config = directory.join("haproxy.cfg");
    fs::write(&config, text)?;
    let mut command = Command::new(&program.path);
    if matches!(variant, Variant::Mastered | Variant::Replaced) {
        command.arg("-W");
    }
    command.args(["-db", "-f"]).arg(config);
    Ok(command)
}
