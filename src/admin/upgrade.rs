//! `ebbtide upgrade`: asks a running process to be replaced, and tells how that goes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::client::{Client, ClientError, print};
use super::commands::{Progress, Upgrade};
use super::render::printable;
use crate::limits::{ADMIN_CLIENT_TIMEOUT, ADMIN_LINE_MAX};

/// Asks the process at `admin` (default: the environment) to start `binary`, or what is
/// now where its own was, and prints what happens until the successor serves; if `wait`,
/// until the old process has gone. Runs its own runtime.
///
/// # Errors
///
/// If the process does not begin it, or the successor fails: in its own words.
pub fn upgrade(admin: Option<&str>, binary: Option<&Path>, wait: bool) -> Result<(), ClientError> {
    let local = |doing| move |cause| ClientError::Local { doing, cause };
    let client = Client::of(admin).map_err(|error| match error {
        ClientError::NoAddress => ClientError::NoUnixAddress,
        other => other,
    })?;
    let binary = binary.map(std::path::absolute).transpose();
    let binary = binary.map_err(local("cannot say where the binary is"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(local("cannot start a runtime"))?;
    runtime.block_on(run(&client, Upgrade { binary }, wait, &mut std::io::stdout()))
}

pub(super) async fn run(
    client: &Client,
    upgrade: Upgrade,
    wait: bool,
    out: &mut impl Write,
) -> Result<(), ClientError> {
    let path = client.path()?;
    let connected = timeout(ADMIN_CLIENT_TIMEOUT, UnixStream::connect(path)).await;
    let stream = connected
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|cause| client.unconnected(cause))?;
    let body = serde_json::to_vec(&upgrade).map_err(|e| client.failed(e))?;
    let request = Request::post("/upgrade")
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| client.failed(e))?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| client.failed(e))?;
    let exchange = async {
        let response = timeout(ADMIN_CLIENT_TIMEOUT, sender.send_request(request)).await;
        let response = response
            .map_err(|_| client.failed(format!("nothing within {ADMIN_CLIENT_TIMEOUT:?}")))?
            .map_err(|e| client.failed(e))?;
        follow(client, response, wait, out).await
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

/// Shows the lines of the answer as they come.
async fn follow(
    client: &Client,
    response: Response<Incoming>,
    wait: bool,
    out: &mut impl Write,
) -> Result<(), ClientError> {
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let text = Limited::new(body, ADMIN_LINE_MAX).collect().await;
        let text = text.map_err(|e| client.failed(e))?.to_bytes();
        let reason = lines(String::from_utf8_lossy(&text).trim());
        return Err(client.declined(status, reason));
    }
    let (mut line, mut serves) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        let Ok(octets) = frame.map_err(|e| client.failed(e))?.into_data() else { continue };
        for octet in octets {
            if octet != b'\n' {
                line.push(octet);
                if line.len() > ADMIN_LINE_MAX {
                    return Err(client.failed("a line without an end"));
                }
                continue;
            }
            // What a newer process may have to say besides is not for us.
            let progress = serde_json::from_slice::<Progress>(&line).ok();
            line.clear();
            let Some(progress) = progress else { continue };
            // Nobody has to read what is told.
            let _unread = print(out, &told(&progress));
            match progress {
                Progress::Failed { error } => {
                    return Err(ClientError::Upgrade { error: lines(&error) });
                }
                Progress::Serving { .. } if !wait => return Ok(()),
                Progress::Serving { .. } => serves = true,
                Progress::Gone => return Ok(()),
                _ => {}
            }
        }
    }
    Err(client.failed(if serves {
        "the old process did not say that it was empty"
    } else {
        "the process did not say that its successor serves"
    }))
}

/// What happened, for a person. A failure is told as the command's own.
fn told(progress: &Progress) -> String {
    match progress {
        Progress::Starting { pid, binary } => {
            format!("started {} (pid {pid})\n", printable(binary))
        }
        Progress::Ready { pid, version } => {
            format!("the successor is ready: pid {pid}, version {}\n", printable(version))
        }
        Progress::Serving { pid, generation } => {
            format!("the successor serves: pid {pid}, generation {generation}\n")
        }
        Progress::Moved { moved, waiting } => match (list(moved), list(waiting)) {
            (None, None) => String::new(),
            (Some(moved), None) => format!("moved: {moved}\n"),
            (None, Some(waiting)) => format!("still here: {waiting}\n"),
            (Some(moved), Some(waiting)) => format!("moved: {moved}; still here: {waiting}\n"),
        },
        Progress::Gone => "the old process is gone\n".to_owned(),
        Progress::Failed { .. } => String::new(),
    }
}

/// A reason may have several lines, such as all errors of a configuration.
fn lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn list(counts: &BTreeMap<String, u64>) -> Option<String> {
    let some = counts.iter().filter(|(_, count)| **count > 0);
    let each: Vec<_> = some.map(|(name, count)| format!("{count} {}", printable(name))).collect();
    (!each.is_empty()).then(|| each.join(", "))
}
