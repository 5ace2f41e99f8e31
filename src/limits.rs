//! Every fixed bound of the program in one place.
//!
//! A bound that an operator may change is a configuration key; what stands
//! here is what the code itself relies on.

/// The most header fields a message may have, whatever `limits.head_count` says:
/// the parser keeps this many on the stack.
pub const HEAD_COUNT_MAX: usize = 256;

/// The longest chunk-size line, extensions included.
pub const CHUNK_LINE_MAX: usize = 1024;

/// The longest trailer section.
pub const TRAILER_MAX: usize = 8 * 1024;
