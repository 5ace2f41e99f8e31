//! Where a body ends: lengths, chunks (RFC 9112 section 7.1), ends of connection.
//!
//! Chunks are decoded where they lie. Towards an HTTP/1.1 peer the chunk
//! framing itself is passed on, rewritten in place to its canonical form:
//! without extensions and leading zeros it never becomes longer, so that in the
//! ordinary case not one octet moves.

use super::Framing;
use super::head::has_bare_lf;
use crate::limits::{CHUNK_LINE_MAX, TRAILER_COUNT_MAX, TRAILER_MAX};

/// What to leave of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Canonical chunks, the last one and the trailer section left out.
    Chunks,
    /// The data alone.
    Data,
}

/// What one call of [`Decoder::decode`] did with the front of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Octets at the front that may now be sent on.
    pub produced: usize,
    /// Octets at the front that are used up once those have been sent; never less than `produced`.
    pub consumed: usize,
    /// Octets of the trailer section that follow `consumed`, its last line included; set when the body has ended.
    pub trailer: Option<usize>,
    /// Whether the body has ended.
    pub done: bool,
}

/// The body's framing is broken: nothing after this point can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyError(pub &'static str);

/// Follows one body from its first octet to its last.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The longest trailer section.
    section: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    Done,
}

impl Decoder {
    /// A decoder for a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Decoder { state, section: TRAILER_MAX }
    }

    /// The same with a trailer section of so many octets at most. All of it has to be
    /// buffered at once.
    pub fn with_section(self, section: usize) -> Self {
        Decoder { section, ..self }
    }

    /// Whether the last octet of the body has been seen.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Octets still to come, where the framing tells.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Octets still to come of the chunk that is under way, its line end included; none
    /// between two, and where there are no chunks. `None` where nobody but the peer can
    /// say that the body ends.
    pub fn border(&self) -> Option<u64> {
        match self.state {
            State::ChunkSize | State::UntilClose => Some(0),
            State::ChunkData(left) => Some(left.saturating_add(2)),
            State::ChunkEnd => Some(2),
            State::Length(_) | State::Trailer | State::Done => None,
        }
    }

    /// The connection has ended. Only a body that ends with its connection ends well by that.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError("connection ended inside the body")),
        }
    }

    /// Reads on in `octets`, all that is buffered and not yet consumed.
    ///
    /// Rewrites the front of `octets` for [`Progress::produced`]. When nothing
    /// is produced or consumed and the body is not done, more octets are
    /// needed.
    #[inline]
    pub fn decode(&mut self, octets: &mut [u8], emit: Emit) -> Result<Progress, BodyError> {
        match &mut self.state {
            State::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(octets.len());
                *left -= n as u64;
                let done = *left == 0;
                if done {
                    self.state = State::Done;
                }
                Ok(Progress { produced: n, consumed: n, trailer: None, done })
            }
            State::UntilClose => {
                let n = octets.len();
                Ok(Progress { produced: n, consumed: n, trailer: None, done: false })
            }
            State::Done => Ok(Progress { done: true, ..Progress::default() }),
            _ => self.decode_chunks(octets, emit),
        }
    }

    fn decode_chunks(&mut self, octets: &mut [u8], emit: Emit) -> Result<Progress, BodyError> {
        let mut from = 0;
        let mut to = 0;
        loop {
            match self.state {
                State::ChunkSize => {
                    let Some((size, line)) = chunk_size(&octets[from..])? else {
                        break;
                    };
                    if size == 0 {
                        from += line;
                        self.state = State::Trailer;
                        continue;
                    }
                    if emit == Emit::Chunks {
                        to += write_chunk_size(size, line, octets, from, to);
                    }
                    from += line;
                    self.state = State::ChunkData(size);
                }
                State::ChunkData(left) => {
                    let rest = octets.len() - from;
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(rest);
                    move_down(octets, from, to, n);
                    from += n;
                    to += n;
                    let left = left - n as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    if left > 0 {
                        break;
                    }
                }
                State::ChunkEnd => {
                    let rest = &octets[from..];
                    if rest.len() < 2 {
                        if rest.first().is_some_and(|&octet| octet != b'\r') {
                            return Err(BodyError("chunk without its line end"));
                        }
                        break;
                    }
                    if &rest[..2] != b"\r\n" {
                        return Err(BodyError("chunk without its line end"));
                    }
                    if emit == Emit::Chunks {
                        move_down(octets, from, to, 2);
                        to += 2;
                    }
                    from += 2;
                    self.state = State::ChunkSize;
                }
                State::Trailer => {
                    let trailer = trailer_len(&octets[from..], self.section)?;
                    let done = trailer.is_some();
                    if let Some(length) = trailer {
                        check_trailer(&octets[from..from + length])?;
                    }
                    if done {
                        self.state = State::Done;
                    }
                    return Ok(Progress { produced: to, consumed: from, trailer, done });
                }
                State::Length(_) | State::UntilClose | State::Done => break,
            }
        }
        Ok(Progress { produced: to, consumed: from, trailer: None, done: false })
    }
}

