//! Upstreams that nobody reaches; ours only.

use socket2::{Domain, Socket, Type};

use crate::gateway::bench::Bench;
use crate::gateway::case::{Level, Over};
use crate::gateway::downstream::Downstream;
use crate::gateway::heard::{Extent, Heard};
use crate::gateway::score::Scripted;
use crate::subject::Way;
use crate::support::client::{Client, get};
use crate::support::process::Launch;
use crate::support::wire::Place;

/// A port that is taken, and on which nobody listens.
fn taken() -> (Socket, Place) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&Place::parse("127.0.0.1:0").sock_addr()).expect("a port");
    let addr = socket.local_addr().expect("an address").as_socket().expect("TCP");
    (socket, Place::Tcp(addr))
}

fn refused(bench: &Bench, over: Over) -> Result<(), String> {
    let (_held, place) = taken();
    let proxy = Launch::before_addr(&place.to_string()).start();
    let mut client = match over {
        Over::H1 => Downstream::h1(Client::connect(&proxy.place())),
        Over::H2 => Downstream::h2(&Way::Clear(proxy.place()), bench.bound()),
    };
    // The second finds what the first has left.
    for _ in 0..2 {
        client.send(get("/refused").as_bytes())?;
        is_bad_gateway(&client.read())?;
    }
    Ok(())
}

fn is_bad_gateway(heard: &Heard) -> Result<(), String> {
    let mut status = heard.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case("proxy-status"));
    let said = status.any(|(_, value)| value.contains("error=connection_refused"));
    let short = heard.body.len() < 100;
    let right = heard.extent == Extent::Whole && heard.status == 502 && said && short;
    if right { Ok(()) } else { Err(heard.told()) }
}

const WHY: &str = "RFC 9110 15.6.3 and RFC 9209: there is nobody, and the client is told so";

/// Over each protocol.
pub(super) const CHECKS: [Scripted; 2] = [
    Scripted {
        name: "refused",
        level: Level::Must,
        why: WHY,
        run: |bench| refused(bench, Over::H1),
    },
    Scripted {
        name: "refused over h2",
        level: Level::Must,
        why: WHY,
        run: |bench| refused(bench, Over::H2),
    },
];
