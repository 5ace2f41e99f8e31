//! What a request and an idle connection cost the proxy, and what a stop costs.
//!
//! `cargo bench --bench cost -- instructions` and so on; every measurement
//! starts the release binary as a user would, with one worker, and stands on
//! both sides of it: [`support::backend`] answers and [`support::load`] asks, checking
//! each response. Instructions and system calls repeat to about one per cent, so
//! they carry bounds and fail; times depend on the machine and are only shown.

// A bench has no runtime that sleeping could block.
#![allow(clippy::disallowed_methods)]

mod drain;
mod instructions;
mod memory;
#[path = "../support/mod.rs"]
mod support;
mod syscalls;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use support::Error;

/// Whether a measurement kept its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Kept,
    Exceeded,
}

impl Verdict {
    fn of(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Exceeded }
    }

    /// Exceeded if either is.
    fn and(self, other: Self) -> Self {
        Self::of(self == Self::Kept && other == Self::Kept)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Kept => "ok",
            Self::Exceeded => "TOO MUCH",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// User-space instructions per request, by callgrind.
    Instructions,
    /// System calls per request, by strace.
    Syscalls,
    /// Memory per idle connection.
    Memory,
    /// Time from SIGTERM to exit with idle connections only.
    Drain,
    /// Everything.
    All,
}

/// Measures what ebbtide costs.
#[derive(Debug, Parser)]
#[command(name = "cost")]
struct Options {
    #[arg(value_enum, default_value = "all")]
    measurement: Measurement,
    /// The binary to measure, instead of the one built beside this bench. That
    /// one has the release profile, but also the `sabotage` feature of the tests;
    /// for figures to publish, give the result of `cargo build --release`.
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_ebbtide"))]
    binary: PathBuf,
    /// Most user-space instructions per request.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    max_instructions: u64,
    /// Requests counted in each `syscalls` run.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    requests: u64,
    /// Idle connections held for `memory`.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    connections: usize,
    /// Most bytes of memory per idle connection after one request.
    #[arg(long, value_name = "N", default_value_t = 1_536)]
    max_idle_bytes: u64,
    /// Idle connections held for `drain`; fewer if the descriptor limit asks for it.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    drain_connections: usize,
    /// What `cargo bench` always passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut verdict = Verdict::Kept;
    for &measurement in selected(options.measurement) {
        let outcome = measure(measurement, &options).unwrap_or_else(|error| {
            eprintln!("cost: {measurement:?}: {error}");
            Verdict::Exceeded
        });
        verdict = verdict.and(outcome);
        println!();
    }
    match verdict {
        Verdict::Kept => ExitCode::SUCCESS,
        Verdict::Exceeded => ExitCode::FAILURE,
    }
}

fn selected(measurement: Measurement) -> &'static [Measurement] {
    use Measurement::{All, Drain, Instructions, Memory, Syscalls};
    match measurement {
        All => &[Instructions, Syscalls, Memory, Drain],
        Instructions => &[Instructions],
        Syscalls => &[Syscalls],
        Memory => &[Memory],
        Drain => &[Drain],
    }
}

fn measure(measurement: Measurement, options: &Options) -> Result<Verdict, Error> {
    match measurement {
        Measurement::Instructions => {
            instructions::measure(&options.binary, options.max_instructions)
        }
        Measurement::Syscalls => syscalls::measure(&options.binary, options.requests),
        Measurement::Memory => {
            memory::measure(&options.binary, options.connections, options.max_idle_bytes)
        }
        Measurement::Drain => drain::measure(&options.binary, options.drain_connections),
        Measurement::All => Ok(Verdict::Kept),
    }
}
