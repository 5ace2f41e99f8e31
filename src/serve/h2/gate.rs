//! The gate in front of h2 that decides when the final GOAWAY is sent.
//!
//! h2 answers the acknowledgement of its shutdown PING with the final GOAWAY,
//! at once. On a fast link that is a few milliseconds after the first one, and
//! a client that has not looked at the first yet opens streams that the second
//! refuses. h2 has no knob for it, so the acknowledgement is kept back here
//! until the grace is over; for a client that never sends it, it is made up.
//!
//! To know where frames begin, every octet that goes to h2 is followed from the
//! preface on: a subtraction for each read. Frames are looked at only while the
//! gate is shut. The length of a frame is the client's word; h2 refuses what is
//! too long, so nothing is held here but one frame of 17 octets.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::proxy::h2::{Count, Sections};

/// The length of the client's connection preface (RFC 9113 section 3.4).
pub(super) const PREFACE_LEN: usize = 24;
const HEADER_LEN: usize = 9;

/// The frames that carry a field block, and the flag that ends one.
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// The acknowledgement of the PING that h2 sends with its first GOAWAY: type 6,
/// ACK, and the payload that h2 has chosen for it (`Ping::SHUTDOWN`).
const SHUTDOWN_ACK: [u8; 17] =
    [0, 0, 8, 6, 1, 0, 0, 0, 0, 0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// Follows the client's frames.
#[derive(Debug)]
pub(super) struct Gate {
    /// Octets of the current frame's payload, or of the preface, still to come.
    left: usize,
    /// The part of a frame header that has come.
    header: [u8; HEADER_LEN],
    filled: usize,
    /// How much of that part h2 already has.
    passed: usize,
    /// A field block is under way: nothing but its CONTINUATION may follow
    /// (RFC 9113 section 4.3).
    in_block: bool,
    /// Frames that have begun, counted up to the second.
    begun: u8,
    /// The highest stream that has been opened.
    opened: u32,
    /// The trailer section that is coming, if one is.
    trailers: Option<Trailers>,
    sections: Rc<Sections>,
    shut: Option<Shut>,
}

/// A trailer section that is coming.
#[derive(Debug)]
struct Trailers {
    stream: u32,
    count: Count,
    /// Octets of the frame before its part of the block.
    before: usize,
    /// Octets of that part, once they are known: the first may say how many at
    /// the end are padding.
    left: Option<usize>,
}

/// A gate that looks at frames.
#[derive(Debug, Default)]
struct Shut {
    /// What h2 may have.
    out: VecDeque<u8>,
    /// The acknowledgement has come and is kept back.
    held: bool,
    /// h2 has it.
    given: bool,
    /// It may pass.
    open: bool,
    /// It is to be given as soon as the client is silent.
    due: bool,
    /// It is to be given between any two frames.
    forced: bool,
    /// A PING acknowledgement of 8 octets that is still coming, with its header.
    ack: Vec<u8>,
}

impl Gate {
    /// Begins before the preface.
    pub(super) fn new(sections: Rc<Sections>) -> Self {
        Gate {
            left: PREFACE_LEN,
            header: [0; HEADER_LEN],
            filled: 0,
            passed: 0,
            in_block: false,
            begun: 0,
            opened: 0,
            trailers: None,
            sections,
            shut: None,
        }
    }

    /// Whether a frame has come whole, which the client's settings have to be.
    pub(super) fn has_frame(&self) -> bool {
        self.begun > 1 || (self.begun == 1 && self.left == 0)
    }

    /// Whether what is read goes to h2 unseen.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.shut.is_none()
    }

    /// Follows octets that go to h2 unseen.
    #[inline]
    pub(super) fn follow(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            if self.left > 0 {
                let n = self.left.min(octets.len());
                self.pass(&octets[..n]);
                octets = &octets[n..];
                continue;
            }
            let n = (HEADER_LEN - self.filled).min(octets.len());
            self.header[self.filled..self.filled + n].copy_from_slice(&octets[..n]);
            self.filled += n;
            octets = &octets[n..];
            self.passed = self.filled;
            if self.filled == HEADER_LEN {
                self.begin_payload();
            }
        }
    }

    fn begin_payload(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
        }
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.filled = 0;
        self.passed = 0;
        self.begun += u8::from(self.begun < 2);
        match kind {
            HEADERS => self.begin_section(flags),
            CONTINUATION => {
                if let Some(trailers) = &mut self.trailers {
                    (trailers.before, trailers.left) = (0, Some(self.left));
                }
            }
            _ => {}
        }
        self.end_section();
    }

    /// Looks whether a field block is the second of its stream.
    fn begin_section(&mut self, flags: u8) {
        let [.., a, b, c, d] = self.header;
        let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
        if stream > self.opened {
            self.opened = stream;
            return;
        }
        let before = if flags & PRIORITY == 0 { 0 } else { 5 };
        let left = (flags & PADDED == 0).then(|| self.left.saturating_sub(before));
        self.trailers = Some(Trailers { stream, count: Count::default(), before, left });
    }

    /// Octets of the payload go by.
    #[inline]
    fn pass(&mut self, octets: &[u8]) {
        self.left -= octets.len();
        if let Some(trailers) = &mut self.trailers {
            trailers.pass(octets, self.left);
            self.end_section();
        }
    }

    /// Notes a section that is whole.
    fn end_section(&mut self) {
        if self.left == 0
            && !self.in_block
            && let Some(trailers) = self.trailers.take()
        {
            self.sections.note(trailers.stream, trailers.count.fields());
        }
    }

    /// Shuts the gate; before h2 has sent its PING.
    pub(super) fn shut(&mut self) {
        self.shut.get_or_insert_default();
    }

    /// Looks at octets and keeps what h2 may have.
    pub(super) fn take(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            self.give_forced();
            let Some(shut) = &mut self.shut else { return };
            if !shut.ack.is_empty() {
                let n = (SHUTDOWN_ACK.len() - shut.ack.len()).min(octets.len());
                shut.ack.extend_from_slice(&octets[..n]);
                octets = &octets[n..];
                shut.judge();
            } else if self.left > 0 {
                let n = self.left.min(octets.len());
                shut.out.extend(&octets[..n]);
                self.pass(&octets[..n]);
                octets = &octets[n..];
            } else {
                let n = (HEADER_LEN - self.filled).min(octets.len());
                self.header[self.filled..self.filled + n].copy_from_slice(&octets[..n]);
                self.filled += n;
                octets = &octets[n..];
                if self.filled == HEADER_LEN {
                    if self.passed == 0 && self.header == SHUTDOWN_ACK[..HEADER_LEN] {
                        shut.ack.extend_from_slice(&self.header);
                        self.filled = 0;
                    } else {
                        shut.out.extend(&self.header[self.passed..]);
                        self.begin_payload();
                    }
                }
            }
        }
        self.give_forced();
    }

    /// The grace is over: the acknowledgement may pass, once it has come and the
    /// client is silent.
    pub(super) fn open(&mut self) {
        if let Some(shut) = &mut self.shut {
            shut.open = true;
            shut.due |= shut.held && !shut.given;
        }
    }

    /// Whether the acknowledgement waits for the client to be silent.
    pub(super) fn is_due(&self) -> bool {
        self.shut.as_ref().is_some_and(|shut| shut.due && !shut.given)
    }

    /// The client is silent: nothing of what it sent before is still to be read.
    pub(super) fn hears_silence(&mut self) {
        let between = self.is_between_frames();
        if let Some(shut) = self.shut.as_mut().filter(|shut| between && shut.due) {
            shut.make_up();
        }
    }

    /// The client has had its time to acknowledge: h2 is told that it did, now
    /// or between the client's next frames. `true` if the client never has.
    pub(super) fn force(&mut self) -> bool {
        let Some(shut) = &mut self.shut else { return false };
        let missing = !shut.held && !shut.given && !shut.forced;
        shut.open = true;
        shut.forced = true;
        self.give_forced();
        missing
    }

    fn give_forced(&mut self) {
        let between = self.is_between_frames();
        if let Some(shut) = self.shut.as_mut().filter(|shut| between && shut.forced) {
            shut.make_up();
        }
    }

    /// Whether h2 has been told that the client has seen the first GOAWAY.
    pub(super) fn is_given(&self) -> bool {
        self.shut.as_ref().is_some_and(|shut| shut.given)
    }

    /// Moves octets that h2 may have into `room`; how many.
    pub(super) fn give(&mut self, room: &mut [u8]) -> usize {
        let Some(shut) = &mut self.shut else { return 0 };
        let n = shut.out.len().min(room.len());
        for (slot, octet) in room.iter_mut().zip(shut.out.drain(..n)) {
            *slot = octet;
        }
        n
    }

    /// Whether h2 has whole frames only, and expects any: a part of a header
    /// that it does not have yet is no part of a frame to it.
    fn is_between_frames(&self) -> bool {
        self.left == 0 && self.passed == 0 && !self.in_block
    }
}

