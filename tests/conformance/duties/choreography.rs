//! Duties that are a matter of who speaks when.

use crate::gateway::bench::Bench;
use crate::gateway::case::{Act, Answer, Level, Over};
use crate::gateway::downstream::Downstream;
use crate::gateway::heard::{Extent, Heard};
use crate::gateway::score::Scripted;
use crate::support::client::Client;
use crate::support::origin::Request;
use crate::support::{ms, within};

/// How long the origin keeps a client waiting, and a part of it in which nothing may come.
const HELD_BACK: u64 = 300;
const QUIET: u64 = 100;

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REFUSED: &str = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno";

fn write(text: &str) -> Act {
    Act::Write(text.as_bytes().to_vec())
}

fn answer(acts: Vec<Act>) -> [Answer; 1] {
    [Answer { eager: false, acts }]
}

/// The head of a request whose client waits for leave.
fn expecting(framing: &str) -> String {
    format!("POST /e HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\n{framing}\r\n\r\n")
}

fn status(heard: &Heard, status: u16) -> Result<(), String> {
    let right = heard.extent == Extent::Whole && heard.status == status;
    if right { Ok(()) } else { Err(heard.told()) }
}

fn quiet(bench: &Bench, client: &mut Client) -> Result<(), String> {
    client.read_bound(ms(QUIET));
    let filled = client.wire.fill();
    client.read_bound(bench.bound());
    match filled {
        Err(crate::support::wire::End::TimedOut) => Ok(()),
        other => {
            let early = crate::octets::show(&client.wire.ahead);
            Err(format!("before its time: {other:?}, {early}"))
        }
    }
}

fn body(bench: &Bench) -> Vec<u8> {
    let whole = |requests: Vec<Request>| requests.into_iter().find(|request| request.whole);
    within(bench.bound(), "the whole request", || whole(bench.requests())).body
}

/// The origin gives leave after a while; the client sends its body then.
fn leave(bench: &mut Bench, framing: &str, content: &[u8]) -> Result<(), String> {
    let acts = vec![Act::Pause(HELD_BACK), write(CONTINUE), Act::Body, write(OK)];
    bench.play(&answer(acts));
    let mut client = bench.client();
    client.send(expecting(framing));
    quiet(bench, &mut client)?;
    let head = client.wire.head().map_err(|end| format!("{end:?} instead of 100"))?;
    if !head.start.starts_with("HTTP/1.1 100") {
        return Err(format!("instead of 100: {}", head.start));
    }
    client.send(content);
    let heard = Heard::h1(&mut client, false);
    status(&heard, 200)?;
    let body = body(bench);
    if body != b"hello" {
        return Err(format!("the body is {}", crate::octets::show(&body)));
    }
    bench.go_on(&mut Downstream::h1(client), &heard)
}

fn leave_comes_from_the_origin(bench: &mut Bench) -> Result<(), String> {
    leave(bench, "Content-Length: 5", b"hello")
}

fn leave_for_chunks_comes_from_the_origin(bench: &mut Bench) -> Result<(), String> {
    leave(bench, "Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")
}

fn leave_over_http2(bench: &mut Bench) -> Result<(), String> {
    let acts = vec![write(CONTINUE), Act::Body, write(OK)];
    bench.play(&answer(acts));
    let mut h2 = bench.subject.h2.connect();
    h2.handshake(&[]);
    let mut fields = h2.pseudo("POST", "/e");
    fields.push(("expect".to_owned(), "100-continue".to_owned()));
    let stream = h2.headers(&fields, false);
    let interim = h2.read_until(|h2| h2.so_far(stream).interims.first().cloned());
    let interim = interim.map_err(|end| format!("{end:?} instead of 100"))?;
    if interim.0 != 100 {
        return Err(format!("instead of 100: {interim:?}"));
    }
    h2.data(stream, b"hello", true);
    status(&Heard::h2(&mut h2, stream, false, bench.bound()), 200)
}

/// The head goes to the origin before a single octet of the body is there.
fn head_does_not_wait_for_the_body(bench: &mut Bench) -> Result<(), String> {
    bench.play(&answer(vec![write(CONTINUE), Act::Body, write(OK)]));
    let mut client = bench.client();
    client.send(expecting("Content-Length: 5"));
    let request = within(bench.bound(), "the head", || bench.requests().pop());
    if !request.head.lists("expect", "100-continue") {
        return Err(format!("without Expect: {:?}", request.head.fields));
    }
    client.send("hello");
    status(&Heard::h1(&mut client, false), 200)
}

