//! One HTTP/1.1 connection of a client, octet by octet: what a library would hide, such
//! as whether an octet of an answer came before the end, is what is counted here.

use std::io;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::body::PIECE;
use super::kind::{Job, Sends};
use super::tally::Way;
use crate::demo::app::ID;
use crate::http1::field::has_token;
use crate::http1::framing::FramingFields;
use crate::http1::head::parse_response;
use crate::http1::{Decoder, Emit, Framing, Name, storage};
use crate::limits::{BUFFER, DEMO_ANSWER_MAX, DEMO_PATIENCE};

/// A connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// Whether something has been served on it.
    pub(super) is_used: bool,
}

/// Why there is no whole, right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection ended without an octet of it.
    Unanswered { by_reset: bool },
    /// Something else.
    Lost(Way),
}

/// What stands in the request besides the job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) job: Job,
    /// Whether it says `Connection: close`.
    pub(super) closes: bool,
}

impl Connection {
    /// A new connection.
    pub(super) fn new(stream: TcpStream) -> Connection {
        Connection { stream, is_used: false }
    }

    /// Whether the other side has already ended it: the look before a connection is
    /// used again. Octets that nobody asked for end it too. The kernel is asked, since
    /// the runtime may not have heard yet.
    pub(super) fn has_ended(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut [0; 1], flags) != Err(Errno::WOULDBLOCK)
    }

    /// Waits for the other side to end it.
    pub(super) async fn ended(&self) {
        let _failed = self.stream.peek(&mut [0; 1]).await;
    }

    /// Asks, and checks the whole answer; whether the connection may be used again.
    pub(super) async fn exchange(&mut self, request: Request) -> Result<bool, Broken> {
        let (mut reader, mut writer) = self.stream.split();
        let exchange = async {
            let answer = read(&mut reader);
            tokio::pin!(answer);
            let mut by_reset = false;
            // An answer may come before all of the request is out.
            let early = tokio::select! {
                answer = &mut answer => Some(answer),
                sent = send(&mut writer, request) => {
                    // What the other side has said before is still there to be read.
                    by_reset = sent.is_err();
                    None
                }
            };
            let answer = match early {
                Some(answer) => answer,
                None => answer.await,
            };
            answer.map_err(|broken| match broken {
                Broken::Unanswered { by_reset: seen } => {
                    Broken::Unanswered { by_reset: by_reset || seen }
                }
                lost => lost,
            })
        };
        let answer = timeout(DEMO_PATIENCE, exchange).await;
        let answer = answer.unwrap_or(Err(Broken::Lost(Way::Stalled)))?;
        answer.check(request).map_err(Broken::Lost)?;
        self.is_used = true;
        Ok(!answer.closes)
    }
}

/// Sends a request; one that is sent slowly in pieces, half of those chunked.
async fn send(writer: &mut (impl AsyncWrite + Unpin), request: Request) -> io::Result<()> {
    let Request { id, job, closes } = request;
    let is_chunked = matches!(job.sends, Sends::Slowly(_)) && id % 2 == 0;
    let framing = match (job.sends, is_chunked) {
        (Sends::Nothing, _) => String::new(),
        (_, true) => "Transfer-Encoding: chunked\r\n".to_owned(),
        (sends, false) => format!("Content-Length: {}\r\n", sends.sum(id).0),
    };
    let close = if closes { "Connection: close\r\n" } else { "" };
    let mut octets = format!(
        "{} {} HTTP/1.1\r\nHost: demo.test\r\n{ID}: {id}\r\n{framing}{close}\r\n",
        job.method(),
        job.work,
    )
    .into_bytes();
    let began = Instant::now();
    for number in 0..job.sends.pieces() {
        if number > 0 {
            writer.write_all(&std::mem::take(&mut octets)).await?;
            sleep_until(began + PIECE * u32::try_from(number).unwrap_or(u32::MAX)).await;
        }
        let piece = job.sends.piece(id, number);
        if is_chunked {
            octets.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            octets.extend_from_slice(&piece);
            octets.extend_from_slice(b"\r\n");
        } else {
            octets.extend_from_slice(&piece);
        }
    }
    if is_chunked {
        octets.extend_from_slice(b"0\r\n\r\n");
    }
    writer.write_all(&octets).await
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    id: Option<u64>,
    closes: bool,
    body: Bytes,
}

