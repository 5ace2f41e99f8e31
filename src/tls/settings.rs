//! What every session with a client is made with.

use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};

use super::certs::Identity;
use super::provider;
use super::session::Session;
use super::sni::Choice;
use super::tickets::Tickets;

/// HTTP/2 by its name in ALPN.
pub(super) const H2: &[u8] = b"h2";
/// HTTP/1.1 by its name in ALPN.
pub(super) const HTTP_1_1: &[u8] = b"http/1.1";

/// The same for every session, and cheap to copy.
#[derive(Clone, Debug)]
pub struct Settings(Arc<ServerConfig>);

impl Settings {
    /// TLS 1.2 and 1.3 as one of these identities, the first one if in doubt;
    /// HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    ///
    /// If rustls finds that it cannot be used so.
    pub fn new(identities: &[Identity], tickets: Arc<Tickets>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Choice::new(identities)));
        config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
        // What a session needs to be resumed is in its ticket, nowhere here; and
        // no early data: it can be replayed.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        Ok(Settings(Arc::new(config)))
    }

    /// A session for a connection on which nothing was said yet.
    ///
    /// # Errors
    ///
    /// If the system gives no random numbers.
    pub fn session(&self) -> Result<Box<Session>, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.0)).map(Session::new)
    }
}
