//! What may be asked of the process besides how it is, and how it goes on.
//!
//! Owns the requests, and an answer that goes on while things happen. Whoever does them
//! is given as [`Commands`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Frame};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::server::Activity;
use crate::limits::ADMIN_BODY_MAX;

/// Does what is asked for.
pub trait Commands {
    /// Begins to replace this process by `binary`, or by what is now where its own was.
    /// What happens is told until the sender is dropped, at the latest when the process
    /// ends; a receiver that is dropped changes nothing.
    ///
    /// # Errors
    ///
    /// If it is not begun, with the reason.
    fn upgrade(&self, binary: Option<PathBuf>) -> Result<mpsc::Receiver<Progress>, Refusal>;
}

/// Why nothing is begun, as it is shown to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// How an upgrade goes on. Each is one line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// The program has been started.
    Starting {
        /// As which process; the successor's own number comes with `ready`.
        pid: u32,
        /// Which program.
        binary: String,
    },
    /// The successor can serve.
    Ready {
        /// Its number.
        pid: u32,
        /// The version of its program.
        version: String,
    },
    /// The successor serves, and this process accepts no more.
    Serving {
        /// Its number.
        pid: u32,
        /// Its generation.
        generation: u32,
    },
    /// What has become of the connections so far.
    Moved {
        /// How many the successor has, by kind.
        moved: BTreeMap<String, u64>,
        /// How many are still here, by reason.
        waiting: BTreeMap<String, u64>,
    },
    /// Nothing is left, and this process ends.
    Gone,
    /// There is no successor; this process goes on.
    Failed {
        /// Why, in the successor's own words if it had any.
        error: String,
    },
}

/// What `POST /upgrade` may say.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upgrade {
    /// The program to start instead of the one that is where ours was.
    pub(super) binary: Option<PathBuf>,
}

impl Upgrade {
    /// Reads the body of a request; none is as good as an empty one.
    pub(super) async fn read<B>(body: B) -> Result<Upgrade, (StatusCode, String)>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = Limited::new(body, ADMIN_BODY_MAX).collect().await.map_err(|error| {
            let large = error.is::<LengthLimitError>();
            let status =
                if large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            (status, error.to_string())
        })?;
        let octets = body.to_bytes();
        if octets.is_empty() {
            return Ok(Upgrade::default());
        }
        let wrong = |text: String| (StatusCode::BAD_REQUEST, text);
        let upgrade: Upgrade =
            serde_json::from_slice(&octets).map_err(|error| wrong(error.to_string()))?;
        match &upgrade.binary {
            // It would be looked for from where this process was started.
            Some(path) if !path.is_absolute() => {
                Err(wrong("the binary must be an absolute path".to_owned()))
            }
            _ => Ok(upgrade),
        }
    }
}

/// An answer that goes on: a line of JSON for each thing that happens.
pub(super) struct Told {
    news: mpsc::Receiver<Progress>,
    activity: Rc<Cell<Activity>>,
}

impl Told {
    pub(super) fn new(news: mpsc::Receiver<Progress>, activity: Rc<Cell<Activity>>) -> Told {
        activity.set(Activity::Told);
        Told { news, activity }
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = ready!(self.news.poll_recv(cx)).map(|progress| {
            let mut line = serde_json::to_vec(&progress).unwrap_or_default();
            line.push(b'\n');
            Ok(Frame::data(Bytes::from(line)))
        });
        Poll::Ready(frame)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.activity.set(Activity::Idle(Instant::now()));
    }
}
