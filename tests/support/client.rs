//! A raw client: writes octets, reads exactly one response, and says how the
//! connection ended.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::PATIENCE;
use super::wire::{Head, Place, Wire, find};

pub(crate) use super::wire::End;

/// One connection to the proxy.
#[derive(Debug)]
pub(crate) struct Client {
    /// The socket and what was read ahead.
    pub(crate) wire: Wire,
}

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The head.
    pub(crate) head: Head,
    /// The body, chunks put together.
    pub(crate) body: Vec<u8>,
    /// The trailers of a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
    /// The 1xx responses before it.
    pub(crate) interim: Vec<Head>,
    /// How the body ended.
    pub(crate) framing: Framing,
}

/// How a body's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// `Content-Length`
    Length,
    /// `Transfer-Encoding: chunked`
    Chunked,
    /// The end of the connection.
    Close,
}

/// What there is instead of a whole response.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    /// How the connection ended.
    pub(crate) end: End,
    /// The head, if it came.
    pub(crate) head: Option<Head>,
    /// What came of the body, or of the head.
    pub(crate) got: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether it says `Connection: close`.
    pub(crate) fn says_close(&self) -> bool {
        self.head.says_close()
    }

    /// The one value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When nobody accepts.
    pub(crate) fn connect(place: &Place) -> Client {
        Client::try_connect(place, PATIENCE)
            .unwrap_or_else(|end| panic!("connect to {place}: {end:?}"))
    }

    /// Connects within `bound`, or says why not.
    pub(crate) fn try_connect(place: &Place, bound: Duration) -> Result<Client, End> {
        Client::connect_with(place, bound, None)
    }

    /// Connects with a receive buffer of about `octets`: a client that cannot take much.
    pub(crate) fn connect_narrow(place: &Place, octets: usize) -> Client {
        Client::connect_with(place, PATIENCE, Some(octets))
            .unwrap_or_else(|end| panic!("connect to {place}: {end:?}"))
    }

    /// Connects from this address within [`PATIENCE`], or says why not.
    pub(crate) fn try_connect_from(source: IpAddr, place: &Place) -> Result<Client, End> {
        let sock = place.socket();
        sock.bind(&SocketAddr::new(source, 0).into()).expect("a socket of this address");
        Client::connect_over(sock, place, PATIENCE)
    }

    fn connect_with(place: &Place, bound: Duration, narrow: Option<usize>) -> Result<Client, End> {
        let sock = place.socket();
        if let Some(octets) = narrow {
            sock.set_recv_buffer_size(octets).expect("a receive buffer");
        }
        Client::connect_over(sock, place, bound)
    }

    fn connect_over(sock: Socket, place: &Place, bound: Duration) -> Result<Client, End> {
        let connected = match place {
            Place::Tcp(_) => sock.connect_timeout(&place.sock_addr(), bound),
            Place::Unix(_) => sock.connect(&place.sock_addr()),
        };
        connected.map_err(|error| End::of(&error))?;
        if matches!(place, Place::Tcp(_)) {
            sock.set_tcp_nodelay(true).expect("no delay");
        }
        let wire = Wire::new(sock);
        wire.read_bound(PATIENCE);
        wire.write_bound(PATIENCE);
        Ok(Client { wire })
    }

    /// Writes octets.
    ///
    /// # Panics
    /// When the connection does not take them.
    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) -> &mut Client {
        self.try_send(octets).unwrap_or_else(|end| panic!("the connection took no more: {end:?}"));
        self
    }

    /// Writes octets, or says how the connection ended.
    pub(crate) fn try_send(&mut self, octets: impl AsRef<[u8]>) -> Result<(), End> {
        self.wire.send(octets.as_ref())
    }

    /// Sends a GET.
    pub(crate) fn get(&mut self, target: &str) -> &mut Client {
        self.send(get(target))
    }

    /// Sends a POST with a length.
    pub(crate) fn post(&mut self, target: &str, body: &[u8]) -> &mut Client {
        self.send(post_head(target, body.len())).send(body)
    }

    /// Reads the response to a GET or POST.
    ///
    /// # Panics
    /// When it does not come whole.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().unwrap_or_else(|broken| panic!("no whole response: {broken:?}"))
    }

    /// Reads the response to a HEAD.
    #[track_caller]
    pub(crate) fn response_to_head(&mut self) -> Response {
        self.read_response(true).unwrap_or_else(|broken| panic!("no whole response: {broken:?}"))
    }

    /// Reads the response to a GET or POST, or what there is of it.
    pub(crate) fn try_response(&mut self) -> Result<Response, Broken> {
        self.read_response(false)
    }

    /// Reads a head only: the body stays on the wire.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        self.wire.head().unwrap_or_else(|end| {
            panic!("{end:?} instead of a head, after {:?}", show(&self.wire.ahead))
        })
    }

    /// Reads `len` octets.
    #[track_caller]
    pub(crate) fn octets(&mut self, len: usize) -> Vec<u8> {
        let mut got = Vec::new();
        if let Err(end) = self.wire.exactly(len, &mut got) {
            panic!("{end:?} instead of {len} octets, after {:?}", show(&got));
        }
        got
    }

    /// The end of the connection, and what came before it.
    pub(crate) fn rest(&mut self) -> (End, Vec<u8>) {
        let mut got = Vec::new();
        let end = self.wire.until_end(&mut got);
        (end, got)
    }

    /// The end of the connection.
    ///
    /// # Panics
    /// When octets come before it.
    #[track_caller]
    pub(crate) fn end(&mut self) -> End {
        let (end, got) = self.rest();
        assert!(got.is_empty(), "octets where the end was due: {:?}", show(&got));
        end
    }

    /// Its own port, over TCP.
    pub(crate) fn port(&self) -> u16 {
        let addr = self.wire.sock.local_addr().expect("an address");
        addr.as_socket().expect("TCP").port()
    }

    /// Whether the peer has ended the connection, without waiting: the look that a
    /// real pool takes before it uses a connection again.
    pub(crate) fn ended(&self) -> Option<End> {
        self.wire.ended()
    }

    /// Asserts that nothing at all comes for `length`.
    #[track_caller]
    pub(crate) fn hears_nothing_for(&mut self, length: Duration) {
        let start = Instant::now();
        self.wire.read_bound(length);
        let end = self.wire.fill();
        self.wire.read_bound(PATIENCE);
        let after = start.elapsed();
        assert_eq!(end, Err(End::TimedOut), "after {after:?}: {:?}", show(&self.wire.ahead));
    }

    /// Reads at most this long in each read.
    pub(crate) fn read_bound(&mut self, bound: Duration) -> &mut Client {
        self.wire.read_bound(bound);
        self
    }

    /// Sends a FIN and goes on reading.
    pub(crate) fn half_close(&mut self) {
        self.wire.sock.shutdown(std::net::Shutdown::Write).expect("a FIN");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        self.wire.reset();
    }

    fn read_response(&mut self, to_head: bool) -> Result<Response, Broken> {
        let mut interim = Vec::new();
        let (head, status) = loop {
            let head = match self.wire.head() {
                Ok(head) => head,
                Err(end) => {
                    let got = std::mem::take(&mut self.wire.ahead);
                    return Err(Broken { end, head: None, got });
                }
            };
            let status = status_of(&head);
            if status >= 200 || status == 101 {
                break (head, status);
            }
            interim.push(head);
        };
        let framing = framing_of(&head, status, to_head);
        let mut body = Vec::new();
        let read = match framing {
            Framing::None => Ok(Vec::new()),
            Framing::Length => {
                let len = head.field("content-length").and_then(|v| v.parse().ok());
                let len = len.unwrap_or_else(|| panic!("no length: {head:?}"));
                self.wire.exactly(len, &mut body).map(|()| Vec::new())
            }
            Framing::Chunked => self.wire.chunked(&mut body),
            Framing::Close => match self.wire.until_end(&mut body) {
                End::Eof => Ok(Vec::new()),
                end => Err(end),
            },
        };
        match read {
            Ok(trailers) => Ok(Response { status, head, body, trailers, interim, framing }),
            Err(end) => Err(Broken { end, head: Some(head), got: body }),
        }
    }
}

