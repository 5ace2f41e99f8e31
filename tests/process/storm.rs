//! Stops under full load: clients of every kind go on through each stop of the real
//! binary, and count for themselves what they lost.
//!
//! `TESTS_STORM_STOPS` sets the number of stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::{Broken, Client, End, chunked_head, get, post_head};
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{PATIENCE, Rng, ms, pattern, pause, within};

/// What the clients of one stop counted together.
#[derive(Debug, Default)]
struct Tally {
    served: AtomicU64,
    /// Requests on an idle connection, sent right after a look, that ended without an octet.
    raced: AtomicU64,
    /// The same, where the client was held up between its look and its request for so long
    /// that the proxy may have stopped counting.
    perhaps_raced: AtomicU64,
}

/// How a conversation of a client with one connection ended.
enum Over {
    /// It may connect again.
    Again,
    /// Nobody listens any more.
    Refused,
}

type Kind = fn(&Place, &Tally, &mut Rng) -> Over;

/// The kinds of clients, and how many there are of each.
const KINDS: [(Kind, u64); 5] =
    [(keep_alive, 6), (one_each, 3), (slow, 2), (uploading, 2), (pipelining, 2)];

/// Connects; `None` when nobody listens any more. Who is not answered at all never
/// believed that it was connected.
fn connect(place: &Place) -> Option<Client> {
    match Client::try_connect(place, Duration::from_secs(5)) {
        Ok(client) => Some(client),
        Err(end) => {
            assert!(matches!(end, End::Refused | End::TimedOut), "connect: {end:?}");
            None
        }
    }
}

#[track_caller]
fn lost(what: &str, broken: &Broken) -> ! {
    panic!("{what}: {broken:?}");
}

/// A pool's connection: used again as long as it is not told otherwise, looked at before
/// each use.
fn keep_alive(place: &Place, tally: &Tally, rng: &mut Rng) -> Over {
    let Some(mut client) = connect(place) else {
        return Over::Refused;
    };
    for n in 0..50 {
        let looked = Instant::now();
        if let Some(end) = client.ended() {
            assert_eq!((end, n > 0), (End::Eof, true), "request {n}: gone");
            return Over::Again;
        }
        let sent = client.try_send(get("/keep"));
        let quick = looked.elapsed() < ms(40);
        match client.try_response() {
            Ok(response) => {
                assert_eq!(response.text(), "GET /keep 0");
                tally.served.fetch_add(1, Ordering::SeqCst);
                if response.says_close() {
                    assert_eq!(client.end(), End::Eof);
                    return Over::Again;
                }
            }
            Err(broken) => {
                let silent = broken.head.is_none() && broken.got.is_empty();
                if !silent || n == 0 {
                    lost(&format!("keep-alive request {n}"), &broken);
                }
                let counter =
                    if quick && sent.is_ok() { &tally.raced } else { &tally.perhaps_raced };
                counter.fetch_add(1, Ordering::SeqCst);
                return Over::Again;
            }
        }
        pause(Duration::from_micros(rng.below(4000)));
    }
    Over::Again
}

/// A connection for each request.
fn one_each(place: &Place, tally: &Tally, _: &mut Rng) -> Over {
    let Some(mut client) = connect(place) else {
        return Over::Refused;
    };
    client.send("GET /one HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    match client.try_response() {
        Ok(response) => assert_eq!(response.text(), "GET /one 0"),
        Err(broken) => lost("the only request of a connection", &broken),
    }
    assert_eq!(client.end(), End::Eof);
    tally.served.fetch_add(1, Ordering::SeqCst);
    Over::Again
}

/// A head in pieces, and a response that is read late.
fn slow(place: &Place, tally: &Tally, rng: &mut Rng) -> Over {
    let Some(mut client) = connect(place) else {
        return Over::Refused;
    };
    for piece in get("/bytes/100000").as_bytes().chunks(10) {
        client.send(piece);
        pause(Duration::from_micros(rng.below(3000)));
    }
    pause(ms(rng.below(20)));
    match client.try_response() {
        Ok(response) => assert!(response.body == pattern(100_000), "other octets"),
        Err(broken) => lost("a slow client's request", &broken),
    }
    tally.served.fetch_add(1, Ordering::SeqCst);
    Over::Again
}

