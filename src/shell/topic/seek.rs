//! The cuts that a topic takes for one of its subscriptions: seek, purge and snapshot (L1).
//!
//! All under the topic's lock, so that they are in one order with publishes: when a seek returns,
//! every later hand-out obeys it (SEEK-11). Also what is kept for the sake of such cuts: what was
//! acknowledged (RET-3), and what snapshots need.

use super::{TopicShared, TopicState};
use crate::broker::replay::Marks;
use crate::clock::Reading;
use crate::config::SubscriptionConfig;
use crate::error::{AdminError, Resource};
use crate::shell::effects::Effects;
use crate::shell::snapshot::SnapshotShared;
use crate::shell::subscription::seek::{Cut, To};
use crate::shell::subscription::{Keeps, SubscriptionShared};
use crate::sync::Arc;
use crate::time::{Span, Time};

/// Where a subscription is to go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Past everything that was published so far (SEEK-5).
    End,
    Time(Time),
    Snapshot(Arc<SnapshotShared>),
}

/// Everything from a position on, kept for a span from publish, acknowledged or not.
#[derive(Copy, Clone, Debug)]
pub(super) struct Retained {
    pub(super) from: u64,
    pub(super) span: Span,
}

impl TopicShared {
    /// Starts a subscription anew at its target, at once and for good (SEEK-2 … SEEK-12).
    pub(crate) fn seek(
        &self,
        subscription: &SubscriptionShared,
        target: &Target,
        reading: Reading,
    ) -> Result<(), AdminError> {
        subscription.check_active(reading)?;
        let mut effects = Effects::default();
        let mut state = self.lock();
        state.drop_retained(reading.now);
        let head = state.log.head();
        let (to, not_before) = match target {
            Target::End => (To::Position { at: head, retained: head }, None),
            Target::Time(time) => {
                let at = state.log.position_at(*time);
                let retained = state.retained_for(subscription);
                (To::Position { at, retained }, (*time > reading.now).then_some(*time))
            }
            Target::Snapshot(snapshot) => {
                state.check_snapshot(self, snapshot)?;
                (To::Marks(snapshot.marks.clone()), None)
            }
        };
        let restarted = subscription.restart(Cut { head, to, not_before }, &mut effects)?;
        state.change_keeps(subscription, restarted.from, restarted.to);
        for position in restarted.unpin {
            state.log.unpin(position);
        }
        self.look_at_limit_again(&mut state, subscription, &mut effects);
        // What has come back may be past retention, and freed at the next sweep (RET-7).
        self.reschedule_sweep(&mut state, reading.now);
        self.apply_changes(&mut state, &mut effects);
        self.settle_account(&mut state, &mut effects);
        drop(state);
        effects.run();
        drop(restarted.old);
        Ok(())
    }

