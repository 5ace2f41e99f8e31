//! The other side of a handoff is somebody else's program, or lies.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::{Bench, assert_says};
use crate::support::client::Client;
use crate::support::generations::Generations;
use crate::support::origin::Origin;
use crate::support::process::Launch;
use crate::support::shelf::Shelf;
use crate::support::wire::Place;
use crate::support::{PATIENCE, ms, within};
use crate::upgrade::app;

/// What may be wrong with the first word of either side.
const FIRST_WORDS: [&str; 14] = [
    "packet-version",
    "protocol",
    "field",
    "type",
    "no-json",
    "garbage",
    "short",
    "lengths",
    "octets",
    "too-long",
    "descriptors",
    "descriptors-untold",
    "descriptors-missing",
    "out-of-turn",
];

pub(super) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/handoff.py")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The words of whoever refused, if somebody did.
fn refusal(heard: &[Value]) -> Option<&str> {
    let refused = heard.iter().find(|message| message["type"] == "refused")?;
    refused["error"].as_str()
}

/// Puts a program on the shelf that speaks so; what it heard, after an upgrade that has
/// failed with these words.
fn speak(bench: &mut Bench, mode: &str, words: &[&str]) -> Vec<Value> {
    let heard = bench.shelf.file(&format!("heard-{mode}"));
    let text = format!(
        "#!/bin/sh\nexec /usr/bin/python3 {} successor {mode} {}\n",
        script().display(),
        heard.display()
    );
    bench.shelf.put_script(&text, 0o755);
    eprintln!("{mode}");
    bench.fails_by_signal(words);
    lines(&std::fs::read_to_string(heard).unwrap_or_default())
}

#[test]
fn successor_whose_first_word_is_wrong_is_refused_with_a_message() {
    let mut bench = Bench::new();
    for mode in FIRST_WORDS {
        let heard = speak(&mut bench, mode, &[]);
        let error = refusal(&heard).unwrap_or_else(|| panic!("{mode}: no refusal in {heard:?}"));
        assert!(!error.is_empty(), "{mode}");
        assert_eq!(heard.len(), 1, "{mode}: nothing was handed over: {heard:?}");
        if mode.ends_with("version") || mode == "protocol" {
            assert_says(error, &["99", "1"]);
        }
        if mode == "field" {
            assert_says(error, &["shoe_size"]);
        }
    }
    bench.goes_on();
}

#[test]
fn successor_that_breaks_off_is_as_good_as_none() {
    let mut bench = Bench::new();
    speak(&mut bench, "ends", &[]);
    speak(&mut bench, "silent", &["1s"]);
    speak(&mut bench, "fails", &["the moon is full"]);
    speak(&mut bench, "ends-welcomed", &[]);
    speak(&mut bench, "serves-unasked", &[]);
    speak(&mut bench, "acknowledges-another", &[]);
    speak(&mut bench, "acknowledges-nothing", &["1s"]);
    speak(&mut bench, "ready-hangs", &[]);
    speak(&mut bench, "ready-ends", &[]);
    speak(&mut bench, "declines", &["no more room"]);
    speak(&mut bench, "dismisses", &["before it accepts"]);
    // The client that is kept, and the WebSocket, were sent to it, and go on here.
    let heard = speak(&mut bench, "serves-takes-nothing", &[]);
    assert!(heard.iter().any(|message| message["type"] == "connections"), "{heard:?}");
    let heard = speak(&mut bench, "fails", &["the moon is full"]);
    let welcome = heard.iter().find(|message| message["type"] == "welcome").expect("a welcome");
    assert_eq!(welcome["generation"], 2);
    assert_eq!(welcome["pid"], bench.line.pid);
    let sockets = heard.iter().filter(|message| message["type"] == "sockets");
    for batch in sockets {
        assert_eq!(batch["descriptors"][0], batch["descriptors"][1], "{batch}");
    }
    bench.goes_on();
}

