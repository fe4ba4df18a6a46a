//! A subscription behind its lock: lease, settle, wait, wake, trim, expire.
//!
//! Decisions are the broker's (`broker/subscription.rs`); here is who calls it with what, who has
//! to
//! be woken after, and when the topic has to be told that less is needed.

pub(crate) mod audit;
mod faults;
pub(crate) mod forward;
mod history;
mod limit;
mod peek;
pub(crate) mod seek;
mod standing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Weak;
use std::task::Waker;

use ahash::RandomState;
use smallvec::SmallVec;

pub(crate) use self::limit::{Asked, Measure, Room};
use super::batch::{Batch, Segments};
use super::core::BusCore;
use super::effects::Effects;
use super::timers::{Key, Rank, Timed};
use super::topic::TopicShared;
use super::view::View;
use super::waiters::{PUSH, Waiters};
use crate::ack_id::AckId;
use crate::broker::faults::Faults;
use crate::broker::ledger::Ledger;
use crate::broker::log::{Directory, Segment};
use crate::broker::ordering::Client;
use crate::broker::policy::Policy;
use crate::broker::replay::{Place, Replay};
use crate::broker::subscription::{
    Backlog, LeaseId, LeaseOptions, Leased, MAX_WORK, Meta, Runs, Settled, SubscriptionState,
};
use crate::clock::Reading;
use crate::config::{Expiration, SubscriptionConfig};
use crate::delivery::{BatchOutcome, Outcome};
use crate::error::{AckError, AckFailure, AdminError, PullError, Resource};
use crate::events::Event;
use crate::message::Published;
use crate::observe::{self, Answer};
use crate::stats::SubscriptionStats;
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, RwLock};
use crate::time::{Span, Time};

/// A filtered subscription tells its topic what it no longer needs after this many messages, or
/// when nothing is left.
const TRIM_EVERY: u64 = 64;

/// A subscription tells its topic of lease words when there are so many more or fewer; under
/// pressure of each.
const TELL_WORDS: u64 = 64;

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
    state: Mutex<State>,
}

