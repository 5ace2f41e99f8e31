//! The configuration as an operator meets it: the real binary, `check`, its
//! output and its exit status.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

const NEEDED: [&str; 4] = ["--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:3000"];

/// A run of the binary in an environment of its own.
fn ebbtide(dir: &Path, environment: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ebbtide"))
        .current_dir(dir)
        .env_clear()
        .envs(environment.iter().copied())
        .args(args)
        .output()
        .unwrap()
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_error_of_all_sources_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = "\
listen = ':8080'
upstream.endpoints = ['127.0.0.1:3000', 'h2:unix:/app']

[timeouts]
hed = 10
head = '10 parsecs'

[timeout]
body = 1

[limits]
head_count = 1000
";
    std::fs::write(dir.path().join("ebbtide.toml"), file).unwrap();
    let output = ebbtide(
        dir.path(),
        &[("EBBTIDE_DRAIN_TIMEOUT", "5s"), ("EBBTIDE_LOG__QUERY", "maybe")],
        &[
            "check",
            "--config",
            "ebbtide.toml",
            "--set",
            "upstream.retry=always",
            "--set",
            "lisen=:1",
            "--workers",
            "none",
        ],
    );
    let duration = "a duration such as 500ms, 30s, 1m30s, or a number of seconds";
    let endpoints = "addresses of app servers: HOST:PORT, [::1]:PORT, unix:PATH, \
                     http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT, h2c:unix:PATH or \
                     h2://HOST:PORT";
    let want = [
        format!(
            "ebbtide.toml:2: upstream.endpoints: found \"h2:unix:/app\" (a unix socket needs \
             no TLS); allowed: {endpoints}"
        ),
        "ebbtide.toml:5: timeouts.hed: unknown key; did you mean timeouts.head?".to_owned(),
        format!("ebbtide.toml:6: timeouts.head: found \"10 parsecs\"; allowed: {duration}"),
        "ebbtide.toml:8: timeout: unknown table; did you mean timeouts?".to_owned(),
        "ebbtide.toml:12: limits.head_count: found \"1000\"; allowed: a number from 1 to 256"
            .to_owned(),
        "environment EBBTIDE_DRAIN_TIMEOUT: unknown variable; did you mean \
         EBBTIDE_DRAIN__STOP__DRAIN_TIMEOUT?"
            .to_owned(),
        "environment EBBTIDE_LOG__QUERY: log.query: found \"maybe\"; allowed: true or false"
            .to_owned(),
        "--set: upstream.retry: found \"always\"; allowed: idempotent, never".to_owned(),
        "--set: lisen: unknown key; did you mean listen?".to_owned(),
        "--workers: workers: found \"none\"; allowed: a number from 1 to 1024".to_owned(),
    ];
    let found = stderr(&output);
    assert_eq!(found.lines().collect::<Vec<_>>(), want);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
}

#[test]
fn check_shows_the_routes() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[[route]]\npath = '/events'\nendless = true\non_drain = 'cancel'\n";
    std::fs::write(dir.path().join("e.toml"), file).unwrap();
    let args = [&["check", "--config", "e.toml"][..], &NEEDED].concat();
    let output = ebbtide(dir.path(), &[], &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = stdout(&output);
    assert!(shown.contains("\nroute     /events, endless, on_drain cancel\n"), "{shown}");
}

#[test]
fn what_is_wrong_with_certificates_is_reported_with_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.pem", made.cert.pem());
    write("a.key", other.signing_key.serialize_pem());
    write("b.key", made.cert.pem());
    let file = "tls.listen = ':0'\ntls.cert = ['a.pem', 'none.pem', 'a.pem']\n\
                tls.key = ['a.key', 'b.key']\ntimeouts.hed = 1\n";
    write("e.toml", file.to_owned());
    let output = ebbtide(dir.path(), &[], &["check", "--config", "e.toml"]);
    let found = stderr(&output);
    let want = [
        "e.toml:2: tls.cert: none.pem: cannot read it: No such file",
        "e.toml:3: tls.key: found 2 for 3 in tls.cert; allowed: as many",
        "e.toml:3: tls.key: a.key: this key does not match the certificate in a.pem",
        "e.toml:3: tls.key: b.key: found CERTIFICATE; allowed: a PEM file with one private key",
        "e.toml:4: timeouts.hed: unknown key",
        "configuration: upstream.endpoints: none given",
    ];
    assert_eq!(found.lines().count(), want.len(), "{found}");
    for (line, want) in found.lines().zip(want) {
        assert!(line.starts_with(want), "{line}\nis not\n{want}");
    }
    assert_eq!(output.status.code(), Some(2));
    let run = ebbtide(dir.path(), &[], &["run", "--config", "e.toml"]);
    assert_eq!(stderr(&run).lines().count(), want.len());
    assert_eq!(run.status.code(), Some(2));
}

