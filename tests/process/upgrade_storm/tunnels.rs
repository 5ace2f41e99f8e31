//! Tunnels in clear text, on which both sides talk at once: WebSockets whose messages are
//! numbered each way, and a stream of octets in no protocol at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::score::{Asked, Harm, Score};
use crate::support::client::Client;
use crate::support::origin::{Next, OriginConn, Request};
use crate::support::wire::{End, Place, Wire};
use crate::support::ws::{self, BINARY, CLOSE, Frame, TEXT};
use crate::support::{PATIENCE, Rng, ms, pattern_at, pause};

/// The token of the tunnel that nobody understands.
pub(super) const OPAQUE: &str = "pattern";

/// The message of a number: the number, and octets that depend on it.
fn message(number: u64) -> Vec<u8> {
    let mut rng = Rng::new(number);
    let length = match rng.below(40) {
        0 => 60_000 + rng.below(150_000),
        1..5 => rng.below(3_000),
        _ => rng.below(120),
    };
    let mut octets = number.to_be_bytes().to_vec();
    octets.extend((0..length as usize).map(|at| pattern_at(at + number as usize)));
    octets
}

/// Sends numbered messages until `over`; how many.
fn talk(wire: &mut Wire, masked: bool, mut rng: Rng, over: impl Fn() -> bool) -> Result<u64, End> {
    let mut number = 0;
    while !over() {
        let payload = message(number);
        let cut = if rng.one_in(4) { rng.below(payload.len() as u64 + 1) as usize } else { 0 };
        let parts: Vec<&[u8]> =
            if cut > 0 { vec![&payload[..cut], &payload[cut..]] } else { vec![&payload] };
        let last = parts.len() - 1;
        for (n, part) in parts.into_iter().enumerate() {
            let opcode = if n == 0 { BINARY } else { 0 };
            let octets = Frame { fin: n == last, opcode, payload: part.to_vec() }.octets(masked);
            if rng.one_in(5) {
                // Anywhere, also inside the frame's own head.
                let most = if rng.one_in(2) { 14 } else { octets.len() };
                let at = rng.below(most.min(octets.len()) as u64) as usize;
                wire.send(&octets[..at])?;
                pause(ms(rng.below(80)));
                wire.send(&octets[at..])?;
            } else {
                wire.send(&octets)?;
            }
        }
        number += 1;
        pause(Duration::from_micros(rng.span(ms(1), ms(40)).as_micros() as u64));
    }
    Ok(number)
}

/// How the other side's messages came.
struct Heard {
    /// How many came in their order.
    messages: u64,
    /// What it says at its end: how many it had, and how many it has sent.
    account: Option<(u64, u64)>,
    /// What was not right, or how it ended without a Close.
    wrong: Option<String>,
}

/// Reads numbered messages up to a Close.
fn listen(wire: &mut Wire, masked: bool, mut passed: impl FnMut()) -> Heard {
    let mut heard = Heard { messages: 0, account: None, wrong: None };
    let mut begun = Vec::new();
    loop {
        let frame = match ws::read(wire, masked) {
            Ok(frame) => frame,
            Err(end) => {
                heard.wrong = Some(format!("{end:?} after message {}", heard.messages));
                return heard;
            }
        };
        match frame.opcode {
            CLOSE if frame.code() == Some(1000) => return heard,
            CLOSE => {
                heard.wrong = Some(format!("told to close with {:?}", frame.code()));
                return heard;
            }
            TEXT => {
                let text = String::from_utf8_lossy(&frame.payload).into_owned();
                let counts = text.split_once(' ');
                heard.account = counts.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            }
            BINARY | 0 => {
                begun.extend(frame.payload);
                if !frame.fin {
                    continue;
                }
                if begun != message(heard.messages) {
                    let number = begun.get(..8).and_then(|it| it.try_into().ok());
                    let number = number.map(u64::from_be_bytes);
                    heard.wrong = Some(format!(
                        "{} octets numbered {number:?} instead of message {}",
                        begun.len(),
                        heard.messages
                    ));
                    return heard;
                }
                begun.clear();
                heard.messages += 1;
                passed();
            }
            _ => {}
        }
    }
}

fn copy_of(wire: &Wire) -> Wire {
    let copy = Wire::new(wire.sock.try_clone().expect("a copy of a socket"));
    copy.read_bound(PATIENCE);
    copy.write_bound(PATIENCE);
    copy
}

/// WebSockets one after the other, if need be; one should do.
pub(super) fn sockets(place: &Place, score: &Arc<Score>, number: u32, mut rng: Rng) -> Asked {
    let mut asked = Asked::by(number);
    while !score.is_over() {
        let Ok(mut client) = Client::try_connect(place, PATIENCE) else {
            score.harm(Harm::Refused, "a WebSocket's connect");
            pause(ms(20));
            continue;
        };
        let target = asked.target("/ws");
        let sent = client.try_send(ws::upgrade(&target));
        match client.wire.head() {
            Ok(head) if head.start == "HTTP/1.1 101 Switching Protocols" => {}
            other => {
                asked.lose();
                score.harm(Harm::Lost, format!("{target}: {other:?} ({sent:?})"));
                continue;
            }
        }
        one_socket(client.wire, score, number, Rng::new(rng.next()));
    }
    asked
}

