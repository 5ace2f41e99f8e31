//! Which identity a client is shown.
//!
//! Owns the choice: by the name the client asks for, then by the kinds of
//! signature that it can verify. A client that asks for no name of ours gets the
//! first identity, because the name may be one that only it knows.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certs::Identity;

/// Identities by their names.
#[derive(Debug)]
pub(super) struct Choice {
    all: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Choice {
    pub(super) fn new(identities: &[Identity]) -> Self {
        let all = identities.iter().map(|identity| Arc::clone(&identity.key)).collect();
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for identity in identities {
            for name in &identity.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, name.as_str()),
                };
                let keys: &mut Vec<_> = names.entry(name.to_owned()).or_default();
                keys.push(Arc::clone(&identity.key));
            }
        }
        Choice { all, exact, wildcard }
    }

    /// The identity for this name, or absence of one, that the client can verify.
    pub(super) fn pick(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
        // A wildcard stands for one label (RFC 9525 section 6.3).
        let parent = name.split_once('.').map(|(_, parent)| parent).unwrap_or_default();
        let exact = self.exact.get(&name).into_iter().flatten();
        let mut ours = exact.chain(self.wildcard.get(parent).into_iter().flatten()).peekable();
        if ours.peek().is_some() {
            return ours.find(usable).cloned();
        }
        self.all.iter().find(usable).cloned()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pick(hello.server_name(), hello.signature_schemes())
    }
}
