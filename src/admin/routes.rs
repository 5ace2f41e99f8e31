//! What is answered to an admin request.
//!
//! Owns the paths, and the rules for whoever asks over TCP. Promises to answer
//! at once, from facts that are given, whoever does not ask to be told what happens.
//! Does not read sockets.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Body;
use tokio::sync::mpsc;

use super::commands::{Progress, Refusal, Told, Upgrade};
use super::server::{Activity, Service, View};
use crate::telemetry::metrics;

const TEXT: &str = "text/plain; charset=utf-8";
const LINES: &str = "application/jsonl";

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// The unix socket: its peer was checked on accept.
    Unix,
    /// TCP, on this address of ours.
    Tcp(IpAddr),
}

type Answer = Response<Full<Bytes>>;

/// Answers one request.
pub(super) async fn answer<B>(
    request: Request<B>,
    origin: Origin,
    service: &Service,
    activity: &Rc<Cell<Activity>>,
) -> Response<Either<Full<Bytes>, Told>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Origin::Tcp(local) = origin
        && let Err(status) = check_host(&request, local, &service.names)
    {
        return plain(status, "").map(Either::Left);
    }
    if !matches!((origin, request.uri().path()), (Origin::Unix, "/upgrade")) {
        return look(&request, origin, &*service.view).map(Either::Left);
    }
    match upgrade(request, service).await {
        Ok(news) => {
            let told = Told::new(news, Rc::clone(activity));
            with_type(StatusCode::OK, String::new(), LINES).map(|_| Either::Right(told))
        }
        Err(answer) => answer.map(Either::Left),
    }
}

/// Begins an upgrade.
async fn upgrade<B>(
    request: Request<B>,
    service: &Service,
) -> Result<mpsc::Receiver<Progress>, Answer>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if request.method() != Method::POST {
        return Err(only("POST"));
    }
    let asked = Upgrade::read(request.into_body()).await;
    let asked = asked.map_err(|(status, why)| plain(status, &why))?;
    let begun = service.commands.upgrade(asked.binary);
    begun.map_err(|Refusal(why)| plain(StatusCode::CONFLICT, &why))
}

/// Answers from what is there.
fn look<B>(request: &Request<B>, origin: Origin, view: &dyn View) -> Answer {
    let known = matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics" | "/status");
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match (origin, known, reads) {
        (_, true, true) => document(request.uri().path(), origin, view),
        (Origin::Tcp(_), _, _) => plain(StatusCode::FORBIDDEN, ""),
        (Origin::Unix, false, _) => plain(StatusCode::NOT_FOUND, ""),
        (Origin::Unix, true, false) => only("GET, HEAD"),
    }
}

fn only(methods: &'static str) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn document(path: &str, origin: Origin, view: &dyn View) -> Answer {
    match path {
        "/livez" if view.live() => plain(StatusCode::OK, "ok"),
        "/livez" => plain(StatusCode::SERVICE_UNAVAILABLE, "stuck"),
        "/readyz" if view.ready() => plain(StatusCode::OK, "ready"),
        "/readyz" => {
            let phase = view.status().phase;
            // Serving, but not ready: no upstream can serve.
            let why = if phase == "serving" { "not ready" } else { &phase };
            plain(StatusCode::SERVICE_UNAVAILABLE, why)
        }
        "/metrics" => with_type(StatusCode::OK, view.metrics(), metrics::CONTENT_TYPE),
        _ => {
            let mut status = view.status();
            if let Origin::Tcp(_) = origin {
                status.tunnels.clear();
            }
            match serde_json::to_string(&status) {
                Ok(text) => with_type(StatusCode::OK, text + "\n", "application/json"),
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, ""),
            }
        }
    }
}

/// A line of text: the one given, or the name of the status.
fn plain(status: StatusCode, text: &str) -> Answer {
    let text = if text.is_empty() { status.canonical_reason().unwrap_or("error") } else { text };
    with_type(status, format!("{text}\n"), TEXT)
}

fn with_type(status: StatusCode, body: String, content_type: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Refuses a Host that is none of our names: a web page can make its visitor's
/// browser ask us under a name of its own (DNS rebinding), but cannot choose the
/// Host. The port does not matter: it may have been mapped on the way.
fn check_host<B>(request: &Request<B>, local: IpAddr, names: &[String]) -> Result<(), StatusCode> {
    let mut fields = request.headers().get_all(HOST).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    let field = Authority::try_from(field.as_bytes()).map_err(|_| StatusCode::BAD_REQUEST)?;
    // RFC 9112 section 3.2.2: the authority of an absolute target comes first.
    for authority in [Some(&field), request.uri().authority()].into_iter().flatten() {
        if authority.as_str().contains('@') {
            return Err(StatusCode::BAD_REQUEST);
        }
        if !is_ours(authority, local, names) {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
    }
    Ok(())
}

fn is_ours(authority: &Authority, local: IpAddr, names: &[String]) -> bool {
    let host = authority.host();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        let address = address.to_canonical();
        // A literal cannot be rebound; loopback is what a mapped port is asked by.
        return address == local.to_canonical() || address.is_loopback();
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| {
            name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(authority.as_str())
        })
}
