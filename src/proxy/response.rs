//! The response head: what the app server sent, and what the client is sent.

use super::course::is_event_stream;
use super::grpc;
use super::request::{Protocol, Upgrade, is_nominated};
use super::stamp::Stamp;
use super::trailer;
use crate::config::Underscores;
use crate::http1::field::{Field, Name, Options, tokens};
use crate::http1::framing::FramingFields;
use crate::http1::{Framing, ResponseHead};
use crate::limits::HEAD_COUNT_MAX;

/// What one pass over a response's fields has found.
pub(super) struct Seen {
    names: [Name; HEAD_COUNT_MAX],
    options: Options,
    /// The app server keeps its connection.
    pub(super) keep_alive: bool,
    /// How its body is framed.
    pub(super) framing: Framing,
    /// It has a `Date`.
    pub(super) dated: bool,
    /// Its body is a stream of events.
    pub(super) is_events: bool,
    /// The body is that of a gRPC call.
    pub(super) is_grpc: bool,
    /// Its body has no known end and is coded: nobody can look into it.
    pub(super) is_coded: bool,
}

impl Seen {
    /// What of its trailers passes.
    pub(super) fn trailers(&self) -> trailer::Policy {
        trailer::Policy { underscores: Underscores::Pass, hidden: self.options.hides }
    }
}

/// Looks at a head; an error names what can not be understood.
#[inline]
pub(super) fn look(head: &ResponseHead<'_, '_>, is_head: bool) -> Result<Seen, &'static str> {
    let mut said = FramingFields::default();
    let mut names = [Name::Other; HEAD_COUNT_MAX];
    let mut options = Options::default();
    let (mut is_events, mut is_grpc) = (false, false);
    for (field, slot) in head.fields.iter().zip(&mut names) {
        let name = Name::of(field.name);
        *slot = name;
        said.note(name, field);
        match name {
            Name::Connection => options.note(field.value),
            Name::ContentType => {
                is_events = is_event_stream(field.value);
                is_grpc = grpc::is_grpc(field.value);
            }
            _ => {}
        }
    }
    if options.nominates {
        leave_out_nominated(head, &mut names);
    }
    let dated = names[..head.fields.len()].contains(&Name::Date);
    let framing = said
        .response(head.minor, head.status, is_head)
        .map_err(crate::http1::framing::FramingError::cause)?;
    let keep_alive = head.minor == 1
        && !options.close
        && framing != Framing::UntilClose
        && !said.speaks_of_a_body(head.status);
    let is_open = matches!(framing, Framing::Chunked | Framing::UntilClose);
    let is_coded = is_open && is_coded(head);
    Ok(Seen { names, options, keep_alive, framing, dated, is_events, is_grpc, is_coded })
}

/// Whether the body has a content coding that hides where its parts end.
fn is_coded(head: &ResponseHead<'_, '_>) -> bool {
    let mut codings =
        head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("content-encoding"));
    codings.any(|field| tokens(field.value).any(|it| !it.eq_ignore_ascii_case(b"identity")))
}

