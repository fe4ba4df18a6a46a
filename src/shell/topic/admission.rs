//! Whether a topic takes more messages now, who waits until it does, and what it charges.
//!
//! Three things may stand in the way: publishers that came before, a subscription at its limit, the
//! bus's budget. All are judged under the topic's lock, in the same section that appends or puts
//! the publisher into the queue, so that no news is lost in between (I-8).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::task::Waker;

use smallvec::SmallVec;

use super::{TopicShared, TopicState};
use crate::broker::log::live::MESSAGE_OVERHEAD;
use crate::clock::Reading;
use crate::error::PublishReason;
use crate::events::Event;
use crate::message::Message;
use crate::shell::effects::Effects;
use crate::shell::matcher::{Matches, ViewKey};
use crate::shell::subscription::{Asked, Measure, Room, SubscriptionShared};
use crate::shell::timers::{Key, Rank, Timed};
use crate::shell::view::View;
use crate::sync::{Arc, Ordering};
use crate::time::{Span, Time};

/// What an entry of a filtered view takes.
pub(super) const ENTRY_BYTES: u64 = 8;

/// What a lease word takes.
const WORD_BYTES: u64 = size_of::<crate::broker::lease::Word>() as u64;

/// A publisher that has waited this long is reported by an event.
const BLOCKED_AFTER: Span = Span::SECOND;

/// How a publish gets past the doors.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Gate {
    /// In order, with the place in the queue that it holds.
    Queue(Option<u64>),
    /// Charged, never waiting: replies.
    Open,
    /// As `Open`, and not refused by a subscription either: what is due and was accepted before.
    Accepted,
    /// Room was reserved; the permit gives it back once the publish is done.
    Reserved,
}

/// What a publish brings.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Load {
    pub(crate) messages: u64,
    /// With overhead.
    pub(crate) charge: u64,
    /// The shortest time to live among the messages; `FOREVER` if none has one.
    pub(crate) least_ttl: Span,
    /// Whether some message has an idempotency key.
    pub(crate) has_keys: bool,
}

impl Load {
    #[inline]
    pub(crate) fn new(messages: usize, bytes: u64) -> Self {
        let messages = messages as u64;
        let load = Self { messages, charge: 0, least_ttl: Span::FOREVER, has_keys: false };
        load.with_bytes(bytes)
    }

    /// The same of messages that have so many bytes.
    #[inline]
    pub(crate) fn with_bytes(self, bytes: u64) -> Self {
        let overhead = self.messages.saturating_mul(MESSAGE_OVERHEAD);
        Self { charge: bytes.saturating_add(overhead), ..self }
    }

    pub(crate) fn of(messages: &[Message]) -> Self {
        let bytes = messages.iter().map(|message| message.size() as u64).sum();
        let mut load = Self::new(messages.len(), bytes);
        messages.iter().for_each(|message| load.note(message));
        load
    }

    /// Takes notice of what hardly any message has.
    #[inline]
    pub(crate) fn note(&mut self, message: &Message) {
        if message.has_rare() {
            self.least_ttl = self.least_ttl.min(message.ttl_span());
            self.has_keys |= !message.idempotency_key().is_empty();
        }
    }

    /// Whether nothing has a time to live or an idempotency key.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.least_ttl == Span::FOREVER && !self.has_keys
    }

    /// Without overhead.
    pub(crate) fn bytes(self) -> u64 {
        self.charge - self.messages.saturating_mul(MESSAGE_OVERHEAD)
    }
}

/// Subscriptions that drop their oldest messages once the publish is done.
pub(super) type Overflowing = SmallVec<[Arc<SubscriptionShared>; 1]>;

/// At which head of their view, and at which sum of its bytes, subscriptions need attention: they
/// may be full there (L4).
#[derive(Debug, Default)]
pub(crate) struct Attention {
    messages: Due,
    bytes: Due,
}

