//! The search over instants for event streams: a stop comes at a random moment, while
//! events of random sizes and line ends, cut at random octets, are under way.
//!
//! Each event has its number; a strict reader looks at what came. `TESTS_RACE_RUNS`
//! sets how many stops there are for the other searches; here it is a tenth of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::origin::Origin;
use crate::support::process::Launch;
use crate::support::sse::{CHUNKED, CLOSING, Feed, Tongue, events, piece};
use crate::support::{Rng, pattern, pause};

const STREAMS: usize = 8;
const RUNS: u64 = 20;

/// An event of a stream: a number, and data of a random length that is seldom long.
fn event(seed: u64, stream: usize, number: u64) -> String {
    let mut rng = Rng::new(seed ^ ((stream as u64) << 40) ^ (number << 8));
    let end = ["\n", "\r\n", "\r"][rng.below(3) as usize];
    let most = [1, 30, 300, 3_000, 30_000][rng.below(5) as usize];
    let mut text = format!("id: {number}{end}");
    for _ in 0..1 + rng.below(2) {
        let data = String::from_utf8(pattern(rng.below(most) as usize)).unwrap();
        text.push_str(&format!("data: {data}{end}"));
    }
    if rng.one_in(4) {
        text.insert_str(0, &format!(": nothing{end}"));
    }
    text + end
}

/// Sends events for as long as the proxy takes them. `sent` of each stream is how many
/// went out whole.
fn app(seed: u64, sent: &Arc<[AtomicU64; STREAMS]>) -> Origin {
    let sent = Arc::clone(sent);
    Origin::scripted(move |conn, request| {
        let stream: usize = request.target.trim_start_matches('/').parse().unwrap();
        let mut rng = Rng::new(seed ^ ((stream as u64) << 20));
        let head = if rng.one_in(3) { CLOSING } else { CHUNKED };
        conn.send(head)?;
        for number in 0.. {
            let text = event(seed, stream, number);
            // Chunks end anywhere in events, and what is written anywhere in chunks.
            let at = rng.below(text.len() as u64) as usize;
            let parts = [&text[..at], &text[at..]];
            let pieces = parts.iter().filter(|part| !part.is_empty());
            let octets: Vec<u8> = pieces.flat_map(|part| piece(head, part)).collect();
            let mut at = 0;
            while at < octets.len() {
                let next = at + 1 + rng.below((octets.len() - at) as u64) as usize;
                conn.send(&octets[at..next])?;
                at = next;
                pause(Duration::from_micros(rng.below(400)));
            }
            sent[stream].store(number + 1, Ordering::SeqCst);
        }
        unreachable!("there are numbers enough")
    })
}

/// Reads a stream to its end: how many whole events came, and in their order.
fn client(feed: Feed, seed: u64, stream: usize) -> u64 {
    let ended = feed.finish();
    assert!(ended.clean, "seed {seed}, stream {stream}: it can be told");
    let (events, rest) = events(&ended.body);
    let is_nothing = rest.lines().all(|line| line.starts_with(':'));
    assert!(is_nothing, "seed {seed}, stream {stream}: half an event and a clean end: {rest:?}");
    for (number, got) in (0..).zip(&events) {
        let (want, _) = self::events(&event(seed, stream, number));
        assert_eq!(want, [&**got], "seed {seed}, stream {stream}, event {number}");
    }
    events.len() as u64
}

#[test]
fn whenever_the_stop_comes_no_event_is_halved_and_none_that_was_sent_is_lost() {
    let runs = std::env::var("TESTS_RACE_RUNS").ok().map(|runs| runs.parse::<u64>().unwrap() / 10);
    for seed in 0..runs.unwrap_or(RUNS) {
        let mut rng = Rng::new(seed);
        let sent: Arc<[AtomicU64; STREAMS]> = Arc::default();
        let origin = app(seed, &sent);
        let proxy = Launch::before(&origin).tls().stop("spread", "20ms").start();
        let clients: Vec<_> = (0..STREAMS)
            .map(|stream| {
                let tongue = Tongue::ALL[stream % Tongue::ALL.len()];
                let mut feed = Feed::open(&proxy, tongue, &format!("/{stream}"));
                feed.until(1);
                std::thread::spawn(move || client(feed, seed, stream))
            })
            .collect();
        pause(Duration::from_micros(rng.below(30_000)));
        let before: Vec<_> = sent.iter().map(|sent| sent.load(Ordering::SeqCst)).collect();
        proxy.terminate();
        for (stream, client) in clients.into_iter().enumerate() {
            let got = client.join().unwrap();
            assert!(got >= before[stream], "seed {seed}, stream {stream}: {got} of {before:?}");
        }
        proxy.wait_clean_exit();
        assert_eq!(proxy.reported("told"), STREAMS as u64);
    }
}
