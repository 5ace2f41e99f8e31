//! Rolling restarts that no client notices.
//!
//! `TESTS_BEHIND_RESTARTS` sets how often each ebbtide is restarted, 20 times unless it
//! says otherwise.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::apps::{self, gunicorn, puma};
use crate::fronts::{self, bare_nginx, haproxy, nginx};
use crate::load::{Diet, HOST, Pace};
use crate::pair::Which;
use crate::stage::Stage;
use crate::support::pause;

/// How often each ebbtide is restarted.
fn restarts() -> u64 {
    let set = std::env::var("TESTS_BEHIND_RESTARTS").ok();
    set.map_or(20, |value| value.parse().expect("TESTS_BEHIND_RESTARTS is a number"))
}

/// Held by those who keep the machine busy; alone by who measures half a second.
static BUSY: RwLock<()> = RwLock::new(());

fn among_others() -> RwLockReadGuard<'static, ()> {
    BUSY.read().unwrap_or_else(PoisonError::into_inner)
}

/// How many answers the clients have between two rounds: the fronts keep connections again.
const BETWEEN_ROUNDS: u64 = 60;

/// As often as that, one right after the other. In every other round few clients are at
/// work: then what the front keeps is used up by nobody, and an ebbtide has to close it.
fn roll_behind(front: fronts::Kind, app: apps::Kind, seed: u64) {
    let _others = among_others();
    let mut stage = Stage::new(front, app);
    let load = stage.load(Diet::Mixed, seed);
    for round in 0..restarts() {
        load.wait_served(BETWEEN_ROUNDS);
        load.pace(if round % 2 == 0 { Pace::Busy } else { Pace::Quiet });
        stage.roll();
        load.pace(Pace::Busy);
    }
    stage.assert_sound(load);
    let whoever = BTreeSet::from([(stage.source.clone(), HOST.to_owned())]);
    assert_eq!(stage.pair.clients(), whoever, "what the front says of the clients");
}

#[test]
fn nginx_as_recommended_hides_restarts_before_puma() {
    roll_behind(nginx, puma, 1);
}

#[test]
fn nginx_as_recommended_hides_restarts_before_gunicorn() {
    roll_behind(nginx, gunicorn, 2);
}

#[test]
fn haproxy_as_recommended_hides_restarts_before_puma() {
    roll_behind(haproxy, puma, 3);
}

#[test]
fn haproxy_as_recommended_hides_restarts_before_gunicorn() {
    roll_behind(haproxy, gunicorn, 4);
}

/// nginx puts a server that has refused once aside for 10 s. It counts whole seconds, so
/// these are up to 11, then it sends one request there and waits for the answer.
const NGINX_FORGETS_AFTER: Duration = Duration::from_secs(11);

#[test]
fn nginx_as_it_comes_hides_restarts_11_s_apart() {
    let _others = among_others();
    let mut stage = Stage::new(bare_nginx, puma);
    let load = stage.load(Diet::Mixed, 5);
    for round in 0..3 {
        for (which, other) in [(Which::A, Which::B), (Which::B, Which::A)] {
            if round > 0 || which == Which::B {
                pause(NGINX_FORGETS_AFTER);
                stage.wait_asked(other);
            }
            stage.restart(which);
        }
    }
    stage.assert_sound(load);
}

/// HAProxy has taken both off and still tries them, so that whoever asks now waits for the
/// first that comes back.
#[test]
fn haproxy_as_recommended_holds_requests_while_it_has_nobody() {
    let _others = among_others();
    let mut stage = Stage::new(haproxy, gunicorn);
    let load = stage.load(Diet::Mixed, 6);
    load.pace(Pace::Quiet);
    for (which, name) in [(Which::A, "a"), (Which::B, "b")] {
        stage.stop(which);
        stage.front.wait_said(&format!("Server ebbtide/{name} is DOWN"));
    }
    load.pace(Pace::Busy);
    for which in Which::BOTH {
        stage.start_again(which);
    }
    stage.assert_sound(load);
}

/// Nobody is at work any more when the first is stopped: what the front keeps idle is there
/// until somebody closes it.
fn stopped_in_silence(front: fronts::Kind) -> Stage {
    let _nobody = BUSY.write().unwrap_or_else(PoisonError::into_inner);
    let mut stage = Stage::new(front, puma);
    let load = stage.load(Diet::Mixed, 7);
    let asked = load.finish();
    stage.stop(Which::A);
    assert_eq!(stage.judge(&asked), Vec::<String>::new());
    stage
}

/// A request that meets a connection which ebbtide is just closing is lost, so nginx has to
/// be the first.
#[test]
fn nginx_as_recommended_closes_idle_connections_before_ebbtide_does() {
    let stage = stopped_in_silence(nginx);
    let [by_nginx, by_ebbtide] =
        ["/closed/client", "/closed/drain"].map(|place| stage.pair.counted(Which::A, place));
    assert!(by_nginx > 0 && by_ebbtide == 0, "{by_nginx} by nginx, {by_ebbtide} by ebbtide");
}

/// HAProxy keeps them longer, so it may ask for nothing more there when ebbtide closes them.
#[test]
fn haproxy_as_recommended_takes_a_server_off_before_idle_connections_are_closed() {
    let stage = stopped_in_silence(haproxy);
    let by_ebbtide = stage.pair.counted(Which::A, "/closed/drain");
    assert!(by_ebbtide > 0, "it had kept some");
    assert!(stage.front.has_said("Server ebbtide/a is DOWN"), "it knew when they were closed");
}
