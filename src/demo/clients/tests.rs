//! A client against a server that does it every wrong: each is counted as what it is.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::tally::{Counters, count};
use super::{Clients, Counts, Kind, Mix, Tally, Way};
use crate::demo::app::{Checksum, ID, Work};
use crate::demo::ledger::Ledger;

/// A tally in which clients of one kind were served, some wait, and others lost to error
/// statuses what the app has executed one of.
pub(in crate::demo) fn tally(kind: Kind, served: u64, lost: u64, waiting: u64) -> Tally {
    let counters = Counters::default();
    let row = counters.row(kind);
    (0..served).for_each(|_| count(&row.served));
    (0..lost).for_each(|_| count(&row.lost[Way::Status as usize]));
    (0..lost.min(1)).for_each(|_| count(&row.executed));
    (0..served + lost + waiting).for_each(|_| count(&row.asked));
    counters.read()
}

/// What the server does with one connection after the other; the listener is closed
/// before it answers on the last one.
const DEEDS: [fn(&mut Peer); 9] = [
    |peer| peer.reset(),
    |peer| {
        peer.request();
    },
    |peer| peer.answer("503 Service Unavailable", ""),
    |peer| {
        let id = peer.request();
        let head = format!("HTTP/1.1 200 OK\r\n{ID}: {id}\r\nContent-Length: 99\r\n\r\n{id} ");
        peer.send(&head);
    },
    |peer| {
        peer.answer("200 OK", "");
        peer.request();
    },
    |peer| peer.answer("200 OK", "Connection: close\r\n"),
    |peer| {
        peer.answer("200 OK", "");
        peer.stream.shutdown(Shutdown::Write).unwrap();
        // To the end of the client: it sees ours, and lets go.
        assert_eq!(peer.stream.read(&mut [0]).unwrap(), 0);
    },
    |peer| {
        let id = peer.request();
        peer.ledger.reached(id);
        peer.ledger.executed(id);
        peer.reset();
    },
    |peer| {
        let id = peer.request();
        peer.answer_to(id + 1, "200 OK", "");
    },
];

struct Peer {
    stream: TcpStream,
    ledger: Arc<Ledger>,
}

impl Peer {
    /// Reads one request; its id.
    fn request(&mut self) -> u64 {
        let mut octets = Vec::new();
        while !octets.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            self.stream.read_exact(&mut octet).unwrap();
            octets.push(octet[0]);
        }
        let text = String::from_utf8(octets).unwrap();
        let field = text.lines().find_map(|line| line.strip_prefix(ID)?.strip_prefix(": "));
        field.unwrap().parse().unwrap()
    }

    fn answer(&mut self, status: &str, fields: &str) {
        let id = self.request();
        self.answer_to(id, status, fields);
    }

    fn answer_to(&mut self, id: u64, status: &str, fields: &str) {
        let body = Work::Fast.body(id, Checksum::default());
        let body = std::str::from_utf8(&body).unwrap();
        let len = body.len();
        self.send(&format!(
            "HTTP/1.1 {status}\r\n{ID}: {id}\r\n{fields}Content-Length: {len}\r\n\r\n{body}"
        ));
    }

    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn reset(&self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn a_client_counts_every_wrong_that_is_done_to_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ledger = Arc::new(Ledger::default());
    let mut mix = Mix::none().with(Kind::Get, 1);
    // Long enough to see a FIN that is sent right behind an answer.
    mix.think = Duration::from_millis(50);
    let clients = Clients::start(listener.local_addr().unwrap(), &ledger, mix).unwrap();
    let server = std::thread::spawn(move || {
        let mut listener = Some(listener);
        for (number, deed) in DEEDS.iter().enumerate() {
            let (stream, _) = listener.as_ref().unwrap().accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut peer = Peer { stream, ledger: Arc::clone(&ledger) };
            if number + 1 == DEEDS.len() {
                listener = None;
            }
            deed(&mut peer);
        }
    });
    let began = Instant::now();
    while clients.tally().of(Kind::Get).refused == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", clients.tally());
        std::thread::yield_now();
    }
    server.join().unwrap();
    let counts = clients.finish().of(Kind::Get);
    let mut lost = [0; Way::COUNT];
    for way in Way::ALL {
        lost[way as usize] = u64::from(way != Way::Stalled);
    }
    let right = Counts { asked: 11, served: 3, told: 2, refused: 1, raced: 1, lost, executed: 1 };
    assert_eq!(counts, right);
}
