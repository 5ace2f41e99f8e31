//! A connection on its way to the successor: plain data, its descriptors, its octets.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// A connection on its way.
#[derive(Debug)]
pub struct Parcel {
    /// What is known of it.
    pub moved: Moved,
    /// The client's socket; behind it, of a tunnel, the app server's. None of them is
    /// known to a runtime.
    pub fds: Vec<OwnedFd>,
    /// What was read of it and not served; of a tunnel what waits upwards, behind it what
    /// waits downwards ([`MovedWay::held`]), and then the texts of its request
    /// ([`MovedRequest::texts`]).
    pub octets: Vec<u8>,
}

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A TCP connection.
    Tcp,
    /// A unix socket.
    Unix,
}

/// A connection that moves. Times are milliseconds before the moment of sending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// What its socket is.
    pub transport: Transport,
    /// Who it is, or whom its peer has announced; none on a unix socket.
    pub peer: Option<SocketAddr>,
    /// Whether it may speak for others.
    pub trusted: bool,
    /// It may begin with the announcement of somebody else, and has not begun.
    pub may_announce: bool,
    /// The CR of an empty line between requests has come.
    pub half_line: bool,
    /// The port that its client has connected to, or 0.
    pub port: u16,
    /// No response has been served on it.
    pub fresh: bool,
    /// When it was accepted.
    pub accepted: u64,
    /// Since when it has been waiting.
    pub since: u64,
    /// How many octets come with it; of a tunnel [`MovedTunnel::octets`].
    pub octets: u32,
    /// What it has become, if it is no HTTP any more.
    pub tunnel: Option<Box<MovedTunnel>>,
}

/// A tunnel that moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovedTunnel {
    /// What the app server's socket is.
    pub transport: Transport,
    /// The app server's address, as configured.
    pub upstream: String,
    /// From the client to the app server.
    pub up: MovedWay,
    /// From the app server to the client.
    pub down: MovedWay,
    /// When it began.
    pub began: u64,
    /// When octets passed last.
    pub passed: u64,
    /// When the client was pinged last.
    pub pinged: u64,
    /// When one side ended and the other did not.
    pub half: Option<u64>,
    /// The request that it was.
    pub request: MovedRequest,
}

/// What is to be written down of a request that has become a tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovedRequest {
    /// What it was upgraded to, as the client spelled it.
    pub token: String,
    /// How long its texts are, as far as it has them: method, target, host, id, client,
    /// user agent, referer. What was too long is cut.
    pub texts: [Option<u32>; 7],
    /// When it came.
    pub began: u64,
    /// The same by the wall, in milliseconds of Unix time.
    pub wall: u64,
    /// When the app server's first octet came.
    pub first_byte: Option<u64>,
    /// How often it was sent.
    pub attempts: u8,
}

/// One direction of a tunnel that moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovedWay {
    /// Where in a frame its next octet belongs; none if its protocol is not known.
    pub frames: Option<MovedFrames>,
    /// How many octets were read and not taken by the other side.
    pub held: u32,
    /// Octets that have passed.
    pub passed: u64,
    /// Octets that the reader has taken.
    pub delivered: u64,
    /// The writer has ended its side.
    pub ended: bool,
    /// The reader has been told so.
    pub finished: bool,
}

/// Where in a frame the next octet belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovedFrames {
    /// The octets of its header that have passed.
    pub header: Vec<u8>,
    /// Octets of its payload that are still to come.
    pub payload: u64,
    /// Nobody knows.
    pub opaque: bool,
    /// A Close has begun to pass.
    pub closing: bool,
    /// A whole Close has passed.
    pub closed: bool,
}

impl MovedTunnel {
    /// How many octets come with it: what both directions hold, and the request's texts.
    /// None if that cannot be.
    #[must_use]
    pub fn octets(&self) -> Option<u32> {
        let texts = self.request.texts.iter().flatten();
        let held = [self.up.held, self.down.held];
        held.iter().chain(texts).try_fold(0_u32, |sum, length| sum.checked_add(*length))
    }
}

impl Moved {
    /// How many descriptors come with it.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        1 + usize::from(self.tunnel.is_some())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A connection with so many octets.
    pub(crate) fn connection(octets: u32) -> Moved {
        Moved {
            transport: Transport::Tcp,
            peer: Some(SocketAddr::from(([192, 0, 2, 1], 40_000))),
            trusted: false,
            may_announce: false,
            half_line: false,
            port: 80,
            fresh: false,
            accepted: 1000,
            since: 10,
            octets,
            tunnel: None,
        }
    }

    /// A tunnel that holds so many octets.
    pub(crate) fn tunnel(up: u32, down: u32) -> Moved {
        let way = |held| MovedWay {
            frames: Some(MovedFrames {
                header: vec![0x82],
                payload: 0,
                opaque: false,
                closing: false,
                closed: false,
            }),
            held,
            passed: u64::MAX,
            delivered: 1,
            ended: false,
            finished: false,
        };
        let tunnel = MovedTunnel {
            transport: Transport::Unix,
            upstream: "unix:/run/app.sock".to_owned(),
            up: way(up),
            down: way(down),
            began: 5,
            passed: 4,
            pinged: 3,
            half: Some(2),
            request: MovedRequest {
                token: "websocket".to_owned(),
                texts: [Some(0), Some(0), Some(0), Some(0), None, None, None],
                began: 6,
                wall: 1_700_000_000_000,
                first_byte: Some(5),
                attempts: 1,
            },
        };
        Moved { tunnel: Some(Box::new(tunnel)), ..connection(up + down) }
    }
}
