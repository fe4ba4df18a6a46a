//! What a topic keeps and gives back: for its subscriptions, for its own retention, by time.

use super::{TopicShared, TopicState};
use crate::broker::log::Segment;
use crate::clock::Reading;
use crate::events::Event;
use crate::shell::effects::Effects;
use crate::shell::subscription::SubscriptionShared;
use crate::shell::timers::{Key, Rank, Timed};
use crate::sync::Arc;
use crate::time::{Span, Time};
use crate::{SubscriptionConfig, TopicConfig};

/// What storage is past retention is swept up at most this much later (RET-7).
const SWEEP_EVERY: Span = Span::SECOND;

impl TopicShared {
    /// Moves what a subscription holds to where it has come (L2).
    pub(crate) fn trim(&self, subscription: &SubscriptionShared) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        if state.subscriptions.contains_key(&subscription.incarnation) {
            let moved = subscription.take_moves();
            moved.passed.into_iter().for_each(|segment| effects.free(segment));
            for position in moved.pin {
                state.log.pin(position);
            }
            state.change_keeps(subscription, moved.from, moved.to);
            for position in moved.unpin {
                state.log.unpin(position);
            }
            self.apply_changes(&mut state, &mut effects);
        }
        drop(state);
        for segment in effects.take_garbage() {
            self.use_again(segment);
        }
        effects.run();
    }

    /// Drops the messages of a segment that nothing needs any more, and keeps its slots.
    pub(super) fn use_again(&self, segment: Arc<Segment>) {
        if let Some(slots) = Segment::into_slots(segment) {
            let unused = self.state.lock().log.keep(slots);
            drop(unused);
        }
    }

    /// Gives back what time has freed. Answers how many subscriptions it has looked at.
    pub(crate) fn sweep(&self, reading: Reading) -> usize {
        let subscriptions = self.subscriptions();
        for subscription in &subscriptions {
            subscription.sweep(reading);
        }
        self.forget_keys(reading);
        let mut effects = Effects::default();
        let mut state = self.lock();
        state.drop_retained(reading.now);
        self.apply_changes(&mut state, &mut effects);
        drop(state);
        effects.run();
        subscriptions.len()
    }

    /// When the oldest message was published that only the topic's retention keeps.
    pub(crate) fn oldest_history(&self) -> Option<Time> {
        let state = self.lock();
        let from = state.history()?.start;
        let (position, segment) = state.log.first_at_or_above(from)?;
        segment.at(position).map(|message| message.time)
    }

    /// Gives up the oldest segment of what only the topic's retention keeps (LIB-44).
    pub(crate) fn yield_history(&self) -> bool {
        let mut effects = Effects::default();
        let mut state = self.lock();
        let Some(history) = state.history() else { return false };
        let Some((_, segment)) = state.log.first_at_or_above(history.start) else { return false };
        let to = segment.end().min(history.end);
        state.log.move_hold(history.start, to);
        state.retained_from = Some(to);
        self.apply_changes(&mut state, &mut effects);
        drop(state);
        effects.run();
        let count = to - history.start;
        self.core.events.send(Event::HistoryYielded { topic: self.name.to_string(), count });
        true
    }

    /// A subscription's retention has changed: takes it over, with regard to the topic's (RET-2).
    pub(crate) fn retention_changed(&self, subscription: &SubscriptionShared, reading: Reading) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        let config = subscription.config();
        state.drop_retained(reading.now);
        if state.subscriptions.contains_key(&subscription.incarnation) {
            state.retain_acked(subscription, &config);
        }
        let retention = state.retention_of(&config);
        subscription.set_retention(retention, reading);
        state.least_retention = state.least_retention.min(retention);
        let last = state.last_publish;
        self.reschedule_sweep(&mut state, last);
        self.apply_changes(&mut state, &mut effects);
        drop(state);
        effects.run();
    }

    /// What was just appended has a time to live: the first to end does so at `due`.
    #[cold]
    pub(super) fn note_ttl(&self, state: &mut TopicState, due: Time) {
        self.view.set_ttl_below(state.log.head());
        let touched = state.views.touched.clone();
        for filtered in touched.into_iter().filter_map(|slot| state.views.get_at(slot)) {
            filtered.view.set_ttl_below(filtered.accepted);
        }
        if state.log.messages() > 0 {
            self.sweep_at(state, due);
        }
    }

    /// Whether a message with a time to live was ever published here.
    pub(crate) fn has_ttls(&self) -> bool {
        self.view.ttl_below() > 0
    }

    /// Makes sure that somebody looks when the first message in the log is past retention.
    pub(super) fn schedule_sweep(&self, state: &mut TopicState, published: Time) {
        if state.log.messages() > 0 {
            self.sweep_at(state, published.after(state.least_retention));
        }
    }

    /// The retention has become shorter: what is stored may be due earlier.
    pub(super) fn reschedule_sweep(&self, state: &mut TopicState, now: Time) {
        if state.log.messages() > 0 || state.deduplication.is_some() {
            self.sweep_at(state, now);
        }
    }

    pub(super) fn sweep_at(&self, state: &mut TopicState, due: Time) {
        let due = due.min(Time::LAST);
        if state.sweep.is_some_and(|key| key.due <= due) {
            return;
        }
        let key = Key { due, rank: Rank::Topic, id: self.id };
        let old = state.sweep.replace(key);
        let need = self.core.timers.schedule(old, key, self.me.clone(), false);
        self.core.satisfy(need);
    }
}

