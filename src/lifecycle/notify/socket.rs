//! The socket on which a service manager listens, `NOTIFY_SOCKET` (sd_notify(3)).

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

/// Where messages to the service manager go. Each is one datagram; none is waited for.
#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: OwnedFd,
    manager: SocketAddrUnix,
}

impl NotifySocket {
    /// The socket of this address: a path, or a name after `@` in the abstract namespace.
    pub(super) fn open(address: &OsStr) -> io::Result<Self> {
        let manager = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            [b'/', ..] => SocketAddrUnix::new(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address we know")),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(NotifySocket { socket, manager })
    }

    /// Sends a message, with descriptors of ours. Not connected for it: a manager that
    /// was restarted has another socket at the same address.
    pub(super) fn send(&self, message: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        const ONE: usize = rustix::cmsg_space!(ScmRights(1));
        let mut space = [MaybeUninit::uninit(); ONE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than one descriptor"));
        }
        let message = [IoSlice::new(message.as_bytes())];
        sendmsg_addr(&self.socket, &self.manager, &message, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn heard(manager: &UnixDatagram) -> String {
        let mut octets = [0; 64];
        let n = manager.recv(&mut octets).unwrap();
        String::from_utf8(octets[..n].to_vec()).unwrap()
    }

    #[test]
    fn a_path_and_an_abstract_name_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        NotifySocket::open(path.as_os_str()).unwrap().send("READY=1", &[]).unwrap();
        assert_eq!(heard(&manager), "READY=1");

        let name = format!("ebbtide-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let address = format!("@{name}");
        NotifySocket::open(address.as_ref()).unwrap().send("READY=1", &[]).unwrap();
        assert_eq!(heard(&manager), "READY=1");
        assert!(NotifySocket::open("vsock:2:1".as_ref()).is_err());
    }

    #[test]
    fn nobody_is_waited_for_and_a_manager_that_comes_back_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let socket = NotifySocket::open(path.as_os_str()).unwrap();
        let full = (0..100_000).find_map(|_| socket.send("WATCHDOG=1", &[]).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(manager);
        assert!(socket.send("READY=1", &[]).is_err());
        std::fs::remove_file(&path).unwrap();
        let manager = UnixDatagram::bind(&path).unwrap();
        socket.send("FDSTORE=1", &[io::stderr().as_fd()]).unwrap();
        assert_eq!(heard(&manager), "FDSTORE=1");
    }
}
