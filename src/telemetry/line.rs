//! An event as one line: JSON for machines, words for a terminal.
//!
//! Owns the two forms. Promises that no value can break the line or steer the
//! terminal. Does not write anywhere.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::Value;

use super::clock::ClockText;
use super::event::{Event, Level};

pub(super) fn json_line(now: SystemTime, event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"ts\":\"");
    ClockText::default().push_rfc3339(now, &mut out);
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(event.level.name().as_bytes());
    out.extend_from_slice(b"\",\"event\":\"");
    out.extend_from_slice(event.name.as_bytes());
    // An elder and its successor write to the same place.
    let _ = write!(Octets(&mut out), "\",\"pid\":{}", std::process::id());
    for field in &event.fields {
        let _ = write!(Octets(&mut out), ",{}:{}", Value::from(&*field.key), field.value);
    }
    out.extend_from_slice(b"}\n");
    out
}

pub(super) fn text_line(now: SystemTime, event: &Event, colour: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    ClockText::default().push_time_of_day(now, &mut out);
    out.extend_from_slice(b"  ");
    let (word, code) = match event.level {
        Level::Info => ("", ""),
        Level::Warn => ("WARN", "\x1b[33m"),
        Level::Error => ("ERROR", "\x1b[31m"),
    };
    let mut text = Octets(&mut out);
    let _ = match (word, colour) {
        ("", _) => Ok(()),
        (word, true) => write!(text, "{code}{word}\x1b[0m  "),
        (word, false) => write!(text, "{word}  "),
    };
    let _ = text.write_str(event.name);
    for (place, field) in event.fields.iter().filter(|field| !field.detail).enumerate() {
        let space = if place == 0 { "  " } else { " " };
        let _ = write!(text, "{space}{}=", field.key);
        let _ = match &field.value {
            Value::String(value) => write_word(&mut text, value),
            Value::Object(_) => write_word(&mut text, &counts(&field.value)),
            value => write_word(&mut text, &value.to_string()),
        };
    }
    out.push(b'\n');
    out
}

/// A document of counts for a person: those that are not zero.
fn counts(value: &Value) -> String {
    fn collect(path: &str, value: &Value, shown: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    collect(&format!("{path}{dot}{key}"), value, shown);
                }
            }
            value if value.as_u64() == Some(0) => {}
            value => shown.push(format!("{path}:{value}")),
        }
    }
    let mut shown = Vec::new();
    collect("", value, &mut shown);
    if shown.is_empty() { "none".to_owned() } else { shown.join(",") }
}

/// Writes a value so that it cannot break the line or steer the terminal.
fn write_word(out: &mut Octets<'_>, value: &str) -> std::fmt::Result {
    let is_word = |c: char| !c.is_whitespace() && !c.is_control() && c != '"';
    let is_structure = value.starts_with(['{', '[']) && !value.contains(char::is_control);
    if is_structure || (!value.is_empty() && value.chars().all(is_word)) {
        return out.write_str(value);
    }
    write!(out, "{value:?}")
}

/// Formats into octets, which never fails.
struct Octets<'a>(&'a mut Vec<u8>);

impl Write for Octets<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_only_the_counts_that_are_not_zero() {
        let remaining = serde_json::json!({"h1": {"active": 2, "idle": 0}, "h2": {"idle": 0}});
        assert_eq!(counts(&remaining), "h1.active:2");
        assert_eq!(counts(&serde_json::json!({"h1": {"idle": 0}})), "none");
    }
}
