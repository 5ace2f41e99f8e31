//! Both ends of a channel over which connections go: whatever stands still or ends, each
//! connection is one process's.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::elders::{Elders, Port, Word};
use super::outgoing::{Kept, Left, Line, News, Over};
use crate::config::Plan;
use crate::drain::Scope;
use crate::handoff::moved::tests::connection;
use crate::handoff::{Channel, Message, Parcel, State};
use crate::lifecycle::{self, Plans};
use crate::limits::{DEPARTURES, HANDOFF_WINDOW, MOVED_OCTETS_MAX};
use crate::serve::{Delivery, Departure};
use crate::server::overview::Overview;
use crate::telemetry::{MovedKind, Sink, Tunnels};

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build_local(LocalOptions::default());
    runtime.unwrap().block_on(async {
        let bounded = timeout(Duration::from_secs(600), test);
        bounded.await.expect("the test ends")
    })
}

fn overview(generation: u32) -> Rc<Overview> {
    let plans = Plans { stop: Plan::default(), upgrade: Plan::default() };
    Rc::new(Overview {
        scope: Scope::new(Instant::now()),
        counters: Vec::new(),
        counted_here: Arc::default(),
        access: Sink::new("access", File::create("/dev/null").unwrap(), 0).unwrap(),
        tunnels: Tunnels::default(),
        state: RefCell::new(lifecycle::State::new(plans, Instant::now())),
        generation,
        no_successor: None,
        ledger: RefCell::default(),
        elders: RefCell::default(),
        succession: Cell::new(None),
        shutdown_start: Cell::new(None),
        errors: RefCell::default(),
    })
}

/// The elder's end: generation 1.
struct Elder {
    overview: Rc<Overview>,
    departs: mpsc::Sender<Departure>,
    words: mpsc::Sender<Message>,
    _news: mpsc::Receiver<News>,
    line: JoinHandle<Left>,
}

impl Elder {
    /// It has let its successor go, who has heard that.
    async fn start() -> (Elder, Channel) {
        let (channel, theirs) = Channel::pair().unwrap();
        let (departs, departures) = mpsc::channel(DEPARTURES);
        let (tell, news) = mpsc::channel(64);
        let (words, said) = mpsc::channel(64);
        let overview = overview(1);
        let counters = Arc::clone(&overview.counted_here);
        let line = Line { channel, departures, news: tell, words: said, counters };
        let go = Message::Go { counted: Vec::new(), elders: Vec::new() };
        let line = spawn_local(line.run(go));
        let theirs = Channel::from_fd(theirs).unwrap();
        let first = theirs.recv().await.unwrap().unwrap().message;
        assert!(matches!(first, Message::Go { .. }));
        (Elder { overview, departs, words, _news: news, line }, theirs)
    }

    /// A batch of one connection, which has so many octets, goes.
    async fn sends(&self, octets: usize) {
        let (near, _far) = UnixStream::pair().unwrap();
        let parcel =
            Parcel { moved: connection(0), fds: vec![near.into()], octets: vec![b'x'; octets] };
        let (kind, hold) = (MovedKind::H1Idle, self.overview.scope.hold());
        assert!(self.departs.send(Departure { kind, parcel, hold }).await.is_ok());
        rest().await;
    }

    fn moved(&self) -> u64 {
        self.overview.own_totals().moved.iter().sum()
    }