/// When each is to be looked at, and which it is.
type Due = BinaryHeap<Reverse<(u64, u64)>>;

/// The doors of a topic, behind its lock.
#[derive(Debug, Default)]
pub(super) struct Doors {
    pub(super) publishers: super::super::publishers::Publishers,
    /// Limited subscriptions without a filter.
    attention: Attention,
    /// Limited subscriptions with one; their heaps are with the views.
    filtered: BTreeMap<u32, Attention>,
    /// Bytes promised to permits.
    pub(super) reserved: u64,
    /// Entries in all filtered views.
    pub(super) entries: u64,
    /// What the bus's budget knows of.
    pub(super) reported: u64,
    watch: Option<Key>,
}

impl TopicShared {
    /// Whether nothing at all stands in the way, which is the rule: the short form of
    /// [`admit`](Self::admit).
    #[inline]
    pub(super) fn is_open(&self, state: &TopicState, load: Load, gate: Gate) -> bool {
        let is_turn = match gate {
            Gate::Queue(ticket) => {
                state.doors.publishers.may_go(ticket) && self.has_room(state, load.charge)
            }
            Gate::Open | Gate::Reserved | Gate::Accepted => true,
        };
        is_turn
            && load.charge <= self.core.budget.config.bytes
            && state.doors.filtered.is_empty()
            && !state.doors.attention.is_due(state.asked(load))
    }

    /// Judges a publish; answers the subscriptions that will have to drop for it.
    #[cold]
    pub(super) fn admit(
        &self,
        state: &mut TopicState,
        load: Load,
        messages: &[Message],
        matches: &Matches,
        gate: Gate,
        reading: Reading,
    ) -> Result<Overflowing, PublishReason> {
        self.check_size(load)?;
        // Before the queue, because what never fits fails at once.
        let overflowing = self.check_limits(state, load, messages, matches, gate, reading)?;
        self.admit_charge(state, load, gate)?;
        Ok(overflowing)
    }

    fn check_size(&self, load: Load) -> Result<(), PublishReason> {
        let max = self.core.budget.config.bytes;
        match load.charge > max {
            true => Err(PublishReason::AboveBudget { bytes: load.charge, max }),
            false => Ok(()),
        }
    }

    /// Judges a publish by the queue and the budget alone.
    #[inline]
    fn admit_charge(
        &self,
        state: &TopicState,
        load: Load,
        gate: Gate,
    ) -> Result<(), PublishReason> {
        if let Gate::Queue(ticket) = gate {
            let may_go = state.doors.publishers.may_go(ticket);
            if !may_go || !self.has_room(state, load.charge) {
                return Err(self.no_room(None));
            }
        }
        Ok(())
    }

    /// Judges a message that is to be published later, when others will subscribe.
    pub(super) fn admit_later(
        &self,
        state: &TopicState,
        load: Load,
        gate: Gate,
    ) -> Result<(), PublishReason> {
        self.check_size(load)?;
        self.admit_charge(state, load, gate)
    }

    /// Whether it is the budget that stands in the way of `charge` more.
    pub(crate) fn is_short_of_budget(&self, charge: u64) -> bool {
        !self.has_room(&self.lock(), charge)
    }

    /// Whether the budget has room for `charge` more on this topic.
    #[inline]
    fn has_room(&self, state: &TopicState, charge: u64) -> bool {
        let budget = &self.core.budget;
        let charged = self.charged(state);
        if charged < budget.config.topic_reserve {
            return true;
        }
        budget.fits(charge.saturating_add(charged.saturating_sub(state.doors.reported)))
    }

    fn no_room(&self, subscription: Option<&SubscriptionShared>) -> PublishReason {
        PublishReason::NoRoom {
            topic: self.name.to_string(),
            subscription: subscription.map(|full| full.name.to_string()),
        }
    }

