//! A moment as a screen. Pure: the same view and look always give the same lines.

use super::clients::{Counts, Kind};
use super::text::{Line, Look, Style};
use super::view::{Moment, Stop, View};
use crate::drain::Phase;

/// The phases that a person is shown; those before and between them take no time here.
const PHASES: [Phase; 6] = [
    Phase::Serving,
    Phase::Closing,
    Phase::Draining,
    Phase::Cutting,
    Phase::Finishing,
    Phase::Stopped,
];

/// Columns before the bars, and of a number with the space behind it.
const LABEL: usize = 10;
const NUMBER: usize = 6;

/// The most columns of both bars: longer ones say no more.
const BARS_MAX: usize = 80;

/// Columns before those of the table.
const NAME: usize = 18;

/// The screen, at most as many lines as there are rows.
pub(super) fn render(view: &View, look: &Look) -> Vec<String> {
    let title = Line::of(Style::Bold, "ebbtide demo");
    let mut lines = vec![
        title.with(Style::Plain, format!(": {}", view.title())),
        stages(view),
        Line::of(Style::Bold, format!("  {}", view.time())).with(Style::Dim, key(view)),
        Line::of(Style::Dim, format!("  {}", view.explanation())),
    ];
    lines.extend(connections(view, look));
    let table = Table::fitting(look);
    lines.extend([Line::default(), table.heading()]);
    // Where the kinds do not fit there is only their sum.
    if lines.len() + Kind::COUNT < look.height {
        lines.extend(Kind::ALL.map(|kind| table.row(kind.name(), &view.tally.of(kind))));
    }
    lines.push(table.row("all", &view.tally.total()));
    lines.truncate(look.height);
    lines.iter().map(|line| line.show(look)).collect()
}

/// What Ctrl-C would do.
const fn key(view: &View) -> &'static str {
    match (view.moment, view.phase) {
        (Moment::Loading(_), _) => " (Ctrl-C: now)",
        (Moment::Stopping(_), Phase::Draining) => " (Ctrl-C: cut)",
        _ => "",
    }
}

/// The stages in a row, the present one marked also without colour.
fn stages(view: &View) -> Line {
    let names: Vec<_> = match view.stop {
        Stop::Drain => PHASES.iter().map(|phase| phase.name()).collect(),
        Stop::Naive => vec!["serving", "killed"],
    };
    let here = view.stage();
    let mut line = Line::of(Style::Plain, " ");
    for (place, name) in names.iter().enumerate() {
        let gap = if place == 0 { "" } else { ">" };
        let (text, style) = match *name == here {
            true => (format!("[{name}]"), Style::Here),
            false => (format!(" {name} "), Style::Dim),
        };
        line = line.with(Style::Dim, gap).with(style, text);
    }
    line
}

/// Connections by state, HTTP/1.1 and HTTP/2 side by side.
fn connections(view: &View, look: &Look) -> Vec<Line> {
    let (h1, h2) = (&view.connections.h1, &view.connections.h2);
    let states = [
        ("fresh", h1.fresh, None),
        ("reading", h1.reading, None),
        ("active", h1.active, Some(h2.active)),
        ("idle", h1.idle, Some(h2.idle)),
        ("closing", h1.closing, Some(h2.closing)),
    ];
    let bars = look.width.saturating_sub(LABEL + 2 * NUMBER + 2).min(BARS_MAX);
    // There are fewer connections with HTTP/2, with more on each.
    let (wide, narrow) = (bars * 3 / 4, bars / 4);
    let heading = format!("connections {:<1$} HTTP/2", "  HTTP/1.1", wide + NUMBER - 2);
    let mut lines = vec![Line::of(Style::Dim, heading)];
    for (state, h1, h2) in states {
        let line = Line::of(Style::Plain, format!("  {state:<8}"));
        let line = cell(line, h1, view.most, wide, look);
        lines.push(match h2 {
            Some(h2) => cell(line.with(Style::Plain, "  "), h2, view.most, narrow, look),
            None => line,
        });
    }
    lines
}

/// A number and its bar, as wide as every other.
fn cell(line: Line, count: usize, most: usize, width: usize, look: &Look) -> Line {
    let length = (count * width).div_ceil(most.max(1)).min(width);
    let bar = if look.unicode { "█" } else { "#" };
    let style = if count == 0 { Style::Dim } else { Style::Plain };
    line.with(style, format!("{count:>5} "))
        .with(Style::Bar, bar.repeat(length))
        .with(Style::Plain, " ".repeat(width - length))
}

