//! A WebSocket on a stream (RFC 8441), as strict as one on a connection of its own.

use super::conn::H2;
use super::exchange::Response;
use super::frame::Frame;
use crate::support::wire::End;
use crate::support::ws::{self, BINARY, CLOSE, Frame as Message, Source};

/// A stream that was asked to become a tunnel.
#[derive(Debug)]
pub(crate) struct Ws {
    /// Its number.
    pub(crate) stream: u32,
    /// Octets of its DATA that were read.
    read: usize,
}

impl H2 {
    /// The pseudo-header fields of an extended CONNECT.
    pub(crate) fn connect_pseudo(&self, protocol: &str, path: &str) -> Vec<(String, String)> {
        let mut fields = self.pseudo("CONNECT", path);
        fields.insert(1, (":protocol".to_owned(), protocol.to_owned()));
        fields
    }
}

impl Ws {
    /// Asks for a protocol with these fields.
    pub(crate) fn ask(h2: &mut H2, protocol: &str, path: &str, fields: &[(&str, &str)]) -> Ws {
        let mut all = h2.connect_pseudo(protocol, path);
        all.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Ws { stream: h2.headers(&all, false), read: 0 }
    }

    /// Asks for a WebSocket.
    pub(crate) fn wish(h2: &mut H2, path: &str) -> Ws {
        Ws::ask(h2, "websocket", path, &[("sec-websocket-version", "13")])
    }

    /// Asks for a WebSocket and gets it.
    #[track_caller]
    pub(crate) fn open(h2: &mut H2, path: &str) -> Ws {
        let ws = Ws::wish(h2, path);
        ws.is_opened(h2);
        ws
    }

    /// Waits for the answer to a wish, which must be the one of the RFC.
    #[track_caller]
    pub(crate) fn is_opened(&self, h2: &mut H2) -> Response {
        let head = h2.response_head(self.stream);
        assert_eq!(head.status, 200, "{head:?}");
        for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
            assert_eq!(head.field(name), None);
        }
        head
    }

    /// Sends octets as the windows let it.
    pub(crate) fn octets(&self, h2: &mut H2, octets: &[u8]) {
        h2.data(self.stream, octets, false);
    }

    /// Sends a message.
    pub(crate) fn send(&self, h2: &mut H2, message: &Message) {
        self.octets(h2, &message.octets(true));
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&self, h2: &mut H2) {
        h2.send(&Frame::data(self.stream, []).end());
    }

    /// Reads a message; how the stream ended if none comes.
    pub(crate) fn read(&mut self, h2: &mut H2) -> Result<Message, End> {
        ws::read(&mut Reader { h2, ws: self }, false)
    }

    /// Reads just so many octets.
    pub(crate) fn exactly(&mut self, h2: &mut H2, len: usize) -> Result<Vec<u8>, End> {
        let mut octets = Vec::new();
        Reader { h2, ws: self }.exactly(len, &mut octets).map(|()| octets)
    }

    /// Whether a whole message has come that was not read.
    pub(crate) fn has_message(&self, h2: &H2) -> bool {
        let body = h2.streams.get(&self.stream).map_or(&[][..], |it| &it.response.body);
        ws::is_whole(&body[self.read..])
    }

    /// Reads messages up to a Close, which must be the last thing that is said; its code,
    /// and the messages before it.
    #[track_caller]
    pub(crate) fn read_to_close(&mut self, h2: &mut H2) -> (Option<u16>, Vec<Message>) {
        let mut before = Vec::new();
        loop {
            let read = self.read(h2);
            let message = read.unwrap_or_else(|end| panic!("{end:?} before a Close{}", h2.story()));
            if message.opcode == CLOSE {
                return (message.code(), before);
            }
            before.push(message);
        }
    }

    /// How the stream ends, with nothing before it.
    #[track_caller]
    pub(crate) fn end(&mut self, h2: &mut H2) -> End {
        let mut octets = Vec::new();
        let end = Reader { h2, ws: self }.exactly(1, &mut octets);
        end.expect_err("nothing behind the last")
    }

    /// Sends a message and waits for its echo.
    #[track_caller]
    pub(crate) fn echo(&mut self, h2: &mut H2, payload: impl AsRef<[u8]>) {
        let message = Message::new(BINARY, payload);
        self.send(h2, &message);
        assert_eq!(self.read(h2), Ok(message));
    }

    /// Reads the Close of a stop, answers it, and ends the stream from both sides.
    #[track_caller]
    pub(crate) fn is_told(&mut self, h2: &mut H2) {
        assert_eq!(self.read_to_close(h2), (Some(1001), vec![]));
        self.send(h2, &Message::close(1001));
        assert_eq!(self.end(h2), End::Eof);
        self.finish(h2);
    }
}

struct Reader<'a> {
    h2: &'a mut H2,
    ws: &'a mut Ws,
}

impl Source for Reader<'_> {
    fn exactly(&mut self, len: usize, into: &mut Vec<u8>) -> Result<(), End> {
        let (stream, from) = (self.ws.stream, self.ws.read);
        let octets = self.h2.read_until(|h2| {
            let response = &h2.streams.get(&stream)?.response;
            let end = || response.reset.map(|_| End::Reset).or(response.whole.then_some(End::Eof));
            let octets = response.body.get(from..from + len).map(|octets| Ok(octets.to_vec()));
            octets.or_else(|| end().map(Err))
        })??;
        self.ws.read += len;
        into.extend(octets);
        Ok(())
    }
}
