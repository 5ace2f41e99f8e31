//! Whom the proxy believes: `trusted_proxies`.
//!
//! A trusted peer may say for whom it speaks, in fields such as
//! `X-Forwarded-For` and in the PROXY protocol. Of everybody else such claims
//! are thrown away.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::value::{Parsed, Refused};

/// A set of peers that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted(Vec<Network>);

/// Some peers of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everybody who connects to a unix listener: the file's mode says who may.
    Unix,
    /// The addresses that share the first bits of this one. IPv4 is kept in its
    /// IPv6-mapped form, so that there is one comparison for both.
    Addresses {
        /// The address; what is behind the prefix is zero.
        base: u128,
        /// The length of the prefix, of 128.
        bits: u8,
    },
}

impl Trusted {
    /// Those networks.
    pub fn new(networks: Vec<Network>) -> Self {
        Trusted(networks)
    }

    /// No network at all.
    pub const fn nobody() -> Self {
        Trusted(Vec::new())
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer with this address is trusted; none is a peer on a unix socket.
    #[inline]
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|network| network.contains(peer))
    }
}

impl Network {
    fn contains(&self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            (Network::Unix, peer) => peer.is_none(),
            (Network::Addresses { base, bits }, Some(ip)) => mapped(ip) & mask(*bits) == *base,
            (Network::Addresses { .. }, None) => false,
        }
    }
}

fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0)
}

/// `10.0.0.0/8`, `::1`, `unix`.
pub(super) fn network(text: &str) -> Parsed<Network> {
    if text == "unix" {
        return Ok(Network::Unix);
    }
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = address.parse().map_err(|_| Refused::FORM)?;
    let (most, before) = if ip.is_ipv4() { (32, 96) } else { (128, 0) };
    let bits = match prefix {
        None => most,
        Some(digits) if digits.bytes().all(|octet| octet.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|bits| *bits <= most)
            .ok_or(Refused::because("the prefix is longer than the address"))?,
        Some(_) => return Err(Refused::FORM),
    };
    let (bits, whole) = (bits + before, mapped(ip));
    let base = whole & mask(bits);
    if base != whole {
        return Err(Refused::because("it has bits behind its prefix: is the prefix too short?"));
    }
    Ok(Network::Addresses { base, bits })
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Network::Unix => f.write_str("unix"),
            Network::Addresses { base, bits } => {
                let ip = Ipv6Addr::from_bits(base);
                match ip.to_ipv4_mapped().filter(|_| bits >= 96) {
                    Some(ip) => write!(f, "{ip}/{}", bits - 96),
                    None => write!(f, "{ip}/{bits}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(texts: &[&str]) -> Trusted {
        Trusted::new(texts.iter().map(|text| network(text).unwrap()).collect())
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let some = trusted(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]);
        for inside in ["10.255.0.1", "192.0.2.7", "2001:db8:1::9", "::1", "::ffff:10.1.1.1"] {
            assert!(some.contains(ip(inside)), "{inside}");
        }
        for outside in ["11.0.0.0", "192.0.2.8", "2001:db9::1", "::2", "127.0.0.1"] {
            assert!(!some.contains(ip(outside)), "{outside}");
        }
        assert!(!some.contains(None));
    }

    #[test]
    fn everybody_and_nobody_can_be_named() {
        let all = trusted(&["0.0.0.0/0", "::/0", "unix"]);
        assert!(all.contains(ip("8.8.8.8")) && all.contains(ip("2::")) && all.contains(None));
        let v4 = trusted(&["0.0.0.0/0"]);
        assert!(v4.contains(ip("8.8.8.8")) && !v4.contains(ip("2::")) && !v4.contains(None));
        assert!(!trusted(&[]).contains(ip("127.0.0.1")));
    }

    #[test]
    fn a_network_is_shown_as_it_is_written() {
        for text in ["unix", "10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::1/128", "::/0"] {
            assert_eq!(network(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "a", "10.0.0.0/33", "::/129", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8"]
        {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
