//! The watchdog ends a process whose stop outlives its bounds, even if a thread is
//! stuck and nobody hears what it says.

use crate::support::ms;
use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};

/// All bounds of [`start`]'s stop: closing (1 s), drain, cut, finish, and the force timeout.
const BOUNDS: u64 = 1_000 + 200 + 100 + 100 + 300;

/// A proxy whose control thread gets stuck in the last phase of its stop.
fn start(origin: &Origin) -> Proxy {
    Launch::before(origin)
        .env("EBBTIDE_SABOTAGE", "control-goes-on")
        .stop("drain_timeout", "200ms")
        .stop("cut_timeout", "100ms")
        .stop("finish_timeout", "100ms")
        .stop("force_timeout", "300ms")
        .start()
}

#[test]
fn stop_that_outlives_its_bounds_is_ended_and_says_so() {
    let origin = Origin::new();
    let proxy = start(&origin);
    let told = proxy.terminate();
    let exit = proxy.wait_exit();
    assert_eq!(exit.code(), 3);
    assert!(exit.at - told >= ms(BOUNDS), "not before: {:?}", exit.at - told);
    assert_eq!(proxy.phases().last().map(String::as_str), Some("finishing"));
    let last = proxy.wait_event("watchdog");
    assert_eq!(last.text("level"), "error");
    assert!(last.text("message").contains("outlived"), "{}", last.fields);
    assert!(proxy.events("drain_report").is_empty(), "it was stuck before");
}

#[test]
fn stop_that_outlives_its_bounds_is_ended_though_nobody_reads_stderr() {
    let origin = Origin::new();
    let proxy = start(&origin);
    proxy.clog_stderr();
    let told = proxy.terminate();
    let exit = proxy.wait_gone();
    assert_eq!(exit.code(), 3);
    assert!(exit.at - told >= ms(BOUNDS), "not before: {:?}", exit.at - told);
    proxy.unclog_stderr();
    proxy.wait_exit();
}

#[test]
fn stop_ends_well_though_nobody_reads_stderr() {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).start();
    proxy.clog_stderr();
    proxy.terminate();
    assert_eq!(proxy.wait_gone().code(), 0);
    proxy.unclog_stderr();
    proxy.wait_exit();
}
