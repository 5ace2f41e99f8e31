//! One stop under load, from the start of the app to the last count.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::app::App;
use super::clients::{Clients, Mix, Tally};
use super::error::{DemoError, cannot};
use super::interrupt::Interrupts;
use super::outcome::{Outcome, Report};
use super::proxy::{News, Proxy, ended};
use super::screen::Screen;
use super::status::Watch;
use super::view::{Moment, Stop, View};
use crate::drain::Phase;
use crate::limits::{DEMO_AFTER, DEMO_DRAW, DEMO_STOP_MAX};
use crate::telemetry::ConnectionCounts;

/// Loads a proxy for so long and stops it; everything of it is gone when this returns.
pub(super) async fn play(
    stop: Stop,
    load: Duration,
    interrupts: &mut Interrupts,
    screen: &mut Screen,
) -> Result<Outcome, DemoError> {
    let app = App::start().map_err(cannot("start the app"))?;
    let proxy = Proxy::start(app.addr()).await?;
    let clients = Clients::start(proxy.addr, app.ledger(), Mix::demo());
    let clients = clients.map_err(cannot("start the clients"))?;
    let mut play = Play {
        stop,
        began: Instant::now(),
        watch: Watch::start(proxy.admin),
        due: Instant::now() + load,
        proxy,
        clients,
        phase: Phase::Serving,
        most: 0,
        stopped: None,
        before: Tally::default(),
        was_interrupted: false,
        is_overdue: false,
        report: None,
    };
    let status = play.run(interrupts, screen).await?;
    let took = play.stopped.map_or(Duration::ZERO, |stopped| stopped.elapsed());
    play.phase = Phase::Stopped;
    play.look_on(Moment::Over(took), interrupts, screen).await;
    Ok(Outcome {
        stop: play.stop,
        tally: play.clients.finish(),
        before: play.before,
        repeated: app.ledger().repeated(),
        took,
        status,
        is_overdue: play.is_overdue,
        was_interrupted: play.was_interrupted,
        report: play.report,
    })
}

struct Play {
    stop: Stop,
    began: Instant,
    proxy: Proxy,
    clients: Clients,
    watch: Watch,
    phase: Phase,
    most: usize,
    /// When the stop begins by itself, and when it began.
    due: Instant,
    stopped: Option<Instant>,
    /// What the clients had counted by then.
    before: Tally,
    was_interrupted: bool,
    is_overdue: bool,
    report: Option<Report>,
}

impl Play {
    /// Runs to the end of the proxy.
    async fn run(
        &mut self,
        interrupts: &mut Interrupts,
        screen: &mut Screen,
    ) -> Result<ExitStatus, DemoError> {
        let mut drawing = interval(DEMO_DRAW);
        drawing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = match self.stopped {
                None => self.due,
                Some(stopped) => stopped + DEMO_STOP_MAX,
            };
            tokio::select! {
                news = self.proxy.news() => match news {
                    News::Event(event) => {
                        self.heard(&event);
                        self.draw(screen);
                    }
                    News::Ended(status) if self.stopped.is_some() => return Ok(status),
                    News::Ended(status) => return Err(DemoError::Ended(ended(status))),
                },
                () = sleep_until(next), if !self.is_overdue => self.fall_due(),
                () = interrupts.next() => self.interrupt(),
                _ = drawing.tick() => self.draw(screen),
            }
        }
    }

    /// The clients go on for a moment, so that each of them finds nobody there.
    async fn look_on(&mut self, moment: Moment, interrupts: &mut Interrupts, screen: &mut Screen) {
        let until = Instant::now() + DEMO_AFTER;
        let mut drawing = interval(DEMO_DRAW);
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                () = interrupts.next() => self.was_interrupted = true,
                _ = drawing.tick() => screen.show(&self.view(moment)),
            }
        }
    }

    fn heard(&mut self, event: &Value) {
        match event["event"].as_str() {
            Some("phase") => {
                let entered = event["to_phase"].as_str();
                let known = Phase::ALL.into_iter().find(|phase| Some(phase.name()) == entered);
                self.phase = known.unwrap_or(self.phase);
            }
            Some("drain_report") => self.report = Report::of(event),
            _ => {}
        }
    }

    /// The load has lasted long enough, or the stop much too long.
    fn fall_due(&mut self) {
        if self.stopped.is_none() {
            self.begin_stop();
        } else {
            self.is_overdue = true;
            self.proxy.signal(Signal::KILL);
        }
    }

    fn begin_stop(&mut self) {
        self.before = self.clients.tally();
        self.stopped = Some(Instant::now());
        self.proxy.signal(match self.stop {
            Stop::Drain => Signal::TERM,
            Stop::Naive => Signal::KILL,
        });
    }

    /// Somebody wants the demo to end: the load ends by a drain, and at once; a drain is
    /// hurried, as the proxy understands it.
    fn interrupt(&mut self) {
        self.was_interrupted = true;
        if self.stopped.is_none() {
            self.stop = Stop::Drain;
            self.begin_stop();
        } else {
            self.proxy.signal(Signal::TERM);
        }
    }

    fn draw(&mut self, screen: &mut Screen) {
        let moment = match self.stopped {
            None => Moment::Loading(self.due.saturating_duration_since(Instant::now())),
            Some(stopped) => Moment::Stopping(stopped.elapsed()),
        };
        let view = self.view(moment);
        screen.show(&view);
    }

    fn view(&mut self, moment: Moment) -> View {
        // Of a process that has been ended, the last answer says nothing any more.
        let is_over = matches!(moment, Moment::Over(_))
            || (self.stop == Stop::Naive && self.stopped.is_some());
        let last = self.watch.last().filter(|_| !is_over);
        let left = last.as_ref().and_then(|(at, status)| {
            let left = Duration::from_millis(status.deadline_ms?);
            Some(left.saturating_sub(at.elapsed()))
        });
        let connections = last.map_or_else(ConnectionCounts::default, |(_, it)| it.connections);
        let in_one_state = connections.rows().into_iter().map(|(_, _, count)| count).max();
        self.most = self.most.max(in_one_state.unwrap_or(0));
        View {
            stop: self.stop,
            at: self.began.elapsed(),
            moment,
            phase: self.phase,
            left,
            connections,
            most: self.most,
            tally: self.clients.tally(),
        }
    }
}
