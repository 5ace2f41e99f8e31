//! An established connection, TCP or unix, clear or with TLS, and every act on it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::limits::{TLS_READ_MAX, TLS_READ_MIN};
use crate::tls::Session;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A peer on a unix socket, which has no address.
    Unix,
    /// This process itself, which asks whether it serves: on a unix socket, and nobody's
    /// business.
    Own,
}

/// What a connection is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection.
    Tcp,
    /// A unix socket.
    Unix,
}

impl Peer {
    /// What its own connection is made of.
    pub fn transport(&self) -> Transport {
        match self {
            Peer::Tcp(_) => Transport::Tcp,
            Peer::Unix | Peer::Own => Transport::Unix,
        }
    }

    /// The peer's address, an IPv4 one also where it came through an IPv6 socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Unix | Peer::Own => None,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) => {
                SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f)
            }
            Peer::Unix => f.write_str("unix:"),
            Peer::Own => f.write_str("itself"),
        }
    }
}

/// What a connection is doing on which nothing is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing: the next response will be to the next request.
    Quiet,
    /// It says something that nobody has asked for.
    Speaks,
    /// It has ended.
    Ended,
}

/// A connection registered with the runtime of this thread, in clear text or
/// with TLS on it: who reads and writes need not know.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    tls: Option<Box<Session>>,
}

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

thread_local! {
    /// Ciphertext on its way from the kernel to rustls, which would take it in
    /// small pieces by itself.
    static CIPHERTEXT: RefCell<Box<[u8]>> = RefCell::new(vec![0; TLS_READ_MAX].into());
}

impl Socket {
    /// A connection in clear text.
    pub(super) fn new(stream: Stream) -> Self {
        Socket { stream, tls: None }
    }

    /// Takes a connection that no runtime knows; it must be non-blocking.
    pub fn adopt(fd: OwnedFd, transport: Transport, tls: Option<Box<Session>>) -> io::Result<Self> {
        let stream = match transport {
            Transport::Tcp => TcpStream::from_std(fd.into()).map(Stream::Tcp),
            Transport::Unix => UnixStream::from_std(fd.into()).map(Stream::Unix),
        };
        Ok(Socket { stream: stream?, tls })
    }

    /// Gives the connection back, known to no runtime any more.
    pub fn release(self) -> io::Result<(OwnedFd, Option<Box<Session>>)> {
        let fd = match self.stream {
            Stream::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Stream::Unix(stream) => stream.into_std().map(OwnedFd::from),
        };
        Ok((fd?, self.tls))
    }

    /// From here on everything passes through this session.
    pub fn secure(&mut self, session: Box<Session>) {
        self.tls = Some(session);
    }