    /// Looks at limited subscriptions that may be full by now, and at no others (L4).
    #[inline]
    fn check_limits(
        &self,
        state: &mut TopicState,
        load: Load,
        messages: &[Message],
        matches: &Matches,
        gate: Gate,
        reading: Reading,
    ) -> Result<Overflowing, PublishReason> {
        let mut overflowing = Overflowing::new();
        let asked = state.asked(load);
        if state.doors.attention.is_due(asked) {
            let mut attention = std::mem::take(&mut state.doors.attention);
            let looked = self.look(state, &mut attention, asked, gate, reading, &mut overflowing);
            state.doors.attention = attention;
            looked?;
        }
        if !state.doors.filtered.is_empty() {
            let counts = self.count_matches(state, messages, matches);
            self.look_at_filtered(state, counts, gate, reading, &mut overflowing)?;
        }
        Ok(overflowing)
    }

    /// How many of the messages each limited view would get, and their bytes.
    #[cold]
    fn count_matches(
        &self,
        state: &TopicState,
        messages: &[Message],
        matches: &Matches,
    ) -> Vec<(ViewKey, u64, u64)> {
        let mut counts: BTreeMap<u32, (ViewKey, u64, u64)> = BTreeMap::new();
        let mut matches = matches.clone();
        for (message, nth) in messages.iter().zip(0..) {
            for key in state.views.takers(nth, message, &mut matches, &self.matcher) {
                if state.doors.filtered.contains_key(&key.slot) {
                    let (_, count, bytes) = counts.entry(key.slot).or_insert((key, 0, 0));
                    *count += 1;
                    *bytes += message.size() as u64;
                }
            }
        }
        counts.into_values().collect()
    }

    #[cold]
    fn look_at_filtered(
        &self,
        state: &mut TopicState,
        counts: Vec<(ViewKey, u64, u64)>,
        gate: Gate,
        reading: Reading,
        overflowing: &mut Overflowing,
    ) -> Result<(), PublishReason> {
        for (key, count, bytes) in counts {
            let Some(filtered) = state.views.get(key) else { continue };
            let (head, accepted_bytes) = (filtered.view.head(), filtered.accepted_bytes);
            let asked = Asked { head, accepted_bytes, count, bytes };
            let Some(mut attention) = state.doors.filtered.remove(&key.slot) else { continue };
            let looked = self.look(state, &mut attention, asked, gate, reading, overflowing);
            state.doors.filtered.insert(key.slot, attention);
            looked?;
        }
        Ok(())
    }

    #[cold]
    fn look(
        &self,
        state: &TopicState,
        attention: &mut Attention,
        asked: Asked,
        gate: Gate,
        reading: Reading,
        overflowing: &mut Overflowing,
    ) -> Result<(), PublishReason> {
        let mut seen = Vec::new();
        let mut verdict = Ok(());
        while verdict.is_ok() {
            let Some((measure, filed, incarnation)) = attention.pop_due(asked) else { break };
            let Some(subscription) = state.subscriptions.get(&incarnation) else { continue };
            let judged = subscription.room_for(asked, measure, filed, reading);
            let Some((room, next)) = judged else { continue };
            match (room, gate) {
                (Room::Enough, _) | (Room::Full, Gate::Open | Gate::Reserved) => {}
                (Room::Full | Room::Refused, Gate::Accepted) => {}
                (Room::Overflows, _) => overflowing.push(Arc::clone(subscription)),
                (Room::Full, Gate::Queue(_)) => verdict = Err(self.no_room(Some(subscription))),
                (Room::Refused, _) => {
                    let subscription = subscription.name.to_string();
                    verdict = Err(PublishReason::BacklogFull { subscription });
                }
                (Room::NeverEnough(Measure::Messages, max), _) => {
                    let (subscription, count) = (subscription.name.to_string(), asked.count);
                    verdict = Err(PublishReason::AboveLimit { subscription, count, max });
                }
                (Room::NeverEnough(Measure::Bytes, max), _) => {
                    let (subscription, bytes) = (subscription.name.to_string(), asked.bytes);
                    verdict = Err(PublishReason::AboveByteLimit { subscription, bytes, max });
                }
            }
            seen.push((measure, next, incarnation));
        }
        seen.into_iter().for_each(|(measure, next, which)| attention.file(measure, next, which));
        verdict
    }

