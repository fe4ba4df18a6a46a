//! A topic held still for an audit, with its subscriptions.

use super::{TopicShared, TopicState};
use crate::broker::ledger::TopicLedger;
use crate::broker::log::audit::Needs;
use crate::filter::Filter;
use crate::shell::subscription::SubscriptionShared;
use crate::shell::subscription::audit::LockedSubscription;
use crate::sync::MutexGuard;

/// A topic whose lock is held: nothing is published, trimmed, attached or detached meanwhile.
pub(crate) struct LockedTopic<'a> {
    topic: &'a TopicShared,
    state: MutexGuard<'a, TopicState>,
}

impl TopicShared {
    pub(crate) fn hold_still(&self) -> LockedTopic<'_> {
        LockedTopic { topic: self, state: self.state.lock() }
    }
}

impl LockedTopic<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.topic.name
    }

    pub(crate) fn ledger(&self) -> &TopicLedger {
        &self.state.ledger
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
        self.state.accepted_by(&subscription.view.filter) - before
    }

    /// What does not agree between the log and those who need it.
    pub(crate) fn check_log(&self, subscriptions: &[LockedSubscription<'_>]) -> Vec<String> {
        let mut needs = Needs::default();
        if let Some(position) = self.state.retained_from {
            needs.hold(position);
        }
        for (_, filtered) in &self.state.views {
            filtered.view.positions().into_iter().for_each(|position| needs.pin(position));
        }
        for subscription in subscriptions {
            subscription.collect_needs(&mut needs);
        }
        let mut wrong = self.state.log.audit(&needs, &self.topic.directory.read());
        let ledger = &self.state.ledger;
        if ledger.appended != self.state.log.head() {
            let head = self.state.log.head();
            wrong.push(format!("{} appended by count, the log's head is {head}", ledger.appended));
        }
        wrong
    }
}

impl TopicState {
    /// What the view of a filter has accepted so far.
    pub(super) fn accepted_by(&self, filter: &Filter) -> u64 {
        if filter.is_all() {
            return self.ledger.appended;
        }
        let at = self.index.get(filter).first().copied();
        at.and_then(|at| self.views.get(at)).map_or(0, |filtered| filtered.accepted)
    }

    /// What was accepted for a subscription that is about to leave.
    pub(super) fn accepted(&self, subscription: &SubscriptionShared) -> u64 {
        self.accepted_by(&subscription.view.filter) - subscription.accepted_before()
    }
}
