//! Certificates and keys: from files to identities, or everything that is wrong.
//!
//! Owns the wording: each problem names its file, what was found and what would
//! have been allowed. Nothing here stops at the first.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::{self, SectionKind};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use super::provider;
use crate::limits::{CERT_EXPIRY_WARNING, CERT_FILE_MAX};

/// Who the server says it is: a chain, its key, and the names it is good for.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// Host names in lower case, `*.example.org` among them.
    pub(super) names: Vec<String>,
}

/// Which file of a pair is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The certificate chain.
    Cert,
    /// The private key.
    Key,
}

/// Something that is wrong, or odd, about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Which file of its pair.
    pub side: Side,
    /// The file.
    pub path: PathBuf,
    /// What was found and what would have been allowed.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.text)
    }
}

/// Identities and what is odd about them.
#[derive(Debug, Default)]
pub struct Loaded {
    /// One for each pair, in order.
    pub identities: Vec<Identity>,
    /// Fine today, but not for long.
    pub warnings: Vec<Remark>,
}

const CERT_WANTED: &str =
    "a PEM file with the server's own certificate first, then those that issued it";
const KEY_WANTED: &str = "a PEM file with one private key that is not encrypted";

/// Loads all pairs of certificate chain and key, as of `now`.
///
/// # Errors
///
/// Everything that is wrong with any of the files.
pub fn load(pairs: &[(PathBuf, PathBuf)], now: SystemTime) -> Result<Loaded, Vec<Remark>> {
    let mut loaded = Loaded::default();
    let mut wrong = Vec::new();
    for (cert, key) in pairs {
        let mut pair = Pair { cert, key, now, warnings: &mut loaded.warnings };
        match pair.load() {
            Ok(identity) => loaded.identities.push(identity),
            Err(remarks) => wrong.extend(remarks),
        }
    }
    if wrong.is_empty() { Ok(loaded) } else { Err(wrong) }
}

struct Pair<'a> {
    cert: &'a Path,
    key: &'a Path,
    now: SystemTime,
    warnings: &'a mut Vec<Remark>,
}

/// What one certificate says, as far as it is needed.
struct Facts {
    subject: Vec<u8>,
    issuer: Vec<u8>,
    /// The subject for people.
    shown: String,
    names: Vec<String>,
}

