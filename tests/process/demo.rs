//! The demo's own clients and app, around the real binary.

use std::time::Duration;

use ebbtide::demo::app::App;
use ebbtide::demo::clients::{Clients, Counts, Kind, Mix, Tally, Way};
use rustix::process::Signal;

use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{PATIENCE, within};

/// Clients of each kind, none of whose requests takes longer than a second.
fn mix() -> Mix {
    let mut mix = Kind::ALL.iter().fold(Mix::none(), |mix, kind| mix.with(*kind, 3));
    mix.long = Duration::from_secs(1);
    mix
}

struct Scene {
    app: App,
    proxy: Proxy,
    clients: Clients,
}

impl Scene {
    /// All kinds of clients at work, each of which has been served.
    fn set() -> Scene {
        let app = App::start().unwrap();
        let launch = Launch::before_addr(&app.addr().to_string());
        let proxy = launch.arg("--access-log").arg("off").start();
        let Place::Tcp(addr) = proxy.place() else { panic!("a TCP listener") };
        let clients = Clients::start(addr, app.ledger(), mix()).unwrap();
        within(PATIENCE, "every kind to be served", || {
            let tally = clients.tally();
            Kind::ALL.iter().all(|kind| tally.of(*kind).served > 0).then_some(())
        });
        Scene { app, proxy, clients }
    }
}

fn each(tally: &Tally, check: impl Fn(Kind, Counts)) {
    for kind in Kind::ALL {
        let counts = tally.of(kind);
        assert_eq!(counts.under_way(), 0, "{kind:?}: {counts:?}");
        check(kind, counts);
    }
}

#[test]
fn demo_clients_lose_nothing_in_a_stop_and_are_refused_after_it() {
    let Scene { app, proxy, clients } = Scene::set();
    proxy.terminate();
    proxy.wait_clean_exit();
    within(PATIENCE, "everybody to be refused", || {
        let tally = clients.tally();
        Kind::ALL.iter().all(|kind| tally.of(*kind).refused > 0).then_some(())
    });
    let tally = clients.finish();
    each(&tally, |kind, counts| assert_eq!(counts.lost(), 0, "{kind:?}: {counts:?}"));
    assert_eq!(app.ledger().repeated(), 0);
}

#[test]
fn demo_clients_see_what_is_lost_when_the_proxy_is_killed() {
    let Scene { app: _app, proxy, clients } = Scene::set();
    proxy.signal(Signal::KILL);
    proxy.wait_gone();
    let tally = clients.finish();
    let lost = |kind: Kind, way: Way| tally.of(kind).lost[way as usize];
    for kind in [Kind::SlowGet, Kind::SlowPost, Kind::Long, Kind::Upload, Kind::Download, Kind::H2]
    {
        assert!(tally.of(kind).lost() > 0, "{kind:?}: {:?}", tally.of(kind));
    }
    assert!(lost(Kind::Download, Way::Truncated) > 0);
    assert!(tally.of(Kind::Long).executed > 0);
    each(&tally, |kind, counts| assert!(counts.executed <= counts.lost(), "{kind:?}"));
}
