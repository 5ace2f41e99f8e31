//! The way between two processes: a socket that carries packets and descriptors.
//!
//! A packet is sent whole or not at all, and read whole or refused, so neither sending
//! nor receiving loses anything when its future is dropped.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    recvmsg, sendmsg, shutdown, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::message::Message;
use super::watch::watch;
use super::wire::{self, Malformed};
use crate::limits::{HANDOFF_FDS_AGAIN, HANDOFF_FDS_MAX, HANDOFF_MESSAGE_MAX, HANDOFF_SAY};

/// What one packet has beside its octets, with room to see that it is too much.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(HANDOFF_FDS_MAX));

/// The room for what is not read yet, as it is asked for: the kernel doubles it. Whoever is
/// below it may send one more packet, however long.
const ROOM: usize = HANDOFF_MESSAGE_MAX / 4 * 3;
/// The same for the last word. It has to be more than [`ROOM`] and the longest packet take
/// together, by the kernel's count, and no more than it gives to anybody (212,992).
const LAST_ROOM: usize = 2 * HANDOFF_MESSAGE_MAX;

/// Why nothing more can be said or heard.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The socket.
    #[error("the channel to the other process failed: {0}")]
    Io(#[from] io::Error),
    /// What came is no message of ours.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Broken {
    /// Whether it is that nobody listens at the other end any more.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Broken::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A message that has come.
#[derive(Debug)]
pub struct Received {
    /// What it says.
    pub message: Message,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
    /// Its octets.
    pub octets: Vec<u8>,
}

/// Who the other process is, as the kernel says. Of a pair it is who made the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number; none if it is not to be seen from here.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
}

/// One end of the way. Needs the runtime it was made on.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    /// One end, and another for a process that is still to be started.
    ///
    /// # Errors
    ///
    /// If the kernel has no more sockets.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Channel::from_fd(ours)?, theirs))
    }

    /// An end that was inherited, accepted or received.
    ///
    /// # Errors
    ///
    /// If it is no socket that carries packets.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Channel> {
        if socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(io::Error::other("it is no socket for packets"));
        }
        rustix::io::ioctl_fionbio(&fd, true)?;
        set_socket_send_buffer_size(&fd, ROOM)?;
        Ok(Channel { socket: watch(fd, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// The socket, to hand it on.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into_inner()
    }

    /// Sends a message whole. A peer that is gone is a broken pipe; what it said before
    /// is still to be received.
    ///
    /// # Errors
    ///
    /// If the message is none that would be taken, or nobody takes it any more.
    pub async fn send(
        &self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
        octets: &[u8],
    ) -> Result<(), Broken> {
        let packet = wire::encode(message, fds.len(), octets.len())?;
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| Ok(send(socket.as_fd(), &packet, octets, fds)?)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => match Errno::from_io_error(&error) {
                    Some(Errno::TOOMANYREFS) => tokio::time::sleep(HANDOFF_FDS_AGAIN).await,
                    _ => return Err(error.into()),
                },
                Err(_would_block) => {}
            }
        }
    }

    /// Sends a word, unless nobody makes room for it within a moment.
    ///
    /// # Errors
    ///
    /// See [`Channel::send`].
    pub async fn say(&self, word: &Message) -> Result<(), Broken> {
        let sent = tokio::time::timeout(HANDOFF_SAY, self.send(word, &[], &[])).await;
        sent.unwrap_or_else(|late| Err(Broken::Io(late.into())))
    }

    /// Sends a word, if there is room for it now.
    ///
    /// # Errors
    ///
    /// See [`Channel::send`].
    pub fn try_send(&self, word: &Message) -> Result<(), Broken> {
        let packet = wire::encode(word, 0, 0)?;
        Ok(send(self.socket.as_fd(), &packet, &[], &[]).map_err(io::Error::from)?)
    }

    /// Says the last word, for which there is room whatever was sent before, and hears
    /// nothing more: what the other side sends from now on fails there, what it has sent is
    /// still to be received. Its end is still to be seen here.
    ///
    /// # Errors
    ///
    /// See [`Channel::send`].
    pub fn last_word(&self, word: &Message) -> Result<(), Broken> {
        // If that fails there may be room all the same.
        let _unchanged = set_socket_send_buffer_size(&self.socket, LAST_ROOM);
        let said = self.try_send(word);
        // One that could not be told hears that nothing more comes.
        let how = if said.is_ok() { Shutdown::Read } else { Shutdown::Both };
        let _gone = shutdown(&self.socket, how);
        said
    }

    /// The next message; none if the other side has closed and nothing is left.
    ///
    /// # Errors
    ///
    /// If what comes is no message, or the socket fails.
    pub async fn recv(&self) -> Result<Option<Received>, Broken> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| Ok(receive(socket.as_fd())?)) {
                Ok(packet) => return open(packet),
                Err(_would_block) => {}
            }
        }
    }

    /// What has come already; none if that is nothing, or the other side has closed.
    ///
    /// # Errors
    ///
    /// See [`Channel::recv`].
    pub fn try_recv(&self) -> Result<Option<Received>, Broken> {
        match receive(self.socket.as_fd()) {
            Err(Errno::AGAIN) => Ok(None),
            packet => open(packet.map_err(io::Error::from)),
        }
    }

    /// Who is at the other end.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn peer(&self) -> io::Result<Peer> {
        peer(self.socket.as_fd())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Who is at the other end of a socket that does not block. Needs a runtime around it.