impl Trailers {
    /// Takes octets of a frame of which `rest` are still to come.
    fn pass(&mut self, mut octets: &[u8], rest: usize) {
        if self.left.is_none()
            && let Some((&padding, block)) = octets.split_first()
        {
            let frame = block.len() + rest;
            self.left = Some(frame.saturating_sub(usize::from(padding) + self.before));
            octets = block;
        }
        let skipped = self.before.min(octets.len());
        self.before -= skipped;
        octets = &octets[skipped..];
        if let Some(left) = &mut self.left {
            let n = octets.len().min(*left);
            *left -= n;
            self.count.feed(&octets[..n]);
        }
    }
}

impl Shut {
    /// Decides about an acknowledgement once it is all there.
    fn judge(&mut self) {
        if self.ack.len() < SHUTDOWN_ACK.len() {
            return;
        }
        let ack = std::mem::take(&mut self.ack);
        if ack != SHUTDOWN_ACK {
            self.out.extend(ack);
        } else if !self.given {
            self.held = true;
            self.due = self.open;
        }
    }

    fn make_up(&mut self) {
        if !self.given {
            self.out.extend(SHUTDOWN_ACK);
            self.given = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut octets = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        octets.extend_from_slice(payload);
        octets
    }

    fn drained(gate: &mut Gate) -> Vec<u8> {
        let mut room = [0; 4096];
        let n = gate.give(&mut room);
        room[..n].to_vec()
    }

    /// Everything but the acknowledgement passes, wherever reads and the shutting cut it.
    #[test]
    fn only_the_acknowledgement_is_kept_back_however_the_octets_are_cut() {
        let before = [frame(4, 0, &[]), frame(1, 5, b"0123456789")].concat();
        let others =
            [frame(6, 1, b"another!"), frame(0, 1, b"data"), frame(6, 0, b"aping...")].concat();
        let all = [&others[..], &SHUTDOWN_ACK, &others].concat();
        let expected = [&others[..], &others].concat();
        for step in 1..all.len() {
            for known in 0..before.len() {
                let mut gate = Gate::new(Rc::default());
                gate.follow(&[0; PREFACE_LEN]);
                gate.follow(&before[..known]);
                gate.shut();
                let stream = [&before[known..], &all[..]].concat();
                for piece in stream.chunks(step) {
                    gate.take(piece);
                }
                let passed = drained(&mut gate);
                assert_eq!(passed, [&before[known..], &expected].concat(), "{step} {known}");
                gate.open();
                assert_eq!(drained(&mut gate), b"", "the client may have sent more");
                gate.hears_silence();
                assert_eq!(drained(&mut gate), SHUTDOWN_ACK);
                assert!(gate.is_given() && !gate.force());
                gate.take(&SHUTDOWN_ACK);
                assert_eq!(drained(&mut gate), b"", "it is given once");
            }
        }
    }

    #[test]
    fn what_was_not_acknowledged_is_made_up_between_frames() {
        let whole = frame(0, 0, b"payload");
        for cut in 0..whole.len() {
            let mut gate = Gate::new(Rc::default());
            gate.follow(&[0; PREFACE_LEN]);
            gate.shut();
            gate.take(&whole[..cut]);
            assert!(gate.force());
            gate.take(&whole[cut..]);
            let passed = drained(&mut gate);
            let first = [&SHUTDOWN_ACK[..], &whole].concat();
            let last = [&whole[..], &SHUTDOWN_ACK].concat();
            // A header that h2 has no octet of is still to come for it.
            assert_eq!(passed, if cut < HEADER_LEN { first } else { last }, "{cut}");
        }
    }

    #[test]
    fn an_acknowledgement_that_comes_after_the_grace_passes_at_once() {
        let mut gate = Gate::new(Rc::default());
        gate.follow(&[0; PREFACE_LEN]);
        gate.shut();
        gate.open();
        assert_eq!(drained(&mut gate), b"");
        gate.take(&SHUTDOWN_ACK);
        gate.hears_silence();
        assert_eq!(drained(&mut gate), SHUTDOWN_ACK);
    }

    #[test]
    fn fields_of_a_second_block_are_counted_however_it_is_framed_and_cut() {
        let block = [0x82, 0x40, 0x01, b'a', 0x01, b'b', 0x84];
        let padded = [&[3][..], &block, &[0; 3]].concat();
        let both = [&[2, 0, 0, 0, 0, 9][..], &block, &[0; 2]].concat();
        let whole = |flags, payload: &[u8]| frame(HEADERS, flags, payload);
        for second in [
            whole(END_HEADERS, &block),
            whole(END_HEADERS | PADDED, &padded),
            whole(END_HEADERS | PADDED | PRIORITY, &both),
            [whole(0, &block[..3]), frame(CONTINUATION, END_HEADERS, &block[3..])].concat(),
            [whole(PADDED, &[&[1, 0x82][..], &[0]].concat()), frame(CONTINUATION, 4, &block[1..])]
                .concat(),
        ] {
            for shut in [false, true] {
                for cut in 0..second.len() {
                    let sections = Rc::new(Sections::default());
                    let mut gate = Gate::new(Rc::clone(&sections));
                    gate.follow(&[0; PREFACE_LEN]);
                    gate.follow(&frame(HEADERS, END_HEADERS, &[0x82; 5]));
                    gate.follow(&second[..cut]);
                    if shut {
                        gate.shut();
                        gate.take(&second[cut..]);
                    } else {
                        gate.follow(&second[cut..]);
                    }
                    assert!(sections.had(1, 3), "{second:?} at {cut}");
                    assert!(!sections.had(1, 5), "the first block is none");
                }
            }
        }
    }

    #[test]
    fn nothing_comes_between_the_parts_of_a_field_block() {
        let block =
            [frame(HEADERS, 1, b"begin"), frame(CONTINUATION, 0, b"on"), frame(9, 4, b"end")];
        let whole = block.concat();
        for cut in 1..whole.len() {
            let mut gate = Gate::new(Rc::default());
            gate.follow(&[0; PREFACE_LEN]);
            gate.follow(&whole[..cut / 2]);
            gate.shut();
            gate.take(&whole[cut / 2..cut]);
            gate.open();
            gate.hears_silence();
            gate.force();
            gate.take(&whole[cut..]);
            gate.hears_silence();
            let passed = [&whole[..cut / 2], &drained(&mut gate)].concat();
            let before = [&SHUTDOWN_ACK[..], &whole].concat();
            let behind = [&whole[..], &SHUTDOWN_ACK].concat();
            assert!(passed == behind || (cut < HEADER_LEN && passed == before), "{cut}");
        }
    }
}
