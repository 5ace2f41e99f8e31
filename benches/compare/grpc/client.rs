//! Clients of gRPC in one thread, HTTP/2 by the `h2` crate: each stream is followed by
//! the next when its answer is whole and right.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{MESSAGE, PATH, framed};
use crate::support::{Error, message};

const PATIENCE: Duration = Duration::from_secs(30);

/// The numbers of all calls.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// A set of connections to one address.
pub(super) struct Clients {
    runtime: Runtime,
    connections: Vec<SendRequest<Bytes>>,
    streams: usize,
    url: String,
}

impl Clients {
    /// So many connections for so many streams each.
    pub(super) fn connect(addr: SocketAddr, count: usize, streams: usize) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connections = runtime.block_on(async {
            let mut connections = Vec::new();
            for _ in 0..count {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                let (sender, connection) = client::handshake(stream).await?;
                // A connection that fails fails its calls.
                tokio::spawn(async move { drop(connection.await) });
                connections.push(sender);
            }
            Ok::<_, Error>(connections)
        })?;
        Ok(Self { runtime, connections, streams, url: format!("http://{addr}{PATH}") })
    }

    /// Calls on all streams for so long; how many were answered.
    pub(super) fn run(&mut self, time: Duration) -> Result<u64, Error> {
        let started = Instant::now();
        self.runtime.block_on(async {
            let mut lanes = JoinSet::new();
            for connection in &self.connections {
                for _ in 0..self.streams {
                    let (mut connection, url) = (connection.clone(), self.url.clone());
                    lanes.spawn(async move {
                        let mut answered = 0;
                        while started.elapsed() < time {
                            timeout(PATIENCE, call(&mut connection, &url)).await??;
                            answered += 1;
                        }
                        Ok::<u64, Error>(answered)
                    });
                }
            }
            let mut answered = 0;
            while let Some(lane) = lanes.join_next().await {
                answered += lane??;
            }
            Ok(answered)
        })
    }
}

/// One call, with the answer that it has to have.
async fn call(connection: &mut SendRequest<Bytes>, url: &str) -> Result<(), Error> {
    let mut octets = message::number(CALLS.fetch_add(1, Ordering::Relaxed)).to_vec();
    octets.resize(MESSAGE, b'.');
    let body = Bytes::from(framed(&octets));
    let request = Request::post(url)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "cost");
    let mut ready = connection.clone().ready().await?;
    let (response, mut stream) = ready.send_request(request.body(())?, false)?;
    stream.send_data(body.clone(), true)?;
    let response = response.await?;
    let kind = response.headers().get("content-type").cloned();
    let status = response.status();
    let (answer, trailers) = collect(response.into_body()).await?;
    let grpc_status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    let is_right = status == 200
        && kind.is_some_and(|kind| kind == "application/grpc")
        && grpc_status.is_some_and(|status| status == "0")
        && answer == body;
    if is_right { Ok(()) } else { Err(format!("a wrong answer: {status}, {trailers:?}").into()) }
}

/// A body to its end, and its trailers.
pub(super) async fn collect(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), Error> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok((all.freeze(), body.trailers().await?))
}
