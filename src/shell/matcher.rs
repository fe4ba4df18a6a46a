//! The filters of a topic: who matches, asked while others come and go.
//!
//! Two copies of the index take turns. Readers use the one that is shown; a change is made to the
//! hidden one, which is then shown, and afterwards to the other once its last reader has left. So
//! a publisher never waits for a change, be it a large table that grows, and a change is complete
//! before the call that asked for it returns. Locks: the registry comes before the topic's, a
//! copy's after everything.

use std::collections::HashMap;

use ahash::RandomState;

use crate::filter::{Counts, Filter, FilterIndex, Normal, Subject};
use crate::message::Message;
use crate::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, RwLock};

/// Which view of a topic; a slot that is used again has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ViewKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The filters of a topic.
#[derive(Debug)]
pub(crate) struct Matcher<T = ViewKey> {
    seed: u64,
    copies: [RwLock<Option<Box<FilterIndex<T>>>>; 2],
    /// The copy that readers use.
    shown: AtomicUsize,
    /// How many filters there are; a topic without any has nothing to look up.
    filters: AtomicUsize,
    registry: Mutex<Registry<T>>,
}

/// Which filters there are. Whoever holds it is alone with changes.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    by_normal: HashMap<Arc<Normal>, Registered<T>, RandomState>,
}

#[derive(Debug, Clone, Copy)]
struct Registered<T> {
    number: u32,
    value: T,
}

/// What some messages match, and up to which filter that has been decided.
#[derive(Clone, Debug)]
pub(crate) struct Matches<T = ViewKey> {
    version: u64,
    /// Message by message, in order.
    hits: smallvec::SmallVec<[(u32, T); 4]>,
    taken: usize,
}

impl<T: Copy> Matches<T> {
    pub(crate) fn none() -> Self {
        Self { version: 0, hits: smallvec::SmallVec::new(), taken: 0 }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether none of the messages matches anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// What the message at a position matches; positions are asked for in order.
    pub(crate) fn take(&mut self, message: u32) -> &[(u32, T)] {
        let rest = self.hits.get(self.taken..).unwrap_or_default();
        let count = rest.iter().take_while(|(at, _)| *at == message).count();
        self.taken += count;
        rest.get(..count).unwrap_or_default()
    }
}

impl<T: Copy> Matcher<T> {
    /// A matcher without filters.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            copies: [RwLock::new(None), RwLock::new(None)],
            shown: AtomicUsize::new(0),
            filters: AtomicUsize::new(0),
            registry: Mutex::new(Registry { by_normal: HashMap::with_hasher(hashes(seed)) }),
        }
    }

    /// Whether there are no filters.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.filters.load(Ordering::SeqCst) == 0
    }

    /// Which filters match which of these messages.
    ///
    /// The answer is written where the caller will look at it: it is large, and right after it was
    /// written a copy would have to wait.
    #[inline]
    pub(crate) fn matching<S: Subject>(&self, messages: &[S], matches: &mut Matches<T>) {
        if !self.is_empty() {
            self.read(|index| {
                matches.version = index.version();
                index.matching(messages, |at, value| matches.hits.push((at, value)));
            });
        }
    }

    /// Calls `found` for each filter that matches one message.
    pub(crate) fn matching_one(&self, message: &Message, mut found: impl FnMut(T)) {
        self.read(|index| index.matching(std::slice::from_ref(message), |_, value| found(value)));
    }

    /// How many filters stand where.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.read(|index| counts = index.counts());
        counts
    }

    /// Bytes that both copies take; looks at every filter.
    pub(crate) fn memory(&self) -> usize {
        let mut bytes = 0;
        self.read(|index| bytes = index.memory() * self.copies.len());
        bytes
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry<T>> {
        self.registry.lock()
    }

    /// What the counts would be with one filter more.
    pub(crate) fn counts_with(&self, normal: &Normal) -> Counts {
        let mut counts = None;
        self.read(|index| counts = Some(index.counts_with(normal)));
        counts.unwrap_or_else(|| FilterIndex::<T>::new(self.seed).counts_with(normal))
    }

    /// Adds a filter that is not there yet; answers the version from which on it is.
    pub(crate) fn insert(&self, registry: &mut Registry<T>, normal: Arc<Normal>, value: T) -> u64 {
        let (mut added, mut planned) = ((0, 0), None);
        self.change(|index| {
            // Made once: both copies have the same history.
            let plan = planned.take().unwrap_or_else(|| {
                let plan = index.plan(&normal);
                planned = Some(plan.clone());
                plan
            });
            let number = index.insert(Arc::clone(&normal), plan, value);
            added = (number, index.version());
        });
        let (number, version) = added;
        registry.by_normal.insert(normal, Registered { number, value });
        self.filters.store(registry.by_normal.len(), Ordering::SeqCst);
        version
    }

    /// Takes a filter out.
    pub(crate) fn remove(&self, registry: &mut Registry<T>, normal: &Normal) {
        let Some(Registered { number, .. }) = registry.by_normal.remove(normal) else { return };
        self.change(|index| index.remove(number));
        self.filters.store(registry.by_normal.len(), Ordering::SeqCst);
    }

    /// Looks at the copy that is shown. It never waits: a copy is only locked for a change after
    /// the other one is shown. A copy that was hidden before it could be locked may be ahead of the
    /// other, so it is not looked at: nothing that came or went does so twice.
    #[inline]
    fn read(&self, look: impl FnOnce(&FilterIndex<T>)) {
        loop {
            let shown = self.shown.load(Ordering::SeqCst);
            let copy = self.copies.get(shown & 1).and_then(|copy| copy.try_read());
            if let Some(copy) = copy
                && self.shown.load(Ordering::SeqCst) == shown
            {
                if let Some(index) = copy.as_deref() {
                    look(index);
                }
                return;
            }
            crate::sync::spin();
        }
    }

    /// Makes a change to both copies, one after the other. The registry is held.
    fn change(&self, mut change: impl FnMut(&mut FilterIndex<T>)) {
        let hidden = (self.shown.load(Ordering::SeqCst) & 1) ^ 1;
        for turn in [hidden, hidden ^ 1] {
            if let Some(copy) = self.copies.get(turn) {
                let mut copy = copy.write();
                change(copy.get_or_insert_with(|| Box::new(FilterIndex::new(self.seed))));
            }
            self.shown.store(hidden, Ordering::SeqCst);
        }
    }
}

