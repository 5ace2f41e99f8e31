//! A real `systemd --user`, one for each test, in a mount namespace of its own: it works
//! although process 1 of the machine may be anything. It needs root.

use std::fs;
use std::io::{BufRead as _, BufReader, PipeWriter};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::support::wire::Place;
use crate::support::{PATIENCE, within};

/// The binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ebbtide");

/// An address that no other test has, and that is free again after a restart.
pub(crate) fn own_address() -> Place {
    static COUNT: AtomicU16 = AtomicU16::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let port = 20_000 + count;
    Place::Tcp(SocketAddr::new(Ipv4Addr::new(127, 64 | (high & 63), low, 1).into(), port))
}

/// Sets a manager up and ends it, with all that it has started, when its stdin ends.
/// `$1` is a directory, `$2` a name for its control group. Of the second version: in the
/// first one nobody tells the manager that a group has become empty.
const SCRIPT: &str = r#"
set -eu
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup /sys/fs/cgroup
group=/sys/fs/cgroup/$2
mkdir -p "$group"
mount -t tmpfs run /run
mkdir -p /run/systemd/system
export XDG_RUNTIME_DIR=$1/run SYSTEMD_UNIT_PATH=$1/units: HOME=$1/home
(
    sh -c 'echo $PPID' >"$group/cgroup.procs"
    exec /lib/systemd/systemd --user --log-level=info --log-target=console
) </dev/null 2>"$1/systemd.log" &
echo $!
cat >/dev/null
everybody() { find "$group" -name cgroup.procs -exec cat {} +; }
for _ in $(seq 200); do
    [ -n "$(everybody)" ] || break
    kill -9 $(everybody) 2>/dev/null || true
    sleep 0.02
done
wait || true
find "$group" -depth -type d -exec rmdir {} +
"#;

/// A running manager. What it has started ends with it.
#[derive(Debug)]
pub(crate) struct Manager {
    dir: TempDir,
    group: String,
    pid: u32,
    child: Child,
    /// Its end ends the manager.
    alive: Option<PipeWriter>,
}

impl Manager {
    /// Starts one with these units, by their file names.
    pub(crate) fn start(units: &[(&str, String)]) -> Manager {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["run", "home", "units"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir.path().join("run"), private).expect("a private directory");
        for (name, text) in units {
            fs::write(dir.path().join("units").join(name), text).expect("a unit");
        }
        fs::write(dir.path().join("units/default.target"), "[Unit]\n").expect("a target");
        let (theirs, alive) = std::io::pipe().expect("a pipe");
        let group = format!("ebbtide-{}-{}", std::process::id(), own_address().port());
        let mut child = alone("unshare")
            .args(["--mount", "sh", "-c", SCRIPT, "sh"])
            .arg(dir.path())
            .arg(&group)
            .stdin(theirs)
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let stdout = child.stdout.take().expect("stdout is piped");
        let first = BufReader::new(stdout).lines().next();
        let first = first.expect("the namespace can be set up (are we root?)").expect("a line");
        let pid = first.parse().expect("a pid");
        let manager = Manager { dir, group, pid, child, alive: Some(alive) };
        within(PATIENCE, "the manager to run", || {
            let running = manager.systemctl(&["is-system-running"]);
            String::from_utf8_lossy(&running.stdout).contains("running").then_some(())
        });
        manager
    }

    /// The name of its control group.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a program beside it.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Output {
        let runtime = format!("XDG_RUNTIME_DIR={}", self.path("run").display());
        let mut command = alone("nsenter");
        command.arg("--target").arg(self.pid.to_string()).args(["--mount", "env", &runtime]);
        command.arg(program).args(args).stdin(Stdio::null()).output().expect("nsenter")
    }

    /// Runs systemctl.
    pub(crate) fn systemctl(&self, args: &[&str]) -> Output {
        let all: Vec<_> = ["--user", "--no-pager"].iter().chain(args).copied().collect();
        self.run("systemctl", &all)
    }

    /// Runs systemctl, which has to do it.
    #[track_caller]
    pub(crate) fn must(&self, args: &[&str]) {
        let output = self.systemctl(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "systemctl {args:?}: {said}{}", self.said());
    }

    /// A property of a unit.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        let output = self.systemctl(&["show", "--value", "--property", property, unit]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Waits for a property of a unit to be this.
    #[track_caller]
    pub(crate) fn wait(&self, unit: &str, property: &str, wanted: &str) {
        let what = format!("{property} of {unit} to be {wanted}");
        self.wait_where(unit, property, &what, |value| value == wanted);
    }

    /// Waits for a property of a unit.
    #[track_caller]
    pub(crate) fn wait_where(
        &self,
        unit: &str,
        property: &str,
        what: &str,
        fits: impl Fn(&str) -> bool,
    ) -> String {
        within(PATIENCE, what, || Some(self.show(unit, property)).filter(|value| fits(value)))
    }

    /// What the manager itself has said, for a message.
    pub(crate) fn said(&self) -> String {
        let said = fs::read_to_string(self.path("systemd.log")).unwrap_or_default();
        format!("\n{said}")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the manager said:{}", self.said());
        }
        drop(self.alive.take());
        // All are killed, so it ends.
        let _ended = self.child.wait();
    }
}

/// A command that gets nothing of the environment that the tests have, as a service gets
/// nothing of its caller's: a user manager would hand everything on to its services.
fn alone(program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path);
    command
}

/// The shipped file of this name.
pub(crate) fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    fs::read_to_string(path).expect("a shipped file")
}
