//! An upgrade, seen by each kind of connection, by whoever asks the admin interface, and
//! by whoever reads the logs.

mod account;
mod connections;
mod dropped;
mod identity;
mod killed;
mod paths;
mod places;
mod resumption;
mod stalls;
mod taking_back;
mod unmovable;

use std::time::Duration;

use crate::support::client::Client;
use crate::support::generations::{Generations, Member};
use crate::support::origin::{Origin, standard};
use crate::support::process::Launch;
use crate::support::{ms, ws};

/// How long after its last connection an elder may still be there. What it stays at
/// least, to take back what a dead successor leaves, is shorter.
const LEAVES_WITHIN: Duration = ms(1_000);

/// An app server that also speaks WebSocket.
pub(crate) fn app() -> Origin {
    Origin::scripted(|conn, request| {
        if request.target == "/ws" { ws::echo(conn, request) } else { standard(conn, request) }
    })
    .letting_go()
}

fn start(change: impl FnOnce(Launch) -> Launch) -> (Origin, Generations) {
    let origin = app();
    let launch = Launch::before(&origin).arg("--workers").arg("2");
    let line = Generations::start(change(launch));
    (origin, line)
}

/// Replaces the binary and waits until the elder has gone, since nothing holds it.
#[track_caller]
fn upgrade_whole(line: &Generations) {
    let (elder, _) = line.upgrade();
    leaves(line, elder);
}

/// An elder has nothing left, and goes with exit status 0.
#[track_caller]
fn leaves(line: &Generations, elder: Member) {
    let gone = elder.wait_gone(ms(600) + LEAVES_WITHIN);
    assert_eq!(line.exit_of(&elder, &gone), 0, "{}", line.said());
}

#[track_caller]
fn is_served(client: &mut Client, target: &str) {
    client.get(target);
    let response = client.response();
    assert_eq!(response.text(), format!("GET {target} 0"));
    assert!(!response.says_close());
}
