//! The kinds of clients, and what each of them asks for.

use std::time::Duration;

use super::pace::Rng;
use crate::demo::app::Work;

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// GET after GET on one connection.
    Get,
    /// POST after POST on one connection.
    Post,
    /// GETs that are answered after 300 ms, on one connection.
    SlowGet,
    /// POSTs that are answered after 300 ms, on one connection.
    SlowPost,
    /// A connection for each GET, which says `Connection: close`.
    OneEach,
    /// A kept connection that is rarely used.
    MostlyIdle,
    /// GETs that are answered after [`Mix::long`](super::Mix::long), on one connection.
    Long,
    /// Answers that come in pieces for as long, each on a connection of its own, which
    /// says `Connection: close`.
    Download,
    /// Bodies that are sent in pieces for as long, likewise.
    Upload,
    /// HTTP/2 with prior knowledge, four streams at once: GET, POST, slow GET, long GET.
    H2,
}

/// What one request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) sends: Sends,
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sends {
    /// A GET.
    Nothing,
    /// A POST with a small body that goes out together with its head.
    Small,
    /// A POST whose body goes out in pieces for this time.
    Slowly(Duration),
}

/// What makes an answer slow.
const SLOW: Duration = Duration::from_millis(300);

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All kinds, in the order in which they are shown.
    pub const ALL: [Kind; 10] = [
        Kind::Get,
        Kind::Post,
        Kind::SlowGet,
        Kind::SlowPost,
        Kind::OneEach,
        Kind::MostlyIdle,
        Kind::Long,
        Kind::Download,
        Kind::Upload,
        Kind::H2,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Get => "GET, keep-alive",
            Kind::Post => "POST, keep-alive",
            Kind::SlowGet => "slow GET",
            Kind::SlowPost => "slow POST",
            Kind::OneEach => "new connections",
            Kind::MostlyIdle => "mostly idle",
            Kind::Long => "long answers",
            Kind::Download => "downloads",
            Kind::Upload => "uploads",
            Kind::H2 => "HTTP/2",
        }
    }

    /// What one of its requests is; `long` is for those that take long.
    pub(super) const fn job(self, long: Duration) -> Job {
        match self {
            Kind::Get | Kind::OneEach | Kind::MostlyIdle | Kind::H2 => Job::get(Work::Fast),
            Kind::Post => Job { work: Work::Fast, sends: Sends::Small },
            Kind::SlowGet => Job::get(Work::Slow(SLOW)),
            Kind::SlowPost => Job { work: Work::Slow(SLOW), sends: Sends::Small },
            Kind::Long => Job::get(Work::Slow(long)),
            Kind::Download => Job::get(Work::Stream(long)),
            Kind::Upload => Job { work: Work::Upload, sends: Sends::Slowly(long) },
        }
    }

    /// What its streams ask for, side by side, if it is HTTP/2.
    pub(super) const fn streams(long: Duration) -> [Job; 4] {
        [Kind::Get.job(long), Kind::Post.job(long), Kind::SlowGet.job(long), Kind::Long.job(long)]
    }

    /// How long it thinks between two requests; `think` is the mean for a busy one.
    pub(super) fn thinks(self, think: Duration, rng: &mut Rng) -> Duration {
        match self {
            Kind::MostlyIdle => rng.between(Duration::from_millis(300), Duration::from_secs(4)),
            _ => rng.between(Duration::ZERO, think * 2),
        }
    }

    /// When it begins: those whose requests take long are spread over that time, so that
    /// some of them end at any moment.
    pub(super) fn begins(self, long: Duration, rng: &mut Rng) -> Duration {
        match self {
            Kind::Long | Kind::Download | Kind::Upload => rng.between(Duration::ZERO, long),
            Kind::MostlyIdle | Kind::H2 => rng.between(Duration::ZERO, Duration::from_millis(500)),
            _ => rng.between(Duration::ZERO, SLOW),
        }
    }
}

impl Job {
    const fn get(work: Work) -> Job {
        Job { work, sends: Sends::Nothing }
    }

    /// The method.
    pub(super) const fn method(self) -> &'static str {
        match self.sends {
            Sends::Nothing => "GET",
            Sends::Small | Sends::Slowly(_) => "POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_place() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
