//! The actors of a run: each holds connections up to the moment that matters, and does
//! its part at an instant near the signal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::{Due, Fact, Fate};
use super::{Gate, wait_until};
use crate::support::client::{Broken, Client, End, get, post_head};
use crate::support::origin::{HALVES, Origin};
use crate::support::timeline::Timeline;
use crate::support::wire::Place;
use crate::support::{Rng, ms, pattern, pause};

/// What an actor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// Connects, and asks at once or a little later.
    Accept,
    /// Connects ten times in a row, then asks on each.
    AcceptRow,
    /// Sends its first request on a connection that it made before.
    FirstOctet,
    /// Sends the rest of a head.
    LastOctetOfHead,
    /// Sends a second request while the first is being answered.
    Pipelined,
    /// Sends three requests at once.
    Together,
    /// Sends the end of a body.
    UploadEnd,
    /// Uses idle connections again.
    IdleReuse,
    /// Uses an idle connection around the end of its grace.
    IdleEnd,
    /// Gets the end of a response.
    ResponseEnd,
    /// Gets a large early response, slowly, while it still uploads.
    EarlyResponse,
    /// Asks when the process has said that it drains.
    ToldFresh,
    /// Gets its head when the process has said that it drains.
    ToldActive,
    /// Connects with TLS, and asks.
    TlsAccept,
    /// Uses an idle connection with TLS again.
    TlsIdle,
    /// Connects for HTTP/2, in clear text or with TLS, and asks.
    H2Accept,
    /// Opens streams, one after the other, and does not heed what it is told.
    H2Streams,
    /// Sends the end of a stream's body.
    H2UploadEnd,
}

const SCENES: [Scene; 18] = [
    Scene::Accept,
    Scene::AcceptRow,
    Scene::FirstOctet,
    Scene::LastOctetOfHead,
    Scene::Pipelined,
    Scene::Together,
    Scene::UploadEnd,
    Scene::IdleReuse,
    Scene::IdleEnd,
    Scene::ResponseEnd,
    Scene::EarlyResponse,
    Scene::ToldFresh,
    Scene::ToldActive,
    Scene::TlsAccept,
    Scene::TlsIdle,
    Scene::H2Accept,
    Scene::H2Streams,
    Scene::H2UploadEnd,
];

/// One actor's part: what, and when.
#[derive(Clone, Debug)]
pub(super) struct Part {
    scene: Scene,
    /// Whether it acts before or after the signal, and by how much.
    pub(super) before: bool,
    pub(super) offset: Duration,
    /// A little later, where the scene has a second act.
    pub(super) then: Duration,
    pub(super) choice: u64,
    idle_grace: Duration,
}

/// What an actor needs.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) number: usize,
    pub(super) place: Place,
    pub(super) tls: Place,
    pub(super) origin: Arc<Origin>,
    pub(super) gate: Arc<Gate>,
    pub(super) timeline: Timeline,
}

/// The scenes that can tell when a rule is broken; every one, if nothing is.
fn telling(broken: Option<&str>) -> &'static [Scene] {
    match broken {
        Some("last-look") => &[Scene::IdleEnd, Scene::IdleReuse],
        Some("linger") => &[Scene::EarlyResponse],
        Some("empty-accept-queue") => &[Scene::AcceptRow],
        Some("goaway-grace") => &[Scene::H2Streams],
        Some("serve-reading") => &[Scene::LastOctetOfHead],
        _ => &SCENES,
    }
}

impl Part {
    /// A part of the kind that this generator says, among those that can tell what is
    /// broken: a rule that shows in one run of many is looked for where it shows.
    pub(super) fn of(rng: &mut Rng, idle_grace: Duration, broken: Option<&str>) -> Part {
        let scenes = telling(broken);
        Part {
            scene: scenes[rng.below(scenes.len() as u64) as usize],
            before: rng.one_in(2),
            offset: rng.span(ms(0), ms(5)),
            then: rng.span(ms(0), ms(5)),
            choice: rng.next(),
            idle_grace,
        }
    }

