//! Every fixed bound of the program in one place.
//!
//! A bound that an operator may change is a configuration key; what stands
//! here is what the code itself relies on.

use std::time::Duration;

/// Octets of plaintext that a TLS connection encrypts at once.
pub const TLS_WRITE_MAX: usize = 64 << 10;

/// Octets of ciphertext that are read at once, at least and at most.
pub const TLS_READ_MIN: usize = 4 << 10;
/// See [`TLS_READ_MIN`]: two whole records.
pub const TLS_READ_MAX: usize = 33 << 10;

/// How long session tickets are made with one key. They are taken for as long again.
pub const TICKET_KEY_AGE: Duration = Duration::from_secs(12 * 3600);

/// Octets that are read of a file of certificates or a key.
pub const CERT_FILE_MAX: u64 = 1 << 20;

/// A certificate that expires within this is worth a warning.
pub const CERT_EXPIRY_WARNING: Duration = Duration::from_secs(7 * 24 * 3600);

/// Octets of access log that may wait for a slow reader of stdout.
pub const ACCESS_LOG_QUEUE_MAX: usize = 8 << 20;

/// Octets of events that may wait for a slow reader of stderr; larger than the
/// access log's, because a cut request that is not named breaks a promise.
pub const EVENT_QUEUE_MAX: usize = 32 << 20;

/// Octets a worker gathers before it hands its access log lines to the writer.
pub const ACCESS_LOG_BATCH: usize = 16 << 10;

/// Keys of rate-limited events that are remembered at once.
pub const LIMITED_EVENT_KEYS_MAX: usize = 1024;

/// Cut requests listed in the drain report; beyond it they are only counted.
pub const REPORT_CUT_MAX: usize = 10_000;

/// Errors listed in the drain report.
pub const REPORT_ERRORS_MAX: usize = 1_000;

/// Admin connections open at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Octets an admin connection buffers (the least hyper allows).
pub const ADMIN_BUFFER: usize = 8192;

/// From the first octet of an admin request, or the accept, to the end of its head.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an admin connection may wait for its next request.
pub const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long admin connections may finish what they answer when the process ends.
pub const ADMIN_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection that has come to a listener which is handed over may take to ask.
pub const ADMIN_LAST_WORD: Duration = Duration::from_millis(50);

/// Octets of an admin answer that the client reads.
pub const ADMIN_ANSWER_MAX: usize = 1 << 20;

/// Octets of the body of an admin request.
pub const ADMIN_BODY_MAX: usize = 8 << 10;

/// Octets of an answer that goes on, between two ends of lines.
pub const ADMIN_LINE_MAX: usize = 64 << 10;

/// How long the admin client waits for an answer.
pub const ADMIN_CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most header fields a message may have, whatever `limits.head_count` says:
/// the parser keeps this many on the stack.
pub const HEAD_COUNT_MAX: usize = 256;

/// The most streams an HTTP/2 connection may be allowed.
pub const STREAMS_MAX: usize = 10_000;

/// The longest chunk-size line, extensions included.
pub const CHUNK_LINE_MAX: usize = 1024;

/// The longest trailer section.
pub const TRAILER_MAX: usize = 8 * 1024;

/// The most fields of a trailer section.
pub const TRAILER_COUNT_MAX: usize = 100;

/// The longest of a response over HTTP/2: gRPC's servers put into it what has gone wrong.
pub const H2_TRAILER_MAX: usize = 32 << 10;

/// Signals within this time of the first are the same request: foreman,
/// terminals and control groups deliver two.
pub const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// How long a closing listener keeps accepting at least, and at most for the
/// sake of handshakes under way. While somebody waits it goes on for [`CLOSING`].
pub const CLOSE_QUEUE_MIN: Duration = Duration::from_millis(20);
/// See [`CLOSE_QUEUE_MIN`].
pub const CLOSE_QUEUE_MAX: Duration = Duration::from_millis(500);

/// The length of an accept queue; the kernel bounds it by `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// How often a worker looks at its timers, and how often while it drains.
pub const TICK: Duration = Duration::from_millis(100);
/// See [`TICK`].
pub const DRAIN_TICK: Duration = Duration::from_millis(5);

/// How long a connection waits for a request in a task of its own before it is parked.
pub const PARK_AFTER: Duration = Duration::from_millis(200);

/// Handshakes that fail are told at most once in this time.
pub const HANDSHAKE_EVENTS: Duration = Duration::from_secs(1);

