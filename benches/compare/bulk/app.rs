//! An application that sends and takes large bodies: a thread for each connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::body;
use crate::support::{Error, host, message};

/// The head of an answer with a body; the number of the request goes into it.
const DOWN: &str = "HTTP/1.1 200 OK\r\nServer: cost\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n\
    Content-Type: application/octet-stream\r\n";

/// Starts it on a port of its own; it lives as long as the process.
pub(super) fn start() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let body = Arc::new(body());
    thread::Builder::new().name("bulk".into()).spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let body = Arc::clone(&body);
            thread::spawn(move || {
                // Whoever is on the other side reports a connection that fails.
                drop(host::pin_to(host::LOAD_CORE).and_then(|()| serve(stream, &body)));
            });
        }
    })?;
    Ok(addr)
}

fn serve(stream: TcpStream, body: &[u8]) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = Vec::new();
        while message::head_length(&head).is_none() {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let target = String::from_utf8_lossy(&head);
        let number = target.split(['/', ' ']).nth(3).ok_or("no number")?;
        if head.starts_with(b"GET /down/") {
            let length = body.len();
            write!(writer, "{DOWN}Content-Length: {length}\r\nX-Number: {number}\r\n\r\n")?;
            writer.write_all(body)?;
        } else {
            let same = compare(&mut reader, body)?;
            let number = number.as_bytes().try_into()?;
            let mut answer = message::response(&number);
            if !same {
                answer.splice(..b"HTTP/1.1 200 OK".len(), *b"HTTP/1.1 422 No");
            }
            writer.write_all(&answer)?;
        }
    }
}

/// Whether the next octets are those of the body.
fn compare(reader: &mut BufReader<TcpStream>, body: &[u8]) -> Result<bool, Error> {
    let mut same = true;
    let mut rest = body;
    let mut octets = vec![0; 256 * 1024];
    while !rest.is_empty() {
        let room = octets.len().min(rest.len());
        let read = reader.read(&mut octets[..room])?;
        if read == 0 {
            return Err("the body ended early".into());
        }
        let (now, later) = rest.split_at(read);
        same &= octets[..read] == *now;
        rest = later;
    }
    Ok(same)
}