fn one_socket(mut wire: Wire, score: &Arc<Score>, number: u32, rng: Rng) {
    let mut speaker = copy_of(&wire);
    let gone = Arc::new(AtomicBool::new(false));
    let talking = {
        let (score, gone) = (Arc::clone(score), Arc::clone(&gone));
        std::thread::spawn(move || {
            let over = || score.is_over() || gone.load(Ordering::SeqCst);
            let sent = talk(&mut speaker, true, rng, over)?;
            speaker.send(&Frame::close(1000).octets(true))?;
            Ok::<u64, End>(sent)
        })
    };
    let heard = listen(&mut wire, false, || score.pass());
    gone.store(true, Ordering::SeqCst);
    let sent = talking.join().expect("a speaker");
    if let Some(wrong) = heard.wrong {
        let harm = if wrong.contains("instead") { Harm::Wrong } else { Harm::ClosedTunnel };
        score.harm(harm, format!("WebSocket {number}: {wrong}"));
        return;
    }
    let accounts = (sent, heard.account);
    let even = match accounts {
        (Ok(sent), Some((had, said))) => had == sent && said == heard.messages,
        _ => false,
    };
    if !even {
        let what = format!(
            "WebSocket {number}: sent {sent:?} and had {}, the other side had and sent {:?}",
            heard.messages, heard.account
        );
        score.harm(Harm::Wrong, what);
    }
}

/// The app server's side of a WebSocket: at the client's Close it says what it had and
/// sent, and closes.
pub(super) fn serve_socket(conn: &mut OriginConn, request: &Request) -> Result<Next, End> {
    conn.send(ws::agree(request))?;
    let mut speaker = copy_of(conn.wire());
    let over = Arc::new(AtomicBool::new(false));
    let seed = request.target.bytes().fold(7u64, |sum, octet| sum * 31 + u64::from(octet) % 1000);
    let talking = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let sent = talk(&mut speaker, false, Rng::new(seed), || over.load(Ordering::SeqCst));
            (speaker, sent)
        })
    };
    let heard = listen(conn.wire(), true, || {});
    over.store(true, Ordering::SeqCst);
    let (mut speaker, sent) = talking.join().expect("a speaker");
    if heard.wrong.as_ref().is_some_and(|wrong| wrong.contains("instead")) {
        speaker.send(&Frame::new(TEXT, format!("{:?}", heard.wrong)).octets(false))?;
    }
    let account = format!("{} {}", heard.messages, sent?);
    speaker.send(&Frame::new(TEXT, account).octets(false))?;
    speaker.send(&Frame::close(1000).octets(false))?;
    Ok(Next::Close)
}

/// A tunnel in which every octet tells its place.
pub(super) fn opaque(place: &Place, score: &Arc<Score>, number: u32, mut rng: Rng) -> Asked {
    let mut asked = Asked::by(number);
    while !score.is_over() {
        let Ok(mut client) = Client::try_connect(place, PATIENCE) else {
            score.harm(Harm::Refused, "a tunnel's connect");
            pause(ms(20));
            continue;
        };
        let target = asked.target("/opaque");
        let sent = client.try_send(format!(
            "GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\n\
             Upgrade: {OPAQUE}\r\n\r\n"
        ));
        match client.wire.head() {
            Ok(head) if head.start == "HTTP/1.1 101 Switching Protocols" => {}
            other => {
                asked.lose();
                score.harm(Harm::Lost, format!("{target}: {other:?} ({sent:?})"));
                continue;
            }
        }
        one_opaque(client.wire, score, number, Rng::new(rng.next()));
    }
    asked
}

fn one_opaque(mut wire: Wire, score: &Arc<Score>, number: u32, mut rng: Rng) {
    let mut speaker = copy_of(&wire);
    let (gone, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let talking = {
        let (score, gone, sent) = (Arc::clone(score), Arc::clone(&gone), Arc::clone(&sent));
        std::thread::spawn(move || {
            let row: Vec<u8> = (0..1 << 18).map(place_of).collect();
            while !score.is_over() && !gone.load(Ordering::SeqCst) {
                let at = sent.load(Ordering::SeqCst) as usize % (1 << 17);
                let most = if rng.one_in(20) { 100_000 } else { 700 };
                let length = rng.below(most) as usize + 1;
                if speaker.send(&row[at..at + length]).is_err() {
                    return;
                }
                sent.fetch_add(length as u64, Ordering::SeqCst);
                pause(Duration::from_micros(rng.below(20_000)));
            }
            let _ended = speaker.sock.shutdown(std::net::Shutdown::Write);
        })
    };
    let mut had = 0u64;
    let end = loop {
        let right = |(n, octet): (usize, &u8)| *octet == place_of(had as usize + n);
        if !wire.ahead.iter().enumerate().all(right) {
            score.harm(Harm::Wrong, format!("tunnel {number}: other octets around {had}"));
        }
        had += wire.ahead.len() as u64;
        wire.ahead.clear();
        score.pass();
        if let Err(end) = wire.fill() {
            break end;
        }
    };
    let over = score.is_over();
    gone.store(true, Ordering::SeqCst);
    talking.join().expect("a speaker");
    let sent = sent.load(Ordering::SeqCst);
    if !over {
        score.harm(Harm::ClosedTunnel, format!("tunnel {number}: {end:?} after {had}"));
    } else if end != End::Eof || had != sent {
        score.harm(Harm::Wrong, format!("tunnel {number}: {end:?}, had {had} of {sent}"));
    }
}

/// The octet at a place of what a talker sends, whose row begins again and again.
fn place_of(at: usize) -> u8 {
    pattern_at(at % (1 << 17))
}

/// The app server's side: every octet goes back.
pub(super) fn serve_opaque(conn: &mut OriginConn, _: &Request) -> Result<Next, End> {
    conn.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {OPAQUE}\r\nConnection: Upgrade\r\n\r\n"
    ))?;
    loop {
        let octets = std::mem::take(&mut conn.wire().ahead);
        conn.send(octets)?;
        match conn.wire().fill() {
            Err(End::Eof) => return Ok(Next::Close),
            other => other?,
        }
    }
}
