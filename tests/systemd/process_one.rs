//! Process 1 of a container: orphans are reaped, signals end it as anywhere.

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
fn orphans_are_reaped_by_process_one() {
    assert!(is_privileged(), "namespaces need root");
    let origin = Origin::new();
    let outer = contained(&origin, 20).start();
    let [(init, _)] = children(outer.pid)[..] else { panic!("one child: process 1") };
    assert!(children(init).len() >= 20, "there are orphans to reap");
    within(PATIENCE, "all orphans to be gone", || children(init).is_empty().then_some(()));
    let mut client = outer.client();
    assert_eq!(client.get("/").response().status, 200);
    drop(client);
    let pid = rustix::process::Pid::from_raw(init.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    outer.wait_clean_exit();
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
