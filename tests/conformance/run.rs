//! Puts cases to a subject, a few of them at a time, each on a subject and an origin
//! that nobody else uses meanwhile.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::corpus::{Case, Expect, Promise, Script};
use crate::frames::Frames;
use crate::judge::{Arrived, Heard, Verdict, judge};
use crate::octets::show;
use crate::raw::Raw;
use crate::recorder::Recorder;
use crate::subject::{Elsewhere, Kind, Subject};
use crate::support::ms;

/// How long a subject may be silent about a message without end, before silence is
/// taken for its answer.
const SILENCE: Duration = ms(300);

/// How long what a subject says is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The message has no end.
    pub(crate) unfinished: bool,
    /// How many answers are due all the same.
    answers: usize,
    due: Duration,
}

impl Patience {
    pub(crate) fn of(promise: &Promise, whom: &Whom) -> Patience {
        let accepted = promise.expect(whom.is_ours()) == Expect::Accept;
        let answers = if accepted { promise.sees.len() } else { 0 };
        Patience { unfinished: promise.unfinished, answers, due: whom.due() }
    }

    /// The bound on the next wait, when so many answers have come.
    pub(crate) fn bound(self, answers: usize) -> Duration {
        if self.unfinished && answers >= self.answers { SILENCE } else { self.due }
    }
}

/// How many subjects of a kind are asked side by side.
const LANES: usize = 4;

/// Who is asked.
#[derive(Debug)]
pub(crate) enum Whom {
    /// A server that is started for it.
    Kind(Kind),
    /// A server that the environment names.
    Elsewhere(Elsewhere),
    /// Whoever listens before an origin, started by a test.
    Other(fn(&Recorder) -> Subject),
}

impl Whom {
    /// Ours, unless the environment names another.
    pub(crate) fn named() -> Whom {
        Elsewhere::named().map_or(Whom::Kind(Kind::Ebbtide), Whom::Elsewhere)
    }

    /// Whether it is ours, with what we promise beyond what others must.
    fn is_ours(&self) -> bool {
        matches!(self, Whom::Kind(Kind::Ebbtide))
    }

    fn lanes(&self) -> usize {
        if matches!(self, Whom::Elsewhere(_)) { 1 } else { LANES }
    }

    /// How long an answer may take. Whoever waits for what will never come costs a
    /// run this much for each case; of ours it is not expected at all.
    fn due(&self) -> Duration {
        if self.is_ours() { ms(10_000) } else { ms(1500) }
    }

    fn start(&self) -> (Recorder, Subject) {
        match self {
            Whom::Kind(kind) => {
                let origin = Recorder::new();
                let subject = Subject::start(*kind, origin.place());
                (origin, subject)
            }
            Whom::Elsewhere(named) => {
                let origin = Recorder::at(&named.origin);
                (origin, Subject::at(named.http.clone(), named.h2.clone()))
            }
            Whom::Other(start) => {
                let origin = Recorder::new();
                let subject = start(&origin);
                (origin, subject)
            }
        }
    }
}

/// A script that can be put to a subject.
pub(crate) trait Playable: Script {
    /// Sends it and hears what the subject says.
    fn play(&self, subject: &Subject, fence: &str, patience: Patience) -> Heard;

    /// What is sent, for a message.
    fn shown(&self) -> String;
}

impl Playable for Raw {
    fn play(&self, subject: &Subject, fence: &str, patience: Patience) -> Heard {
        self.exchange(&subject.http, fence, patience)
    }

    fn shown(&self) -> String {
        show(&self.octets())
    }
}

impl Playable for Frames {
    fn play(&self, subject: &Subject, _: &str, patience: Patience) -> Heard {
        self.exchange(&subject.h2, patience)
    }

    fn shown(&self) -> String {
        self.text()
    }
}

/// What each case has shown, by its name.
pub(crate) type Verdicts = BTreeMap<String, Verdict>;

/// Who is elsewhere has one address for its origin: one run at a time.
static ELSEWHERE: Mutex<()> = Mutex::new(());

/// Puts all cases to somebody.
pub(crate) fn run<S: Playable>(whom: &Whom, cases: &[Case<S>]) -> Verdicts {
    let _alone = matches!(whom, Whom::Elsewhere(_)).then(|| ELSEWHERE.lock());
    let verdicts = Mutex::new(Verdicts::new());
    let next = Mutex::new(cases.iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..whom.lanes() {
            scope.spawn(|| {
                let (origin, subject) = whom.start();
                loop {
                    let Some((nth, case)) = next.lock().expect("the cases").next() else { return };
                    let fence = format!("/fence/{nth}");
                    let patience = Patience::of(&case.promise, whom);
                    let heard = case.script.play(&subject, &fence, patience);
                    let arrived = Arrived::of(&origin.take(), &fence);
                    let verdict = judge(&case.promise, whom.is_ours(), &heard, &arrived);
                    verdicts.lock().expect("the verdicts").insert(case.name.clone(), verdict);
                }
            });
        }
    });
    verdicts.into_inner().expect("the verdicts")
}

/// Everything that is not as promised, for a message.
pub(crate) fn deviations<S: Playable>(cases: &[Case<S>], verdicts: &Verdicts) -> Vec<String> {
    let told = cases.iter().filter_map(|case| {
        let (class, why) = match &verdicts[&case.name] {
            Verdict::Ok => return None,
            Verdict::Unsafe(why) => ("UNSAFE", why),
            Verdict::Strict(why) => ("STRICT", why),
            Verdict::Hang(why) => ("HANG", why),
        };
        let (name, at, reason, sent) = (&case.name, &case.at, &case.why, case.script.shown());
        Some(format!("{class} {name} ({at}): {why}\n      why: {reason}\n      sent: {sent}"))
    });
    told.collect()
}
