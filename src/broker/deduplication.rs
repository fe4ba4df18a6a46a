//! Which idempotency keys were published lately, and under which id (LIB-381).
//!
//! One map, and the keys in the order in which they came: they leave it in the same order. A key
//! that has left the window is forgotten late, but never takes a publish for a duplicate.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use crate::message::MessageId;
use crate::sync::Arc;
use crate::time::{Span, Time};

/// What the budget counts for a key beyond its bytes: two places, and the key's own allocation.
pub(crate) const KEY_OVERHEAD: u64 = 96;

/// Sets its hashes apart from others made with the seed of the bus.
const SEED: u64 = 0x6964_656d_706f_7465;

#[derive(Debug)]
pub(crate) struct Deduplication {
    window: Span,
    first: HashMap<Arc<str>, First, RandomState>,
    order: VecDeque<(Arc<str>, MessageId)>,
    bytes: u64,
    latest: Time,
    duplicates: u64,
}

/// The publish that counts for a key.
#[derive(Copy, Clone, Debug)]
struct First {
    id: MessageId,
    time: Time,
}

impl Deduplication {
    pub(crate) fn new(window: Span, seed: u64) -> Self {
        let hasher = RandomState::with_seeds(seed, !seed, SEED, seed ^ SEED);
        Self {
            window,
            first: HashMap::with_hasher(hasher),
            order: VecDeque::new(),
            bytes: 0,
            latest: Time::default(),
            duplicates: 0,
        }
    }

    pub(crate) fn set_window(&mut self, window: Span) {
        self.window = window;
    }

    /// Keys that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }

    /// What the budget counts for them.
    #[inline]
    pub(crate) fn charge(&self) -> u64 {
        self.bytes
    }

    /// Messages that were not published because they were before.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    pub(crate) fn count_duplicates(&mut self, count: u64) {
        self.duplicates += count;
    }

    /// The id under which a key was first published within the window.
    pub(crate) fn find(&self, key: &str, now: Time) -> Option<MessageId> {
        let first = self.first.get(key)?;
        (now < first.time.after(self.window)).then_some(first.id)
    }

    /// A message with this key is published.
    pub(crate) fn insert(&mut self, key: &str, id: MessageId, now: Time) {
        self.latest = self.latest.max(now);
        let first = First { id, time: self.latest };
        let key: Arc<str> = Arc::from(key);
        if self.first.insert(Arc::clone(&key), first).is_none() {
            self.bytes += charge_of(&key);
        }
        self.order.push_back((key, id));
    }

    /// A message is not published after all.
    pub(crate) fn remove(&mut self, key: &str, id: MessageId) {
        if self.first.get(key).is_some_and(|first| first.id == id) {
            self.first.remove(key);
            self.bytes -= charge_of(key);
        }
    }

    /// Forgets keys that have left the window, at most `work` of them. Answers whether there may
    /// be more.
    pub(crate) fn forget_old(&mut self, now: Time, work: usize) -> bool {
        for _ in 0..work {
            let Some((key, id)) = self.order.front() else { return false };
            // What the map does not have was removed, or has come again since.
            let first = self.first.get(key).filter(|first| first.id == *id);
            if first.is_some_and(|first| now < first.time.after(self.window)) {
                return false;
            }
            if first.is_some() {
                self.first.remove(key);
                self.bytes -= charge_of(key);
            }
            self.order.pop_front();
            if self.order.len() < self.order.capacity() / 8 {
                self.give_back();
            }
        }
        true
    }

    /// When the oldest key leaves the window.
    pub(crate) fn next_due(&self) -> Option<Time> {
        let (key, id) = self.order.front()?;
        let first = self.first.get(key).filter(|first| first.id == *id);
        Some(first.map_or(self.latest, |first| first.time.after(self.window)))
    }

    #[cold]
    fn give_back(&mut self) {
        self.order.shrink_to(self.order.len() * 2);
        self.first.shrink_to(self.first.len() * 2);
    }
}

/// What the budget counts for a key.
pub(crate) fn charge_of(key: &str) -> u64 {
    key.len() as u64 + KEY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn id(number: u64) -> MessageId {
        MessageId::from_u64(number)
    }

    #[test]
    fn a_key_is_known_within_the_window_and_forgotten_after() {
        let mut keys = Deduplication::new(Span::from_millis(10), 7);
        keys.insert("a", id(1), at(100));
        keys.insert("b", id(2), at(105));
        assert_eq!((keys.find("a", at(109)), keys.find("a", at(110))), (Some(id(1)), None));
        assert_eq!((keys.find("c", at(100)), keys.next_due()), (None, Some(at(110))));
        keys.set_window(Span::from_millis(5));
        assert_eq!(keys.find("a", at(106)), None, "at once");
        assert!(!keys.forget_old(at(106), 10));
        assert_eq!((keys.len(), keys.charge()), (1, charge_of("b")));
        // Come again before it was forgotten: the new one counts.
        keys.insert("b", id(3), at(111));
        assert!(!keys.forget_old(at(112), 10));
        assert_eq!((keys.find("b", at(112)), keys.len()), (Some(id(3)), 1));
        keys.remove("b", id(2));
        assert_eq!(keys.len(), 1, "another publish of the same key");
        keys.remove("b", id(3));
        assert!(!keys.forget_old(at(112), 10));
        assert_eq!((keys.len(), keys.charge(), keys.next_due()), (0, 0, None));
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut keys = Deduplication::new(Span::from_millis(10), 7);
        for number in 0..10_000 {
            keys.insert(&number.to_string(), id(number), at(1));
        }
        while keys.forget_old(at(11), 100) {}
        assert_eq!((keys.len(), keys.charge()), (0, 0));
        assert!(keys.order.capacity() < 100 && keys.first.capacity() < 100);
    }
}
