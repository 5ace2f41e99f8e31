//! Where the new process listens: what its configuration says, with the sockets of the
//! old one where they are the same.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Output;

use rustix::process::Signal;

use super::{LEAVES_WITHIN, app, start, upgrade_whole};
use crate::support::admin;
use crate::support::client::{Client, End, get};
use crate::support::crowd::Crowd;
use crate::support::generations::Generations;
use crate::support::h2::H2;
use crate::support::origin::Origin;
use crate::support::process::{Launch, is_privileged};
use crate::support::shelf::Shelf;
use crate::support::wire::Place;
use crate::support::{PATIENCE, ms, within};

/// Clients with a connection for each request, until they are told to end or nobody
/// listens: then they say so. Nobody is reset.
fn knockers(place: &Place, many: u64) -> Crowd<bool> {
    let place = place.clone();
    Crowd::start(many, move |_, crowd| {
        while !crowd.is_over() {
            let mut client = match Client::try_connect(&place, PATIENCE) {
                Ok(client) => client,
                Err(End::Refused) => return true,
                // Its handshake was not answered: it never believed anything.
                Err(End::TimedOut) => continue,
                Err(end) => panic!("connect: {end:?}"),
            };
            client.send(get("/knock").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
            let response = client.try_response();
            let response = response.unwrap_or_else(|it| panic!("connected, then {it:?}"));
            assert_eq!(response.text(), "GET /knock 0");
            crowd.serve();
        }
        false
    })
}

/// None of them was refused.
#[track_caller]
fn all_served(knockers: Crowd<bool>) {
    assert!(!knockers.end().contains(&true), "somebody was refused");
}

/// Each of them is refused in the end.
#[track_caller]
fn all_refused(knockers: Crowd<bool>) {
    assert!(!knockers.wait().contains(&false), "somebody was not refused");
}

#[test]
fn ports_that_the_kernel_chose_are_kept() {
    let origin = app();
    let line = Generations::start_with_metrics(Launch::before(&origin).tls());
    let [http, https] = ["http", "https"].map(|proto| line.place_of(proto, 0));
    for generation in 2..=4_u64 {
        upgrade_whole(&line);
        let mut client = Client::connect(&http);
        client.get("/http");
        assert_eq!(client.response().text(), "GET /http 0");
        let mut h2 = H2::connect_tls(&https);
        let stream = h2.get("/https");
        assert_eq!(h2.response(stream).text(), "GET /https 0");
        assert_eq!(admin::status(line.admin_place())["generation"], generation);
        // The connection over TLS would hold the process.
        drop(h2);
    }
}

#[test]
fn unix_listeners_keep_their_path_and_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.sock");
    let origin = app();
    let listen = format!("unix:{},mode=0660", path.display());
    let line = Generations::start(Launch::before(&origin).listen(&listen));
    let inode = || std::fs::metadata(&path).unwrap().ino();
    let (before, mut idle) = (inode(), line.idle_client());
    let knockers = knockers(&line.place(), 4);
    for _ in 0..3 {
        knockers.go_on();
        upgrade_whole(&line);
        assert_eq!(inode(), before);
        idle.get("/idle");
        assert_eq!(idle.response().text(), "GET /idle 0");
    }
    all_served(knockers);
    drop(idle);
    let admin = line.admin_place().clone();
    assert_eq!(line.stop().code, Some(0));
    assert!(!path.exists(), "the last one takes its path away");
    let Place::Unix(admin) = admin else { panic!("{admin}") };
    assert!(!admin.exists(), "that of the admin interface too");
}

pub(super) fn write(
    shelf: &Shelf,
    origin: &Origin,
    listen: &[&str],
    more: &str,
) -> std::path::PathBuf {
    let (listen, place) = (format!("{listen:?}"), origin.place());
    let text = format!("listen = {listen}\nupstream.endpoints = [\"{place}\"]\n{more}");
    shelf.write("ebbtide.toml", &text)
}

/// Addresses that nobody has: no outgoing connection takes these ports.
pub(super) fn addresses<const N: usize>() -> [String; N] {
    let host = format!("127.{}.8.1", 100 + std::process::id() % 100);
    let held = [(); N].map(|()| std::net::TcpListener::bind((&*host, 0)).unwrap());
    held.each_ref().map(|listener| listener.local_addr().unwrap().to_string())
}

fn changed_configuration(prepare: impl FnOnce(Launch) -> Launch) {
    let (origin, shelf) = (app(), Shelf::new());
    let [kept, gone, new] = addresses();
    let file = write(&shelf, &origin, &[&kept, &gone], "");
    let line = Generations::start(prepare(Launch::configured(&file)));
    let place = |address: &str| Place::parse(address);
    let mut idle = Client::connect(&place(&gone));
    idle.get("/idle");
    assert_eq!(idle.response().status, 200);
    let [on_kept, on_gone] = [&kept, &gone].map(|it| knockers(&place(it), 6));
    on_kept.go_on();
    on_gone.go_on();
    write(&shelf, &origin, &[&kept, &new], "[timeouts]\nhead = \"7s\"\n");
    upgrade_whole(&line);
    all_refused(on_gone);
    on_kept.go_on();
    let on_new = knockers(&place(&new), 2);
    on_new.go_on();
    // Who was connected at an address that is no more goes on all the same.
    idle.get("/still");
    assert_eq!(idle.response().text(), "GET /still 0");
    // And back again.
    write(&shelf, &origin, &[&gone, &kept], "");
    upgrade_whole(&line);
    all_refused(on_new);
    let again = knockers(&place(&gone), 2);
    again.go_on();
    all_served(again);
    all_served(on_kept);
}