    /// Drives the TLS handshake to its end, and until the kernel has taken all
    /// of it.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(())) };
        CIPHERTEXT.with_borrow_mut(|ciphertext| {
            loop {
                let sent = send_tls(&mut self.stream, tls, cx)?;
                if !tls.is_handshaking() {
                    return sent.map(Ok);
                }
                let n = ready!(self.stream.poll_read(cx, &mut ciphertext[..TLS_READ_MIN]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                // Plaintext that has come along stays where it is.
                if let Err(broken) = tls.feed(&ciphertext[..n], &mut []) {
                    let _unheard = send_tls(&mut self.stream, tls, cx);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, broken)));
                }
            }
        })
    }

    /// What it is made of.
    pub fn transport(&self) -> Transport {
        match self.stream {
            Stream::Tcp(_) => Transport::Tcp,
            Stream::Unix(_) => Transport::Unix,
        }
    }

    /// Whether it has a TLS session.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The TLS session, if it has one.
    pub fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Whether HTTP/2 was agreed on in the TLS handshake.
    pub fn alpn_h2(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_h2())
    }

    /// Reads what is there; 0 is the end of the stream.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => self.stream.poll_read(cx, into),
            Some(tls) => read_tls(&mut self.stream, tls, cx, into),
        }
    }

    /// Writes as much as the kernel takes; with TLS, as much as is encrypted at
    /// once, of which [`Self::poll_flush`] brings out the rest.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => self.stream.poll_write(cx, octets),
            Some(tls) => write_tls(&mut self.stream, tls, cx, &[IoSlice::new(octets)]),
        }
    }

    /// Writes as much of several pieces as the kernel takes, or as is encrypted at once.
    #[inline]
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => self.stream.poll_write_vectored(cx, pieces),
            Some(tls) => write_tls(&mut self.stream, tls, cx, pieces),
        }
    }

    /// Waits until the kernel has taken all that was written.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => send_tls(&mut self.stream, tls, cx),
        }
    }

    /// Says that nothing more will be written: FIN, and close_notify before it.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            tls.end();
            ready!(send_tls(&mut self.stream, tls, cx))?;
        }
        Poll::Ready(fin(&*self))
    }

    /// Whether something can be read, be it the end. Asks the runtime, not the
    /// kernel: it sees what has happened up to the last turn of the event loop.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.as_ref().is_some_and(|tls| tls.unread() > 0) {
            return Poll::Ready(Ok(()));
        }
        match &self.stream {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Looks at what the kernel has, just before something is asked: the runtime's last
    /// news may be as old as a turn of the event loop. Costs one system call. With TLS
    /// what is not of the application, tickets for one, is taken in on the way.
    #[inline]
    pub fn look(&mut self) -> Look {
        if let Some(tls) = &mut self.tls {
            return look_tls(&self.stream, tls);
        }
        match recv(&*self, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Look::Quiet,
            Ok((1.., _)) => Look::Speaks,
            Ok(_) | Err(_) => Look::Ended,
        }
    }

    /// Whether the end that was read is one that the peer has said: with TLS anybody on
    /// the way could have cut the rest off.
    pub fn has_ended_well(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_closed())
    }

    /// How many octets there are that nobody has read. With TLS they may turn
    /// out to be none of the peer's own.
    pub fn unread(&self) -> usize {
        unread(self) + self.tls.as_ref().map_or(0, |tls| tls.unread())
    }

    /// Whether a TLS record has begun to come and is not whole.
    pub fn is_inside_record(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_inside())
    }

    /// Makes the coming close a reset, or an ordinary one again, so that a body
    /// that ends with its connection can not be taken for a whole one.
    pub fn reset_on_close(&self, reset: bool) {
        // On a socket that is gone already there is nothing left to reset.
        let _gone = SockRef::from(self).set_linger(reset.then_some(Duration::ZERO));
    }
}

impl Stream {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(into);
        match self {
            Stream::Tcp(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buf))?,
            Stream::Unix(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buf))?,
        }
        Poll::Ready(Ok(buf.filled().len()))
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, octets),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    #[inline]
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }
}

fn read_tls(
    stream: &mut Stream,
    tls: &mut Session,
    cx: &mut Context<'_>,
    into: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut plain = tls.take(into);
    CIPHERTEXT.with_borrow_mut(|ciphertext| {
        // Little more than `into` takes: the rest is better kept by the kernel.
        let most = into.len().clamp(TLS_READ_MIN, TLS_READ_MAX);
        loop {
            match plain {
                Ok(0) if tls.is_closed() || into.is_empty() => return Poll::Ready(Ok(0)),
                Ok(0) => {}
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(broken) => {
                    // The alert goes out if it can: a peer that breaks TLS may not read.
                    let _unheard = send_tls(stream, tls, cx);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, broken)));
                }
            }
            let ciphertext = &mut ciphertext[..most];
            let n = ready!(stream.poll_read(cx, ciphertext))?;
            if n == 0 {
                // Without close_notify: what a request lacks then shows by itself.
                return Poll::Ready(Ok(0));
            }
            plain = tls.feed(&ciphertext[..n], into);
            if tls.is_pending() {
                // What is not of the application: a handshake, an alert. What
                // the kernel does not take now goes with the next write.
                let _later = send_tls(stream, tls, cx)?;
            }
        }
    })
}

fn write_tls(
    stream: &mut Stream,
    tls: &mut Session,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    // Only one piece is held beside the kernel's: a slow reader slows us down.
    ready!(send_tls(stream, tls, cx))?;
    let n = tls.put(pieces)?;
    if n == 0 && pieces.iter().any(|piece| !piece.is_empty()) {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    match send_tls(stream, tls, cx) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        _ => Poll::Ready(Ok(n)),
    }
}

