//! TLS from the client's side, over rustls on a blocking socket, and certificates
//! to serve with.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore,
    SupportedProtocolVersion,
};

use super::PATIENCE;
use super::client::{Framing, Response};
use super::process::{Launch, Proxy};
use super::wire::{End, Head, Place, find};

/// The name that [`served`] certificates are for, and that clients ask for.
pub(crate) const NAME: &str = "app.test";

/// Who issues the certificates of the tests.
pub(crate) static AUTHORITY: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, "ebbtide tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
});

/// A certificate file and its key file.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The chain.
    pub(crate) cert: PathBuf,
    /// The key.
    pub(crate) key: PathBuf,
}

/// Writes a certificate of [`AUTHORITY`] for these names, and its key, into `dir`.
pub(crate) fn certificate(dir: &Path, stem: &str, names: &[&str]) -> Files {
    certificate_with(dir, stem, names, &rcgen::PKCS_ECDSA_P256_SHA256, |_| {})
}

/// The same with another kind of key, and with parameters changed.
pub(crate) fn certificate_with(
    dir: &Path,
    stem: &str,
    names: &[&str],
    kind: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> Files {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, stem);
    change(&mut params);
    let key = KeyPair::generate_for(kind).expect("a key");
    let cert = params.signed_by(&key, &AUTHORITY).expect("a certificate");
    let files =
        Files { cert: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}.key")) };
    std::fs::write(&files.cert, cert.pem()).expect("a file");
    std::fs::write(&files.key, key.serialize_pem()).expect("a file");
    files
}

/// A certificate for [`NAME`] that is there as long as the test process.
pub(crate) fn served() -> Files {
    static SERVED: LazyLock<(tempfile::TempDir, Files)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let files = certificate(dir.path(), "served", &[NAME]);
        (dir, files)
    });
    SERVED.1.clone()
}

/// How clients of one kind behave; sessions are resumed among those of one [`Manner`].
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    config: ClientConfig,
    name: String,
}

impl Manner {
    /// TLS 1.2 and 1.3, no ALPN, nothing resumed.
    pub(crate) fn new() -> Manner {
        Manner::with_versions(rustls::ALL_VERSIONS)
    }

    /// Only these versions.
    pub(crate) fn with_versions(versions: &[&'static SupportedProtocolVersion]) -> Manner {
        Manner::with(rustls::crypto::aws_lc_rs::default_provider(), versions)
    }

    /// With other cryptography.
    pub(crate) fn with(
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Manner {
        let mut roots = RootCertStore::empty();
        roots.add(AUTHORITY.as_ref().der().clone()).expect("a root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Manner { config, name: NAME.to_owned() }
    }

    /// Offers these protocols.
    pub(crate) fn alpn(mut self, protocols: &[&str]) -> Manner {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        self.config.alpn_protocols = protocols.collect();
        self
    }

    /// Asks for this name.
    pub(crate) fn name(mut self, name: &str) -> Manner {
        self.name = name.to_owned();
        self
    }

    /// Comes again with the tickets it got.
    pub(crate) fn resuming(mut self) -> Manner {
        self.config.resumption = Resumption::in_memory_sessions(16);
        self
    }

    /// The client's side of a connection on which nothing was said yet.
    pub(crate) fn session(&self) -> ClientConnection {
        let name = ServerName::try_from(self.name.clone()).expect("a name");
        ClientConnection::new(Arc::new(self.config.clone()), name).expect("a session")
    }

    /// A connection on which nothing was said yet, not even a ClientHello.
    #[track_caller]
    pub(crate) fn connect(&self, place: &Place) -> TlsClient {
        self.try_connect(place).unwrap_or_else(|end| panic!("connect to {place}: {end:?}"))
    }

    /// The same, or why not.
    pub(crate) fn try_connect(&self, place: &Place) -> Result<TlsClient, End> {
        self.connect_with(place, None)
    }

    /// The same with a receive buffer of about `octets`: a client that cannot take much.
    pub(crate) fn connect_narrow(&self, place: &Place, octets: usize) -> TlsClient {
        self.connect_with(place, Some(octets))
            .unwrap_or_else(|end| panic!("connect to {place}: {end:?}"))
    }

    fn connect_with(&self, place: &Place, narrow: Option<usize>) -> Result<TlsClient, End> {
        let sock = place.socket();
        if let Some(octets) = narrow {
            sock.set_recv_buffer_size(octets).expect("a receive buffer");
        }
        sock.connect_timeout(&place.sock_addr(), PATIENCE).map_err(|e| End::of(&e))?;
        let sock = TcpStream::from(sock);
        sock.set_nodelay(true).expect("no delay");
        sock.set_read_timeout(Some(PATIENCE)).expect("a bound");
        sock.set_write_timeout(Some(PATIENCE)).expect("a bound");
        Ok(TlsClient { conn: self.session(), sock, ahead: Vec::new(), closed: false })
    }
}

/// How a TLS connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsEnd {
    /// close_notify, then FIN.
    Clean,
    /// FIN without close_notify: what came before may have been cut.
    Truncated,
    /// A reset.
    Reset,
    /// Nothing within the bound.
    TimedOut,
}

/// A client with TLS. [`Read`] and [`Write`] are of plaintext; a read of 0 is
/// close_notify, an end without it is [`io::ErrorKind::UnexpectedEof`].
#[derive(Debug)]
pub(crate) struct TlsClient {
    /// The session.
    pub(crate) conn: ClientConnection,
    /// The socket below it.
    pub(crate) sock: TcpStream,
    ahead: Vec<u8>,
    closed: bool,
}

impl Read for TlsClient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.conn.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            self.read_records()?;
        }
    }
}

