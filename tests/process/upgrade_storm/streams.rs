//! A client of HTTP/2: its connection ends by two GOAWAYs, and every stream is answered.

use std::time::Duration;

use super::score::{Asked, Harm, Score};
use crate::support::h2::frame::Code;
use crate::support::h2::{H2, Response};
use crate::support::wire::{End, Place};
use crate::support::{Rng, ms};

/// The last stream of a first GOAWAY.
const EVERY_STREAM: u32 = (1 << 31) - 1;

/// One stream after the other, some of them with a body, in clear text.
pub(super) fn streaming(place: &Place, score: &Score, number: u32, rng: Rng) -> Asked {
    stream(H2::connect, place, score, number, rng)
}

/// The same over TLS.
pub(super) fn streaming_over_tls(place: &Place, score: &Score, number: u32, rng: Rng) -> Asked {
    stream(H2::connect_tls, place, score, number, rng)
}

fn stream(
    connect: fn(&Place) -> H2,
    place: &Place,
    score: &Score,
    number: u32,
    mut rng: Rng,
) -> Asked {
    let mut asked = Asked { at_once: true, ..Asked::by(number) };
    while !score.is_over() {
        let mut h2 = connect(place);
        let mut last = 0;
        while !score.is_over() && h2.goaways().is_empty() && h2.ended().is_none() {
            let mut open = Vec::new();
            for _ in 0..=rng.below(3) {
                let path = ["/h2", "/think/30"][rng.below(2) as usize];
                let target = asked.target(path);
                last = if rng.one_in(2) { h2.get(&target) } else { h2.post(&target, b"hello") };
                open.push((last, target));
            }
            for (stream, target) in open {
                check(h2.try_response(stream), &target, score, &mut asked);
            }
            // What is said between two streams is read too.
            let _silence = h2.next_within(Duration::from_micros(1_000 + rng.below(20_000)));
        }
        if !h2.goaways().is_empty() || h2.ended().is_some() {
            judge_end(&mut h2, last, score, number);
        }
    }
    asked
}

fn check(response: Result<Response, End>, target: &str, score: &Score, asked: &mut Asked) {
    let right = |response: &Response| {
        response.status == 200
            && (response.text() == "thought" || response.text().contains(target))
            && response.reset.is_none()
    };
    match response {
        Ok(response) if right(&response) => score.serve(),
        other => {
            let n: Option<u32> = target.rsplit('.').next().and_then(|n| n.parse().ok());
            asked.lost.extend(n);
            score.harm(Harm::Lost, format!("{target}: {other:?}"));
        }
    }
}

/// The end of a connection has two steps.
fn judge_end(h2: &mut H2, last: u32, score: &Score, number: u32) {
    let end = loop {
        if let Err(end) = h2.next_within(ms(10_000)) {
            break end;
        }
    };
    let steps: Vec<_> = h2.goaways().iter().map(|goaway| (goaway.last, goaway.code)).collect();
    let clean = end == End::Eof
        && !h2.is_unclean()
        && steps == [(EVERY_STREAM, Code::NO_ERROR), (last, Code::NO_ERROR)];
    if !clean {
        score.harm(
            Harm::Untold,
            format!("client {number}: {end:?} after {steps:?}, last stream {last}{}", h2.story()),
        );
    }
}
