//! Binding, and the process's own copy of a listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket as RawSocket, TcpKeepalive, Type};

use super::accept::Acceptor;
use super::plug::Spare;
use crate::config::Listen;
use crate::handoff::Keeper;
use crate::handoff::path::{self, SocketFile};
use crate::limits::{BACKLOG, KEEPALIVE_AFTER, KEEPALIVE_EVERY, KEEPALIVE_TIMES};

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A TCP address.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A socket of the service manager's.
    #[error("cannot listen on {listen}: {why}")]
    Passed {
        /// The address asked for.
        listen: String,
        /// Why.
        why: String,
    },
    /// A unix socket.
    #[error("cannot listen on unix:{}", path.display())]
    Unix {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why there is no listener at `fd:NAME`.
pub const NOT_PASSED: &str = "systemd has opened no socket of this name for this process (in a \
                              socket unit: FileDescriptorName=)";

impl BindError {
    /// What is opened by the service manager cannot be bound here.
    pub fn not_passed(listen: &Listen) -> Self {
        BindError::Passed { listen: listen.to_string(), why: NOT_PASSED.to_owned() }
    }
}

/// A bound listening socket. Dropping it closes this process's copy at once;
/// [`super::close()`] does it without resetting anybody.
#[derive(Debug)]
pub struct Listener {
    pub(super) kind: Kind,
    /// What a successor finds it by.
    pub(super) name: String,
    pub(super) secure: bool,
    /// Another generation holds the same socket.
    pub(super) held: bool,
    /// How a service manager holds the same socket, if one does.
    pub(super) keeper: Option<Keeper>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Copies have nothing to spare.
    Tcp { socket: TcpListener, address: SocketAddr, spare: Option<Spare> },
    Unix {
        socket: UnixListener,
        path: PathBuf,
        /// Copies have none, and those who listen elsewhere than they are told.
        file: Option<SocketFile>,
    },
}

impl Listener {
    /// Binds and listens, for clients that speak TLS or for such that do not.
    /// Connections are accepted by the kernel from here on.
    pub fn bind(listen: &Listen, secure: bool) -> Result<Self, BindError> {
        let kind = match listen {
            Listen::Tcp(address) => {
                bind_tcp(*address).map_err(|source| BindError::Tcp { address: *address, source })?
            }
            Listen::Fd(_) => return Err(BindError::not_passed(listen)),
            Listen::Unix { path, mode } => bind_unix(path, *mode)
                .map_err(|source| BindError::Unix { path: path.clone(), source })?,
        };
        Ok(Listener { kind, name: Listener::name_of(listen), secure, held: false, keeper: None })
    }

    /// Another descriptor of the same open socket, for the runtime of the
    /// calling thread.
    pub fn acceptor(&self) -> io::Result<Acceptor> {
        match &self.kind {
            Kind::Tcp { socket, .. } => Acceptor::tcp(socket.try_clone()?),
            Kind::Unix { socket, .. } => Acceptor::unix(socket.try_clone()?),
        }
    }

    /// A copy that can be sent to another thread to become an [`Acceptor`] there.
    pub fn share(&self) -> io::Result<Listener> {
        let kind = match &self.kind {
            Kind::Tcp { socket, address, .. } => {
                Kind::Tcp { socket: socket.try_clone()?, address: *address, spare: None }
            }
            Kind::Unix { socket, path, .. } => {
                Kind::Unix { socket: socket.try_clone()?, path: path.clone(), file: None }
            }
        };
        Ok(Listener {
            kind,
            name: self.name.clone(),
            secure: self.secure,
            held: self.held,
            keeper: self.keeper,
        })
    }

    /// Whether its clients speak TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The port, where there is one.
    pub fn port(&self) -> Option<u16> {
        match &self.kind {
            Kind::Tcp { address, .. } => Some(address.port()),
            Kind::Unix { .. } => None,
        }
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Tcp { address, .. } => address.fmt(f),
            Kind::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp { socket, .. } => socket.as_fd(),
            Kind::Unix { socket, .. } => socket.as_fd(),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Kind> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    inheritable(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from(socket);
    let address = socket.local_addr()?;
    let spare = Some(Spare::new(&socket, address)?);
    Ok(Kind::Tcp { socket, address, spare })
}

/// Sets what accepted sockets inherit.
pub(super) fn inheritable(socket: &RawSocket) -> io::Result<()> {
    // One system call less for each of them.
    socket.set_tcp_nodelay(true)?;
    // A client whose machine has gone without a word is noticed even where nothing is
    // ever sent to it.
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TIMES);
    socket.set_tcp_keepalive(&keepalive)
}

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Kind> {
    let (socket, file) = path::bind(path, Type::STREAM, mode, BACKLOG)?;
    let socket = UnixListener::from(OwnedFd::from(socket));
    Ok(Kind::Unix { socket, path: path.to_path_buf(), file: Some(file) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn accepted_connections_inherit_what_was_set_once() {
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind(&listen, false).unwrap();
        let _client =
            std::net::TcpStream::connect(("127.0.0.1", listener.port().unwrap())).unwrap();
        let Kind::Tcp { socket, .. } = &listener.kind else { panic!("no TCP listener") };
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), KEEPALIVE_EVERY);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), KEEPALIVE_TIMES);
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listen = Listen::Unix { path: path.clone(), mode: Some(0o660) };
        let first = Listener::bind(&listen, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(Listener::bind(&listen, false).is_err());
        drop(first);
        assert!(!path.exists(), "it goes with its listener");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::bind(&listen, false).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&listen, false).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
