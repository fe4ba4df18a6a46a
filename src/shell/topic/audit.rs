//! A topic held still for an audit, with its subscriptions.

use super::{TopicShared, TopicState};
use crate::broker::ledger::TopicLedger;
use crate::broker::log::audit::Needs;
use crate::shell::subscription::SubscriptionShared;
use crate::shell::subscription::audit::LockedSubscription;
use crate::shell::view::View;
use crate::sync::{MutexGuard, Ordering};

/// A topic whose lock is held: nothing is published, trimmed, attached or detached meanwhile.
pub(crate) struct LockedTopic<'a> {
    topic: &'a TopicShared,
    state: MutexGuard<'a, TopicState>,
}

impl TopicShared {
    pub(crate) fn hold_still(&self) -> LockedTopic<'_> {
        LockedTopic { topic: self, state: self.lock() }
    }
}

impl LockedTopic<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.topic.name
    }

    pub(crate) fn ledger(&self) -> &TopicLedger {
        &self.state.ledger
    }

    /// Messages that wait to be published.
    pub(crate) fn delayed(&self) -> u64 {
        self.state.delayed.len()
    }

    /// Segments in memory, and the messages in them.
    pub(crate) fn in_memory(&self) -> (usize, u64) {
        (self.state.log.segments(), self.state.log.messages())
    }

    /// The subscriptions, each held still, in order of creation.
    pub(crate) fn subscriptions(&self) -> Vec<LockedSubscription<'_>> {
        self.state.subscriptions.values().map(|shared| shared.hold_still()).collect()
    }

    /// What the topic has accepted for a subscription since that was attached.
    pub(crate) fn accepted(&self, subscription: &SubscriptionShared, before: u64) -> u64 {
        self.state.accepted_by(&subscription.view) - before
    }

    /// What does not agree between the log and those who need it.
    pub(crate) fn check_log(&self, subscriptions: &[LockedSubscription<'_>]) -> Vec<String> {
        let mut needs = Needs::default();
        if let Some(position) = self.state.retained_from {
            needs.hold(position);
        }
        for retained in self.state.acked.values() {
            needs.hold(retained.from);
        }
        for snapshot in self.state.snapshots.values() {
            needs.hold(snapshot.hold);
            snapshot.pinned().for_each(|position| needs.pin(position));
        }
        for filtered in self.state.views.iter() {
            filtered.view.positions().into_iter().for_each(|position| needs.pin(position));
        }
        for subscription in subscriptions {
            subscription.collect_needs(&mut needs);
        }
        let mut wrong = self.state.log.audit(&needs, &self.topic.directory.read());
        let words = self.topic.words.load(Ordering::Relaxed);
        let told: u64 = subscriptions.iter().map(LockedSubscription::told_words).sum();
        if words != told {
            wrong.push(format!("{words} lease words by count, its subscriptions said {told}"));
        }
        let ledger = &self.state.ledger;
        if ledger.appended != self.state.log.head() {
            let head = self.state.log.head();
            wrong.push(format!("{} appended by count, the log's head is {head}", ledger.appended));
        }
        wrong
    }
}

impl TopicState {
    /// What a view has accepted so far.
    pub(super) fn accepted_by(&self, view: &View) -> u64 {
        match view.key {
            None => self.ledger.appended,
            Some(key) => self.views.get(key).map_or(0, |filtered| filtered.accepted),
        }
    }

    /// The bytes of what a view has accepted so far.
    pub(super) fn bytes_accepted_by(&self, view: &View) -> u64 {
        match view.key {
            None => self.log.appended_bytes(),
            Some(key) => self.views.get(key).map_or(0, |filtered| filtered.accepted_bytes),
        }
    }

    /// What was accepted for a subscription that is about to leave.
    pub(super) fn accepted(&self, subscription: &SubscriptionShared) -> u64 {
        self.accepted_by(&subscription.view) - subscription.accepted_before()
    }
}
