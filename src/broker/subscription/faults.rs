//! What faults on demand do to a message: a hand-out undone, a lease ended early, an ack undone.
//!
//! Each is a way that a message takes anyway (a delay, a lapse, a return to the backlog), so that
//! order, quotas, dead letters and the books need no rules of their own for faults. Which fault is
//! due is decided in `broker/faults.rs`.

use super::{Backlog, LeaseId, Phase, Settled, SubscriptionState, Word, slot_of};
use crate::time::Time;

impl SubscriptionState {
    /// What an ack would come to now; for the message nothing is changed.
    pub(crate) fn foresee_ack(&mut self, id: LeaseId, backlog: &mut impl Backlog) -> Settled {
        self.file_unfiled(backlog);
        let phase = self.judge(id);
        let Some(Phase::Leased | Phase::Lapsed | Phase::LapsedBackingOff) = phase else {
            return Settled::Stale;
        };
        let word = self.window.get(id.index);
        let key = word.and_then(slot_of).and_then(|slot| self.ordering()?.key(slot));
        let is_first = key.is_none_or(|key| key.front() == Some(id.index));
        match word.is_some_and(Word::is_strict) {
            _ if is_first => Settled::Done,
            true if phase == Some(Phase::Leased) => Settled::Unordered,
            _ => Settled::Provisional,
        }
    }

    /// Whether a new deadline would take effect now.
    pub(crate) fn may_extend(&self, id: LeaseId) -> bool {
        matches!(self.judge(id), Some(Phase::Leased | Phase::Lapsed | Phase::LapsedBackingOff))
    }

    /// Whether a successful ack of this delivery promises that the message never comes again
    /// (EOD-1).
    pub(crate) fn is_strict(&self, id: LeaseId) -> bool {
        self.window.get(id.index).is_some_and(Word::is_strict)
    }

    /// Undoes the hand-out that was made last, of which nobody knows yet: the message is delayed
    /// until `until`, and the attempt was none.
    pub(crate) fn hold_back(&mut self, id: LeaseId, until: Time, backlog: &mut impl Backlog) {
        if self.judge(id) != Some(Phase::Leased) {
            return;
        }
        self.file_unfiled(backlog);
        self.end_lease(id.index, backlog);
        let Some(word) = self.window.get_mut(id.index) else { return };
        word.undo_hand_out();
        word.set_phase(Phase::Delayed);
        word.set_deadline(until);
        let (slot, was_handed_out) = (slot_of(*word), word.generation() > 0);
        self.redeliveries -= u64::from(was_handed_out);
        self.file_delay(id.index, until, backlog);
        self.delayed += 1;
        if let Some(slot) = slot {
            // It was the last of its key that was handed out.
            if let Some(key) = self.ordering().and_then(|ordering| ordering.key(slot)) {
                key.handed -= 1;
            }
            self.settle_key(slot);
        }
        self.bound_hints();
    }

    /// Ends a lease as its deadline would. Answers whether there was one.
    pub(crate) fn end_lease_now(
        &mut self,
        id: LeaseId,
        now: Time,
        backlog: &mut impl Backlog,
    ) -> bool {
        let is_leased = self.judge(id) == Some(Phase::Leased);
        if is_leased {
            self.lapse(id.index, now, now, backlog);
            self.bound_hints();
        }
        is_leased
    }

    /// Ends all leases from index `from` on, looking at `work` messages at most. Answers how many
    /// there were, and where to go on.
    pub(crate) fn end_leases_now(
        &mut self,
        from: u64,
        work: usize,
        now: Time,
        backlog: &mut impl Backlog,
    ) -> (u64, Option<u64>) {
        let mut ended = 0;
        let next = self.each_live(from, work, |state, index| {
            // The first of a key takes the others with it (ORD-7).
            if state.window.get(index).is_some_and(|word| word.phase() == Phase::Leased) {
                state.lapse(index, now, now, backlog);
                ended += 1;
            }
        });
        self.bound_hints();
        (ended, next)
    }

    /// Lets a message come again whose ack is answered as if it had taken effect: the id is dead.
    /// Nothing has failed, so the attempt does not count.
    pub(crate) fn deliver_again(&mut self, id: LeaseId, backlog: &mut impl Backlog) {
        let index = id.index;
        match self.judge(id) {
            Some(Phase::Leased) => {
                self.end_lease(index, backlog);
                if self.ordering.is_some() {
                    self.rewind(index, backlog);
                }
                if let Some(word) = self.window.get_mut(index) {
                    word.uncount();
                }
            }
            Some(Phase::Lapsed) => self.leave_ready(index),
            Some(Phase::LapsedBackingOff) => self.delayed -= 1,
            _ => return,
        }
        // It is no longer in somebody's hand.
        self.front = u64::MAX;
        if let Some(word) = self.window.get_mut(index) {
            word.set_phase(Phase::Ready);
        }
        self.make_ready(index);
        self.bound_hints();
    }
}
