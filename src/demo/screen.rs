//! Where the demo is shown: a terminal that is drawn anew, or plain lines.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::tcgetwinsize;

use super::plain::Plain;
use super::render::render;
use super::text::{Line, Look};
use super::view::View;

/// The least terminal that is drawn on.
const WIDTH_MIN: usize = 40;
const HEIGHT_MIN: usize = 14;

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// Where it is shown. Nobody to read it is no reason not to go on to the end.
#[derive(Debug)]
pub(super) enum Screen {
    Terminal(Terminal),
    Plain(Plain),
}

impl Screen {
    /// Stdout as it is, unless plain lines are wished for.
    pub(super) fn open(plain: bool) -> Screen {
        match look() {
            Some(_) if !plain => Screen::Terminal(Terminal::open()),
            _ => Screen::Plain(Plain::default()),
        }
    }

    /// Shows a moment.
    pub(super) fn show(&mut self, view: &View) {
        match self {
            Screen::Terminal(terminal) => terminal.show(view),
            Screen::Plain(plain) => {
                let lines = plain.lines(view);
                write(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
            }
        }
    }

    /// Shows what is left at the end, in place of everything before on a terminal.
    pub(super) fn end(&mut self, lines: &[Line]) {
        let mut colour = false;
        if let Screen::Terminal(terminal) = self {
            terminal.clear();
            colour = look().is_some_and(|look| look.colour);
        }
        // Nothing is drawn over it any more: long lines may go on in the next.
        let look = Look { width: usize::MAX, height: usize::MAX, colour, unicode: false };
        write(&lines.iter().map(|line| line.show(&look) + "\n").collect::<String>());
    }
}

/// What stdout can show, if it is a terminal that can be drawn on.
fn look() -> Option<Look> {
    let stdout = io::stdout();
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if !stdout.is_terminal() || set("TERM").is_none_or(|term| term == "dumb") {
        return None;
    }
    let size = tcgetwinsize(&stdout).ok()?;
    let (width, height) = (usize::from(size.ws_col), usize::from(size.ws_row));
    if width < WIDTH_MIN || height < HEIGHT_MIN {
        return None;
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    let unicode = locale.is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        name.contains("utf-8") || name.contains("utf8")
    });
    // The last column and the last row stay free: some terminals go on to the next.
    let (width, height) = (width - 1, height - 1);
    Some(Look { width, height, colour: set("NO_COLOR").is_none(), unicode })
}

/// A terminal on which the same lines are written over and over.
#[derive(Debug)]
pub(super) struct Terminal {
    drawn: usize,
    size: (usize, usize),
}

impl Terminal {
    fn open() -> Terminal {
        write(HIDE_CURSOR);
        Terminal { drawn: 0, size: (0, 0) }
    }

    fn show(&mut self, view: &View) {
        // A terminal that has gone, or become too small, is drawn on as it was.
        let Some(look) = look() else { return };
        let mut out = self.home();
        if self.drawn > 0 && self.size != (look.width, look.height) {
            // The old lines may have been wrapped: nobody knows where they are.
            out = "\x1b[H\x1b[2J".to_owned();
        }
        let lines = render(view, &look);
        for line in &lines {
            out.push_str(&format!("{line}\x1b[K\n"));
        }
        out.push_str("\x1b[J");
        write(&out);
        self.drawn = lines.len();
        self.size = (look.width, look.height);
    }

    /// To where the drawing begins.
    fn home(&self) -> String {
        match self.drawn {
            0 => String::new(),
            drawn => format!("\r\x1b[{drawn}A"),
        }
    }

    fn clear(&mut self) {
        write(&format!("{}\x1b[J{SHOW_CURSOR}", self.home()));
        self.drawn = 0;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        write(SHOW_CURSOR);
    }
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _nobody_reads = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
