//! A topic behind its lock: append, cut, hold and give back.
//!
//! Everything that decides who gets which message happens under this one lock, so that appends and
//! cuts are one order (L1). It is released before anybody is woken and before anything is freed.

mod audit;

use std::collections::BTreeMap;
use std::sync::Weak;

use slab::Slab;
use smallvec::SmallVec;

use super::core::BusCore;
use super::effects::Effects;
use super::subscription::SubscriptionShared;
use super::timers::{Key, Rank, Timed};
use super::view::{FilteredView, View};
use crate::broker::hops::{Hops, Path};
use crate::broker::ledger::TopicLedger;
use crate::broker::log::{Directory, TopicLog};
use crate::clock::Reading;
use crate::error::{AdminError, PublishReason, Resource};
use crate::filter::{Filter, FilterIndex};
use crate::message::{Message, MessageId, Published};
use crate::stats::TopicStats;
use crate::sync::{Arc, Mutex, RwLock};
use crate::time::{Span, Time};
use crate::{SubscriptionConfig, TopicConfig, TopicUpdate};

/// What storage is past retention is swept up at most this much later (RET-7).
const SWEEP_EVERY: Span = Span::SECOND;

pub(crate) struct TopicShared {
    pub(crate) core: Arc<BusCore>,
    pub(crate) name: Arc<str>,
    id: u64,
    me: Weak<TopicShared>,
    state: Mutex<TopicState>,
    /// Where readers find segments; a leaf.
    pub(crate) directory: RwLock<Directory>,
    /// The view of unfiltered subscriptions: the log itself.
    view: Arc<View>,
}

struct TopicState {
    config: TopicConfig,
    log: TopicLog,
    deleted: bool,
    last_publish: Time,
    /// Subscriptions without a filter.
    unfiltered: usize,
    index: FilterIndex<usize>,
    views: Slab<FilteredView>,
    subscriptions: BTreeMap<u64, Arc<SubscriptionShared>>,
    /// What the topic's retention keeps: everything from this position on.
    retained_from: Option<u64>,
    /// No message in the log is of interest to retention for less than this.
    least_retention: Span,
    sweep: Option<Key>,
    /// The ways of messages that were forwarded here.
    hops: Hops,
    ledger: TopicLedger,
}

/// Who got the messages of one publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recipients {
    /// Each message went to as many.
    Same(usize),
    Each(Vec<usize>),
}

impl Recipients {
    /// Of `count` messages together.
    fn total(&self, count: usize) -> u64 {
        match self {
            Recipients::Same(each) => (*each as u64) * (count as u64),
            Recipients::Each(each) => each.iter().map(|&recipients| recipients as u64).sum(),
        }
    }
}

/// What a publish answers, before it is dressed up.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) first: MessageId,
    pub(crate) recipients: Recipients,
}

impl TopicShared {
    pub(crate) fn new(core: &Arc<BusCore>, name: Arc<str>, config: TopicConfig) -> Arc<Self> {
        let topic = Arc::new_cyclic(|me| Self {
            core: Arc::clone(core),
            name,
            id: core.take_object_id(),
            me: me.clone(),
            state: Mutex::new(TopicState {
                config: TopicConfig::default(),
                log: TopicLog::default(),
                deleted: false,
                last_publish: Time::default(),
                unfiltered: 0,
                index: FilterIndex::new(),
                views: Slab::new(),
                subscriptions: BTreeMap::new(),
                retained_from: None,
                least_retention: Span::FOREVER,
                sweep: None,
                hops: Hops::default(),
                ledger: TopicLedger::default(),
            }),
            directory: RwLock::new(Directory::default()),
            view: Arc::new(View::new(Filter::all())),
        });
        topic.state.lock().configure(config);
        core.books.enter(topic.id, &topic.me);
        topic
    }

    /// Which of all objects of the bus.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The topics through which the message at a position was forwarded to here.
    pub(crate) fn path_of(&self, position: u64) -> Path {
        self.state.lock().hops.get(position)
    }

    pub(crate) fn config(&self) -> TopicConfig {
        self.state.lock().config.clone()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.state.lock().deleted
    }

