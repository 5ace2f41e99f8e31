//! The bodies of the fuzz targets, here so that they cannot rot.

use super::body::{Decoder, Emit};
use super::field::Name;
use super::framing::{Framing, FramingFields};
use super::head::{may_be_complete, parse_request, parse_response, storage};

/// Any octets as a request head: never panics, and a head that is accepted is
/// found at the same length however much follows it.
pub fn request_head(octets: &[u8]) {
    let mut fields = storage();
    if let Ok(Some(head)) = parse_request(octets, &mut fields) {
        assert!(head.len <= octets.len() && may_be_complete(&octets[..head.len], 0));
        let mut framing = FramingFields::default();
        for field in head.fields {
            framing.note(Name::of(field.name), field);
        }
        let _ = framing.request(head.minor);
        let mut again = storage();
        let shorter = parse_request(&octets[..head.len], &mut again);
        assert!(matches!(shorter, Ok(Some(same)) if same.len == head.len));
    }
}

/// Any octets as a response head.
pub fn response_head(octets: &[u8]) {
    let mut fields = storage();
    if let Ok(Some(head)) = parse_response(octets, &mut fields) {
        assert!(head.len <= octets.len() && head.status >= 100);
        let mut framing = FramingFields::default();
        for field in head.fields {
            framing.note(Name::of(field.name), field);
        }
        let _ = framing.response(head.minor, head.status, false);
    }
}

/// Any octets as a chunked body: what comes out does not depend on how the
/// octets were cut, and canonical chunks decode to the same data.
pub fn chunked(octets: &[u8]) {
    let whole = decode(octets, octets.len().max(1), Emit::Data);
    assert_eq!(whole.is_some(), decode(octets, 3, Emit::Data).is_some());
    if let Some((data, ended)) = whole {
        assert_eq!(decode(octets, 3, Emit::Data), Some((data.clone(), ended)));
        if let (true, Some((mut chunks, _))) = (ended, decode(octets, 5, Emit::Chunks)) {
            chunks.extend_from_slice(b"0\r\n\r\n");
            assert_eq!(decode(&chunks, 7, Emit::Data), Some((data, true)));
        }
    }
}

/// The data and whether the body ended; `None` for an error anywhere.
fn decode(octets: &[u8], step: usize, emit: Emit) -> Option<(Vec<u8>, bool)> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut buffered = Vec::new();
    let mut out = Vec::new();
    let mut pieces = octets.chunks(step);
    loop {
        let progress = decoder.decode(&mut buffered, emit).ok()?;
        assert!(progress.produced <= progress.consumed && progress.consumed <= buffered.len());
        out.extend_from_slice(&buffered[..progress.produced]);
        buffered.drain(..progress.consumed);
        if progress.done {
            return Some((out, true));
        }
        if progress.consumed == 0 {
            match pieces.next() {
                Some(piece) => buffered.extend_from_slice(piece),
                None => return Some((out, false)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_bodies_hold_on_their_seeds() {
        for seed in
            [&b"5\r\nhello\r\n0\r\n\r\n"[..], b"5;a\r\nhel", b"", b"g", b"0\r\nA: b\r\n\r\n"]
        {
            super::chunked(seed);
            super::request_head(seed);
            super::response_head(seed);
        }
    }
}
