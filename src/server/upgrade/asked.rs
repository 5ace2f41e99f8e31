//! Who may ask for a successor, and what a successor is offered.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;

use super::predecessor;
use super::prepare::{Offer, Origin, prepare};
use crate::admin::Progress;
use crate::handoff::{Channel, Given, GivenKind, Message, VERSION, Welcome};
use crate::server::control::Control;
use crate::server::door::Request;
use crate::telemetry::{Event, Level};

impl Control {
    /// Somebody has asked for it over the admin listener.
    pub(in crate::server) fn requested(&mut self, request: Request) {
        let Request { binary, watcher } = request;
        if let Err(error) = self.overview.may_be_replaced(true) {
            // Two have asked at once; the watcher is its own.
            let _gone = watcher.try_send(Progress::Failed { error });
            return;
        }
        self.watchers = vec![watcher];
        self.upgrade(binary);
    }

    /// A signal has asked for it.
    pub(in crate::server) fn signalled(&mut self) {
        match self.overview.may_be_replaced(true) {
            Ok(()) => self.upgrade(None),
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&self, error: &str) {
        let event = Event::new(Level::Warn, "upgrade_refused").with("error", error.to_owned());
        self.events.emit(event);
    }

    /// Replaces this process by a fresh one of a binary; of its own, if none is named.
    fn upgrade(&mut self, binary: Option<PathBuf>) {
        let Some(binary) = binary.or_else(|| self.program.binary.clone()) else {
            return self.upgrade_failed("the path of this program is not known");
        };
        match Origin::start(&binary, &self.program.arguments) {
            Ok(origin) => {
                let (pid, binary) = (origin.pid(), binary.display().to_string());
                let event = Event::new(Level::Info, "upgrade_started").with("successor", pid);
                self.events.emit(event.with("binary", binary.clone()));
                self.tell_watchers(&Progress::Starting { pid, binary });
                self.begin(origin);
            }
            Err(error) => {
                self.upgrade_failed(&format!("cannot start {}: {error}", binary.display()));
            }
        }
    }

    /// Hands over to somebody who asks for it.
    pub(in crate::server) fn asked_for(&mut self, asked: std::io::Result<Channel>) {
        let channel = match asked {
            Ok(channel) => channel,
            Err(error) => {
                let event = Event::new(Level::Warn, "takeover_accept_failed");
                let event = event.with("error", error.to_string());
                self.events.limited("takeover_accept_failed", Duration::from_secs(60), event);
                return;
            }
        };
        if let Err(error) = self.overview.may_be_replaced(false) {
            self.refused(&error);
            tokio::task::spawn_local(async move {
                let _gone = channel.send(&Message::Refused { error }, &[], &[]).await;
            });
            return;
        }
        let peer = channel.peer().ok().and_then(|peer| peer.pid);
        let event = Event::new(Level::Info, "upgrade_started");
        self.events.emit(match peer {
            Some(pid) => event.with("successor", pid).with("asked", true),
            None => event.with("asked", true),
        });
        self.begin(Origin { channel, launched: None });
    }

    fn begin(&mut self, origin: Origin) {
        self.overview.succession.set(Some("another upgrade is under way"));
        self.manager.notifier.upgrade_begins();
        let offer = self.offer().map_err(|error| format!("cannot copy a socket: {error}"));
        let (call_off, called_off) = oneshot::channel();
        self.succession.call_off = Some(call_off);
        let timeout = self.config.upgrade.timeout;
        self.succession.preparing = Some(Box::pin(prepare(origin, offer, timeout, called_off)));
    }

    /// Copies of everything that a successor may need before it can serve.
    fn offer(&self) -> std::io::Result<Offer> {
        let given = |kind, name, keeper, file| Given { kind, name, keeper, file };
        let mut sockets = Vec::new();
        for listener in &self.listeners {
            let fd = listener.as_fd().try_clone_to_owned()?;
            let (name, keeper) = (listener.name().to_owned(), listener.keeper());
            sockets.push((given(GivenKind::Listener, name, keeper, listener.file()), fd));
        }
        if let Some(admin) = &self.admin
            && let Some(copy) = &admin.copy
        {
            let fd = copy.try_clone()?;
            let name = self.config.admin.as_ref().map(ToString::to_string).unwrap_or_default();
            sockets.push((given(GivenKind::Admin, name, admin.keeper, admin.file), fd));
        }
        if let Some(takeover) = &self.takeover {
            let fd = takeover.as_fd().try_clone_to_owned()?;
            let name = takeover.path().display().to_string();
            sockets.push((given(GivenKind::Takeover, name, None, takeover.file()), fd));
        }
        sockets.extend(self.elders.channels()?);
        let overview = &self.overview;
        let keys = self.tickets.as_ref().and_then(|tickets| tickets.keys());
        let counted = overview.own_totals().tally();
        let welcome = Welcome {
            protocol: VERSION,
            generation: overview.generation.saturating_add(1),
            pid: std::process::id(),
            tickets: keys.map(predecessor::tickets).unwrap_or_default(),
            counted: overview.ledger.borrow().with(overview.generation, counted),
        };
        Ok(Offer { welcome, sockets })
    }
}