    /// A subscription has a limit, or another one: it is looked at with the next publish.
    pub(super) fn watch_limit(&self, state: &mut TopicState, subscription: &SubscriptionShared) {
        let accepted_bytes = state.bytes_accepted_by(&subscription.view);
        let Some(filed) = subscription.file_attention(accepted_bytes) else { return };
        let attention = match subscription.view.key {
            None => &mut state.doors.attention,
            Some(key) => state.doors.filtered.entry(key.slot).or_default(),
        };
        for (measure, at) in filed {
            attention.file(measure, at, subscription.incarnation);
        }
    }

    /// A subscription with a limit has begun anew: more may be there than before, or less.
    pub(super) fn look_at_limit_again(
        &self,
        state: &mut TopicState,
        subscription: &SubscriptionShared,
        effects: &mut Effects,
    ) {
        if subscription.is_limited() {
            self.watch_limit(state, subscription);
            self.tell_first(state, effects);
        }
    }

    /// Bytes of what a view has taken in so far.
    pub(crate) fn bytes_accepted_by(&self, view: &View) -> u64 {
        self.lock().bytes_accepted_by(view)
    }

    /// The limit of a live subscription has changed.
    pub(crate) fn limit_changed(&self, subscription: &SubscriptionShared) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        if state.subscriptions.contains_key(&subscription.incarnation) {
            self.watch_limit(&mut state, subscription);
        }
        self.tell_first(&mut state, &mut effects);
        drop(state);
        effects.run();
    }

    /// Puts a publisher that was turned away into the queue. Answers false if it should try again
    /// at once.
    pub(crate) fn wait_for_room(
        &self,
        load: Load,
        messages: &[Message],
        ticket: &mut Option<u64>,
        waker: Waker,
        reading: Reading,
    ) -> bool {
        let mut matches = Matches::none();
        self.matching(messages, &mut matches);
        let mut state = self.lock();
        let is_first = state.doors.publishers.may_go(*ticket);
        if state.deleted
            || !matches!(
                self.admit(&mut state, load, messages, &matches, Gate::Queue(*ticket), reading),
                Err(PublishReason::NoRoom { .. })
            )
        {
            return false;
        }
        let publishers = &mut state.doors.publishers;
        let (old, was_told) = publishers.wait(ticket, load.charge, reading.now, waker);
        if was_told {
            self.core.wakes_ended(1);
        }
        let mut stays = true;
        if is_first && !self.has_room(&state, load.charge) {
            // Looked at after it is on the list, as whoever frees looks at the list after.
            stays = self.core.budget.wait(&self.me, self.id, load.charge)
                && !self.has_room(&state, load.charge);
        }
        if state.doors.watch.is_none() {
            self.watch(&mut state, reading.now.after(BLOCKED_AFTER));
        }
        drop(state);
        drop(old);
        stays
    }

    /// A publisher leaves the queue, served or not; the next one is told.
    pub(crate) fn stop_waiting(&self, ticket: &mut Option<u64>) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        if let Some(left) = state.doors.publishers.leave(ticket) {
            if left.was_told {
                self.core.wakes_ended(1);
            }
            effects.old_waker = left.waker;
            if left.was_first {
                self.tell_first(&mut state, &mut effects);
            }
        }
        if state.doors.publishers.is_empty() {
            if let Some(key) = state.doors.watch.take() {
                self.core.timers.cancel(key);
            }
            let need = self.core.timers.observe_waiting(self.id, false);
            self.core.satisfy(need);
            self.core.budget.stop_waiting(self.id);
        }
        drop(state);
        effects.run();
        // What the one that left did not take may be enough for others.
        if self.core.budget.is_pressed() {
            self.core.room_freed();
        }
    }

    /// There may be room: the first publisher looks.
    pub(crate) fn tell_first_publisher(&self) {
        let mut effects = Effects::default();
        self.tell_first(&mut self.lock(), &mut effects);
        effects.run();
    }

    pub(super) fn tell_first(&self, state: &mut TopicState, effects: &mut Effects) {
        if let Some(waker) = state.doors.publishers.tell_first() {
            self.core.wake_begun();
            effects.wake(waker);
        }
    }

    pub(super) fn tell_all(&self, state: &mut TopicState, effects: &mut Effects) {
        for waker in state.doors.publishers.tell_all() {
            self.core.wake_begun();
            effects.wake(waker);
        }
    }

    /// What the topic has of the budget. A message's own charge pays for one lease word; those of
    /// further subscriptions come on top at hand-out.
    #[inline]
    pub(super) fn charged(&self, state: &TopicState) -> u64 {
        let (live, doors) = (state.log.live(), &state.doors);
        let words = self.words.load(Ordering::Relaxed).saturating_sub(live.messages);
        let keys = state.deduplication.as_ref().map_or(0, |known| known.charge());
        let beside = doors.reserved + state.delayed.charge() + keys;
        live.charge() + doors.entries * ENTRY_BYTES + words * WORD_BYTES + beside
    }

    /// A subscription has more lease words, or fewer, than it had said.
    #[inline]
    pub(crate) fn count_words(&self, before: u64, now: u64) {
        self.words.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Tells the budget what the topic holds now, and who waits that something was given back.
    #[inline]
    pub(super) fn settle_account(&self, state: &mut TopicState, effects: &mut Effects) {
        let budget = &self.core.budget;
        let is_pressed = budget.is_pressed();
        if is_pressed {
            state.log.count_exactly();
        }
        let (before, now) = (state.doors.reported, self.charged(state));
        if before.abs_diff(now) <= budget.slack() && (before == now || !is_pressed) {
            return;
        }
        let is_awaited = budget.report(before, now);
        state.doors.reported = now;
        if is_awaited {
            effects.room(&self.core);
            if let Some(charge) = state.doors.publishers.first_charge()
                && self.has_room(state, charge)
            {
                self.tell_first(state, effects);
            }
        }
    }

    /// Holds room for a permit.
    pub(crate) fn reserve(
        &self,
        charge: u64,
        gate: Gate,
        reading: Reading,
    ) -> Result<(), PublishReason> {
        let mut effects = Effects::default();
        let matches = Matches::none();
        let mut state = self.lock();
        if state.deleted {
            drop(state);
            return Err(self.gone());
        }
        let load = Load { charge, ..Load::new(1, 0) };
        self.admit(&mut state, load, &[], &matches, gate, reading)?;
        state.doors.reserved += charge;
        self.settle_account(&mut state, &mut effects);
        drop(state);
        effects.run();
        Ok(())
    }

    /// A permit gives back what it has not used.
    pub(crate) fn unreserve(&self, charge: u64) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        state.doors.reserved -= charge;
        self.settle_account(&mut state, &mut effects);
        drop(state);
        effects.run();
    }

    /// Publishers that wait, and since when the first of them does.
    pub(crate) fn waiting_publishers(&self) -> (usize, Option<Time>) {
        let state = self.lock();
        (state.doors.publishers.len(), state.doors.publishers.first_since())
    }

    /// The subscription that stands in the way of publishers, or has the largest backlog.
    pub(crate) fn blocker(&self) -> Option<Arc<str>> {
        let subscriptions = self.subscriptions();
        let full = subscriptions.iter().find(|subscription| subscription.is_blocking());
        let largest = || subscriptions.iter().max_by_key(|subscription| subscription.backlog());
        full.or_else(largest).map(|subscription| Arc::clone(&subscription.name))
    }

    /// Somebody waits: time has to go on, and after a second it is reported.
    fn watch(&self, state: &mut TopicState, due: Time) {
        let key = Key { due: due.min(Time::LAST), rank: Rank::Blocked, id: self.id };
        state.doors.watch = Some(key);
        let watch: std::sync::Weak<Watch> = Arc::downgrade(&self.watch);
        let need = self.core.timers.schedule(None, key, watch, true);
        self.core.satisfy(need);
        let need = self.core.timers.observe_waiting(self.id, true);
        self.core.satisfy(need);
    }
}

