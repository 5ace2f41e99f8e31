//! What each connection is asked once draining starts: the HTTP/1 rows of the
//! contract's table, one by one.

use crate::support::client::{Client, End, get, post_head};
use crate::support::origin::{Crowd, HALVES, Origin};
use crate::support::process::{Launch, Proxy};
use crate::support::{PATIENCE, ms, pattern, pause, within};

/// Graces so long that a test which waits for their end fails.
const LONG: &str = "60s";

fn start(origin: &Origin) -> Proxy {
    Launch::before(origin)
        .admin()
        .stop("first_request_grace", LONG)
        .stop("idle_grace", LONG)
        .stop("drain_timeout", "120s")
        .start()
}

/// A whole answer that says that it is the last one, and the end that it announced.
#[track_caller]
fn is_last_answer(client: &mut Client) -> String {
    let response = client.response();
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.says_close(), "the client is told: {:?}", response.head);
    assert_eq!(client.end(), End::Eof);
    response.text()
}

/// SIGTERM, and the moment from which every connection is asked to end.
fn drain(proxy: &Proxy) {
    proxy.terminate();
    proxy.wait_phase("draining");
}

#[test]
fn fresh_connection_is_served_when_its_request_comes_within_the_grace() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    proxy.wait_connections("fresh", 1);
    drain(&proxy);
    client.hears_nothing_for(ms(100));
    client.get("/first");
    assert_eq!(is_last_answer(&mut client), "GET /first 0");
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn fresh_connection_is_ended_by_a_fin_when_no_request_comes_within_the_grace() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).stop("first_request_grace", "300ms").start();
    let mut client = proxy.client();
    let told = proxy.terminate();
    assert_eq!(client.end(), End::Eof);
    assert!(told.elapsed() >= ms(300), "the grace was not given: {:?}", told.elapsed());
    drop(client);
    proxy.wait_clean_exit();
    assert!(proxy.events("request_cut").is_empty());
}

#[test]
fn connections_in_the_accept_queue_at_the_signal_are_served() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let place = proxy.place();
    let mut early = Vec::new();
    let mut late = Vec::new();
    proxy.terminate_frozen(ms(0), || {
        for _ in 0..20 {
            let mut client = Client::connect(&place);
            client.get("/queued");
            early.push(client);
            late.push(Client::connect(&place));
        }
    });
    for client in &mut early {
        assert_eq!(client.response().text(), "GET /queued 0");
    }
    proxy.wait_phase("draining");
    for client in &mut late {
        client.get("/late");
        assert_eq!(is_last_answer(client), "GET /late 0");
    }
}

#[test]
fn request_whose_head_is_half_read_is_served() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.send("GET /half HTTP/1.1\r\nHos");
    proxy.wait_connections("reading", 1);
    drain(&proxy);
    client.hears_nothing_for(ms(50));
    client.send("t: app.test\r\n\r\n");
    assert_eq!(is_last_answer(&mut client), "GET /half 0");
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn second_request_whose_head_is_half_read_is_served() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.idle_client();
    client.send("GET /half HTTP/1.1\r\n");
    proxy.wait_connections("reading", 1);
    drain(&proxy);
    client.send("Host: app.test\r\n\r\n");
    assert_eq!(is_last_answer(&mut client), "GET /half 0");
}

#[test]
fn response_whose_head_is_not_sent_yet_says_close() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    drain(&proxy);
    client.hears_nothing_for(ms(50));
    origin.release("/hold");
    assert_eq!(is_last_answer(&mut client), "held");
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn response_whose_head_is_sent_finishes_before_its_connection_ends() {
    for framing in ["length", "chunked", "close"] {
        let origin = Origin::new();
        let proxy = Launch::before(&origin).stop("idle_grace", "200ms").start();
        let mut client = proxy.client();
        let target = format!("/part/{framing}");
        client.get(&target);
        let head = client.head();
        let chunked = head.lists("transfer-encoding", "chunked");
        assert!(!head.says_close(), "{framing}");
        let mut body = Vec::new();
        if chunked {
            assert_eq!(client.wire.line(), Ok(format!("{:x}", HALVES[0].len())));
        }
        body.extend(client.octets(HALVES[0].len()));
        drain(&proxy);
        client.hears_nothing_for(ms(50));
        origin.release(&target);
        if chunked {
            assert_eq!(client.wire.line(), Ok(String::new()));
            client.wire.chunked(&mut body).expect("the terminator");
            assert_eq!(client.end(), End::Eof, "{framing}");
        } else {
            let (end, rest) = client.rest();
            assert_eq!(end, End::Eof, "{framing}");
            body.extend(rest);
        }
        assert_eq!(body, HALVES.concat().as_bytes(), "{framing}");
        drop(client);
        proxy.wait_clean_exit();
    }
}

