//! What is short, or broken, around the proxy: it serves what it can, says so, and
//! neither dies nor spins.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::process::{Launch, Stdout};
use crate::support::{PATIENCE, admin, ms, pause, within};

#[test]
fn proxy_that_runs_out_of_descriptors_serves_who_is_in_and_recovers() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).descriptors(64).start();
    let place = proxy.place();
    let mut clients: Vec<Client> =
        (0..200).filter_map(|_| Client::try_connect(&place, ms(500)).ok()).collect();
    assert!(clients.len() >= 20, "some are in: {}", clients.len());
    for client in &mut clients {
        let _ = client.try_send(crate::support::client::get("/short"));
    }
    let mut served = 0;
    for client in &mut clients {
        client.read_bound(ms(if served == 0 { 5000 } else { 20 }));
        let Ok(response) = client.try_response() else {
            continue;
        };
        match response.status {
            200 => {
                assert_eq!(response.text(), "GET /short 0");
                served += 1;
            }
            status => assert_eq!(status, 503, "overloaded, if anything: {}", response.text()),
        }
    }
    assert!(served >= 5, "those who are in are served: {served}");

    let before = proxy.cpu_time();
    pause(Duration::from_secs(1));
    let spent = proxy.cpu_time() - before;
    assert!(spent < ms(300), "it spins: {spent:?} of a second");
    assert!(proxy.runs());

    drop(clients);
    within(PATIENCE, "a newcomer to be served again", || {
        let mut client = Client::try_connect(&place, ms(1000)).ok()?;
        client.read_bound(ms(1000));
        client.try_send(crate::support::client::get("/again")).ok()?;
        client.try_response().ok().filter(|response| response.status == 200)
    });
    proxy.terminate();
    proxy.wait_clean_exit();
}

#[test]
fn connections_beyond_the_limit_wait_or_are_told() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).set("limits.connections", "5").start();
    let place = proxy.place();
    let idle: Vec<Client> = (0..5).map(|_| proxy.idle_client()).collect();
    let mut one_more = Client::connect(&place);
    one_more.get("/more");
    drop(idle);
    // Told 503, or served as soon as there is room; either way the next one is served.
    one_more.read_bound(PATIENCE);
    if let Ok(response) = one_more.try_response() {
        assert!([200, 503].contains(&response.status), "{}", response.status);
    }
    drop(one_more);
    within(PATIENCE, "room again", || {
        let mut client = Client::try_connect(&place, PATIENCE).ok()?;
        client.try_send(crate::support::client::get("/room")).ok()?;
        client.try_response().ok().filter(|response| response.status == 200)
    });
}

#[test]
fn access_log_that_nobody_reads_does_not_stop_the_proxy() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().stdout(Stdout::Unread).start();
    let mut client = proxy.client();
    let target = format!("/{}", "x".repeat(2000));
    let dropped = || admin::metric(&proxy.admin(), "ebbtide_access_log_dropped_total");
    within(PATIENCE * 3, "lines to be dropped and counted", || {
        for _ in 0..200 {
            client.get(&target);
            assert_eq!(client.response().status, 200);
        }
        (dropped() > 0.0).then_some(())
    });
    client.get("/after");
    assert_eq!(client.response().status, 200);
    drop(client);
    proxy.terminate();
    let exit = proxy.wait_exit();
    assert!([0, 3].contains(&exit.code()), "{exit:?}");
    assert!(proxy.events("request_cut").is_empty());
}

#[test]
fn full_disk_under_the_access_log_does_not_stop_the_proxy() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().stdout(Stdout::File("/dev/full".into())).start();
    let mut client = proxy.client();
    for n in 0..500 {
        client.get(&format!("/{n}"));
        assert_eq!(client.response().status, 200);
    }
    let before = proxy.cpu_time();
    pause(ms(500));
    assert!(proxy.cpu_time() - before < ms(200), "it spins");
    assert!(proxy.wait_event("log_broken").text("message").contains("No space left"));
    drop(client);
    proxy.terminate();
    assert_eq!(proxy.wait_exit().code(), 0, "nobody lost a request");
}

#[test]
fn access_log_can_be_switched_off() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).arg("--access-log").arg("off").start();
    drop(proxy.idle_client());
    proxy.terminate();
    proxy.wait_clean_exit();
    assert!(proxy.access_log().is_empty());
}
