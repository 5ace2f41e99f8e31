//! The elder's side, until the successor can serve. Nothing of what is done here changes
//! how this process serves.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::handoff::{Channel, Given, Launched, Message, Received, VERSION, Welcome, launch};
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
    /// Listeners that it has no use for.
    pub(super) released: Vec<String>,
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
    let outcome = tokio::select! {
        biased;
        outcome = bring_up(&channel, offer) => outcome,
        how = ended(&mut launched) => Err(last_words(&channel, &how)),
        () = tokio::time::sleep(timeout) => {
            Err(format!("it was not ready after upgrade.timeout, {timeout:?}"))
        }
        _ = called_off => Err("this process is being stopped".to_owned()),
    };
    match outcome {
        Ok((pid, version, released)) => Ok(Prepared { channel, launched, pid, version, released }),
        Err(why) => {
            let refusal = Message::Refused { error: why.clone() };
            let _unheard = channel.send(&refusal, &[], &[]).await;
            drop(channel);
            Err(match launched {
                Some(launched) => reap(launched, why).await,
                None => why,
            })
        }
    }
}

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

/// Waits a moment for the end of what was started, and says how it ended.
async fn reap(mut launched: Launched, why: String) -> String {
    // One that ends by itself says more than one that is killed.
    match tokio::time::timeout(REAP, launched.ended()).await {
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

async fn bring_up(
    channel: &Channel,
    offer: Result<Offer, String>,
) -> Result<(u32, String, Vec<String>), String> {
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
        Message::Ready { released } => Ok((pid, version, released)),
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
