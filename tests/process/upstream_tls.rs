//! App servers with TLS: who is believed, and what is said of whoever is not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::CertificateParams;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::support::PATIENCE;
use crate::support::client::Response;
use crate::support::h2::origin::H2Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::tls::{AUTHORITY, Files, certificate, certificate_with};

/// Where the files of a test lie.
struct Ground {
    dir: TempDir,
}

impl Ground {
    fn new() -> Ground {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), AUTHORITY.pem()).unwrap();
        Ground { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// A certificate for an app server on this machine.
    fn good(&self) -> Files {
        certificate(self.path(), "good", &["localhost"])
    }

    fn launch(&self, endpoint: &str) -> Launch {
        let launch = Launch::before_addr(endpoint).arg("--workers").arg("1");
        launch.set("upstream.tls_ca", &self.ca().display().to_string())
    }
}

fn config(
    files: &Files,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&files.cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// An app server of HTTP/1.1 with TLS, which answers each request with its target and
/// what it was sent as SNI, and says on which connection. `/cut/…` gets a body that the
/// end of the connection ends, with a close_notify or without; behind `/close` it closes
/// unsaid; an Upgrade makes it an echo.
fn https(config: Arc<ServerConfig>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (nth, sock) in listener.incoming().enumerate() {
            let (sock, config) = (sock.unwrap(), Arc::clone(&config));
            std::thread::spawn(move || {
                sock.set_read_timeout(Some(PATIENCE)).unwrap();
                sock.set_nodelay(true).unwrap();
                let session = ServerConnection::new(config).unwrap();
                // A proxy that does not believe us leaves.
                let _left = serve(rustls::StreamOwned::new(session, sock), nth);
            });
        }
    });
    port
}

