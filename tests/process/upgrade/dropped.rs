//! A successor whose configuration has no use for some of the listeners, and that is lost:
//! the elder has them again.

use rustix::process::Signal;

use super::places::{addresses, write};
use super::{app, leaves};
use crate::support::client::Client;
use crate::support::generations::Generations;
use crate::support::process::Launch;
use crate::support::shelf::Shelf;
use crate::support::wire::Place;
use crate::support::{PATIENCE, ms, pause, within};

#[test]
fn listeners_that_a_lost_successor_had_dropped_are_open_again() {
    let (origin, shelf) = (app(), Shelf::new());
    let [kept, gone] = addresses();
    let unix = format!("unix:{}", shelf.file("dropped.sock").display());
    let file = write(&shelf, &origin, &[&kept, &gone, &unix], "");
    let line = Generations::start(Launch::configured(&file));
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    // While the old sockets are being closed, and when they are.
    for (round, delay) in [0, 10, 200, 800].into_iter().enumerate() {
        write(&shelf, &origin, &[&kept], "");
        let (_, serving) = line.upgrade();
        let pid = u32::try_from(serving.number("successor")).unwrap();
        pause(ms(delay));
        line.member(pid, 2).expect("it has only just begun").signal(Signal::KILL);
        let lost = line.wait_nth("upgrade_lost", round);
        assert_eq!(lost.fields["taken_back"], true, "{}", lost.fields);
        for address in [&kept, &gone, &unix] {
            let place = Place::parse(address);
            let mut client = within(PATIENCE, &format!("{address} to be open"), || {
                Client::try_connect(&place, PATIENCE).ok()
            });
            client.get("/again");
            assert_eq!(client.response().text(), "GET /again 0", "{address} {delay}");
        }
        let failures = line.events("listener_lost");
        assert!(failures.is_empty(), "{:?}", failures.first().map(|it| &it.fields));
        line.wait_alive(1);
    }
    // Whoever comes then is given all of them.
    write(&shelf, &origin, &[&kept, &gone, &unix], "");
    let (elder, _) = line.upgrade();
    origin.release("/hold/1");
    assert_eq!(held.response().text(), "held");
    drop(held);
    leaves(&line, elder);
    for address in [&gone, &unix] {
        let mut client = Client::connect(&Place::parse(address));
        client.get("/next");
        assert_eq!(client.response().text(), "GET /next 0");
    }
}

/// Somebody else may have been quicker: it is told why, and tried until it works.
#[test]
fn listener_that_somebody_else_has_meanwhile_is_open_again_when_it_is_free() {
    let (origin, shelf) = (app(), Shelf::new());
    let [kept, gone] = addresses();
    let file = write(&shelf, &origin, &[&kept, &gone], "");
    let line = Generations::start(Launch::configured(&file));
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    write(&shelf, &origin, &[&kept], "");
    let (_, serving) = line.upgrade();
    let taken =
        within(PATIENCE, "its address to be free", || std::net::TcpListener::bind(&gone).ok());
    let pid = u32::try_from(serving.number("successor")).unwrap();
    line.member(pid, 2).expect("it is there").signal(Signal::KILL);
    let lost = line.wait_event("listener_lost");
    assert_eq!(lost.text("addr"), gone);
    assert!(lost.text("error").contains("in use"), "{}", lost.fields);
    drop(taken);
    let place = Place::parse(&gone);
    let mut client =
        within(PATIENCE, "it to be open again", || Client::try_connect(&place, PATIENCE).ok());
    client.get("/again");
    assert_eq!(client.response().text(), "GET /again 0");
    assert_eq!(line.events("listener_lost").len(), 1, "it is told once");
    origin.release("/hold/1");
    assert_eq!(held.response().text(), "held");
}
