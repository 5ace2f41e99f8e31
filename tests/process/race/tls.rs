//! What actors do over TLS with HTTP/1.

use std::time::Instant;

use super::actor::{Part, Stage, shortened};
use super::judge::{Due, Fact, Fate};
use crate::support::client::{Broken, End, get};
use crate::support::pause;
use crate::support::tls::{Manner, TlsClient, TlsEnd};

impl Part {
    pub(super) fn tls_accept(&self, stage: &Stage) -> Vec<Fact> {
        self.moment(stage);
        let began = Instant::now();
        let mut client = match Manner::new().try_connect(&stage.tls) {
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
        let fate = match client.shake() {
            Ok(_) => {
                if self.choice.is_multiple_of(3) {
                    pause(self.then);
                }
                answer(&mut client, "/tls")
            }
            Err(error) => Fate::Wrong(format!("no handshake: {error}")),
        };
        // The grace begins anew with each step of the handshake.
        vec![self.fact(stage, 0, Due::Fresh, began, connected, fate)]
    }

    pub(super) fn tls_idle(&self, stage: &Stage) -> Vec<Fact> {
        let mut client = Manner::new().connect(&stage.tls).shaken();
        client.get("/warm").response();
        let began = self.moment(stage);
        let fate = if client.has_news() {
            match client.end() {
                TlsEnd::Clean => Fate::GoneBefore(End::Eof),
                end => Fate::Wrong(format!("{end:?} before it was used")),
            }
        } else {
            answer(&mut client, "/again")
        };
        vec![self.fact(stage, 0, Due::Idle, began, began, fate)]
    }
}

fn answer(client: &mut TlsClient, target: &str) -> Fate {
    let sent = client.try_send(get(target));
    match client.try_response() {
        Ok(response) if response.text() == format!("GET {target} 0") => {
            Fate::Answered { close: response.says_close() }
        }
        Ok(response) => Fate::Wrong(format!("{} {}", response.status, response.text())),
        Err((end, got)) => {
            let end = match end {
                TlsEnd::Clean => End::Eof,
                TlsEnd::TimedOut => End::TimedOut,
                TlsEnd::Truncated | TlsEnd::Reset => End::Reset,
            };
            match sent {
                Err(_) => Fate::GoneBefore(end),
                Ok(()) => Fate::Lost(shortened(Broken { end, head: None, got })),
            }
        }
    }
}
