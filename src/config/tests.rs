//! What holds across the modules: precedence, all errors at once, the rules
//! between keys, and the shipped files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::form::Form;
use super::*;

/// Sources with what every configuration needs, and the arguments of `--set`.
fn minimal(set: &[&str]) -> Sources {
    let mut all = vec!["listen=127.0.0.1:0".to_owned(), "upstream.endpoints=app:80".to_owned()];
    all.extend(set.iter().map(|text| (*text).to_owned()));
    Sources { set: all, ..Sources::default() }
}

fn loaded(set: &[&str]) -> Loaded {
    load(&minimal(set)).unwrap()
}

fn refused(sources: &Sources) -> String {
    load(sources).unwrap_err().to_string()
}

/// Sources with a file of this text, which lives as long as the directory.
fn with_file(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Sources { file: Some(path), ..Sources::default() })
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

const LEAST: &str = "listen = ':0'\nupstream.endpoints = 'app:80'\n";

#[test]
fn defaults_are_those_of_the_public_interface() {
    let config = loaded(&[]).config;
    let secs = Duration::from_secs;
    assert_eq!(config.timeouts.head, secs(10));
    assert_eq!(config.timeouts.idle, secs(75));
    assert_eq!(config.upstream.idle_timeout, Duration::from_millis(1500));
    assert_eq!(config.upstream.retry, Retry::Idempotent);
    assert_eq!(config.limits.head_size, 65_536);
    assert_eq!(config.limits.connections, None);
    assert_eq!(config.log, Log { access: AccessFormat::Json, query: false });
    assert_eq!(config.stop.drain_timeout, secs(20));
    assert_eq!(config.stop.total_timeout, secs(26));
    assert_eq!(config.stop.longest(), secs(28));
    let Upgrade { plan, timeout, take_back, commit_after, max_generations, takeover } =
        config.upgrade;
    assert_eq!((timeout, take_back, commit_after), (secs(30), secs(30), secs(5)));
    assert_eq!((max_generations, takeover), (4, None));
    assert_eq!((plan.lame_duck, plan.first_request_grace), (secs(0), secs(5)));
    assert_eq!((plan.idle_grace, plan.goaway_grace), (secs(75), secs(1)));
    assert_eq!((plan.stream_close_after, plan.spread), (secs(600), secs(30)));
    assert_eq!((plan.drain_timeout, plan.total_timeout), (secs(3600), secs(3605)));
}

#[test]
fn the_grace_of_what_cannot_move_is_that_of_idle_connections_unless_said() {
    let grace = |set: &[&str]| loaded(set).config.upgrade.plan.idle_grace;
    assert_eq!(grace(&["timeouts.idle=9s"]), Duration::from_secs(9));
    assert_eq!(grace(&["timeouts.idle=9s", "drain.upgrade.idle_grace=2s"]), Duration::from_secs(2));
}

#[test]
fn every_default_is_accepted_by_its_own_key() {
    for key in KEYS {
        let (Preset::Default(text) | Preset::Unset(text)) = key.default;
        let mut draft = draft::Draft::with_defaults();
        let set = key.form.set(&mut draft, &form::pieces(text));
        assert_eq!(set, Ok(()), "{}", key.name);
    }
}

#[test]
fn no_key_is_listed_twice() {
    let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KEYS.len());
}

#[test]
fn a_number_in_a_file_is_a_duration_in_seconds() {
    for (text, millis) in [("10", 10_000), ("1.5", 1_500), ("'10s'", 10_000), ("'1m30s'", 90_000)] {
        let (_dir, sources) = with_file(&format!("{LEAST}timeouts.head = {text}"));
        let head = load(&sources).unwrap().config.timeouts.head;
        assert_eq!(head, Duration::from_millis(millis), "{text}");
    }
}

#[test]
fn a_list_is_a_string_or_an_array_in_a_file_and_comma_separated_elsewhere() {
    let want: Vec<Listen> = vec![
        Listen::Tcp("0.0.0.0:81".parse().unwrap()),
        Listen::Unix { path: "/a".into(), mode: Some(0o660) },
    ];
    let (_dir, mut sources) =
        with_file("listen = [':81', 'unix:/a,mode=0660']\nupstream.endpoints = ['app:80']");
    assert_eq!(load(&sources).unwrap().config.listen, want);
    sources.file = None;
    sources.environment = vec![
        ("EBBTIDE_LISTEN".to_owned(), ":81, unix:/a,mode=0660".to_owned()),
        ("EBBTIDE_UPSTREAM__ENDPOINTS".to_owned(), "app:80,app:81".to_owned()),
    ];
    let config = load(&sources).unwrap().config;
    assert_eq!(config.listen, want);
    assert_eq!(config.upstream.endpoints.len(), 2);
}

