//! The keys of a drain's two plans and of an upgrade.

use super::form::Form::{Count, SocketFile};
use super::keys::Preset::{Default as Is, Unset};
use super::keys::{Key, NONE, SOME, key, open_time, time};
use crate::limits;

/// The keys of one plan: where they stand, where their values go, and what differs.
macro_rules! plan {
    (
        $section:literal, $($place:ident).+, total $total:ident,
        $grace:literal, $goaway:literal, $after:literal, $spread:literal, $drain:literal,
        begins $begins:literal,
        idle $idle:expr,
        sum $sum:literal $of:literal
    ) => {[
        key(
            concat!($section, ".first_request_grace"),
            Is($grace),
            time(NONE, |d, v| d.config.$($place).+.first_request_grace = v),
            "How long a fresh connection may take to send its first byte.",
        ),
        $idle,
        key(
            concat!($section, ".goaway_grace"),
            Is($goaway),
            time(NONE, |d, v| d.config.$($place).+.goaway_grace = v),
            "How long an HTTP/2 client may still open streams after the first GOAWAY, at least.",
        ),
        key(
            concat!($section, ".stream_close_after"),
            Is($after),
            time(NONE, |d, v| d.config.$($place).+.stream_close_after = v),
            concat!("How long WebSockets and other endless streams go on after ", $begins, "."),
        ),
        key(
            concat!($section, ".spread"),
            Is($spread),
            time(NONE, |d, v| d.config.$($place).+.spread = v),
            "Over how long their ends are spread, so that clients do not all come back at once.",
        ),
        key(
            concat!($section, ".close_timeout"),
            Is("5s"),
            time(NONE, |d, v| d.config.$($place).+.close_timeout = v),
            "How long a WebSocket client may take to answer a Close; none is told later than this \
             before the hard deadline.",
        ),
        key(
            concat!($section, ".linger"),
            Is("1s"),
            time(NONE, |d, v| d.config.$($place).+.linger = v),
            "How long a connection is still read after we closed our side.",
        ),
        key(
            concat!($section, ".drain_timeout"),
            Is($drain),
            open_time(NONE, |d, v| d.config.$($place).+.drain_timeout = v),
            concat!(
                "How long requests may take to end once ", $begins, "; then they are cut. May be \
                 infinity."
            ),
        ),
        key(
            concat!($section, ".cut_timeout"),
            Is("2s"),
            time(NONE, |d, v| d.config.$($place).+.cut_timeout = v),
            "How long cutting may take.",
        ),
        key(
            concat!($section, ".finish_timeout"),
            Is("3s"),
            time(NONE, |d, v| d.config.$($place).+.finish_timeout = v),
            "How long finishing (logs, report) may take.",
        ),
        key(
            concat!($section, ".total_timeout"),
            Unset($sum),
            time(NONE, |d, v| d.$total = Some(v)),
            concat!(
                "Bounds all phases; if not set, their sum: ", $of, "drain_timeout + \
                 cut_timeout + finish_timeout. May not be less."
            ),
        ),
        key(
            concat!($section, ".force_timeout"),
            Is("2s"),
            time(NONE, |d, v| d.config.$($place).+.force_timeout = v),
            "How long after total_timeout the watchdog ends the process.",
        ),
    ]};
}

const STOP: [Key; 12] = plan!(
    "drain.stop", stop, total stop_total,
    "2s", "200ms", "0s", "2s", "20s",
    begins "listeners close",
    idle key(
        "drain.stop.idle_grace",
        Is("1s"),
        time(NONE, |d, v| d.config.stop.idle_grace = v),
        "How long an idle connection may be used once more; 0 closes it at once.",
    ),
    sum "26s" "lame_duck + 1s closing + "
);

const LEAVE: [Key; 12] = plan!(
    "drain.upgrade", upgrade.plan, total upgrade_total,
    "5s", "1s", "10m", "30s", "1h",
    begins "the successor accepts",
    idle key(
        "drain.upgrade.idle_grace",
        Unset("75s"),
        time(NONE, |d, v| d.upgrade_idle_grace = Some(v)),
        "How long an idle connection that cannot move to the successor may be used once more; if \
         not set, timeouts.idle.",
    ),
    sum "1h5s" ""
);

const LAME_DUCK: Key = key(
    "drain.stop.lame_duck",
    Is("0s"),
    time(NONE, |d, v| d.config.stop.lame_duck = v),
    "How long readiness fails before the listeners close.",
);

const UPGRADE: [Key; 5] = [
    key(
        "upgrade.timeout",
        Is("30s"),
        time(SOME, |d, v| d.config.upgrade.timeout = v),
        "How long a successor may take until it is ready; then it is ended, and the old process \
         goes on.",
    ),
    key(
        "upgrade.take_back",
        Is("30s"),
        time(NONE, |d, v| d.config.upgrade.take_back = v),
        "How long the old process can still take everything back if the successor dies.",
    ),
    key(
        "upgrade.commit_after",
        Is("5s"),
        time(NONE, |d, v| d.config.upgrade.commit_after = v),
        "How long a successor has to have served before the service manager is told that it is \
         the main process.",
    ),
    key(
        "upgrade.max_generations",
        Is("4"),
        Count {
            least: 2,
            most: limits::GENERATIONS_MAX,
            set: |d, v| d.config.upgrade.max_generations = v,
        },
        "The most processes at once, 2 to 64; beyond it the oldest goes over to drain.stop.",
    ),
    key(
        "upgrade.takeover",
        Unset("/run/ebbtide/takeover.sock"),
        SocketFile(|d, v| d.config.upgrade.takeover = Some(v)),
        "A unix socket at which a successor that somebody else has started asks to take over; who \
         starts and finds somebody there takes over from him.",
    ),
];

/// Those of `[drain.stop]`, `[drain.upgrade]` and `[upgrade]`, in the order in which people
/// are shown them.
pub(super) const PLANS: [Key; 1 + STOP.len() + LEAVE.len() + UPGRADE.len()] = {
    let mut all = [LAME_DUCK; 1 + STOP.len() + LEAVE.len() + UPGRADE.len()];
    let mut at = 0;
    while at < STOP.len() {
        all[1 + at] = STOP[at];
        all[1 + STOP.len() + at] = LEAVE[at];
        at += 1;
    }
    at = 0;
    while at < UPGRADE.len() {
        all[1 + STOP.len() + LEAVE.len() + at] = UPGRADE[at];
        at += 1;
    }
    all
};
