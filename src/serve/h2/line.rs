//! The octets under h2: a socket that the connection shares with it, with the
//! gate in front.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gate::Gate;
use crate::http1::Buffer;
use crate::limits::H2_TURN;
use crate::net::Socket;
use crate::proxy::h2::Sections;

/// The most octets read at once.
const READ: usize = 16 * 1024;

thread_local! {
    /// Where octets are read before h2 has them: the room that h2 offers is not
    /// initialised, and doing that for each read costs more than moving the few
    /// octets that most reads bring.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// A connection's socket, and what is known of it.
pub(super) struct Line {
    socket: RefCell<Socket>,
    pub(super) gate: RefCell<Gate>,
    /// What was read before the protocol was known.
    ahead: RefCell<Buffer>,
    /// Octets have come since somebody asked.
    heard: Cell<bool>,
    /// The client's FIN has been read.
    ended: Cell<bool>,
    /// How many octets have come in this turn.
    turn: Cell<usize>,
    /// The kernel takes no more at the moment.
    blocked: Cell<bool>,
    /// Octets that were written, as far as they are not the socket's to count.
    written: Cell<u64>,
}

impl Line {
    /// A line over `socket`, of which `ahead` has been read already. What trailers
    /// there are is noted in `sections`.
    pub(super) fn new(socket: Socket, ahead: Buffer, sections: Rc<Sections>) -> Rc<Self> {
        Rc::new(Line {
            socket: RefCell::new(socket),
            gate: RefCell::new(Gate::new(sections)),
            ahead: RefCell::new(ahead),
            heard: Cell::new(false),
            ended: Cell::new(false),
            turn: Cell::new(0),
            blocked: Cell::new(false),
            written: Cell::new(0),
        })
    }

    /// The socket, once h2 has let go of the line.
    pub(super) fn into_socket(line: Rc<Self>) -> Option<Socket> {
        Rc::into_inner(line).map(|line| line.socket.into_inner())
    }

    /// Lets h2 read again: a turn begins.
    pub(super) fn begin_turn(&self) {
        self.turn.set(0);
    }

    /// Whether h2 has read all that it may read in this turn.
    pub(super) fn is_turn_over(&self) -> bool {
        self.turn.get() >= H2_TURN
    }

    /// Whether octets have come since this was last asked.
    pub(super) fn take_heard(&self) -> bool {
        self.heard.take()
    }

    /// Whether octets wait for the kernel to take them.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether the client has ended its side.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether there are octets of the client that h2 does not have.
    pub(super) fn has_unread(&self) -> bool {
        self.socket.borrow().unread() > 0
    }

    /// Octets that the kernel has taken.
    pub(super) fn taken(&self) -> u64 {
        match self.socket.borrow().tls() {
            Some(tls) => tls.sent(),
            None => self.written.get(),
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let most = into.remaining().min(READ);
            let mut gate = self.gate.borrow_mut();
            if gate.is_idle() {
                let read = ready!(self.socket.borrow_mut().poll_read(cx, &mut scratch[..most]))?;
                self.ended.set(read == 0 && most > 0);
                gate.follow(&scratch[..read]);
                into.put_slice(&scratch[..read]);
                self.heard.set(self.heard.get() || read > 0);
                return Poll::Ready(Ok(()));
            }
            loop {
                let given = gate.give(&mut scratch[..most]);
                if given > 0 || most == 0 {
                    into.put_slice(&scratch[..given]);
                    return Poll::Ready(Ok(()));
                }
                let mut socket = self.socket.borrow_mut();
                match socket.poll_read(cx, scratch)? {
                    Poll::Ready(0) => {
                        self.ended.set(true);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(read) => {
                        self.heard.set(true);
                        gate.take(&scratch[..read]);
                    }
                    // What the kernel has is the client's word from before: the
                    // runtime will say that it is there.
                    Poll::Pending if !gate.is_due() || socket.unread() > 0 => {
                        return Poll::Pending;
                    }
                    Poll::Pending => {
                        gate.hears_silence();
                        if gate.is_due() {
                            return Poll::Pending;
                        }
                    }
                }
            }
        })
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.blocked.set(written.is_pending());
        if let Poll::Ready(Ok(n)) = written {
            self.written.set(self.written.get() + n as u64);
        }
        written
    }
}

/// h2's end of a line.
pub(super) struct Io(pub(super) Rc<Line>);

impl AsyncRead for Io {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = &*self.0;
        if line.is_turn_over() {
            // The streams have to take what there is before more is read.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut ahead = line.ahead.borrow_mut();
        if !ahead.is_empty() {
            let n = ahead.len().min(buf.remaining());
            buf.put_slice(&ahead.filled()[..n]);
            line.gate.borrow_mut().follow(&ahead.filled()[..n]);
            ahead.consume(n);
            if ahead.is_empty() {
                *ahead = Buffer::default();
            }
            line.heard.set(true);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = line.poll_read(cx, buf);
        line.turn.set(line.turn.get() + buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.note(self.0.socket.borrow_mut().poll_write(cx, octets))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.note(self.0.socket.borrow_mut().poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.0.socket.borrow_mut().poll_flush(cx);
        self.0.blocked.set(flushed.is_pending());
        flushed
    }

    /// The line is ended by whoever owns the connection.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
