//! Health, status and metrics, and who may ask for them.

use std::process::Command;

use serde_json::Value;

use crate::support::origin::Origin;
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{PATIENCE, admin, within};

fn pair() -> (Origin, Proxy) {
    let origin = Origin::new();
    let proxy = Launch::before(&origin).admin().start();
    (origin, proxy)
}

#[test]
fn serving_process_is_live_and_ready() {
    let (_origin, proxy) = pair();
    for path in ["/livez", "/readyz"] {
        assert_eq!(admin::get(&proxy.admin(), path).status, 200, "{path}");
    }
    assert_eq!(admin::get(&proxy.admin(), "/nothing").status, 403, "over TCP, only these");
}

#[test]
fn status_counts_connections_by_state() {
    let (origin, proxy) = pair();
    let idle = proxy.idle_client();
    let fresh = proxy.client();
    let mut active = proxy.client();
    active.get("/hold");
    origin.wait_started("/hold");
    for state in ["idle", "fresh", "active"] {
        proxy.wait_connections(state, 1);
    }
    let status = admin::status(&proxy.admin());
    assert_eq!(status["phase"], "serving");
    assert_eq!(status["pid"], proxy.pid);
    assert_eq!(status["deadline_ms"], Value::Null);
    assert_eq!(status["requests"], 1);
    for key in ["version", "generation", "raced", "cut"] {
        assert!(status.get(key).is_some(), "{key} in {status}");
    }
    let h1 = status["connections"]["h1"].as_object().expect("states");
    for state in ["fresh", "reading", "active", "idle", "closing"] {
        assert!(h1.contains_key(state), "{state} in {status}");
    }
    origin.release_all();
    assert_eq!(active.response().status, 200);
    drop((idle, fresh, active));
    for state in ["fresh", "reading", "active", "idle", "closing"] {
        proxy.wait_connections(state, 0);
    }
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let (origin, proxy) = pair();
    let mut client = proxy.idle_client();
    client.get("/hold");
    origin.wait_started("/hold");
    let response = admin::get(&proxy.admin(), "/metrics");
    assert!(response.field("content-type").is_some_and(|t| t.starts_with("text/plain")));
    let text = response.text();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("ebbtide_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for name in [
        "ebbtide_phase{phase=\"serving\"} 1",
        "ebbtide_connections{protocol=\"h1\",state=\"active\"} 1",
        "ebbtide_requests_total{code=\"200\"} 1",
        "ebbtide_raced_requests_total 0",
        "ebbtide_cut_requests_total 0",
        "ebbtide_access_log_dropped_total 0",
    ] {
        assert!(text.lines().any(|line| line == name), "{name} in\n{text}");
    }
    origin.release_all();
    client.response();
}

#[test]
fn host_that_is_not_ours_is_misdirected() {
    let (_origin, proxy) = pair();
    let place = proxy.admin();
    assert_eq!(admin::ask(&place, "GET", "/status", "evil.test").status, 421);
    let port = place.port();
    for host in ["localhost".to_owned(), format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        assert_eq!(admin::ask(&place, "GET", "/status", &host).status, 200, "{host}");
    }
}

#[test]
fn everything_but_reading_is_forbidden_over_tcp() {
    let (_origin, proxy) = pair();
    let place = proxy.admin();
    for (method, path) in [("POST", "/drain"), ("POST", "/stop"), ("POST", "/status")] {
        let status = admin::ask(&place, method, path, "localhost").status;
        assert!([403, 405].contains(&status), "{method} {path}: {status}");
    }
    assert!(proxy.runs());
}

#[test]
fn admin_on_a_unix_socket_is_for_us_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let origin = Origin::new();
    let proxy =
        Launch::before(&origin).arg("--admin").arg(format!("unix:{}", path.display())).start();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(admin::status(&Place::Unix(path.clone()))["phase"], "serving");
    proxy.terminate();
    proxy.wait_clean_exit();
    within(PATIENCE, "the path to be removed", || (!path.exists()).then_some(()));
}

#[test]
fn status_command_prints_what_admin_says() {
    let (_origin, proxy) = pair();
    let ask = |args: &[&str]| {
        let place = proxy.admin().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebbtide"));
        let output = command.arg("status").args(args).arg("--admin").arg(place).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&ask(&["--json"])).expect("JSON");
    assert_eq!(json["pid"], proxy.pid);
    assert!(ask(&[]).contains("serving"));
}

#[test]
fn status_command_fails_when_nobody_answers() {
    let gone = Origin::new().place().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebbtide"));
    let output = command.args(["status", "--admin", &gone]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!output.stderr.is_empty());
}
