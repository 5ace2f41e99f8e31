//! Orders that change while connections are in every state.

use ebbtide::telemetry::{ConnectionState, MovedKind};

use crate::rig::Side;
use crate::support::client::{Client, End, get};
use crate::support::h2::{Code, H2};
use crate::support::origin::{Next, Origin};
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
        Ok(Next::Close)
    });
    let side = Side::before(app.place(), &["drain.upgrade.stream_close_after=0s"]);
    let mut socket = ws::Socket::open(Client::connect(side.place()), "/chat");
    let mut octets = Vec::new();
    socket.wire.exactly(5, &mut octets).expect("half a frame");
    side.tell_stays();
    crate::support::pause(ms(250));
    side.tell_open();
    crate::support::pause(ms(150));
    app.release("rest");
    socket.wire.exactly(7, &mut octets).expect("the other half");
    assert_eq!(octets, ws::Frame::new(ws::BINARY, "0123456789").octets(false));
    socket.wire.read_bound(ms(200));
    assert!(socket.read().is_err(), "nothing is said");
    assert_eq!(side.closed(), 0);
}

#[test]
fn what_speaks_http2_stays_and_is_told_in_two_steps() {
    let app = Origin::new();
    let mut side = Side::before(app.place(), &["drain.upgrade.goaway_grace=300ms"]);
    let mut h2 = H2::connect(side.place());
    let held = h2.get("/hold");
    app.wait_started("/hold");
    side.tell_moves();
    let first = h2.wait_goaway(0);
    assert_eq!(first.code, Code::NO_ERROR);
    let meanwhile = h2.get("/meanwhile");
    assert_eq!(h2.response(meanwhile).text(), "GET /meanwhile 0");
    app.release("/hold");
    assert_eq!(h2.response(held).text(), "held");
    let second = h2.wait_goaway(1);
    assert_eq!((second.last, second.code), (meanwhile, Code::NO_ERROR));
    assert!(second.at - first.at >= ms(300));
    assert_eq!(h2.wait_end(), End::Eof);
    assert!(side.try_departure().is_none());
}

#[test]
fn an_event_stream_is_ended_where_it_may_end_and_its_connection_moves() {
    let app = Origin::scripted(|conn, _| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        conn.send("9\r\ndata: 1\n\n\r\n")?;
        conn.wait_end();
        Ok(Next::Close)
    });
    let later = Origin::new();
    let mut elder = Side::before(app.place(), &["drain.upgrade.stream_close_after=0s"]);
    let successor = Side::before(later.place(), &[]);
    let mut client = Client::connect(elder.place());
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(client.head().field("content-type"), Some("text/event-stream"));
    assert_eq!(client.octets(14), b"9\r\ndata: 1\n\n\r\n"[..14]);
    elder.tell_moves();
    assert_eq!(elder.hand_over(&successor, 1), [MovedKind::H1Active]);
    assert_eq!(client.octets(5), b"0\r\n\r\n");
    assert!(!client.get("/behind").response().says_close());
    assert_eq!(later.requests_for("/behind").len(), 1);
}

#[test]
fn a_stop_ends_who_has_not_moved_and_leaves_who_has() {
    let app = Origin::new();
    let set = ["drain.stop.idle_grace=0s"];
    let mut side = Side::with_room(app.place(), &set, 2);
    let successor = Side::before(app.place(), &[]);
    let mut clients = idle(&side, 8);
    side.tell_moves();
    let first = side.departure();
    side.tell_stop();
    let mut moved = 1;
    successor.deliver(first);
    // Those that are on the way still go there.
    crate::support::within(crate::support::PATIENCE, "nobody here", || {
        while let Some(departure) = side.try_departure() {
            successor.deliver(departure);
            moved += 1;
        }
        (side.alive() == 0).then_some(())
    });
    let answered = clients.iter_mut().filter_map(|client| {
        client.try_send(get("/second")).ok()?;
        client.try_response().ok()
    });
    assert_eq!(answered.count(), moved);
    assert!(moved >= 1);
}
