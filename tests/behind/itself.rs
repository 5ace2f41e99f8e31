//! The tests notice what they are there for: each loss that a front and clients can see,
//! made on purpose.

use crate::apps::{gunicorn, puma};
use crate::fronts::{bare_nginx, nginx};
use crate::judge::{Asked, wrongs};
use crate::load::Diet;
use crate::pair::Which;
use crate::stage::Stage;

fn asked(what: &str, failure: Option<&str>) -> Asked {
    Asked { what: what.to_owned(), failure: failure.map(str::to_owned) }
}

#[test]
fn judge_has_nothing_against_requests_that_were_executed_once() {
    let both = [asked("POST 1", None), asked("GET 2", None)];
    assert_eq!(wrongs(&both, "GET 2\nPOST 1\n"), Vec::<String>::new());
}

#[test]
fn judge_names_what_is_wrong() {
    for (failure, executed, wrong) in [
        (Some("502"), "", "POST 1: 502; executed 0 times"),
        (Some("502"), "POST 1\n", "POST 1: 502; executed 1 times"),
        (None, "", "POST 1: answered and never executed"),
        (None, "POST 1\nPOST 1\n", "POST 1: executed 2 times"),
        (None, "POST 1\nGET 1\n", "GET 1: nobody asked for it"),
    ] {
        assert_eq!(wrongs(&[asked("POST 1", failure)], executed), [wrong]);
    }
    let twice = [asked("POST 1", None), asked("POST 1", None)];
    assert_eq!(wrongs(&twice, "POST 1\n"), ["POST 1: asked for twice"]);
}

/// nginx may not send a POST again that was under way.
#[test]
fn an_ebbtide_that_is_killed_loses_posts() {
    let mut stage = Stage::new(nginx, puma);
    let load = stage.load(Diet::SlowPosts, 5);
    stage.kill(Which::A);
    let wrongs = stage.verdict(load);
    assert!(wrongs.iter().any(|wrong| wrong.contains("502")), "{wrongs:?}");
}

/// Why there is `max_fails=0` in the recommended file, and 11 s in the test without it.
#[test]
fn nginx_as_it_comes_has_nobody_when_restarts_follow_each_other() {
    let mut stage = Stage::new(bare_nginx, gunicorn);
    let load = stage.load(Diet::Mixed, 6);
    stage.roll();
    let wrongs = stage.verdict(load);
    assert!(wrongs.iter().any(|wrong| wrong.contains("502")), "{wrongs:?}");
}
