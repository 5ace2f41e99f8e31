//! The long texts of the help, in the manner of a manual page.
//!
//! Owns the words only. The list of keys comes from the table of `config`.

use crate::config::{KEYS, Preset};

/// What the program is.
pub(super) const ABOUT: &str = "\
ebbtide stands in front of an app server and forwards HTTP requests to it. When it is told to \
stop, it stops without losing a request: what was accepted is answered, what cannot end in time \
is cut, and a report says which.";

/// Below the short help.
pub(super) const AFTER: &str = "\
Example: ebbtide run --listen :8080 --upstream 127.0.0.1:3000
More with --help.";

const SIGNALS: &str = "\
Signals:
  SIGTERM, SIGINT and SIGQUIT all begin a drain. Signals within 1s of the first
  count as the same one; a later one cuts what is left; one after that ends the
  process at once. SIGUSR2 replaces the process by the program that is now on
  disk, as `ebbtide upgrade` does. SIGHUP and SIGUSR1 never end it.";

const EXIT_STATUS: &str = "\
Exit status:
  0  all work ended by itself
  1  it could not start, or the command failed
  2  wrong usage or configuration
  3  a request was cut, or a tunnel or stream ended untold, or a third signal
     or the watchdog ended the process";

/// Below the long help.
pub(super) fn overview() -> String {
    format!(
        "\
Examples:
  ebbtide run --listen :8080 --upstream 127.0.0.1:3000
  ebbtide run --config ebbtide.toml --drain-timeout 50s
  ebbtide check --config ebbtide.toml
  ebbtide status --admin unix:/run/ebbtide/admin.sock
  ebbtide upgrade --admin unix:/run/ebbtide/admin.sock
  ebbtide demo

{EXIT_STATUS}

{SIGNALS}

See `ebbtide run --help` for all keys, value formats and the environment."
    )
}

/// About `run`.
pub(super) const RUN: &str = "\
Serve until told to stop. At least one listener and one upstream are needed; everything else has \
a default. Without --config no file is read.

The access log goes to stdout, everything else to stderr. The line with \"event\":\"ready\" says \
that all listeners are bound.";

/// About `--listen`.
pub(super) const LISTEN: &str = "\
Listen here; may be repeated [key: listen]

HOST:PORT, :PORT (all IPv4 addresses), [::]:PORT, unix:PATH[,mode=0660], or fd:NAME. HOST is an IP \
address or localhost. With port 0 the kernel chooses; the address is in the log. fd:NAME is every \
socket that systemd has opened under that name. Replaces the list of any other source.";

/// About `--tls-listen`.
pub(super) const TLS_LISTEN: &str = "\
Listen here with TLS; may be repeated [key: tls.listen]

Addresses as for --listen. Needs --cert and --key. TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1 by ALPN. \
Replaces the list of any other source.";

/// About `--cert`.
pub(super) const CERT: &str = "\
A certificate chain, PEM, the server's own certificate first; may be repeated, each with its --key \
[key: tls.cert]

A client gets the certificate for the name that it asks for, or else the first. There may be \
several for one name with keys of different kinds. Replaces the list of any other source.";

/// About `--upstream`.
pub(super) const UPSTREAM: &str = "\
Forward to this app server; may be repeated [key: upstream.endpoints]

HOST:PORT, [::1]:PORT or unix:PATH; with TLS https://HOST:PORT; for HTTP/2 h2c://HOST:PORT, \
h2c:unix:PATH or, with TLS, h2://HOST:PORT. One that cannot be reached does not stop \
the start. Replaces the list of any other source.";

/// About `--takeover`.
pub(super) const TAKEOVER: &str = "\
Take over from the process that listens here, and listen here [key: upgrade.takeover]

A unix socket. If another ebbtide listens there, this one takes its listeners and connections over \
as soon as it can serve, and the other one leaves without losing a request. Then, and if nobody is \
there, this one listens for its own successor. For successors that the old process cannot start \
itself: in another container, or as another unit. Both need the same user and network namespace, \
and nobody who starts the old one again.";

/// About `check`.
pub(super) const CHECK: &str = "\
Check the configuration that the same arguments would give `run`, and say how long a stop may \
take. Nothing is bound, started or connected to. All errors are reported at once, with file, line \
and key; then the exit status is 2.";

/// About `status`.
pub(super) const STATUS: &str = "\
Ask the admin listener of a running process for its phase, its connections and, while it drains, \
its deadline. The exit status is 1 if it does not answer.";

/// About `upgrade`.
pub(super) const UPGRADE: &str = "\
Replace a running process by the program that is now on disk, with the same arguments, and lose \
nothing: its listeners and plaintext connections go over to the successor, what cannot go over \
is served to its end by the old process. SIGUSR2 does the same.

Prints what happens. The exit status is 0 when the successor serves (with --wait: when the old \
process has gone), else 1, with the reason: then the old process goes on as if nothing had \
happened. Where the end of the old process would end the service or the container (as PID 1, under \
tini, in a unit of Type=simple) it is refused: use `run --takeover`, or a restart.";

/// About `demo`.
pub(super) const DEMO: &str = "\
Watch a proxy being stopped under load. Nothing else is needed: a small app, this proxy before it \
in a process of its own, and a hundred clients of all kinds over HTTP/1.1 and HTTP/2, downloads \
and uploads among them, which check every answer. After a few seconds the proxy is told to stop \
while they go on. The screen shows the phases of the stop, its connections by state, and what the \
clients saw of it; at the end, whether anything was lost.

Ctrl-C begins the stop at once; a second one cuts what is left, and the end shows what that was. \
The exit status is 0 if nothing was lost and the proxy ended well, else 1. Where stdout is no \
terminal, the same is told in plain lines.";

/// Below the long help of `run` and `check`: where values come from, how they
/// are written, and the keys.
pub(super) fn run() -> String {
    let mut text = format!(
        "\
Precedence, lowest first:
  defaults
  the file of --config
  the environment   EBBTIDE_TIMEOUTS__HEAD=10s: upper case, two underscores for
                    a dot; an unknown EBBTIDE_ variable is an error
  --set             --set timeouts.head=10s
  other flags       --drain-timeout 50s

Values:
  duration  500ms, 30s, 1m30s, 1h, or a number of seconds such as 1.5;
            infinity where said
  size      64k, 1m (1024-based), or a number of bytes
  list      several flags, a TOML array, or comma-separated

{SIGNALS}

{EXIT_STATUS}

Keys:
",
    );
    for key in KEYS {
        let default = match key.default {
            Preset::Default("") | Preset::Unset(_) => String::new(),
            Preset::Default(value) => format!(" [default: {value}]"),
        };
        text.push_str(&format!("  {}{default}\n      {}\n", key.name, key.doc));
    }
    text.push_str(
        "
Examples:
  ebbtide run --listen :8080 --upstream 127.0.0.1:3000
  ebbtide run --config ebbtide.toml --drain-timeout 50s
  EBBTIDE_LISTEN=:8080 EBBTIDE_UPSTREAM__ENDPOINTS=app:3000 ebbtide run",
    );
    text
}
