//! An application that sends each message back.

use std::io::Write as _;
use std::net::TcpStream;

use super::frame;
use crate::support::backend::{App, Requests};
use crate::support::{Error, message};

/// One connection: requests, until one of them is a wish for a WebSocket.
#[derive(Default)]
pub(crate) struct Echo {
    requests: Requests,
    is_open: bool,
    /// A frame that is not whole.
    begun: Vec<u8>,
}

impl App for Echo {
    const READ: usize = 256 * 1024;

    fn take(&mut self, octets: &mut [u8], stream: &mut TcpStream) -> Result<(), Error> {
        if !self.is_open {
            if octets.starts_with(b"GET /echo ") && message::head_length(octets).is_some() {
                self.is_open = true;
                return Ok(stream.write_all(frame::ANSWER)?);
            }
            return self.requests.take(octets, stream);
        }
        if self.begun.is_empty() {
            let taken = send_back(octets, stream)?;
            self.begun.extend_from_slice(&octets[taken..]);
        } else {
            self.begun.extend_from_slice(octets);
            let taken = send_back(&mut self.begun, stream)?;
            self.begun.drain(..taken);
        }
        Ok(())
    }
}

/// Sends back each frame that is whole; how many octets those were. A server's frame is
/// shorter by its key, so its head is written over the end of the client's.
fn send_back(octets: &mut [u8], stream: &mut TcpStream) -> Result<usize, Error> {
    let mut taken = 0;
    while let Some((head, payload)) = frame::parse(&octets[taken..])? {
        let (at, end) = (taken + head, taken + head + payload);
        if octets.len() < end {
            break;
        }
        let ours = frame::head(payload, false);
        octets[at - ours.len()..at].copy_from_slice(&ours);
        stream.write_all(&octets[at - ours.len()..end])?;
        taken = end;
    }
    Ok(taken)
}