    /// Plays it.
    pub(super) fn play(&self, stage: &Stage) -> Vec<Fact> {
        match self.scene {
            Scene::Accept => self.accept(stage, 1),
            Scene::AcceptRow => self.accept(stage, 10),
            Scene::FirstOctet => self.first_octet(stage),
            Scene::LastOctetOfHead => self.last_octet_of_head(stage),
            Scene::Pipelined => self.pipelined(stage),
            Scene::Together => self.together(stage),
            Scene::UploadEnd => self.upload_end(stage),
            Scene::IdleReuse => self.idle_reuse(stage, 1 + self.choice % 12, self.offset),
            Scene::IdleEnd => {
                let early = self.before && self.idle_grace > self.offset;
                let (grace, offset) = (self.idle_grace, self.offset);
                let at = if early { grace - offset } else { grace + offset };
                self.idle_reuse(stage, 1, at)
            }
            Scene::ResponseEnd => self.response_end(stage),
            Scene::EarlyResponse => self.early_response(stage),
            Scene::ToldFresh => self.told_fresh(stage),
            Scene::ToldActive => self.told_active(stage),
            Scene::TlsAccept => self.tls_accept(stage),
            Scene::TlsIdle => self.tls_idle(stage),
            Scene::H2Accept => self.h2_accept(stage),
            Scene::H2Streams => self.h2_streams(stage),
            Scene::H2UploadEnd => self.h2_upload_end(stage),
        }
    }

    /// Waits for the instant of this part.
    pub(super) fn moment(&self, stage: &Stage) -> Instant {
        let signal_at = stage.gate.here();
        let moment = if self.before { signal_at - self.offset } else { signal_at + self.offset };
        wait_until(moment);
        self.note(stage, "acts")
    }

    fn note(&self, stage: &Stage, what: &str) -> Instant {
        stage.timeline.note(format!("{} {:?} {what}", stage.number, self.scene))
    }

    pub(super) fn fact(
        &self,
        stage: &Stage,
        which: usize,
        due: Due,
        began: Instant,
        sent: Instant,
        fate: Fate,
    ) -> Fact {
        let who = format!("{} {:?} request {which}", stage.number, self.scene);
        stage.timeline.note_at(sent, format!("{who} sent"));
        stage.timeline.note(format!("{who}: {fate:?}"));
        Fact { who, due, began, sent, fate }
    }

    fn accept(&self, stage: &Stage, row: usize) -> Vec<Fact> {
        self.moment(stage);
        let mut made = Vec::new();
        for _ in 0..row {
            let began = Instant::now();
            made.push((began, Client::try_connect(&stage.place, ms(300)), Instant::now()));
        }
        if self.choice.is_multiple_of(2) {
            pause(self.then);
        }
        let mut facts = Vec::new();
        let mut open = Vec::new();
        for (which, (began, client, ended)) in made.into_iter().enumerate() {
            match client {
                Ok(mut client) => {
                    let result = client.try_send(get("/accept"));
                    open.push((which, began, Instant::now(), client, result));
                }
                Err(end) => {
                    let fate = Fate::NotConnected(end);
                    facts.push(self.fact(stage, which, Due::Fresh, began, ended, fate));
                }
            }
        }
        for (which, began, sent, mut client, result) in open {
            let fate = answer(&mut client, result, "GET /accept 0");
            facts.push(self.fact(stage, which, Due::Fresh, began, sent, fate));
        }
        facts
    }

    fn first_octet(&self, stage: &Stage) -> Vec<Fact> {
        let began = Instant::now();
        let mut client = Client::connect(&stage.place);
        self.moment(stage);
        let result = client.try_send(get("/first"));
        let sent = Instant::now();
        let fate = answer(&mut client, result, "GET /first 0");
        vec![self.fact(stage, 0, Due::Fresh, began, sent, fate)]
    }