/// Fields that `Connection` names end here, but for those that frame the message.
#[cold]
fn leave_out_nominated(head: &ResponseHead<'_, '_>, names: &mut [Name; HEAD_COUNT_MAX]) {
    for (at, field) in head.fields.iter().enumerate() {
        let frames = matches!(
            names[at],
            Name::Connection | Name::ContentLength | Name::TransferEncoding | Name::Trailer
        );
        if !frames && is_nominated(head.fields, names, field.name) {
            names[at] = Name::HopByHop;
        }
    }
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

/// How a body framed like this goes to an HTTP/1 client; `true` if only the end
/// of the connection will tell its end.
pub(super) fn outgoing(framing: Framing, protocol: Protocol) -> (Outgoing, bool) {
    match (framing, protocol) {
        (Framing::Empty | Framing::Length(_), _) => (Outgoing::Plain, false),
        (Framing::Chunked | Framing::UntilClose, Protocol::Http10) => (Outgoing::Plain, true),
        (Framing::Chunked, _) => (Outgoing::Chunks, false),
        (Framing::UntilClose, _) => (Outgoing::Wrap, false),
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

/// The fields of a final head that reach the client. `trailers` says whether
/// trailers can follow the body.
#[inline]
pub(super) fn passes<'f, 'b>(
    head: &'f ResponseHead<'f, 'b>,
    seen: &'f Seen,
    is_head: bool,
    trailers: bool,
) -> impl Iterator<Item = &'f Field<'b>> {
    // A length that frames nothing still tells something: what GET would have got.
    let tells = is_head
        || head.status == 304
        || (seen.framing == Framing::Empty && head.status >= 200 && head.status != 204);
    let keeps_length = tells || matches!(seen.framing, Framing::Length(_));
    let named = head.fields.iter().zip(&seen.names);
    named.filter_map(move |(field, name)| {
        let passes = match name {
            Name::Connection
            | Name::HopByHop
            | Name::Te
            | Name::TransferEncoding
            | Name::Upgrade => false,
            Name::ContentLength => keeps_length,
            Name::Trailer => trailers,
            _ => true,
        };
        passes.then_some(field)
    })
}

/// The fields of an interim head that reach the client.
pub(super) fn passes_interim<'f, 'b>(
    head: &'f ResponseHead<'f, 'b>,
    seen: &'f Seen,
) -> impl Iterator<Item = &'f Field<'b>> {
    let named = head.fields.iter().zip(&seen.names);
    named.filter_map(|(field, name)| {
        matches!(name, Name::Other | Name::ContentType | Name::Date | Name::Underscored)
            .then_some(field)
    })
}

/// Writes the head for the client.
#[inline]
pub(super) fn write(
    head: &ResponseHead<'_, '_>,
    seen: &Seen,
    is_head: bool,
    (outgoing, persistence): (Outgoing, Persistence),
    stamp: &Stamp,
    out: &mut Vec<u8>,
) {
    status_line(head.status, head.reason, out);
    for field in passes(head, seen, is_head, outgoing == Outgoing::Chunks) {
        put_field(field.name.as_bytes(), field.value, out);
    }
    stamp.each(head.minor, seen.dated, |name, value| {
        put_field(name.as_bytes(), value.as_bytes(), out);
    });
    if head.status == UPGRADE_REQUIRED {
        write_required(head, out);
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

/// The status that says which protocol would be answered (RFC 9110 section 15.5.22).
pub(super) const UPGRADE_REQUIRED: u16 = 426;

/// What a 426 has to say, although it is said for a connection.
#[cold]
fn write_required(head: &ResponseHead<'_, '_>, out: &mut Vec<u8>) {
    for field in head.fields {
        if Name::of(field.name) == Name::Upgrade {
            put_field(b"Upgrade", field.value, out);
            put_field(b"Connection", b"Upgrade", out);
        }
    }
}

/// Writes a 101 for the client.
pub(super) fn write_switch(
    head: &ResponseHead<'_, '_>,
    seen: &Seen,
    upgrade: &Upgrade,
    stamp: &Stamp,
    out: &mut Vec<u8>,
) {
    status_line(head.status, head.reason, out);
    put_field(b"Connection", b"Upgrade", out);
    put_field(b"Upgrade", upgrade.token(), out);
    for field in passes(head, seen, false, false) {
        put_field(field.name.as_bytes(), field.value, out);
    }
    stamp.each(head.minor, seen.dated, |name, value| {
        put_field(name.as_bytes(), value.as_bytes(), out);
    });
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim response for the client.
pub(super) fn write_interim(head: &ResponseHead<'_, '_>, seen: &Seen, out: &mut Vec<u8>) {
    status_line(head.status, head.reason, out);
    for field in passes_interim(head, seen) {
        put_field(field.name.as_bytes(), field.value, out);
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

pub(super) fn put_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{parse_response, storage};

    fn written(raw: &str, is_head: bool, protocol: Protocol) -> String {
        let mut fields = storage();
        let head = parse_response(raw.as_bytes(), &mut fields).unwrap().unwrap();
        let seen = look(&head, is_head).unwrap();
        let mut out = Vec::new();
        let (outgoing, _) = outgoing(seen.framing, protocol);
        let (stamp, kept) = (Stamp::new(false), Persistence::Kept);
        write(&head, &seen, is_head, (outgoing, kept), &stamp, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_do_not_reach_the_client() {
        let sent = written(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n\
             Date: d\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\n",
            false,
            Protocol::Http11,
        );
        assert_eq!(
            sent,
            "HTTP/1.1 200 OK\r\nDate: d\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
             Content-Length: 3\r\n\r\n"
        );
    }

    #[test]
    fn which_upgrade_is_required_is_said_and_no_other_is_offered() {
        let raw = "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nContent-Length: 0\r\n\r\n";
        let sent = written(raw, false, Protocol::Http11);
        assert!(sent.contains("\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"), "{sent}");
        assert!(!written(&raw.replace("426", "200"), false, Protocol::Http11).contains("pgrade:"));
    }

    #[test]
    fn a_length_is_told_where_it_means_something_and_only_there() {
        let raw = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
        assert!(written(raw, true, Protocol::Http11).contains("Content-Length: 7"));
        assert!(
            written(&raw.replace("200", "304"), false, Protocol::Http11)
                .contains("Content-Length: 7")
        );
        assert!(
            !written(&raw.replace("200", "204"), false, Protocol::Http11)
                .contains("Content-Length")
        );
        assert!(
            written(&raw.replace('7', "0"), false, Protocol::Http11).contains("Content-Length: 0")
        );
    }

    #[test]
    fn a_body_without_length_is_chunked_for_who_understands_it() {
        let raw = "HTTP/1.1 200 OK\r\n\r\n";
        assert!(written(raw, false, Protocol::Http11).contains("Transfer-Encoding: chunked"));
        assert!(!written(raw, false, Protocol::Http10).contains("Transfer-Encoding"));
    }
}
