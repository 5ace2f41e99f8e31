//! Streaming to and from an app server on HTTP/2: windows, both directions at once,
//! early answers, and what bounds each wait.

use crate::support::client::{Client, chunked_head, post_head};
use crate::support::h2::frame::setting;
use crate::support::h2::origin::H2Origin;
use crate::support::h2::{Code, Frame, H2};
use crate::support::process::Launch;
use crate::support::{ms, pattern};

use super::{launch, warm, warmed};

/// What an app server may send ahead on a stream.
const WINDOW: usize = 32 << 10;

#[test]
fn an_upload_larger_than_every_window_passes_as_they_open() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    let body = pattern(1 << 20);
    let sent = body.clone();
    peer.windows = false;
    let sender = std::thread::spawn(move || {
        client.post("/big", &sent);
        client
    });
    let stream = peer.request();
    peer.wait("the window's worth", |peer| (peer.seen[&stream].body.len() == 65_535).then_some(()));
    peer.fence();
    assert_eq!(peer.seen[&stream].body.len(), 65_535, "not an octet more than there is room for");
    peer.windows = true;
    peer.send(&Frame::window_update(0, 65_535));
    peer.send(&Frame::window_update(stream, 65_535));
    assert_eq!(peer.whole(stream).body, body);
    peer.answer(stream, "all");
    assert_eq!(sender.join().unwrap().response().text(), "all");
}

#[test]
fn a_window_of_one_octet_will_do() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).start();
    let mut client = proxy.client();
    client.post("/drop-by-drop", b"hello");
    let mut peer = origin.accept_with(&[(setting::INITIAL_WINDOW_SIZE, 1)]);
    let (stream, seen) = peer.whole_request();
    assert_eq!(seen.body, b"hello");
    peer.answer(stream, "ok");
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_else() {
    let origin = H2Origin::new();
    // Nobody is given up meanwhile.
    let proxy = launch(&origin).set("upstream.h2_streams", "4").set("timeouts.send", "10m").start();
    let mut peer = warmed(&origin, &proxy);
    let mut stuck: Vec<Client> =
        (0..3).map(|_| Client::connect_narrow(&proxy.place(), 4096)).collect();
    for client in &mut stuck {
        client.get("/stuck");
        let stream = peer.request();
        peer.headers(stream, &[(":status", "200")], false);
        // What the proxy and the kernel hold, and then the window's worth.
        while peer.room(stream) > 0 || peer.next_within(ms(100)).is_ok() {
            let n = peer.room(stream).min(16_384);
            if n > 0 {
                peer.send(&Frame::data(stream, vec![b'x'; n]));
            }
        }
    }
    let mut client = proxy.client();
    client.get("/free");
    let stream = peer.request();
    peer.headers(stream, &[(":status", "200")], false);
    peer.data(stream, &pattern(4 * WINDOW), true);
    assert_eq!(client.response().body, pattern(4 * WINDOW));
    assert!(origin.accept_now().is_none());
}

