//! Signals to the demo itself: whoever wants it to end.

use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM, a terminal that is closed.
pub(super) struct Interrupts(Vec<Signal>);

impl Interrupts {
    /// Registers for them; from now on none of them ends the process by itself.
    pub(super) fn register() -> io::Result<Interrupts> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        kinds.into_iter().map(signal).collect::<io::Result<_>>().map(Interrupts)
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
        std::future::poll_fn(|cx| {
            let one = self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if one { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
