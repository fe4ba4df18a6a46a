//! The reference: one topic and its subscriptions, as simple as the specification can be read.
//!
//! One list per subscription, linear scans, no index, no timer, no cursor. It shares no code and
//! no types with the bus: messages are numbers, times are milliseconds. Time passes only in
//! [`Naive::advance`]; whatever a moment brings is worked out by looking at every message.

use std::collections::{BTreeMap, BTreeSet};

/// What one settlement did.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Stale,
    NotFound,
    Provisional,
    /// With exactly-once delivery: stale (EOD-4), or before an earlier one of its key (EOD-9).
    Invalid,
    Unordered,
    /// By a fault on demand (EOD-10).
    Transient,
}

impl Outcome {
    fn is_effective(self) -> bool {
        matches!(self, Outcome::Done | Outcome::Provisional)
    }
}

/// What goes wrong with one answer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Lost,
    Failed,
    Duplicate,
}

/// Why nothing can be pulled, sought or captured.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Absent,
    Precondition,
}

/// One hand-out of one message: its id, the number of the attempt, the number of the hand-out,
/// which differs where a hand-out was taken back and does not count (ORD-7), and the number of
/// seeks before it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lease {
    pub(crate) message: u64,
    pub(crate) attempt: u32,
    pub(crate) hand_out: u32,
    pub(crate) epoch: u32,
}

/// What a subscription does with deliveries that fail.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    /// The least and the greatest delay (RTY-3).
    pub(crate) retry: Option<(u64, u64)>,
    pub(crate) max_attempts: Option<u32>,
}

/// What `stats()` must say.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) backlog: u64,
    pub(crate) ready: u64,
    pub(crate) delayed: u64,
    pub(crate) outstanding: u64,
    pub(crate) provisional: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Naive {
    pub(crate) now: u64,
    /// The topic's retention, while there is a topic.
    pub(crate) topic: Option<Option<u64>>,
    pub(crate) subscriptions: BTreeMap<usize, Subscription>,
    /// How many topics there were; the number of the last one.
    pub(crate) topics: u64,
    /// Everything that was ever published, by topic.
    pub(crate) logs: BTreeMap<u64, Vec<Entry>>,
    /// From which place of its log on the topic keeps what is acknowledged (RET-2).
    retained_from: Option<usize>,
    pub(crate) snapshots: BTreeMap<u64, Snapshot>,
    /// What waits to be published, in order of acceptance: when it is due, its id, what it is.
    pub(crate) waiting: Vec<(u64, u64, Draft)>,
    /// The topic's deduplication window, and what was accepted lately: key, id, when.
    window: Option<u64>,
    accepted: Vec<(u64, u64, u64)>,
    /// Dead letters of subscriptions that have expired since, until somebody looks.
    dead_of_gone: BTreeMap<usize, Vec<u64>>,
}

/// What a publisher gives.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) attribute: Option<u64>,
    pub(crate) key: Option<u64>,
    /// For how long it lives (LIB-370).
    pub(crate) ttl: Option<u64>,
    /// What makes it the same as another one (LIB-381).
    pub(crate) idempotency: Option<u64>,
}

/// What was published.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Entry {
    id: u64,
    pub(crate) published: u64,
    draft: Draft,
}

/// SNP-1: what was unacknowledged, and all from a place of the log on.
#[derive(Debug)]
pub(crate) struct Snapshot {
    topic: u64,
    unacked: BTreeSet<u64>,
    from: usize,
    pub(crate) expires: u64,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) incarnation: u64,
    /// The value that attribute `k` must have; `None` takes everything.
    pub(crate) filter: Option<u64>,
    pub(crate) ack_deadline: u64,
    pub(crate) retention: u64,
    /// Whether its topic still exists (RES-11, RES-12).
    pub(crate) attached: bool,
    /// The backlog in publish order; what is acknowledged or expired is not in it.
    messages: Vec<Message>,
    last_was_redelivery: bool,
    /// Whether keys have an order (ORD-1).
    pub(crate) is_ordered: bool,
    pub(crate) policies: Policies,
    /// What has gone to the dead-letter topic, until somebody looks.
    pub(crate) dead: Vec<u64>,
    /// The number of its topic.
    topic: u64,
    /// Seeks so far.
    epoch: u32,
    /// From which place of the log on it keeps what it has acknowledged (RET-3).
    acked_from: Option<usize>,
    /// What is published before is acknowledged on arrival (SEEK-4).
    not_before: Option<u64>,
    pub(crate) detached: bool,
    /// After how much idle time it goes (EXP-2), and since when it is idle.
    pub(crate) ttl: Option<u64>,
    last_activity: u64,
    pub(crate) exactly_once: bool,
}

