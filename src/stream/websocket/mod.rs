//! WebSocket (RFC 6455): frames as they pass, and the Close frame.

mod close;
mod frames;

pub use close::{CloseFrame, PING, REASON_MAX, close, is_sendable};
pub use frames::Frames;
