//! Connections to an app server.

use std::io;
use std::time::Instant;

use tokio::net::{TcpStream, UnixStream};

use super::socket::Socket;
use crate::config::Endpoint;
use crate::drain::Deadline;

/// Why there is no connection. Nothing was sent: whatever was to be sent may be
/// sent elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name of the server is not known.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens there.
    #[error("connection refused")]
    Refused(#[source] io::Error),
    /// The deadline came first.
    #[error("connect timed out")]
    TimedOut,
    /// We have no descriptor, port or memory left.
    #[error("no resources for a connection")]
    Exhausted(#[source] io::Error),
    /// Anything else the kernel says.
    #[error("cannot connect")]
    Failed(#[source] io::Error),
}

/// Connects to `endpoint`. Dropping the future gives the attempt up.
pub async fn connect(endpoint: &Endpoint, deadline: Deadline) -> Result<Socket, ConnectError> {
    let attempt = async {
        match endpoint {
            Endpoint::Tcp { host, port } => tcp(host, *port).await,
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix).map_err(from),
        }
    };
    match deadline.instant() {
        None => attempt.await,
        Some(at) => {
            tokio::time::timeout_at(at.into(), attempt).await.unwrap_or(Err(ConnectError::TimedOut))
        }
    }
}

async fn tcp(host: &str, port: u16) -> Result<Socket, ConnectError> {
    let literal = host.parse::<std::net::IpAddr>();
    let stream = match literal {
        Ok(ip) => TcpStream::connect((ip, port)).await.map_err(from)?,
        Err(_) => {
            let unresolved = |source| ConnectError::Resolve { host: host.to_owned(), source };
            let addresses: Vec<_> =
                tokio::net::lookup_host((host, port)).await.map_err(unresolved)?.collect();
            TcpStream::connect(&addresses[..]).await.map_err(from)?
        }
    };
    stream.set_nodelay(true).map_err(from)?;
    Ok(Socket::Tcp(stream))
}

fn from(error: io::Error) -> ConnectError {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NotFound, TimedOut};
    match error.kind() {
        // A unix socket that is not there is what a stopped server leaves behind.
        ConnectionRefused | NotFound => ConnectError::Refused(error),
        TimedOut => ConnectError::TimedOut,
        AddrNotAvailable => ConnectError::Exhausted(error),
        _ if super::is_exhaustion(&error) => ConnectError::Exhausted(error),
        _ => ConnectError::Failed(error),
    }
}

impl ConnectError {
    /// A deadline `after` now for the attempt that begins now.
    pub fn deadline(after: std::time::Duration) -> Deadline {
        Deadline::after(Instant::now(), after)
    }
}
