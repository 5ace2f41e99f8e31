//! One connection's TLS: ciphertext goes in and comes out, plaintext goes out
//! and comes in. Knows no socket.

use std::io::{self, BufRead, IoSlice, Read, Write};

use rustls::Connection;

use super::records::Boundaries;
use super::settings::H2;
use crate::limits::TLS_WRITE_MAX;

/// rustls takes no more ciphertext while it holds more plaintext than this.
const PLAINTEXT_MAX: usize = 16 * 1024;

/// What the peer sent is not TLS, or not TLS that can be accepted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(#[from] rustls::Error);

impl Broken {
    /// Whether it is the peer's certificate that cannot be accepted.
    pub fn is_certificate(&self) -> bool {
        matches!(
            self.0,
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
        )
    }
}

/// One side of a TLS connection.
#[derive(Debug)]
pub struct Session {
    conn: Connection,
    boundaries: Boundaries,
    /// Ciphertext for which rustls had no room yet. No allocation while empty.
    leftover: Vec<u8>,
    /// Plaintext that rustls holds.
    plain: usize,
    /// The peer has sent close_notify.
    closed: bool,
    /// Told once all plaintext that came before is taken.
    broken: Option<Broken>,
    /// Octets of ciphertext that were taken from us.
    sent: u64,
}

impl Session {
    pub(super) fn new(conn: impl Into<Connection>) -> Box<Self> {
        let mut conn = conn.into();
        conn.set_buffer_limit(Some(TLS_WRITE_MAX));
        Box::new(Session {
            conn,
            boundaries: Boundaries::default(),
            leftover: Vec::new(),
            plain: 0,
            closed: false,
            broken: None,
            sent: 0,
        })
    }

    /// Takes ciphertext from the peer; puts what plaintext it makes into `into`,
    /// as far as there is room, and says how much. The rest waits for [`Self::take`].
    ///
    /// # Errors
    ///
    /// If the peer does not keep to TLS; there may be an alert to [`Self::send`].
    pub fn feed(&mut self, octets: &[u8], into: &mut [u8]) -> Result<usize, Broken> {
        self.boundaries.pass(octets);
        if !self.leftover.is_empty() {
            self.leftover.extend_from_slice(octets);
            return self.take(into);
        }
        let (got, rest) = self.digest(octets, into);
        self.leftover.extend_from_slice(&octets[octets.len() - rest..]);
        self.told(got)
    }

    /// Puts plaintext that waits into `into`; 0 if there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::feed`].
    pub fn take(&mut self, into: &mut [u8]) -> Result<usize, Broken> {
        let mut got = self.drain(into);
        if !self.leftover.is_empty() {
            let leftover = std::mem::take(&mut self.leftover);
            let (more, rest) = self.digest(&leftover, &mut into[got..]);
            self.leftover = leftover[leftover.len() - rest..].to_vec();
            got += more;
        }
        self.told(got)
    }

    /// Lets rustls work on ciphertext until it has no room; how much plaintext
    /// that made, and how many octets are left.
    fn digest(&mut self, mut octets: &[u8], into: &mut [u8]) -> (usize, usize) {
        let mut got = 0;
        // After close_notify, and after an error, nothing counts any more.
        while !octets.is_empty() && !self.closed && self.broken.is_none() {
            if self.plain > PLAINTEXT_MAX {
                return (got, octets.len());
            }
            if let Err(error) = self.conn.read_tls(&mut octets) {
                self.broken = Some(Broken(rustls::Error::General(error.to_string())));
                break;
            }
            match self.conn.process_new_packets() {
                Ok(state) => {
                    self.plain = state.plaintext_bytes_to_read();
                    self.closed = state.peer_has_closed();
                }
                Err(error) => {
                    // What came before it is whole and good; nobody tells how much.
                    let more = self.conn.reader().fill_buf().is_ok_and(|plain| !plain.is_empty());
                    self.plain = if more { usize::MAX } else { 0 };
                    self.broken = Some(Broken(error));
                }
            }
            got += self.drain(&mut into[got..]);
        }
        (got, 0)
    }

    fn drain(&mut self, into: &mut [u8]) -> usize {
        if self.plain == 0 || into.is_empty() {
            return 0;
        }
        let got = self.conn.reader().read(into).unwrap_or(0);
        // Where it is not known how much there is, it ends when nothing comes.
        self.plain = if got == 0 { 0 } else { self.plain.saturating_sub(got) };
        got
    }

    fn told(&self, got: usize) -> Result<usize, Broken> {
        match &self.broken {
            Some(broken) if got == 0 && self.plain == 0 => Err(broken.clone()),
            _ => Ok(got),
        }
    }

    /// Takes plaintext for the peer, several pieces as one; how much of it. It
    /// leaves by [`Self::send`].
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn put(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.conn.writer().write_vectored(pieces)
    }

    /// Writes ciphertext until there is none left, or `out` takes no more.
    ///
    /// # Errors
    ///
    /// Those of `out`; `WouldBlock` leaves the rest for the next time.
    pub fn send(&mut self, out: &mut dyn Write) -> io::Result<()> {
        while self.conn.wants_write() {
            match self.conn.write_tls(out)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.sent += n as u64,
            }
        }
        Ok(())
    }

    /// Octets of ciphertext that [`Self::send`] has got rid of.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether there is ciphertext to [`Self::send`].
    pub fn is_pending(&self) -> bool {
        self.conn.wants_write()
    }

    /// Says that nothing more will be written (close_notify).
    pub fn end(&mut self) {
        self.conn.send_close_notify();
    }

    /// Whether the peer has said that it will write nothing more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the ClientHello has come whole.
    pub fn is_greeted(&self) -> bool {
        self.conn.protocol_version().is_some()
    }

    /// Whether the handshake is under way.
    pub fn is_handshaking(&self) -> bool {
        self.conn.is_handshaking()
    }

    /// Whether HTTP/2 was agreed on.
    pub fn is_h2(&self) -> bool {
        self.conn.alpn_protocol() == Some(H2)
    }

    /// Whether there is plaintext that nobody has taken.
    pub fn has_plaintext(&self) -> bool {
        self.plain > 0
    }

    /// Octets from the peer that nobody has taken: plaintext, ciphertext that
    /// waits, a part of a record.
    pub fn unread(&self) -> usize {
        let plain = if self.plain == usize::MAX { 1 } else { self.plain };
        plain + self.leftover.len() + usize::from(self.is_inside())
    }

    /// Whether a record has begun to come and is not whole.
    pub fn is_inside(&self) -> bool {
        !self.closed && self.broken.is_none() && self.boundaries.inside()
    }
}
