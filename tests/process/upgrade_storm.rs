//! Upgrades under full load: clients of every kind go on through each replacement of the
//! binary, and count for themselves what it did to them.
//!
//! `TESTS_STORM_UPGRADES` sets the number of upgrades.

mod callers;
pub(crate) mod score;
mod streams;
mod tunnels;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::score::{Asked, Harm, Score};
use crate::support::generations::{Generations, Gone, Member, sum};
use crate::support::identity::Identity;
use crate::support::origin::{Next, Origin, OriginConn, standard};
use crate::support::peers::{
    CURL_H1, CURL_H2, CURL_PRIOR, Counts, GO_H1, GO_H2, Kind as PeerKind, NGHTTP, PYTHON, Peer,
    Target,
};
use crate::support::process::Launch;
use crate::support::shelf::Shelf;
use crate::support::wire::{End, Place};
use crate::support::{PATIENCE, Rng, admin, ms, pattern, pause, within};

/// Octets of an answer that comes in pieces.
const TRICKLED: usize = 80_000;

/// The pieces of it, and the time between two.
const PIECES: usize = 8;
const PIECE_TIME: Duration = ms(60);

/// The longest that a request of these clients is under way, on a busy machine.
const LONGEST: Duration = ms(4_000);

/// How long after its last connection an elder may still be there.
const LEAVES_WITHIN: Duration = ms(1_000);

type Kind = fn(&Place, &Arc<Score>, u32, Rng) -> Asked;

/// Clients in clear text whose connections no upgrade may end, and how many of each.
pub(crate) const PLAIN: &[(Kind, u32)] = &[
    (|place, score, n, rng| callers::busy(place, score, n, rng), 6),
    (|place, score, n, rng| callers::thoughtful(place, score, n, rng), 4),
    (|place, score, n, rng| callers::mostly_idle(place, score, n, rng), 8),
    (|place, score, n, rng| callers::pipelining(place, score, n, rng), 3),
    (|place, score, n, rng| callers::uploading(place, score, n, rng), 3),
    (|place, score, n, rng| callers::downloading(place, score, n, rng), 3),
    (|place, score, n, rng| callers::one_each(place, score, n, rng), 4),
    (|place, score, n, rng| callers::process_each(place, score, n, rng), 1),
    (tunnels::sockets, 6),
    (tunnels::opaque, 3),
];

/// Clients of HTTP/2 in clear text.
const STREAMS: &[(Kind, u32)] =
    &[(|place, score, n, rng| streams::streaming(place, score, n, rng), 3)];

/// Clients over TLS.
const OVER_TLS: &[(Kind, u32)] = &[
    (|place, score, n, rng| callers::over_tls(place, score, n, rng), 4),
    (|place, score, n, rng| streams::streaming_over_tls(place, score, n, rng), 3),
];

/// The app server of a storm: notes every id.
pub(crate) fn origin(score: &Arc<Score>) -> Origin {
    let ledger = Arc::clone(score.ledger());
    Origin::scripted(move |conn, request| {
        ledger.note(&request.target);
        match request.target.split('?').next() {
            Some("/ws") => tunnels::serve_socket(conn, request),
            Some("/opaque") => tunnels::serve_opaque(conn, request),
            Some("/trickle") => trickle(conn),
            _ => standard(conn, request),
        }
    })
    .letting_go()
}

fn trickle(conn: &mut OriginConn) -> Result<Next, End> {
    conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {TRICKLED}\r\n\r\n"))?;
    for piece in pattern(TRICKLED).chunks(TRICKLED / PIECES) {
        conn.send(piece)?;
        pause(PIECE_TIME);
    }
    Ok(Next::KeepAlive)
}

/// How the proxy of a storm is started.
pub(crate) fn launch(origin: &Origin) -> Launch {
    Launch::before(origin).arg("--workers").arg("2").set("upgrade_tokens", tunnels::OPAQUE)
}

