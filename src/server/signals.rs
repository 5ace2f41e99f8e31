//! Signals, registered before anything runs.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT, SIGQUIT: stop.
    Stop(&'static str),
    /// SIGUSR2: go over to the binary that is on disk now.
    Upgrade,
    /// SIGHUP, SIGUSR1: nothing yet, and never the end of the process.
    Nothing(&'static str),
}

/// The signals of the process.
pub(super) struct Signals(Vec<(Signal, Asked)>);

impl Signals {
    /// Registers for all of them.
    pub(super) fn register() -> io::Result<Self> {
        let all = [
            (SignalKind::terminate(), Asked::Stop("SIGTERM")),
            (SignalKind::interrupt(), Asked::Stop("SIGINT")),
            (SignalKind::quit(), Asked::Stop("SIGQUIT")),
            (SignalKind::hangup(), Asked::Nothing("SIGHUP")),
            (SignalKind::user_defined1(), Asked::Nothing("SIGUSR1")),
            (SignalKind::user_defined2(), Asked::Upgrade),
        ];
        all.into_iter()
            .map(|(kind, asked)| Ok((signal(kind)?, asked)))
            .collect::<io::Result<_>>()
            .map(Signals)
    }

    /// The name of the next signal that asks to stop; the others wait.
    pub(super) async fn stop(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            for (signal, asked) in &mut self.0 {
                if let Asked::Stop(name) = asked
                    && signal.poll_recv(cx).is_ready()
                {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Asked {
        std::future::poll_fn(|cx| {
            for (signal, asked) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*asked);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
