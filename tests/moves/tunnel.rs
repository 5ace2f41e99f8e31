//! Tunnels: in the middle of frames, with octets that nobody takes, half closed.

use std::sync::mpsc;
use std::time::Duration;

use ebbtide::telemetry::{ConnectionState, MovedKind};

use crate::rig::Side;
use crate::support::client::{Client, End};
use crate::support::origin::{Next, Origin, OriginConn, Request};
use crate::support::{PATIENCE, ms, pattern, pause, ws};

/// Two workers before the same app server, between which a tunnel goes to and fro.
struct Shuttle {
    sides: [Side; 2],
    at: usize,
}

impl Shuttle {
    fn before(app: &Origin, set: &[&str]) -> Shuttle {
        Shuttle { sides: [(); 2].map(|()| Side::before(app.place(), set)), at: 0 }
    }

    fn client(&self) -> Client {
        Client::connect(self.sides[0].place())
    }

    /// All of them go to the other side.
    fn go(&mut self, count: usize) -> Vec<MovedKind> {
        let [first, second] = &mut self.sides;
        let (from, to) = if self.at == 0 { (first, second) } else { (second, first) };
        to.tell_open();
        from.tell_moves();
        let kinds = from.hand_over(to, count);
        from.wait_alive(0);
        assert_eq!(from.closed(), 0);
        assert!(from.tunnels().is_empty());
        self.at = 1 - self.at;
        kinds
    }

    fn here(&self) -> &Side {
        &self.sides[self.at]
    }
}

#[test]
fn a_websocket_goes_on_inside_a_frame_in_both_directions() {
    let sent = ws::Frame::new(ws::BINARY, pattern(300));
    let down = sent.octets(false);
    for split in [0, 1, 3, 4, 5, 200] {
        let frame = down.clone();
        let app = Origin::scripted(move |conn, request| {
            conn.send(ws::agree(request))?;
            conn.send(&frame[..split])?;
            let got = ws::read(conn.wire(), true)?;
            conn.send(&frame[split..])?;
            conn.send(got.octets(false))?;
            let close = ws::read(conn.wire(), true)?;
            conn.send(close.octets(false))?;
            Ok(Next::Close)
        });
        let mut shuttle = Shuttle::before(&app, &[]);
        let mut socket = ws::Socket::open(shuttle.client(), "/chat?room=1");
        let frame = ws::Frame::new(ws::TEXT, "from the client");
        let up = frame.octets(true);
        socket.wire.send(&up[..split.min(up.len() - 1)]).expect("half a frame");
        shuttle.here().wait_state(ConnectionState::TunnelWebSocket, 1);
        assert_eq!(shuttle.go(1), [MovedKind::WebSocket]);
        let shown = within_tunnel(shuttle.here());
        assert_eq!((&*shown.kind, &*shown.target), ("websocket", "/chat"));
        socket.wire.send(&up[split.min(up.len() - 1)..]).expect("the other half");
        assert_eq!(socket.read(), Ok(sent.clone()), "{split}");
        assert_eq!(socket.read(), Ok(frame), "{split}");
        socket.send(&ws::Frame::close(1000));
        assert_eq!(socket.read_to_close().0, Some(1000));
        assert_eq!(socket.end(), End::Eof);
        let [elder, successor] = shuttle.sides;
        successor.wait_alive(0);
        assert!(elder.end().is_empty(), "the elder writes no line");
        let lines = successor.end();
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!((&line["status"], &line["target"]), (&101.into(), &"/chat".into()));
        assert_eq!((&line["method"], &line["host"]), (&"GET".into(), &"app.test".into()));
        assert_eq!(line["upstream"], app.place().to_string());
        assert_eq!(line["bytes_in"], up.len() + 8);
        assert_eq!(line["bytes_out"], down.len() + 17 + 4);
        assert_eq!(line["error"], serde_json::Value::Null);
    }
}

