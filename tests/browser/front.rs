//! HAProxy in TCP mode: it passes TLS on as it is.

use rustix::process::Signal;

use crate::foreign::Foreign;
use crate::ground::{Ground, Role};
use crate::support::{PATIENCE, within};

/// Starts it on its ground, before two ebbtides: everybody goes to the first one as long as
/// it is there.
pub(crate) fn start(ground: &Ground) -> Foreign {
    let place = |role| ground.place(role).to_string();
    let config = format!(
        "global
    maxconn 512
    log stdout format raw local0
defaults
    mode tcp
    log global
    timeout connect 3s
    timeout client 60s
    timeout server 60s
frontend www
    bind {front}
    default_backend ebbtide
backend ebbtide
    balance first
    option redispatch 1
    retries 5
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
    timeout check 1s
    default-server check port {admin} inter 200ms fall 3 downinter 100ms rise 1
    server a {a}
    server b {b}
",
        front = place(Role::Front),
        admin = ground.admin(Role::A).port(),
        a = place(Role::A),
        b = place(Role::B),
    );
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("haproxy.cfg");
    std::fs::write(&file, config).expect("a config file");
    let mut command = Foreign::command("/usr/sbin/haproxy");
    command.args(["-db", "-f"]).arg(file);
    Foreign::start("HAProxy", command, Signal::TERM, directory, &ground.place(Role::Front))
}

/// Waits until it has found the first ebbtide to be `UP` or `DOWN`.
pub(crate) fn wait_found(front: &Foreign, state: &str) {
    let message = format!("Server ebbtide/a is {state}");
    within(PATIENCE, &message, || front.said().contains(&message).then_some(()));
}
