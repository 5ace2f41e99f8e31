//! A scope: one who tells, many who are told, and a count of what is alive.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::census::{Census, Counts, Kind};
use super::deadline::Deadline;
use super::guard::{Hold, Shard};
use super::outcome::Outcome;

/// What everybody in a scope is asked to do. Level-triggered: whoever looks
/// late sees the stage, not a missed edge.
///
/// | from | to | by |
/// | --- | --- | --- |
/// | `Open` | `LameDuck` | readiness fails, work goes on |
/// | `LameDuck` | `Open` | an undrain |
/// | `Open`, `LameDuck` | `Draining` | everything is asked to end |
/// | `Draining` by [`Plan::Upgrade`] | `Open` | the successor is gone, and we are back |
/// | any | `Cut` | the hard deadline: end now |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Work as always.
    Open,
    /// Work as always, and say that the end is near.
    LameDuck,
    /// End by the rule of your state.
    Draining,
    /// End now.
    Cut,
}

/// By which plan a scope is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// Somebody else goes on with the work, and there is much time.
    Upgrade,
    /// Nobody does.
    Stop,
}

/// The stage, with the instants that were fixed when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    /// What is asked.
    pub stage: Stage,
    /// By which plan; of no meaning before draining.
    pub plan: Plan,
    /// Whoever can go on elsewhere goes, instead of being asked to end.
    pub moves: bool,
    /// When draining began; the present while it has not.
    pub since: Instant,
    /// The hard deadline.
    pub deadline: Deadline,
}

/// The teller's side. There is one for each scope.
pub struct Scope<K: Kind> {
    shared: Arc<Shared<K>>,
    orders: watch::Sender<Orders>,
}

pub(super) struct Shared<K: Kind> {
    holds: AtomicUsize,
    /// How many holds there have ever been.
    travels: AtomicUsize,
    shards: Mutex<Vec<Arc<Counts<K>>>>,
    changed: Notify,
}

impl<K: Kind> Shared<K> {
    pub(super) fn held(&self) {
        self.holds.fetch_add(1, Ordering::AcqRel);
        self.travels.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn released(&self) {
        if self.holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.perhaps_empty();
        }
    }

    pub(super) fn perhaps_empty(&self) {
        self.changed.notify_one();
    }

    fn shards(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Counts<K>>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are alive, each counted at least once; none if one has set out meanwhile.
    fn look(&self) -> Option<usize> {
        // A thing that comes has its guard before its hold is let go, and one that leaves
        // has its hold before its guard is: it is always in one of them, but it may go
        // from the one that is not looked at yet to the one that has been. Then there is
        // a travel more.
        let travels = self.travels.load(Ordering::Acquire);
        let holds = self.holds.load(Ordering::Acquire);
        let settled: usize = self.shards().iter().map(|counts| counts.alive()).sum();
        (self.travels.load(Ordering::Acquire) == travels).then_some(holds + settled)
    }

    fn is_empty(&self) -> bool {
        self.look() == Some(0)
    }
}

impl<K: Kind> Scope<K> {
    /// An open scope in which nothing is alive.
    pub fn new(now: Instant) -> Self {
        let shared = Shared {
            holds: AtomicUsize::new(0),
            travels: AtomicUsize::new(0),
            shards: Mutex::default(),
            changed: Notify::new(),
        };
        let orders = Orders {
            stage: Stage::Open,
            plan: Plan::Stop,
            moves: false,
            since: now,
            deadline: Deadline::NEVER,
        };
        Scope { shared: Arc::new(shared), orders: watch::Sender::new(orders) }
    }

    /// A part of this scope for one thread.
    pub fn branch(&self) -> Branch<K> {
        let counts = Counts::new();
        self.shared.shards().push(Arc::clone(&counts));
        Branch { counts, shared: Arc::clone(&self.shared), orders: self.orders.subscribe() }
    }

    /// Keeps the scope from being empty while something travels to a thread.
    pub fn hold(&self) -> Hold<K> {
        Hold::new(Arc::clone(&self.shared))
    }

    /// Tells everybody. A stage never goes back but from lame duck to open, and to
    /// open from a drain that began because somebody else was there.
    pub fn tell(&self, orders: Orders) {
        self.orders.send_modify(|current| {
            let undrain = orders.stage == Stage::Open
                && match current.stage {
                    Stage::LameDuck => true,
                    Stage::Draining => current.plan == Plan::Upgrade,
                    _ => false,
                };
            if orders.stage >= current.stage || undrain {
                *current = orders;
            }
        });
    }

    /// What is alive now.
    pub fn census(&self) -> Census<K> {
        let mut census = Census::default();
        for counts in self.shared.shards().iter() {
            counts.add_to(&mut census);
        }
        census
    }

    /// How many are alive, with those that travel between threads: one that arrives
    /// meanwhile may be counted twice, never not at all.
    pub fn alive(&self) -> usize {
        loop {
            if let Some(alive) = self.shared.look() {
                return alive;
            }
        }
    }

    /// Waits until nothing is alive. Ends at once if nothing is.
    pub async fn empty(&self) {
        while !self.shared.is_empty() {
            self.shared.changed.notified().await;
        }
    }

