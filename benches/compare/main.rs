//! ebbtide beside nginx and HAProxy: what a request, a large body, a WebSocket's message and
//! an idle connection cost, what a start and a stop take, and what clients lose by a stop.
//!
//! `benches/compare/run` installs the peers and runs this. Proxies have one worker on a
//! core of their own; load and application share the other. Each response is checked,
//! and one that is wrong or missing ends the row: a figure that includes errors would
//! say nothing. Markdown goes to standard output, progress to standard error.

// A bench has no runtime that sleeping could block.
#![allow(clippy::disallowed_methods)]

mod bulk;
mod drain;
mod ebbtide;
mod field;
mod figures;
mod grpc;
mod haproxy;
mod idle;
mod keepalive;
mod nginx;
mod oneshot;
mod program;
mod retire;
mod running;
mod section;
mod start;
mod steady;
#[path = "../support/mod.rs"]
mod support;
mod websocket;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use bulk::Direction;
use clap::{Parser, ValueEnum};
use drain::Deed;
use field::Field;
use keepalive::Small;
use program::{Named, Program};
use section::Section;
use serde_json::json;
use support::h2load::Work;
use support::identity::Identity;
use support::{Error, backend, host};
use websocket::Size;

/// A row of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Row {
    /// CPU time for 1 KB over HTTP/1.1.
    Keepalive,
    /// The same with an access log.
    KeepaliveLogged,
    /// The same at 5,000 requests a second.
    FixedRate,
    /// The same over TLS.
    Tls,
    /// The same over HTTP/2 in clear text.
    H2,
    /// The same over HTTP/2 and TLS.
    H2Tls,
    /// The same with a connection for each request.
    Connections,
    /// Full TLS handshakes.
    Handshakes,
    /// CPU time for WebSocket messages of 64 octets.
    Websocket,
    /// The same for messages of 64 KB.
    WebsocketLarge,
    /// CPU time for unary calls of gRPC.
    Grpc,
    /// CPU time for a GB in responses of 10 MB.
    Download,
    /// CPU time for a GB in requests of 10 MB.
    Upload,
    /// Memory for each idle connection.
    Idle,
    /// Memory for each idle WebSocket.
    Tunnels,
    /// From the execution to the first answer.
    Start,
    /// From the signal to the exit with idle connections.
    Retire,
    /// What clients lose when a proxy stops.
    Stops,
    /// What clients lose when a proxy is stopped and started again.
    Restarts,
    /// What clients lose when a peer reloads.
    Reloads,
    /// What clients lose when the binary is replaced, and whose connections are ended.
    Upgrade,
    /// How long 10,000 idle connections take to move to a successor.
    MoveIdle,
    /// What a client sees of an upgrade at 1,000 requests a second.
    UpgradePause,
}

