//! Server and client together, over real sockets; timeouts over an in-memory pipe.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use super::bind::bind;
use super::client::{Client, ClientError, Style};
use super::commands::{Commands, Progress, Refusal, Upgrade};
use super::routes::Origin;
use super::server::{Activity, Connection, Door, Service, View, may_ask, serve};
use super::status::{Status, example};
use crate::config::Listen;
use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_TIMEOUT, ADMIN_IDLE_TIMEOUT};
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
    Service { view, commands: Rc::new(Deeds::default()), names: Vec::new() }
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
        let connection = Connection {
            activity: Rc::new(Cell::new(Activity::Head(Instant::now()))),
            service: Rc::new(service(Rc::default())),
            stopped,
        };
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
        let connection = Connection {
            activity: Rc::new(Cell::new(Activity::Idle(Instant::now()))),
            service: Rc::new(service(Rc::default())),
            stopped,
        };
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