/// The kernel takes 253 descriptors at once, and there are more.
#[test]
fn sockets_that_one_message_does_not_take_go_in_several() {
    const MANY: usize = 300;
    const AT_ONCE: u64 = 253;
    let (shelf, origin) = (Shelf::new(), app());
    let paths: Vec<PathBuf> = (0..MANY).map(|n| shelf.file(&format!("{n}.sock"))).collect();
    let unix = paths.iter().map(|path| format!("unix:{}", path.display()));
    let listen: Vec<_> = ["127.0.0.1:0".to_owned()].into_iter().chain(unix).collect();
    let place = origin.place();
    let text = format!(
        "listen = {listen:?}\nupstream.endpoints = [\"{place}\"]\n[upgrade]\ntimeout = \"10s\"\n"
    );
    let file = shelf.write("ebbtide.toml", &text);
    let line = Generations::start(Launch::configured(&file).binary(&shelf.path()));
    let inodes = || paths.iter().map(|path| std::fs::metadata(path).unwrap().ino());
    let before: Vec<u64> = inodes().collect();
    let mut bench = Bench::over(origin, line, shelf);
    let heard = speak(&mut bench, "fails", &["the moon is full"]);
    let sockets = heard.iter().filter(|message| message["type"] == "sockets");
    let sent: Vec<_> = sockets.map(|it| it["descriptors"][0].as_u64().unwrap()).collect();
    assert!(sent.len() > 1 && sent.iter().sum::<u64>() > MANY as u64, "{sent:?}");
    assert!(sent.iter().all(|&count| count <= AT_ONCE), "{sent:?}");
    // One after the other: nothing more comes before the first was acknowledged.
    let heard = speak(&mut bench, "acknowledges-nothing", &["10s"]);
    assert_eq!(heard.iter().filter(|message| message["type"] == "sockets").count(), 1);
    bench.shelf.put_right();
    bench.line.upgrade();
    assert_eq!(inodes().collect::<Vec<_>>(), before, "they are the same");
    for path in &paths {
        let mut client = Client::connect(&Place::Unix(path.clone()));
        client.get("/many");
        assert_eq!(client.response().text(), "GET /many 0", "{path:?}");
    }
    bench.serves();
}

pub(super) fn taking_over(launch: Launch, path: &Path) -> Launch {
    launch.arg("--takeover").arg(path.display().to_string())
}

/// Somebody who asks at the socket, to the end of the conversation.
fn ask(path: &Path, mode: &str, user: Option<u32>) -> Vec<Value> {
    let mut command = match user {
        None => Command::new("/usr/bin/python3"),
        Some(user) => {
            let mut command = Command::new("/usr/bin/setpriv");
            command.args([format!("--reuid={user}"), format!("--regid={user}")]);
            command.args(["--clear-groups", "/usr/bin/python3"]);
            command
        }
    };
    command.arg(script()).arg("connect").arg(path).arg(mode).stdin(Stdio::null());
    let output = command.output().expect("a stranger runs");
    let heard = String::from_utf8_lossy(&output.stdout).into_owned();
    if heard.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = said.lines().last().unwrap_or_default().to_owned();
        return vec![serde_json::json!({ "type": "error", "text": last })];
    }
    lines(&heard)
}

#[test]
fn stranger_at_the_takeover_socket_is_refused_and_costs_nothing() {
    let mut socket = PathBuf::new();
    let mut bench = Bench::with(|launch, shelf| {
        socket = shelf.file("takeover.sock");
        taking_over(launch, &socket)
    });
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    for mode in FIRST_WORDS {
        let heard = ask(&socket, mode, None);
        assert!(refusal(&heard).is_some_and(|error| !error.is_empty()), "{mode}: {heard:?}");
        bench.is_as_before();
    }
    for mode in ["ends", "silent", "fails", "ends-welcomed", "ready-ends"] {
        let begun = Instant::now();
        ask(&socket, mode, None);
        assert!(begun.elapsed() < ms(8_000), "{mode}");
        bench.is_as_before();
    }
    bench.goes_on();
}

