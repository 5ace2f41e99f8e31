//! Clients that ask over HTTP/1.1. In clear text nothing may ever end their connections.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::score::{Asked, Harm, Score};
use crate::support::client::{Client, chunked_head, get, post_head};
use crate::support::tls::{Manner, TlsClient, TlsEnd};
use crate::support::wire::{End, Place};
use crate::support::{PATIENCE, Rng, ms, pattern, pause};

/// Connects, again and again if need be; `None` once the storm is over.
fn connect(place: &Place, score: &Score) -> Option<Client> {
    while !score.is_over() {
        match Client::try_connect(place, PATIENCE) {
            Ok(client) => return Some(client),
            Err(End::Reset) => score.harm(Harm::Reset, "connect"),
            Err(end) => score.harm(Harm::Refused, format!("connect: {end:?}")),
        }
        pause(ms(20));
    }
    None
}

/// How one use of a connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    On,
    /// The connection is of no use any more; that was noted.
    Wrong,
}

/// One request with one answer on a connection that has to stay.
fn exchange(
    client: &mut Client,
    score: &Score,
    asked: &mut Asked,
    request: &[u8],
    want: &[u8],
) -> Went {
    let who = format!("client {}, {}", asked.client, asked.next - 1);
    let sent = client.try_send(request);
    match client.try_response() {
        Err(broken) => {
            asked.lose();
            score.broken(&format!("{who} (sent: {sent:?})"), &broken);
            return Went::Wrong;
        }
        Ok(response) if response.status != 200 || response.body != want => {
            asked.lose();
            let what = format!("{who}: {} {:.60}", response.status, response.text());
            score.harm(Harm::Wrong, what);
            return Went::Wrong;
        }
        Ok(response) => {
            score.serve();
            if response.says_close() {
                score.harm(Harm::ClosedH1, format!("{who}: was told to close"));
                return Went::Wrong;
            }
        }
    }
    Went::On
}

/// Uses one connection for as long as it lives, by the step that is given.
fn kept(
    place: &Place,
    score: &Score,
    number: u32,
    mut step: impl FnMut(&mut Client, &mut Asked) -> Went,
) -> Asked {
    let mut asked = Asked::by(number);
    while let Some(mut client) = connect(place, score) {
        while !score.is_over() {
            if let Some(end) = client.ended() {
                score.harm(Harm::ClosedH1, format!("client {number}, idle: {end:?}"));
                break;
            }
            if step(&mut client, &mut asked) == Went::Wrong {
                break;
            }
        }
    }
    asked
}

/// GET and POST in turn, hardly a moment between them.
pub(super) fn busy(place: &Place, score: &Score, number: u32, mut rng: Rng) -> Asked {
    kept(place, score, number, |client, asked| {
        let post = rng.one_in(2);
        let target = asked.target("/busy");
        let went = if post {
            let request = post_head(&target, 5) + "hello";
            let want = format!("POST {target} 5");
            exchange(client, score, asked, request.as_bytes(), want.as_bytes())
        } else {
            let want = format!("GET {target} 0");
            exchange(client, score, asked, get(&target).as_bytes(), want.as_bytes())
        };
        pause(Duration::from_micros(rng.below(8_000)));
        went
    })
}

/// The same, each answered after 100 ms.
pub(super) fn thoughtful(place: &Place, score: &Score, number: u32, mut rng: Rng) -> Asked {
    kept(place, score, number, |client, asked| {
        let target = asked.target("/think/100");
        let request = if rng.one_in(2) { get(&target) } else { post_head(&target, 2) + "hi" };
        exchange(client, score, asked, request.as_bytes(), b"thought")
    })
}

/// Rarely used, and half a head at times.
pub(super) fn mostly_idle(place: &Place, score: &Score, number: u32, mut rng: Rng) -> Asked {
    kept(place, score, number, |client, asked| {
        pause(ms(20 + rng.below(400)));
        let target = asked.target("/idle");
        let mut request = get(&target).into_bytes();
        let want = format!("GET {target} 0");
        if rng.one_in(3) {
            let (early, late) = request.split_at(rng.below(request.len() as u64 - 4) as usize + 1);
            if client.try_send(early).is_ok() {
                pause(ms(rng.below(200)));
            }
            request = late.to_vec();
        }
        exchange(client, score, asked, &request, want.as_bytes())
    })
}

/// Five requests at once, at times cut in the middle of one.
pub(super) fn pipelining(place: &Place, score: &Score, number: u32, mut rng: Rng) -> Asked {
    kept(place, score, number, |client, asked| {
        let targets: Vec<_> =
            (0..5).map(|n| asked.target(if n == 1 { "/think/20" } else { "/pipe" })).collect();
        let all: Vec<u8> = targets.iter().flat_map(|target| get(target).into_bytes()).collect();
        let (now, later) = all.split_at(rng.below(all.len() as u64) as usize);
        let mut sent = client.try_send(now);
        pause(Duration::from_micros(rng.below(30_000)));
        sent = sent.and_then(|()| client.try_send(later));
        for (n, target) in targets.iter().enumerate() {
            let want = if n == 1 { "thought".to_owned() } else { format!("GET {target} 0") };
            let id = asked.next - 5 + n as u32;
            let who = format!("client {number}, pipelined {id} (sent: {sent:?})");
            let response = match client.try_response() {
                Ok(response) => response,
                Err(broken) => {
                    score.broken(&who, &broken);
                    asked.lost.extend(id..asked.next);
                    return Went::Wrong;
                }
            };
            if response.text() != want {
                score.harm(Harm::Wrong, format!("{who}: {:.60} for {want}", response.text()));
                asked.lost.extend(id..asked.next);
                return Went::Wrong;
            }
            score.serve();
            if response.says_close() {
                score.harm(Harm::ClosedH1, format!("{who}: was told to close"));
                asked.lost.extend(id + 1..asked.next);
                return Went::Wrong;
            }
        }
        pause(Duration::from_micros(rng.below(30_000)));
        Went::On
    })
}

