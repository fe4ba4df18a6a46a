//! A subscription behind its lock: lease, settle, wait, wake, trim, expire.
//!
//! Decisions are the broker's (`broker/subscription.rs`); here is who calls it with what, who has
//! to be woken after, and when the topic has to be told that less is needed. What is behind the
//! lock, beginning and end are in this file; taking the lock, handing out and settling in files of
//! their own.

pub(crate) mod audit;
mod entry;
mod faults;
pub(crate) mod forward;
mod history;
mod lane;
mod lease;
mod limit;
mod peek;
mod reader;
pub(crate) mod seek;
mod settle;
mod standing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Weak;
use std::task::Waker;

use smallvec::SmallVec;

use self::lane::Lane;
pub(crate) use self::limit::{Asked, Measure, Room};
use self::reader::Reader;
use super::batch::{Batch, Segments};
use super::core::BusCore;
use super::effects::Effects;
use super::timers::{Key, Rank, Timed};
use super::topic::TopicShared;
use super::view::View;
use super::waiters::{PUSH, Waiters};
use crate::broker::faults::Faults;
use crate::broker::ledger::Ledger;
use crate::broker::log::Segment;
use crate::broker::ordering::Client;
use crate::broker::policy::Policy;
use crate::broker::replay::Replay;
use crate::broker::subscription::{MAX_WORK, SubscriptionState};
use crate::clock::Reading;
use crate::config::{Expiration, SubscriptionConfig};
use crate::error::{AckError, AdminError, PullError, Resource};
use crate::events::Event;
use crate::observe::Answer;
use crate::stats::SubscriptionStats;
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering};
use crate::time::{Span, Time};
/// A filtered subscription tells its topic what it no longer needs after this many messages, or
/// when nothing is left.
const TRIM_EVERY: u64 = 64;

/// A subscription tells its topic of lease words when there are so many more or fewer; under
/// pressure of each.
const TELL_WORDS: u64 = 128;

/// A waiter that was told, and is not polled for so long, is passed over if others wait.
const PASS_OVER_AFTER: Span = Span::from_millis(50);

/// Sets the hashes of ordering keys apart from others made with the seed of the bus.
const KEY_SEED: u64 = 0x6f72_6465_7269_6e67;

pub(crate) struct SubscriptionShared {
    pub(crate) core: Arc<BusCore>,
    pub(crate) topic: Arc<TopicShared>,
    pub(crate) view: Arc<View>,
    pub(crate) is_unfiltered: bool,
    pub(crate) name: Arc<str>,
    /// Which of all objects of the bus; a subscription of the same name made later has another.
    pub(crate) incarnation: u64,
    name_hash: u64,
    me: Weak<SubscriptionShared>,
    /// Whether an ack, and whether a nack, is judged by a reading of its own: once exactly-once
    /// delivery was on (EOD-4), while a retry policy counts from it.
    exact_acks: AtomicBool,
    exact_nacks: AtomicBool,
    /// Whether answers that come too late are errors now.
    exactly_once: AtomicBool,
    /// Whether pulls lately found nothing at first.
    is_often_empty: AtomicBool,
    state: Mutex<State>,
}

