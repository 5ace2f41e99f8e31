//! Copies of the listeners: how long an elder has them, and what it takes to close the
//! last one.

use std::time::Instant;

use rustix::process::Signal;

use super::{leaves, start};
use crate::support::client::{Client, End};
use crate::support::generations::{Generations, Member};
use crate::support::origin::Origin;
use crate::support::process::Launch;
use crate::support::{PATIENCE, kernel, ms, pause, within};

/// An elder with a request under way, and its successor.
struct Two {
    origin: Origin,
    line: Generations,
    held: Client,
    elder: Member,
    successor: Member,
    serving: Instant,
    /// The number of their listening socket.
    listener: u64,
}

impl Two {
    fn start(change: impl FnOnce(Launch) -> Launch) -> Two {
        let (origin, line) = start(change);
        let listener = kernel::listener(&line.place());
        let mut held = line.client();
        held.get("/hold/1");
        origin.wait_started("/hold/1");
        let (elder, serving) = line.upgrade();
        let successor = line.newest();
        Two { origin, line, held, elder, successor, serving: serving.at, listener }
    }

    /// What the elder was doing ends well, and it leaves.
    #[track_caller]
    fn end(mut self) {
        self.origin.release("/hold/1");
        assert_eq!(self.held.response().text(), "held");
        // Who was told to close and does not is lingered for.
        drop(self.held);
        leaves(&self.line, self.elder);
        self.line.wait_alive(0);
    }
}

/// From then on the death of the successor is for whoever watches over the service.
#[test]
fn elder_whose_time_is_over_has_closed_its_copies_and_takes_nothing_back() {
    let two = Two::start(|launch| launch.set("upgrade.take_back", "1s"));
    let holds = || two.elder.sockets().contains(&two.listener);
    assert!(holds() || two.serving.elapsed() > ms(900), "until then it can");
    within(PATIENCE, "its copy to be closed", || (!holds()).then_some(()));
    assert!(two.serving.elapsed() > ms(500), "{:?}", two.serving.elapsed());
    let mut idle = two.line.idle_client();
    two.successor.signal(Signal::KILL);
    two.successor.wait_gone(PATIENCE);
    let lost = two.line.wait_event("upgrade_lost");
    assert_eq!(lost.fields["taken_back"], false, "{}", lost.fields);
    assert!(matches!(idle.end(), End::Eof | End::Reset), "it was the successor's");
    let late = Client::try_connect(&two.line.place(), PATIENCE);
    assert!(matches!(late, Err(End::Refused)), "{late:?}");
    assert_eq!(two.held.ended(), None, "what the elder was doing goes on");
    two.end();
}

/// The successor begins to stop, while its elder stands still for a moment. How long it
/// took until the elder went on.
fn stop_of_a_successor_whose_elder_is_slow() -> (Two, Client, std::time::Duration) {
    let two = Two::start(|launch| launch);
    two.elder.freeze();
    let asked = two.successor.signal(Signal::TERM);
    two.line.wait_phase("closing");
    let mut queued = two.line.client();
    queued.get("/queued");
    pause(ms(100));
    assert!(two.line.events("listener_closed").is_empty(), "its elder has it, too");
    assert!(two.successor.sockets().contains(&two.listener));
    two.elder.signal(Signal::CONT);
    let slow = asked.elapsed();
    (two, queued, slow)
}

#[test]
fn successor_that_stops_closes_a_listener_when_its_elder_has_said_that_it_has() {
    for _ in 0..10 {
        let (two, mut queued, slow) = stop_of_a_successor_whose_elder_is_slow();
        let closed = two.line.wait_event("listener_closed");
        if slow > ms(500) {
            // A busy machine: the successor may have waited long enough.
            continue;
        }
        assert_ne!(closed.text("way"), "shared", "nobody else had it any more");
        assert!(!two.elder.sockets().contains(&two.listener));
        assert_eq!(queued.response().text(), "GET /queued 0", "who waited in it is served");
        two.successor.wait_gone(PATIENCE);
        two.end();
        return;
    }
    panic!("the machine is too busy");
}

/// An elder that does not answer holds nobody up for longer than it may.
#[test]
fn successor_that_stops_does_not_wait_for_an_elder_that_is_stuck() {
    let two = Two::start(|launch| launch.stop("idle_grace", "0s"));
    let mut before = two.line.idle_client();
    two.elder.freeze();
    let asked = two.successor.signal(Signal::TERM);
    let gone = two.successor.wait_gone(PATIENCE);
    let took = gone.at.saturating_duration_since(asked);
    assert!(took > ms(500) && took < ms(3_000), "{took:?}");
    assert_eq!(before.end(), End::Eof);
    let closed = two.line.wait_event("listener_closed");
    assert_eq!(closed.text("way"), "shared", "the queue is left to whoever still has it");
    let mut queued = two.line.client();
    queued.get("/queued");
    two.elder.signal(Signal::CONT);
    let answer = queued.try_response().map(|response| response.text());
    assert_eq!(answer.map_err(|broken| broken.end), Ok("GET /queued 0".to_owned()));
    two.end();
}
