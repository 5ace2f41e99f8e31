//! What carries the octets: a socket, or TLS over one.

use std::io::{Read, Write};

use rustls::{ClientConnection, StreamOwned};
use socket2::{SockRef, Socket};

use crate::support::PATIENCE;
use crate::support::tls::Manner;
use crate::support::wire::Place;

/// A connection without HTTP/2 on it yet.
pub(crate) trait Link: Read + Write + Send {
    /// The socket below.
    fn sock(&self) -> SockRef<'_>;

    /// The scheme of requests over it.
    fn scheme(&self) -> &'static str;
}

impl Link for Socket {
    fn sock(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    fn scheme(&self) -> &'static str {
        "http"
    }
}

impl Link for StreamOwned<ClientConnection, Socket> {
    fn sock(&self) -> SockRef<'_> {
        SockRef::from(self.get_ref())
    }

    fn scheme(&self) -> &'static str {
        "https"
    }
}

/// Connects a socket.
///
/// # Panics
/// When nobody accepts.
pub(crate) fn clear(place: &Place) -> Socket {
    connected(place.socket(), place)
}

/// Connects a socket with a receive buffer of about so many octets.
///
/// # Panics
/// When nobody accepts.
pub(crate) fn narrow(place: &Place, octets: usize) -> Socket {
    let sock = place.socket();
    sock.set_recv_buffer_size(octets).expect("a receive buffer");
    connected(sock, place)
}

fn connected(sock: Socket, place: &Place) -> Socket {
    let connected = match place {
        Place::Tcp(_) => sock.connect_timeout(&place.sock_addr(), PATIENCE),
        Place::Unix(_) => sock.connect(&place.sock_addr()),
    };
    connected.unwrap_or_else(|error| panic!("connect to {place}: {error}"));
    if matches!(place, Place::Tcp(_)) {
        sock.set_tcp_nodelay(true).expect("no delay");
    }
    sock.set_read_timeout(Some(PATIENCE)).expect("a bound on reads");
    sock.set_write_timeout(Some(PATIENCE)).expect("a bound on writes");
    sock
}

/// Speaks TLS over a socket, with `h2` agreed upon.
///
/// # Panics
/// When they do not agree.
pub(crate) fn encrypted(sock: Socket) -> StreamOwned<ClientConnection, Socket> {
    encrypted_by(sock, Manner::new().alpn(&["h2"]).session())
}

/// The same with a session of the test's own.
pub(crate) fn encrypted_by(
    sock: Socket,
    session: ClientConnection,
) -> StreamOwned<ClientConnection, Socket> {
    let mut tls = StreamOwned::new(session, sock);
    while tls.conn.is_handshaking() {
        let done = tls.conn.complete_io(&mut tls.sock);
        done.unwrap_or_else(|error| panic!("TLS: {error}"));
    }
    assert_eq!(tls.conn.alpn_protocol(), Some(&b"h2"[..]), "the protocol agreed upon");
    tls
}
