//! A status document for a person.
//!
//! Owns the texts of `ebbtide status`. Promises that nothing the other side
//! says can steer the terminal.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::status::Status;

/// Tunnels on a page.
const TUNNELS: usize = 20;

const STATES: [&str; 7] = ["fresh", "reading", "active", "idle", "closing", "websocket", "opaque"];

/// Several lines, with the connections as a table.
pub(super) fn page(status: &Status) -> String {
    let mut out = String::new();
    let _ =
        writeln!(out, "phase       {}{}", printable(&status.phase), time_left(status.deadline_ms));
    let _ = writeln!(
        out,
        "process     pid {}, generation {}, version {}",
        status.pid,
        status.generation,
        printable(&status.version)
    );
    let _ = writeln!(
        out,
        "requests    {} answered, {} raced, {} cut",
        status.requests, status.raced, status.cut
    );
    let _ = writeln!(out, "endless     {} open, {} told to end\n", status.endless, status.told);
    out.push_str("connections");
    for state in STATES {
        let _ = write!(out, "  {state:>7}");
    }
    out.push('\n');
    let rows = status.connections.rows();
    for protocol in ["h1", "h2", "tunnel"] {
        let _ = write!(out, "{protocol:<11}");
        for state in STATES {
            let width = state.len().max(7);
            let count = rows.iter().find(|row| (row.0, row.1) == (protocol, state));
            let _ = match count {
                Some((_, _, count)) => write!(out, "  {count:>width$}"),
                None => write!(out, "  {:>width$}", "-"),
            };
        }
        out.push('\n');
    }
    if !status.moved.is_empty() {
        let _ = writeln!(out, "\nmoved       {}", counts(&status.moved));
    }
    for elder in &status.elders {
        let left = time_left(elder.deadline_ms);
        let (pid, generation) = (elder.pid, elder.generation);
        let phase = printable(&elder.phase);
        let _ = writeln!(out, "\nreplaced    generation {generation}, pid {pid}: {phase}{left}");
        let _ = writeln!(out, "  moved     {}", counts(&elder.moved));
        for (why, count) in &elder.waiting {
            let _ = writeln!(out, "  waits for {} ({count})", printable(why));
        }
    }
    if !status.tunnels.is_empty() {
        out.push_str("\ntunnels          age         in        out  client, target, app server\n");
    }
    for tunnel in status.tunnels.iter().take(TUNNELS) {
        let _ = writeln!(
            out,
            "{:<11}{:>8}s{:>11}{:>11}  {} {} {}",
            printable(&tunnel.kind),
            tunnel.age_ms / 1000,
            tunnel.bytes_in,
            tunnel.bytes_out,
            printable(&tunnel.client),
            printable(&tunnel.target),
            printable(&tunnel.upstream),
        );
    }
    out
}

/// One line, for a log of what happens.
pub(super) fn line(status: &Status) -> String {
    let mut out = format!("{}{}", printable(&status.phase), time_left(status.deadline_ms));
    for (protocol, state, count) in status.connections.rows() {
        if count > 0 {
            let _ = write!(out, "; {protocol} {state} {count}");
        }
    }
    for elder in &status.elders {
        let left = elder.connections.total();
        let _ = write!(out, "; generation {} has {left} left", elder.generation);
    }
    if status.endless > 0 {
        let _ = write!(out, "; endless {}", status.endless);
    }
    let _ =
        writeln!(out, "; requests {}, raced {}, cut {}", status.requests, status.raced, status.cut);
    out
}

/// What there is of each name: `3 h1_idle, 1 websocket`.
fn counts(all: &BTreeMap<String, u64>) -> String {
    let each: Vec<_> = all
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{count} {}", printable(name)))
        .collect();
    if each.is_empty() { "nothing".to_owned() } else { each.join(", ") }
}

fn time_left(deadline_ms: Option<u64>) -> String {
    deadline_ms.map_or_else(String::new, |left| {
        format!(", {}.{} s to the hard deadline", left / 1000, left % 1000 / 100)
    })
}

pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{ElderStatus, example};
    use crate::telemetry::ConnectionCounts;

    #[test]
    fn a_page_says_where_the_process_stands() {
        assert_eq!(
            page(&example()),
            "phase       draining, 12.3 s to the hard deadline\n\
             process     pid 4242, generation 1, version 0.1.0\n\
             requests    1000 answered, 1 raced, 0 cut\n\
             endless     2 open, 5 told to end\n\
             \n\
             connections    fresh  reading   active     idle  closing  websocket   opaque\n\
             h1                 0        0        3       12        0          -        -\n\
             h2                 -        -        0        0        0          -        -\n\
             tunnel             -        -        -        -        -          0        0\n"
        );
    }

    #[test]
    fn a_page_says_what_was_handed_over_and_what_a_replaced_process_waits_for() {
        let count = |name: &str, count| (name.to_owned(), count);
        let mut connections = ConnectionCounts::default();
        connections.h1.active = 2;
        let elder = ElderStatus {
            generation: 1,
            pid: 17,
            phase: "draining".into(),
            deadline_ms: Some(3_599_900),
            connections,
            moved: [count("h1_idle", 12), count("websocket", 0)].into(),
            waiting: [count("the end of a response", 2)].into(),
        };
        let status = Status { elders: vec![elder], ..example() };
        let page = page(&status);
        assert!(
            page.ends_with(
                "\nreplaced    generation 1, pid 17: draining, 3599.9 s to the hard deadline\n  \
                 moved     12 h1_idle\n  waits for the end of a response (2)\n"
            ),
            "{page}"
        );
        assert!(line(&status).contains("; generation 1 has 2 left;"));
    }

    #[test]
    fn a_line_names_only_what_is_there() {
        let status = Status { deadline_ms: None, phase: "ser\x1bving".into(), ..example() };
        assert_eq!(
            line(&status),
            "serving; h1 active 3; h1 idle 12; endless 2; requests 1000, raced 1, cut 0\n"
        );
    }
}