pub(super) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    // The number may be 0, which the type that rustix has for it cannot hold.
    let stream = UnixStream::from_std(StdUnixStream::from(socket.try_clone_to_owned()?))?;
    let peer = stream.peer_cred()?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    Ok(Peer { pid, uid: peer.uid() })
}

struct Packet {
    octets: Vec<u8>,
    fds: Vec<OwnedFd>,
    whole: bool,
}

fn send(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    octets: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let pieces = [IoSlice::new(packet), IoSlice::new(octets)];
    loop {
        match sendmsg(socket, &pieces, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            // It has closed, and has not read everything.
            Err(Errno::CONNRESET) => return Err(Errno::PIPE),
            other => return other.map(drop),
        }
    }
}

/// The next packet; an empty one at the end.
fn receive(socket: BorrowedFd<'_>) -> Result<Packet, Errno> {
    // One more than the longest: what is longer shows by being cut.
    let mut octets = vec![0; HANDOFF_MESSAGE_MAX + 1];
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut pieces = [IoSliceMut::new(&mut octets)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        match recvmsg(socket, &mut pieces, &mut control, flags) {
            // The other side has closed without reading everything of ours. That is
            // said once, before what it has sent.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    octets.truncate(got.bytes);
    octets.shrink_to_fit();
    let whole = !got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Packet { octets, fds, whole })
}

fn open(packet: io::Result<Packet>) -> Result<Option<Received>, Broken> {
    let Packet { mut octets, fds, whole } = packet?;
    if octets.is_empty() && fds.is_empty() && whole {
        return Ok(None);
    }
    if !whole {
        // The descriptors that did come are closed with this function.
        let text = "a message did not come whole: is the limit of open files reached?";
        return Err(Malformed(text.to_owned()).into());
    }
    let (message, at) = wire::decode(&octets, fds.len())?;
    octets.drain(..at);
    Ok(Some(Received { message, fds, octets }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::super::message::{Given, GivenKind};
    use super::super::moved::tests::connection;
    use super::*;

    fn channels() -> (Channel, Channel) {
        let (one, other) = Channel::pair().unwrap();
        (one, Channel::from_fd(other).unwrap())
    }

    fn sockets(n: usize) -> Message {
        let given =
            Given { kind: GivenKind::Elder, name: "1".to_owned(), keeper: None, file: None };
        Message::Sockets { batch: 1, sockets: vec![given; n] }
    }

    #[tokio::test]
    async fn descriptors_come_closed_to_programs_and_alive() {
        let (one, other) = channels();
        let (mut near, far) = StdUnixStream::pair().unwrap();
        let message = Message::Connections { batch: 4, connections: vec![connection(3)] };
        one.send(&message, &[far.as_fd()], b"abc").await.unwrap();
        drop(far);
        let mut got = other.recv().await.unwrap().unwrap();
        assert_eq!((got.message, got.octets.as_slice()), (message, &b"abc"[..]));
        let fd = got.fds.pop().unwrap();
        assert!(got.fds.is_empty());
        assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
        StdUnixStream::from(fd).write_all(b"x").unwrap();
        near.read_exact(&mut [0]).unwrap();
    }

    #[tokio::test]
    async fn the_largest_messages_pass_and_wait_for_their_reader() {
        let (one, other) = channels();
        let file = std::fs::File::open("/dev/null").unwrap();
        let octets = vec![b'x'; HANDOFF_MESSAGE_MAX - 100_000];
        let mut full = connection(u32::try_from(octets.len()).unwrap());
        full.port = 1;
        let message = Message::Connections { batch: 1, connections: vec![full] };
        let many = vec![file.as_fd(); HANDOFF_FDS_MAX];
        let send = async {
            for _ in 0..50 {
                one.send(&message, &many[..1], &octets).await.unwrap();
                one.send(&sockets(HANDOFF_FDS_MAX), &many, b"").await.unwrap();
            }
        };
        let read = async {
            for n in 0..100 {
                let got = other.recv().await.unwrap().unwrap();
                assert_eq!(got.fds.len(), [1, HANDOFF_FDS_MAX][n % 2]);
            }
        };
        let both = async { tokio::join!(send, read) };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        let mut error = String::new();
        while error.len() < HANDOFF_MESSAGE_MAX - 60 {
            error.push('x');
        }
        one.send(&Message::Failed { error }, &[], b"").await.unwrap();
        assert!(other.try_recv().unwrap().is_some());
        assert!(other.try_recv().unwrap().is_none());
    }

    #[tokio::test]
    async fn what_the_dead_have_said_is_heard() {
        let (one, other) = channels();
        for batch in 0..3 {
            other.send(&Message::Ack { batch }, &[], b"").await.unwrap();
        }
        // Never read: the other end of the channel breaks when it closes.
        one.send(&Message::Begin, &[], b"").await.unwrap();
        drop(other);
        let Err(Broken::Io(error)) = one.send(&Message::Leave, &[], b"").await else {
            panic!("nobody is there")
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        for n in 0..3 {
            let got = one.recv().await.unwrap().unwrap();
            assert_eq!(got.message, Message::Ack { batch: n });
        }
        assert!(one.recv().await.unwrap().is_none());
        assert!(one.recv().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_dead_are_heard_without_a_word_to_them() {
        let (one, other) = channels();
        one.send(&Message::Begin, &[], b"").await.unwrap();
        other.send(&Message::Serving, &[], b"").await.unwrap();
        drop(other);
        assert_eq!(one.recv().await.unwrap().unwrap().message, Message::Serving);
        assert!(one.recv().await.unwrap().is_none());
    }

    /// As much as there is room for, and of any size.
    fn fill(channel: &Channel, sizes: &[usize]) -> usize {
        let mut sent = 0;
        for size in sizes {
            let error = "x".repeat(*size);
            while channel.try_send(&Message::Failed { error: error.clone() }).is_ok() {
                sent += 1;
            }
        }
        sent
    }

    #[tokio::test]
    async fn there_is_room_for_the_last_word_behind_whatever_nobody_reads() {
        let longest = HANDOFF_MESSAGE_MAX - 60;
        for sizes in [&[longest, 0][..], &[0], &[1, longest / 2, 0], &[16_000, 0]] {
            let (one, other) = channels();
            let mut sent = fill(&one, sizes);
            // The least that makes room, and then the most that fits there.
            assert!(other.try_recv().unwrap().is_some());
            sent += fill(&one, &[longest, 0]);
            assert!(one.try_send(&Message::Leave).is_err(), "there is no room");
            one.last_word(&Message::Refused { error: "x".repeat(1000) }).unwrap();
            other.try_send(&Message::Leave).unwrap_err();
            for _ in 1..sent {
                let got = other.recv().await.unwrap().unwrap();
                assert!(matches!(got.message, Message::Failed { .. }));
            }
            let last = other.recv().await.unwrap().unwrap();
            assert!(matches!(last.message, Message::Refused { .. }));
            drop(one);
            assert!(other.recv().await.unwrap().is_none(), "and then the end");
        }
    }

    #[tokio::test]
    async fn what_was_sent_before_the_last_word_came_is_heard() {
        let (one, other) = channels();
        other.try_send(&Message::Ack { batch: 1 }).unwrap();
        one.last_word(&Message::Leave).unwrap();
        assert!(other.try_send(&Message::Ack { batch: 2 }).unwrap_err().is_end());
        assert_eq!(one.try_recv().unwrap().unwrap().message, Message::Ack { batch: 1 });
        assert!(one.try_recv().unwrap().is_none());
        drop(other);
        assert!(one.last_word(&Message::Leave).unwrap_err().is_end());
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_waits_for_room_but_not_for_long() {
        let (one, other) = channels();
        fill(&one, &[0]);
        assert!(!one.say(&Message::Leave).await.unwrap_err().is_end());
        while other.try_recv().unwrap().is_some() {}
        one.say(&Message::Leave).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_and_its_descriptors_are_closed() {
        let (one, other) = channels();
        let (mut near, far) = StdUnixStream::pair().unwrap();
        for octets in [vec![b'x'; 64], vec![0; HANDOFF_MESSAGE_MAX + 1], b"EH".to_vec()] {
            send(one.as_fd(), &octets, b"", &[far.as_fd(); 3]).unwrap();
            assert!(matches!(other.recv().await, Err(Broken::Malformed(_))));
        }
        // Descriptors without a word.
        send(one.as_fd(), b"", b"", &[far.as_fd()]).unwrap();
        assert!(matches!(other.recv().await, Err(Broken::Malformed(_))));
        let many = vec![far.as_fd(); HANDOFF_FDS_MAX + 1];
        assert!(one.send(&sockets(many.len()), &many, b"").await.is_err());
        drop(many);
        drop(far);
        near.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap(), 0, "nobody has a copy any more");
    }

    #[tokio::test]
    async fn the_kernel_says_who_is_there() {
        let (one, _other) = channels();
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(one.peer().unwrap(), Peer { pid: Some(std::process::id()), uid });
        let (stream, _far) = StdUnixStream::pair().unwrap();
        assert!(Channel::from_fd(stream.into()).is_err());
    }
}
