//! The app server of the demo: fast, slow, streaming and uploading requests.
//!
//! Owns a thread and its listener. Promises that every answer can be checked: it
//! repeats the id that the client sent, and its body follows from id and [`Work`].
//! Writes into the [`Ledger`] what has reached it and what it executed.

mod answer;
mod work;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::ledger::Ledger;
use super::thread::{Told, Worker};
use crate::limits::ACCEPT_BACKOFF_MAX;

pub use work::{Checksum, ID, Work};

/// A running app. It ends, and closes all its connections, when this is dropped.
#[derive(Debug)]
pub struct App {
    addr: SocketAddr,
    ledger: Arc<Ledger>,
    _worker: Worker,
}

impl App {
    /// Starts it on a port of its own of the loopback interface. Its thread inherits
    /// the cores that the caller may use.
    ///
    /// # Errors
    ///
    /// If there is no port, no thread or no runtime to be had.
    pub fn start() -> io::Result<App> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let ledger = Arc::new(Ledger::default());
        let shared = Arc::clone(&ledger);
        let worker = Worker::start("demo-app", move |told| serve(listener, shared, told))?;
        Ok(App { addr, ledger, _worker: worker })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has seen and done.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

async fn serve(listener: std::net::TcpListener, ledger: Arc<Ledger>, told: Told) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let accepting = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_BACKOFF_MAX).await;
                continue;
            };
            // Answers are written whole; without it a second one would wait for an ACK.
            let _slower = stream.set_nodelay(true);
            let ledger = Arc::clone(&ledger);
            let service = service_fn(move |request| {
                let ledger = Arc::clone(&ledger);
                async move { Ok::<_, Infallible>(answer::answer(request, &ledger).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::task::spawn_local(async move {
                // What became of it the proxy says, and its client.
                let _ended = connection.await;
            });
        }
    };
    tokio::select! {
        _ = told => {}
        () = accepting => {}
    }
}
