//! The frames of one direction, followed as their octets pass.
//!
//! Only headers are read (RFC 6455 section 5.2): where a frame ends, and whether it is a
//! Close. Payloads are counted, whatever an extension has made of them, so that a
//! message in fragments or compressed passes like any other.

use crate::handoff::MovedFrames;

/// Two octets, a length of eight, a key of four.
const HEADER_MAX: usize = 14;

/// The longest payload of a control frame (section 5.5).
const CONTROL_MAX: u64 = 125;

const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const CLOSE: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// One direction of a tunnel.
///
/// A length that is encoded in a way that the RFC forbids makes it opaque for good: a
/// peer may read the length otherwise, so nothing of ours may be put between octets.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    at: At,
    closing: Closing,
}

/// Where in a frame the next octet belongs.
#[derive(Clone, Debug)]
enum At {
    /// In its header, of which so many octets have passed.
    Header([u8; HEADER_MAX], usize),
    /// In its payload, of which so many octets are still to come.
    Payload(u64),
    /// Nobody knows.
    Opaque,
}

impl Default for At {
    fn default() -> Self {
        At::Header([0; HEADER_MAX], 0)
    }
}

/// What has passed of a Close frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Closing {
    #[default]
    Nothing,
    /// Its header.
    Begun,
    /// All of it.
    Whole,
}

impl Frames {
    /// Where they stand, for a successor.
    pub fn moved(&self) -> MovedFrames {
        let (header, payload, opaque) = match &self.at {
            At::Header(header, passed) => (header[..*passed].to_vec(), 0, false),
            At::Payload(left) => (Vec::new(), *left, false),
            At::Opaque => (Vec::new(), 0, true),
        };
        let (closing, closed) = (self.has_closed(), self.has_closed_whole());
        MovedFrames { header, payload, opaque, closing, closed }
    }

    /// Those that an elder has followed until now. What cannot be is opaque.
    pub fn resume(moved: &MovedFrames) -> Self {
        let mut header = [0; HEADER_MAX];
        let passed = moved.header.len();
        let at = match header.get_mut(..passed) {
            _ if moved.opaque => At::Opaque,
            Some([]) if moved.payload > 0 => At::Payload(moved.payload),
            Some(known) if moved.payload == 0 => {
                known.copy_from_slice(&moved.header);
                let whole = passed >= header_len(&header, passed);
                if whole { At::Opaque } else { At::Header(header, passed) }
            }
            _ => At::Opaque,
        };
        let closing = match (moved.closing, moved.closed) {
            (false, false) => Closing::Nothing,
            (_, false) => Closing::Begun,
            (_, true) => Closing::Whole,
        };
        Frames { at, closing }
    }

    /// Follows octets that pass.
    #[inline]
    pub fn pass(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            let taken = self.step(octets);
            octets = &octets[taken..];
        }
    }

    /// Follows octets up to the first boundary, and says how many they are. `None`, with
    /// all of them followed, if there is none.
    pub fn pass_to_boundary(&mut self, octets: &[u8]) -> Option<usize> {
        let mut passed = 0;
        while passed < octets.len() {
            passed += self.step(&octets[passed..]);
            if self.is_at_boundary() {
                return Some(passed);
            }
        }
        None
    }

    /// Whether the next octet begins a frame, so that a frame of ours may go before it.
    /// Between the fragments of a message that is allowed too (section 5.4).
    #[inline]
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.at, At::Header(_, 0))
    }

    /// Whether a Close frame has passed, or begun to: after it nothing may be sent.
    pub fn has_closed(&self) -> bool {
        self.closing != Closing::Nothing
    }

    /// Whether a whole Close frame has passed.
    pub fn has_closed_whole(&self) -> bool {
        self.closing == Closing::Whole
    }

    /// Whether its frames can not be told.
    pub fn is_opaque(&self) -> bool {
        matches!(self.at, At::Opaque)
    }

    /// Follows at least one octet, at most to the end of a frame.
    #[inline]
    fn step(&mut self, octets: &[u8]) -> usize {
        match &mut self.at {
            At::Opaque => octets.len(),
            At::Payload(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(octets.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.end_frame();
                }
                taken
            }
            At::Header(header, passed) => {
                let before = *passed;
                let mut taken = 0;
                while *passed < header_len(header, *passed) && taken < octets.len() {
                    header[*passed] = octets[taken];
                    *passed += 1;
                    taken += 1;
                }
                debug_assert!(*passed > before);
                if *passed == header_len(header, *passed) {
                    let header = *header;
                    self.begin_payload(&header);
                }
                taken
            }
        }
    }

    fn begin_payload(&mut self, header: &[u8; HEADER_MAX]) {
        let is_control = header[0] & CONTROL != 0;
        let Some(length) = length(header) else {
            self.at = At::Opaque;
            return;
        };
        if is_control && (length > CONTROL_MAX || header[0] & FIN == 0) {
            self.at = At::Opaque;
            return;
        }
        if header[0] & OPCODE == CLOSE && self.closing == Closing::Nothing {
            self.closing = Closing::Begun;
        }
        self.at = At::Payload(length);
        if length == 0 {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        self.at = At::default();
        if self.closing == Closing::Begun {
            self.closing = Closing::Whole;
        }
    }
}

