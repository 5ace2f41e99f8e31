//! Message heads: a request or status line and its fields.
//!
//! Parsed by `httparse` into slices of the read buffer, nothing is copied. What
//! `httparse` lets through although two parsers could read it differently is
//! refused here or in [`super::framing`].

use std::mem::MaybeUninit;

use super::field::Field;
use crate::limits::HEAD_COUNT_MAX;

/// Room on the stack for the fields of one head.
pub type Storage<'b> = [MaybeUninit<Field<'b>>; HEAD_COUNT_MAX];

/// Fresh [`Storage`]; costs nothing.
#[inline]
pub fn storage<'b>() -> Storage<'b> {
    [const { MaybeUninit::uninit() }; HEAD_COUNT_MAX]
}

/// Why octets are not a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not HTTP/1.x syntax; says where.
    Malformed(&'static str),
    /// More fields than allowed.
    TooManyFields,
    /// An HTTP version that is not 1.0 or 1.1.
    Version,
}

/// A request head.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// The method, case as sent.
    pub method: &'b str,
    /// The request target, as sent.
    pub target: &'b str,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor: u8,
    /// The fields in order.
    pub fields: &'h [Field<'b>],
    /// Octets of the head, its blank line included.
    pub len: usize,
}

/// A response head.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor: u8,
    /// The status code, 100 to 999.
    pub status: u16,
    /// The reason phrase, may be empty.
    pub reason: &'b str,
    /// The fields in order.
    pub fields: &'h [Field<'b>],
    /// Octets of the head, its blank line included.
    pub len: usize,
}

/// Parses a request head; `Ok(None)` means that more octets are needed.
pub fn parse_request<'h, 'b>(
    octets: &'b [u8],
    storage: &'h mut Storage<'b>,
) -> Result<Option<RequestHead<'h, 'b>>, HeadError> {
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(octets, storage).map_err(head_error)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(HeadError::Malformed("request line"));
    };
    Ok(Some(RequestHead { method, target, minor, fields: request.headers, len }))
}

/// Parses a response head; `Ok(None)` means that more octets are needed.
pub fn parse_response<'h, 'b>(
    octets: &'b [u8],
    storage: &'h mut Storage<'b>,
) -> Result<Option<ResponseHead<'h, 'b>>, HeadError> {
    let mut response = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // It is taken away on the way (RFC 9112 section 5.1).
    config.allow_spaces_after_header_name_in_responses(true);
    let parsed = config.parse_response_with_uninit_headers(&mut response, octets, storage);
    let len = match parsed.map_err(head_error)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Malformed("status line"));
    };
    if status < 100 {
        return Err(HeadError::Malformed("status code"));
    }
    let reason = response.reason.unwrap_or("");
    Ok(Some(ResponseHead { minor, status, reason, fields: response.headers, len }))
}

fn head_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::HeaderName => HeadError::Malformed("field name"),
        httparse::Error::HeaderValue => HeadError::Malformed("field value"),
        httparse::Error::NewLine => HeadError::Malformed("line end"),
        httparse::Error::Status => HeadError::Malformed("status line"),
        httparse::Error::Token => HeadError::Malformed("request line"),
    }
}

/// Whether a whole head may stand in `octets`: a blank line was found. Looks
/// only at what follows `seen` octets, so that a head that arrives octet by
/// octet is not parsed again for each of them.
pub fn may_be_complete(octets: &[u8], seen: usize) -> bool {
    let from = seen.saturating_sub(3);
    memchr::memchr_iter(b'\n', &octets[from..]).any(|at| {
        let rest = &octets[from + at + 1..];
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    })
}

/// Whether a line of the head ends with LF alone. A parser in front may take
/// such an LF for part of a value: what follows would be a field for one of us
/// and not for the other.
#[inline]
pub fn has_bare_lf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// Whether a request line is one of another HTTP version, rather than no
/// request line at all.
pub fn is_other_version(octets: &[u8]) -> bool {
    let line = octets[..first_line_len(octets)].trim_ascii_end();
    let mut parts = line.split(|&octet| octet == b' ');
    let (Some(_), Some(_), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// The length of the request line so far, its end excluded: what 414 looks at.
pub fn first_line_len(octets: &[u8]) -> usize {
    memchr::memchr(b'\n', octets).unwrap_or(octets.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_only_when_its_blank_line_is_there() {
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..whole.len() {
            let mut fields = storage();
            assert!(parse_request(&whole[..cut], &mut fields).unwrap().is_none(), "{cut}");
            assert!(!may_be_complete(&whole[..cut], 0), "{cut}");
        }
        let mut fields = storage();
        let head = parse_request(whole, &mut fields).unwrap().unwrap();
        assert_eq!((head.method, head.target, head.minor, head.len), ("GET", "/", 1, whole.len()));
        for seen in 0..whole.len() {
            assert!(may_be_complete(whole, seen), "{seen}");
        }
    }

    #[test]
    fn a_line_that_ends_with_lf_alone_is_noticed() {
        assert!(!has_bare_lf(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        for bad in [&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], b"G\r\nX: b\nT: c\r\n\r\n", b"\n"] {
            assert!(has_bare_lf(bad));
        }
    }

    #[test]
    fn another_version_is_told_from_no_request_line() {
        assert!(is_other_version(b"GET / HTTP/2.0\r\n"));
        assert!(is_other_version(b"GET / HTTP/1.2"));
        for bad in
            [&b"GET /a b HTTP/1.1\r\n"[..], b"GET / http/1.1", b"GET / HTTP/1", b"PROXY TCP4 1 2"]
        {
            assert!(!is_other_version(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused_at_once() {
        for bad in [
            &b"GET / HTTP/2.0\r\n"[..],
            b"GET  / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA : c\r\n\r\n",
            b"GET / HTTP/1.1\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        ] {
            let mut fields = storage();
            assert!(parse_request(bad, &mut fields).is_err(), "{bad:?}");
        }
        let mut fields = storage();
        assert!(parse_response(b"HTTP/1.1 099 No\r\n\r\n", &mut fields).is_err());
    }
}
