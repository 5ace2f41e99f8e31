//! `ebbtide status`: asks a running process how it is.
//!
//! Owns the address to ask, for other commands too, the request, and the repetition of
//! `--watch`.
//! Promises an error that says what was tried and what to do. Does not end the
//! process: [`ClientError::exit_code`] says how it should.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::render;
use super::status::Status;
use crate::limits::{ADMIN_ANSWER_MAX, ADMIN_CLIENT_TIMEOUT};

/// Where the address is looked for when `--admin` is not given.
pub const ADMIN_VARIABLE: &str = "EBBTIDE_ADMIN";

const REFRESH: Duration = Duration::from_millis(500);
/// Failed answers in a row, from a process that still accepts, that end a watch.
const WATCH_FAILURES_MAX: u32 = 3;
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// Why there is no status. Each text is complete: it already names its cause.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody said whom to ask.
    #[error(
        "no admin address: give --admin unix:PATH or --admin HOST:PORT, or set {ADMIN_VARIABLE}"
    )]
    NoAddress,
    /// Nobody said whom to ask, for what TCP may not.
    #[error("no admin address: give --admin unix:PATH, or set {ADMIN_VARIABLE}")]
    NoUnixAddress,
    /// What was given is no address.
    #[error("{0:?} is no admin address: expected unix:PATH, HOST:PORT or :PORT")]
    Address(String),
    /// Nobody could be asked.
    #[error("cannot connect to {admin}: {cause}{}", hint(.admin, .cause))]
    Connect {
        /// The address tried.
        admin: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The connection ended without an answer, or the answer was not understood.
    #[error("no answer from {admin}: {reason}")]
    Exchange {
        /// The address asked.
        admin: String,
        /// What went wrong.
        reason: String,
    },
    /// The answer was a refusal.
    #[error("{admin} answered {status}")]
    Refused {
        /// The address asked.
        admin: String,
        /// The status code.
        status: StatusCode,
    },
    /// The answer was a refusal, with a reason.
    #[error("{admin} answered {status}: {reason}")]
    Declined {
        /// The address asked.
        admin: String,
        /// The status code.
        status: StatusCode,
        /// Why.
        reason: String,
    },
    /// What is asked for over the unix socket only.
    #[error("{0} is no unix socket: this is asked for over --admin unix:PATH only")]
    NoUnix(String),
    /// There is no successor.
    #[error("the upgrade failed, and the old process goes on: {error}")]
    Upgrade {
        /// Why, in the successor's own words.
        error: String,
    },
    /// Something of our own failed.
    #[error("{doing}: {cause}")]
    Local {
        /// What was attempted.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

impl ClientError {
    /// The exit status of the command: 2 for wrong usage, else 1.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NoAddress | Self::NoUnixAddress | Self::Address(_) | Self::NoUnix(_) => 2,
            _ => 1,
        }
    }
}

fn hint(admin: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("; is ebbtide running with --admin {admin}?")
        }
        io::ErrorKind::PermissionDenied => {
            "; ask as the user ebbtide runs as, or as root".to_owned()
        }
        _ => String::new(),
    }
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl Address {
    fn parse(text: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // The options of a listener say nothing to a client.
            let path = path.split_once(",mode=").map_or(path, |(path, _)| path);
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        if !port.parse::<u16>().is_ok_and(|port| port > 0) || host.contains('/') {
            return Err(wrong());
        }
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Self::Tcp(format!("{host}:{port}")))
    }
}

/// Asks the process at `admin` (default: the environment) and prints the answer:
/// for a person, or as the JSON document; once, or each 500 ms until the process
/// is gone. Runs its own runtime.
pub fn status(admin: Option<&str>, json: bool, watch: bool) -> Result<(), ClientError> {
    let client = Client::of(admin)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| ClientError::Local { doing: "cannot start a runtime", cause })?;
    let style = match (json, watch && io::stdout().is_terminal()) {
        (true, _) => Style::Json,
        (false, true) => Style::Screen,
        (false, false) if watch => Style::Lines,
        (false, false) => Style::Page,
    };
    let result = runtime.block_on(async {
        if watch {
            client.watch(style, &mut io::stdout()).await
        } else {
            let text = client.fetch().await?;
            client.show(style, &text, &mut io::stdout())
        }
    });
    match result {
        // Whoever read us has seen enough.
        Err(ClientError::Local { cause, .. }) if cause.kind() == io::ErrorKind::BrokenPipe => {
            Ok(())
        }
        other => other,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Json,
    Page,
    Screen,
    Lines,
}

/// One process to ask.
pub(super) struct Client {
    admin: String,
    address: Address,
}

impl Client {
    /// The one at `admin`, or at what the environment says.
    pub(super) fn of(admin: Option<&str>) -> Result<Self, ClientError> {
        Self::new(match admin {
            Some(admin) => admin.to_owned(),
            None => std::env::var(ADMIN_VARIABLE).map_err(|_| ClientError::NoAddress)?,
        })
    }

    pub(super) fn new(admin: String) -> Result<Self, ClientError> {
        let address = Address::parse(&admin)?;
        Ok(Self { admin, address })
    }

