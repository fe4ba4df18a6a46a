//! How much a bus, and each subscription, may hold: plain values.

use serde::{Deserialize, Serialize};

/// What a message takes of the budget beyond its [`size`](crate::Message::size), in bytes: its slot
/// in the log, the allocations of payload and attributes, and its lease on one subscription.
pub const MESSAGE_OVERHEAD: usize = crate::broker::log::live::MESSAGE_OVERHEAD as usize;

/// How many bytes the messages of a bus may take together (LIB-41).
///
/// A publisher that finds no room waits (`publish`) or gets its messages back (`try_publish`). A
/// message counts its size and [`MESSAGE_OVERHEAD`], once however many subscriptions have it, 8
/// bytes for each distinct filter that it matched, and 16 for each subscription beyond the first
/// that has been handed it; until its last subscription has settled it.
///
/// ```
/// use siftbus::{Budget, Bus};
///
/// let bus = Bus::builder().budget(Budget::new(16 * 1024 * 1024)).build();
/// assert_eq!(bus.budget().topic_reserve, 64 * 1024);
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Budget {
    /// Bytes for the whole bus. Default: 256 MiB.
    pub bytes: u64,
    /// A topic that holds less than this never waits for what other topics hold, so that consumers
    /// that publish cannot block each other for good. Default: 64 KiB, or a sixteenth of `bytes`
    /// if that is less; at least 1, so that an empty topic always takes a message.
    pub topic_reserve: u64,
}

impl Budget {
    /// A budget of `bytes`, with the default reserve.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, topic_reserve: (bytes / 16).clamp(1, DEFAULT_TOPIC_RESERVE) }
    }

    /// No bound: a backlog that nobody works on grows until its retention ends.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Sets how much every topic may hold whatever the others hold.
    #[must_use]
    pub fn topic_reserve(mut self, bytes: u64) -> Self {
        self.topic_reserve = bytes;
        self
    }
}

impl Default for Budget {
    /// 256 MiB.
    fn default() -> Self {
        Self::new(DEFAULT_BUDGET)
    }
}

/// What happens when the backlog of one subscription has reached its limit.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Overflow {
    /// Publishers to the topic wait, in order, until there is room.
    #[default]
    Wait,
    /// Publishers to the topic get their messages back.
    Reject,
    /// The oldest messages that nobody has in hand are dropped, counted and reported by an event.
    DropOldest,
}

/// How much a subscription may have in its backlog, and what happens beyond (LIB-45).
///
/// A limit of messages costs nothing until it is reached. One of bytes costs a look at the size of
/// every message that leaves the subscription.
///
/// ```
/// use siftbus::{BacklogLimit, Overflow, SubscriptionConfig};
///
/// let newest = BacklogLimit::new(1_000).overflow(Overflow::DropOldest);
/// let config = SubscriptionConfig::new().backlog_limit(newest);
/// assert_eq!(config.backlog_limit, Some(newest));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BacklogLimit {
    /// Messages that are ready, delayed or outstanding; at least 1.
    pub messages: u64,
    /// Bytes of these, counted as [`Message::size`](crate::Message::size); at least 1. Default: any
    /// number.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// What happens to more. Default: publishers wait.
    pub overflow: Overflow,
}

impl BacklogLimit {
    /// At most `messages`; publishers wait beyond.
    pub fn new(messages: u64) -> Self {
        Self { messages, bytes: None, overflow: Overflow::Wait }
    }

    /// At most `bytes`, in any number of messages; publishers wait beyond.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { messages: u64::MAX, bytes: Some(bytes), overflow: Overflow::Wait }
    }

    /// Sets how many bytes the messages may have together, whatever their number.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// What happens beyond.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }
}

const DEFAULT_BUDGET: u64 = 256 * 1024 * 1024;
const DEFAULT_TOPIC_RESERVE: u64 = 64 * 1024;