#[derive(Debug)]
struct Message {
    id: u64,
    published: u64,
    /// When its own time to live is over.
    expires: u64,
    key: Option<u64>,
    attempts: u32,
    hand_outs: u32,
    state: State,
    /// Handed out with exactly-once delivery on (EOD-2).
    strict: bool,
    /// A hand-out was undone by a fault (LIB-402).
    was_held_back: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// By a wish of the consumer.
    Delayed {
        until: u64,
    },
    /// By the retry policy; after a lapse the newest id can still act (RTY-8).
    BackingOff {
        until: u64,
        lapsed: bool,
    },
    Leased {
        until: u64,
    },
    /// The deadline has passed, the newest id can still act (LS-8, LS-9).
    Lapsed,
    /// Acknowledged before an earlier message of its key (ORD-7).
    Provisional,
}

impl Naive {
    /// Moves the clock and lets happen what the new moment brings.
    pub(crate) fn advance(&mut self, by: u64) {
        let end = self.now + by;
        loop {
            let dues = self.waiting.iter().map(|(due, ..)| *due);
            let next = self.ends().into_iter().chain(dues).filter(|at| *at >= self.now).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = next;
            self.publish_what_is_due();
            self.catch_up();
        }
        self.now = end;
        self.catch_up();
    }

    pub(crate) fn create_topic(&mut self, retention: Option<u64>) {
        self.topic = Some(retention);
        self.topics += 1;
        self.logs.insert(self.topics, Vec::new());
        self.retained_from = retention.map(|_| 0);
        (self.window, self.accepted) = (None, Vec::new());
    }

    /// LIB-381, LIB-382: without a window what was accepted is forgotten.
    pub(crate) fn set_window(&mut self, window: Option<u64>) {
        self.window = window;
        if window.is_none() {
            self.accepted.clear();
        }
    }

    pub(crate) fn window(&self) -> Option<u64> {
        self.window
    }

    /// LIB-381: the id under which the same was accepted less than the window ago.
    pub(crate) fn is_known(&self, draft: Draft) -> Option<u64> {
        let (window, key) = (self.window?, draft.idempotency?);
        let last = self.accepted.iter().rev().find(|(known, ..)| *known == key);
        last.filter(|(.., at)| self.now < at + window).map(|(_, id, _)| *id)
    }

    fn accept(&mut self, id: u64, draft: Draft) {
        if let (Some(_), Some(key)) = (self.window, draft.idempotency) {
            self.accepted.push((key, id, self.now));
        }
    }

    /// LIB-375: it has its id now, and is in no backlog before it is due.
    pub(crate) fn publish_later(&mut self, due: u64, id: u64, draft: Draft) {
        self.accept(id, draft);
        self.waiting.push((due, id, draft));
    }

    /// LIB-377, LIB-381: it counts for nothing any more. Answers whether it waited.
    pub(crate) fn withdraw(&mut self, id: u64) -> bool {
        let waited = self.waiting.len();
        self.waiting.retain(|(_, waiting, _)| *waiting != id);
        let was_there = self.waiting.len() < waited;
        self.accepted.retain(|(_, accepted, _)| !was_there || *accepted != id);
        was_there
    }

    /// LIB-375: at one instant in the order of acceptance.
    fn publish_what_is_due(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.waiting.extract_if(.., |(due, ..)| *due <= now).collect();
        for (_, id, draft) in due {
            self.append(id, draft);
        }
    }

    /// RES-11: the subscriptions stay, nothing new arrives; the topic's retention ends (L15).
    pub(crate) fn delete_topic(&mut self) {
        self.topic = None;
        self.waiting.clear(); // LIB-377
        for subscription in self.subscriptions.values_mut() {
            subscription.attached = false;
        }
        self.catch_up();
    }

    /// RES-13, PUB-8: a new subscription starts empty.
    pub(crate) fn create(&mut self, slot: usize, mut subscription: Subscription) {
        (subscription.topic, subscription.last_activity) = (self.topics, self.now);
        self.subscriptions.insert(slot, subscription);
    }

    /// PUB-7, FIL-2: every attached subscription whose filter matches; answers how many.
    pub(crate) fn publish(&mut self, id: u64, draft: Draft) -> usize {
        self.accept(id, draft);
        self.append(id, draft)
    }

