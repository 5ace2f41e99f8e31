//! Responses that end early, at every single octet.

use crate::gateway::bench::Bench;
use crate::gateway::case::{Act, Answer, Level, Over};
use crate::gateway::heard::{Extent, Heard};
use crate::gateway::score::Scripted;

const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                         5\r\nhello\r\n7;a=b\r\n, world\r\n0\r\nX-Sum: 12\r\n\r\n";
const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nhello, world";

const WHOLE: &[u8] = b"hello, world";

/// How a response is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By a FIN.
    Fin,
    /// By a RST, behind a moment in which the proxy can have read.
    Reset,
    /// By a RST at once, which may overtake what was sent.
    ResetAtOnce,
}

/// Sends every part of a response that is not all of it.
fn cut(bench: &mut Bench, whole: &[u8], how: How, over: Over) -> Result<(), String> {
    let head = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_default() + 4;
    // With a FIN a body until close is whole wherever it ends.
    let ends_by_close = whole == CLOSED;
    for at in 0..whole.len() + usize::from(ends_by_close) {
        // A pause at each octet would take long and show nothing more.
        if how == How::Reset && at % 8 != 0 {
            continue;
        }
        let mut acts = vec![Act::Body, Act::Write(whole[..at].to_vec())];
        acts.extend((how == How::Reset).then_some(Act::Pause(10)));
        acts.push(if how == How::Fin { Act::Close } else { Act::Reset });
        bench.play(&[Answer { eager: false, acts }]);
        let mut client = bench.downstream(over);
        client.send(b"GET /cut HTTP/1.1\r\nHost: app.test\r\n\r\n")?;
        let heard = client.read();
        let may_be_whole = ends_by_close && how == How::Fin && at >= head;
        let ours = bench.proxy.is_some();
        judge(&heard, ours, at < head, may_be_whole, &whole[head.min(at)..at])
            .map_err(|wrong| format!("cut at octet {at} of {}: {wrong}", whole.len()))?;
        bench.go_on(&mut client, &heard).map_err(|wrong| format!("at octet {at}: {wrong}"))?;
    }
    Ok(())
}

/// Whether what the client heard is honest. Which octets of the body came is the gateway's to
/// choose, but they come in order. Others than ours may end the connection instead of an answer,
/// and may send a GET again that has no head yet: the origin then says `ok`.
fn judge(heard: &Heard, ours: bool, in_head: bool, whole: bool, sent: &[u8]) -> Result<(), String> {
    let honest = match heard.extent {
        Extent::Whole if whole => heard.status == 200 && heard.body == sent,
        Extent::Whole if heard.status == 502 => true,
        Extent::Whole => !ours && in_head && heard.body == b"ok",
        Extent::Cut if in_head => !ours,
        Extent::Cut => !whole && WHOLE.starts_with(&heard.body),
        Extent::Nothing => !ours,
        Extent::Torn | Extent::Stuck => false,
    };
    if honest { Ok(()) } else { Err(heard.told()) }
}

const WHY: &str = "RFC 9112 8: what is incomplete must not look whole, at whatever octet it ends";

const fn check(name: &'static str, run: fn(&mut Bench) -> Result<(), String>) -> Scripted {
    Scripted { name, level: Level::Must, why: WHY, run }
}

/// Each framing, each way to end, each protocol.
pub(super) const CHECKS: [Scripted; 18] = [
    check("cut.length-fin", |b| cut(b, LENGTH, How::Fin, Over::H1)),
    check("cut.length-fin over h2", |b| cut(b, LENGTH, How::Fin, Over::H2)),
    check("cut.length-reset", |b| cut(b, LENGTH, How::Reset, Over::H1)),
    check("cut.length-reset over h2", |b| cut(b, LENGTH, How::Reset, Over::H2)),
    check("cut.length-reset-at-once", |b| cut(b, LENGTH, How::ResetAtOnce, Over::H1)),
    check("cut.length-reset-at-once over h2", |b| cut(b, LENGTH, How::ResetAtOnce, Over::H2)),
    check("cut.chunked-fin", |b| cut(b, CHUNKED, How::Fin, Over::H1)),
    check("cut.chunked-fin over h2", |b| cut(b, CHUNKED, How::Fin, Over::H2)),
    check("cut.chunked-reset", |b| cut(b, CHUNKED, How::Reset, Over::H1)),
    check("cut.chunked-reset over h2", |b| cut(b, CHUNKED, How::Reset, Over::H2)),
    check("cut.chunked-reset-at-once", |b| cut(b, CHUNKED, How::ResetAtOnce, Over::H1)),
    check("cut.chunked-reset-at-once over h2", |b| cut(b, CHUNKED, How::ResetAtOnce, Over::H2)),
    check("cut.until-close-fin", |b| cut(b, CLOSED, How::Fin, Over::H1)),
    check("cut.until-close-fin over h2", |b| cut(b, CLOSED, How::Fin, Over::H2)),
    check("cut.until-close-reset", |b| cut(b, CLOSED, How::Reset, Over::H1)),
    check("cut.until-close-reset over h2", |b| cut(b, CLOSED, How::Reset, Over::H2)),
    check("cut.until-close-reset-at-once", |b| cut(b, CLOSED, How::ResetAtOnce, Over::H1)),
    check("cut.until-close-reset-at-once over h2", |b| cut(b, CLOSED, How::ResetAtOnce, Over::H2)),
];