struct State {
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
    /// The box of the last batch that was settled, empty.
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

/// A lease as it is asked for.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Request {
    pub(crate) max_messages: usize,
    pub(crate) owner: u32,
    /// No message of an ordering key while another of it is outstanding (ORD-9).
    pub(crate) one_per_key: bool,
    /// Instead of the subscription's.
    pub(crate) ack_deadline: Option<Span>,
    /// For a push: only its success is activity (EXP-3).
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
            state: Mutex::new(state),
        })
    }

    pub(crate) fn config(&self) -> SubscriptionConfig {
        self.state.lock().config.clone()
    }

    /// How long a hand-out of now is leased.
    pub(crate) fn ack_deadline(&self) -> Span {
        self.state.lock().ack_deadline
    }

    pub(crate) fn retention(&self) -> Span {
        self.state.lock().retention
    }

    /// Before this no message here is past retention.
    pub(crate) fn retention_due(&self) -> Time {
        self.state.lock().broker.retention_due()
    }

    /// Called by the topic, under its lock. What was past the old retention is gone for good, also
    /// if the new one is longer (LS-15).
    pub(crate) fn set_retention(&self, retention: Span, reading: Reading) {
        let mut state = self.state.lock();
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
                Err(End::Detached) => self.state.lock(),
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

    /// Leases what is there now; `None` if that is nothing.
    ///
    /// Rounds are of bounded size (L6): a large request takes the lock several times.
    #[inline]
    pub(crate) fn lease(&self, request: &Request) -> Result<Option<Box<Batch>>, PullError> {
        let reading = self.core.read();
        if self.core.lifecycle.is_closing() {
            return Err(self.closing_error(reading));
        }
        let mut left = request.max_messages.min(self.core.limits.pull_messages);
        let mut state = match self.enter_for(reading, left as u64) {
            Ok(state) => state,
            Err(end) => return Err(self.pull_error(end)),
        };
        if !request.is_push {
            state.touch(reading.now);
        }
        if request.owner != 0 {
            self.check_no_push(&state)?;
        }
        state.calls += 1;
        let client = request.client(state.calls);
        let mut batch = state.spare.take().unwrap_or_default();
        batch.epoch = state.broker.epoch();
        loop {
            let mut effects = Effects::default();
            if state.is_scanning() {
                self.look_back(&mut state, left, reading.now);
                self.look_at_head(&mut state);
            }
            let most = state.at_once(left);
            let (taken, stopped) =
                self.lease_round(&mut state, request, most, client, reading, &mut batch);
            left -= taken;
            let done = self.is_last_round(&mut state, client, left, taken, stopped, &mut effects);
            if done && batch.is_empty() {
                state.spare = Some(batch);
                let after = self.leave(state, &mut effects);
                self.finish(&mut effects, after);
                return Ok(None);
            }
            let after = self.leave(state, &mut effects);
            self.finish(&mut effects, after);
            if done {
                break;
            }
            state = match self.enter_for(reading, left as u64) {
                Ok(state) if state.broker.epoch() == batch.epoch => state,
                // Nothing is leaked by what was handed out before: it is of an ended subscription
                // now, or was sought over.
                Err(end) if batch.is_empty() => return Err(self.pull_error(end)),
                Ok(_) | Err(_) => break,
            };
        }
        Ok(Some(batch))
    }

    /// Whether a lease ends after this round. Whoever waits is told if it leaves something behind
    /// (L9).
    #[inline]
    fn is_last_round(
        &self,
        state: &mut State,
        client: Client,
        left: usize,
        taken: usize,
        stopped: bool,
        effects: &mut Effects,
    ) -> bool {
        let is_scanning = state.is_scanning();
        let head = state.seen;
        let more = is_scanning || state.broker.has_deliverable(head, client);
        let goes_on = is_scanning && !state.broker.has_deliverable(head, client);
        let done = left == 0 || !goes_on && (!more || (taken == 0 && !stopped));
        if more && done && (is_scanning || state.broker.has_deliverable(head, ANYBODY)) {
            self.tell_one(state, effects);
        }
        done
    }

    #[inline]
    fn lease_round(
        &self,
        state: &mut State,
        request: &Request,
        most: usize,
        client: Client,
        reading: Reading,
        batch: &mut Batch,
    ) -> (usize, bool) {
        let mut max_messages = most;
        let mut max_bytes = u64::MAX;
        if request.owner != 0 {
            let Some(quota) = state.broker.owners().get(request.owner) else { return (0, false) };
            let room = usize::try_from(quota.room_for_messages()).unwrap_or(usize::MAX);
            max_messages = max_messages.min(room);
            max_bytes = quota.room_for_bytes();
        }
        let options = LeaseOptions {
            now: reading.now,
            max_messages,
            max_bytes,
            deadline: reading.deadline(request.ack_deadline.unwrap_or(state.ack_deadline)),
            owner: request.owner,
            client,
        };
        let start = batch.runs.len();
        let head = state.seen;
        let (broker, mut reader) = self.reader(state);
        let (taken, stopped) = broker.lease(head, &options, &mut reader, &mut batch.runs);
        if taken == 0 {
            return (taken, stopped);
        }
        if state.faults.is_some() && self.delays_last(state, reading, batch) {
            return (0, true);
        }
        let (_, mut reader) = self.reader(state);
        reader.resolve(batch, start);
        if let Some(history) = &mut state.history {
            history.note(batch, start);
        }
        self.reschedule(state);
        (taken, stopped)
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

    /// Leases for somebody who waits, or puts the waker on the list and answers `None`. The lease
    /// is taken in the poll that returns it, so a dropped future strands nothing (D6).
    #[inline]
    pub(crate) fn poll_lease(
        &self,
        request: &Request,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> Result<Option<Box<Batch>>, PullError> {
        match self.lease(request)? {
            Some(batch) if ticket.is_none() => Ok(Some(batch)),
            leased => self.wait(request, ticket, waker, leased),
        }
    }

    /// Goes on after a first look.
    fn wait(
        &self,
        request: &Request,
        ticket: &mut Option<u64>,
        waker: &Waker,
        mut leased: Option<Box<Batch>>,
    ) -> Result<Option<Box<Batch>>, PullError> {
        let mut was_told = false;
        loop {
            if leased.is_some() {
                if was_told || ticket.is_some() {
                    self.stop_waiting_after(ticket);
                }
                return Ok(leased);
            }
            let mut effects = Effects::default();
            let waker = waker.clone();
            let reading = Reading::at(self.core.latest());
            let mut state = self.enter(reading).map_err(|end| self.pull_error(end))?;
            // Asked under the lock, as whoever closes takes it after the mark is set.
            if self.core.lifecycle.is_closing() {
                return Err(PullError::Closed);
            }
            if self.is_starved(&mut state, request.owner) {
                // A stream at its quota is no waiter (L9).
                let replaced = state.starved.insert(request.owner, waker);
                self.observe(&mut state);
                let owed = self.give_up(&mut state, ticket, &mut effects);
                if owed {
                    self.tell_if_deliverable(&mut state, &mut effects);
                }
                let after = self.leave(state, &mut effects);
                drop(replaced);
                self.finish(&mut effects, after);
                return Ok(None);
            }
            if state.waiters.wait(ticket, request.place(), waker, &mut effects.old_waker) {
                self.core.wakes_ended(1);
                was_told = true;
            }
            if !state.is_registered {
                state.is_registered = true;
                self.view.register(self.me.clone());
            }
            self.observe(&mut state);
            // Looked at after registering, as a publisher looks at the flag after the head is set.
            if !self.may_deliver(&mut state, request.client(0)) {
                return Ok(None);
            }
            drop(state);
            leased = self.lease(request)?;
        }
    }

    /// Somebody who waited goes: it has what it wanted, or was dropped.
    pub(crate) fn stop_waiting(&self, ticket: &mut Option<u64>) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        if self.give_up(&mut state, ticket, &mut effects) {
            self.tell_if_deliverable(&mut state, &mut effects);
        }
        drop(state);
        effects.run();
    }

    /// The news that brought the waiter here has been used.
    fn stop_waiting_after(&self, ticket: &mut Option<u64>) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        self.give_up(&mut state, ticket, &mut effects);
        drop(state);
        effects.run();
    }

    /// Answers whether the waiter had been told, and so owes the news to another.
    fn give_up(&self, state: &mut State, ticket: &mut Option<u64>, effects: &mut Effects) -> bool {
        let was_active = state.waiters.has_active();
        let told = state.waiters.leave(ticket, &mut effects.old_waker);
        if told {
            self.core.wakes_ended(1);
        }
        if was_active && !state.waiters.has_active() {
            // Being on the list until now was activity (PULL-11).
            self.touch_now(state);
        }
        told
    }

    /// Something counts as activity at a time that nobody has read.
    fn touch_now(&self, state: &mut State) {
        if self.core.timeline.is_cheap() {
            state.touch(self.core.timeline.read().now);
        } else {
            state.is_touched = true;
        }
    }

    /// A publish has put something into the view.
    pub(crate) fn messages_arrived(&self, effects: &mut Effects) {
        let mut state = self.state.lock();
        state.is_registered = false;
        let trim = state.not_before.is_some() && self.skip_what_came_early(&mut state);
        self.offer_room(&mut state, effects);
        if self.may_deliver(&mut state, ANYBODY) {
            self.tell_one(&mut state, effects);
        }
        if (state.waiters.has_untold() || state.not_before.is_some()) && state.ended.is_none() {
            state.is_registered = true;
            self.view.register(self.me.clone());
        }
        drop(state);
        if trim {
            self.topic.trim(self);
        }
    }

    /// Settles one delivery.
    pub(crate) fn settle(&self, lease: LeaseId, how: Settle) -> Result<Settled, AckError> {
        let mut settled = Settled::Stale;
        self.settle_each([lease], how, |outcome| settled = outcome)?;
        Ok(settled)
    }

    /// Settles deliveries in order, under one lock.
    #[inline]
    pub(crate) fn settle_each(
        &self,
        leases: impl IntoIterator<Item = LeaseId>,
        how: Settle,
        mut outcome: impl FnMut(Settled),
    ) -> Result<(), AckError> {
        let mut tally = observe::Tally::default();
        let settled = self.settle_as(leases, how, true, |settled| {
            tally.count(matches!(settled, Settled::Done | Settled::Provisional));
            outcome(settled);
        });
        tally.report(how.into(), &self.name, &self.topic.name);
        settled
    }

    /// As `settle_each`; what is no activity keeps no subscription alive (EXP-3).
    pub(crate) fn settle_as(
        &self,
        leases: impl IntoIterator<Item = LeaseId>,
        how: Settle,
        is_activity: bool,
        mut outcome: impl FnMut(Settled),
    ) -> Result<(), AckError> {
        let reading = self.read_to_settle(how);
        let mut state = match self.enter_for(reading, 0) {
            Ok(state) => state,
            Err(End::Detached) => {
                leases.into_iter().for_each(|_| outcome(Settled::Stale));
                self.touch_detached(reading);
                return Ok(());
            }
            Err(end) => return Err(self.ack_error(end)),
        };
        let mut effects = Effects::default();
        if is_activity {
            self.touch_to_settle(&mut state, how, reading);
        }
        self.settle_in(&mut state, leases.into_iter(), how, reading, outcome, &mut effects);
        let after = self.leave(state, &mut effects);
        self.finish(&mut effects, after);
        Ok(())
    }

    /// Settles what is left of a batch, and keeps its box for the next one. If the subscription is
    /// gone all are stale.
    #[inline]
    pub(crate) fn settle_batch(&self, batch: Box<Batch>, how: Settle) -> BatchOutcome {
        let mut outcome = BatchOutcome::default();
        let reading = self.read_to_settle(how);
        let mut state = match self.enter_for(reading, 0) {
            Ok(state) => state,
            Err(end) => {
                outcome.stale = batch.len();
                if end == End::Detached {
                    self.touch_detached(reading);
                }
                return outcome;
            }
        };
        let mut effects = Effects::default();
        self.touch_to_settle(&mut state, how, reading);
        if matches!(how, Settle::Ack) && state.faults.is_none() {
            let (broker, mut reader) = self.reader(&mut state);
            let count = |settled, many| outcome.count(settled, many);
            broker.ack_runs(batch.epoch, &batch.runs, &mut reader, count);
            self.settled(&mut state, how, &mut effects);
        } else {
            let count = |settled| outcome.count(settled, 1);
            self.settle_in(&mut state, batch.leases(), how, reading, count, &mut effects);
        }
        let segments = state.keep_box(batch);
        let after = self.leave(state, &mut effects);
        self.finish(&mut effects, after);
        drop(segments);
        let done = outcome.done + outcome.provisional;
        observe::settled(how.into(), &self.name, &self.topic.name, done + outcome.stale, done);
        outcome
    }

    /// Nothing of a batch is left to be settled.
    pub(crate) fn keep_box(&self, batch: Box<Batch>) {
        let segments = self.state.lock().keep_box(batch);
        drop(segments);
    }

    #[inline]
    fn read_to_settle(&self, how: Settle) -> Reading {
        match how {
            Settle::Ack if self.exact_acks.load(Ordering::Relaxed) => self.core.read(),
            Settle::Nack if self.exact_nacks.load(Ordering::Relaxed) => self.core.read(),
            Settle::Ack | Settle::Nack => self.core.read_for_ack(),
            Settle::NackAfter(_) | Settle::Deadline(_) => self.core.read(),
        }
    }

    #[inline]
    fn settle_in(
        &self,
        state: &mut State,
        leases: impl Iterator<Item = LeaseId>,
        how: Settle,
        reading: Reading,
        mut outcome: impl FnMut(Settled),
        effects: &mut Effects,
    ) {
        if state.faults.is_none() {
            self.apply(state, leases, how, reading, outcome);
        } else {
            for lease in leases {
                match self.fault_of(state, lease, how) {
                    Some(settled) => outcome(settled),
                    None => self.apply(state, [lease].into_iter(), how, reading, &mut outcome),
                }
            }
        }
        self.settled(state, how, effects);
    }

    #[inline]
    fn apply(
        &self,
        state: &mut State,
        leases: impl Iterator<Item = LeaseId>,
        how: Settle,
        reading: Reading,
        mut outcome: impl FnMut(Settled),
    ) {
        let (broker, mut reader) = self.reader(state);
        let at = reading.deadline(Span::default());
        match how {
            Settle::Ack => broker.ack_many(leases, &mut reader, outcome),
            Settle::Nack => {
                leases.for_each(|lease| outcome(broker.nack(lease, at, None, &mut reader)));
            }
            Settle::NackAfter(delay) => {
                let ready_at = Some(reading.deadline(delay));
                leases.for_each(|lease| outcome(broker.nack(lease, at, ready_at, &mut reader)));
            }
            Settle::Deadline(span) => {
                let deadline = reading.deadline(span);
                leases.for_each(|l| outcome(broker.set_deadline(l, deadline, &mut reader)));
            }
        }
    }

    #[inline]
    fn touch_to_settle(&self, state: &mut State, how: Settle, reading: Reading) {
        match how {
            Settle::Ack | Settle::Nack if !self.core.timeline.is_cheap() => {
                state.is_touched = true;
            }
            _ => state.touch(reading.now),
        }
    }

    /// Tells who may go on now, and looks when something is due next.
    #[inline]
    fn settled(&self, state: &mut State, how: Settle, effects: &mut Effects) {
        match how {
            // What is acknowledged may be what its key waited for.
            Settle::Ack if state.broker.is_ordered() || state.faults.is_some() => {
                self.tell_if_deliverable(state, effects);
            }
            Settle::Ack => {}
            Settle::Nack => {
                self.tell_if_deliverable(state, effects);
                if state.broker.policy().retries() {
                    self.reschedule(state);
                }
            }
            Settle::NackAfter(_) | Settle::Deadline(_) => self.reschedule(state),
        }
    }

    /// Sends a delivery to the dead-letter topic (LIB-102). Without a policy it is given back.
    pub(crate) fn reject(&self, lease: LeaseId, reason: Option<&str>) -> Result<Settled, AckError> {
        let reading = self.core.read();
        let mut effects = Effects::default();
        let mut state = match self.enter(reading) {
            Ok(state) => state,
            Err(End::Detached) => {
                self.touch_detached(reading);
                return Ok(Settled::Stale);
            }
            Err(end) => return Err(self.ack_error(end)),
        };
        state.touch(reading.now);
        if !state.broker.policy().forwards() {
            drop(state);
            self.settle(lease, Settle::Nack)?;
            return Err(AckError::NoDeadLetterPolicy { subscription: self.name.to_string() });
        }
        let at = reading.deadline(Span::default());
        let (broker, mut reader) = self.reader(&mut state);
        let settled = broker.reject(lease, at, reason.map(Arc::from), &mut reader);
        let after = self.leave(state, &mut effects);
        self.finish(&mut effects, after);
        let done = usize::from(settled == Settled::Done);
        observe::settled(Answer::Reject, &self.name, &self.topic.name, 1, done);
        Ok(settled)
    }

    pub(crate) fn ack_id(&self, lease: LeaseId) -> AckId {
        AckId { name_hash: self.name_hash, incarnation: self.incarnation, lease }
    }

    /// What the caller is told: an outcome, or an error where answers must not be late (D16).
    pub(crate) fn outcome(&self, settled: Settled) -> Result<Outcome, AckFailure> {
        match settled {
            Settled::Done => Ok(Outcome::Done),
            Settled::Provisional => Ok(Outcome::Provisional),
            Settled::Unordered => Err(AckFailure::OutOfOrder),
            Settled::Transient => Err(AckFailure::Transient),
            Settled::Stale if self.is_exactly_once() => Err(AckFailure::InvalidAckId),
            Settled::Stale => Ok(Outcome::Stale),
        }
    }

    pub(crate) fn is_exactly_once(&self) -> bool {
        self.exactly_once.load(Ordering::Relaxed)
    }

    /// As `outcome`, for a single delivery.
    pub(crate) fn result(&self, lease: LeaseId, settled: Settled) -> Result<Outcome, AckError> {
        let failed =
            |failure| AckError::ExactlyOnce { failures: vec![(self.ack_id(lease), failure)] };
        self.outcome(settled).map_err(failed)
    }

    /// Whether an id was issued by this subscription or one of the same name before it (ACK-5,
    /// ACK-6).
    pub(crate) fn knows(&self, id: &AckId) -> bool {
        id.name_hash == self.name_hash
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
        let mut state = self.state.lock();
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
        self.wake_everybody(&mut self.state.lock(), &mut effects);
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
        let mut state = self.state.lock();
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
        let mut state = self.state.lock();
        let keeps = state.told;
        let head = self.head(&state);
        let mut ledger = *state.broker.ledger();
        ledger.removed += self.backlog_of(&state);
        let pinned = self.pinned_positions(&state);
        state.broker.end(head);
        self.tell_words(&mut state);
        let replay = state.replay.take();
        if let Some(segment) = state.cached.take() {
            effects.free(segment);
        }
        drop(state);
        drop(replay);
        Kept { keeps, pinned, ledger }
    }

    /// Called by the topic, under its lock, to learn what has changed.
    pub(crate) fn take_moves(&self) -> Moves {
        let mut state = self.state.lock();
        // Looked up before the log may forget it.
        self.weigh(&mut state, 0);
        let (from, to) = (state.told, self.keeps(&state));
        state.told = to;
        state.told_low = state.broker.low();
        while state.boundaries.front().is_some_and(|base| to.hold.is_some_and(|at| *base <= at)) {
            state.boundaries.pop_front();
        }
        let (pin, unpin) = state.broker.take_pins();
        // A straggler that was settled before anybody heard of it needs neither.
        let both: Vec<u64> = pin.iter().filter(|index| unpin.contains(index)).copied().collect();
        let single = |indices: Vec<u64>| indices.into_iter().filter(|index| !both.contains(index));
        let (pin, unpin) = (single(pin).collect(), single(unpin).collect());
        let (pin, unpin) = self.positions_of_pins(&mut state, pin, unpin);
        state.trim_replay();
        Moves { from, to, pin, unpin }
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
        let mut state = self.state.lock();
        if state.ended.is_none_or(|end| end == End::Detached) {
            self.reschedule(&mut state);
        }
    }

    /// Takes the lock with everything brought to `reading`, in rounds of bounded work (L6).
    #[inline]
    fn enter(&self, reading: Reading) -> Result<MutexGuard<'_, State>, End> {
        self.enter_slowly(self.state.lock(), reading, u64::MAX)
    }

    /// The same for one who asks for `wanted` fresh messages: `seen` may be short of the head only
    /// if that many are below it.
    #[inline]
    fn enter_for(&self, reading: Reading, wanted: u64) -> Result<MutexGuard<'_, State>, End> {
        let mut state = self.state.lock();
        let is_plain = state.ended.is_none()
            && state.not_before.is_none()
            && !state.broker.is_ordered()
            && reading.now < state.expires_at();
        if is_plain {
            if state.broker.cursor().saturating_add(wanted) > state.seen {
                self.look_at_head(&mut state);
            }
            if !state.broker.is_due(reading.now, state.seen) {
                return Ok(state);
            }
        }
        self.enter_slowly(state, reading, wanted)
    }

    /// The same where something is to be done first, or may be.
    fn enter_slowly<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        reading: Reading,
        wanted: u64,
    ) -> Result<MutexGuard<'a, State>, End> {
        loop {
            if let Some(end) = state.ended.filter(|end| *end != End::Detached) {
                return Err(end);
            }
            if state.has_expired(reading.now) {
                drop(state);
                self.expire();
                return Err(End::Deleted);
            }
            if let Some(end) = state.ended {
                return Err(end);
            }
            let cursor = state.broker.cursor();
            // Whose keys are in order may have to go past any number that wait for their turn.
            if cursor.saturating_add(wanted) > state.seen || state.broker.is_ordered() {
                self.look_at_head(&mut state);
            }
            let head = state.seen;
            let (broker, mut reader) = self.reader(&mut state);
            let more = broker.advance(reading.now, head, &mut reader);
            let goes_on = more || broker.cursor() != cursor;
            let skips = |state| self.skip_early(state, reading.now);
            if !goes_on && (state.not_before.is_none() || !skips(&mut state)) {
                return Ok(state);
            }
            drop(state);
            state = self.state.lock();
        }
    }

    /// Releases the lock. Answers what has to be done without it.
    #[inline]
    fn leave(&self, state: MutexGuard<'_, State>, effects: &mut Effects) -> After {
        let is_plain = self.is_unfiltered
            && state.replay.is_none()
            && !state.blocks
            && state.broker.is_plain()
            && !state.has_lapses_to_report()
            && !self.core.lifecycle.is_watched()
            && !self.core.budget.is_pressed()
            && state.broker.word_count().abs_diff(state.told_words) < TELL_WORDS;
        if is_plain {
            return After { trim: state.has_passed_boundary(), forward: false };
        }
        self.leave_slowly(state, effects)
    }

    fn leave_slowly(&self, mut state: MutexGuard<'_, State>, effects: &mut Effects) -> After {
        let may_forward = !state.is_forwarding && !state.is_paused;
        let forward = state.broker.has_outgoing() && may_forward;
        if state.broker.owners().has_freed() {
            for owner in state.broker.owners().take_freed() {
                if let Some(waker) = state.starved.remove(&owner) {
                    effects.wake(waker);
                }
            }
        }
        if let Some(ordering) = state.broker.ordering() {
            for owner in ordering.take_woken() {
                if let Some(waker) = state.waiters.tell_owner(owner) {
                    self.core.wake_begun();
                    effects.wake(waker);
                }
            }
        }
        if self.core.lifecycle.is_watched() && state.broker.outstanding() == 0 {
            effects.quiet(&self.core);
        }
        self.offer_room(&mut state, effects);
        #[cfg(feature = "tracing")]
        self.report_lapses(&mut state, effects);
        if self.core.budget.is_pressed() {
            let trim = self.leave_pressed(state, effects);
            return After { trim, forward };
        }
        if state.broker.word_count().abs_diff(state.told_words) >= TELL_WORDS {
            self.tell_words(&mut state);
        }
        let trim = if state.replay.is_some() {
            self.has_come_forward(&state)
        } else if self.is_unfiltered {
            state.has_passed_boundary()
        } else {
            if let Some(segment) = state.cached.take() {
                effects.free(segment);
            }
            let done = state.broker.low() - state.told_low;
            let is_empty = state.broker.low() == self.view.head();
            done >= TRIM_EVERY || (done > 0 && is_empty) || state.broker.has_pins()
        };
        After { trim, forward }
    }

    #[cfg(feature = "tracing")]
    fn report_lapses(&self, state: &mut State, effects: &mut Effects) {
        let lapses = state.broker.expired_leases();
        let news = lapses - std::mem::replace(&mut state.reported_lapses, lapses);
        if let Some(this) = self.me.upgrade().filter(|_| news > 0) {
            effects.lapsed(this, news);
        }
    }

    /// Under pressure everything that is freed is given back at once.
    #[cold]
    fn leave_pressed(&self, mut state: MutexGuard<'_, State>, effects: &mut Effects) -> bool {
        state.broker.shed_gaps();
        if let Some(segment) = state.cached.take() {
            effects.free(segment);
        }
        self.tell_words(&mut state) || self.keeps(&state) != state.told || state.broker.has_pins()
    }

    /// Tells the topic how many lease words there are. Answers whether that was news.
    fn tell_words(&self, state: &mut State) -> bool {
        let words = state.broker.word_count();
        let before = std::mem::replace(&mut state.told_words, words);
        self.topic.count_words(before, words);
        before != words
    }

    #[inline]
    fn finish(&self, effects: &mut Effects, after: After) {
        effects.carry_out();
        if after.trim {
            self.topic.trim(self);
        }
        if after.forward {
            self.forward();
        }
    }

    #[inline]
    fn reader<'a>(&'a self, state: &'a mut State) -> (&'a mut SubscriptionState, Reader<'a>) {
        let reader = Reader {
            seed: self.core.seed,
            view: (!self.is_unfiltered).then_some(&*self.view),
            directory: &self.topic.directory,
            stragglers: &state.stragglers,
            replay: state.replay.as_deref(),
            cached: &mut state.cached,
            boundaries: &mut state.boundaries,
        };
        (&mut state.broker, reader)
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

    /// Keeps the box of a batch for the next one. Answers the segments of it, to be let go when the
    /// lock is released.
    #[inline]
    fn keep_box(&mut self, mut batch: Box<Batch>) -> Segments {
        let segments = batch.clear();
        if batch.is_worth_keeping() {
            self.spare = Some(batch);
        }
        segments
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
        self.state.lock().timer = None;
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

/// Looks at messages by index, through view and directory.
struct Reader<'a> {
    seed: u64,
    /// `None` for an unfiltered subscription: there, index and position are the same.
    view: Option<&'a View>,
    directory: &'a RwLock<Directory>,
    stragglers: &'a BTreeMap<u64, u64>,
    replay: Option<&'a Replay>,
    cached: &'a mut Option<Arc<Segment>>,
    boundaries: &'a mut VecDeque<u64>,
}

