//! A successor that the elder can neither see nor end: it lives where processes have other
//! numbers, or belongs to somebody else. It hangs, and the elder goes on without being
//! certain of its end; when it comes to itself, it learns that it is none, and leaves.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::strangers::script;
use crate::support::admin;
use crate::support::client::Client;
use crate::support::origin::{Origin, standard};
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::ws::{self, Socket};
use crate::support::{PATIENCE, ms, within};

/// A place of its own for the numbers of processes.
const ELSEWHERE: [&str; 4] = ["unshare", "--pid", "--fork", "--kill-child"];
/// Somebody who may not send signals to root.
const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// A process, and where the next one finds it.
struct Elder {
    directory: TempDir,
    origin: Origin,
    proxy: Proxy,
}

impl Elder {
    /// None if only root could start it so.
    fn start(under: &[&str], change: impl FnOnce(Launch) -> Launch) -> Option<Elder> {
        if !rustix::process::getuid().is_root() {
            eprintln!("not tried: only root can be elsewhere, or somebody else");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let origin = Origin::scripted(|conn, request| {
            if request.target == "/ws" { ws::echo(conn, request) } else { standard(conn, request) }
        })
        .letting_go();
        let proxy = change(launch(directory.path(), &origin).under(under)).start();
        Some(Elder { directory, origin, proxy })
    }

    fn successor(&self) -> Launch {
        launch(self.directory.path(), &self.origin)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn place(&self, name: &str) -> Place {
        Place::Unix(self.at(name))
    }

    /// One who asks at the socket and speaks so; killed on drop.
    fn stranger(&self, mode: &str) -> Stranger {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script()).arg("connect").arg(self.at("takeover.sock")).arg(mode);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Stranger(command.spawn().expect("a stranger"))
    }

    /// The first process serves, is asked and shown as if there had been nobody else.
    #[track_caller]
    fn serves(&self) {
        for place in [self.proxy.place(), self.place("unix.sock")] {
            let mut client = Client::connect(&place);
            client.get("/after");
            let response = client.response();
            assert_eq!(response.status, 200);
            assert!(!response.says_close(), "{}", self.proxy.said());
        }
        let status = admin::status(&self.place("admin.sock"));
        assert_eq!((&status["generation"], &status["phase"]), (&1.into(), &"serving".into()));
        assert_eq!(admin::get(&self.place("admin.sock"), "/readyz").status, 200);
    }

    /// The next successor is like any other, and then everything ends well.
    #[track_caller]
    fn replaced(self, under: &[&str]) {
        let next = self.successor().under(under).start();
        assert_eq!(self.proxy.wait_exit().code(), 0, "{}", self.proxy.said());
        let status = admin::status(&self.place("admin.sock"));
        assert_eq!((&status["generation"], &status["phase"]), (&2.into(), &"serving".into()));
        let mut client = Client::connect(&self.place("unix.sock"));
        client.get("/next");
        assert_eq!(client.response().text(), "GET /next 0");
        drop(next);
    }
}

fn launch(directory: &Path, origin: &Origin) -> Launch {
    let at = |name| directory.join(name).display().to_string();
    Launch::before(origin)
        .listen("127.0.0.1:0")
        .arg("--listen")
        .arg(format!("unix:{}", at("unix.sock")))
        .arg("--admin")
        .arg(format!("unix:{}", at("admin.sock")))
        .arg("--takeover")
        .arg(at("takeover.sock"))
}

struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn successor_that_hangs_when_it_is_let_go_is_given_up_wherever_it_lives() {
    for under in [ELSEWHERE, NOBODY] {
        let Some(elder) = Elder::start(&under, |launch| launch) else { return };
        let mut kept = elder.proxy.idle_client();
        let stranger = elder.stranger("deaf");
        elder.proxy.wait_event("upgrade_ready");
        let lost = elder.proxy.wait_event("upgrade_lost");
        assert_eq!(lost.fields["taken_back"], true, "{}", lost.fields);
        elder.proxy.wait_event("upgrade_failed");
        elder.serves();
        drop(stranger);
        kept.get("/kept");
        assert!(!kept.response().says_close());
        drop(kept);
        elder.replaced(&under);
    }
}

/// It has accepted already, and has been sent what it does not take.
#[test]
fn successor_that_hangs_where_nobody_sees_it_leaves_when_it_comes_to_itself() {
    let Some(elder) = Elder::start(&ELSEWHERE, |launch| launch) else { return };
    let mut moved = elder.proxy.idle_client();
    let mut held = elder.proxy.client();
    held.get("/hold/1");
    elder.origin.wait_started("/hold/1");
    let mut socket = Socket::open(elder.proxy.client(), "/ws");
    let heir = elder.successor().start();
    elder.proxy.wait_event("upgrade_serving");
    let admin = elder.place("admin.sock");
    // Whoever moved is the other's, and stays so.
    within(PATIENCE, "connections that have moved", || {
        (admin::count(&admin, &["connections", "tunnel", "websocket"]) == 1
            && admin::count(&admin, &["connections", "h1", "idle"]) == 1)
            .then_some(())
    });
    heir.freeze();
    // Answered by the elder, and sent to one who does not take it; with a request behind.
    held.post("/once", b"x");
    elder.origin.release("/hold/1");
    assert_eq!(held.response().text(), "held");
    let mut waiting = Client::connect(&elder.proxy.place());
    waiting.get("/waiting");
    let lost = elder.proxy.wait_event("upgrade_lost");
    assert_eq!(lost.fields["taken_back"], true, "{}", lost.fields);
    assert_eq!(held.response().text(), "POST /once 1");
    assert_eq!(waiting.response().text(), "GET /waiting 0");
    elder.serves();

    heir.signal(Signal::CONT);
    let replaced = heir.wait_event("replaced");
    assert_eq!(replaced.fields["level"], "error");
    assert!(replaced.text("error").contains("taken"), "{}", replaced.fields);
    // What it had of the elder's it ends by the stop plan.
    within(PATIENCE, "the last response", || {
        moved.get("/last");
        moved.response().says_close().then_some(())
    });
    assert_eq!(socket.read_to_close().0, Some(1001), "it is told");
    drop(socket);
    assert_eq!(heir.wait_exit().code(), 0, "{}", heir.said());
    let report = heir.drain_report();
    assert_eq!((&report["reason"], &report["generation"]), (&"replaced".into(), &2.into()));
    for listener in heir.events("listener_closed") {
        assert_eq!(listener.text("way"), "shared", "{}", listener.fields);
    }
    elder.serves();
    assert_eq!(elder.origin.requests_for("/once").len(), 1, "nothing is executed twice");
    drop((held, waiting));
    elder.replaced(&ELSEWHERE);
}

/// What the lame duck promises is not cut short by the end of a successor.
#[test]
fn successor_that_dies_in_the_lame_duck_of_its_elder_ends_nothing() {
    let elder = Elder::start(&[], |launch| launch.stop("lame_duck", "2s"));
    let Some(elder) = elder else { return };
    let stranger = elder.stranger("deaf");
    elder.proxy.wait_event("upgrade_ready");
    let at = elder.proxy.terminate();
    elder.proxy.wait_phase("lame_duck");
    drop(stranger);
    let lost = elder.proxy.wait_event("upgrade_lost");
    assert!(lost.at < at + ms(1_500), "{:?}", lost.at - at);
    let mut client = elder.proxy.client();
    client.get("/duck");
    assert_eq!(client.response().text(), "GET /duck 0");
    let closing = elder.proxy.wait_phase("closing");
    assert!(closing.at >= at + ms(1_900), "{:?}", closing.at - at);
    drop(client);
    elder.proxy.wait_clean_exit();
    let way = |event: &crate::support::process::Event| event.text("way").to_owned();
    let ways: Vec<_> = elder.proxy.events("listener_closed").iter().map(way).collect();
    assert!(ways.len() == 2 && !ways.contains(&"shared".to_owned()), "{ways:?}");
    assert!(!elder.at("unix.sock").exists() && !elder.at("admin.sock").exists());
}