/// Octets behind the fixed part of a header of the PROXY protocol, version 2. What is
/// in use has a few hundred: two addresses, a host name, what the client's certificate
/// says. The whole header fits into a read buffer, and so may a request behind it.
pub const PROXY_HEADER_MAX: usize = 4 << 10;

/// Headers of the PROXY protocol that are refused are told at most once in this time.
pub const PROXY_HEADER_EVENTS: Duration = Duration::from_secs(1);

/// How long a retired idle connection is still read, to count a raced request.
/// The contract allows 100 ms; a stop with nothing but idle clients that do not
/// react must fit into 50 ms after their grace.
pub const RETIRE_LINGER: Duration = Duration::from_millis(30);

/// How long a client that ended its side without having said `Connection: close`
/// is still waited for: it is more often gone than half closed.
pub const HALF_CLOSE_GRACE: Duration = Duration::from_secs(3);

/// A read buffer at first, and one for a body that fills it.
pub const BUFFER: usize = 8 * 1024;
/// See [`BUFFER`].
///
/// Its size decides what a download costs: of nginx's CPU per GB 0.38 with 64 KB, 0.34
/// with 128, 0.31 with 256; and what a client costs that does not read.
pub const BULK_BUFFER: usize = 128 * 1024;

/// Small buffers that a worker keeps for reuse, and large ones.
pub const SPARE_BUFFERS: usize = 64;
/// See [`SPARE_BUFFERS`].
pub const SPARE_BULK_BUFFERS: usize = 32;

/// A body this small is copied behind its head: one piece is cheaper to send than two.
pub const COPY_MAX: usize = 4 * 1024;

/// The longest response head.
pub const RESPONSE_HEAD_MAX: usize = 64 * 1024;

/// What an HTTP/2 client may send ahead of what the app server takes, on all
/// streams of a connection and on one.
pub const H2_WINDOW: u32 = 1 << 20;
/// See [`H2_WINDOW`].
pub const H2_WINDOW_STREAM: u32 = 256 << 10;

/// What the small pieces that uploads come in may cost beyond their octets: h2
/// reckons each as 256 at least, and ends a connection whose pieces wait for more
/// than this. A stream's window full of messages of 32 octets fits. A client that
/// makes the most of it costs some 6 MiB.
pub const H2_DATA_OVERHEAD: usize = 2 << 20;

/// Octets that an HTTP/2 connection reads before its streams take what has come.
/// As frames of one octet they stay below [`H2_DATA_OVERHEAD`].
pub const H2_TURN: usize = 32 << 10;

/// Octets of a response that a stream may hold between us and the kernel.
pub const H2_SEND_BUFFER: usize = 64 << 10;

/// Streams that a client may reset before we have taken them from h2.
pub const H2_PENDING_RESETS_MAX: usize = 20;

/// Streams of a connection that may end by the client's own errors, besides
/// twice as many as may be open at once: before it has seen our settings, a
/// client may open more than that, and every one beyond is refused.
pub const H2_LOCAL_RESETS_MAX: usize = 256;

/// Streams that a client may give up within [`RESETS_WINDOW`].
pub const RESETS_MAX: u32 = 400;
/// See [`RESETS_MAX`].
pub const RESETS_WINDOW: Duration = Duration::from_secs(10);

/// How long after its grace a client is waited for that does not acknowledge
/// GOAWAY (drain.md: at the latest 1 s after the grace).
pub const GOAWAY_PATIENCE: Duration = Duration::from_millis(900);

/// Connections of HTTP/2 that a worker has to one endpoint. Who finds them all full waits
/// for room. An app server that takes a stream at a time gets so many requests at once.
pub const H2_UPSTREAM_CONNECTIONS_MAX: usize = 128;

/// What an app server may send ahead of what a client takes, on one stream of HTTP/2; on
/// a connection, as much for each stream that it may have: a client that does not read
/// must not stop the others.
pub const H2_UPSTREAM_WINDOW_STREAM: u32 = 32 << 10;

/// What the small pieces that a stream's window holds may cost beyond their octets: h2
/// reckons each as 256 at least, and ends a connection whose pieces wait for more than
/// this times its streams. A window full of pieces of 8 octets is 4096 of them, each 248
/// short of 256: 992 KiB. So clients that do not read what comes in small messages never
/// end the connection that they share. At their worst they cost 1 MiB for each stream by
/// that reckoning, and by measure 2.4 MiB: 4096 pieces of some 580 octets each.
pub const H2_UPSTREAM_DATA_OVERHEAD: usize = H2_UPSTREAM_WINDOW_STREAM as usize / 8 * (256 - 8);

