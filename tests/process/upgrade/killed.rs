//! The old process is killed in the middle: what it had handed over lives on, and what it
//! had not is the only thing that ends.

use rustix::process::Signal;

use super::start;
use crate::support::client::{Broken, Client};
use crate::support::generations::{Generations, sum};
use crate::support::ws::{BINARY, Frame, Socket};
use crate::support::{PATIENCE, kernel, ms, pause, within};

const IDLE: usize = 60;
const SOCKETS: usize = 20;

/// Connections, and the sockets of whoever serves them.
struct Kept {
    idle: Vec<(Client, u64)>,
    sockets: Vec<(Socket, u64)>,
}

impl Kept {
    fn open(line: &Generations) -> Kept {
        let idle = (0..IDLE).map(|_| line.idle_client());
        let idle = idle.map(|client| (kernel::other_end(&client), client));
        let sockets = (0..SOCKETS).map(|_| {
            let client = line.client();
            let end = kernel::other_end(&client);
            let mut socket = Socket::open(client, "/ws");
            socket.echo("before");
            (socket, end)
        });
        Kept { idle: idle.map(|(end, client)| (client, end)).collect(), sockets: sockets.collect() }
    }

    /// How many go on of those that `is_safe` says go on, which are all of them; and how
    /// many others do.
    #[track_caller]
    fn judge(&mut self, is_safe: impl Fn(u64) -> bool) -> (usize, usize) {
        let (mut safe, mut lucky) = (0, 0);
        let mut count = |goes_on: bool, end: u64| match is_safe(end) {
            true => safe += usize::from(goes_on),
            false => lucky += usize::from(goes_on),
        };
        for (client, end) in &mut self.idle {
            let answer = ask(client);
            let goes_on = answer.as_ref().is_ok_and(|text| text == "GET /after 0");
            assert!(goes_on || !is_safe(*end), "handed over, and then {answer:?}");
            count(goes_on, *end);
        }
        for (socket, end) in &mut self.sockets {
            let frame = Frame::new(BINARY, "after");
            let sent = socket.wire.send(&frame.octets(true));
            let read = socket.read();
            let goes_on = read.as_ref() == Ok(&frame);
            assert!(goes_on || !is_safe(*end), "handed over, and then {sent:?}, {read:?}");
            count(goes_on, *end);
        }
        (safe, lucky)
    }
}

fn ask(client: &mut Client) -> Result<String, Broken> {
    let _sent = client.try_send(crate::support::client::get("/after"));
    client.try_response().map(|response| response.text())
}

#[test]
fn elder_that_is_killed_takes_nobody_with_it_who_has_moved() {
    let mut all = 0;
    for delay in [0, 1, 2, 4, 8, 15, 30, 50] {
        let (_origin, line) = start(|launch| launch);
        let mut kept = Kept::open(&line);
        let (elder, _) = line.upgrade();
        pause(ms(delay));
        // It closes its own copy when it knows that the successor has one, and not before.
        elder.freeze();
        let its = elder.sockets();
        elder.signal(Signal::KILL);
        elder.wait_gone(PATIENCE);
        let (safe, lucky) = kept.judge(|end| !its.contains(&end));
        eprintln!("killed after {delay} ms: {safe} had moved, and {lucky} were on the way");
        all += safe;
        let mut client = line.idle_client();
        assert_eq!(ask(&mut client).unwrap(), "GET /after 0");
        assert_eq!(line.status()["generation"], 2);
        assert_eq!(line.status()["phase"], "serving");
    }
    assert!(all >= IDLE + SOCKETS, "hardly anybody had moved: {all}");
}

#[test]
fn elder_that_is_killed_when_all_have_moved_takes_nobody_with_it() {
    let (origin, line) = start(|launch| launch);
    let mut kept = Kept::open(&line);
    let mut held = line.client();
    held.get("/hold/1");
    origin.wait_started("/hold/1");
    let (elder, _) = line.upgrade();
    within(PATIENCE, "all of them to have moved", || {
        let moved = sum(&line.status()["elders"][0]["moved"]);
        (moved == (IDLE + SOCKETS) as u64).then_some(())
    });
    elder.signal(Signal::KILL);
    elder.wait_gone(PATIENCE);
    assert_eq!(kept.judge(|_| true), (IDLE + SOCKETS, 0));
    assert!(held.try_response().is_err(), "what it was doing dies with it");
    assert!(line.events("connection_lost").is_empty(), "{}", line.said());
    within(PATIENCE, "no elder", || {
        line.status()["elders"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
}
