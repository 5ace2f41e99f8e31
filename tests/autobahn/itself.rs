//! The comparison sees what a relay does wrong.

use crate::echo;
use crate::faulty::{Fault, relay};
use crate::suite::run;
use crate::verdict::differences;

/// The small cases of text.
const CASES: &[&str] = &["1.1.[1-3]"];

fn seen(fault: Fault) -> Vec<String> {
    let echo = echo();
    let direct = run(&format!("ws://{}/", echo.place()), None, CASES);
    assert_eq!(direct.len(), 3, "{direct:?}");
    let through = run(&format!("ws://{}/", relay(&echo.place(), fault)), None, CASES);
    differences(&direct, &[("a relay", &through)])
}

#[test]
fn a_relay_that_changes_nothing_is_not_reproached() {
    assert_eq!(seen(|_| {}), Vec::<String>::new());
}

#[test]
fn a_frame_that_is_not_the_one_that_was_sent_is_seen_and_its_case_named() {
    // The last octet of a payload.
    let wrong = seen(|octets| {
        if octets.starts_with(&[0x81, 125]) {
            *octets.last_mut().expect("a frame") ^= 1;
        }
    });
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].starts_with("1.1.2 over a relay: FAILED"), "{wrong:?}");
}

#[test]
fn another_code_is_seen() {
    let wrong = seen(|octets| {
        if octets.starts_with(&[0x88, 2]) {
            octets[2..4].copy_from_slice(&1001_u16.to_be_bytes());
        }
    });
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(wrong[0].contains("WRONG CODE, 1001"), "{wrong:?}");
}
