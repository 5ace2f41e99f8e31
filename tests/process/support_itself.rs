//! The support meets itself: what the other tests stand on is right without a proxy
//! in between.

use std::time::Instant;

use crate::support::client::{self, Client, End, Framing};
use crate::support::origin::{HALVES, Next, Origin};
use crate::support::wire::Place;
use crate::support::{PATIENCE, Rng, ms, pattern};

#[test]
fn client_and_origin_understand_each_other() {
    let origin = Origin::new();
    let mut client = Client::connect(origin.place());

    let body = pattern(100_000);
    client.post("/echo", &body);
    assert_eq!(client.response().body, body);

    client.send(client::chunked_head("/echo")).send("5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n");
    let response = client.response();
    assert_eq!(response.framing, Framing::Chunked);
    assert_eq!(response.body, b"hello");
    assert_eq!(response.trailers, [("X-T".to_owned(), "1".to_owned())]);

    client.send("HEAD /bytes/10 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_to_head().framing, Framing::None);
    client.get("/bytes/10").get("/none").get("/unmodified");
    assert_eq!(client.response().body, pattern(10));
    assert_eq!((client.response().status, client.response().status), (204, 304));

    client.get("/close");
    let response = client.response();
    assert_eq!((response.framing, response.text()), (Framing::Close, "until the end".to_owned()));
    assert_eq!(origin.connections(), 1);
    assert!(origin.requests().iter().all(|request| request.whole));
}

#[test]
fn a_held_request_goes_on_when_it_is_released() {
    let origin = Origin::new();
    let mut client = Client::connect(origin.place());
    client.get("/hold/1");
    origin.wait_started("/hold/1");
    client.hears_nothing_for(ms(20));
    origin.release("/hold/1");
    assert_eq!(client.response().text(), "held");
    client.get("/part/length");
    client.head();
    assert_eq!(client.octets(HALVES[0].len()), HALVES[0].as_bytes());
    origin.release("/part/length");
    assert_eq!(client.octets(HALVES[1].len()), HALVES[1].as_bytes());
}

#[test]
fn the_origin_knows_when_its_client_is_gone() {
    let origin = Origin::new();
    let mut client = Client::connect(origin.place());
    client.get("/hold");
    origin.wait_started("/hold");
    let before = Instant::now();
    drop(client);
    let (end, at) = origin.wait_connection_end(0);
    assert_eq!(end, End::Eof);
    assert!(at >= before);

    let mut client = Client::connect(origin.place());
    client.get("/hold/2");
    origin.wait_started("/hold/2");
    client.reset();
    assert_eq!(origin.wait_connection_end(1).0, End::Reset);
}

#[test]
fn ends_are_told_apart() {
    let origin = Origin::new();
    let mut client = Client::connect(origin.place());
    assert_eq!(client.ended(), None);
    client.get("/die/length");
    client.head();
    client.octets(HALVES[0].len());
    origin.release("/die");
    assert_eq!(client.end(), End::Eof);
    assert_eq!(client.ended(), Some(End::Eof));

    let mut client = Client::connect(origin.place());
    client.get("/die/close");
    let broken = client.try_response().unwrap_err();
    assert_eq!(broken.end, End::Reset);
    assert_eq!(broken.got, HALVES[0].as_bytes());

    // A connection that was queued as its listener closed is reset; the next one is refused.
    let place = origin.place().clone();
    drop(origin);
    crate::support::within(PATIENCE, "the origin's end", || {
        let end = Client::try_connect(&place, PATIENCE).err()?;
        assert!(matches!(end, End::Refused | End::Reset), "{end:?}");
        (end == End::Refused).then_some(())
    });
}

#[test]
fn a_script_decides_over_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let unix = Origin::unix(&dir.path().join("app.sock"));
    assert_eq!(Place::parse(&unix.place().to_string()), *unix.place());
    let mut client = Client::connect(unix.place());
    client.post("/x", b"abc");
    assert_eq!(client.response().text(), "POST /x 3");

    let silent = Origin::scripted(|_, _| Ok(Next::Close));
    let mut client = Client::connect(silent.place());
    client.get("/");
    let broken = client.try_response().unwrap_err();
    assert_eq!((broken.end, broken.head.is_none()), (End::Eof, true));
}

#[test]
fn one_seed_gives_one_row() {
    let row = |seed| {
        let mut rng = Rng::new(seed);
        [(); 4].map(|()| rng.span(ms(0), ms(5)))
    };
    assert_eq!(row(7), row(7));
    assert_ne!(row(7), row(8));
    assert!(row(9).iter().all(|span| *span <= ms(5)));
}

#[test]
fn a_narrow_client_is_slow_but_not_for_ever() {
    for octets in [4096, 16_384, 65_536] {
        let origin = Origin::new();
        let mut client = Client::connect_narrow(origin.place(), octets);
        let begun = Instant::now();
        client.get("/bytes/300000");
        assert_eq!(client.response().body, pattern(300_000));
        eprintln!("{octets}: {:?}", begun.elapsed());
    }
}
