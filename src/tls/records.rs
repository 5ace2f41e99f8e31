//! Where records end: whether octets of one have come that is not whole yet.
//!
//! rustls does not tell what it holds of a record, and a connection that is
//! between requests must hold nothing.

/// The boundaries in a stream of records.
#[derive(Debug, Default)]
pub(super) struct Boundaries {
    /// The octets of a header that is not whole, two of them its length.
    header: [u8; 2],
    /// Octets of the header that have come.
    seen: u8,
    /// Octets of the body that have still to come.
    missing: u16,
}

/// Type, version (two octets), length (two octets).
const HEADER: u8 = 5;

impl Boundaries {
    /// Passes over what comes next.
    pub(super) fn pass(&mut self, mut octets: &[u8]) {
        while let Some((&octet, rest)) = octets.split_first() {
            if self.missing > 0 {
                let body = octets.len().min(usize::from(self.missing));
                // No more than `missing`, which has sixteen bits.
                self.missing -= body as u16;
                octets = &octets[body..];
                continue;
            }
            octets = rest;
            if let 3 | 4 = self.seen {
                self.header[usize::from(self.seen - 3)] = octet;
            }
            self.seen += 1;
            if self.seen == HEADER {
                self.seen = 0;
                self.missing = u16::from_be_bytes(self.header);
            }
        }
    }

    /// Whether what has come ends inside a record.
    pub(super) fn inside(&self) -> bool {
        self.seen > 0 || self.missing > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_record_is_found_however_the_octets_come() {
        let records = [&[23, 3, 3, 0, 3, 1, 2, 3][..], &[23, 3, 3, 1, 1], &[7; 257]].concat();
        let ends = [8, records.len()];
        for step in 1..=records.len() {
            let mut boundaries = Boundaries::default();
            let mut passed = 0;
            for piece in records.chunks(step) {
                boundaries.pass(piece);
                passed += piece.len();
                assert_eq!(boundaries.inside(), !ends.contains(&passed), "{passed} by {step}");
            }
        }
    }
}
