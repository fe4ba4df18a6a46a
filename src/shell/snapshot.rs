//! Snapshots: what a subscription had not acknowledged, kept for whoever seeks to it.
//!
//! A snapshot holds positions, not messages (SNP-12). What it captured is fixed; its labels and the
//! end of its life can change. It belongs to its topic, not to the subscription it was made from
//! (SNP-6, SNP-7).

use std::collections::BTreeMap;
use std::sync::Weak;

use super::core::BusCore;
use super::subscription::SubscriptionShared;
use super::timers::{Key, Rank, Timed};
use super::topic::TopicShared;
use crate::broker::replay::Marks;
use crate::clock::Reading;
use crate::config::check_labels;
use crate::error::{AdminError, Resource};
use crate::events::Event;
use crate::name;
use crate::sync::{Arc, Mutex};
use crate::time::{Span, Time};

pub(crate) struct SnapshotShared {
    pub(crate) core: Arc<BusCore>,
    pub(crate) topic: Arc<TopicShared>,
    pub(crate) name: Arc<str>,
    pub(crate) id: u64,
    /// What is unacknowledged for whoever seeks to it.
    pub(crate) marks: Marks,
    /// Everything in the log from here on is kept; what is marked below lies alone.
    pub(crate) hold: u64,
    state: Mutex<State>,
    me: Weak<SnapshotShared>,
}

#[derive(Debug)]
struct State {
    labels: BTreeMap<String, String>,
    expires: Time,
    timer: Option<Key>,
}

impl SnapshotShared {
    /// Marked positions that no hold keeps.
    pub(crate) fn pinned(&self) -> impl Iterator<Item = u64> {
        self.marks.runs.iter().take_while(|position| *position < self.hold)
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.state.lock().labels.clone()
    }

    pub(crate) fn expires(&self) -> Time {
        self.state.lock().expires
    }

    /// Changes labels and the end of life, all or nothing (SNP-9).
    pub(crate) fn update(
        &self,
        labels: Option<BTreeMap<String, String>>,
        expires: Option<Time>,
    ) -> Result<(), AdminError> {
        let now = self.core.read().now;
        self.check_there()?;
        if let Some(labels) = &labels {
            check_labels(labels)?;
        }
        let mut state = self.state.lock();
        if let Some(new) = expires {
            if new <= now || new > state.expires {
                let (expire_time, latest) = (new.to_system(), state.expires.to_system());
                return Err(AdminError::SnapshotLife { expire_time, latest });
            }
            state.expires = new;
        }
        if let Some(labels) = labels {
            state.labels = labels;
        }
        self.schedule(&mut state);
        Ok(())
    }

    pub(crate) fn check_there(&self) -> Result<(), AdminError> {
        self.core.check_open()?;
        let found = self.core.snapshots.get(&self.name).map(|found| found.id);
        if found == Some(self.id) { Ok(()) } else { Err(self.not_found()) }
    }

    pub(crate) fn delete(&self) -> Result<(), AdminError> {
        self.core.check_open()?;
        self.core.read();
        if !self.remove() {
            return Err(self.not_found());
        }
        self.core.events.send(Event::SnapshotDeleted { snapshot: self.name.to_string() });
        Ok(())
    }

    /// Takes it out of the registry and gives back what it kept. Answers false if it was gone.
    pub(crate) fn remove(&self) -> bool {
        self.core.snapshots.remove_if(&self.name, |_, found| found.id == self.id);
        if let Some(key) = self.state.lock().timer.take() {
            self.core.timers.cancel(key);
        }
        self.topic.forget_snapshot(self)
    }

    fn not_found(&self) -> AdminError {
        AdminError::NotFound { resource: Resource::Snapshot, name: self.name.to_string() }
    }

    fn schedule(&self, state: &mut State) {
        let key = Key { due: state.expires.min(Time::LAST), rank: Rank::Snapshot, id: self.id };
        let old = state.timer.replace(key);
        let need = self.core.timers.schedule(old, key, self.me.clone(), false);
        self.core.satisfy(need);
    }
}

impl Timed for SnapshotShared {
    /// Its life is over, irrespective of use (SNP-10, EXP-7).
    fn fire(self: Arc<Self>, _: Reading) {
        self.state.lock().timer = None;
        if self.remove() {
            self.core.events.send(Event::SnapshotExpired {
                snapshot: self.name.to_string(),
                topic: self.topic.name.to_string(),
            });
        }
    }
}

impl std::fmt::Debug for SnapshotShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("name", &self.name).finish_non_exhaustive()
    }
}

impl BusCore {
    /// Captures the state of a subscription under a name (SNP-1 … SNP-4).
    pub(crate) fn create_snapshot(
        self: &Arc<Self>,
        name: &str,
        subscription: &SubscriptionShared,
        labels: BTreeMap<String, String>,
    ) -> Result<Arc<SnapshotShared>, AdminError> {
        let resource = Resource::Snapshot;
        name::check(self.limits.names, "snapshots", name)?;
        self.check_open()?;
        let reading = self.read();
        subscription.check_active(reading)?;
        let taken = || AdminError::AlreadyExists { resource, name: name.into() };
        if self.snapshots.contains_key(name) {
            return Err(taken());
        }
        check_labels(&labels)?;
        if let Some(max) = self.limits.snapshots.filter(|max| self.snapshots.len() >= *max) {
            return Err(AdminError::TooMany { resource, name: name.into(), max });
        }
        let topic = &subscription.topic;
        let snapshot = topic.snapshot(subscription, reading, |marks, hold, oldest| {
            let life = Span::round_up(self.limits.snapshot_life);
            let expires = oldest.unwrap_or(reading.now).after(life);
            if expires < reading.now.after(Span::round_up(self.limits.snapshot_least_life)) {
                let subscription = subscription.name.to_string();
                return Err(AdminError::BacklogTooOld { subscription });
            }
            Ok(Arc::new_cyclic(|me| SnapshotShared {
                core: Arc::clone(self),
                topic: Arc::clone(topic),
                name: Arc::from(name),
                id: self.take_object_id(),
                marks,
                hold,
                state: Mutex::new(State { labels, expires, timer: None }),
                me: me.clone(),
            }))
        })?;
        let lost = match self.snapshots.entry(Arc::clone(&snapshot.name)) {
            dashmap::Entry::Occupied(_) => true,
            dashmap::Entry::Vacant(place) => {
                drop(place.insert(Arc::clone(&snapshot)));
                false
            }
        };
        if lost {
            // Somebody else was faster with this name.
            topic.forget_snapshot(&snapshot);
            return Err(taken());
        }
        self.check_still_open()?;
        snapshot.schedule(&mut snapshot.state.lock());
        self.events.send(Event::SnapshotCreated {
            snapshot: name.to_owned(),
            subscription: subscription.name.to_string(),
        });
        Ok(snapshot)
    }

    pub(crate) fn snapshot(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Arc<SnapshotShared>, AdminError> {
        name::check(self.limits.names, "snapshots", name)?;
        self.check_open()?;
        self.read();
        let found = self.snapshots.get(name).map(|found| Arc::clone(&found));
        found
            .ok_or_else(|| AdminError::NotFound { resource: Resource::Snapshot, name: name.into() })
    }

    pub(crate) fn all_snapshots(&self) -> Vec<Arc<SnapshotShared>> {
        let mut all: Vec<_> = self.snapshots.iter().map(|found| Arc::clone(&found)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}