/// A final status instead of leave: the client hears it without having sent its body, and what
/// it sends then is no request.
fn refusal_comes_at_once(bench: &mut Bench) -> Result<(), String> {
    bench.play(&answer(vec![write(REFUSED)]));
    let mut client = bench.client();
    client.send(expecting("Content-Length: 5"));
    let heard = Heard::h1(&mut client, false);
    status(&heard, 417)
}

/// The client sends its body though it was refused: HTTP/1.1 has no other way to go on.
fn refusal_does_not_break_the_connection(bench: &mut Bench) -> Result<(), String> {
    bench.play(&answer(vec![write(REFUSED)]));
    let mut client = bench.client();
    client.send(expecting("Content-Length: 53"));
    let heard = Heard::h1(&mut client, false);
    status(&heard, 417)?;
    let inner = "GET /inner HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n";
    if client.try_send(&inner[..53]).is_ok() {
        bench.go_on(&mut Downstream::h1(client), &heard)?;
    }
    let reached = bench.requests().iter().any(|request| request.target == "/inner");
    if reached { Err("the body became a request".to_owned()) } else { Ok(()) }
}

/// A client that does not wait for leave, because nobody has to give it.
fn body_without_leave(bench: &mut Bench) -> Result<(), String> {
    bench.play(&answer(vec![Act::Body, write(OK)]));
    let mut client = bench.client();
    client.send(expecting("Content-Length: 5"));
    crate::support::pause(ms(QUIET));
    client.send("hello");
    let heard = Heard::h1(&mut client, false);
    status(&heard, 200)?;
    bench.go_on(&mut Downstream::h1(client), &heard)
}

/// A hint is of use only before what it hints at.
fn hints_come_at_once(bench: &mut Bench) -> Result<(), String> {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    bench.play(&answer(vec![Act::Body, write(hint), Act::Silent]));
    let mut client = bench.client();
    client.read_bound(ms(900));
    client.get("/");
    let head = client.wire.head().map_err(|end| format!("{end:?} instead of 103"))?;
    if head.start.starts_with("HTTP/1.1 103") { Ok(()) } else { Err(head.start) }
}

/// What has come of a body goes on, though the rest is not there.
fn parts_of_a_response_come_at_once(bench: &mut Bench) -> Result<(), String> {
    let part = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    bench.play(&answer(vec![Act::Body, write(part), Act::Silent]));
    let mut client = bench.client();
    client.read_bound(ms(900));
    client.get("/");
    let head = client.wire.head().map_err(|end| format!("{end:?} instead of a head"))?;
    let line = client.wire.line().map_err(|end| format!("{end:?} instead of a chunk"))?;
    if head.start.contains("200") && line.starts_with('5') { Ok(()) } else { Err(line) }
}

/// What has come of a request goes on, though the rest is not there.
fn parts_of_a_request_go_on_at_once(bench: &mut Bench) -> Result<(), String> {
    bench.play(&answer(vec![Act::Body, write(OK)]));
    let mut client = bench.client();
    client.send("POST /part HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nhello");
    let started = (0..900).any(|_| {
        crate::support::pause(ms(1));
        !bench.requests().is_empty()
    });
    client.send("world");
    status(&Heard::h1(&mut client, false), 200)?;
    if started { Ok(()) } else { Err("nothing before the body was whole".to_owned()) }
}

/// An answer to half a request reaches the client, and the other half becomes no request.
fn early_answer_to_half_a_request(bench: &mut Bench) -> Result<(), String> {
    let early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nearly";
    bench.play(&answer(vec![write(early)]));
    let mut client = bench.client();
    let rest = "GET /inner HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let length = 5 + rest.len();
    client.send(format!(
        "POST /half HTTP/1.1\r\nHost: app.test\r\nContent-Length: {length}\r\n\r\nhello"
    ));
    let heard = Heard::h1(&mut client, false);
    status(&heard, 413)?;
    if client.try_send(rest).is_ok() {
        bench.go_on(&mut Downstream::h1(client), &heard)?;
    }
    let reached = bench.requests().iter().any(|request| request.target == "/inner");
    if reached { Err("the body became a request".to_owned()) } else { Ok(()) }
}

/// The same over HTTP/2, where streams have an end of their own.
fn early_answer_to_half_a_stream(bench: &mut Bench) -> Result<(), String> {
    let early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nearly";
    bench.play(&answer(vec![write(early)]));
    let mut h2 = bench.subject.h2.connect();
    h2.handshake(&[]);
    let stream = h2.post_head("/half");
    h2.data(stream, b"hello", false);
    status(&Heard::h2(&mut h2, stream, false, bench.bound()), 413)
}

