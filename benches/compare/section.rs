//! What a row has to say: a heading, how it was done, Markdown tables, and which aims
//! were kept.

use std::fmt;

use serde_json::{Value, json};

/// The result of one row.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) method: String,
    /// The first has a line for each proxy.
    pub(crate) tables: Vec<Table>,
    pub(crate) aims: Vec<Aim>,
    /// What ebbtide did wrong, if anything.
    pub(crate) faults: Vec<String>,
    /// All figures, by the name of the proxy.
    pub(crate) raw: Value,
}

/// A heading and lines of as many cells.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    header: Vec<String>,
    lines: Vec<Vec<String>>,
}

/// Something that ebbtide wants to be.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    pub(crate) what: String,
    pub(crate) got: f64,
    pub(crate) most: f64,
}

impl Aim {
    fn is_kept(&self) -> bool {
        self.got <= self.most
    }
}

impl Section {
    /// An empty table under a title.
    pub(crate) fn new(
        title: impl Into<String>,
        method: impl Into<String>,
        header: &[&str],
    ) -> Self {
        Self {
            title: title.into(),
            method: method.into(),
            tables: vec![Table::new(header.iter().map(|&column| column.to_owned()))],
            aims: Vec::new(),
            faults: Vec::new(),
            raw: json!({}),
        }
    }

    /// Adds the line of a proxy, and the figures behind it.
    pub(crate) fn add(&mut self, name: &str, cells: impl IntoIterator<Item = String>, raw: Value) {
        self.tables[0].add(std::iter::once(name.to_owned()).chain(cells));
        self.raw[name] = raw;
    }

    /// Adds an aim: what it is about must be at most `most`.
    pub(crate) fn aim(&mut self, what: impl Into<String>, got: f64, most: f64) {
        self.aims.push(Aim { what: what.into(), got, most });
    }

    pub(crate) fn json(&self) -> Value {
        let aims: Vec<_> = self.aims.iter().map(aim_json).collect();
        json!({ "title": self.title, "aims": aims, "faults": self.faults, "figures": self.raw })
    }
}

impl Table {
    pub(crate) fn new(header: impl IntoIterator<Item = String>) -> Self {
        Self { header: header.into_iter().collect(), lines: Vec::new() }
    }

    pub(crate) fn add(&mut self, line: impl IntoIterator<Item = String>) {
        self.lines.push(line.into_iter().collect());
    }

    fn widths(&self) -> Vec<usize> {
        let lines = || std::iter::once(&self.header).chain(&self.lines);
        let width = |column| lines().map(|line| length(cell(line, column))).max().unwrap_or(0);
        (0..self.header.len()).map(width).collect()
    }
}

fn aim_json(aim: &Aim) -> Value {
    json!({ "aim": aim.what, "got": aim.got, "most": aim.most, "kept": aim.is_kept() })
}

fn cell(line: &[String], column: usize) -> &str {
    line.get(column).map_or("", String::as_str)
}

fn length(text: &str) -> usize {
    text.chars().count()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let write_line = |f: &mut fmt::Formatter<'_>, line: &[String], fill: char| {
            for (column, &width) in widths.iter().enumerate() {
                let text = cell(line, column);
                let blank: String = std::iter::repeat_n(fill, width - length(text)).collect();
                write!(f, "| {text}{blank} ")?;
            }
            writeln!(f, "|")
        };
        write_line(f, &self.header, ' ')?;
        write_line(f, &[], '-')?;
        self.lines.iter().try_for_each(|line| write_line(f, line, ' '))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n\n{}", self.title, self.method)?;
        self.tables.iter().try_for_each(|table| write!(f, "\n{table}"))?;
        if !self.aims.is_empty() || !self.faults.is_empty() {
            writeln!(f)?;
        }
        for aim in &self.aims {
            let verdict = if aim.is_kept() { "kept" } else { "MISSED" };
            let places = if aim.most < 100.0 { 2 } else { 1 };
            let (what, got, most) = (&aim.what, aim.got, aim.most);
            writeln!(f, "- aim: {what}: {got:.places$}, at most {most:.places$}: {verdict}")?;
        }
        for fault in &self.faults {
            writeln!(f, "- FAULT: {fault}")?;
        }
        Ok(())
    }
}
