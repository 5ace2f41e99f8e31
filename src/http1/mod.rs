//! HTTP/1.1 messages as octets (RFC 9112): heads, framing, bodies.
//!
//! Owns the syntax both sides share: what a head is ([`head`]), how long the
//! body behind it is ([`framing`]), where its octets end ([`body`]), which
//! fields a proxy has to know ([`field`]). Works on buffers only: no sockets,
//! no time, no policy. Whatever two parsers could read differently is an error
//! here, never a guess.

pub mod body;
pub mod buffer;
pub mod field;
pub mod framing;
pub mod fuzz;
pub mod head;

pub use body::{Decoder, Emit, Progress};
pub use buffer::Buffer;
pub use field::{Field, Name};
pub use framing::Framing;
pub use head::{HeadError, RequestHead, ResponseHead, Storage, storage};