#[test]
fn changed_configuration_keeps_binds_and_closes_without_a_reset() {
    changed_configuration(|launch| launch);
}

#[test]
fn changed_configuration_closes_without_a_reset_also_where_nothing_can_be_filtered() {
    use rustix::thread::CapabilitySet;
    changed_configuration(|launch| match is_privileged() {
        true => launch.without(CapabilitySet::NET_ADMIN),
        false => launch,
    });
}

fn at_path(launch: Launch, path: &Path) -> Launch {
    launch.arg("--takeover").arg(path.display().to_string())
}

/// Successors that somebody else starts, one after the other, at one path.
#[test]
fn process_that_somebody_else_started_takes_over() {
    let origin = app();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("takeover.sock");
    let launch = || at_path(Launch::before(&origin).set("upgrade.timeout", "5s"), &path);
    let line = Generations::start(launch());
    let place = line.place();
    let mut idle = line.idle_client();
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    let knockers = knockers(&place, 4);
    let mut others = Vec::new();
    for generation in 2..=4_u64 {
        knockers.go_on();
        let launch = launch().arg("--admin").arg(line.admin_place().to_string());
        let next = launch.start();
        assert_eq!(next.place(), place, "the listener is named alike, and is the same");
        let status = within(PATIENCE, "the newest to answer", || {
            let status = line.status();
            (status["pid"] == next.pid).then_some(status)
        });
        assert_eq!(status["generation"], generation);
        idle.get("/idle");
        let response = idle.response();
        assert!(response.text() == "GET /idle 0" && !response.says_close());
        others.push(next);
    }
    assert!(line.runs(), "what it was doing goes on");
    origin.release("/hold/1");
    let response = held.response();
    assert!(response.text() == "held" && !response.says_close());
    assert_eq!(line.proxy_exit(), 0);
    held.get("/after");
    assert_eq!(held.response().text(), "GET /after 0");
    all_served(knockers);
    let last = others.pop().unwrap();
    for other in &others {
        other.wait_clean_exit();
    }
    drop((held, idle));
    last.terminate();
    last.wait_clean_exit();
    assert!(!path.exists(), "the last one takes its path away");
}

/// By a signal too, where there is a path: the path is the successor's then.
#[test]
fn path_for_successors_goes_with_the_rest() {
    let origin = app();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("takeover.sock");
    let line = Generations::start(at_path(Launch::before(&origin), &path));
    let inode = std::fs::metadata(&path).unwrap().ino();
    upgrade_whole(&line);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    let launch = at_path(Launch::before(&origin), &path);
    let next = launch.arg("--admin").arg(line.admin_place().to_string()).start();
    assert_eq!(line.status()["generation"], 3);
    assert_eq!(next.place(), line.place());
    line.wait_alive(0);
    next.terminate();
    next.wait_clean_exit();
}

#[test]
fn signal_and_command_do_the_same() {
    let (_origin, line) = start(|launch| launch);
    line.upgrade();
    let said = |output: &Output| {
        let both = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        both.concat()
    };
    let output = line.command(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(line.newest().generation, 3, "it serves once the command has ended");
    let output = line.command(&["--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains('4'), "the progress names it: {}", said(&output));
    assert_eq!(line.newest().generation, 4);
}

/// `--wait` waits for the old one to have gone.
#[test]
fn command_waits_for_the_elder_if_it_is_told() {
    let (origin, line) = start(|launch| launch);
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    let elder = line.newest();
    let mut waiting = line.commanded(&["--wait"]).spawn().unwrap();
    within(PATIENCE, "the newest", || (line.newest().generation == 2).then_some(()));
    crate::support::pause(ms(300));
    assert!(!elder.is_gone());
    origin.release("/hold/1");
    assert_eq!(held.response().text(), "held");
    let status = within(PATIENCE, "the command", || waiting.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    elder.wait_gone(LEAVES_WITHIN);
}

/// In a container the first process cannot be replaced, and says what can be done.
#[test]
fn first_process_of_a_container_refuses_and_names_the_other_way() {
    assert!(is_privileged(), "only root can begin a namespace of processes");
    let (origin, shelf) = (app(), Shelf::new());
    let binary = env!("CARGO_BIN_EXE_ebbtide");
    let script =
        format!("#!/bin/sh\nexec /usr/bin/unshare -pf --kill-child --mount-proc {binary} \"$@\"\n");
    shelf.put_script(&script, 0o755);
    let line = Generations::start(Launch::before(&origin).binary(&shelf.path()));
    assert_eq!(line.status()["pid"], 1);
    let output = line.command(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in ["process 1", "takeover"] {
        assert!(said.contains(word), "no {word} in {said}");
    }
    let outside = *line.alive().iter().find(|&&pid| pid != line.pid).expect("the inner one");
    line.member(outside, 1).unwrap().signal(Signal::USR2);
    within(PATIENCE, "the refusal", || line.said().contains("takeover").then_some(()));
    let mut client = line.idle_client();
    client.get("/still");
    assert_eq!(client.response().text(), "GET /still 0");
    assert!(line.events("upgrade_started").is_empty());
}
