//! The descriptor store: the manager keeps the listeners, so that not even a crash
//! refuses anybody.

use crate::service::{Plan, Service, UNIT};
use crate::support::client::Client;
use crate::support::crowd::Crowd;
use crate::support::origin::Origin;
use crate::support::wire::Place;
use crate::support::{PATIENCE, ms, pause};

/// Clients that come one after the other; says how many there were, and how many were
/// refused. What a killed process had accepted dies with it: a connection that opened and
/// then broke is not counted as refused.
pub(crate) struct Comers(Crowd<(usize, usize, usize)>);

impl Comers {
    pub(crate) fn at(place: &Place) -> Comers {
        let place = place.clone();
        Comers(Crowd::start(1, move |_, crowd| {
            let (mut served, mut refused, mut broken) = (0, 0, 0);
            while !crowd.is_over() {
                match Client::try_connect(&place, PATIENCE) {
                    Err(_) => refused += 1,
                    Ok(mut client) => match client.get("/ok").try_response() {
                        Ok(response) if response.status == 200 => served += 1,
                        _ => broken += 1,
                    },
                }
                pause(ms(2));
            }
            (served, refused, broken)
        }))
    }

    pub(crate) fn end(self) -> (usize, usize, usize) {
        self.0.end()[0]
    }
}

fn kill(service: &Service) {
    service.manager.must(&["kill", "--signal=KILL", "--kill-whom=main", UNIT]);
}

/// Kills the process under clients; what they saw.
fn crash(plan: Plan) -> (Service, (usize, usize, usize)) {
    let service = plan.unit("RestartSec=500ms").start();
    service.answers();
    let comers = Comers::at(&service.place);
    kill(&service);
    service.wait_events("ready", 2);
    service.answers();
    let seen = comers.end();
    assert_eq!(service.show("NRestarts"), "1");
    (service, seen)
}

#[test]
fn a_crash_refuses_nobody() {
    let origin = Origin::new();
    let (service, (served, refused, broken)) =
        crash(Plan::before(&origin).set("systemd.store", "true"));
    assert_eq!(refused, 0, "{served} served, {broken} broken");
    assert!(served > 0 && broken <= 1, "only who was being served breaks: {broken}");
    assert!(service.events("socket_unclaimed").is_empty());
    assert_eq!(service.show("NFileDescriptorStore"), "1");
}

#[test]
fn without_the_store_a_crash_refuses() {
    // What the test above would see if nothing were stored.
    let origin = Origin::new();
    let (_service, (_, refused, _)) = crash(Plan::before(&origin));
    assert!(refused > 0);
}

#[test]
fn a_restart_refuses_nobody_and_a_stop_leaves_nothing() {
    let origin = Origin::new();
    let service = Plan::before(&origin).set("systemd.store", "true").start();
    let comers = Comers::at(&service.place);
    for _ in 0..3 {
        service.manager.must(&["restart", UNIT]);
        service.answers();
    }
    let (served, refused, broken) = comers.end();
    assert_eq!((refused, broken), (0, 0), "{served} served");
    assert_eq!(service.show("NFileDescriptorStore"), "1", "the same one, three times");
    service.manager.must(&["stop", UNIT]);
    assert_eq!(service.show("NFileDescriptorStore"), "0");
    assert!(Client::try_connect(&service.place, PATIENCE).is_err());
}

#[test]
fn a_listener_that_is_gone_from_the_configuration_is_closed() {
    let origin = Origin::new();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let other = crate::manager::own_address();
    std::fs::write(file.path(), format!("listen = [\"{other}\"]\n")).expect("a configuration");
    let config = file.path().display().to_string();
    let plan = Plan::before(&origin).set("systemd.store", "true").arg("--config").arg(&config);
    let service = plan.load();
    service.manager.must(&["start", UNIT]);
    // It is stored a moment after the process is ready.
    service.manager.wait(UNIT, "NFileDescriptorStore", "1");
    let place = &service.place;
    std::fs::write(file.path(), format!("listen = [\"{place}\"]\n")).expect("a configuration");
    service.manager.must(&["restart", UNIT]);
    service.answers();
    let unclaimed = service.wait_events("socket_unclaimed", 1);
    assert_eq!(unclaimed["addr"], other.to_string());
    service.manager.wait(UNIT, "NFileDescriptorStore", "1");
    assert!(Client::try_connect(&other, PATIENCE).is_err(), "it is closed by the manager, too");
}

/// Who does not want the store any more has nothing in it, and goes on serving.
#[test]
fn what_is_not_to_be_stored_any_more_is_forgotten() {
    let origin = Origin::new();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |store: bool| {
        std::fs::write(file.path(), format!("systemd.store = {store}\n")).expect("a file");
    };
    write(true);
    let plan = Plan::before(&origin).unit("FileDescriptorStoreMax=16");
    let service = plan.arg("--config").arg(&file.path().display().to_string()).start();
    service.manager.wait(UNIT, "NFileDescriptorStore", "1");
    write(false);
    service.manager.must(&["restart", UNIT]);
    service.wait_events("ready", 2);
    service.manager.wait(UNIT, "NFileDescriptorStore", "0");
    service.answers();
}
