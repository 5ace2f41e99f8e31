//! The stop of connections that a proxy before us passes on.

use super::{ANNOUNCED, CLIENT, announced_in_binary, is_from, launch};
use crate::support::client::{Client, End};
use crate::support::origin::Origin;
use crate::support::process::Launch;
use crate::support::{ms, pause};

/// Graces so long that a test which waits for their end fails.
fn patient(origin: &Origin) -> Launch {
    launch(origin)
        .stop("first_request_grace", "60s")
        .stop("idle_grace", "60s")
        .stop("drain_timeout", "120s")
}

#[test]
fn who_has_only_announced_itself_is_fresh_in_a_drain() {
    let origin = Origin::new();
    let proxy = patient(&origin).start();
    let mut before = proxy.client();
    before.send(ANNOUNCED);
    let mut silent = proxy.client();
    let mut half = proxy.client();
    half.send(&ANNOUNCED[..20]);
    let mut busy = proxy.client();
    busy.send(ANNOUNCED).get("/hold");
    origin.wait_started("/hold");
    proxy.wait_connections("fresh", 3);
    proxy.terminate();
    proxy.wait_phase("draining");
    before.hears_nothing_for(ms(100));
    silent.send(ANNOUNCED);
    silent.hears_nothing_for(ms(100));
    half.send(&ANNOUNCED[20..]);
    origin.release("/hold");
    for (client, target) in
        [(&mut before, "/before"), (&mut silent, "/silent"), (&mut half, "/half")]
    {
        client.get(target);
    }
    for client in [&mut before, &mut silent, &mut half, &mut busy] {
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.says_close(), "the client is told: {:?}", response.head);
        assert_eq!(client.end(), End::Eof);
    }
    for target in ["/before", "/silent", "/half", "/hold"] {
        is_from(&origin.requests_for(target)[0], CLIENT, 8443);
    }
    drop((before, silent, half, busy));
    proxy.wait_clean_exit();
}

#[test]
fn who_is_in_the_accept_queue_may_announce_itself() {
    let origin = Origin::new();
    let proxy = patient(&origin).start();
    let place = proxy.place();
    let mut clients = Vec::new();
    proxy.terminate_frozen(ms(0), || {
        clients = (0..10).map(|_| Client::connect(&place)).collect();
        for client in &mut clients {
            client.send(announced_in_binary());
        }
    });
    proxy.wait_phase("draining");
    for client in &mut clients {
        client.get("/queued");
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.says_close());
        assert_eq!(client.end(), End::Eof);
    }
    for request in origin.requests() {
        is_from(&request, CLIENT, 8443);
    }
}

#[test]
fn header_alone_gives_no_time_in_a_drain() {
    let origin = Origin::new();
    let proxy =
        launch(&origin).stop("first_request_grace", "3s").stop("drain_timeout", "60s").start();
    let mut before = proxy.client();
    before.send(ANNOUNCED);
    let mut meanwhile = proxy.client();
    let mut slow = proxy.client();
    slow.send(&ANNOUNCED[..5]);
    proxy.wait_connections("fresh", 3);
    let told = proxy.terminate();
    for n in 5..20 {
        pause(ms(100));
        slow.send(&ANNOUNCED[n..=n]);
    }
    meanwhile.send(ANNOUNCED);
    for client in [&mut before, &mut meanwhile, &mut slow] {
        assert_eq!(client.end(), End::Eof);
        let after = told.elapsed();
        assert!(after >= ms(3000) && after < ms(4400), "after {after:?}");
    }
    let hung = proxy.wait_event("client_hung");
    assert_eq!(hung.text("what"), "did not finish its PROXY protocol header");
    drop((before, meanwhile, slow));
    proxy.wait_clean_exit();
}

#[test]
fn hard_deadline_ends_half_a_header_and_cuts_no_request() {
    let origin = Origin::new();
    let proxy =
        launch(&origin).stop("first_request_grace", "300s").stop("drain_timeout", "400ms").start();
    let mut half = proxy.client();
    half.send(&ANNOUNCED[..30]);
    let mut whole = proxy.client();
    whole.send(ANNOUNCED);
    proxy.wait_connections("fresh", 2);
    let told = proxy.terminate();
    for client in [&mut half, &mut whole] {
        assert_eq!(client.end(), End::Eof);
        assert!(told.elapsed() >= ms(400), "early: {:?}", told.elapsed());
    }
    drop((half, whole));
    proxy.wait_clean_exit();
    assert_eq!(proxy.reported("cut"), 0);
    assert!(proxy.events("client_hung").is_empty(), "it had the time that there was");
}

#[test]
fn cut_request_is_named_with_the_announced_client() {
    let origin = Origin::new();
    let proxy = launch(&origin).stop("drain_timeout", "400ms").start();
    let mut client = proxy.client();
    client.send(ANNOUNCED).get("/hold/cut");
    origin.wait_started("/hold/cut");
    proxy.terminate();
    assert_eq!(client.response().status, 504);
    drop(client);
    let report = proxy.drain_report();
    assert_eq!(report["cut"][0]["client"], "192.0.2.7:56324", "{report}");
}