#[test]
fn infinity_is_taken_only_where_a_wait_may_never_end() {
    for key in [
        "upstream.first_byte_timeout",
        "upstream.between_bytes_timeout",
        "drain.stop.drain_timeout",
        "drain.upgrade.drain_timeout",
    ] {
        assert!(load(&minimal(&[&format!("{key}=infinity")])).is_ok(), "{key}");
    }
    for key in ["timeouts.head", "upstream.connect_timeout", "drain.stop.total_timeout"] {
        let errors = refused(&minimal(&[&format!("{key}=infinity")]));
        assert!(errors.contains("(this one has to end)"), "{errors}");
    }
    let endless = loaded(&["drain.stop.drain_timeout=infinity"]).config.stop;
    assert_eq!(endless.total_timeout, INFINITY);
    assert_eq!(endless.longest(), INFINITY);
}

#[test]
fn bounds_are_inclusive() {
    for good in
        ["limits.head_size=1k", "limits.head_size=1m", "limits.head_count=256", "workers=1024"]
    {
        assert!(load(&minimal(&[good])).is_ok(), "{good}");
    }
    for bad in [
        "limits.head_size=1023",
        "limits.head_size=1048577",
        "limits.head_count=257",
        "limits.head_count=0",
        "workers=0",
        "workers=1025",
        "limits.connections=0",
        "limits.connection_age=999ms",
        "timeouts.head=0",
    ] {
        assert!(load(&minimal(&[bad])).is_err(), "{bad}");
    }
}

#[test]
fn a_total_below_the_sum_is_refused_and_one_above_is_kept() {
    assert_eq!(
        refused(&minimal(&["drain.stop.total_timeout=25s"])),
        "--set: drain.stop.total_timeout: 25s is less than the phases take together, 26s \
         (lame_duck + 1s closing + drain_timeout + cut_timeout + finish_timeout); raise it or \
         leave it out"
    );
    assert_eq!(
        refused(&minimal(&["drain.upgrade.total_timeout=1h"])),
        "--set: drain.upgrade.total_timeout: 1h is less than the phases take together, 1h5s \
         (drain_timeout + cut_timeout + finish_timeout); raise it or leave it out"
    );
    let stop = loaded(&["drain.stop.total_timeout=40s"]).config.stop;
    assert_eq!(stop.total_timeout, Duration::from_secs(40));
    let derived = loaded(&["drain.stop.lame_duck=5s", "drain.stop.drain_timeout=1m"]).config.stop;
    assert_eq!(derived.total_timeout, Duration::from_secs(71));
}

#[test]
fn a_place_is_listened_on_once() {
    let twice = refused(&minimal(&["listen=:81,0.0.0.0:81,:0,:0", "admin=:81"]));
    assert_eq!(
        twice,
        "--set: listen: 0.0.0.0:81 is listened on twice\n\
         --set: admin: 0.0.0.0:81 is listened on twice"
    );
    let paths = ["listen=unix:/run/a", "admin=unix:/run//b", "upgrade.takeover=/run/./b"];
    assert_eq!(refused(&minimal(&paths)), "--set: upgrade.takeover: /run/./b is listened on twice");
    let paths = ["listen=unix:/run/a,unix:/run/a/../a", "admin=unix:/run//a"];
    assert_eq!(refused(&minimal(&paths)), "--set: admin: unix:/run//a is listened on twice");
}

#[test]
fn a_path_that_no_socket_takes_is_refused_with_its_key() {
    let long = format!("/{}", "a".repeat(crate::limits::UNIX_PATH_MAX));
    for (key, prefix) in [("listen", "unix:"), ("admin", "unix:"), ("upgrade.takeover", "")] {
        let errors = refused(&minimal(&[&format!("{key}={prefix}{long}")]));
        assert!(errors.contains(key) && errors.contains("at most 107 bytes"), "{errors}");
    }
}

