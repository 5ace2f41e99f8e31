//! What the scripts run against, and the blocks and waits that many of them share.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::foreign;
use crate::support::h2::frame::Fields;
use crate::support::h2::{Code, Frame, Got, H2, hpack, link};
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::wire::{End, Place};

/// The proxy of all scripts that run at the moment: whoever is last ends it.
#[derive(Debug)]
struct Shared {
    proxy: Proxy,
    origin: Origin,
}

static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

impl Shared {
    fn get() -> Arc<Shared> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let origin = Origin::new();
        let proxy = Launch::before(&origin).tls().start();
        let started = Arc::new(Shared { proxy, origin });
        *shared = Arc::downgrade(&started);
        started
    }
}

/// A server, reached one way.
#[derive(Debug)]
pub(crate) struct Server {
    place: Place,
    /// Whether it is reached over TLS.
    pub(crate) is_tls: bool,
    /// Our own, unless the environment names another.
    shared: Option<Arc<Shared>>,
}

impl Server {
    /// In clear text, with prior knowledge.
    pub(crate) fn clear() -> Server {
        Server::reached("TESTS_H2_TARGET", false, Proxy::place)
    }

    /// Over TLS.
    pub(crate) fn tls() -> Server {
        Server::reached("TESTS_H2_TLS_TARGET", true, Proxy::tls_place)
    }

    fn reached(variable: &str, is_tls: bool, place: impl Fn(&Proxy) -> Place) -> Server {
        if let Ok(target) = std::env::var(variable) {
            return Server { place: Place::parse(&target), is_tls, shared: None };
        }
        let shared = Shared::get();
        Server { place: place(&shared.proxy), is_tls, shared: Some(shared) }
    }

    /// A connection on which nothing is said yet.
    pub(crate) fn bare(&self) -> H2 {
        match (self.is_tls, &self.shared) {
            (false, _) => H2::bare(&self.place),
            (true, Some(_)) => H2::bare_tls(&self.place),
            (true, None) => {
                H2::over(Box::new(link::encrypted_by(link::clear(&self.place), foreign::session())))
            }
        }
    }

    /// A connection with SETTINGS exchanged.
    pub(crate) fn connect(&self) -> H2 {
        let mut h2 = self.bare();
        h2.handshake(&[]);
        h2
    }

    /// Asserts that a request reached the app with this field.
    #[track_caller]
    pub(crate) fn passed_on(&self, path: &str, name: &str, value: &str) {
        if let Some(shared) = &self.shared {
            let request = shared.origin.wait_started(path);
            assert_eq!(request.field(name), Some(value), "{name} of {path}");
        }
    }
}

/// What the library that ebbtide reads HTTP/2 with says in place of some codes: section
/// 7 has PROTOCOL_ERROR for an error without a code of its own. h2spec takes it too,
/// since the connection is closed with it.
pub(crate) const UNSPECIFIC: Code = Code::PROTOCOL_ERROR;

/// The pseudo-header fields of a GET.
pub(crate) fn get(h2: &H2) -> Fields {
    h2.pseudo("GET", "/")
}

/// The pseudo-header fields of a POST.
pub(crate) fn post(h2: &H2) -> Fields {
    h2.pseudo("POST", "/")
}

/// The same fields and one more.
pub(crate) fn with(mut fields: Fields, name: &str, value: &str) -> Fields {
    fields.push((name.to_owned(), value.to_owned()));
    fields
}

/// The same fields but one.
pub(crate) fn without(mut fields: Fields, name: &str) -> Fields {
    fields.retain(|(n, _)| n != name);
    fields
}

/// A GET as a field block.
pub(crate) fn get_block(h2: &H2) -> Vec<u8> {
    hpack::plain(&get(h2))
}

/// A POST as a field block.
pub(crate) fn post_block(h2: &H2) -> Vec<u8> {
    hpack::plain(&post(h2))
}

/// One more field, long, as a field block.
pub(crate) fn long_field() -> Vec<u8> {
    hpack::plain(&[("x-dummy0", "x".repeat(4000))])
}

/// HEADERS on stream 1 with a whole GET.
pub(crate) fn get_frame(h2: &H2) -> Frame {
    Frame::headers(1, get_block(h2)).end()
}

/// Expects a good response on a stream.
#[track_caller]
pub(crate) fn expect_answer(h2: &mut H2, stream: u32) {
    assert_eq!(h2.response_head(stream).status, 200);
}

/// Expects a PING with this content to come back before any other does.
#[track_caller]
pub(crate) fn expect_pong(h2: &mut H2, opaque: [u8; 8]) {
    let got = h2.wait("a PING ACK", |got| match got {
        Got::Pong { opaque } => Some(*opaque),
        _ => None,
    });
    assert_eq!(got, opaque, "the content of the PING ACK");
}

/// Expects that the connection lives on, or ends: no more is promised.
#[track_caller]
pub(crate) fn expect_pong_or_end(h2: &mut H2) {
    let fence = h2.try_fence();
    assert_ne!(fence, Err(End::TimedOut), "a PING ACK or the end{}", h2.story());
}
