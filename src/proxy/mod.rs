//! One request: what is sent to the app server, what comes back, and what is
//! said when something fails.
//!
//! A request passes through here in this order: [`request`] checks its head and
//! writes the one the app server will see; `exchange` sends it over a pooled
//! connection and streams both bodies, everything driven inline by the one task
//! of the downstream connection; `response` decides what of the answer passes;
//! [`failure`] maps whatever went wrong to one status and one cause, and
//! `respond` says so. What the client's protocol makes of all that is behind the
//! trait `downstream`: [`h1`] writes octets, [`h2`] sends frames. What a drain asks of
//! one exchange is in `course`, where an endless body may end in `flow`, and whose turn
//! it is among all that are told in `tellings`.
//!
//! Does not know how a connection lives: that is [`crate::serve`].

mod course;
mod downstream;
mod exchange;
pub mod failure;
mod flow;
pub mod fuzz;
mod grpc;
pub mod h1;
pub mod h2;
mod inbound;
mod outbound;
mod patience;
mod record;
pub mod request;
mod respond;
mod response;
mod stamp;
mod target;
mod tellings;
mod trailer;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::config::{Config, Plan};
use crate::drain::{self, Orders, Stage};
use crate::net::Clock;
use crate::telemetry::{AccessLog, Counters, CutRequest, Events};
use crate::upstream::{Pool, Spare};

use request::{Origin, Rules};

pub use downstream::Ended;
pub use failure::Failure;
pub use request::{Protocol, Request, RequestIds};
pub use stamp::Stamp;
pub use tellings::{Telling, Tellings, last};
pub use tunnel::{Passed, Tunnel};

/// What every request of one worker needs.
pub struct Proxy {
    /// The configuration.
    pub config: Arc<Config>,
    /// What everybody is asked to do now.
    pub orders: Cell<Orders>,
    /// The worker's clock.
    pub clock: Rc<Clock>,
    /// Read buffers.
    pub spare: Rc<Spare>,
    /// Connections to the app servers.
    pub pool: Pool,
    /// Ids for requests that come without one.
    pub ids: RequestIds,
    /// What is added to responses.
    pub stamp: Stamp,
    /// When endless streams are told to end.
    pub tellings: Tellings,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// The access log.
    pub access: RefCell<AccessLog>,
    /// Events on stderr.
    pub events: Events,
    /// Where cut requests are named.
    pub cuts: SyncSender<CutRequest>,
}

impl Proxy {
    /// What requests of a connection are planned by.
    pub fn rules<'a>(&'a self, origin: Origin<'a>) -> Rules<'a> {
        let Config { forwarding, trusted, upgrade_tokens, .. } = &*self.config;
        Rules { origin, forwarding, trusted, upgrades: upgrade_tokens, ids: &self.ids }
    }

    /// The plan by which we leave, or would leave if we were told to stop.
    pub fn plan(&self) -> &Plan {
        let Orders { stage, plan, .. } = self.orders.get();
        if stage >= Stage::Draining && plan == drain::Plan::Upgrade {
            &self.config.upgrade.plan
        } else {
            &self.config.stop
        }
    }

    /// Whether whoever can go on in a successor goes there.
    pub fn moves(&self) -> bool {
        let Orders { stage, moves, .. } = self.orders.get();
        moves && stage == Stage::Draining
    }

    /// What is asked now.
    #[inline]
    pub fn stage(&self) -> Stage {
        self.orders.get().stage
    }
}
