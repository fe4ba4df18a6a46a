//! What a subscription looks through at its topic's log, and the handshake of publish and pull.
//!
//! The unfiltered view is the log itself: index = position, nothing is written per message. Each
//! distinct filter has a view with a list of the positions that match; subscriptions with equal
//! filters share it. A view is told apart by who owns it, not by what it is: leases, waiting and
//! trimming work on the dense index of either.

use std::sync::Weak;

use smallvec::SmallVec;

use super::matcher::ViewKey;
use super::subscription::SubscriptionShared;
use crate::broker::chunks::Chunks;
use crate::filter::Filter;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};

/// Positions in a chunk of a view: 4 KiB.
const CHUNK: usize = 512;

/// Subscriptions to be told of a publish: most views have one, or many.
pub(crate) type Awaited = SmallVec<[Weak<SubscriptionShared>; 1]>;

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) filter: Filter,
    /// Which of its topic's filtered views it is; `None` is the unfiltered one.
    pub(crate) key: Option<ViewKey>,
    /// The index of the next message.
    head: AtomicU64,
    /// No message from this index on has a time to live.
    ttl_below: AtomicU64,
    /// Positions by index; unused by the unfiltered view.
    positions: Mutex<Chunks<u64, CHUNK>>,
    /// Whether `waiting` may hold somebody.
    is_awaited: AtomicBool,
    waiting: Mutex<Awaited>,
}

impl View {
    pub(crate) fn new(filter: Filter, key: Option<ViewKey>) -> Self {
        Self {
            filter,
            key,
            head: AtomicU64::new(0),
            ttl_below: AtomicU64::new(0),
            positions: Mutex::new(Chunks::starting_at(0)),
            is_awaited: AtomicBool::new(false),
            waiting: Mutex::new(Awaited::new()),
        }
    }

    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    /// Makes everything below `head` visible to pullers. Called under the topic's lock.
    #[inline]
    pub(crate) fn set_head(&self, head: u64) {
        // Stored before the flag is read in `take_waiting`; pullers do it the other way round.
        self.head.store(head, Ordering::SeqCst);
    }

    /// No message from this index on has a time to live, of those below the head that was seen
    /// before this was asked.
    #[inline]
    pub(crate) fn ttl_below(&self) -> u64 {
        self.ttl_below.load(Ordering::SeqCst)
    }

    /// Some message below `head` has a time to live. Said before the head is shown.
    pub(crate) fn set_ttl_below(&self, head: u64) {
        self.ttl_below.store(head, Ordering::SeqCst);
    }

    /// Appends a matching position; visible once the view is shown.
    pub(crate) fn push(&self, position: u64) {
        self.positions.lock().push(position);
    }

    pub(crate) fn position(&self, index: u64) -> Option<u64> {
        self.positions.lock().get(index).copied()
    }

    /// Every position that is kept, lowest first.
    pub(crate) fn positions(&self) -> Vec<u64> {
        let positions = self.positions.lock();
        (positions.first()..positions.end()).filter_map(|i| positions.get(i).copied()).collect()
    }

