//! The checks meet a gateway that does nothing: whoever copies octets has to fail.

use std::collections::BTreeSet;

use super::bench::Whom;
use super::score::Score;
use crate::copier::copier;
use crate::{duties, upstreams};

/// What none can hold that does not look at what it forwards, over HTTP/1.
const NEVER: [&str; 32] = [
    "request.connection-nominates",
    "request.close-is-not-passed-on",
    "request.te-is-for-one-hop",
    "response.connection-nominates",
    "response.keep-alive",
    "response.upgrade",
    "via.is-added-to-requests",
    "max-forwards.zero-options",
    "max-forwards.counted-down-options",
    "date.is-added",
    "204.length-is-not-passed",
    "trailer.set-cookie-is-dropped",
    "trailer.forbidden-in-a-request",
    "version.of-a-request-that-was-http10",
    "version.of-a-response-that-was-http10",
    "http10.gets-no-chunks",
    "http10.is-closed",
    "target.absolute-form-becomes-a-path",
    "target.options-of-an-authority",
    "target.asterisk-of-get",
    "fields.space-before-the-colon-of-a-response",
    "fields.underscores",
    "interim.never-to-http10",
    "switching.unasked",
    "status-line.garbage",
    "status-line.four-digits",
    "field.nul-in-value",
    "length.twice-different",
    "coding.chunked-twice",
    "extra.response-behind-a-length",
    "interim.101-unasked",
    "cut.until-close-reset",
];

#[test]
fn who_copies_octets_fails() {
    let held = [&duties::THEMES[..], &upstreams::THEMES[..]]
        .map(|themes| Score::of_all(Whom::Other(copier), themes));
    let passed = |name: &&&str| held.iter().all(|score| score.held(name));
    let passed: Vec<_> = NEVER.iter().filter(passed).collect();
    assert!(passed.is_empty(), "{passed:?}");
    let names: BTreeSet<_> = NEVER.iter().collect();
    assert_eq!(names.len(), NEVER.len(), "each once");
}
