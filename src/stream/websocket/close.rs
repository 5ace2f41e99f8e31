//! A Close frame of ours (RFC 6455 section 5.5.1).

const CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;

/// A Ping without payload, for a client.
pub const PING: [u8; 2] = [0x89, 0];

/// The longest reason: a control frame's payload less the code.
pub const REASON_MAX: usize = 123;

/// A Close frame, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    octets: [u8; 2 + 4 + 2 + REASON_MAX],
    length: usize,
}

impl AsRef<[u8]> for CloseFrame {
    fn as_ref(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

/// Whether a code may stand in a frame (section 7.4): not below 1000, not one that only
/// stands for the lack of one (1004, 1005, 1006, 1015), none that nobody has defined, and
/// not 5000 and above.
pub fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A Close with this code and as much of this reason as fits, cut between characters;
/// masked with `key` for a server, plain for a client. The code must be one that may be
/// sent.
pub fn close(code: u16, reason: &str, key: Option<[u8; 4]>) -> CloseFrame {
    debug_assert!(is_sendable(code));
    let fits = |end: &usize| reason.is_char_boundary(*end);
    let end = (0..=reason.len().min(REASON_MAX)).rev().find(fits).unwrap_or(0);
    let reason = &reason[..end];
    let mut frame = CloseFrame { octets: [0; _], length: 0 };
    let mut put = |octets: &[u8]| {
        frame.octets[frame.length..][..octets.len()].copy_from_slice(octets);
        frame.length += octets.len();
    };
    let length = (2 + reason.len()) as u8;
    match key {
        None => put(&[CLOSE, length]),
        Some(key) => {
            put(&[CLOSE, MASKED | length]);
            put(&key);
        }
    }
    put(&code.to_be_bytes());
    put(reason.as_bytes());
    if let Some(key) = key {
        let payload = &mut frame.octets[6..frame.length];
        for (octet, key) in payload.iter_mut().zip(key.iter().cycle()) {
            *octet ^= key;
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::websocket::Frames;

    #[test]
    fn it_is_what_the_rfc_says() {
        assert_eq!(close(1001, "", None).as_ref(), [0x88, 2, 0x03, 0xe9]);
        let said = close(1012, "bye", None);
        assert_eq!(said.as_ref(), [&[0x88, 5, 0x03, 0xf4][..], b"bye"].concat());
        let masked = close(1001, "a", Some([1, 2, 3, 4]));
        assert_eq!(masked.as_ref(), [0x88, 0x83, 1, 2, 3, 4, 0x02, 0xeb, b'a' ^ 3]);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = "ä".repeat(100);
        for key in [None, Some([9; 4])] {
            let said = close(4999, &long, key);
            let mut frames = Frames::default();
            frames.pass(said.as_ref());
            assert!(frames.has_closed_whole() && frames.is_at_boundary());
        }
        let said = close(1001, &long, None);
        assert_eq!(said.as_ref().len(), 4 + 122);
        assert!(std::str::from_utf8(&said.as_ref()[4..]).is_ok());
    }

    #[test]
    fn codes_that_may_not_be_sent_are_known() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert!(!is_sendable(code), "{code}");
        }
    }
}