fn serve(
    mut tls: rustls::StreamOwned<ServerConnection, std::net::TcpStream>,
    nth: usize,
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            if tls.read(&mut octet)? == 0 {
                return Ok(());
            }
            head.push(octet[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        if let Some(how) = target.strip_prefix("/cut/") {
            tls.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome of it")?;
            if how == "well" {
                tls.conn.send_close_notify();
            }
            return tls.flush();
        }
        if head.contains("Upgrade: echo") {
            tls.write_all(b"HTTP/1.1 101 Ok\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
            let mut octets = [0; 1000];
            loop {
                let n = tls.read(&mut octets)?;
                tls.write_all(&octets[..n])?;
                tls.flush()?;
            }
        }
        let sni = tls.conn.server_name().unwrap_or_default().to_owned();
        let body = format!("{target} {sni}");
        let head = format!("HTTP/1.1 200 OK\r\nX-Nth: {nth}\r\nContent-Length: {}", body.len());
        write!(tls, "{head}\r\n\r\n{body}")?;
        tls.flush()?;
        if target == "/close" {
            // Not in the same breath: the response is over by then.
            crate::support::pause(crate::support::ms(5));
            tls.conn.send_close_notify();
            return tls.flush();
        }
    }
}

/// An app server that knows no TLS.
fn clear() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for sock in listener.incoming() {
            let mut sock = sock.unwrap();
            sock.set_read_timeout(Some(PATIENCE)).unwrap();
            let _something = sock.read(&mut [0; 1000]);
            let _said = sock.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    port
}

const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

fn asked(proxy: &Proxy, target: &str) -> Response {
    let mut client = proxy.client();
    client.get(target);
    client.response()
}

#[test]
fn http1_over_tls_is_served_again_and_again_over_one_connection() {
    for version in BOTH {
        let ground = Ground::new();
        let port = https(config(&ground.good(), &["http/1.1"], &[version]));
        let endpoint = format!("https://localhost:{port}");
        let proxy = ground.launch(&endpoint).set("upstream.idle_timeout", "60s").start();
        let mut client = proxy.client();
        for n in 0..5 {
            client.get(&format!("/{n}"));
            let response = client.response();
            assert_eq!(response.text(), format!("/{n} localhost"));
            assert_eq!(response.field("x-nth"), Some("0"), "over {version:?}");
        }
        let line = proxy.wait_access("a line", |line| line.contains("/4"));
        assert!(line.contains(&endpoint), "{line}");
    }
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_never_an_error() {
    let ground = Ground::new();
    let port = https(config(&ground.good(), &[], &BOTH));
    let launch = ground.launch(&format!("https://localhost:{port}"));
    let proxy = launch.set("upstream.idle_timeout", "60s").start();
    let mut client = proxy.client();
    for _ in 0..10 {
        // A method that is sent once: the end has to be seen before.
        client.post("/close", b"");
        assert_eq!(client.response().status, 200);
        crate::support::pause(crate::support::ms(20));
    }
}

#[test]
fn a_connection_with_tls_may_become_another_protocol() {
    let ground = Ground::new();
    let port = https(config(&ground.good(), &[], &BOTH));
    let launch = ground.launch(&format!("https://localhost:{port}"));
    let proxy = launch.set("upgrade_tokens", "echo").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.head().start.starts_with("HTTP/1.1 101 "));
    for word in ["hello", "again"] {
        client.send(word);
        assert_eq!(client.octets(5), word.as_bytes());
    }
}

#[test]
fn a_body_that_ends_with_its_connection_is_whole_only_with_close_notify() {
    let ground = Ground::new();
    let port = https(config(&ground.good(), &[], &BOTH));
    let proxy = ground.launch(&format!("https://localhost:{port}")).start();
    assert_eq!(asked(&proxy, "/cut/well").text(), "some of it");
    let mut client = proxy.client();
    client.get("/cut/short");
    let broken = client.try_response();
    assert!(broken.is_err(), "anybody could have cut it: {broken:?}");
}

#[test]
fn http2_over_tls_is_agreed_on_and_asked_for_https() {
    let ground = Ground::new();
    let origin = H2Origin::new();
    let proxy = ground.launch(&format!("h2://localhost:{}", origin.port())).start();
    let mut client = proxy.client();
    client.get("/secret");
    let mut peer = origin.accept_tls(&config(&ground.good(), &["h2"], &BOTH));
    peer.begin(&[]);
    let (stream, seen) = peer.whole_request();
    assert_eq!((seen.field(":scheme"), seen.field(":path")), (Some("https"), Some("/secret")));
    peer.answer(stream, "told");
    assert_eq!(client.response().text(), "told");
    proxy.terminate();
    peer.wait_end();
    proxy.wait_clean_exit();
}

#[track_caller]
fn is_refused(proxy: &Proxy, error: &str, word: &str, cause: &str) {
    let response = asked(proxy, "/x");
    assert_eq!(response.status, 502);
    let told = response.field("proxy-status").unwrap();
    assert!(told.contains(&format!("error={error}")), "{told}");
    let event = proxy.wait_event("request_failed");
    assert!(event.text("cause").contains(cause), "{}", event.fields);
    proxy.wait_access("a line", |line| line.contains(&format!("\"error\":\"{word}\"")));
}

#[test]
fn whoever_cannot_be_believed_is_refused_and_the_log_says_why() {
    const CERTIFICATE: (&str, &str) = ("tls_certificate_error", "connect_certificate");
    let long_ago = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    let ground = Ground::new();
    let kind = &rcgen::PKCS_ECDSA_P256_SHA256;
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let unknown = Files { cert: ground.path().join("own.pem"), key: ground.path().join("own.key") };
    std::fs::write(&unknown.cert, own.cert.pem()).unwrap();
    std::fs::write(&unknown.key, own.signing_key.serialize_pem()).unwrap();
    let cases = [
        (certificate(ground.path(), "other", &["other.test"]), "not valid for name"),
        (certificate_with(ground.path(), "old", &["localhost"], kind, long_ago), "expired"),
        (unknown, "UnknownIssuer"),
    ];
    for (files, cause) in cases {
        let port = https(config(&files, &["http/1.1", "h2"], &BOTH));
        for scheme in ["https", "h2"] {
            let proxy = ground.launch(&format!("{scheme}://localhost:{port}")).start();
            is_refused(&proxy, CERTIFICATE.0, CERTIFICATE.1, cause);
        }
    }
}

#[test]
fn http2_that_is_not_agreed_on_and_no_tls_at_all_are_refused() {
    const PROTOCOL: (&str, &str) = ("tls_protocol_error", "connect_tls");
    let ground = Ground::new();
    let silent = https(config(&ground.good(), &[], &BOTH));
    let proxy = ground.launch(&format!("h2://localhost:{silent}")).start();
    is_refused(&proxy, PROTOCOL.0, PROTOCOL.1, "did not agree to HTTP/2");
    let strict = https(config(&ground.good(), &["http/1.1"], &BOTH));
    let proxy = ground.launch(&format!("h2://localhost:{strict}")).start();
    is_refused(&proxy, PROTOCOL.0, PROTOCOL.1, "NoApplicationProtocol");
    let port = clear();
    let proxy = ground.launch(&format!("https://localhost:{port}")).start();
    is_refused(&proxy, PROTOCOL.0, PROTOCOL.1, "no TLS with the app server");
}

#[test]
fn another_name_may_be_asked_for() {
    let ground = Ground::new();
    let files = certificate(ground.path(), "inner", &["app.internal"]);
    let port = https(config(&files, &[], &BOTH));
    let endpoint = format!("https://127.0.0.1:{port}");
    let proxy = ground.launch(&endpoint).set("upstream.tls_name", "app.internal").start();
    assert_eq!(asked(&proxy, "/x").text(), "/x app.internal");
    let proxy = ground.launch(&endpoint).start();
    is_refused(&proxy, "tls_certificate_error", "connect_certificate", "not valid for name");
}

#[test]
fn who_is_refused_is_passed_over_for_another() {
    let ground = Ground::new();
    let other = certificate(ground.path(), "other", &["other.test"]);
    let bad = https(config(&other, &[], &BOTH));
    let good = https(config(&ground.good(), &[], &BOTH));
    let launch = ground.launch(&format!("https://localhost:{bad}"));
    let proxy = launch.arg("--upstream").arg(format!("https://localhost:{good}")).start();
    for n in 0..4 {
        let mut client = proxy.client();
        client.post(&format!("/{n}"), b"");
        assert_eq!(client.response().text(), format!("/{n} localhost"));
    }
}

#[test]
fn authorities_that_cannot_be_read_stop_the_start_and_are_all_named() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.pem");
    std::fs::write(&bad, "no certificate").unwrap();
    let proxy = Launch::before_addr("h2://app.internal:443")
        .set("upstream.tls_ca", &bad.display().to_string())
        .set("upstream.tls_name", "-bad-")
        .set("timeouts.head", "never")
        .spawn();
    assert_eq!(proxy.wait_exit().code(), 2);
    let said = proxy.said();
    for part in [
        "upstream.tls_ca: ",
        "bad.pem: found no PEM section",
        "upstream.tls_name: found ",
        "timeouts.head",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}
