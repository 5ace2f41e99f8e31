//! What the kernel knows of a port: sock_diag(7) over netlink.
//!
//! Used while a listener closes: are handshakes under way, how long is the
//! accept queue, has our plug arrived. The dump is filtered in the kernel by
//! state and port, so it costs the same with ten connections and with a
//! hundred thousand.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::probe::Entry;

const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TCP: u8 = 6;

/// A socket to ask with; some sandboxes have none.
pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?)
}

/// The TCP sockets with this local port in one of `states`, IPv4 and IPv6, and
/// where a remote port is given only those with that.
pub(super) fn sockets(
    netlink: &OwnedFd,
    port: u16,
    remote: Option<u16>,
    states: &[u8],
) -> io::Result<Vec<Entry>> {
    let mask = states.iter().fold(0u32, |mask, state| mask | 1 << state);
    let mut entries = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        send(netlink, &request(family, port, remote.unwrap_or(0), mask), SendFlags::empty())?;
        read_dump(netlink, &mut entries)?;
    }
    Ok(entries)
}

fn request(family: AddressFamily, port: u16, remote: u16, states: u32) -> [u8; REQUEST] {
    let mut message = [0u8; REQUEST];
    message[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    message[HEADER] = family.as_raw() as u8;
    message[HEADER + 1] = TCP;
    message[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    message[HEADER + 8..HEADER + 10].copy_from_slice(&port.to_be_bytes());
    message[HEADER + 10..HEADER + 12].copy_from_slice(&remote.to_be_bytes());
    message
}

fn read_dump(netlink: &OwnedFd, entries: &mut Vec<Entry>) -> io::Result<()> {
    let mut buffer = vec![0u8; 32 * 1024];
    loop {
        let (received, _) = recv(netlink, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..received];
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            if length < HEADER || length > rest.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(io::Error::other("sock_diag refused the request")),
                _ => entries.extend(entry(&rest[HEADER..length])),
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// `struct inet_diag_msg`
fn entry(message: &[u8]) -> Option<Entry> {
    Some(Entry {
        state: *message.get(1)?,
        local: address(message, 8, 4)?,
        remote: address(message, 24, 6)?,
        queue: u32::from_ne_bytes(octets(message, 56)?),
        inode: u32::from_ne_bytes(octets(message, 68)?).into(),
    })
}

fn address(message: &[u8], ip: usize, port: usize) -> Option<SocketAddr> {
    let ip = if u16::from(*message.first()?) == AddressFamily::INET.as_raw() {
        IpAddr::from(Ipv4Addr::from(octets::<4>(message, ip)?))
    } else {
        IpAddr::from(Ipv6Addr::from(octets::<16>(message, ip)?))
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(octets(message, port)?)))
}

fn octets<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..at + N)?.try_into().ok()
}
