//! nginx, configured to do what ebbtide does by default: one worker, keep-alive on both
//! sides, the same fields added.

use std::fs;
use std::process::Command;

use crate::program::{LEFT_S, LOG, Program, Setting, Variant};
use crate::support::Error;

/// The first version that is told of HTTP/2 by a directive of its own, and then knows it
/// from HTTP/1.1 on the same port.
const HTTP2_DIRECTIVE: [u32; 3] = [1, 25, 1];

/// Version and TLS library from what `nginx -V` says.
pub(crate) fn identify(said: &str) -> Option<(String, String)> {
    let after = |begins: &str| said.lines().find_map(|line| line.strip_prefix(begins));
    let version = after("nginx version: nginx/")?.split_whitespace().next()?;
    let built = after("built with ")?;
    // `OpenSSL 3.0.22 25 Aug 2026 (running with OpenSSL 3.0.19 27 Jan 2026)`
    let running = built.split_once("(running with ").map_or(built, |(_, running)| running);
    let library: Vec<_> = running.split_whitespace().take(2).collect();
    Some((version.to_owned(), library.join(" ")))
}

/// How [`Variant::Unbuffered`] differs, for a heading.
pub(crate) const UNBUFFERED: &str = "proxy_request_buffering off, proxy_max_temp_file_size 0";

/// What differs by what is passed on.
struct Passing {
    pass: &'static str,
    set: &'static str,
    connection: &'static str,
    upgrade: &'static str,
}

impl Passing {
    fn of(variant: Variant) -> Self {
        let (pass, set) = match variant {
            Variant::Grpc => ("grpc_pass grpc", "grpc_set_header"),
            _ => ("proxy_pass http", "proxy_set_header"),
        };
        // As nginx's own manual has it, with longer than any row waits.
        let (connection, upgrade) = match variant {
            Variant::Upgrading | Variant::Replaced => (
                "$connection_upgrade",
                "proxy_set_header Upgrade $http_upgrade; proxy_read_timeout 1h;",
            ),
            _ => (r#""""#, ""),
        };
        Self { pass, set, connection, upgrade }
    }
}

pub(crate) fn command(program: &Program, setting: &Setting<'_>) -> Result<Command, Error> {
    let Setting { doors, upstream, identity, directory, variant } = setting;
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    let (h1, h2, tls) = (doors.h1, doors.h2, setting.tls()?);
    let (listen_h2, directive) =
        if knows_directive(&program.version) { ("", "http2 on;") } else { (" http2", "") };
    let log = match variant {
        // Gathered, as ebbtide gathers its lines.
        Variant::Logged => format!("{LOG} combined buffer=64k flush=1s"),
        _ => "off".to_owned(),
    };
    let bodies = match variant {
        Variant::Unbuffered => "proxy_request_buffering off; proxy_max_temp_file_size 0;",
        _ => "",
    };
    // In the foreground it does not let itself be replaced.
    let (daemon, left) = match variant {
        Variant::Replaced => ("on", format!("worker_shutdown_timeout {LEFT_S}s;")),
        _ => ("off", String::new()),
    };
    let Passing { pass, set, connection, upgrade } = Passing::of(*variant);
    let text = format!(
        r#"daemon {daemon};
{left}
worker_processes 1;
user root;
pid nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 40000;
events {{ worker_connections 32768; }}
http {{
    access_log {log};
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 0;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    keepalive_requests 1000000000;
    upstream app {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {h1};
        listen {h2}{listen_h2};
        listen {tls} ssl{listen_h2};
        {directive}
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            {bodies}
            {pass}://app;
            proxy_http_version 1.1;
            proxy_set_header Connection {connection};
            {upgrade}
            {set} Host $http_host;
            {set} X-Forwarded-For $proxy_add_x_forwarded_for;
            {set} X-Forwarded-Proto $scheme;
            {set} X-Forwarded-Host $http_host;
            {set} X-Forwarded-Port $server_port;
            {set} X-Real-IP $remote_addr;
            {set} X-Request-Id $request_id;
            {set} X-Request-Start "t=$msec";
        }}
    }}
}}
"#
    );
    fs::write(directory.join("nginx.conf"), text)?;
    let mut command = Command::new(&program.path);
    // Without -e, a build may open a log below its own prefix before it reads the file.
    command.arg("-p").arg(directory).args(["-e", "stderr", "-c", "nginx.conf"]);
    Ok(command)
}

fn knows_directive(version: &str) -> bool {
    let numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    numbers.collect::<Vec<u32>>().as_slice() >= HTTP2_DIRECTIVE.as_slice()
}