    fn append(&mut self, id: u64, draft: Draft) -> usize {
        let entry = Entry { id, published: self.now, draft };
        if let Some(log) = self.logs.get_mut(&self.topics) {
            log.push(entry);
        }
        let takers = self.subscriptions.values_mut();
        takers
            .filter(|subscription| subscription.attached && subscription.takes(&entry))
            .map(|taker| {
                // SEEK-4, LIB-143: what comes too early is taken and acknowledged.
                if taker.not_before.is_none_or(|from| from <= entry.published) {
                    taker.messages.push(Message::fresh(&entry));
                }
            })
            .count()
    }

    /// RET-8: a new retention applies to stored messages at once; LS-19: a new ack deadline does
    /// not touch running leases.
    pub(crate) fn update(
        &mut self,
        slot: usize,
        ack_deadline: Option<u64>,
        retention: Option<u64>,
    ) {
        if let Some(subscription) = self.subscriptions.get_mut(&slot) {
            subscription.last_activity = self.now;
            subscription.ack_deadline = ack_deadline.unwrap_or(subscription.ack_deadline);
            subscription.retention = retention.unwrap_or(subscription.retention);
        }
        self.catch_up();
    }

    /// RET-5: a topic that is given retention keeps what is published from then on.
    pub(crate) fn update_topic(&mut self, retention: Option<u64>) {
        let end = self.logs[&self.topics].len();
        self.retained_from = retention.map(|_| self.retained_from.unwrap_or(end));
        self.topic = Some(retention);
        self.catch_up();
    }

    /// RET-3: it begins with what is unacknowledged.
    pub(crate) fn retain_acked(&mut self, slot: usize, is_on: bool) {
        let Some(subscription) = self.subscriptions.get_mut(&slot) else { return };
        subscription.last_activity = self.now;
        let log = &self.logs[&subscription.topic];
        let oldest = subscription.messages.first().map(|message| message.id);
        let begin = log.iter().position(|entry| Some(entry.id) == oldest).unwrap_or(log.len());
        let is_kept = is_on && !subscription.detached;
        subscription.acked_from = is_kept.then(|| subscription.acked_from.unwrap_or(begin));
    }

    /// EOD-2.
    pub(crate) fn set_exactly_once(&mut self, slot: usize, is_on: bool) {
        if let Some(subscription) = self.subscriptions.get_mut(&slot) {
            (subscription.exactly_once, subscription.last_activity) = (is_on, self.now);
        }
    }

    /// `held_back`: the first one that would be handed out is delayed by so much (LIB-402).
    pub(crate) fn pull(
        &mut self,
        slot: usize,
        max: usize,
        held_back: Option<u64>,
    ) -> Result<Vec<Lease>, Refusal> {
        let now = self.now;
        self.active(slot).map(|subscription| subscription.pull(now, max, held_back))
    }

    /// The subscription, if it delivers; asking for it is activity (EXP-3).
    fn active(&mut self, slot: usize) -> Result<&mut Subscription, Refusal> {
        let now = self.now;
        let subscription = self.subscriptions.get_mut(&slot).ok_or(Refusal::Absent)?;
        if subscription.detached {
            return Err(Refusal::Precondition);
        }
        subscription.last_activity = now;
        Ok(subscription)
    }

    /// SEEK-2, SEEK-3: what is retained or unacknowledged, from a time on.
    pub(crate) fn seek_to_time(&mut self, slot: usize, time: Option<u64>) -> Result<(), Refusal> {
        let (now, retained) = (self.now, self.retained_from);
        self.active(slot)?;
        let Some(subscription) = self.subscriptions.get_mut(&slot) else { unreachable!() };
        let log = &self.logs[&subscription.topic];
        // Without a time it is the purge (SEEK-5).
        let at = time.map_or(log.len(), |time| log.partition_point(|e| e.published < time));
        let retained = retained.filter(|_| subscription.attached);
        let from = subscription.acked_from.into_iter().chain(retained).min();
        let from = from.unwrap_or(log.len());
        let unacked: BTreeSet<u64> = subscription.messages.iter().map(|m| m.id).collect();
        let comes_back = |place: usize, entry: &Entry| {
            place >= at && (place >= from || unacked.contains(&entry.id))
        };
        subscription.begin_anew(log, comes_back);
        subscription.not_before = time.filter(|time| *time > now);
        self.catch_up();
        Ok(())
    }

    /// SNP-5, SNP-11.
    pub(crate) fn seek_to_snapshot(&mut self, slot: usize, name: u64) -> Result<(), Refusal> {
        if !self.snapshots.contains_key(&name) {
            return Err(Refusal::Absent); // SEEK-8: existence comes first
        }
        self.active(slot)?;
        let Some(subscription) = self.subscriptions.get_mut(&slot) else { unreachable!() };
        let snapshot = &self.snapshots[&name];
        if snapshot.topic != subscription.topic {
            return Err(Refusal::Precondition); // SEEK-9
        }
        let log = &self.logs[&subscription.topic];
        subscription.begin_anew(log, |place, entry| {
            place >= snapshot.from || snapshot.unacked.contains(&entry.id)
        });
        subscription.not_before = None;
        self.catch_up();
        Ok(())
    }