#[test]
fn listeners_with_tls_are_enough_and_need_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    std::fs::write(dir.path().join("a.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("a.key"), made.signing_key.serialize_pem()).unwrap();
    let check = |args: &[&str]| {
        let needed = ["check", "--upstream", "127.0.0.1:3000"];
        ebbtide(dir.path(), &[], &[&needed[..], args].concat())
    };
    let pair = ["--cert", "a.pem", "--key", "a.key"];
    let good = check(&[&["--tls-listen", ":8443"][..], &pair].concat());
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(stdout(&good).contains("tls       0.0.0.0:8443\n"), "{}", stdout(&good));
    let bare = stderr(&check(&["--tls-listen", ":8443"]));
    assert!(bare.starts_with("configuration: tls.cert: none given"), "{bare}");
    assert_eq!(bare.lines().count(), 1, "{bare}");
    let idle = check(&[&["--listen", ":8080"][..], &pair].concat());
    assert_eq!(idle.status.code(), Some(0));
    assert!(stderr(&idle).contains("tls.cert: there is no tls.listen"), "{}", stderr(&idle));
    let twice = check(&[&["--listen", ":8443", "--tls-listen", ":8443"][..], &pair].concat());
    assert!(stderr(&twice).contains("0.0.0.0:8443 is listened on twice"), "{}", stderr(&twice));
}

#[test]
fn each_source_overrides_the_ones_below_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("e.toml"), "drain.stop.drain_timeout = 21").unwrap();
    let variable = [("EBBTIDE_DRAIN__STOP__DRAIN_TIMEOUT", "22s")];
    let file = ["--config", "e.toml"];
    let set = ["--set", "drain.stop.drain_timeout=23s"];
    let flag = ["--drain-timeout", "24s"];
    let none: &[(&str, &str)] = &[];
    let cases = [
        (none, vec![], "draining 20s"),
        (none, file.to_vec(), "draining 21s"),
        (&variable[..], file.to_vec(), "draining 22s"),
        (&variable[..], [file, set].concat(), "draining 23s"),
        (&variable[..], [file, flag, set].concat(), "draining 24s"),
    ];
    for (environment, more, want) in cases {
        let args = [vec!["check"], NEEDED.to_vec(), more].concat();
        let output = ebbtide(dir.path(), environment, &args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains(want), "{want} is not in\n{}", stdout(&output));
    }
}

