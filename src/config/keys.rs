//! The table of all keys: name, form, default, meaning.
//!
//! Owns every name and every default. The file, the environment, `--set`, the
//! flags, the help text, the suggestions and the reference file are all driven
//! by [`KEYS`]: a key is added here, or in `plans` if it is one of a drain, and nowhere
//! else. What follows from several keys together is checked in `check`, not here.

use std::time::Duration;

use super::draft::Draft;
use super::form::Form;
use super::form::Form::{
    CloseCode, Connections, Count, CountOrOff, Endpoints, File, Files, Flag, Listener, Listeners,
    Name, Names, Networks, Rate, Reason, Size, SizeOrOff, Time, TimeOrOff, Tokens, Word,
};
use super::model::{AccessFormat, OnDrain, ProxyProtocol, Retry, Underscores};
use super::plans::PLANS;
use crate::limits;

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The dotted name, `timeouts.head`.
    pub name: &'static str,
    /// The value that holds if nobody says anything.
    pub default: Preset,
    /// What it is for, with unit and bounds, in one sentence.
    pub doc: &'static str,
    /// The form of its value and the place it is kept.
    pub(super) form: Form,
}

/// What a key says before anyone sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// This value.
    Default(&'static str),
    /// Nothing; `doc` says what that means. A value could look like this.
    Unset(&'static str),
}

use Preset::{Default as Is, Unset};

/// At least this, since the wait would end before it began.
pub(super) const SOME: Duration = Duration::from_millis(1);
/// Nothing at all is fine too.
pub(super) const NONE: Duration = Duration::ZERO;

pub(super) const fn key(name: &'static str, default: Preset, form: Form, doc: &'static str) -> Key {
    Key { name, default, doc, form }
}

/// A duration that must end.
pub(super) const fn time(least: Duration, set: fn(&mut Draft, Duration)) -> Form {
    Time { least, infinity: false, set }
}

/// A duration that may be `infinity`.
pub(super) const fn open_time(least: Duration, set: fn(&mut Draft, Duration)) -> Form {
    Time { least, infinity: true, set }
}

/// `on` or `off`.
macro_rules! switch {
    ($section:ident . $field:ident) => {
        Word(&[
            ("on", |d| d.config.$section.$field = true),
            ("off", |d| d.config.$section.$field = false),
        ])
    };
}

/// Every key, in the order in which people are shown them.
pub static KEYS: &[Key] = &joined();

const fn joined() -> [Key; GENERAL.len() + PLANS.len()] {
    let mut all = [GENERAL[0]; GENERAL.len() + PLANS.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < GENERAL.len() { GENERAL[at] } else { PLANS[at - GENERAL.len()] };
        at += 1;
    }
    all
}

/// All but those of drains.
const GENERAL: &[Key] = &[
    key(
        "listen",
        Unset(":8080"),
        Listeners(|d, v| d.config.listen = v),
        "Where clients connect; at least one, here or in tls.listen. HOST:PORT, :PORT (all IPv4 addresses), [::]:PORT, \
         unix:PATH[,mode=0660], or fd:NAME: what systemd has opened under that name.",
    ),
    key(
        "admin",
        Unset("unix:/run/ebbtide/admin.sock"),
        Listener(|d, v| d.config.admin = Some(v)),
        "Where health, metrics and status are asked for; none if not set. A unix socket may do \
         everything, TCP may only read.",
    ),
    key(
        "admin_names",
        Is(""),
        Names(|d, v| d.config.admin_names = v),
        "Host names by which a TCP admin listener may be asked, besides its address and localhost.",
    ),
    key(
        "workers",
        Unset("2"),
        Count { least: 1, most: limits::WORKERS_MAX, set: |d, v| d.config.workers = v },
        "Worker threads, 1 to 1024; if not set, one for each core that this process may use.",
    ),
    key(
        "report",
        Unset("/var/log/ebbtide/drain-report.json"),
        File(|d, v| d.config.report = Some(v)),
        "A file that gets the drain report when the process ends, besides the log.",
    ),
    key(
        "trusted_proxies",
        Is(""),
        Networks(|d, v| d.config.trusted = v),
        "Peers whose word about the client is taken: X-Forwarded-For and its like, Forwarded, the \
         PROXY protocol. Addresses, networks such as 10.0.0.0/8, or unix for all who come through \
         a unix listener.",
    ),
    key(
        "upgrade_tokens",
        Is(""),
        Tokens(|d, v| d.config.upgrade_tokens = v),
        "Protocols besides websocket that an HTTP/1.1 connection, or by an extended CONNECT an \
         HTTP/2 stream, may be upgraded to; any other Upgrade is left out, any other CONNECT \
         refused. Never h2c.",
    ),
    key(
        "tls.listen",
        Unset(":8443"),
        Listeners(|d, v| d.config.tls.listen = v),
        "Where clients connect with TLS (1.2 and 1.3); addresses as for listen. Needs tls.cert and \
         tls.key.",
    ),
    key(
        "tls.cert",
        Unset("/etc/ebbtide/cert.pem"),
        Files(|d, v| d.config.tls.cert = v),
        "Certificate chains, PEM, the server's own certificate first. A client gets the one for \
         the name it asks for, or else the first.",
    ),
    key(
        "tls.key",
        Unset("/etc/ebbtide/key.pem"),
        Files(|d, v| d.config.tls.key = v),
        "Private keys, PEM, in the order of their certificates.",
    ),
    key(
        "upstream.endpoints",
        Unset("127.0.0.1:3000"),
        Endpoints(|d, v| d.config.upstream.endpoints = v),
        "The app servers, used in turn; at least one. HOST:PORT or unix:PATH, http:// (the same) or \
         https:// before HOST:PORT; for HTTP/2 h2c://HOST:PORT, h2c:unix:PATH, or h2://HOST:PORT \
         (with TLS).",
    ),
    key(
        "upstream.tls_ca",
        Unset("/etc/ebbtide/app-ca.pem"),
        File(|d, v| d.config.upstream.tls_ca = Some(v)),
        "Certificates, PEM, of those who may vouch for an app server with TLS; if not set, those \
         whom the system trusts.",
    ),
    key(
        "upstream.tls_name",
        Unset("app.internal"),
        Name(|d, v| d.config.upstream.tls_name = Some(v)),
        "The name that the certificate of an app server has to be for, sent as SNI; if not set, \
         the host of its address.",
    ),
    key(
        "upstream.connect_timeout",
        Is("5s"),
        time(SOME, |d, v| d.config.upstream.connect_timeout = v),
        "How long a connect to the app may take.",
    ),
    key(
        "upstream.first_byte_timeout",
        Is("60s"),
        open_time(SOME, |d, v| d.config.upstream.first_byte_timeout = v),
        "From the end of a request to the first byte of its response; may be infinity.",
    ),
    key(
        "upstream.between_bytes_timeout",
        Is("60s"),
        open_time(SOME, |d, v| d.config.upstream.between_bytes_timeout = v),
        "The longest gap between bytes of a response; may be infinity.",
    ),
    key(
        "upstream.idle_timeout",
        Is("1.5s"),
        time(NONE, |d, v| d.config.upstream.idle_timeout = v),
        "How long an idle connection to the app is kept; stay below the app's own keep-alive.",
    ),
    key(
        "upstream.h2_streams",
        Is("100"),
        Count { least: 1, most: limits::STREAMS_MAX, set: |d, v| d.config.upstream.h2_streams = v },
        "The most streams at once on an HTTP/2 connection to the app, 1 to 10000; if the app \
         allows fewer, those. For more another connection is opened.",
    ),
    key(
        "upstream.h2_idle_timeout",
        Is("60s"),
        time(NONE, |d, v| d.config.upstream.h2_idle_timeout = v),
        "How long an HTTP/2 connection to the app is kept without streams.",
    ),
    key(
        "upstream.h2_ping_interval",
        Is("10s"),
        time(NONE, |d, v| d.config.upstream.h2_ping_interval = v),
        "With streams open, how long an app on HTTP/2 may be silent before it is sent a PING; if \
         nothing else follows, the next is sent after five minutes. 0 switches it off.",
    ),
    key(
        "upstream.h2_ping_timeout",
        Is("5s"),
        time(SOME, |d, v| d.config.upstream.h2_ping_timeout = v),
        "How long it may be silent after that, before its streams are given up.",
    ),
    key(
        "upstream.retry",
        Is("idempotent"),
        Word(&[
            ("idempotent", |d| d.config.upstream.retry = Retry::Idempotent),
            ("never", |d| d.config.upstream.retry = Retry::Never),
        ]),
        "Whether a safe request is sent once more when a reused connection died unanswered, \
         and any request (POST too) up to three times when an HTTP/2 app has refused it: \
         idempotent or never.",
    ),
    key(
        "timeouts.head",
        Is("10s"),
        time(SOME, |d, v| d.config.timeouts.head = v),
        "From the first byte of a request to the end of its head.",
    ),
    key(
        "timeouts.body",
        Is("30s"),
        time(SOME, |d, v| d.config.timeouts.body = v),
        "The longest gap between bytes of a request body.",
    ),
    key(
        "timeouts.body_rate",
        Is("500"),
        Rate(|d, v| d.config.timeouts.body_rate = v),
        "The least rate of a request body in bytes per second; 0 switches it off.",
    ),
    key(
        "timeouts.body_rate_grace",
        Is("20s"),
        time(NONE, |d, v| d.config.timeouts.body_rate_grace = v),
        "How long a request body may be slower than that.",
    ),
    key(
        "timeouts.idle",
        Is("75s"),
        time(NONE, |d, v| d.config.timeouts.idle = v),
        "How long a client's connection may be idle between requests; stay above the keep-alive \
         of a proxy in front.",
    ),
    key(
        "timeouts.send",
        Is("30s"),
        time(SOME, |d, v| d.config.timeouts.send = v),
        "The longest time without progress while writing to a client.",
    ),
    key(
        "timeouts.tls_handshake",
        Is("10s"),
        time(SOME, |d, v| d.config.timeouts.tls_handshake = v),
        "From the first byte of a TLS handshake to the end of the ClientHello, and from there to \
         the end of the handshake.",
    ),
    key(
        "timeouts.h2_preface",
        Is("10s"),
        time(SOME, |d, v| d.config.timeouts.h2_preface = v),
        "How long an HTTP/2 client may take to send its preface and first settings.",
    ),
    key(
        "timeouts.h2_ping",
        Is("30s"),
        time(NONE, |d, v| d.config.timeouts.h2_ping = v),
        "With streams open, how long an HTTP/2 client may be silent before it is sent a PING; \
         after as long again without a byte the connection is closed. 0 switches it off.",
    ),
    key(
        "limits.head_size",
        Is("64k"),
        Size { least: 1 << 10, most: 1 << 20, set: |d, v| d.config.limits.head_size = v },
        "The most bytes of a request head, 1k to 1m.",
    ),
    key(
        "limits.head_count",
        Is("100"),
        Count {
            least: 1,
            most: limits::HEAD_COUNT_MAX,
            set: |d, v| d.config.limits.head_count = v,
        },
        "The most fields of a request head, 1 to 256.",
    ),
    key(
        "limits.streams",
        Is("128"),
        Count { least: 1, most: limits::STREAMS_MAX, set: |d, v| d.config.limits.streams = v },
        "The most streams open at once on an HTTP/2 connection, 1 to 10000.",
    ),
    key(
        "limits.body_size",
        Is("off"),
        SizeOrOff(|d, v| d.config.limits.body_size = v),
        "The most bytes of a request body, answered with 413 beyond; off leaves it to the app.",
    ),
    key(
        "limits.connections",
        Unset("10000"),
        Connections(|d, v| d.config.limits.connections = Some(v)),
        "The most connections of clients; if not set, what the limit of open files allows.",
    ),
    key(
        "limits.connections_per_address",
        Is("off"),
        CountOrOff(|d, v| d.config.limits.connections_per_address = v),
        "The most connections from one address, trusted_proxies left out; off sets no limit.",
    ),
    key(
        "limits.connection_age",
        Is("off"),
        TimeOrOff { least: Duration::from_secs(1), set: |d, v| d.config.limits.connection_age = v },
        "The age after which a connection is closed at its next pause, 1s or more; off keeps it.",
    ),
    key(
        "forwarding.via",
        Is("on"),
        switch!(forwarding.via),
        "Whether Via names the proxy in requests and responses: on or off.",
    ),
    key(
        "forwarding.forwarded",
        Is("off"),
        switch!(forwarding.forwarded),
        "Whether the app gets Forwarded (RFC 7239) besides X-Forwarded-For and its like: on or off.",
    ),
    key(
        "forwarding.underscores",
        Is("drop"),
        Word(&[
            ("drop", |d| d.config.forwarding.underscores = Underscores::Drop),
            ("refuse", |d| d.config.forwarding.underscores = Underscores::Refuse),
            ("pass", |d| d.config.forwarding.underscores = Underscores::Pass),
        ]),
        "What becomes of request fields with an underscore in their name, which app servers take \
         for those with a hyphen: drop, refuse or pass.",
    ),
    key(
        "forwarding.proxy_protocol",
        Is("auto"),
        Word(&[
            ("auto", |d| d.config.forwarding.proxy_protocol = ProxyProtocol::Auto),
            ("require", |d| d.config.forwarding.proxy_protocol = ProxyProtocol::Require),
            ("off", |d| d.config.forwarding.proxy_protocol = ProxyProtocol::Off),
        ]),
        "Whether connections of trusted_proxies begin with a PROXY protocol header, version 1 or \
         2: auto takes one if there is one, require closes those without, off takes none.",
    ),
    key(
        "websocket.close_code",
        Is("1001"),
        CloseCode(|d, v| d.config.websocket.close_code = v),
        "The code of the Close that ends a WebSocket in a stop: 1001 (going away), 1012 (service \
         restart), or another that may be sent.",
    ),
    key(
        "websocket.close_reason",
        Is(""),
        Reason(|d, v| d.config.websocket.close_reason = v),
        "The reason in that Close, at most 123 bytes.",
    ),
    key(
        "websocket.on_drain",
        Is("close"),
        Word(&[
            ("close", |d| d.config.websocket.on_drain = OnDrain::Close),
            ("leave", |d| d.config.websocket.on_drain = OnDrain::Leave),
        ]),
        "What a stop does with a WebSocket: close it, or leave it alone until the hard deadline.",
    ),
    key(
        "websocket.tell_lost",
        Is("on"),
        switch!(websocket.tell_lost),
        "Whether the client of an app server that is gone gets a Close 1011: on or off.",
    ),
    key(
        "websocket.idle_timeout",
        Is("1h"),
        open_time(SOME, |d, v| d.config.websocket.idle_timeout = v),
        "How long a tunnel may be silent in both directions; may be infinity.",
    ),
    key(
        "websocket.ping_interval",
        Is("off"),
        TimeOrOff {
            least: Duration::from_secs(1),
            set: |d, v| d.config.websocket.ping_interval = v,
        },
        "How long a WebSocket may be silent before its client is sent a Ping, 1s or more, or off.",
    ),
    key(
        "websocket.max_age",
        Is("off"),
        TimeOrOff { least: Duration::from_secs(1), set: |d, v| d.config.websocket.max_age = v },
        "The age after which a WebSocket is closed, 1s or more; off keeps it.",
    ),
    key(
        "event_stream.retry",
        Is("off"),
        TimeOrOff { least: SOME, set: |d, v| d.config.event_stream.retry = v },
        "The least time that clients of an event stream are asked to wait, by a last retry line, \
         when a stop ends it; each is told a time up to twice that. Or off.",
    ),
    key(
        "systemd.store",
        Is("false"),
        Flag(|d, v| d.config.store = v),
        "Whether systemd keeps copies of the listeners, so that even a crash or a restart refuses \
         nobody. The unit needs FileDescriptorStoreMax; whoever waits when it is stopped is reset.",
    ),
    key(
        "log.access",
        Is("json"),
        Word(&[
            ("json", |d| d.config.log.access = AccessFormat::Json),
            ("combined", |d| d.config.log.access = AccessFormat::Combined),
            ("off", |d| d.config.log.access = AccessFormat::Off),
        ]),
        "The access log on stdout: json, combined or off.",
    ),
    key(
        "log.query",
        Is("false"),
        Flag(|d, v| d.config.log.query = v),
        "Whether logged targets keep their query, which may hold secrets.",
    ),
];

/// The key of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Key {
    /// Its environment variable, `EBBTIDE_TIMEOUTS__HEAD`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_uppercase().replace('.', "__"))
    }
}

/// What the names of our environment variables begin with.
pub(super) const VARIABLE_PREFIX: &str = "EBBTIDE_";
