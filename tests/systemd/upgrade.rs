//! Replacing the binary under a real manager: who is the main process when, what a stop
//! meets before, during and after, and what a death of either process does.

use serde_json::Value;

use crate::ear::{Ear, Message, longest_gap};
use crate::manager::{BINARY, own_address, shipped};
use crate::service::{Plan, Service, UNIT};
use crate::store::Comers;
use crate::support::client::Client;
use crate::support::generations::Generations;
use crate::support::origin::Origin;
use crate::support::process::Launch;
use crate::support::shelf::Shelf;
use crate::support::{PATIENCE, admin, ms, pause, within};

/// A service whose successors are named soon.
fn soon(origin: &Origin) -> Plan {
    Plan::before(origin).set("upgrade.commit_after", "300ms")
}

/// A service whose successors are not named while a test lasts.
fn late(origin: &Origin) -> Plan {
    Plan::before(origin).set("upgrade.commit_after", "10m")
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn wait_gone(pid: u32) {
    within(PATIENCE, "the old process to be gone", || (!is_alive(pid)).then_some(()));
}

fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let rest = stat.rsplit_once(')').expect("a name in brackets").1;
    rest.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()).expect("a parent")
}

fn number(event: &Value, field: &str) -> u32 {
    event[field].as_u64().and_then(|n| u32::try_from(n).ok()).expect("a number")
}

impl Service {
    /// Signals the main process to replace itself; the elder and the successor that serves.
    fn replaced(&self) -> (u32, u32) {
        let (elder, before) = (self.main_pid(), self.events("upgrade_serving").len());
        self.manager.must(&["kill", "--signal=USR2", "--kill-whom=main", UNIT]);
        let serving = self.wait_events("upgrade_serving", before + 1);
        (elder, number(&serving, "successor"))
    }

    fn wait_main(&self, pid: u32) {
        self.wait("MainPID", &pid.to_string());
    }

    fn kill(&self, pid: u32) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a kill");
    }

    #[track_caller]
    fn is_well(&self, restarts: &str) {
        self.wait("ActiveState", "active");
        self.answers();
        assert_eq!(self.show("NRestarts"), restarts);
    }
}

#[test]
fn a_reload_replaces_the_main_process_and_closes_nothing() {
    let origin = Origin::new();
    let service = soon(&origin).unit("WatchdogSec=1s").start();
    let mut idle = service.asked("/ok");
    idle.response();
    let elder = service.main_pid();
    service.manager.must(&["reload", UNIT]);
    let successor = service.main_pid();
    assert_ne!(successor, elder, "it returns when the successor is the main process");
    assert_eq!(parent_of(successor), service.manager.pid(), "the manager's own child");
    assert_eq!(service.show("ActiveState"), "active");
    idle.get("/ok");
    assert_eq!(idle.response().text(), "GET /ok 0");
    wait_gone(elder);
    // The watchdog hears the successor.
    pause(ms(2500));
    assert_eq!(service.main_pid(), successor);
    idle.get("/ok");
    assert_eq!(idle.response().text(), "GET /ok 0");
    service.wait("StatusText", "serving: 1 connection, 0 requests in flight");
    service.is_well("0");
}

#[test]
fn a_signal_replaces_the_main_process_many_times() {
    let origin = Origin::new();
    let service = soon(&origin).set("systemd.store", "true").start();
    let mut idle = service.asked("/ok");
    idle.response();
    for _ in 0..5 {
        let (elder, successor) = service.replaced();
        service.wait_main(successor);
        wait_gone(elder);
        idle.get("/ok");
        assert_eq!(idle.response().text(), "GET /ok 0");
    }
    service.is_well("0");
    assert_eq!(service.show("NFileDescriptorStore"), "1");
    assert!(service.events("upgrade_failed").is_empty());
}

#[test]
fn a_reload_that_fails_says_why_and_changes_nothing() {
    let origin = Origin::new();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let config = file.path().display().to_string();
    let service = soon(&origin).arg("--config").arg(&config).start();
    let elder = service.main_pid();
    std::fs::write(file.path(), "[timeouts]\nhead = \"soon\"\n").expect("a configuration");
    let reload = service.manager.systemctl(&["reload", UNIT]);
    assert!(!reload.status.success());
    service.wait("ActiveState", "active");
    let status = service.show("StatusText");
    assert!(status.contains("the last upgrade failed") && status.contains("head"), "{status}");
    assert_eq!(service.main_pid(), elder);
    service.is_well("0");
    std::fs::write(file.path(), "").expect("a configuration");
    service.manager.must(&["reload", UNIT]);
    assert_ne!(service.main_pid(), elder);
    service.is_well("0");
}