#[test]
fn check_names_who_is_served_and_how_long_a_stop_takes() {
    let args = [&["check", "--admin", "unix:/tmp/a", "--lame-duck", "5s"][..], &NEEDED].concat();
    let output = ebbtide(here(), &[], &args);
    let found = stdout(&output);
    assert!(found.starts_with("ok\n"), "{found}");
    for part in ["127.0.0.1:0\n", "unix:/tmp/a\n", "127.0.0.1:3000\n", "at most 31s (+2s watchdog)"]
    {
        assert!(found.contains(part), "{part} is not in\n{found}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_drain_shorter_than_a_response_is_a_warning_and_no_error() {
    let check = |first_byte: &str| {
        let set = format!("upstream.first_byte_timeout={first_byte}");
        let output = ebbtide(here(), &[], &[&["check", "--set", &set][..], &NEEDED].concat());
        assert_eq!(output.status.code(), Some(0));
        stderr(&output)
    };
    assert!(check("21s").starts_with("warning: drain.stop.drain_timeout: 20s is less than"));
    assert_eq!(check("20s"), "");
}

#[test]
fn check_binds_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        ebbtide(here(), &[], &["check", "--listen", &address, "--upstream", "no.such.host:80"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn what_is_missing_is_said_with_the_way_to_give_it() {
    let output = ebbtide(here(), &[], &["check"]);
    let found = stderr(&output);
    for part in ["--listen ADDRESS", "EBBTIDE_LISTEN", "--upstream ADDRESS"] {
        assert!(found.contains(part), "{part} is not in\n{found}");
    }
    assert_eq!(found.lines().count(), 2, "{found}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("latin1.toml"), b"# \xe9\n").unwrap();
    for name in ["none.toml", "latin1.toml"] {
        let output = ebbtide(dir.path(), &[], &["check", "--config", name]);
        assert!(stderr(&output).starts_with(&format!("{name}: cannot read it: ")));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn no_file_is_read_unless_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ebbtide.toml"), "nonsense").unwrap();
    let output = ebbtide(dir.path(), &[], &[&["check"][..], &NEEDED].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn the_shipped_files_are_accepted() {
    let shortest = ebbtide(here(), &[], &["check", "--config", "config/ebbtide.toml"]);
    assert_eq!(shortest.status.code(), Some(0), "{}", stderr(&shortest));
    let args = [&["check", "--config", "config/ebbtide.reference.toml"][..], &NEEDED].concat();
    let reference = ebbtide(here(), &[], &args);
    assert_eq!(reference.status.code(), Some(0), "{}", stderr(&reference));
}

#[test]
fn wrong_usage_has_status_two_and_help_has_none() {
    for args in [&[][..], &["sail"], &["check", "--sails", "2"], &["run", "--listen"]] {
        assert_eq!(ebbtide(here(), &[], args).status.code(), Some(2), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["run", "--help"]] {
        assert_eq!(ebbtide(here(), &[], args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn help_mentions_every_flag_every_key_and_every_exit_status() {
    let run = [
        "--config",
        "--set",
        "--listen",
        "--tls-listen",
        "--cert",
        "--key",
        "--upstream",
        "--admin",
        "--drain-timeout",
        "--lame-duck",
        "--workers",
        "--access-log",
        "--report",
        "Exit status",
        "SIGTERM",
        "EBBTIDE_",
        "no file is read",
    ];
    let keys: Vec<_> = ebbtide::config::KEYS.iter().map(|key| key.name).collect();
    let cases: [(&[&str], Vec<&str>); 4] = [
        (&["run", "--help"], [run.to_vec(), keys.clone()].concat()),
        (&["check", "--help"], [run.to_vec(), keys].concat()),
        (&["status", "--help"], vec!["--json", "--watch", "--admin"]),
        (
            &["--help"],
            vec!["run", "check", "status", "  0  ", "  1  ", "  2  ", "  3  ", "SIGQUIT"],
        ),
    ];
    for (args, parts) in cases {
        let found = stdout(&ebbtide(here(), &[], args));
        for part in parts {
            assert!(found.contains(part), "{part} is not in the help of {args:?}");
        }
    }
}

#[test]
fn why_it_does_not_start_is_a_log_line_where_nobody_reads_a_terminal() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        ebbtide(here(), &[], &["run", "--listen", &address, "--upstream", "127.0.0.1:3000"]);
    assert_eq!(output.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_str(stderr(&output).trim()).unwrap();
    assert_eq!(line["event"], "start_failed");
    assert!(line["message"].as_str().unwrap().contains(&address), "{line}");

    let output = ebbtide(here(), &[], &["run", "--set", "timeouts.hed=1", "--set", "listen=x"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 3, "{text}");
    assert!(lines.iter().all(|line| line["event"] == "config_error"), "{text}");
    assert!(text.contains("did you mean timeouts.head"), "{text}");
}

/// The lines of a file that do something.
fn effective(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(here().join(path)).unwrap();
    let lines = text.lines().map(str::trim_end);
    let said = |line: &&str| !line.is_empty() && !line.trim_start().starts_with('#');
    lines.filter(said).map(str::to_owned).collect()
}

#[test]
fn the_readme_shows_the_snippets_that_are_shipped_and_tested() {
    let readme = std::fs::read_to_string(here().join("README.md")).unwrap();
    let nginx = effective("config/behind-nginx.conf").join("\n");
    assert!(readme.contains(&format!("```nginx\n{nginx}\n```")), "{nginx}");
    let haproxy = effective("config/behind-haproxy.cfg");
    let backend = haproxy.iter().position(|line| line.starts_with("backend ")).unwrap();
    let backend = haproxy[backend..].join("\n");
    assert!(readme.contains(&format!("```haproxy\n{backend}\n```")), "{backend}");
}
