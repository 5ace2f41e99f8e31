//! A read buffer: octets come in at the end and are consumed at the front.

/// Initialised memory with a filled middle. Never grows by itself, so that
/// every growth is somebody's decision against a bound.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer of `capacity` octets, none of them filled.
    pub fn with_capacity(capacity: usize) -> Self {
        Buffer { bytes: vec![0; capacity], start: 0, end: 0 }
    }

    /// What has been read and not yet consumed.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to be rewritten in place.
    #[inline]
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// How many octets are filled.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is filled.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The octets it can hold in all.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Room for the next read; moves what is filled to the front when the room
    /// behind it has become smaller than what lies consumed before it.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.start > self.bytes.len() - self.end {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// Whether another read has room.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() == self.bytes.len()
    }

    /// `n` octets of [`Buffer::spare`] have been filled.
    #[inline]
    pub fn fill(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Drops `n` octets from the front.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Makes room for `capacity` octets in all; never shrinks.
    pub fn grow(&mut self, capacity: usize) {
        if capacity > self.bytes.len() {
            self.bytes.resize(capacity, 0);
        }
    }

    /// Takes over what another buffer holds; the caller has seen that it fits.
    pub fn append(&mut self, octets: &[u8]) {
        let room = self.spare();
        let n = octets.len().min(room.len());
        room[..n].copy_from_slice(&octets[..n]);
        self.fill(n);
    }

    /// Empties it, for reuse.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_come_out_in_the_order_they_went_in_across_moves() {
        let mut buffer = Buffer::with_capacity(8);
        let mut expected = Vec::new();
        let mut seen = Vec::new();
        let mut next = 0u8;
        for round in 0..200 {
            let take = (round * 7) % 5 + 1;
            let spare = buffer.spare();
            let n = take.min(spare.len());
            for slot in &mut spare[..n] {
                *slot = next;
                expected.push(next);
                next = next.wrapping_add(1);
            }
            buffer.fill(n);
            let eat = (round * 3) % (buffer.len() + 1);
            seen.extend_from_slice(&buffer.filled()[..eat]);
            buffer.consume(eat);
        }
        seen.extend_from_slice(buffer.filled());
        assert_eq!(seen, expected);
    }
}
