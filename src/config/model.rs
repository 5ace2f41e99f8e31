//! What a checked configuration says. No invalid value can be written in it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use super::route::{Route, RouteDrain, Routes};
pub use super::trust::{Network, Trusted};

/// A duration that never ends, written `infinity`.
pub const INFINITY: Duration = Duration::MAX;

/// Everything the program was told, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect (`listen`).
    pub listen: Vec<Listen>,
    /// The admin listener (`admin`), if any.
    pub admin: Option<Listen>,
    /// Host names, besides its own address and `localhost`, under which the admin listener may be asked (`admin_names`).
    pub admin_names: Vec<String>,
    /// Worker threads (`workers`); default: the cores this process may use.
    pub workers: usize,
    /// Where the drain report is written (`report`), besides the log.
    pub report: Option<PathBuf>,
    /// Whose word about the client is taken (`trusted_proxies`).
    pub trusted: Trusted,
    /// `[tls]`
    pub tls: Tls,
    /// `[upstream]`
    pub upstream: Upstream,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[limits]`
    pub limits: Limits,
    /// `[forwarding]`
    pub forwarding: Forwarding,
    /// Protocols besides `websocket` that a connection may be upgraded to (`upgrade_tokens`), in lower case.
    pub upgrade_tokens: Vec<String>,
    /// `[websocket]`
    pub websocket: WebSocket,
    /// `[event_stream]`
    pub event_stream: EventStream,
    /// `[drain.stop]`
    pub stop: Plan,
    /// `[upgrade]` and `[drain.upgrade]`
    pub upgrade: Upgrade,
    /// Whether the service manager keeps copies of the listeners (`systemd.store`).
    pub store: bool,
    /// `[log]`
    pub log: Log,
    /// `[[route]]`
    pub routes: Routes,
}

/// Where a listener binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A unix socket, `unix:PATH[,mode=0660]`.
    Unix {
        /// The path of the socket.
        path: PathBuf,
        /// The permission bits set on it, if given.
        mode: Option<u32>,
    },
    /// `fd:NAME`: what the service manager has opened under this name.
    Fd(String),
}

/// An app server: where it listens and what it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// What it speaks.
    pub speaks: Speaks,
    /// Where it listens.
    pub address: Address,
}

/// What an app server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// HTTP/1.1 in clear text.
    Http,
    /// HTTP/1.1 with TLS.
    Https,
    /// HTTP/2 in clear text, from the first octet on.
    H2c,
    /// HTTP/2 with TLS.
    H2,
}

impl Speaks {
    /// Whether it is HTTP/2.
    pub fn is_h2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }

    /// Whether it is with TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }
}

/// Where an app server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `HOST:PORT`, kept as written: resolved when connecting.
    Tcp {
        /// Host name or address literal (without brackets).
        host: String,
        /// Port, never 0.
        port: u16,
    },
    /// `unix:PATH`
    Unix(PathBuf),
}

/// `[tls]`: listeners that speak TLS, and who they say they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Where clients connect with TLS (`listen`).
    pub listen: Vec<Listen>,
    /// Certificate chains (`cert`), as many as there are keys.
    pub cert: Vec<PathBuf>,
    /// Private keys (`key`), each for the certificate in the same place.
    pub key: Vec<PathBuf>,
}

impl Tls {
    /// Each certificate chain with its key.
    pub fn pairs(&self) -> Vec<(PathBuf, PathBuf)> {
        self.cert.iter().cloned().zip(self.key.iter().cloned()).collect()
    }
}

/// `[upstream]`: the app server.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The servers (`endpoints`), at least one; used in turn.
    pub endpoints: Vec<Endpoint>,
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// From the end of the request to the first octet of its response.
    pub first_byte_timeout: Duration,
    /// The longest gap between octets of a response.
    pub between_bytes_timeout: Duration,
    /// How long an idle connection is kept for reuse.
    pub idle_timeout: Duration,
    /// Whether a request may be sent a second time.
    pub retry: Retry,
    /// Who may vouch for an app server with TLS (`tls_ca`); default: whom the system trusts.
    pub tls_ca: Option<PathBuf>,
    /// The name that its certificate is to be for (`tls_name`); default: the host of its address.
    pub tls_name: Option<String>,
    /// The most streams at once on an HTTP/2 connection.
    pub h2_streams: usize,
    /// How long an HTTP/2 connection without streams is kept.
    pub h2_idle_timeout: Duration,
    /// How long an app server on HTTP/2 with open streams may be silent before it is sent a PING; zero switches it off.
    pub h2_ping_interval: Duration,
    /// How long it may be silent after that.
    pub h2_ping_timeout: Duration,
}

impl Upstream {
    /// Whether any of the servers is spoken to with TLS.
    pub fn has_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.speaks.is_tls())
    }
}

/// `upstream.retry`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Once, for GET, HEAD, OPTIONS and TRACE without body, when a reused connection died before any response octet.
    Idempotent,
    /// Never, once an octet was written.
    Never,
}

/// `[timeouts]`: the client's side.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// First octet of a request to the end of its head.
    pub head: Duration,
    /// The longest gap between octets of a request body.
    pub body: Duration,
    /// The least rate of a request body in octets per second, after `body_rate_grace`; 0 switches it off.
    pub body_rate: u64,
    /// How long a request body may be slower than `body_rate`.
    pub body_rate_grace: Duration,
    /// How long a connection may be idle between requests.
    pub idle: Duration,
    /// The longest time without progress while writing to the client.
    pub send: Duration,
    /// For each half of a TLS handshake: to the end of the ClientHello, and from there to its end.
    pub tls_handshake: Duration,
    /// From the end of the TLS handshake, or the first octet, to the end of an HTTP/2 preface.
    pub h2_preface: Duration,
    /// How long an HTTP/2 client with open streams may be silent before it is sent a PING, and after it; zero switches it off.
    pub h2_ping: Duration,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// The most octets of a request head.
    pub head_size: usize,
    /// The most fields of a request head.
    pub head_count: usize,
    /// The most streams that are open at once on an HTTP/2 connection.
    pub streams: usize,
    /// The most octets of a request body; `None`: off.
    pub body_size: Option<u64>,
    /// The most downstream connections; `None`: derived from the descriptor limit.
    pub connections: Option<usize>,
    /// The most downstream connections from one address; `None`: off.
    pub connections_per_address: Option<usize>,
    /// The age after which a connection is retired; `None`: off.
    pub connection_age: Option<Duration>,
}

/// `[forwarding]`: what is added to messages and taken out of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// Whether `Via` names the proxy, in both directions.
    pub via: bool,
    /// Whether `Forwarded` (RFC 7239) is written besides `X-Forwarded-For` and its like.
    pub forwarded: bool,
    /// What becomes of fields with underscores in their names.
    pub underscores: Underscores,
    /// Whether trusted peers speak the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
}

/// `forwarding.underscores`: app servers fold `X_A` and `X-A` into one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// The field is left out.
    Drop,
    /// The request is refused.
    Refuse,
    /// The field passes.
    Pass,
}

/// `forwarding.proxy_protocol`: what is expected of a trusted peer; of others never anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A header is taken if there is one.
    Auto,
    /// A connection without a header is closed.
    Require,
    /// A header is a malformed request.
    Off,
}

/// `[websocket]`: tunnels whose frames are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// The code of a Close that we send in a stop, and at `max_age` and `idle_timeout`.
    pub close_code: u16,
    /// Its reason, which people may be shown; at most 123 octets.
    pub close_reason: String,
    /// What a drain asks of a tunnel.
    pub on_drain: OnDrain,
    /// Whether an app server that is gone becomes a Close 1011 for the client.
    pub tell_lost: bool,
    /// The longest time without an octet in either direction.
    pub idle_timeout: Duration,
    /// How often a silent client is sent a Ping; `None`: off.
    pub ping_interval: Option<Duration>,
    /// The age after which a tunnel is closed; `None`: off.
    pub max_age: Option<Duration>,
}

/// `websocket.on_drain`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrain {
    /// It is ended by a Close.
    Close,
    /// It is left alone until the hard deadline.
    Leave,
}

/// `[event_stream]`: responses that are followed event by event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventStream {
    /// The least time that clients of a stream which a drain ends are asked to wait; `None`: nothing is said.
    pub retry: Option<Duration>,
}

/// `[upgrade]`: replacing the binary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upgrade {
    /// The plan of the process that is replaced (`[drain.upgrade]`); it has no lame duck.
    pub plan: Plan,
    /// How long a successor may take until it is ready.
    pub timeout: Duration,
    /// How long the old process can take everything back.
    pub take_back: Duration,
    /// How long a successor has served before it is the service manager's main process.
    pub commit_after: Duration,
    /// The most processes at once, at least two.
    pub max_generations: usize,
    /// Where successors that others start ask (`takeover`).
    pub takeover: Option<PathBuf>,
}

/// The plan of a drain (`[drain.stop]`, `[drain.upgrade]`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Readiness fails this long before listeners close.
    pub lame_duck: Duration,
    /// How long a fresh connection may take to send its first octet.
    pub first_request_grace: Duration,
    /// How long an idle connection may be used once more.
    pub idle_grace: Duration,
    /// From the first GOAWAY to the final one, at least.
    pub goaway_grace: Duration,
    /// From the start of draining until endless streams are told to end.
    pub stream_close_after: Duration,
    /// Over how long their ends are spread, so that clients do not all come back at once.
    pub spread: Duration,
    /// How long a peer may take to answer a Close.
    pub close_timeout: Duration,
    /// How long a connection is read after our FIN.
    pub linger: Duration,
    /// From the start of closing to the hard deadline.
    pub drain_timeout: Duration,
    /// How long cutting may take.
    pub cut_timeout: Duration,
    /// How long finishing may take.
    pub finish_timeout: Duration,
    /// Bounds all phases; default: their sum.
    pub total_timeout: Duration,
    /// How long after `total_timeout` the watchdog ends the process.
    pub force_timeout: Duration,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The access log's form (`access`).
    pub access: AccessFormat,
    /// Whether targets are logged with their query (`query`).
    pub query: bool,
}

/// The form of the access log on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line.
    Json,
    /// The Apache combined format.
    Combined,
    /// No access log.
    Off,
}
