//! What every session with a server that we call is made with.
//!
//! The server's certificate is always verified: there is no way to leave that out.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection};

use super::provider;
use super::roots::Roots;
use super::session::Session;
use super::settings::{H2, HTTP_1_1};

/// The same for every session, and cheap to copy.
#[derive(Clone, Debug)]
pub struct Calls {
    http1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

/// Whether a certificate can be for this host.
pub fn is_name(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

impl Calls {
    /// TLS 1.2 and 1.3 with servers for whom one of `roots` vouches, under `name` or, if
    /// there is none, under the host that is called.
    ///
    /// # Errors
    ///
    /// If rustls finds that it cannot be used so, or `name` is none.
    pub fn new(roots: &Roots, name: Option<&str>) -> Result<Self, rustls::Error> {
        let speaking = |protocol: &[u8]| {
            let mut config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&TLS13, &TLS12])?
                .with_root_certificates(Arc::clone(&roots.0))
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok::<_, rustls::Error>(Arc::new(config))
        };
        let name = name.map(server_name).transpose()?;
        Ok(Calls { http1: speaking(HTTP_1_1)?, h2: speaking(H2)?, name })
    }

    /// A session for a connection to `host` on which nothing was said yet.
    ///
    /// # Errors
    ///
    /// If there can be no certificate for `host`, or the system gives no random numbers.
    pub fn session(&self, host: &str, h2: bool) -> Result<Box<Session>, rustls::Error> {
        let config = Arc::clone(if h2 { &self.h2 } else { &self.http1 });
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        ClientConnection::new(config, name).map(Session::new)
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, rustls::Error> {
    let name = ServerName::try_from(host.to_owned());
    name.map_err(|_| rustls::Error::General(format!("no certificate can be for {host:?}")))
}