struct State {
    lane: Lane,
    broker: SubscriptionState,
    start: Start,
    config: SubscriptionConfig,
    ack_deadline: Span,
    retention: Span,
    expiration: Option<Span>,
    waiters: Waiters,
    /// Pulls so far, where keys have an order.
    calls: u64,
    /// Streams that wait for quota, by owner.
    starved: BTreeMap<u32, Waker>,
    /// Streams that are open: as long as one is, the subscription does not expire (EXP-3).
    streams: usize,
    /// The box of the last batch that was settled, empty but for the segment that is cached.
    spare: Option<Box<Batch>>,
    /// The segment read last; kept by unfiltered subscriptions only, whose hold keeps it anyway.
    cached: Option<Arc<Segment>>,
    /// Starts of segments between low and cursor: passing one is worth telling the topic.
    boundaries: VecDeque<u64>,
    /// Where filtered stragglers lie: index → position.
    stragglers: BTreeMap<u64, u64>,
    /// How far the topic knows of: the low index, and what is kept for it.
    told_low: u64,
    /// The head of the view when it was last looked at: a puller that has not come there yet need
    /// not touch what publishers write all the time.
    seen: u64,
    told: Keeps,
    /// Lease words that the topic knows of.
    told_words: u64,
    /// The way back through the log that a seek has begun.
    replay: Option<Box<Replay>>,
    /// What is published before this is acknowledged on arrival (SEEK-4).
    not_before: Option<Time>,
    /// Whether the view has this subscription on its waiting list.
    is_registered: bool,
    /// What was on that list last, to be put there again.
    listener: Option<Weak<SubscriptionShared>>,
    timer: Option<Key>,
    is_observed: bool,
    /// When somebody else is told of what is there, if others wait.
    pass_over: Time,
    last_activity: Time,
    /// Something happened since then at a time that nobody read (D15).
    is_touched: bool,
    /// Somebody empties the outbox.
    is_forwarding: bool,
    /// It is not emptied before the budget is less overdrawn.
    is_paused: bool,
    ended: Option<End>,
    /// When the topic looks at the limit.
    filed: limit::Filed,
    /// Publishers wait because it is full.
    blocks: bool,
    /// Faults on demand, once any was armed.
    faults: Option<Box<Faults>>,
    /// What was handed out lately, if that is to be remembered.
    history: Option<Box<history::History>>,
    /// Bytes have left since then.
    has_shrunk: bool,
    #[cfg(feature = "tracing")]
    reported_lapses: u64,
}

/// Why a subscription takes no more calls.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Deleted,
    Closed,
    /// It still has a name, a configuration and an expiration (RES-14, RES-15).
    Detached,
}

/// What the topic keeps for a subscription.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keeps {
    /// Everything in the log from this position on.
    pub(crate) hold: Option<u64>,
    /// Everything in the filtered view from this index on.
    pub(crate) view_low: u64,
}

/// What the topic has to change for a subscription that has come forward.
#[derive(Debug)]
pub(crate) struct Moves {
    pub(crate) from: Keeps,
    pub(crate) to: Keeps,
    pub(crate) pin: Vec<u64>,
    pub(crate) unpin: Vec<u64>,
    /// Segments that were at hand for it.
    pub(crate) passed: Segments,
}

/// What the topic still keeps for a subscription that has ended.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) keeps: Keeps,
    pub(crate) pinned: Vec<u64>,
    pub(crate) ledger: Ledger,
}

/// What the view had accepted, and the topic published, when a subscription was attached: its books
/// begin there.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Start {
    pub(crate) accepted: u64,
    pub(crate) published: u64,
    /// Of the topic's log.
    pub(crate) head: u64,
}

/// What is left to do once the lock is released.
#[derive(Copy, Clone, Debug)]
struct After {
    /// Tell the topic that less is needed.
    trim: bool,
    /// Empty the outbox.
    forward: bool,
}

/// What a caller wants to be done with a delivery.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Settle {
    Ack,
    Nack,
    NackAfter(Span),
    Deadline(Span),
}

/// How much longer than there is time for its answer the lease of a push lasts.
const PUSH_GRACE: Span = Span::SECOND;

/// A lease as it is asked for.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Request {
    pub(crate) max_messages: usize,
    pub(crate) owner: u32,
    /// No message of an ordering key while another of it is outstanding (ORD-9).
    pub(crate) one_per_key: bool,
    /// Instead of the subscription's.
    pub(crate) ack_deadline: Option<Span>,
    /// For a push: only its success is activity (EXP-3), and the lease outlasts the answer.
    pub(crate) is_push: bool,
}

