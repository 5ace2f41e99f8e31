//! Upstreams that are broken or hostile: the client gets a definite and honest outcome, and
//! nobody gets what belongs to somebody else.

mod cuts;
mod refused;

use std::sync::LazyLock;

use crate::gateway::bench::Whom;
use crate::gateway::score::{Score, Theme, compare};

/// Ours, with little patience, because silence is waited for; with enough for a busy machine.
const HASTY: Whom =
    Whom::Set(&[("upstream.first_byte_timeout", "1s"), ("upstream.between_bytes_timeout", "1s")]);

/// All checks.
pub(crate) const THEMES: [Theme; 11] = [
    Theme::cases("status_lines", include_str!("status_lines.txt")),
    Theme::cases("heads", include_str!("heads.txt")),
    Theme::cases("framing", include_str!("framing.txt")),
    Theme::cases("chunks", include_str!("chunks.txt")),
    Theme::cases("bodies", include_str!("bodies.txt")),
    Theme::cases("interim", include_str!("interim.txt")),
    Theme::cases("connections", include_str!("connections.txt")),
    Theme::cases("silence_in_heads", include_str!("silence_in_heads.txt")).of(HASTY),
    Theme::cases("silence_in_bodies", include_str!("silence_in_bodies.txt")).of(HASTY),
    Theme::scripted("cuts", &cuts::CHECKS),
    Theme::scripted("refused", &refused::CHECKS).of(Whom::Set(&[])),
];

static SCORE: LazyLock<Score> = LazyLock::new(|| Score::of_all(Whom::named(), &THEMES));

#[test]
fn every_broken_upstream_has_an_honest_outcome() {
    SCORE.assert_all_musts();
}

#[test]
fn the_scores_of_broken_upstreams_are_those_that_are_written_down() {
    compare("Broken upstreams", &SCORE, &THEMES);
}
