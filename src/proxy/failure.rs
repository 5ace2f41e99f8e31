//! Everything that can go wrong with a request, and the one place that maps it
//! to a status, to `Proxy-Status` (RFC 9209) and to a cause for the log.

use crate::http1::body::BodyError;
use crate::http1::framing::FramingError;
use crate::net::ConnectError;

/// Why a request was not answered by the app server, or not to its end.
#[derive(Debug)]
pub enum Failure {
    /// The request is not one we forward; says why.
    BadRequest(&'static str),
    /// The request's framing is refused.
    Framing(FramingError),
    /// The request's body is not framed as its head said.
    ClientBody(BodyError),
    /// A method that we do not forward.
    Method,
    /// An extended CONNECT for a protocol that we do not pass on.
    Protocol,
    /// `Max-Forwards` says that the request ends here; whether it is a TRACE,
    /// of which we are no recipient.
    LastHop(bool),
    /// An HTTP version that we do not speak.
    Version,
    /// The request line is too long.
    TargetTooLong,
    /// The request head is too long or has too many fields.
    HeadTooLarge,
    /// The request body is longer than allowed.
    BodyTooLarge,
    /// The request head did not arrive in time.
    HeadTimeout,
    /// The request body did not arrive in time, or too slowly.
    BodyTimeout,
    /// The client does not read its response.
    SendTimeout,
    /// The client has gone.
    ClientGone,
    /// A limit of ours is reached.
    Overloaded(&'static str),
    /// There is no connection to the app server; nothing was sent.
    Connect(ConnectError),
    /// The connection to the app server ended before a response.
    Died(Died),
    /// The app server refused to work on the request; it was not executed.
    Refused,
    /// The app server reset the stream before a response.
    Reset(h2::Reason),
    /// The app server's response can not be understood.
    BadResponse(&'static str),
    /// The app server did not begin to answer in time.
    FirstByteTimeout,
    /// The app server stopped in the middle of a response, or of reading a request.
    BetweenBytesTimeout,
    /// A call has taken longer than its client had allowed (`grpc-timeout`).
    CallTimeout,
    /// The response ended before its end.
    Truncated(&'static str),
    /// The hard deadline.
    Cut,
    /// A drain, as the route of the request has it.
    Cancelled,
}

/// How an upstream connection died: what decides whether the request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died {
    /// An octet of the request had been handed to the kernel.
    pub written: bool,
    /// The connection had served a request before.
    pub reused: bool,
    /// An octet of a response had come.
    pub answered: bool,
}

impl Failure {
    /// The status that the client gets. `handed` is whether the app server may
    /// have seen the request: then nobody may say "try again".
    pub fn status(&self, handed: bool) -> u16 {
        use Failure::*;
        match self {
            BadRequest(_) | ClientBody(_) => 400,
            Framing(FramingError::UnknownCoding) | Protocol => 501,
            Framing(_) => 400,
            Method | LastHop(true) => 405,
            LastHop(false) => 200,
            Version => 505,
            TargetTooLong => 414,
            BodyTooLarge => 413,
            HeadTooLarge => 431,
            HeadTimeout | BodyTimeout => 408,
            // Nginx's code for it: seen in logs only, never sent.
            ClientGone | SendTimeout => 499,
            Overloaded(_) | Refused => 503,
            Connect(ConnectError::TimedOut) => 504,
            Connect(ConnectError::Exhausted(_)) => 503,
            Connect(_) | Died(_) | Reset(_) | BadResponse(_) | Truncated(_) => 502,
            FirstByteTimeout | BetweenBytesTimeout | CallTimeout => 504,
            Cut | Cancelled if handed => 504,
            Cut | Cancelled => 503,
        }
    }

    /// The error type of RFC 9209 section 2.3, if it is an error.
    pub fn proxy_error(&self, handed: bool) -> Option<&'static str> {
        use Failure::*;
        Some(match self {
            LastHop(_) => return None,
            BadRequest(_) | Framing(_) | ClientBody(_) | Method | Protocol | Version
            | TargetTooLong | HeadTooLarge | BodyTooLarge | HeadTimeout | BodyTimeout => {
                "http_request_error"
            }
            ClientGone | SendTimeout => "connection_terminated",
            Overloaded(_) => "connection_limit_reached",
            Connect(ConnectError::TimedOut) => "connection_timeout",
            Connect(ConnectError::Refused(_)) => "connection_refused",
            Connect(ConnectError::Resolve { .. }) => "dns_error",
            Connect(ConnectError::Exhausted(_)) => "connection_limit_reached",
            Connect(ConnectError::Failed(_) | ConnectError::Useless(_)) => {
                "destination_unavailable"
            }
            Connect(ConnectError::Certificate(_)) => "tls_certificate_error",
            Connect(ConnectError::Tls(_)) => "tls_protocol_error",
            Refused => "destination_unavailable",
            Died(_) | Reset(_) => "connection_terminated",
            BadResponse(_) => "http_protocol_error",
            Truncated(_) => "http_response_incomplete",
            FirstByteTimeout | CallTimeout => "http_response_timeout",
            BetweenBytesTimeout => "connection_read_timeout",
            Cut | Cancelled if handed => "http_response_timeout",
            Cut | Cancelled => "proxy_internal_response",
        })
    }

    /// One word for the access log.
    pub fn word(&self) -> &'static str {
        use Failure::*;
        match self {
            BadRequest(_) => "bad_request",
            Framing(_) => "bad_framing",
            ClientBody(_) => "bad_request_body",
            Method => "method_not_allowed",
            Protocol => "unknown_protocol",
            LastHop(_) => "max_forwards",
            Version => "bad_version",
            TargetTooLong => "target_too_long",
            BodyTooLarge => "body_too_large",
            HeadTooLarge => "head_too_large",
            HeadTimeout => "head_timeout",
            BodyTimeout => "body_timeout",
            SendTimeout => "send_timeout",
            ClientGone => "client_gone",
            Overloaded(_) => "overloaded",
            Connect(ConnectError::TimedOut) => "connect_timeout",
            Connect(ConnectError::Refused(_)) => "connect_refused",
            Connect(ConnectError::Resolve { .. }) => "connect_dns",
            Connect(ConnectError::Exhausted(_)) => "connect_exhausted",
            Connect(ConnectError::Failed(_) | ConnectError::Useless(_)) => "connect_failed",
            Connect(ConnectError::Certificate(_)) => "connect_certificate",
            Connect(ConnectError::Tls(_)) => "connect_tls",
            Died(_) => "upstream_died",
            Refused => "upstream_refused",
            Reset(_) => "upstream_reset",
            BadResponse(_) => "bad_response",
            FirstByteTimeout => "first_byte_timeout",
            BetweenBytesTimeout => "between_bytes_timeout",
            CallTimeout => "grpc_timeout",
            Truncated(_) => "response_truncated",
            Cut => "cut",
            Cancelled => "cancelled",
        }
    }

    /// What exactly was wrong with a request that was refused, for the access log.
    pub fn detail(&self) -> &'static str {
        match self {
            Failure::BadRequest(cause) | Failure::Overloaded(cause) => cause,
            Failure::Framing(error) => error.cause(),
            Failure::ClientBody(error) => error.0,
            other => other.word(),
        }
    }

