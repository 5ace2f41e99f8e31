//! The echo server at the other end, a child.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use crate::support::pypi;
use crate::support::wire::Place;

/// A running echo server. Ends on drop.
#[derive(Debug)]
pub(crate) struct Echo {
    child: Child,
    place: Place,
}

impl Echo {
    /// Starts one.
    pub(crate) fn start() -> Echo {
        let mut command = pypi::program("autobahn/echo.py");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the echo server starts");
        let mut port = String::new();
        let said = child.stdout.take().expect("its standard output");
        BufReader::new(said).read_line(&mut port).expect("its port");
        let place = Place::parse(&format!("127.0.0.1:{}", port.trim()));
        Echo { child, place }
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
