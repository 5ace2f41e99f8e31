//! The search over instants for tunnels: a stop comes at a random moment, while frames of
//! random sizes, cut at random octets, are under way in both directions.
//!
//! On each side a strict parser reads; each message has its number. `EBBTIDE_RACE_RUNS`
//! sets how many stops there are for the other searches; here it is a tenth of that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::client::End;
use crate::support::origin::{Next, Origin};
use crate::support::process::Launch;
use crate::support::wire::Wire;
use crate::support::ws::{self, BINARY, CLOSE, Frame, Socket};
use crate::support::{Rng, pattern, pause};

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

#[test]
fn whenever_the_stop_comes_frames_stay_whole_and_no_message_before_a_close_is_lost() {
    let runs =
        std::env::var("EBBTIDE_RACE_RUNS").ok().map(|runs| runs.parse::<u64>().unwrap() / 10);
    for seed in 0..runs.unwrap_or(RUNS) {
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
