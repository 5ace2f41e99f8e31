//! Server and client together, over real sockets; timeouts over an in-memory pipe.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, timeout};

use super::bind::{AdminListener, bind};
use super::client::{Client, ClientError, Style};
use super::commands::{Commands, Progress, Refusal, Upgrade};
use super::routes::Origin;
use super::server::{Activity, Connection, Door, Service, View, serve};
use super::status::{Status, example};
use super::upgrade::run as upgrade;
use crate::config::Listen;
use crate::handoff::takeover::may_ask;
use crate::limits::{
    ADMIN_BODY_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_TIMEOUT, ADMIN_IDLE_TIMEOUT,
};
use crate::telemetry::event::Style as EventStyle;
use crate::telemetry::{Events, Sink};

const HOST: &str = "Host: localhost\r\n";

/// Draining, unless made to serve; counts how often it was asked.
#[derive(Default)]
struct Facts {
    serving: Cell<bool>,
    asked: Cell<u32>,
    asked_twice: Notify,
}

impl View for Facts {
    fn live(&self) -> bool {
        true
    }
    fn ready(&self) -> bool {
        self.serving.get()
    }
    fn status(&self) -> Status {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get() == 2 {
            self.asked_twice.notify_one();
        }
        example()
    }
    fn metrics(&self) -> String {
        "ebbtide_generation 1\n".into()
    }
}

/// Refuses, unless there is news to tell.
#[derive(Default)]
struct Deeds {
    news: RefCell<Option<mpsc::Receiver<Progress>>>,
    asked: RefCell<Vec<Option<PathBuf>>>,
}

impl Commands for Deeds {
    fn upgrade(&self, binary: Option<PathBuf>) -> Result<mpsc::Receiver<Progress>, Refusal> {
        self.asked.borrow_mut().push(binary);
        self.news.borrow_mut().take().ok_or_else(|| Refusal("not now".to_owned()))
    }
}

fn service(view: Rc<Facts>) -> Service {
    Service {
        view,
        commands: Rc::new(Deeds::default()),
        names: Vec::new(),
        asking: watch::Sender::default(),
    }
}

/// A door that stays open.
fn open() -> watch::Receiver<Door> {
    watch::channel(Door::Open).1
}

fn run<T>(paused: bool, test: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    let runtime =
        builder.enable_all().start_paused(paused).build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let bounded = timeout(Duration::from_secs(600), test);
        bounded.await.expect("the test ends")
    })
}

fn events() -> Events {
    Events::new(Sink::new("events", std::io::pipe().unwrap().1, 0).unwrap(), EventStyle::Json)
}

