//! Every fixed bound of the program in one place.
//!
//! A bound that an operator may change is a configuration key; what stands
//! here is what the code itself relies on.

use std::time::Duration;

/// The most header fields a message may have, whatever `limits.head_count` says:
/// the parser keeps this many on the stack.
pub const HEAD_COUNT_MAX: usize = 256;

/// The bound of the closing phase: how long emptying the accept queues may take.
/// The sum of a stop's phases counts it beside `drain.stop.drain_timeout`.
pub const CLOSING: Duration = Duration::from_secs(1);

/// The longest finite duration that may be configured. An instant plus a few
/// of these can never overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The most worker threads.
pub const WORKERS_MAX: usize = 1024;

/// The longest path of a unix socket: `sun_path` less its final zero.
pub const UNIX_PATH_MAX: usize = 107;
