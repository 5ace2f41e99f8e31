//! gRPC: what a proxy has to know of a call (gRPC over HTTP/2, "Protocol").
//!
//! A call is an HTTP/2 request that says so in its `Content-Type`. Its timeout is
//! passed on and obeyed, its silence is nobody's fault, and what goes wrong with it is
//! said as a gRPC status, because that is what its client looks at.

use std::time::Duration;

use h2::Reason;

use super::Failure;
use crate::http1::RequestHead;
use crate::net::ConnectError;

/// What the client's head says of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// How long it may take (`grpc-timeout`), if that is said in a way that can be
    /// understood. Its server is told the same and judges the rest.
    pub timeout: Option<Duration>,
}

/// A gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Status {
    Cancelled = 1,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Status {
    /// As `grpc-status` has it.
    pub(super) fn code(self) -> u16 {
        self as u16
    }

    /// What a failure is in gRPC's words. `Unavailable` may be asked for again, where
    /// the client's own policy allows it, and so it is said where a client without a
    /// proxy would say it itself: when there is no connection, or it has gone.
    pub(super) fn of(failure: &Failure, handed: bool) -> Self {
        use Failure::*;
        match failure {
            Connect(ConnectError::TimedOut) if handed => Status::DeadlineExceeded,
            Connect(_) | Died(_) | Refused | Overloaded(_) | Truncated(_) => Status::Unavailable,
            Reset(reason) => Status::of_reset(*reason),
            Cut | Cancelled if !handed => Status::Unavailable,
            Cut | Cancelled | CallTimeout | FirstByteTimeout | BetweenBytesTimeout
            | BodyTimeout | HeadTimeout | SendTimeout | ClientGone => Status::DeadlineExceeded,
            BodyTooLarge | HeadTooLarge | TargetTooLong => Status::ResourceExhausted,
            Method | Protocol | LastHop(_) | Version => Status::Unimplemented,
            BadRequest(_) | Framing(_) | ClientBody(_) | BadResponse(_) => Status::Internal,
        }
    }

    /// What a stream that was reset before it was answered means ("HTTP2 Transport Mapping").
    fn of_reset(reason: Reason) -> Self {
        match reason {
            Reason::REFUSED_STREAM => Status::Unavailable,
            Reason::CANCEL => Status::Cancelled,
            Reason::ENHANCE_YOUR_CALM => Status::ResourceExhausted,
            Reason::INADEQUATE_SECURITY => Status::PermissionDenied,
            _ => Status::Internal,
        }
    }
}

impl Call {
    /// The call that a request is, if it is one.
    pub(super) fn of(head: &RequestHead<'_, '_>) -> Self {
        let timeouts = || head.fields.iter().filter(|it| it.name.eq_ignore_ascii_case(TIMEOUT));
        // Of several nobody knows which one the server takes.
        let only = timeouts().next().filter(|_| timeouts().count() == 1);
        Call { timeout: only.and_then(|field| timeout(field.value)) }
    }
}

/// The field that says how long a call may take.
const TIMEOUT: &str = "grpc-timeout";

/// Whether a message is gRPC: `application/grpc`, with a format or a parameter behind
/// it. `application/grpc-web` is another protocol.
pub(super) fn is_grpc(content_type: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let Some((start, rest)) = content_type.split_at_checked(TYPE.len()) else { return false };
    start.eq_ignore_ascii_case(TYPE)
        && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// At most eight digits and a unit.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let well_formed = matches!(digits.len(), 1..=8) && digits.iter().all(u8::is_ascii_digit);
    if !well_formed {
        return None;
    }
    let count = digits.iter().fold(0, |count: u64, octet| count * 10 + u64::from(octet - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_what_the_protocol_says_and_nothing_else() {
        for (text, length) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("90M", Some(Duration::from_secs(5400))),
            ("2S", Some(Duration::from_secs(2))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("1.5S", None),
            ("-1S", None),
            (" 1S", None),
            ("123456789S", None),
        ] {
            assert_eq!(timeout(text.as_bytes()), length, "{text:?}");
        }
    }

    #[test]
    fn grpc_web_is_not_grpc() {
        for good in ["application/grpc", "Application/gRPC+proto", "application/grpc;x=y"] {
            assert!(is_grpc(good.as_bytes()), "{good}");
        }
        for bad in ["application/grpc-web", "application/grpc-web+proto", "application/grp", ""] {
            assert!(!is_grpc(bad.as_bytes()), "{bad}");
        }
    }
}
