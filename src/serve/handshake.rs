//! The TLS handshake, up to the point where a connection is fresh.
//!
//! Before its first octet a connection has no session and can be parked. From
//! there on it has `timeouts.tls_handshake` for each milestone, and while the
//! process drains `first_request_grace`: octets alone give no time, or a client
//! that sends one of them now and then would stay for ever.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use super::session::{End, Session};
use super::worker::millis;
use crate::drain::{Orders, Rule, Stage, kept};
use crate::limits::{HANDSHAKE_EVENTS, PARK_AFTER};
use crate::telemetry::{CloseReason, Event, Level};
use crate::tls::Broken;

/// What a client of a TLS port is told that does not speak TLS.
const CLEAR_TEXT: &str = "400 Bad Request\nThis port speaks TLS, and the request did not.\n";

/// The first octets of a connection.
enum Greeting {
    /// They may be TLS; the socket has a session.
    Tls,
    /// A request in clear text.
    ClearText,
    /// TLS, but none that can be accepted.
    Broken(Broken),
}

impl Session<'_> {
    /// Waits for the handshake and drives it; says how the session ends if it
    /// does not come to its end.
    pub(super) async fn shake_hands(&mut self) -> Option<End> {
        let proxy = &self.worker.proxy;
        match self.greeting().await {
            Ok(Greeting::Tls) => {}
            Ok(Greeting::ClearText) => return Some(self.answer_clear_text().await),
            Ok(Greeting::Broken(broken)) => return Some(self.failed(&broken.to_string())),
            Err(end) => return Some(end),
        }
        proxy.clock.refresh();
        let mut first = true;
        // When the last milestone was reached, for the drain and for the timeout.
        let (mut waits, mut works) = (self.since, proxy.clock.now());
        let shaken = poll_fn(|cx| {
            self.alarm.attach(cx);
            let shaken = self.client.socket.poll_handshake(cx);
            if let Poll::Ready(result) = shaken {
                return Poll::Ready(result.map_err(|error| self.reason(&error)));
            }
            if first && self.client.socket.tls().is_some_and(|tls| tls.is_greeted()) {
                first = false;
                proxy.clock.refresh();
                (waits, works) = (proxy.clock.now(), proxy.clock.now());
            }
            if proxy.stage() == Stage::Cut {
                return Poll::Ready(Err(End::Drop(CloseReason::Drain)));
            }
            let (due, reason) = self.patience(waits, works);
            if proxy.clock.now() >= due {
                return Poll::Ready(Err(self.too_slow(reason)));
            }
            self.alarm.set_at(due);
            Poll::Pending
        });
        if let Err(end) = shaken.await {
            return Some(end);
        }
        proxy.clock.refresh();
        self.since = proxy.clock.now();
        None
    }

    /// Waits for the first octets, without a session as long as there are none.
    async fn greeting(&mut self) -> Result<Greeting, End> {
        let worker = self.worker;
        if !self.client.buffer.is_empty() {
            // They have come with the announcement of the connection.
            let buffer = std::mem::take(&mut self.client.buffer);
            let greeting = self.greeted(buffer.filled());
            worker.proxy.spare.give(buffer);
            return greeting;
        }
        self.alarm.set(PARK_AFTER);
        let woken = std::mem::take(&mut self.woken);
        poll_fn(|cx| {
            self.alarm.attach(cx);
            let mut scratch = worker.scratch.borrow_mut();
            match self.client.socket.poll_read(cx, &mut scratch[..]) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(End::Drop(CloseReason::Client))),
                Poll::Ready(Ok(n)) => Poll::Ready(self.greeted(&scratch[..n])),
                Poll::Ready(Err(_)) => Poll::Ready(Err(End::Drop(CloseReason::Error))),
                Poll::Pending if worker.may_park(self.alarm, woken) => Poll::Ready(Err(End::Park)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Makes a session of the first octets.
    fn greeted(&mut self, octets: &[u8]) -> Result<Greeting, End> {
        // No record of TLS begins with a letter.
        if octets.first().is_some_and(u8::is_ascii_uppercase) {
            return Ok(Greeting::ClearText);
        }
        let session = self.worker.tls.as_ref().and_then(|settings| settings.session().ok());
        let Some(mut session) = session else { return Err(End::Drop(CloseReason::Error)) };
        let fed = session.feed(octets, &mut []);
        self.client.socket.secure(session);
        Ok(match fed {
            Ok(_) => Greeting::Tls,
            Err(broken) => Greeting::Broken(broken),
        })
    }

    /// Until when the next milestone has to be reached, and what it means if it is not.
    fn patience(&self, waits: u64, works: u64) -> (u64, CloseReason) {
        let proxy = &self.worker.proxy;
        let Orders { stage, since, .. } = proxy.orders.get();
        // What the clock has noted is rounded down: a millisecond more is never less.
        let timeout = works.saturating_add(1 + millis(proxy.config.timeouts.tls_handshake));
        if stage < Stage::Draining {
            return (timeout, CloseReason::Timeout);
        }
        if !kept(Rule::FirstRequestGrace) {
            return (0, CloseReason::Drain);
        }
        let from = waits.saturating_add(1).max(proxy.clock.millis(since));
        let grace = from.saturating_add(millis(proxy.plan().first_request_grace));
        if grace < timeout { (grace, CloseReason::Drain) } else { (timeout, CloseReason::Timeout) }
    }

    fn too_slow(&self, reason: CloseReason) -> End {
        if reason == CloseReason::Timeout {
            self.tell("the handshake took too long");
        } else {
            self.worker.hung(self.client.peer, "did not finish its TLS handshake");
        }
        End::Linger(reason)
    }

    /// What an error of the socket, or of what came from it, ends.
    fn reason(&self, error: &io::Error) -> End {
        match error.kind() {
            io::ErrorKind::InvalidData => self.failed(&error.to_string()),
            io::ErrorKind::UnexpectedEof => End::Drop(CloseReason::Client),
            _ => End::Drop(CloseReason::Error),
        }
    }

    fn failed(&self, cause: &str) -> End {
        self.tell(cause);
        End::Linger(CloseReason::Tls)
    }

    fn tell(&self, cause: &str) {
        let event = Event::new(Level::Info, "tls_handshake_failed")
            .with("cause", cause)
            .with("client", self.client.peer.to_string());
        self.worker.proxy.events.limited("tls_handshake_failed", HANDSHAKE_EVENTS, event);
    }

    /// Says in clear text what the client did wrong.
    async fn answer_clear_text(&mut self) -> End {
        self.tell("the client sent a request in clear text");
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nCache-Control: no-store\r\nDate: {}\r\n\
             Connection: close\r\n\r\n{CLEAR_TEXT}",
            CLEAR_TEXT.len(),
            self.worker.proxy.stamp.date(),
        );
        // The kernel takes the first few octets of a connection, or the client has gone.
        let sent = poll_fn(|cx| {
            let sent = self.client.socket.poll_write(cx, answer.as_bytes());
            Poll::Ready(matches!(sent, Poll::Ready(Ok(_))))
        });
        let reason = CloseReason::BadRequest;
        if sent.await { End::Linger(reason) } else { End::Drop(reason) }
    }
}
