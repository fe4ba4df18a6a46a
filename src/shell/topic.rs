//! A topic behind its lock: append, cut, hold and give back.
//!
//! Everything that decides who gets which message happens under this one lock, so that appends and
//! cuts are one order (L1). It is released before anybody is woken and before anything is freed.

pub(crate) mod admission;
mod audit;
pub(crate) mod deduplication;
pub(crate) mod delayed;
pub(crate) mod explain;
mod faults;
mod filtered;
mod lane;
pub(crate) mod seek;

use std::collections::BTreeMap;
use std::sync::Weak;

use smallvec::SmallVec;

use self::admission::{Doors, Gate, Load, Overflowing, Watch};
use self::filtered::Views;
use self::lane::Lane;
use super::core::BusCore;
use super::effects::Effects;
use super::matcher::{Matcher, Matches, ViewKey};
use super::snapshot::SnapshotShared;
use super::subscription::{Start, SubscriptionShared};
use super::timers::{Key, Rank, Timed};
use super::view::{Awaited, View};
use crate::broker::deduplication::Deduplication;
use crate::broker::delayed::{Delayed, Late};
use crate::broker::faults::PublishFaults;
use crate::broker::hops::{Hops, Path};
use crate::broker::ledger::TopicLedger;
use crate::broker::log::live::Weight;
use crate::broker::log::{Directory, Segment, TopicLog};
use crate::clock::Reading;
use crate::error::{AdminError, PublishReason, Resource};
use crate::events::Event;
use crate::filter::{Filter, Normal};
use crate::message::{Message, MessageId, Published};
use crate::peek::{MessageState, Peeked};
use crate::stats::{Held, HeldBy, TopicStats};
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, RwLock};
use crate::time::{Span, Time};
use crate::{SubscriptionConfig, TopicConfig, TopicUpdate};
use seek::Retained;

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
    watch: Arc<Watch>,
    due: Arc<delayed::Due>,
    /// Which filters match what.
    matcher: Matcher,
    /// Attributes of messages, noticed while there are filters.
    seen: explain::SeenKeys,
    /// Lease words of all subscriptions; off by a few for each while nobody waits for room.
    words: AtomicU64,
}

struct TopicState {
    lane: Lane,
    config: TopicConfig,
    log: TopicLog,
    deleted: bool,
    last_publish: Time,
    /// Subscriptions without a filter.
    unfiltered: usize,
    views: Views,
    subscriptions: BTreeMap<u64, Arc<SubscriptionShared>>,
    /// What the topic's retention keeps: everything from this position on.
    retained_from: Option<u64>,
    /// What subscriptions keep of what they have acknowledged (RET-3), by incarnation.
    acked: BTreeMap<u64, Retained>,
    snapshots: BTreeMap<u64, Arc<SnapshotShared>>,
    /// No message in the log is of interest to retention for less than this.
    least_retention: Span,
    sweep: Option<Key>,
    /// The ways of messages that were forwarded here.
    hops: Hops,
    /// Messages that wait to be published, and those in the log that have waited.
    delayed: Delayed,
    due_timer: Option<Key>,
    late: Late,
    /// Which idempotency keys were published lately, where the topic asks for that.
    deduplication: Option<Box<Deduplication>>,
    ledger: TopicLedger,
    doors: Doors,
    /// Faults on demand, once any was armed.
    faults: Option<Box<PublishFaults>>,
}

/// However many subscriptions there are, so many places in the filter index for each are allowed.
pub(crate) const INDEX_ENTRIES_PER_SUBSCRIPTION: usize = 16;

/// Who got the messages of one publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recipients {
    /// Each message went to as many.
    Same(usize),
    Each(Vec<usize>),
    /// Some were duplicates: each message has its own answer.
    Given(Vec<deduplication::Given>),
}

