//! The response head: what the app server sent, and what the client is sent.

use super::request::is_nominated;
use crate::http1::field::{Name, has_token};
use crate::http1::framing::FramingFields;
use crate::http1::{Framing, ResponseHead};
use crate::limits::HEAD_COUNT_MAX;

/// What one pass over a response's fields has found.
pub(super) struct Seen {
    names: [Name; HEAD_COUNT_MAX],
    nominates: bool,
    /// The app server keeps its connection.
    pub(super) keep_alive: bool,
    /// How its body is framed.
    pub(super) framing: Framing,
}

/// Looks at a head; an error names what can not be understood.
#[inline]
pub(super) fn look(head: &ResponseHead<'_, '_>, is_head: bool) -> Result<Seen, &'static str> {
    let mut framing = FramingFields::default();
    let mut names = [Name::Other; HEAD_COUNT_MAX];
    let mut nominates = false;
    let mut close = false;
    for (field, slot) in head.fields.iter().zip(&mut names) {
        let name = Name::of(field.name);
        *slot = name;
        framing.note(name, field);
        if name == Name::Connection {
            close |= has_token(field.value, "close");
            nominates |= !field.value.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    let framing = framing
        .response(head.minor, head.status, is_head)
        .map_err(crate::http1::framing::FramingError::cause)?;
    let keep_alive = head.minor == 1 && !close && framing != Framing::UntilClose;
    Ok(Seen { names, nominates, keep_alive, framing })
}

/// How the body goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// As it comes: no body, a length, or data up to the end of the connection.
    Plain,
    /// Chunks, passed on in their canonical form.
    Chunks,
    /// Each piece wrapped into a chunk, so that the connection can be kept.
    Wrap,
}

/// How a body framed like this goes to a client of HTTP/1.`minor`; `true` if
/// only the end of the connection will tell its end.
pub(super) fn outgoing(framing: Framing, minor: u8) -> (Outgoing, bool) {
    match (framing, minor) {
        (Framing::Empty | Framing::Length(_), _) => (Outgoing::Plain, false),
        (Framing::Chunked, 1) => (Outgoing::Chunks, false),
        (Framing::UntilClose, 1) => (Outgoing::Wrap, false),
        (Framing::Chunked | Framing::UntilClose, _) => (Outgoing::Plain, true),
    }
}

/// What the client is told about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Nothing: it is kept, as HTTP/1.1 has it.
    Kept,
    /// `Connection: keep-alive`, for HTTP/1.0.
    KeptSaid,
    /// `Connection: close`
    Close,
}

/// Writes the head for the client.
#[inline]
pub(super) fn write(
    head: &ResponseHead<'_, '_>,
    seen: &Seen,
    is_head: bool,
    outgoing: Outgoing,
    persistence: Persistence,
    out: &mut Vec<u8>,
) {
    status_line(head.status, head.reason, out);
    // A length that frames nothing still tells something: what GET would have got.
    let keeps_length = is_head || head.status == 304;
    for (field, name) in head.fields.iter().zip(&seen.names) {
        let passes = match name {
            Name::Connection
            | Name::HopByHop
            | Name::Te
            | Name::TransferEncoding
            | Name::Upgrade => false,
            Name::ContentLength => match seen.framing {
                Framing::Length(_) => true,
                _ => {
                    keeps_length
                        || (seen.framing == Framing::Empty
                            && head.status >= 200
                            && head.status != 204)
                }
            },
            Name::Trailer => outgoing == Outgoing::Chunks,
            _ => !(seen.nominates && is_nominated(head.fields, &seen.names, field.name)),
        };
        if passes {
            put_field(field.name.as_bytes(), field.value, out);
        }
    }
    if outgoing != Outgoing::Plain {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match persistence {
        Persistence::Kept => {}
        Persistence::KeptSaid => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Persistence::Close => out.extend_from_slice(b"Connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim response for the client.
pub(super) fn write_interim(head: &ResponseHead<'_, '_>, seen: &Seen, out: &mut Vec<u8>) {
    status_line(head.status, head.reason, out);
    for (field, name) in head.fields.iter().zip(&seen.names) {
        if matches!(name, Name::Other | Name::Date)
            && !(seen.nominates && is_nominated(head.fields, &seen.names, field.name))
        {
            put_field(field.name.as_bytes(), field.value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(status: u16, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn put_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the fields of a trailer section that may stand in one, and its end.
/// `None` if the section is not one.
pub(super) fn write_trailer(section: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if section != b"\r\n" {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        match httparse::parse_headers(section, &mut fields) {
            Ok(httparse::Status::Complete((length, fields))) if length == section.len() => {
                for field in fields {
                    if !Name::of(field.name).forbidden_in_trailer(field.name) {
                        put_field(field.name.as_bytes(), field.value, out);
                    }
                }
            }
            _ => return None,
        }
    }
    out.extend_from_slice(b"\r\n");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{parse_response, storage};

    fn written(raw: &str, is_head: bool, minor: u8) -> String {
        let mut fields = storage();
        let head = parse_response(raw.as_bytes(), &mut fields).unwrap().unwrap();
        let seen = look(&head, is_head).unwrap();
        let mut out = Vec::new();
        let (outgoing, _) = outgoing(seen.framing, minor);
        write(&head, &seen, is_head, outgoing, Persistence::Kept, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_do_not_reach_the_client() {
        let sent = written(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n\
             Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\n",
            false,
            1,
        );
        assert_eq!(
            sent,
            "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\n"
        );
    }

    #[test]
    fn a_length_is_told_where_it_means_something_and_only_there() {
        let raw = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
        assert!(written(raw, true, 1).contains("Content-Length: 7"));
        assert!(written(&raw.replace("200", "304"), false, 1).contains("Content-Length: 7"));
        assert!(!written(&raw.replace("200", "204"), false, 1).contains("Content-Length"));
        assert!(written(&raw.replace('7', "0"), false, 1).contains("Content-Length: 0"));
    }

    #[test]
    fn a_body_without_length_is_chunked_for_who_understands_it() {
        let raw = "HTTP/1.1 200 OK\r\n\r\n";
        assert!(written(raw, false, 1).contains("Transfer-Encoding: chunked"));
        assert!(!written(raw, false, 0).contains("Transfer-Encoding"));
    }

    #[test]
    fn a_trailer_keeps_what_may_stand_in_one() {
        let mut out = Vec::new();
        write_trailer(b"Content-Length: 1\r\nX-Sum: 9\r\n\r\n", &mut out).unwrap();
        assert_eq!(out, b"X-Sum: 9\r\n\r\n");
        assert!(write_trailer(b"broken\r\n\r\n", &mut Vec::new()).is_none());
    }
}