/// A body in pieces, with a length or in chunks.
fn uploading(place: &Place, tally: &Tally, rng: &mut Rng) -> Over {
    let Some(mut client) = connect(place) else {
        return Over::Refused;
    };
    let body = pattern(60_000);
    let chunked = rng.one_in(2);
    client.send(if chunked { chunked_head("/echo") } else { post_head("/echo", body.len()) });
    for piece in body.chunks(7_000) {
        if chunked {
            client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
        } else {
            client.send(piece);
        }
        pause(Duration::from_micros(rng.below(4000)));
    }
    if chunked {
        client.send("0\r\n\r\n");
    }
    match client.try_response() {
        Ok(response) => assert!(response.body == body, "other octets: {}", response.status),
        Err(broken) => lost("an upload", &broken),
    }
    tally.served.fetch_add(1, Ordering::SeqCst);
    Over::Again
}

/// Five requests at once: every one is answered, the close comes only at the end.
fn pipelining(place: &Place, tally: &Tally, _: &mut Rng) -> Over {
    let Some(mut client) = connect(place) else {
        return Over::Refused;
    };
    let requests: String = (0..5).map(|n| get(&format!("/pipe/{n}"))).collect();
    client.send(requests);
    for n in 0..5 {
        match client.try_response() {
            Ok(response) => {
                assert_eq!(response.text(), format!("GET /pipe/{n} 0"));
                assert!(n == 4 || !response.says_close(), "close with requests behind it");
            }
            Err(broken) => lost(&format!("pipelined request {n}"), &broken),
        }
        tally.served.fetch_add(1, Ordering::SeqCst);
    }
    Over::Again
}

/// How many stops a storm has.
pub(crate) fn stops() -> u64 {
    let set = std::env::var("TESTS_STORM_STOPS").ok();
    set.and_then(|value| value.parse().ok()).unwrap_or(5)
}

/// One stop under load; the process and what the clients counted.
fn storm(origin: &Origin, seed: u64, idle_grace: &str) -> (Proxy, Arc<Tally>) {
    let proxy = Launch::before(origin)
        .arg("--access-log")
        .arg("off")
        .stop("idle_grace", idle_grace)
        .stop("drain_timeout", "60s")
        .start();
    let tally = Arc::new(Tally::default());
    let mut clients = Vec::new();
    for (kind, many) in KINDS {
        for which in 0..many {
            let (place, tally) = (proxy.place(), Arc::clone(&tally));
            let mut rng = Rng::new(seed ^ (which << 32));
            clients.push(std::thread::spawn(move || {
                while matches!(kind(&place, &tally, &mut rng), Over::Again) {}
            }));
        }
    }
    within(PATIENCE, "the storm to blow", || {
        (tally.served.load(Ordering::SeqCst) > 100).then_some(())
    });
    pause(Duration::from_micros(Rng::new(seed).below(20_000)));
    proxy.terminate();
    for client in clients {
        assert!(client.join().is_ok(), "stop {seed} lost a request");
    }
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("cut"), 0);
    (proxy, tally)
}

#[test]
fn storm_through_stops_loses_nothing_when_the_idle_grace_is_longer_than_clients_think() {
    let origin = Origin::new();
    for stop in 0..stops() {
        let (proxy, tally) = storm(&origin, stop, "2s");
        assert_eq!(tally.raced.load(Ordering::SeqCst), 0, "stop {stop}: {tally:?}");
        assert_eq!(tally.perhaps_raced.load(Ordering::SeqCst), 0, "stop {stop}: {tally:?}");
        assert_eq!(proxy.reported("raced"), 0, "stop {stop}");
    }
}

#[test]
fn storm_through_stops_without_idle_grace_counts_what_raced_as_its_clients_do() {
    let origin = Origin::new();
    for stop in 0..stops() {
        let (proxy, tally) = storm(&origin, 1000 + stop, "0s");
        let sure = tally.raced.load(Ordering::SeqCst);
        let most = sure + tally.perhaps_raced.load(Ordering::SeqCst);
        let raced = proxy.reported("raced");
        assert!((sure..=most).contains(&raced), "stop {stop}: {raced} reported, {tally:?}");
    }
}
