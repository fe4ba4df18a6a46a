//! All due instants of a bus in one table (L14).
//!
//! Each object registers one lower bound, ordered by instant, kind and number (TIME-2). The
//! earliest
//! is mirrored in an atomic that every reading of the clock is compared with. Entries that somebody
//! waits for are marked as observed: the driver sleeps until the earliest of those.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;

use tokio::sync::Notify;

use crate::clock::Reading;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::time::Time;

/// What an object does when its instant has come.
pub(crate) trait Timed: Send + Sync {
    fn fire(self: Arc<Self>, reading: Reading);
}

/// Objects that are due at the same instant fire in this order.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Topic,
    Subscription,
    Snapshot,
    /// A message that waited at its topic is published.
    Publish,
    /// A publisher that waits is reported.
    Blocked,
    Sleep,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) due: Time,
    pub(crate) rank: Rank,
    pub(crate) id: u64,
}

pub(crate) struct Timers {
    table: Mutex<Table>,
    next: AtomicU64,
    /// Told when the driver has to look at the table again.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<Key, Entry>,
    observed: BTreeSet<Key>,
    /// Somebody listens to events: everything is observed.
    all_observed: bool,
    /// Topics whose publishers wait for what time may free: everything is observed.
    waited_for: BTreeSet<u64>,
    driver: Driver,
    /// A driver has ended while it was needed, and none was started since.
    is_orphaned: bool,
}

struct Entry {
    object: Weak<dyn Timed>,
}

#[derive(Copy, Clone, Debug, Default, PartialEq)]
enum Driver {
    #[default]
    None,
    /// It runs and sleeps until this instant.
    Until(Time),
}

/// Whether a driver has to be started.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Need {
    Nothing,
    Driver,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self {
            table: Mutex::new(Table::default()),
            next: AtomicU64::new(Time::NEVER.as_millis()),
            changed: Notify::new(),
        }
    }

    pub(crate) fn next_due(&self) -> Time {
        Time::from_millis(self.next.load(Ordering::SeqCst))
    }

    /// Puts an object's entry where it belongs now, in the place of the one it had.
    pub(crate) fn schedule(
        &self,
        old: Option<Key>,
        new: Key,
        object: Weak<dyn Timed>,
        observed: bool,
    ) -> Need {
        let mut table = self.table.lock();
        if let Some(old) = old {
            table.entries.remove(&old);
            table.observed.remove(&old);
        }
        table.entries.insert(new, Entry { object });
        if observed {
            table.observed.insert(new);
        }
        self.settle(&table)
    }

    /// Somebody waits for this entry from now on.
    pub(crate) fn observe(&self, key: Key) -> Need {
        let mut table = self.table.lock();
        if table.entries.contains_key(&key) {
            table.observed.insert(key);
        }
        self.settle(&table)
    }

    /// Somebody waits for whatever happens.
    pub(crate) fn observe_all(&self, all: bool) -> Need {
        let mut table = self.table.lock();
        table.all_observed = all;
        self.settle(&table)
    }

    /// Publishers of a topic wait for whatever happens, or no longer do.
    pub(crate) fn observe_waiting(&self, topic: u64, waiting: bool) -> Need {
        let mut table = self.table.lock();
        match waiting {
            true => table.waited_for.insert(topic),
            false => table.waited_for.remove(&topic),
        };
        self.settle(&table)
    }

    pub(crate) fn cancel(&self, key: Key) {
        let mut table = self.table.lock();
        table.entries.remove(&key);
        table.observed.remove(&key);
        let _ = self.settle(&table);
    }

    /// Takes the first object that is due; objects that are gone are passed over.
    pub(crate) fn pop_due(&self, now: Time) -> Option<Arc<dyn Timed>> {
        let mut table = self.table.lock();
        loop {
            let due = table.entries.first_entry().filter(|entry| entry.key().due <= now);
            let Some(entry) = due else {
                let _ = self.settle(&table);
                return None;
            };
            let (key, entry) = entry.remove_entry();
            table.observed.remove(&key);
            if let Some(object) = entry.object.upgrade() {
                let _ = self.settle(&table);
                return Some(object);
            }
        }
    }

    /// The driver goes to sleep: until when?
    pub(crate) fn arm(&self) -> Time {
        let mut table = self.table.lock();
        let until = table.next_observed();
        table.driver = Driver::Until(until);
        until
    }

    /// A driver is about to start. Answers false if there is one already.
    pub(crate) fn claim_driver(&self) -> bool {
        let mut table = self.table.lock();
        if table.driver != Driver::None {
            return false;
        }
        table.driver = Driver::Until(Time::NEVER);
        table.is_orphaned = false;
        let _ = self.settle(&table);
        true
    }

    /// The driver has ended, perhaps with its runtime.
    pub(crate) fn driver_gone(&self) {
        let mut table = self.table.lock();
        table.driver = Driver::None;
        table.is_orphaned = true;
        let _ = self.settle(&table);
    }

    /// Whether something is observed and nobody sleeps for it.
    pub(crate) fn needs_driver(&self) -> bool {
        let table = self.table.lock();
        table.driver == Driver::None && table.next_observed() != Time::NEVER
    }

    /// Forgets everything: the bus is closed. Answers the sleepers, who have to be told.
    pub(crate) fn clear(&self) -> Vec<Arc<dyn Timed>> {
        let mut table = self.table.lock();
        let entries = std::mem::take(&mut table.entries);
        table.observed.clear();
        let _ = self.settle(&table);
        drop(table);
        self.changed.notify_one();
        let sleepers = entries.into_iter().filter(|(key, _)| key.rank == Rank::Sleep);
        sleepers.filter_map(|(_, entry)| entry.object.upgrade()).collect()
    }

    /// Mirrors the earliest instant, and tells the driver if it sleeps too long.
    fn settle(&self, table: &Table) -> Need {
        let observed = table.next_observed();
        let next = match table.is_orphaned && observed != Time::NEVER {
            // Every call that reads the clock finds something due, looks closer, and starts a new
            // driver if it can (D20); until one could.
            true => Time::default(),
            false => table.entries.keys().next().map_or(Time::NEVER, |key| key.due),
        };
        self.next.store(next.as_millis(), Ordering::SeqCst);
        match table.driver {
            Driver::None if observed != Time::NEVER => Need::Driver,
            Driver::Until(until) if observed < until => {
                self.changed.notify_one();
                Need::Nothing
            }
            Driver::None | Driver::Until(_) => Need::Nothing,
        }
    }
}

