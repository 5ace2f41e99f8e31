//! What actors do over HTTP/2, in clear text or over TLS.

use std::time::Instant;

use rustls::StreamOwned;

use super::actor::{Part, Stage, shortened};
use super::judge::{Due, Fact, Fate};
use super::wait_until;
use crate::support::client::{Broken, Client, End};
use crate::support::h2::{Frame, H2};
use crate::support::tls::Manner;
use crate::support::wire::Place;
use crate::support::{ms, pattern, pause};

impl Part {
    fn over_tls(&self) -> bool {
        (self.choice / 32).is_multiple_of(2)
    }

    fn h2_connected(&self, stage: &Stage) -> H2 {
        if self.over_tls() { H2::connect_tls(&stage.tls) } else { H2::connect(&stage.place) }
    }

    pub(super) fn h2_accept(&self, stage: &Stage) -> Vec<Fact> {
        self.moment(stage);
        let began = Instant::now();
        let place = if self.over_tls() { &stage.tls } else { &stage.place };
        let client = match Client::try_connect(place, ms(300)) {
            Ok(client) => client,
            Err(end) => {
                let fate = Fate::NotConnected(end);
                return vec![self.fact(stage, 0, Due::Fresh, began, Instant::now(), fate)];
            }
        };
        let connected = Instant::now();
        if self.choice.is_multiple_of(2) {
            pause(self.then);
        }
        let fate = match self.on_line(client, place) {
            Err(error) => Fate::Wrong(format!("no handshake: {error}")),
            Ok(mut h2) => {
                h2.octets(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(&Frame::settings(&[]));
                let stream = h2.get("/h2");
                served(&mut h2, stream, "GET /h2 0")
            }
        };
        vec![self.fact(stage, 0, Due::Fresh, began, connected, fate)]
    }

    fn on_line(&self, client: Client, place: &Place) -> std::io::Result<H2> {
        let sock = client.wire.sock;
        if !self.over_tls() {
            return Ok(H2::over(Box::new(sock)));
        }
        let mut tls = StreamOwned::new(Manner::new().alpn(&["h2"]).session(), sock);
        while tls.conn.is_handshaking() {
            tls.conn
                .complete_io(&mut tls.sock)
                .map_err(|error| std::io::Error::new(error.kind(), format!("{place}: {error}")))?;
        }
        Ok(H2::over(Box::new(tls)))
    }

    pub(super) fn h2_streams(&self, stage: &Stage) -> Vec<Fact> {
        let mut h2 = self.h2_connected(stage);
        let mut at = self.moment(stage);
        let mut opened = Vec::new();
        for which in 0..1 + self.choice / 64 % 12 {
            let began = Instant::now();
            let stream = h2.get(&format!("/stream/{which}"));
            opened.push((which, began, stream));
            at += self.then * 4;
            // Some acknowledge what they do not look at.
            while self.choice.is_multiple_of(2) && Instant::now() < at {
                let left = at.saturating_duration_since(Instant::now()).max(ms(1));
                if h2.next_within(left).is_err_and(|end| end != End::TimedOut) {
                    break;
                }
            }
            wait_until(at);
        }
        let judged = opened.into_iter().map(|(which, began, stream)| {
            let fate = served(&mut h2, stream, &format!("GET /stream/{which} 0"));
            let which = usize::try_from(which).unwrap_or_default();
            self.fact(stage, which, Due::Stream, began, began, fate)
        });
        judged.collect()
    }

    pub(super) fn h2_upload_end(&self, stage: &Stage) -> Vec<Fact> {
        let mut h2 = self.h2_connected(stage);
        let target = format!("/up/h2/{}", stage.number);
        let body = pattern(20_000);
        let cut = 1 + (self.choice / 64) as usize % (body.len() - 1);
        let stream = h2.post_head(&target);
        h2.data(stream, &body[..cut], false);
        stage.origin.wait_started(&target);
        let began = self.moment(stage);
        h2.data(stream, &body[cut..], true);
        let sent = Instant::now();
        let fate = served(&mut h2, stream, &format!("POST {target} 20000"));
        vec![self.fact(stage, 0, Due::Always, began, sent, fate)]
    }
}

/// What became of a stream. Its connection is told of the end in its own frames.
fn served(h2: &mut H2, stream: u32, text: &str) -> Fate {
    match h2.try_response(stream) {
        Ok(response) if response.status == 200 && response.text() == text => {
            Fate::Answered { close: true }
        }
        Ok(response) => Fate::Wrong(format!("{response:?}")),
        Err(end) => Fate::Lost(shortened(Broken { end, head: None, got: Vec::new() })),
    }
}