impl Pair<'_> {
    fn load(&mut self) -> Result<Identity, Vec<Remark>> {
        let mut wrong = Vec::new();
        let chain = self.chain().map_err(|text| wrong.push(self.remark(Side::Cert, text)));
        let key = self.private_key().map_err(|text| wrong.push(self.remark(Side::Key, text)));
        let mut facts = Vec::new();
        for (place, der) in chain.iter().flatten().enumerate() {
            match self.facts(place, der) {
                Ok((fact, times)) => {
                    wrong.extend(times.map(|text| self.remark(Side::Cert, text)));
                    facts.push(fact);
                }
                Err(text) => wrong.push(self.remark(Side::Cert, text)),
            }
        }
        let (Ok(chain), Ok(key)) = (chain, key) else { return Err(wrong) };
        if facts.len() < chain.len() {
            return Err(wrong);
        }
        let certified = match provider().key_provider.load_private_key(key) {
            Ok(key) => CertifiedKey::new(chain, key),
            Err(error) => {
                let text = format!(
                    "found a key that cannot be used ({error}); allowed: ECDSA P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits or more"
                );
                wrong.push(self.remark(Side::Key, text));
                return Err(wrong);
            }
        };
        wrong.extend(self.misfit(&certified, &facts));
        let names = facts.into_iter().next().map(|leaf| leaf.names).unwrap_or_default();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Identity { key: Arc::new(certified), names })
    }

    fn remark(&self, side: Side, text: String) -> Remark {
        let path = match side {
            Side::Cert => self.cert,
            Side::Key => self.key,
        };
        Remark { side, path: path.to_owned(), text }
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let sections = sections(self.cert, CERT_WANTED)?;
        let chain: Vec<_> = sections
            .found
            .into_iter()
            .filter(|(kind, _)| *kind == SectionKind::Certificate)
            .map(|(_, der)| CertificateDer::from(der))
            .collect();
        if chain.is_empty() { Err(misplaced(&sections.labels, CERT_WANTED)) } else { Ok(chain) }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let sections = sections(self.key, KEY_WANTED)?;
        let mut keys = sections.found.into_iter().filter_map(|(kind, der)| match kind {
            SectionKind::PrivateKey => Some(PrivatePkcs8KeyDer::from(der).into()),
            SectionKind::RsaPrivateKey => Some(PrivatePkcs1KeyDer::from(der).into()),
            SectionKind::EcPrivateKey => Some(PrivateSec1KeyDer::from(der).into()),
            _ => None,
        });
        match (keys.next(), keys.next()) {
            (Some(key), None) => Ok(key),
            _ => Err(misplaced(&sections.labels, KEY_WANTED)),
        }
    }

    /// What the certificate says, and what is wrong with its time.
    fn facts(&mut self, place: usize, der: &[u8]) -> Result<(Facts, Option<String>), String> {
        let nth = nth(place);
        let (_, cert) = X509Certificate::from_der(der)
            .map_err(|error| format!("{nth} is malformed ({error}); allowed: {CERT_WANTED}"))?;
        let shown = cert.subject().to_string();
        let since = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let (begins, ends) = (cert.validity().not_before, cert.validity().not_after);
        let mut wrong = None;
        if now < begins.timestamp() {
            wrong = Some(untimely(&nth, &shown, "is not valid before", begins));
        } else if now > ends.timestamp() {
            wrong = Some(untimely(&nth, &shown, "has expired on", ends));
        } else if left(ends.timestamp(), now) < CERT_EXPIRY_WARNING {
            let text = format!("{nth} ({shown}) expires soon, on {ends}");
            self.warnings.push(self.remark(Side::Cert, text));
        }
        let names = cert.subject_alternative_name().ok().flatten();
        let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let facts = Facts {
            subject: cert.subject().as_raw().to_vec(),
            issuer: cert.issuer().as_raw().to_vec(),
            shown,
            names: names.collect(),
        };
        Ok((facts, wrong))
    }

    /// What does not fit together: the key, the order.
    fn misfit(&self, certified: &CertifiedKey, facts: &[Facts]) -> Option<Remark> {
        let first = &facts[0].shown;
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let fits = |der: &CertificateDer<'static>| {
                    CertifiedKey::new(vec![der.clone()], Arc::clone(&certified.key)).keys_match()
                };
                return Some(match certified.cert.iter().position(|der| fits(der).is_ok()) {
                    Some(place) => self.remark(
                        Side::Cert,
                        format!(
                            "wrong order: the first certificate ({first}) is not the server's own, \
                         that is {} ({}); allowed: {CERT_WANTED}",
                            nth(place),
                            facts[place].shown,
                        ),
                    ),
                    None => self.remark(
                        Side::Key,
                        format!(
                            "this key does not match the certificate in {} ({first}); allowed: the \
                         key of that certificate",
                            self.cert.display(),
                        ),
                    ),
                });
            }
            Err(error) => {
                let text = format!("the first certificate ({first}) cannot be used ({error})");
                return Some(self.remark(Side::Cert, text));
            }
        }
        let gap = facts.windows(2).position(|two| two[0].issuer != two[1].subject)?;
        Some(self.remark(
            Side::Cert,
            format!(
                "wrong order: {} ({}) did not issue {} ({}); allowed: {CERT_WANTED}",
                nth(gap + 1),
                facts[gap + 1].shown,
                nth(gap),
                facts[gap].shown,
            ),
        ))
    }
}

pub(super) fn nth(place: usize) -> String {
    format!("certificate {}", place + 1)
}

fn untimely(nth: &str, shown: &str, how: &str, when: ASN1Time) -> String {
    format!("{nth} ({shown}) {how} {when}; allowed: one that is valid now")
}

fn left(ends: i64, now: i64) -> Duration {
    Duration::from_secs(u64::try_from(ends.saturating_sub(now)).unwrap_or(0))
}

pub(super) struct Sections {
    pub(super) found: Vec<(SectionKind, Vec<u8>)>,
    /// What the sections call themselves, also those that nobody knows.
    pub(super) labels: Vec<String>,
}

/// Takes a PEM file apart.
pub(super) fn sections(path: &Path, wanted: &str) -> Result<Sections, String> {
    let mut octets = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CERT_FILE_MAX).read_to_end(&mut octets))
        .map_err(|error| format!("cannot read it: {error}; allowed: {wanted}"))?;
    let text = String::from_utf8_lossy(&octets);
    let label =
        |line: &str| Some(line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?.to_owned());
    let labels = text.lines().filter_map(|line| label(line.trim())).collect();
    let mut found = Vec::new();
    let mut rest = &octets[..];
    loop {
        match pem::from_buf(&mut rest) {
            Ok(Some(section)) => found.push(section),
            Ok(None) => return Ok(Sections { found, labels }),
            Err(error) => {
                return Err(format!("malformed PEM ({}); allowed: {wanted}", why(&error)));
            }
        }
    }
}

/// The library shows lines as lists of numbers.
fn why(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("no -----END {}-----", String::from_utf8_lossy(end_marker).trim())
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("no section begins with {:?}", String::from_utf8_lossy(line).trim())
        }
        other => other.to_string(),
    }
}

/// There is not what should be there.
pub(super) fn misplaced(labels: &[String], wanted: &str) -> String {
    let found = match labels {
        [] => "no PEM section".to_owned(),
        labels => labels.join(", "),
    };
    format!("found {found}; allowed: {wanted}")
}