    fn last_octet_of_head(&self, stage: &Stage) -> Vec<Fact> {
        let mut client = self.some_client(stage);
        let head = get("/head");
        let cut = 1 + (self.choice / 16) as usize % (head.len() - 1);
        client.send(&head[..cut]);
        pause(ms(2));
        let began = self.moment(stage);
        let result = client.try_send(&head[cut..]);
        let sent = Instant::now();
        let fate = answer(&mut client, result, "GET /head 0");
        vec![self.fact(stage, 0, Due::Always, began, sent, fate)]
    }

    /// A fresh connection, or one that was used.
    fn some_client(&self, stage: &Stage) -> Client {
        let mut client = Client::connect(&stage.place);
        if self.choice.is_multiple_of(2) {
            client.get("/warm");
            client.response();
        }
        client
    }

    fn pipelined(&self, stage: &Stage) -> Vec<Fact> {
        let mut client = self.some_client(stage);
        let first = format!("/hold/{}", stage.number);
        client.get(&first);
        stage.origin.wait_started(&first);
        let began = self.moment(stage);
        let result = client.try_send(get("/second"));
        let sent = Instant::now();
        pause(self.then);
        stage.origin.release(&first);
        let mut facts = Vec::new();
        let fate = not_the_last(answer(&mut client, Ok(()), "held"));
        facts.push(self.fact(stage, 0, Due::Always, began, sent, fate));
        let fate = answer(&mut client, result, "GET /second 0");
        facts.push(self.fact(stage, 1, Due::Always, began, sent, fate));
        facts
    }

    fn together(&self, stage: &Stage) -> Vec<Fact> {
        let used = self.choice.is_multiple_of(2);
        let connected = Instant::now();
        let mut client = self.some_client(stage);
        let acted = self.moment(stage);
        let began = if used { acted } else { connected };
        if let Some(end) = client.ended() {
            let due = if used { Due::Idle } else { Due::Fresh };
            return vec![self.fact(stage, 0, due, began, Instant::now(), Fate::GoneBefore(end))];
        }
        let result = client.try_send([get("/1"), get("/2"), get("/3")].concat());
        let sent = Instant::now();
        let mut facts = Vec::new();
        for (which, last) in [(0, false), (1, false), (2, true)] {
            let due = match which {
                0 if used => Due::Idle,
                0 => Due::Fresh,
                _ => Due::Always,
            };
            let fate = answer(&mut client, result, &format!("GET /{} 0", which + 1));
            let answered = matches!(fate, Fate::Answered { .. });
            let fate = if last { fate } else { not_the_last(fate) };
            facts.push(self.fact(stage, which, due, began, sent, fate));
            if !answered {
                break;
            }
        }
        facts
    }

    fn upload_end(&self, stage: &Stage) -> Vec<Fact> {
        let mut client = self.some_client(stage);
        let target = format!("/up/{}", stage.number);
        let body = pattern(20_000);
        let cut = 1 + (self.choice / 16) as usize % (body.len() - 1);
        client.send(post_head(&target, body.len())).send(&body[..cut]);
        stage.origin.wait_started(&target);
        let began = self.moment(stage);
        let middle = (cut + body.len()).div_ceil(2).min(body.len());
        let mut result = client.try_send(&body[cut..middle]);
        pause(self.then);
        result = result.and_then(|()| client.try_send(&body[middle..]));
        let sent = Instant::now();
        let fate = answer(&mut client, result, &format!("POST {target} 20000"));
        vec![self.fact(stage, 0, Due::Always, began, sent, fate)]
    }