    pub(crate) fn not_found(&self) -> AdminError {
        AdminError::NotFound { resource: Resource::Topic, name: self.name.to_string() }
    }

    pub(crate) fn subscriptions(&self) -> Vec<Arc<SubscriptionShared>> {
        self.state.lock().subscriptions.values().cloned().collect()
    }

    pub(crate) fn stats(&self) -> TopicStats {
        let state = self.state.lock();
        let (retained_messages, retained_bytes) = state.log.kept();
        TopicStats {
            retained_messages,
            retained_bytes,
            subscriptions: if state.deleted { 0 } else { state.subscriptions.len() },
        }
    }

    /// What was published here, and what of it the view of a filter accepted.
    pub(crate) fn taken_in(&self, filter: &Filter) -> (u64, u64) {
        let state = self.state.lock();
        (state.ledger.published, state.accepted_by(filter))
    }

    /// Appends messages for all who match; gives them back if it cannot.
    #[inline]
    pub(crate) fn publish<M: ExactSizeIterator<Item = Message>>(
        &self,
        messages: M,
        reading: Reading,
    ) -> Result<Appended, (PublishReason, M)> {
        self.publish_with(messages, reading, |_, _| {})
    }

    /// Appends a message that a dead-letter policy sends here, without regard to limits (DLQ-7).
    /// Answers false if the topic is gone.
    pub(crate) fn publish_forwarded(&self, message: Message, path: Path, reading: Reading) -> bool {
        let place = |state: &mut TopicState, head| {
            // What nobody takes is not in the log.
            if state.log.head() > head {
                state.hops.insert(head, path);
            }
        };
        self.publish_with(std::iter::once(message), reading, place).is_ok()
    }

    /// `placed` gets the head as it was before, under the lock.
    #[inline(always)]
    fn publish_with<M: ExactSizeIterator<Item = Message>>(
        &self,
        messages: M,
        reading: Reading,
        placed: impl FnOnce(&mut TopicState, u64),
    ) -> Result<Appended, (PublishReason, M)> {
        let mut effects = Effects::default();
        let mut awaited = Awaited::new();
        let mut state = self.state.lock();
        if state.deleted {
            drop(state);
            return Err((self.gone(), messages));
        }
        let time = state.last_publish.max(reading.now);
        state.last_publish = time;
        let head = state.log.head();
        let count = messages.len();
        let first = self.core.take_ids(count as u64);
        let mut published = Stamped { messages, next: first, time };
        let recipients = if !state.views.is_empty() {
            state.append_matching(count, published, &mut effects)
        } else if state.log.keeps_new() {
            state.log.append_all(count, || published.take());
            state.ledger.appended += count as u64;
            Recipients::Same(state.unfiltered)
        } else {
            // Nobody takes it and no rule keeps it (PUB-9).
            (0..count).for_each(|_| effects.discard(published.take()));
            state.ledger.unclaimed += count as u64;
            Recipients::Same(0)
        };
        state.ledger.published += count as u64;
        state.ledger.owed += recipients.total(count);
        placed(&mut state, head);
        self.apply_changes(&mut state, &mut effects);
        self.show_heads(&mut state, &mut awaited);
        self.schedule_sweep(&mut state, time);
        drop(state);
        if !awaited.is_empty() {
            for subscription in awaited.into_iter().filter_map(|weak| weak.upgrade()) {
                subscription.messages_arrived(&mut effects);
            }
        }
        effects.run();
        Ok(Appended { first: MessageId::from_u64(first), recipients })
    }

    /// Existence comes before the shape of messages (section 17 of the rules, ERR-3).
    pub(crate) fn existence(&self) -> Result<(), PublishReason> {
        if self.is_deleted() { Err(self.gone()) } else { Ok(()) }
    }

    #[cold]
    fn gone(&self) -> PublishReason {
        match self.core.is_closed() {
            true => PublishReason::Closed,
            false => PublishReason::NotFound { topic: self.name.to_string() },
        }
    }

