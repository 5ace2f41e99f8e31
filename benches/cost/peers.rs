//! nginx and HAProxy, configured to do what ebbtide does by default: one
//! thread, keep-alive on both sides, the same fields added, no access log.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::proxy::Process;
use crate::{Error, host};

const START_LIMIT: Duration = Duration::from_secs(10);

/// Another proxy, running.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
}

/// Starts those that are installed.
pub(crate) fn start(upstream: SocketAddr) -> Result<Vec<Peer>, Error> {
    let mut peers = Vec::new();
    for (name, start) in [("nginx", nginx as Start), ("haproxy", haproxy as Start)] {
        match host::find_program(name) {
            Some(program) => peers.push(start_peer(name, &program, upstream, start)?),
            None => println!("  {name} is not installed: not compared"),
        }
    }
    Ok(peers)
}

/// The command, given program, directory for its files, address and upstream.
type Start = fn(&Path, &Path, SocketAddr, SocketAddr) -> Result<Command, Error>;

fn start_peer(
    name: &'static str,
    program: &Path,
    upstream: SocketAddr,
    start: Start,
) -> Result<Peer, Error> {
    let addr = free_address()?;
    let mut command = start(program, &host::scratch(name)?, addr, upstream)?;
    let process = Process::start(command.stderr(Stdio::null()))?;
    wait_until_listening(name, addr)?;
    Ok(Peer { name, process, addr })
}

fn nginx(
    program: &Path,
    directory: &Path,
    addr: SocketAddr,
    upstream: SocketAddr,
) -> Result<Command, Error> {
    let text = format!(
        r#"daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
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
        listen {addr};
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

fn haproxy(
    program: &Path,
    directory: &Path,
    addr: SocketAddr,
    upstream: SocketAddr,
) -> Result<Command, Error> {
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
    bind {addr}
    unique-id-format %[uuid]
    unique-id-header X-Request-Id
    http-request set-header X-Forwarded-Proto http
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

/// Neither tells which port it was given, so one is chosen that was free just now.
fn free_address() -> Result<SocketAddr, Error> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
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
