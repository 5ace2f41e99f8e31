//! How long the body behind a head is (RFC 9112 section 6), decided once.

use super::field::{Field, Name, tokens};

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// After this many octets.
    Length(u64),
    /// After the last chunk and its trailer section.
    Chunked,
    /// At the end of the connection; responses only.
    UntilClose,
}

/// Why the framing of a message is refused. Such a message is never forwarded,
/// and its connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// A `Content-Length` that is no number, too large, or stands there twice.
    ContentLength,
    /// Both `Content-Length` and `Transfer-Encoding`.
    Both,
    /// `Transfer-Encoding` that is repeated, not ended by `chunked`, or in HTTP/1.0.
    TransferEncoding,
    /// A transfer coding that we do not implement: 501 for a request.
    UnknownCoding,
}

impl FramingError {
    /// The cause in a few words, for logs.
    pub const fn cause(self) -> &'static str {
        match self {
            FramingError::ContentLength => "bad content-length",
            FramingError::Both => "both content-length and transfer-encoding",
            FramingError::TransferEncoding => "bad transfer-encoding",
            FramingError::UnknownCoding => "unknown transfer coding",
        }
    }
}

/// What the framing fields of a head say, collected in one pass over it.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramingFields<'b> {
    length: Option<&'b [u8]>,
    coding: Option<&'b [u8]>,
    repeated_length: bool,
    repeated_coding: bool,
}

impl<'b> FramingFields<'b> {
    /// Notes one field; fields that do not frame are ignored.
    #[inline]
    pub fn note(&mut self, name: Name, field: &Field<'b>) {
        match name {
            Name::ContentLength => {
                self.repeated_length |= self.length.replace(field.value).is_some();
            }
            Name::TransferEncoding => {
                self.repeated_coding |= self.coding.replace(field.value).is_some();
            }
            _ => {}
        }
    }

    /// The framing of a request (RFC 9112 section 6.3).
    #[inline]
    pub fn request(&self, minor: u8) -> Result<Framing, FramingError> {
        if let Some(coding) = self.coding {
            self.chunked(coding, minor)?;
            return Ok(Framing::Chunked);
        }
        match self.content_length()? {
            None | Some(0) => Ok(Framing::Empty),
            Some(length) => Ok(Framing::Length(length)),
        }
    }

    /// The framing, towards HTTP/1, of a request that came as a stream of
    /// HTTP/2 and has `ended` with its head or not: there the frames say where
    /// it ends, and a length is only a promise (RFC 9113 section 8.1.1).
    pub fn stream(&self, ended: bool) -> Result<Framing, FramingError> {
        if self.coding.is_some() {
            return Err(FramingError::TransferEncoding);
        }
        match (self.content_length()?, ended) {
            (None | Some(0), true) => Ok(Framing::Empty),
            (Some(_), true) => Err(FramingError::ContentLength),
            (Some(0), false) => Ok(Framing::Empty),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::Chunked),
        }
    }

    /// Whether the request said how long its body is, if only `0`.
    pub fn has_length(&self) -> bool {
        self.length.is_some()
    }

    /// Whether a response with `status`, which has no body, speaks of one all the
    /// same: then nobody knows what its sender has sent behind it.
    pub fn speaks_of_a_body(&self, status: u16) -> bool {
        let coded = self.coding.is_some();
        match status {
            204 => coded || self.length.is_some_and(|length| length != b"0"),
            304 => coded,
            _ => false,
        }
    }

    /// The framing of a response with `status` to a request that was HEAD or not.
    #[inline]
    pub fn response(&self, minor: u8, status: u16, head: bool) -> Result<Framing, FramingError> {
        let framing = if let Some(coding) = self.coding {
            self.chunked(coding, minor)?;
            Framing::Chunked
        } else {
            match self.content_length()? {
                None => Framing::UntilClose,
                Some(0) => Framing::Empty,
                Some(length) => Framing::Length(length),
            }
        };
        if head || status < 200 || status == 204 || status == 304 {
            return Ok(Framing::Empty);
        }
        Ok(framing)
    }

    fn chunked(&self, coding: &[u8], minor: u8) -> Result<(), FramingError> {
        if self.length.is_some() {
            return Err(FramingError::Both);
        }
        if minor == 0 || self.repeated_coding {
            return Err(FramingError::TransferEncoding);
        }
        if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Ok(());
        }
        let chunked = tokens(coding).filter(|token| token.eq_ignore_ascii_case(b"chunked")).count();
        let last = tokens(coding).last().unwrap_or_default().eq_ignore_ascii_case(b"chunked");
        let plain = tokens(coding).all(|token| token.iter().all(u8::is_ascii_alphanumeric));
        if plain && chunked == usize::from(last) && tokens(coding).count() > chunked {
            return Err(FramingError::UnknownCoding);
        }
        Err(FramingError::TransferEncoding)
    }

    fn content_length(&self) -> Result<Option<u64>, FramingError> {
        let Some(value) = self.length else {
            return Ok(None);
        };
        if self.repeated_length {
            return Err(FramingError::ContentLength);
        }
        parse_length(value).map(Some).ok_or(FramingError::ContentLength)
    }
}

