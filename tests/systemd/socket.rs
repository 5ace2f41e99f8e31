//! Socket units: the manager opens the socket, starts the service with the first client,
//! and keeps who comes between two of its lives.

use crate::manager::shipped;
use crate::service::{Plan, Service, UNIT};
use crate::support::client::Client;
use crate::support::origin::Origin;

const SOCKET: &str = "ebbtide.socket";

/// The shipped socket unit at the plan's address.
fn with_socket(origin: &Origin, listen: impl FnOnce(&Plan) -> String) -> Service {
    let plan = Plan::before(origin);
    let listen = listen(&plan);
    let place = plan.place().to_string();
    let socket = shipped(SOCKET).replace("0.0.0.0:80", &place);
    let service = plan.arg("--listen").arg(&listen).beside(SOCKET, socket).load();
    service.manager.must(&["start", SOCKET]);
    service
}

fn assert_answered(mut client: Client) {
    assert_eq!(client.response().text(), "GET /queued 0");
}

/// From the first client, over a stop with work, to the next start and a restart.
fn a_life(service: &Service, origin: &Origin) {
    assert_eq!(service.show("ActiveState"), "inactive");
    service.answers();
    service.wait("ActiveState", "active");
    let mut held = service.asked("/hold");
    origin.wait_started("/hold");
    service.begin("stop");
    service.wait("SubState", "stop-sigterm");
    let queued: Vec<Client> = (0..10).map(|_| service.asked("/queued")).collect();
    origin.release("/hold");
    held.response();
    drop(held);
    // Nobody has asked for it but those who wait.
    service.wait_events("ready", 2);
    queued.into_iter().for_each(assert_answered);
    let ways = service.events("listener_closed");
    assert!(ways.iter().all(|closed| closed["way"] == "shared"), "{ways:?}");
    service.manager.must(&["restart", UNIT]);
    service.answers();
    assert_eq!(service.show("NRestarts"), "0");
    assert!(service.events("socket_unclaimed").is_empty());
}

#[test]
fn a_socket_unit_keeps_who_comes_between_two_lives() {
    let origin = Origin::new();
    let service = with_socket(&origin, |_| "fd:web".to_owned());
    a_life(&service, &origin);
}

#[test]
fn a_socket_unit_is_found_by_its_address() {
    let origin = Origin::new();
    let service = with_socket(&origin, |plan| plan.place().to_string());
    a_life(&service, &origin);
}
