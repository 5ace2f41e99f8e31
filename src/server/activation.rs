//! Sockets that a service manager has opened, or kept, for this process.
//!
//! They are claimed by their name (`fd:NAME`) or by the address that they are bound to.
//! The manager goes on holding them: they are left to it when this process stops.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use socket2::SockRef;

use crate::admin::{self, AdminListener};
use crate::config::Listen;
use crate::handoff::{Keeper, inherit};
use crate::net::{BindError, Listener, NOT_PASSED};
use crate::telemetry::{Event, Events, Level};

/// What was passed and is not claimed yet.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<Offer>);

#[derive(Debug)]
struct Offer {
    name: String,
    fd: OwnedFd,
    /// Where it is bound, if it is a socket with an address.
    at: Option<Listen>,
}

impl Passed {
    /// What the environment names. To be asked once.
    pub(super) fn from_environment() -> io::Result<Self> {
        Ok(Self::new(inherit::activated(|name| std::env::var_os(name))?))
    }

    fn new(sockets: Vec<(String, OwnedFd)>) -> Self {
        let offer = |(name, fd)| Offer { at: bound(&fd), name, fd };
        Passed(sockets.into_iter().map(offer).collect())
    }

    /// The listeners of one configured address: several where a name stands for several.
    pub(super) fn open(
        &mut self,
        listen: &Listen,
        secure: bool,
    ) -> Result<Vec<Listener>, BindError> {
        let offers = match listen {
            Listen::Fd(name) => self.named(name),
            _ => self.at(listen).into_iter().collect(),
        };
        if offers.is_empty() {
            let bound = Listener::bind(listen, secure).map(|listener| vec![listener]);
            return bound.map_err(|error| self.with_others(error));
        }
        let refused = |error: io::Error| BindError::Passed {
            listen: listen.to_string(),
            why: error.to_string(),
        };
        let name = Listener::name_of(listen);
        let adopt = |(n, offer): (usize, Offer)| {
            let mut listener = Listener::adopt(&address(listen, &offer.fd)?, secure, offer.fd)?;
            listener.set_keeper(Some(keeper(&offer.name)));
            listener.set_held(false);
            let number = if n == 0 { String::new() } else { format!("#{}", n + 1) };
            Ok(listener.named(name.clone() + &number))
        };
        offers.into_iter().enumerate().map(|offer| adopt(offer).map_err(refused)).collect()
    }

    /// An address that cannot be bound may be one that was passed, in other words.
    fn with_others(&self, mut error: BindError) -> BindError {
        let others = self.others();
        match &mut error {
            BindError::Tcp { source, .. } | BindError::Unix { source, .. } => {
                *source = io::Error::new(source.kind(), format!("{source}{others}"));
            }
            BindError::Passed { why, .. } => why.push_str(&others),
        }
        error
    }

    /// What else was passed, to end an error with.
    fn others(&self) -> String {
        let named = |offer: &Offer| {
            let at = offer.at.as_ref().map_or_else(|| "no address".to_owned(), ToString::to_string);
            format!("{at} as fd:{}", offer.name)
        };
        let all: Vec<_> = self.0.iter().map(named).collect();
        if all.is_empty() {
            return String::new();
        }
        format!("; systemd has opened {}, which is no listener's yet", all.join(", "))
    }

    /// All sockets of this name.
    fn named(&mut self, name: &str) -> Vec<Offer> {
        self.0.extract_if(.., |offer| offer.name == name).collect()
    }

    /// The socket that is bound there, or was stored by this program for that address.
    fn at(&mut self, listen: &Listen) -> Option<Offer> {
        let stored = stored_name(&Listener::name_of(listen));
        let fits = |offer: &Offer| {
            offer.name == stored || offer.at.as_ref().is_some_and(|at| is_same_place(at, listen))
        };
        let at = self.0.iter().position(fits)?;
        Some(self.0.swap_remove(at))
    }

    /// The admin listener. Needs a runtime around it.
    pub(super) fn open_admin(&mut self, listen: &Listen) -> io::Result<AdminListener> {
        let Some(Offer { name, fd, .. }) = self.one(listen)? else { return admin::bind(listen) };
        let mut listener = AdminListener::adopt(&address(listen, &fd)?, fd, false)?;
        listener.set_keeper(Some(keeper(&name)));
        Ok(listener)
    }

    /// The one socket of an admin listener, where its address names or finds one.
    fn one(&mut self, listen: &Listen) -> io::Result<Option<Offer>> {
        let Listen::Fd(name) = listen else { return Ok(self.at(listen)) };
        let mut found = self.named(name);
        match (found.pop(), found.is_empty()) {
            (Some(_), false) => Err(io::Error::other("there are several of this name")),
            (None, _) => Err(io::Error::other(format!("{NOT_PASSED}{}", self.others()))),
            (one, true) => Ok(one),
        }
    }

    /// Closes what nobody has claimed. `follows`: a predecessor may have the same sockets,
    /// and may have given them to us.
    pub(super) fn close_rest(self, follows: bool, events: &Events) {
        for offer in self.0 {
            if offer.name.starts_with(STORED) {
                if follows {
                    // It is what was just adopted, or is closed by the one whose it is.
                    continue;
                }
                // The manager forgets what hangs up. Nobody but a socket unit has another.
                let _gone = SockRef::from(&offer.fd).shutdown(Shutdown::Both);
            }
            let event = Event::new(Level::Warn, "socket_unclaimed").with("name", offer.name);
            let address = offer.at.map_or_else(|| "none".to_owned(), |at| at.to_string());
            let message = "systemd has passed a socket that no listener is configured for: it is \
                           closed. Name it in listen, tls.listen or admin: fd:NAME, or its address";
            events.emit(event.with("addr", address).with("message", message));
        }
    }
}