fn within_tunnel(side: &Side) -> ebbtide::telemetry::TunnelStatus {
    crate::support::within(PATIENCE, "a tunnel in the list", || side.tunnels().pop())
}

/// How much goes through a tunnel in each direction.
const MUCH: usize = 24 << 20;

/// How much a reader's kernel takes, about.
const NARROW: usize = 48 << 10;

/// Both sides write without a pause, as much as is taken, and read slowly at first.
fn flood(conn: &mut OriginConn, request: &Request) -> Result<Next, End> {
    conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: flood\r\nConnection: Upgrade\r\n\r\n")?;
    assert_eq!(request.target, "/flood");
    let sock = conn.wire().sock.try_clone().expect("a copy");
    sock.set_recv_buffer_size(NARROW).expect("a receive buffer");
    let got = both_ways(&sock, 7, 11);
    assert!(got == pattern(MUCH), "what the app server got");
    Ok(Next::Close)
}

/// Writes the pattern and its end, and reads all that comes; rests now and then.
fn both_ways(sock: &socket2::Socket, writes: usize, reads: usize) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    sock.set_read_timeout(Some(PATIENCE)).expect("a bound");
    sock.set_write_timeout(Some(PATIENCE)).expect("a bound");
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut sock = sock;
            for (n, piece) in pattern(MUCH).chunks(100_003).enumerate() {
                sock.write_all(piece).expect("the tunnel takes it");
                if n % writes == 0 {
                    pause(ms(3));
                }
            }
            sock.shutdown(std::net::Shutdown::Write).expect("an end");
        });
        let (mut all, mut piece) = (Vec::new(), vec![0; 70_001]);
        let mut sock = sock;
        for n in 0.. {
            match sock.read(&mut piece).expect("the tunnel gives") {
                0 => break,
                len => all.extend_from_slice(&piece[..len]),
            }
            if n % reads == 0 {
                pause(ms(2));
            }
        }
        writer.join().expect("a writer");
        all
    })
}

#[test]
fn a_flood_goes_to_and_fro_and_nothing_is_lost_or_doubled() {
    let app = Origin::scripted(flood);
    let mut shuttle = Shuttle::before(&app, &["upgrade_tokens=flood"]);
    // Both readers are narrow, so that there is always something that nobody takes.
    let mut client = Client::connect_narrow(shuttle.here().place(), NARROW);
    client.send("GET /flood HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: flood\r\n\r\n");
    assert_eq!(client.head().start, "HTTP/1.1 101 Switching Protocols");
    shuttle.here().wait_state(ConnectionState::TunnelOpaque, 1);
    let sock = client.wire.sock.try_clone().expect("a copy");
    let reader = std::thread::spawn(move || both_ways(&sock, 5, 13));
    let mut moves = 0;
    // While it certainly flows in both directions.
    loop {
        let shown = within_tunnel(shuttle.here());
        if shown.bytes_in.max(shown.bytes_out) > MUCH as u64 / 2 {
            break;
        }
        assert_eq!(shuttle.go(1), [MovedKind::Tunnel]);
        moves += 1;
        pause(ms(3));
    }
    assert!(reader.join().expect("a reader") == pattern(MUCH), "what the client got");
    assert!(moves >= 10, "{moves}");
    println!("moved {moves} times");
}

