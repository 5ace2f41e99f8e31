//! What the kernel says of sockets: which is which, and which processes have them open.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::PATIENCE;
use super::client::Client;
use super::wire::Place;
use super::within;

/// The number of the socket that listens at a TCP place.
pub(crate) fn listener(place: &Place) -> u64 {
    let Place::Tcp(addr) = place else { panic!("{place}") };
    within(PATIENCE, "a socket that listens", || {
        connections().into_iter().find(|it| it.listens && it.local == *addr).map(|it| it.number)
    })
}

/// The number of the socket at the other end of a client's TCP connection, which somebody
/// has accepted.
pub(crate) fn other_end(client: &Client) -> u64 {
    let [here, there] = [client.wire.sock.local_addr(), client.wire.sock.peer_addr()]
        .map(|addr| addr.expect("an address").as_socket().expect("TCP"));
    within(PATIENCE, "the other end of a connection", || {
        let mut all = connections().into_iter();
        all.find(|it| it.local == there && it.peer == here && it.number != 0).map(|it| it.number)
    })
}

/// The sockets that a process has open; none if it has ended.
pub(crate) fn sockets_of(pid: u32) -> BTreeSet<u64> {
    let Ok(all) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let links = all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|link| {
            let number = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            number.parse().ok()
        })
        .collect()
}

/// The ports of those clients of a TCP place whose connections a process has.
pub(crate) fn clients_of(pid: u32, place: &Place) -> BTreeSet<u16> {
    let Place::Tcp(addr) = place else { panic!("{place}") };
    let sockets = sockets_of(pid);
    let all = connections().into_iter();
    all.filter(|it| it.local == *addr && sockets.contains(&it.number))
        .map(|it| it.peer.port())
        .collect()
}

struct Connection {
    local: SocketAddr,
    peer: SocketAddr,
    listens: bool,
    number: u64,
}

/// All of TCP over IPv4.
fn connections() -> Vec<Connection> {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = words.get(9)?.parse().ok()?;
            let (local, peer) = (addr(words[1])?, addr(words[2])?);
            Some(Connection { local, peer, listens: words[3] == "0A", number })
        })
        .collect()
}

/// An address as the kernel writes it: as it has it in memory.
fn addr(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let host = u32::from_str_radix(host, 16).ok()?.to_ne_bytes();
    Some((host, u16::from_str_radix(port, 16).ok()?).into())
}