impl Request {
    /// For whom keys are taken; `call` tells one pull from another.
    fn client(&self, call: u64) -> Client {
        match self.owner {
            _ if self.one_per_key => Client::OneAtATime,
            0 => Client::Call(call),
            owner => Client::Stream(owner),
        }
    }

    /// Whether anybody might have asked for it.
    #[inline]
    fn is_plain(&self) -> bool {
        self.owner == 0 && !self.one_per_key && self.ack_deadline.is_none() && !self.is_push
    }

    /// How long what it takes is leased, where the subscription has this ack deadline.
    ///
    /// That of a push lasts a little longer than there is time for an answer, so that the pause of
    /// a failed push has begun when its message can be taken again (LIB-306).
    fn lease_span(&self, usual: Span) -> Span {
        let span = self.ack_deadline.unwrap_or(usual);
        if self.is_push { span.plus(PUSH_GRACE) } else { span }
    }

    /// Under whose name it waits.
    fn place(&self) -> u32 {
        if self.is_push { PUSH } else { self.owner }
    }
}

impl From<Settle> for Answer {
    fn from(how: Settle) -> Self {
        match how {
            Settle::Ack => Self::Ack,
            Settle::Nack | Settle::NackAfter(_) => Self::Nack,
            Settle::Deadline(_) => Self::ModifyAckDeadline,
        }
    }
}

/// A waiter that may be anybody.
const ANYBODY: Client = Client::OneAtATime;

