//! The books of a bus: every topic that is alive, and the sums of those that are not.
//!
//! A topic enters at birth and leaves when it is dropped, whatever happened to its name meanwhile.
//! While an audit reads, none enters or leaves.

use std::collections::BTreeMap;
use std::sync::Weak;

use super::topic::TopicShared;
use crate::broker::ledger::TopicLedger;
use crate::sync::{Arc, Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Books {
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
pub(crate) struct Pages {
    topics: BTreeMap<u64, Weak<TopicShared>>,
    /// Sums of the topics that are gone.
    pub(crate) past: TopicLedger,
}

impl Books {
    pub(crate) fn new() -> Self {
        Self { pages: Mutex::new(Pages::default()) }
    }

    pub(crate) fn enter(&self, id: u64, topic: &Weak<TopicShared>) {
        self.pages.lock().topics.insert(id, topic.clone());
    }

    pub(crate) fn leave(&self, id: u64, ledger: &TopicLedger) {
        let mut pages = self.pages.lock();
        pages.topics.remove(&id);
        pages.past.add(ledger);
    }

    /// Every topic, in order of creation, with the lock that keeps the set as it is. The topics
    /// must be dropped after the lock.
    pub(crate) fn open(&self) -> (Vec<Arc<TopicShared>>, MutexGuard<'_, Pages>) {
        loop {
            let pages = self.pages.lock();
            let alive: Vec<_> = pages.topics.values().filter_map(Weak::upgrade).collect();
            if alive.len() == pages.topics.len() {
                return (alive, pages);
            }
            // One is being dropped right now, and comes here to sign off.
            drop(pages);
            drop(alive);
            std::thread::yield_now();
        }
    }
}