/// Clients at work.
pub(crate) struct Storm {
    score: Arc<Score>,
    clients: Vec<JoinHandle<Asked>>,
    seed: u64,
}

impl Storm {
    /// No client yet.
    pub(crate) fn new(score: &Arc<Score>, seed: u64) -> Storm {
        Storm { score: Arc::clone(score), clients: Vec::new(), seed }
    }

    /// Sends clients to work.
    pub(crate) fn join(&mut self, place: &Place, kinds: &[(Kind, u32)]) {
        for (kind, many) in kinds {
            for _ in 0..*many {
                let number = self.clients.len() as u32;
                let (kind, place, score) = (*kind, place.clone(), Arc::clone(&self.score));
                let rng = Rng::new(self.seed ^ u64::from(number) << 32);
                self.clients.push(std::thread::spawn(move || kind(&place, &score, number, rng)));
            }
        }
    }

    /// Waits until it blows.
    pub(crate) fn wait_blowing(&self) {
        let served = self.score.served();
        within(PATIENCE, "the storm to blow", || {
            (self.score.served() > served + 100).then_some(())
        });
    }

    /// Lets the clients end, and judges what they asked.
    pub(crate) fn end(self) {
        self.score.end();
        for client in self.clients {
            match client.join() {
                Ok(asked) => self.score.judge(&asked),
                Err(_) => self.score.harm(Harm::Lost, "a client panicked"),
            }
        }
    }
}

/// How many upgrades a storm has.
fn upgrades() -> usize {
    let set = std::env::var("TESTS_STORM_UPGRADES").ok();
    set.and_then(|value| value.parse().ok()).unwrap_or(5)
}

/// Elders that leave, each watched.
#[derive(Default)]
struct Elders(Vec<JoinHandle<(Member, Gone, Duration)>>);

impl Elders {
    fn leave(&mut self, line: &Generations, member: Member, bound: Duration) {
        let admin = line.admin_place().clone();
        self.0.push(std::thread::spawn(move || {
            let (begun, mut busy) = (Instant::now(), Instant::now());
            while !member.is_gone() {
                assert!(begun.elapsed() < bound, "{}", admin::status(&admin));
                if has_connections(&admin, member.pid) {
                    busy = Instant::now();
                }
                pause(ms(10));
            }
            let gone = member.wait_gone(bound);
            let empty = gone.at.saturating_duration_since(busy);
            (member, gone, empty)
        }));
    }

    /// All of them are gone, with exit status 0; the longest that one was there for
    /// nothing.
    fn wait(self, line: &Generations) -> Duration {
        let mut longest = Duration::ZERO;
        for elder in self.0 {
            let (member, gone, empty) = elder.join().expect("an elder leaves in time");
            assert_eq!(line.exit_of(&member, &gone), 0, "generation {}", member.generation);
            longest = longest.max(empty);
        }
        longest
    }
}

/// Whether an elder has told that it has connections, or has told nothing yet.
fn has_connections(admin: &Place, pid: u32) -> bool {
    let Some(status) = admin::try_status(admin) else { return false };
    let elders = status["elders"].as_array().into_iter().flatten();
    let mut its = elders.filter(|elder| elder["pid"] == pid);
    its.any(|elder| elder["connections"].is_null() || sum(&elder["connections"]) > 0)
}

/// Upgrades under load, and what the newest generation has at the end.
fn blow(line: &Generations, score: &Arc<Score>, storm: Storm, elder_bound: Duration) {
    let mut rng = Rng::new(storm.seed);
    let mut elders = Elders::default();
    storm.wait_blowing();
    for n in 0..upgrades() {
        let (elder, serving) = line.upgrade();
        score.note(format!("upgrade {n}: {}", serving.fields));
        elders.leave(line, elder, elder_bound);
        pause(ms(rng.below(700)));
        assert!(score.all_harm().is_none(), "upgrade {n}: {}", score.all_harm().unwrap());
        storm.wait_blowing();
    }
    storm.end();
    let longest = elders.wait(line);
    eprintln!(
        "{} upgrades, {} requests, {} messages; an elder with nothing stayed {longest:?} at most",
        upgrades(),
        score.served(),
        score.messages()
    );
    if let Some(harm) = score.all_harm() {
        panic!("{harm}");
    }
    assert!(longest < LEAVES_WITHIN, "an elder with nothing was there for {longest:?}");
    let status = line.status();
    assert_eq!(status["generation"], upgrades() as u64 + 1, "{status}");
    assert_eq!(status["elders"].as_array().map(Vec::len), Some(0), "{status}");
}