/// How long a header is of which so many octets are known: 2 until the second is.
#[inline]
fn header_len(header: &[u8; HEADER_MAX], known: usize) -> usize {
    if known < 2 {
        return 2;
    }
    let extended = match header[1] & LENGTH {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let key = if header[1] & MASKED != 0 { 4 } else { 0 };
    2 + extended + key
}

/// The payload's length; `None` if it is not encoded in the one way that is allowed: in
/// as few octets as it can be, and below 2^63.
#[inline]
fn length(header: &[u8; HEADER_MAX]) -> Option<u64> {
    let [_, short, a, b, c, d, e, f, g, h, ..] = *header;
    match short & LENGTH {
        126 => Some(u64::from(u16::from_be_bytes([a, b]))).filter(|length| *length > 125),
        127 => Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            .filter(|length| *length > 0xffff && *length >> 63 == 0),
        length => Some(u64::from(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with this first octet and a payload of this length.
    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let bit = if masked { MASKED } else { 0 };
        let mut octets = vec![first];
        match length {
            0..=125 => octets.push(bit | length as u8),
            126..=0xffff => {
                octets.push(bit | 126);
                octets.extend((length as u16).to_be_bytes());
            }
            _ => {
                octets.push(bit | 127);
                octets.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            octets.extend([1, 2, 3, 4]);
        }
        octets.extend(std::iter::repeat_n(0x88, length));
        octets
    }

    fn stream() -> (Vec<u8>, Vec<usize>) {
        let (mut octets, mut ends) = (Vec::new(), vec![0]);
        for (first, length) in
            [(0x82, 0), (0x01, 5), (0x89, 125), (0x80, 126), (0xc1, 65_535), (0x82, 65_536)]
        {
            for masked in [false, true] {
                octets.extend(frame(first, length, masked));
                ends.push(octets.len());
            }
        }
        (octets, ends)
    }

    #[test]
    fn boundaries_are_where_frames_end_wherever_the_octets_are_split() {
        let (octets, ends) = stream();
        for size in [1, 2, 3, 7, 125, 4096, octets.len()] {
            let mut frames = Frames::default();
            let mut passed = 0;
            for piece in octets.chunks(size) {
                frames.pass(piece);
                passed += piece.len();
                assert_eq!(frames.is_at_boundary(), ends.contains(&passed), "{size} at {passed}");
            }
            assert!(!frames.is_opaque() && !frames.has_closed());
        }
    }

    #[test]
    fn passing_to_the_boundary_stops_at_each_of_them() {
        let (octets, ends) = stream();
        let mut frames = Frames::default();
        let mut at = 0;
        for end in &ends[1..] {
            at += frames.pass_to_boundary(&octets[at..]).unwrap();
            assert_eq!(at, *end);
        }
        assert_eq!(frames.pass_to_boundary(&frame(0x82, 9, false)[..8]), None);
        assert_eq!(frames.pass_to_boundary(&[0x88; 5]), Some(3));
    }

    #[test]
    fn a_close_is_seen_when_it_begins_and_when_it_is_whole() {
        let close = frame(0x88, 2, true);
        for split in 0..=close.len() {
            let mut frames = Frames::default();
            frames.pass(&close[..split]);
            assert_eq!(frames.has_closed(), split >= 6, "{split}");
            assert_eq!(frames.has_closed_whole(), split == close.len(), "{split}");
        }
        let mut empty = Frames::default();
        empty.pass(&[0x88, 0]);
        assert!(empty.has_closed_whole() && empty.is_at_boundary());
    }

    #[test]
    fn what_a_successor_is_told_that_cannot_be_is_opaque() {
        let told = |header: &[u8], payload| {
            let header = header.to_vec();
            let moved =
                MovedFrames { header, payload, opaque: false, closing: false, closed: false };
            Frames::resume(&moved)
        };
        assert!(told(&[], 0).is_at_boundary());
        assert!(!told(&[0x82, 126, 1], 0).is_opaque());
        for (header, payload) in [(&[0x82, 5][..], 0), (&[0x82], 3), (&[0; 15], 0)] {
            assert!(told(header, payload).is_opaque(), "{header:?}");
        }
    }

    #[test]
    fn what_looks_like_a_close_inside_a_payload_is_none() {
        let mut frames = Frames::default();
        frames.pass(&frame(0x82, 300, false));
        assert!(!frames.has_closed());
    }

    #[test]
    fn a_length_that_is_encoded_wrongly_makes_the_direction_opaque_for_good() {
        let short = [0x82, 126, 0, 125];
        let long = [0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let negative = [0x82, 127, 0x80, 0, 0, 0, 0, 1, 0, 0];
        let control = [0x89, 126, 0, 126];
        let fragment = [0x08, 0];
        for octets in [&short[..], &long, &negative, &control, &fragment] {
            let mut frames = Frames::default();
            frames.pass(octets);
            assert!(frames.is_opaque(), "{octets:?}");
            frames.pass(&[0x88, 0]);
            assert!(frames.is_opaque() && !frames.is_at_boundary() && !frames.has_closed());
            assert_eq!(frames.pass_to_boundary(&[0x88, 0]), None);
        }
    }
}
