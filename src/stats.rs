//! Figures about a topic or a subscription: plain values.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a topic holds; made by [`Topic::stats`](crate::Topic::stats).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TopicStats {
    /// Messages that are kept because somebody needs them: all of `held.messages` but the unneeded.
    pub retained_messages: u64,
    /// Bytes of these, counted as [`Message::size`](crate::Message::size).
    pub retained_bytes: u64,
    /// What is in memory, and why.
    pub held: Held,
    /// Subscriptions attached.
    pub subscriptions: usize,
    /// Messages published, since creation.
    pub published: u64,
    /// What its subscriptions have to do, and have done.
    pub sum: Sum,
    /// Bytes of the bus's budget that the topic holds, with overhead and permits.
    pub charged_bytes: u64,
    /// Publishers that wait for room.
    pub publishers_waiting: usize,
    /// The subscription they wait for: the one at its limit, or the one with the largest backlog.
    pub waiting_for: Option<String>,
    /// Messages that wait until it is time to publish them.
    pub delayed: u64,
    /// Idempotency keys that are remembered.
    pub deduplication_keys: usize,
    /// Messages that were not published because their key was known, since the topic has a
    /// deduplication window.
    pub duplicates: u64,
}

/// What a whole bus holds; made by [`Bus::stats`](crate::Bus::stats).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BusStats {
    /// Topics that can be found by name.
    pub topics: usize,
    /// Subscriptions that can be found by name.
    pub subscriptions: usize,
    /// Messages published, since the bus was made.
    pub published: u64,
    /// Messages not yet acknowledged, summed over subscriptions.
    pub backlog: u64,
    /// Messages in somebody's hand, summed over subscriptions.
    pub outstanding: u64,
    /// What subscriptions that can be found have to do, and have done.
    pub sum: Sum,
    /// What is in memory, and why.
    pub held: Held,
    /// Bytes of the budget in use; off by 1/65,536 of the budget per topic while nobody waits.
    pub budget_used: u64,
    /// Bytes of the budget.
    pub budget_bytes: u64,
    /// Whether a publisher has waited for the budget and it is not an eighth free yet.
    pub under_pressure: bool,
    /// Publishers that wait for room, on all topics.
    pub publishers_waiting: usize,
    /// On which topics they wait, and for whom.
    pub blocked: Vec<Blocked>,
}

/// Publishers that wait for room on one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Blocked {
    /// The topic.
    pub topic: String,
    /// How many wait.
    pub publishers: usize,
    /// The subscription at its limit, or else the one with the largest backlog.
    pub waiting_for: Option<String>,
}

/// What is in memory, and why.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Held {
    /// Numbers of messages.
    pub messages: HeldBy,
    /// Their bytes, counted as [`Message::size`](crate::Message::size).
    pub bytes: HeldBy,
    /// Bytes that are kept free for permits, with overhead.
    pub permits: u64,
}

/// What keeps messages in memory.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeldBy {
    /// From the first message on that some subscription without a filter has not settled; with one,
    /// while it looks for what a seek brings back.
    pub backlog: u64,
    /// Before that, message by message: what filtered subscriptions have not settled, what is stuck
    /// while all around it is done, what a snapshot lists.
    pub pinned: u64,
    /// Kept by a topic's retention, by `retain_acked` or by a snapshot only: the first of these
    /// yields to live messages (LIB-44).
    pub history: u64,
    /// Needed by nobody: it shares a segment of the log with what is needed.
    pub unneeded: u64,
}

/// What several subscriptions have to do, and have done.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sum {
    /// Messages not yet acknowledged.
    pub backlog: u64,
    /// Messages in somebody's hand.
    pub outstanding: u64,
    /// Messages that were given back with a delay that is not over.
    pub delayed: u64,
    /// How long ago the oldest unacknowledged message of any was published.
    pub oldest_unacked_age: Option<Duration>,
    /// Messages that matched.
    pub accepted: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Hand-outs after the first one of a message.
    pub redeliveries: u64,
    /// Leases that ended by their deadline.
    pub expired_leases: u64,
    /// Messages dropped because their time was over.
    pub expired_messages: u64,
    /// Messages that filters did not let through.
    pub filtered_out: u64,
    /// Messages dropped because a backlog was at its limit.
    pub dropped_messages: u64,
    /// Messages that dead-letter topics took.
    pub dead_lettered: u64,
}

impl Sum {
    pub(crate) fn of(all: impl Iterator<Item = SubscriptionStats>) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum.backlog += one.backlog;
            sum.outstanding += one.outstanding;
            sum.delayed += one.delayed;
            sum.oldest_unacked_age = sum.oldest_unacked_age.max(one.oldest_unacked_age);
            sum.accepted += one.accepted;
            sum.acknowledged += one.acknowledged;
            sum.redeliveries += one.redeliveries;
            sum.expired_leases += one.expired_leases;
            sum.expired_messages += one.expired_messages;
            sum.filtered_out += one.filtered_out;
            sum.dropped_messages += one.dropped_messages;
            sum.dead_lettered += one.dead_lettered;
            sum
        })
    }

    /// The rates since an earlier look, `elapsed` ago; zero where a sum has become smaller because
    /// a subscription went.
    pub fn rates(&self, earlier: &Sum, elapsed: Duration) -> Rates {
        Rates::between(
            [self.accepted, self.acknowledged, self.redeliveries],
            [earlier.accepted, earlier.acknowledged, earlier.redeliveries],
            elapsed,
        )
    }
}

