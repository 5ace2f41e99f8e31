//! The layering as data, held by a test: which room of `src/` may use which, and a
//! few conventions that no lint knows.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the source fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A room and the rooms it may use. `*` is every room.
const ROOMS: [(&str, &[&str]); 19] = [
    ("limits", &[]),
    ("manual", &["telemetry"]),
    ("drain", &["limits"]),
    ("telemetry", &["handoff", "limits", "drain"]),
    ("tls", &["limits"]),
    ("handoff", &["limits"]),
    ("config", &["tls", "stream", "limits"]),
    ("net", &["handoff", "tls", "drain", "limits", "config", "telemetry"]),
    ("http1", &["limits"]),
    ("stream", &["handoff", "limits"]),
    ("upstream", &["http1", "net", "tls", "config", "drain", "telemetry", "limits"]),
    (
        "proxy",
        &[
            "handoff",
            "upstream",
            "stream",
            "http1",
            "net",
            "drain",
            "config",
            "telemetry",
            "limits",
        ],
    ),
    (
        "serve",
        &[
            "proxy",
            "handoff",
            "upstream",
            "stream",
            "http1",
            "net",
            "tls",
            "drain",
            "config",
            "telemetry",
            "limits",
        ],
    ),
    ("lifecycle", &["handoff", "drain", "telemetry", "config", "limits"]),
    ("admin", &["handoff", "lifecycle", "upstream", "drain", "telemetry", "config", "limits"]),
    ("demo", &["admin", "http1", "drain", "telemetry", "limits"]),
    ("server", &["*"]),
    ("cli", &["config", "drain", "demo", "handoff", "server", "admin", "telemetry", "limits"]),
    ("main", &["*"]),
];

/// The only room that may say `unsafe`.
const UNSAFE_ROOM: &str = "handoff";

/// The most lines of a file: above it, a second thing lives there.
const LINES_MAX: usize = 600;

#[test]
fn every_room_uses_only_the_rooms_it_may() {
    assert_none(&each_file(|file| forbidden_edges(&file.room, &file.code)));
}

#[test]
fn every_room_is_in_the_table() {
    assert_none(&each_file(|file| {
        let known = ROOMS.iter().any(|(room, _)| *room == file.room) || file.room == "lib";
        if known { Vec::new() } else { vec![format!("room `{}` is not in the table", file.room)] }
    }));
}

#[test]
fn only_the_handoff_may_be_unsafe() {
    assert_none(&each_file(|file| {
        if file.room == UNSAFE_ROOM { Vec::new() } else { words(&file.code, "unsafe") }
    }));
}

#[test]
fn no_task_is_spawned_that_nobody_counts() {
    assert_none(&each_file(|file| calls(&file.code, "tokio::spawn(")));
}

#[test]
fn every_file_says_at_its_top_what_it_is() {
    assert_none(&each_file(|file| {
        if file.text.starts_with("//!") { Vec::new() } else { vec!["no `//!` at the top".into()] }
    }));
}

#[test]
fn every_file_is_about_one_thing() {
    assert_none(&each_file(|file| {
        let lines = file.text.lines().count();
        if lines <= LINES_MAX { Vec::new() } else { vec![format!("{lines} lines")] }
    }));
}

#[test]
fn the_table_has_no_circle_below_the_root() {
    for (room, uses) in ROOMS.iter().filter(|(room, _)| !["server", "main"].contains(room)) {
        for used in *uses {
            let back = allowed(used);
            assert!(!back.contains(room), "{room} and {used} use each other");
        }
    }
}

mod the_scanner {
    use super::*;

