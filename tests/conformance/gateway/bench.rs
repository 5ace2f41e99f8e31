//! A proxy between a client and an origin that both do what a case says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::case::{Answer, Case, Over, Step};
use super::check::{Check, Side, What, of_client, of_origin};
use super::downstream::Downstream;
use super::heard::{Extent, Heard};
use super::stage::{INNOCENT, LAST, Stage};
use crate::subject::{Elsewhere, Kind, Subject, Way};
use crate::support::client::{Client, get};
use crate::support::origin::Request;
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{ms, pause, within};

/// How long the client waits for octets of ours, and of others: who waits for what will never
/// come costs a run this much for each case; of ours it is not expected at all.
const BOUND: Duration = Duration::from_secs(10);
const BOUND_OF_OTHERS: Duration = Duration::from_secs(1);

/// How many connections a pool may hand out before a fresh one is due.
const POOLED_MAX: usize = 128;

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom {
    /// A server that is started for it.
    Kind(Kind),
    /// Ours, with these keys set as well.
    Set(&'static [(&'static str, &'static str)]),
    /// A server that the environment names.
    Elsewhere,
    /// Whoever a test starts before an origin, for HTTP/1 alone.
    Other(fn(&Place) -> Subject),
}

impl Whom {
    /// Ours, unless the environment names another.
    pub(crate) fn named() -> Whom {
        if Elsewhere::named().is_some() { Whom::Elsewhere } else { Whom::Kind(Kind::Ebbtide) }
    }

    /// Whether it is ours.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Whom::Kind(Kind::Ebbtide) | Whom::Set(_))
    }
}

/// Everything that one case after another runs on.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The proxy.
    pub(crate) subject: Subject,
    /// The origin behind it.
    pub(crate) stage: Stage,
    /// Our own proxy, if it is that.
    pub(crate) proxy: Option<Proxy>,
    /// Whether it speaks HTTP/2.
    pub(crate) speaks_h2: bool,
    innocents: usize,
    /// The requests that reached the origin before this case.
    before: usize,
}

impl Bench {
    /// Starts the proxy, or takes the one that is there.
    pub(crate) fn new(whom: Whom) -> Bench {
        let elsewhere = Elsewhere::named().filter(|_| matches!(whom, Whom::Elsewhere));
        let nowhere = Place::parse("127.0.0.1:0");
        let stage = Stage::at(elsewhere.as_ref().map_or(&nowhere, |named| &named.origin));
        let proxy = whom.is_ours().then(|| ours(whom, stage.place()));
        let subject = match (&proxy, elsewhere, whom) {
            (Some(proxy), ..) => Subject::at(proxy.place(), Way::Clear(proxy.place())),
            (_, Some(named), _) => Subject::at(named.http, named.h2),
            (.., Whom::Kind(kind)) => Subject::start(kind, stage.place()),
            (.., Whom::Other(start)) => start(stage.place()),
            _ => panic!("nobody to ask"),
        };
        let speaks_h2 = !matches!(whom, Whom::Other(_));
        Bench { subject, stage, proxy, speaks_h2, innocents: 0, before: 0 }
    }

    /// How long the client waits for octets.
    pub(crate) fn bound(&self) -> Duration {
        if self.proxy.is_some() { BOUND } else { BOUND_OF_OTHERS }
    }

    /// A client of HTTP/1.
    pub(crate) fn client(&self) -> Client {
        let mut client = Client::connect(&self.subject.http);
        client.read_bound(self.bound());
        client
    }

    /// A client that speaks this.
    pub(crate) fn downstream(&self, over: Over) -> Downstream {
        match over {
            Over::H1 => Downstream::h1(self.client()),
            Over::H2 => Downstream::h2(&self.subject.h2, self.bound()),
        }
    }

    /// From here on the origin does this with one request after another.
    pub(crate) fn play(&mut self, answers: &[Answer]) {
        self.before = self.stage.count();
        self.stage.play(answers);
    }

