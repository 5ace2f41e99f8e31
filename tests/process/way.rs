//! HTTP/2 in clear text and over TLS: what holds on one holds on the other.

use crate::support::h2::H2;
use crate::support::process::Proxy;
use crate::support::wire::Place;

/// What carries the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Clear,
    Tls,
}

impl Way {
    /// Where clients connect.
    pub(crate) fn place(self, proxy: &Proxy) -> Place {
        match self {
            Way::Clear => proxy.place(),
            Way::Tls => proxy.tls_place(),
        }
    }

    /// A connection whose SETTINGS hold.
    pub(crate) fn connect(self, proxy: &Proxy) -> H2 {
        self.connect_with(proxy, &[])
    }

    /// A connection with settings of its own.
    pub(crate) fn connect_with(self, proxy: &Proxy, settings: &[(u16, u32)]) -> H2 {
        let mut h2 = self.bare(proxy);
        h2.handshake(settings);
        h2
    }

    /// A connection without its preface.
    pub(crate) fn bare(self, proxy: &Proxy) -> H2 {
        match self {
            Way::Clear => H2::bare(&self.place(proxy)),
            Way::Tls => H2::bare_tls(&self.place(proxy)),
        }
    }

    /// The same with a receive buffer of about so many octets.
    pub(crate) fn bare_narrow(self, proxy: &Proxy, octets: usize) -> H2 {
        match self {
            Way::Clear => H2::bare_narrow(&self.place(proxy), octets),
            Way::Tls => H2::bare_tls_narrow(&self.place(proxy), octets),
        }
    }
}

/// Each of these in clear text and over TLS.
macro_rules! both_ways {
    ($($name:ident)*) => {
        mod clear {
            $(#[test] fn $name() { super::$name(crate::way::Way::Clear); })*
        }
        mod tls {
            $(#[test] fn $name() { super::$name(crate::way::Way::Tls); })*
        }
    };
}

pub(crate) use both_ways;