    #[test]
    fn sees_a_plain_path() {
        let found = forbidden_edges("drain", &strip("fn f() { crate::proxy::go() }"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("proxy"), "{found:?}");
    }

    #[test]
    fn sees_every_room_of_a_group() {
        let code = strip("use crate::{limits::MAX, net::{Conn, Io}, serve};");
        let found = forbidden_edges("http1", &code);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn lets_allowed_edges_and_the_own_room_pass() {
        let code = strip("use crate::drain::Phase; use crate::telemetry::x; use crate::limits;");
        assert_eq!(forbidden_edges("telemetry", &code), Vec::<String>::new());
    }

    #[test]
    fn sees_the_library_used_by_its_name() {
        let code = strip("use ebbtide::proxy::Go;");
        assert_eq!(forbidden_edges("cli", &code).len(), 1);
    }

    #[test]
    fn leaves_out_comments_strings_and_tests() {
        let code = strip(
            "// crate::serve\n/* unsafe */ const A: &str = \"crate::serve unsafe \\\" x\";\n\
             const B: char = '\"'; const C: &str = r#\"crate::serve \" \"#;\n\
             #[cfg(test)]\nmod tests { use crate::serve::x; fn f() { unsafe {} } }\n",
        );
        assert_eq!(forbidden_edges("drain", &code), Vec::<String>::new());
        assert_eq!(words(&code, "unsafe"), Vec::<String>::new());
    }

    #[test]
    fn goes_on_after_a_test_module() {
        let code = strip("#[cfg(test)]\nmod tests { fn a() {} }\nuse crate::serve::x;");
        assert_eq!(forbidden_edges("drain", &code).len(), 1);
    }

    #[test]
    fn sees_unsafe_and_spawn() {
        assert_eq!(words(&strip("fn f() { unsafe { g() } }"), "unsafe").len(), 1);
        assert_eq!(words(&strip("#![deny(unsafe_code)]"), "unsafe").len(), 0);
        assert_eq!(calls(&strip("tokio::spawn(async {});"), "tokio::spawn(").len(), 1);
    }
}

struct SourceFile {
    room: String,
    text: String,
    /// Without comments, the contents of strings, and test modules.
    code: String,
}

/// What `look` finds wrong, file by file.
fn each_file(look: impl Fn(&SourceFile) -> Vec<String>) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    assert!(paths.len() > 10, "the source is where it was");
    let mut found = Vec::new();
    for path in paths {
        let short = path.strip_prefix(&root).unwrap().to_owned();
        let first = short.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let room = first.trim_end_matches(".rs").to_owned();
        let file = SourceFile { room, code: strip(&text), text };
        found.extend(look(&file).into_iter().map(|what| format!("{}: {what}", short.display())));
    }
    found
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            paths.push(path);
        }
    }
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn allowed(room: &str) -> &'static [&'static str] {
    ROOMS.iter().find(|(name, _)| *name == room).map_or(&[], |(_, uses)| uses)
}

/// The edges of `code` that the table does not have.
fn forbidden_edges(room: &str, code: &str) -> Vec<String> {
    let uses = allowed(room);
    if room == "lib" || uses == ["*"] {
        return Vec::new();
    }
    let used = used_rooms(code);
    let wrong = used.iter().filter(|used| *used != room && !uses.contains(&used.as_str()));
    wrong.map(|used| format!("`{room}` uses `{used}`")).collect()
}

/// The rooms named after `crate::` or `ebbtide::`, groups taken apart.
fn used_rooms(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for root in ["crate::", "ebbtide::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].chars().next_back().is_some_and(is_word) {
                continue;
            }
            let rest = &code[at + root.len()..];
            rooms.extend(match rest.strip_prefix('{') {
                Some(group) => group_heads(group),
                None => vec![word(rest)],
            });
        }
    }
    // Modules only: a macro or an item of the crate's root is no room.
    rooms.retain(|name| name.chars().next().is_some_and(|c| c.is_ascii_lowercase()));
    rooms.remove("self");
    rooms
}

/// The first word of each member of a `{…}` group, at its outermost level.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = vec![word(group.trim_start())];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(word(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| is_word(*c)).collect()
}

/// The lines on which `needle` stands as a word.
fn words(code: &str, needle: &str) -> Vec<String> {
    let found = code.match_indices(needle).filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        let after = code[at + needle.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    });
    found.map(|(at, _)| place(code, at, needle)).collect()
}

/// The lines on which `needle` stands.
fn calls(code: &str, needle: &str) -> Vec<String> {
    code.match_indices(needle).map(|(at, _)| place(code, at, needle)).collect()
}

fn place(code: &str, at: usize, needle: &str) -> String {
    format!("line {}: `{needle}`", code[..at].matches('\n').count() + 1)
}

/// The code without comments, without what strings say, and without test modules;
/// lines stay where they are.
fn strip(text: &str) -> String {
    without_tests(&without_comments_and_strings(text))
}

fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = raw_string(rest, out.chars().next_back()) {
            len
        } else if c == '"' {
            quoted(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    out
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str, before: Option<char>) -> Option<usize> {
    let hashes = text.strip_prefix('r')?.chars().take_while(|c| *c == '#').count();
    if before.is_some_and(|c| is_word(c) && c != 'b') {
        return None;
    }
    let open = 1 + hashes;
    text[open..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text[open + 1..].find(&close)?;
    Some(open + 1 + end + close.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(at) = out[from..].find("#[cfg(test)]").map(|at| at + from) {
        let Some(end) = item_end(&out, at) else { break };
        let blank: String = out[at..end].chars().filter(|c| *c == '\n').collect();
        out.replace_range(at..end, &blank);
        from = at;
    }
    out
}

/// The end of the item that begins after an attribute: its closing brace, or `;`.
fn item_end(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, c) in code[at..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + offset + 1);
                }
            }
            ';' if depth == 0 => return Some(at + offset + 1),
            _ => {}
        }
    }
    None
}
