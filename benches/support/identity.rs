//! One certificate for all proxies: ECDSA on P-256, as most sites have today.

use std::fs;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};

use super::{Error, host};

/// Files with a certificate and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The two in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
    /// The certificate, for a client that trusts it.
    pub(crate) der: Vec<u8>,
}

impl Identity {
    /// A new one, in the bench's own directory.
    pub(crate) fn new() -> Result<Self, Error> {
        let directory = host::scratch("identity")?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
        let (public, private) = (certificate.pem(), key.serialize_pem());
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).map(|()| path)
        };
        Ok(Self {
            both: write("both.pem", format!("{public}{private}"))?,
            certificate: write("certificate.pem", public)?,
            key: write("key.pem", private)?,
            der: certificate.der().to_vec(),
        })
    }
}

/// The name in the certificate.
pub(crate) const NAME: &str = "cost.example";