/// Many at once, each with an answer of its own.
fn nobody_gets_anothers_answer(bench: &mut Bench) -> Result<(), String> {
    let (place, bound) = (bench.subject.http.clone(), bench.bound());
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let place = place.clone();
            std::thread::spawn(move || {
                let mut wire = Client::connect(&place);
                wire.read_bound(bound);
                for n in 0..25 {
                    let target = format!("/innocent/of-{client}-{n}");
                    let heard = {
                        wire.get(&target);
                        Heard::h1(&mut wire, false)
                    };
                    if heard.body != target.as_bytes() {
                        return Err(format!("for {target}: {}", heard.told()));
                    }
                }
                Ok(())
            })
        })
        .collect();
    clients.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a panic".to_owned())?)
}

/// The same as streams of one connection.
fn no_stream_gets_anothers_answer(bench: &mut Bench) -> Result<(), String> {
    let mut client = bench.downstream(Over::H2);
    for n in 0..50 {
        let target = format!("/innocent/stream-{n}");
        client.send(crate::support::client::get(&target).as_bytes())?;
    }
    for n in 0..50 {
        let heard = client.read();
        if heard.body != format!("/innocent/stream-{n}").as_bytes() {
            return Err(format!("for stream {n}: {}", heard.told()));
        }
    }
    Ok(())
}

const fn must(
    name: &'static str,
    why: &'static str,
    run: fn(&mut Bench) -> Result<(), String>,
) -> Scripted {
    Scripted { name, level: Level::Must, why, run }
}

const fn should(
    name: &'static str,
    why: &'static str,
    run: fn(&mut Bench) -> Result<(), String>,
) -> Scripted {
    Scripted { name, level: Level::Should, why, run }
}

const LEAVE: &str = "RFC 9110 10.1.1: a proxy forwards the expectation and waits, or answers";
const STREAMING: &str = "RFC 9112 7.1 and RFC 9110 7.6: parts are of use before the whole is there";

/// All of them.
pub(super) const CHECKS: [Scripted; 15] = [
    must("expect.leave-comes-from-the-origin", LEAVE, leave_comes_from_the_origin),
    must("expect.leave-for-chunks", LEAVE, leave_for_chunks_comes_from_the_origin),
    must("expect.leave over h2", LEAVE, leave_over_http2),
    must("expect.head-does-not-wait-for-the-body", LEAVE, head_does_not_wait_for_the_body),
    must("expect.refusal-comes-at-once", LEAVE, refusal_comes_at_once),
    must(
        "expect.refusal-does-not-break-the-connection",
        "RFC 9112 9.3: the body is read, or the connection closed",
        refusal_does_not_break_the_connection,
    ),
    must(
        "expect.body-without-leave",
        "RFC 9110 10.1.1: a client need not wait for ever",
        body_without_leave,
    ),
    must("interim.hints-come-at-once", "RFC 8297 2: before the final response", hints_come_at_once),
    should("stream.parts-of-a-response", STREAMING, parts_of_a_response_come_at_once),
    should("stream.parts-of-a-request", STREAMING, parts_of_a_request_go_on_at_once),
    must(
        "early.answer-to-half-a-request",
        "RFC 9112 9.5: the answer arrives, and the rest is no request",
        early_answer_to_half_a_request,
    ),
    must(
        "early.answer-to-half-a-request over h2",
        "RFC 9113 8.1: a server may answer before the request is whole",
        early_answer_to_half_a_stream,
    ),
    must("crossing.connections", "RFC 9112 9.3.2: to whom it belongs", nobody_gets_anothers_answer),
    must(
        "crossing.streams over h2",
        "RFC 9113 8.1: to whom it belongs",
        no_stream_gets_anothers_answer,
    ),
    should(
        "log.is-one-line-for-each-request",
        "what a client sends does not forge lines of the log",
        log_escapes_control_octets,
    ),
];

/// Ours only: tabs, quotes and octets of no text in what is logged.
fn log_escapes_control_octets(bench: &mut Bench) -> Result<(), String> {
    let Some(proxy) = &bench.proxy else { return Ok(()) };
    let mut client = bench.client();
    let agent = b"a\tb\"c\\d\xe9\xc2\x9be";
    let head = b"GET /log HTTP/1.1\r\nHost: app.test\r\nUser-Agent: ";
    client.send([&head[..], agent, b"\r\n\r\n"].concat());
    status(&Heard::h1(&mut client, false), 200)?;
    let line = proxy.wait_access("of the request", |line| line.contains("/log"));
    let fields: serde_json::Value =
        serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
    let plain = line.bytes().all(|octet| octet >= b' ') && !line.contains('\u{9b}');
    let told = fields.to_string();
    if plain && told.contains("a\\tb") { Ok(()) } else { Err(line) }
}
