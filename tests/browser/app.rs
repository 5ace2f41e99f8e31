//! uvicorn with the app of the page.

use rustix::process::Signal;

use crate::foreign::Foreign;
use crate::ground::{Ground, Role};
use crate::support::pypi;

/// Starts it on its ground.
pub(crate) fn start(ground: &Ground) -> Foreign {
    let place = ground.place(Role::App);
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = pypi::module("uvicorn");
    command.arg("--app-dir").arg(pypi::source("browser")).arg("app:app");
    command.arg("--host").arg(ground.address(Role::App).to_string());
    command.arg("--port").arg(place.port().to_string());
    command.args(["--ws", "websockets-sansio", "--http", "h11", "--lifespan", "off"]);
    Foreign::start("uvicorn", command, Signal::KILL, directory, &place)
}
