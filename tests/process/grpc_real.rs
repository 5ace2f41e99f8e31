//! gRPC's own client before ebbtide and its own server behind it: every kind of call,
//! its deadline and its cancellation, on an ordinary day and during a drain.

use crate::support::grpc::{Client, Finish, Server};
use crate::support::identity::Identity;
use crate::support::process::{Launch, Proxy};
use crate::way::{Way, both_ways};

const OK: u64 = 0;
const CANCELLED: u64 = 1;
const DEADLINE_EXCEEDED: u64 = 4;
const FAILED_PRECONDITION: u64 = 9;
const UNAVAILABLE: u64 = 14;

fn launch(server: &Server) -> Launch {
    Launch::before_addr(&server.upstream())
}

fn start(launch: Launch) -> (Proxy, Client) {
    let proxy = launch.start();
    let client = Client::new(proxy.place().port(), None);
    (proxy, client)
}

#[track_caller]
fn is_whole(finish: &Finish, sizes: &[u64]) {
    assert_eq!((finish.code, finish.sizes.as_slice()), (OK, sizes), "{finish:?}");
    let [initial, trailing] = &finish.metadata;
    assert_eq!((&initial["x-initial"], &trailing["x-trailing"]), (&"yes".into(), &"yes".into()));
}

fn every_kind_of_call_passes(way: Way) {
    let server = Server::start();
    let identity = Identity::new();
    let proxy = match way {
        Way::Clear => launch(&server),
        Way::Tls => {
            launch(&server).arg("--tls-listen").arg("127.0.0.1:0").identity(&identity.files)
        }
    };
    let proxy = proxy.start();
    let trusted = (way == Way::Tls).then_some(&*identity.authority);
    let mut client = Client::new(way.place(&proxy).port(), trusted);

    for (mark, size) in [("empty", 0), ("small", 10), ("large", 5_000_000)] {
        client.call(mark, "Unary", size, &[]);
        is_whole(&client.finish(mark), &[size]);
    }
    client.call("down", "ServerStream", 100_000, &[("x-count", 50)]);
    is_whole(&client.finish("down"), &[100_000; 50]);
    client.call("up", "ClientStream", 0, &[]);
    for _ in 0..50 {
        client.send("up", 100_000);
    }
    client.end("up");
    let finish = client.finish("up");
    assert_eq!(finish.text, "50 5000000");
    client.call("both", "Bidi", 0, &[]);
    for size in [1, 70_000, 0] {
        client.send("both", size);
        assert_eq!(client.receive("both"), Some(size), "each waits for the other");
    }
    client.end("both");
    is_whole(&client.finish("both"), &[1, 70_000, 0]);
    client.call("fails", "Fail", 1, &[("x-status", FAILED_PRECONDITION)]);
    let finish = client.finish("fails");
    assert_eq!(finish.code, FAILED_PRECONDITION);
    assert_eq!(finish.details, "as it was asked to: 100 % \u{fc}");
    assert_eq!(finish.metadata[1]["x-trailing"], "yes");
}

both_ways! { every_kind_of_call_passes }

#[test]
fn deadline_of_a_call_is_its_servers_as_well() {
    let server = Server::start();
    let (_proxy, mut client) = start(launch(&server));
    client.call_within(1.5, "late", "Unary", 1, &[("x-hold", 60_000)]);
    let left = server.wait("began", "late")["left"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 1.5, "{left}");
    assert_eq!(client.finish("late").code, DEADLINE_EXCEEDED);
    assert_eq!(server.wait("answered", "late")["active"], false);
}

#[test]
fn cancellation_reaches_the_server_and_only_its_call() {
    let server = Server::start();
    let (_proxy, mut client) = start(launch(&server).arg("--workers").arg("1"));
    client.call("stays", "Bidi", 0, &[]);
    client.call("goes", "Unary", 1, &[("x-hold", 60_000)]);
    server.wait("began", "stays");
    server.wait("began", "goes");
    client.cancel("goes");
    assert_eq!(client.finish("goes").code, CANCELLED);
    assert_eq!(server.wait("answered", "goes")["active"], false);
    client.send("stays", 7);
    assert_eq!(client.receive("stays"), Some(7));
    client.end("stays");
    is_whole(&client.finish("stays"), &[7]);
}

#[test]
fn every_kind_of_call_finishes_during_a_drain() {
    let server = Server::start();
    let (proxy, mut client) = start(launch(&server));
    client.call("one", "Unary", 10, &[("x-hold", 800)]);
    client.call("down", "ServerStream", 1_000, &[("x-count", 40), ("x-hold", 20)]);
    client.call("up", "ClientStream", 0, &[]);
    client.call("both", "Bidi", 0, &[]);
    client.call("fails", "Bidi", 0, &[]);
    client.send("both", 3);
    assert_eq!(client.receive("both"), Some(3));
    assert_eq!(client.receive("down"), Some(1_000));
    for mark in ["one", "up", "fails"] {
        server.wait("began", mark);
    }
    proxy.terminate();
    proxy.wait_phase("draining");
    client.send("up", 5);
    client.send("both", 4);
    assert_eq!(client.receive("both"), Some(4));
    client.cancel("fails");
    assert_eq!(client.finish("fails").code, CANCELLED);
    server.wait("over", "fails");
    client.end("up");
    client.end("both");
    is_whole(&client.finish("one"), &[10]);
    is_whole(&client.finish("down"), &[1_000; 40]);
    is_whole(&client.finish("up"), &[3]);
    is_whole(&client.finish("both"), &[3, 4]);
    proxy.wait_clean_exit();
}

#[test]
fn deadline_during_a_drain_ends_the_call_and_with_it_the_drain() {
    let server = Server::start();
    let (proxy, mut client) = start(launch(&server));
    client.call_within(1.5, "late", "Bidi", 1, &[]);
    client.send("late", 3);
    assert_eq!(client.receive("late"), Some(3));
    proxy.terminate();
    proxy.wait_phase("draining");
    assert_eq!(client.finish("late").code, DEADLINE_EXCEEDED);
    server.wait("over", "late");
    proxy.wait_clean_exit();
}

#[test]
fn stream_that_does_not_end_is_told_two_seconds_before_the_deadline() {
    let server = Server::start();
    let (proxy, mut client) = start(launch(&server).stop("drain_timeout", "3s"));
    client.call("both", "Bidi", 0, &[]);
    client.call("one", "Unary", 1, &[("x-hold", 60_000), ("x-silent", 1)]);
    client.send("both", 3);
    assert_eq!(client.receive("both"), Some(3));
    server.wait("began", "one");
    proxy.terminate();
    let finish = client.finish("both");
    assert_eq!((finish.code, finish.sizes.as_slice()), (UNAVAILABLE, &[3][..]), "{finish:?}");
    server.wait("over", "both");
    assert!(proxy.runs(), "a call without an answer has two seconds more");
    assert_eq!(client.finish("one").code, DEADLINE_EXCEEDED, "it may have been executed");
    assert_eq!(proxy.wait_exit().code(), 3);
    let cut = proxy.events("request_cut");
    assert_eq!(cut.len(), 2, "both are named: {cut:?}");
}
