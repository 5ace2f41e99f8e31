//! The checks meet a gateway that does nothing: whoever copies octets has to fail.

use std::collections::BTreeSet;
use std::net::{Shutdown, TcpListener, TcpStream};

use super::bench::Whom;
use super::score::Score;
use crate::subject::{Subject, Way};
use crate::support::wire::Place;
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

/// Copies octets to the origin and back, and thinks nothing of them.
fn copier(origin: &Place) -> Subject {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::Tcp(listener.local_addr().unwrap());
    let Place::Tcp(behind) = *origin else { panic!("an origin on TCP") };
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(origin) = TcpStream::connect(behind) else { return };
            for (from, to) in [(&client, &origin), (&origin, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    Subject::at(place.clone(), Way::Clear(place))
}
