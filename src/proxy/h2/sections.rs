//! How many fields a trailer section had on the wire.
//!
//! Pseudo-header fields may not stand in trailers, and one that does makes the
//! request malformed (RFC 9113 section 8.1). h2 leaves them out without a word,
//! so the fields are counted where they come in, and compared with what h2
//! gives out. Counting needs no tables and no Huffman code: what a field is
//! does not matter, only where it ends (RFC 7541 section 6).

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::limits::STREAMS_MAX;

/// Sections that have come on one connection and have not been asked for.
#[derive(Debug, Default)]
pub struct Sections(RefCell<Book>);

#[derive(Debug, Default)]
struct Book {
    /// Streams, and how many fields their sections had.
    had: VecDeque<(u32, usize)>,
    /// Streams whose requests are being read.
    read: Vec<u32>,
    /// The highest of all that ever were.
    newest: u32,
}

impl Sections {
    /// The trailer section of `stream` has so many fields.
    pub fn note(&self, stream: u32, fields: usize) {
        let mut book = self.0.borrow_mut();
        // Streams are read in the order in which they are opened.
        if stream <= book.newest && !book.read.contains(&stream) {
            return;
        }
        if book.had.len() == STREAMS_MAX {
            book.had.pop_front();
        }
        book.had.push_back((stream, fields));
    }

    /// The request of `stream` is being read from now on. What came of older ones
    /// that nobody reads is forgotten.
    pub(super) fn enter(&self, stream: u32) {
        let Book { had, read, newest } = &mut *self.0.borrow_mut();
        read.push(stream);
        *newest = stream.max(*newest);
        had.retain(|(of, _)| of >= newest || read.contains(of));
    }

    /// Nobody reads the request of `stream` any more.
    pub(super) fn leave(&self, stream: u32) {
        let mut book = self.0.borrow_mut();
        book.had.retain(|(of, _)| *of != stream);
        book.read.retain(|of| *of != stream);
    }

    /// Whether the trailer section of `stream` had just so many fields.
    pub fn had(&self, stream: u32, fields: usize) -> bool {
        let book = self.0.borrow();
        book.had.iter().any(|section| *section == (stream, fields))
    }
}

/// Counts the fields of one block as its octets come.
#[derive(Debug, Default)]
pub struct Count {
    fields: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before a field.
    #[default]
    Field,
    /// Inside a number that is longer than an octet; so many strings follow it.
    Number { strings: u8 },
    /// Before one of so many strings.
    String { strings: u8 },
    /// Inside a length that is longer than an octet.
    Length { strings: u8, length: u64, shift: u32 },
    /// Inside the first of so many strings.
    Text { strings: u8, left: u64 },
}

impl Count {
    /// How many fields have begun.
    pub fn fields(&self) -> usize {
        self.fields
    }

    /// Takes the next octets of the block. Of one that is malformed the count
    /// means nothing: h2 refuses it.
    pub fn feed(&mut self, mut octets: &[u8]) {
        while let Some((&octet, rest)) = octets.split_first() {
            if let State::Text { strings, left } = self.state {
                let n = usize::try_from(left).unwrap_or(usize::MAX).min(octets.len());
                octets = &octets[n..];
                self.state = text(strings, left - n as u64);
                continue;
            }
            octets = rest;
            self.state = match self.state {
                State::Field => self.field(octet),
                State::Number { strings } if octet & 0x80 != 0 => State::Number { strings },
                State::Number { strings } => expecting(strings),
                State::String { strings } => match octet & 0x7f {
                    0x7f => State::Length { strings, length: 0x7f, shift: 0 },
                    length => text(strings, u64::from(length)),
                },
                State::Length { strings, length, shift } => {
                    let part = u64::from(octet & 0x7f).checked_shl(shift).unwrap_or(0);
                    let length = length.saturating_add(part);
                    match octet & 0x80 {
                        0 => text(strings, length),
                        _ => State::Length { strings, length, shift: shift.saturating_add(7) },
                    }
                }
                text @ State::Text { .. } => text,
            };
        }
    }

    fn field(&mut self, octet: u8) -> State {
        let (mask, literal, counts) = match octet {
            0x80.. => (0x7f, false, true),
            0x40.. => (0x3f, true, true),
            0x20.. => (0x1f, false, false),
            _ => (0x0f, true, true),
        };
        self.fields += usize::from(counts);
        let index = octet & mask;
        let strings = match (literal, index) {
            (false, _) => 0,
            (true, 0) => 2,
            (true, _) => 1,
        };
        if index == mask { State::Number { strings } } else { expecting(strings) }
    }
}

fn expecting(strings: u8) -> State {
    if strings == 0 { State::Field } else { State::String { strings } }
}

fn text(strings: u8, left: u64) -> State {
    if left > 0 { State::Text { strings, left } } else { expecting(strings - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_however_they_are_written_and_cut() {
        let long = [&[0x00, 0x7f, 0x81, 0x01][..], &[b'n'; 256], &[0x01, b'v']].concat();
        for (block, fields) in [
            (&[0x82, 0x86, 0x84][..], 3),
            (&[0xff, 0x80, 0x01, 0x82], 2),
            (&[0x20, 0x3f, 0xe1, 0x1f, 0x82], 1),
            (&[0x40, 0x01, b'a', 0x01, b'b', 0x0f, 0x2f, 0x00, 0x10, 0x00, 0x00], 3),
            (&[0x04, 0x83, 0, 0, 0, 0x44, 0x02, b'/', b'x'], 2),
            (&long, 1),
            (&[], 0),
        ] {
            for step in 1..=block.len().max(1) {
                let mut count = Count::default();
                block.chunks(step).for_each(|part| count.feed(part));
                assert_eq!(count.fields(), fields, "{block:?} by {step}");
                assert!(matches!(count.state, State::Field), "{block:?} ends between fields");
            }
        }
    }

    #[test]
    fn sections_are_kept_for_those_who_read_and_for_nobody_else() {
        let sections = Sections::default();
        sections.note(1, 2);
        sections.enter(1);
        assert!(sections.had(1, 2) && !sections.had(1, 1) && !sections.had(3, 2));
        sections.enter(5);
        sections.leave(5);
        for orphan in [3, 5] {
            sections.note(orphan, 0);
            assert!(!sections.had(orphan, 0), "nobody reads {orphan}");
        }
        sections.note(7, 0);
        sections.enter(9);
        assert!(!sections.had(7, 0) && sections.had(1, 2));
        sections.leave(1);
        assert!(!sections.had(1, 2));
    }
}
