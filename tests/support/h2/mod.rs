//! A raw HTTP/2 client, and in [`origin`] a server: it sends frames as a test writes them, right or wrong, and
//! understands what comes back by itself. Nothing here shares code with the proxy
//! or with the library that it uses.
//!
//! ```ignore
//! let mut h2 = H2::connect(&proxy.place());         // preface and SETTINGS, both ways
//! let stream = h2.get("/bytes/10");
//! assert_eq!(h2.response(stream).status, 200);
//! h2.send(&Frame::data(0, "lost"));                 // any frame at all
//! h2.expect_connection_error(&[Code::PROTOCOL_ERROR]);
//! ```
//!
//! Reading is what drives it: [`H2::next_frame`] and everything that waits notes each
//! frame in a book (responses, GOAWAYs, windows) and, unless [`Auto`] says otherwise,
//! acknowledges SETTINGS and PING and gives windows back.

pub(crate) mod conn;
pub(crate) mod exchange;
pub(crate) mod expect;
pub(crate) mod frame;
pub(crate) mod hpack;
pub(crate) mod link;
pub(crate) mod origin;
pub(crate) mod ws;

#[allow(unused_imports, reason = "not every test binary uses every name")]
pub(crate) use self::{
    conn::{Auto, Goaway, H2},
    exchange::Response,
    frame::{Code, Frame, Got},
    origin::H2Origin,
    ws::Ws,
};
