//! What the proxy's status says, asked many times a second.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep};

use crate::admin::Status;
use crate::limits::{ADMIN_ANSWER_MAX, DEMO_ASK};

/// What was said last, and when.
type Last = Rc<RefCell<Option<(Instant, Status)>>>;

/// Asks until it is dropped.
pub(super) struct Watch {
    last: Last,
    task: AbortHandle,
}

impl Watch {
    /// Begins to ask the admin listener there.
    pub(super) fn start(admin: SocketAddr) -> Watch {
        let last = Last::default();
        let task = spawn_local(ask(admin, Rc::clone(&last))).abort_handle();
        Watch { last, task }
    }

    /// What it said last, and when.
    pub(super) fn last(&self) -> Option<(Instant, Status)> {
        self.last.borrow().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(admin: SocketAddr, last: Last) {
    loop {
        // A connection that fails is made anew; when the process is gone, nobody asks
        // for long.
        let _failed = ask_on_one_connection(admin, &last).await;
        sleep(DEMO_ASK).await;
    }
}

async fn ask_on_one_connection(admin: SocketAddr, last: &Last) -> io::Result<()> {
    let stream = TcpStream::connect(admin).await?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    let asking = async {
        loop {
            let host = HeaderValue::from_str(&admin.to_string()).map_err(io::Error::other)?;
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.uri_mut() = http::Uri::from_static("/status");
            request.headers_mut().insert(HOST, host);
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let body = Limited::new(answer.into_body(), ADMIN_ANSWER_MAX);
            let octets = body.collect().await.map_err(io::Error::other)?.to_bytes();
            let status = serde_json::from_slice(&octets)?;
            *last.borrow_mut() = Some((Instant::now(), status));
            sleep(DEMO_ASK).await;
        }
    };
    tokio::select! {
        failed = asking => failed,
        ended = connection => ended.map_err(io::Error::other),
    }
}
