//! A configuration that is being built: a place for each value, the defaults in it.

use std::time::Duration;

use super::keys::{KEYS, Preset};
use super::model::{
    AccessFormat, Config, EventStream, Forwarding, Limits, Log, OnDrain, Plan, ProxyProtocol,
    Retry, Route, Routes, Timeouts, Tls, Trusted, Underscores, Upgrade, Upstream, WebSocket,
};
use crate::limits;

/// A configuration that is being built, later sources over earlier ones.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// What has been said so far.
    pub(super) config: Config,
    /// `drain.stop.total_timeout`, if it was given: without it, the sum.
    pub(super) stop_total: Option<Duration>,
    /// `drain.upgrade.total_timeout`, likewise.
    pub(super) upgrade_total: Option<Duration>,
    /// `drain.upgrade.idle_grace`, if it was given: without it, `timeouts.idle`.
    pub(super) upgrade_idle_grace: Option<Duration>,
    /// The route that is being read.
    pub(super) route: Route,
}

impl Draft {
    /// Every default in its place; what has none is empty.
    pub(super) fn with_defaults() -> Self {
        let mut draft = Self::blank();
        for key in KEYS {
            if let Preset::Default(text) = key.default {
                let values = super::form::pieces(text);
                let set = key.form.set(&mut draft, &values);
                debug_assert!(set.is_ok(), "the default of {} is refused: {set:?}", key.name);
            }
        }
        draft
    }

    /// A place for each value. What stands here is overwritten by the table,
    /// except what has no default.
    fn blank() -> Self {
        let t = Duration::ZERO;
        Self {
            config: Config {
                listen: Vec::new(),
                admin: None,
                admin_names: Vec::new(),
                workers: std::thread::available_parallelism()
                    .map_or(1, |cores| cores.get().min(limits::WORKERS_MAX)),
                report: None,
                trusted: Trusted::default(),
                tls: Tls::default(),
                upstream: Upstream {
                    endpoints: Vec::new(),
                    connect_timeout: t,
                    first_byte_timeout: t,
                    between_bytes_timeout: t,
                    idle_timeout: t,
                    retry: Retry::Never,
                    tls_ca: None,
                    tls_name: None,
                    h2_streams: 0,
                    h2_idle_timeout: t,
                    h2_ping_interval: t,
                    h2_ping_timeout: t,
                },
                timeouts: Timeouts {
                    head: t,
                    body: t,
                    body_rate: 0,
                    body_rate_grace: t,
                    idle: t,
                    send: t,
                    tls_handshake: t,
                    h2_preface: t,
                    h2_ping: t,
                },
                limits: Limits::default(),
                forwarding: Forwarding {
                    via: false,
                    forwarded: false,
                    underscores: Underscores::Drop,
                    proxy_protocol: ProxyProtocol::Off,
                },
                upgrade_tokens: Vec::new(),
                websocket: WebSocket {
                    close_code: 0,
                    close_reason: String::new(),
                    on_drain: OnDrain::Close,
                    tell_lost: false,
                    idle_timeout: t,
                    ping_interval: None,
                    max_age: None,
                },
                event_stream: EventStream::default(),
                stop: Plan::default(),
                upgrade: Upgrade::default(),
                store: false,
                log: Log { access: AccessFormat::Off, query: false },
                routes: Routes::default(),
            },
            stop_total: None,
            upgrade_total: None,
            upgrade_idle_grace: None,
            route: Route::default(),
        }
    }

    /// The configuration, with what follows from the rest filled in.
    pub(super) fn finish(self) -> Config {
        let mut config = self.config;
        config.stop.total_timeout = self.stop_total.unwrap_or_else(|| config.stop.sum());
        let leave = &mut config.upgrade.plan;
        leave.idle_grace = self.upgrade_idle_grace.unwrap_or(config.timeouts.idle);
        leave.total_timeout = self.upgrade_total.unwrap_or_else(|| leave.rest());
        config
    }
}
