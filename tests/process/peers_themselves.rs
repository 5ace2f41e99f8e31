//! The clients of other make see a loss when there is one: each meets a server that
//! refuses its streams without having warned it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::identity::Identity;
use crate::support::peers::{
    CURL_H1, CURL_H2, CURL_PRIOR, Counts, GO_H1, GO_H2, H2LOAD, Kind, NGHTTP, PYTHON, Peer, Target,
};
use crate::support::wire::Place;

const PREFACE: usize = 24;
const HEADERS: u8 = 1;

/// An empty SETTINGS, and a GOAWAY of which no stream is below the last one.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Reads HTTP/2 up to the first request and refuses it.
fn refuse(mut client: impl Read + Write) -> std::io::Result<()> {
    client.write_all(SETTINGS)?;
    client.flush()?;
    client.read_exact(&mut [0; PREFACE])?;
    let mut kind = 0;
    while kind != HEADERS {
        let mut head = [0; 9];
        client.read_exact(&mut head)?;
        kind = head[3];
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        client.read_exact(&mut vec![0; length as usize])?;
    }
    client.write_all(GOAWAY)?;
    client.flush()?;
    drain(client)
}

/// Reads an HTTP/1 request and closes without an answer.
fn hang_up(mut client: impl Read + Write) -> std::io::Result<()> {
    client.read_exact(&mut [0; 16])
}

/// Reads on until the client has gone: a close with octets unread would reset the
/// connection and take the GOAWAY with it.
fn drain(mut client: impl Read) -> std::io::Result<()> {
    while client.read(&mut [0; 4096])? > 0 {}
    Ok(())
}

/// How a server treats a connection.
#[derive(Clone, Copy)]
enum Treats {
    Refuse,
    HangUp,
}

fn serve(client: impl Read + Write, how: Treats) -> std::io::Result<()> {
    match how {
        Treats::Refuse => refuse(client),
        Treats::HangUp => hang_up(client),
    }
}

fn tls(identity: &Identity, how: Treats) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(&identity.files.cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&identity.files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("TLS 1.2 and 1.3").with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).expect("a certificate");
    config.alpn_protocols = match how {
        Treats::Refuse => vec![b"h2".to_vec()],
        Treats::HangUp => vec![b"http/1.1".to_vec()],
    };
    Arc::new(config)
}

/// Treats one connection so, and listens no longer.
fn one_bad_connection(how: Treats, config: Option<Arc<ServerConfig>>) -> (Place, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::Tcp(listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (socket, _): (TcpStream, _) = listener.accept().unwrap();
        drop(listener);
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // However it ends, the client is who has to say so.
        let _ = match config {
            None => serve(socket, how),
            Some(config) => {
                let session = ServerConnection::new(config).expect("a TLS server");
                serve(StreamOwned::new(session, socket), how)
            }
        };
    });
    (place, thread)
}

fn counts_of(kind: Kind, how: Treats, over_tls: bool) -> Counts {
    let identity = over_tls.then(Identity::new);
    let config = identity.as_ref().map(|identity| tls(identity, how));
    let (place, server) = one_bad_connection(how, config);
    let trusted = identity.as_ref().map(|identity| identity.authority.clone());
    let counts = Peer::start(kind, &Target { place, trusted, seed: 1 }).wait().1;
    server.join().unwrap();
    counts
}

#[track_caller]
fn sees_a_loss(kind: Kind, how: Treats, over_tls: bool) {
    let counts = counts_of(kind, how, over_tls);
    assert!(counts.lost > 0, "{}: {counts:?}", kind.name);
    assert_eq!(counts.ok, 0, "{}: {counts:?}", kind.name);
}

#[test]
fn peer_python_sees_refused_streams() {
    sees_a_loss(PYTHON, Treats::Refuse, false);
    sees_a_loss(PYTHON, Treats::Refuse, true);
}

#[test]
fn peer_go_sees_refused_streams() {
    sees_a_loss(GO_H2, Treats::Refuse, true);
}

#[test]
fn peer_go_sees_an_http1_request_without_an_answer() {
    sees_a_loss(GO_H1, Treats::HangUp, true);
}

#[test]
fn peer_curl_sees_refused_streams() {
    sees_a_loss(CURL_PRIOR, Treats::Refuse, false);
    sees_a_loss(CURL_H2, Treats::Refuse, true);
}

#[test]
fn peer_curl_sees_an_http1_request_without_an_answer() {
    sees_a_loss(CURL_H1, Treats::HangUp, true);
}

#[test]
fn peer_h2load_sees_refused_streams() {
    sees_a_loss(H2LOAD, Treats::Refuse, false);
    sees_a_loss(H2LOAD, Treats::Refuse, true);
}

#[test]
fn peer_nghttp_sees_refused_streams() {
    sees_a_loss(NGHTTP, Treats::Refuse, false);
    sees_a_loss(NGHTTP, Treats::Refuse, true);
}