/// Measures ebbtide beside other proxies.
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Options {
    /// The rows to measure; all if none is given.
    #[arg(value_enum, value_name = "ROW")]
    rows: Vec<Row>,
    /// ebbtide's binary, of `cargo build --release`.
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// Another proxy, as `nginx:Debian=/usr/sbin/nginx`; once for each.
    #[arg(long = "peer", value_name = "MAKE:ORIGIN=PATH")]
    peers: Vec<Named>,
    /// Rounds in which each proxy has its turn; a ratio is the median over them.
    #[arg(long, value_name = "N", default_value_t = 15)]
    pairs: usize,
    /// Idle connections held for `idle`, to each proxy.
    #[arg(long, value_name = "N", default_value_t = 3_500)]
    held: usize,
    /// Idle WebSockets held for `tunnels`; fewer if the descriptor limit asks for it.
    #[arg(long, value_name = "N", default_value_t = 4_000)]
    tunnels: usize,
    /// Idle connections held for `retire`; fewer if the descriptor limit asks for it.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    retired: usize,
    /// Idle connections held for `move-idle`; fewer if the descriptor limit asks for it.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    moved: usize,
    /// Runs of `upgrade-pause`, each with an upgrade and without.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pauses: usize,
    /// Stops, restarts, reloads and upgrades under load, of each proxy.
    #[arg(long, value_name = "N", default_value_t = 20)]
    stops: usize,
    /// Few rounds, to see that everything works. Its figures are not to be quoted.
    #[arg(long)]
    quick: bool,
    /// Where to write all figures as JSON, besides.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What `cargo bench` always passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Rounds of a quick run, and its stops, and its idle connections.
const QUICK_PAIRS: usize = 3;
const QUICK_STOPS: usize = 2;
const QUICK_HELD: usize = 2_000;

/// How often idle connections are held and dismissed, and the same of a quick run.
const TIMES: usize = 3;
const QUICK_TIMES: usize = 1;

impl Options {
    fn pairs(&self) -> usize {
        if self.quick { QUICK_PAIRS } else { self.pairs }
    }

    fn stops(&self) -> usize {
        if self.quick { QUICK_STOPS } else { self.stops }
    }

    fn times(&self) -> usize {
        if self.quick { QUICK_TIMES } else { TIMES }
    }

    fn moved(&self) -> usize {
        if self.quick { self.moved.min(QUICK_HELD) } else { self.moved }
    }

    fn pauses(&self) -> usize {
        if self.quick { QUICK_TIMES } else { self.pauses }
    }

    fn tunnels(&self) -> usize {
        if self.quick { self.tunnels.min(QUICK_HELD) } else { self.tunnels }
    }

    fn held(&self) -> usize {
        if self.quick { QUICK_HELD } else { self.held }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match compare(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all rows could be measured and ebbtide did nothing wrong.
fn compare(options: &Options) -> Result<bool, Error> {
    if !host::has_two_cores() {
        return Err("needs cores 0 and 1, one for the proxy and one for its load".into());
    }
    host::pin_to(host::LOAD_CORE)?;
    host::raise_descriptor_limit()?;
    let mut programs = vec![Program::own(&options.binary)?];
    for named in &options.peers {
        programs.push(Program::peer(named.clone())?);
    }
    let upstream = backend::start()?;
    let field = Field { programs, identity: Identity::new()?, upstream };
    println!("{}", introduction(&field, options));
    let rows = if options.rows.is_empty() { Row::value_variants() } else { &options.rows[..] };
    let mut all = json!({});
    let mut right = true;
    for &row in rows {
        let name = row.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned());
        let started = Instant::now();
        match measure(row, &field, options) {
            Ok(section) => {
                println!("{section}");
                right &= section.faults.is_empty();
                all[name.as_str()] = section.json();
            }
            Err(error) => {
                println!("### {name}\n\nFAILED: {error}\n");
                right = false;
            }
        }
        eprintln!("compare: {name} took {:.0} s", started.elapsed().as_secs_f64());
    }
    if let Some(path) = &options.json {
        let programs: Vec<_> = field.programs.iter().map(Program::description).collect();
        let document = json!({ "quick": options.quick, "programs": programs, "rows": all });
        fs::write(path, format!("{document:#}\n"))?;
    }
    Ok(right)
}

/// What all tables have in common.
fn introduction(field: &Field, options: &Options) -> String {
    let mut text = String::new();
    if options.quick {
        text += "**A quick run: it shows that everything works. Its figures are not to be quoted.**\n\n";
    }
    for program in &field.programs {
        text += &format!("- {}\n", program.description());
    }
    text += &format!(
        "\nAll with one worker, pinned to a core of its own; load and application share another \
         core, over loopback. The proxies run at once and are loaded in turn, somewhat less than \
         a second each, in random order within a round. A ratio is formed within each of the {} rounds; \
         shown are the medians and, in brackets, the quartiles. CPU time is that of all threads \
         and processes of a proxy, as the kernel's scheduler accounts it; requests a second \
         depend as often on the load as on the proxy and are only shown beside it. Every \
         response is checked.\n",
        options.pairs()
    );
    text
}

fn measure(row: Row, field: &Field, options: &Options) -> Result<Section, Error> {
    let pairs = options.pairs();
    let small = |small| keepalive::measure(field, small, pairs);
    match row {
        Row::Keepalive => small(Small::KeepAlive),
        Row::KeepaliveLogged => small(Small::Logged),
        Row::FixedRate => small(Small::FixedRate),
        Row::Tls => small(Small::H2load(Work::H1Tls)),
        Row::H2 => small(Small::H2load(Work::H2)),
        Row::H2Tls => small(Small::H2load(Work::H2Tls)),
        Row::Connections => small(Small::OneShot),
        Row::Handshakes => small(Small::H2load(Work::Handshake)),
        Row::Websocket => websocket::echo(field, Size::Small, pairs),
        Row::WebsocketLarge => websocket::echo(field, Size::Large, pairs),
        Row::Grpc => grpc::measure(field, pairs),
        Row::Download => bulk::measure(field, Direction::Down, pairs),
        Row::Upload => bulk::measure(field, Direction::Up, pairs),
        Row::Idle => idle::measure(field, options.held(), options.times()),
        Row::Tunnels => websocket::idle(field, options.tunnels(), options.times()),
        Row::Start => start::measure(field, pairs),
        Row::Retire => retire::measure(field, options.retired, options.times()),
        Row::Stops => drain::measure(field, Deed::Stop, options.stops()),
        Row::Restarts => drain::measure(field, Deed::Restart, options.stops()),
        Row::Reloads => drain::measure(field, Deed::Reload, options.stops()),
        Row::Upgrade => drain::measure_upgrade(field, options.stops()),
        Row::MoveIdle => drain::measure_moving(field, options.moved(), options.times()),
        Row::UpgradePause => drain::measure_pause(field, options.pauses()),
    }
}
