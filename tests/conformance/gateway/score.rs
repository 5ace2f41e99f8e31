//! What held and what did not.

use std::fmt::Write as _;
use std::panic::catch_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use super::bench::{Bench, Whom, said};
use super::case::{Case, Level, Over, parse};
use crate::scores;
use crate::subject::{Elsewhere, Kind};

/// A check that is Rust.
pub(crate) struct Scripted {
    /// What it is called; ends with ` over h2` if that is what the client speaks.
    pub(crate) name: &'static str,
    /// How much is asked for it.
    pub(crate) level: Level,
    /// By whom and why.
    pub(crate) why: &'static str,
    /// The check; an error says what came instead.
    pub(crate) run: fn(&mut Bench) -> Result<(), String>,
}

/// Checks that share a bench.
pub(crate) struct Theme {
    name: &'static str,
    /// Somebody else than who is asked the rest.
    whom: Option<Whom>,
    checks: Checks,
}

/// Where checks stand.
#[derive(Clone, Copy)]
enum Checks {
    /// In the text of a file.
    Cases(&'static str),
    /// In Rust.
    Scripted(&'static [Scripted]),
}

impl Theme {
    /// The cases of a file.
    pub(crate) const fn cases(name: &'static str, text: &'static str) -> Theme {
        Theme { name, whom: None, checks: Checks::Cases(text) }
    }

    /// Checks in Rust.
    pub(crate) const fn scripted(name: &'static str, checks: &'static [Scripted]) -> Theme {
        Theme { name, whom: None, checks: Checks::Scripted(checks) }
    }

    /// The same, put to ours with other settings.
    pub(crate) const fn of(self, whom: Whom) -> Theme {
        Theme { whom: Some(whom), ..self }
    }
}

/// A check that did not hold.
#[derive(Clone, Debug)]
struct Failed {
    name: String,
    level: Level,
    why: String,
    wrong: String,
}

/// How a proxy did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    /// How many checks of each level there were, theme by theme, and what did not hold.
    themes: Vec<(&'static str, [usize; 3], Vec<Failed>)>,
    /// How long the theme took that took longest.
    slowest: Option<(Duration, &'static str)>,
}

impl Score {
    /// Runs the cases of a file. Without a bench none of them holds.
    fn cases(&mut self, bench: &mut Result<Bench, String>, cases: &[Case]) {
        for case in cases {
            for over in &case.over {
                let name = match over {
                    Over::H1 => case.name.clone(),
                    Over::H2 => format!("{} over h2", case.name),
                };
                let spared = bench.as_ref().is_ok_and(|bench| {
                    let others = bench.proxy.is_none();
                    case.ours && others || *over == Over::H2 && !bench.speaks_h2
                });
                if spared {
                    continue;
                }
                let held = on(bench, |bench| bench.run(case, *over));
                self.note(&name, case.level, &case.why, held);
            }
        }
    }

    /// Runs themes side by side, each on a bench of its own; one after another before a proxy
    /// that is there already and knows only one origin.
    pub(crate) fn of_all(whom: Whom, themes: &[Theme]) -> Score {
        let asked = themes.iter().filter(|theme| theme.whom.is_none() || whom.is_ours());
        if matches!(whom, Whom::Elsewhere) {
            static ONE_ORIGIN: Mutex<()> = Mutex::new(());
            let _one = ONE_ORIGIN.lock().unwrap_or_else(PoisonError::into_inner);
            return asked.fold(Score::default(), |all, theme| all.and(Score::of_one(whom, theme)));
        }
        std::thread::scope(|scope| {
            let run = |theme| scope.spawn(move || Score::of_one(whom, theme));
            let running: Vec<_> = asked.map(run).collect();
            let scores = running.into_iter().map(|theme| theme.join().expect("a run to its end"));
            scores.fold(Score::default(), Score::and)
        })
    }

    fn of_one(whom: Whom, theme: &Theme) -> Score {
        let whom = theme.whom.unwrap_or(whom);
        let start = Instant::now();
        let mut bench = catch_unwind(|| Bench::new(whom)).map_err(|panic| said(&*panic));
        let themes = vec![(theme.name, [0; 3], Vec::new())];
        let mut score = Score { themes, slowest: None };
        match theme.checks {
            Checks::Cases(text) => score.cases(&mut bench, &parse(theme.name, text)),
            Checks::Scripted(checks) => score.scripted(&mut bench, checks),
        }
        score.slowest = Some((start.elapsed(), theme.name));
        score
    }

    fn and(mut self, other: Score) -> Score {
        self.themes.extend(other.themes);
        self.slowest = self.slowest.max(other.slowest);
        self
    }

    /// Runs checks that are Rust.
    fn scripted(&mut self, bench: &mut Result<Bench, String>, checks: &[Scripted]) {
        for check in checks {
            let over_h2 = check.name.ends_with(" over h2");
            if over_h2 && bench.as_ref().is_ok_and(|bench| !bench.speaks_h2) {
                continue;
            }
            let held = on(bench, |bench| bench.guarded(check.run));
            self.note(check.name, check.level, check.why, held);
        }
    }

    fn note(&mut self, name: &str, level: Level, why: &str, held: Result<(), String>) {
        let Some((_, asked, failed)) = self.themes.last_mut() else { return };
        asked[level as usize] += 1;
        if let Err(wrong) = held {
            let (name, why) = (name.to_owned(), why.to_owned());
            failed.push(Failed { name, level, why, wrong });
        }
    }

    /// How many of this level held, and how many were asked, of one theme or of all.
    fn of(&self, theme: Option<&str>, level: Level) -> (usize, usize) {
        let mut sum = (0, 0);
        for (name, asked, failed) in &self.themes {
            if theme.is_none_or(|theme| theme == *name) {
                let wrong = failed.iter().filter(|failed| failed.level == level).count();
                sum.0 += asked[level as usize] - wrong;
                sum.1 += asked[level as usize];
            }
        }
        sum
    }

    fn cell(&self, theme: Option<&str>) -> String {
        let levels = LEVELS.map(|level| (level, self.of(theme, level)));
        let told = levels.iter().filter(|(_, (_, asked))| *asked > 0);
        let told = told.map(|(level, (held, asked))| format!("{} {held}/{asked}", level.name()));
        told.collect::<Vec<_>>().join(", ")
    }

    /// Whether a check held, by its name.
    pub(crate) fn held(&self, name: &str) -> bool {
        !self.themes.iter().any(|(.., failed)| failed.iter().any(|failed| failed.name == name))
    }

    /// Everything in words.
    pub(crate) fn told(&self) -> String {
        let mut out = format!("{}; the slowest: {:?}", self.cell(None), self.slowest);
        for Failed { name, level, why, wrong } in self.themes.iter().flat_map(|(.., f)| f) {
            let _ = write!(out, "\n{} {name}: {wrong}\n     ({why})", level.name());
        }
        out
    }

    /// # Panics
    /// When something that has to hold does not.
    #[track_caller]
    pub(crate) fn assert_all_musts(&self) {
        let (held, asked) = self.of(None, Level::Must);
        assert!(asked > 0, "nothing was asked");
        assert_eq!(held, asked, "{}", self.told());
        println!("{}", self.told());
    }
}

const LEVELS: [Level; 3] = [Level::Must, Level::Should, Level::May];

/// The lines of a table: a row for each theme, a column for each subject.
fn table(columns: &[(String, &Score)]) -> String {
    let Some((_, first)) = columns.first() else { return String::new() };
    let heads: Vec<&str> = columns.iter().map(|(label, _)| label.as_str()).collect();
    let mut lines = vec![format!("| theme | checks | {} |", heads.join(" | "))];
    lines.push(format!("| --- | --- {}|", "| --- ".repeat(heads.len())));
    let themes = first.themes.iter().map(|(name, ..)| Some(*name));
    for theme in themes.chain([None]) {
        let count: usize = LEVELS.iter().map(|level| first.of(theme, *level).1).sum();
        let cells: Vec<String> = columns.iter().map(|(_, score)| score.cell(theme)).collect();
        lines.push(format!("| {} | {count} | {} |", theme.unwrap_or("all"), cells.join(" | ")));
    }
    lines.join("\n")
}

/// Puts the same checks to the others, and keeps the scores.
#[track_caller]
pub(crate) fn compare(section: &str, ours: &Score, themes: &[Theme]) {
    if Elsewhere::named().is_some() {
        println!("no scores: the environment names another server");
        return;
    }
    let peers = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Ebbtide);
    let peers: Vec<(String, Score)> = std::thread::scope(|scope| {
        let run = |kind| scope.spawn(move || Score::of_all(Whom::Kind(kind), themes));
        let running: Vec<_> = peers.map(|kind| (kind.label(), run(kind))).collect();
        let score = |thread: ScopedJoinHandle<'_, Score>| thread.join().expect("a run to its end");
        running.into_iter().map(|(label, thread)| (label, score(thread))).collect()
    });
    let mut columns = vec![(Kind::Ebbtide.label(), ours)];
    columns.extend(peers.iter().map(|(label, score)| (label.clone(), score)));
    for (label, score) in &columns {
        println!("{label}: {}\n", score.told());
    }
    scores::keep(section, &table(&columns));
}

fn on(
    bench: &mut Result<Bench, String>,
    run: impl FnOnce(&mut Bench) -> Result<(), String>,
) -> Result<(), String> {
    match bench {
        Ok(bench) => run(bench),
        Err(wrong) => Err(format!("the proxy does not start: {wrong}")),
    }
}
