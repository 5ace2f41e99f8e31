//! (room: lifecycle)