#[test]
fn upload_goes_on() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let body = pattern(200_000);
    let mut client = proxy.client();
    client.send(post_head("/echo", body.len())).send(&body[..50_000]);
    origin.wait_started("/echo");
    drain(&proxy);
    for piece in body[50_000..].chunks(30_000) {
        pause(ms(20));
        client.send(piece);
    }
    let response = client.response();
    assert!(response.says_close());
    assert_eq!(response.body, body);
    assert_eq!(client.end(), End::Eof);
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn chunked_upload_goes_on() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.send(crate::support::client::chunked_head("/echo")).send("5\r\nhello\r\n");
    origin.wait_started("/echo");
    drain(&proxy);
    client.send("7\r\n, world\r\n");
    pause(ms(20));
    client.send("0\r\n\r\n");
    assert_eq!(is_last_answer(&mut client), "hello, world");
}

#[test]
fn request_that_waits_for_an_upstream_connection_still_gets_one() {
    let crowd = Crowd::new();
    let proxy = Launch::before_addr(&crowd.place().to_string())
        .admin()
        .set("upstream.connect_timeout", "60s")
        .stop("drain_timeout", "120s")
        .start();
    let mut client = proxy.client();
    client.get("/queued");
    proxy.wait_connections("active", 1);
    drain(&proxy);
    client.hears_nothing_for(ms(50));
    let origin = crowd.open();
    assert_eq!(is_last_answer(&mut client), "GET /queued 0");
    drop(client);
    proxy.wait_clean_exit();
    assert_eq!(origin.requests_for("/queued").len(), 1);
}

#[test]
fn new_upstream_connections_are_made_while_draining() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    proxy.wait_connections("fresh", 4);
    drain(&proxy);
    for (n, client) in clients.iter_mut().enumerate() {
        client.get(&format!("/hold/{n}"));
        origin.wait_started(&format!("/hold/{n}"));
    }
    assert_eq!(origin.connections(), 4);
    origin.release_all();
    for client in &mut clients {
        assert_eq!(is_last_answer(client), "held");
    }
}

#[test]
fn pipelined_requests_are_all_answered_and_only_the_last_answer_says_close() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.send([get("/hold/1"), get("/hold/2"), get("/3")].concat());
    origin.wait_started("/hold/1");
    drain(&proxy);
    origin.release_all();
    for _ in 0..2 {
        let response = client.response();
        assert_eq!(response.text(), "held");
        assert!(!response.says_close(), "octets of a further request are there");
    }
    assert_eq!(is_last_answer(&mut client), "GET /3 0");
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn half_a_pipelined_request_keeps_the_close_back_until_it_is_served() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.send([get("/hold"), "GET /second HTT".to_owned()].concat());
    origin.wait_started("/hold");
    drain(&proxy);
    origin.release_all();
    assert!(!client.response().says_close());
    client.hears_nothing_for(ms(50));
    client.send("P/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(is_last_answer(&mut client), "GET /second 0");
}

#[test]
fn pipelined_request_received_while_the_first_is_active_is_answered() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    drain(&proxy);
    client.get("/second");
    origin.release_all();
    assert!(!client.response().says_close());
    assert_eq!(is_last_answer(&mut client), "GET /second 0");
}

#[test]
fn nothing_is_answered_after_a_close() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.client();
    client.get("/hold");
    origin.wait_started("/hold");
    drain(&proxy);
    origin.release_all();
    assert!(client.response().says_close());
    let _ = client.try_send(get("/too-late"));
    assert_eq!(client.end(), End::Eof);
    drop(client);
    proxy.wait_clean_exit();
    assert!(origin.requests_for("/too-late").is_empty());
}

