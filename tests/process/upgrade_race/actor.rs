//! The clients of a run, and what became of each of their connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::{Broken, Client, End, Response, get};
use crate::support::timeline::Timeline;
use crate::support::wire::Place;
use crate::support::ws::{self, BINARY, CLOSE, Frame};
use crate::support::{PATIENCE, Rng, ms, pattern, pause, within};

/// Clients with a connection for each request.
pub(super) const KNOCKERS: u64 = 3;

/// Those that keep theirs: hardly used, always used, WebSockets.
const IDLE: u64 = 5;
const BUSY: u64 = 3;
const SOCKETS: u64 = 3;

/// What all clients of a run share.
#[derive(Debug)]
pub(super) struct Stage {
    place: Place,
    timeline: Timeline,
    over: AtomicBool,
    served: AtomicU64,
}

impl Stage {
    pub(super) fn new(place: Place, timeline: Timeline) -> Stage {
        Stage { place, timeline, over: AtomicBool::new(false), served: AtomicU64::new(0) }
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn serve(&self) {
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn wait_busy(&self) {
        within(PATIENCE, "busy clients", || {
            (self.served.load(Ordering::SeqCst) > 100).then_some(())
        });
    }
}

/// How a connection ended that its client did not want to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// By `Connection: close` or a WebSocket Close.
    Told,
    /// In order, with nothing under way.
    Idle,
    /// It never began: nobody listens.
    Refused,
    /// By the loss of what was under way.
    Broken,
}

/// The end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) how: How,
    pub(super) what: String,
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) who: String,
    /// When the client began to connect, and from which port it did.
    pub(super) began: Instant,
    pub(super) port: u16,
    /// How it ended; none if its client ended it.
    pub(super) end: Option<Ended>,
}

impl Fact {
    fn new(who: &str, began: Instant) -> Fact {
        Fact { who: who.to_owned(), began, port: 0, end: None }
    }

    fn ended(mut self, stage: &Stage, how: How, what: impl Into<String>) -> Fact {
        let (at, what) = (Instant::now(), what.into());
        stage.timeline.note_at(at, format!("{}: {how:?}: {what}", self.who));
        self.end = Some(Ended { how, what });
        self
    }

    /// The request that was under way for as long as the run.
    pub(super) fn of_held(response: Result<Response, Broken>, stage: &Stage) -> Fact {
        let fact = Fact::new("the held request", Instant::now() + PATIENCE);
        match response {
            Ok(response) if response.text() == "held" => fact,
            other => fact.ended(stage, How::Broken, format!("{other:?}")),
        }
    }
}

type Step = fn(&mut Client, &mut Rng) -> Result<(), (How, String)>;

