//! The header of the PROXY protocol, version 1 and 2: with it a proxy begins a
//! connection that it passes on, to say whose it is.
//!
//! The specification is `doc/proxy-protocol.txt` of HAProxy. Left alone are the
//! fields behind the addresses of version 2, the checksum among them: a header
//! is taken from trusted peers only, and what TCP lets pass of errors is no more
//! here than in the request that follows.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_HEADER_MAX;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No header: another octet than one could have.
    Nothing,
    /// A part of a header, or nothing at all yet.
    Part,
    /// A header.
    Header {
        /// How many octets it has.
        length: usize,
        /// Whose connection it says this is.
        announced: Announced,
    },
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The sender's own: it asks for itself.
    Own,
    /// Somebody's whose address is not known, or who has none.
    Nameless,
    /// A client's.
    Client {
        /// Where it comes from.
        address: SocketAddr,
        /// The port it connected to.
        port: u16,
    },
}

/// A header that breaks its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// What every header of version 1 begins with.
const LINE: &[u8] = b"PROXY ";

/// The most octets of a header of version 1, with its CRLF.
const LINE_MAX: usize = 107;

/// What every header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, length (two octets).
const FIXED: usize = 16;

/// What two addresses of unix sockets take.
const UNIX_ADDRESSES: usize = 216;

/// Looks at the first octets of a connection. Once it is not [`Found::Part`],
/// what it says does not change by what follows.
pub fn find_proxy_header(octets: &[u8]) -> Result<Found, Malformed> {
    if octets.starts_with(LINE) {
        read_line(octets)
    } else if octets.starts_with(SIGNATURE) {
        read_binary(octets)
    } else if LINE.starts_with(octets) || SIGNATURE.starts_with(octets) {
        Ok(Found::Part)
    } else {
        Ok(Found::Nothing)
    }
}

/// Version 1: a line of text.
fn read_line(octets: &[u8]) -> Result<Found, Malformed> {
    let most = &octets[..octets.len().min(LINE_MAX)];
    let end = most.iter().position(|octet| matches!(octet, b'\r' | b'\n'));
    let end = match end {
        Some(end) if most[end] == b'\n' => return Err(Malformed("its line ends with LF alone")),
        Some(end) if end + 1 < most.len() => end,
        _ if most.len() < LINE_MAX => return Ok(Found::Part),
        _ => return Err(Malformed("its line is too long")),
    };
    if most[end + 1] != b'\n' {
        return Err(Malformed("its line ends with CR alone"));
    }
    let words = &most[LINE.len()..end];
    let length = end + 2;
    // Whatever follows is to be ignored.
    if words == b"UNKNOWN" || words.starts_with(b"UNKNOWN ") {
        return Ok(Found::Header { length, announced: Announced::Nameless });
    }
    let announced = std::str::from_utf8(words).ok().and_then(read_words);
    let announced = announced.ok_or(Malformed("its line names no addresses and ports"))?;
    Ok(Found::Header { length, announced })
}

/// Family, source, destination, port of the source, port of the destination.
fn read_words(text: &str) -> Option<Announced> {
    let mut words = text.split(' ');
    let mut next = || words.next();
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source_port, port) = (read_port(next()?)?, read_port(next()?)?);
    if next().is_some() {
        return None;
    }
    let source: IpAddr = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    Some(Announced::Client { address: SocketAddr::new(source, source_port), port })
}

fn read_port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|octet| octet.is_ascii_digit());
    let padded = word.len() > 1 && word.starts_with('0');
    if plain && !padded { word.parse().ok() } else { None }
}

