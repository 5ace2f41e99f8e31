//! nginx and HAProxy, configured to do what ebbtide does by default: one
//! thread, keep-alive on both sides, the same fields added, no access log; and the
//! same certificate for all.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::identity::Identity;
use crate::proxy::{Doors, Process};
use crate::{Error, host};

const START_LIMIT: Duration = Duration::from_secs(10);

/// Another proxy, running.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) process: Process,
    pub(crate) doors: Doors,
}

/// Starts those that are installed.
pub(crate) fn start(upstream: SocketAddr, identity: &Identity) -> Result<Vec<Peer>, Error> {
    let mut peers = Vec::new();
    for name in ["nginx", "haproxy"] {
        match start_one(name, upstream, identity)? {
            Some(peer) => peers.push(peer),
            None => println!("  {name} is not installed: not compared"),
        }
    }
    Ok(peers)
}

/// Starts the peer of this name, if it is installed.
pub(crate) fn start_one(
    name: &'static str,
    upstream: SocketAddr,
    identity: &Identity,
) -> Result<Option<Peer>, Error> {
    let start: Start = if name == "nginx" { nginx } else { haproxy };
    let program = host::find_program(name);
    program.map(|program| start_peer(name, &program, upstream, identity, start)).transpose()
}

/// What a peer's configuration has to say.
struct Setting<'a> {
    h1: SocketAddr,
    h2: SocketAddr,
    tls: SocketAddr,
    upstream: SocketAddr,
    identity: &'a Identity,
}

/// The command, given program and directory for its files.
type Start = fn(&Path, &Path, &Setting<'_>) -> Result<Command, Error>;

fn start_peer(
    name: &'static str,
    program: &Path,
    upstream: SocketAddr,
    identity: &Identity,
    start: Start,
) -> Result<Peer, Error> {
    let [h1, h2, tls] = free_addresses()?;
    let setting = Setting { h1, h2, tls, upstream, identity };
    let mut command = start(program, &host::scratch(name)?, &setting)?;
    let process = Process::start(command.stderr(Stdio::null()))?;
    for addr in [h1, h2, tls] {
        wait_until_listening(name, addr)?;
    }
    Ok(Peer { name, process, doors: Doors { h1, h2, tls: Some(tls) } })
}

fn nginx(program: &Path, directory: &Path, setting: &Setting<'_>) -> Result<Command, Error> {
    let Setting { h1, h2, tls, upstream, identity } = setting;
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    let text = format!(
        r#"daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 40000;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    upstream app {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {h1};
        listen {h2} http2;
        listen {tls} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Port $server_port;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Request-Start "t=$msec";
        }}
    }}
}}
"#
    );
    fs::write(directory.join("nginx.conf"), text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(directory).args(["-c", "nginx.conf"]);
    Ok(command)
}

fn haproxy(program: &Path, directory: &Path, setting: &Setting<'_>) -> Result<Command, Error> {
    let Setting { h1, h2, tls, upstream, identity } = setting;
    let certificate = identity.both.display();
    let text = format!(
        "global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    option forwardfor
    http-reuse always
frontend cost
    bind {h1}
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
    server app {upstream}
"
    );
    let config = directory.join("haproxy.cfg");
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(config);
    Ok(command)
}

/// Neither tells which ports it was given, so some are chosen that were free just now,
/// all held until the last is chosen.
fn free_addresses() -> Result<[SocketAddr; 3], Error> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = [bind()?, bind()?, bind()?];
    let [h1, h2, tls] = held.each_ref().map(TcpListener::local_addr);
    Ok([h1?, h2?, tls?])
}

fn wait_until_listening(name: &str, addr: SocketAddr) -> Result<(), Error> {
    let started = Instant::now();
    while started.elapsed() < START_LIMIT {
        if TcpStream::connect(addr).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("{name} does not listen on {addr}").into())
}
