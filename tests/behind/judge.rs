//! What the clients asked for, against what the app executed.

use std::collections::{HashMap, HashSet};

/// A request, as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// What the app writes down of it: `METHOD ID`.
    pub(crate) what: String,
    /// What there was instead of the right answer.
    pub(crate) failure: Option<String>,
}

/// What is wrong: a client that was not answered rightly, a request that was executed
/// twice, or not although it was answered, or that nobody had asked for. `executed` is
/// the record of the app, a line for each request.
pub(crate) fn wrongs(asked: &[Asked], executed: &str) -> Vec<String> {
    let mut times: HashMap<&str, u64> = HashMap::new();
    for line in executed.lines() {
        *times.entry(line).or_default() += 1;
    }
    let mut known = HashSet::new();
    let mut wrongs = Vec::new();
    for Asked { what, failure } in asked {
        let times = times.get(what.as_str()).copied().unwrap_or(0);
        if !known.insert(what.as_str()) {
            wrongs.push(format!("{what}: asked for twice"));
        }
        if let Some(failure) = failure {
            wrongs.push(format!("{what}: {failure}; executed {times} times"));
        } else if times == 0 {
            wrongs.push(format!("{what}: answered and never executed"));
        }
        if times > 1 {
            wrongs.push(format!("{what}: executed {times} times"));
        }
    }
    let unasked = times.keys().filter(|what| !known.contains(*what));
    wrongs.extend(unasked.map(|what| format!("{what}: nobody asked for it")));
    wrongs
}
