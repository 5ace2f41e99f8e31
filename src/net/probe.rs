//! What the kernel knows of a listening port: how long the accept queue is,
//! whether handshakes are under way, whether our plug has arrived.
//!
//! sock_diag answers at once whatever the number of connections; a sandbox may
//! forbid it, then `/proc/net/tcp` is read. What asks is opened with the
//! listener, because there may be no descriptor left when it closes.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::{diag, proc};

/// `tcp_states.h`
pub(super) const ESTABLISHED: u8 = 1;
pub(super) const SYN_RECV: u8 = 3;
pub(super) const LISTEN: u8 = 10;

/// One TCP socket as the kernel lists it; IPv4 addresses are written as such.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) state: u8,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// On a listening socket: the length of its accept queue.
    pub(super) queue: u32,
    /// 0 as long as no process holds it: in the accept queue.
    pub(super) inode: u64,
}

/// Asks about one listening socket.
#[derive(Debug)]
pub(super) struct Probe {
    source: Source,
    address: SocketAddr,
    inode: u64,
}

#[derive(Debug)]
enum Source {
    Netlink(OwnedFd),
    Tables(Vec<File>),
    Nothing,
}

/// The accept queue at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    /// How many wait in it.
    pub(super) length: u32,
    /// Handshakes that will want a place in it.
    pub(super) half_open: usize,
}

impl Probe {
    /// For the socket that listens at `address`.
    pub(super) fn open(listener: impl AsFd, address: SocketAddr) -> io::Result<Probe> {
        let inode = rustix::fs::fstat(listener)?.st_ino;
        let source = diag::open().map_or_else(|_| tables(), Source::Netlink);
        let mut probe = Probe { source, address, inode };
        // What is going to refuse does so now, while the tables can be opened.
        let _told = probe.queue();
        Ok(probe)
    }

    /// The queue, if the kernel tells.
    pub(super) fn queue(&mut self) -> Option<Queue> {
        let entries = self.sockets(None, &[LISTEN, SYN_RECV])?;
        let ours = entries.iter().find(|entry| entry.state == LISTEN && entry.inode == self.inode);
        let half_open = |entry: &&Entry| entry.state == SYN_RECV && self.is_ours(entry);
        Some(Queue { length: ours?.queue, half_open: entries.iter().filter(half_open).count() })
    }

    /// Whether it is among the sockets of the network that this process lives in, if the
    /// kernel tells.
    pub(super) fn is_listed(&mut self) -> Option<bool> {
        let entries = self.sockets(None, &[LISTEN])?;
        Some(entries.iter().any(|entry| entry.state == LISTEN && entry.inode == self.inode))
    }

    /// Whether the kernel says that no handshake is under way.
    pub(super) fn no_half_open(&mut self) -> bool {
        self.queue().is_some_and(|queue| queue.half_open == 0)
    }

    /// Whether a connection from `plug` is in the queue.
    pub(super) fn has(&mut self, plug: SocketAddr) -> bool {
        self.sockets(Some(plug.port()), &[ESTABLISHED]).is_some_and(|entries| {
            entries.iter().any(|entry| entry.remote == plug && entry.inode == 0)
        })
    }

    /// The port may have other listeners, each on an address of its own.
    fn is_ours(&self, entry: &Entry) -> bool {
        let ip = self.address.ip();
        ip.is_unspecified() || ip.to_canonical() == entry.local.ip()
    }

    fn sockets(&mut self, remote: Option<u16>, states: &[u8]) -> Option<Vec<Entry>> {
        let port = self.address.port();
        if let Source::Netlink(netlink) = &self.source {
            match diag::sockets(netlink, port, remote, states) {
                Ok(entries) => return Some(entries),
                // Half an answer may still be on its way: not to be asked again.
                Err(_) => self.source = tables(),
            }
        }
        let Source::Tables(tables) = &self.source else { return None };
        proc::sockets(tables, port, states).ok()
    }
}

fn tables() -> Source {
    proc::open().map_or(Source::Nothing, Source::Tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn sees_the_queue_and_who_is_in_it(source: Source) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut probe = Probe { source, ..Probe::open(&listener, address).unwrap() };
        assert_eq!(probe.queue().unwrap().length, 0);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(probe.queue().unwrap().length, 3);
        let accepted = listener.accept().unwrap();
        assert_eq!(probe.queue().unwrap().length, 2);
        let queued: Vec<_> =
            clients.iter().map(|client| probe.has(client.local_addr().unwrap())).collect();
        assert_eq!(queued, [false, true, true]);
        assert!(probe.no_half_open());
        drop(accepted);
    }

    #[test]
    fn sock_diag_sees_the_queue_and_who_is_in_it() {
        sees_the_queue_and_who_is_in_it(Source::Netlink(diag::open().unwrap()));
    }

    #[test]
    fn the_tables_see_the_queue_and_who_is_in_it() {
        sees_the_queue_and_who_is_in_it(tables());
    }

    #[test]
    fn a_source_that_refuses_is_replaced_by_the_tables() {
        let not_netlink = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sees_the_queue_and_who_is_in_it(Source::Netlink(not_netlink.into()));
    }
}
