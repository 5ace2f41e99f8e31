//! Every fixed bound of the program in one place.
//!
//! A bound that an operator may change is a configuration key; what stands
//! here is what the code itself relies on.

use std::time::Duration;

/// Octets of access log that may wait for a slow reader of stdout.
pub const ACCESS_LOG_QUEUE_MAX: usize = 8 << 20;

/// Octets of events that may wait for a slow reader of stderr; larger than the
/// access log's, because a cut request that is not named breaks a promise.
pub const EVENT_QUEUE_MAX: usize = 32 << 20;

/// Octets a worker gathers before it hands its access log lines to the writer.
pub const ACCESS_LOG_BATCH: usize = 16 << 10;

/// Keys of rate-limited events that are remembered at once.
pub const LIMITED_EVENT_KEYS_MAX: usize = 1024;

/// Cut requests listed in the drain report; beyond it they are only counted.
pub const REPORT_CUT_MAX: usize = 10_000;

/// Errors listed in the drain report.
pub const REPORT_ERRORS_MAX: usize = 1_000;

/// Admin connections open at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Octets an admin connection buffers (the least hyper allows).
pub const ADMIN_BUFFER: usize = 8192;

/// From the first octet of an admin request, or the accept, to the end of its head.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an admin connection may wait for its next request.
pub const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long admin connections may finish what they answer when the process ends.
pub const ADMIN_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Octets of an admin answer that the client reads.
pub const ADMIN_ANSWER_MAX: usize = 1 << 20;

/// How long the admin client waits for an answer.
pub const ADMIN_CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most header fields a message may have, whatever `limits.head_count` says:
/// the parser keeps this many on the stack.
pub const HEAD_COUNT_MAX: usize = 256;