/// Digits only, and within `i64`: beyond it other parsers wrap (RFC 9110 section 8.6).
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let mut length = 0u64;
    for &octet in value {
        if !octet.is_ascii_digit() {
            return None;
        }
        length = length * 10 + u64::from(octet - b'0');
    }
    (length <= i64::MAX as u64).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'b>(list: &'b [(&'b str, &'b str)]) -> FramingFields<'b> {
        let mut framing = FramingFields::default();
        for (name, value) in list {
            let field = Field { name, value: value.as_bytes() };
            framing.note(Name::of(name), &field);
        }
        framing
    }

    #[test]
    fn a_request_is_framed_by_exactly_one_unambiguous_field() {
        let te = "Transfer-Encoding";
        let cl = "Content-Length";
        for (list, minor, expected) in [
            (&[][..], 1, Ok(Framing::Empty)),
            (&[(cl, "0")], 1, Ok(Framing::Empty)),
            (&[(cl, "9223372036854775807")], 1, Ok(Framing::Length(i64::MAX as u64))),
            (&[(te, "Chunked")], 1, Ok(Framing::Chunked)),
            (&[(cl, "9223372036854775808")], 1, Err(FramingError::ContentLength)),
            (&[(cl, "+2")], 1, Err(FramingError::ContentLength)),
            (&[(cl, "")], 1, Err(FramingError::ContentLength)),
            (&[(cl, "2, 2")], 1, Err(FramingError::ContentLength)),
            (&[(cl, "2"), (cl, "2")], 1, Err(FramingError::ContentLength)),
            (&[(cl, "2"), (te, "chunked")], 1, Err(FramingError::Both)),
            (&[(te, "chunked")], 0, Err(FramingError::TransferEncoding)),
            (&[(te, "chunked"), (te, "chunked")], 1, Err(FramingError::TransferEncoding)),
            (&[(te, "chunked, chunked")], 1, Err(FramingError::TransferEncoding)),
            (&[(te, "chunked, gzip")], 1, Err(FramingError::TransferEncoding)),
            (&[(te, "\u{b}chunked")], 1, Err(FramingError::TransferEncoding)),
            (&[(te, "")], 1, Err(FramingError::TransferEncoding)),
            (&[(te, "gzip, chunked")], 1, Err(FramingError::UnknownCoding)),
            (&[(te, "gzip")], 1, Err(FramingError::UnknownCoding)),
            (&[(te, "xchunked")], 1, Err(FramingError::UnknownCoding)),
        ] {
            assert_eq!(fields(list).request(minor), expected, "{list:?} in 1.{minor}");
        }
    }

    #[test]
    fn a_response_without_framing_ends_with_its_connection_unless_it_has_no_body() {
        let none = fields(&[]);
        assert_eq!(none.response(1, 200, false), Ok(Framing::UntilClose));
        for (status, head) in [(204, false), (304, false), (100, false), (200, true)] {
            assert_eq!(none.response(1, status, head), Ok(Framing::Empty));
        }
        let both = fields(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        assert_eq!(both.response(1, 200, false), Err(FramingError::Both));
    }
}