fn serve_tcp(facts: Rc<Facts>) -> SocketAddr {
    let listener = bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
    let address = listener.address().parse().unwrap();
    let mut service = service(facts);
    service.names.push("ebb.example".into());
    spawn_local(serve(listener, service, events(), open(), pending()));
    address
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn ask_tcp(address: SocketAddr, line: &str, fields: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    ask(TcpStream::connect(address).await.unwrap(), &request).await
}

async fn ask_unix(path: &Path, line: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
    ask(UnixStream::connect(path).await.unwrap(), &request).await
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[test]
fn over_tcp_health_metrics_and_status_are_answered() {
    run(false, async {
        let facts = Rc::new(Facts::default());
        let address = serve_tcp(Rc::clone(&facts));
        let live = ask_tcp(address, "GET /livez", HOST).await;
        assert!(live.starts_with("HTTP/1.1 200") && live.ends_with("\r\n\r\nok\n"), "{live}");
        assert!(live.to_lowercase().contains("cache-control: no-store"));

        let ready = ask_tcp(address, "GET /readyz", HOST).await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("\r\n\r\ndraining\n"));
        facts.serving.set(true);
        let ready = ask_tcp(address, "GET /readyz", HOST).await;
        assert!(ready.starts_with("HTTP/1.1 200") && ready.ends_with("\r\n\r\nready\n"));

        let metrics = ask_tcp(address, "GET /metrics?x", HOST).await;
        assert!(metrics.to_lowercase().contains("content-type: text/plain; version=0.0.4"));
        assert!(metrics.ends_with("ebbtide_generation 1\n"));

        let status = ask_tcp(address, "GET /status", HOST).await;
        let document = status.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(serde_json::from_str::<Status>(document).unwrap(), example());

        let head = ask_tcp(address, "HEAD /status", HOST).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"));
    });
}

#[test]
fn over_tcp_everything_else_is_forbidden() {
    run(false, async {
        let address = serve_tcp(Rc::default());
        for line in ["POST /status", "GET /", "POST /stop", "DELETE /livez", "OPTIONS *"] {
            assert_eq!(code(&ask_tcp(address, line, HOST).await), "403", "{line}");
        }
    });
}

#[test]
fn over_tcp_only_our_own_names_are_answered() {
    run(false, async {
        let address = serve_tcp(Rc::default());
        for (expected, fields) in [
            ("200", format!("Host: {address}\r\n")),
            ("200", "Host: 127.0.0.1\r\n".into()),
            ("200", "Host: [::1]:7\r\n".into()),
            ("200", "Host: LOCALHOST.:1\r\n".into()),
            ("200", "Host: ebb.example\r\n".into()),
            ("421", "Host: evil.example\r\n".into()),
            ("421", "Host: localhost.evil.example\r\n".into()),
            ("421", "Host: 192.0.2.1\r\n".into()),
            ("400", String::new()),
            ("400", "Host: localhost\r\nHost: localhost\r\n".into()),
            ("400", "Host: evil@localhost\r\n".into()),
            ("400", "Host: \r\n".into()),
        ] {
            let answer = ask_tcp(address, "GET /livez", &fields).await;
            assert_eq!(code(&answer), expected, "{fields}");
        }
        let absolute = ask_tcp(address, "GET http://evil.example/livez", HOST).await;
        assert_eq!(code(&absolute), "421");
    });
}

#[test]
fn over_the_unix_socket_paths_and_methods_are_told_apart() {
    run(false, async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listener = bind(&Listen::Unix { path: path.clone(), mode: None }).unwrap();
        let stop = Rc::new(Notify::new());
        let stopped = Rc::clone(&stop);
        let facts = Rc::new(Facts::default());
        let served = spawn_local(serve(listener, service(facts), events(), open(), async move {
            stopped.notified().await;
        }));
        assert_eq!(code(&ask_unix(&path, "GET /status").await), "200");
        assert_eq!(code(&ask_unix(&path, "GET /nothing").await), "404");
        let refused = ask_unix(&path, "POST /status").await;
        assert_eq!(code(&refused), "405");
        assert!(refused.to_lowercase().contains("allow: get, head"));

        let mut kept = UnixStream::connect(&path).await.unwrap();
        kept.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut octets = [0; 12];
        kept.read_exact(&mut octets).await.unwrap();
        stop.notify_one();
        served.await.unwrap();
        let mut rest = String::new();
        kept.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("ok\n"), "answered, then closed");
        assert!(!path.exists());
    });
}

#[test]
fn only_ourselves_and_root_may_use_the_unix_socket() {
    let ours = rustix::process::geteuid().as_raw();
    assert!(may_ask(0) && may_ask(ours));
    assert!(!may_ask(ours + 1));
}