#[test]
fn upgrades_under_load_end_no_plaintext_connection_and_lose_nothing() {
    let score = Score::new();
    let origin = origin(&score);
    let line = Generations::start(launch(&origin));
    let mut storm = Storm::new(&score, 1);
    storm.join(&line.place(), PLAIN);
    blow(&line, &score, storm, LONGEST + LEAVES_WITHIN);
    let report = line.report_of(1);
    assert!(sum(&report["moved"]) > 20, "{report}");
    assert_eq!(line.stop().code, Some(0));
}

#[test]
fn upgrades_under_load_end_http2_and_tls_in_order() {
    let score = Score::new();
    let origin = origin(&score);
    let line = Generations::start(launch(&origin).tls().set("drain.upgrade.goaway_grace", "200ms"));
    let mut storm = Storm::new(&score, 2);
    storm.join(&line.place(), STREAMS);
    storm.join(&line.tls_place(), OVER_TLS);
    blow(&line, &score, storm, PATIENCE);
    assert_eq!(line.stop().code, Some(0));
}

/// Successors that are no good, one after the other, under the same load.
#[test]
fn upgrades_that_fail_under_load_do_no_harm() {
    let score = Score::new();
    let origin = origin(&score);
    let shelf = Shelf::new();
    let launch = launch(&origin).set("upgrade.timeout", "1s").binary(&shelf.path());
    let line = Generations::start(launch);
    let mut storm = Storm::new(&score, 8);
    storm.join(&line.place(), PLAIN);
    storm.wait_blowing();
    let scripts =
        ["exit 1", "exec sleep 60", "kill -SEGV $$", "exec /usr/bin/python3 -c 'import sys'"];
    for (n, script) in scripts.iter().enumerate() {
        shelf.put_script(&format!("#!/bin/sh\n{script}\n"), 0o755);
        line.newest().signal(Signal::USR2);
        line.wait_nth("upgrade_failed", n);
        storm.wait_blowing();
        assert!(score.all_harm().is_none(), "{script}: {}", score.all_harm().unwrap());
    }
    shelf.put_right();
    line.upgrade();
    storm.wait_blowing();
    storm.end();
    if let Some(harm) = score.all_harm() {
        panic!("{harm}");
    }
    assert_eq!(line.stop().code, Some(0));
}