fn status_of(head: &Head) -> u16 {
    let status = head.start.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    status.and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status line: {head:?}"))
}

fn framing_of(head: &Head, status: u16, to_head: bool) -> Framing {
    let length = head.field("content-length").is_some();
    let chunked = head.lists("transfer-encoding", "chunked");
    assert!(!(length && chunked), "two framings: {head:?}");
    if to_head || status < 200 || status == 204 || status == 304 {
        Framing::None
    } else if chunked {
        Framing::Chunked
    } else if length {
        Framing::Length
    } else {
        Framing::Close
    }
}

/// A GET as octets.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n\r\n")
}

/// The head of a POST with a length.
pub(crate) fn post_head(target: &str, len: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: app.test\r\nContent-Length: {len}\r\n\r\n")
}

/// The head of a POST with a chunked body.
pub(crate) fn chunked_head(target: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n")
}

/// Octets for a message, cut to what one wants to read.
pub(crate) fn show(octets: &[u8]) -> String {
    let cut = &octets[..octets.len().min(300)];
    format!("{} octets: {}", octets.len(), String::from_utf8_lossy(cut))
}

/// Whether a needle is somewhere in octets.
pub(crate) fn contains(octets: &[u8], needle: &str) -> bool {
    find(octets, needle.as_bytes()).is_some()
}