#[test]
fn user_who_is_somebody_else_gets_nothing_at_the_takeover_socket() {
    assert!(rustix::process::getuid().is_root(), "only root can be somebody else");
    let mut socket = PathBuf::new();
    let mut bench = Bench::with(|launch, shelf| {
        socket = shelf.file("takeover.sock");
        taking_over(launch, &socket)
    });
    let nobody = 65_534;
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(socket.parent().unwrap(), 0o755);
    let heard = ask(&socket, "ready-hangs", Some(nobody));
    assert_says(heard[0]["text"].as_str().unwrap_or_default(), &["Permission denied"]);
    // The mode may be changed by somebody; who asks is looked at all the same.
    open(&socket, 0o666);
    let heard = ask(&socket, "ready-hangs", Some(nobody));
    let got: Vec<_> = heard.iter().filter_map(|message| message["type"].as_str()).collect();
    assert!(got == ["end"] || got == ["refused"], "{got:?}");
    bench.is_as_before();
    bench.goes_on();
}

/// A proxy that hands over, and does it badly.
pub(super) struct BadElder {
    child: Child,
    heard: BufReader<std::process::ChildStdout>,
}

impl BadElder {
    pub(super) fn start(path: &Path, mode: &str) -> BadElder {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script()).arg("listen").arg(path).arg(mode).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a stranger");
        let mut heard = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        heard.read_line(&mut line).expect("its first word");
        assert_says(&line, &["listening"]);
        BadElder { child, heard }
    }

    /// Waits until it has heard a word of this kind.
    pub(super) fn wait_heard(&mut self, kind: &str) {
        let mut line = String::new();
        while !line.contains(&format!("\"{kind}\"")) {
            line.clear();
            assert!(self.heard.read_line(&mut line).expect("its words") > 0, "no {kind}");
        }
    }

    /// What it heard, once it has ended.
    pub(super) fn heard(mut self) -> Vec<Value> {
        within(PATIENCE, "the end of a stranger", || self.child.try_wait().expect("a status"));
        self.heard.by_ref().lines().map_while(Result::ok).flat_map(|line| lines(&line)).collect()
    }
}

impl Drop for BadElder {
    fn drop(&mut self) {
        let _over = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn process_that_meets_a_bad_elder_says_so_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::new();
    let others = ["refuses", "ends", "ends-after-welcome", "silent", "unknown-socket"];
    for mode in FIRST_WORDS.iter().chain(&others) {
        let socket = directory.path().join(format!("{mode}.sock"));
        let elder = BadElder::start(&socket, mode);
        let launch = Launch::before(&origin).set("upgrade.timeout", "3s");
        let begun = Instant::now();
        let proxy = taking_over(launch, &socket).spawn();
        if *mode == "ends-after-welcome" {
            // There is nobody any more to take over from.
            proxy.wait_event("ready");
            proxy.terminate();
            proxy.wait_clean_exit();
            continue;
        }
        let exit = proxy.wait_exit();
        let said = proxy.said();
        assert_eq!(exit.code(), 1, "{mode}: {said}");
        assert!(begun.elapsed() < ms(10_000), "{mode}: {said}");
        assert!(proxy.events("ready").is_empty(), "{mode}: {said}");
        match *mode {
            "refuses" => assert_says(&said, &["the moon is full"]),
            "ends" => assert_says(&said, &["closed the channel", "another user"]),
            "packet-version" | "protocol" => assert_says(&said, &["99"]),
            "field" => assert_says(&said, &["shoe_size"]),
            _ => {}
        }
        let heard = elder.heard();
        let hello = &heard[0];
        assert_eq!(hello["type"], "hello", "{mode}: {heard:?}");
        assert_eq!(hello["protocol"], hello["version_of_packet"], "{mode}");
        assert_eq!(hello["pid"], proxy.pid, "{mode}");
    }
}

/// Who does not speak the protocol at all is at the path.
#[test]
fn path_at_which_something_else_is_ends_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::new();
    let file = directory.path().join("file");
    std::fs::write(&file, "somebody's").unwrap();
    let stream = directory.path().join("stream.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&stream).unwrap();
    for path in [&file, &stream] {
        let proxy = taking_over(Launch::before(&origin), path).spawn();
        assert_eq!(proxy.wait_exit().code(), 1, "{}", proxy.said());
        assert_says(&proxy.said(), &["start_failed", "socket"]);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "somebody's");
}
