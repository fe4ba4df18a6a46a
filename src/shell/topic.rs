//! A topic behind its lock: what is there, its beginning and its end.
//!
//! Messages come in by `publish.rs`, subscriptions come and go in `attach.rs`, what is kept and
//! given back is in `retention.rs`.
//!
//! Everything that decides who gets which message happens under this one lock, so that appends and
//! cuts are one order (L1). It is released before anybody is woken and before anything is freed.

pub(crate) mod admission;
mod attach;
mod audit;
pub(crate) mod deduplication;
pub(crate) mod delayed;
pub(crate) mod explain;
mod faults;
mod filtered;
mod lane;
mod publish;
mod retention;
pub(crate) mod seek;

use std::collections::BTreeMap;
use std::sync::Weak;

use smallvec::SmallVec;

use self::admission::{Doors, Watch};
use self::filtered::Views;
use self::lane::Lane;
pub(crate) use self::publish::{Appended, Recipients};
use self::publish::{Messages, One, tell};
use super::core::BusCore;
use super::effects::Effects;
use super::matcher::{Matcher, Matches};
use super::snapshot::SnapshotShared;
use super::subscription::SubscriptionShared;
use super::timers::Key;
use super::view::View;
use crate::broker::deduplication::Deduplication;
use crate::broker::delayed::{Delayed, Late};
use crate::broker::faults::PublishFaults;
use crate::broker::hops::{Hops, Path};
use crate::broker::ledger::TopicLedger;
use crate::broker::log::live::Weight;
use crate::broker::log::{Directory, TopicLog};
use crate::clock::Reading;
use crate::error::{AdminError, PublishReason, Resource};
use crate::filter::Filter;
use crate::peek::{MessageState, Peeked};
use crate::stats::{Held, HeldBy, TopicStats};
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, RwLock};
use crate::time::{Span, Time};
use crate::{TopicConfig, TopicUpdate};
use seek::Retained;

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
