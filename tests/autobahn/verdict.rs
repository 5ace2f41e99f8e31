//! How cases have ended, and the comparison of two runs.

use std::collections::BTreeMap;

use serde_json::Value;

/// The number of a case, `12.1.3`.
pub(crate) type Number = Vec<u32>;

/// How a case has ended, in the suite's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What was answered.
    behavior: String,
    /// How the connection was closed.
    behavior_close: String,
    /// The code of the server's Close.
    code: Option<u64>,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
        write!(f, "{}, closed {}, {code}", self.behavior, self.behavior_close)
    }
}

/// Of each case.
pub(crate) type Verdicts = BTreeMap<Number, Verdict>;

/// Reads what the client wrote, a line for each case.
pub(crate) fn parse(lines: &str) -> Verdicts {
    let verdicts = lines.lines().map(|line| {
        let fields: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |name: &str| fields[name].as_str().expect("text").to_owned();
        let number = text("case").split('.').map(|n| n.parse().expect("a number")).collect();
        let (behavior, behavior_close) = (text("behavior"), text("behavior_close"));
        (number, Verdict { behavior, behavior_close, code: fields["code"].as_u64() })
    });
    verdicts.collect()
}

fn dotted(number: &Number) -> String {
    number.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

/// What ended in another way than without a proxy, or not at all.
pub(crate) fn differences(direct: &Verdicts, ways: &[(&str, &Verdicts)]) -> Vec<String> {
    let mut found = Vec::new();
    for (way, verdicts) in ways {
        for (number, expected) in direct {
            let got = verdicts.get(number);
            if got != Some(expected) {
                let got = got.map_or_else(|| "nothing".to_owned(), Verdict::to_string);
                found.push(format!("{} over {way}: {got}; direct: {expected}", dotted(number)));
            }
        }
    }
    found
}

/// The verdicts counted by category, and how many of each way differ.
pub(crate) fn table(direct: &Verdicts, ways: &[(&str, &Verdicts)]) -> String {
    let mut text = format!("{:9}{:>6}  {:40}", "category", "cases", "without a proxy");
    for (way, _) in ways {
        text += &format!("  differ over {way}");
    }
    let categories: Vec<u32> = direct.keys().filter_map(|number| number.first().copied()).collect();
    let first = categories.iter().min().copied().unwrap_or(0);
    for category in first..=categories.iter().max().copied().unwrap_or(0) {
        let ours: Verdicts = direct
            .iter()
            .filter(|(number, _)| number.first() == Some(&category))
            .map(|(number, verdict)| (number.clone(), verdict.clone()))
            .collect();
        if ours.is_empty() {
            continue;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for verdict in ours.values() {
            *counts.entry(&verdict.behavior).or_default() += 1;
        }
        let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        text += &format!("\n{category:<9}{:>6}  {:40}", ours.len(), counts.join(", "));
        for way in ways {
            text += &format!("  {:>w$}", differences(&ours, &[*way]).len(), w = 12 + way.0.len());
        }
    }
    text
}