    /// The requests of this case that have reached the origin.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let ours = |request: &Request| !request.target.starts_with(INNOCENT);
        self.stage.requests().into_iter().skip(self.before).filter(ours).collect()
    }

    /// Runs something as one case: a panic is a failure, the next clients must get what is
    /// theirs, and no connection of it stays in the pool.
    pub(crate) fn guarded(
        &mut self,
        run: impl FnOnce(&mut Bench) -> Result<(), String>,
    ) -> Result<(), String> {
        let ran = catch_unwind(AssertUnwindSafe(|| run(self)));
        self.stage.play(&[]);
        self.stage.wait_said();
        let after = catch_unwind(AssertUnwindSafe(|| self.spend_pool()));
        ran.unwrap_or_else(|panic| Err(said(&*panic)))?;
        after.unwrap_or_else(|panic| Err(format!("the next client: {}", said(&*panic))))
    }

    /// Runs a case.
    pub(crate) fn run(&mut self, case: &Case, over: Over) -> Result<(), String> {
        self.guarded(|bench| {
            bench.play(&case.answers);
            let mut downstream = bench.downstream(over);
            bench.steps(case, over, &mut downstream)
        })
    }

    fn steps(&mut self, case: &Case, over: Over, client: &mut Downstream) -> Result<(), String> {
        let mut heard = Heard::default();
        let mut ended = false;
        for step in &case.steps {
            match step {
                Step::Send(octets) => client.send(octets)?,
                Step::Read => heard = client.read(),
                Step::HalfClose => {
                    client.half_close();
                    ended = true;
                }
                Step::Expect(check) => {
                    ended |= matches!(check.what, What::Closes);
                    let skipped = (check.ours && self.proxy.is_none())
                        || (!check.when.is_empty() && !check.when.contains(&heard.status))
                        || (over == Over::H2 && check.what.is_of_http1(check.side));
                    if !skipped {
                        let held = self.expect(check, client, &heard);
                        held.map_err(|wrong| format!("`{}`: {wrong}", check.text))?;
                    }
                }
            }
        }
        if heard.extent == Extent::Stuck {
            return Err(format!("no end: {}", heard.told()));
        }
        if ended { Ok(()) } else { self.go_on(client, &heard) }
    }

    fn expect(&self, check: &Check, client: &mut Downstream, heard: &Heard) -> Result<(), String> {
        match (&check.what, check.side) {
            (What::Closes, Side::Client) => client.closes(),
            (what, Side::Client) => of_client(what, heard),
            (what, Side::Origin(nth)) => {
                // What comes behind an early answer may still be on its way.
                let mut held = of_origin(what, nth, &self.requests());
                for _ in 0..20 {
                    if held.is_ok() {
                        break;
                    }
                    pause(ms(10));
                    held = of_origin(what, nth, &self.requests());
                }
                held
            }
        }
    }

    /// The next request on the connection gets its own answer, or none because it has ended.
    pub(crate) fn go_on(&mut self, client: &mut Downstream, last: &Heard) -> Result<(), String> {
        let over_h1 = matches!(client, Downstream::H1(..));
        let ends = last.says_close() || last.framing.as_deref() == Some("close");
        if over_h1 && (ends || last.extent != Extent::Whole) {
            return Ok(());
        }
        self.stage.wait_said();
        self.innocents += 1;
        let target = format!("{INNOCENT}{}", self.innocents);
        if client.send(get(&target).as_bytes()).is_err() {
            return Ok(());
        }
        let heard = client.read();
        match heard.extent {
            Extent::Nothing => Ok(()),
            Extent::Whole if heard.status == 200 && heard.body == target.as_bytes() => Ok(()),
            _ => Err(format!("the next request on the connection: {}", heard.told())),
        }
    }

    /// Other clients get their own answers, until one of them comes over a fresh connection.
    fn spend_pool(&mut self) -> Result<(), String> {
        for _ in 0..POOLED_MAX {
            let known = self.stage.connections();
            self.innocents += 1;
            let target = format!("{LAST}{}", self.innocents);
            let mut client = self.client();
            client.get(&target);
            let heard = Heard::h1(&mut client, false);
            if heard.extent != Extent::Whole || heard.body != target.as_bytes() {
                return Err(format!("the next client: {}", heard.told()));
            }
            let request = within(self.bound(), "the next client's request", || {
                self.stage.requests().into_iter().rfind(|request| request.target == target)
            });
            if request.connection >= known {
                return Ok(());
            }
        }
        Err("the pool has no end".to_owned())
    }
}

/// Ours, with one worker, so that all requests share a pool, and no long silences.
fn ours(whom: Whom, origin: &Place) -> Proxy {
    let settings = [
        ("upstream.idle_timeout", "60s"),
        ("upstream.first_byte_timeout", "2s"),
        ("upstream.between_bytes_timeout", "2s"),
    ];
    let more = if let Whom::Set(settings) = whom { settings } else { &[] };
    let launch = Launch::before_addr(&origin.to_string()).arg("--workers").arg("1");
    let settings = settings.iter().chain(more);
    settings.fold(launch, |launch, (key, value)| launch.set(key, value)).start()
}

/// What a panic said.
pub(super) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}
