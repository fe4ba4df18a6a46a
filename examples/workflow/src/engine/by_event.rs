//! A small map by event id: sorted, in one allocation that fits.
//!
//! Most executions have one list and one step running, and there may be a million of them: the
//! nodes of a tree would be most of their memory. New ids are larger than all before, so insertion
//! is a push.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state::EventId;

/// Values by the event that made them, in the order of the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByEvent<T>(Vec<(EventId, T)>);

impl<T> Default for ByEvent<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByEvent<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of an event.
    pub fn get(&self, id: EventId) -> Option<&T> {
        self.0.get(self.find(id).ok()?).map(|(_, value)| value)
    }

    /// Whether the event has a value.
    pub fn contains(&self, id: EventId) -> bool {
        self.find(id).is_ok()
    }

    /// All of them, by event.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (EventId, &T)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }

    /// The values, by event.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Those of earlier events than `id`.
    pub fn before(&self, id: EventId) -> impl DoubleEndedIterator<Item = (EventId, &T)> {
        let end = self.find(id).unwrap_or_else(|end| end);
        self.0.get(..end).unwrap_or_default().iter().map(|(id, value)| (*id, value))
    }

    pub(super) fn get_mut(&mut self, id: EventId) -> Option<&mut T> {
        let found = self.find(id).ok()?;
        self.0.get_mut(found).map(|(_, value)| value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, id: EventId, value: T) {
        match self.find(id) {
            Ok(found) => {
                if let Some(entry) = self.0.get_mut(found) {
                    entry.1 = value;
                }
            }
            Err(place) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, (id, value));
            }
        }
    }

    pub(super) fn remove(&mut self, id: EventId) -> Option<T> {
        let (_, value) = self.0.remove(self.find(id).ok()?);
        Some(value)
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    fn find(&self, id: EventId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |(id, _)| *id)
    }
}

impl<T: Serialize> Serialize for ByEvent<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByEvent<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<EventId, T>::deserialize(deserializer)?;
        Ok(Self(map.into_iter().collect()))
    }
}