    /// Captures what a subscription has not acknowledged (SNP-1). `make` gets it with the position
    /// from which on everything has to be kept; an error of its leaves nothing behind.
    pub(crate) fn snapshot(
        &self,
        subscription: &SubscriptionShared,
        reading: Reading,
        make: impl FnOnce(Marks, u64, Option<Time>) -> Result<Arc<SnapshotShared>, AdminError>,
    ) -> Result<Arc<SnapshotShared>, AdminError> {
        subscription.check_active(reading)?;
        let mut state = self.lock();
        let max = self.core.limits.snapshots_per_topic;
        let marked = subscription.marks(state.log.head(), reading)?;
        let snapshot = make(marked.marks, marked.hold, marked.oldest)?;
        if let Some(max) = max.filter(|max| state.snapshots.len() >= *max) {
            let name = snapshot.name.to_string();
            return Err(AdminError::TooMany { resource: Resource::Snapshot, name, max });
        }
        state.log.hold(snapshot.hold);
        snapshot.pinned().for_each(|position| state.log.pin(position));
        state.snapshots.insert(snapshot.id, Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Gives back what only a snapshot kept (SNP-10). Answers false if it was gone before.
    pub(crate) fn forget_snapshot(&self, snapshot: &SnapshotShared) -> bool {
        let mut effects = Effects::default();
        let mut state = self.lock();
        let removed = state.snapshots.remove(&snapshot.id);
        if removed.is_some() {
            snapshot.pinned().for_each(|position| state.log.unpin(position));
            state.log.release_hold(snapshot.hold);
            state.log.seal_if_unused();
            self.apply_changes(&mut state, &mut effects);
            self.settle_account(&mut state, &mut effects);
        }
        drop(state);
        effects.run();
        removed.is_some()
    }

    /// The snapshots of subscriptions of this topic.
    pub(crate) fn snapshots(&self) -> Vec<Arc<SnapshotShared>> {
        self.lock().snapshots.values().cloned().collect()
    }
}

impl TopicState {
    /// From this position on a subscription gets back what it had acknowledged (SEEK-3).
    fn retained_for(&self, subscription: &SubscriptionShared) -> u64 {
        let acked = self.acked.get(&subscription.incarnation).map(|retained| retained.from);
        acked.into_iter().chain(self.retained_from).min().unwrap_or(u64::MAX)
    }

    fn check_snapshot(
        &self,
        topic: &TopicShared,
        snapshot: &SnapshotShared,
    ) -> Result<(), AdminError> {
        let name = || snapshot.name.to_string();
        if !std::ptr::eq(&*snapshot.topic, topic) {
            let topic = topic.name.to_string();
            return Err(AdminError::OtherTopic { snapshot: name(), topic });
        }
        match self.snapshots.contains_key(&snapshot.id) {
            true => Ok(()),
            false => Err(AdminError::NotFound { resource: Resource::Snapshot, name: name() }),
        }
    }

    /// Places what a subscription needs from now on before the rest is given back (L2).
    pub(super) fn change_keeps(
        &mut self,
        subscription: &SubscriptionShared,
        from: Keeps,
        to: Keeps,
    ) {
        match (from.hold, to.hold) {
            (from, to) if from == to => {}
            (Some(from), Some(to)) => self.log.move_hold(from, to),
            (None, Some(to)) => self.log.hold(to),
            (Some(from), None) => self.log.release_hold(from),
            (None, None) => {}
        }
        if let Some(key) = subscription.view.key
            && from.view_low != to.view_low
        {
            let Some(filtered) = self.views.get_mut(key) else { return };
            filtered.add_low(to.view_low);
            for position in filtered.remove_low(from.view_low) {
                self.doors.entries -= 1;
                self.log.unpin(position);
            }
        }
    }

    /// Takes over whether a subscription's acknowledged messages are kept, and for how long
    /// (RET-3, RET-8). It begins with what is unacknowledged then.
    pub(super) fn retain_acked(
        &mut self,
        subscription: &SubscriptionShared,
        config: &SubscriptionConfig,
    ) {
        let span = Span::round_up(config.effective_retention());
        let id = subscription.incarnation;
        match (self.acked.get_mut(&id), config.retain_acked) {
            (Some(retained), true) => retained.span = span,
            (None, true) => {
                let from = subscription.lowest_needed().unwrap_or(self.log.head());
                self.log.hold(from);
                self.acked.insert(id, Retained { from, span });
            }
            (Some(_), false) => self.forget_acked(id),
            (None, false) => {}
        }
        if config.retain_acked {
            self.least_retention = self.least_retention.min(span);
        }
    }

    pub(super) fn forget_acked(&mut self, id: u64) {
        if let Some(retained) = self.acked.remove(&id) {
            self.log.release_hold(retained.from);
        }
    }

    /// Moves the holds of retention to the first message that is young enough.
    pub(super) fn drop_retained(&mut self, now: Time) {
        if let (Some(from), Some(span)) = (self.retained_from, self.config.retention) {
            let span = Span::round_up(span);
            self.retained_from = Some(self.move_retained(Retained { from, span }, now));
        }
        for id in self.acked.keys().copied().collect::<Vec<_>>() {
            let Some(retained) = self.acked.get(&id).copied() else { continue };
            let from = self.move_retained(retained, now);
            self.acked.insert(id, Retained { from, ..retained });
        }
    }

    fn move_retained(&mut self, retained: Retained, now: Time) -> u64 {
        let Retained { from, span } = retained;
        let mut to = from;
        while let Some((position, segment)) = self.log.first_at_or_above(to) {
            let old = (position..segment.end())
                .filter_map(|position| segment.at(position))
                .take_while(|message| message.time.after(span) <= now)
                .count() as u64;
            if old == 0 {
                break;
            }
            to = position + old;
            if to < segment.end() {
                break;
            }
        }
        if to > from {
            self.log.move_hold(from, to);
        }
        to
    }

    /// When retention next lets go of a message that was acknowledged.
    pub(super) fn retained_due(&self) -> Option<Time> {
        let own = self.retained_from.zip(self.config.retention);
        let own = own.map(|(from, span)| Retained { from, span: Span::round_up(span) });
        let all = self.acked.values().copied().chain(own);
        all.filter_map(|retained| {
            let (at, segment) = self.log.first_at_or_above(retained.from)?;
            segment.at(at).map(|message| message.time.after(retained.span))
        })
        .min()
    }

    /// The shortest span that something is kept for though it was acknowledged.
    pub(super) fn least_retained(&self) -> Option<Span> {
        let own = self.config.retention.map(Span::round_up);
        self.acked.values().map(|retained| retained.span).chain(own).min()
    }
}
