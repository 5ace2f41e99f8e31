//! What started us, and how long it waits before it kills.

use crate::lifecycle::orphans::is_pid_one;

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
