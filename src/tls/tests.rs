//! Certificates as operators have them, and sessions against a client of rustls.

use std::io::{IoSlice, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme};

use super::certs::{Loaded, Remark, Side, load};
use super::sni::Choice;
use super::{Identity, Session, Settings, Tickets, provider};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str) -> CertificateParams {
    let names = if name.contains('.') { vec![name.to_owned()] } else { Vec::new() };
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str, above: Option<&Issuer>) -> Issuer {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    match above {
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
        Some(above) => CertifiedIssuer::signed_by(params, key, above).unwrap(),
    }
}

fn pem(issuer: &Issuer) -> String {
    let cert: &rcgen::Certificate = issuer.as_ref();
    cert.pem()
}

/// A directory of files, and what `load` makes of them.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, cert: &str, key: &str) -> Result<Loaded, Vec<Remark>> {
        let pair = (self.write("cert.pem", cert), self.write("key.pem", key));
        load(&[pair], SystemTime::now())
    }

    /// What is wrong, without the directory.
    #[track_caller]
    fn wrong(&self, cert: &str, key: &str) -> Vec<String> {
        let dir = format!("{}/", self.0.path().display());
        let wrong = self.load(cert, key).unwrap_err();
        for remark in &wrong {
            let file = if remark.side == Side::Cert { "cert.pem" } else { "key.pem" };
            assert_eq!(remark.path.file_name().unwrap(), file);
        }
        wrong.iter().map(|remark| remark.to_string().replace(&dir, "")).collect()
    }
}

struct Made {
    cert: String,
    key: String,
}

fn leaf(name: &str, issuer: &Issuer, change: impl FnOnce(&mut CertificateParams)) -> Made {
    leaf_of(name, issuer, &rcgen::PKCS_ECDSA_P256_SHA256, change)
}