/// Streams that were given up and are remembered, for each that there may be at once, and
/// for how long: what was on its way to them is then no error.
pub const H2_UPSTREAM_RESETS: usize = 8;
/// See [`H2_UPSTREAM_RESETS`].
pub const H2_UPSTREAM_RESETS_FOR: Duration = Duration::from_secs(10);

/// Frames for streams that are forgotten, and streams that end by the app server's own
/// errors, in the life of a connection. It is no number that a long one comes to: each
/// costs the app server a frame and us an answer. One that does not read those does not
/// answer PING either.
pub const H2_UPSTREAM_RESETS_MAX: usize = u32::MAX as usize;

/// Octets of a request's body that are translated at once.
pub const H2_PIECE_MAX: usize = 64 << 10;

/// Octets of a request's body that are kept until the app server answers, so that they
/// can be sent again if it refuses the stream. What is longer is not sent again.
pub const H2_TAKE_BACK_MAX: usize = 32 << 10;

/// How long an app server that has said nothing since a PING but that it is there is let
/// alone: gRPC's servers allow a PING in five minutes, unless they have sent something.
pub const H2_PING_AGAIN: Duration = Duration::from_secs(310);

/// How often it is asked all the same for the sake of new requests: gRPC's servers let
/// two PINGs pass that come too soon, until they answer something.
pub const H2_PINGS: u8 = 3;

/// How often a request is sent that app servers refuse.
pub const REFUSED_ATTEMPTS: u8 = 3;

/// How long the goodbye to app servers may take at the end of the process.
pub const H2_FAREWELL: Duration = Duration::from_millis(100);

/// How often a tunnel may move octets before others have their turn.
pub const TUNNEL_TURNS: u32 = 16;

/// How long a TCP connection is silent before the kernel asks whether its client is there,
/// how long it waits for an answer, and how often it asks in vain.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// See [`KEEPALIVE_AFTER`].
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// See [`KEEPALIVE_AFTER`].
pub const KEEPALIVE_TIMES: u32 = 4;

/// How long before the hard deadline a gRPC call is ended between two messages.
pub const CALL_LAST: Duration = Duration::from_secs(2);

/// How long a connection whose endless response was ended waits for another request.
pub const TOLD_GRACE: Duration = Duration::from_millis(100);

/// The longest pause between two endless streams that are told to end.
pub const TELL_EVERY: Duration = Duration::from_millis(10);

/// Octets of an endless response that still pass when it has been told to end, while the
/// app server does not pause: what its connection may have held by then.
pub const STREAM_REST: usize = 256 << 10;

/// Tunnels that the status shows, the oldest first.
pub const STATUS_TUNNELS_MAX: usize = 100;

/// Interim responses to one request.
pub const INTERIM_MAX: u32 = 32;

/// Idle upstream connections that a worker keeps for each endpoint.
pub const POOL_IDLE_MAX: usize = 256;

const _: () = assert!(H2_TURN / 10 * 256 <= H2_DATA_OVERHEAD / 2);
const _: () = assert!(H2_WINDOW_STREAM as usize / 32 * (256 - 32) <= H2_DATA_OVERHEAD);
const _: () = assert!(BUFFER <= READ_AHEAD_MAX && READ_AHEAD_MAX <= MOVED_OCTETS_MAX);
const _: () = assert!(BUFFER >= TRAILER_MAX && TRAILER_MAX > CHUNK_LINE_MAX);
const _: () = assert!(BULK_BUFFER > H2_TRAILER_MAX && RESPONSE_HEAD_MAX > H2_TRAILER_MAX);
const _: () = assert!(16 + PROXY_HEADER_MAX < BUFFER);
const _: () = assert!(COPY_MAX <= BUFFER && BUFFER < BULK_BUFFER);
/// The bound of the closing phase: how long emptying the accept queues may take.
/// The sum of a stop's phases counts it beside `drain.stop.drain_timeout`.
pub const CLOSING: Duration = Duration::from_secs(1);

/// The longest finite duration that may be configured. An instant plus a few
/// of these can never overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The most processes that `upgrade.max_generations` may allow at once.
pub const GENERATIONS_MAX: usize = 64;

/// Octets of requests that may be read ahead of being served, while one is.
pub const READ_AHEAD_MAX: usize = 64 << 10;

/// Octets that may move with a connection. Who has more here is served on until it is less.
pub const MOVED_OCTETS_MAX: usize = 96 << 10;

/// How many parked connections move before others get their turn.
pub const MOVED_AT_ONCE: u32 = 64;

/// The most worker threads.
pub const WORKERS_MAX: usize = 1024;

/// The longest path of a unix socket: `sun_path` less its final zero.
pub const UNIX_PATH_MAX: usize = 107;

