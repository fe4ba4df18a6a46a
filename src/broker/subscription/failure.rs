//! What follows a delivery that failed: delay, redelivery, or the way to the dead-letter topic.
//!
//! A message that has failed for the last time is *forwarding*: nobody is handed it while it waits
//! in the outbox, from which the shell takes it to its topic (L7). If there is no such topic it is
//! put back as if it could fail once more (DLQ-10).

use super::{LeaseId, Phase, Run, Settled, SubscriptionState, slot_of};
use crate::broker::policy::Policy;
use crate::broker::subscription::Backlog;
use crate::sync::Arc;
use crate::time::Time;

/// How a delivery failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Given back: its id is dead (LS-10).
    Nack,
    /// Its deadline has passed: its id can still act until the next hand-out (LS-8).
    Lapse,
}

/// A message on its way to the dead-letter topic.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: LeaseId,
    /// How many deliveries there were (DLQ-6).
    pub(crate) attempts: u16,
    /// Why a consumer rejected it.
    pub(crate) reason: Option<Arc<str>>,
    failure: Failure,
    failed_at: Time,
}

impl SubscriptionState {
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes a new policy over, for failures from now on (RTY-9).
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Messages dropped instead of forwarded once more.
    pub(crate) fn dead_letters_dropped(&self) -> u64 {
        self.dead_letters_dropped
    }

    /// Messages that wait to be taken by the dead-letter topic.
    pub(crate) fn forwarding(&self) -> u64 {
        self.forwarding
    }

