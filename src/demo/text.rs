//! Lines of a screen: text in a few styles, cut to a width.

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As the terminal has it.
    Plain,
    /// What frames the rest.
    Dim,
    /// What to look at.
    Bold,
    /// Where things stand.
    Here,
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// The length says it.
    Bar,
}

impl Style {
    const fn escape(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Dim => "\x1b[2m",
            Style::Bold => "\x1b[1m",
            Style::Here => "\x1b[1;7m",
            Style::Good => "\x1b[1;32m",
            Style::Bad => "\x1b[1;31m",
            Style::Bar => "\x1b[36m",
        }
    }
}

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Columns that may be used.
    pub(super) width: usize,
    /// Rows that may be used.
    pub(super) height: usize,
    pub(super) colour: bool,
    /// Whether more than ASCII may be used.
    pub(super) unicode: bool,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    /// A line in one style.
    pub(super) fn of(style: Style, text: impl Into<String>) -> Line {
        Line::default().with(style, text)
    }

    /// Adds a piece.
    #[must_use]
    pub(super) fn with(mut self, style: Style, text: impl Into<String>) -> Line {
        self.0.push((style, text.into()));
        self
    }

    /// The line as it is written, at most `width` columns wide.
    pub(super) fn show(&self, look: &Look) -> String {
        let mut left = look.width;
        let mut out = String::new();
        for (style, text) in &self.0 {
            let cut: String = text.chars().take(left).collect();
            left -= cut.chars().count();
            if cut.is_empty() || !look.colour || *style == Style::Plain {
                out.push_str(&cut);
            } else {
                out.push_str(&format!("{}{cut}\x1b[0m", style.escape()));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_its_width_and_its_style_ends() {
        let line = Line::of(Style::Bold, "abc").with(Style::Plain, "def").with(Style::Bad, "g");
        let look = Look { width: 5, height: 9, colour: true, unicode: true };
        assert_eq!(line.show(&look), "\x1b[1mabc\x1b[0mde");
        assert_eq!(line.show(&Look { width: 9, colour: false, ..look }), "abcdefg");
        assert_eq!(line.show(&Look { width: 0, ..look }), "");
    }
}