/// How long an answer to a request that the hard deadline cut may take to be sent.
pub const CUT_SEND: Duration = Duration::from_millis(500);

/// How long accepting rests after an error, at first and at most.
pub const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(5);
/// See [`ACCEPT_BACKOFF_MIN`].
pub const ACCEPT_BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Connections on their way from a closing listener to a worker.
pub const DELIVERIES: usize = 8192;

/// How long a successor may take to accept once it may, and to take a batch of
/// connections over. It has shown before that it works.
pub const LETTING_GO: Duration = Duration::from_secs(5);
/// See [`LETTING_GO`].
pub const HANDOFF_ACK: Duration = Duration::from_secs(5);

/// How long a word to another generation may wait for room: it never does, unless the
/// other stands still.
pub const HANDOFF_SAY: Duration = Duration::from_millis(200);

/// How long an elder waits for whoever reads next at the other end of its channel.
pub const HANDOFF_HOLD: Duration = Duration::from_secs(20);

// An upgrade of the successor that fails as late as it can takes so long.
const _: () = assert!(
    HANDOFF_HOLD.as_millis()
        > LETTING_GO.as_millis()
            + LAST_MOMENT.as_millis()
            + REAP.as_millis()
            + HANDOFF_ACK.as_millis()
);

/// Connections that are put into one packet at once, and packets on their way.
pub const HANDOFF_BATCH: usize = 64;
/// See [`HANDOFF_BATCH`].
pub const HANDOFF_WINDOW: usize = 4;

/// Words between the control thread and the channel to another generation.
pub const HANDOFF_WORDS: usize = 64;

/// Upgrades that are asked for at once, and what whoever asks may not have read yet.
pub const REQUESTS: usize = 4;
/// See [`REQUESTS`].
pub const UPGRADE_NEWS: usize = 64;

/// How often strangers at the takeover listener are written down.
pub const STRANGERS_EVERY: Duration = Duration::from_secs(60);

/// Sockets that a successor is given before it serves.
pub const HANDOFF_SOCKETS_MAX: usize = 4096;

/// How long a process that was started may take to end when it is told to.
pub const REAP: Duration = Duration::from_secs(2);

/// How often an elder says how it is.
pub const ELDER_REPORT: Duration = Duration::from_millis(200);

/// How long an elder that is empty stays, in case its successor dies at once.
pub const SETTLE: Duration = Duration::from_millis(500);

/// How long the last answers of the admin listener may take before a successor has it.
pub const LAST_ANSWERS: Duration = Duration::from_millis(80);

/// How long elders may take to close their copies of listeners.
pub const RELEASE: Duration = Duration::from_millis(800);

/// How long a successor that may accept has still got to do so when we are stopped.
pub const CALL_OFF: Duration = Duration::from_millis(300);

/// How long the end of a process may take to be seen once its channel has ended.
pub const SEEN_TO_END: Duration = Duration::from_millis(100);

const _: () = assert!(RELEASE.as_millis() < CLOSING.as_millis());

/// How long a worker may take to answer a request of the process's own.
pub const PROBE: Duration = Duration::from_secs(5);

/// Connections on their way from the workers to a successor.
pub const DEPARTURES: usize = 256;

/// What a worker has to say: that it has started, and why it ended.
pub const REPORTS: usize = 2;

/// Octets of a message between an elder and its successor, and descriptors that come
/// with it: the kernel takes no more at once.
pub const HANDOFF_MESSAGE_MAX: usize = 128 << 10;
/// See [`HANDOFF_MESSAGE_MAX`].
pub const HANDOFF_FDS_MAX: usize = 253;

/// How long sending descriptors waits if too many of this user are on their way.
pub const HANDOFF_FDS_AGAIN: Duration = Duration::from_millis(5);

/// How long a launcher may take to end when it has been told to.
pub const LAUNCHER_END: Duration = Duration::from_secs(1);

/// Descriptors that a service manager may hand over.
pub const LISTEN_FDS_MAX: usize = 1024;

/// How long a full accept queue of a unix upstream is waited for, at first and at most.
pub const CONNECT_RETRY_MIN: Duration = Duration::from_millis(1);
/// See [`CONNECT_RETRY_MIN`].
pub const CONNECT_RETRY_MAX: Duration = Duration::from_millis(50);

/// How often a worker looks through its idle upstream connections.
pub const POOL_SWEEP: Duration = Duration::from_millis(500);

/// How often the control thread looks after its logs.
pub const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How often the service manager hears how the process is, if that has changed.
pub const STATUS_EVERY: Duration = Duration::from_secs(2);