#[test]
fn a_large_download_passes() {
    let (_origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    let mut h2 = H2::connect(&proxy.place());
    client.get("/big");
    let stream = peer.request();
    let body = pattern(3 << 20);
    let sent = body.clone();
    let sender = std::thread::spawn(move || {
        let length = sent.len().to_string();
        peer.headers(stream, &[(":status", "200"), ("content-length", &length)], false);
        peer.data(stream, &sent, true);
        peer
    });
    assert!(client.response().body == body);
    let mut peer = sender.join().unwrap();
    let above = h2.get("/big");
    let stream = peer.request();
    let sent = body.clone();
    let sender = std::thread::spawn(move || {
        peer.headers(stream, &[(":status", "200")], false);
        peer.data(stream, &sent, true);
        peer
    });
    assert!(h2.response(above).body == body);
    sender.join().unwrap();
}

#[test]
fn both_sides_talk_in_turns_on_one_stream() {
    let (_origin, proxy, mut peer) = warm();
    let mut h2 = H2::connect(&proxy.place());
    let above = h2.post_head("/talk");
    let below = peer.request();
    peer.headers(below, &[(":status", "200")], false);
    assert_eq!(h2.response_head(above).status, 200);
    let mut client = proxy.client();
    client.send(chunked_head("/talk"));
    let other = peer.request();
    peer.headers(other, &[(":status", "200")], false);
    assert!(client.head().start.starts_with("HTTP/1.1 200 "));
    for n in 0..20 {
        let (word, reply) = (format!("ping {n}"), format!("pong {n}"));
        h2.data(above, word.as_bytes(), false);
        client.send(format!("{:x}\r\n{word}\r\n", word.len()));
        for stream in [below, other] {
            let end = |peer: &super::Peer| peer.seen[&stream].body.ends_with(word.as_bytes());
            peer.wait("a word", |peer| end(peer).then_some(()));
            peer.data(stream, reply.as_bytes(), false);
        }
        let heard =
            h2.read_until(|h2| h2.so_far(above).body.ends_with(reply.as_bytes()).then_some(()));
        heard.unwrap();
        let chunk = format!("{:x}\r\n{reply}\r\n", reply.len());
        assert_eq!(client.octets(chunk.len()), chunk.as_bytes());
    }
    h2.data(above, b"", true);
    peer.whole(below);
    peer.headers(below, &[("x-end", "1")], true);
    assert_eq!(h2.response(above).trailers.len(), 1);
}

#[test]
fn an_answer_before_the_end_of_the_request_is_whole() {
    let (origin, proxy, mut peer) = warm();
    let mut client = proxy.client();
    client.send(post_head("/early", 1_000_000)).send(pattern(30_000));
    let stream = peer.request();
    peer.answer(stream, "enough");
    peer.send(&Frame::rst_stream(stream, Code::NO_ERROR));
    assert_eq!(client.response().text(), "enough");

    let mut h2 = H2::connect(&proxy.place());
    let above = h2.post_head("/early");
    let stream = peer.request();
    peer.answer(stream, "enough");
    peer.send(&Frame::rst_stream(stream, Code::NO_ERROR));
    let response = h2.response(above);
    assert_eq!((response.text().as_str(), response.whole), ("enough", true));
    assert!(origin.accept_now().is_none());
}

#[test]
fn each_wait_has_its_bound_and_costs_its_own_stream_only() {
    let origin = H2Origin::new();
    let proxy = launch(&origin)
        .set("upstream.first_byte_timeout", "200ms")
        .set("upstream.between_bytes_timeout", "300ms")
        .start();
    let mut peer = warmed(&origin, &proxy);
    let mut client = proxy.client();
    client.get("/silent");
    let stream = peer.request();
    let response = client.response();
    assert_eq!(response.status, 504);
    assert!(response.field("proxy-status").unwrap().contains("http_response_timeout"));
    assert_eq!(peer.reset(stream), Code::CANCEL);

    client.get("/stalls");
    let stream = peer.request();
    peer.headers(stream, &[(":status", "200")], false);
    client.head();
    assert_eq!(peer.reset(stream), Code::CANCEL);
    client.rest();

    peer.windows = false;
    let mut client = proxy.client();
    client.post("/unread", &pattern(100_000));
    let stream = peer.request();
    assert_eq!(peer.reset(stream), Code::CANCEL);
    assert_eq!(client.response().status, 504);
    assert!(origin.accept_now().is_none());
}

#[test]
fn an_app_server_that_never_says_its_settings_is_no_connection() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).set("upstream.connect_timeout", "300ms").start();
    let mut client = proxy.client();
    client.get("/x");
    let mut peer = origin.accept_bare();
    peer.preface();
    let response = client.response();
    assert_eq!(response.status, 504);
    assert!(response.field("proxy-status").unwrap().contains("connection_timeout"));
    assert!(peer.seen.is_empty(), "nothing was asked");
}

#[test]
fn an_app_server_that_speaks_something_else_is_told_apart() {
    let origin = crate::support::origin::Origin::new();
    let address = format!("h2c://{}", origin.place());
    let proxy = Launch::before_addr(&address).start();
    let mut client = proxy.client();
    client.get("/x");
    assert_eq!(client.response().status, 502);
    let event = proxy.wait_event("request_failed");
    assert!(event.text("cause").contains("something else than HTTP/2"), "{}", event.fields);
}

#[test]
fn many_who_need_a_connection_share_the_one_that_is_opened() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).start();
    let mut h2 = H2::connect(&proxy.place());
    let above: Vec<u32> = (0..30).map(|n| h2.get(&format!("/{n}"))).collect();
    let mut peer = origin.accept();
    for _ in &above {
        let stream = peer.request();
        peer.answer(stream, "x");
    }
    above.into_iter().for_each(|stream| assert_eq!(h2.response(stream).text(), "x"));
    assert!(origin.accept_now().is_none());
}

#[test]
fn whoever_waits_for_a_connection_does_not_need_him_who_began_it() {
    let origin = H2Origin::new();
    let proxy = launch(&origin).start();
    let mut first = proxy.client();
    first.get("/leaves");
    let mut begun = origin.accept_bare();
    begun.preface();
    let mut second = proxy.client();
    second.get("/stays");
    // The second waits by now, or asks only when the first has gone: both have to work.
    crate::support::pause(ms(50));
    first.reset();
    let mut peer = origin.accept();
    let (stream, seen) = peer.whole_request();
    assert_eq!(seen.field(":path"), Some("/stays"));
    peer.answer(stream, "served");
    assert_eq!(second.response().text(), "served");
}
