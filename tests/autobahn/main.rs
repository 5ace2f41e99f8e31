//! The cases of the Autobahn test suite through the real binary, in clear text and over
//! TLS: each has to end as it does without a proxy.
//!
//! The suite is PyPI's `autobahntestsuite`, and its client and the echo server at the
//! other end are PyPI's `autobahn`; `tests/run` installs both. Where a case sends a
//! thousand messages, fifty are sent.

#![expect(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

#[path = "../support/mod.rs"]
mod support;

mod faulty;
mod itself;
mod suite;
mod verdict;

use std::thread::ScopedJoinHandle;

use support::identity::Identity;
use support::process::{Launch, Proxy};
use support::pypi::{self, Program};
use verdict::{Verdicts, differences, table};

/// All of the suite, but for the one without a bound, which it does not run itself.
const CASES: usize = 517;

/// The server at the other end.
fn echo() -> Program {
    Program::start(&mut pypi::program("autobahn/echo.py"))
}

/// How many tunnels a proxy has been, in whole.
fn tunnels(proxy: &Proxy) -> usize {
    proxy.terminate();
    proxy.wait_clean_exit();
    proxy.access_log().iter().filter(|line| line["status"] == 101).count()
}

#[test]
fn every_case_ends_as_it_does_without_a_proxy() {
    let identity = Identity::new();
    let echoes = [echo(), echo(), echo()];
    let [clear, tls] = [&echoes[1], &echoes[2]].map(|echo| {
        let launch = Launch::before_addr(&echo.place().to_string());
        launch.arg("--tls-listen").arg("127.0.0.1:0").identity(&identity.files).start()
    });
    let urls = [
        format!("ws://{}/", echoes[0].place()),
        format!("ws://{}/", clear.place()),
        format!("wss://{}/", tls.tls_place()),
    ];
    let trusted = Some(identity.authority.as_path());
    let [direct, through_clear, through_tls] = std::thread::scope(|scope| {
        let running = urls.each_ref().map(|url| scope.spawn(|| suite::run(url, trusted, &["*"])));
        running.map(|run: ScopedJoinHandle<'_, Verdicts>| run.join().expect("a run"))
    });
    let ways = [("clear", &through_clear), ("TLS", &through_tls)];
    println!("{}", table(&direct, &ways));
    assert_eq!(direct.len(), CASES, "the whole suite");
    let wrong = differences(&direct, &ways);
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!([tunnels(&clear), tunnels(&tls)], [CASES; 2], "all went through the proxies");
}
