//! The elder's side, until the successor can serve. Nothing of what is done here changes
//! how this process serves.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::handoff::{
    Channel, Given, GivenKind, Launched, Message, Process, Received, VERSION, Welcome, launch,
};
use crate::limits::{HANDOFF_FDS_MAX, REAP};

/// What a successor is given before it can serve: copies.
pub(super) struct Offer {
    pub(super) welcome: Welcome,
    pub(super) sockets: Vec<(Given, OwnedFd)>,
}

/// A successor that has nothing yet.
pub(super) struct Origin {
    pub(super) channel: Channel,
    /// None if somebody else has started it.
    pub(super) launched: Option<Launched>,
}

impl Origin {
    /// Starts one.
    pub(super) fn start(binary: &Path, arguments: &[OsString]) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let launched = Some(launch(binary, arguments, theirs)?);
        Ok(Origin { channel, launched })
    }

    /// As which process, if it is one of ours.
    pub(super) fn pid(&self) -> u32 {
        self.launched.as_ref().map_or(0, Launched::pid)
    }
}

/// A successor that can serve, and waits.
pub(in crate::server) struct Prepared {
    pub(super) channel: Channel,
    pub(super) launched: Option<Launched>,
    pub(super) pid: u32,
    pub(super) version: String,
    /// The process itself; none where it is not to be seen from here.
    pub(super) process: Option<Process>,
    /// Listeners that it has no use for.
    pub(super) released: Vec<String>,
    /// What else it has no use for.
    pub(super) unclaimed: Vec<GivenKind>,
}

/// Brings a successor to where it can serve, within `timeout` and unless it is called
/// off; else says why that is not so, and sees to it that nothing of it is left.
pub(super) async fn prepare(
    origin: Origin,
    offer: Result<Offer, String>,
    timeout: Duration,
    called_off: oneshot::Receiver<()>,
) -> Result<Prepared, String> {
    let Origin { channel, mut launched } = origin;
    let (outcome, patience) = tokio::select! {
        biased;
        outcome = bring_up(&channel, offer) => (outcome, REAP),
        how = ended(&mut launched) => (Err(last_words(&channel, &how)), REAP),
        () = tokio::time::sleep(timeout) => {
            let why = format!("it was not ready after upgrade.timeout, {timeout:?}");
            (Err(why), Duration::ZERO)
        }
        _ = called_off => (Err(CALLED_OFF.to_owned()), Duration::ZERO),
    };
    match outcome {
        Ok(Hello { pid, version, released, unclaimed }) => {
            let pid_seen = match &launched {
                Some(_) => Some(pid),
                // It may live where it has another number.
                None => channel.peer().ok().and_then(|peer| peer.pid),
            };
            let process = pid_seen.and_then(Process::of);
            Ok(Prepared { channel, launched, pid, version, process, released, unclaimed })
        }
        Err(why) => {
            let refusal = Message::Refused { error: why.clone() };
            let _unheard = channel.send(&refusal, &[], &[]).await;
            drop(channel);
            Err(match launched {
                Some(launched) => reap(launched, why, patience).await,
                None => why,
            })
        }
    }
}

/// Why there is none, if it is not its fault.
pub(super) const CALLED_OFF: &str = "this process is being stopped";

/// How what was started has ended; its channel may be somebody else's, too.
async fn ended(launched: &mut Option<Launched>) -> String {
    match launched {
        Some(launched) => launched.ended().await,
        None => std::future::pending().await,
    }
}

/// What it has said of its end, or how that was.
fn last_words(channel: &Channel, how: &str) -> String {
    while let Ok(Some(received)) = channel.try_recv() {
        if let Message::Failed { error } = received.message {
            return error;
        }
    }
    format!("it {how} before it was ready")
}

/// Waits so long for the end of what was started, then ends it; says how it ended.
async fn reap(mut launched: Launched, why: String, patience: Duration) -> String {
    // One that ends by itself says more than one that is killed.
    match tokio::time::timeout(patience, launched.ended()).await {
        Ok(ended) if why == GONE => format!("it {ended} before it was ready"),
        Ok(_) => why,
        Err(_) => {
            launched.abort().await;
            why
        }
    }
}

/// Why, if all that is known is the end of the channel.
const GONE: &str = "it ended before it was ready";

/// What it has said of itself.
struct Hello {
    pid: u32,
    version: String,
    released: Vec<String>,
    unclaimed: Vec<GivenKind>,
}

async fn bring_up(channel: &Channel, offer: Result<Offer, String>) -> Result<Hello, String> {
    let offer = offer?;
    let (pid, version) = match next(channel).await? {
        Message::Hello { protocol: VERSION, version, pid } => (pid, version),
        Message::Hello { protocol, version, .. } => {
            return Err(format!(
                "it ({version}) speaks version {protocol} of the handoff, this process ({}) \
                 version {VERSION}",
                env!("CARGO_PKG_VERSION")
            ));
        }
        other => return Err(unexpected(&other)),
    };
    say(channel, &Message::Welcome(offer.welcome), &[]).await?;
    let mut sockets = offer.sockets.as_slice();
    let mut batch = 0;
    while !sockets.is_empty() {
        let (now, later) = sockets.split_at(sockets.len().min(HANDOFF_FDS_MAX));
        sockets = later;
        batch += 1;
        let given = now.iter().map(|(given, _)| given.clone()).collect();
        let fds: Vec<_> = now.iter().map(|(_, fd)| fd.as_fd()).collect();
        say(channel, &Message::Sockets { batch, sockets: given }, &fds).await?;
        match next(channel).await? {
            Message::Ack { batch: acknowledged } if acknowledged == batch => {}
            other => return Err(unexpected(&other)),
        }
    }
    say(channel, &Message::Begin, &[]).await?;
    match next(channel).await? {
        Message::Ready { released, unclaimed } => Ok(Hello { pid, version, released, unclaimed }),
        other => Err(unexpected(&other)),
    }
}

async fn say(
    channel: &Channel,
    message: &Message,
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(), String> {
    match channel.send(message, fds, &[]).await {
        Ok(()) => Ok(()),
        // It may have said why before it ended.
        Err(error) => match channel.try_recv() {
            Ok(Some(Received { message: Message::Failed { error }, .. })) => Err(error),
            Ok(None) => Err(GONE.to_owned()),
            _ => Err(error.to_string()),
        },
    }
}

async fn next(channel: &Channel) -> Result<Message, String> {
    match channel.recv().await {
        Ok(Some(Received { message: Message::Failed { error }, .. })) => Err(error),
        Ok(Some(received)) => Ok(received.message),
        Ok(None) => Err(GONE.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn unexpected(message: &Message) -> String {
    format!("it said {} out of turn", message.name())
}
