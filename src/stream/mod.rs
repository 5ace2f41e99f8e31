//! Streams that never end by themselves: where one may be ended, and how it is said.
//!
//! Owns the following of WebSocket frames and of events as they pass, and the frames of
//! a goodbye. Promises constant memory and no copy: what passes is looked at, never
//! kept. Knows no socket; who relays asks where the next boundary is.

pub mod events;
pub mod fuzz;
pub mod grpc;
pub mod websocket;