#[test]
fn a_stop_in_the_midst_of_a_reload_is_no_failure() {
    let origin = Origin::new();
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config");
    std::fs::write(&config, "").expect("a configuration");
    let service = soon(&origin).arg("--config").arg(&config.display().to_string()).start();
    // One whose end nobody sees: the successor reads for ever.
    std::fs::remove_file(&config).expect("a file");
    let (here, mode) = (rustix::fs::CWD, rustix::fs::Mode::RUSR);
    rustix::fs::mkfifoat(here, &config, mode).expect("a pipe");
    service.begin("reload");
    service.wait_events("upgrade_started", 1);
    service.manager.must(&["stop", UNIT]);
    assert_eq!(service.stopped(), "success");
    assert!(service.events("upgrade_serving").is_empty());
}

#[test]
fn a_service_whose_manager_cannot_be_told_of_a_successor_is_not_replaced() {
    let origin = Origin::new();
    let silent = ["Type=exec", "NotifyAccess=none", "WatchdogSec=0", "FileDescriptorStoreMax=0"];
    let service = silent.iter().fold(soon(&origin), |plan, it| plan.unit(it)).start();
    service.wait_events("ready", 1);
    let main = service.main_pid();
    let reload = service.manager.systemctl(&["reload", UNIT]);
    assert!(!reload.status.success());
    service.manager.must(&["kill", "--signal=USR2", "--kill-whom=main", UNIT]);
    let refused = service.wait_events("upgrade_refused", 1);
    let why = refused["error"].as_str().expect("a reason");
    assert!(why.contains("Type=notify") && why.contains("--takeover"), "{why}");
    assert!(service.events("upgrade_started").is_empty());
    assert_eq!(service.main_pid(), main);
    service.is_well("0");
}

/// A response that is under way, and does not move.
fn held(service: &Service, origin: &Origin, name: &str) -> Client {
    let client = service.asked(name);
    origin.wait_started(name);
    client
}

#[track_caller]
fn assert_held(mut client: Client) {
    let response = client.try_response().unwrap_or_else(|broken| panic!("{broken:?}"));
    assert_eq!(response.text(), "held");
}

/// Responses under way, the last of them in the successor: for a moment both accept.
fn held_by(successor: u32, service: &Service, origin: &Origin) -> Vec<Client> {
    let mut clients = Vec::new();
    within(PATIENCE, "the successor to have a request", || {
        clients.push(held(service, origin, &format!("/hold-new{}", clients.len())));
        let status = admin::status(&service.admin);
        let its = status["pid"] == successor && status["connections"]["h1"]["active"] != 0;
        its.then_some(())
    });
    clients
}

/// A stop with work in both generations, before or after the elder has named the other.
fn stop_with_two(plan: Plan, origin: &Origin, named: bool) {
    let service = plan.start();
    let old = held(&service, origin, "/hold-old");
    let (elder, successor) = service.replaced();
    if named {
        service.wait_main(successor);
    }
    assert!(is_alive(elder));
    let new = held_by(successor, &service, origin);
    service.begin("stop");
    pause(ms(1500));
    assert!(is_alive(elder) && is_alive(successor), "both drain");
    origin.release("/hold-old");
    (0..new.len()).for_each(|n| origin.release(&format!("/hold-new{n}")));
    assert_held(old);
    new.into_iter().for_each(assert_held);
    assert_eq!(service.stopped(), "success");
    assert!(!is_alive(elder) && !is_alive(successor));
}

#[test]
fn a_stop_before_the_successor_is_named_drains_both() {
    let origin = Origin::new();
    stop_with_two(late(&origin), &origin, false);
}

#[test]
fn a_stop_after_the_successor_was_named_drains_both() {
    let origin = Origin::new();
    stop_with_two(soon(&origin), &origin, true);
}

#[test]
fn a_stop_when_the_elder_is_gone_drains_for_as_long_as_it_takes() {
    let origin = Origin::new();
    let service = soon(&origin).unit("TimeoutStopSec=1s").start();
    let (elder, successor) = service.replaced();
    service.wait_main(successor);
    wait_gone(elder);
    let client = held(&service, &origin, "/hold");
    service.begin("stop");
    pause(ms(3000));
    assert!(is_alive(successor), "it has asked for more time");
    origin.release("/hold");
    assert_held(client);
    assert_eq!(service.stopped(), "success");
}