#[test]
fn a_bad_value_does_not_also_count_as_missing() {
    let errors = refused(&Sources { set: vec!["listen=nowhere".to_owned()], ..Sources::default() });
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(lines[0].starts_with("--set: listen: found \"nowhere\""), "{errors}");
    assert!(lines[1].starts_with("configuration: upstream.endpoints: none given"), "{errors}");
}

#[test]
fn an_overridden_error_is_still_told() {
    let (_dir, mut sources) = with_file(&format!("{LEAST}timeouts.head = 'soon'"));
    sources.set = vec!["timeouts.head=5s".to_owned()];
    assert!(refused(&sources).contains("e.toml:3: timeouts.head: found \"soon\";"));
}

#[test]
fn broken_syntax_names_its_line_and_hides_no_other_error() {
    let (_dir, sources) = with_file("listen = \n\n[timeouts]\nhead = 'soon'\nhed = 1\n");
    let errors = refused(&sources);
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 3, "{errors}");
    assert!(lines[0].contains("e.toml:1: not TOML: "), "{errors}");
    assert!(lines[1].contains("e.toml:4: timeouts.head: found \"soon\""), "{errors}");
    assert!(lines[2].contains("e.toml:5: timeouts.hed: unknown key"), "{errors}");
}

#[test]
fn an_open_bracket_does_not_flood_the_report() {
    let (_dir, sources) =
        with_file(&format!("listen = [':81'\n{}", "timeouts.head = \n".repeat(50)));
    let errors = refused(&sources);
    assert_eq!(errors.lines().count(), 5, "{errors}");
    assert!(errors.contains("e.toml:2: not TOML: missing comma"), "{errors}");
}

#[test]
fn what_has_the_wrong_shape_is_told_by_its_shape() {
    let text = "listen = [1, ':81']\nworkers = [1]\ntimeouts = 5\nlog.query = { a = 1 }\n\
                report = 7\n[timeout]\nhead = 1\n[upstream]\nendpoints = 'h2:unix:/app'";
    let (_dir, sources) = with_file(text);
    let errors = refused(&sources);
    for part in [
        "e.toml:1: listen: found 1; allowed: addresses to listen on: ",
        "e.toml:2: workers: found an array; allowed: a number from 1 to 1024",
        "e.toml:3: timeouts: found 5; allowed: a table: its keys stand below [timeouts]",
        "e.toml:4: log.query: found a table; allowed: true or false",
        "e.toml:5: report: found 7; allowed: the path of a file",
        "e.toml:6: timeout: unknown table; did you mean timeouts?",
        "e.toml:9: upstream.endpoints: found \"h2:unix:/app\" (a unix socket needs no TLS); \
         allowed: ",
    ] {
        assert!(errors.contains(part), "{part} is not in\n{errors}");
    }
    assert_eq!(errors.lines().count(), 7, "{errors}");
}

