//! The admin listener as the control thread holds it: served, left to a successor, taken
//! back.

use std::io;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::control::Control;
use super::overview::Overview;
use crate::admin::{self, AdminListener};
use crate::config::Config;
use crate::telemetry::{Event, Events, Level};

/// The admin listener, and who serves it.
pub(super) struct Admin {
    pub(super) listener: AdminListener,
    /// Ends the serving when it is dropped.
    serving: Option<oneshot::Sender<()>>,
}

impl Admin {
    pub(super) fn new(listener: AdminListener) -> Self {
        Admin { listener, serving: None }
    }

    fn serve(&mut self, config: &Config, view: Rc<Overview>, events: Events) -> io::Result<()> {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _dropped = stopped.await;
        };
        let names = config.admin_names.clone();
        let listener = self.listener.share()?;
        tokio::task::spawn_local(admin::serve(listener, view, names, events, stopped));
        self.serving = Some(stop);
        Ok(())
    }
}

impl Control {
    /// Answers whoever asks.
    pub(super) fn serve_admin(&mut self) {
        let Some(admin) = &mut self.admin else { return };
        admin.listener.take_back();
        let view = Rc::clone(&self.overview);
        if let Err(error) = admin.serve(&self.config, view, self.events.clone()) {
            let event = Event::new(Level::Error, "admin_accept_failed");
            self.events.emit(event.with("message", error.to_string()));
        }
    }

    /// Answers nobody new: that is for the successor.
    pub(super) fn rest_admin(&mut self) {
        if let Some(admin) = &mut self.admin {
            admin.listener.hand_over();
            admin.serving = None;
        }
        if let Some(takeover) = &mut self.takeover {
            takeover.hand_over();
        }
    }
}