#[test]
fn what_waits_for_a_slow_reader_goes_along() {
    let (go, gone) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let app = Origin::scripted(move |conn, request| {
        conn.send(ws::agree(request))?;
        let frame = ws::Frame::new(ws::BINARY, pattern(6 << 20)).octets(false);
        let sock = conn.wire().sock.try_clone().expect("a copy");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use std::io::Write as _;
                let mut sock = &sock;
                sock.write_all(&frame).expect("the tunnel takes it in the end");
            });
            gone.lock().unwrap().recv_timeout(PATIENCE).expect("the moves are over");
            let got = ws::read(conn.wire(), true);
            assert_eq!(got.map(|frame| frame.payload.len()), Ok(6 << 20));
        });
        Ok(Next::Close)
    });
    let mut shuttle = Shuttle::before(&app, &[]);
    let mut socket = ws::Socket::open(shuttle.client(), "/slow");
    let frame = ws::Frame::new(ws::BINARY, pattern(6 << 20));
    let octets = frame.octets(true);
    let sock = socket.wire.sock.try_clone().expect("a copy");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write as _;
            let mut sock = &sock;
            sock.write_all(&octets).expect("the tunnel takes it in the end");
        });
        // Nobody reads: both directions are full.
        let full = |side: &Side| within_tunnel(side).bytes_out;
        let mut before = 0;
        crate::support::within(PATIENCE, "a full tunnel", || {
            pause(ms(50));
            let now = full(shuttle.here());
            (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
        });
        for _ in 0..6 {
            shuttle.go(1);
        }
        go.send(()).expect("the app server waits");
        assert_eq!(socket.read(), Ok(frame.clone()));
    });
}

#[test]
fn a_half_closed_tunnel_stays_half_closed() {
    let (go, gone) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let (ends, ended) = mpsc::channel();
    let app = Origin::scripted(move |conn, _| {
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")?;
        let mut got = Vec::new();
        assert_eq!(conn.wire().until_end(&mut got), End::Eof);
        ends.send(()).expect("the test waits");
        gone.lock().unwrap().recv_timeout(PATIENCE).expect("the move is over");
        conn.send(&got)?;
        Ok(Next::Close)
    });
    let mut shuttle = Shuttle::before(&app, &["upgrade_tokens=x"]);
    let mut client = shuttle.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    client.head();
    client.send("all of it").half_close();
    shuttle.here().wait_state(ConnectionState::TunnelOpaque, 1);
    // Its end may have passed or not, and then it has: either goes along.
    shuttle.go(1);
    ended.recv_timeout(PATIENCE).expect("the end passes");
    shuttle.go(1);
    go.send(()).expect("the app server waits");
    let (end, rest) = client.rest();
    assert_eq!((end, &*rest), (End::Eof, &b"all of it"[..]));
    shuttle.here().wait_alive(0);
}

#[test]
fn who_has_been_told_goodbye_stays_until_it_is_over() {
    let app = Origin::scripted(ws::echo);
    let mut side = Side::before(app.place(), &["drain.upgrade.stream_close_after=0s"]);
    let mut socket = ws::Socket::open(Client::connect(side.place()), "/chat");
    side.tell_stays();
    assert_eq!(socket.read_to_close().0, Some(1001));
    side.tell_moves();
    socket.send(&ws::Frame::close(1001));
    assert_eq!(socket.end(), End::Eof);
    drop(socket);
    // Whoever had left would be on the way, and alive.
    side.wait_alive(0);
    assert!(side.try_departure().is_none());
}

#[test]
fn the_route_is_looked_up_where_it_arrives() {
    let app = Origin::scripted(ws::echo);
    let mut elder = Side::before(app.place(), &["websocket.on_drain=leave"]);
    let successor = Side::before(app.place(), &["websocket.on_drain=close"]);
    let mut socket = ws::Socket::open(Client::connect(elder.place()), "/chat");
    socket.echo("before");
    elder.tell_moves();
    elder.hand_over(&successor, 1);
    socket.echo("behind");
    successor.tell_stop();
    assert_eq!(socket.read_to_close().0, Some(1001));
}

#[test]
fn a_silence_goes_on_where_it_was() {
    let app = Origin::scripted(ws::echo);
    let mut shuttle = Shuttle::before(&app, &["websocket.ping_interval=1s"]);
    let mut socket = ws::Socket::open(shuttle.client(), "/chat");
    socket.echo("hello");
    let start = std::time::Instant::now();
    for _ in 0..4 {
        pause(ms(200));
        shuttle.go(1);
    }
    let ping = socket.read().expect("a ping");
    assert_eq!(ping.opcode, ws::PING);
    assert!(start.elapsed() < Duration::from_millis(1700), "{:?}", start.elapsed());
}