impl TopicState {
    /// What a publish asks of subscriptions without a filter.
    #[inline]
    fn asked(&self, load: Load) -> Asked {
        Asked {
            head: self.log.head(),
            accepted_bytes: self.log.appended_bytes(),
            count: load.messages,
            bytes: load.bytes(),
        }
    }
}

impl Doors {
    /// Up to which head of the log, and up to which sum of its bytes, no subscription can be full.
    pub(super) fn open_until(&self) -> (u64, u64) {
        match self.filtered.is_empty() {
            true => self.attention.next_due(),
            false => (0, 0),
        }
    }

    /// A view is gone, and the limits of its subscriptions with it.
    pub(super) fn forget_view(&mut self, key: ViewKey) {
        self.filtered.remove(&key.slot);
    }
}

impl Attention {
    #[inline]
    fn is_due(&self, asked: Asked) -> bool {
        let due = |due: &Due, to: u64| due.peek().is_some_and(|Reverse((at, _))| *at < to);
        due(&self.messages, asked.head + asked.count)
            || due(&self.bytes, asked.accepted_bytes + asked.bytes)
    }

    /// The first head, and the first sum of bytes, at which one is due.
    fn next_due(&self) -> (u64, u64) {
        let first = |due: &Due| due.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        (first(&self.messages), first(&self.bytes))
    }