    fn idle_reuse(&self, stage: &Stage, connections: u64, offset: Duration) -> Vec<Fact> {
        let mut clients: Vec<Client> = (0..connections)
            .map(|_| {
                let mut client = Client::connect(&stage.place);
                client.get("/warm");
                client.response();
                client
            })
            .collect();
        if self.scene == Scene::IdleReuse {
            self.moment(stage);
        } else {
            wait_until(stage.gate.here() + offset);
            self.note(stage, "acts");
        }
        let sent: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                let began = Instant::now();
                let gone = client.ended();
                let result = if gone.is_none() { client.try_send(get("/again")) } else { Ok(()) };
                (began, gone, result, Instant::now())
            })
            .collect();
        let mut facts = Vec::new();
        for (which, (began, gone, result, sent)) in sent.into_iter().enumerate() {
            let fate = match gone {
                Some(end) => Fate::GoneBefore(end),
                None => answer(&mut clients[which], result, "GET /again 0"),
            };
            facts.push(self.fact(stage, which, Due::Idle, began, sent, fate));
        }
        facts
    }

    fn response_end(&self, stage: &Stage) -> Vec<Fact> {
        let mut client = self.some_client(stage);
        let framing = ["length", "chunked", "close"][(self.choice / 16) as usize % 3];
        let target = format!("/part/{framing}/{}", stage.number);
        client.get(&target);
        stage.origin.wait_started(&target);
        if self.choice.is_multiple_of(3) {
            // Long enough for the first half to be on its way.
            pause(ms(2));
        }
        let began = self.moment(stage);
        stage.origin.release(&target);
        let fate = answer(&mut client, Ok(()), &HALVES.concat());
        vec![self.fact(stage, 0, Due::Always, began, began, fate)]
    }

    fn early_response(&self, stage: &Stage) -> Vec<Fact> {
        const LEN: usize = 300_000;
        // An app that reads on, and one that wants no more: only then the proxy closes
        // while octets come.
        let kind = if self.choice.is_multiple_of(2) { "early" } else { "curt" };
        let mut client = Client::connect_narrow(&stage.place, 4096);
        client.send(post_head(&format!("/{kind}/{LEN}/{}", stage.number), 1_000_000));
        let began = self.moment(stage);
        for _ in 0..8 {
            // The answer may have come and the proxy may read no more: no reason to stop.
            let _ = client.try_send(pattern(1000));
            pause(self.then / 2);
        }
        let sent = Instant::now();
        let fate = match client.try_response() {
            Ok(response) if response.body == pattern(LEN) => {
                Fate::Answered { close: response.says_close() }
            }
            Ok(response) => Fate::Wrong(format!("{} octets", response.body.len())),
            Err(broken) => Fate::Lost(shortened(broken)),
        };
        vec![self.fact(stage, 0, Due::Always, began, sent, fate)]
    }

    fn told_fresh(&self, stage: &Stage) -> Vec<Fact> {
        let began = Instant::now();
        let mut client = Client::connect(&stage.place);
        stage.gate.here();
        stage.gate.wait_draining();
        self.note(stage, "acts");
        let result = client.try_send(get("/told"));
        let sent = Instant::now();
        let fate = answer(&mut client, result, "GET /told 0");
        vec![self.fact(stage, 0, Due::FreshAndTold, began, sent, fate)]
    }

    fn told_active(&self, stage: &Stage) -> Vec<Fact> {
        let mut client = self.some_client(stage);
        let target = format!("/hold/told/{}", stage.number);
        client.get(&target);
        stage.origin.wait_started(&target);
        stage.gate.here();
        stage.gate.wait_draining();
        let began = self.note(stage, "acts");
        stage.origin.release(&target);
        let fate = answer(&mut client, Ok(()), "held");
        vec![self.fact(stage, 0, Due::Told, began, began, fate)]
    }
}

/// Reads an answer. What could not even be sent is lost the same way.
fn answer(client: &mut Client, sent: Result<(), End>, text: &str) -> Fate {
    match client.try_response() {
        Ok(response) if response.status == 200 && response.text() == text => {
            Fate::Answered { close: response.says_close() }
        }
        Ok(response) => Fate::Wrong(format!("{} {}", response.status, response.text())),
        Err(broken) => match sent {
            Err(end) => Fate::GoneBefore(end),
            Ok(()) => Fate::Lost(shortened(broken)),
        },
    }
}

pub(super) fn shortened(mut broken: Broken) -> Broken {
    broken.got.truncate(100);
    broken
}

/// An answer after which another one is due must not say that it is the last.
fn not_the_last(fate: Fate) -> Fate {
    match fate {
        Fate::Answered { close: true } => Fate::Wrong("close, with a request behind it".into()),
        fate => fate,
    }
}