#[test]
fn an_elder_that_is_killed_after_it_has_named_the_other_changes_nothing() {
    let origin = Origin::new();
    let service = soon(&origin).start();
    let _old = held(&service, &origin, "/hold");
    let (elder, successor) = service.replaced();
    service.wait_main(successor);
    service.kill(elder);
    wait_gone(elder);
    pause(ms(300));
    assert_eq!(service.main_pid(), successor);
    service.is_well("0");
}

#[test]
fn an_elder_that_is_killed_before_takes_the_service_with_it_which_starts_anew() {
    let origin = Origin::new();
    let service = late(&origin).start();
    let _old = held(&service, &origin, "/hold");
    let (elder, successor) = service.replaced();
    service.kill(elder);
    wait_gone(elder);
    wait_gone(successor);
    service.wait("NRestarts", "1");
    service.is_well("1");
    assert_ne!(service.main_pid(), successor);
}

#[test]
fn an_elder_that_is_killed_before_refuses_nobody_if_listeners_are_stored() {
    let origin = Origin::new();
    let service = late(&origin).set("systemd.store", "true").start();
    let comers = Comers::at(&service.place);
    let (elder, successor) = service.replaced();
    service.kill(elder);
    service.wait_events("ready", 3);
    service.wait("NRestarts", "1");
    service.is_well("1");
    let (served, refused, broken) = comers.end();
    assert_eq!(refused, 0, "{served} served, {broken} broken");
    assert!(served > 0 && broken <= 1, "only whom the killed one served: {broken}");
    assert_ne!(service.main_pid(), successor);
}

#[test]
fn a_successor_that_is_killed_before_it_was_named_is_replaced_by_its_elder() {
    let origin = Origin::new();
    let service = late(&origin).start();
    let (elder, successor) = service.replaced();
    service.wait("ActiveState", "reloading");
    service.kill(successor);
    service.wait_events("upgrade_lost", 1);
    service.is_well("0");
    assert_eq!(service.main_pid(), elder);
    assert!(service.show("StatusText").contains("the last upgrade failed"));
}

#[test]
fn a_successor_that_is_killed_after_it_was_named_is_started_anew() {
    let origin = Origin::new();
    let service = soon(&origin).start();
    let (elder, successor) = service.replaced();
    service.wait_main(successor);
    wait_gone(elder);
    service.kill(successor);
    service.wait("NRestarts", "1");
    service.is_well("1");
}

/// The elder has named nobody yet when its successor is replaced, too.
fn two_in_a_row(elder_works: bool) {
    let origin = Origin::new();
    let service = Plan::before(&origin).set("upgrade.commit_after", "1500ms").start();
    let work = elder_works.then(|| held(&service, &origin, "/hold"));
    let (elder, first) = service.replaced();
    let place = service.admin.to_string();
    let upgrade = service.manager.run(BINARY, &["upgrade", "--admin", &place]);
    assert!(upgrade.status.success(), "{}", String::from_utf8_lossy(&upgrade.stderr));
    let second = number(&service.wait_events("upgrade_serving", 2), "successor");
    service.wait_main(second);
    wait_gone(first);
    if let Some(client) = work {
        origin.release("/hold");
        assert_held(client);
    }
    wait_gone(elder);
    pause(ms(500));
    assert_eq!(service.main_pid(), second);
    service.is_well("0");
}

#[test]
fn two_upgrades_in_a_row_name_the_last_one_while_the_first_works() {
    two_in_a_row(true);
}

#[test]
fn two_upgrades_in_a_row_name_the_last_one() {
    two_in_a_row(false);
}

