//! Server-sent events, followed as their octets pass.
//!
//! Only what is needed to know where an event is complete (WHATWG HTML, section 9.2.6):
//! an event ends with an empty line, lines end with LF, CR or CRLF, and comments are
//! nothing. An EventSource that loses its connection inside an event drops what it has of
//! it, so a stream is ended between two.

/// One event stream.
#[derive(Clone, Debug)]
pub struct Events {
    /// The next octet begins a line.
    at_line_start: bool,
    /// The octet before was a CR: an LF belongs to it.
    after_cr: bool,
    /// Fields have come since the last empty line.
    is_open: bool,
    /// Octets of a byte order mark that may begin the stream; none once it is over.
    mark: &'static [u8],
}

const MARK: &[u8] = b"\xef\xbb\xbf";

impl Default for Events {
    fn default() -> Self {
        Events { at_line_start: true, after_cr: false, is_open: false, mark: MARK }
    }
}

impl Events {
    /// Follows octets that pass.
    #[inline]
    pub fn pass(&mut self, octets: &[u8]) {
        let mut passed = 0;
        while passed < octets.len() {
            passed += self.step(&octets[passed..]);
        }
    }

    /// Follows octets that pass, and says behind how many of them the last boundary is.
    pub fn pass_to_last_boundary(&mut self, octets: &[u8]) -> Option<usize> {
        let mut last = self.is_at_boundary().then_some(0);
        let mut passed = 0;
        while passed < octets.len() {
            passed += self.step(&octets[passed..]);
            if self.is_at_boundary() {
                last = Some(passed);
            }
        }
        last
    }

    /// Whether the stream may end here: no event is open, and a line has ended. A `retry`
    /// line of ours may be put here too.
    #[inline]
    pub fn is_at_boundary(&self) -> bool {
        self.at_line_start && !self.is_open && (self.mark.is_empty() || self.mark.len() == 3)
    }

    /// Follows at least one octet, at most to the end of a line.
    fn step(&mut self, octets: &[u8]) -> usize {
        let first = octets[0];
        if let [expected, rest @ ..] = self.mark {
            if first == *expected {
                self.mark = rest;
                return 1;
            }
            // Part of a mark is the beginning of a line.
            self.at_line_start &= self.mark.len() == MARK.len();
            self.is_open |= !self.at_line_start;
            self.mark = &[];
        }
        if std::mem::take(&mut self.after_cr) && first == b'\n' {
            return 1;
        }
        self.is_open |= self.at_line_start && !matches!(first, b':' | b'\n' | b'\r');
        let Some(end) = memchr::memchr2(b'\n', b'\r', octets) else {
            self.at_line_start = false;
            return octets.len();
        };
        if end == 0 && self.at_line_start {
            self.is_open = false;
        }
        self.at_line_start = true;
        self.after_cr = octets[end] == b'\r';
        end + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a stream may end, octet by octet; the slow and plain way.
    fn boundaries(text: &[u8]) -> Vec<bool> {
        let at = |passed: usize| {
            let text = &text[..passed];
            let text = text.strip_prefix(MARK).unwrap_or(text);
            if MARK.starts_with(text) && !text.is_empty() {
                return false;
            }
            let text = String::from_utf8_lossy(text).replace("\r\n", "\n").replace('\r', "\n");
            let Some(lines) = text.strip_suffix('\n') else { return text.is_empty() };
            let open = lines.split('\n').fold(false, |open, line| match line {
                "" => false,
                line => open || !line.starts_with(':'),
            });
            !open
        };
        (0..=text.len()).map(at).collect()
    }

    const STREAMS: [&str; 9] = [
        "data: a\n\ndata: b\n\n",
        "data: a\r\n\r\nid: 1\r\ndata: b\r\n\r\n",
        "data: a\r\rdata: b\r\r",
        "data: a\r\n\n\r\r\n",
        ": ping\n\n:\n: \ndata: x\n: between\n\n",
        "\u{feff}data: a\n\n",
        "\u{feff}",
        "retry: 5\n\nevent: e\n",
        "\n\r\n\r",
    ];

    #[test]
    fn boundaries_are_where_no_event_is_open_wherever_the_octets_are_split() {
        for text in STREAMS {
            let expected = boundaries(text.as_bytes());
            for size in 1..=text.len() {
                let mut events = Events::default();
                assert!(events.is_at_boundary());
                let mut passed = 0;
                for piece in text.as_bytes().chunks(size) {
                    events.pass(piece);
                    passed += piece.len();
                    assert_eq!(events.is_at_boundary(), expected[passed], "{text:?} at {passed}");
                }
            }
        }
    }

    #[test]
    fn the_last_boundary_is_behind_an_empty_line_or_where_the_octets_begin() {
        let mut events = Events::default();
        assert_eq!(events.pass_to_last_boundary(b"data: a\ndata: b"), Some(0));
        assert_eq!(events.pass_to_last_boundary(b"\r\n\r\ndata: c"), Some(4));
        assert_eq!(events.pass_to_last_boundary(b"c"), None);
        assert_eq!(events.pass_to_last_boundary(b"\n\ndata: d\n\n: x"), Some(11));
    }

    #[test]
    fn a_broken_mark_is_the_beginning_of_a_line() {
        let mut events = Events::default();
        events.pass(b"\xef\xbbdata: a\n");
        assert!(!events.is_at_boundary());
        events.pass(b"\n");
        assert!(events.is_at_boundary());
    }
}