/// Clients of other make, which work until nobody listens any more.
#[test]
fn upgrades_under_load_lose_nothing_of_clients_of_other_make() {
    let origin = Origin::new().letting_go();
    let identity = Identity::new();
    let launch = Launch::before(&origin)
        .arg("--workers")
        .arg("2")
        .arg("--tls-listen")
        .arg("127.0.0.1:0")
        .identity(&identity.files)
        // Longer than a client that thinks for 50 ms can be held up by a busy machine.
        .set("drain.upgrade.goaway_grace", "500ms")
        // A client that reads late would lose what it has not read by a reset.
        .set("drain.upgrade.linger", "5s")
        .stop("goaway_grace", "500ms")
        .stop("linger", "5s")
        .stop("idle_grace", "2s")
        .stop("drain_timeout", "60s");
    let line = Generations::start(launch);
    let at = |proto: &str, seed| Target {
        place: line.place_of(proto, 0),
        trusted: (proto == "https").then(|| identity.authority.clone()),
        seed,
    };
    let (clear, tls) = (at("http", 3), at("https", 4));
    let crew: &[(&Target, &[PeerKind])] = &[
        (&clear, &[PYTHON, CURL_PRIOR, NGHTTP]),
        (&tls, &[PYTHON, GO_H2, GO_H1, CURL_H2, CURL_H1, NGHTTP]),
    ];
    let peers: Vec<Peer> = crew
        .iter()
        .flat_map(|(target, kinds)| kinds.iter().map(|kind| Peer::start(*kind, target)))
        .collect();
    for (_, kinds) in crew {
        for kind in *kinds {
            let begins = format!("/{}/", kind.name);
            origin.wait_request(&begins, |request| request.target.starts_with(&begins));
        }
    }
    let mut rng = Rng::new(3);
    for _ in 0..upgrades() {
        line.upgrade();
        pause(ms(200 + rng.below(1_000)));
    }
    line.newest().signal(Signal::TERM);
    let all: Vec<(&str, Counts)> = peers.into_iter().map(Peer::wait).collect();
    for (name, counts) in all {
        assert_eq!(counts.lost, 0, "{name}: {counts:?}");
        assert!(counts.ok > 0, "{name}: {counts:?}");
    }
    line.wait_alive(0);
}

/// Without an upgrade the clients have nothing to say against it.
#[test]
fn the_storm_sees_nothing_where_nothing_is() {
    let score = Score::new();
    let origin = origin(&score);
    let proxy = launch(&origin).tls().start();
    let mut storm = Storm::new(&score, 7);
    storm.join(&proxy.place(), PLAIN);
    storm.join(&proxy.place(), STREAMS);
    storm.join(&proxy.tls_place(), OVER_TLS);
    storm.wait_blowing();
    pause(ms(3_000));
    storm.end();
    assert!(score.messages() > 100, "{score:?}");
    if let Some(harm) = score.all_harm() {
        panic!("{harm}");
    }
}

/// The storm would see it: a stop and a start in place of an upgrade.
#[test]
fn the_storm_sees_a_restart() {
    let score = Score::new();
    let origin = origin(&score);
    let listen = free_address();
    let start = || {
        launch(&origin).listen(&listen).stop("idle_grace", "0s").stop("drain_timeout", "2s").start()
    };
    let first = start();
    let mut storm = Storm::new(&score, 5);
    storm.join(&first.place(), PLAIN);
    storm.wait_blowing();
    pause(ms(500));
    first.terminate();
    first.wait_exit();
    let _second = start();
    storm.wait_blowing();
    storm.end();
    eprintln!("{}", score.all_harm().unwrap_or_default());
    for harm in [Harm::Refused, Harm::ClosedH1, Harm::ClosedTunnel] {
        assert!(score.count(harm) > 0, "no {harm:?}: {:?}", score.all_harm());
    }
}

/// The storm would see it: a process that is killed.
#[test]
fn the_storm_sees_a_kill() {
    let score = Score::new();
    let origin = origin(&score);
    let listen = free_address();
    let start = || launch(&origin).listen(&listen).start();
    let first = start();
    let mut storm = Storm::new(&score, 6);
    storm.join(&first.place(), PLAIN);
    storm.wait_blowing();
    first.signal(Signal::KILL);
    first.wait_gone();
    let _second = start();
    storm.wait_blowing();
    storm.end();
    eprintln!("{}", score.all_harm().unwrap_or_default());
    assert!(score.count(Harm::Lost) + score.count(Harm::Reset) > 0, "{:?}", score.all_harm());
    assert!(score.count(Harm::ClosedTunnel) > 0, "{:?}", score.all_harm());
}

/// An address that two processes can have one after the other: no outgoing connection
/// takes its port in between.
fn free_address() -> String {
    let host = format!("127.{}.7.1", 100 + std::process::id() % 100);
    let listener = std::net::TcpListener::bind((host.as_str(), 0)).expect("an address");
    listener.local_addr().expect("an address").to_string()
}
