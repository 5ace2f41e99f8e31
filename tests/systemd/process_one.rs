//! Process 1 of a container: orphans are reaped, signals end it as anywhere, and it is
//! not replaced in its place. And who ends with another process.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::origin::Origin;
use crate::support::process::{Launch, is_privileged};
use crate::support::{PATIENCE, ms, pause, within};

/// Leaves `n` orphans behind and becomes the proxy, which is process 1.
fn contained(origin: &Origin, orphans: usize) -> Launch {
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let leave = format!("for i in $(seq {orphans}); do (sleep 0.5 & sleep 0.6 &) ; done");
    Launch::before(origin).under(&unshare).shell(leave)
}

/// The children of a process, by their state.
fn children(of: u32) -> Vec<(u32, char)> {
    let list = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = list.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(of)).then_some((pid, state))
    });
    found.collect()
}

#[test]
fn orphans_are_reaped_by_process_one_which_is_not_replaced() {
    assert!(is_privileged(), "namespaces need root");
    let origin = Origin::new();
    let outer = contained(&origin, 20).start();
    let [(init, _)] = children(outer.pid)[..] else { panic!("one child: process 1") };
    assert!(children(init).len() >= 20, "there are orphans to reap");
    within(PATIENCE, "all orphans to be gone", || children(init).is_empty().then_some(()));
    let mut client = outer.client();
    assert_eq!(client.get("/").response().status, 200);
    drop(client);
    let pid = Pid::from_raw(init.cast_signed()).expect("a pid");
    kill_process(pid, Signal::USR2).expect("a signal");
    let refused = outer.wait_event("upgrade_refused");
    let why = refused.text("error");
    assert!(why.contains("process 1") && why.contains("--takeover"), "{why}");
    kill_process(pid, Signal::TERM).expect("a signal");
    outer.wait_clean_exit();
    assert!(outer.events("upgrade_started").is_empty());
}

#[test]
fn who_process_one_waits_for_is_not_replaced() {
    assert!(is_privileged(), "namespaces need root");
    let origin = Origin::new();
    let waits = ["sh", "-c", "\"$0\" \"$@\" & wait $!"];
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let launch = Launch::before(&origin).under(&[&unshare[..], &waits].concat());
    let outer = launch.start();
    let [(init, _)] = children(outer.pid)[..] else { panic!("one child: process 1") };
    let [(only, _)] = children(init)[..] else { panic!("one child of it: the proxy") };
    let pid = Pid::from_raw(only.cast_signed()).expect("a pid");
    kill_process(pid, Signal::USR2).expect("a signal");
    let why = outer.wait_event("upgrade_refused").text("error").to_owned();
    assert!(why.contains("process 1 (sh)") && why.contains("--takeover"), "{why}");
    assert_eq!(outer.client().get("/").response().status, 200);
    kill_process(pid, Signal::TERM).expect("a signal");
    outer.wait_clean_exit();
    assert!(outer.events("upgrade_started").is_empty());
}

#[test]
fn any_other_process_leaves_its_children_to_their_parents() {
    let origin = Origin::new();
    let launch = Launch::before(&origin).shell("sleep 1 & true");
    let proxy = launch.start();
    let mine = || children(proxy.pid);
    within(PATIENCE, "a child that has ended", || {
        mine().iter().any(|(_, state)| *state == 'Z').then_some(())
    });
    pause(ms(300));
    assert_eq!(mine().len(), 1, "its end is not taken from whoever waits for it");
    proxy.terminate();
    proxy.wait_clean_exit();
}

#[test]
fn a_successor_ends_with_the_process_that_has_started_its_elder() {
    let origin = Origin::new();
    let shell = ["sh", "-c", "\"$0\" \"$@\" --stop-with-parent $$ & wait"];
    let parent = Launch::before(&origin).under(&shell).start();
    let [(elder, _)] = children(parent.pid)[..] else { panic!("one child: the elder") };
    let elder = Pid::from_raw(elder.cast_signed()).expect("a pid");
    kill_process(elder, Signal::USR2).expect("a signal");
    parent.wait_event("upgrade_serving");
    parent.wait_event_where("the elder's report", |event| {
        event.is("drain_report") && event.fields["reason"] == "upgrade"
    });
    assert_eq!(parent.client().get("/").response().status, 200);
    parent.signal(Signal::KILL);
    parent.wait_event_where("the successor's report", |event| {
        event.is("drain_report") && event.fields["reason"] == "SIGTERM"
    });
}