/// How often a drain asks the service manager for more time, and for how much.
pub const EXTEND_EVERY: Duration = Duration::from_secs(1);
/// See [`EXTEND_EVERY`]. Several times as much: a control thread that is busy for a
/// moment loses nothing.
pub const EXTEND_BY: Duration = Duration::from_secs(5);

/// How many messages wait for a service manager that does not listen at the moment.
pub const NOTICES_MAX: usize = 16;

/// How soon it is tried again.
pub const NOTICE_RETRY: Duration = Duration::from_millis(50);

/// Octets of the name that a service manager gives a descriptor.
pub const FD_NAME_MAX: usize = 255;

/// Octets that a writable pipe takes at once: the least that POSIX allows.
pub const PIPE_BUF: usize = 512;

/// Octets that Linux writes to a pipe, or to a unix socket, without another writer's in
/// between (pipe(7)).
pub const LINES_TOGETHER: usize = 4096;

/// How long workers may take to write down what a third signal ends.
pub const LAST_MOMENT: Duration = Duration::from_millis(200);

/// How long the last lines may take to be written when everything else is over.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// Descriptors that are not for connections: listeners, logs, the admin
/// interface, and each worker's own.
pub const DESCRIPTORS_RESERVED: usize = 32;
/// See [`DESCRIPTORS_RESERVED`].
pub const DESCRIPTORS_PER_WORKER: usize = 4;
/// The process's own copy of a listener, and what closing it needs.
pub const DESCRIPTORS_PER_LISTENER: usize = 4;

/// Tasks that run at most before a worker asks the kernel for news. Each may have
/// a turn of [`H2_TURN`] octets of the dearest frames.
pub const EVENT_INTERVAL: u32 = 16;

/// The longest that the app of the demo works on one request.
pub const DEMO_WORK_MAX: Duration = Duration::from_secs(60);

/// How long a client of the demo waits for a connection, and for a whole answer, which
/// may take [`DEMO_WORK_MAX`].
pub const DEMO_CONNECT: Duration = Duration::from_secs(5);
/// See [`DEMO_CONNECT`].
pub const DEMO_PATIENCE: Duration = Duration::from_secs(90);

/// How long a client of the demo that was refused waits before it tries again.
pub const DEMO_RECONNECT: Duration = Duration::from_millis(50);

/// How long the app of the demo may take to hear of a request, before it counts as one
/// that never came through; and once more when all clients are done.
pub const DEMO_DOUBT: Duration = Duration::from_millis(50);
/// See [`DEMO_DOUBT`].
pub const DEMO_SETTLE: Duration = Duration::from_millis(200);

/// Octets of an answer that a client of the demo reads.
pub const DEMO_ANSWER_MAX: usize = 4 << 20;

/// Requests without an answer that are remembered until the end; of more it is not said
/// whether the app executed them.
pub const DEMO_DOUBTS_MAX: usize = 100_000;

/// How long the demo loads the proxy before it stops it, if nobody says otherwise.
pub const DEMO_LOAD: Duration = Duration::from_secs(3);

/// The least and the most that it may be told to.
pub const DEMO_LOAD_MIN: Duration = Duration::from_secs(1);
/// See [`DEMO_LOAD_MIN`].
pub const DEMO_LOAD_MAX: Duration = Duration::from_secs(60);

/// How long the demo's proxy may take to be ready.
pub const DEMO_START: Duration = Duration::from_secs(10);

/// The `drain_timeout` of the demo's proxy: longer than its longest request, and short
/// enough that a person sees it pass.
pub const DEMO_DRAIN: Duration = Duration::from_secs(10);

/// When a proxy that has been told to stop is ended: after all its own bounds, the
/// watchdog's included.
pub const DEMO_STOP_MAX: Duration = Duration::from_secs(20);

/// How long the demo's clients go on after the end of the proxy, so that each of them
/// finds nobody there.
pub const DEMO_AFTER: Duration = Duration::from_millis(500);

/// How often the demo asks for the proxy's status, and how often it draws.
pub const DEMO_ASK: Duration = Duration::from_millis(40);
/// See [`DEMO_ASK`].
pub const DEMO_DRAW: Duration = Duration::from_millis(100);

/// Open files that the demo needs at most, in each of its processes.
pub const DEMO_DESCRIPTORS: u64 = 512;

/// Events of the demo's proxy that wait to be looked at.
pub const DEMO_NEWS: usize = 256;

const _: () = assert!(DEMO_PATIENCE.as_secs() > DEMO_WORK_MAX.as_secs());
