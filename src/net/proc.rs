//! The same as sock_diag tells, from `/proc/net/tcp` and `tcp6`, for sandboxes
//! that have no netlink. It costs a pass over every TCP socket of the machine.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::probe::Entry;

/// The tables, opened before descriptors run out; a machine may lack one.
pub(super) fn open() -> io::Result<Vec<File>> {
    let v4 = File::open("/proc/net/tcp")?;
    Ok(std::iter::once(v4).chain(File::open("/proc/net/tcp6")).collect())
}

/// The TCP sockets with this local port in one of `states`.
pub(super) fn sockets(tables: &[File], port: u16, states: &[u8]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for mut table in tables {
        let mut text = String::new();
        table.rewind()?;
        table.read_to_string(&mut text)?;
        let fits = |entry: &Entry| entry.local.port() == port && states.contains(&entry.state);
        entries.extend(text.lines().filter_map(entry).filter(fits));
    }
    Ok(entries)
}

/// One line: number, local, remote, state, both queues, timer, retransmits,
/// uid, timeout, inode. Numbers are hexadecimal but for the last ones.
fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    Some(Entry {
        local: address(fields.next()?)?,
        remote: address(fields.next()?)?,
        state: u8::from_str_radix(fields.next()?, 16).ok()?,
        queue: u32::from_str_radix(fields.next()?.split_once(':')?.1, 16).ok()?,
        inode: fields.nth(4)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: the address in words of the machine's own octet order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_flattened()).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::probe::{ESTABLISHED, LISTEN, SYN_RECV};

    #[cfg(target_endian = "little")]
    #[test]
    fn a_table_is_read() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:000007D0 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F90 0201000A:D431 03 00000000:00000000 01:00000013 00000000     0        0 0 1 0
   2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:9C40 01 00000000:0000001A 00:00000000 00000000     0        0 0 1 0 20 4 0 10 -1
";
        let entries: Vec<Entry> = table.lines().filter_map(entry).collect();
        let expected = [
            (LISTEN, "127.0.0.1:8080", "0.0.0.0:0", 2000, 4711),
            (SYN_RECV, "127.0.0.1:8080", "10.0.1.2:54321", 0, 0),
            (ESTABLISHED, "127.0.0.1:8080", "127.0.0.1:40000", 26, 0),
        ];
        assert_eq!(entries.len(), expected.len());
        for (entry, (state, local, remote, queue, inode)) in entries.iter().zip(expected) {
            assert_eq!((entry.state, entry.queue, entry.inode), (state, queue, inode));
            assert_eq!(entry.local, local.parse().unwrap());
            assert_eq!(entry.remote, remote.parse().unwrap());
        }
    }
}