/// A chunk-size line: the size and the length of the line, if it is all there.
fn chunk_size(octets: &[u8]) -> Result<Option<(u64, usize)>, BodyError> {
    let window = &octets[..octets.len().min(CHUNK_LINE_MAX)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        if window.len() == CHUNK_LINE_MAX {
            return Err(BodyError("chunk size line too long"));
        }
        // Refuse early what can not become a size any more.
        return match window.first() {
            Some(octet) if !octet.is_ascii_hexdigit() => Err(BodyError("bad chunk size")),
            _ => Ok(None),
        };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(BodyError("bare LF in chunk size line"))?;
    let digits = line.iter().take_while(|octet| octet.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    if digits == 0 || digits > 16 {
        return Err(BodyError("bad chunk size"));
    }
    if !extension.is_empty() && !is_extension(extension) {
        return Err(BodyError("bad chunk size"));
    }
    let value = size.iter().fold(0u64, |value, &octet| (value << 4) | u64::from(hex(octet)));
    if value > i64::MAX as u64 {
        return Err(BodyError("chunk too large"));
    }
    Ok(Some((value, end + 1)))
}

/// A chunk extension is skipped, but not one that could hide a line end or a control octet.
fn is_extension(octets: &[u8]) -> bool {
    octets[0] == b';'
        && octets.iter().all(|&octet| octet == b'\t' || (octet >= b' ' && octet != 0x7f))
}

fn hex(octet: u8) -> u8 {
    match octet {
        b'0'..=b'9' => octet - b'0',
        b'a'..=b'f' => octet - b'a' + 10,
        _ => octet - b'A' + 10,
    }
}

/// Writes the canonical size line at `to`; the line as it came, `line` octets
/// at `from`, is never shorter, so nothing that is still to be read is hit.
fn write_chunk_size(size: u64, line: usize, octets: &mut [u8], from: usize, to: usize) -> usize {
    let mut text = [0u8; 18];
    let n = chunk_line(size, &mut text);
    debug_assert!(n <= line && to <= from);
    octets[to..to + n].copy_from_slice(&text[..n]);
    n
}

/// Writes `size` in hexadecimal and CRLF; returns how many octets that took.
pub fn chunk_line(size: u64, text: &mut [u8; 18]) -> usize {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (64 - size.leading_zeros()).div_ceil(4).max(1) as usize;
    for (at, slot) in text[..digits].iter_mut().enumerate() {
        *slot = DIGITS[((size >> (4 * (digits - 1 - at))) & 15) as usize];
    }
    text[digits] = b'\r';
    text[digits + 1] = b'\n';
    digits + 2
}

fn move_down(octets: &mut [u8], from: usize, to: usize, n: usize) {
    if from != to {
        octets.copy_within(from..from + n, to);
    }
}

/// The length of a trailer section with its blank line, if it is all there.
fn trailer_len(octets: &[u8], most: usize) -> Result<Option<usize>, BodyError> {
    if octets.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let window = &octets[..octets.len().min(most)];
    if let Some(at) = memchr::memmem::find(window, b"\r\n\r\n") {
        return Ok(Some(at + 4));
    }
    if window.len() == most {
        return Err(BodyError("trailer section too long"));
    }
    Ok(None)
}

/// Whether a trailer section is one, for every parser in the same way. Checked
/// here, whether anybody wants its fields or not: where it ends is part of the
/// framing.
fn check_trailer(section: &[u8]) -> Result<(), BodyError> {
    let mut storage = [httparse::EMPTY_HEADER; TRAILER_COUNT_MAX];
    let parsed = httparse::parse_headers(section, &mut storage);
    let whole = matches!(parsed, Ok(httparse::Status::Complete((len, _))) if len == section.len());
    if whole && !has_bare_lf(section) { Ok(()) } else { Err(BodyError("bad trailer section")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (Vec<u8>, Vec<u8>, Vec<u8>);

    /// Feeds `wire` in pieces of `step` octets; returns what was emitted, the
    /// trailer section, and what was left behind the body.
    fn run(wire: &[u8], step: usize, emit: Emit) -> Result<Parts, BodyError> {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut buffered: Vec<u8> = Vec::new();
        let mut out = Vec::new();
        let mut pieces = wire.chunks(step);
        loop {
            let progress = decoder.decode(&mut buffered, emit)?;
            out.extend_from_slice(&buffered[..progress.produced]);
            buffered.drain(..progress.consumed);
            if progress.done {
                let trailer = buffered.drain(..progress.trailer.unwrap_or(0)).collect();
                buffered.extend(pieces.flatten());
                return Ok((out, trailer, buffered));
            }
            if progress.consumed == 0 {
                match pieces.next() {
                    Some(piece) => buffered.extend_from_slice(piece),
                    None => return Err(BodyError("input ended")),
                }
            }
        }
    }

    #[test]
    fn chunks_come_out_the_same_however_they_are_cut() {
        let wire = b"005;x=y\r\nhello\r\n1\r\n \r\n00006\r\nworld!\r\n000\r\nA: b\r\n\r\nGET";
        for step in 1..wire.len() {
            let (data, trailer, rest) = run(wire, step, Emit::Data).unwrap();
            assert_eq!(data, b"hello world!");
            assert_eq!(trailer, b"A: b\r\n\r\n");
            assert_eq!(rest, b"GET");
            let (chunks, ..) = run(wire, step, Emit::Chunks).unwrap();
            assert_eq!(chunks, b"5\r\nhello\r\n1\r\n \r\n6\r\nworld!\r\n", "{step}");
        }
    }

    #[test]
    fn a_chunk_that_two_parsers_could_read_differently_is_an_error() {
        for bad in [
            &b"0x2\r\nab\r\n0\r\n\r\n"[..],
            b" 2\r\nab\r\n0\r\n\r\n",
            b"2 \r\nab\r\n0\r\n\r\n",
            b"2\nab\r\n0\r\n\r\n",
            b"2\r\nabX\r\n0\r\n\r\n",
            b"2\r\nab\n0\r\n\r\n",
            b"2;a\rb\r\nab\r\n0\r\n\r\n",
            b"\r\nab",
            b"-2\r\nab\r\n0\r\n\r\n",
            b"11112222333344445\r\nab",
            b"ffffffffffffffff\r\nab",
            b"0\r\nA: b\n\r\n\r\n",
            b"0\r\nA: b\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"0\r\nA b\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\nA: b\r\n c\r\n\r\n",
            b"0\r\nA: \0\r\n\r\n",
        ] {
            for step in [1, 3, bad.len()] {
                assert!(run(bad, step, Emit::Data).is_err(), "{:?}", String::from_utf8_lossy(bad));
            }
        }
        let endless = vec![b'0'; CHUNK_LINE_MAX + 1];
        assert!(run(&endless, 100, Emit::Data).is_err());
    }

    #[test]
    fn a_length_ends_after_its_octets_and_not_before() {
        let mut decoder = Decoder::new(Framing::Length(5));
        let progress = decoder.decode(&mut b"abc".to_vec(), Emit::Data).unwrap();
        assert_eq!((progress.produced, progress.done), (3, false));
        assert!(decoder.end_of_input().is_err());
        let progress = decoder.decode(&mut b"defgh".to_vec(), Emit::Data).unwrap();
        assert_eq!((progress.produced, progress.done), (2, true));
    }
}
