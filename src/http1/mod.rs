//! (room: http1)
