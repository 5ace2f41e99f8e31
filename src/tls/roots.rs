//! Who may vouch for a server that we call: certificates of authorities, from a file
//! or from where the system keeps them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::SectionKind;

use super::certs::{Sections, misplaced, nth, sections};

/// Where systems keep them: Debian and its kin, Fedora and its kin (two), openSUSE,
/// Alpine and the BSDs.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

const WANTED: &str = "a PEM file of the certificates of authorities";

/// The authorities whose word is taken.
#[derive(Clone, Debug)]
pub struct Roots(pub(super) Arc<RootCertStore>);

impl Roots {
    /// Those of this file, or else those that the system trusts.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the file, each with its name; or that the system
    /// has none.
    pub fn load(file: Option<&Path>) -> Result<Self, Vec<String>> {
        match file {
            Some(path) => of_file(path),
            None => of_system(&SYSTEM.map(PathBuf::from)),
        }
    }
}

/// What somebody has chosen is good as a whole or not at all.
fn of_file(path: &Path) -> Result<Roots, Vec<String>> {
    let told = |text: String| format!("{}: {text}", path.display());
    let sections = sections(path, WANTED).map_err(|text| vec![told(text)])?;
    let labels = sections.labels.clone();
    let mut store = RootCertStore::empty();
    let mut wrong = Vec::new();
    for (place, der) in certificates(sections).enumerate() {
        if let Err(error) = store.add(der) {
            let nth = nth(place);
            wrong.push(told(format!("{nth} cannot be used ({error}); allowed: {WANTED}")));
        }
    }
    if wrong.is_empty() && store.is_empty() {
        wrong.push(told(misplaced(&labels, WANTED)));
    }
    if wrong.is_empty() { Ok(Roots(Arc::new(store))) } else { Err(wrong) }
}

/// Among the many of a system a strange one is nobody's fault here.
fn of_system(files: &[PathBuf]) -> Result<Roots, Vec<String>> {
    for path in files {
        let Ok(sections) = sections(path, WANTED) else { continue };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates(sections));
        if !store.is_empty() {
            return Ok(Roots(Arc::new(store)));
        }
    }
    let looked: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    Err(vec![format!(
        "none given, and the system has none (looked at {}); allowed: {WANTED}",
        looked.join(", ")
    )])
}

fn certificates(sections: Sections) -> impl Iterator<Item = CertificateDer<'static>> {
    let found = sections.found.into_iter();
    found
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn a_file_has_authorities_or_says_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(Roots::load(Some(&path)).unwrap_err()[0].contains("cannot read it"));
        std::fs::write(&path, authority() + &authority()).unwrap();
        assert_eq!(Roots::load(Some(&path)).unwrap().0.len(), 2);
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(&path, key).unwrap();
        assert!(Roots::load(Some(&path)).unwrap_err()[0].contains("found PRIVATE KEY"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, authority() + broken + broken).unwrap();
        let wrong = Roots::load(Some(&path)).unwrap_err();
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].contains("certificate 2 cannot be used"), "{wrong:?}");
    }

    #[test]
    fn the_first_file_that_the_system_has_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (none, some) = (dir.path().join("none"), dir.path().join("some"));
        let wrong = of_system(std::slice::from_ref(&none)).unwrap_err();
        assert!(wrong[0].contains("the system has none"), "{wrong:?}");
        std::fs::write(&some, authority()).unwrap();
        assert_eq!(of_system(&[none, some]).unwrap().0.len(), 1);
    }
}
