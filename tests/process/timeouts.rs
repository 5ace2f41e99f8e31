//! Every bound on waiting for a client: what comes too slowly, too late or not at
//! all is ended, told where it can be told, and counted.

use std::time::Instant;

use crate::support::client::{Client, End, post_head};
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::{PATIENCE, admin, ms, pattern, within};

/// The most by which a timer may be late when nothing drains, and a busy machine.
const LATE: std::time::Duration = std::time::Duration::from_secs(5);

fn wait_closed(proxy: &Proxy, reason: &str) {
    let name = format!("ebbtide_connections_closed_total{{reason=\"{reason}\"}}");
    within(PATIENCE, &format!("a close by {reason} to be counted"), || {
        (admin::metric(&proxy.admin(), &name) == 1.0).then_some(())
    });
}

#[test]
fn idle_connection_is_ended_by_a_fin_after_the_idle_timeout() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().set("timeouts.idle", "600ms").start();
    let before = Instant::now();
    let mut client = proxy.idle_client();
    assert_eq!(client.end(), End::Eof);
    assert!(before.elapsed() >= ms(600), "never early: {:?}", before.elapsed());
    assert!(before.elapsed() < ms(600) + LATE, "{:?}", before.elapsed());
    wait_closed(&proxy, "idle");
}

#[test]
fn client_that_never_reads_its_response_is_left_and_its_request_cancelled() {
    let origin = Origin::scripted(|conn, _| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        let piece = pattern(64 * 1024);
        loop {
            conn.send(&piece)?;
        }
    });
    let proxy = Launch::before(&origin).admin().set("timeouts.send", "500ms").start();
    let mut client = Client::connect_narrow(&proxy.place(), 4096);
    let before = Instant::now();
    client.get("/flood");
    let request = origin.wait_started("/flood");
    origin.wait_connection_end(request.connection);
    assert!(before.elapsed() >= ms(500), "never early: {:?}", before.elapsed());
    let (end, got) = client.rest();
    assert!(matches!(end, End::Reset | End::Eof), "{end:?}");
    assert!(got.len() < 1_000_000_000);
    within(PATIENCE, "nobody to be left", || {
        let connections = &admin::status(&proxy.admin())["connections"]["h1"];
        let left = ["fresh", "reading", "active", "idle", "closing"];
        left.iter().all(|state| connections[state] == 0).then_some(())
    });
    proxy.terminate();
    assert_eq!(proxy.wait_exit().code(), 0, "it was over before the stop");
}

#[test]
fn slow_reader_that_goes_on_reading_gets_all_of_its_response() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("timeouts.send", "2s").start();
    let mut client = Client::connect_narrow(&proxy.place(), 4096);
    let len = 3_000_000;
    client.get(&format!("/bytes/{len}"));
    client.head();
    let mut got = Vec::new();
    let before = Instant::now();
    while got.len() < len {
        got.extend(client.octets((len - got.len()).min(100_000)));
        crate::support::pause(ms(100));
    }
    assert!(before.elapsed() > ms(2_500), "slower than one timeout: {:?}", before.elapsed());
    assert!(got == pattern(len), "octets were changed");
}

/// Uploads at most `piece` octets each 50 ms until an answer comes or `len` are sent.
fn upload(proxy: &Proxy, len: usize, piece: usize) -> (u16, bool) {
    let mut client = proxy.client();
    client.send(post_head("/up", len));
    client.read_bound(ms(50));
    let mut left = len;
    while left > 0 {
        let n = left.min(piece);
        if client.try_send(vec![b'x'; n]).is_err() {
            break;
        }
        left -= n;
        if client.wire.fill() != Err(End::TimedOut) {
            break;
        }
    }
    client.read_bound(PATIENCE);
    (client.response().status, left == 0)
}

#[test]
fn upload_below_the_least_rate_is_refused_after_its_grace() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .admin()
        .set("timeouts.body_rate", "10000")
        .set("timeouts.body_rate_grace", "500ms")
        .start();
    let before = Instant::now();
    let (status, whole) = upload(&proxy, 1_000_000, 20);
    assert_eq!((status, whole), (408, false));
    assert!(before.elapsed() >= ms(500), "never early: {:?}", before.elapsed());
    let request = origin.wait_started("/up");
    origin.wait_connection_end(request.connection);
}

#[test]
fn upload_above_the_least_rate_goes_on_after_its_grace() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .set("timeouts.body_rate", "100")
        .set("timeouts.body_rate_grace", "300ms")
        .start();
    assert_eq!(upload(&proxy, 20_000, 1_000), (200, true));
}

#[test]
fn head_half_read_at_the_hard_deadline_is_told_to_try_again_and_named() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().stop("drain_timeout", "400ms").start();
    let mut client = proxy.client();
    client.send("GET /half?secret=1 HTTP/1.1\r\nHost: app.test\r\nX-Half");
    proxy.wait_connections("reading", 1);
    let told = proxy.terminate();
    let response = client.response();
    assert!(told.elapsed() >= ms(400), "not before the deadline: {:?}", told.elapsed());
    assert_eq!(response.status, 503);
    assert!(response.says_close());
    assert!(response.field("retry-after").is_some(), "{:?}", response.head);
    assert_eq!(client.end(), End::Eof);
    drop(client);
    assert_eq!(proxy.wait_exit().code(), 3);
    assert!(origin.requests().is_empty());
    assert_eq!(proxy.reported("cut"), 1);
    let cut = proxy.events("request_cut");
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert_eq!(cut[0].fields["sent_upstream"], false);
    assert!(cut[0].text("client").starts_with("127.0.0.1"), "{}", cut[0].fields);
    let report = proxy.drain_report().to_string();
    assert!(report.contains("127.0.0.1"), "{report}");
}
