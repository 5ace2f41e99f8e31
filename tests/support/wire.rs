//! HTTP/1.1 as octets, read by hand: nothing here shares code with the proxy.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, Socket, Type};

/// Where somebody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl Place {
    /// Reads `HOST:PORT` or `unix:PATH`.
    pub(crate) fn parse(text: &str) -> Place {
        match text.strip_prefix("unix:") {
            Some(path) => Place::Unix(path.split(',').next().unwrap_or_default().into()),
            None => Place::Tcp(text.parse().unwrap_or_else(|_| panic!("no address: {text}"))),
        }
    }

    /// The socket address.
    pub(crate) fn sock_addr(&self) -> SockAddr {
        match self {
            Place::Tcp(addr) => SockAddr::from(*addr),
            Place::Unix(path) => unix_addr(path),
        }
    }

    /// A new socket that fits.
    pub(crate) fn socket(&self) -> Socket {
        let domain = match self {
            Place::Tcp(SocketAddr::V4(_)) => Domain::IPV4,
            Place::Tcp(SocketAddr::V6(_)) => Domain::IPV6,
            Place::Unix(_) => Domain::UNIX,
        };
        Socket::new(domain, Type::STREAM, None).expect("a socket")
    }

    /// The TCP port.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Place::Tcp(addr) => addr.port(),
            Place::Unix(path) => panic!("{} has no port", path.display()),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp(addr) => addr.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn unix_addr(path: &Path) -> SockAddr {
    debug_assert!(UnixAddr::from_pathname(path).is_ok(), "path too long for a socket");
    SockAddr::unix(path).expect("a unix socket address")
}

/// A message head as it stood on the wire, and taken apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// The octets, with the empty line.
    pub(crate) raw: Vec<u8>,
    /// The start line, without CRLF.
    pub(crate) start: String,
    /// The fields in order, names as sent.
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// Takes a head apart.
    pub(crate) fn parse(raw: &[u8]) -> Head {
        let text = String::from_utf8_lossy(raw);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(':') {
                Some((name, value)) => (name.to_owned(), value.trim().to_owned()),
                None => (line.to_owned(), String::new()),
            })
            .collect();
        Head { raw: raw.to_vec(), start, fields }
    }

    /// The one value of a field, or `None`.
    ///
    /// # Panics
    /// When the field was sent twice.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} twice: {all:?}");
        all.first().copied()
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a list field names `token`.
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        let values = self.all(name);
        values.iter().flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// Whether this says `Connection: close`.
    pub(crate) fn says_close(&self) -> bool {
        self.lists("connection", "close")
    }
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer's FIN.
    Eof,
    /// The peer's RST, or a broken pipe.
    Reset,
    /// Nobody listens.
    Refused,
    /// Nothing within the bound.
    TimedOut,
}

impl End {
    /// What an error of a socket says about its connection.
    pub(crate) fn of(error: &io::Error) -> End {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::ConnectionAborted => End::Reset,
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => End::Refused,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => End::TimedOut,
            _ => panic!("an error that no test expects: {error:?}"),
        }
    }
}

/// A socket with what was read from it and not used yet.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The socket.
    pub(crate) sock: Socket,
    /// Octets read ahead.
    pub(crate) ahead: Vec<u8>,
}

impl Wire {
    /// A wire over a connected socket.
    pub(crate) fn new(sock: Socket) -> Wire {
        Wire { sock, ahead: Vec::new() }
    }

    /// Reads more octets; how the connection ended if there are none to come.
    pub(crate) fn fill(&mut self) -> Result<(), End> {
        let mut chunk = [0; 64 * 1024];
        match self.sock.read(&mut chunk) {
            Ok(0) => Err(End::Eof),
            Ok(n) => {
                self.ahead.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(End::of(&error)),
        }
    }

    /// Reads up to and with the first empty line.
    pub(crate) fn head(&mut self) -> Result<Head, End> {
        let mut seen = 0;
        loop {
            if let Some(at) = find(&self.ahead[seen..], b"\r\n\r\n") {
                return Ok(Head::parse(&self.take(seen + at + 4)));
            }
            seen = self.ahead.len().saturating_sub(3);
            self.fill()?;
        }
    }

    /// Reads one line, without its CRLF.
    pub(crate) fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n") {
                let line = self.take(at + 2);
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill()?;
        }
    }

    /// Reads `len` octets to the end of `into`; what came before an early end stays in `into`.
    pub(crate) fn exactly(&mut self, len: usize, into: &mut Vec<u8>) -> Result<(), End> {
        let mut missing = len;
        while missing > 0 {
            if self.ahead.is_empty() {
                self.fill()?;
            }
            let n = missing.min(self.ahead.len());
            into.extend(self.ahead.drain(..n));
            missing -= n;
        }
        Ok(())
    }

    /// Reads a chunked body and its trailers.
    pub(crate) fn chunked(&mut self, into: &mut Vec<u8>) -> Result<Vec<(String, String)>, End> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            self.exactly(size, into)?;
            let end = self.line()?;
            assert!(end.is_empty(), "a chunk longer than its size: {end:?}");
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => trailers.push((name.to_owned(), value.trim().to_owned())),
                None => return Ok(trailers),
            }
        }
    }

    /// Reads to the end of the connection.
    pub(crate) fn until_end(&mut self, into: &mut Vec<u8>) -> End {
        loop {
            into.append(&mut self.ahead);
            if let Err(end) = self.fill() {
                return end;
            }
        }
    }

    /// Looks whether the peer has ended the connection, without waiting.
    pub(crate) fn ended(&self) -> Option<End> {
        let mut octet = [MaybeUninit::<u8>::uninit(); 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.sock, &mut octet[..], flags) {
            Ok((_, 0)) => Some(End::Eof),
            Ok(_) => None,
            Err(error) => match End::of(&error.into()) {
                End::TimedOut => None,
                end => Some(end),
            },
        }
    }

    /// Writes all of it.
    pub(crate) fn send(&mut self, octets: &[u8]) -> Result<(), End> {
        self.sock.write_all(octets).map_err(|error| End::of(&error))
    }

    /// The bound on each read.
    pub(crate) fn read_bound(&self, bound: Duration) {
        let bound = bound.max(Duration::from_millis(1));
        self.sock.set_read_timeout(Some(bound)).expect("a bound on reads");
    }

    /// The bound on each write.
    pub(crate) fn write_bound(&self, bound: Duration) {
        self.sock.set_write_timeout(Some(bound)).expect("a bound on writes");
    }

    /// Closes with a reset instead of a FIN.
    pub(crate) fn reset(&self) {
        self.sock.set_linger(Some(Duration::ZERO)).expect("linger of zero");
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        self.ahead.drain(..len).collect()
    }
}

/// Where `needle` begins.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
