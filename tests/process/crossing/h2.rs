//! Clients of HTTP/2: many streams at once, some of them given up.

use std::collections::BTreeMap;

use super::Scene;
use super::judge::{Crossed, Seen};
use super::tag::{Shape, Tag};
use crate::support::h2::{Code, Frame, Got, H2};
use crate::support::wire::End;
use crate::support::{PATIENCE, Rng};

/// Some rounds of requests on one connection.
pub(super) fn streams(scene: &Scene, rng: &mut Rng) -> Option<()> {
    let mut h2 = H2::connect(&scene.place);
    let mut all = BTreeMap::new();
    let mut given_up = Vec::new();
    for _ in 0..=rng.below(6) {
        let most = 1 + rng.below(40);
        let round: Vec<Tag> = (0..most).map_while(|_| scene.tags.next()).collect();
        let mut open = Vec::new();
        for tag in &round {
            let (stream, gave_up) = ask(scene, &mut h2, *tag, rng);
            all.insert(stream, *tag);
            if gave_up { given_up.push(stream) } else { open.push(stream) }
        }
        if rng.one_in(20) {
            scene.book.count("client: left an HTTP/2 connection");
            if rng.one_in(2) {
                h2.reset();
            }
            return Some(());
        }
        let end = read(scene, &mut h2, &open, &all);
        for stream in open {
            scene.book.note(all[&stream], &Seen::stream(&h2.so_far(stream)));
        }
        if round.len() < most as usize {
            return None;
        }
        if end.is_err() {
            break;
        }
    }
    for stream in given_up {
        if let Err(crossed) = Seen::stream(&h2.so_far(stream)).judge(all[&stream]) {
            scene.book.cross(crossed);
        }
    }
    Some(())
}

/// Sends a request with its body; it may be given up at once or half-way, which is told.
fn ask(scene: &Scene, h2: &mut H2, tag: Tag, rng: &mut Rng) -> (u32, bool) {
    let mut fields = h2.pseudo(tag.method(), &tag.target());
    fields.push(("x-tag".to_owned(), tag.to_string()));
    let body = tag.question();
    let has_body = matches!(tag.shape(), Shape::Length | Shape::Chunked);
    if tag.shape() == Shape::Length {
        fields.push(("content-length".to_owned(), body.len().to_string()));
    }
    let stream = h2.headers(&fields, !has_body);
    let half_way = has_body && rng.one_in(20);
    if half_way {
        scene.book.count("client: gave up a body");
        h2.data(stream, &body[..body.len() / 2], false);
    } else if has_body {
        h2.data(stream, &body, true);
    }
    let gives_up = half_way || rng.one_in(25);
    if gives_up {
        scene.book.count("client: reset a stream");
        h2.send(&Frame::rst_stream(stream, Code::CANCEL));
    }
    (stream, gives_up)
}

/// Reads until all these streams are over, or the connection is.
fn read(scene: &Scene, h2: &mut H2, open: &[u32], all: &BTreeMap<u32, Tag>) -> Result<(), End> {
    loop {
        if open.iter().all(|stream| h2.is_over(*stream)) {
            return Ok(());
        }
        let got = h2.next_frame();
        let stream = match &got {
            Ok(Got::Data { stream, .. } | Got::Headers { stream, .. }) => *stream,
            Ok(_) => continue,
            Err(End::TimedOut) => {
                let stream = open.iter().find(|stream| !h2.is_over(**stream));
                let tag = stream.map_or(Tag(0), |stream| all[stream]);
                let what = format!("nothing within {PATIENCE:?}{}", h2.story());
                scene.book.cross(Crossed { tag, what, forged: None });
                return Err(End::TimedOut);
            }
            Err(end) => return Err(*end),
        };
        if !all.contains_key(&stream) {
            let what = format!("a stream that nobody opened: {got:?}");
            scene.book.cross(Crossed { tag: Tag(0), what, forged: None });
        }
    }
}
