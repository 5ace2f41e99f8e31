//! What started us, and how long it waits before it kills.

use crate::lifecycle::orphans::is_pid_one;

/// Why the binary cannot be replaced here by starting a successor, if it cannot.
pub(super) fn no_successor() -> Option<&'static str> {
    is_pid_one().then_some(
        "this is process 1: when it ended, the container would end with its successor. Start \
         the new version in a container of its own that shares a directory with this one, both \
         with --takeover PATH",
    )
}

/// The platform's name and the grace it gives by default, if one is recognised.
pub(super) fn grace() -> Option<(&'static str, u64)> {
    let set = |name: &str| std::env::var_os(name).is_some();
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