    pub(super) async fn watch(
        &self,
        style: Style,
        out: &mut impl Write,
    ) -> Result<(), ClientError> {
        let text = self.fetch().await?;
        self.show(style, &text, out)?;
        let mut failures = 0;
        loop {
            tokio::time::sleep(REFRESH).await;
            match self.fetch().await {
                Ok(text) => {
                    failures = 0;
                    self.show(style, &text, out)?;
                }
                Err(ClientError::Connect { cause, .. }) if is_gone(&cause) => break,
                // It may have ended between accept and answer; the next try will tell.
                Err(ClientError::Exchange { .. }) if failures < WATCH_FAILURES_MAX => failures += 1,
                Err(e) => return Err(e),
            }
        }
        let farewell = if style == Style::Json { "" } else { "the process is gone\n" };
        print(out, farewell)
    }

    fn show(&self, style: Style, text: &str, out: &mut impl Write) -> Result<(), ClientError> {
        if style == Style::Json {
            return print(out, &format!("{}\n", text.trim_end()));
        }
        let status: Status = serde_json::from_str(text).map_err(|e| self.failed(e))?;
        match style {
            Style::Lines => print(out, &render::line(&status)),
            Style::Screen => print(out, &format!("{CLEAR_SCREEN}{}", render::page(&status))),
            Style::Page | Style::Json => print(out, &render::page(&status)),
        }
    }

    /// The text of the status document, over a connection of its own.
    pub(super) async fn fetch(&self) -> Result<String, ClientError> {
        match tokio::time::timeout(ADMIN_CLIENT_TIMEOUT, self.connect_and_ask()).await {
            Ok(result) => result,
            Err(_) => Err(self.failed(format!("nothing within {ADMIN_CLIENT_TIMEOUT:?}"))),
        }
    }

    async fn connect_and_ask(&self) -> Result<String, ClientError> {
        let unconnected = |cause| self.unconnected(cause);
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unconnected)?;
                self.ask(stream, "localhost").await
            }
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(unconnected)?;
                // Its own address is a name that every server answers to.
                let host = stream.peer_addr().map_err(unconnected)?.to_string();
                self.ask(stream, &host).await
            }
        }
    }

    async fn ask<S>(&self, stream: S, host: &str) -> Result<String, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.failed(e))?;
        let request = Request::get("/status")
            .header(HOST, host)
            .body(Empty::<Bytes>::new())
            .map_err(|e| self.failed(e))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| self.failed(e))?;
            let status = response.status();
            if status != StatusCode::OK {
                return Err(ClientError::Refused { admin: self.admin.clone(), status });
            }
            let body = Limited::new(response.into_body(), ADMIN_ANSWER_MAX);
            let octets = body.collect().await.map_err(|e| self.failed(e))?.to_bytes();
            String::from_utf8(octets.into()).map_err(|e| self.failed(e))
        };
        // The exchange reports whatever the connection meets; it only has to be driven.
        let driven = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            result = exchange => result,
            result = driven => result,
        }
    }

    /// The path of the unix socket.
    pub(super) fn path(&self) -> Result<&Path, ClientError> {
        match &self.address {
            Address::Unix(path) => Ok(path),
            Address::Tcp(_) => Err(ClientError::NoUnix(self.admin.clone())),
        }
    }

    pub(super) fn unconnected(&self, cause: io::Error) -> ClientError {
        ClientError::Connect { admin: self.admin.clone(), cause }
    }

    pub(super) fn declined(&self, status: StatusCode, reason: String) -> ClientError {
        ClientError::Declined { admin: self.admin.clone(), status, reason }
    }

    pub(super) fn failed(&self, reason: impl ToString) -> ClientError {
        ClientError::Exchange { admin: self.admin.clone(), reason: reason.to_string() }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset)
}

pub(super) fn print(out: &mut impl Write, text: &str) -> Result<(), ClientError> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|cause| ClientError::Local { doing: "cannot write to stdout", cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_a_host_with_a_port() {
        for (text, address) in [
            ("unix:/run/e.sock", Address::Unix("/run/e.sock".into())),
            ("unix:/run/e.sock,mode=0660", Address::Unix("/run/e.sock".into())),
            (":9901", Address::Tcp("localhost:9901".into())),
            ("[::1]:9901", Address::Tcp("[::1]:9901".into())),
            ("http://ebb:9901/", Address::Tcp("ebb:9901".into())),
        ] {
            assert_eq!(Address::parse(text).unwrap(), address);
        }
        for text in ["", "unix:", "ebb", "ebb:", "ebb:0", "ebb:x", "a/b:1"] {
            assert_eq!(Address::parse(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn wrong_usage_is_told_from_failure() {
        assert_eq!(ClientError::NoAddress.exit_code(), 2);
        let error = status(Some("unix:/nonexistent/ebb.sock"), false, false).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert_eq!(
            error.to_string(),
            "cannot connect to unix:/nonexistent/ebb.sock: No such file or directory \
             (os error 2); is ebbtide running with --admin unix:/nonexistent/ebb.sock?"
        );
    }

    #[test]
    fn a_refused_permission_says_whom_to_be() {
        let error = ClientError::Connect {
            admin: "unix:/run/e.sock".into(),
            cause: io::ErrorKind::PermissionDenied.into(),
        };
        assert!(error.to_string().ends_with("ask as the user ebbtide runs as, or as root"));
    }
}
