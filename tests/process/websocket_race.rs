//! The search over instants for tunnels: a stop comes at a random moment, while frames of
//! random sizes, cut at random octets, are under way in both directions.
//!
//! On each side a strict parser reads; each message has its number. `TESTS_RACE_RUNS`
//! sets how many stops there are for the other searches; here it is a tenth of that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::End;
use crate::support::h2::{Code, H2, Ws};
use crate::support::origin::{Next, Origin};
use crate::support::process::Launch;
use crate::support::wire::Wire;
use crate::support::ws::{self, BINARY, CLOSE, Frame, Socket};
use crate::support::{PATIENCE, Rng, pattern, pause};

const TUNNELS: u64 = 6;
const RUNS: u64 = 20;

/// A message with its number, of a random length that is seldom long.
fn message(number: u64, rng: &mut Rng) -> Frame {
    let most = [0, 120, 140, 3_000, 70_000][rng.below(5) as usize];
    let length = if most == 0 { 0 } else { rng.below(most) as usize };
    Frame::new(BINARY, [&number.to_be_bytes()[..], &pattern(length)].concat())
}

/// Whether this is the message of that number, whole.
fn is_message(frame: &Frame, number: u64) -> bool {
    let (seen, rest) = frame.payload.split_at(8);
    frame.opcode == BINARY
        && frame.fin
        && seen == number.to_be_bytes()
        && rest == pattern(rest.len())
}

/// Sends numbered messages in random pieces until told to stop; how many were sent.
fn chatter(wire: &mut Wire, masked: bool, stop: &AtomicBool, rng: &mut Rng) -> Result<u64, End> {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let octets = message(number, rng).octets(masked);
        let mut at = 0;
        while at < octets.len() {
            let piece = 1 + rng.below((octets.len() - at) as u64) as usize;
            wire.send(&octets[at..at + piece])?;
            at += piece;
            pause(Duration::from_micros(rng.below(400)));
        }
        number += 1;
    }
    Ok(number)
}

/// What the app server's sides saw: messages of the client before its Close, each.
type Seen = Arc<Mutex<Vec<u64>>>;

fn app(seen: &Seen, seed: u64) -> Origin {
    let seen = Arc::clone(seen);
    Origin::scripted(move |conn, request| {
        conn.send(ws::agree(request))?;
        let stop = Arc::new(AtomicBool::new(false));
        let number: u64 = request.target.trim_start_matches('/').parse().unwrap();
        let mut writer = Wire::new(conn.wire().sock.try_clone().unwrap());
        let told = Arc::clone(&stop);
        let mut rng = Rng::new(seed ^ (number << 32));
        let chat = std::thread::spawn(move || chatter(&mut writer, false, &told, &mut rng));
        let mut count = 0;
        let close = loop {
            let frame = ws::read(conn.wire(), true)?;
            if frame.opcode == CLOSE {
                break frame;
            }
            assert!(is_message(&frame, count), "message {count} of the client");
            count += 1;
        };
        stop.store(true, Ordering::SeqCst);
        chat.join().unwrap()?;
        assert_eq!(close.code(), Some(1001));
        let mut all = seen.lock().unwrap();
        let length = all.len().max(number as usize + 1);
        all.resize(length, u64::MAX);
        all[number as usize] = count;
        drop(all);
        conn.send(close.octets(false))?;
        Ok(Next::Close)
    })
}

/// One client: how many messages it sent before its Close.
fn client(mut socket: Socket, mut rng: Rng) -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writer = Wire::new(socket.wire.sock.try_clone().unwrap());
    let told = Arc::clone(&stop);
    let chat = std::thread::spawn(move || chatter(&mut writer, true, &told, &mut rng));
    let mut count = 0;
    loop {
        let frame = socket.read().expect("a Close before the end");
        if frame.opcode == CLOSE {
            assert_eq!(frame.code(), Some(1001));
            break;
        }
        assert!(is_message(&frame, count), "message {count} of the app");
        count += 1;
    }
    stop.store(true, Ordering::SeqCst);
    let sent = chat.join().unwrap().expect("what comes before the Close is taken");
    socket.send(&Frame::close(1001));
    assert_eq!(socket.end(), End::Eof);
    sent
}

/// One tunnel of a client that has several on one connection.
struct Stream {
    ws: Ws,
    rng: Rng,
    /// What is left of the message that is being sent.
    rest: Vec<u8>,
    /// How many were begun, and how many have come.
    sent: u64,
    seen: u64,
    /// Its Close has come, and was answered.
    told: bool,
    answered: bool,
}

impl Stream {
    fn open(h2: &mut H2, number: u64, seed: u64) -> Stream {
        let ws = Ws::open(h2, &format!("/{number}"));
        let rng = Rng::new(seed ^ (number << 16) ^ 1);
        Stream { ws, rng, rest: vec![], sent: 0, seen: 0, told: false, answered: false }
    }

