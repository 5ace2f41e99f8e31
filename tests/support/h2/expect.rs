//! What a test expects of a server, with a bound on each wait.

use super::conn::{Goaway, H2};
use super::frame::{Code, Frame, Got};
use crate::support::wire::End;

/// How a server takes an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// GOAWAY: an error of the connection.
    Goaway(Code),
    /// RST_STREAM: an error of the stream.
    Reset(Code),
    /// The end of the connection.
    Closed(End),
}

impl H2 {
    /// Waits for the first of: GOAWAY with an error, RST_STREAM on `stream`, the end
    /// of the connection.
    ///
    /// # Panics
    /// When none of them comes.
    #[track_caller]
    pub(crate) fn reaction(&mut self, stream: Option<u32>) -> Reaction {
        let reaction = self.read_until(|h2| {
            let error = h2.goaways().iter().find(|goaway| goaway.code != Code::NO_ERROR);
            let reset = stream.and_then(|stream| h2.so_far(stream).reset);
            reset.map(Reaction::Reset).or(error.map(|goaway| Reaction::Goaway(goaway.code)))
        });
        match reaction {
            Ok(reaction) => reaction,
            Err(End::TimedOut) => panic!("no reaction to an error{}", self.story()),
            Err(end) => Reaction::Closed(end),
        }
    }

    /// Expects a connection error of one of these codes: GOAWAY, then the end of the
    /// connection. The end alone would be allowed; but so ends a server that crashed.
    #[track_caller]
    pub(crate) fn expect_connection_error(&mut self, codes: &[Code]) {
        let reaction = self.reaction(None);
        let fits = matches!(reaction, Reaction::Goaway(code) if codes.contains(&code));
        assert!(fits, "GOAWAY of {codes:?}, not {reaction:?}{}", self.story());
        self.wait_end();
    }

    /// Expects a stream error of one of these codes: RST_STREAM, or what is allowed
    /// instead of it, a connection error.
    #[track_caller]
    pub(crate) fn expect_stream_error(&mut self, stream: u32, codes: &[Code]) {
        let reaction = self.reaction(Some(stream));
        match reaction {
            Reaction::Reset(code) if codes.contains(&code) => {}
            Reaction::Goaway(code) if codes.contains(&code) => {
                self.wait_end();
            }
            _ => panic!("RST_STREAM or GOAWAY of {codes:?}, not {reaction:?}{}", self.story()),
        }
    }

    /// Expects RST_STREAM.
    #[track_caller]
    pub(crate) fn expect_reset(&mut self, stream: u32, codes: &[Code]) {
        let reaction = self.reaction(Some(stream));
        let fits = matches!(reaction, Reaction::Reset(code) if codes.contains(&code));
        assert!(fits, "RST_STREAM of {codes:?}, not {reaction:?}{}", self.story());
    }

    /// Waits for the `n`th GOAWAY, from 0.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub(crate) fn wait_goaway(&mut self, n: usize) -> Goaway {
        let found = self.read_until(|h2| h2.goaways().get(n).cloned());
        found.unwrap_or_else(|end| panic!("{end:?} instead of GOAWAY {n}{}", self.story()))
    }

    /// Reads to the end of the connection.
    ///
    /// # Panics
    /// When it stays open.
    #[track_caller]
    pub(crate) fn wait_end(&mut self) -> End {
        match self.read_until(|_| None::<()>) {
            Err(End::TimedOut) => panic!("the connection stays open{}", self.story()),
            Err(end) => end,
            Ok(()) => unreachable!("nothing was looked for"),
        }
    }

    /// Waits for the next ACK of SETTINGS.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub(crate) fn wait_settings_ack(&mut self) {
        let before = self.settings_acks;
        let found = self.read_until(|h2| (h2.settings_acks > before).then_some(()));
        found.unwrap_or_else(|end| panic!("{end:?} instead of a SETTINGS ACK{}", self.story()));
    }

    /// Sends SETTINGS and waits until they hold.
    #[track_caller]
    pub(crate) fn settings(&mut self, values: &[(u16, u32)]) {
        self.send(&Frame::settings(values));
        self.wait_settings_ack();
    }

    /// Sends PING and waits for its ACK: everything before it was read by then.
    ///
    /// # Panics
    /// When the ACK does not come.
    #[track_caller]
    pub(crate) fn fence(&mut self) {
        let end = self.try_fence().err();
        assert!(end.is_none(), "{end:?} instead of a PING ACK{}", self.story());
    }

    /// Sends PING and waits for its ACK, or for the end of the connection.
    pub(crate) fn try_fence(&mut self) -> Result<(), End> {
        let nth = u32::try_from(self.pongs.len()).expect("a number");
        let mut opaque = *b"fence\0\0\0";
        opaque[4..].copy_from_slice(&nth.to_be_bytes());
        self.send(&Frame::ping(opaque));
        self.read_until(|h2| h2.pongs.contains(&opaque).then_some(()))
    }

    /// The length of the next DATA on a stream, as flow control counts it.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub(crate) fn next_data(&mut self, stream: u32) -> usize {
        self.wait("DATA", |got| match got {
            Got::Data { stream: on, counted, .. } if *on == stream => Some(*counted),
            _ => None,
        })
    }
}
