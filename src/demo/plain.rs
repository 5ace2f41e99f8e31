//! A moment as a line of text, for a reader that is no terminal.

use std::time::Duration;

use super::view::{Moment, View};

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// When.
    at: Option<Duration>,
    stage: Option<String>,
}

impl Plain {
    /// Lines, if there is something new to say: a stage, or another second.
    pub(super) fn lines(&mut self, view: &View) -> Vec<String> {
        let mut lines = Vec::new();
        // The clock begins anew with each proxy.
        if self.at.is_none_or(|at| at > view.at) {
            lines.push(format!("ebbtide demo: {}", view.title()));
            *self = Plain { at: Some(view.at), stage: None };
        }
        let stage = view.stage();
        if self.stage.as_ref() != Some(&stage) {
            let text = format!("{stage}: {}; {}", view.explanation(), view.time());
            lines.push(stamped(view.at, &text));
            self.stage = Some(stage);
        }
        let is_over = matches!(view.moment, Moment::Over(_));
        if !is_over && self.at.is_some_and(|at| at.as_secs() < view.at.as_secs()) {
            lines.push(stamped(view.at, &numbers(view)));
        }
        self.at = Some(view.at);
        lines
    }
}

fn stamped(at: Duration, text: &str) -> String {
    format!("{:>5.1} s  {text}", at.as_secs_f64())
}

fn numbers(view: &View) -> String {
    let (h1, h2) = (&view.connections.h1, &view.connections.h2);
    let (active, idle) = (h1.fresh + h1.reading + h1.active + h2.active, h1.idle + h2.idle);
    let closing = h1.closing + h2.closing;
    let total = view.tally.total();
    let left = view.left.map_or_else(String::new, |left| {
        format!("; {:.1} s to the hard deadline", left.as_secs_f64())
    });
    format!(
        "  connections: {active} busy, {idle} idle, {closing} closing; requests: {} served, \
         {} refused, {} raced, {} lost{left}",
        total.served,
        total.refused,
        total.raced,
        total.lost(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::view::tests::view;
    use crate::drain::Phase;

    #[test]
    fn a_line_is_for_a_new_stage_or_a_new_second() {
        let mut plain = Plain::default();
        let mut at = |millis: u64, phase| {
            plain.lines(&View { at: Duration::from_millis(millis), phase, ..view() })
        };
        let first = at(3000, Phase::Closing);
        assert_eq!(first[0], "ebbtide demo: a proxy is told to stop while its clients go on");
        assert!(first[1].starts_with("  3.0 s  closing: the listener closes;"), "{first:?}");
        assert_eq!(first.len(), 2);
        assert_eq!(at(3010, Phase::Draining).len(), 1);
        assert_eq!(at(3900, Phase::Draining), Vec::<String>::new());
        assert_eq!(
            at(4100, Phase::Draining),
            ["  4.1 s    connections: 0 busy, 0 idle, 0 closing; requests: 2 served, 0 refused, \
              0 raced, 3 lost; 8.5 s to the hard deadline"]
        );
        assert_eq!(at(4900, Phase::Draining), Vec::<String>::new());
        // Another proxy.
        assert_eq!(at(0, Phase::Draining).len(), 2);
    }
}
