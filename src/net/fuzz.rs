//! The body of the fuzz target, here so that it cannot rot.

use super::proxy_header::{Found, find_proxy_header};

/// Any octets as the beginning of a connection: never a panic, what is found does
/// not depend on how they are cut, and a header is not longer than what there is.
pub fn proxy_header(octets: &[u8]) {
    let whole = find_proxy_header(octets);
    if let Ok(Found::Header { length, .. }) = whole {
        assert!(0 < length && length <= octets.len());
        assert_eq!(find_proxy_header(&octets[..length]), whole);
        assert_eq!(find_proxy_header(&octets[..length - 1]), Ok(Found::Part));
    }
    for cut in 0..octets.len() {
        let part = find_proxy_header(&octets[..cut]);
        assert!(part == Ok(Found::Part) || part == whole, "{part:?} at {cut}, then {whole:?}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_body_holds_on_its_seeds() {
        for seed in [
            &b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\nGET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 \r",
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x01",
            b"\r\n\r\nGET",
            b"",
        ] {
            super::proxy_header(seed);
        }
    }
}
