//! The proxy of the demo: this very program, run as anybody would run it.
//!
//! Owns the child process. Promises that it does not outlive its owner: a drop ends
//! it, and where there is no time for that, the kernel tells it (`--stop-with-parent`).
//! Nothing is read of it but what every operator can see.

use std::io::{self, BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::{DemoError, cannot};
use crate::limits::{DEMO_DRAIN, DEMO_NEWS, DEMO_START};

/// What the proxy lets know of itself.
#[derive(Debug)]
pub(super) enum News {
    /// A line on its stderr.
    Event(Value),
    /// It has ended, and everything it said before has been told.
    Ended(ExitStatus),
}

/// The running proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where clients connect.
    pub(super) addr: SocketAddr,
    /// Where its status is asked for.
    pub(super) admin: SocketAddr,
    child: Watched,
}

impl Proxy {
    /// Starts it before the app, and waits until it is ready.
    pub(super) async fn start(app: SocketAddr) -> Result<Proxy, DemoError> {
        let child = command(app).spawn().map_err(cannot("start the proxy"))?;
        let mut child = Watched::new(child).map_err(cannot("watch the proxy"))?;
        let ready = timeout(DEMO_START, listening(&mut child)).await;
        let ready = ready.unwrap_or_else(|_| Err(format!("not ready within {DEMO_START:?}")));
        let (addr, admin) = ready.map_err(DemoError::Unready)?;
        Ok(Proxy { addr, admin, child })
    }

    /// What it has to say next; waits for ever after its end.
    pub(super) async fn news(&mut self) -> News {
        match self.child.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// Sends a signal; one that has already ended gets none.
    pub(super) fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }
}

fn command(app: SocketAddr) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("ebbtide").args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--access-log", "off", "--stop-with-parent"]);
    command.arg(std::process::id().to_string());
    command.arg("--upstream").arg(app.to_string());
    command.arg("--drain-timeout").arg(drain_timeout());
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("EBBTIDE_")) {
        command.env_remove(name);
    }
    // A group of its own: a terminal would send Ctrl-C to both of us, and one key must
    // not count as two signals.
    command.process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn drain_timeout() -> String {
    format!("{}s", DEMO_DRAIN.as_secs())
}

/// Waits until the proxy is ready: its two addresses, or why it is not.
async fn listening(child: &mut Watched) -> Result<(SocketAddr, SocketAddr), String> {
    let (mut clients, mut admin) = (None, None);
    let mut said = None;
    loop {
        match child.news.recv().await {
            Some(News::Event(event)) => {
                let text = |field: &str| event[field].as_str().map(str::to_owned);
                let addr = text("addr").and_then(|text| text.parse().ok());
                match (event["event"].as_str(), event["proto"].as_str()) {
                    (Some("listening"), Some("admin")) => admin = addr,
                    (Some("listening"), _) => clients = addr,
                    (Some("ready"), _) => {
                        return clients.zip(admin).ok_or_else(|| "it listens nowhere".to_owned());
                    }
                    // What went wrong, in an event or in a panic, which is none.
                    _ if event["level"] != "info" => said = text("message").or(said),
                    _ => {}
                }
            }
            Some(News::Ended(status)) => return Err(said.unwrap_or_else(|| ended(status))),
            None => return Err("nothing is known of it".to_owned()),
        }
    }
}

/// How a process ended, in words.
pub(super) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// A child whose stderr is read, and which is waited for, on a thread of its own.
#[derive(Debug)]
struct Watched {
    pidfd: OwnedFd,
    news: mpsc::Receiver<News>,
    thread: Option<JoinHandle<()>>,
}

impl Watched {
    fn new(mut child: Child) -> io::Result<Watched> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let watched = pid.ok_or_else(|| io::Error::other("no process id")).and_then(|pid| {
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            Ok((pidfd, child.stderr.take()))
        });
        let (pidfd, stderr) = match watched {
            Ok((pidfd, Some(stderr))) => (pidfd, stderr),
            other => {
                // Nobody would see it end.
                child.kill()?;
                child.wait()?;
                return Err(other.err().unwrap_or_else(|| io::Error::other("no stderr")));
            }
        };
        let (teller, news) = mpsc::channel(DEMO_NEWS);
        let mut watched = Watched { pidfd, news, thread: None };
        let watch = move || watch(child, stderr, &teller);
        // Without the thread the drop ends the child.
        watched.thread = Some(std::thread::Builder::new().name("demo-watch".into()).spawn(watch)?);
        Ok(watched)
    }

    fn signal(&self, signal: Signal) {
        let _ended_before = pidfd_send_signal(&self.pidfd, signal);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Nothing more is listened to: whoever tells goes on to the end.
        self.news.close();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn watch(mut child: Child, stderr: impl Read, teller: &mpsc::Sender<News>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let event = serde_json::from_str(&line).unwrap_or_else(|_| {
            // A panic is no event, but all the more worth telling.
            serde_json::json!({ "message": line })
        });
        let _nobody_listens = teller.blocking_send(News::Event(event));
    }
    if let Ok(status) = child.wait() {
        let _nobody_listens = teller.blocking_send(News::Ended(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flag, Sources, load};
    use crate::limits::DEMO_STOP_MAX;

    #[test]
    fn the_proxy_has_all_the_time_that_it_gives_itself() {
        let flag = |name, key, value: &str| Flag { name, key, values: vec![value.to_owned()] };
        let flags = vec![
            flag("--listen", "listen", "127.0.0.1:0"),
            flag("--upstream", "upstream.endpoints", "127.0.0.1:1"),
            flag("--drain-timeout", "drain.stop.drain_timeout", &drain_timeout()),
        ];
        let loaded = load(&Sources { flags, ..Sources::default() }).unwrap();
        assert!(loaded.config.stop.longest() < DEMO_STOP_MAX);
    }
}