    /// The cause in words, for a person who reads the log.
    pub fn cause(&self) -> String {
        use Failure::*;
        match self {
            BadRequest(cause) | Overloaded(cause) | BadResponse(cause) | Truncated(cause) => {
                (*cause).to_owned()
            }
            Framing(error) => error.cause().to_owned(),
            ClientBody(error) => error.0.to_owned(),
            Connect(error) => match std::error::Error::source(error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
            Died(died) => match (died.answered, died.reused) {
                (true, _) => "the app server closed in the middle of its response head",
                (false, true) => "the app server closed a reused connection without answering",
                (false, false) => "the app server closed without answering",
            }
            .to_owned(),
            Refused => "the app server refused the stream".to_owned(),
            Reset(reason) => format!("the app server reset the stream: {reason:?}"),
            other => other.word().replace('_', " "),
        }
    }

    /// The methods named in `Allow`, where that is asked.
    pub fn allows(&self) -> Option<&'static str> {
        match self {
            Failure::Method | Failure::LastHop(false) => {
                Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE")
            }
            Failure::LastHop(true) => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            _ => None,
        }
    }

    /// Whether a drain has ended it before it was complete.
    pub fn is_by_drain(&self) -> bool {
        matches!(self, Failure::Cut | Failure::Cancelled)
    }

    /// Whether the client's connection is in order, so that it may go on.
    pub fn leaves_order(&self) -> bool {
        self.is_ours() || matches!(self, Failure::LastHop(_))
    }

    /// Whether the fault is the app server's or ours rather than the client's:
    /// only those are worth a line of their own.
    pub fn is_ours(&self) -> bool {
        use Failure::*;
        matches!(
            self,
            Overloaded(_)
                | Connect(_)
                | Died(_)
                | Refused
                | Reset(_)
                | BadResponse(_)
                | FirstByteTimeout
                | BetweenBytesTimeout
                | Truncated(_)
        )
    }
}