    /// The first index whose position is `position` or above.
    pub(crate) fn index_at(&self, position: u64) -> u64 {
        let positions = self.positions.lock();
        let (mut low, mut high) = (positions.first(), positions.end());
        while low < high {
            let middle = low + (high - low) / 2;
            let is_below = positions.get(middle).is_some_and(|at| *at < position);
            if is_below { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Removes the positions below `index`; answers them.
    pub(crate) fn drop_below(&self, index: u64) -> Vec<u64> {
        let mut positions = self.positions.lock();
        let dropped =
            (positions.first()..index).filter_map(|i| positions.get(i).copied()).collect();
        positions.drop_below(index);
        dropped
    }

    /// Asks to be told of the next publish. The caller has to look at the head once more after.
    pub(crate) fn register(&self, subscription: Weak<SubscriptionShared>) {
        let mut waiting = self.waiting.lock();
        waiting.push(subscription);
        self.is_awaited.store(true, Ordering::SeqCst);
    }

    /// Takes a subscription that is going away off the list.
    pub(crate) fn unregister(&self, subscription: &Weak<SubscriptionShared>) {
        self.waiting.lock().retain(|other| !other.ptr_eq(subscription));
    }

    /// Whether somebody may wait. A publisher asks after it has set the head.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::SeqCst)
    }

    /// Who has to be told of a publish.
    pub(crate) fn take_waiting(&self) -> Awaited {
        let mut waiting = self.waiting.lock();
        self.is_awaited.store(false, Ordering::SeqCst);
        std::mem::take(&mut *waiting)
    }
}

/// A filtered view as its topic keeps it, behind the topic's lock.
#[derive(Debug)]
pub(crate) struct FilteredView {
    pub(crate) view: Arc<View>,
    pub(crate) key: ViewKey,
    subscriptions: usize,
    /// How far each of its subscriptions is done: index → how many.
    lows: std::collections::BTreeMap<u64, u32>,
    /// Has had a match in the publish that is under way.
    pub(crate) touched: bool,
    /// Matches so far; the next one has this index.
    pub(crate) accepted: u64,
    /// Their bytes.
    pub(crate) accepted_bytes: u64,
}

impl FilteredView {
    pub(crate) fn new(filter: Filter, key: ViewKey) -> Self {
        let view = Arc::new(View::new(filter, Some(key)));
        let lows = std::collections::BTreeMap::new();
        let (accepted, accepted_bytes) = (0, 0);
        Self { view, key, subscriptions: 0, lows, touched: false, accepted, accepted_bytes }
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// Appends a matching position; visible once the view is shown.
    pub(crate) fn push(&mut self, position: u64, bytes: u64) {
        self.view.push(position);
        self.accepted += 1;
        self.accepted_bytes += bytes;
    }

    /// Makes every position that was pushed visible.
    pub(crate) fn show(&self) {
        self.view.set_head(self.accepted);
    }

    pub(crate) fn add_low(&mut self, index: u64) {
        *self.lows.entry(index).or_default() += 1;
        self.subscriptions += 1;
    }

    /// Answers the positions that no subscription of the view needs any more.
    pub(crate) fn remove_low(&mut self, index: u64) -> Vec<u64> {
        if let Some(count) = self.lows.get_mut(&index) {
            *count -= 1;
            self.subscriptions -= 1;
            if *count == 0 {
                self.lows.remove(&index);
            }
        }
        let lowest = self.lows.keys().next().copied().unwrap_or(self.view.head());
        self.view.drop_below(lowest)
    }
}

#[cfg(all(test, siftbus_loom))]
mod loom_tests {
    use super::*;

    /// Whoever registers and then looks at the head either sees the message or is told of it.
    #[test]
    fn publish_against_a_waiting_pull() {
        loom::model(|| {
            let view = Arc::new(View::new(Filter::default(), None));
            let publisher = {
                let view = Arc::clone(&view);
                loom::thread::spawn(move || {
                    view.set_head(1);
                    view.is_awaited() && !view.take_waiting().is_empty()
                })
            };
            view.register(Weak::new());
            let sees_it = view.head() == 1;
            let is_told = publisher.join().expect("it ends");
            assert!(sees_it || is_told, "the message is there and nobody knows (I-8)");
        });
    }

    /// Two subscriptions of one view register while a message comes: none is left behind.
    #[test]
    fn publish_against_two_subscriptions_of_a_view() {
        loom::model(|| {
            let view = Arc::new(View::new(Filter::default(), None));
            let spawn = |act: fn(&View) -> usize| {
                let view = Arc::clone(&view);
                loom::thread::spawn(move || act(&view))
            };
            let publisher = spawn(|view| {
                view.set_head(1);
                if view.is_awaited() { view.take_waiting().len() } else { 0 }
            });
            let other = spawn(|view| {
                view.register(Weak::new());
                usize::from(view.head() == 1)
            });
            view.register(Weak::new());
            let seen = usize::from(view.head() == 1) + other.join().expect("it ends");
            let told = publisher.join().expect("it ends");
            assert!(seen + told >= 2, "one of two knows nothing (I-8)");
        });
    }
}