    /// SNP-1, SNP-3, SNP-4.
    pub(crate) fn snapshot(
        &mut self,
        slot: usize,
        name: u64,
        life: u64,
        least_life: u64,
    ) -> Result<(), Refusal> {
        let now = self.now;
        let subscription = self.active(slot)?;
        let oldest = subscription.messages.first().map_or(now, |message| message.published);
        let expires = oldest + life;
        let unacked = subscription.messages.iter().map(|message| message.id).collect();
        let topic = subscription.topic;
        if expires < now + least_life {
            return Err(Refusal::Precondition);
        }
        let from = self.logs[&topic].len();
        self.snapshots.insert(name, Snapshot { topic, unacked, from, expires });
        Ok(())
    }

    /// RES-14.
    pub(crate) fn detach(&mut self, slot: usize) {
        let Some(subscription) = self.subscriptions.get_mut(&slot) else { return };
        if !subscription.detached {
            subscription.last_activity = self.now;
        }
        subscription.messages.clear();
        subscription.acked_from = None;
        (subscription.detached, subscription.attached) = (true, false);
    }

    /// LIB-404: a lease ends before its deadline.
    pub(crate) fn end_lease(&mut self, slot: usize, incarnation: u64, lease: Lease) -> bool {
        let now = self.now;
        let subscription = self.subscriptions.get_mut(&slot);
        let Some(subscription) = subscription.filter(|s| s.incarnation == incarnation) else {
            return false;
        };
        let Some(at) = subscription.alive(lease) else { return false };
        let is_leased = matches!(subscription.messages[at].state, State::Leased { .. });
        if is_leased {
            subscription.lapse(at, now, now);
        }
        is_leased
    }

    /// LIB-404: the first of a key takes the others along.
    pub(crate) fn end_leases(&mut self, slot: usize) -> u64 {
        let now = self.now;
        let Some(subscription) = self.subscriptions.get_mut(&slot) else { return 0 };
        let ids: Vec<u64> = subscription.messages.iter().map(|message| message.id).collect();
        let ended = ids.into_iter().filter(|id| {
            let at = subscription.messages.iter().position(|message| message.id == *id);
            let leased =
                at.filter(|at| matches!(subscription.messages[*at].state, State::Leased { .. }));
            if let Some(at) = leased {
                subscription.lapse(at, now, now);
            }
            leased.is_some()
        });
        ended.count() as u64
    }

    /// An ack that a fault strikes (LIB-401, LIB-403, LIB-405). Answers whether it did.
    pub(crate) fn faulty_ack(
        &mut self,
        slot: usize,
        incarnation: u64,
        lease: Lease,
        fault: Fault,
    ) -> (Outcome, bool) {
        let mut struck = false;
        let outcome = self.settle(slot, incarnation, lease, |subscription, at, _| {
            let outcome = subscription.foresee(at);
            let is_strict = subscription.messages[at].strict;
            struck = outcome.is_effective() && !(fault == Fault::Duplicate && is_strict);
            match fault {
                _ if !struck => subscription.ack(at),
                Fault::Failed => Outcome::Transient,
                Fault::Lost if is_strict => Outcome::Transient,
                Fault::Lost => outcome,
                Fault::Duplicate => {
                    if matches!(subscription.messages[at].state, State::Leased { .. }) {
                        subscription.rewind(at);
                        subscription.messages[at].attempts -= 1;
                    }
                    subscription.messages[at].state = State::Ready;
                    outcome
                }
            }
        });
        (outcome, struck)
    }

    /// RTY-9, DLQ-13.
    pub(crate) fn set_policies(&mut self, slot: usize, policies: Policies) {
        let Some(subscription) = self.subscriptions.get_mut(&slot) else { return };
        subscription.last_activity = self.now;
        let old = std::mem::replace(&mut subscription.policies, policies);
        for message in &mut subscription.messages {
            if old.max_attempts.is_none() && policies.max_attempts.is_some() {
                message.attempts = u32::from(matches!(message.state, State::Leased { .. }));
            }
            if let State::BackingOff { lapsed, .. } = message.state
                && policies.retry.is_none()
            {
                message.state = if lapsed { State::Lapsed } else { State::Ready };
            }
        }
    }

    /// LS-4, LS-8; ORD-7: provisional while an earlier message of the key is not acknowledged.
    pub(crate) fn ack(&mut self, slot: usize, incarnation: u64, lease: Lease) -> Outcome {
        self.settle(slot, incarnation, lease, |subscription, at, _| subscription.ack(at))
    }