#[test]
fn when_all_places_are_taken_the_longest_waiting_gives_way() {
    run(false, async {
        let address = serve_tcp(Rc::default());
        let mut waiting = Vec::new();
        for _ in 0..ADMIN_CONNECTIONS_MAX {
            waiting.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(code(&ask_tcp(address, "GET /livez", HOST).await), "200");
        assert_eq!(waiting[0].read(&mut [0]).await.unwrap_or(0), 0, "the first was closed");
        let last = waiting.pop().unwrap();
        let request = format!("GET /livez HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
        assert_eq!(code(&ask(last, &request).await), "200", "the last was not");
    });
}

#[test]
fn a_slow_head_and_an_idle_connection_are_closed_each_in_its_time() {
    run(true, async {
        let (mut client, server) = duplex(4096);
        let (_stop, stopped) = watch::channel(false);
        let activity = Rc::new(Cell::new(Activity::Head(Instant::now())));
        let connection = Connection::new(activity, Rc::new(service(Rc::default())), stopped);
        spawn_local(connection.run(server, Origin::Unix));
        let mut answer = [0; 4096];

        client.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(client.read(&mut answer).await.unwrap() > 0);
        tokio::time::advance(ADMIN_IDLE_TIMEOUT / 2).await;
        client.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(client.read(&mut answer).await.unwrap() > 0, "idle is not slow");

        let begun = Instant::now();
        client.write_all(b"GET /livez HT").await.unwrap();
        assert_eq!(client.read(&mut answer).await.unwrap_or(0), 0);
        let taken = begun.elapsed();
        assert!(taken >= ADMIN_HEAD_TIMEOUT && taken < ADMIN_HEAD_TIMEOUT * 2, "{taken:?}");
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    run(true, async {
        let (mut client, server) = duplex(4096);
        let (_stop, stopped) = watch::channel(false);
        let activity = Rc::new(Cell::new(Activity::Idle(Instant::now())));
        let connection = Connection::new(activity, Rc::new(service(Rc::default())), stopped);
        spawn_local(connection.run(server, Origin::Unix));
        let begun = Instant::now();
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        let taken = begun.elapsed();
        assert!(taken >= ADMIN_IDLE_TIMEOUT && taken < ADMIN_IDLE_TIMEOUT * 2, "{taken:?}");
    });
}

#[test]
fn the_client_watches_a_drain_until_the_process_is_gone() {
    run(false, async {
        let listener = bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
        let client = Client::new(listener.address()).unwrap();
        let facts = Rc::new(Facts::default());
        let until = Rc::clone(&facts);
        spawn_local(serve(listener, service(facts), events(), open(), async move {
            until.asked_twice.notified().await;
        }));
        let mut out = Vec::new();
        client.watch(Style::Lines, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("draining, 12.3 s to the hard deadline; h1 active 3"));
        assert_eq!(lines[2], "the process is gone");
        assert!(matches!(client.fetch().await, Err(ClientError::Connect { .. })));
    });
}

/// A unix admin listener with these deeds.
fn serve_unix(
    deeds: &Rc<Deeds>,
    door: watch::Receiver<Door>,
) -> (tempfile::TempDir, PathBuf, Rc<Notify>, JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = bind(&Listen::Unix { path: path.clone(), mode: None }).unwrap();
    let commands = Rc::clone(deeds) as Rc<dyn Commands>;
    let service = Service {
        view: Rc::new(Facts::default()),
        commands,
        names: Vec::new(),
        asking: watch::Sender::default(),
    };
    let stop = Rc::new(Notify::new());
    let stopped = Rc::clone(&stop);
    let stopped = async move { stopped.notified().await };
    let served = spawn_local(serve(listener, service, events(), door, stopped));
    (dir, path, stop, served)
}

#[test]
fn nobody_is_let_in_behind_a_door_that_was_shut_and_who_was_is_asking() {
    run(false, async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listener = bind(&Listen::Unix { path: path.clone(), mode: None }).unwrap();
        let service = service(Rc::default());
        let asking = service.asking.clone();
        let (door, state) = watch::channel(Door::Open);
        spawn_local(serve(listener, service, events(), state, pending()));
        for _ in 0..20 {
            tokio::task::yield_now().await;
            assert_eq!(asking.receiver_count(), 0);
            let queued = std::os::unix::net::UnixStream::connect(&path).unwrap();
            // Both are news to the server at once.
            tokio::task::yield_now().await;
            door.send_replace(Door::HandedOver);
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(asking.receiver_count(), 0, "it waits for the successor");
            door.send_replace(Door::Open);
            while asking.receiver_count() == 0 {
                tokio::task::yield_now().await;
            }
            drop(queued);
            asking.closed().await;
        }
    });
}

fn client(path: &Path) -> Client {
    Client::new(format!("unix:{}", path.display())).unwrap()
}

fn counts(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
    all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// An upgrade that goes well, step by step; the connections that go on are told.
fn goes_well() -> Vec<Progress> {
    let moved = counts(&[("http1", 3), ("websocket", 0)]);
    vec![
        Progress::Starting { pid: 7, binary: "/usr/bin/ebbtide\u{1b}".into() },
        Progress::Ready { pid: 8, version: "0.2.0".into() },
        Progress::Serving { pid: 8, generation: 2 },
        Progress::Moved { moved: counts(&[]), waiting: counts(&[("tls", 0)]) },
        Progress::Moved { moved, waiting: counts(&[("tls", 2)]) },
        Progress::Gone,
    ]
}

#[test]
fn an_upgrade_is_told_as_it_happens() {
    run(false, async {
        let deeds = Rc::new(Deeds::default());
        let (_dir, path, _stop, _served) = serve_unix(&deeds, open());
        for (wait, expected) in [(false, 3), (true, 5)] {
            let (tell, news) = mpsc::channel(8);
            *deeds.news.borrow_mut() = Some(news);
            for progress in goes_well() {
                tell.try_send(progress).unwrap();
            }
            let mut out = Vec::new();
            let binary = Some(PathBuf::from("/opt/ebbtide"));
            upgrade(&client(&path), Upgrade { binary }, wait, &mut out).await.unwrap();
            let lines = [
                "started /usr/bin/ebbtide (pid 7)",
                "the successor is ready: pid 8, version 0.2.0",
                "the successor serves: pid 8, generation 2",
                "moved: 3 http1; still here: 2 tls",
                "the old process is gone",
            ];
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out.lines().collect::<Vec<_>>(), lines[..expected]);
            assert_eq!(deeds.asked.take(), [Some(PathBuf::from("/opt/ebbtide"))]);
        }
    });
}

#[test]
fn an_upgrade_that_fails_says_why_in_the_words_of_the_successor() {
    run(false, async {
        let deeds = Rc::new(Deeds::default());
        let (_dir, path, _stop, _served) = serve_unix(&deeds, open());
        let ask = async |news: &[Progress]| {
            let (tell, receiver) = mpsc::channel(8);
            news.iter().for_each(|progress| tell.try_send(progress.clone()).unwrap());
            drop(tell);
            *deeds.news.borrow_mut() = Some(receiver);
            upgrade(&client(&path), Upgrade::default(), true, &mut Vec::new()).await.unwrap_err()
        };
        let error = "listen: no address\nworkers: too many".to_owned();
        let failed = ask(&[goes_well()[0].clone(), Progress::Failed { error }]).await;
        assert_eq!(failed.exit_code(), 1);
        assert!(failed.to_string().ends_with(": listen: no address\nworkers: too many"));
        let early = ask(&goes_well()[..2]).await.to_string();
        assert!(early.contains("did not say that its successor serves"), "{early}");
        let late = ask(&goes_well()[..5]).await.to_string();
        assert!(late.contains("did not say that it was empty"), "{late}");
        let refused = upgrade(&client(&path), Upgrade::default(), false, &mut Vec::new()).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.ends_with("answered 409 Conflict: not now"), "{refused}");
        let nobody = Client::new("127.0.0.1:1".to_owned()).unwrap();
        let nobody = upgrade(&nobody, Upgrade::default(), false, &mut Vec::new()).await;
        assert_eq!(nobody.unwrap_err().exit_code(), 2);
    });
}

#[test]
fn an_upgrade_is_asked_for_in_one_way_only() {
    run(false, async {
        let deeds = Rc::new(Deeds::default());
        let (_dir, path, _stop, _served) = serve_unix(&deeds, open());
        let post = async |body: &str| {
            let fields = format!("{HOST}Content-Length: {}\r\nConnection: close", body.len());
            let request = format!("POST /upgrade HTTP/1.1\r\n{fields}\r\n\r\n{body}");
            ask(UnixStream::connect(&path).await.unwrap(), &request).await
        };
        let refused = ask_unix(&path, "GET /upgrade").await;
        assert_eq!(code(&refused), "405");
        assert!(refused.to_lowercase().contains("allow: post"));
        for (body, status) in [
            ("{", "400"),
            ("{\"x\":1}", "400"),
            ("{\"binary\":\"ebbtide\"}", "400"),
            ("[]", "400"),
            (&" ".repeat(ADMIN_BODY_MAX + 1), "413"),
            ("", "409"),
            ("{}", "409"),
            ("{\"binary\":null}", "409"),
        ] {
            assert_eq!(code(&post(body).await), status, "{body}");
        }
        assert_eq!(deeds.asked.take().len(), 3);
        let address = serve_tcp(Rc::default());
        assert_eq!(code(&ask_tcp(address, "POST /upgrade", HOST).await), "403");
    });
}

#[test]
fn who_waits_stays_when_the_listener_is_handed_over_and_nobody_else() {
    run(false, async {
        let deeds = Rc::new(Deeds::default());
        let (door, receiver) = watch::channel(Door::Open);
        let (_dir, path, stop, served) = serve_unix(&deeds, receiver);
        let (tell, news) = mpsc::channel(8);
        *deeds.news.borrow_mut() = Some(news);
        let waiting = client(&path);
        let waiting = spawn_local(async move {
            let mut out = Vec::new();
            upgrade(&waiting, Upgrade::default(), true, &mut out).await.map(|()| out)
        });
        let mut idle = UnixStream::connect(&path).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        idle.read_exact(&mut [0; 12]).await.unwrap();
        while deeds.asked.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        door.send_replace(Door::HandedOver);
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        let mut queued = UnixStream::connect(&path).await.unwrap();
        queued.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let unanswered = timeout(Duration::from_millis(50), queued.read(&mut [0])).await;
        assert!(unanswered.is_err(), "it is left to the successor");

        // The successor died: the traffic is taken back, and who waited is answered.
        door.send_replace(Door::Open);
        queued.read_exact(&mut [0; 12]).await.unwrap();
        tell.send(Progress::Serving { pid: 8, generation: 2 }).await.unwrap();
        door.send_replace(Door::HandedOver);
        tell.send(Progress::Gone).await.unwrap();
        drop(tell);
        let out = waiting.await.unwrap().unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with("the old process is gone\n"));
        stop.notify_one();
        served.await.unwrap();
        assert!(path.exists(), "it is the successor's");
    });
}

#[test]
fn who_is_told_what_happens_is_not_timed_out() {
    run(true, async {
        let deeds = Rc::new(Deeds::default());
        let (tell, news) = mpsc::channel(8);
        *deeds.news.borrow_mut() = Some(news);
        let commands = Rc::clone(&deeds) as Rc<dyn Commands>;
        let service = Service {
            view: Rc::<Facts>::default(),
            commands,
            names: Vec::new(),
            asking: watch::Sender::default(),
        };
        let (mut client, server) = duplex(4096);
        let (_stop, stopped) = watch::channel(false);
        let activity = Rc::new(Cell::new(Activity::Head(Instant::now())));
        let connection = Connection::new(activity, Rc::new(service), stopped);
        spawn_local(connection.run(server, Origin::Unix));
        client.write_all(b"POST /upgrade HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 4096];
        assert!(client.read(&mut answer).await.unwrap() > 0);
        tokio::time::sleep(ADMIN_IDLE_TIMEOUT * 3).await;
        tell.send(Progress::Gone).await.unwrap();
        let n = client.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..n]).contains("{\"event\":\"gone\"}\n"));
        drop(tell);
        let end = Instant::now();
        while client.read(&mut answer).await.unwrap_or(0) > 0 {}
        assert!(end.elapsed() <= ADMIN_IDLE_TIMEOUT * 2, "idle again");
    });
}

