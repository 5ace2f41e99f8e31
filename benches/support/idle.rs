//! Connections that have had one response and are held open, over TLS and HTTP/2.
//!
//! Blocking and one after the other: what is measured is what they cost the proxy
//! afterwards.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName};

use super::h2load::Work;
use super::identity::{Identity, NAME};
use super::proxy::Doors;
use super::{Error, message};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the proxy.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// The connections; closed on drop.
pub(crate) struct Idle {
    _wires: Vec<Box<dyn Wire>>,
}

impl Idle {
    /// So many connections, each idle after one request of this kind.
    pub(crate) fn connect(
        work: Work,
        doors: &Doors,
        identity: &Identity,
        count: usize,
    ) -> Result<Self, Error> {
        let config = client(identity, work)?;
        let one = |n: usize| -> Result<Box<dyn Wire>, Error> {
            let number = message::number(n as u64);
            match work {
                Work::H2 => Ok(Box::new(ask_h2(dial(doors.h2)?, &number)?)),
                Work::H1 => Ok(Box::new(ask_h1(dial(doors.h1)?, &number)?)),
                Work::H1Tls | Work::H2Tls | Work::Handshake => {
                    let socket = dial(doors.tls.ok_or("nobody listens for TLS")?)?;
                    let name = ServerName::try_from(NAME)?;
                    let session = ClientConnection::new(Arc::clone(&config), name)?;
                    let wire = StreamOwned::new(session, socket);
                    if work == Work::H2Tls {
                        return Ok(Box::new(ask_h2(wire, &number)?));
                    }
                    Ok(Box::new(ask_h1(wire, &number)?))
                }
            }
        };
        Ok(Self { _wires: (0..count).map(one).collect::<Result<_, _>>()? })
    }
}

fn dial(addr: std::net::SocketAddr) -> Result<TcpStream, Error> {
    let socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn client(identity: &Identity, work: Work) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(identity.der.clone()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // Full handshakes: a ticket would be used by the next connection.
    config.resumption = rustls::client::Resumption::disabled();
    let protocol = if work == Work::H2Tls { "h2" } else { "http/1.1" };
    config.alpn_protocols = vec![protocol.into()];
    Ok(Arc::new(config))
}

fn ask_h1<W: Wire>(mut wire: W, number: &message::Number) -> Result<W, Error> {
    wire.write_all(&message::request(number))?;
    wire.flush()?;
    let mut received = Vec::new();
    while !message::check_response(&received, number)? {
        let mut octets = [0; 4096];
        let read = wire.read(&mut octets)?;
        if read == 0 {
            return Err("the proxy closed a connection".into());
        }
        received.extend_from_slice(&octets[..read]);
    }
    Ok(wire)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// One request on stream 1, and its response; settings are acknowledged.
fn ask_h2<W: Wire>(mut wire: W, number: &message::Number) -> Result<W, Error> {
    // From HPACK's static table: `:method: GET`, `:scheme: http`; then literals for
    // `:path` and `:authority`.
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(4, [b"/cost/", &number[..]].concat()), (1, NAME.into())] {
        block.push(name);
        block.push(u8::try_from(value.len())?);
        block.extend(value);
    }
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    wire.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &request].concat())?;
    wire.flush()?;
    let (mut status, mut body, mut acknowledged, mut ended) = (0, Vec::new(), false, false);
    while !(ended && acknowledged) {
        let mut head = [0; 9];
        wire.read_exact(&mut head)?;
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        wire.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                wire.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
                wire.flush()?;
                acknowledged = true;
            }
            // Past a change of the table's size, if any: 0x88 is `:status: 200`.
            HEADERS => {
                let octet = payload.iter().find(|octet| **octet & 0xe0 != 0x20);
                status = octet.copied().unwrap_or(0);
            }
            DATA => body.extend(payload),
            _ => {}
        }
        ended |= (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0;
    }
    let right = status == 0x88 && body.len() == message::BODY && body.starts_with(number);
    if right { Ok(wire) } else { Err("a wrong response over HTTP/2".into()) }
}
