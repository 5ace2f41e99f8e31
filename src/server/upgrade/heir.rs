//! The control thread of a process that has elders: what they say.

use super::elders::Word;
use crate::handoff::Message;
use crate::lifecycle::Event as Happened;
use crate::net::Listener;
use crate::server::control::Control;
use crate::server::manager::vitals;
use crate::telemetry::{Event, Level};

impl Control {
    /// What an elder says.
    pub(in crate::server) async fn heard(
        &mut self,
        generation: u32,
        word: Word,
    ) -> Option<Happened> {
        match word {
            Word::State(state) => {
                let counted = state.counted.clone();
                self.overview.ledger.borrow_mut().note(generation, counted);
                self.elders.note(generation, state);
            }
            // Seen by whoever waits for it, too.
            Word::Released => self.elders.released(generation),
            Word::Main => self.is_main(),
            Word::Replaced(error) => return self.replaced(generation, error),
            Word::Odd(error) => {
                let event = Event::new(Level::Error, "elder_refused").with("error", error);
                let event = event.with("generation", generation);
                self.events.emit(event.with("message", "what it still has stays with it"));
            }
            Word::Orphans(count) => {
                self.count_lost(count, "an elder had sent it, and it could not be taken");
            }
            Word::Gone => {
                self.overview.ledger.borrow_mut().close(generation);
                if self.elders.remove(generation) && !self.overview.is_outgoing() {
                    // There is nobody left who could name this process.
                    self.is_main();
                }
                let event = Event::new(Level::Info, "elder_gone");
                self.events.emit(event.with("generation", generation));
            }
        }
        self.overview.elders.replace(self.elders.states());
        if self.elders.hold_nothing()
            && !self.succession.has_let_go()
            && !self.overview.is_outgoing()
        {
            self.own_doors();
        }
        None
    }

    /// An elder goes on itself: this process leaves with what it has, and everything that
    /// both of them hold is the elder's.
    fn replaced(&mut self, generation: u32, error: String) -> Option<Happened> {
        let event = Event::new(Level::Error, "replaced").with("error", error);
        let event = event.with("generation", generation);
        self.events.emit(event.with("message", "the elder goes on; this process leaves"));
        self.stopping.reason.get_or_insert("replaced");
        // Nobody is to follow this process.
        drop(self.succession.call_off());
        self.elders.part();
        // What this process has bound itself is nobody else's.
        let is_ours = |listener: &mut Listener| !listener.is_held();
        let ours: Vec<_> = self.listeners.extract_if(.., is_ours).collect();
        let theirs = std::mem::take(&mut self.listeners);
        self.leave_doors();
        self.happened(Happened::Replaced);
        self.close_some(ours, std::future::ready(true));
        self.close_some(theirs, std::future::ready(false));
        self.close_doors();
        None
    }

    fn is_main(&mut self) {
        if self.manager.notifier.is_main(vitals(&self.overview))
            && let Some(out) = &self.succession.outgoing
        {
            let _gone = out.words.try_send(Message::Main);
        }
    }
}