impl SubscriptionShared {
    pub(crate) fn new(
        topic: Arc<TopicShared>,
        view: Arc<View>,
        is_unfiltered: bool,
        name: Arc<str>,
        config: SubscriptionConfig,
        retention: Span,
        reading: Reading,
    ) -> Arc<Self> {
        let core = Arc::clone(&topic.core);
        let head = view.head();
        let incarnation = core.take_object_id();
        let mut broker = SubscriptionState::new(head, retention);
        let policy = policy_of(&config, core.seed ^ incarnation);
        broker.set_policy(policy);
        let exactly_once = config.exactly_once_delivery;
        let history = history::History::new(config.history);
        broker.set_exactly_once(exactly_once);
        if config.message_ordering {
            broker.set_ordered();
        }
        let state = State {
            lane: Lane::default(),
            broker,
            start: Start::default(),
            ack_deadline: Span::round_up(config.ack_deadline),
            retention,
            expiration: expiration_of(&config),
            config,
            waiters: Waiters::default(),
            calls: 0,
            starved: BTreeMap::new(),
            streams: 0,
            spare: None,
            history,
            cached: None,
            boundaries: VecDeque::new(),
            stragglers: BTreeMap::new(),
            told_low: head,
            seen: head,
            told: Keeps { hold: is_unfiltered.then_some(head), view_low: head },
            told_words: 0,
            replay: None,
            not_before: None,
            is_registered: false,
            listener: None,
            timer: None,
            is_observed: false,
            pass_over: Time::NEVER,
            last_activity: reading.now,
            is_touched: false,
            is_forwarding: false,
            is_paused: false,
            ended: None,
            filed: limit::Filed::default(),
            blocks: false,
            faults: None,
            has_shrunk: false,
            #[cfg(feature = "tracing")]
            reported_lapses: 0,
        };
        Arc::new_cyclic(|me| Self {
            incarnation,
            name_hash: core.name_hash(&name),
            core,
            topic,
            view,
            is_unfiltered,
            name,
            me: me.clone(),
            exact_acks: AtomicBool::new(exactly_once),
            exactly_once: AtomicBool::new(exactly_once),
            exact_nacks: AtomicBool::new(policy.retries()),
            is_often_empty: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// Takes the lock to do anything at all.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.lane.close();
        state
    }

    pub(crate) fn config(&self) -> SubscriptionConfig {
        self.lock().config.clone()
    }

    /// How long a hand-out of now is leased.
    pub(crate) fn ack_deadline(&self) -> Span {
        self.lock().ack_deadline
    }

    pub(crate) fn retention(&self) -> Span {
        self.lock().retention
    }

    /// Before this no message here is past retention.
    pub(crate) fn retention_due(&self) -> Time {
        self.lock().broker.retention_due()
    }

    /// Called by the topic, under its lock. What was past the old retention is gone for good, also
    /// if the new one is longer (LS-15).
    pub(crate) fn set_retention(&self, retention: Span, reading: Reading) {
        let mut state = self.lock();
        while retention > state.retention && state.is_scanning() {
            self.look_back(&mut state, usize::MAX, reading.now);
        }
        let head = self.head(&state);
        let (broker, mut reader) = self.reader(&mut state);
        while broker.advance(reading.now, head, &mut reader) {}
        broker.set_retention(retention);
        state.retention = retention;
    }

    pub(crate) fn update(
        &self,
        change: impl FnOnce(&SubscriptionConfig) -> Result<SubscriptionConfig, AdminError>,
    ) -> Result<SubscriptionConfig, AdminError> {
        let reading = self.core.read();
        let mut effects = Effects::default();
        let (old, config, limit_changed) = {
            let mut state = match self.enter(reading) {
                // Its settings can still be changed (RES-15).
                Err(End::Detached) => self.lock(),
                entered => entered.map_err(|end| self.admin_error(end))?,
            };
            let config = change(&state.config)?;
            let limit_changed = config.backlog_limit != state.config.backlog_limit;
            state.ack_deadline = Span::round_up(config.ack_deadline);
            state.expiration = expiration_of(&config);
            let policy = policy_of(&config, self.core.seed ^ self.incarnation);
            self.exact_nacks.store(policy.retries(), Ordering::Relaxed);
            state.broker.set_policy(policy);
            state.broker.set_exactly_once(config.exactly_once_delivery);
            self.exactly_once.store(config.exactly_once_delivery, Ordering::Relaxed);
            // Leases of the time when it was on stay strict when it is switched off.
            self.exact_acks.fetch_or(config.exactly_once_delivery, Ordering::Relaxed);
            let old = std::mem::replace(&mut state.config, config.clone());
            state.touch(reading.now);
            state.blocks &= !limit_changed;
            if old.push_config.is_none() && config.push_config.is_some() {
                // Streams end (STR-4).
                self.wake_everybody(&mut state, &mut effects);
            }
            self.reschedule(&mut state);
            if policy.forwards() {
                self.observe(&mut state);
            }
            (old, config, limit_changed)
        };
        effects.run();
        self.apply_policies(&old, &config);
        self.topic.retention_changed(self, reading);
        if limit_changed {
            self.topic.limit_changed(self);
            self.drop_oldest_if_told();
        }
        Ok(config)
    }

    pub(crate) fn stats(&self) -> SubscriptionStats {
        let reading = self.core.read();
        let (published, accepted, accepted_bytes) = self.topic.taken_in(&self.view);
        let Ok(mut state) = self.enter(reading) else { return SubscriptionStats::default() };
        let oldest = self.oldest(&mut state);
        self.weigh(&mut state, MAX_WORK);
        let accepted = accepted.saturating_sub(state.start.accepted);
        let broker = &state.broker;
        let backlog = self.backlog_of(&state);
        let others = broker.forwarding() + broker.provisional() + broker.blocked();
        SubscriptionStats {
            backlog,
            backlog_bytes: state.broker.bytes(accepted_bytes).map(|(bytes, _)| bytes),
            ready: backlog - broker.outstanding() - broker.delayed() - others,
            outstanding: broker.outstanding(),
            delayed: broker.delayed(),
            redeliveries: broker.redeliveries(),
            expired_leases: broker.expired_leases(),
            expired_messages: broker.ledger().expired,
            blocked: broker.blocked(),
            provisional: broker.provisional(),
            forwarding: broker.forwarding(),
            dead_lettered: broker.ledger().forwarded,
            dead_letters_dropped: broker.dead_letters_dropped(),
            dropped_messages: broker.ledger().dropped,
            accepted,
            acknowledged: broker.ledger().acked,
            purged: broker.ledger().purged,
            oldest_unacked_age: oldest.map(|published| published.until(reading.now)),
            blocks_publishers: state.blocks,
            waiting_pulls: state.waiters.len(),
            filtered_out: (published - state.start.published).saturating_sub(accepted),
        }
    }

    #[inline]
    fn look_at_head(&self, state: &mut State) {
        state.seen = self.head(state);
        let ttl_below = match &state.replay {
            None => self.view.ttl_below(),
            // Its indices are not those of the view, and it may bring back what the view never had.
            Some(_) if self.topic.has_ttls() => u64::MAX,
            Some(_) => 0,
        };
        state.broker.set_ttl_below(ttl_below);
    }

    /// The index after the last message.
    #[inline]
    fn head(&self, state: &State) -> u64 {
        let head = self.view.head();
        state.replay.as_ref().map_or(head, |replay| replay.head(head))
    }

    /// Whether a lease may hand something out.
    #[inline]
    fn may_deliver(&self, state: &mut State, client: Client) -> bool {
        let head = self.head(state);
        state.broker.has_deliverable(head, client) || state.is_scanning()
    }

    /// Opens a stream with a quota; answers its owner number.
    pub(crate) fn open_stream(&self, messages: u64, bytes: u64) -> Result<u32, PullError> {
        let reading = self.core.read();
        let mut state = self.enter(reading).map_err(|end| self.pull_error(end))?;
        self.check_no_push(&state)?;
        state.touch(reading.now);
        state.streams += 1;
        let owner = state.broker.owners().add(messages, bytes);
        if let Some(ordering) = state.broker.ordering() {
            ordering.open_stream(owner);
        }
        Ok(owner)
    }

    /// A push subscription has no streams (STR-4).
    fn check_no_push(&self, state: &State) -> Result<(), PullError> {
        if state.config.push_config.is_none() {
            return Ok(());
        }
        Err(PullError::PushSubscription { subscription: self.name.to_string() })
    }

    pub(crate) fn close_stream(&self, owner: u32, ticket: &mut Option<u64>) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        let starved = state.starved.remove(&owner);
        state.broker.owners().remove(owner);
        if let Some(ordering) = state.broker.ordering() {
            ordering.close_stream(owner);
        }
        state.streams = state.streams.saturating_sub(1);
        self.touch_now(&mut state);
        if self.give_up(&mut state, ticket, &mut effects) {
            self.tell_if_deliverable(&mut state, &mut effects);
        }
        self.reschedule(&mut state);
        drop(state);
        drop(starved);
        effects.run();
    }

    /// Ends the subscription by its user's will. Answers false if it had ended before.
    pub(crate) fn delete(self: &Arc<Self>) -> bool {
        let was_there = self.core.forget_subscription(self);
        self.end(End::Deleted);
        was_there
    }

    /// Ends the subscription because the bus is closed.
    pub(crate) fn close(&self) {
        self.end(End::Closed);
    }

    /// Nothing is handed out any more: whoever waits for a message looks again.
    pub(crate) fn tell_everybody(&self) {
        let mut effects = Effects::default();
        self.wake_everybody(&mut self.lock(), &mut effects);
        effects.run();
    }

    fn wake_everybody(&self, state: &mut State, effects: &mut Effects) {
        let told: SmallVec<[Waker; 2]> = state.waiters.tell_all().collect();
        told.iter().for_each(|_| self.core.wake_begun());
        let starved = std::mem::take(&mut state.starved).into_values();
        told.into_iter().chain(starved).for_each(|waker| effects.wake(waker));
    }

    /// Deliveries that nobody has settled.
    pub(crate) fn outstanding(&self) -> u64 {
        let reading = Reading::at(self.core.latest());
        self.enter(reading).map_or(0, |state| state.broker.outstanding())
    }

    fn end(&self, end: End) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        if state.ended.is_some_and(|ended| ended != End::Detached || end == End::Detached) {
            return;
        }
        state.ended = Some(end);
        self.wake_everybody(&mut state, &mut effects);
        effects.quiet(&self.core);
        if let Some(key) = state.timer.take() {
            self.core.timers.cancel(key);
        }
        self.stop_pausing(&mut state);
        if end == End::Detached {
            state.streams = 0;
            self.reschedule(&mut state);
        }
        drop(state);
        self.view.unregister(&self.me);
        self.topic.detach(self);
        effects.run();
    }