    /// Attaches a new subscription: its start is the head of its view at this moment (PUB-8).
    pub(crate) fn subscribe(
        &self,
        name: Arc<str>,
        config: SubscriptionConfig,
        reading: Reading,
    ) -> Result<Arc<SubscriptionShared>, AdminError> {
        let topic = self.me.upgrade().ok_or_else(|| self.not_found())?;
        let mut state = self.state.lock();
        if state.deleted {
            return Err(self.not_found());
        }
        let max = self.core.limits.subscriptions_per_topic;
        if let Some(max) = max.filter(|max| state.subscriptions.len() >= *max) {
            let resource = Resource::Subscription;
            return Err(AdminError::TooMany { resource, name: name.to_string(), max });
        }
        let filter = config.filter.clone();
        let view = state.attach(&filter, &self.view);
        let retention = state.retention_of(&config);
        state.least_retention = state.least_retention.min(retention);
        let subscription =
            SubscriptionShared::new(topic, view, filter.is_all(), name, config, retention, reading);
        subscription.begin_books(state.accepted_by(&filter), state.ledger.published);
        state.subscriptions.insert(subscription.incarnation, Arc::clone(&subscription));
        Ok(subscription)
    }

    /// Takes a subscription off the topic and gives back what it alone kept (RES-13).
    pub(crate) fn detach(&self, subscription: &SubscriptionShared) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        let removed = state.subscriptions.remove(&subscription.incarnation);
        if removed.is_some() {
            let accepted = state.accepted(subscription);
            let kept = subscription.forget_everything(&mut effects);
            state.ledger.past_accepted += accepted;
            state.ledger.past.add(&kept.ledger);
            for position in kept.pinned {
                state.log.unpin(position);
            }
            state.leave(subscription, kept.low);
            state.log.seal_if_unused();
            self.apply_changes(&mut state, &mut effects);
        }
        drop(state);
        effects.run();
        drop(removed);
    }

    /// Moves what a subscription holds to where it has come (L2).
    pub(crate) fn trim(&self, subscription: &SubscriptionShared) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        if state.subscriptions.contains_key(&subscription.incarnation) {
            let moved = subscription.take_moves();
            for position in moved.pin {
                state.log.pin(position);
            }
            state.move_low(subscription, moved.from, moved.to);
            for position in moved.unpin {
                state.log.unpin(position);
            }
            self.apply_changes(&mut state, &mut effects);
        }
        drop(state);
        effects.run();
    }

    /// Takes a new configuration over (RET-5, RET-8).
    pub(crate) fn update(
        &self,
        update: &TopicUpdate,
        reading: Reading,
    ) -> Result<TopicConfig, AdminError> {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        if state.deleted {
            return Err(self.not_found());
        }
        let config = update.applied_to(&state.config);
        config.check(&self.core.limits)?;
        state.configure(config.clone());
        state.spread_retention(reading);
        self.apply_changes(&mut state, &mut effects);
        let last = state.last_publish;
        self.reschedule_sweep(&mut state, last);
        drop(state);
        effects.run();
        Ok(config)
    }

    /// A subscription's retention has changed: takes it over, with regard to the topic's (RET-2).
    pub(crate) fn retention_changed(&self, subscription: &SubscriptionShared, reading: Reading) {
        let mut state = self.state.lock();
        let retention = state.retention_of(&subscription.config());
        subscription.set_retention(retention, reading);
        state.least_retention = state.least_retention.min(retention);
        let last = state.last_publish;
        self.reschedule_sweep(&mut state, last);
    }

    /// Nothing is published any more; subscriptions keep their backlog (RES-11), the topic's own
    /// retention ends.
    pub(crate) fn delete(&self, reading: Reading) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        state.deleted = true;
        state.config.retention = None;
        state.spread_retention(reading);
        let last = state.last_publish;
        self.reschedule_sweep(&mut state, last);
        if let Some(position) = state.retained_from.take() {
            state.log.release_hold(position);
        }
        self.apply_changes(&mut state, &mut effects);
        drop(state);
        effects.run();
    }

    /// Brings the directory in line with the log.
    fn apply_changes(&self, state: &mut TopicState, effects: &mut Effects) {
        if !state.log.has_changes() {
            return;
        }
        let changes = state.log.take_changes();
        let mut directory = self.directory.write();
        let removed = changes.into_iter().filter_map(|change| directory.apply(change));
        let removed: SmallVec<[_; 2]> = removed.collect();
        if !state.hops.is_empty() {
            for segment in &removed {
                let is_there = |position| directory.find(position).is_some();
                state.hops.forget(segment.base()..segment.end(), is_there);
            }
        }
        removed.into_iter().for_each(|segment| effects.free(segment));
    }

    /// Lets pullers see what was appended, and takes those who wait.
    fn show_heads(&self, state: &mut TopicState, awaited: &mut Awaited) {
        self.view.set_head(state.log.head());
        if self.view.is_awaited() {
            awaited.append(&mut self.view.take_waiting());
        }
        for (_, filtered) in state.views.iter_mut().filter(|(_, filtered)| filtered.touched) {
            filtered.touched = false;
            filtered.view.show();
            if filtered.view.is_awaited() {
                awaited.append(&mut filtered.view.take_waiting());
            }
        }
    }

    /// Makes sure that somebody looks when the first message in the log is past retention.
    fn schedule_sweep(&self, state: &mut TopicState, published: Time) {
        if state.sweep.is_none() && state.log.messages() > 0 {
            self.sweep_at(state, published.after(state.least_retention));
        }
    }

    /// The retention has become shorter: what is stored may be due earlier.
    fn reschedule_sweep(&self, state: &mut TopicState, now: Time) {
        if state.log.messages() > 0 {
            self.sweep_at(state, now);
        }
    }

    fn sweep_at(&self, state: &mut TopicState, due: Time) {
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

/// Messages that get their ids and publish time as they are taken.
struct Stamped<M> {
    messages: M,
    next: u64,
    time: Time,
}

impl<M: Iterator<Item = Message>> Stamped<M> {
    #[inline(always)]
    fn take(&mut self) -> Published {
        let message = self.messages.next().expect("an iterator has as many as it says");
        let id = MessageId::from_u64(self.next);
        self.next += 1;
        Published { message, id, time: self.time }
    }
}

/// Subscriptions that somebody waits on.
type Awaited = Vec<Weak<SubscriptionShared>>;

impl TopicState {
    fn append_matching(
        &mut self,
        count: usize,
        mut messages: Stamped<impl Iterator<Item = Message>>,
        effects: &mut Effects,
    ) -> Recipients {
        let mut matching = Vec::new();
        let mut each = Vec::with_capacity(count);
        for _ in 0..count {
            let message = messages.take();
            matching.clear();
            let attributes = message.message.attributes();
            self.index.matching(|key| attributes.get(key), &mut matching);
            let mut recipients = self.unfiltered;
            if !self.log.keeps_new() && matching.is_empty() {
                effects.discard(message);
                self.ledger.unclaimed += 1;
            } else {
                let position = self.log.append(message);
                self.ledger.appended += 1;
                for &at in &matching {
                    let Some(filtered) = self.views.get_mut(at) else { continue };
                    filtered.view.push(position);
                    filtered.accepted += 1;
                    filtered.touched = true;
                    self.log.pin(position);
                    recipients += filtered.subscriptions();
                }
            }
            each.push(recipients);
        }
        Recipients::Each(each)
    }

    /// The view for a filter, with one subscription more on it.
    fn attach(&mut self, filter: &Filter, unfiltered: &Arc<View>) -> Arc<View> {
        if filter.is_all() {
            self.unfiltered += 1;
            self.log.hold(self.log.head());
            return Arc::clone(unfiltered);
        }
        let at = self.index.get(filter).first().copied().unwrap_or_else(|| {
            let at = self.views.insert(FilteredView::new(filter.clone()));
            self.index.insert(filter.clone(), at);
            at
        });
        let filtered = self.views.get_mut(at).expect("the index only names views that exist");
        filtered.add_low(filtered.view.head());
        Arc::clone(&filtered.view)
    }

    /// The opposite of `attach`, for a subscription that is done below `low`.
    fn leave(&mut self, subscription: &SubscriptionShared, low: u64) {
        if subscription.is_unfiltered {
            self.unfiltered -= 1;
            self.log.release_hold(low);
            return;
        }
        let filter = &subscription.view.filter;
        let Some(at) = self.index.get(filter).first().copied() else { return };
        let Some(filtered) = self.views.get_mut(at) else { return };
        for position in filtered.remove_low(low) {
            self.log.unpin(position);
        }
        if filtered.subscriptions() == 0 {
            self.views.remove(at);
            self.index.remove(filter, &at);
        }
    }

    fn move_low(&mut self, subscription: &SubscriptionShared, from: u64, to: u64) {
        if from == to {
            return;
        }
        if subscription.is_unfiltered {
            self.log.move_hold(from, to);
            return;
        }
        let at = self.index.get(&subscription.view.filter).first().copied();
        let Some(filtered) = at.and_then(|at| self.views.get_mut(at)) else { return };
        filtered.add_low(to);
        for position in filtered.remove_low(from) {
            self.log.unpin(position);
        }
    }

    fn configure(&mut self, config: TopicConfig) {
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
        self.config = config;
    }

    /// An unacknowledged message stays for the longer of the two retentions (RET-2).
    fn retention_of(&self, config: &SubscriptionConfig) -> Span {
        let topic = self.config.retention.unwrap_or_default();
        Span::round_up(config.effective_retention().max(topic))
    }

    /// Tells every subscription which retention counts now (RET-2, RET-8).
    fn spread_retention(&mut self, reading: Reading) {
        for subscription in self.subscriptions.values() {
            subscription.set_retention(self.retention_of(&subscription.config()), reading);
        }
    }

    /// Moves the topic's own hold to the first message that is young enough.
    fn drop_retained(&mut self, now: Time) {
        let (Some(from), Some(retention)) = (self.retained_from, self.config.retention) else {
            return;
        };
        let retention = Span::round_up(retention);
        let mut to = from;
        while let Some((position, segment)) = self.log.first_at_or_above(to) {
            let old = (position..segment.end())
                .filter_map(|position| segment.at(position))
                .take_while(|message| message.time.after(retention) <= now)
                .count() as u64;
            to = position + old;
            if to < segment.end() {
                break;
            }
        }
        if to > from {
            self.log.move_hold(from, to);
            self.retained_from = Some(to);
        }
    }

    /// When the next sweep finds something; each subscription has just said when it expects to.
    fn next_sweep(&mut self, now: Time) -> Option<Time> {
        let retentions = self.subscriptions.values().map(|subscription| subscription.retention());
        let own = self.config.retention.map(Span::round_up);
        self.least_retention = retentions.chain(own).min().unwrap_or(Span::FOREVER);
        let dues = self.subscriptions.values().map(|subscription| subscription.retention_due());
        let retained = self.retained_from.and_then(|from| self.log.first_at_or_above(from));
        let retained =
            retained.and_then(|(at, segment)| segment.at(at).map(|message| message.time));
        let own = retained.zip(own).map(|(time, retention)| time.after(retention));
        let due = dues.chain(own).min().filter(|due| *due < Time::LAST)?;
        Some(due.max(now.after(SWEEP_EVERY)))
    }
}

impl Timed for TopicShared {
    /// Gives back what is past retention, also where nobody calls (RET-7).
    fn fire(self: Arc<Self>, reading: Reading) {
        self.state.lock().sweep = None;
        for subscription in self.subscriptions() {
            subscription.sweep(reading);
        }
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        state.drop_retained(reading.now);
        self.apply_changes(&mut state, &mut effects);
        if let Some(due) = state.next_sweep(reading.now) {
            self.sweep_at(&mut state, due);
        }
        drop(state);
        effects.run();
    }
}

impl Drop for TopicShared {
    fn drop(&mut self) {
        let state = self.state.lock();
        let (sweep, ledger) = (state.sweep, state.ledger);
        drop(state);
        if let Some(key) = sweep {
            self.core.timers.cancel(key);
        }
        self.core.books.leave(self.id, &ledger);
    }
}

impl std::fmt::Debug for TopicShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}
