//! Orders that change while connections are in every state.

use ebbtide::telemetry::ConnectionState;

use crate::rig::Side;
use crate::support::client::{Client, End, get};
use crate::support::origin::Origin;
use crate::support::{ms, ws};

/// So many clients of which each has been answered once.
fn idle(side: &Side, count: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..count).map(|_| Client::connect(side.place())).collect();
    for client in &mut clients {
        client.get("/first").response();
    }
    side.wait_state(ConnectionState::H1Idle, count);
    clients
}

#[test]
fn who_was_on_the_way_to_a_successor_that_died_goes_on_here() {
    let app = Origin::new();
    let mut side = Side::with_room(app.place(), &[], 4);
    let mut clients = idle(&side, 12);
    side.tell_moves();
    // Some have left, some are on the way, for some there is no room.
    let taken: Vec<_> = (0..3).map(|_| side.departure()).collect();
    clients[0].get("/meanwhile");
    side.tell_open();
    for departure in taken {
        side.deliver(departure);
    }
    side.take_back();
    assert_eq!(clients[0].response().text(), "GET /meanwhile 0");
    for client in &mut clients {
        let response = client.get("/second").response();
        assert_eq!((response.status, response.says_close()), (200, false));
    }
    side.wait_state(ConnectionState::H1Idle, 12);
    assert_eq!(side.closed(), 0);
}

#[test]
fn while_there_is_no_room_everybody_is_served_here() {
    let app = Origin::new();
    let mut side = Side::with_room(app.place(), &[], 1);
    let mut clients = idle(&side, 6);
    side.tell_moves();
    let first = side.departure();
    let mut answered = 0;
    for client in &mut clients {
        client.send(get("/second")).read_bound(ms(300));
        // One or two of them are on the way, where nobody reads.
        answered += client.try_response().map_or(0, |response| {
            assert!(!response.says_close());
            1
        });
    }
    assert!(answered >= 4, "{answered}");
    side.tell_open();
    side.deliver(first);
    side.take_back();
    side.wait_state(ConnectionState::H1Idle, 6);
}

#[test]
fn who_can_move_no_more_drains_by_the_upgrade_plan_and_then_by_the_stop_plan() {
    let app = Origin::new();
    let set = ["drain.upgrade.idle_grace=1m", "drain.stop.idle_grace=0s"];
    let side = Side::before(app.place(), &set);
    let mut clients = idle(&side, 3);
    side.tell_stays();
    let told = clients[0].get("/told").response();
    assert!(told.says_close());
    assert_eq!(clients[0].end(), End::Eof);
    clients[1].hears_nothing_for(ms(150));
    side.tell_stop();
    assert_eq!(clients[1].end(), End::Eof);
    assert_eq!(clients[2].end(), End::Eof);
}

#[test]
fn a_drain_that_is_taken_back_ends_nobody() {
    let app = Origin::scripted(ws::echo);
    let set = ["drain.upgrade.idle_grace=200ms", "drain.upgrade.stream_close_after=200ms"];
    let side = Side::before(app.place(), &set);
    let mut fresh = Client::connect(side.place());
    let mut socket = ws::Socket::open(Client::connect(side.place()), "/chat");
    side.wait_state(ConnectionState::H1Fresh, 1);
    side.tell_stays();
    side.tell_open();
    fresh.hears_nothing_for(ms(400));
    socket.echo("still here");
    assert_eq!(side.closed(), 0);
    // And the next drain has its own times.
    side.tell_stop();
    assert_eq!(socket.read_to_close().0, Some(1001));
    drop(fresh);
}

#[test]
fn a_close_that_is_wanted_in_mid_frame_is_not_wanted_when_the_drain_is_taken_back() {
    let app = Origin::scripted(|conn, request| {
        conn.send(ws::agree(request))?;
        let frame = ws::Frame::new(ws::BINARY, "0123456789").octets(false);
        conn.send(&frame[..5])?;
        conn.hold("rest")?;
        conn.send(&frame[5..])?;
        conn.wait_end();
        Ok(crate::support::origin::Next::Close)
    });
    let side = Side::before(app.place(), &["drain.upgrade.stream_close_after=0s"]);
    let mut socket = ws::Socket::open(Client::connect(side.place()), "/chat");
    side.tell_stays();
    crate::support::pause(ms(250));
    side.tell_open();
    crate::support::pause(ms(150));
    app.release("rest");
    assert_eq!(socket.read(), Ok(ws::Frame::new(ws::BINARY, "0123456789")));
    socket.wire.read_bound(ms(200));
    assert!(socket.read().is_err(), "nothing is said");
    assert_eq!(side.closed(), 0);
}
