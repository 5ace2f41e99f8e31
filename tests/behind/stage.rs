//! Everything that a test needs at once: clients, a front, two ebbtides, an app server.

use crate::apps::{self, App};
use crate::fronts::{self, Front};
use crate::ground::{Ground, Role};
use crate::judge::{Asked, wrongs};
use crate::load::{Diet, Load, Order};
use crate::pair::{Pair, Which};
use crate::support::timeline::Timeline;
use crate::support::{PATIENCE, within};

/// How many answers the clients have before the first restart, and after the last one.
const BEFORE_AND_AFTER: u64 = 100;

/// How many answers show that a front asks a server as any other: the first may be a trial.
const ASKED_AGAIN: usize = 10;

/// Where a drain report says how many requests were answered.
const SERVED: &str = "/requests_served";

/// The servers, ended in this order.
#[derive(Debug)]
pub(crate) struct Stage {
    /// nginx or HAProxy.
    pub(crate) front: Front,
    /// The ebbtides.
    pub(crate) pair: Pair,
    /// The address that the clients have.
    pub(crate) source: String,
    app: App,
    ground: Ground,
    story: Timeline,
    wrongs: Vec<String>,
}

impl Stage {
    /// Starts all servers.
    pub(crate) fn new(front: fronts::Kind, app: apps::Kind) -> Stage {
        let ground = Ground::new();
        let app = App::start(app, &ground);
        let pair = Pair::start(&ground);
        let front = front(&ground);
        let source = ground.address(Role::Clients).to_string();
        let (story, wrongs) = (Timeline::new(), Vec::new());
        Stage { front, pair, source, app, ground, story, wrongs }
    }

    /// Sends the clients to work and waits until they are at it.
    pub(crate) fn load(&self, diet: Diet, seed: u64) -> Load {
        let place = self.ground.place(Role::Front);
        let source = self.ground.address(Role::Clients);
        let load = Load::start(&Order { place, source, diet, seed });
        load.wait_served(BEFORE_AND_AFTER);
        load
    }

    /// Restarts both, one right after the other.
    pub(crate) fn roll(&mut self) {
        for which in Which::BOTH {
            self.restart(which);
        }
    }

    /// Restarts one.
    pub(crate) fn restart(&mut self, which: Which) {
        self.stop(which);
        self.start_again(which);
    }

    /// Stops one: that it ends as it should is a part of the verdict.
    pub(crate) fn stop(&mut self, which: Which) {
        self.story.note(format!("{which:?} is asked to stop"));
        self.wrongs.extend(self.pair.stop(which));
        self.story.note(format!("{which:?} has ended"));
    }

    /// Starts one that has ended.
    pub(crate) fn start_again(&mut self, which: Which) {
        self.pair.start_again(which);
        self.story.note(format!("{which:?} is ready again"));
    }

    /// Waits until the front asks one that was started again as it did before.
    pub(crate) fn wait_asked(&self, which: Which) {
        within(PATIENCE, &format!("{which:?} to be asked again"), || {
            (self.pair.answered(which) >= ASKED_AGAIN).then_some(())
        });
        self.story.note(format!("{which:?} is asked again"));
    }

    /// Ends one as no operator should, and starts it again.
    pub(crate) fn kill(&mut self, which: Which) {
        self.pair.kill(which);
        self.start_again(which);
    }

    /// Lets the clients come to an end; what is wrong with how anybody fared.
    pub(crate) fn verdict(&mut self, load: Load) -> Vec<String> {
        load.wait_served(BEFORE_AND_AFTER);
        self.judge(&load.finish())
    }

    /// What is wrong with how anybody fared.
    pub(crate) fn judge(&mut self, asked: &[Asked]) -> Vec<String> {
        let [served, raced] = [SERVED, "/raced"].map(|place| self.counted(place));
        self.story.note(format!(
            "{} requests were asked for, {served:?} answered by those that ended, {raced:?} raced",
            asked.len()
        ));
        let mut all = std::mem::take(&mut self.wrongs);
        all.extend(wrongs(asked, &self.app.executed()));
        all
    }

    /// Asserts that nothing is wrong.
    #[track_caller]
    pub(crate) fn assert_sound(&mut self, load: Load) {
        let wrongs = self.verdict(load);
        let story = self.story.told();
        println!("{story}");
        assert!(wrongs.is_empty(), "{} are wrong:\n{}", wrongs.len(), wrongs.join("\n"));
        let served = self.counted(SERVED);
        assert!(served.iter().all(|served| *served > 0), "both were asked: {served:?}");
    }

    fn counted(&self, place: &str) -> [u64; 2] {
        Which::BOTH.map(|which| self.pair.counted(which, place))
    }
}
