//! nghttp2's h2load as a client, for what [`load`](super::load) does not speak: TLS
//! and HTTP/2.
//!
//! It checks the status of each response and counts octets; a run in which any
//! response is missing, wrong or of another length fails. One cipher and one group
//! are offered, so that no proxy does other work than the next.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::proxy::Doors;
use super::{Error, host, message};

/// What a proxy is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// HTTP/1.1 keep-alive in clear text; not by h2load.
    H1,
    /// HTTP/1.1 keep-alive over TLS.
    H1Tls,
    /// HTTP/2 in clear text, eight streams at once on each connection.
    H2,
    /// The same over TLS.
    H2Tls,
    /// A new TLS connection, with a full handshake, for each request.
    Handshake,
}

impl Work {
    /// What it is, for a heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::H1 => "HTTP/1.1 keep-alive, 8 connections",
            Self::H1Tls => "HTTP/1.1 keep-alive over TLS, 8 connections",
            Self::H2 => "HTTP/2 in clear text, 8 connections of 8 streams",
            Self::H2Tls => "HTTP/2 over TLS, 8 connections of 8 streams",
            Self::Handshake => "a TLS connection for each request",
        }
    }

    /// How many requests take somewhat less than a second.
    pub(crate) fn requests(self) -> u64 {
        match self {
            Self::H1 => 40_000,
            Self::H1Tls | Self::H2 | Self::H2Tls => 20_000,
            Self::Handshake => 500,
        }
    }

    /// The options for it, and where it goes.
    fn how(self, doors: &Doors) -> Result<(&'static [&'static str], String), Error> {
        const H1: &[&str] = &["--h1", "-c8", "-m1"];
        const H2: &[&str] = &["-c8", "-m8"];
        let clear = |addr: SocketAddr| format!("http://{addr}");
        let tls = doors.tls.map(|addr| format!("https://{addr}")).ok_or("nobody listens for TLS");
        Ok(match self {
            Self::H1 => (H1, clear(doors.h1)),
            Self::H1Tls => (H1, tls?),
            Self::H2 => (H2, clear(doors.h2)),
            Self::H2Tls => (H2, tls?),
            // With as many connections as requests, 32 of them opened each time.
            Self::Handshake => (&["--h1", "-m1"], tls?),
        })
    }
}

/// Sends so many requests, and fails if one is not answered as it should be.
pub(crate) fn run(work: Work, doors: &Doors, requests: u64) -> Result<(), Error> {
    let (options, base) = work.how(doors)?;
    let mut left = requests;
    while left > 0 {
        // Connections that are all opened at once wait for each other.
        let now = if work == Work::Handshake { left.min(100) } else { left };
        left -= now;
        let mut command = Command::new(host::find_program("h2load").ok_or(MISSING)?);
        command.args(options).args(["-n", &now.to_string()]);
        if work == Work::Handshake {
            command.args(["-c", &now.to_string()]);
        }
        command.args(["--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519"]);
        let number = message::number(requests);
        command.arg(format!("{base}/cost/{}", String::from_utf8_lossy(&number)));
        command.stdin(Stdio::null());
        let output = host::starting_on(host::LOAD_CORE, || command.output())??;
        check(&String::from_utf8_lossy(&output.stdout), work, now)?;
    }
    Ok(())
}

const MISSING: &str = "h2load is not installed; on Debian: apt-get install nghttp2-client";

/// Whether all went well, by h2load's own account.
fn check(said: &str, work: Work, requests: u64) -> Result<(), Error> {
    let line = |begins: &str| said.lines().find(|line| line.starts_with(begins));
    let all = format!(
        "requests: {requests} total, {requests} started, {requests} done, \
         {requests} succeeded, 0 failed, 0 errored, 0 timeout"
    );
    let statuses = format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx");
    let octets = format!("({}) data", requests * message::BODY as u64);
    let bodies = line("traffic:").is_some_and(|line| line.ends_with(&octets));
    let protocol = match work {
        Work::H1 | Work::H1Tls | Work::Handshake => "http/1.1",
        Work::H2 => "h2c",
        Work::H2Tls => "h2",
    };
    let spoken = line("Application protocol: ").is_some_and(|line| line.ends_with(protocol));
    let secure = match work {
        Work::H1 | Work::H2 => true,
        Work::H1Tls | Work::H2Tls | Work::Handshake => {
            said.contains("TLS Protocol: TLSv1.3\nCipher: TLS_AES_128_GCM_SHA256\n")
        }
    };
    let kept = [line(&all).is_some(), line(&statuses).is_some(), bodies, spoken, secure];
    if kept == [true; 5] {
        return Ok(());
    }
    Err(format!("h2load was not answered as it should be ({kept:?}):\n{said}").into())
}