fn leaf_of(
    name: &str,
    issuer: &Issuer,
    kind: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> Made {
    let mut params = params(name);
    change(&mut params);
    let key = KeyPair::generate_for(kind).unwrap();
    let cert = params.signed_by(&key, issuer).unwrap().pem();
    Made { cert, key: key.serialize_pem() }
}

const CERT: &str =
    "allowed: a PEM file with the server's own certificate first, then those that issued it";
const KEY: &str = "allowed: a PEM file with one private key that is not encrypted";

#[test]
fn a_chain_in_order_with_its_key_is_an_identity() {
    let root = authority("root", None);
    let middle = authority("middle", Some(&root));
    let made = leaf("app.test", &middle, |params| {
        params.subject_alt_names.push(rcgen::SanType::DnsName("*.App.test".try_into().unwrap()));
    });
    let chain = [made.cert.as_str(), &pem(&middle), &pem(&root)].concat();
    let loaded = Files::new().load(&chain, &made.key).unwrap();
    assert_eq!(loaded.identities[0].names, ["app.test", "*.app.test"]);
    assert_eq!(loaded.warnings, []);
    // A file may hold more than is asked of it.
    assert!(Files::new().load(&[made.key.as_str(), &made.cert].concat(), &made.key).is_ok());
}

#[test]
fn files_that_are_not_what_they_should_be_are_told() {
    let root = authority("root", None);
    let made = leaf("app.test", &root, |_| {});
    let files = Files::new();
    assert_eq!(
        files.wrong(&made.key, &made.cert),
        [
            format!("cert.pem: found PRIVATE KEY; {CERT}"),
            format!("key.pem: found CERTIFICATE; {KEY}"),
        ]
    );
    assert_eq!(
        files.wrong("", "hello"),
        [
            format!("cert.pem: found no PEM section; {CERT}"),
            format!("key.pem: found no PEM section; {KEY}"),
        ]
    );
    let locked = made.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let two = [made.key.as_str(), &made.key].concat();
    for (key, found) in [(locked, "ENCRYPTED PRIVATE KEY"), (two, "PRIVATE KEY, PRIVATE KEY")] {
        assert_eq!(files.wrong(&made.cert, &key), [format!("key.pem: found {found}; {KEY}")]);
    }
    let (half, _) = made.cert.split_at(made.cert.len() / 2);
    let wrong = files.wrong(half, &made.key);
    assert!(
        wrong[0].starts_with("cert.pem: malformed PEM (no -----END CERTIFICATE-----);"),
        "{wrong:?}"
    );
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let wrong = files.wrong(&[made.cert.as_str(), empty].concat(), &made.key);
    assert!(wrong[0].starts_with("cert.pem: certificate 2 is malformed ("), "{wrong:?}");
    let nothing = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let wrong = files.wrong(&made.cert, nothing);
    assert!(wrong[0].starts_with("key.pem: found a key that cannot be used ("), "{wrong:?}");
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let none = |name: &str| Path::new("/nowhere").join(name);
    let pairs = [(none("a.pem"), none("a.key")), (none("b.pem"), none("b.key"))];
    let wrong = load(&pairs, SystemTime::now()).unwrap_err();
    assert_eq!(wrong.len(), 4);
    assert!(wrong[3].to_string().starts_with("/nowhere/b.key: cannot read it: "), "{}", wrong[3]);
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let root = authority("root", None);
    let (ours, theirs) = (leaf("a.test", &root, |_| {}), leaf("b.test", &root, |_| {}));
    assert_eq!(
        Files::new().wrong(&ours.cert, &theirs.key),
        ["key.pem: this key does not match the certificate in cert.pem (CN=a.test); allowed: \
          the key of that certificate"]
    );
}

#[test]
fn a_chain_in_the_wrong_order_is_told() {
    let root = authority("root", None);
    let middle = authority("middle", Some(&root));
    let made = leaf("app.test", &middle, |_| {});
    let files = Files::new();
    let reversed = [pem(&root).as_str(), &pem(&middle), &made.cert].concat();
    assert_eq!(
        files.wrong(&reversed, &made.key),
        [format!(
            "cert.pem: wrong order: the first certificate (CN=root) is not the server's own, that \
             is certificate 3 (CN=app.test); {CERT}"
        )]
    );
    let swapped = [made.cert.as_str(), &pem(&root), &pem(&middle)].concat();
    assert_eq!(
        files.wrong(&swapped, &made.key),
        [format!(
            "cert.pem: wrong order: certificate 2 (CN=root) did not issue certificate 1 \
             (CN=app.test); {CERT}"
        )]
    );
}

#[test]
fn the_time_of_a_certificate_is_told() {
    let root = authority("root", None);
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let valid = |from: SystemTime, to: SystemTime| {
        leaf("app.test", &root, |params| {
            (params.not_before, params.not_after) = (from.into(), to.into());
        })
    };
    let files = Files::new();
    let old = valid(now - 9 * day, now - day);
    let wrong = files.wrong(&old.cert, &old.key);
    assert!(
        wrong[0].starts_with("cert.pem: certificate 1 (CN=app.test) has expired on "),
        "{wrong:?}"
    );
    let young = valid(now + day, now + 9 * day);
    let wrong = files.wrong(&young.cert, &young.key);
    assert!(
        wrong[0].starts_with("cert.pem: certificate 1 (CN=app.test) is not valid before "),
        "{wrong:?}"
    );
    let soon = valid(now - day, now + 6 * day);
    let warnings = files.load(&soon.cert, &soon.key).unwrap().warnings;
    assert!(warnings[0].to_string().contains("expires soon"), "{warnings:?}");
    let later = valid(now - day, now + 8 * day);
    assert_eq!(files.load(&later.cert, &later.key).unwrap().warnings, []);
}

fn identities(made: &[Made]) -> Vec<Identity> {
    let load = |made: &Made| Files::new().load(&made.cert, &made.key).unwrap().identities.remove(0);
    made.iter().map(load).collect()
}

#[test]
fn the_name_chooses_and_then_the_kind_of_signature() {
    let root = authority("root", None);
    let ed = &rcgen::PKCS_ED25519;
    let all = identities(&[
        leaf("first.test", &root, |_| {}),
        leaf("app.test", &root, |_| {}),
        leaf_of("app.test", &root, ed, |_| {}),
        leaf("*.app.test", &root, |_| {}),
        leaf_of("x.app.test", &root, ed, |_| {}),
    ]);
    let choice = Choice::new(&all);
    let (p256, ed) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
    let rsa = SignatureScheme::RSA_PSS_SHA256;
    for (name, schemes, want) in [
        (Some("first.test"), &[ed, p256][..], Some(0)),
        (Some("App.Test"), &[ed, p256], Some(1)),
        (Some("app.test"), &[ed], Some(2)),
        (Some("y.app.test"), &[p256], Some(3)),
        (Some("x.app.test"), &[p256, ed], Some(4)),
        (Some("x.app.test"), &[p256], Some(3)),
        (Some("y.x.app.test"), &[p256], Some(0)),
        (Some("unknown.test"), &[p256], Some(0)),
        (Some("unknown.test"), &[ed], Some(2)),
        (None, &[p256], Some(0)),
        (Some("first.test"), &[ed], None),
        (None, &[rsa], None),
    ] {
        let picked = choice.pick(name, schemes);
        let place = |key: &Arc<_>| all.iter().position(|one| Arc::ptr_eq(&one.key, key));
        assert_eq!(picked.as_ref().and_then(place), want, "{name:?} {schemes:?}");
    }
}

/// A client and a server with nothing between them.
struct Ends {
    client: ClientConnection,
    server: Box<Session>,
}

impl Ends {
    fn new(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let root = authority("root", None);
        let all = identities(&[leaf("app.test", &root, |_| {})]);
        let settings = Settings::new(&all, Arc::new(Tickets::new().unwrap())).unwrap();
        let mut roots = RootCertStore::empty();
        let cert: &rcgen::Certificate = root.as_ref();
        roots.add(cert.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("app.test").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        Ends { client, server: settings.session().unwrap() }
    }

    fn shaken() -> Self {
        let mut ends = Ends::new(rustls::ALL_VERSIONS);
        while ends.client.is_handshaking() || ends.server.is_handshaking() {
            let up = ends.up();
            assert_eq!(ends.server.feed(&up, &mut []).unwrap(), 0);
            ends.down();
        }
        ends
    }

    /// What the client would send.
    fn up(&mut self) -> Vec<u8> {
        let mut up = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut up).unwrap();
        }
        up
    }

    /// What the client sends of this plaintext.
    fn record(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.set_buffer_limit(None);
        self.client.writer().write_all(plain).unwrap();
        self.up()
    }

    /// Gives the client what the server has to send; how many records it was.
    fn down(&mut self) -> usize {
        let mut down = Vec::new();
        self.server.send(&mut down).unwrap();
        let (mut records, mut at) = (0, 0);
        while at < down.len() {
            at += 5 + usize::from(u16::from_be_bytes([down[at + 3], down[at + 4]]));
            records += 1;
        }
        let mut rest = &down[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets().unwrap();
        }
        records
    }
}

