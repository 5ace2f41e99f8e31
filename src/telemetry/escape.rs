//! Octets from the network as text that cannot break a log line.
//!
//! Owns the two escapings of the access log. Promises that whatever a client
//! sends, what is appended has no control character, no line break in any
//! reader's sense, and no unescaped quote. Does not quote: the caller writes `"`.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether a copy will do: printable ASCII without `"` and `\`.
fn is_plain(octets: &[u8]) -> bool {
    // No early exit: so that the compiler makes vector code of it.
    octets
        .iter()
        .fold(true, |plain, &o| plain & (0x20..0x7f).contains(&o) & (o != b'"') & (o != b'\\'))
}

/// Appends the inside of a JSON string. Octets that are not UTF-8 become
/// `\u00XX`, so that the line stays valid and the octet can still be told.
pub(super) fn push_json(octets: &[u8], out: &mut Vec<u8>) {
    if is_plain(octets) {
        out.extend_from_slice(octets);
        return;
    }
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                // Some readers break lines at U+0085, U+2028 and U+2029 too.
                '\u{2028}' | '\u{2029}' => push_unicode(c as u16, out),
                // And these turn the order of what a person reads.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => push_unicode(c as u16, out),
                _ if c.is_control() => push_unicode(c as u16, out),
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for &octet in chunk.invalid() {
            push_unicode(u16::from(octet), out);
        }
    }
}

fn push_unicode(unit: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[usize::from(unit >> shift & 0xf)]);
    }
}

/// Appends a field of the combined format, escaped as Apache does: `\"`, `\\`
/// and `\xHH` for every octet that is not printable ASCII.
pub(super) fn push_combined(octets: &[u8], out: &mut Vec<u8>) {
    if is_plain(octets) {
        out.extend_from_slice(octets);
        return;
    }
    for &octet in octets {
        match octet {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', octet]),
            0x20..0x7f => out.push(octet),
            _ => out.extend_from_slice(&[
                b'\\',
                b'x',
                HEX[usize::from(octet >> 4)],
                HEX[usize::from(octet & 0xf)],
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(octets: &[u8]) -> String {
        let mut out = Vec::new();
        push_json(octets, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn utf8_is_kept_and_other_octets_are_shown_by_number() {
        assert_eq!(json("h\u{e9}llo \u{1f30a}".as_bytes()), "h\u{e9}llo \u{1f30a}");
        assert_eq!(json(b"a\xffb\xc3"), "a\\u00ffb\\u00c3");
        assert_eq!(json(b"\"\\\n\x7f\0"), "\\\"\\\\\\u000a\\u007f\\u0000");
    }

    #[test]
    fn every_kind_of_line_break_is_escaped() {
        assert_eq!(json("\u{85}\u{2028}\u{2029}".as_bytes()), "\\u0085\\u2028\\u2029");
    }

    #[test]
    fn combined_fields_are_printable_ascii_for_every_octet() {
        for octet in 0..=255u8 {
            let mut out = Vec::new();
            push_combined(&[b'a', octet, b'z'], &mut out);
            assert!(out.iter().all(|o| (0x20..0x7f).contains(o)), "{octet}");
            let quotes = out.iter().filter(|&&o| o == b'"').count();
            assert_eq!(quotes, usize::from(octet == b'"'));
            assert!(quotes == 0 || out == b"a\\\"z");
        }
    }
}
