//! The reference: one topic and its subscriptions, as simple as the specification can be read.
//!
//! One list per subscription, linear scans, no index, no timer, no cursor. It shares no code and
//! no types with the bus: messages are numbers, times are milliseconds. Time passes only in
//! [`Naive::advance`]; whatever a moment brings is worked out by looking at every message.

use std::collections::BTreeMap;

/// What one settlement did.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Stale,
    NotFound,
    Provisional,
}

/// One hand-out of one message: its id, the number of the attempt, and the number of the hand-out,
/// which differs where a hand-out was taken back and does not count (ORD-7).
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lease {
    pub(crate) message: u64,
    pub(crate) attempt: u32,
    pub(crate) hand_out: u32,
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
}

#[derive(Debug)]
struct Message {
    id: u64,
    published: u64,
    key: Option<u64>,
    attempts: u32,
    hand_outs: u32,
    state: State,
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
        while let Some(next) = self.ends().into_iter().find(|at| (self.now..=end).contains(at)) {
            self.now = next;
            self.catch_up();
        }
        self.now = end;
        self.catch_up();
    }

    pub(crate) fn create_topic(&mut self, retention: Option<u64>) {
        self.topic = Some(retention);
    }

    /// RES-11: the subscriptions stay, nothing new arrives; the topic's retention ends (L15).
    pub(crate) fn delete_topic(&mut self) {
        self.topic = None;
        for subscription in self.subscriptions.values_mut() {
            subscription.attached = false;
        }
        self.catch_up();
    }

    /// RES-13, PUB-8: a new subscription starts empty.
    pub(crate) fn create(&mut self, slot: usize, subscription: Subscription) {
        self.subscriptions.insert(slot, subscription);
    }

    /// PUB-7, FIL-2: every attached subscription whose filter matches; answers how many.
    pub(crate) fn publish(&mut self, id: u64, attribute: Option<u64>, key: Option<u64>) -> usize {
        let now = self.now;
        let takers = self.subscriptions.values_mut().filter(|subscription| {
            subscription.attached
                && (subscription.filter.is_none() || subscription.filter == attribute)
        });
        takers
            .map(|taker| {
                taker.messages.push(Message {
                    id,
                    published: now,
                    key,
                    attempts: 0,
                    hand_outs: 0,
                    state: State::Ready,
                });
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
            subscription.ack_deadline = ack_deadline.unwrap_or(subscription.ack_deadline);
            subscription.retention = retention.unwrap_or(subscription.retention);
        }
        self.catch_up();
    }

    pub(crate) fn update_topic(&mut self, retention: Option<u64>) {
        self.topic = Some(retention);
        self.catch_up();
    }

    pub(crate) fn pull(&mut self, slot: usize, max: usize) -> Option<Vec<Lease>> {
        let now = self.now;
        Some(self.subscriptions.get_mut(&slot)?.pull(now, max))
    }

    /// RTY-9, DLQ-13.
    pub(crate) fn set_policies(&mut self, slot: usize, policies: Policies) {
        let Some(subscription) = self.subscriptions.get_mut(&slot) else { return };
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
        self.settle(slot, incarnation, lease, |subscription, at, _| {
            let key = subscription.key_of(at);
            if key.is_some() && subscription.of_key(key).next() != Some(at) {
                subscription.messages[at].state = State::Provisional;
                return Outcome::Provisional;
            }
            subscription.remove(at);
            Outcome::Done
        })
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
        self.settle(slot, inc, lease, |subscription, at, _| {
            subscription.dead.push(subscription.messages[at].id);
            subscription.remove(at);
            Outcome::Done
        })
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
        // ACK-6, LS-10 to LS-14: acked, expired, superseded and nacked ids do nothing.
        let live = subscription.messages.iter().position(|message| {
            let alive = matches!(
                message.state,
                State::Leased { .. } | State::Lapsed | State::BackingOff { lapsed: true, .. }
            );
            message.id == lease.message && message.hand_outs == lease.hand_out && alive
        });
        let Some(at) = live else { return Outcome::Stale };
        act(subscription, at, now)
    }

    pub(crate) fn counts(&self, slot: usize) -> Option<Counts> {
        let mut counts = Counts::default();
        for message in &self.subscriptions.get(&slot)?.messages {
            counts.backlog += 1;
            match message.state {
                State::Ready | State::Lapsed => counts.ready += 1,
                State::Delayed { .. } | State::BackingOff { .. } => counts.delayed += 1,
                State::Provisional => counts.provisional += 1,
                State::Leased { .. } => counts.outstanding += 1,
            }
        }
        Some(counts)
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
            .flat_map(|s| s.messages.iter().map(move |m| m.published + s.keeps_for(topic)))
            .collect();
        expiries.sort_unstable();
        expiries
    }

    /// Retention first, then lapses and ends of delays (TIME-2).
    fn catch_up(&mut self) {
        let (now, topic) = (self.now, self.topic.flatten());
        for subscription in self.subscriptions.values_mut() {
            let keeps_for = subscription.keeps_for(topic);
            subscription.messages.retain(|message| now < message.published + keeps_for); // LS-15
            subscription.finish_provisional();
            for id in subscription.messages.iter().map(|message| message.id).collect::<Vec<_>>() {
                let at = subscription.messages.iter().position(|message| message.id == id);
                let Some(at) = at else { continue };
                match subscription.messages[at].state {
                    State::Leased { until } if until <= now => {
                        subscription.fail(at, true, until, None, now); // LS-7
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
        }
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
    fn pull(&mut self, now: u64, max: usize) -> Vec<Lease> {
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
            let again =
                (0..self.messages.len()).find(|at| self.messages[*at].hand_outs > 0 && is_free(at));
            let fresh = (0..self.messages.len())
                .find(|at| self.messages[*at].hand_outs == 0 && is_free(at));
            let at = match (again, fresh) {
                (Some(_), Some(fresh)) if self.last_was_redelivery => fresh,
                (Some(again), Some(fresh)) => again.min(fresh),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            let message = &mut self.messages[at];
            self.last_was_redelivery = message.hand_outs > 0;
            message.attempts += 1;
            message.hand_outs += 1;
            message.state = State::Leased { until: now + self.ack_deadline }; // LS-3
            taken.push(Lease {
                message: message.id,
                attempt: message.attempts,
                hand_out: message.hand_outs,
            });
        }
        taken
    }
}
