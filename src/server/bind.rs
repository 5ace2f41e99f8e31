//! The sockets a process listens on: those that it is given by a predecessor or a service
//! manager, and new ones.

use std::io;
use std::path::Path;

use super::activation::{Passed, address, bound};
use super::start::StartError;
use super::upgrade::predecessor::{Inherited, Predecessor};
use crate::admin::AdminListener;
use crate::config::{Config, Listen};
use crate::handoff::{GivenKind, Takeover};
use crate::net::{BindError, Listener, is_in_another_network};
use crate::telemetry::{Event, Events, Level};

/// All of them.
pub(super) struct Bound {
    pub(super) listeners: Vec<Listener>,
    pub(super) admin: Option<AdminListener>,
    pub(super) takeover: Option<Takeover>,
}

/// Adopts what is given, a predecessor's first, and binds the rest.
pub(super) fn bind(
    config: &Config,
    mut predecessor: Option<&mut Predecessor>,
    mut passed: Passed,
    events: &Events,
) -> Result<Bound, StartError> {
    let has_predecessor = predecessor.is_some();
    let given = &mut predecessor;
    let mut listeners = Vec::new();
    for (listen, secure, name) in named(config) {
        let Some(inherited) = take(given, events, GivenKind::Listener, &name, path_of(listen))
        else {
            let several = matches!(listen, Listen::Fd(_));
            let opened = passed.open(listen, secure);
            let opened = opened.map_err(|error| beside(error, given.as_deref()))?.into_iter();
            // Those of one name have got numbers already.
            listeners.extend(opened.map(|one| if several { one } else { one.named(name.clone()) }));
            continue;
        };
        listeners.push(adopt(listen, secure, inherited)?.named(name.clone()));
        let more = (2..).map(|number| format!("{name}#{number}"));
        for name in more.take_while(|_| matches!(listen, Listen::Fd(_))) {
            let Some(inherited) = take(given, events, GivenKind::Listener, &name, None) else {
                break;
            };
            listeners.push(adopt(listen, secure, inherited)?.named(name));
        }
    }
    let admin = config.admin.as_ref().map(|listen| {
        let opened =
            match take(given, events, GivenKind::Admin, &listen.to_string(), path_of(listen)) {
                Some(inherited) => adopt_admin(listen, inherited),
                None => passed.open_admin(listen),
            };
        opened.map_err(|source| StartError::Admin { address: listen.to_string(), source })
    });
    let takeover = config.upgrade.takeover.as_ref().map(|path| {
        let name = path.display().to_string();
        let opened = match take(given, events, GivenKind::Takeover, &name, Some(path)) {
            Some(inherited) => Takeover::adopt(path, inherited.fd),
            None => Takeover::listen(path),
        };
        opened.map_err(|source| StartError::Takeover { path: name, source })
    });
    passed.close_rest(has_predecessor, events);
    Ok(Bound { listeners, admin: admin.transpose()?, takeover: takeover.transpose()? })
}

/// A socket that the predecessor has given.
fn take(
    predecessor: &mut Option<&mut Predecessor>,
    events: &Events,
    kind: GivenKind,
    name: &str,
    path: Option<&Path>,
) -> Option<Inherited> {
    let predecessor = predecessor.as_mut()?;
    let taken = predecessor.take(kind, name, path);
    if taken.is_none() && predecessor.has(kind, name) {
        bound_anew(name, events);
    }
    taken
}

/// One port cannot be listened on at two addresses of which one is every address: where the
/// running process has the other, nobody but that is in the way.
fn beside(mut error: BindError, predecessor: Option<&Predecessor>) -> BindError {
    if let BindError::Tcp { address, source } = &mut error
        && source.kind() == io::ErrorKind::AddrInUse
        && let Some(other) = predecessor.and_then(|given| given.at_port(address.port()))
    {
        let text = format!(
            "{source}: the running process listens on {other}, and both cannot be at once; stop \
             it and start anew"
        );
        *source = io::Error::new(io::ErrorKind::AddrInUse, text);
    }
    error
}

fn adopt(listen: &Listen, secure: bool, inherited: Inherited) -> Result<Listener, StartError> {
    let what = "adopt a listener of the running process";
    let refused = |source| StartError::System { what, source };
    let Inherited { fd, keeper, found, .. } = near(inherited).map_err(refused)?;
    let at = address(listen, &fd).map_err(refused)?;
    let mut listener = Listener::adopt(&at, secure, fd).map_err(refused)?;
    if found {
        listener = listener.found_at(&at);
    }
    listener.set_keeper(keeper);
    Ok(listener)
}

/// A listener that clients of this process reach.
fn near(inherited: Inherited) -> io::Result<Inherited> {
    if inherited.may_be_far && is_in_another_network(&inherited.fd)? {
        let at = bound(&inherited.fd).map_or_else(String::new, |at| at.to_string());
        return Err(io::Error::other(format!(
            "{at} is in another network namespace than this process, where nobody would reach \
             it: start this process in the network of the running one, or without takeover"
        )));
    }
    Ok(inherited)
}

/// The path of a unix socket.
fn path_of(listen: &Listen) -> Option<&Path> {
    match listen {
        Listen::Unix { path, .. } => Some(path),
        _ => None,
    }
}

/// A socket was given, and its path leads elsewhere: it is the old process's alone.
fn bound_anew(name: &str, events: &Events) {
    let event = Event::new(Level::Warn, "path_bound_anew").with("addr", name);
    let message = "the path does not lead to the old process's socket: it was removed, or other \
                   files are mounted there. It is bound anew; that one goes with its process";
    events.emit(event.with("message", message));
}

fn adopt_admin(listen: &Listen, inherited: Inherited) -> io::Result<AdminListener> {
    let Inherited { fd, keeper, found, .. } = near(inherited)?;
    let mut listener = AdminListener::adopt(&address(listen, &fd)?, fd, found)?;
    listener.set_keeper(keeper);
    Ok(listener)
}

/// Every listener of a configuration, whether its clients speak TLS, and its name.
pub(super) fn named(config: &Config) -> impl Iterator<Item = (&Listen, bool, String)> {
    let clear = config.listen.iter().map(|listen| (listen, false));
    let secure = config.tls.listen.iter().map(|listen| (listen, true));
    let names = Listener::names_of(config.listen.iter().chain(&config.tls.listen));
    clear.chain(secure).zip(names).map(|((listen, secure), name)| (listen, secure, name))
}