    /// Sends a piece of a message, or the answer to a Close behind a whole one.
    fn say(&mut self, h2: &mut H2) {
        if self.rest.is_empty() && !self.told {
            self.rest = message(self.sent, &mut self.rng).octets(true);
            self.sent += 1;
        }
        let most = self.rest.len().min(h2.room(self.ws.stream));
        if most > 0 {
            let piece = 1 + self.rng.below(most as u64) as usize;
            let piece: Vec<u8> = self.rest.drain(..piece).collect();
            self.ws.octets(h2, &piece);
        }
        if self.rest.is_empty() && self.told {
            self.ws.send(h2, &Frame::close(1001));
            self.answered = true;
        }
    }

    /// Reads what has come whole.
    fn hear(&mut self, h2: &mut H2) {
        while !self.told && self.ws.has_message(h2) {
            let frame = self.ws.read(h2).unwrap();
            if frame.opcode == CLOSE {
                assert_eq!(frame.code(), Some(1001));
                self.told = true;
            } else {
                assert!(is_message(&frame, self.seen), "message {} of the app", self.seen);
                self.seen += 1;
            }
        }
    }
}

/// A client with several tunnels on one connection: how many messages it sent on each
/// before its Close.
fn multiplexed(mut h2: H2, mut streams: Vec<Stream>, mut rng: Rng) -> Vec<u64> {
    let deadline = Instant::now() + PATIENCE;
    while streams.iter().any(|stream| !stream.answered) {
        assert!(Instant::now() < deadline, "a Close before the end{}", h2.story());
        let some = rng.below(streams.len() as u64) as usize;
        if !streams[some].answered {
            streams[some].say(&mut h2);
        }
        if rng.below(3) == 0 {
            match h2.next_within(Duration::from_millis(1)) {
                Ok(_) | Err(End::TimedOut) => {}
                Err(end) => panic!("{end:?} before the last Close{}", h2.story()),
            }
        }
        streams.iter_mut().for_each(|stream| stream.hear(&mut h2));
    }
    for stream in &mut streams {
        assert_eq!(stream.ws.end(&mut h2), End::Eof, "{}", h2.story());
    }
    assert!(h2.goaways().is_empty(), "GOAWAY before the last tunnel's end{}", h2.story());
    streams.iter().for_each(|stream| stream.ws.finish(&mut h2));
    assert_eq!(h2.wait_goaway(1).code, Code::NO_ERROR);
    assert_eq!(h2.wait_end(), End::Eof);
    streams.iter().map(|stream| stream.sent).collect()
}

fn runs() -> u64 {
    let runs = std::env::var("TESTS_RACE_RUNS").ok();
    runs.map_or(RUNS, |runs| runs.parse::<u64>().unwrap() / 10)
}

#[test]
fn whenever_the_stop_comes_the_same_holds_on_streams_and_goaway_comes_last() {
    for seed in 0..runs() {
        let mut rng = Rng::new(seed ^ 0x8441);
        let seen = Seen::default();
        let origin = app(&seen, seed);
        let launch = Launch::before(&origin).tls().stop("spread", "20ms");
        let proxy = launch.stop("goaway_grace", "10ms").start();
        let half = TUNNELS / 2;
        let clear = H2::connect(&proxy.place());
        let encrypted = H2::connect_tls(&proxy.tls_place());
        let clients = [(clear, 0..half), (encrypted, half..TUNNELS)].map(|(mut h2, numbers)| {
            let open = |number| Stream::open(&mut h2, number, seed);
            let streams = numbers.map(open).collect();
            let rng = Rng::new(rng.below(u64::MAX));
            std::thread::spawn(move || multiplexed(h2, streams, rng))
        });
        pause(Duration::from_micros(rng.below(30_000)));
        proxy.terminate();
        let sent: Vec<_> = clients.into_iter().flat_map(|it| it.join().unwrap()).collect();
        proxy.wait_clean_exit();
        assert_eq!(*seen.lock().unwrap(), sent, "seed {seed}");
        assert_eq!(proxy.reported("cut_total"), 0);
    }
}

#[test]
fn whenever_the_stop_comes_frames_stay_whole_and_no_message_before_a_close_is_lost() {
    for seed in 0..runs() {
        let mut rng = Rng::new(seed);
        let seen = Seen::default();
        let origin = app(&seen, seed);
        let proxy = Launch::before(&origin).stop("spread", "20ms").start();
        let clients: Vec<_> = (0..TUNNELS)
            .map(|number| {
                let socket = Socket::open(proxy.client(), &format!("/{number}"));
                let rng = Rng::new(seed ^ (number << 16) ^ 1);
                std::thread::spawn(move || client(socket, rng))
            })
            .collect();
        pause(Duration::from_micros(rng.below(30_000)));
        proxy.terminate();
        let sent: Vec<_> = clients.into_iter().map(|it| it.join().unwrap()).collect();
        proxy.wait_clean_exit();
        assert_eq!(*seen.lock().unwrap(), sent, "seed {seed}");
        assert_eq!(proxy.reported("cut_total"), 0);
    }
}
