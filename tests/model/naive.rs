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
}

/// One hand-out of one message: its id and the number of the attempt.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lease {
    pub(crate) message: u64,
    pub(crate) attempt: u32,
}

/// What `stats()` must say.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) backlog: u64,
    pub(crate) ready: u64,
    pub(crate) delayed: u64,
    pub(crate) outstanding: u64,
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
}

#[derive(Debug)]
struct Message {
    id: u64,
    published: u64,
    attempts: u32,
    state: State,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Delayed {
        until: u64,
    },
    Leased {
        until: u64,
    },
    /// The deadline has passed, the newest id can still act (LS-8, LS-9).
    Lapsed,
}

impl Naive {
    /// Moves the clock and lets happen what the new moment brings.
    pub(crate) fn advance(&mut self, by: u64) {
        self.now += by;
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
    pub(crate) fn publish(&mut self, id: u64, attribute: Option<u64>) -> usize {
        let now = self.now;
        let takers = self.subscriptions.values_mut().filter(|subscription| {
            subscription.attached
                && (subscription.filter.is_none() || subscription.filter == attribute)
        });
        takers
            .map(|taker| {
                let message = Message { id, published: now, attempts: 0, state: State::Ready };
                taker.messages.push(message);
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

    pub(crate) fn ack(&mut self, slot: usize, incarnation: u64, lease: Lease) -> Outcome {
        self.settle(slot, incarnation, lease, |_| None)
    }

    /// LS-6 with a delay; zero makes the message ready at once.
    pub(crate) fn nack(&mut self, slot: usize, inc: u64, lease: Lease, delay: u64) -> Outcome {
        self.settle(slot, inc, lease, |now| {
            Some(if delay == 0 { State::Ready } else { State::Delayed { until: now + delay } })
        })
    }

    /// LS-5, LS-9; zero is a nack.
    pub(crate) fn set_deadline(&mut self, slot: usize, inc: u64, lease: Lease, by: u64) -> Outcome {
        if by == 0 {
            return self.nack(slot, inc, lease, 0);
        }
        self.settle(slot, inc, lease, |now| Some(State::Leased { until: now + by }))
    }

    /// The state after a settlement by a live id; `None` takes the message out of the backlog.
    fn settle(
        &mut self,
        slot: usize,
        incarnation: u64,
        lease: Lease,
        next: impl Fn(u64) -> Option<State>,
    ) -> Outcome {
        let now = self.now;
        let subscription = self.subscriptions.get_mut(&slot);
        let Some(subscription) = subscription.filter(|s| s.incarnation == incarnation) else {
            return Outcome::NotFound; // LS-18
        };
        // ACK-6, LS-10 to LS-14: acked, expired, superseded and nacked ids do nothing.
        let live = subscription.messages.iter().position(|message| {
            message.id == lease.message
                && message.attempts == lease.attempt
                && matches!(message.state, State::Leased { .. } | State::Lapsed)
        });
        let Some(at) = live else { return Outcome::Stale };
        match next(now) {
            Some(state) => subscription.messages[at].state = state,
            None => drop(subscription.messages.remove(at)),
        }
        Outcome::Done
    }

    pub(crate) fn counts(&self, slot: usize) -> Option<Counts> {
        let mut counts = Counts::default();
        for message in &self.subscriptions.get(&slot)?.messages {
            counts.backlog += 1;
            match message.state {
                State::Ready | State::Lapsed => counts.ready += 1,
                State::Delayed { .. } => counts.delayed += 1,
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
                State::Leased { until } | State::Delayed { until } => Some(until),
                State::Ready | State::Lapsed => None,
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
            for message in &mut subscription.messages {
                message.state = match message.state {
                    State::Leased { until } if until <= now => State::Lapsed, // LS-7
                    State::Delayed { until } if until <= now => State::Ready,
                    state => state,
                };
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
        }
    }

    /// RET-2: the longer of its own retention and its topic's.
    fn keeps_for(&self, topic: Option<u64>) -> u64 {
        let topic = if self.attached { topic.unwrap_or(0) } else { 0 };
        self.retention.max(topic)
    }

    /// PUB-12 as refined by L13: redeliveries before fresh messages, for they are older, but never
    /// two redeliveries in a row while a fresh message waits.
    fn pull(&mut self, now: u64, max: usize) -> Vec<Lease> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let fresh = self.messages.iter().position(|message| message.attempts == 0);
            let again = self.messages.iter().position(|message| {
                message.attempts > 0 && matches!(message.state, State::Ready | State::Lapsed)
            });
            let at = match (again, fresh) {
                (Some(_), Some(fresh)) if self.last_was_redelivery => fresh,
                (Some(again), _) => again,
                (None, Some(fresh)) => fresh,
                (None, None) => break,
            };
            let message = &mut self.messages[at];
            self.last_was_redelivery = message.attempts > 0;
            message.attempts += 1;
            message.state = State::Leased { until: now + self.ack_deadline }; // LS-3
            taken.push(Lease { message: message.id, attempt: message.attempts });
        }
        taken
    }
}
