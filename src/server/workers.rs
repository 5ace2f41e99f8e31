//! The workers as the control thread sees them: started together, given listeners and
//! connections, and seen to end.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::Poll;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::overview::Overview;
use super::start::{BothTls, StartError, system};
use crate::config::Config;
use crate::limits::{DELIVERIES, DEPARTURES, REPORT_CUT_MAX, REPORTS};
use crate::net::Listener;
use crate::serve::{self, Admission, Delivery, Departure, Start};
use crate::telemetry::{CutRequest, Events};

/// The workers' side of what the control thread holds.
pub(super) struct Workers {
    pub(super) deliveries: Vec<mpsc::Sender<Delivery>>,
    /// Each of them ends when no worker accepts any more for whom it was made.
    pub(super) accepting: Vec<mpsc::Receiver<()>>,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// What each worker, by its number, says of its start and its end.
    pub(super) reports: Vec<(usize, mpsc::Receiver<io::Result<()>>)>,
    pub(super) cuts: std::sync::mpsc::Receiver<CutRequest>,
    /// How many connections there are descriptors for.
    pub(super) fits: usize,
}

/// Starts all workers, and waits until each of them has: one that cannot must
/// be known before anybody is told that the process is ready.
pub(super) async fn start_workers(
    config: &Arc<Config>,
    overview: &Overview,
    (tls, calls): BothTls,
    events: &Events,
    fits: usize,
) -> Result<(Workers, mpsc::Receiver<Departure>), StartError> {
    let limit = config.limits.connections.unwrap_or(fits);
    let admission = Admission::new(limit, config.limits.connections_per_address);
    let (departs, departures) = mpsc::channel(DEPARTURES);
    let (cut, cuts) = sync_channel(REPORT_CUT_MAX);
    let mut deliveries = Vec::new();
    let mut threads = Vec::new();
    let mut reports = Vec::new();
    for (index, counters) in overview.counters.iter().enumerate() {
        let (sender, receiver) = mpsc::channel(DELIVERIES);
        let (report, reported) = mpsc::channel(REPORTS);
        let start = Start {
            config: Arc::clone(config),
            branch: overview.scope.branch(),
            tls: tls.clone(),
            calls: calls.clone(),
            deliveries: receiver,
            departures: departs.clone(),
            reports: report,
            admission: Arc::clone(&admission),
            counters: Arc::clone(counters),
            access: overview.access.clone(),
            tunnels: overview.tunnels.clone(),
            events: events.clone(),
            cuts: cut.clone(),
        };
        threads.push(serve::spawn(index, start).map_err(system("start a worker"))?);
        deliveries.push(sender);
        reports.push((index, reported));
    }
    for (_, reported) in &mut reports {
        let started = reported.recv().await.unwrap_or_else(|| Err(panicked()));
        started.map_err(system("start a worker"))?;
    }
    Ok((Workers { deliveries, accepting: Vec::new(), threads, reports, cuts, fits }, departures))
}

/// What is known of a worker that ended without a word.
fn panicked() -> io::Error {
    io::Error::other("its thread panicked")
}

impl Workers {
    /// Has all of them accept from these listeners; says later whether all of them do.
    pub(super) fn open(
        &mut self,
        listeners: &[Listener],
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let (accepts, accepting) = mpsc::channel(1);
        let all = (listeners.len() * self.deliveries.len()).max(1);
        let (opened, mut answers) = mpsc::channel(all);
        let mut given = Ok(());
        for (listener, worker) in
            listeners.iter().flat_map(|one| self.deliveries.iter().map(move |to| (one, to)))
        {
            let (accepting, opened) = (accepts.clone(), opened.clone());
            let delivered = listener.share().and_then(|listener| {
                let delivery = Delivery::Listener { listener, accepting, opened };
                worker.try_send(delivery).map_err(|_| io::ErrorKind::WouldBlock.into())
            });
            given = given.and(delivered);
        }
        drop(opened);
        self.accepting.push(accepting);
        async move {
            given?;
            while let Some(opened) = answers.recv().await {
                opened?;
            }
            Ok(())
        }
    }

    /// A worker that ended although nobody asked it to, and why; each is named once.
    pub(super) async fn lost(workers: &mut Option<Self>) -> (usize, io::Error) {
        let Some(workers) = workers else { return std::future::pending().await };
        std::future::poll_fn(|cx| {
            for at in 0..workers.reports.len() {
                let (index, reports) = &mut workers.reports[at];
                if let Poll::Ready(report) = reports.poll_recv(cx) {
                    let why = report.and_then(Result::err).unwrap_or_else(panicked);
                    let index = *index;
                    workers.reports.swap_remove(at);
                    return Poll::Ready((index, why));
                }
            }
            Poll::Pending
        })
        .await
    }
}