    /// LS-6 with a delay; zero makes the message ready at once, if no policy says otherwise.
    pub(crate) fn nack(&mut self, slot: usize, inc: u64, lease: Lease, delay: u64) -> Outcome {
        self.settle(slot, inc, lease, |subscription, at, now| {
            let wish = (delay > 0).then_some(now + delay);
            let state = subscription.messages[at].state;
            // What has lapsed has failed already.
            let until = match state {
                State::Lapsed => None,
                State::BackingOff { until, .. } => Some(until),
                _ => {
                    subscription.fail(at, false, now, wish, now);
                    return Outcome::Done;
                }
            };
            subscription.messages[at].state = match wish.max(until) {
                None => State::Ready,
                Some(until) if wish == Some(until) => State::Delayed { until },
                Some(until) => State::BackingOff { until, lapsed: false },
            };
            Outcome::Done
        })
    }

    /// LS-5, LS-9; zero is a nack.
    pub(crate) fn set_deadline(&mut self, slot: usize, inc: u64, lease: Lease, by: u64) -> Outcome {
        if by == 0 {
            return self.nack(slot, inc, lease, 0);
        }
        self.settle(slot, inc, lease, |subscription, at, now| {
            subscription.messages[at].state = State::Leased { until: now + by };
            Outcome::Done
        })
    }

    /// LIB-102: to the dead-letter topic, or given back without a policy.
    pub(crate) fn reject(&mut self, slot: usize, inc: u64, lease: Lease) -> Outcome {
        let has_policy = |s: &Subscription| s.policies.max_attempts.is_some();
        if !self.subscriptions.get(&slot).is_some_and(has_policy) {
            return self.nack(slot, inc, lease, 0);
        }
        self.settle(slot, inc, lease, |subscription, at, now| {
            // LIB-372: what is over is not forwarded.
            if !subscription.messages[at].is_over(now) {
                subscription.dead.push(subscription.messages[at].id);
            }
            subscription.remove(at);
            Outcome::Done
        })
    }

    /// LIB-370: whether the message that a lease names had lapsed before its time to live was over,
    /// so that it may be there or not.
    pub(crate) fn is_doubtful(&self, slot: usize, incarnation: u64, lease: Lease) -> bool {
        let subscription = self.subscriptions.get(&slot);
        subscription.filter(|s| s.incarnation == incarnation).is_some_and(|subscription| {
            let at = subscription.alive(lease);
            at.is_some_and(|at| subscription.messages[at].is_doubtful(self.now))
        })
    }

    /// It was not there.
    pub(crate) fn drop_doubtful(&mut self, slot: usize, lease: Lease) {
        if let Some(subscription) = self.subscriptions.get_mut(&slot) {
            subscription.messages.retain(|message| message.id != lease.message);
            subscription.finish_provisional();
        }
    }

    /// LIB-371: what is over goes once it is the oldest.
    pub(crate) fn look(&mut self) {
        let now = self.now;
        for subscription in self.subscriptions.values_mut() {
            while subscription.messages.first().is_some_and(|oldest| oldest.is_doubtful(now)) {
                subscription.remove(0);
            }
        }
    }

    /// Settles by an id, if it is alive.
    fn settle(
        &mut self,
        slot: usize,
        incarnation: u64,
        lease: Lease,
        act: impl FnOnce(&mut Subscription, usize, u64) -> Outcome,
    ) -> Outcome {
        let now = self.now;
        let subscription = self.subscriptions.get_mut(&slot);
        let Some(subscription) = subscription.filter(|s| s.incarnation == incarnation) else {
            return Outcome::NotFound; // LS-18
        };
        subscription.last_activity = now;
        match subscription.alive(lease) {
            Some(at) => act(subscription, at, now),
            None if subscription.exactly_once => Outcome::Invalid, // EOD-3, EOD-4
            None => Outcome::Stale,
        }
    }

    /// What a stale answer is called on a subscription.
    pub(crate) fn stale(&self, slot: usize) -> Outcome {
        match self.subscriptions.get(&slot).is_some_and(|s| s.exactly_once) {
            true => Outcome::Invalid,
            false => Outcome::Stale,
        }
    }

    /// A call that did nothing, but counts as activity (EXP-3).
    pub(crate) fn touch(&mut self, slot: usize) {
        let now = self.now;
        if let Some(subscription) = self.subscriptions.get_mut(&slot) {
            subscription.last_activity = now;
        }
    }