    /// Takes one that is due off the heap: by which measure, where it was filed, and which it is.
    fn pop_due(&mut self, asked: Asked) -> Option<(Measure, u64, u64)> {
        let pop = |due: &mut Due, to: u64| {
            due.peek().is_some_and(|Reverse((at, _))| *at < to).then(|| due.pop()).flatten()
        };
        if let Some(Reverse((at, which))) = pop(&mut self.messages, asked.head + asked.count) {
            return Some((Measure::Messages, at, which));
        }
        let Reverse((at, which)) = pop(&mut self.bytes, asked.accepted_bytes + asked.bytes)?;
        Some((Measure::Bytes, at, which))
    }

    fn file(&mut self, measure: Measure, at: u64, which: u64) {
        match measure {
            Measure::Messages => self.messages.push(Reverse((at, which))),
            Measure::Bytes => self.bytes.push(Reverse((at, which))),
        }
    }
}

/// Reports a publisher that has waited for a second.
pub(crate) struct Watch(pub(super) std::sync::Weak<TopicShared>);

impl Timed for Watch {
    fn fire(self: Arc<Self>, reading: Reading) {
        let Some(topic) = self.0.upgrade() else { return };
        topic.lock().doors.watch = None;
        let (waiting, since) = topic.waiting_publishers();
        let Some(since) = since else { return };
        let due = since.after(BLOCKED_AFTER);
        if due <= reading.now {
            topic.core.events.send(Event::PublisherBlocked {
                topic: topic.name.to_string(),
                waiting,
                subscription: topic.blocker().map(|name| name.to_string()),
            });
        }
        let next = due.max(reading.now.after(BLOCKED_AFTER));
        let mut state = topic.lock();
        if !state.doors.publishers.is_empty() && state.doors.watch.is_none() {
            topic.watch(&mut state, next);
        }
    }
}
