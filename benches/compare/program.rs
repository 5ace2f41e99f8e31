//! A proxy under comparison: which program, from where, and how it is started and asked
//! to leave.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::Error;
use crate::support::identity::Identity;
use crate::support::proxy::Doors;
use crate::{ebbtide, haproxy, nginx};

/// Which proxy a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    Ebbtide,
    Nginx,
    Haproxy,
}

/// One program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) make: Make,
    /// Where it comes from.
    origin: String,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    /// Its TLS library, with the version that it runs with.
    tls: String,
    /// How it was built, as far as that explains its figures.
    built: String,
}

/// A peer as the command line names it: `nginx:Debian=/usr/sbin/nginx`.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    make: Make,
    origin: String,
    path: PathBuf,
}

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('=').and_then(|(name, path)| Some((name.split_once(':')?, path)));
        let ((make, origin), path) = parts.ok_or("a peer is given as MAKE:ORIGIN=PATH")?;
        let make = match make {
            "nginx" => Make::Nginx,
            "haproxy" => Make::Haproxy,
            other => {
                return Err(format!("nothing is known of `{other}`, only of nginx and haproxy"));
            }
        };
        Ok(Self { make, origin: origin.to_owned(), path: path.into() })
    }
}

/// What a program is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) doors: Doors,
    pub(crate) upstream: SocketAddr,
    pub(crate) identity: &'a Identity,
    /// An empty directory of its own.
    pub(crate) directory: &'a Path,
    pub(crate) variant: Variant,
}

impl Setting<'_> {
    /// Where it listens for TLS.
    pub(crate) fn tls(&self) -> Result<SocketAddr, Error> {
        self.doors.tls.ok_or_else(|| "no address for TLS".into())
    }
}

/// How a program is configured beyond what all rows have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Variant {
    /// No access log; buffers as they come.
    #[default]
    Plain,
    /// With an access log to [`LOG`].
    Logged,
    /// nginx told to pass bodies on as they come, instead of gathering them first.
    Unbuffered,
    /// HAProxy under its master, which is how it reloads.
    Mastered,
    /// nginx told to pass on a wish for a WebSocket, which the others do as they come.
    Upgrading,
    /// Before an application that speaks HTTP/2 in clear text.
    Grpc,
    /// As an upgrade of the binary needs it: nginx in the background, HAProxy under its
    /// master, ebbtide with an admin socket; WebSockets are passed on, and the peers give
    /// what is left in an old process [`LEFT_S`] seconds.
    Replaced,
}

/// The access log, in the directory of the program. What HAProxy and ebbtide write to
/// their standard output ends there too.
pub(crate) const LOG: &str = "access.log";

/// ebbtide's admin socket, in the directory of the program.
pub(crate) const ADMIN: &str = "admin.sock";

/// Seconds after which a peer's old process ends what it still has.
pub(crate) const LEFT_S: u64 = 10;

impl Program {
    /// Asks a peer what it is.
    pub(crate) fn peer(named: Named) -> Result<Self, Error> {
        let Named { make, origin, path } = named;
        let said = said(&path, if make == Make::Nginx { "-V" } else { "-vv" })?;
        let found =
            if make == Make::Nginx { nginx::identify(&said) } else { haproxy::identify(&said) };
        let (version, tls) =
            found.ok_or_else(|| format!("{} does not say what it is:\n{said}", path.display()))?;
        let flag = said.split([' ', '\'']).find(|word| word.starts_with("-O")).unwrap_or("?");
        let built = format!("compiled with {flag}{}", linked(&said));
        Ok(Self { make, origin, path, version, tls, built })
    }

    /// ebbtide itself.
    pub(crate) fn own(path: &Path) -> Result<Self, Error> {
        let said = said(path, "--version")?;
        let version = said.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        let built = "compiled with its release profile".to_owned();
        let (make, origin, tls) = (Make::Ebbtide, String::new(), ebbtide::tls());
        Ok(Self { make, origin, path: path.into(), version, tls, built })
    }

    /// The name in a table.
    pub(crate) fn name(&self) -> String {
        match self.make {
            Make::Ebbtide => format!("ebbtide {}", self.version),
            Make::Nginx => format!("nginx {} ({})", self.version, self.origin),
            Make::Haproxy => format!("HAProxy {} ({})", self.version, self.origin),
        }
    }

    /// What it is, for the heading of all tables.
    pub(crate) fn description(&self) -> String {
        format!("{}: {}, {}", self.name(), self.tls, self.built)
    }

    /// Writes what configuration it needs; the command that runs it in the foreground.
    pub(crate) fn command(&self, setting: &Setting<'_>) -> Result<Command, Error> {
        match self.make {
            Make::Ebbtide => ebbtide::command(self, setting),
            Make::Nginx => nginx::command(self, setting),
            Make::Haproxy => haproxy::command(self, setting),
        }
    }

    /// The signal by which it stops without losing what is under way.
    pub(crate) fn graceful_stop(&self) -> Signal {
        match self.make {
            Make::Ebbtide => Signal::TERM,
            Make::Nginx => Signal::QUIT,
            Make::Haproxy => Signal::USR1,
        }
    }
}

/// What has to be known of a build from Alpine: each pool of a request is mapped and
/// unmapped again, which costs as much as the rest of a small request.
fn linked(said: &str) -> &'static str {
    if said.contains("Alpine") && said.contains("-static") {
        ", linked statically with musl, whose allocator asks the kernel for memory again \
         and again: more than its version would need"
    } else {
        ""
    }
}

/// What a program says to an option, wherever it says it.
fn said(path: &Path, option: &str) -> Result<String, Error> {
    let output = Command::new(path)
        .arg(option)
        .output()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok([output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat())
}
