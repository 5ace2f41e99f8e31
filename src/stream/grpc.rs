//! Where the messages of a gRPC stream begin and end (gRPC over HTTP/2,
//! "Length-Prefixed-Message").
//!
//! A message is a flag, four octets of length, and so many octets: between two of them
//! a stream can be ended without cutting anything. Lengths are followed, nothing is kept.

/// Octets before a message: the flag and the length.
const PREFIX: usize = 5;

/// Follows the messages of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// The part of a prefix that has come.
    prefix: [u8; PREFIX],
    filled: usize,
    /// Octets of the message that are still to come.
    left: u32,
}

impl Messages {
    /// Whether a message has ended, or none has begun.
    #[inline]
    pub fn is_at_boundary(&self) -> bool {
        self.left == 0 && self.filled == 0
    }

    /// Follows octets.
    #[inline]
    pub fn pass(&mut self, octets: &[u8]) {
        self.walk(octets, false);
    }

    /// Follows octets up to the first boundary, which may be before them; how many those
    /// are. `None` if there is no boundary: then all are followed.
    pub fn pass_to_boundary(&mut self, octets: &[u8]) -> Option<usize> {
        let rest = self.walk(octets, true);
        self.is_at_boundary().then(|| octets.len() - rest.len())
    }

    /// Follows octets, to their end or to the first boundary; what is behind it.
    fn walk<'o>(&mut self, mut octets: &'o [u8], stops: bool) -> &'o [u8] {
        while !(octets.is_empty() || stops && self.is_at_boundary()) {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(octets.len());
                self.left -= u32::try_from(n).unwrap_or(self.left);
                octets = &octets[n..];
                continue;
            }
            let n = (PREFIX - self.filled).min(octets.len());
            self.prefix[self.filled..self.filled + n].copy_from_slice(&octets[..n]);
            self.filled += n;
            octets = &octets[n..];
            if self.filled == PREFIX {
                let [_flag, length @ ..] = self.prefix;
                (self.left, self.filled) = (u32::from_be_bytes(length), 0);
            }
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        [&[0][..], &size, &vec![7; length]].concat()
    }

    #[test]
    fn a_boundary_is_between_messages_however_they_are_cut() {
        let lengths = [0, 3, 300, 0, 1];
        let stream: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
        let ends: Vec<usize> = lengths
            .iter()
            .scan(0, |at, length| {
                *at += PREFIX + length;
                Some(*at)
            })
            .collect();
        for step in 1..=stream.len() {
            let mut messages = Messages::default();
            let mut at = 0;
            for part in stream.chunks(step) {
                messages.pass(part);
                at += part.len();
                assert_eq!(messages.is_at_boundary(), ends.contains(&at), "{at} by {step}");
            }
        }
        for begun in 0..stream.len() {
            let mut messages = Messages::default();
            messages.pass(&stream[..begun]);
            let next = ends.iter().chain(&[0]).copied().filter(|end| *end >= begun).min();
            let next = next.map(|end| end - begun);
            assert_eq!(messages.pass_to_boundary(&stream[begun..]), next, "from {begun}");
        }
    }

    #[test]
    fn a_message_may_be_as_long_as_its_prefix_can_say() {
        let mut messages = Messages::default();
        messages.pass(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(messages.left, u32::MAX);
        assert_eq!(messages.pass_to_boundary(&[0; 100]), None);
        assert_eq!(messages.left, u32::MAX - 100);
    }
}