    /// Waits until nothing is alive, but not longer than until `deadline`.
    pub async fn drained(&self, deadline: Deadline) -> Outcome<K> {
        match deadline.instant() {
            None => self.empty().await,
            Some(at) => {
                if tokio::time::timeout_at(at.into(), self.empty()).await.is_err() {
                    return Outcome::Expired(self.census());
                }
            }
        }
        Outcome::Drained
    }
}

/// What a thread is given to work in a scope: `Send`, until it is opened there.
pub struct Branch<K: Kind> {
    counts: Arc<Counts<K>>,
    shared: Arc<Shared<K>>,
    orders: watch::Receiver<Orders>,
}

impl<K: Kind> Branch<K> {
    /// Opens the branch on the thread that will work in it.
    pub fn open(self) -> (Rc<Shard<K>>, Watch) {
        (Rc::new(Shard::new(self.counts, self.shared)), Watch(self.orders))
    }
}

/// Sees what the scope is told. Never keeps it from being empty.
#[derive(Clone)]
pub struct Watch(watch::Receiver<Orders>);

impl Watch {
    /// What is asked now.
    pub fn orders(&self) -> Orders {
        *self.0.borrow()
    }

    /// Waits until the stage is at least `stage`; ends at once if it is.
    pub async fn reaches(&mut self, stage: Stage) {
        if self.0.wait_for(|orders| orders.stage >= stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the orders are others than `seen`; ends at once if they are.
    /// Never ends once the teller is gone: then nothing can be told any more.
    pub async fn changed_from(&mut self, seen: Orders) -> Orders {
        match self.0.wait_for(|orders| *orders != seen).await {
            Ok(orders) => *orders,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Thing {
        Small,
        Large,
    }

    impl Kind for Thing {
        const COUNT: usize = 2;
        fn index(self) -> usize {
            self as usize
        }
    }

    fn run(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(test());
    }

    fn orders(stage: Stage) -> Orders {
        let (since, deadline) = (Instant::now(), Deadline::NEVER);
        Orders { stage, plan: Plan::Stop, moves: false, since, deadline }
    }

    #[test]
    fn a_scope_in_which_nothing_is_alive_is_empty_at_once() {
        run(async || {
            let scope = Scope::<Thing>::new(Instant::now());
            let branch = scope.branch();
            let never_opened_watch = branch.orders.clone();
            scope.empty().await;
            drop(never_opened_watch);
        });
    }

    #[test]
    fn a_guard_keeps_the_scope_from_being_empty_and_a_watch_does_not() {
        run(async || {
            let scope = Scope::new(Instant::now());
            let (shard, _watch) = scope.branch().open();
            let guard = shard.guard(Thing::Small);
            guard.shift(Thing::Large);
            let soon = Deadline::after(Instant::now(), Duration::from_millis(5));
            let Outcome::Expired(census) = scope.drained(soon).await else { panic!("empty") };
            assert_eq!((census.of(Thing::Small), census.of(Thing::Large)), (0, 1));
            drop(guard);
            assert_eq!(scope.drained(Deadline::NEVER).await, Outcome::Drained);
        });
    }

    #[test]
    fn what_travels_between_threads_is_never_seen_as_gone() {
        run(async || {
            let scope = Scope::new(Instant::now());
            for _ in 0..300 {
                let hold = scope.hold();
                let branch = scope.branch();
                let thread = std::thread::spawn(move || {
                    let (shard, _watch) = branch.open();
                    let guard = shard.guard(Thing::Small);
                    drop(hold);
                    let alive = shard.alive();
                    drop(guard);
                    alive
                });
                scope.empty().await;
                assert_eq!(thread.join().unwrap(), 1);
                assert_eq!(scope.census().total(), 0);
            }
        });
    }

    #[test]
    fn what_comes_and_goes_all_the_time_is_never_seen_as_gone() {
        let scope = Scope::new(Instant::now());
        let branch = scope.branch();
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = Arc::clone(&over);
        let first = scope.hold();
        let traveller = std::thread::spawn(move || {
            let (shard, _watch) = branch.open();
            let mut hold = first;
            while !told.load(Ordering::Acquire) {
                let guard = shard.guard(Thing::Small);
                drop(hold);
                hold = shard.hold();
                drop(guard);
            }
            hold
        });
        for look in 0..300_000 {
            assert!(!scope.shared.is_empty(), "look {look}");
            assert!(scope.alive() > 0, "look {look}");
        }
        over.store(true, Ordering::Release);
        drop(traveller.join().unwrap());
        assert!(scope.shared.is_empty());
    }

    #[test]
    fn a_stage_is_seen_by_who_looks_late_and_only_goes_back_by_an_undrain() {
        run(async || {
            let scope = Scope::<Thing>::new(Instant::now());
            let (_shard, mut watch) = scope.branch().open();
            let first = watch.orders();
            scope.tell(orders(Stage::LameDuck));
            assert_eq!(watch.changed_from(first).await.stage, Stage::LameDuck);
            scope.tell(orders(Stage::Open));
            assert_eq!(watch.orders().stage, Stage::Open);
            scope.tell(orders(Stage::Draining));
            scope.tell(orders(Stage::Open));
            scope.tell(orders(Stage::LameDuck));
            let draining = watch.orders();
            assert_eq!(draining.stage, Stage::Draining);
            scope.tell(orders(Stage::Cut));
            assert_eq!(watch.changed_from(draining).await.stage, Stage::Cut);
        });
    }

    #[test]
    fn a_drain_for_a_successor_can_be_taken_back_or_become_a_stop() {
        run(async || {
            let scope = Scope::<Thing>::new(Instant::now());
            let (_shard, watch) = scope.branch().open();
            let upgrade = Orders { plan: Plan::Upgrade, moves: true, ..orders(Stage::Draining) };
            scope.tell(upgrade);
            scope.tell(orders(Stage::Open));
            assert_eq!(watch.orders().stage, Stage::Open);
            scope.tell(upgrade);
            scope.tell(orders(Stage::Draining));
            assert_eq!(watch.orders().plan, Plan::Stop);
            scope.tell(orders(Stage::Open));
            assert_eq!(watch.orders().stage, Stage::Draining);
        });
    }
}
