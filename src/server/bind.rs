//! The sockets a process listens on: those that it is given, and new ones.

use std::os::fd::OwnedFd;

use super::start::StartError;
use super::upgrade::predecessor::Predecessor;
use crate::admin::{self, AdminListener};
use crate::config::Config;
use crate::handoff::{GivenKind, Takeover};
use crate::net::Listener;

/// All of them.
pub(super) struct Bound {
    pub(super) listeners: Vec<Listener>,
    pub(super) admin: Option<AdminListener>,
    pub(super) takeover: Option<Takeover>,
}

/// Adopts what a predecessor gives, and binds the rest.
pub(super) fn bind(
    config: &Config,
    mut predecessor: Option<&mut Predecessor>,
) -> Result<Bound, StartError> {
    let mut take = |kind: GivenKind, name: &str| -> Option<OwnedFd> {
        predecessor.as_mut().and_then(|predecessor| predecessor.take(kind, name))
    };
    let mut listeners = Vec::new();
    let clear = config.listen.iter().map(|listen| (listen, false));
    let secure = config.tls.listen.iter().map(|listen| (listen, true));
    let names = Listener::names_of(config.listen.iter().chain(&config.tls.listen));
    for ((listen, secure), name) in clear.chain(secure).zip(names) {
        let listener = match take(GivenKind::Listener, &name) {
            Some(fd) => Listener::adopt(listen, secure, fd).map_err(|source| {
                let what = "adopt a listener of the running process";
                StartError::System { what, source }
            })?,
            None => Listener::bind(listen, secure)?,
        };
        listeners.push(listener.named(name));
    }
    let admin = config.admin.as_ref().map(|listen| {
        let given = take(GivenKind::Admin, &listen.to_string());
        let bound = match given {
            Some(fd) => AdminListener::adopt(listen, fd),
            None => admin::bind(listen),
        };
        bound.map_err(|source| StartError::Admin { address: listen.to_string(), source })
    });
    let takeover = config.upgrade.takeover.as_ref().map(|path| {
        let name = path.display().to_string();
        let bound = match take(GivenKind::Takeover, &name) {
            Some(fd) => Takeover::adopt(path, fd),
            None => Takeover::listen(path),
        };
        bound.map_err(|source| StartError::Takeover { path: name, source })
    });
    Ok(Bound { listeners, admin: admin.transpose()?, takeover: takeover.transpose()? })
}