/// Version 2: binary.
fn read_binary(octets: &[u8]) -> Result<Found, Malformed> {
    let Some(command) = octets.get(SIGNATURE.len()) else { return Ok(Found::Part) };
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ if command >> 4 == 2 => return Err(Malformed("its command is unknown")),
        _ => return Err(Malformed("its version is unknown")),
    };
    let Some(fixed) = octets.first_chunk::<FIXED>() else { return Ok(Found::Part) };
    let &[.., kind, high, low] = fixed;
    let size = usize::from(u16::from_be_bytes([high, low]));
    if size > PROXY_HEADER_MAX {
        return Err(Malformed("it is too long"));
    }
    let length = FIXED + size;
    let Some(block) = octets.get(FIXED..length) else { return Ok(Found::Part) };
    let announced = if local { Announced::Own } else { read_addresses(kind, block)? };
    Ok(Found::Header { length, announced })
}

/// The addresses of a connection of this family (high nibble) and protocol. One of
/// datagrams is somebody's who came by QUIC: it has an address like any other.
fn read_addresses(kind: u8, block: &[u8]) -> Result<Announced, Malformed> {
    const SHORT: Malformed = Malformed("it is shorter than its addresses");
    match (kind >> 4, kind & 0x0f) {
        (0..=2, 0) | (0, 1 | 2) => Ok(Announced::Nameless),
        (1, 1 | 2) => read_block::<4>(block).ok_or(SHORT),
        (2, 1 | 2) => read_block::<16>(block).ok_or(SHORT),
        (3, 0..=2) if block.len() < UNIX_ADDRESSES => Err(SHORT),
        (3, 0..=2) => Ok(Announced::Nameless),
        _ => Err(Malformed("its address family or protocol is unknown")),
    }
}

