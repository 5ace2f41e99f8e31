//! What happens to a successor between its start and its first client.

use std::path::PathBuf;

use rustix::process::Signal;

use super::strangers::{BadElder, taking_over};
use super::{Bench, assert_says};
use crate::support::client::Client;
use crate::support::generations::Generations;
use crate::support::origin::{Origin, standard};
use crate::support::process::{Launch, is_privileged};
use crate::support::shelf::Shelf;
use crate::support::{PATIENCE, ms, pause, within};

/// Starts a successor that is told to stop as soon as it hears of that, while its elder
/// stands still: it has to end all the same.
fn stopped_by(signal: &str, elder: u32) -> String {
    let binary = env!("CARGO_BIN_EXE_ebbtide");
    // The script is the launcher. Without the guard it might wait for ever.
    format!(
        "#!/bin/sh\nunset EBBTIDE_HANDOFF_LAUNCH\nEBBTIDE_HANDOFF=${{EBBTIDE_HANDOFF%,*}}\n\
         kill -STOP {elder}\n{binary} \"$@\" &\npid=$!\n\
         (sleep 6; kill -CONT {elder}) >/dev/null 2>&1 &\nguard=$!\n\
         until grep -q '^SigCgt:.*[4-7c-f]...$' /proc/$pid/status; do sleep 0.01; done\n\
         kill -{signal} $pid\nwait $pid\necho $? >\"$0.status\"\n\
         kill $guard\nkill -CONT {elder}\n"
    )
}

#[test]
fn successor_that_is_told_to_stop_ends_and_costs_nothing() {
    let mut bench = Bench::with(|launch, _| launch.set("upgrade.timeout", "20s"));
    for signal in ["TERM", "INT", "QUIT"] {
        let elder = bench.line.pid;
        // A shell has what it starts in the background ignore the other two, which is
        // undone by whoever registers for them.
        bench.shelf.put_script(&stopped_by(signal, elder), 0o755);
        bench.fails(&["told to stop"]);
        let status = PathBuf::from(format!("{}.status", bench.shelf.path().display()));
        assert_eq!(std::fs::read_to_string(&status).unwrap().trim(), "0", "{signal}");
        assert_eq!(bench.line.events("phase").len(), 1, "the first one's");
    }
    bench.goes_on();
}

#[test]
fn elder_that_stands_still_keeps_nobody_from_ending() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::new();
    for mode in ["silent", "begins"] {
        let socket = directory.path().join(format!("{mode}.sock"));
        let mut elder = BadElder::start(&socket, mode);
        let proxy = taking_over(Launch::before(&origin), &socket).spawn();
        elder.wait_heard(if mode == "silent" { "hello" } else { "ready" });
        proxy.terminate();
        let exit = proxy.wait_exit();
        assert_eq!(exit.code(), 0, "{mode}: {}", proxy.said());
        assert!(proxy.events("ready").is_empty() && proxy.events("listening").is_empty());
        let last = elder.heard().into_iter().find(|message| message["type"] == "failed");
        assert_says(last.unwrap()["error"].as_str().unwrap(), &["told to stop"]);
    }
}

#[test]
fn elder_that_never_lets_go_is_waited_for_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::new();
    let socket = directory.path().join("takeover.sock");
    let _elder = BadElder::start(&socket, "begins");
    let launch = Launch::before(&origin).set("upgrade.timeout", "1s");
    let proxy = taking_over(launch, &socket).spawn();
    assert_eq!(proxy.wait_exit().code(), 1, "{}", proxy.said());
    assert_says(&proxy.said(), &["start_failed", "said nothing for 1s"]);
}

/// A process that starts with half of what it was to have says so.
#[test]
fn elder_that_ends_in_the_middle_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::new();
    let socket = directory.path().join("takeover.sock");
    let _elder = BadElder::start(&socket, "ends-after-welcome");
    let proxy = taking_over(Launch::before(&origin), &socket).start();
    let gone = proxy.wait_event("predecessor_gone");
    assert_eq!((gone.number("generation"), gone.number("given")), (2, 0));
    proxy.terminate();
    proxy.wait_clean_exit();
}

/// It waits for those before its elder, and accepts nobody meanwhile: who comes then is
/// still the elder's if it is lost.
#[test]
fn successor_lets_nobody_in_before_it_says_so() {
    let origin = Origin::scripted(standard).letting_go();
    let line = Generations::start(Launch::before(&origin));
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    let (oldest, _) = line.upgrade();
    let elder = line.newest();
    assert_eq!(elder.generation, 2);
    oldest.signal(Signal::STOP);
    elder.signal(Signal::USR2);
    let ready = line.wait_nth("upgrade_ready", 1);
    let pid = u32::try_from(ready.number("successor")).unwrap();
    let successor = line.member(pid, 3).unwrap();
    // It has been let go when it names its listeners.
    let named =
        || line.events("listening").into_iter().filter(|event| event.fields["proto"] == "http");
    within(PATIENCE, "a successor that is let go", || (named().count() == 3).then_some(()));
    elder.signal(Signal::STOP);
    let mut clients: Vec<Client> = (0..8).map(|_| line.client()).collect();
    for client in &mut clients {
        client.get("/hold/2");
    }
    pause(ms(200));
    let late = line.events("ready").len() > 2;
    successor.signal(Signal::KILL);
    elder.signal(Signal::CONT);
    if late {
        eprintln!("not tried: this machine was too slow");
        oldest.signal(Signal::CONT);
        return;
    }
    origin.release("/hold/2");
    for client in &mut clients {
        assert_eq!(client.response().text(), "held");
    }
    oldest.signal(Signal::CONT);
    origin.release("/hold/1");
    assert_eq!(held.response().text(), "held");
    assert_eq!(line.newest().pid, elder.pid);
}

/// It would have listeners that nobody reaches where it lives, and look well.
#[test]
fn successor_in_another_network_is_refused_by_itself() {
    if !is_privileged() {
        eprintln!("not tried: only root can begin a network namespace");
        return;
    }
    let (origin, shelf) = (Origin::new(), Shelf::new());
    let socket = shelf.file("takeover.sock");
    let launch = || taking_over(Launch::before(&origin).admin(), &socket);
    let elder = launch().start();
    // The listener for clients, and where it is another one that of the admin interface.
    for (n, launch) in [launch(), launch().listen("127.0.0.2:0")].into_iter().enumerate() {
        let proxy = launch.under(&["unshare", "--net"]).shell("ip link set lo up").spawn();
        assert_eq!(proxy.wait_exit().code(), 1, "{}", proxy.said());
        assert_says(&proxy.said(), &["start_failed", "127.0.0.1:", "network namespace"]);
        let failed = || elder.events("upgrade_failed").into_iter().nth(n);
        assert_says(within(PATIENCE, "its failure", failed).text("error"), &["namespace"]);
    }
    elder.idle_client();
    // The same where it is the same network.
    let next = launch().under(&["unshare", "--mount"]).start();
    assert_eq!(next.place(), elder.place());
    elder.wait_clean_exit();
    next.terminate();
    next.wait_clean_exit();
}
