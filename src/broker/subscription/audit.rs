//! Whether the words and the counts of one subscription agree (I-3).

use super::{Phase, SubscriptionState};
use crate::broker::ledger::Places;

impl SubscriptionState {
    /// Where its messages are by the words, and what the counts say differently.
    pub(crate) fn audit(&self, head: u64) -> (Places, Vec<String>) {
        let mut places = Places { fresh: head - self.window.cursor(), ..Places::default() };
        let mut filed = 0;
        for (_, word) in self.window.iter() {
            match word.phase() {
                Phase::Done => {}
                Phase::Leased => places.leased += 1,
                // Looked at, not handed out yet: its key has to wait.
                Phase::Ready if word.generation() == 0 => filed += 1,
                Phase::Lapsed | Phase::Ready => places.ready += 1,
                Phase::Delayed | Phase::BackingOff | Phase::LapsedBackingOff => {
                    places.delayed += 1;
                }
                Phase::Forwarding => places.forwarding += 1,
                Phase::Provisional => places.provisional += 1,
            }
        }
        let mut wrong = Vec::new();
        let mut compare = |what, counted, found| {
            if counted != found {
                wrong.push(format!("{counted} {what} by count, {found} by the words (I-3)"));
            }
        };
        compare("leased", self.leased, places.leased);
        compare("deliverable", self.deliverable, places.ready + filed);
        compare("provisional", self.provisional(), places.provisional);
        compare("delayed", self.delayed, places.delayed);
        compare("forwarding", self.forwarding, places.forwarding);
        compare("live", self.window.live(), places.total() - places.fresh + filed);
        places.fresh += filed;
        (places, wrong)
    }

    /// Indices of messages that were handed out and have not left, lowest first.
    pub(crate) fn live_indices(&self) -> impl Iterator<Item = u64> {
        self.window.iter().map(|(index, _)| index)
    }

    /// Messages that were handed out and have not left, lowest index first.
    pub(crate) fn words(&self) -> impl Iterator<Item = (u64, super::Word)> {
        self.window.iter()
    }

    /// What is known of the message at an index; `None` for one that has left or never came.
    pub(crate) fn word(&self, index: u64) -> Option<super::Word> {
        self.window.get(index)
    }

    /// Stragglers that are pinned as far as the topic knows.
    pub(crate) fn pinned_stragglers(&self) -> Vec<u64> {
        let mut pinned = self.window.stragglers_in(0..u64::MAX);
        pinned.retain(|index| !self.to_pin.contains(index));
        let settled = self.to_unpin.iter().filter(|index| !self.to_pin.contains(index));
        pinned.extend(settled);
        pinned
    }

    /// Loses a message without a trace, so that tests can see the audit notice.
    #[cfg(test)]
    pub(crate) fn lose_one(&mut self) {
        self.window.skip(super::Word::DONE);
    }
}
