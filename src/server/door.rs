//! The admin listener and the takeover listener as the control thread holds them: served,
//! left to a successor, taken back.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::control::Control;
use super::overview::Overview;
use crate::admin::{self, AdminListener, Commands, Door, Progress, Refusal, Service};
use crate::config::Config;
use crate::handoff::GivenKind;
use crate::handoff::Keeper;
use crate::limits::{LAST_MOMENT, REQUESTS, UPGRADE_NEWS};
use crate::telemetry::Events;

/// The admin listener, which is served by a task of its own until this is dropped.
pub(super) struct Admin {
    /// For a successor.
    pub(super) copy: Option<OwnedFd>,
    /// How a service manager has it, too.
    pub(super) keeper: Option<Keeper>,
    door: watch::Sender<Door>,
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
        asked.map_err(|_| Refusal("too many upgrades are being asked for".to_owned()))?;
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
        let (copy, keeper) = (listener.share()?, listener.keeper());
        let (asks, requests) = mpsc::channel(REQUESTS);
        let desk = Desk { overview: Rc::clone(overview), requests: asks };
        let service = Service {
            view: Rc::clone(overview) as Rc<_>,
            commands: Rc::new(desk),
            names: config.admin_names.clone(),
        };
        let (door, state) = watch::channel(if shared { Door::Shared } else { Door::Open });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _dropped = stopped.await;
        };
        let serving = admin::serve(listener, service, events.clone(), state, stopped);
        let serving = tokio::task::spawn_local(serving);
        Ok((Admin { copy: Some(copy), keeper, door, stop, serving }, requests))
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
    /// The admin listener and that for successors are ours alone.
    pub(super) fn own_doors(&mut self) {
        if let Some(admin) = &self.admin {
            admin.door.send_replace(Door::Open);
        }
        if let Some(takeover) = &mut self.takeover {
            takeover.own();
        }
    }

    /// Our copies are closed for good; the paths of those that nobody has goes with them.
    pub(super) fn close_doors(&mut self, unclaimed: &[GivenKind]) {
        if let Some(admin) = &mut self.admin {
            let ours = unclaimed.contains(&GivenKind::Admin);
            admin.copy = None;
            admin.door.send_replace(if ours { Door::Removed } else { Door::Dropped });
        }
        if let Some(mut takeover) = self.takeover.take()
            && unclaimed.contains(&GivenKind::Takeover)
        {
            takeover.own();
        }
    }

    /// They are the successor's.
    pub(super) fn leave_doors(&mut self) {
        if let Some(admin) = &self.admin {
            admin.door.send_replace(Door::HandedOver);
        }
        if let Some(takeover) = &mut self.takeover {
            takeover.leave();
        }
    }
}