    /// Called by the topic, under its lock, when the subscription leaves it.
    pub(crate) fn forget_everything(&self, effects: &mut Effects) -> Kept {
        let mut state = self.lock();
        let keeps = state.told;
        let head = self.head(&state);
        let mut ledger = *state.broker.ledger();
        ledger.removed += self.backlog_of(&state);
        let pinned = self.pinned_positions(&state);
        state.broker.end(head);
        self.tell_words(&mut state);
        let replay = state.replay.take();
        state.let_go(u64::MAX).into_iter().for_each(|segment| effects.free(segment));
        drop(state);
        drop(replay);
        Kept { keeps, pinned, ledger }
    }

    /// Called by the topic, under its lock, to learn what has changed.
    pub(crate) fn take_moves(&self) -> Moves {
        let mut state = self.lock();
        // Looked up before the log may forget it.
        self.weigh(&mut state, 0);
        let (from, to) = (state.told, self.keeps(&state));
        state.told = to;
        state.told_low = state.broker.low();
        let mut passed_to = 0;
        while let Some(base) = state.boundaries.front().copied()
            && to.hold.is_some_and(|at| base <= at)
        {
            passed_to = base;
            state.boundaries.pop_front();
        }
        let (mut pin, mut unpin) = state.broker.take_pins();
        // A straggler that was settled before anybody heard of it needs neither.
        unpin.sort_unstable();
        let both: BTreeSet<u64> =
            pin.extract_if(.., |index| unpin.binary_search(index).is_ok()).collect();
        unpin.retain(|index| !both.contains(index));
        let (pin, unpin) = self.positions_of_pins(&mut state, pin, unpin);
        state.trim_replay();
        let passed = state.let_go(passed_to);
        Moves { from, to, pin, unpin, passed }
    }