/// Sends all clients to work.
pub(super) fn start(stage: &Arc<Stage>, seed: u64) -> Vec<JoinHandle<Vec<Fact>>> {
    let kinds: [(&'static str, u64, Step); 3] =
        [("idle", IDLE, use_rarely), ("busy", BUSY, use_often), ("socket", SOCKETS, exchange)];
    let mut threads = Vec::new();
    for (who, many, step) in kinds {
        for number in 0..many {
            let (stage, rng) = (Arc::clone(stage), Rng::new(seed ^ number << 40));
            let who = format!("{who} {number}");
            threads.push(std::thread::spawn(move || keep(&stage, &who, rng, step)));
        }
    }
    for number in 0..KNOCKERS {
        let (stage, rng) = (Arc::clone(stage), Rng::new(seed ^ number << 48));
        threads.push(std::thread::spawn(move || knock(&stage, &format!("knocker {number}"), rng)));
    }
    threads
}

/// Connects; at times nobody listens any more, and that is the last fact.
fn connect(stage: &Stage, who: &str) -> Result<(Client, Fact), Fact> {
    let mut fact = Fact::new(who, Instant::now());
    match Client::try_connect(&stage.place, PATIENCE) {
        Ok(client) => {
            fact.port = client.port();
            Ok((client, fact))
        }
        Err(End::Refused) => Err(fact.ended(stage, How::Refused, "connect")),
        // Its handshake was not answered: it never believed that it was connected.
        Err(End::TimedOut) => Err(fact.ended(stage, How::Refused, "connect: no answer")),
        Err(end) => Err(fact.ended(stage, How::Broken, format!("connect: {end:?}"))),
    }
}

/// Uses a connection for as long as it lives, and then the next.
fn keep(stage: &Stage, who: &str, mut rng: Rng, step: Step) -> Vec<Fact> {
    let mut facts = Vec::new();
    while !stage.is_over() {
        let (mut client, fact) = match connect(stage, who) {
            Ok(connected) => connected,
            Err(fact) => {
                facts.push(fact);
                break;
            }
        };
        if who.starts_with("socket") {
            let sent = client.try_send(ws::upgrade("/ws"));
            let opened = client.wire.head();
            if !opened.as_ref().is_ok_and(|head| head.start.contains("101")) {
                facts.push(fact.ended(
                    stage,
                    How::Broken,
                    format!("no tunnel: {opened:?}, sent {sent:?}"),
                ));
                continue;
            }
        }
        // The last step begins when it is over.
        let end = loop {
            let last = stage.is_over();
            match step(&mut client, &mut rng) {
                Ok(()) => stage.serve(),
                Err(end) => break Some(end),
            }
            if last {
                break None;
            }
        };
        facts.push(match end {
            None => fact,
            Some((how, what)) => fact.ended(stage, how, what),
        });
    }
    facts
}

fn ask(client: &mut Client, target: &str) -> Result<(), (How, String)> {
    if let Some(end) = client.ended() {
        let how = if end == End::Eof { How::Idle } else { How::Broken };
        return Err((how, format!("{end:?} while idle")));
    }
    let sent = client.try_send(get(target));
    match client.try_response() {
        Ok(response) if response.text() != format!("GET {target} 0") => {
            Err((How::Broken, format!("{} {:.80}", response.status, response.text())))
        }
        Ok(response) if response.says_close() => Err((How::Told, "Connection: close".to_owned())),
        Ok(_) => Ok(()),
        Err(broken) => Err((How::Broken, format!("{broken:?}, sent {sent:?}"))),
    }
}

fn use_rarely(client: &mut Client, rng: &mut Rng) -> Result<(), (How, String)> {
    pause(ms(50 + rng.below(300)));
    ask(client, "/idle")
}

fn use_often(client: &mut Client, rng: &mut Rng) -> Result<(), (How, String)> {
    pause(Duration::from_micros(rng.below(6_000)));
    ask(client, "/busy")
}

/// A message on a WebSocket and its echo; at times a large one, at times in two pieces.
fn exchange(client: &mut Client, rng: &mut Rng) -> Result<(), (How, String)> {
    let length = if rng.one_in(20) { 100_000 } else { rng.below(200) as usize };
    let frame = Frame::new(BINARY, pattern(length));
    let octets = frame.octets(true);
    let cut = rng.below(octets.len() as u64) as usize;
    let broken = |end: End| (How::Broken, format!("{end:?}"));
    let sent = client.try_send(&octets[..cut]);
    pause(Duration::from_micros(rng.below(20_000)));
    let sent = sent.and_then(|()| client.try_send(&octets[cut..]));
    match ws::read(&mut client.wire, false) {
        Ok(back) if back == frame => sent.map_err(broken),
        Ok(back) if back.opcode == CLOSE => Err((How::Told, format!("Close {:?}", back.code()))),
        Ok(back) => Err((How::Broken, format!("another message: {} octets", back.payload.len()))),
        Err(end) => Err(broken(end)),
    }
}

/// A connection for each request.
fn knock(stage: &Stage, who: &str, mut rng: Rng) -> Vec<Fact> {
    let mut facts = Vec::new();
    while !stage.is_over() {
        let (mut client, fact) = match connect(stage, who) {
            Ok(connected) => connected,
            Err(fact) => {
                facts.push(fact);
                break;
            }
        };
        let request = get("/knock").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let sent = client.try_send(request);
        facts.push(match client.try_response() {
            Ok(response) if response.text() == "GET /knock 0" => {
                stage.serve();
                fact
            }
            other => fact.ended(stage, How::Broken, format!("{other:?}, sent {sent:?}")),
        });
        pause(Duration::from_micros(rng.below(4_000)));
    }
    facts
}
