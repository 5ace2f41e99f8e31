//! Every limit of connections: how many, from where, and how old.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::client::{Client, End, get};
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{PATIENCE, admin, ms, pause, within};

/// So many connections were closed for this reason.
fn closed(proxy: &Proxy, reason: &str) -> f64 {
    let name = format!("ebbtide_connections_closed_total{{reason=\"{reason}\"}}");
    admin::metric(&proxy.admin(), &name)
}

#[test]
fn one_too_many_from_an_address_is_told_and_its_place_is_given_back() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().set("limits.connections_per_address", "2").start();
    let (first, mut second) = (proxy.idle_client(), proxy.idle_client());
    let mut third = proxy.client();
    let told = third.response();
    assert_eq!(told.status, 503);
    assert!(told.says_close());
    let why = told.field("proxy-status").expect("Proxy-Status");
    assert!(why.contains("ebbtide"), "{why}");
    assert_eq!(third.end(), End::Eof);
    drop(third);
    second.get("/stays");
    assert_eq!(second.response().status, 200, "those who are in stay");

    drop(first);
    within(PATIENCE, "the place to be free again", || {
        let mut newcomer = proxy.client();
        newcomer.try_send(get("/in")).ok()?;
        newcomer.try_response().ok().filter(|response| response.status == 200)
    });
    assert_eq!(origin.requests_for("/stays").len(), 1);
}

#[test]
fn response_on_a_connection_that_is_too_old_says_close() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().set("limits.connection_age", "1s").start();
    let mut client = proxy.client();
    let connected = Instant::now();
    within(PATIENCE, "a response that says close", || {
        client.get("/again");
        let response = client.response();
        assert_eq!(response.status, 200);
        response.says_close().then_some(())
    });
    // The proxy's clock is that of its last look: a moment behind the accept, not more.
    assert!(connected.elapsed() >= ms(990), "too early: {:?}", connected.elapsed());
    assert_eq!(client.end(), End::Eof);
    within(PATIENCE, "the close to be counted", || (closed(&proxy, "age") == 1.0).then_some(()));
}

#[test]
fn idle_connection_that_is_too_old_is_ended_by_a_fin() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("limits.connection_age", "1s").start();
    let mut client = proxy.idle_client();
    assert_eq!(client.end(), End::Eof);
}

#[test]
fn newcomers_wait_while_there_are_as_many_connections_as_may_be() {
    let origin = Origin::new();
    // With one worker the limit is exact.
    let proxy =
        Launch::before(&origin).arg("--workers").arg("1").set("limits.connections", "2").start();
    let mut active: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for (n, client) in active.iter_mut().enumerate() {
        client.get(&format!("/hold/{n}"));
        origin.wait_started(&format!("/hold/{n}"));
    }
    let mut newcomer = proxy.client();
    newcomer.get("/waits");
    newcomer.hears_nothing_for(ms(400));
    assert!(origin.requests_for("/waits").is_empty());
    assert!(!proxy.events("connection_limit_reached").is_empty(), "it is said");

    origin.release("/hold/0");
    assert_eq!(active[0].response().text(), "held");
    // Now idle, it makes room.
    assert_eq!(newcomer.response().text(), "GET /waits 0");
    assert_eq!(active[0].end(), End::Eof);
    origin.release("/hold/1");
    assert_eq!(active[1].response().text(), "held", "whoever is active is left alone");
}

#[test]
fn whoever_has_been_idle_longest_makes_room() {
    let origin = Origin::new();
    let proxy =
        Launch::before(&origin).arg("--workers").arg("1").set("limits.connections", "3").start();
    let mut idle: Vec<Client> = Vec::new();
    for _ in 0..3 {
        idle.push(proxy.idle_client());
        pause(ms(250));
    }
    let mut newcomer = proxy.client();
    newcomer.get("/room");
    assert_eq!(newcomer.response().status, 200);
    assert_eq!(idle[0].end(), End::Eof, "the oldest");
    // Longer than it takes to look for room again.
    pause(ms(700));
    for client in &mut idle[1..] {
        client.get("/still");
        assert_eq!(client.response().status, 200, "nobody else");
    }
}

/// An app server that takes one connection after the other from a queue of one.
struct Narrow {
    over: Arc<AtomicBool>,
    place: Place,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Narrow {
    fn new(path: &Path) -> Narrow {
        let place = Place::Unix(path.to_owned());
        let socket = place.socket();
        socket.bind(&place.sock_addr()).unwrap();
        socket.listen(1).unwrap();
        let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
        let over = Arc::new(AtomicBool::new(false));
        let ours = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while let Ok((sock, _)) = listener.accept() {
                if ours.load(Ordering::SeqCst) {
                    return;
                }
                serve_slowly(sock);
            }
        });
        Narrow { over, place, thread: Some(thread) }
    }
}

fn serve_slowly(mut sock: UnixStream) {
    let mut head = Vec::new();
    let mut octets = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match sock.read(&mut octets) {
            Ok(n) if n > 0 => head.extend_from_slice(&octets[..n]),
            _ => return,
        }
    }
    pause(ms(3));
    let _ = sock.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.place.socket().connect(&self.place.sock_addr());
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn full_queue_of_a_unix_upstream_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let narrow = Narrow::new(&dir.path().join("app"));
    let proxy = Launch::before_addr(&narrow.place.to_string())
        .set("upstream.connect_timeout", "60s")
        .start();
    let place = proxy.place();
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                let mut client = Client::connect(&place);
                for _ in 0..3 {
                    client.get("/narrow");
                    let response = client.response();
                    assert_eq!(response.status, 200, "{}", response.text());
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(served.into_inner(), 90);
}