    /// Drops what is past retention though nobody calls (RET-7).
    pub(crate) fn sweep(&self, reading: Reading) {
        let mut effects = Effects::default();
        if let Ok(mut state) = self.enter(reading) {
            if state.broker.is_ordered() {
                self.tell_if_deliverable(&mut state, &mut effects);
            }
            let after = self.leave(state, &mut effects);
            self.finish(&mut effects, after);
            // What a sweep frees is given back at once, however little it is.
            self.topic.trim(self);
        }
    }

    /// Registers the first due instant, once the subscription can be found by name.
    pub(crate) fn schedule_expiry(&self) {
        let mut state = self.lock();
        if state.ended.is_none_or(|end| end == End::Detached) {
            self.reschedule(&mut state);
        }
    }

    fn is_starved(&self, state: &mut State, owner: u32) -> bool {
        owner != 0
            && state.broker.owners().get(owner).is_none_or(|quota| quota.room_for_messages() == 0)
    }

    fn tell_one(&self, state: &mut State, effects: &mut Effects) {
        let Some(waker) = state.waiters.tell_one() else { return };
        self.core.wake_begun();
        effects.wake(waker);
        if state.waiters.has_untold() && state.pass_over == Time::NEVER {
            // Whoever was told may never be polled: then another one is told (L9).
            state.pass_over = self.core.latest().after(PASS_OVER_AFTER);
            self.reschedule(state);
        }
    }

