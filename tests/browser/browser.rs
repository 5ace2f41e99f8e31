//! Chromium, driven by a child.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::support::{pypi, within};

/// How long a browser may take for anything, at its start above all.
const BOUND: Duration = Duration::from_secs(60);

/// What came from the browser, in its order.
type Said = Arc<Mutex<Vec<Value>>>;

/// A browser with one page. Ends on drop.
#[derive(Debug)]
pub(crate) struct Browser {
    driver: Child,
    input: Option<ChildStdin>,
    said: Said,
}

impl Browser {
    /// Opens a page.
    pub(crate) fn open(url: &str) -> Browser {
        assert!(std::path::Path::new("/usr/bin/chromium").exists(), "tests/run installs chromium");
        let mut command = pypi::program("browser/drive.py");
        command.arg(url).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut driver = command.spawn().expect("the driver starts");
        let (input, output) = (driver.stdin.take(), driver.stdout.take().expect("its output"));
        let said = Said::default();
        let ours = Arc::clone(&said);
        std::thread::spawn(move || hear(output, &ours));
        Browser { driver, input, said }
    }

    /// Waits until the page has said something of this kind behind a mark.
    pub(crate) fn wait(&self, mark: usize, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        within(BOUND, &format!("the page to say {what}"), || {
            let said = lock(&self.said);
            let failed = said.iter().find(|it| it["kind"] == "failed");
            assert!(failed.is_none(), "the browser failed: {failed:?}");
            said[mark..].iter().filter_map(page).find(|it| fits(it))
        })
    }

    /// Behind all that was said so far.
    pub(crate) fn mark(&self) -> usize {
        lock(&self.said).len()
    }

    /// What stands in its console as an error or a warning.
    pub(crate) fn errors(&self) -> Vec<String> {
        let said = lock(&self.said);
        said.iter().filter(|it| it["kind"] == "error").map(ToString::to_string).collect()
    }
}

/// What the page has said, if it was the page.
fn page(line: &Value) -> Option<Value> {
    let text = line["text"].as_str().filter(|_| line["kind"] == "console")?;
    serde_json::from_str(text).ok()
}

fn lock(said: &Said) -> MutexGuard<'_, Vec<Value>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hear(output: impl Read, said: &Said) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        lock(said).push(serde_json::from_str(&line).expect("a line of JSON"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines: Vec<_> = lock(&self.said).iter().map(ToString::to_string).collect();
            eprintln!("--- the browser said:\n{}\n---", lines.join("\n"));
        }
        // The driver ends the browser when its input ends.
        drop(self.input.take());
        let _ = self.driver.wait();
    }
}
