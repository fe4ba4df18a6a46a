//! What a topic's filters would do, and what they cost: read only.

use std::collections::BTreeSet;

use super::TopicShared;
use crate::explain::{FilterLint, FilterStats};
use crate::filter::Filter;
use crate::message::{Message, MessageId, Published};
use crate::shell::subscription::SubscriptionShared;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::time::Time;

impl TopicShared {
    /// The subscriptions that a message would reach.
    pub(crate) fn would_take(&self, message: &Message) -> Vec<Arc<SubscriptionShared>> {
        let mut keys = Vec::new();
        self.matcher.matching_one(message, |key| keys.push(key));
        let state = self.lock();
        if state.deleted {
            return Vec::new();
        }
        let takes = |subscription: &&Arc<SubscriptionShared>| match subscription.view.key {
            None => true,
            Some(key) => keys.contains(&key),
        };
        state.subscriptions.values().filter(takes).cloned().collect()
    }

    /// Calls `look` with a message that is in memory and its position, while nothing is published
    /// and the log stays as it is.
    pub(crate) fn with_message<R>(&self, id: MessageId, look: impl FnOnce(Found) -> R) -> R {
        let state = self.lock();
        if let Some(due) = state.delayed.due_of(id) {
            return look(Found::Delayed(due));
        }
        let directory = self.directory.read();
        let found = directory.by_id(id, &state.late);
        let found = found.map_or(Found::Nowhere, |(at, message)| Found::At(at, message.clone()));
        drop(directory);
        look(found)
    }

    /// The filters by what they cost.
    pub(crate) fn filter_stats(&self) -> FilterStats {
        let counts = self.matcher.counts();
        let memory_bytes = self.matcher.memory();
        let state = self.lock();
        let filters = state.views.iter().count();
        let subscriptions = state.views.iter().map(|filtered| filtered.subscriptions()).sum();
        FilterStats {
            filters,
            subscriptions,
            exact: counts.exact,
            indexed: counts.indexed,
            presence: counts.presence,
            scan: counts.scan,
            constant: counts.constant,
            shared: subscriptions.saturating_sub(filters),
            entries: counts.entries,
            memory_bytes,
        }
    }

    /// What about a filter is probably not meant on this topic (LIB-205).
    pub(crate) fn lint(&self, filter: &Filter) -> Vec<FilterLint> {
        let mut lints = filter.lint();
        let unseen = filter.keys().into_iter().filter(|key| self.seen.is_unseen(key));
        lints.extend(unseen.map(|key| FilterLint::KeyNeverSeen { key }));
        lints
    }
}

/// Where a topic has a message.
pub(crate) enum Found {
    /// At a position of the log.
    At(u64, Published),
    /// It is published then.
    Delayed(Time),
    Nowhere,
}

/// The attributes that messages have had, for the lint.
#[derive(Debug)]
pub(super) struct SeenKeys {
    /// Beginnings of names that were seen lately: what is here needs no second look.
    lately: [AtomicU64; LATELY],
    /// Messages since one last had an attribute that was not there.
    quiet: AtomicU64,
    keys: Mutex<BTreeSet<Box<[u8]>>>,
}

impl SeenKeys {
    pub(super) fn new() -> Self {
        Self {
            lately: std::array::from_fn(|_| AtomicU64::new(0)),
            quiet: AtomicU64::new(0),
            keys: Mutex::new(BTreeSet::new()),
        }
    }

    /// Takes notice of the attributes of a message.
    #[inline]
    pub(super) fn notice(&self, message: &Message) {
        // A lost count does no harm, so no read-modify-write.
        let quiet = self.quiet.load(Ordering::Relaxed) + 1;
        self.quiet.store(quiet, Ordering::Relaxed);
        if quiet > QUIET && !quiet.is_multiple_of(SAMPLED) {
            return;
        }
        for (name, _) in message.attributes().pairs() {
            let print = fingerprint(name);
            let place = self.lately.get(print as usize % LATELY);
            if place.is_none_or(|place| place.load(Ordering::Relaxed) != print) {
                self.remember(name, print);
            }
        }
    }

    #[cold]
    fn remember(&self, name: &[u8], print: u64) {
        let mut keys = self.keys.lock();
        if keys.len() < MAX_SEEN_KEYS && !keys.contains(name) {
            keys.insert(name.into());
            self.quiet.store(0, Ordering::Relaxed);
        }
        if let Some(place) = self.lately.get(print as usize % LATELY) {
            place.store(print, Ordering::Relaxed);
        }
    }

    /// Silent while nothing is known, and once there are too many keys to know them all.
    fn is_unseen(&self, key: &str) -> bool {
        let keys = self.keys.lock();
        (1..MAX_SEEN_KEYS).contains(&keys.len()) && !keys.contains(key.as_bytes())
    }
}

/// Tells names apart: by two words and the length, which is all of a short name.
#[inline]
fn fingerprint(name: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) if name.len() <= 16 => {
            let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
            let mixed = first.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ last.rotate_left(29);
            (mixed ^ (mixed >> 31)) ^ name.len() as u64
        }
        _ => name.iter().fold(0xcbf2_9ce4_8422_2325, step),
    }
}

/// A topic remembers so many different keys.
pub(crate) const MAX_SEEN_KEYS: usize = 1_024;

/// After so many messages without a new key only one in [`SAMPLED`] is looked at.
const QUIET: u64 = 1_024;
const SAMPLED: u64 = 16;

/// Names that are recognised at once.
const LATELY: usize = 32;