#[test]
fn octets_after_the_close_do_not_destroy_the_last_response() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = Client::connect_narrow(&proxy.place(), 4096);
    client.get("/hold");
    let mut big = Client::connect_narrow(&proxy.place(), 4096);
    proxy.wait_connections("active", 1);
    drain(&proxy);
    big.get("/bytes/200000");
    let head = big.head();
    assert!(head.says_close());
    big.get("/too-late");
    pause(ms(50));
    let (end, body) = big.rest();
    assert_eq!((end, body.len()), (End::Eof, 200_000));
    origin.release_all();
    assert_eq!(is_last_answer(&mut client), "held");
}

#[test]
fn idle_connection_is_used_once_more_within_the_grace() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut client = proxy.idle_client();
    proxy.wait_connections("idle", 1);
    drain(&proxy);
    client.hears_nothing_for(ms(100));
    client.get("/again");
    assert_eq!(is_last_answer(&mut client), "GET /again 0");
    drop(client);
    proxy.wait_clean_exit();
}

#[test]
fn idle_connection_is_ended_by_a_fin_after_the_grace() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).stop("idle_grace", "300ms").start();
    let mut client = proxy.idle_client();
    let told = proxy.terminate();
    assert_eq!(client.end(), End::Eof);
    assert!(told.elapsed() >= ms(300), "the grace was not given: {:?}", told.elapsed());
    drop(client);
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("raced"), 0);
}

#[test]
fn last_look_finds_requests_that_came_before_the_signal() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).stop("idle_grace", "0s").start();
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.idle_client()).collect();
    proxy.terminate_frozen(ms(0), || {
        for client in &mut clients {
            client.get("/look");
        }
    });
    for client in &mut clients {
        assert_eq!(client.response().text(), "GET /look 0");
        assert_eq!(client.end(), End::Eof);
    }
    drop(clients);
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("raced"), 0);
}

#[test]
fn request_on_an_idle_connection_after_our_fin_is_counted_as_raced() {
    // The socket is read for 100 ms after the FIN; a busy machine may miss that once.
    let counted = (0..5).any(|_| {
        let origin = Origin::new();
        let proxy = Launch::before(&origin).stop("idle_grace", "0s").start();
        let mut client = proxy.idle_client();
        proxy.terminate();
        within(PATIENCE, "the FIN", || client.ended());
        let _ = client.try_send(get("/raced"));
        client.rest();
        drop(client);
        proxy.wait_clean_exit();
        assert!(origin.requests_for("/raced").is_empty());
        proxy.reported("raced") == 1
    });
    assert!(counted);
}

#[test]
fn connections_of_every_state_end_well_together() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let mut fresh = proxy.client();
    let mut idle = proxy.idle_client();
    let mut reading = proxy.client();
    reading.send("GET /r HTTP/1.1\r\n");
    let mut active = proxy.client();
    active.get("/hold");
    let mut uploading = proxy.client();
    uploading.send(post_head("/up", 4)).send("ab");
    for (state, n) in [("fresh", 1), ("idle", 1), ("reading", 1), ("active", 2)] {
        proxy.wait_connections(state, n);
    }
    drain(&proxy);
    fresh.get("/f");
    idle.get("/i");
    reading.send("Host: app.test\r\n\r\n");
    uploading.send("cd");
    origin.release_all();
    assert_eq!(is_last_answer(&mut fresh), "GET /f 0");
    assert_eq!(is_last_answer(&mut idle), "GET /i 0");
    assert_eq!(is_last_answer(&mut reading), "GET /r 0");
    assert_eq!(is_last_answer(&mut active), "held");
    assert_eq!(is_last_answer(&mut uploading), "POST /up 4");
    drop((fresh, idle, reading, active, uploading));
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("raced"), 0);
    assert!(proxy.events("request_cut").is_empty());
}

#[test]
fn octets_that_are_no_request_do_not_hold_the_process_up() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin)
        .stop("idle_grace", "200ms")
        .stop("first_request_grace", "200ms")
        .stop("drain_timeout", "60s")
        .start();
    let clients = [proxy.idle_client(), proxy.client()];
    let chatter = clients.map(|mut client| {
        std::thread::spawn(move || {
            while client.try_send("\r\n").is_ok() && client.ended().is_none() {
                pause(ms(1));
            }
        })
    });
    pause(ms(300));
    let told = proxy.terminate();
    let exit = proxy.wait_exit();
    let took = exit.at - told;
    assert!(took < ms(3000), "they held it up: {took:?}");
    assert_eq!(exit.code(), 0);
    for thread in chatter {
        thread.join().unwrap();
    }
}
