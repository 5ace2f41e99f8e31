//! (room: admin)
