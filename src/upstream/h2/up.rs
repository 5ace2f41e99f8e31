//! The request on its way to the app server: octets of HTTP/1 become HEADERS and DATA.

use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::stream::Fault;
use crate::http1::{Decoder, Emit, Framing};
use crate::limits::{H2_PIECE_MAX, HEAD_COUNT_MAX, TRAILER_COUNT_MAX};

/// Fields that we add to those of a client.
const ADDED: usize = 16;

/// How far a request has been sent.
pub(super) struct Up {
    secure: bool,
    /// Until the head is written.
    send: Option<SendRequest<Bytes>>,
    /// From then on.
    stream: Option<SendStream<Bytes>>,
    decoder: Decoder,
    /// Octets that are no whole piece of chunk framing yet.
    held: BytesMut,
    /// Data that waits for room in the windows.
    data: Bytes,
    trailers: Option<HeaderMap>,
    /// END_STREAM has been sent.
    ended: bool,
}

/// What a head has begun.
pub(super) struct Begun {
    pub(super) response: ResponseFuture,
    /// Whether its response may have a body.
    pub(super) has_body: bool,
}

impl Up {
    pub(super) fn new(send: SendRequest<Bytes>, secure: bool) -> Self {
        Up {
            secure,
            send: Some(send),
            stream: None,
            decoder: Decoder::new(Framing::Empty),
            held: BytesMut::new(),
            data: Bytes::new(),
            trailers: None,
            ended: false,
        }
    }

    /// Opens the stream with this head. One that the connection does not take has not
    /// been sent.
    pub(super) fn begin(&mut self, head: &[u8]) -> Result<Begun, Fault> {
        let mut send = self.send.take().ok_or(Fault::Lost)?;
        let (request, framing) = request(head, self.secure)?;
        let has_body = request.method() != Method::HEAD;
        self.decoder = Decoder::new(framing);
        self.ended = self.decoder.is_done();
        let sent = send.send_request(request, self.ended);
        let (response, stream) = sent.map_err(|_| Fault::Refused)?;
        self.stream = Some(stream);
        Ok(Begun { response, has_body })
    }

    /// Takes octets of the body, not many more than the windows have room for.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let n = octets.len().min(H2_PIECE_MAX);
        self.held.extend_from_slice(&octets[..n]);
        let decoded = self.decoder.decode(&mut self.held, Emit::Data);
        let progress = decoded.map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut piece = self.held.split_to(progress.consumed);
        piece.truncate(progress.produced);
        self.data = piece.freeze();
        if let Some(length) = progress.trailer {
            self.trailers = trailers(&self.held.split_to(length));
        }
        // What has no room now waits: the next octets will have to.
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    /// Sends what waits, as far as the windows have room.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let whole = self.decoder.is_done();
        while !self.data.is_empty() {
            stream.reserve_capacity(self.data.len());
            let room = match stream.capacity() {
                0 => match ready!(stream.poll_capacity(cx)) {
                    Some(room) => room.map_err(broken)?,
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                },
                room => room,
            };
            let part = self.data.split_to(room.min(self.data.len()));
            let ends = whole && self.data.is_empty() && self.trailers.is_none();
            if !part.is_empty() {
                stream.send_data(part, ends).map_err(broken)?;
                self.ended |= ends;
            }
        }
        if whole && !self.ended {
            match self.trailers.take() {
                Some(trailers) => stream.send_trailers(trailers).map_err(broken)?,
                None => stream.send_data(Bytes::new(), true).map_err(broken)?,
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the app server has reset the stream.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(|_| ()),
            None => Poll::Ready(()),
        }
    }
}

impl std::fmt::Debug for Up {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Up").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// The head that the exchange has written, as HTTP/2 has it (RFC 9113 section 8.3.1),
/// and how the body that follows is framed.
fn request(head: &[u8], secure: bool) -> Result<(Request<()>, Framing), Fault> {
    let mut fields = [const { MaybeUninit::uninit() }; HEAD_COUNT_MAX + ADDED];
    let mut parsed = httparse::Request::new(&mut []);
    let complete = parsed.parse_with_uninit_headers(head, &mut fields);
    let (Ok(httparse::Status::Complete(_)), Some(method), Some(path)) =
        (complete, parsed.method, parsed.path)
    else {
        return Err(Fault::Unfit("request head"));
    };
    let mut map = HeaderMap::with_capacity(parsed.headers.len());
    let mut framing = Framing::Empty;
    let mut host = None;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(mut value)) = (name, value) else {
            return Err(Fault::Unfit("request field"));
        };
        if name == TRANSFER_ENCODING {
            framing = Framing::Chunked;
        } else if name == HOST {
            host = Some(value);
        } else if !is_of_connection(&name) {
            if name == CONTENT_LENGTH {
                let length = value.to_str().ok().and_then(|length| length.parse().ok());
                framing = Framing::Length(length.ok_or(Fault::Unfit("request length"))?);
            }
            // Clients share the table of the connection: what is secret stays out of it
            // (RFC 7541 section 7.1).
            value.set_sensitive(name == AUTHORIZATION || name == COOKIE);
            map.append(name, value);
        }
    }
    let mut request = Request::new(());
    let unfit = |_| Fault::Unfit("request target");
    *request.method_mut() =
        Method::from_bytes(method.as_bytes()).map_err(|_| Fault::Unfit("request method"))?;
    let path = PathAndQuery::try_from(path).map_err(unfit)?;
    let mut parts = http::uri::Parts::default();
    match host.as_ref().map(|host| Authority::try_from(host.as_bytes())) {
        Some(Ok(authority)) => {
            parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
            parts.authority = Some(authority);
            *request.version_mut() = Version::HTTP_2;
        }
        // A host that is a name, but none of an authority as the library has it.
        _ => map.extend(host.map(|host| (HOST, host))),
    }
    parts.path_and_query = Some(path);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Fault::Unfit("request target"))?;
    *request.headers_mut() = map;
    Ok((request, framing))
}

/// Whether a field is about a connection, of which HTTP/2 says nothing in fields (RFC
/// 9113 section 8.2.2).
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection"
    )
}

/// The fields of a trailer section; the decoder has checked that it is one.
fn trailers(section: &[u8]) -> Option<HeaderMap> {
    let mut storage = [httparse::EMPTY_HEADER; TRAILER_COUNT_MAX];
    let Ok(httparse::Status::Complete((_, fields))) =
        httparse::parse_headers(section, &mut storage)
    else {
        return None;
    };
    let fields = fields.iter().filter_map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    });
    let mut map = HeaderMap::new();
    fields.for_each(|(name, value)| {
        map.append(name, value);
    });
    (!map.is_empty()).then_some(map)
}
