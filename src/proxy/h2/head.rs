//! Heads between HTTP/2 and HTTP/1: a request becomes fields that the plan can
//! read, a response's octets become a header map.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::http1::RequestHead;
use crate::http1::field::Field;
use crate::http1::{Framing, ResponseHead};
use crate::limits::HEAD_COUNT_MAX;
use crate::proxy::Failure;
use crate::proxy::grpc::Status;
use crate::proxy::request::{Arrival, Request, Rules, plan_connect, plan_stream};
use crate::proxy::respond::Text;
use crate::proxy::response::{Seen, passes, passes_interim};
use crate::proxy::stamp::Stamp;
use crate::proxy::trailer;

/// Plans a request that came as a stream. `ended` says that no body follows.
pub(super) fn plan(
    parts: &http::request::Parts,
    ended: bool,
    most: usize,
    rules: &Rules<'_>,
    arrival: Arrival,
    out: Vec<u8>,
) -> Result<Request, Failure> {
    let connect = parts.extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
    let cookies = joined_cookies(&parts.headers);
    let mut fields: Vec<Field<'_>> = Vec::with_capacity(parts.headers.len() + 1);
    let single = parts.headers.iter().filter(|(name, _)| cookies.is_none() || *name != "cookie");
    fields
        .extend(single.map(|(name, value)| Field { name: name.as_str(), value: value.as_bytes() }));
    fields.extend(cookies.as_ref().map(|value| Field { name: "cookie", value }));
    if connect.is_some() {
        fields.retain(|field| !is_of_http1(field.name));
    }
    if fields.len() > most.min(HEAD_COUNT_MAX) {
        return Err(Failure::HeadTooLarge);
    }
    let uri = &parts.uri;
    let head = RequestHead {
        method: parts.method.as_str(),
        target: uri.path_and_query().map_or("/", |target| target.as_str()),
        minor: 1,
        fields: &fields,
        len: 0,
    };
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Failure::BadRequest("bad :scheme"));
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    match connect {
        Some(protocol) => plan_connect(&head, protocol, authority, rules, arrival, out),
        None => plan_stream(&head, authority, ended, rules, arrival, out),
    }
}

/// Whether a field belongs to the handshake that only HTTP/1 has (RFC 8441 section 5.1):
/// towards the app server it is ours. Some read an underscore as a hyphen.
fn is_of_http1(name: &str) -> bool {
    let name = name.replace('_', "-");
    matches!(&*name, "sec-websocket-key" | "sec-websocket-accept")
}

/// Cookie crumbs put together again (RFC 9113 section 8.2.3), if there are several.
fn joined_cookies(headers: &HeaderMap) -> Option<Vec<u8>> {
    let crumbs = headers.get_all(http::header::COOKIE);
    crumbs.iter().nth(1)?;
    let whole = crumbs.iter().map(HeaderValue::as_bytes).filter(|crumb| !crumb.is_empty());
    Some(whole.collect::<Vec<_>>().join(&b"; "[..]))
}

/// The final response head.
pub(super) fn response(
    head: &ResponseHead<'_, '_>,
    seen: &Seen,
    is_head: bool,
    stamp: &Stamp,
) -> Result<Response<()>, Failure> {
    let chunked = seen.framing == Framing::Chunked;
    let fields = passes(head, seen, is_head, chunked);
    let mut response = build(head.status, fields)?;
    let headers = response.headers_mut();
    stamp.each(head.minor, seen.dated, |name, value| {
        let name = if name == "Via" { http::header::VIA } else { http::header::DATE };
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    });
    Ok(response)
}

/// The answer to an extended CONNECT that has come true: a 101 has no meaning in HTTP/2
/// (RFC 8441 section 4), nor has the proof that came with it.
pub(super) fn switched(
    head: &ResponseHead<'_, '_>,
    seen: &Seen,
    stamp: &Stamp,
) -> Result<Response<()>, Failure> {
    let mut response = response(head, seen, false, stamp)?;
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(http::header::SEC_WEBSOCKET_ACCEPT);
    Ok(response)
}

/// An interim response head.
pub(super) fn interim(head: &ResponseHead<'_, '_>, seen: &Seen) -> Result<Response<()>, Failure> {
    build(head.status, passes_interim(head, seen))
}

/// Each value is copied by itself: h2 keeps some of them in the table of its
/// header compression, and one that shares the octets of its head would keep
/// all of them.
fn build<'f, 'b: 'f>(
    status: u16,
    fields: impl Iterator<Item = &'f Field<'b>>,
) -> Result<Response<()>, Failure> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(status).map_err(|_| Failure::BadResponse("bad status code"))?;
    let headers = response.headers_mut();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Failure::BadResponse("bad field name"))?;
        let value = HeaderValue::from_bytes(field.value)
            .map_err(|_| Failure::BadResponse("bad field value"))?;
        headers.append(name, value);
    }
    Ok(response)
}

/// The trailers of a section that may stand in one; nothing for an empty one.
pub(super) fn trailers(
    section: &[u8],
    policy: trailer::Policy,
) -> Result<Option<HeaderMap>, Failure> {
    let mut storage = trailer::storage();
    let bad = Failure::Truncated("bad trailer section");
    let Some(fields) = trailer::fields(section, policy, &mut storage) else {
        return Err(bad);
    };
    let mut trailers = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(bad) };
        trailers.append(name, value);
    }
    Ok((!trailers.is_empty()).then_some(trailers))
}

/// The head of a response of our own.
pub(super) fn own(text: &Text) -> Result<Response<()>, Failure> {
    let mut response = Response::builder().status(text.status);
    for (name, value) in &text.fields {
        response = response.header(*name, value);
    }
    response.body(()).map_err(|_| Failure::BadResponse("bad response of our own"))
}

/// The trailers of a gRPC call that a drain ends: nothing is wrong with it, and its client
/// may begin it again elsewhere.
pub(super) fn grpc_end() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", Status::Unavailable.code().into());
    trailers.insert("grpc-message", HeaderValue::from_static("ebbtide: ended by a drain"));
    trailers
}

/// The head of a gRPC response that consists of it alone.
pub(super) fn grpc(
    stamp: &Stamp,
    failure: &Failure,
    handed: bool,
) -> Result<Response<()>, Failure> {
    // Only the word: what it says in full may name things that are nobody's business.
    let message = format!("ebbtide: {}", failure.word().replace('_', " "));
    Response::builder()
        .header("content-type", "application/grpc")
        .header("date", stamp.date())
        .header("grpc-status", Status::of(failure, handed).code())
        .header("grpc-message", message)
        .body(())
        .map_err(|_| Failure::BadResponse("bad response of our own"))
}
