//! Chromium, driven by a child.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::pypi::{self, Program};
use crate::support::within;

/// How long a browser may take for anything, at its start above all.
const BOUND: Duration = Duration::from_secs(60);

/// A browser with one page. Ends on drop.
#[derive(Debug)]
pub(crate) struct Browser {
    driver: Program,
}

impl Browser {
    /// Opens a page.
    pub(crate) fn open(url: &str) -> Browser {
        assert!(Path::new("/usr/bin/chromium").exists(), "tests/run installs chromium");
        Browser { driver: Program::start(pypi::program("browser/drive.py").arg(url)) }
    }

    /// Waits until the page has said something of this kind behind a mark.
    pub(crate) fn wait(&self, mark: usize, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        within(BOUND, &format!("the page to say {what}"), || {
            let said = self.driver.lines();
            let failed = said.iter().find(|it| it["kind"] == "failed");
            assert!(failed.is_none(), "the browser failed: {failed:?}");
            said[mark..].iter().filter_map(page).find(|it| fits(it))
        })
    }

    /// Behind all that was said so far.
    pub(crate) fn mark(&self) -> usize {
        self.driver.lines().len()
    }

    /// What stands in its console as an error or a warning.
    pub(crate) fn errors(&self) -> Vec<String> {
        let said = self.driver.lines();
        said.iter().filter(|it| it["kind"] == "error").map(ToString::to_string).collect()
    }
}

/// What the page has said, if it was the page.
fn page(line: &Value) -> Option<Value> {
    let text = line["text"].as_str().filter(|_| line["kind"] == "console")?;
    serde_json::from_str(text).ok()
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines: Vec<_> = self.driver.lines().iter().map(ToString::to_string).collect();
            eprintln!("--- the browser said:\n{}\n---", lines.join("\n"));
        }
        // It takes the browser along.
        self.driver.end();
    }
}