impl TopicState {
    /// Answers what it has no use for any more, to be dropped once the lock is released.
    pub(super) fn configure(&mut self, config: TopicConfig, seed: u64) -> impl Sized + use<> {
        match (self.retained_from, config.retention) {
            (None, Some(_)) => {
                // What other holds keep has not been promised to anybody else: start here.
                self.log.hold(self.log.head());
                self.retained_from = Some(self.log.head());
            }
            (Some(position), None) => {
                self.log.release_hold(position);
                self.retained_from = None;
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        if let Some(retention) = config.retention {
            self.least_retention = self.least_retention.min(Span::round_up(retention));
        }
        let window = config.deduplication_window.map(Span::round_up);
        self.config = config;
        self.deduplicate(window, seed)
    }

    /// An unacknowledged message stays for the longer of the two retentions (RET-2).
    pub(super) fn retention_of(&self, config: &SubscriptionConfig) -> Span {
        let topic = self.config.retention.unwrap_or_default();
        Span::round_up(config.effective_retention().max(topic))
    }

    /// Positions that nothing but the topic's retention holds.
    pub(super) fn history(&self) -> Option<std::ops::Range<u64>> {
        let from = self.retained_from?;
        let to = self.log.next_hold_above(from)?;
        (from < to).then_some(from..to)
    }

    /// Tells every subscription which retention counts now (RET-2, RET-8).
    pub(super) fn spread_retention(&mut self, reading: Reading) {
        for subscription in self.subscriptions.values() {
            subscription.set_retention(self.retention_of(&subscription.config()), reading);
        }
    }

    /// When the next sweep finds something; each subscription has just said when it expects to.
    pub(super) fn next_sweep(&mut self, now: Time) -> Option<Time> {
        let retentions = self.subscriptions.values().map(|subscription| subscription.retention());
        let own = self.least_retained();
        self.least_retention = retentions.chain(own).min().unwrap_or(Span::FOREVER);
        let dues = self.subscriptions.values().map(|subscription| subscription.retention_due());
        let keys = self.deduplication.as_ref().and_then(|known| known.next_due());
        let own = self.retained_due().into_iter().chain(keys);
        let due = dues.chain(own).min().filter(|due| *due < Time::LAST)?;
        Some(due.max(now.after(SWEEP_EVERY)))
    }
}

impl Timed for TopicShared {
    /// Gives back what is past retention, also where nobody calls (RET-7).
    fn fire(self: Arc<Self>, reading: Reading) {
        self.lock().sweep = None;
        self.sweep(reading);
        let effects = Effects::default();
        let mut state = self.lock();
        if let Some(due) = state.next_sweep(reading.now) {
            self.sweep_at(&mut state, due);
        }
        drop(state);
        effects.run();
    }
}
