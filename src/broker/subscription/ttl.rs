//! The time to live of single messages: after it a message is handed out to nobody (LIB-370).
//!
//! Looked at where a message would be handed out, and for the oldest one by every call, as
//! retention is; so nothing has to be found in the middle of a backlog, and the floor does not
//! move past a message that is still wanted (L15). One bound, the index below which all messages
//! with a time to live are, spares everybody else the look.

use super::failure::Outgoing;
use super::ordered::slot_of;
use super::{Backlog, Meta, Phase, SubscriptionState, Word};
use crate::time::Time;

impl SubscriptionState {
    /// No message that may be asked for has a time to live from this index on.
    #[inline]
    pub(crate) fn set_ttl_below(&mut self, index: u64) {
        self.ttl_below = index;
    }

    /// Whether some message that may be asked for may have a time to live.
    pub(crate) fn has_ttls(&self) -> bool {
        self.ttl_below > 0
    }

    /// Whether the oldest message is another than that whose end is known, and may end earlier.
    #[inline]
    pub(super) fn has_new_front(&self) -> bool {
        let oldest = self.oldest();
        oldest < self.ttl_below && oldest != self.front
    }

    /// When the message ends by its time to live. What is in somebody's hand does not.
    pub(super) fn ttl_due(&self, index: u64, meta: &Meta) -> Time {
        match self.window.get(index).map(Word::phase) {
            Some(Phase::Leased | Phase::Provisional) => Time::NEVER,
            _ => meta.expires,
        }
    }

    /// Whether the message may not be handed out any more.
    #[inline]
    pub(super) fn is_over(&self, index: u64, now: Time, backlog: &mut impl Backlog) -> bool {
        index < self.ttl_below && backlog.meta(index).is_some_and(|meta| meta.expires <= now)
    }

    /// Steps over fresh messages that may not be handed out any more.
    #[inline]
    pub(super) fn pass_expired(
        &mut self,
        head: u64,
        now: Time,
        backlog: &mut impl Backlog,
        work: &mut usize,
    ) {
        while *work > 0
            && self.window.cursor() < head
            && self.is_over(self.window.cursor(), now, backlog)
        {
            *work -= 1;
            self.ledger.expired += 1;
            self.window.skip(Word::DONE);
        }
    }

    /// Drops a message that is about to be handed out, if it may not be any more.
    pub(super) fn drop_if_over(
        &mut self,
        index: u64,
        now: Time,
        backlog: &mut impl Backlog,
        work: &mut usize,
    ) -> bool {
        let is_over = self.is_over(index, now, backlog);
        if is_over {
            *work -= 1;
            self.ledger.expired += 1;
            self.drop_expired(index, backlog);
        }
        is_over
    }

    /// Drops a message whose delivery has just failed, and which is counted nowhere now.
    pub(super) fn drop_failed(&mut self, index: u64) {
        let slot = self.window.get(index).and_then(slot_of);
        self.ledger.expired += 1;
        self.finish(index);
        if let Some(slot) = slot {
            self.settle_key(slot);
        }
        self.window.trim();
    }

    /// A message in the outbox has come to its end before it was forwarded (DLQ-14).
    pub(crate) fn expired_on_the_way(&mut self, outgoing: &Outgoing) {
        if self.judge(outgoing.id) == Some(Phase::Forwarding) {
            self.forwarding -= 1;
            self.drop_failed(outgoing.id.index);
        }
    }
}
