//! One direction of a tunnel: what has been read and not yet taken by the other side.

use std::io;
use std::task::{Context, Poll};

use super::leg::Leg;
use crate::handoff::MovedWay;
use crate::stream::websocket::{Frames, PING};

/// One direction.
pub(super) struct Way {
    /// Its frames; none if nothing is known of the protocol.
    pub(super) frames: Option<Frames>,
    /// Octets that wait for the reader, and how many of them it has taken.
    held: Vec<u8>,
    taken: usize,
    /// Something was written that the kernel may not have: ciphertext.
    unsure: bool,
    /// Octets of the writer that passed.
    pub(super) octets: u64,
    /// Octets that the reader has taken, ours among them.
    pub(super) delivered: u64,
    /// What waits is a Ping of ours, which is no sign of life of anybody's.
    pings: bool,
    /// Octets of our Pings that the reader has taken.
    pinged: u64,
    /// The writer has ended its side.
    pub(super) ended: bool,
    /// The reader has been told so, or is gone.
    pub(super) finished: bool,
}

impl Way {
    /// A direction in which `octets` have been read already.
    pub(super) fn new(is_websocket: bool, octets: &[u8]) -> Self {
        let mut frames = is_websocket.then(Frames::default);
        if let Some(frames) = &mut frames {
            frames.pass(octets);
        }
        Way {
            frames,
            held: octets.to_vec(),
            taken: 0,
            unsure: false,
            octets: octets.len() as u64,
            delivered: 0,
            pings: false,
            pinged: 0,
            ended: false,
            finished: false,
        }
    }

    /// One that an elder has relayed until now, with what it held.
    pub(super) fn resume(moved: &MovedWay, held: &[u8]) -> Self {
        Way {
            frames: moved.frames.as_ref().map(Frames::resume),
            held: held.to_vec(),
            taken: 0,
            unsure: false,
            octets: moved.passed,
            delivered: moved.delivered,
            pings: false,
            pinged: 0,
            ended: moved.ended,
            finished: moved.finished,
        }
    }

    /// What is told of it to a successor.
    pub(super) fn moved(&self) -> MovedWay {
        MovedWay {
            frames: self.frames.as_ref().map(Frames::moved),
            held: u32::try_from(self.held().len()).unwrap_or(u32::MAX),
            passed: self.octets,
            delivered: self.delivered,
            ended: self.ended,
            finished: self.finished,
        }
    }

    /// What waits for the reader.
    pub(super) fn held(&self) -> &[u8] {
        &self.held[self.taken..]
    }

    /// Whether the kernel has all that was for the reader.
    pub(super) fn is_out(&self) -> bool {
        self.held.is_empty() && !self.unsure
    }

    /// Whether its frames can be told apart.
    pub(super) fn is_followed(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| !frames.is_opaque())
    }

    /// Whether a frame of ours may be sent now: what waits ends with a frame as well.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::is_at_boundary)
    }

    /// Whether a Close has passed, or begun to.
    pub(super) fn has_closed(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::has_closed)
    }

    /// Whether a whole Close has passed.
    pub(super) fn has_closed_whole(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::has_closed_whole)
    }

    /// Follows octets that are on their way to the reader, or are left out.
    pub(super) fn follow(&mut self, octets: &[u8]) {
        if let Some(frames) = &mut self.frames {
            frames.pass(octets);
        }
    }

    /// Puts a frame of ours behind what waits.
    pub(super) fn hold(&mut self, frame: &[u8]) {
        self.held.extend_from_slice(frame);
    }

    /// The same with a Ping. Only when nothing waits.
    pub(super) fn hold_ping(&mut self) {
        self.hold(&PING);
        self.pings = true;
    }

    /// Octets of others that the reader has taken.
    pub(super) fn passed(&self) -> u64 {
        self.delivered - self.pinged
    }

    /// Sends what waits; `false` if the reader does not take all of it now.
    pub(super) fn flush(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl Leg,
    ) -> io::Result<bool> {
        while self.taken < self.held.len() {
            match reader.poll_write(cx, &self.held[self.taken..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => {
                    self.taken += n;
                    self.delivered += n as u64;
                    self.pinged += if self.pings { n as u64 } else { 0 };
                }
                Poll::Pending => return Ok(false),
            }
        }
        if self.taken > 0 {
            // A silent tunnel has no buffer.
            (self.held, self.taken, self.pings) = (Vec::new(), 0, false);
        }
        self.unsure = reader.poll_flush(cx)?.is_pending();
        Ok(!self.unsure)
    }

    /// Sends octets at once, and holds what the reader does not take. Only when nothing
    /// waits.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl Leg,
        octets: &[u8],
    ) -> io::Result<()> {
        self.octets += octets.len() as u64;
        self.unsure = reader.holds_back();
        let mut sent = 0;
        while sent < octets.len() {
            match reader.poll_write(cx, &octets[sent..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => sent += n,
                Poll::Pending => break,
            }
        }
        self.delivered += sent as u64;
        self.hold(&octets[sent..]);
        Ok(())
    }

    /// Tells the reader that nothing more comes; `false` if it does not take even that
    /// now.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>, reader: &mut impl Leg) -> bool {
        if !self.finished {
            // A reader that is gone needs to be told nothing.
            self.finished = reader.poll_end(cx).is_ready();
        }
        self.finished
    }

    /// Forgets what waits: the reader is gone.
    pub(super) fn give_up(&mut self) {
        (self.held, self.taken, self.unsure) = (Vec::new(), 0, false);
        self.pings = false;
        self.finished = true;
    }
}