/// What the clients count, in as many columns as there is room for.
struct Table {
    columns: &'static [&'static str],
    width: usize,
}

impl Table {
    fn fitting(look: &Look) -> Table {
        let all = Table { columns: &["waiting", "served", "told", "refused", "raced"], width: 9 };
        if NAME + (all.columns.len() + 1) * all.width <= look.width {
            return all;
        }
        Table { columns: &["served", "raced"], width: 7 }
    }

    fn heading(&self) -> Line {
        let names = self.columns.iter().chain(&["lost"]);
        let names: String = names.map(|name| format!("{name:>0$}", self.width)).collect();
        Line::of(Style::Dim, format!("{:<NAME$}{names}", "clients"))
    }

    fn row(&self, name: &str, counts: &Counts) -> Line {
        let cells = self.columns.iter().map(|column| match *column {
            "waiting" => counts.under_way(),
            "served" => counts.served,
            "told" => counts.told,
            "refused" => counts.refused,
            _ => counts.raced,
        });
        let cells: String = cells.map(|cell| format!("{cell:>0$}", self.width)).collect();
        let lost = counts.lost();
        let style = if lost == 0 { Style::Good } else { Style::Bad };
        Line::of(Style::Plain, format!("  {name:<0$}{cells}", NAME - 2))
            .with(style, format!("{lost:>0$}", self.width))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::view::tests::view;

    const LOOK: Look = Look { width: 79, height: 23, colour: false, unicode: false };

    #[test]
    fn a_moment_of_a_drain_is_shown_whole_on_the_usual_terminal() {
        let mut view = view();
        view.connections.h1.active = 10;
        view.connections.h2.idle = 5;
        let lines = render(&view, &LOOK);
        assert_eq!(lines.len(), 23);
        assert_eq!(lines[0], "ebbtide demo: a proxy is told to stop while its clients go on");
        assert_eq!(lines[1], "  serving > closing >[draining]> cutting > finishing > stopped ");
        assert_eq!(
            lines[2],
            "  1.5 s since the signal, 8.5 s left to the hard deadline (Ctrl-C: cut)"
        );
        assert_eq!(lines[7].trim_end(), format!("  active     10 {:41}      0", "#".repeat(21)));
        assert!(lines[8].starts_with("  idle        0  "), "{}", lines[8]);
        assert!(lines[8].trim_end().ends_with("    5 ####"), "{}", lines[8]);
        assert_eq!(
            lines[11],
            "clients             waiting   served     told  refused    raced     lost"
        );
        assert!(lines[12].starts_with("  GET, keep-alive         1        2        0        0"));
        assert!(lines[22].starts_with("  all "), "{}", lines[22]);
    }

    #[test]
    fn no_line_is_wider_and_no_screen_higher_than_the_terminal() {
        for (width, height) in [(1, 1), (39, 13), (60, 20), (79, 23), (200, 60)] {
            for (colour, unicode) in [(false, false), (false, true)] {
                let look = Look { width, height, colour, unicode };
                let lines = render(&view(), &look);
                assert!(lines.len() <= height, "{width} x {height}");
                assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
            }
        }
    }

    #[test]
    fn what_is_lost_is_shown_however_narrow_the_terminal() {
        let lines = render(&view(), &Look { width: 39, height: 13, ..LOOK });
        assert_eq!(lines[11], "clients            served  raced   lost");
        assert_eq!(lines[12], "  all                   2      0      3");
    }

    #[test]
    fn without_colour_there_is_no_escape_and_with_it_each_one_ends() {
        let plain = render(&view(), &LOOK).concat();
        assert!(!plain.contains('\x1b'));
        let colour = render(&view(), &Look { colour: true, ..LOOK });
        let stripped: String = colour
            .concat()
            .split('\x1b')
            .map(|part| {
                part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |p| p.1)
            })
            .collect();
        assert_eq!(stripped, plain);
        assert!(
            colour
                .iter()
                .all(|line| line.matches("\x1b[0m").count() * 2 == line.matches('\x1b').count())
        );
    }

    #[test]
    fn a_killed_proxy_has_no_phases_and_no_deadline() {
        let mut view = view();
        view.stop = Stop::Naive;
        view.moment = Moment::Over(Duration::from_millis(100));
        let lines = render(&view, &LOOK);
        assert_eq!(lines[1], "  serving >[killed]");
        assert_eq!(lines[2], "  0.1 s after the signal");
    }
}