    #[inline]
    pub(crate) fn has_outgoing(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The delivery of `index` has failed at `at`; it is no longer counted as leased.
    pub(super) fn fail(
        &mut self,
        index: u64,
        failure: Failure,
        at: Time,
        not_before: Option<Time>,
        now: Time,
        backlog: &mut impl Backlog,
    ) {
        if self.ordering.is_some() {
            self.rewind(index, backlog);
        }
        let Some(word) = self.window.get(index) else { return };
        if self.is_over(index, now, backlog) {
            return self.drop_failed(index);
        }
        if self.policy.is_exhausted(word.attempts()) {
            self.send_away(index, failure, at, None);
        } else {
            self.put_back(index, failure, at, not_before, now, backlog);
        }
        self.settle_key_of(index);
    }

    /// Makes a message deliverable again, at once or after its delay (RTY-3).
    fn put_back(
        &mut self,
        index: u64,
        failure: Failure,
        at: Time,
        not_before: Option<Time>,
        now: Time,
        backlog: &mut impl Backlog,
    ) {
        // It is no longer in somebody's hand.
        self.front = u64::MAX;
        let Some(word) = self.window.get_mut(index) else { return };
        let mut due = at.after(self.policy.delay(word.attempts(), index));
        let (mut later, ready) = match failure {
            Failure::Nack => (Phase::BackingOff, Phase::Ready),
            Failure::Lapse => (Phase::LapsedBackingOff, Phase::Lapsed),
        };
        if let Some(not_before) = not_before.filter(|time| *time > due) {
            // A wish of the consumer outlives the policy (LIB-100).
            (due, later) = (not_before, Phase::Delayed);
        }
        if due <= now {
            word.set_phase(ready);
            return self.make_ready(index);
        }
        word.set_phase(later);
        word.set_deadline(due);
        self.file_delay(index, due, backlog);
        self.delayed += 1;
    }

    /// The end of a delay, or of the message if that is earlier.
    pub(super) fn file_delay(&mut self, index: u64, due: Time, backlog: &mut impl Backlog) {
        let is_mortal = index < self.ttl_below;
        let meta = if is_mortal { backlog.meta(index) } else { None };
        let due = meta.map_or(due, |meta| meta.expires.min(due));
        self.deadlines.add(Run { due, first: index, len: 1 });
    }

    /// Puts a message into the outbox.
    fn send_away(&mut self, index: u64, failure: Failure, at: Time, reason: Option<Arc<str>>) {
        let epoch = self.epoch;
        let Some(word) = self.window.get_mut(index) else { return };
        word.set_phase(Phase::Forwarding);
        let id = LeaseId { epoch, generation: word.generation(), index };
        let attempts = word.attempts();
        self.forwarding += 1;
        self.outbox.push_back(Outgoing { id, attempts, reason, failure, failed_at: at });
    }

    /// Gives a delivery back: deliverable after the delay of the policy, and not before a time
    /// that the consumer wishes (LS-6, LIB-2, LIB-100).
    pub(crate) fn nack(
        &mut self,
        id: LeaseId,
        at: Time,
        not_before: Option<Time>,
        backlog: &mut impl Backlog,
    ) -> Settled {
        let Some(phase) = self.judge(id) else { return Settled::Stale };
        self.file_unfiled(backlog);
        match phase {
            Phase::Leased => {
                self.end_lease(id.index, backlog);
                self.fail(id.index, Failure::Nack, at, not_before, at, backlog);
            }
            // It has failed before, by its lapse: only the id dies and a wish may come on top.
            Phase::Lapsed => {
                self.leave_ready(id.index);
                self.give_back_lapsed(id.index, Phase::Delayed, not_before, backlog);
            }
            Phase::LapsedBackingOff => {
                self.delayed -= 1;
                let until = self.window.get(id.index).map(|word| word.deadline());
                let later = if not_before > until { Phase::Delayed } else { Phase::BackingOff };
                self.give_back_lapsed(id.index, later, until.max(not_before), backlog);
            }
            _ => return Settled::Stale,
        }
        self.bound_hints();
        Settled::Done
    }

    fn give_back_lapsed(
        &mut self,
        index: u64,
        later: Phase,
        until: Option<Time>,
        backlog: &mut impl Backlog,
    ) {
        let Some(word) = self.window.get_mut(index) else { return };
        let Some(due) = until else {
            word.set_phase(Phase::Ready);
            return self.make_ready(index);
        };
        word.set_phase(later);
        word.set_deadline(due);
        self.file_delay(index, due, backlog);
        self.delayed += 1;
        self.settle_key_of(index);
    }

    /// Sends a delivery to the dead-letter topic, however often it has failed (LIB-102).
    pub(crate) fn reject(
        &mut self,
        id: LeaseId,
        at: Time,
        reason: Option<Arc<str>>,
        backlog: &mut impl Backlog,
    ) -> Settled {
        let Some(phase) = self.judge(id) else { return Settled::Stale };
        self.file_unfiled(backlog);
        match phase {
            Phase::Leased => self.end_lease(id.index, backlog),
            Phase::Lapsed => self.leave_ready(id.index),
            Phase::LapsedBackingOff => self.delayed -= 1,
            _ => return Settled::Stale,
        }
        self.send_away(id.index, Failure::Nack, at, reason);
        self.settle_key_of(id.index);
        Settled::Done
    }

    /// The next message to be forwarded; those that were dropped meanwhile are passed over.
    pub(crate) fn take_outgoing(&mut self) -> Option<Outgoing> {
        while let Some(outgoing) = self.outbox.pop_front() {
            if self.judge(outgoing.id) == Some(Phase::Forwarding) {
                return Some(outgoing);
            }
        }
        None
    }

    /// A message that was taken out of the outbox goes back to its front.
    pub(crate) fn take_back_outgoing(&mut self, outgoing: Outgoing) {
        self.outbox.push_front(outgoing);
    }

    /// The dead-letter topic has taken a message, or it was dropped as one that runs in circles.
    /// Whatever ended it meanwhile stays as it is.
    pub(crate) fn forwarded(&mut self, outgoing: &Outgoing, taken: bool) {
        let index = outgoing.id.index;
        if self.judge(outgoing.id) != Some(Phase::Forwarding) {
            return;
        }
        let slot = self.window.get(index).and_then(slot_of);
        self.forwarding -= 1;
        if taken {
            self.ledger.forwarded += 1;
        } else {
            self.ledger.dropped += 1;
            self.dead_letters_dropped += 1;
        }
        self.finish(index);
        if let Some(slot) = slot {
            // DLQ-8: the key goes on with the next message.
            self.settle_key(slot);
        }
        self.window.trim();
    }

    /// The dead-letter topic is not there: the message is delivered again (DLQ-10).
    pub(crate) fn not_forwarded(
        &mut self,
        outgoing: &Outgoing,
        now: Time,
        backlog: &mut impl Backlog,
    ) {
        if self.judge(outgoing.id) != Some(Phase::Forwarding) {
            return;
        }
        self.forwarding -= 1;
        let Outgoing { id, failure, failed_at, .. } = outgoing;
        if self.ordering.is_some() {
            // A rejection has left later messages of the key alone until now.
            self.rewind(id.index, backlog);
        }
        self.put_back(id.index, *failure, *failed_at, None, now.max(*failed_at), backlog);
        self.settle_key_of(id.index);
        self.bound_hints();
    }

    /// Ends the waiting for delays of the retry policy, which is gone (RTY-9), from index `from` on
    /// and for at most `work` messages. Answers where to go on.
    pub(crate) fn end_backoff(&mut self, from: u64, work: usize) -> Option<u64> {
        self.each_live(from, work, |state, index| {
            let Some(word) = state.window.get_mut(index) else { return };
            let ready = match word.phase() {
                Phase::BackingOff => Phase::Ready,
                Phase::LapsedBackingOff => Phase::Lapsed,
                _ => return,
            };
            word.set_phase(ready);
            state.delayed -= 1;
            state.make_ready(index);
        })
    }

    /// Lets attempts count from one again (DLQ-13), otherwise as `end_backoff`.
    pub(crate) fn restart_attempts(&mut self, from: u64, work: usize) -> Option<u64> {
        self.each_live(from, work, |state, index| {
            let Some(word) = state.window.get_mut(index) else { return };
            word.restart_attempts();
        })
    }

    pub(super) fn each_live(
        &mut self,
        from: u64,
        work: usize,
        mut act: impl FnMut(&mut Self, u64),
    ) -> Option<u64> {
        let indices = self.window.live_from(from, work);
        let next = (indices.len() == work).then(|| indices.last().map(|last| last + 1)).flatten();
        for index in indices {
            act(self, index);
        }
        next
    }
}
