//! The app server, a child with descriptors of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::wire::Place;

/// A running app server. Ends on drop.
#[derive(Debug)]
pub(crate) struct App {
    child: Child,
    place: Place,
}

impl App {
    /// Starts it.
    pub(crate) fn start() -> App {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/many/app.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(source).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3, which tests/run installs");
        let mut port = String::new();
        let said = child.stdout.take().expect("its standard output");
        BufReader::new(said).read_line(&mut port).expect("its port");
        let place = Place::parse(&format!("127.0.0.1:{}", port.trim()));
        App { child, place }
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