    /// What has gone to the dead-letter topic since the last look, by subscription.
    pub(crate) fn take_dead(&mut self) -> BTreeMap<usize, Vec<u64>> {
        let mut dead = std::mem::take(&mut self.dead_of_gone);
        for (slot, subscription) in &mut self.subscriptions {
            dead.entry(*slot).or_default().append(&mut subscription.dead);
        }
        dead.retain(|_, dead| !dead.is_empty());
        dead
    }

    /// What must be there, and how much more may be: what is over and was not come to yet.
    pub(crate) fn counts(&self, slot: usize) -> Option<(Counts, u64)> {
        let (mut counts, mut doubtful) = (Counts::default(), 0);
        for message in &self.subscriptions.get(&slot)?.messages {
            if message.is_doubtful(self.now) {
                doubtful += 1;
                continue;
            }
            counts.backlog += 1;
            match message.state {
                State::Ready | State::Lapsed => counts.ready += 1,
                State::Delayed { .. } | State::BackingOff { .. } => counts.delayed += 1,
                State::Provisional => counts.provisional += 1,
                State::Leased { .. } => counts.outstanding += 1,
            }
        }
        Some((counts, doubtful))
    }

    /// The ends of leases and delays that lie ahead, earliest first.
    pub(crate) fn ends(&self) -> Vec<u64> {
        let messages = self.subscriptions.values().flat_map(|s| &s.messages);
        let mut ends: Vec<u64> = messages
            .filter_map(|message| match message.state {
                State::Leased { until }
                | State::Delayed { until }
                | State::BackingOff { until, .. } => Some(until),
                State::Ready | State::Lapsed | State::Provisional => None,
            })
            .collect();
        ends.sort_unstable();
        ends
    }

    /// The instants at which retention will drop something, earliest first.
    pub(crate) fn expiries(&self) -> Vec<u64> {
        let topic = self.topic.flatten();
        let subscriptions = self.subscriptions.values();
        let mut expiries: Vec<u64> = subscriptions
            .flat_map(|s| {
                let retention = move |m: &Message| m.published + s.keeps_for(topic);
                s.messages.iter().map(move |m| retention(m).min(m.expires))
            })
            .filter(|at| *at >= self.now)
            .collect();
        expiries.sort_unstable();
        expiries
    }

    /// When subscriptions and snapshots will go, earliest first.
    pub(crate) fn goings(&self) -> Vec<u64> {
        let snapshots = self.snapshots.values().map(|snapshot| snapshot.expires);
        let subscriptions = self.subscriptions.values();
        let mut goings: Vec<u64> =
            subscriptions.filter_map(Subscription::goes_at).chain(snapshots).collect();
        goings.sort_unstable();
        goings
    }

    /// What is old enough is kept no longer; it never comes back (RET-8).
    fn drop_retained(&mut self) {
        let now = self.now;
        let drop = |log: &[Entry], from: &mut Option<usize>, span: u64| {
            let Some(from) = from else { return };
            while log.get(*from).is_some_and(|entry| entry.published + span <= now) {
                *from += 1;
            }
        };
        if let (Some(log), Some(span)) = (self.logs.get(&self.topics), self.topic.flatten()) {
            drop(log, &mut self.retained_from, span);
        }
        for subscription in self.subscriptions.values_mut() {
            let span = subscription.retention;
            drop(&self.logs[&subscription.topic], &mut subscription.acked_from, span);
        }
    }

