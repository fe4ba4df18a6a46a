//! A subscription held still for an audit.

use super::{Start, State, SubscriptionShared};
use crate::broker::ledger::{Ledger, Places};
use crate::broker::log::audit::Needs;
use crate::broker::subscription::Backlog;
use crate::sync::MutexGuard;

/// A subscription whose lock is held: nothing is leased or settled meanwhile.
pub(crate) struct LockedSubscription<'a> {
    pub(crate) shared: &'a SubscriptionShared,
    state: MutexGuard<'a, State>,
}

impl SubscriptionShared {
    /// To be called under the topic's lock.
    pub(crate) fn hold_still(&self) -> LockedSubscription<'_> {
        LockedSubscription { shared: self, state: self.lock() }
    }

    /// Called by the topic, under its lock, when the subscription is attached.
    pub(crate) fn begin_books(&self, start: Start) {
        self.lock().start = start;
    }

    /// What the view had accepted before this subscription.
    pub(crate) fn accepted_before(&self) -> u64 {
        self.lock().start.accepted
    }
}

impl LockedSubscription<'_> {
    pub(crate) fn accepted_before(&self) -> u64 {
        self.state.start.accepted
    }

    pub(crate) fn ledger(&self) -> Ledger {
        *self.state.broker.ledger()
    }

    /// Where its messages are, and what the counts say differently.
    pub(crate) fn places(&self) -> (Places, Vec<String>) {
        let (mut places, wrong) = self.state.broker.audit(self.shared.head(&self.state));
        places.fresh += self.shared.beyond_scan(&self.state);
        (places, wrong)
    }

    /// Lease words that it has told its topic of.
    pub(crate) fn told_words(&self) -> u64 {
        self.state.told_words
    }

    /// Adds what it keeps in the log of its topic.
    pub(crate) fn collect_needs(&self, needs: &mut Needs) {
        if let Some(position) = self.state.told.hold {
            needs.hold(position);
        }
        let pinned = self.shared.pinned_positions(&self.state);
        pinned.into_iter().for_each(|position| needs.pin(position));
    }

    /// Messages that are still to be delivered and that the log does not have.
    pub(crate) fn missing(&mut self) -> u64 {
        let head = self.shared.head(&self.state);
        let live: Vec<u64> = self.state.broker.live_indices().collect();
        let fresh = self.state.broker.cursor()..head;
        let (_, mut reader) = self.shared.reader(&mut self.state);
        live.into_iter().chain(fresh).filter(|&index| reader.meta(index).is_none()).count() as u64
    }
}

#[cfg(test)]
impl SubscriptionShared {
    /// Loses a message without a trace, so that tests can see the audit notice.
    pub(crate) fn lose_one(&self) {
        self.lock().broker.lose_one();
    }

    /// Lets the topic believe that less is needed than is.
    pub(crate) fn lose_hold(&self) {
        let mut state = self.lock();
        state.told.hold = state.told.hold.map(|position| position + 1);
    }
}