#[test]
fn another_service_takes_over_and_neither_is_taken_for_the_other() {
    const OTHER: &str = "other.service";
    let origin = Origin::new();
    let dir = tempfile::tempdir().expect("a directory");
    let takeover = dir.path().join("takeover").display().to_string();
    let plan = soon(&origin).set("upgrade.takeover", &takeover).listening();
    let (place, app) = (plan.place().to_string(), origin.place().to_string());
    let own = format!(
        "[Service]\nType=notify\nExecStart={BINARY} run --listen {place} --upstream {app} \
         --set upgrade.takeover={takeover} --set upgrade.commit_after=300ms\n"
    );
    let service = plan.beside(OTHER, own).load();
    service.manager.must(&["start", UNIT]);
    let elder = service.main_pid();
    let mut idle = service.asked("/ok");
    idle.response();
    let work = held(&service, &origin, "/hold");
    service.manager.must(&["start", OTHER]);
    let successor = service.manager.show(OTHER, "MainPID");
    service.manager.wait(OTHER, "ActiveState", "active");
    let status = format!("draining: process {successor} of another service goes on");
    service.manager.wait_where(UNIT, "StatusText", "the elder's status", |text| text == status);
    service.wait("ActiveState", "active");
    assert_eq!(service.main_pid(), elder);
    origin.release("/hold");
    assert_held(work);
    assert_eq!(service.stopped(), "success");
    idle.get("/ok");
    assert_eq!(idle.response().text(), "GET /ok 0");
    service.answers();
    assert_eq!(service.manager.show(OTHER, "MainPID"), successor);
    assert_eq!(service.manager.show(OTHER, "NRestarts"), "0");
    service.manager.must(&["stop", OTHER]);
    assert_eq!(service.manager.show(OTHER, "Result"), "success");
}

#[test]
fn a_socket_unit_keeps_its_socket_over_an_upgrade_and_a_stop() {
    for by_name in [true, false] {
        let origin = Origin::new();
        let plan = soon(&origin);
        let place = plan.place().to_string();
        let listen = if by_name { "fd:web".to_owned() } else { place.clone() };
        let socket = shipped("ebbtide.socket").replace("0.0.0.0:80", &place);
        let service = plan.arg("--listen").arg(&listen).beside("ebbtide.socket", socket).load();
        service.manager.must(&["start", "ebbtide.socket"]);
        service.answers();
        let (elder, successor) = service.replaced();
        service.wait_main(successor);
        wait_gone(elder);
        service.answers();
        let client = held(&service, &origin, "/hold");
        service.begin("stop");
        service.wait("SubState", "stop-sigterm");
        let mut queued = service.asked("/ok");
        origin.release("/hold");
        assert_held(client);
        assert_eq!(queued.response().text(), "GET /ok 0");
        let closed = service.events("listener_closed");
        assert!(closed.iter().all(|event| event["way"] == "shared"), "{closed:?}");
    }
}

#[test]
fn a_stored_listener_that_a_new_configuration_does_not_have_is_closed() {
    let origin = Origin::new();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let other = own_address();
    let config = file.path().display().to_string();
    let plan = soon(&origin).set("systemd.store", "true").arg("--config").arg(&config);
    let place = plan.place().to_string();
    std::fs::write(file.path(), format!("listen = [\"{place}\", \"{other}\"]\n")).expect("a file");
    let service = plan.load();
    service.manager.must(&["start", UNIT]);
    service.wait("NFileDescriptorStore", "2");
    drop(Client::connect(&other));
    std::fs::write(file.path(), format!("listen = [\"{place}\"]\n")).expect("a file");
    service.manager.must(&["reload", UNIT]);
    service.wait("NFileDescriptorStore", "1");
    within(PATIENCE, "the other address to be closed", || {
        Client::try_connect(&other, PATIENCE).is_err().then_some(())
    });
    service.is_well("0");
}

#[test]
fn what_is_said_of_an_upgrade_and_in_which_order() {
    let (origin, ear) = (Origin::new(), Ear::new());
    let launch = Launch::before(&origin).env("NOTIFY_SOCKET", &ear.address());
    let proxy = launch.set("upgrade.commit_after", "300ms").start();
    ear.wait("READY=1");
    proxy.signal(rustix::process::Signal::USR2);
    let begins = ear.wait("RELOADING=1");
    assert!(begins.value("MONOTONIC_USEC").is_some_and(|usec| usec.parse::<u64>().is_ok()));
    let named = ear.wait_where("MAINPID", |message| message.value("MAINPID").is_some());
    assert_eq!(named.lines.len(), 2, "{named:?}");
    assert!(named.says("READY=1"), "{named:?}");
    let serving = proxy.wait_event("upgrade_serving");
    assert_eq!(named.value("MAINPID"), Some(serving.number("successor").to_string().as_str()));
    proxy.wait_gone();
    let heard = within(PATIENCE, "the successor's first word", || {
        let heard = ear.heard();
        let at = heard.iter().position(|message| message.value("MAINPID").is_some())?;
        (heard.len() > at + 1).then(|| (heard[..at].to_vec(), heard[at + 1..].to_vec()))
    });
    let (before, after) = heard;
    assert_eq!(before.iter().filter(|message| message.says("READY=1")).count(), 1, "{before:?}");
    assert!(after[0].says("READY=1") && after[0].value("STATUS").is_some(), "{after:?}");
    assert!(ear.all("STOPPING=1").is_empty());
    let pid = i32::try_from(serving.number("successor")).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    ear.wait("STOPPING=1");
    assert_eq!(ear.all("MAINPID").len(), 1);
}

