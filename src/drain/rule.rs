//! The rules of the contract that a test build can break, one at a time.
//!
//! The race search has to prove that it would notice a loss: with one rule
//! switched off it must find one. The last rules stand for faults that nobody
//! can cause from outside. In a release build [`kept`] is the constant
//! `true` and costs nothing.

/// A rule whose breach loses requests, or the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// Look for octets once more before an idle connection gets its FIN.
    LastLook = 1,
    /// A fresh connection gets time for its first request.
    FirstRequestGrace,
    /// The accept queue is emptied before the listener is closed.
    EmptyAcceptQueue,
    /// A connection is read after our FIN.
    Linger,
    /// The last response says `Connection: close`.
    CloseAnnounced,
    /// A pipelined request that has arrived is answered.
    PipelinedRest,
    /// A request whose head is half read is served.
    ServeReading,
    /// The final GOAWAY waits for the grace.
    GoawayGrace,
    /// The control thread does not get stuck in the last phase.
    ControlGoesOn,
    /// A worker does not die at its first connection.
    WorkerLives,
    /// A worker does not get stuck at its first connection.
    WorkerTurns,
}

impl Rule {
    /// Every rule with the name that `EBBTIDE_SABOTAGE` takes.
    pub const NAMES: [(&'static str, Rule); 11] = [
        ("last-look", Rule::LastLook),
        ("first-request-grace", Rule::FirstRequestGrace),
        ("empty-accept-queue", Rule::EmptyAcceptQueue),
        ("linger", Rule::Linger),
        ("close-announced", Rule::CloseAnnounced),
        ("pipelined-rest", Rule::PipelinedRest),
        ("serve-reading", Rule::ServeReading),
        ("goaway-grace", Rule::GoawayGrace),
        ("control-goes-on", Rule::ControlGoesOn),
        ("worker-lives", Rule::WorkerLives),
        ("worker-turns", Rule::WorkerTurns),
    ];
}

/// The environment variable that names the rule a test build breaks.
pub const SABOTAGE: &str = "EBBTIDE_SABOTAGE";

/// Whether the rule is kept: always, but in a test build that was told to break it.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn kept(_rule: Rule) -> bool {
    true
}

/// Whether the rule is kept: always, but in a test build that was told to break it.
#[cfg(feature = "sabotage")]
pub fn kept(rule: Rule) -> bool {
    use std::sync::OnceLock;
    static BROKEN: OnceLock<Option<Rule>> = OnceLock::new();
    let broken = BROKEN.get_or_init(|| {
        let name = std::env::var(SABOTAGE).ok()?;
        Rule::NAMES.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule)
    });
    *broken != Some(rule)
}