/// What names of stored listeners begin with.
const STORED: &str = "ebbtide/";

/// What a listener is called in the store of the manager, which takes no colon.
pub(super) fn stored_name(listener: &str) -> String {
    let fits = |c: char| if c == ':' || !c.is_ascii_graphic() { '=' } else { c };
    STORED.chars().chain(listener.chars().map(fits)).collect()
}

/// How the manager holds what it has passed under this name.
fn keeper(name: &str) -> Keeper {
    if name.starts_with(STORED) { Keeper::Store } else { Keeper::Unit }
}

/// The address of a socket for `listen`; where that is a name, the socket's own.
pub(super) fn address(listen: &Listen, fd: &OwnedFd) -> io::Result<Listen> {
    match listen {
        Listen::Fd(_) => bound(fd).ok_or_else(|| io::Error::other("it has no address")),
        _ => Ok(listen.clone()),
    }
}

/// Where a socket is bound, if it is one with an address.
pub(super) fn bound(fd: &OwnedFd) -> Option<Listen> {
    let address = SockRef::from(fd).local_addr().ok()?;
    let path = || Some(Listen::Unix { path: address.as_pathname()?.to_path_buf(), mode: None });
    address.as_socket().map(Listen::Tcp).or_else(path)
}

/// Whether both are one address, whatever the permissions of a path.
fn is_same_place(bound: &Listen, listen: &Listen) -> bool {
    match (bound, listen) {
        (Listen::Tcp(bound), Listen::Tcp(listen)) => bound == listen,
        (Listen::Unix { path: bound, .. }, Listen::Unix { path: listen, .. }) => {
            bound == listen || std::path::absolute(listen).is_ok_and(|listen| *bound == listen)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Sink, event::Style};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    fn tcp() -> (OwnedFd, Listen) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = Listen::Tcp(listener.local_addr().unwrap());
        (listener.into(), at)
    }

    fn passed(sockets: impl IntoIterator<Item = (&'static str, OwnedFd)>) -> Passed {
        Passed::new(sockets.into_iter().map(|(name, fd)| (name.to_owned(), fd)).collect())
    }

    fn fd(name: &str) -> Listen {
        Listen::Fd(name.to_owned())
    }

    #[test]
    fn a_name_stands_for_all_sockets_that_have_it() {
        let ((first, one), (second, two), (third, three)) = (tcp(), tcp(), tcp());
        let mut passed = passed([("web", first), ("other", second), ("web", third)]);
        let listeners = passed.open(&fd("web"), true).unwrap();
        let seen: Vec<_> = listeners.iter().map(|it| (it.to_string(), it.name())).collect();
        assert_eq!(seen, [(one.to_string(), "fd:web"), (three.to_string(), "fd:web#2")]);
        assert!(listeners.iter().all(|listener| listener.is_held() && listener.is_secure()));
        let error = passed.open(&fd("web"), true).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on fd:web: systemd"), "{error}");
        let by_address = passed.open(&two, false).unwrap();
        assert!(by_address[0].is_held() && by_address[0].keeper() == Some(Keeper::Unit));
        assert!(passed.0.is_empty());
    }

    #[test]
    fn an_address_that_was_not_passed_is_bound() {
        let (socket, _) = tcp();
        let mut passed = passed([("web", socket)]);
        let own = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        assert!(!passed.open(&own, false).unwrap()[0].is_held());
        assert_eq!(passed.0.len(), 1);
    }

    #[test]
    fn a_path_is_found_whatever_its_mode_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut passed = passed([("web", UnixListener::bind(&path).unwrap().into())]);
        let listen = Listen::Unix { path: path.clone(), mode: Some(0o600) };
        drop(passed.open(&listen, false).unwrap());
        assert!(path.exists());
    }

    #[test]
    fn what_was_stored_comes_back_for_its_address_whatever_port_it_has() {
        let (socket, _) = tcp();
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        assert_eq!(stored_name(&Listener::name_of(&listen)), "ebbtide/127.0.0.1=0");
        let mut passed = passed([("ebbtide/127.0.0.1=0", socket)]);
        let listeners = passed.open(&listen, false).unwrap();
        assert_eq!(listeners[0].keeper(), Some(Keeper::Store));
        assert_eq!(stored_name("unix:/run/\u{fc} s"), "ebbtide/unix=/run/==s");
    }

    /// In the store lies a copy of what a predecessor has, and may just have given us.
    #[test]
    fn what_somebody_else_may_have_is_never_shut_down() {
        let events = Sink::new("events", io::pipe().unwrap().1, 0).unwrap();
        let events = Events::new(events, Style::Json);
        for follows in [true, false] {
            let (socket, at) = tcp();
            let copy = socket.try_clone().unwrap();
            passed([("ebbtide/x", copy)]).close_rest(follows, &events);
            let Listen::Tcp(at) = at else { panic!("{at}") };
            assert_eq!(std::net::TcpStream::connect(at).is_ok(), follows);
            drop(socket);
        }
    }

    #[test]
    fn an_admin_listener_is_one_socket() {
        let ((first, one), (second, _), (third, three)) = (tcp(), tcp(), tcp());
        let mut passed = passed([("a", first), ("b", second), ("b", third)]);
        assert_eq!(passed.one(&fd("a")).unwrap().unwrap().at, Some(one));
        assert!(passed.one(&fd("a")).unwrap_err().to_string().contains("systemd"));
        assert!(passed.one(&fd("b")).unwrap_err().to_string().contains("several"));
        assert!(passed.one(&three).unwrap().is_none(), "it was among the several");
    }
}