#[test]
fn what_is_said_of_an_upgrade_that_fails() {
    let (origin, ear) = (Origin::new(), Ear::new());
    let shelf = Shelf::new();
    let launch = Launch::before(&origin).env("NOTIFY_SOCKET", &ear.address());
    let proxy = launch.binary(&shelf.path()).start();
    shelf.put_script("#!/bin/sh\nexit 7\n", 0o755);
    proxy.signal(rustix::process::Signal::USR2);
    ear.wait("RELOADING=1");
    let failed = ear.wait_where("the failure", |message| {
        message.value("STATUS").is_some_and(|status| status.contains("failed: "))
    });
    assert!(failed.says("READY=1"), "{failed:?}");
    shelf.clear();
    proxy.signal(rustix::process::Signal::USR2);
    let missing = ear.wait_where("the next failure", |message| {
        message.value("STATUS").is_some_and(|status| status.contains("cannot start"))
    });
    assert_eq!(missing.lines.len(), 1, "nothing had begun: {missing:?}");
    assert_eq!(proxy.client().get("/ok").response().status, 200);
    proxy.terminate();
    ear.wait("STOPPING=1");
    proxy.wait_clean_exit();
    assert!(ear.all("MAINPID").is_empty());
}

/// One that is not to name a successor while a test lasts, a request under way in it, and
/// what it says.
fn with_work() -> (Origin, Ear, Generations, Client) {
    let (origin, ear) = (Origin::new(), Ear::new());
    let launch = Launch::before(&origin).env("NOTIFY_SOCKET", &ear.address());
    let line = Generations::start(launch.set("upgrade.commit_after", "10m"));
    let mut held = line.client();
    held.get("/hold");
    origin.wait_started("/hold");
    (origin, ear, line, held)
}

/// What drains longer than the manager would wait asks for time, as long as it is the
/// main process.
#[test]
fn an_elder_that_drains_asks_for_time() {
    let (origin, ear, line, mut held) = with_work();
    assert!(ear.all("EXTEND_TIMEOUT_USEC").is_empty());
    let (elder, serving) = line.upgrade();
    within(PATIENCE, "three requests for time", || {
        (ear.all("EXTEND_TIMEOUT_USEC").len() > 2).then_some(())
    });
    let extended = ear.all("EXTEND_TIMEOUT_USEC");
    assert!(longest_gap(&extended) < ms(4000), "{extended:?}");
    assert!(extended[0].at + ms(1000) > serving.at, "not before the upgrade: {extended:?}");
    let drains = |message: &Message| {
        message.value("STATUS").is_some_and(|status| status.starts_with("draining"))
    };
    assert!(ear.heard().iter().any(drains), "{:?}", ear.heard());
    assert!(ear.all("STOPPING=1").is_empty() && ear.all("MAINPID").is_empty());
    assert!(!elder.is_gone());
    origin.release("/hold");
    assert_eq!(held.response().text(), "held");
    elder.wait_gone(PATIENCE);
}

/// The one that is about to exit names its successor, however soon that is.
#[test]
fn an_elder_that_leaves_early_names_its_successor_before_it_is_gone() {
    let (origin, ear, line, mut held) = with_work();
    let (elder, serving) = line.upgrade();
    assert!(ear.all("MAINPID").is_empty(), "it has work, and is the main process");
    origin.release("/hold");
    assert_eq!(held.response().text(), "held");
    elder.wait_gone(PATIENCE);
    let named = ear.wait_where("MAINPID", |message| message.value("MAINPID").is_some());
    assert_eq!(named.value("MAINPID"), Some(serving.number("successor").to_string().as_str()));
    assert!(named.says("READY=1"), "{named:?}");
    let heard = within(PATIENCE, "the successor's first word", || {
        let heard = ear.heard();
        let at = heard.iter().position(|message| message.value("MAINPID").is_some())?;
        heard.get(at + 1).cloned()
    });
    assert!(heard.says("READY=1") && heard.value("STATUS").is_some(), "{heard:?}");
    assert!(ear.all("STOPPING=1").is_empty());
    assert_eq!(line.stop().code, Some(0));
    assert_eq!((ear.all("MAINPID").len(), ear.all("STOPPING=1").len()), (1, 1));
}