    fn tell_if_deliverable(&self, state: &mut State, effects: &mut Effects) {
        if state.waiters.has_untold() && self.may_deliver(state, ANYBODY) {
            self.tell_one(state, effects);
        }
    }

    /// Makes sure that a timer is registered for the next thing that happens by itself (I-6).
    #[inline]
    fn reschedule(&self, state: &mut State) {
        let due = state.broker.next_due().min(state.expires_at()).min(state.pass_over);
        if due == Time::NEVER || state.timer.is_some_and(|key| key.due <= due) {
            return;
        }
        let key = Key { due, rank: Rank::Subscription, id: self.incarnation };
        let old = state.timer.replace(key);
        state.is_observed = state.is_awaited();
        let need = self.core.timers.schedule(old, key, self.me.clone(), state.is_observed);
        self.core.satisfy(need);
    }

    /// Somebody waits: the driver has to be awake when a lease lapses or a delay ends.
    fn observe(&self, state: &mut State) {
        if state.is_observed || state.broker.next_due() == Time::NEVER {
            return;
        }
        if let Some(key) = state.timer {
            state.is_observed = true;
            let need = self.core.timers.observe(key);
            self.core.satisfy(need);
        }
    }

    fn expire(&self) {
        let Some(this) = self.me.upgrade() else { return };
        if this.delete() {
            self.core.events.send(Event::SubscriptionExpired {
                subscription: self.name.to_string(),
                topic: self.topic.name.to_string(),
            });
        }
    }

    /// Whether the subscription takes calls.
    pub(crate) fn check_here(&self) -> Result<(), AdminError> {
        let reading = self.core.read();
        self.enter(reading).map(drop).map_err(|end| self.admin_error(end))
    }

    pub(crate) fn admin_error(&self, end: End) -> AdminError {
        match end {
            End::Closed => AdminError::Closed,
            End::Deleted => AdminError::NotFound {
                resource: Resource::Subscription,
                name: self.name.to_string(),
            },
            End::Detached => AdminError::Detached { subscription: self.name.to_string() },
        }
    }

    #[cold]
    fn closing_error(&self, reading: Reading) -> PullError {
        self.enter(reading).err().map_or(PullError::Closed, |end| self.pull_error(end))
    }

    fn pull_error(&self, end: End) -> PullError {
        match end {
            End::Closed => PullError::Closed,
            End::Deleted => PullError::NotFound { subscription: self.name.to_string() },
            End::Detached => PullError::Detached { subscription: self.name.to_string() },
        }
    }

    fn ack_error(&self, end: End) -> AckError {
        match end {
            End::Closed => AckError::Closed,
            // Answers to a detached subscription change nothing and are no error (RES-15).
            End::Deleted | End::Detached => {
                AckError::NotFound { subscription: self.name.to_string() }
            }
        }
    }
}

impl State {
    /// Whether the topic can be told that an unfiltered subscription needs less.
    #[inline]
    fn has_passed_boundary(&self) -> bool {
        let passed = |boundary: &u64| *boundary <= self.broker.low();
        self.boundaries.front().is_some_and(passed) || self.broker.has_pins()
    }

    /// Of `wanted` messages, how many are leased before anybody looks at them.
    #[inline]
    fn at_once(&self, wanted: usize) -> usize {
        match &self.faults {
            Some(faults) if faults.delays() => wanted.min(1),
            _ => wanted,
        }
    }

    /// Keeps the box of a settled batch for the next one, with its segment if that is at hand.
    /// Answers a box that is not kept, to be dropped when the lock is released.
    #[inline]
    fn keep_spare(&mut self, mut batch: Box<Batch>) -> Option<Box<Batch>> {
        batch.runs.clear();
        let is_cached = match (&*batch.segments, &self.cached) {
            ([only], Some(cached)) => Arc::ptr_eq(only, cached),
            _ => false,
        };
        match is_cached && batch.is_worth_keeping() {
            true => self.spare.replace(batch),
            false => Some(batch),
        }
    }