/// Source, destination, port of the source, port of the destination.
fn read_block<const N: usize>(block: &[u8]) -> Option<Announced>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (_destination, ports) = rest.split_first_chunk::<N>()?;
    let &[high, low, port_high, port_low] = ports.first_chunk()?;
    let source_port = u16::from_be_bytes([high, low]);
    let port = u16::from_be_bytes([port_high, port_low]);
    Some(Announced::Client { address: SocketAddr::new(IpAddr::from(*source), source_port), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        let size = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, kind], &size, block].concat()
    }

    fn announced(client: &str, port: u16) -> Announced {
        Announced::Client { address: client.parse().unwrap(), port }
    }

    /// What is found in the whole is found in it however it comes, and nothing before.
    #[track_caller]
    fn found(octets: &[u8], expected: Announced) {
        let length = octets.len();
        for cut in 0..length {
            assert_eq!(find_proxy_header(&octets[..cut]), Ok(Found::Part), "{cut}");
        }
        let header = Ok(Found::Header { length, announced: expected });
        assert_eq!(find_proxy_header(octets), header);
        for behind in [&b"GET / HTTP/1.1\r\n"[..], b"\n", b"\r\n", b"PROXY "] {
            assert_eq!(find_proxy_header(&[octets, behind].concat()), header);
        }
    }

    #[track_caller]
    fn malformed(octets: &[u8]) {
        let said = find_proxy_header(octets);
        assert!(said.is_err(), "{said:?}: {}", octets.escape_ascii());
        for cut in 0..octets.len() {
            let before = find_proxy_header(&octets[..cut]);
            assert!(before == Ok(Found::Part) || before == said, "{before:?} at {cut}");
        }
        assert_eq!(find_proxy_header(&[octets, b"\r\nGET /"].concat()), said);
    }

    #[test]
    fn lines_of_version_1_name_the_client() {
        found(
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
            announced("192.0.2.7:56324", 443),
        );
        found(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", announced("0.0.0.0:0", 0));
        found(
            b"PROXY TCP6 2001:db8::7 2001:DB8:0::1 1 65535\r\n",
            announced("[2001:db8::7]:1", 65535),
        );
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY TCP6 {all} {all} 65535 65535\r\n");
        found(longest.as_bytes(), announced(&format!("[{all}]:65535"), 65535));
        found(b"PROXY UNKNOWN\r\n", Announced::Nameless);
        found(b"PROXY UNKNOWN whatever \xff it says\r\n", Announced::Nameless);
        let longest = format!("PROXY UNKNOWN {all} {all} 65535 65535\r\n");
        assert_eq!(longest.len(), LINE_MAX);
        found(longest.as_bytes(), Announced::Nameless);
    }

    #[test]
    fn lines_of_version_1_that_break_the_grammar_are_malformed() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4\t192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.x 1 2\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP6 2001:db8::7%1 2001:db8::1 1 2\r\n",
            "PROXY TCP6 2001::db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 99999999999\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 \r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\r\n",
        ] {
            malformed(line.as_bytes());
        }
        malformed(b"PROXY TCP4 192.0.2.7\xff 198.51.100.1 1 2\r\n");
        malformed(format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 15)).as_bytes());
        malformed(format!("PROXY TCP4 {}", "1".repeat(200)).as_bytes());
    }

    /// 192.0.2.7 port 258 to 198.51.100.1 port 443.
    const FOUR: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 1, 187];

    fn six() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&source.octets()[..], &[0; 16], &[1, 2, 1, 187]].concat()
    }

    #[test]
    fn headers_of_version_2_name_the_client() {
        let (v4, v6) = (announced("192.0.2.7:258", 443), announced("[2001:db8::7]:258", 443));
        let fields = [0x04, 0, 2, 0, 0, 0xea, 0, 1, 9];
        for protocol in [1, 2] {
            found(&binary(0x21, 0x10 | protocol, &FOUR), v4);
            found(&binary(0x21, 0x10 | protocol, &[&FOUR[..], &fields].concat()), v4);
            found(&binary(0x21, 0x20 | protocol, &six()), v6);
            found(&binary(0x21, 0x20 | protocol, &[&six()[..], &fields].concat()), v6);
        }
        let mut most = FOUR.to_vec();
        most.resize(PROXY_HEADER_MAX, 0);
        found(&binary(0x21, 0x11, &most), v4);
    }

    #[test]
    fn headers_of_version_2_may_name_nobody() {
        for (command, kind, size) in [
            (0x20, 0x00, 0),
            (0x20, 0x00, 7),
            (0x20, 0x11, 12),
            (0x20, 0x11, 3),
            (0x20, 0xff, 0),
            (0x21, 0x00, 0),
            (0x21, 0x00, 20),
            (0x21, 0x01, 0),
            (0x21, 0x10, 12),
            (0x21, 0x31, 216),
            (0x21, 0x32, 300),
        ] {
            let who = if command == 0x20 { Announced::Own } else { Announced::Nameless };
            found(&binary(command, kind, &vec![7; size]), who);
        }
    }

    #[test]
    fn headers_of_version_2_that_break_the_grammar_are_malformed() {
        for (command, kind) in
            [(0x11, 0x11), (0x31, 0x11), (0x01, 0x11), (0x22, 0x11), (0x2f, 0x11), (0x21, 0x13)]
        {
            malformed(&binary(command, kind, &FOUR));
        }
        for kind in [0x41, 0xf1, 0x1f, 0x03, 0x33] {
            malformed(&binary(0x21, kind, &[0; 216]));
        }
        malformed(&binary(0x21, 0x11, &FOUR[..11]));
        malformed(&binary(0x21, 0x12, &[]));
        malformed(&binary(0x21, 0x21, &six()[..35]));
        malformed(&binary(0x21, 0x31, &[0; 215]));
        malformed(&binary(0x21, 0x11, &[0; PROXY_HEADER_MAX + 1]));
        malformed(&binary(0x20, 0x00, &[0; PROXY_HEADER_MAX + 1]));
    }

    #[test]
    fn the_first_octet_that_differs_says_that_there_is_none() {
        for begins in [LINE, SIGNATURE] {
            for at in 0..begins.len() {
                let mut octets = begins[..at].to_vec();
                octets.push(b'x');
                assert_eq!(find_proxy_header(&octets), Ok(Found::Nothing), "{at}");
            }
        }
        for other in [&b"PRI * HTTP/2.0\r\n"[..], b"PROPFIND /", b"\r\n\r\nGET /", b"\x16\x03\x01"]
        {
            assert_eq!(find_proxy_header(other), Ok(Found::Nothing), "{}", other.escape_ascii());
        }
    }
}
