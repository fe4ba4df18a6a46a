//! Figures about a topic or a subscription: plain values.

use serde::{Deserialize, Serialize};

/// What a topic holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicStats {
    /// Messages in memory, including those that share a segment with needed ones.
    pub retained_messages: u64,
    /// Bytes of the messages in memory, counted as [`Message::size`](crate::Message::size).
    pub retained_bytes: u64,
    /// Subscriptions attached.
    pub subscriptions: usize,
}

/// What a subscription has to do, and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Messages not yet acknowledged: ready, delayed and outstanding.
    pub backlog: u64,
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
    /// Messages dropped because their retention had passed, since creation.
    pub expired_messages: u64,
    /// Messages that the dead-letter topic took, since creation.
    pub dead_lettered: u64,
    /// Messages that were not forwarded because they ran in circles, and so dropped (LIB-103).
    pub dead_letters_dropped: u64,
    /// Messages dropped because its backlog was at its limit, since creation.
    pub dropped_messages: u64,
    /// Messages of the topic that the filter did not let through, since creation.
    pub filtered_out: u64,
}
