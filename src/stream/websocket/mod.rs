//! WebSocket (RFC 6455): frames as they pass, and the Close frame.

mod close;
mod frames;

pub use close::{CloseFrame, close};
pub use frames::Frames;
