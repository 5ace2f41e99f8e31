//! The sockets a process listens on: those that it is given, and new ones.

use std::os::fd::OwnedFd;

use super::activation::{Passed, address};
use super::start::StartError;
use super::upgrade::predecessor::Predecessor;
use crate::admin::AdminListener;
use crate::config::{Config, Listen};
use crate::handoff::{Given, GivenKind, Takeover};
use crate::net::Listener;
use crate::telemetry::Events;

/// All of them.
pub(super) struct Bound {
    pub(super) listeners: Vec<Listener>,
    pub(super) admin: Option<AdminListener>,
    pub(super) takeover: Option<Takeover>,
}

/// Adopts what a predecessor gives, then what a service manager has passed, and binds
/// the rest.
pub(super) fn bind(
    config: &Config,
    mut predecessor: Option<&mut Predecessor>,
    mut passed: Passed,
    events: &Events,
) -> Result<Bound, StartError> {
    let mut take = |kind: GivenKind, name: &str| -> Option<(Given, OwnedFd)> {
        predecessor.as_mut().and_then(|predecessor| predecessor.take(kind, name))
    };
    let listeners = listeners(config, |name| take(GivenKind::Listener, name), &mut passed);
    let admin = config.admin.as_ref().map(|listen| {
        let given = take(GivenKind::Admin, &listen.to_string());
        let bound = match given {
            Some((given, fd)) => address(listen, &fd).and_then(|at| {
                let mut listener = AdminListener::adopt(&at, fd)?;
                listener.set_keeper(given.keeper);
                Ok(listener)
            }),
            None => passed.open_admin(listen),
        };
        bound.map_err(|source| StartError::Admin { address: listen.to_string(), source })
    });
    passed.close_rest(events);
    let takeover = config.upgrade.takeover.as_ref().map(|path| {
        let name = path.display().to_string();
        let bound = match take(GivenKind::Takeover, &name) {
            Some((_, fd)) => Takeover::adopt(path, fd),
            None => Takeover::listen(path),
        };
        bound.map_err(|source| StartError::Takeover { path: name, source })
    });
    Ok(Bound { listeners: listeners?, admin: admin.transpose()?, takeover: takeover.transpose()? })
}

/// The listeners for clients; each has the name by which a successor finds it.
fn listeners(
    config: &Config,
    mut take: impl FnMut(&str) -> Option<(Given, OwnedFd)>,
    passed: &mut Passed,
) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    let clear = config.listen.iter().map(|listen| (listen, false));
    let secure = config.tls.listen.iter().map(|listen| (listen, true));
    let names = Listener::names_of(config.listen.iter().chain(&config.tls.listen));
    for ((listen, secure), name) in clear.chain(secure).zip(names) {
        // What systemd calls by one name may be several sockets.
        let several = matches!(listen, Listen::Fd(_));
        let nth = |n: usize| if n == 0 { name.clone() } else { format!("{name}#{}", n + 1) };
        let mut found = Vec::new();
        while let Some((given, fd)) = take(&nth(found.len())) {
            let adopted = address(listen, &fd).and_then(|at| Listener::adopt(&at, secure, fd));
            let mut listener = adopted.map_err(|source| {
                let what = "adopt a listener of the running process";
                StartError::System { what, source }
            })?;
            listener.set_keeper(given.keeper);
            found.push(listener);
            if !several {
                break;
            }
        }
        if found.is_empty() {
            found = passed.open(listen, secure)?;
        }
        let named = found.into_iter().enumerate().map(|(n, listener)| listener.named(nth(n)));
        listeners.extend(named);
    }
    Ok(listeners)
}
