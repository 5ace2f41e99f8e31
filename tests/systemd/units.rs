//! The service under a real manager: started, asked, watched, stopped.

use crate::manager::{BINARY, Manager, shipped};
use crate::service::{Plan, Service};
use crate::support::origin::Origin;
use crate::support::{ms, pause};

#[test]
fn the_shipped_files_are_clean() {
    let dir = tempfile::tempdir().expect("a directory");
    let unit = shipped("ebbtide.service").replace("/usr/local/bin/ebbtide", BINARY);
    std::fs::write(dir.path().join("ebbtide.service"), unit).expect("a file");
    std::fs::write(dir.path().join("ebbtide.socket"), shipped("ebbtide.socket")).expect("a file");
    let mut verify = std::process::Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for name in ["ebbtide.service", "ebbtide.socket"] {
        verify.arg(dir.path().join(name));
    }
    let output = verify.output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("ebbtide"), "{said}");
}

#[test]
fn it_is_active_when_it_serves_and_says_how_it_is() {
    let origin = Origin::new();
    let service = Plan::before(&origin).start();
    assert_eq!(service.show("ActiveState"), "active");
    let status = service.show("StatusText");
    assert_eq!(status, "serving: 0 connections, 0 requests in flight");
    let mut client = service.asked("/hold");
    service.wait("StatusText", "serving: 1 connection, 1 request in flight");
    origin.release("/hold");
    client.response();
    drop(client);
    service.manager.must(&["stop", "ebbtide.service"]);
    assert_eq!(
        (service.show("Result").as_str(), service.stopped().as_str()),
        ("success", "success")
    );
    assert_eq!(service.show("NRestarts"), "0");
}

#[test]
fn a_configuration_that_is_wrong_fails_the_start_once() {
    let origin = Origin::new();
    let service = Plan::before(&origin).set("timeouts.head", "soon").listening().load();
    let start = service.manager.systemctl(&["start", "ebbtide.service"]);
    assert!(!start.status.success());
    assert_eq!(service.stopped(), "exit-code");
    assert_eq!(service.show("ExecMainStatus"), "2");
    assert_eq!(service.events("config_error").len(), 1);
}

/// Stops while a request is under way that takes longer than the manager waits, and is
/// watched more closely still.
fn stop_with_a_long_request(settings: &[&str]) -> (Service, String, bool) {
    let origin = Origin::new();
    let plan = Plan::before(&origin).unit("TimeoutStopSec=1s");
    let service = settings.iter().fold(plan, |plan, setting| plan.unit(setting)).start();
    service.wait_events("ready", 1);
    let mut client = service.asked("/hold");
    origin.wait_started("/hold");
    service.begin("stop");
    pause(ms(3500));
    origin.release("/hold");
    let answered = client.try_response().is_ok_and(|response| response.text() == "held");
    drop(client);
    let result = service.stopped();
    (service, result, answered)
}

#[test]
fn a_drain_that_is_longer_than_the_stop_may_be_gets_its_time() {
    let (service, result, answered) = stop_with_a_long_request(&["WatchdogSec=1s"]);
    assert_eq!((result.as_str(), answered), ("success", true));
    assert_eq!(service.show("ExecMainStatus"), "0");
}

#[test]
fn a_drain_that_cannot_ask_for_time_is_killed() {
    // What the test above would see if nothing were said.
    let silent = ["Type=exec", "NotifyAccess=none", "WatchdogSec=0", "FileDescriptorStoreMax=0"];
    let (_service, result, answered) = stop_with_a_long_request(&silent);
    assert_eq!((result.as_str(), answered), ("timeout", false));
}

#[test]
fn a_stuck_worker_is_killed_by_the_watchdog_and_an_idle_process_is_not() {
    let origin = Origin::new();
    let plan = Plan::before(&origin).unit("WatchdogSec=1s").unit("Restart=no");
    let service = plan.unit("Environment=EBBTIDE_SABOTAGE=worker-turns").start();
    pause(ms(2500));
    assert_eq!(service.show("ActiveState"), "active");
    let _client = service.asked("/never");
    assert_eq!(service.stopped(), "watchdog");
    assert_eq!(service.events("worker_stuck").len(), 1);
}

#[test]
fn a_process_that_stands_still_is_started_anew() {
    let origin = Origin::new();
    let service = Plan::before(&origin).unit("WatchdogSec=1s").start();
    service.answers();
    let first = service.main_pid();
    service.manager.must(&["kill", "--signal=STOP", "--kill-whom=main", "ebbtide.service"]);
    service.wait_events("ready", 2);
    service.wait("ActiveState", "active");
    assert_ne!(service.main_pid(), first);
    assert_eq!(service.show("NRestarts"), "1");
    service.answers();
}

#[test]
fn nothing_is_left_of_a_manager() {
    let manager = Manager::start(&[]);
    let process = std::path::PathBuf::from(format!("/proc/{}", manager.pid()));
    let group = std::fs::read_to_string(process.join("cgroup")).expect("its control group");
    assert!(group.contains(manager.group()), "{group}");
    let name = manager.group().to_owned();
    drop(manager);
    assert!(!process.exists());
    let find = ["-x", "-c", "find /sys/fs/cgroup -maxdepth 3 -name \"$0\"", &name];
    let left = std::process::Command::new("sh").args(find).output().expect("sh").stdout;
    assert_eq!(String::from_utf8_lossy(&left), "");
}
