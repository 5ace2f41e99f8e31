//! TLS sessions are resumed in the new process with tickets of the old one.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{start, upgrade_whole};
use crate::support::origin::Origin;
use crate::support::process::Launch;
use crate::support::tls::NAME;
use crate::support::wire::Place;

/// One connection of `openssl s_client`, with a request on it; whether its session was
/// resumed.
fn connect(place: &Place, version: &str, session: &Path, first: bool) -> bool {
    let mut command = Command::new("/usr/bin/openssl");
    command.args(["s_client", "-ign_eof", version, "-servername", NAME, "-connect"]);
    command.arg(place.to_string()).arg(if first { "-sess_out" } else { "-sess_in" }).arg(session);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("tests/run installs openssl");
    let mut stdin = child.stdin.take().expect("its input");
    stdin
        .write_all(b"GET /tls HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let output = child.wait_with_output().expect("its output");
    drop(stdin);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("GET /tls 0"), "{version}: {said}");
    let (new, resumed) = (said.contains("\nNew, TLSv1"), said.contains("\nReused, TLSv1"));
    assert!(new != resumed, "{version}: {said}");
    resumed
}

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[test]
fn sessions_are_resumed_across_upgrades() {
    let (_origin, line) = start(Launch::tls);
    let place = line.tls_place();
    let directory = tempfile::tempdir().unwrap();
    let session = |version: &str| directory.path().join(version);
    for version in VERSIONS {
        assert!(!connect(&place, version, &session(version), true), "a new session");
    }
    for n in 1..=2 {
        upgrade_whole(&line);
        for version in VERSIONS {
            assert!(connect(&place, version, &session(version), false), "{version}, upgrade {n}");
        }
    }
    // A ticket of the newest is worth as much.
    for version in VERSIONS {
        connect(&place, version, &session(version), true);
    }
    upgrade_whole(&line);
    for version in VERSIONS {
        assert!(connect(&place, version, &session(version), false), "{version}, the newest");
    }
}

/// The check would see it: another process does not know the keys.
#[test]
fn sessions_are_not_resumed_by_somebody_else() {
    let origin = Origin::new();
    let directory = tempfile::tempdir().unwrap();
    for version in VERSIONS {
        let session = directory.path().join(version);
        let [first, second] = [(); 2].map(|()| Launch::before(&origin).tls().start());
        assert!(!connect(&first.tls_place(), version, &session, true));
        assert!(connect(&first.tls_place(), version, &session, false), "{version}");
        assert!(!connect(&second.tls_place(), version, &session, false), "{version}");
    }
}
