//! A certificate and its key, in files, for a test that speaks TLS.

use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

/// An ECDSA P-256 key and the certificate that it signed for itself, for `localhost`
/// and `127.0.0.1`; the files go on drop.
#[derive(Debug)]
pub(crate) struct Identity {
    directory: TempDir,
    /// The certificate, as DER.
    pub(crate) certificate: Vec<u8>,
    /// The key, as PKCS #8.
    pub(crate) key: Vec<u8>,
}

impl Identity {
    /// A new one.
    pub(crate) fn new() -> Identity {
        let directory = TempDir::new().expect("a directory");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names for a certificate");
        let certificate = params.self_signed(&key).expect("a certificate");
        let write = |name: &str, pem: String| std::fs::write(directory.path().join(name), pem);
        write("cert.pem", certificate.pem()).expect("a certificate file");
        write("key.pem", key.serialize_pem()).expect("a key file");
        Identity { directory, certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }

    /// The file with the certificate.
    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// The file with the key.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }
}