#[test]
fn an_adopted_listener_leaves_its_path_until_it_is_ours() {
    run(false, async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listen = Listen::Unix { path: path.clone(), mode: None };
        let mut elder = bind(&listen).unwrap();
        assert!(
            AdminListener::adopt(
                &Listen::Tcp(([127, 0, 0, 1], 0).into()),
                elder.share().unwrap(),
                false
            )
            .is_err()
        );
        let other = Listen::Unix { path: dir.path().join("other"), mode: None };
        assert!(AdminListener::adopt(&other, elder.share().unwrap(), false).is_err());
        drop(AdminListener::adopt(&listen, elder.share().unwrap(), false).unwrap());
        assert!(path.exists());
        let ours = AdminListener::adopt(&listen, elder.share().unwrap(), false).unwrap();
        assert_eq!(ours.address(), elder.address());
        let (door, receiver) = watch::channel(Door::Shared);
        let stop = Rc::new(Notify::new());
        let stopped = Rc::clone(&stop);
        let stopped = async move { stopped.notified().await };
        let served = spawn_local(serve(ours, service(Rc::default()), events(), receiver, stopped));
        assert_eq!(code(&ask_unix(&path, "GET /livez").await), "200");
        elder.leave();
        drop(elder);
        door.send_replace(Door::Open);
        stop.notify_one();
        served.await.unwrap();
        assert!(!path.exists(), "ours in the end");
    });
}