impl Answer {
    /// Whether it is the one that the app gave to this request.
    fn check(&self, request: Request) -> Result<(), Way> {
        if self.status != 200 {
            return Err(Way::Status);
        }
        let Request { id, job, .. } = request;
        let right = self.id == Some(id) && self.body == job.work.body(id, job.sends.sum(id).1);
        if right { Ok(()) } else { Err(Way::Wrong) }
    }
}

/// What a head says of the answer behind it.
struct Head {
    answer: Answer,
    framing: Framing,
    len: usize,
}

/// Reads one answer, interim ones skipped.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Answer, Broken> {
    let mut octets = Vec::with_capacity(BUFFER);
    let head = loop {
        let parsed = parse(&octets).map_err(|()| Broken::Lost(Way::Wrong))?;
        match parsed {
            Some(head) if head.answer.status >= 200 => break head,
            Some(interim) => drop(octets.drain(..interim.len)),
            None => {
                let untouched = octets.is_empty();
                match fill(stream, &mut octets).await {
                    Ok(()) => {}
                    Err(by_reset) if untouched => return Err(Broken::Unanswered { by_reset }),
                    Err(_) => return Err(Broken::Lost(Way::Truncated)),
                }
            }
        }
    };
    octets.drain(..head.len);
    let mut answer = head.answer;
    let body = read_body(stream, &mut octets, head.framing).await.map_err(Broken::Lost)?;
    answer.body = Bytes::from(body);
    // What nobody asked for makes the connection worthless.
    answer.closes |= !octets.is_empty();
    Ok(answer)
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    octets: &mut Vec<u8>,
    framing: Framing,
) -> Result<Vec<u8>, Way> {
    let mut decoder = Decoder::new(framing);
    let mut body = Vec::new();
    loop {
        let progress = decoder.decode(octets, Emit::Data).map_err(|_| Way::Wrong)?;
        body.extend_from_slice(&octets[..progress.produced]);
        octets.drain(..progress.consumed + progress.trailer.unwrap_or(0));
        if decoder.is_done() {
            return Ok(body);
        }
        if body.len() > DEMO_ANSWER_MAX {
            return Err(Way::Wrong);
        }
        if let Err(by_reset) = fill(stream, octets).await {
            // In order, it may be the end of the body, if nothing else says where that is.
            let ended = !by_reset && decoder.end_of_input().is_ok();
            return if ended { Ok(body) } else { Err(Way::Truncated) };
        }
    }
}

/// Reads more; the error says whether it was a reset that ended the connection.
async fn fill(stream: &mut (impl AsyncRead + Unpin), octets: &mut Vec<u8>) -> Result<(), bool> {
    match stream.read_buf(octets).await {
        Ok(0) => Err(false),
        Ok(_) => Ok(()),
        Err(_) => Err(true),
    }
}

