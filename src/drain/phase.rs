//! The phases of a process's life, in the order in which they are passed.

/// Where the process stands. Phases only go forward, but for an `undrain` that
/// returns from [`Phase::LameDuck`] to [`Phase::Serving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Binding listeners, not yet ready.
    Starting,
    /// Ready and accepting.
    Serving,
    /// Readiness fails, work is still accepted.
    LameDuck,
    /// Listeners are being closed without a reset.
    Closing,
    /// Every connection is asked to end by the rule of its state.
    Draining,
    /// The hard deadline has passed: what is left is cut and written down.
    Cutting,
    /// Background work stops, logs are flushed, the report is written.
    Finishing,
    /// Nothing is left to do.
    Stopped,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Phase; 8] = [
        Phase::Starting,
        Phase::Serving,
        Phase::LameDuck,
        Phase::Closing,
        Phase::Draining,
        Phase::Cutting,
        Phase::Finishing,
        Phase::Stopped,
    ];

    /// The name used in logs, metrics, status and the drain report.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::LameDuck => "lame_duck",
            Phase::Closing => "closing",
            Phase::Draining => "draining",
            Phase::Cutting => "cutting",
            Phase::Finishing => "finishing",
            Phase::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
