//! TLS without sockets: certificates, names, tickets, and a session that is fed
//! and emptied.
//!
//! Owns everything that is known of rustls. Promises that a server which was
//! given its [`Identity`]s by [`certs::load`] does not fail for their sake later.
//! Reads the files of certificates and nothing else; does not know what the
//! octets are that it protects.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `certs` | files to identities, all that is wrong at once |
//! | `sni` | which identity a client is shown |
//! | `tickets` | the keys of session tickets, which can be handed over |
//! | `settings` | what every session with a client is made with |
//! | `roots` | who may vouch for a server that we call |
//! | `call` | what every session with such a server is made with |
//! | `session` | one connection's ciphertext and plaintext |

mod call;
pub mod certs;
mod records;
mod roots;
mod session;
mod settings;
mod sni;
#[cfg(test)]
mod tests;
pub mod tickets;

pub use call::{Calls, is_name};
pub use certs::Identity;
pub use roots::Roots;
pub use session::{Broken, Session};
pub use settings::Settings;
pub use tickets::{TicketKey, TicketKeys, Tickets};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The cryptography of this program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