/// A body in pieces over up to half a second, with a length or in chunks.
pub(super) fn uploading(place: &Place, score: &Score, number: u32, mut rng: Rng) -> Asked {
    let body = pattern(60_000);
    kept(place, score, number, |client, asked| {
        let target = asked.target("/echo");
        let chunked = rng.one_in(2);
        let head = if chunked { chunked_head(&target) } else { post_head(&target, body.len()) };
        let mut sent = client.try_send(head);
        for piece in body.chunks(5_000) {
            let octets = if chunked {
                [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
            } else {
                piece.to_vec()
            };
            sent = sent.and_then(|()| client.try_send(octets));
            pause(ms(rng.below(40)));
        }
        let last: &[u8] = if chunked { b"0\r\n\r\n" } else { b"" };
        if let Err(end) = sent {
            score.note(format!("client {number}: an upload was not taken: {end:?}"));
        }
        exchange(client, score, asked, last, &body)
    })
}

/// An answer that comes in pieces, and is read late.
pub(super) fn downloading(place: &Place, score: &Score, number: u32, mut rng: Rng) -> Asked {
    let want = pattern(super::TRICKLED);
    kept(place, score, number, |client, asked| {
        let target = asked.target("/trickle");
        if client.try_send(get(&target)).is_ok() {
            pause(ms(rng.below(100)));
        }
        exchange(client, score, asked, b"", &want)
    })
}

/// A connection for each request.
pub(super) fn one_each(place: &Place, score: &Score, number: u32, mut rng: Rng) -> Asked {
    let mut asked = Asked::by(number);
    while let Some(mut client) = connect(place, score) {
        let target = asked.target("/one");
        // Accepted by one process, and perhaps served by the next.
        if rng.one_in(4) {
            pause(ms(rng.below(50)));
        }
        let request = get(&target).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let sent = client.try_send(request);
        match client.try_response() {
            Ok(response) if response.text() == format!("GET {target} 0") => score.serve(),
            Ok(response) => {
                asked.lose();
                score.harm(Harm::Wrong, format!("{target}: {:.60}", response.text()));
            }
            Err(broken) => {
                asked.lose();
                score.broken(&format!("the only request of {target} ({sent:?})"), &broken);
            }
        }
        pause(Duration::from_micros(rng.below(4_000)));
    }
    asked
}

/// A process for each request.
pub(super) fn process_each(place: &Place, score: &Score, number: u32, _: Rng) -> Asked {
    let mut asked = Asked::by(number);
    while !score.is_over() {
        let target = asked.target("/process");
        let mut command = Command::new("/usr/bin/curl");
        command.args(["-q", "-sS", "--noproxy", "*", "--max-time", "20"]);
        command.arg(format!("http://{place}{target}")).stdin(Stdio::null());
        let done = command.output().expect("tests/run installs curl");
        if done.status.success() && done.stdout == format!("GET {target} 0").into_bytes() {
            score.serve();
            continue;
        }
        asked.lose();
        let said = String::from_utf8_lossy(&done.stderr);
        let harm = match done.status.code() {
            Some(7) => Harm::Refused,
            Some(56) => Harm::Reset,
            _ => Harm::Lost,
        };
        score.harm(harm, format!("{target}: {said}"));
        pause(ms(20));
    }
    asked
}

/// One request after the other over TLS: the connection may end, but its client is told
/// so by an answer, or it was idle.
pub(super) fn over_tls(place: &Place, score: &Score, number: u32, mut rng: Rng) -> Asked {
    let mut asked = Asked::by(number);
    while !score.is_over() {
        let mut client = match Manner::new().try_connect(place) {
            Ok(client) => client,
            Err(end) => {
                score.harm(Harm::Refused, format!("TLS connect: {end:?}"));
                pause(ms(20));
                continue;
            }
        };
        while !score.is_over() && ask_over_tls(&mut client, score, &mut asked) {
            pause(Duration::from_micros(rng.below(30_000)));
        }
    }
    asked
}

/// Whether the connection can be used again.
fn ask_over_tls(client: &mut TlsClient, score: &Score, asked: &mut Asked) -> bool {
    let target = asked.target("/tls");
    let who = format!("client {}, {target}", asked.client);
    let sent = client.try_send(get(&target));
    match client.try_response() {
        Err((end, got)) => {
            asked.lose();
            let harm = if end == TlsEnd::Reset { Harm::Reset } else { Harm::Lost };
            score.harm(harm, format!("{who}: {end:?} after {} octets ({sent:?})", got.len()));
            false
        }
        Ok(response) if response.text() != format!("GET {target} 0") => {
            score.harm(Harm::Wrong, format!("{who}: {:.60}", response.text()));
            false
        }
        Ok(response) => {
            score.serve();
            if response.says_close() {
                let end = client.end();
                if end != TlsEnd::Clean {
                    score.harm(Harm::Untold, format!("{who}: {end:?} after the last answer"));
                }
            }
            !response.says_close()
        }
    }
}