impl Write for TlsClient {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.shake()?;
        let n = self.conn.writer().write(octets)?;
        self.flush()?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.conn.wants_write() {
            self.conn.write_tls(&mut self.sock)?;
        }
        Ok(())
    }
}

impl TlsClient {
    /// Reads once from the socket.
    fn read_records(&mut self) -> io::Result<()> {
        self.flush()?;
        self.conn.read_tls(&mut self.sock)?;
        let state = self.conn.process_new_packets();
        let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        self.closed |= state?.peer_has_closed();
        self.flush()
    }

    /// Completes the handshake.
    pub(crate) fn shake(&mut self) -> io::Result<&mut TlsClient> {
        while self.conn.is_handshaking() {
            self.flush()?;
            if !self.conn.is_handshaking() {
                break;
            }
            if self.conn.read_tls(&mut self.sock)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let state = self.conn.process_new_packets();
            state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        self.flush()?;
        Ok(self)
    }

    /// Completes the handshake.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub(crate) fn shaken(mut self) -> TlsClient {
        self.shake().unwrap_or_else(|error| panic!("no handshake: {error}"));
        self
    }

    /// The ciphertext that the session would send now, kept from the socket.
    pub(crate) fn take_flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.conn.wants_write() {
            self.conn.write_tls(&mut flight).expect("a vector takes all");
        }
        flight
    }

    /// Sends the ciphertext that the session has to send now, and waits for no answer.
    pub(crate) fn take_flight_out(&mut self) {
        let flight = self.take_flight();
        self.send_raw(&flight);
    }

    /// Reads the server's part of the handshake, and answers nothing yet.
    #[track_caller]
    pub(crate) fn read_flight(&mut self) {
        while !self.conn.wants_write() {
            assert_ne!(self.conn.read_tls(&mut self.sock).expect("the server's flight"), 0);
            self.conn.process_new_packets().expect("a handshake");
        }
    }

    /// Whether the connection ends within `length`; what comes is not looked at.
    pub(crate) fn has_end_within(&mut self, length: Duration) -> bool {
        self.sock.set_read_timeout(Some(length)).expect("a bound");
        let end = loop {
            match self.sock.read(&mut [0; 1]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                end => break end,
            }
        };
        self.sock.set_read_timeout(Some(PATIENCE)).expect("a bound");
        match end {
            Ok(0) => true,
            Ok(_) => panic!("octets where nothing was due"),
            Err(error) => end_of(&error) != TlsEnd::TimedOut,
        }
    }

    /// Reads whatever comes below TLS, to the end of the connection.
    #[track_caller]
    pub(crate) fn wait_end(&mut self) {
        let mut chunk = [0; 4096];
        loop {
            match self.sock.read(&mut chunk) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return assert_eq!(end_of(&error), TlsEnd::Reset),
            }
        }
    }

    /// Writes to the socket itself, below TLS.
    pub(crate) fn send_raw(&mut self, octets: &[u8]) -> &mut TlsClient {
        self.sock.write_all(octets).expect("the connection takes it");
        self
    }

    /// Writes plaintext.
    #[track_caller]
    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) -> &mut TlsClient {
        self.try_send(octets)
            .unwrap_or_else(|error| panic!("the connection took no more: {error}"));
        self
    }

    /// Writes plaintext, or says why not.
    pub(crate) fn try_send(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.write_all(octets.as_ref())
    }

    /// Sends a GET.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> &mut TlsClient {
        self.send(super::client::get(target))
    }

    /// The version agreed on.
    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.conn.protocol_version()
    }

    /// Whether the session was resumed.
    pub(crate) fn is_resumed(&self) -> bool {
        self.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that was shown.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        self.conn.peer_certificates().expect("a certificate")[0].clone().into_owned()
    }

    /// Reads more plaintext ahead; how the connection ended if none comes.
    fn fill(&mut self) -> Result<(), TlsEnd> {
        let mut chunk = [0; 64 * 1024];
        match self.read(&mut chunk) {
            Ok(0) => Err(self.fin_after_close()),
            Ok(n) => {
                self.ahead.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(TlsEnd::Truncated),
            Err(error) => Err(end_of(&error)),
        }
    }

    /// After close_notify there is to be a FIN and nothing before it.
    fn fin_after_close(&mut self) -> TlsEnd {
        match self.sock.read(&mut [0; 1]) {
            Ok(0) => TlsEnd::Clean,
            Ok(_) => panic!("octets after close_notify"),
            Err(error) => end_of(&error),
        }
    }

    /// Reads a head.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        self.try_head().unwrap_or_else(|end| panic!("{end:?} instead of a head"))
    }

    fn try_head(&mut self) -> Result<Head, TlsEnd> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                let raw: Vec<u8> = self.ahead.drain(..at + 4).collect();
                return Ok(Head::parse(&raw));
            }
            self.fill()?;
        }
    }

    /// Reads `len` octets.
    #[track_caller]
    pub(crate) fn octets(&mut self, len: usize) -> Vec<u8> {
        while self.ahead.len() < len {
            self.fill()
                .unwrap_or_else(|end| panic!("{end:?} after {} of {len} octets", self.ahead.len()));
        }
        self.ahead.drain(..len).collect()
    }

    /// Reads the response to a GET that has a length.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let head = self.head();
        let status = head.start.get(9..12).and_then(|s| s.parse().ok()).expect("a status");
        let length = head.field("content-length").and_then(|v| v.parse().ok());
        let body = self.octets(length.unwrap_or_else(|| panic!("no length: {head:?}")));
        let (trailers, interim) = (Vec::new(), Vec::new());
        Response { status, head, body, trailers, interim, framing: Framing::Length }
    }

    /// The same, or how the connection ended and what had come.
    pub(crate) fn try_response(&mut self) -> Result<Response, (TlsEnd, Vec<u8>)> {
        loop {
            let whole = find(&self.ahead, b"\r\n\r\n").is_some_and(|at| {
                let length = Head::parse(&self.ahead[..at + 4])
                    .field("content-length")
                    .and_then(|length| length.parse::<usize>().ok());
                length.is_some_and(|length| self.ahead.len() >= at + 4 + length)
            });
            if whole {
                return Ok(self.response());
            }
            if let Err(end) = self.fill() {
                return Err((end, self.ahead.clone()));
            }
        }
    }

    /// The end of the connection, and what came before it.
    pub(crate) fn rest(&mut self) -> (TlsEnd, Vec<u8>) {
        loop {
            if let Err(end) = self.fill() {
                return (end, std::mem::take(&mut self.ahead));
            }
        }
    }

    /// The end of the connection, before which nothing comes.
    #[track_caller]
    pub(crate) fn end(&mut self) -> TlsEnd {
        let (end, got) = self.rest();
        assert!(got.is_empty(), "octets where the end was due: {:?}", super::client::show(&got));
        end
    }

    /// Asserts that nothing at all comes for `length`.
    #[track_caller]
    pub(crate) fn hears_nothing_for(&mut self, length: Duration) {
        let start = Instant::now();
        self.sock.set_read_timeout(Some(length)).expect("a bound");
        let end = self.fill();
        self.sock.set_read_timeout(Some(PATIENCE)).expect("a bound");
        assert_eq!(end, Err(TlsEnd::TimedOut), "after {:?}", start.elapsed());
    }

    /// Whether octets or an end wait in the kernel, without waiting.
    pub(crate) fn has_news(&self) -> bool {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        !matches!(
            rustix::net::recv(self.sock.as_fd(), &mut [0u8; 1][..], flags),
            Err(rustix::io::Errno::AGAIN)
        )
    }

    /// Sends close_notify and goes on reading.
    pub(crate) fn half_close(&mut self) {
        self.conn.send_close_notify();
        self.flush().expect("close_notify goes out");
    }
}