impl Table {
    fn next_observed(&self) -> Time {
        let all = self.all_observed || !self.waited_for.is_empty();
        let key = if all { self.entries.keys().next() } else { self.observed.first() };
        key.map_or(Time::NEVER, |key| key.due)
    }
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timers").field("next", &self.next_due()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Timed for Nothing {
        fn fire(self: Arc<Self>, _: Reading) {}
    }

    fn key(due: u64, id: u64) -> Key {
        Key { due: Time::from_millis(due), rank: Rank::Sleep, id }
    }

    #[test]
    fn an_object_has_one_entry_however_often_it_moves() {
        let timers = Timers::new();
        let object: Arc<dyn Timed> = Arc::new(Nothing);
        let mut old = None;
        for due in (1..1_000).rev() {
            let _ = timers.schedule(old, key(due, 1), Arc::downgrade(&object), false);
            old = Some(key(due, 1));
        }
        assert_eq!(timers.table.lock().entries.len(), 1);
        assert_eq!(timers.next_due(), Time::from_millis(1));
    }

    #[test]
    fn a_driver_that_went_is_missed_until_there_is_another() {
        let timers = Timers::new();
        let object: Arc<dyn Timed> = Arc::new(Nothing);
        let weak = || Arc::downgrade(&object);
        assert!(timers.claim_driver());
        let _ = timers.schedule(None, key(5_000, 1), weak(), true);
        timers.driver_gone();
        assert_eq!(timers.next_due(), Time::default(), "the next call looks closer (D20)");
        // That call is made outside of a runtime, and schedules something.
        assert_eq!(timers.schedule(None, key(6_000, 2), weak(), false), Need::Driver);
        assert_eq!(timers.next_due(), Time::default(), "so does the one after it (D20)");
        assert!(timers.needs_driver() && timers.claim_driver());
        assert_eq!(timers.next_due(), Time::from_millis(5_000));
    }

    #[test]
    fn only_what_is_observed_needs_a_driver() {
        let timers = Timers::new();
        let object: Arc<dyn Timed> = Arc::new(Nothing);
        let weak = || Arc::downgrade(&object);
        assert_eq!(timers.schedule(None, key(5, 1), weak(), false), Need::Nothing);
        assert_eq!(timers.observe(key(5, 1)), Need::Driver);
        assert!(timers.claim_driver() && !timers.claim_driver());
        assert_eq!(timers.arm(), Time::from_millis(5));
        assert!(timers.pop_due(Time::from_millis(4)).is_none());
        assert!(timers.pop_due(Time::from_millis(5)).is_some());
        assert_eq!(timers.arm(), Time::NEVER);
    }
}

#[cfg(all(test, siftbus_loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicBool;

    struct Nothing;

    impl Timed for Nothing {
        fn fire(self: Arc<Self>, _: Reading) {}
    }

    /// A driver ends with its runtime while a call elsewhere has something observed. That call, or
    /// the next one, starts another.
    #[test]
    fn the_end_of_a_driver_against_a_call_that_needs_one() {
        loom::model(|| {
            let timers = Arc::new(Timers::new());
            let started = Arc::new(AtomicBool::new(false));
            assert!(timers.claim_driver());
            timers.arm();
            let ending = {
                let timers = Arc::clone(&timers);
                loom::thread::spawn(move || timers.driver_gone())
            };
            let object: Arc<dyn Timed> = Arc::new(Nothing);
            let key = Key { due: Time::from_millis(5_000), rank: Rank::Sleep, id: 1 };
            let need = timers.schedule(None, key, Arc::downgrade(&object), true);
            if need == Need::Driver {
                started.store(timers.claim_driver(), Ordering::SeqCst);
            }
            ending.join().expect("it ends");
            // The next call, from a live runtime.
            if timers.next_due() <= Time::from_millis(1) && timers.needs_driver() {
                started.store(timers.claim_driver(), Ordering::SeqCst);
            }
            assert!(started.load(Ordering::SeqCst), "nobody keeps time (D20)");
        });
    }
}
