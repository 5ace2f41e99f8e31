//! What a gateway owes to both of its sides (RFC 9110, 9112, 9113).

mod choreography;

use std::sync::LazyLock;

use crate::gateway::bench::Whom;
use crate::gateway::score::{Score, Theme, compare};

/// Ours, before clients that it trusts.
const TRUSTING: Whom = Whom::Set(&[("trusted_proxies", "127.0.0.0/8")]);

/// All checks.
pub(crate) const THEMES: [Theme; 12] = [
    Theme::cases("hop_by_hop", include_str!("hop_by_hop.txt")),
    Theme::cases("via", include_str!("via.txt")),
    Theme::cases("framing", include_str!("framing.txt")),
    Theme::cases("versions", include_str!("versions.txt")),
    Theme::cases("targets", include_str!("targets.txt")),
    Theme::cases("fields", include_str!("fields.txt")),
    Theme::cases("interim", include_str!("interim.txt")),
    Theme::cases("forwarding", include_str!("forwarding.txt")),
    Theme::cases("statuses", include_str!("statuses.txt")),
    Theme::cases("connections", include_str!("connections.txt")),
    Theme::scripted("choreography", &choreography::CHECKS),
    Theme::cases("trust", include_str!("trust.txt")).of(TRUSTING),
];

static SCORE: LazyLock<Score> = LazyLock::new(|| Score::of_all(Whom::named(), &THEMES));

#[test]
fn every_duty_of_a_gateway_is_done() {
    SCORE.assert_all_musts();
}

#[test]
fn the_scores_of_duties_are_those_that_are_written_down() {
    compare("Duties of a gateway", &SCORE, &THEMES);
}