/// Brings all ciphertext out.
fn send_tls(stream: &mut Stream, tls: &mut Session, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match tls.send(&mut Out { stream, cx }) {
        Ok(()) => Poll::Ready(Ok(())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}

/// A stream as rustls wants it; whoever would block is woken.
struct Out<'a, 'b> {
    stream: &'a mut Stream,
    cx: &'a mut Context<'b>,
}

impl io::Write for Out<'_, '_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(octets)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.stream.poll_write_vectored(self.cx, pieces) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// See [`Socket::look`].
fn look_tls(stream: &Stream, tls: &mut Session) -> Look {
    CIPHERTEXT.with_borrow_mut(|ciphertext| {
        loop {
            if tls.has_plaintext() {
                return Look::Speaks;
            }
            match recv(stream, &mut ciphertext[..TLS_READ_MIN], RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => return Look::Quiet,
                Ok((n @ 1.., _)) if tls.feed(&ciphertext[..n], &mut []).is_ok() => {}
                Ok(_) | Err(_) => return Look::Ended,
            }
            if tls.is_closed() {
                return Look::Ended;
            }
        }
    })
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Says on a connection that no runtime knows that nothing more will be
/// written. Waits for nothing: a peer that does not read misses the close_notify.
pub fn end(fd: impl AsFd, tls: Option<&mut Session>) -> io::Result<()> {
    if let Some(tls) = tls {
        tls.end();
        let _unheard = tls.send(&mut Now(fd.as_fd()));
    }
    fin(fd)
}

/// A descriptor to which nobody waits to write.
struct Now<'a>(BorrowedFd<'a>);

impl io::Write for Now<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many octets the kernel holds to be read from `fd`.
pub fn unread(fd: impl AsFd) -> usize {
    rustix::io::ioctl_fionread(fd).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Sends FIN on `fd`.
fn fin(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(fd, Shutdown::Write)?)
}

/// Reads what has come on `fd` and shows each piece: how many octets, and
/// whether the peer has ended its side.
pub fn discard(fd: impl AsFd, scratch: &mut [u8], mut show: impl FnMut(&[u8])) -> (usize, bool) {
    let mut octets = 0;
    loop {
        match recv(&fd, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return (octets, true),
            Ok((n, _)) => {
                show(&scratch[..n]);
                octets += n;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return (octets, false),
            Err(_) => return (octets, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream as Plain;
    use std::sync::Arc;
    use std::time::SystemTime;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::*;
    use crate::tls::{Settings, Tickets, certs};

    type Client = StreamOwned<ClientConnection, Plain>;

    /// A socket with a session on it, and a client that has not said anything yet.
    fn ends() -> (Socket, Client) {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
        let pair = (dir.path().join("cert"), dir.path().join("key"));
        std::fs::write(&pair.0, made.cert.pem()).unwrap();
        std::fs::write(&pair.1, made.signing_key.serialize_pem()).unwrap();
        let identities = certs::load(&[pair], SystemTime::now()).unwrap().identities;
        let settings = Settings::new(&identities, Arc::new(Tickets::new().unwrap())).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("app.test").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let (ours, theirs) = Plain::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let socket = Socket::adopt(ours.into(), Transport::Unix, Some(settings.session().unwrap()));
        (socket.unwrap(), StreamOwned::new(client, theirs))
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_take_is_out_only_after_a_flush() {
        let (mut socket, mut client) = ends();
        let piece = vec![b'x'; 50_000];
        let (go, gone) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            client.conn.complete_io(&mut client.sock).unwrap();
            let wanted: usize = gone.recv().unwrap();
            client.read_exact(&mut vec![0; wanted]).unwrap();
            client.write_all(b"bye").unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty());
        });
        poll_fn(|cx| socket.poll_handshake(cx)).await.unwrap();
        let mut written = 0;
        let full = poll_fn(|cx| {
            while let Poll::Ready(n) = socket.poll_write(cx, &piece) {
                written += n.unwrap();
            }
            Poll::Ready(socket.poll_flush(cx).is_pending())
        });
        assert!(full.await, "there is ciphertext that the kernel has not taken");
        go.send(written).unwrap();
        poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
        let mut got = [0; 10];
        assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut got)).await.unwrap(), 3);
        assert_eq!(&got[..3], b"bye");
        poll_fn(|cx| socket.poll_end(cx)).await.unwrap();
        reader.join().unwrap();
    }
}
