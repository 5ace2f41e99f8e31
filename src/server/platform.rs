//! What started us: whether it would notice a successor, and how long it waits before it
//! kills.

use std::env::var_os;
use std::path::Path;

use rustix::process::getppid;

use crate::handoff::launch::HANDOFF;
use crate::lifecycle::orphans::is_pid_one;

/// Inits that neither wait for what they start nor end with it: they take it for a service
/// of which they are told, or for nobody's.
const INITS: [&str; 2] = ["init", "systemd"];

/// Why the binary cannot be replaced here by starting a successor, if it cannot. To be
/// asked at the start: later the parent may be another one.
pub(super) fn no_successor() -> Option<String> {
    if is_pid_one() {
        return Some(
            "this is process 1: when it ended, the container would end with its successor. \
             Start the new version in a container of its own that shares a directory with this \
             one, both with --takeover PATH"
                .to_owned(),
        );
    }
    let number = |name| var_os(name)?.to_str()?.parse().ok();
    Starter {
        is_elder: var_os(HANDOFF).is_some(),
        service: number("SYSTEMD_EXEC_PID") == Some(std::process::id()),
        is_heard: var_os("NOTIFY_SOCKET").is_some_and(|address| !address.is_empty()),
        init: getppid().is_some_and(|parent| parent.is_init()).then(init),
    }
    .would_end_with_us()
}

/// The name of process 1.
fn init() -> String {
    if Path::new("/run/systemd/system").is_dir() {
        return "systemd".to_owned();
    }
    let name = std::fs::read_to_string("/proc/1/comm");
    name.map_or_else(|_| "its name cannot be read".to_owned(), |name| name.trim().to_owned())
}

/// Who has started this process.
struct Starter {
    /// One that it succeeds.
    is_elder: bool,
    /// systemd, as the main process of a service.
    service: bool,
    /// There is somebody to whom a successor can be named.
    is_heard: bool,
    /// Process 1, of this name.
    init: Option<String>,
}

impl Starter {
    /// Why its service or its container would end with this process, though a successor
    /// goes on. A successor is process 1's child, too, but not watched for that.
    fn would_end_with_us(self) -> Option<String> {
        if self.is_elder {
            return None;
        }
        if self.service && !self.is_heard {
            return Some(
                "systemd takes the end of this process for the end of the service, and cannot be \
                 told of a successor: this needs Type=notify, as in the unit that is shipped. \
                 Restart the service, or start the new version as a unit of its own, both with \
                 --takeover PATH"
                    .to_owned(),
            );
        }
        let init = self.init.filter(|name| !INITS.contains(&name.as_str()))?;
        Some(format!(
            "process 1 ({init}) has started this process and waits for its end: the container \
             would end with it, and its successor with that. Start the new version in a container \
             of its own that shares a directory with this one, both with --takeover PATH, or \
             restart this one"
        ))
    }
}

/// The platform's name and the grace it gives by default, if one is recognised.
pub(super) fn grace() -> Option<(&'static str, u64)> {
    let set = |name: &str| var_os(name).is_some();
    if set("KUBERNETES_SERVICE_HOST") {
        Some(("Kubernetes (terminationGracePeriodSeconds)", 30))
    } else if is_pid_one() {
        Some(("container (docker stop -t)", 10))
    } else if set("INVOCATION_ID") || set("NOTIFY_SOCKET") {
        Some(("systemd (TimeoutStopSec)", 90))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(starter: Starter) -> String {
        starter.would_end_with_us().unwrap_or_default()
    }

    fn starter(init: Option<&str>) -> Starter {
        let init = init.map(str::to_owned);
        Starter { is_elder: false, service: false, is_heard: false, init }
    }

    #[test]
    fn who_waits_for_this_process_and_hears_of_no_successor_is_told_apart() {
        for init in [None, Some("init"), Some("systemd")] {
            assert_eq!(why(starter(init)), "");
            let simple = why(Starter { service: true, ..starter(init) });
            assert!(simple.contains("Type=notify") && simple.contains("--takeover"), "{simple}");
            assert_eq!(why(Starter { service: true, is_heard: true, ..starter(init) }), "");
        }
        for init in ["tini", "docker-init", "sh", "catatonit"] {
            let text = why(starter(Some(init)));
            assert!(text.contains(&format!("({init})")) && text.contains("--takeover"), "{text}");
            assert_eq!(why(Starter { is_elder: true, ..starter(Some(init)) }), "");
        }
    }
}
