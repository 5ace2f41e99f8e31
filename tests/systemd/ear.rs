//! Where a service manager would listen: hears the messages, in their order.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{PATIENCE, within};

/// A message and when it was heard.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// When.
    pub(crate) at: Instant,
    /// Its lines.
    pub(crate) lines: Vec<String>,
}

impl Message {
    /// Whether it has this line.
    pub(crate) fn says(&self, line: &str) -> bool {
        self.lines.iter().any(|said| said == line)
    }

    /// The rest of the line that begins so.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Hears until it is dropped.
#[derive(Debug)]
pub(crate) struct Ear {
    dir: TempDir,
    heard: Arc<Mutex<Vec<Message>>>,
}

impl Ear {
    /// At a path of its own.
    pub(crate) fn new() -> Ear {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        let heard = Arc::default();
        let list: Arc<Mutex<Vec<Message>>> = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(n) = socket.recv(&mut octets) {
                let text = String::from_utf8_lossy(&octets[..n]);
                let lines = text.lines().map(str::to_owned).collect();
                let message = Message { at: Instant::now(), lines };
                list.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                if Arc::strong_count(&list) == 1 {
                    return;
                }
            }
        });
        Ear { dir, heard }
    }

    /// What the process finds in `NOTIFY_SOCKET`.
    pub(crate) fn address(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    /// Everything so far.
    pub(crate) fn heard(&self) -> Vec<Message> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a message with this line.
    pub(crate) fn wait(&self, line: &str) -> Message {
        self.wait_where(line, |message| message.says(line))
    }

    /// Waits for a message that fits.
    pub(crate) fn wait_where(&self, what: &str, fits: impl Fn(&Message) -> bool) -> Message {
        within(PATIENCE, &format!("the message {what}"), || {
            self.heard().into_iter().find(|message| fits(message))
        })
    }

    /// The messages with this line, or a line that begins so and goes on with `=`.
    pub(crate) fn all(&self, name: &str) -> Vec<Message> {
        let fits = |message: &Message| message.says(name) || message.value(name).is_some();
        self.heard().into_iter().filter(fits).collect()
    }
}

/// The longest time between two messages.
pub(crate) fn longest_gap(messages: &[Message]) -> Duration {
    messages.windows(2).map(|two| two[1].at - two[0].at).max().unwrap_or(Duration::MAX)
}
