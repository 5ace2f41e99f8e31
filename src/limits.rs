//! Every fixed bound of the program in one place.
//!
//! A bound that an operator may change is a configuration key; what stands
//! here is what the code itself relies on.

use std::time::Duration;

/// The most header fields a message may have, whatever `limits.head_count` says:
/// the parser keeps this many on the stack.
pub const HEAD_COUNT_MAX: usize = 256;

/// The longest chunk-size line, extensions included.
pub const CHUNK_LINE_MAX: usize = 1024;

/// The longest trailer section.
pub const TRAILER_MAX: usize = 8 * 1024;

/// How long closing the listeners may take, all of them together.
pub const CLOSING_MAX: Duration = Duration::from_secs(1);

/// Signals within this time of the first are the same request: foreman,
/// terminals and control groups deliver two.
pub const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// How long a closing listener keeps accepting at least and at most.
pub const CLOSE_QUEUE_MIN: Duration = Duration::from_millis(20);
/// See [`CLOSE_QUEUE_MIN`].
pub const CLOSE_QUEUE_MAX: Duration = Duration::from_millis(500);

/// The length of an accept queue; the kernel bounds it by `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;
