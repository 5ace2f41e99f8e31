//! No response crosses to another client: many clients of every kind over shared pools,
//! in front of app servers that break in every way they know. Each request has a tag
//! that decides what its answer is, and each client looks at every octet it gets.
//!
//! One crossing no proxy of HTTP/1.1 can exclude: an answer that nobody asked for, on its
//! way to the proxy while a request is on its way to the app server, is that request's
//! answer as far as anybody can tell. So the app servers forge answers only on connections
//! on which no octet of a request has come, and remember to which request each one went:
//! a crossing is excused when it is exactly that one, and only if most of the others were
//! noticed. A forged answer on a connection that was never used before is only counted.
//!
//! `TESTS_CROSSING_REQUESTS` sets how many requests there are, `TESTS_CROSSING_SEED`
//! what goes wrong with which of them.

mod fault;
mod h1;
mod h2;
mod judge;
mod mixing;
mod origin;
mod tag;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::fault::Late;
use self::judge::{Account, Book};
use self::origin::Origin;
use self::tag::Tags;
use crate::support::Rng;
use crate::support::process::Launch;
use crate::support::wire::Place;

/// How many requests there are unless the environment says otherwise.
const REQUESTS: u64 = 20_000;

/// What all clients have in common.
#[derive(Debug)]
struct Scene {
    place: Place,
    tags: Tags,
    book: Arc<Book>,
}

/// One connection of a client from its beginning to its end; none when the run is over.
type Kind = fn(&Scene, &mut Rng) -> Option<()>;

/// The kinds of clients, and how many there are of each.
const KINDS: [(Kind, u64); 5] = [
    (h1::keep_alive, 10),
    (h1::pipelining, 6),
    (h1::one_each, 3),
    (h1::http10, 2),
    (h2::streams, 5),
];

/// What clients have to have done in a run.
const MANNERS: [&str; 9] = [
    "client: left in a request",
    "client: left in a response",
    "client: left in a burst",
    "client: left an HTTP/2 connection",
    "client: half-closed",
    "client: read nothing for a while",
    "client: sent in pieces",
    "client: reset a stream",
    "client: gave up a body",
];

/// What clients have to have seen in a run.
const OUTCOMES: [&str; 4] =
    ["outcome: right", "outcome: refused", "outcome: cut", "outcome: nothing"];

impl Scene {
    /// Lets clients ask until there are no tags left; how long that took.
    fn play(self, kinds: &[(Kind, u64)], seed: u64) -> Duration {
        let began = Instant::now();
        let scene = Arc::new(self);
        let mut clients = Vec::new();
        for (kind, many) in kinds {
            for _ in 0..*many {
                let (kind, scene) = (*kind, Arc::clone(&scene));
                let mut rng = Rng::new(seed ^ (clients.len() as u64 + 1) << 32);
                clients.push(std::thread::spawn(move || while kind(&scene, &mut rng).is_some() {}));
            }
        }
        for client in clients {
            client.join().expect("a client that understands what it gets");
        }
        began.elapsed()
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn told(account: &Account, requests: u64, took: Duration) -> String {
    let rate = requests as f64 / took.as_secs_f64();
    let counts = account.counts.iter().map(|(what, n)| format!("  {n:>8} {what}\n"));
    let raced = account.raced.iter().map(|race| format!("  {race}\n"));
    format!(
        "{requests} requests in {took:.1?}, {rate:.0} a second\n{}{} races\n{}",
        counts.collect::<String>(),
        account.raced.len(),
        raced.take(20).collect::<String>(),
    )
}

#[test]
fn no_response_crosses_to_another_client_however_broken_the_app_servers_are() {
    let requests = number("TESTS_CROSSING_REQUESTS", REQUESTS);
    let seed = number("TESTS_CROSSING_SEED", 1);
    let book = Arc::new(Book::default());
    let origins: Vec<Origin> = (0..4).map(|n| Origin::new(seed ^ n << 8, &book)).collect();
    let mut launch = Launch::before_addr(&origins[0].place.to_string());
    for origin in &origins[1..] {
        launch = launch.arg("--upstream").arg(origin.place.to_string());
    }
    let proxy = launch.arg("--access-log").arg("off").arg("--workers").arg("2").start();
    let scene = Scene { place: proxy.place(), tags: Tags::new(requests), book: Arc::clone(&book) };
    let took = scene.play(&KINDS, seed);
    proxy.terminate();
    proxy.wait_clean_exit();
    drop((proxy, origins));
    let account = book.account();
    println!("{}", told(&account, requests, took));
    account.assert_nothing_crossed();
    for what in fault::ALL.iter().chain(&MANNERS).chain(&OUTCOMES) {
        assert!(account.count(what) > 0, "it never came to: {what}");
    }
    assert!(account.count("outcome: right") > requests / 2, "hardly a right answer");
    for late in [Late::Idle, Late::Greeting] {
        let (all, taken) = (account.count(late.name()), account.count(late.taken()));
        // Without a look nearly all would be taken, with one only what comes behind its back.
        assert!(taken * 10 < all, "{taken} of {all} were not noticed: {}", late.name());
    }
}
