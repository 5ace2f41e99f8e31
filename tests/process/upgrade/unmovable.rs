//! What cannot move goes on in the old process, and ends by the plan of the upgrade.

use super::{leaves, start};
use crate::support::client::End;
use crate::support::generations::{Generations, Member};
use crate::support::h2::frame::Code;
use crate::support::h2::{H2, Ws};
use crate::support::process::Launch;
use crate::support::tls::{TlsClient, TlsEnd};
use crate::support::ws::{self, BINARY, Frame};
use crate::support::{PATIENCE, pattern, within};

const LENGTHS: [usize; 6] = [0, 125, 126, 65_535, 65_536, 300_000];

/// Tunnels are told a second after the upgrade has begun.
fn soon(launch: Launch) -> Launch {
    launch
        .tls()
        .set("drain.upgrade.stream_close_after", "1s")
        .set("drain.upgrade.spread", "0s")
        .set("drain.upgrade.goaway_grace", "100ms")
}

/// That it is the elder who has something, and says so.
#[track_caller]
fn waits_for_it(line: &Generations, elder: &Member) {
    within(PATIENCE, "an elder that drains", || {
        let status = line.status();
        let its = &status["elders"][0];
        let waits = its["waiting"].as_object().is_some_and(|why| !why.is_empty());
        let drains = its["phase"] == "draining";
        (its["pid"] == elder.pid && drains && waits).then_some(())
    });
}

fn websocket_over_http2(connect: impl FnOnce(&Generations) -> H2) {
    let (_origin, line) = start(soon);
    let mut h2 = connect(&line);
    let mut tunnel = Ws::open(&mut h2, "/ws");
    tunnel.echo(&mut h2, "before");
    // In the middle of a frame, too.
    let frame = Frame::new(BINARY, pattern(1_000));
    let octets = frame.octets(true);
    tunnel.octets(&mut h2, &octets[..500]);
    let (elder, _) = line.upgrade();
    tunnel.octets(&mut h2, &octets[500..]);
    assert_eq!(tunnel.read(&mut h2), Ok(frame));
    for length in LENGTHS {
        tunnel.echo(&mut h2, pattern(length));
    }
    waits_for_it(&line, &elder);
    // Browsers drop WebSockets on GOAWAY: it comes behind the Close.
    tunnel.is_told(&mut h2);
    assert_eq!(h2.goaways().len(), 0, "{}", h2.story());
    let first = h2.wait_goaway(0);
    assert_eq!((first.last, first.code), ((1 << 31) - 1, Code::NO_ERROR), "{}", h2.story());
    assert_eq!(h2.wait_goaway(1).code, Code::NO_ERROR);
    assert_eq!(h2.wait_end(), End::Eof);
    drop(h2);
    leaves(&line, elder);
    let mut h2 = connect_clear(&line);
    Ws::open(&mut h2, "/ws").echo(&mut h2, "in the new process");
}

fn connect_clear(line: &Generations) -> H2 {
    H2::connect(&line.place())
}

#[test]
fn websocket_inside_http2_goes_on_in_the_elder_until_the_plan_tells_it() {
    websocket_over_http2(connect_clear);
}

#[test]
fn websocket_inside_http2_over_tls_goes_on_in_the_elder_until_the_plan_tells_it() {
    websocket_over_http2(|line| H2::connect_tls(&line.tls_place()));
}

/// A message and its echo.
#[track_caller]
fn echo(client: &mut TlsClient, payload: impl AsRef<[u8]>) {
    let frame = Frame::new(BINARY, payload);
    client.send(frame.octets(true));
    let expected = frame.octets(false);
    assert!(client.octets(expected.len()) == expected);
}

#[test]
fn websocket_over_tls_goes_on_in_the_elder_until_the_plan_tells_it() {
    let (_origin, line) = start(soon);
    let mut client = line.tls_client();
    client.send(ws::upgrade("/ws"));
    assert_eq!(client.head().start, "HTTP/1.1 101 Switching Protocols");
    echo(&mut client, "before");
    let frame = Frame::new(BINARY, pattern(1_000));
    let octets = frame.octets(true);
    client.send(&octets[..500]);
    let (elder, _) = line.upgrade();
    client.send(&octets[500..]);
    assert!(client.octets(frame.octets(false).len()) == frame.octets(false));
    for length in LENGTHS {
        echo(&mut client, pattern(length));
    }
    waits_for_it(&line, &elder);
    assert_eq!(client.octets(4), Frame::close(1001).octets(false));
    client.send(Frame::close(1001).octets(true));
    assert_eq!(client.end(), TlsEnd::Clean);
    drop(client);
    leaves(&line, elder);
}

#[test]
fn request_over_tls_that_is_under_way_is_answered_and_told() {
    let (origin, line) = start(Launch::tls);
    let mut client = line.idle_tls_client();
    client.get("/hold/1");
    origin.wait_started("/hold/1");
    let mut reading = line.tls_client();
    reading.send("GET /half HT");
    let (elder, _) = line.upgrade();
    waits_for_it(&line, &elder);
    reading.send("TP/1.1\r\nHost: app.test\r\n\r\n");
    let response = reading.response();
    assert_eq!((response.text(), response.says_close()), ("GET /half 0".to_owned(), true));
    assert_eq!(reading.end(), TlsEnd::Clean);
    origin.release("/hold/1");
    let response = client.response();
    assert_eq!((response.text(), response.says_close()), ("held".to_owned(), true));
    assert_eq!(client.end(), TlsEnd::Clean);
    drop((client, reading));
    leaves(&line, elder);
    line.idle_tls_client();
}
