//! What the cases are put to: ebbtide, nginx, HAProxy, or a server that the
//! environment names.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::foreign;
use crate::support::client::Client;
use crate::support::h2::{H2, link};
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{PATIENCE, ms, within};

/// A server that the tests can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours.
    Ebbtide,
    /// nginx of Debian.
    Nginx,
    /// HAProxy of Debian.
    Haproxy,
}

impl Kind {
    /// Every one of them, ours first.
    pub(crate) const ALL: [Kind; 3] = [Kind::Ebbtide, Kind::Nginx, Kind::Haproxy];

    /// Its name with its version.
    pub(crate) fn label(self) -> String {
        match self {
            Kind::Ebbtide => "ebbtide".to_owned(),
            Kind::Nginx => format!("nginx {}", version(NGINX, "-v", "nginx/")),
            Kind::Haproxy => format!("HAProxy {}", version(HAPROXY, "-v", "version ")),
        }
    }
}

const NGINX: &str = "/usr/sbin/nginx";
const HAPROXY: &str = "/usr/sbin/haproxy";

/// How HTTP/2 is spoken with a subject.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// In clear text with prior knowledge.
    Clear(Place),
    /// Over TLS, whatever the certificate.
    Tls(Place),
}

impl Way {
    /// A connection on which nothing is said yet.
    pub(crate) fn connect(&self) -> H2 {
        match self {
            Way::Clear(place) => H2::bare(place),
            Way::Tls(place) => {
                H2::over(Box::new(link::encrypted_by(link::clear(place), foreign::session())))
            }
        }
    }
}

/// A reverse proxy before one origin. What was started for it ends on drop.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Where HTTP/1 is spoken with it.
    pub(crate) http: Place,
    /// Where HTTP/2 is.
    pub(crate) h2: Way,
    _running: Running,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for what happens on drop")]
enum Running {
    Ours(Proxy),
    Peer(Peer),
    Elsewhere,
}

impl Subject {
    /// Starts one before an origin and waits until it accepts.
    pub(crate) fn start(kind: Kind, origin: &Place) -> Subject {
        match kind {
            Kind::Ebbtide => {
                let proxy = Launch::before_addr(&origin.to_string()).start();
                let place = proxy.place();
                Subject {
                    http: place.clone(),
                    h2: Way::Clear(place),
                    _running: Running::Ours(proxy),
                }
            }
            Kind::Nginx => Subject::of_peer(Peer::nginx(origin)),
            Kind::Haproxy => Subject::of_peer(Peer::haproxy(origin)),
        }
    }

    /// A server that is there already.
    pub(crate) fn at(http: Place, h2: Way) -> Subject {
        Subject { http, h2, _running: Running::Elsewhere }
    }

    fn of_peer(peer: Peer) -> Subject {
        let (http, h2) = (peer.socket("h1"), peer.socket("h2"));
        peer.wait_for(&http);
        peer.wait_for(&h2);
        Subject { http, h2: Way::Clear(h2), _running: Running::Peer(peer) }
    }
}

/// The server and the origin's address that the environment names instead of ours.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    /// Where HTTP/1 is spoken with it.
    pub(crate) http: Place,
    /// Where HTTP/2 is.
    pub(crate) h2: Way,
    /// Where it expects its origin.
    pub(crate) origin: Place,
}

impl Elsewhere {
    /// Reads the environment; `None` when it names nothing.
    pub(crate) fn named() -> Option<Elsewhere> {
        let place = |name: &str| std::env::var(name).ok().map(|text| Place::parse(&text));
        let http = place("TESTS_CONFORMANCE_TARGET")?;
        let origin = place("TESTS_CONFORMANCE_ORIGIN")
            .expect("TESTS_CONFORMANCE_ORIGIN says where the target expects its origin");
        let clear = place("TESTS_CONFORMANCE_H2_TARGET").map(Way::Clear);
        let h2 = clear.or_else(|| place("TESTS_CONFORMANCE_TLS_TARGET").map(Way::Tls));
        let h2 = h2.unwrap_or_else(|| Way::Clear(http.clone()));
        Some(Elsewhere { http, h2, origin })
    }
}

/// A proxy of other make, in a directory of its own. Its listeners are unix sockets:
/// no port is taken that somebody else may want.
#[derive(Debug)]
struct Peer {
    child: std::sync::Mutex<Child>,
    directory: TempDir,
}

impl Peer {
    fn nginx(origin: &Place) -> Peer {
        Peer::spawn(NGINX, origin, NGINX_CONFIG, |command, directory, config| {
            // Without -e it writes to the log of the system before it reads the rest.
            command.arg("-e").arg(directory.join("log")).arg("-p").arg(directory);
            command.arg("-c").arg(config);
        })
    }

    fn haproxy(origin: &Place) -> Peer {
        Peer::spawn(HAPROXY, origin, HAPROXY_CONFIG, |command, _, config| {
            command.arg("-db").arg("-f").arg(config);
        })
    }

    fn spawn(
        program: &str,
        origin: &Place,
        config: &str,
        arguments: impl FnOnce(&mut Command, &Path, &Path),
    ) -> Peer {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path();
        let text = config
            .replace("DIRECTORY", &at.display().to_string())
            .replace("ORIGIN", &origin.to_string());
        let file = at.join("config");
        std::fs::write(&file, text).expect("a config file");
        let said = File::create(at.join("said")).expect("a file");
        let mut command = Command::new(program);
        arguments(&mut command, at, &file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{program}: {error}; see tests/run"));
        Peer { child: std::sync::Mutex::new(child), directory }
    }

    fn socket(&self, name: &str) -> Place {
        Place::Unix(self.directory.path().join(name))
    }

    /// Waits until it accepts.
    fn wait_for(&self, place: &Place) {
        within(PATIENCE, &format!("{place} to accept"), || {
            let mut child = self.child.lock().expect("the child");
            let ended = child.try_wait().expect("the child's state");
            assert!(ended.is_none(), "it ended: {}", self.said());
            Client::try_connect(place, ms(100)).ok().map(drop)
        });
    }

    fn said(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name));
        ["said", "log"].map(|name| read(name).unwrap_or_default()).concat()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let child = self.child.get_mut().expect("the child");
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What follows `before` in what a program says of itself.
fn version(program: &str, argument: &str, before: &str) -> String {
    let out = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|error| panic!("{program}: {error}; see tests/run"));
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let after = said.split_once(before).map_or("", |(_, after)| after);
    after.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}

/// As its own documentation sets up a proxy that keeps connections to the app.
const NGINX_CONFIG: &str = "
daemon off;
master_process off;
pid DIRECTORY/pid;
error_log DIRECTORY/log info;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    upstream app { server ORIGIN; keepalive 16; }
    server {
        listen unix:DIRECTORY/h1;
        listen unix:DIRECTORY/h2 http2;
        server_name app.test;
        location / {
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
        }
    }
}
";

const HAPROXY_CONFIG: &str = "
global
    maxconn 512
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend h1
    bind unix@DIRECTORY/h1
    default_backend app
frontend h2
    bind unix@DIRECTORY/h2 proto h2
    default_backend app
backend app
    server app ORIGIN
";