impl Held {
    pub(crate) fn add(&mut self, other: &Held) {
        self.messages.add(&other.messages);
        self.bytes.add(&other.bytes);
        self.permits += other.permits;
    }
}

impl HeldBy {
    /// All but the unneeded.
    pub(crate) fn needed(&self) -> u64 {
        self.backlog + self.pinned + self.history
    }

    fn add(&mut self, other: &HeldBy) {
        self.backlog += other.backlog;
        self.pinned += other.pinned;
        self.history += other.history;
        self.unneeded += other.unneeded;
    }
}

/// Faults of a subscription by kind: those that are armed, or those that have happened
/// (LIB-400).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FaultCounts {
    /// Acks that do not arrive.
    pub lost_acks: u64,
    /// Acks and new deadlines that fail and can be repeated.
    pub failed_answers: u64,
    /// Messages that come again though they were acknowledged.
    pub duplicates: u64,
    /// Hand-outs that come later.
    pub delayed_deliveries: u64,
    /// Leases that were ended; these are never armed.
    pub ended_leases: u64,
}

/// How fast a subscription's figures change, per second; made by [`SubscriptionStats::rates`] and
/// [`Sum::rates`].
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rates {
    /// Messages that came.
    pub accepted: f64,
    /// Messages acknowledged.
    pub acknowledged: f64,
    /// Hand-outs after the first.
    pub redeliveries: f64,
}

impl SubscriptionStats {
    /// The rates since an earlier look, `elapsed` ago.
    ///
    /// ```
    /// use siftbus::SubscriptionStats;
    /// use std::time::Duration;
    ///
    /// let earlier = SubscriptionStats::default();
    /// let mut later = SubscriptionStats::default();
    /// later.acknowledged = 500;
    /// assert_eq!(later.rates(&earlier, Duration::from_secs(10)).acknowledged, 50.0);
    /// ```
    pub fn rates(&self, earlier: &SubscriptionStats, elapsed: Duration) -> Rates {
        Rates::between(
            [self.accepted, self.acknowledged, self.redeliveries],
            [earlier.accepted, earlier.acknowledged, earlier.redeliveries],
            elapsed,
        )
    }
}

impl Rates {
    fn between(now: [u64; 3], before: [u64; 3], elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let rate = |now: u64, before: u64| match seconds > 0.0 {
            true => now.saturating_sub(before) as f64 / seconds,
            false => 0.0,
        };
        let [accepted, acknowledged, redeliveries] = now;
        let [accepted_before, acknowledged_before, redeliveries_before] = before;
        Self {
            accepted: rate(accepted, accepted_before),
            acknowledged: rate(acknowledged, acknowledged_before),
            redeliveries: rate(redeliveries, redeliveries_before),
        }
    }
}

/// What a subscription has to do, and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Messages not yet acknowledged: ready, delayed and outstanding.
    pub backlog: u64,
    /// Bytes of these, if it has a limit of them; a lower bound until what was there when the limit
    /// was set, or what a seek brought back, has been looked through. `None` while a filter still
    /// looks for what a seek brings back.
    pub backlog_bytes: Option<u64>,
    /// Messages that a pull would hand out now.
    pub ready: u64,
    /// Messages handed out and not yet answered, whose deadline has not passed.
    pub outstanding: u64,
    /// Messages that were given back with a delay that is not over.
    pub delayed: u64,
    /// Messages known to wait for earlier ones of their ordering key; those that no pull has come
    /// to yet count as ready.
    pub blocked: u64,
    /// Messages acknowledged before an earlier one of their ordering key (ORD-7).
    pub provisional: u64,
    /// Messages on the way to the dead-letter topic.
    pub forwarding: u64,
    /// Hand-outs after the first one of a message, since creation.
    pub redeliveries: u64,
    /// Leases that ended by their deadline, since creation.
    pub expired_leases: u64,
    /// Messages dropped because their retention or their own time to live had passed, since
    /// creation.
    pub expired_messages: u64,
    /// Messages that the dead-letter topic took, since creation.
    pub dead_lettered: u64,
    /// Messages that were not forwarded because they ran in circles, and so dropped (LIB-103).
    pub dead_letters_dropped: u64,
    /// Messages dropped because its backlog was at its limit, since creation.
    pub dropped_messages: u64,
    /// Messages that matched, since creation.
    pub accepted: u64,
    /// Messages acknowledged, since creation.
    pub acknowledged: u64,
    /// Messages skipped by a purge or a seek, since creation.
    pub purged: u64,
    /// How long ago the oldest message of the backlog was published.
    pub oldest_unacked_age: Option<Duration>,
    /// Whether publishers wait because it is at its limit.
    pub blocks_publishers: bool,
    /// Pulls and streams that wait for a message.
    pub waiting_pulls: usize,
    /// Messages of the topic that the filter did not let through, since creation.
    pub filtered_out: u64,
}
