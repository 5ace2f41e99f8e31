//! HTTP/2 to an app server: connections that many requests share.
//!
//! The exchange writes and reads HTTP/1 and nothing else. A [`Stream`] translates at
//! the edge: the request's octets into HEADERS and DATA, what comes back into a
//! status line, fields and a body that is framed the way HTTP/1 does it. So every
//! rule about messages stands in one place, whatever the app server speaks.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `links` | a worker's connections to one endpoint: who gets a place on which |
//! | `link` | one connection: its socket for h2, how it is opened and driven |
//! | `stream` | one request and its response, and what became of them |
//! | `up` | the request: octets to frames |
//! | `down` | the response: frames to octets |
//!
//! Whoever drops a stream before its end resets it, and nothing else: the connection
//! lives on.

mod down;
mod link;
mod links;
mod stream;
mod up;

pub(super) use self::links::{Links, Rules};
pub use self::stream::Fault;
pub(super) use self::stream::Stream;