#[test]
fn a_service_link_of_kubernetes_is_explained() {
    let mut sources = minimal(&[]);
    sources.environment = vec![
        ("EBBTIDE_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned()),
        ("PATH".into(), "/".into()),
    ];
    let errors = refused(&sources);
    assert!(errors.contains("environment EBBTIDE_SERVICE_HOST: unknown variable"), "{errors}");
    assert!(errors.contains("enableServiceLinks: false"), "{errors}");
}

#[test]
fn routes_are_read_from_a_file_the_longest_path_first() {
    let text = "[[route]]\npath = '/events'\nendless = true\n\n[[route]]\npath = '/events/slow'\n\
                on_drain = 'close-after 5s'\n";
    let (_dir, sources) = with_file(&format!("{LEAST}{text}"));
    let routes = load(&sources).unwrap().config.routes;
    let shown: Vec<_> = routes.iter().map(Route::to_string).collect();
    assert_eq!(shown, ["/events/slow, on_drain close-after 5s", "/events, endless"]);
    assert!(!routes.of(b"/events/slow/1").unwrap().endless);
    assert!(routes.of(b"/events/1").unwrap().endless);
}

#[test]
fn everything_that_is_wrong_with_routes_is_told_at_once() {
    let text = "[[route]]\npath = 'events'\nendles = true\n[[route]]\nendless = 'yes'\n\
                [[route]]\npath = '/a b'\non_drain = 'later'\n[[route]]\npath = 7\n\
                [[route]]\npath = '/a'\n[[route]]\npath = '/a'\nendless = true\n";
    let (_dir, mut sources) = with_file(&format!("{LEAST}{text}"));
    sources.set = vec!["route.path=/x".to_owned()];
    let errors = refused(&sources);
    for part in [
        "e.toml:4: route.path: found \"events\" (it does not begin with /); allowed: a path",
        "e.toml:5: route.endles: unknown key; did you mean route.endless?",
        "e.toml:6: route.path: none given; a route needs the path of its requests",
        "e.toml:7: route.endless: found \"yes\"; allowed: true or false",
        "e.toml:9: route.path: found \"/a b\" (such octets are sent as %20",
        "e.toml:10: route.on_drain: found \"later\"; allowed: finish, close-after 5s",
        "e.toml:12: route.path: found 7; allowed: a path such as /events",
        "e.toml:16: route.path: \"/a\" is the path of another route already",
        "--set: route.path: unknown key; routes can only be given in a file",
    ] {
        assert!(errors.contains(part), "{part} is not in\n{errors}");
    }
    assert_eq!(errors.lines().count(), 9, "{errors}");
}

#[test]
fn a_path_that_no_client_sends_is_refused() {
    for (path, cause) in [
        ("/a/*", "no wildcards"),
        ("/a/../b", "no dot segments"),
        ("/a/.", "no dot segments"),
        ("/50%", "two hexadecimal digits"),
        ("/a%2x", "two hexadecimal digits"),
        ("/a%", "two hexadecimal digits"),
    ] {
        let text = format!("{LEAST}[[route]]\npath = '{path}'\nendless = true\n");
        let (_dir, sources) = with_file(&text);
        let errors = refused(&sources);
        assert!(errors.contains(cause), "{path}: {errors}");
    }
    for path in ["/a%20b", "/.well-known/x", "/a..b", "/"] {
        let text = format!("{LEAST}[[route]]\npath = '{path}'\nendless = true\n");
        let (_dir, sources) = with_file(&text);
        assert_eq!(load(&sources).unwrap().config.routes.iter().count(), 1, "{path}");
    }
}

#[test]
fn a_route_is_a_table_of_its_own_kind() {
    for (text, part) in [
        ("route = 5", "route: found 5; allowed: one table for each route, below [[route]]"),
        ("[route]\npath = '/a'", "route: found a table; allowed: one table for each route"),
        ("route = []", "route: found an array; allowed: one table for each route"),
        ("[[routes]]\npath = '/a'", "routes: unknown key; did you mean route?"),
        ("[routes]\npath = '/a'", "routes: unknown table; did you mean route?"),
    ] {
        let (_dir, sources) = with_file(&format!("{LEAST}{text}"));
        let errors = refused(&sources);
        assert!(errors.contains(part) && errors.lines().count() == 1, "{errors}");
    }
}

#[test]
fn a_route_without_an_effect_is_a_warning() {
    let (_dir, mut sources) = with_file(&format!(
        "{LEAST}[[route]]\npath = '/a'\n[[route]]\npath = '/b'\non_drain = 'close-after 1m'"
    ));
    sources.set = vec!["upstream.first_byte_timeout=20s".to_owned()];
    let warnings: Vec<_> =
        load(&sources).unwrap().warnings.iter().map(Warning::to_string).collect();
    assert_eq!(
        warnings,
        [
            "route.path: /a: nothing is said of it, so it has no effect",
            "route.on_drain: /b, on_drain close-after 1m: it is longer than \
             drain.stop.drain_timeout, which ends it",
        ]
    );
}

#[test]
fn what_may_surprise_is_a_warning() {
    let keys = |set: &[&str]| -> Vec<_> {
        loaded(set).warnings.iter().map(|warning| warning.key).collect()
    };
    let quiet = "upstream.first_byte_timeout=20s";
    assert_eq!(keys(&[quiet]), Vec::<&str>::new());
    assert_eq!(keys(&[]), ["drain.stop.drain_timeout"]);
    assert_eq!(keys(&[quiet, "admin_names=a"]), ["admin_names"]);
    assert_eq!(keys(&[quiet, "drain.stop.idle_grace=21s"]), ["drain.stop.idle_grace"]);
    assert_eq!(
        keys(&[quiet, "listen=:81", "upstream.endpoints=localhost:81,app:81"]),
        ["upstream.endpoints"]
    );
}

#[test]
fn commands_find_the_admin_address_by_flag_then_environment() {
    let environment = [
        ("EBBTIDE_ADMIN".to_owned(), "unix:/a".to_owned()),
        ("EBBTIDE_OTHER".to_owned(), "x".to_owned()),
    ];
    let unix = Listen::Unix { path: "/a".into(), mode: None };
    assert_eq!(admin_address(None, &environment).unwrap(), unix);
    let tcp = Listen::Tcp("127.0.0.1:9".parse().unwrap());
    assert_eq!(admin_address(Some("localhost:9"), &environment).unwrap(), tcp);
    assert!(admin_address(None, &[]).unwrap_err().to_string().contains("--admin"));
}

#[test]
fn the_shortest_file_is_a_whole_configuration() {
    let sources = Sources { file: Some(shipped("ebbtide.toml")), ..Sources::default() };
    assert_eq!(load(&sources).unwrap().config.listen.len(), 1);
}

#[test]
fn the_reference_file_says_what_the_defaults_say() {
    let mut sources = minimal(&[]);
    let defaults = load(&sources).unwrap();
    sources.file = Some(shipped("ebbtide.reference.toml"));
    assert_eq!(load(&sources).unwrap(), defaults);
}

#[test]
fn the_reference_file_is_the_table_of_keys() {
    let found = std::fs::read_to_string(shipped("ebbtide.reference.toml")).unwrap();
    let want = reference();
    assert!(found == want, "config/ebbtide.reference.toml should be:\n{want}");
}

/// The table of keys as a file with every default; what has none is commented out.
fn reference() -> String {
    let mut text = String::from(
        "# Every key of ebbtide with its default. A key that has none is commented out\n\
         # and shows an example. This file is held to the code by a test.\n\
         #\n\
         # Durations: 500ms, 30s, 1m30s, 1h, or a number of seconds. Sizes: 64k, 1m\n\
         # (1024-based), or a number of bytes. Later sources override earlier ones:\n\
         # this file, the environment (EBBTIDE_TIMEOUTS__HEAD=10s), --set\n\
         # timeouts.head=10s, flags.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if table != section {
            text.push_str(&format!("\n[{table}]\n"));
            section = table;
        }
        text.push('\n');
        for line in wrapped(key.doc, 78) {
            text.push_str(&format!("# {line}\n"));
        }
        let line = match key.default {
            Preset::Default(value) => format!("{name} = {}\n", toml_value(&key.form, value)),
            Preset::Unset(value) => format!("# {name} = {}\n", toml_value(&key.form, value)),
        };
        text.push_str(&line);
    }
    text.push_str("\n# Below [[route]] stands what holds for a part of the app; as often as there are such.\n# [[route]]\n");
    for key in &route::ROUTE_KEYS {
        text.push('\n');
        for line in wrapped(key.doc, 78) {
            text.push_str(&format!("# {line}\n"));
        }
        let name = key.name.strip_prefix("route.").unwrap();
        let (Preset::Default(value) | Preset::Unset(value)) = key.default;
        text.push_str(&format!("# {name} = {}\n", toml_value(&key.form, value)));
    }
    text
}

fn toml_value(form: &Form, text: &str) -> String {
    if form.is_list() {
        let items: Vec<_> = form::pieces(text).iter().map(|item| format!("{item:?}")).collect();
        return format!("[{}]", items.join(", "));
    }
    let bare = text.parse::<u64>().is_ok() || text.parse::<bool>().is_ok();
    if bare { text.to_owned() } else { format!("{text:?}") }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[test]
fn commands_read_durations_of_their_own_within_bounds() {
    let seconds = Duration::from_secs;
    let read = |text| duration("--load-for", text, seconds(1)..=seconds(60));
    assert_eq!(read("1m").unwrap(), seconds(60));
    for text in ["0.9s", "61", "infinity", "soon", ""] {
        let wanted = format!("--load-for: found {text:?}; allowed: a duration from 1s to 1m");
        assert_eq!(read(text).unwrap_err().to_string(), wanted);
    }
}
