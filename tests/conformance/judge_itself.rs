//! The judge meets what must fail: a forwarder that copies octets, and a corpus that
//! says nothing twice.

use std::collections::BTreeSet;

use crate::copier::copier;
use crate::corpus::{self, Case, Expect, Script, load};
use crate::exceptions;
use crate::frames::Frames;
use crate::judge::Verdict;
use crate::raw::Raw;
use crate::run::{Whom, run};

#[test]
fn who_copies_octets_is_unsafe() {
    let cases = load::<Raw>("requests");
    let verdicts = run(&Whom::Other(|origin| copier(origin.place())), &cases);
    let of = |expect: Expect, is: fn(&Verdict) -> bool| {
        let named = cases.iter().filter(|case| case.promise.expect(false) == expect);
        let (all, so): (Vec<_>, Vec<_>) = (
            named.clone().collect(),
            named.filter(|case| is(&verdicts[&case.name])).map(|case| &case.name).collect(),
        );
        (all.len(), so)
    };
    let (rejects, found) = of(Expect::Reject, |verdict| matches!(verdict, Verdict::Unsafe(_)));
    assert!(found.len() * 10 >= rejects * 8, "{} of {rejects}: {found:?}", found.len());
    let (accepts, passed) = of(Expect::Accept, |verdict| *verdict == Verdict::Ok);
    assert!(passed.len() * 2 >= accepts, "{} of {accepts}: {passed:?}", passed.len());
}

#[test]
fn the_corpus_is_sound() {
    let (raw, frames) = (load::<Raw>("requests"), load::<Frames>("h2"));
    let told = format!("There are {} of HTTP/1 and {} of HTTP/2", raw.len(), frames.len());
    assert!(include_str!("main.rs").contains(&told), "main.rs says otherwise: {told}");
    let names: Vec<&String> =
        raw.iter().map(|case| &case.name).chain(frames.iter().map(|case| &case.name)).collect();
    let mut seen = BTreeSet::new();
    let twice: Vec<&&String> = names.iter().filter(|name| !seen.insert(**name)).collect();
    assert!(twice.is_empty(), "twice: {twice:?}");
    for name in exceptions::read().keys() {
        assert!(seen.contains(name), "an exception for no case: {name}");
    }
}

#[test]
fn a_case_file_that_is_wrong_is_named_with_its_line() {
    let good = "case a\nwhy long enough to say\nexpect reject\n> x\n";
    assert_eq!(read(good).unwrap().len(), 1);
    for (text, place) in [
        ("> x\n", "f:1"),
        ("case a\nwhy long enough to say\n> x\n", "f:1: a"),
        ("case a\nexpect reject\n> x\n", "f:1: a"),
        ("case a\nwhy long enough to say\nexpect reject\n", "f:1: a"),
        ("case a\nwhy long enough to say\nexpect safe\n> x\n", "f:1: a"),
        ("case a\nexpect maybe\n", "f:2"),
        ("case a\nexpect safe\nexpect safe\n", "f:3"),
        ("case a\n> \\q\n", "f:2"),
        ("case a\nfoo\n", "f:2"),
        ("case A\nwhy long enough to say\nexpect reject\n> x\n", "f:1: A"),
    ] {
        let wrong = read(text).unwrap_err();
        assert!(wrong.starts_with(place), "{text:?}: {wrong}");
    }
}

fn read(text: &str) -> Result<Vec<Case<Raw>>, String> {
    corpus::read::<Raw>(text, "t", "f").inspect(|cases| {
        assert!(cases.iter().all(|case| !case.script.is_empty()));
    })
}