impl Recipients {
    /// Of `count` messages together.
    fn total(&self, count: usize) -> u64 {
        match self {
            Recipients::Same(each) => (*each as u64) * (count as u64),
            Recipients::Each(each) => each.iter().map(|&recipients| recipients as u64).sum(),
            Recipients::Given(each) => {
                each.iter().filter_map(|given| given.recipients).map(|count| count as u64).sum()
            }
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
                lane: Lane::default(),
                config: TopicConfig::default(),
                log: TopicLog::default(),
                deleted: false,
                last_publish: Time::default(),
                unfiltered: 0,
                views: Views::default(),
                subscriptions: BTreeMap::new(),
                retained_from: None,
                acked: BTreeMap::new(),
                snapshots: BTreeMap::new(),
                least_retention: Span::FOREVER,
                sweep: None,
                hops: Hops::default(),
                delayed: Delayed::default(),
                due_timer: None,
                late: Late::default(),
                deduplication: None,
                ledger: TopicLedger::default(),
                doors: Doors::default(),
                faults: None,
            }),
            directory: RwLock::new(Directory::default()),
            view: Arc::new(View::new(Filter::all(), None)),
            watch: Arc::new(Watch(me.clone())),
            due: Arc::new(delayed::Due(me.clone())),
            matcher: Matcher::new(core.seed),
            seen: explain::SeenKeys::new(),
            words: AtomicU64::new(0),
        });
        drop(topic.lock().configure(config, core.seed));
        core.books.enter(topic.id, &topic.me);
        topic
    }

    /// Takes the lock to do anything at all.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, TopicState> {
        let mut state = self.state.lock();
        state.lane.close();
        state
    }

    /// Which of all objects of the bus.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The topics through which the message at a position was forwarded to here.
    pub(crate) fn path_of(&self, position: u64) -> Path {
        self.lock().hops.get(position)
    }

    pub(crate) fn config(&self) -> TopicConfig {
        self.lock().config.clone()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.lock().deleted
    }

    pub(crate) fn not_found(&self) -> AdminError {
        AdminError::NotFound { resource: Resource::Topic, name: self.name.to_string() }
    }

    pub(crate) fn subscriptions(&self) -> Vec<Arc<SubscriptionShared>> {
        self.lock().subscriptions.values().cloned().collect()
    }

    pub(crate) fn stats(&self) -> TopicStats {
        let state = self.lock();
        let held = self.held(&state);
        TopicStats {
            retained_messages: held.messages.needed(),
            retained_bytes: held.bytes.needed(),
            held,
            subscriptions: if state.deleted { 0 } else { state.subscriptions.len() },
            published: state.ledger.published,
            charged_bytes: self.charged(&state),
            publishers_waiting: state.doors.publishers.len(),
            delayed: state.delayed.len(),
            deduplication_keys: state.deduplication.as_ref().map_or(0, |known| known.len()),
            duplicates: state.deduplication.as_ref().map_or(0, |known| known.duplicates()),
            ..TopicStats::default()
        }
    }

    /// What is in memory, and why.
    fn held(&self, state: &TopicState) -> Held {
        let history = state.retained_from.into_iter();
        let history = history.chain(state.acked.values().map(|retained| retained.from));
        let history = history.chain(state.snapshots.values().map(|snapshot| snapshot.hold));
        let held = state.log.held(state.log.lowest_hold_besides(history));
        let by_kind = |part: fn(&Weight) -> u64| HeldBy {
            backlog: part(&held.backlog),
            pinned: part(&held.pinned),
            history: part(&held.history),
            unneeded: part(&held.unneeded),
        };
        Held {
            messages: by_kind(|weight| weight.messages),
            bytes: by_kind(|weight| weight.bytes),
            permits: state.doors.reserved,
        }
    }

    /// The newest messages in memory, oldest of them first.
    pub(crate) fn newest(&self, max: usize) -> Vec<Peeked> {
        let directory = self.directory.read();
        let mut seen = Vec::new();
        for segment in directory.newest_first() {
            let slots = (0..segment.len()).rev().filter_map(|slot| segment.get(slot));
            let left = max - seen.len();
            seen.extend(slots.take(left).map(|p| Peeked::new(p, 0, MessageState::Fresh)));
        }
        drop(directory);
        seen.reverse();
        seen
    }

    /// What was published here, and what of it the view of a filter accepted, also in bytes.
    pub(crate) fn taken_in(&self, view: &View) -> (u64, u64, u64) {
        let state = self.lock();
        (state.ledger.published, state.accepted_by(view), state.bytes_accepted_by(view))
    }

    /// Which filters match which of these messages; asked before they are published.
    #[inline]
    pub(crate) fn matching(&self, messages: &[Message], matches: &mut Matches) {
        if !self.matcher.is_empty() {
            self.look_up(messages, matches);
        }
    }

    #[inline(never)]
    fn look_up(&self, messages: &[Message], matches: &mut Matches) {
        self.matcher.matching(messages, matches);
        messages.iter().for_each(|message| self.seen.notice(message));
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
        let mut message = One::new(message);
        let mut matches = Matches::none();
        self.matching(message.as_slice(), &mut matches);
        let mut state = self.lock();
        if state.deleted {
            return false;
        }
        let (load, gate) = (Load::of(message.as_slice()), Gate::Accepted);
        let admitted = self.admit(&mut state, load, message.as_slice(), &matches, gate, reading);
        let overflowing = admitted.unwrap_or_default();
        let (first, ttl) = (self.core.take_ids(1), load.least_ttl);
        self.append(state, &mut message, first, &mut matches, ttl, reading, overflowing, place);
        true
    }

    /// Appends messages if there is room for them, and gives them back if not.
    #[inline]
    pub(crate) fn publish_gated<M: Messages>(
        &self,
        messages: M,
        matches: &mut Matches,
        load: Load,
        gate: Gate,
        reading: Reading,
    ) -> Result<Appended, (PublishReason, M)> {
        self.publish_locked(self.lock(), messages, matches, load, gate, reading)
    }

    /// The same with the lock taken already.
    fn publish_locked<M: Messages>(
        &self,
        mut state: MutexGuard<'_, TopicState>,
        mut messages: M,
        matches: &mut Matches,
        load: Load,
        gate: Gate,
        reading: Reading,
    ) -> Result<Appended, (PublishReason, M)> {
        if state.deleted {
            drop(state);
            return Err((self.gone(), messages));
        }
        if let Some(code) = state.faults.as_mut().and_then(|faults| faults.strike()) {
            drop(state);
            return Err((self.fault(code), messages));
        }
        if load.has_keys && state.deduplication.is_some() {
            return self.publish_once(state, messages, gate, reading);
        }
        let mut overflowing = Overflowing::new();
        if !self.is_open(&state, load, gate) {
            match self.admit(&mut state, load, messages.as_slice(), matches, gate, reading) {
                Ok(dropping) => overflowing = dropping,
                Err(reason) => {
                    drop(state);
                    return Err((reason, messages));
                }
            }
        }
        let first = self.core.take_ids(load.messages);
        let ttl = load.least_ttl;
        Ok(self.append(state, &mut messages, first, matches, ttl, reading, overflowing, |_, _| {}))
    }

    /// Messages get ids from `first` on. `placed` gets the head as it was before, under the lock.
    #[expect(clippy::too_many_arguments, reason = "what one publish is, taken apart for speed")]
    #[inline(always)]
    fn append(
        &self,
        mut state: MutexGuard<'_, TopicState>,
        messages: &mut impl Messages,
        first: u64,
        matches: &mut Matches,
        least_ttl: Span,
        reading: Reading,
        overflowing: Overflowing,
        placed: impl FnOnce(&mut TopicState, u64),
    ) -> Appended {
        let mut effects = Effects::default();
        let mut awaited = Awaited::new();
        let time = state.last_publish.max(reading.now);
        state.last_publish = time;
        let head = state.log.head();
        let count = messages.as_slice().len();
        let mut published = stamped(messages, first, time);
        let recipients = if !state.views.have_none(matches) {
            state.append_matching(count, published, matches, &self.matcher, &mut effects)
        } else if state.log.keeps_new() {
            state.log.append_all(count, &mut published);
            state.ledger.appended += count as u64;
            Recipients::Same(state.unfiltered)
        } else {
            // Nobody takes it and no rule keeps it (PUB-9).
            published.for_each(|message| effects.discard(message));
            state.ledger.unclaimed += count as u64;
            Recipients::Same(0)
        };
        state.ledger.published += count as u64;
        state.ledger.owed += recipients.total(count);
        placed(&mut state, head);
        self.apply_changes(&mut state, &mut effects);
        if least_ttl != Span::FOREVER {
            self.note_ttl(&mut state, time.after(least_ttl));
        }
        self.show_heads(&mut state, &mut awaited);
        self.schedule_sweep(&mut state, time);
        if count == 1 {
            self.open_lane(&mut state);
        }
        drop(state);
        if !awaited.is_empty() {
            tell(awaited, &mut effects);
        }
        effects.run();
        for subscription in overflowing {
            subscription.drop_oldest();
        }
        Appended { first: MessageId::from_u64(first), recipients }
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
        let filter = config.filter.clone();
        if filter.is_all() {
            let mut state = self.lock();
            self.check_room(&state, &name)?;
            return Ok(self.attach(&mut state, None, topic, name, config, reading));
        }
        // Whoever holds the registry is alone with changes of filters; publishers go on.
        let normal = filter.normal();
        let mut registry = self.matcher.registry();
        let known = registry.find(&normal);
        let key = match known {
            Some(key) => key,
            None => {
                self.check_index(&normal, &name)?;
                let mut state = self.lock();
                self.check_room(&state, &name)?;
                let key = state.views.add(&filter);
                drop(state);
                let version = self.matcher.insert(&mut registry, normal.clone(), key);
                self.lock().views.came(version, key, filter);
                key
            }
        };
        let mut state = self.lock();
        if let Err(error) = self.check_room(&state, &name) {
            if known.is_none() {
                state.views.remove(key);
                drop(state);
                self.matcher.remove(&mut registry, &normal);
            }
            return Err(error);
        }
        Ok(self.attach(&mut state, Some(key), topic, name, config, reading))
    }

    /// The subscription is there when this returns: whatever is published later looks at it.
    fn attach(
        &self,
        state: &mut TopicState,
        key: Option<ViewKey>,
        topic: Arc<TopicShared>,
        name: Arc<str>,
        config: SubscriptionConfig,
        reading: Reading,
    ) -> Arc<SubscriptionShared> {
        let view = state.attach(key, &self.view);
        let retention = state.retention_of(&config);
        state.least_retention = state.least_retention.min(retention);
        let accepted = state.accepted_by(&view);
        let is_unfiltered = key.is_none();
        let subscription =
            SubscriptionShared::new(topic, view, is_unfiltered, name, config, retention, reading);
        let (published, head) = (state.ledger.published, state.log.head());
        subscription.begin_books(Start { accepted, published, head });
        state.retain_acked(&subscription, &subscription.config());
        state.subscriptions.insert(subscription.incarnation, Arc::clone(&subscription));
        self.watch_limit(state, &subscription);
        subscription
    }

    fn check_room(&self, state: &TopicState, name: &str) -> Result<(), AdminError> {
        if state.deleted {
            return Err(self.not_found());
        }
        match self.core.limits.subscriptions_per_topic {
            Some(max) if state.subscriptions.len() >= max => {
                let resource = Resource::Subscription;
                Err(AdminError::TooMany { resource, name: name.to_owned(), max })
            }
            _ => Ok(()),
        }
    }

    /// Whether the index may have one filter more (LIB-201, LIB-202). The registry is held.
    fn check_index(&self, normal: &Normal, name: &str) -> Result<(), AdminError> {
        let limits = &self.core.limits;
        let before = self.matcher.counts();
        // Wherever it will stand, it takes no more places than it has tests.
        let most_entries = before.entries.saturating_add(normal.tests().max(1));
        if before.weak() < limits.weak_filters_per_topic
            && most_entries <= limits.index_entries_per_topic
        {
            return Ok(());
        }
        let after = self.matcher.counts_with(normal);
        let max = limits.weak_filters_per_topic;
        if after.weak() > before.weak() && after.weak() > max {
            return Err(AdminError::TooManyWeakFilters { name: name.to_owned(), max });
        }
        let subscriptions = self.lock().subscriptions.len() + 1;
        let average = subscriptions.saturating_mul(INDEX_ENTRIES_PER_SUBSCRIPTION);
        let max = limits.index_entries_per_topic.max(average);
        if after.entries > max {
            return Err(AdminError::FilterIndexFull { name: name.to_owned(), max });
        }
        Ok(())
    }

    /// Takes a subscription off the topic and gives back what it alone kept (RES-13).
    pub(crate) fn detach(&self, subscription: &SubscriptionShared) {
        let mut effects = Effects::default();
        let filtered = !subscription.is_unfiltered;
        let mut registry = filtered.then(|| self.matcher.registry());
        let mut unused = false;
        let mut state = self.lock();
        let removed = state.subscriptions.remove(&subscription.incarnation);
        if removed.is_some() {
            let accepted = state.accepted(subscription);
            let kept = subscription.forget_everything(&mut effects);
            state.ledger.past_accepted += accepted;
            state.ledger.past.add(&kept.ledger);
            for position in kept.pinned {
                state.log.unpin(position);
            }
            unused = state.leave(subscription, kept.keeps);
            state.forget_acked(subscription.incarnation);
            state.log.seal_if_unused();
            self.apply_changes(&mut state, &mut effects);
            self.tell_first(&mut state, &mut effects);
        }
        drop(state);
        if let Some(registry) = registry.as_mut().filter(|_| unused) {
            self.matcher.remove(registry, &subscription.view.filter.normal());
        }
        drop(registry);
        effects.run();
        drop(removed);
    }

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
    fn use_again(&self, segment: Arc<Segment>) {
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

    /// Takes a new configuration over (RET-5, RET-8).
    pub(crate) fn update(
        &self,
        update: &TopicUpdate,
        reading: Reading,
    ) -> Result<TopicConfig, AdminError> {
        let mut effects = Effects::default();
        let mut state = self.lock();
        if state.deleted {
            return Err(self.not_found());
        }
        let config = update.applied_to(&state.config);
        config.check(&self.core.limits)?;
        // What was past the old retention does not come back by a longer one (RET-8).
        state.drop_retained(reading.now);
        let forgotten = state.configure(config.clone(), self.core.seed);
        state.spread_retention(reading);
        self.apply_changes(&mut state, &mut effects);
        let last = state.last_publish;
        self.reschedule_sweep(&mut state, last);
        drop(state);
        drop(forgotten);
        effects.run();
        Ok(config)
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

    /// Nothing is published any more; subscriptions keep their backlog (RES-11), the topic's own
    /// retention ends.
    pub(crate) fn delete(&self, reading: Reading) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        state.deleted = true;
        state.config.retention = None;
        state.spread_retention(reading);
        let last = state.last_publish;
        self.reschedule_sweep(&mut state, last);
        if let Some(position) = state.retained_from.take() {
            state.log.release_hold(position);
        }
        let withdrawn = (self.withdraw_all(&mut state), state.deduplicate(None, 0));
        self.apply_changes(&mut state, &mut effects);
        self.tell_all(&mut state, &mut effects);
        drop(state);
        drop(withdrawn);
        effects.run();
    }

    /// Brings the directory in line with the log.
    fn apply_changes(&self, state: &mut TopicState, effects: &mut Effects) {
        self.settle_account(state, effects);
        if !state.log.has_changes() {
            return;
        }
        let changes = state.log.take_changes();
        let mut directory = self.directory.write();
        let removed = changes.into_iter().filter_map(|change| directory.apply(change));
        let removed: SmallVec<[_; 2]> = removed.collect();
        if !state.hops.is_empty() || !state.late.is_empty() {
            for segment in &removed {
                let is_there = |position| directory.find(position).is_some();
                state.hops.forget(segment.base()..segment.end(), is_there);
                state.late.forget(segment.base()..segment.end(), is_there);
            }
        }
        removed.into_iter().for_each(|segment| effects.free(segment));
    }

    /// Lets pullers see what was appended, and takes those who wait.
    #[inline]
    fn show_heads(&self, state: &mut TopicState, awaited: &mut Awaited) {
        self.view.set_head(state.log.head());
        if self.view.is_awaited() {
            awaited.append(&mut self.view.take_waiting());
        }
        if state.views.touched.is_empty() {
            return;
        }
        for slot in std::mem::take(&mut state.views.touched) {
            let Some(filtered) = state.views.at_mut(slot) else { continue };
            filtered.touched = false;
            filtered.show();
            if filtered.view.is_awaited() {
                awaited.append(&mut filtered.view.take_waiting());
            }
        }
    }

    /// What was just appended has a time to live: the first to end does so at `due`.
    #[cold]
    fn note_ttl(&self, state: &mut TopicState, due: Time) {
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
    fn schedule_sweep(&self, state: &mut TopicState, published: Time) {
        if state.log.messages() > 0 {
            self.sweep_at(state, published.after(state.least_retention));
        }
    }

    /// The retention has become shorter: what is stored may be due earlier.
    fn reschedule_sweep(&self, state: &mut TopicState, now: Time) {
        if state.log.messages() > 0 || state.deduplication.is_some() {
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

/// Messages on their way into the log.
pub(crate) trait Messages: Iterator<Item = Message> {
    /// Those that were not taken yet.
    fn as_slice(&self) -> &[Message];
}

impl Messages for std::vec::IntoIter<Message> {
    #[inline]
    fn as_slice(&self) -> &[Message] {
        std::vec::IntoIter::as_slice(self)
    }
}

/// A single message.
pub(crate) struct One(Option<Message>);

impl One {
    #[inline]
    pub(crate) fn new(message: Message) -> Self {
        Self(Some(message))
    }
}

impl Iterator for One {
    type Item = Message;

    #[inline]
    fn next(&mut self) -> Option<Message> {
        self.0.take()
    }
}

impl Messages for One {
    #[inline]
    fn as_slice(&self) -> &[Message] {
        self.0.as_slice()
    }
}

/// Messages that get their ids and publish time as they are taken.
fn stamped(
    messages: &mut impl Iterator<Item = Message>,
    first: u64,
    time: Time,
) -> impl Iterator<Item = Published> {
    let mut next = first;
    messages.map(move |message| {
        let id = MessageId::from_u64(next);
        next += 1;
        Published { message, id, time }
    })
}

/// Has whoever waits on these subscriptions woken.
fn tell(awaited: Awaited, effects: &mut Effects) {
    for listener in awaited {
        if let Some(subscription) = listener.upgrade() {
            subscription.messages_arrived(listener, effects);
        }
    }
}

impl TopicState {
    /// Answers what it has no use for any more, to be dropped once the lock is released.
    fn configure(&mut self, config: TopicConfig, seed: u64) -> impl Sized + use<> {
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
    fn retention_of(&self, config: &SubscriptionConfig) -> Span {
        let topic = self.config.retention.unwrap_or_default();
        Span::round_up(config.effective_retention().max(topic))
    }

    /// Positions that nothing but the topic's retention holds.
    fn history(&self) -> Option<std::ops::Range<u64>> {
        let from = self.retained_from?;
        let to = self.log.next_hold_above(from)?;
        (from < to).then_some(from..to)
    }

    /// Tells every subscription which retention counts now (RET-2, RET-8).
    fn spread_retention(&mut self, reading: Reading) {
        for subscription in self.subscriptions.values() {
            subscription.set_retention(self.retention_of(&subscription.config()), reading);
        }
    }

    /// When the next sweep finds something; each subscription has just said when it expects to.
    fn next_sweep(&mut self, now: Time) -> Option<Time> {
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

impl Drop for TopicShared {
    fn drop(&mut self) {
        let state = self.lock();
        let (sweep, mut ledger) = (state.sweep, state.ledger);
        let due = state.due_timer;
        ledger.withdrawn += state.delayed.len();
        let is_awaited = self.core.budget.report(state.doors.reported, 0);
        drop(state);
        for key in sweep.into_iter().chain(due) {
            self.core.timers.cancel(key);
        }
        self.core.books.leave(self.id, &ledger);
        if is_awaited {
            self.core.room_freed();
        }
    }
}

impl std::fmt::Debug for TopicShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}
