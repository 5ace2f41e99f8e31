//! Sockets that somebody else has opened: taken by name or by address, and left to them
//! when the process stops.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use crate::manager::own_address;
use crate::support::client::{Client, End};
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{PATIENCE, admin, within};

/// Has the process find a copy of `socket` as systemd passes it.
fn pass(launch: Launch, socket: &impl std::os::fd::AsFd, name: &str) -> Launch {
    let copy: OwnedFd = socket.as_fd().try_clone_to_owned().expect("a copy");
    let variables = format!("export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}");
    launch.stdin(copy).shell("exec 3<&0 </dev/null").shell(variables)
}

fn tcp() -> (TcpListener, Place) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = Place::Tcp(listener.local_addr().expect("it is bound"));
    (listener, place)
}

fn asked(place: &Place) -> Client {
    let mut client = Client::connect(place);
    client.get("/asked");
    client
}

fn assert_answered(mut client: Client) {
    assert_eq!(client.response().text(), "GET /asked 0");
}

/// A process that takes the socket, is stopped while it has work, and the next one.
fn holder_keeps_the_queue(socket: &impl std::os::fd::AsFd, place: &Place, listen: &str) {
    let origin = Origin::new();
    let start = || pass(Launch::before(&origin).listen(listen), socket, "web").start();
    let first = start();
    assert_eq!(&first.place(), place);
    assert_answered(asked(place));
    let mut held = Client::connect(place);
    held.get("/hold");
    origin.wait_started("/hold");
    first.terminate();
    let closed = first.wait_event("listener_closed");
    assert_eq!(closed.text("way"), "shared", "{}", closed.fields);
    let queued: Vec<Client> = (0..20).map(|_| asked(place)).collect();
    origin.release("/hold");
    held.response();
    drop(held);
    first.wait_clean_exit();
    let late = asked(place);
    let second = start();
    queued.into_iter().chain([late]).for_each(assert_answered);
    second.terminate();
    second.wait_clean_exit();
}

#[test]
fn a_socket_by_name_keeps_its_queue_for_the_next_start() {
    let (socket, place) = tcp();
    holder_keeps_the_queue(&socket, &place, "fd:web");
}

#[test]
fn a_socket_by_address_is_used_instead_of_one_of_our_own() {
    let (socket, place) = tcp();
    holder_keeps_the_queue(&socket, &place, &place.to_string());
}

#[test]
fn a_unix_socket_keeps_its_path_and_its_queue() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("web.sock");
    let socket = UnixListener::bind(&path).expect("a listener");
    let place = Place::Unix(path.clone());
    holder_keeps_the_queue(&socket, &place, "fd:web");
    holder_keeps_the_queue(&socket, &place, &place.to_string());
    assert!(path.exists());
}

#[test]
fn an_admin_socket_is_taken_by_name() {
    let origin = Origin::new();
    let (socket, place) = tcp();
    let launch = Launch::before(&origin).arg("--admin").arg("fd:status");
    let proxy = pass(launch, &socket, "status").start();
    assert_eq!(proxy.admin(), place);
    assert_eq!(admin::get(&place, "/readyz").status, 200);
    proxy.terminate();
    proxy.wait_clean_exit();
    Client::connect(&place);
}

#[test]
fn a_name_that_nobody_has_given_is_an_error_that_says_so() {
    let origin = Origin::new();
    let (socket, _place) = tcp();
    let launches = [
        Launch::before(&origin).listen("fd:web"),
        pass(Launch::before(&origin).listen("fd:web"), &socket, "wbe"),
        pass(Launch::before(&origin).arg("--admin").arg("fd:web"), &socket, "wbe"),
    ];
    for (n, launch) in launches.into_iter().enumerate() {
        let proxy = launch.spawn();
        let failed = proxy.wait_event("start_failed");
        let message = failed.text("message").to_owned();
        assert!(message.contains("fd:web") && message.contains("systemd"), "{message}");
        assert_eq!(message.contains("as fd:wbe"), n > 0, "what there is is named: {message}");
        assert_eq!(proxy.wait_exit().code(), 1);
    }
}

/// `ListenStream=80` is every address of both families, `:80` that of one.
#[test]
fn an_address_that_systemd_has_in_other_words_is_an_error_that_names_both() {
    let origin = Origin::new();
    let socket = TcpListener::bind("[::]:0").expect("a listener");
    let passed = socket.local_addr().expect("it is bound");
    let listen = format!(":{}", passed.port());
    let proxy = pass(Launch::before(&origin).listen(&listen), &socket, "ebbtide.socket").spawn();
    let message = proxy.wait_event("start_failed").text("message").to_owned();
    let named = [&format!("0.0.0.0{listen}"), "in use", &format!("{passed} as fd:ebbtide.socket")];
    assert!(named.iter().all(|name| message.contains(*name)), "{message}");
    assert_eq!(proxy.wait_exit().code(), 1);
}

#[test]
fn a_socket_that_nobody_claims_is_closed_with_a_warning() {
    let origin = Origin::new();
    let (socket, place) = tcp();
    let proxy = pass(Launch::before(&origin), &socket, "extra").start();
    let warning = proxy.wait_event("socket_unclaimed");
    assert_eq!(warning.text("name"), "extra");
    assert_eq!(warning.text("addr"), place.to_string());
    drop(socket);
    // Children that other tests have just forked may have it for a moment.
    within(PATIENCE, "it to be closed", || {
        (Client::try_connect(&place, PATIENCE).err() == Some(End::Refused)).then_some(())
    });
    proxy.terminate();
    proxy.wait_clean_exit();
}

#[test]
fn what_is_no_listening_socket_is_an_error() {
    let origin = Origin::new();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let proxy = pass(Launch::before(&origin).listen("fd:web"), &socket, "web").spawn();
    let message = proxy.wait_event("start_failed").text("message").to_owned();
    assert!(message.contains("fd:web"), "{message}");
    assert_eq!(proxy.wait_exit().code(), 1);
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let origin = Origin::new();
    let (socket, _place) = tcp();
    let launch = pass(Launch::before(&origin), &socket, "web").shell("export LISTEN_PID=1");
    let proxy = launch.start();
    assert!(proxy.events("socket_unclaimed").is_empty());
    proxy.terminate();
    proxy.wait_clean_exit();
}

/// Several sockets of the real tool: two of one name, one by its address, one for the admin.
#[test]
fn systemd_socket_activate_starts_it_with_the_first_client() {
    let origin = Origin::new();
    let [one, two, three, status] = [(); 4].map(|()| own_address());
    let listen = three.to_string();
    let tool = ["systemd-socket-activate", "--fdname=web:web:other:status"];
    let addresses = [&one, &two, &three, &status].map(|place| format!("--listen={place}"));
    let words: Vec<&str> = tool.into_iter().chain(addresses.iter().map(String::as_str)).collect();
    let launch = Launch::before(&origin).listen("fd:web").arg("--listen").arg(&listen);
    let proxy: Proxy = launch.arg("--admin").arg("fd:status").under(&words).spawn();
    let mut client =
        within(PATIENCE, "the tool listens", || Client::try_connect(&one, PATIENCE).ok());
    client.get("/asked");
    proxy.wait_event("ready");
    assert_answered(client);
    let first: Vec<Place> = (0..3).map(|n| proxy.place_of("http", n)).collect();
    assert_eq!(first, [one, two.clone(), three.clone()]);
    assert_answered(asked(&two));
    assert_answered(asked(&three));
    assert_eq!(admin::get(&status, "/livez").status, 200);
    proxy.terminate();
    proxy.wait_clean_exit();
    assert!(proxy.events("socket_unclaimed").is_empty());
}
