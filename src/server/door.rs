//! The admin listener and the takeover listener as the control thread holds them: served,
//! left to a successor, taken back.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::control::Control;
use super::overview::Overview;
use crate::admin::{self, AdminListener, Commands, Door, Progress, Refusal, Service};
use crate::config::Config;
use crate::handoff::{FileId, GivenKind, Keeper, Takeover};
use crate::limits::{LAST_ANSWERS, LAST_MOMENT, REQUESTS, UPGRADE_NEWS};
use crate::telemetry::{Event, Events, Level};

/// The admin listener, which is served by a task of its own until this is dropped.
pub(super) struct Admin {
    /// For a successor.
    pub(super) copy: Option<OwnedFd>,
    /// How a service manager has it, too.
    pub(super) keeper: Option<Keeper>,
    /// The file of its path, if it has one.
    pub(super) file: Option<FileId>,
    door: watch::Sender<Door>,
    /// Listened to by those who are being answered.
    asking: watch::Sender<()>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// What somebody has asked for.
pub(super) struct Request {
    pub(super) binary: Option<PathBuf>,
    pub(super) watcher: mpsc::Sender<Progress>,
}

/// Asks the control thread.
struct Desk {
    overview: Rc<Overview>,
    requests: mpsc::Sender<Request>,
}

impl Commands for Desk {
    fn upgrade(&self, binary: Option<PathBuf>) -> Result<mpsc::Receiver<Progress>, Refusal> {
        self.overview.may_be_replaced(true).map_err(Refusal)?;
        let (watcher, news) = mpsc::channel(UPGRADE_NEWS);
        let asked = self.requests.try_send(Request { binary, watcher });
        asked.map_err(|why| {
            Refusal(match why {
                TrySendError::Full(_) => "too many upgrades are being asked for".to_owned(),
                TrySendError::Closed(_) => "this process is about to end".to_owned(),
            })
        })?;
        Ok(news)
    }
}

impl Admin {
    /// Serves the listener, and hears what is asked for. `shared`: a predecessor still
    /// has it, too.
    pub(super) fn serve(
        listener: AdminListener,
        config: &Config,
        overview: &Rc<Overview>,
        events: &Events,
        shared: bool,
    ) -> io::Result<(Self, mpsc::Receiver<Request>)> {
        let (copy, keeper, file) = (listener.share()?, listener.keeper(), listener.file());
        let (asks, requests) = mpsc::channel(REQUESTS);
        let asking = watch::Sender::new(());
        let desk = Desk { overview: Rc::clone(overview), requests: asks };
        let service = Service {
            view: Rc::clone(overview) as Rc<_>,
            commands: Rc::new(desk),
            names: config.admin_names.clone(),
            asking: asking.clone(),
        };
        let (door, state) = watch::channel(if shared { Door::Shared } else { Door::Open });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _dropped = stopped.await;
        };
        let serving = admin::serve(listener, service, events.clone(), state, stopped);
        let serving = tokio::task::spawn_local(serving);
        Ok((Admin { copy: Some(copy), keeper, file, door, asking, stop, serving }, requests))
    }

    /// Ends it. Whoever `watches` may still have to be told the last.
    pub(super) async fn end(self, watches: bool) {
        drop(self.stop);
        if watches {
            let _late = tokio::time::timeout(LAST_MOMENT, self.serving).await;
        }
    }
}

impl Control {
    /// The listeners, that for the admin and that for successors are ours alone, as far as
    /// is known.
    pub(super) fn own_doors(&mut self) {
        let held = self.succession.is_in_doubt();
        self.listeners.iter_mut().for_each(|listener| listener.set_held(held));
        if let Some(admin) = &self.admin {
            admin.door.send_replace(Door::Open);
        }
        if let Some(takeover) = &mut self.takeover {
            takeover.own();
        }
    }

    /// Those of these kinds are nobody's any more: they are closed, and their paths go.
    pub(super) fn remove_doors(&mut self, kinds: &[GivenKind]) {
        if let Some(admin) = self.admin.as_mut().filter(|_| kinds.contains(&GivenKind::Admin)) {
            admin.copy = None;
            admin.door.send_replace(Door::Removed);
        }
        if kinds.contains(&GivenKind::Takeover)
            && let Some(mut takeover) = self.takeover.take()
        {
            takeover.own();
        }
    }

    /// Our copies are closed for good.
    pub(super) fn close_doors(&mut self) {
        if let Some(admin) = self.admin.as_mut().filter(|admin| admin.copy.is_some()) {
            admin.copy = None;
            admin.door.send_replace(Door::Dropped);
        }
        self.takeover = None;
    }

    /// They are ours again, and bound again where they were removed.
    pub(super) fn open_doors(&mut self) {
        let mut wrong = Vec::new();
        if let Some(listen) = &self.config.admin
            && self.admin.as_ref().is_none_or(|admin| admin.copy.is_none())
        {
            let served = admin::bind(listen).and_then(|listener| {
                Admin::serve(listener, &self.config, &self.overview, &self.events, false)
            });
            match served {
                Ok((admin, requests)) => {
                    (self.admin, self.requests) = (Some(admin), requests);
                }
                Err(error) => wrong.push((listen.to_string(), error)),
            }
        }
        if let (Some(path), None) = (&self.config.upgrade.takeover, &self.takeover) {
            match Takeover::listen(path) {
                Ok(takeover) => self.takeover = Some(takeover),
                Err(error) => wrong.push((path.display().to_string(), error)),
            }
        }
        for (place, error) in wrong {
            let event = Event::new(Level::Error, "listener_lost").with("addr", place);
            self.events.emit(event.with("error", error.to_string()));
        }
        self.own_doors();
    }

    /// They are the successor's.
    pub(super) fn leave_doors(&mut self) {
        self.listeners.iter_mut().for_each(|listener| listener.set_held(true));
        if let Some(admin) = &self.admin {
            admin.door.send_replace(Door::HandedOver);
        }
        if let Some(takeover) = &mut self.takeover {
            takeover.leave();
        }
    }

    /// Waits a moment until nobody is being answered any more, besides those who are told
    /// what happens: what is shown after our last word to the successor would be more than it
    /// knows.
    pub(super) async fn last_answers(&self) {
        let Some(admin) = &self.admin else { return };
        let _late = tokio::time::timeout(LAST_ANSWERS, admin.asking.closed()).await;
    }
}
