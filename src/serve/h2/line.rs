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

/// Octets looked at in one piece while the gate is shut.
const LOOK: usize = 4096;

/// A connection's socket, and what is known of it.
pub(super) struct Line {
    socket: RefCell<Socket>,
    pub(super) gate: RefCell<Gate>,
    /// What was read before the protocol was known.
    ahead: RefCell<Buffer>,
    /// Octets have come since somebody asked.
    heard: Cell<bool>,
    /// How many in this turn.
    turn: Cell<usize>,
    /// The kernel takes no more at the moment.
    blocked: Cell<bool>,
    /// It has taken something since somebody asked.
    taken: Cell<bool>,
}

impl Line {
    /// A line over `socket`, of which `ahead` has been read already.
    pub(super) fn new(socket: Socket, ahead: Buffer) -> Rc<Self> {
        Rc::new(Line {
            socket: RefCell::new(socket),
            gate: RefCell::new(Gate::new()),
            ahead: RefCell::new(ahead),
            heard: Cell::new(false),
            turn: Cell::new(0),
            blocked: Cell::new(false),
            taken: Cell::new(false),
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

    /// Whether octets have come since this was last asked.
    pub(super) fn take_heard(&self) -> bool {
        self.heard.take()
    }

    /// Whether octets wait for the kernel to take them.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether any of them were taken since this was last asked.
    pub(super) fn take_taken(&self) -> bool {
        self.taken.take()
    }

    fn poll_look(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut gate = self.gate.borrow_mut();
        let mut octets = [0; LOOK];
        loop {
            let given = gate.give(room);
            if given > 0 || room.is_empty() {
                return Poll::Ready(Ok(given));
            }
            let read = ready!(self.socket.borrow_mut().poll_read(cx, &mut octets))?;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            self.heard.set(true);
            gate.take(&octets[..read]);
        }
    }

    fn note<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.blocked.set(done.is_pending());
        done
    }

    fn note_written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            self.taken.set(true);
        }
        self.note(written)
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
        if line.turn.get() >= H2_TURN {
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
        let room = buf.initialize_unfilled();
        let read = if line.gate.borrow().is_idle() {
            let read = ready!(line.socket.borrow_mut().poll_read(cx, room))?;
            line.gate.borrow_mut().follow(&room[..read]);
            line.heard.set(read > 0);
            read
        } else {
            ready!(line.poll_look(cx, room))?
        };
        line.turn.set(line.turn.get() + read);
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.note_written(self.0.socket.borrow_mut().poll_write(cx, octets))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.note_written(self.0.socket.borrow_mut().poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.note(self.0.socket.borrow_mut().poll_flush(cx))
    }

    /// The line is ended by whoever owns the connection.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
