//! Clients at work before a front: kept connections and one for each request, GET and
//! POST, each request with an id of its own and an answer that is looked at to the octet.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::judge::Asked;
use crate::support::client::{Client, End, show};
use crate::support::wire::Place;
use crate::support::{PATIENCE, Rng, ms, pattern, pause, within};

/// The Host that they ask for.
pub(crate) const HOST: &str = "app.test";

/// How many clients keep their connection, and how many have one for each request.
const KEEPING: u64 = 16;
const ONE_EACH: u64 = 12;

/// How long a client thinks at most: usually, and now and then. The latter is longer than
/// an ebbtide that stops keeps an idle connection.
const THINKS: Duration = ms(20);
const THINKS_LONG: Duration = ms(1500);

/// How many failures a client bears before it gives up.
const FAILURES_MAX: usize = 5;

/// What the clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Diet {
    /// GET and POST, most answers at once, some after a while, bodies large and small.
    Mixed,
    /// Only POST, and each answer takes a while: nothing that a front may send again.
    SlowPosts,
}

/// Whom the clients ask, from which address, and what for.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The front.
    pub(crate) place: Place,
    /// The clients' address.
    pub(crate) source: IpAddr,
    /// What they ask for.
    pub(crate) diet: Diet,
    /// What random choices begin from.
    pub(crate) seed: u64,
}

/// How hard the clients work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All of them do.
    #[default]
    Busy,
    /// One of each kind does: what a front has opened to the ebbtides stays idle.
    Quiet,
    /// None begins another request.
    Over,
}

#[derive(Debug, Default)]
struct Shared {
    pace: Mutex<Pace>,
    changed: Condvar,
    served: AtomicU64,
    failed: AtomicU64,
}

impl Shared {
    /// Waits until a client may go on; whether it shall.
    fn goes_on(&self, works_always: bool) -> bool {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = |pace: &mut Pace| *pace == Pace::Quiet && !works_always;
        let pace = self.changed.wait_while(pace, rests);
        *pace.unwrap_or_else(PoisonError::into_inner) != Pace::Over
    }
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Asked>>>,
}

impl Load {
    /// Sends them to work.
    pub(crate) fn start(order: &Order) -> Load {
        let shared = Arc::new(Shared::default());
        let threads = (0..KEEPING + ONE_EACH).map(|number| {
            let (order, shared) = (order.clone(), Arc::clone(&shared));
            std::thread::spawn(move || Worker::new(number, &order, shared).work())
        });
        Load { threads: threads.collect(), shared }
    }

    /// How hard they work from now on.
    pub(crate) fn pace(&self, pace: Pace) {
        *self.shared.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
        self.shared.changed.notify_all();
    }

    /// Waits until they have so many right answers more, or one request has failed.
    pub(crate) fn wait_served(&self, more: u64) {
        let served = || self.shared.served.load(Ordering::SeqCst);
        let enough = served() + more;
        within(PATIENCE, &format!("{more} more answers"), || {
            let failed = self.shared.failed.load(Ordering::SeqCst) > 0;
            (failed || served() >= enough).then_some(())
        });
    }

    /// Lets each finish the request that it is at; all they asked for.
    pub(crate) fn finish(self) -> Vec<Asked> {
        self.pace(Pace::Over);
        let asked = self.threads.into_iter().map(|thread| thread.join().expect("a client"));
        asked.flatten().collect()
    }
}

/// A request that is still to be sent.
#[derive(Debug)]
struct Plan {
    octets: Vec<u8>,
    answer: Vec<u8>,
}

#[derive(Debug)]
struct Worker {
    order: Order,
    shared: Arc<Shared>,
    rng: Rng,
    keeps: bool,
    works_always: bool,
    client: Option<Client>,
    asked: Vec<Asked>,
}

impl Worker {
    fn new(number: u64, order: &Order, shared: Arc<Shared>) -> Worker {
        let rng = Rng::new(order.seed ^ (number << 32));
        let (order, keeps) = (order.clone(), number < KEEPING);
        let works_always = [0, KEEPING].contains(&number);
        Worker { order, shared, rng, keeps, works_always, client: None, asked: Vec::new() }
    }

    fn work(mut self) -> Vec<Asked> {
        let mut failures = 0;
        while failures < FAILURES_MAX && self.shared.goes_on(self.works_always) {
            let id = format!("{:016x}", self.rng.next());
            let method = self.method();
            let plan = self.plan(method, &id);
            let failure = self.ask(&plan).err();
            let counter = match failure {
                None => &self.shared.served,
                Some(_) => &self.shared.failed,
            };
            counter.fetch_add(1, Ordering::SeqCst);
            failures += usize::from(failure.is_some());
            self.asked.push(Asked { what: format!("{method} {id}"), failure });
            let thinks = if self.rng.one_in(50) { THINKS_LONG } else { THINKS };
            pause(self.rng.span(ms(1), thinks));
        }
        self.asked
    }

    const fn method(&mut self) -> &'static str {
        match self.order.diet {
            Diet::Mixed if self.rng.one_in(2) => "GET",
            _ => "POST",
        }
    }

    fn plan(&mut self, method: &str, id: &str) -> Plan {
        let slow = self.order.diet == Diet::SlowPosts || self.rng.below(10) < 4;
        let wait = if slow { 50 + self.rng.below(251) } else { 0 };
        let (lines, octets) = match (method, self.rng.one_in(4)) {
            ("GET", true) => (2000, 0),
            ("GET", false) => (1, 0),
            (_, true) => (1, 20_000 + self.rng.below(40_000)),
            (_, false) => (1, self.rng.below(500)),
        };
        let body = pattern(usize::try_from(octets).expect("a length"));
        let mut head = format!("{method} /{id}/{wait}/{lines} HTTP/1.1\r\nHost: {HOST}\r\n");
        if method == "POST" {
            head += &format!("Content-Length: {octets}\r\n");
        }
        if !self.keeps {
            head += "Connection: close\r\n";
        }
        let answer = format!("{method} {id}\n").repeat(lines);
        Plan {
            octets: [(head + "\r\n").as_bytes(), &body].concat(),
            answer: [answer.as_bytes(), &body].concat(),
        }
    }

    /// One request; what there was instead of the right answer.
    fn ask(&mut self, plan: &Plan) -> Result<(), String> {
        let kept = self.client.take();
        let reused = if kept.is_some() { "on a kept connection" } else { "on a fresh connection" };
        let mut client = match kept {
            Some(client) => client,
            None => Client::try_connect_from(self.order.source, &self.order.place)
                .map_err(|end| format!("connect: {end:?}"))?,
        };
        let sent = client.try_send(&plan.octets);
        let response = client.try_response();
        let response =
            response.map_err(|broken| format!("{reused}, sent {sent:?}, answered {broken:?}"))?;
        let got = show(&response.body);
        if response.status != 200 {
            return Err(format!("{reused}, {}: {got}", response.status));
        }
        if response.body != plan.answer {
            return Err(format!("{reused}, other octets than {}: {got}", plan.answer.len()));
        }
        if response.says_close() {
            return match client.rest() {
                (End::Eof, rest) if rest.is_empty() => Ok(()),
                (end, rest) => Err(format!("{end:?} and {} behind the answer", show(&rest))),
            };
        }
        if !self.keeps {
            return Err("a connection that stays although it was to be closed".to_owned());
        }
        self.client = Some(client);
        Ok(())
    }
}