impl<T: Copy> Registry<T> {
    /// What stands under a filter.
    pub(crate) fn find(&self, normal: &Normal) -> Option<T> {
        self.by_normal.get(normal).map(|registered| registered.value)
    }
}

/// Hashing under keys from the bus's seed.
fn hashes(seed: u64) -> RandomState {
    let [a, b, c, d] = [1, 2, 3, 4].map(|nth| crate::ack_id::mix(seed.wrapping_add(nth)));
    RandomState::with_seeds(a, b, c, d)
}

/// A filter that came lately, for publishers that had asked before.
#[derive(Debug)]
pub(crate) struct Recent {
    pub(crate) version: u64,
    pub(crate) key: ViewKey,
    pub(crate) filter: Filter,
}

/// So many filters that came lately are known one by one.
pub(crate) const MAX_RECENT: usize = 64;

impl Subject for Message {
    #[inline]
    fn attributes<'s>(&'s self, mut visit: impl FnMut(&'s [u8], &'s [u8])) {
        Message::attributes(self).pairs().for_each(|(name, value)| visit(name, value));
    }

    fn ordering_key(&self) -> &str {
        Message::ordering_key(self)
    }

    fn data_size(&self) -> u64 {
        self.data().len() as u64
    }

    fn attribute_count(&self) -> u64 {
        Message::attributes(self).len() as u64
    }
}

#[cfg(all(test, siftbus_loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicBool;

    fn filter(text: &str) -> Arc<Normal> {
        Arc::new(Filter::parse(text).expect("a filter").normal())
    }

    /// What stands under one value: both filters have the same key.
    const FIRST: &str = "attributes.k = \"x\" AND NOT attributes:gone";
    const SECOND: &str = "attributes.k = \"x\"";

    /// One posting, to which a filter comes and from which one goes while a message is looked up:
    /// what is there before the look and after it is found, what is not is not, and nothing that
    /// was seen to come or go does so again (LIB-200).
    #[test]
    fn insert_and_remove_against_a_look_up() {
        loom::model(|| {
            let matcher = Arc::new(Matcher::new(7));
            matcher.insert(&mut matcher.registry(), filter(FIRST), 1);
            let (came, went) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let changes = {
                let (matcher, came, went) =
                    (Arc::clone(&matcher), Arc::clone(&came), Arc::clone(&went));
                loom::thread::spawn(move || {
                    matcher.insert(&mut matcher.registry(), filter(SECOND), 2);
                    came.store(true, Ordering::SeqCst);
                    matcher.remove(&mut matcher.registry(), &filter(FIRST));
                    went.store(true, Ordering::SeqCst);
                })
            };
            let message = Message::new("").with_attribute("k", "x");
            let look = || {
                let (has_come, has_gone) =
                    (came.load(Ordering::SeqCst), went.load(Ordering::SeqCst));
                let mut found = Vec::new();
                matcher.matching_one(&message, |value| found.push(value));
                found.sort_unstable();
                assert!(matches!(found[..], [1] | [1, 2] | [2]), "{found:?}");
                assert!(!has_come || found.contains(&2), "it was there before the look");
                assert!(!has_gone || !found.contains(&1), "it was gone before the look");
                found
            };
            let (earlier, later) = (look(), look());
            assert!(!earlier.contains(&2) || later.contains(&2), "it came and was missed");
            assert!(earlier.contains(&1) || !later.contains(&1), "it went and came back");
            changes.join().expect("it ends");
            assert_eq!(look(), [2]);
        });
    }

    /// Two who change one posting do not lose each other's change, nor does a look wait for ever.
    #[test]
    fn two_changes_of_one_posting() {
        loom::model(|| {
            let matcher = Arc::new(Matcher::new(7));
            matcher.insert(&mut matcher.registry(), filter(FIRST), 1);
            let other = {
                let matcher = Arc::clone(&matcher);
                loom::thread::spawn(move || {
                    matcher.remove(&mut matcher.registry(), &filter(FIRST));
                })
            };
            matcher.insert(&mut matcher.registry(), filter(SECOND), 2);
            other.join().expect("it ends");
            let message = Message::new("").with_attribute("k", "x");
            // Both copies took both changes: a further one shows the other copy.
            for _ in 0..2 {
                let mut found = Vec::new();
                matcher.matching_one(&message, |value| found.push(value));
                assert_eq!(found, [2]);
                matcher.insert(&mut matcher.registry(), filter("attributes:other"), 3);
            }
        });
    }
}
