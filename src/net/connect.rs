//! Connections to an app server.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::socket::{Socket, Stream};
use crate::config::{Address, Endpoint};
use crate::drain::Deadline;
use crate::limits::{CONNECT_RETRY_MAX, CONNECT_RETRY_MIN};
use crate::tls::{Broken, Calls};

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
    /// It could not be used: nothing was sent on it; says what it did.
    #[error("the app server {0}, before it was asked anything")]
    Useless(&'static str),
    /// Nobody we trust vouches for it, or not under its name, or not now.
    #[error("the certificate of the app server is refused")]
    Certificate(#[source] io::Error),
    /// It and we do not agree on TLS, or on what is spoken over it.
    #[error("no TLS with the app server")]
    Tls(#[source] io::Error),
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

/// Connects to `endpoint`, with TLS as `calls` has it where that is spoken. Dropping the
/// future gives the attempt up.
pub async fn connect(
    endpoint: &Endpoint,
    calls: Option<&Calls>,
    deadline: Deadline,
) -> Result<Socket, ConnectError> {
    let attempt = async {
        let (mut socket, host) = match &endpoint.address {
            Address::Tcp { host, port } => (tcp(host, *port, deadline).await?, host.as_str()),
            Address::Unix(path) => (unix(path).await?, ""),
        };
        if endpoint.speaks.is_tls() {
            secure(&mut socket, host, endpoint.speaks.is_h2(), calls).await?;
        }
        Ok(socket)
    };
    match deadline.instant() {
        None => attempt.await,
        Some(at) => {
            tokio::time::timeout_at(at.into(), attempt).await.unwrap_or(Err(ConnectError::TimedOut))
        }
    }
}

/// Shakes hands. A server that knows no ALPN speaks HTTP/1.1; HTTP/2 has to be agreed on.
async fn secure(
    socket: &mut Socket,
    host: &str,
    h2: bool,
    calls: Option<&Calls>,
) -> Result<(), ConnectError> {
    let unfit = |error| ConnectError::Tls(io::Error::other(error));
    let calls = calls.ok_or_else(|| unfit("no authorities are known".to_owned()))?;
    let session = calls.session(host, h2).map_err(|error| unfit(error.to_string()))?;
    socket.secure(session);
    let shaken = poll_fn(|cx| socket.poll_handshake(cx)).await;
    shaken.map_err(|error| {
        let broken = error.get_ref().and_then(|error| error.downcast_ref::<Broken>());
        if broken.is_some_and(Broken::is_certificate) {
            ConnectError::Certificate(error)
        } else {
            ConnectError::Tls(error)
        }
    })?;
    if h2 && !socket.alpn_h2() {
        return Err(unfit("it did not agree to HTTP/2 (ALPN)".to_owned()));
    }
    Ok(())
}

/// A full accept queue is an error of a unix socket, where TCP would wait: so
/// it is waited for here. Whoever waits is bounded by the caller's deadline.
async fn unix(path: &Path) -> Result<Socket, ConnectError> {
    let mut pause = CONNECT_RETRY_MIN;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            connected => {
                return connected.map(|stream| Socket::new(Stream::Unix(stream))).map_err(from);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(CONNECT_RETRY_MAX);
    }
}

async fn tcp(host: &str, port: u16, deadline: Deadline) -> Result<Socket, ConnectError> {
    let literal = host.parse::<std::net::IpAddr>();
    let stream = match literal {
        Ok(ip) => TcpStream::connect((ip, port)).await.map_err(from)?,
        Err(_) => {
            let unresolved = |source| ConnectError::Resolve { host: host.to_owned(), source };
            let addresses: Vec<_> =
                tokio::net::lookup_host((host, port)).await.map_err(unresolved)?.collect();
            if addresses.is_empty() {
                return Err(unresolved(io::ErrorKind::NotFound.into()));
            }
            first_of(&addresses, deadline).await?
        }
    };
    stream.set_nodelay(true).map_err(from)?;
    Ok(Socket::new(Stream::Tcp(stream)))
}

/// Connects to the first address that answers. An address that swallows
/// everything must not use up the time of the others: each has an equal share
/// of what is left.
async fn first_of(addresses: &[SocketAddr], deadline: Deadline) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError::TimedOut;
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let others = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.left(now).map_or(Duration::MAX, |left| left / others);
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => from(error),
            Err(_) => ConnectError::TimedOut,
        };
    }
    Err(last)
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
    pub fn deadline(after: Duration) -> Deadline {
        Deadline::after(Instant::now(), after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Speaks;
    use socket2::{Domain, SockAddr, Socket as Plain, Type};

    fn run(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    }

    /// A listener whose accept queue is full, and those who fill it.
    fn full(domain: Domain, at: &SockAddr) -> (Plain, Vec<Plain>) {
        let listener = Plain::new(domain, Type::STREAM, None).unwrap();
        listener.bind(at).unwrap();
        listener.listen(0).unwrap();
        let at = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..64 {
            let client = Plain::new(domain, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let blocked = client.connect(&at).is_err_and(|error| {
                error.kind() == io::ErrorKind::WouldBlock && domain == Domain::UNIX
            });
            if blocked {
                break;
            }
            waiting.push(client);
        }
        (listener, waiting)
    }

    fn within(millis: u64) -> Deadline {
        Deadline::after(Instant::now(), Duration::from_millis(millis))
    }

    #[test]
    fn a_full_accept_queue_of_a_unix_socket_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app");
        let (listener, _waiting) = full(Domain::UNIX, &SockAddr::unix(&path).unwrap());
        let endpoint = Endpoint { speaks: Speaks::Http, address: Address::Unix(path) };
        run(async || {
            let before = Instant::now();
            let refused = connect(&endpoint, None, within(50)).await;
            assert!(matches!(refused, Err(ConnectError::TimedOut)));
            assert!(before.elapsed() >= Duration::from_millis(50));
            let connecting = tokio::task::LocalSet::new();
            let attempt = connecting.run_until(async {
                let attempt = tokio::task::spawn_local(connect_owned(endpoint, within(20_000)));
                tokio::time::sleep(Duration::from_millis(5)).await;
                assert!(!attempt.is_finished());
                listener.accept().unwrap();
                attempt.await.unwrap()
            });
            assert!(attempt.await.is_ok());
        });
    }

    async fn connect_owned(endpoint: Endpoint, until: Deadline) -> Result<Socket, ConnectError> {
        connect(&endpoint, None, until).await
    }

    #[test]
    fn an_address_that_swallows_everything_leaves_time_for_the_next() {
        let any = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        let (hole, _waiting) = full(Domain::IPV4, &any);
        let hole = hole.local_addr().unwrap().as_socket().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        run(async || {
            let until = within(2_000);
            let stream = first_of(&[hole, good], until).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good);
            assert!(!until.is_over(Instant::now()));
            let in_vain = first_of(&[hole, hole], within(100)).await;
            assert!(matches!(in_vain, Err(ConnectError::TimedOut)));
        });
    }

    #[test]
    fn what_is_said_of_several_addresses_is_said_of_the_last() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        run(async || {
            let refused = first_of(&[gone, gone], Deadline::NEVER).await;
            assert!(matches!(refused, Err(ConnectError::Refused(_))));
        });
    }
}
