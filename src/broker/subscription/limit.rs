//! What a subscription does about its backlog when there is too much of it, or of the memory.

use std::cmp::Reverse;

use super::{Backlog, MAX_WORK, Phase, SubscriptionState, Word};

impl SubscriptionState {
    /// Drops the oldest messages that nobody has in hand until `keep` of these are left and the
    /// whole backlog has at most `keep_bytes`, at most `MAX_WORK` at a time. `accepted` is what the
    /// view has taken in, in bytes. Answers how many were dropped.
    pub(crate) fn drop_oldest(
        &mut self,
        head: u64,
        keep: u64,
        keep_bytes: u64,
        accepted: u64,
        backlog: &mut impl Backlog,
    ) -> u64 {
        let mut dropped = 0;
        let is_above = |state: &mut Self, backlog: &mut _| {
            state.weigh(0, backlog);
            let bytes = state.bytes(accepted).map_or(0, |(bytes, _)| bytes);
            state.unleased(head) > keep || bytes > keep_bytes
        };
        while dropped < MAX_WORK as u64 && is_above(self, backlog) {
            if !self.drop_one(head, backlog) {
                break;
            }
            dropped += 1;
        }
        self.ledger.dropped += dropped;
        self.window.trim();
        self.shed();
        dropped
    }

    /// Messages that nobody has in hand.
    pub(crate) fn unleased(&self, head: u64) -> u64 {
        self.backlog(head) - self.leased
    }

    fn drop_one(&mut self, head: u64, backlog: &mut impl Backlog) -> bool {
        while let Some(Reverse(index)) = self.ready.pop() {
            let phase = self.window.get(index).map(Word::phase);
            if matches!(phase, Some(Phase::Ready | Phase::Lapsed)) {
                self.take_out(index, backlog);
                return true;
            }
        }
        if self.ordering.is_some() && self.drop_filed(backlog) {
            return true;
        }
        if self.window.cursor() < head {
            self.window.skip(Word::DONE);
            return true;
        }
        let waits =
            |phase| matches!(phase, Phase::Delayed | Phase::BackingOff | Phase::LapsedBackingOff);
        let delayed = self.window.iter().find(|(_, word)| waits(word.phase()));
        let Some((index, _)) = delayed else { return false };
        self.take_out(index, backlog);
        true
    }

    /// As `drop_one`, where keys have an order: what a pull has come to and nobody has in hand.
    fn drop_filed(&mut self, backlog: &mut impl Backlog) -> bool {
        let waits = |phase| matches!(phase, Phase::Ready | Phase::Lapsed);
        let oldest = self.window.iter().find(|(_, word)| waits(word.phase()));
        let Some((index, _)) = oldest else { return false };
        self.take_out(index, backlog);
        true
    }

    /// Moves survivors at the front of the window to the side table while something behind them is
    /// done, so that they no longer keep what is done in memory; at most `MAX_WORK`.
    pub(crate) fn shed_gaps(&mut self) {
        if self.window.has_gaps() {
            let moved = self.window.shed_gaps(MAX_WORK);
            self.to_pin.extend(moved);
        }
    }
}