#[test]
fn a_handshake_is_seen_milestone_by_milestone() {
    for version in rustls::ALL_VERSIONS {
        let mut ends = Ends::new(&[version]);
        let hello = ends.up();
        let (first, second) = hello.split_at(hello.len() / 2);
        ends.server.feed(first, &mut []).unwrap();
        assert!(!ends.server.is_greeted() && !ends.server.is_pending());
        ends.server.feed(second, &mut []).unwrap();
        assert!(ends.server.is_greeted() && ends.server.is_handshaking());
        ends.down();
        let finished = ends.up();
        ends.server.feed(&finished, &mut []).unwrap();
        assert!(!ends.server.is_handshaking() && ends.server.is_h2());
        assert_eq!(ends.server.unread(), 0);
    }
}

#[test]
fn more_plaintext_than_there_is_room_for_waits_and_comes_in_order() {
    let mut ends = Ends::shaken();
    let plain: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = ends.record(&plain);
    let mut got = Vec::new();
    let mut room = [0; 1000];
    for piece in sent.chunks(33_000) {
        let mut n = ends.server.feed(piece, &mut room).unwrap();
        while n > 0 {
            got.extend_from_slice(&room[..n]);
            n = ends.server.take(&mut room).unwrap();
        }
    }
    assert!(got == plain);
    assert_eq!((ends.server.unread(), ends.server.is_inside()), (0, false));
}

#[test]
fn octets_of_a_record_that_is_not_whole_are_unread() {
    let mut ends = Ends::shaken();
    let record = ends.record(b"hello");
    let (first, second) = record.split_at(9);
    assert_eq!(ends.server.feed(first, &mut [0; 10]).unwrap(), 0);
    assert!(ends.server.is_inside() && ends.server.unread() > 0);
    assert_eq!(ends.server.feed(second, &mut [0; 2]).unwrap(), 2);
    assert_eq!((ends.server.unread(), ends.server.is_inside()), (3, false));
}

#[test]
fn several_pieces_become_one_record() {
    let mut ends = Ends::shaken();
    let pieces = [IoSlice::new(b"head"), IoSlice::new(b"body")];
    assert_eq!(ends.server.put(&pieces).unwrap(), 8);
    assert_eq!(ends.down(), 1);
    let mut got = [0; 8];
    ends.client.reader().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"headbody");
}

#[test]
fn what_came_before_an_error_or_an_end_is_still_taken() {
    let mut ends = Ends::shaken();
    let mut sent = ends.record(b"good");
    let mut touched = ends.record(b"bad");
    *touched.last_mut().unwrap() ^= 1;
    sent.extend(touched);
    let mut room = [0; 100];
    assert_eq!(ends.server.feed(&sent, &mut room).unwrap(), 4);
    assert!(ends.server.take(&mut room).is_err());
    assert!(ends.server.is_pending(), "an alert");

    let mut ends = Ends::shaken();
    let mut sent = ends.record(b"last");
    ends.client.send_close_notify();
    sent.extend(ends.up());
    sent.extend([0; 50]);
    assert_eq!(ends.server.feed(&sent, &mut room).unwrap(), 4);
    assert!(ends.server.is_closed());
    assert_eq!(ends.server.take(&mut room).unwrap(), 0);
    assert_eq!(ends.server.unread(), 0);
}

#[test]
fn an_error_in_a_handshake_is_told_at_once() {
    let mut ends = Ends::new(rustls::ALL_VERSIONS);
    assert!(ends.server.feed(&[22, 3, 1, 0, 4, 99, 0, 0, 0], &mut []).is_err());
    assert!(ends.server.is_pending());
}

#[test]
fn nothing_is_said_at_the_end_unless_it_is_asked_for() {
    let mut ends = Ends::shaken();
    assert!(!ends.server.is_pending());
    ends.server.end();
    ends.server.end();
    assert_eq!(ends.down(), 1, "one close_notify");
    assert!(ends.client.process_new_packets().unwrap().peer_has_closed());
}
