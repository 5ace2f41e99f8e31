//! Unix sockets whose path has become another one, is spelled otherwise, or leads elsewhere
//! where the new process lives.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::app;
use crate::support::client::Client;
use crate::support::generations::Generations;
use crate::support::origin::Origin;
use crate::support::process::{Launch, is_privileged};
use crate::support::shelf::Shelf;
use crate::support::wire::Place;
use crate::support::{PATIENCE, admin, within};

/// All three kinds, in one directory.
const NAMES: [&str; 3] = ["web.sock", "admin.sock", "takeover.sock"];

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn launch(origin: &Origin, [web, admin, takeover]: &[PathBuf; 3]) -> Launch {
    let launch = Launch::before(origin).listen(&unix(web)).arg("--admin").arg(unix(admin));
    launch.arg("--takeover").arg(takeover.display().to_string())
}

/// That all of them are reached there.
#[track_caller]
fn reached(web: &Path, admin_at: &Path, generation: u64) {
    let mut client = Client::connect(&Place::Unix(web.to_owned()));
    client.get("/reached");
    assert_eq!(client.response().text(), "GET /reached 0");
    let admin_at = Place::Unix(admin_at.to_owned());
    within(PATIENCE, "the newest to answer", || {
        (admin::status(&admin_at)["generation"] == generation).then_some(())
    });
}

/// Somebody has cleaned up: what the paths led to is reached by nobody any more.
#[test]
fn paths_that_were_removed_are_bound_anew() {
    let origin = app();
    let directory = tempfile::tempdir().unwrap();
    let all = NAMES.map(|name| directory.path().join(name));
    let line = Generations::start_at(launch(&origin, &all));
    let elder = line.newest();
    for path in &all {
        std::fs::remove_file(path).unwrap();
    }
    elder.signal(Signal::USR2);
    line.wait_event("upgrade_serving");
    reached(&all[0], &all[1], 2);
    // Each process writes when it comes to it.
    line.wait_nth("path_bound_anew", 2);
    elder.wait_gone(PATIENCE);
    // They are the successor's: the elder's end has not taken them away.
    reached(&all[0], &all[1], 2);
    let next = launch(&origin, &all).start();
    reached(&all[0], &all[1], 3);
    assert!(next.events("path_bound_anew").is_empty(), "{}", next.said());
    next.terminate();
    next.wait_clean_exit();
    for path in &all {
        assert!(!path.exists(), "{path:?}");
    }
}

/// A symbolic link, a way round, and the same directory mounted elsewhere: a second name of
/// the file stands for that.
#[test]
fn path_that_is_spelled_otherwise_is_the_same_socket() {
    let origin = app();
    let directory = tempfile::tempdir().unwrap();
    let all = NAMES.map(|name| directory.path().join(name));
    let first = launch(&origin, &all).start();
    let inodes = || all.each_ref().map(|path| std::fs::metadata(path).unwrap().ino());
    let (before, other) = (inodes(), directory.path().join("other"));
    std::fs::create_dir(&other).unwrap();
    let links = NAMES.map(|name| other.join("link-".to_owned() + name));
    let names = NAMES.map(|name| other.join(name));
    for ((path, link), name) in all.iter().zip(&links).zip(&names) {
        std::os::unix::fs::symlink(path, link).unwrap();
        std::fs::hard_link(path, name).unwrap();
    }
    let round = NAMES.map(|name| directory.path().join("other/..").join(name));
    let mut elder = first;
    for (generation, paths) in (2..).zip([&links, &names, &round]) {
        let next = launch(&origin, paths).start();
        reached(&all[0], &all[1], generation);
        assert_eq!(inodes(), before);
        assert!(next.events("path_bound_anew").is_empty(), "{}", next.said());
        // Nobody has asked it but the one who is its successor.
        elder.wait_clean_exit();
        assert_eq!(elder.events("upgrade_started").len(), 1, "{}", elder.said());
        elder = next;
    }
    elder.terminate();
    elder.wait_clean_exit();
    for path in &all {
        assert!(!path.exists(), "{path:?}");
    }
    assert!(links[0].is_symlink(), "what leads to it is not ours");
}

/// Two containers with one volume: each has a `/run` of its own.
#[test]
fn paths_that_lead_elsewhere_in_another_mount_namespace_are_bound_there() {
    if !is_privileged() {
        eprintln!("not tried: only root can begin a mount namespace");
        return;
    }
    let origin = app();
    let [shared, own] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [web, admin_at] = [NAMES[0], NAMES[1]].map(|name| own.path().join(name));
    let all = [web, admin_at, shared.path().join(NAMES[2])];
    let contained = || {
        let mount = format!("mount -t tmpfs none {}", own.path().display());
        launch(&origin, &all).under(&["unshare", "--mount"]).shell(mount)
    };
    let inside = |pid: u32, path: &Path| {
        PathBuf::from(format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap())
    };
    let first = contained().start();
    reached(&inside(first.pid, &all[0]), &inside(first.pid, &all[1]), 1);
    let mut elder = first;
    for generation in 2..4 {
        let next = contained().start();
        reached(&inside(next.pid, &all[0]), &inside(next.pid, &all[1]), generation);
        assert_eq!(next.events("path_bound_anew").len(), 2, "{}", next.said());
        elder.wait_clean_exit();
        elder = next;
    }
    elder.terminate();
    elder.wait_clean_exit();
    assert!(!all[2].exists());
}

/// Until a successor serves, the permissions are those that the elder has given.
#[test]
fn permissions_change_with_the_process_that_serves() {
    let (origin, shelf) = (app(), Shelf::new());
    let [web, admin_at] = [NAMES[0], NAMES[1]].map(|name| shelf.file(name));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let write = |mode: &str, more: &str| {
        let text = format!(
            "listen = [\"{},mode={mode}\"{more}]\nadmin = \"{},mode={mode}\"\n\
             upstream.endpoints = [\"{}\"]\n",
            unix(&web),
            unix(&admin_at),
            origin.place()
        );
        shelf.write("ebbtide.toml", &text)
    };
    let modes = || {
        [&web, &admin_at].map(|path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777)
    };
    let line = Generations::start_at(Launch::configured(&write("0600", "")));
    assert_eq!(modes(), [0o600; 2]);
    write("0666", &format!(", \"{}\"", taken.local_addr().unwrap()));
    let elder = line.newest();
    elder.signal(Signal::USR2);
    line.wait_event("upgrade_failed");
    assert_eq!(modes(), [0o600; 2], "it has failed, and nothing is as it wanted");
    write("0640", "");
    elder.signal(Signal::USR2);
    line.wait_event("upgrade_serving");
    reached(&web, &admin_at, 2);
    assert_eq!(modes(), [0o640; 2]);
}
