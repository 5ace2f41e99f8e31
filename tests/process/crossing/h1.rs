//! The clients of HTTP/1, polite ones and others.

use std::time::Duration;

use super::Scene;
use super::judge::{Crossed, Seen, unasked};
use super::tag::{Shape, Tag};
use crate::support::client::{Broken, Client, End, Framing, Response};
use crate::support::{PATIENCE, Rng, ms, pause};

/// Connects again and again, one request at a time, and misbehaves now and then.
pub(super) fn keep_alive(scene: &Scene, rng: &mut Rng) -> Option<()> {
    let mut client = Client::connect(&scene.place);
    for _ in 0..=rng.below(60) {
        let tag = scene.tags.next()?;
        let request = tag.request("HTTP/1.1", "");
        match rng.below(100) {
            0 => return leave_in_request(scene, client, &request, rng),
            1 => return leave_in_response(scene, client, tag, rng),
            2 => {
                scene.book.count("client: half-closed");
                let _gone = client.try_send(&request);
                let _gone = client.wire.sock.shutdown(std::net::Shutdown::Write);
                take(scene, &mut client, tag);
                return Some(());
            }
            3 => {
                scene.book.count("client: read nothing for a while");
                let _gone = client.try_send(&request);
                pause(ms(rng.below(10)));
            }
            4..8 => {
                scene.book.count("client: sent in pieces");
                for piece in request.chunks(request.len() / 3 + 1) {
                    let _gone = client.try_send(piece);
                    pause(Duration::from_micros(rng.below(500)));
                }
            }
            _ => {
                let _gone = client.try_send(&request);
            }
        }
        if !take(scene, &mut client, tag) {
            return Some(());
        }
    }
    finish(scene, client)
}

/// Many requests in one piece, the answers in their order.
pub(super) fn pipelining(scene: &Scene, rng: &mut Rng) -> Option<()> {
    let mut client = Client::connect(&scene.place);
    for _ in 0..=rng.below(6) {
        let most = 2 + rng.below(11);
        let burst: Vec<Tag> = (0..most).map_while(|_| scene.tags.next()).collect();
        let octets: Vec<u8> = burst.iter().flat_map(|tag| tag.request("HTTP/1.1", "")).collect();
        let leaves = rng.one_in(20).then(|| rng.below(burst.len().max(1) as u64) as usize);
        let _gone = client.try_send(&octets);
        for (n, tag) in burst.iter().enumerate() {
            if leaves == Some(n) {
                scene.book.count("client: left in a burst");
                if rng.one_in(2) {
                    client.reset();
                }
                return Some(());
            }
            let behind = burst.len() - n - 1;
            if !take_of(scene, &mut client, *tag, behind > 0) {
                scene.book.count_many("outcome: not reached in a burst", behind as u64);
                return Some(());
            }
        }
        if burst.len() < most as usize {
            return None;
        }
    }
    finish(scene, client)
}

/// A connection for each request.
pub(super) fn one_each(scene: &Scene, _: &mut Rng) -> Option<()> {
    let tag = scene.tags.next()?;
    let mut client = Client::connect(&scene.place);
    let _gone = client.try_send(tag.request("HTTP/1.1", "Connection: close\r\n"));
    take(scene, &mut client, tag);
    Some(())
}

/// HTTP/1.0, where often only the end of the connection is the end of the answer.
pub(super) fn http10(scene: &Scene, rng: &mut Rng) -> Option<()> {
    let mut client = Client::connect(&scene.place);
    let keeps = rng.one_in(2);
    for _ in 0..=rng.below(4) {
        let tag = scene.tags.next()?;
        let more = if keeps { "Connection: keep-alive\r\n" } else { "" };
        let _gone = client.try_send(tag.request("HTTP/1.0", more));
        if !take(scene, &mut client, tag) {
            return Some(());
        }
    }
    finish(scene, client)
}

/// Reads the answer to the only request that waits for one; whether another may be sent.
fn take(scene: &Scene, client: &mut Client, tag: Tag) -> bool {
    take_of(scene, client, tag, false)
}

/// The same, where other answers may follow.
fn take_of(scene: &Scene, client: &mut Client, tag: Tag, more: bool) -> bool {
    match read(client, tag) {
        Ok(response) => {
            scene.book.note(tag, &Seen::whole(&response));
            if response.framing == Framing::Close {
                return false;
            }
            let keeps_10 = response.head.lists("connection", "keep-alive");
            if response.says_close() || (!keeps_10 && response.head.start.starts_with("HTTP/1.0")) {
                let (end, rest) = client.rest();
                if !rest.is_empty() || end == End::TimedOut {
                    scene.book.cross(unasked(tag, &rest));
                }
                return false;
            }
            if !more && !client.wire.ahead.is_empty() {
                scene.book.cross(unasked(tag, &client.wire.ahead));
                return false;
            }
            true
        }
        Err(broken) => {
            if broken.end == End::TimedOut {
                let what = format!("nothing within {PATIENCE:?} after {broken:?}");
                scene.book.cross(Crossed { tag, what, forged: None });
            }
            scene.book.note(tag, &Seen::part(&broken));
            false
        }
    }
}

/// Reads one response as far as it comes.
pub(super) fn read(client: &mut Client, tag: Tag) -> Result<Response, Broken> {
    if tag.shape() != Shape::Head {
        return client.try_response();
    }
    let mut interim = Vec::new();
    loop {
        let head = match client.wire.head() {
            Ok(head) => head,
            Err(end) => {
                let got = std::mem::take(&mut client.wire.ahead);
                return Err(Broken { end, head: None, got });
            }
        };
        let status = head.start.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
        if status >= 200 {
            let (body, trailers) = (Vec::new(), Vec::new());
            let framing = Framing::None;
            return Ok(Response { status, head, body, trailers, interim, framing });
        }
        interim.push(head);
    }
}

/// Looks a last time whether there is something that was not asked for.
fn finish(scene: &Scene, client: Client) -> Option<()> {
    let unread = rustix::io::ioctl_fionread(&client.wire.sock).unwrap_or(0);
    if unread > 0 || !client.wire.ahead.is_empty() {
        scene.book.cross(unasked(Tag(0), &client.wire.ahead));
    }
    Some(())
}

fn leave_in_request(
    scene: &Scene,
    mut client: Client,
    request: &[u8],
    rng: &mut Rng,
) -> Option<()> {
    scene.book.count("client: left in a request");
    let n = rng.below(request.len() as u64) as usize;
    let _gone = client.try_send(&request[..n]);
    if rng.one_in(2) {
        client.reset();
    }
    Some(())
}

fn leave_in_response(scene: &Scene, mut client: Client, tag: Tag, rng: &mut Rng) -> Option<()> {
    scene.book.count("client: left in a response");
    let _gone = client.try_send(tag.request("HTTP/1.1", ""));
    if rng.one_in(2) {
        // What has come by now, a part of it or nothing.
        let end = client.wire.fill().err().unwrap_or(End::Eof);
        let head = client.wire.ahead.windows(4).any(|at| at == b"\r\n\r\n");
        let head = head.then(|| client.wire.head().ok()).flatten();
        let chunked = head.as_ref().is_some_and(|head| head.lists("transfer-encoding", "chunked"));
        let interim = head.as_ref().is_some_and(|head| head.start.starts_with("HTTP/1.1 1"));
        let got = std::mem::take(&mut client.wire.ahead);
        if !chunked && !interim {
            scene.book.note(tag, &Seen::part(&Broken { end, head, got }));
        }
    }
    if rng.one_in(2) {
        client.reset();
    }
    Some(())
}