/// The head of an answer, if it is all there.
fn parse(octets: &[u8]) -> Result<Option<Head>, ()> {
    let mut fields = storage();
    let Some(head) = parse_response(octets, &mut fields).map_err(|_| ())? else {
        return if octets.len() > DEMO_ANSWER_MAX { Err(()) } else { Ok(None) };
    };
    let mut framing = FramingFields::default();
    let mut id = None;
    let mut closes = head.minor == 0;
    for field in head.fields {
        let name = Name::of(field.name);
        framing.note(name, field);
        closes |= name == Name::Connection && has_token(field.value, "close");
        if field.name.eq_ignore_ascii_case(ID) {
            id = std::str::from_utf8(field.value).ok().and_then(|text| text.parse().ok());
        }
    }
    let framing = framing.response(head.minor, head.status, false).map_err(|_| ())?;
    closes |= framing == Framing::UntilClose;
    let answer = Answer { status: head.status, id, closes, body: Bytes::new() };
    Ok(Some(Head { answer, framing, len: head.len }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::app::Work;
    use crate::demo::clients::kind::Kind;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(test)
    }

    fn answer(octets: &str) -> Result<Answer, Broken> {
        run(async { read(&mut octets.as_bytes()).await })
    }

    const REQUEST: Request = Request { id: 7, job: Kind::Get.job(Duration::ZERO), closes: false };

    fn checked(octets: &str) -> Result<bool, Broken> {
        let answer = answer(octets)?;
        answer.check(REQUEST).map_err(Broken::Lost)?;
        Ok(answer.closes)
    }

    fn right() -> String {
        let body = Work::Fast.body(7, Default::default());
        String::from_utf8(body.into()).unwrap()
    }

    #[test]
    fn a_whole_answer_with_its_own_id_and_body_is_served() {
        let (body, len) = (right(), right().len());
        let plain = format!("HTTP/1.1 200 OK\r\n{ID}: 7\r\nContent-Length: {len}\r\n\r\n{body}");
        assert_eq!(checked(&plain), Ok(false));
        assert_eq!(checked(&plain.replace(ID, "connection: x, Close\r\nDEMO-ID")), Ok(true));
        assert_eq!(checked(&format!("HTTP/1.1 103 Early\r\n\r\n{plain}")), Ok(false));
        assert_eq!(checked(&format!("{plain}HTTP/1.1 408 Late\r\n\r\n")), Ok(true));
        let chunked = format!(
            "HTTP/1.1 200 OK\r\n{ID}: 7\r\nTransfer-Encoding: chunked\r\n\r\n\
             {len:x}\r\n{body}\r\n0\r\nA: b\r\n\r\n"
        );
        assert_eq!(checked(&chunked), Ok(false));
        assert_eq!(checked(&chunked.replace("0\r\nA: b\r\n\r\n", "")), lost(Way::Truncated));
    }

    fn lost(way: Way) -> Result<bool, Broken> {
        Err(Broken::Lost(way))
    }

    #[test]
    fn an_end_is_told_from_a_silent_truncation() {
        let until_close = format!("HTTP/1.1 200 OK\r\n{ID}: 7\r\n\r\n");
        assert_eq!(checked(&format!("{until_close}{}", right())), Ok(true));
        assert_eq!(checked(&format!("{until_close}7 do")), lost(Way::Wrong));
        assert_eq!(checked(&until_close[..20]), lost(Way::Truncated));
        assert_eq!(checked(""), Err(Broken::Unanswered { by_reset: false }));
        let short = format!("HTTP/1.1 200 OK\r\n{ID}: 7\r\nContent-Length: 4\r\n\r\n7 do");
        assert_eq!(checked(&short), lost(Way::Wrong));
    }

    #[test]
    fn the_answer_to_another_request_is_wrong() {
        let (body, len) = (right(), right().len());
        for (id, status, way) in [(8, 200, Way::Wrong), (7, 503, Way::Status)] {
            let head = format!("HTTP/1.1 {status} X\r\n{ID}: {id}\r\nContent-Length: {len}");
            assert_eq!(checked(&format!("{head}\r\n\r\n{body}")), lost(way));
        }
        assert_eq!(checked("SSH-2.0-x\r\n\r\n"), lost(Way::Wrong));
    }

    #[test]
    fn a_body_goes_out_whole_with_a_length_or_in_chunks() {
        let job = Kind::Upload.job(PIECE * 2);
        let [with_length, chunked] = [1, 2].map(|id| {
            let mut sent = Vec::new();
            run(send(&mut sent, Request { id, job, closes: true })).unwrap();
            String::from_utf8(sent).unwrap()
        });
        let (octets, _) = job.sends.sum(1);
        assert!(with_length.contains(&format!("Content-Length: {octets}\r\nConnection: close")));
        assert_eq!(with_length.split_once("\r\n\r\n").unwrap().1.len(), octets);
        assert!(chunked.contains("Transfer-Encoding: chunked"));
        assert!(chunked.ends_with(".\n\r\n0\r\n\r\n"));
    }
}
