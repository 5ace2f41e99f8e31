//! Loopback addresses of a test's own, with ports that can be taken again after a
//! restart.
//!
//! The fronts need to know where the ebbtides are before they are there, and an ebbtide
//! that is started again has to get the same port. On an address that nobody else has,
//! and below the range from which the kernel takes ports by itself, nobody else gets it
//! meanwhile.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::wire::Place;

/// Where the ports are tried.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Whoever has an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// The clients.
    Clients,
    /// nginx or HAProxy.
    Front,
    /// The first ebbtide.
    A,
    /// The second one.
    B,
    /// The app server.
    App,
}

impl Role {
    const ALL: [Role; 5] = [Role::Clients, Role::Front, Role::A, Role::B, Role::App];
}

/// The addresses of a test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground {
    number: u8,
    port: u16,
}

static GROUNDS: AtomicU8 = AtomicU8::new(0);

impl Ground {
    /// Another one for each call: by the number of this process and of the call.
    pub(crate) fn new() -> Ground {
        let number = GROUNDS.fetch_add(1, Ordering::SeqCst);
        assert!(number < 32, "more tests than there are addresses");
        let mut ground = Ground { number, port: 0 };
        let free = |port: &u16| {
            let at = |role| SocketAddr::new(ground.address(role), *port);
            Role::ALL.iter().all(|role| TcpListener::bind(at(*role)).is_ok())
        };
        // Somebody may have a port on all addresses.
        let port = PORTS.step_by(2).find(|port| free(port) && free(&(port + 1)));
        ground.port = port.expect("a port that nobody has on all addresses");
        ground
    }

    /// An address.
    pub(crate) fn address(&self, role: Role) -> IpAddr {
        // 127.0.x.x is where others are.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(127, high | 0x80, low, self.number * 8 + 1 + role as u8))
    }

    /// Where this one listens for requests.
    pub(crate) fn place(&self, role: Role) -> Place {
        Place::Tcp(SocketAddr::new(self.address(role), self.port))
    }

    /// Where it listens for questions about itself.
    pub(crate) fn admin(&self, role: Role) -> Place {
        Place::Tcp(SocketAddr::new(self.address(role), self.port + 1))
    }

    /// A configuration from `config/` with these addresses in the place of its own.
    pub(crate) fn written_into(&self, config: &str) -> String {
        let mut config = config.to_owned();
        for (theirs, ours, times) in [
            ("10.0.0.11:8080", self.place(Role::A).to_string(), 1),
            ("10.0.0.12:8080", self.place(Role::B).to_string(), 1),
            ("listen 80;", format!("listen {};", self.place(Role::Front)), 0),
            ("bind :80", format!("bind {}", self.place(Role::Front)), 0),
            ("port 9901", format!("port {}", self.admin(Role::A).port()), 0),
        ] {
            let there = config.matches(theirs).count();
            assert!((times..=1).contains(&there), "{theirs} stands {there} times in:\n{config}");
            config = config.replace(theirs, &ours);
        }
        config
    }
}