    async fn has_moved(&self, n: u64) {
        while self.moved() < n {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Until nothing is to be done but to wait; no time passes.
async fn rest() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The successor's end: generation 2.
struct Successor {
    elders: Elders,
    workers: Vec<mpsc::Receiver<Delivery>>,
}

impl Successor {
    fn new(channel: Channel, workers: usize) -> Successor {
        let (senders, workers) = (0..workers).map(|_| mpsc::channel(64)).unzip();
        let port = Port { overview: overview(2), workers: senders };
        let elders = Elders::new(BTreeMap::from([(1, channel)]), Vec::new(), port);
        Successor { elders, workers }
    }

    /// Listens until the elder is gone; what it has said, and how many connections came.
    async fn hear_all(&mut self) -> (Vec<String>, usize) {
        self.elders.resume();
        let mut words = Vec::new();
        loop {
            let (generation, word) = self.elders.next().await;
            assert_eq!(generation, 1);
            words.push(match word {
                Word::State(state) => format!("state of {}", state.pid),
                Word::Released => "released".to_owned(),
                Word::Main => "main".to_owned(),
                Word::Replaced(_) => "replaced".to_owned(),
                Word::Odd(_) => "odd".to_owned(),
                Word::Orphans(count) => format!("{count} orphans"),
                Word::Gone => return (words, self.came()),
            });
        }
    }

    fn came(&mut self) -> usize {
        let came = |worker: &mut mpsc::Receiver<Delivery>| {
            std::iter::from_fn(|| worker.try_recv().ok()).count()
        };
        self.workers.iter_mut().map(came).sum()
    }
}

#[test]
fn what_is_acknowledged_moves() {
    run(async {
        let (elder, theirs) = Elder::start().await;
        let mut successor = Successor::new(theirs, 2);
        successor.elders.resume();
        elder.sends(3).await;
        elder.sends(3).await;
        elder.has_moved(2).await;
        elder.words.send(Message::State(State { pid: 7, ..State::default() })).await.unwrap();
        elder.words.send(Message::Main).await.unwrap();
        elder.words.send(Message::Bye(State { pid: 8, ..State::default() })).await.unwrap();
        let (words, came) = successor.hear_all().await;
        assert_eq!(
            (words, came),
            (vec!["state of 7".into(), "main".into(), "state of 8".into()], 2)
        );
        assert!(matches!(elder.line.await.unwrap().over, Over::Bye));
    });
}

/// It stands still until the elder has waited long enough, and longer than the elder is
/// there.
#[test]
fn what_a_successor_has_not_taken_in_time_stays_with_the_elder_who_says_so() {
    for (goes_on, word) in [(false, "odd"), (true, "replaced")] {
        run(async {
            let (elder, theirs) = Elder::start().await;
            elder.sends(3).await;
            let first = theirs.recv().await.unwrap().unwrap().message;
            assert!(matches!(first, Message::Connections { batch: 1, .. }));
            theirs.try_send(&Message::Ack { batch: 1 }).unwrap();
            for _ in 0..3 {
                elder.sends(3).await;
            }
            elder.words.send(Message::State(State::default())).await.unwrap();
            elder.words.send(Message::Main).await.unwrap();
            let left = elder.line.await.unwrap();
            assert!(matches!(left.over, Over::Late(_)), "{}", left.over);
            // It may keep its end for long.
            let Kept { ours, taken, lost, channel: _kept } = left.rest.keep(&left.over, goes_on);
            assert_eq!((ours.len(), taken, lost), (3, 1, 0));
            assert_eq!(elder.overview.own_totals().moved.iter().sum::<u64>(), 1);
            let mut successor = Successor::new(theirs, 2);
            let (words, came) = successor.hear_all().await;
            assert_eq!(came, 0, "they are the elder's");
            assert_eq!(words, ["state of 0", "main", word]);
        });
    }
}

/// What was acknowledged before the elder had stopped to listen is not the elder's, though
/// its last word stands behind.
#[test]
fn what_was_acknowledged_in_time_is_the_successors_whatever_the_last_word_is() {
    run(async {
        let (elder, theirs) = Elder::start().await;
        elder.sends(3).await;
        elder.sends(3).await;
        let left = elder.line.await.unwrap();
        for _ in 0..2 {
            theirs.recv().await.unwrap().unwrap();
        }
        theirs.try_send(&Message::Leave).unwrap();
        // What cannot be understood hides nothing.
        rustix::io::write(&theirs, b"EH").unwrap();
        theirs.try_send(&Message::Ack { batch: 2 }).unwrap();
        let Kept { ours, lost, .. } = left.rest.keep(&left.over, true);
        assert_eq!((ours.len(), lost), (1, 0));
        assert_eq!(elder.overview.own_totals().moved.iter().sum::<u64>(), 1);
    });
}

#[test]
fn what_an_elder_that_is_gone_has_sent_is_the_successors() {
    run(async {
        for says_bye in [false, true] {
            let (elder, theirs) = Elder::start().await;
            for _ in 0..3 {
                elder.sends(3).await;
            }
            elder.words.send(Message::Main).await.unwrap();
            rest().await;
            let mut heard = vec!["main".to_owned()];
            if says_bye {
                elder.words.send(Message::Bye(State::default())).await.unwrap();
                drop(elder.line.await.unwrap());
                heard.push("state of 0".to_owned());
            } else {
                elder.line.abort();
                assert!(elder.line.await.is_err());
            }
            let mut successor = Successor::new(theirs, 2);
            assert_eq!(successor.hear_all().await, (heard, 3));
        }
    });
}

#[test]
fn what_nobody_is_told_of_is_given_up() {
    run(async {
        let (elder, theirs) = Elder::start().await;
        elder.sends(3).await;
        let left = elder.line.await.unwrap();
        // A word that no packet takes.
        let over = Over::Declined("x".repeat(1 << 20));
        let Kept { ours, lost, .. } = left.rest.keep(&over, false);
        assert_eq!((ours.len(), lost), (1, 0), "it takes nothing more, as it has said itself");
        drop(theirs);

        let (elder, theirs) = Elder::start().await;
        elder.sends(3).await;
        let left = elder.line.await.unwrap();
        let over = Over::Refused("x".repeat(1 << 20));
        let Kept { ours, lost, .. } = left.rest.keep(&over, false);
        assert_eq!((ours.len(), lost), (0, 1));
        let mut successor = Successor::new(theirs, 1);
        assert_eq!(successor.hear_all().await.1, 1);
    });
}

/// Nobody acknowledges anything meanwhile, and nothing more is sent: also not by an elder
/// that waits for room.
#[test]
fn line_on_hold_waits_for_whoever_comes() {
    for octets in [3, MOVED_OCTETS_MAX] {
        run(async {
            let (elder, theirs) = Elder::start().await;
            for _ in 0..HANDOFF_WINDOW {
                elder.sends(octets).await;
            }
            theirs.try_send(&Message::Hold).unwrap();
            rest().await;
            elder.sends(3).await;
            let begun = tokio::time::Instant::now();
            tokio::time::sleep(Duration::from_secs(15)).await;
            let mut successor = Successor::new(theirs, 1);
            successor.elders.resume();
            elder.has_moved(HANDOFF_WINDOW as u64 + 1).await;
            assert_eq!(successor.came(), HANDOFF_WINDOW + 1);
            assert!(!elder.line.is_finished() && begun.elapsed() < Duration::from_secs(16));
        });
    }
    run(async {
        let (elder, theirs) = Elder::start().await;
        theirs.try_send(&Message::Hold).unwrap();
        rest().await;
        elder.sends(3).await;
        assert!(theirs.try_recv().unwrap().is_none(), "nothing is sent");
        let begun = tokio::time::Instant::now();
        let left = elder.line.await.unwrap();
        assert!(matches!(left.over, Over::Late(_)), "nobody comes: {}", left.over);
        assert!((19..21).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        let Kept { ours, lost, .. } = left.rest.keep(&left.over, false);
        assert_eq!((ours.len(), lost), (0, 0), "it is with those that wait");
    });
}

#[test]
fn whoever_stops_to_listen_says_so_and_waits_for_nobody() {
    run(async {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut successor = Successor::new(Channel::from_fd(theirs).unwrap(), 1);
        successor.elders.resume();
        // More than there is room for where nobody hears it yet.
        for pid in 0..100 {
            ours.send(&Message::State(State { pid, ..State::default() }), &[], &[]).await.unwrap();
        }
        rest().await;
        timeout(Duration::from_secs(1), successor.elders.pause()).await.expect("no waiting");
        let here = ours.recv().await.unwrap().unwrap().message;
        assert!(matches!(here, Message::Here { generation: 2, .. }), "{here:?}");
        assert_eq!(ours.recv().await.unwrap().unwrap().message, Message::Hold);
        drop(ours);
        let (words, _) = successor.hear_all().await;
        let all: Vec<String> = (0..100).map(|pid| format!("state of {pid}")).collect();
        assert_eq!(words, all, "nothing is lost of what was heard");
    });
}

#[test]
fn connection_goes_to_a_worker_that_lives_or_is_told_to_be_lost() {
    run(async {
        let (elder, theirs) = Elder::start().await;
        let mut successor = Successor::new(theirs, 2);
        successor.elders.resume();
        successor.workers.pop();
        for _ in 0..4 {
            elder.sends(3).await;
        }
        elder.has_moved(4).await;
        rest().await;
        assert_eq!(successor.came(), 4);
        successor.workers.clear();
        elder.sends(3).await;
        let (_, word) = successor.elders.next().await;
        assert!(matches!(word, Word::Orphans(1)));
    });
}
