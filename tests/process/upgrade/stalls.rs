//! A process that stands still in the middle: each request is served once, by one of them,
//! and nobody who is well pays for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::{is_served, start};
use crate::support::client::{Client, post_head};
use crate::support::generations::{Generations, Member};
use crate::support::origin::Origin;
use crate::support::process::Event;
use crate::support::ws::Socket;
use crate::support::{PATIENCE, ms, pause, within};

/// How long after `upgrade_ready` the newest is surely not let go, while somebody is about
/// to ask something.
const LET_GO: Duration = ms(70);

/// The process of the last event of this name.
fn member_of(line: &Generations, event: &str, generation: u64) -> Member {
    let events = line.events(event);
    let pid = events.last().expect("it has happened").number("successor");
    line.member(u32::try_from(pid).unwrap(), generation).expect("it is there")
}

/// A request is under way in the old process, and another one waits behind it; then the
/// new one stands still.
fn with_a_post_behind() -> (Origin, Generations, Client, Member) {
    let (origin, line) = start(|launch| launch.set("upgrade.take_back", "0s"));
    let mut client = line.client();
    client.get("/hold/1");
    origin.wait_started("/hold/1");
    client.send(post_head("/pay", 7) + "octets!");
    line.upgrade();
    let successor = member_of(&line, "upgrade_serving", 2);
    successor.signal(Signal::STOP);
    // Its workers hear a moment later than everybody else that connections move.
    line.wait_phase("draining");
    pause(ms(100));
    origin.release("/hold/1");
    assert_eq!(client.response().text(), "held");
    (origin, line, client, successor)
}

/// The old process has waited long enough, has served it, and is gone, when the new one
/// goes on and finds the connection in its channel.
#[test]
fn what_the_old_process_took_back_is_not_served_again_by_one_that_stood_still() {
    let (origin, line, mut client, successor) = with_a_post_behind();
    assert_eq!(client.response().text(), "POST /pay 7");
    drop(client);
    assert_eq!(line.proxy_exit(), 0, "{}", line.said());
    successor.signal(Signal::CONT);
    let kept = line.wait_event("elder_refused");
    assert!(kept.text("error").contains("in time"), "{}", kept.fields);
    line.wait_event("elder_gone");
    // It is the successor all the same.
    for n in 0..4 {
        is_served(&mut line.client(), &format!("/after/{n}"));
    }
    assert_eq!(line.newest().pid, successor.pid);
    assert_eq!(origin.requests_for("/pay").len(), 1);
    assert!(line.events("connection_lost").is_empty(), "{}", line.said());
    assert_eq!(line.stop().code, Some(0));
}

/// The old process is killed instead: nobody else has what it had sent.
#[test]
fn what_a_dead_process_had_sent_is_served_by_one_that_stood_still() {
    let (origin, line, mut client, successor) = with_a_post_behind();
    // Until it is sent: nothing shows that.
    pause(ms(300));
    line.signal(Signal::KILL);
    line.wait_gone();
    assert!(origin.requests_for("/pay").is_empty(), "it is on its way");
    successor.signal(Signal::CONT);
    assert_eq!(client.response().text(), "POST /pay 7");
    is_served(&mut client, "/after");
    assert_eq!(origin.requests_for("/pay").len(), 1);
    drop(client);
    assert_eq!(line.stop().code, Some(0));
}

/// The newest of three stands still before it serves. The one in the middle waits for it and
/// goes on; the oldest, which has connections to hand over meanwhile, waits for the one in
/// the middle.
#[test]
fn oldest_process_does_not_give_up_one_that_waits_for_its_own_successor() {
    if !(0..5).any(|_| oldest_waits()) {
        eprintln!("not tried: the newest was too quick five times");
    }
}

/// How long ago an event was written.
fn age(event: &Event) -> Duration {
    const DAY: u128 = 24 * 60 * 60 * 1000;
    let (_, time) = event.text("ts").split_once('T').expect("a date and a time");
    let mut parts = time
        .trim_end_matches('Z')
        .split([':', '.'])
        .map(|part| part.parse::<u128>().expect("a number"));
    let mut next = || parts.next().expect("hours, minutes, seconds, milliseconds");
    let then = ((next() * 60 + next()) * 60 + next()) * 1000 + next();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() % DAY;
    ms(u64::try_from((now + DAY - then) % DAY).expect("less than a day"))
}

/// Whether it could be tried: the newest has to stand still before it is let go.
fn oldest_waits() -> bool {
    let (origin, line) = start(|launch| launch);
    let mut held: Vec<Client> = (0..3).map(|_| line.client()).collect();
    for (n, client) in held.iter_mut().enumerate() {
        client.get(&format!("/hold/{n}"));
        origin.wait_started(&format!("/hold/{n}"));
    }
    let mut idle: Vec<Client> = (0..10).map(|_| line.idle_client()).collect();
    let mut socket = Socket::open(line.client(), "/ws");
    socket.echo("before");
    line.upgrade();
    for client in &mut idle {
        is_served(client, "/moved");
    }
    let middle = line.newest();
    // It is given a moment to ask, in which the newest is not let go.
    let slow = Client::connect(line.admin_place());
    middle.signal(Signal::USR2);
    let ready = line.wait_nth("upgrade_ready", 1);
    let newest = member_of(&line, "upgrade_ready", 3);
    newest.freeze();
    if age(&ready) > LET_GO {
        return false;
    }
    // Until the one in the middle has stopped to listen to the oldest: nothing shows that.
    pause(ms(120));
    for (n, client) in held.iter_mut().enumerate() {
        origin.release(&format!("/hold/{n}"));
        assert_eq!(client.response().text(), "held");
    }
    let events = |name: &str| line.events(name).len();
    within(PATIENCE, "an end of it", || (events("upgrade_failed") > 0).then_some(()));
    newest.wait_gone(PATIENCE);
    assert_eq!(line.newest().pid, middle.pid, "{}", line.said());
    for client in held.iter_mut().chain(&mut idle) {
        is_served(client, "/after");
    }
    socket.echo("after");
    assert_eq!(line.proxy_exit(), 0, "{}", line.said());
    assert_eq!(events("upgrade_lost"), 1, "only the newest is lost: {}", line.said());
    assert_eq!(events("connection_lost"), 0);
    drop((slow, held, idle, socket));
    assert_eq!(line.stop().code, Some(0));
    true
}