    /// Expiration and retention first, then lapses and ends of delays (TIME-2).
    fn catch_up(&mut self) {
        let (now, topic) = (self.now, self.topic.flatten());
        let dead = &mut self.dead_of_gone;
        self.subscriptions.retain(|slot, subscription| {
            let stays = subscription.goes_at().is_none_or(|at| now < at); // EXP-4
            if !stays {
                dead.entry(*slot).or_default().append(&mut subscription.dead);
            }
            stays
        });
        self.snapshots.retain(|_, snapshot| now < snapshot.expires); // SNP-10
        self.drop_retained();
        for subscription in self.subscriptions.values_mut() {
            let keeps_for = subscription.keeps_for(topic);
            subscription.messages.retain(|message| now < message.published + keeps_for); // LS-15
            subscription.finish_provisional();
            while subscription.messages.first().is_some_and(|oldest| oldest.is_doubtful(now)) {
                subscription.remove(0);
            }
            for id in subscription.messages.iter().map(|message| message.id).collect::<Vec<_>>() {
                let at = subscription.messages.iter().position(|message| message.id == id);
                let Some(at) = at else { continue };
                match subscription.messages[at].state {
                    // LIB-373: its key does not wait for its delay.
                    State::Delayed { .. } | State::BackingOff { .. }
                        if subscription.messages[at].is_over(now) =>
                    {
                        subscription.remove(at);
                    }
                    State::Leased { until } if until <= now => {
                        subscription.lapse(at, until, now); // LS-7
                    }
                    State::Delayed { until } | State::BackingOff { until, lapsed: false }
                        if until <= now =>
                    {
                        subscription.messages[at].state = State::Ready;
                    }
                    State::BackingOff { until, lapsed: true } if until <= now => {
                        subscription.messages[at].state = State::Lapsed;
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Subscription {
    pub(crate) fn new(
        incarnation: u64,
        filter: Option<u64>,
        ack_deadline: u64,
        retention: u64,
    ) -> Subscription {
        Subscription {
            incarnation,
            filter,
            ack_deadline,
            retention,
            attached: true,
            messages: Vec::new(),
            last_was_redelivery: false,
            is_ordered: false,
            policies: Policies::default(),
            dead: Vec::new(),
            topic: 0,
            epoch: 0,
            acked_from: None,
            not_before: None,
            detached: false,
            ttl: None,
            last_activity: 0,
            exactly_once: false,
        }
    }

    /// FIL-2.
    fn takes(&self, entry: &Entry) -> bool {
        self.filter.is_none() || self.filter == entry.draft.attribute
    }

    fn goes_at(&self) -> Option<u64> {
        self.ttl.map(|ttl| self.last_activity + ttl)
    }

    /// SEEK-10, SEEK-12, SEEK-14: with what comes back, as if it had never been handed out.
    fn begin_anew(&mut self, log: &[Entry], comes_back: impl Fn(usize, &Entry) -> bool) {
        let entries = log.iter().enumerate();
        let entries = entries.filter(|(at, entry)| self.takes(entry) && comes_back(*at, entry));
        self.messages = entries.map(|(_, entry)| Message::fresh(entry)).collect();
        self.epoch += 1;
        self.last_was_redelivery = false;
    }

    /// The message that a lease can still answer for. ACK-6, LS-10 to LS-14: acked, expired,
    /// superseded and nacked ids do nothing.
    fn alive(&self, lease: Lease) -> Option<usize> {
        self.messages.iter().position(|message| {
            let is_alive = matches!(
                message.state,
                State::Leased { .. } | State::Lapsed | State::BackingOff { lapsed: true, .. }
            );
            message.id == lease.message
                && message.hand_outs == lease.hand_out
                && self.epoch == lease.epoch
                && is_alive
        })
    }

    /// What an ack would come to.
    fn foresee(&self, at: usize) -> Outcome {
        let key = self.key_of(at);
        let is_first = key.is_none() || self.of_key(key).next() == Some(at);
        let is_leased = matches!(self.messages[at].state, State::Leased { .. });
        match self.messages[at].strict {
            _ if is_first => Outcome::Done,
            true if is_leased => Outcome::Unordered, // EOD-9
            _ => Outcome::Provisional,
        }
    }

    fn ack(&mut self, at: usize) -> Outcome {
        let outcome = self.foresee(at);
        match outcome {
            Outcome::Done => self.remove(at),
            Outcome::Provisional => self.messages[at].state = State::Provisional,
            _ => {}
        }
        outcome
    }

    /// A lease has come to its end; with exactly-once delivery its id has, too (EOD-4).
    fn lapse(&mut self, at: usize, ended_at: u64, now: u64) {
        let is_strict = self.messages[at].strict;
        self.fail(at, !is_strict, ended_at, None, now);
    }

    /// RET-2: the longer of its own retention and its topic's.
    fn keeps_for(&self, topic: Option<u64>) -> u64 {
        let topic = if self.attached { topic.unwrap_or(0) } else { 0 };
        self.retention.max(topic)
    }

    /// The key of a message, where keys have an order.
    fn key_of(&self, at: usize) -> Option<u64> {
        self.messages[at].key.filter(|_| self.is_ordered)
    }

    /// Where the messages of a key are, in order.
    fn of_key(&self, key: Option<u64>) -> impl Iterator<Item = usize> {
        let messages = self.messages.iter().enumerate();
        messages.filter(move |(_, message)| message.key == key).map(|(at, _)| at)
    }

    /// ORD-7 b: an ack is final once everything before it is acknowledged.
    fn finish_provisional(&mut self) {
        while let Some(at) = (0..self.messages.len()).find(|&at| {
            self.messages[at].state == State::Provisional
                && self.of_key(self.messages[at].key).next() == Some(at)
        }) {
            self.messages.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        self.messages.remove(at);
        self.finish_provisional();
    }

    /// ORD-7 a and c: what was handed out of the key after it comes again and does not count.
    fn rewind(&mut self, at: usize) {
        let Some(key) = self.key_of(at) else { return };
        for other in at + 1..self.messages.len() {
            let message = &mut self.messages[other];
            if message.key != Some(key) {
                continue;
            }
            match message.state {
                State::Leased { .. } | State::Provisional => {
                    message.attempts = message.attempts.saturating_sub(1);
                    message.state = State::Ready;
                }
                State::Lapsed => message.state = State::Ready,
                State::BackingOff { until, .. } => {
                    message.state = State::BackingOff { until, lapsed: false };
                }
                State::Ready | State::Delayed { .. } => {}
            }
        }
    }

    /// A delivery has failed: away with it (DLQ-4), or again after its delay (RTY-3).
    fn fail(&mut self, at: usize, lapsed: bool, failed_at: u64, wish: Option<u64>, now: u64) {
        self.rewind(at);
        if self.messages[at].is_over(now) {
            return self.remove(at); // LIB-370, LIB-372
        }
        let attempts = self.messages[at].attempts;
        if self.policies.max_attempts.is_some_and(|max| attempts >= max) {
            self.dead.push(self.messages[at].id);
            return self.remove(at);
        }
        let delay = self.policies.retry.map_or(0, |(minimum, maximum)| {
            (minimum << attempts.saturating_sub(1).min(20)).min(maximum)
        });
        let until = failed_at + delay;
        self.messages[at].state = match wish.filter(|wish| *wish > until) {
            Some(until) => State::Delayed { until }, // LIB-100
            None if until > now => State::BackingOff { until, lapsed },
            None if lapsed => State::Lapsed,
            None => State::Ready,
        };
    }

    /// PUB-12 as refined by L13: the older one of redeliveries and fresh messages, but never two
    /// redeliveries in a row while a fresh message waits. ORD-4, ORD-5: of a key, only what follows
    /// on what this very pull has taken.
    fn pull(&mut self, now: u64, max: usize, mut held_back: Option<u64>) -> Vec<Lease> {
        let mut taken: Vec<Lease> = Vec::new();
        while taken.len() < max {
            let is_free = |at: &usize| {
                let message = &self.messages[*at];
                let is_taken = |at: usize| {
                    taken.iter().any(|lease: &Lease| lease.message == self.messages[at].id)
                };
                let key = self.key_of(*at);
                matches!(message.state, State::Ready | State::Lapsed)
                    && (key.is_none()
                        || self.of_key(key).take_while(|other| other < at).all(is_taken))
            };
            // Without keys what was held back comes in the place of a redelivery (LIB-402).
            let comes_again = |at: usize| {
                let message = &self.messages[at];
                message.hand_outs > 0 || message.was_held_back && !self.is_ordered
            };
            let again = (0..self.messages.len()).find(|at| comes_again(*at) && is_free(at));
            let fresh = (0..self.messages.len()).find(|at| !comes_again(*at) && is_free(at));
            let at = match (again, fresh) {
                (Some(_), Some(fresh)) if self.last_was_redelivery => fresh,
                (Some(again), Some(fresh)) => again.min(fresh),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            let comes_again = comes_again(at);
            if self.messages[at].is_over(now) {
                self.remove(at); // LIB-371: a hand-out has come to it, and goes on (LIB-373)
                continue;
            }
            let message = &mut self.messages[at];
            self.last_was_redelivery = comes_again;
            if let Some(delay) = held_back.take() {
                message.state = State::Delayed { until: now + delay };
                message.was_held_back = true;
                continue;
            }
            message.attempts += 1;
            message.hand_outs += 1;
            message.strict = self.exactly_once;
            message.state = State::Leased { until: now + self.ack_deadline }; // LS-3
            taken.push(Lease {
                message: message.id,
                attempt: message.attempts,
                hand_out: message.hand_outs,
                epoch: self.epoch,
            });
        }
        taken
    }
}

impl Message {
    /// LIB-370.
    fn is_over(&self, now: u64) -> bool {
        self.expires <= now
    }

    /// Over, and in nobody's hand: it goes as soon as somebody comes to it.
    fn is_doubtful(&self, now: u64) -> bool {
        self.is_over(now) && !matches!(self.state, State::Leased { .. } | State::Provisional)
    }

    fn fresh(entry: &Entry) -> Message {
        Message {
            id: entry.id,
            published: entry.published,
            expires: entry.draft.ttl.map_or(u64::MAX, |ttl| entry.published + ttl),
            key: entry.draft.key,
            attempts: 0,
            hand_outs: 0,
            state: State::Ready,
            strict: false,
            was_held_back: false,
        }
    }
}
