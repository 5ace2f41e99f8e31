//! An application that sends the message of a call back: HTTP/2 by the `h2` crate.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::{PATH, client};
use crate::support::{Error, host};

/// Starts it on a port of its own; it lives as long as the process.
pub(super) fn start() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let runtime = Builder::new_current_thread().enable_io().build()?;
    thread::Builder::new().name("grpc".into()).spawn(move || {
        let outcome =
            host::pin_to(host::LOAD_CORE).and_then(|()| runtime.block_on(serve(listener)));
        if let Err(error) = outcome {
            eprintln!("the gRPC application ended: {error}");
        }
    })?;
    Ok(addr)
}

async fn serve(listener: TcpListener) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Whoever is on the other side reports a connection that fails.
        tokio::spawn(async move { drop(serve_connection(stream).await) });
    }
}

async fn serve_connection(stream: TcpStream) -> Result<(), Error> {
    let mut connection = server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        tokio::spawn(async move { drop(answer(request, respond).await) });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), Error> {
    let is_right = request.uri().path() == PATH && request.headers().get("te").is_some();
    let body = client::collect(request.into_body()).await?.0;
    let response = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond.send_response(response.body(())?, false)?;
    stream.send_data(body, false)?;
    let status = HeaderValue::from_static(if is_right { "0" } else { "3" });
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status);
    Ok(stream.send_trailers(trailers)?)
}
