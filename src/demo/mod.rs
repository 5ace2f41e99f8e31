//! `ebbtide demo`: a stop under load that a person can watch, with nothing else installed.
//!
//! Owns a small app ([`app`]), clients of every kind that keep working and count for
//! themselves what became of their requests ([`clients`]), the account that both keep
//! of each request ([`ledger`]), and what is shown of it. The proxy between them is this
//! program as anybody would run it, in a process of its own. Promises that the clients
//! never take the proxy's word for anything: what was served is checked to the last
//! octet, and what was lost is named; and that it always ends by itself, with nothing
//! left behind. The benchmarks stop other proxies under the same load.

pub mod app;
pub mod clients;
pub mod ledger;

mod error;
mod interrupt;
mod outcome;
mod plain;
mod play;
mod proxy;
mod render;
mod screen;
mod status;
mod summary;
mod text;
mod thread;
mod view;

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::runtime::{Builder, LocalOptions};

use self::error::cannot;
use self::interrupt::Interrupts;
use self::play::play;
use self::screen::Screen;
use self::view::Stop;
use crate::limits::DEMO_DESCRIPTORS;

pub use error::DemoError;

/// What is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether the same load is shown without a drain, too.
    pub compare: bool,
    /// How long the proxy is loaded before it is stopped.
    pub load: Duration,
    /// Whether a terminal gets plain lines, too.
    pub plain: bool,
}

/// Shows it on stdout; whether the drain lost nothing and the proxy ended well.
///
/// # Errors
///
/// If there was nothing to show.
pub fn run(options: &Options) -> Result<bool, DemoError> {
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < DEMO_DESCRIPTORS
    {
        return Err(DemoError::Descriptors(limit));
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(cannot("start a runtime"))?;
    runtime.block_on(async {
        let mut interrupts = Interrupts::register().map_err(cannot("register signals"))?;
        let mut screen = Screen::open(options.plain);
        if options.compare {
            let naive = play(Stop::Naive, options.load, &mut interrupts, &mut screen).await?;
            // Whoever has no time for this one is not shown another.
            if naive.was_interrupted {
                screen.end(&summary::one(&naive));
                return Ok(naive.is_good());
            }
            let drain = play(Stop::Drain, options.load, &mut interrupts, &mut screen).await?;
            screen.end(&summary::two(&naive, &drain));
            return Ok(drain.is_good());
        }
        let drain = play(Stop::Drain, options.load, &mut interrupts, &mut screen).await?;
        screen.end(&summary::one(&drain));
        Ok(drain.is_good())
    })
}