impl Reader<'_> {
    fn position(&self, index: u64) -> Option<u64> {
        let found = match self.replay {
            None => self.position_in_view(index),
            Some(replay) => match replay.place(index) {
                Place::Log(position) => position,
                Place::View(index) => self.position_in_view(index),
            },
        };
        found.or_else(|| self.stragglers.get(&index).copied())
    }

    fn position_in_view(&self, index: u64) -> Option<u64> {
        match self.view {
            None => Some(index),
            Some(view) => view.position(index),
        }
    }

    /// The segment of a position; the one found last is kept at hand.
    fn segment(&mut self, position: u64) -> Option<&Arc<Segment>> {
        let hit = self.cached.as_ref().is_some_and(|segment| segment.at(position).is_some());
        if !hit {
            let found = self.directory.read().find(position).cloned()?;
            if self.view.is_none() && self.boundaries.back().is_none_or(|last| *last < found.base())
            {
                self.boundaries.push_back(found.base());
            }
            *self.cached = Some(found);
        }
        self.cached.as_ref()
    }

    /// The message at an index, with its position.
    fn published(&mut self, index: u64) -> Option<(u64, Published)> {
        let position = self.position(index)?;
        self.segment(position)?.at(position).map(|message| (position, message.clone()))
    }

    /// Fills in where the messages of the runs from `start` on lie.
    #[inline]
    fn resolve(&mut self, batch: &mut Batch, start: usize) {
        if self.view.is_none()
            && self.replay.is_none()
            && let Some([run]) = batch.runs.get_mut(start..)
            && let Some(segment) = self.segment(run.index)
            && run.index + u64::from(run.len) <= segment.end()
        {
            run.slot = (run.index - segment.base()) as u16;
            run.segment = batch.segments.len() as u32;
            batch.segments.push(Arc::clone(segment));
            return;
        }
        self.resolve_parts(batch, start);
    }

    /// The same for runs that are spread over the log.
    fn resolve_parts(&mut self, batch: &mut Batch, start: usize) {
        let unresolved: Runs = batch.runs.drain(start..).collect();
        let mut last: Option<(u64, u64)> = None;
        for mut rest in unresolved {
            while rest.len > 0 {
                let Some(position) = self.position(rest.index) else { break };
                let (base, end) = match last {
                    Some(range) if (range.0..range.1).contains(&position) => range,
                    _ => {
                        let Some(segment) = self.segment(position) else { break };
                        let range = (segment.base(), segment.end());
                        batch.segments.push(Arc::clone(segment));
                        *last.insert(range)
                    }
                };
                let most = u64::from(rest.len).min(end - position) as u32;
                let follows = |nth: &u32| {
                    let index = rest.index + u64::from(*nth);
                    self.position(index) == Some(position + u64::from(*nth))
                };
                let len = 1 + (1..most).take_while(follows).count() as u32;
                let segment = batch.segments.len() as u32 - 1;
                let slot = (position - base) as u16;
                batch.runs.push(Leased { segment, slot, ..rest.part(0, len) });
                rest = rest.part(len, rest.len - len);
            }
        }
    }
}

impl Backlog for Reader<'_> {
    fn meta(&mut self, index: u64) -> Option<Meta> {
        let position = self.position(index)?;
        let message = self.segment(position)?.at(position)?;
        let (expires, size) = (message.expires(), message.message.size() as u64);
        Some(Meta { published: message.time, expires, size })
    }

    fn key(&mut self, index: u64) -> Option<u64> {
        let seed = self.seed;
        let position = self.position(index)?;
        let message = &self.segment(position)?.at(position)?.message;
        let key = message.attributes().ordering_key_bytes();
        if key.is_empty() {
            return None;
        }
        // Keyed, so that nobody can make up keys that meet; two that do are one key.
        Some(RandomState::with_seeds(seed, !seed, KEY_SEED, seed ^ KEY_SEED).hash_one(key))
    }
}
