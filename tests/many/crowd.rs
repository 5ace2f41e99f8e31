//! Clients in one thread that do nothing until they are told to go.

use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::support::client::{Client, get};
use crate::support::wire::Place;
use crate::support::ws::{Frame, Socket, upgrade};

/// How many are opened at once.
const OPENING: usize = 64;

/// What a stop says to a WebSocket, and to an event stream.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The first event, as it comes in its chunk.
const EVENT: &[u8] = b"c\r\ndata: here\n\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tunnel,
    Stream,
}

#[derive(Debug)]
struct Member {
    kind: Kind,
    stream: TcpStream,
    /// What came since it has had what it asked for.
    heard: Vec<u8>,
    told: Option<Instant>,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Crowd {
    members: Vec<Option<Member>>,
}

/// When they were told, in clients that were told in their own protocol and then saw an
/// orderly end; and the last of those ends.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) tunnels: Vec<Instant>,
    pub(crate) streams: Vec<Instant>,
    pub(crate) last: Option<Instant>,
}

impl Crowd {
    /// So many WebSockets and event streams, all open.
    pub(crate) fn connect(place: &Place, tunnels: usize, streams: usize) -> Crowd {
        // By turns: those that are open for longest are told first.
        let mut members = Vec::new();
        for from in (0..tunnels.max(streams)).step_by(OPENING) {
            for (kind, count) in [(Kind::Tunnel, tunnels), (Kind::Stream, streams)] {
                let asked = (from..count.min(from + OPENING)).map(|_| ask(place, kind));
                let asked: Vec<Client> = asked.collect();
                members.extend(asked.into_iter().map(|client| Some(open(client, kind))));
            }
        }
        Crowd { members }
    }

    /// Follows all to their ends, for so long.
    pub(crate) fn follow(&mut self, bound: Duration) -> Ends {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        for (key, member) in self.members.iter().enumerate() {
            let key = epoll::EventData::new_u64(key as u64);
            let member = member.as_ref().expect("nobody has gone");
            epoll::add(&set, &member.stream, key, epoll::EventFlags::IN).expect("a watch");
        }
        let (start, mut ends, mut left) = (Instant::now(), Ends::default(), self.members.len());
        while left > 0 {
            let ready = wait(&set, bound.saturating_sub(start.elapsed()));
            assert!(!ready.is_empty(), "{left} have not ended within {bound:?}");
            for slot in ready {
                if let Some(member) = self.members[slot].take_if(Member::hear) {
                    left -= 1;
                    ends.note(&member);
                }
            }
        }
        ends
    }
}

impl Ends {
    fn note(&mut self, member: &Member) {
        let told = member.told.expect("told before the end");
        self.last = Some(Instant::now());
        match member.kind {
            Kind::Tunnel => self.tunnels.push(told),
            Kind::Stream => self.streams.push(told),
        }
    }
}

impl Member {
    /// Reads once; whether that was the end.
    fn hear(&mut self) -> bool {
        let mut octets = [0; 256];
        let read = self.stream.read(&mut octets);
        let read = read.unwrap_or_else(|error| panic!("{:?}, then {error}", self.heard));
        self.heard.extend_from_slice(&octets[..read]);
        let farewell = match self.kind {
            Kind::Tunnel => &GOING_AWAY,
            Kind::Stream => LAST_CHUNK,
        };
        assert!(farewell.starts_with(&self.heard), "{:?} heard {:?}", self.kind, self.heard);
        if self.told.is_none() && self.heard == farewell {
            self.told = Some(Instant::now());
            if self.kind == Kind::Tunnel {
                self.stream.write_all(&Frame::close(1001).octets(true)).expect("an answer");
            }
        }
        assert!(read > 0 || self.told.is_some(), "{:?} ended untold", self.kind);
        read == 0
    }
}

fn ask(place: &Place, kind: Kind) -> Client {
    let mut client = Client::connect(place);
    match kind {
        Kind::Tunnel => client.send(upgrade("/chat")),
        Kind::Stream => {
            let accepting = "\r\nAccept: text/event-stream\r\n\r\n";
            client.send(get("/events").replace("\r\n\r\n", accepting))
        }
    };
    client
}

fn open(mut client: Client, kind: Kind) -> Member {
    let wire = match kind {
        Kind::Tunnel => Socket::opened(client).wire,
        Kind::Stream => {
            assert_eq!(client.head().start, "HTTP/1.1 200 OK");
            assert_eq!(client.octets(EVENT.len()), EVENT);
            client.wire
        }
    };
    assert!(wire.ahead.is_empty(), "nothing more was sent");
    let stream = TcpStream::from(OwnedFd::from(wire.sock));
    Member { kind, stream, heard: Vec::new(), told: None }
}

/// The members of whom there is something to read.
fn wait(set: &OwnedFd, bound: Duration) -> Vec<usize> {
    let mut events = [MaybeUninit::<epoll::Event>::uninit(); 256];
    let bound = Timespec::try_from(bound).expect("a bound");
    let (ready, _) = epoll::wait(set, &mut events, Some(&bound)).expect("epoll");
    ready.iter().map(|event| event.data.u64() as usize).collect()
}