fn end_of(error: &io::Error) -> TlsEnd {
    match End::of(error) {
        End::TimedOut => TlsEnd::TimedOut,
        End::Reset => TlsEnd::Reset,
        end => panic!("{end:?} is no end of TLS"),
    }
}

impl Launch {
    /// Also listens with TLS, as [`NAME`].
    pub(crate) fn tls(self) -> Launch {
        self.arg("--tls-listen").arg("127.0.0.1:0").identity(&served())
    }

    /// Has one more certificate.
    pub(crate) fn identity(self, files: &Files) -> Launch {
        let path = |path: &Path| path.display().to_string();
        self.arg("--cert").arg(path(&files.cert)).arg("--key").arg(path(&files.key))
    }
}

impl Proxy {
    /// Where clients with TLS connect.
    pub(crate) fn tls_place(&self) -> Place {
        self.place_of("https", 0)
    }

    /// A new client with TLS that has shaken hands.
    #[track_caller]
    pub(crate) fn tls_client(&self) -> TlsClient {
        Manner::new().connect(&self.tls_place()).shaken()
    }

    /// A client with TLS that is served once and then idle.
    #[track_caller]
    pub(crate) fn idle_tls_client(&self) -> TlsClient {
        let mut client = self.tls_client();
        let response = client.get("/warm").response();
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(!response.says_close(), "a connection that stays");
        client
    }
}