    /// The same without its segments, which are answered.
    fn keep_box(&mut self, mut batch: Box<Batch>) -> Segments {
        let mut segments = std::mem::take(&mut batch.segments);
        batch.runs.clear();
        if batch.is_worth_keeping()
            && let Some(mut old) = self.spare.replace(batch)
        {
            segments.append(&mut old.segments);
        }
        segments
    }

    /// Lets go of the segments that are at hand and begin below `position`. Answers them, to be
    /// dropped when the lock is released, since their messages may be freed with them.
    fn let_go(&mut self, position: u64) -> Segments {
        let is_passed = |segment: &mut Arc<Segment>| segment.base() < position;
        let mut passed: Segments = self.cached.take_if(is_passed).into_iter().collect();
        if let Some(spare) = &mut self.spare
            && spare.segments.iter_mut().all(is_passed)
        {
            passed.append(&mut spare.segments);
        }
        passed
    }

    #[inline]
    fn touch(&mut self, now: Time) {
        self.last_activity = self.last_activity.max(now);
    }

    /// Whether leases have ended by their deadline, and somebody may want to trace that.
    #[inline]
    fn has_lapses_to_report(&self) -> bool {
        #[cfg(feature = "tracing")]
        return self.broker.expired_leases() != self.reported_lapses;
        #[cfg(not(feature = "tracing"))]
        false
    }

    /// Somebody waits for what happens next.
    fn is_awaited(&self) -> bool {
        let is_waited_for = !self.waiters.is_empty() || !self.starved.is_empty();
        // A failure by lapse is forwarded at its moment (DLQ-5).
        is_waited_for || self.broker.policy().forwards()
    }

    /// Whether a call is under way that counts as activity for as long as it lasts (EXP-3).
    fn is_in_use(&self) -> bool {
        self.streams > 0 || self.waiters.has_active()
    }

    /// The first instant at which it may have expired; a lower bound.
    #[inline]
    fn expires_at(&self) -> Time {
        match self.expiration {
            Some(expiration) => self.last_activity.after(expiration),
            None => Time::NEVER,
        }
    }

    /// EXP-4: at the first instant `now ≥ last activity + ttl`.
    #[inline]
    fn has_expired(&mut self, now: Time) -> bool {
        if now < self.expires_at() {
            return false;
        }
        if self.is_in_use() || self.is_touched {
            self.is_touched = false;
            self.touch(now);
            return false;
        }
        self.expiration.is_some()
    }
}

impl Timed for SubscriptionShared {
    fn fire(self: Arc<Self>, reading: Reading) {
        let mut effects = Effects::default();
        self.lock().timer = None;
        let mut state = match self.enter(reading) {
            Ok(state) => state,
            Err(End::Detached) => return self.schedule_expiry(),
            Err(End::Deleted | End::Closed) => return,
        };
        if state.pass_over <= reading.now {
            state.pass_over = Time::NEVER;
        }
        self.tell_if_deliverable(&mut state, &mut effects);
        self.reschedule(&mut state);
        let after = self.leave(state, &mut effects);
        self.finish(&mut effects, after);
    }
}

impl std::fmt::Debug for SubscriptionShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("name", &self.name).finish_non_exhaustive()
    }
}

fn policy_of(config: &SubscriptionConfig, seed: u64) -> Policy {
    Policy::new(config.retry_policy.as_ref(), config.dead_letter_policy.as_ref(), seed)
}

fn expiration_of(config: &SubscriptionConfig) -> Option<Span> {
    match config.expiration {
        Expiration::Never => None,
        Expiration::After(ttl) => Some(Span::round_up(ttl)),
    }
}
