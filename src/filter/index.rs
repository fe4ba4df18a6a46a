//! Many filters matched against one message.
//!
//! Equal filters share one entry, which is evaluated once however many values stand under it.
//! Matching scans the distinct filters; an index by covering keys can take the scan's place
//! behind the same methods. Delivery, positions and locks belong to the topic, not here.

use std::collections::HashMap;

use super::Filter;

/// A set of `(filter, value)` pairs that answers which values' filters match a message.
///
/// A value is whatever the caller wants back, typically a small id. The same value may stand
/// under several filters and is then reported once for each that matches.
#[derive(Debug, Clone)]
pub(crate) struct FilterIndex<T> {
    entries: Vec<Entry<T>>,
    /// Where the entry of a filter is. Only asked for single filters, never walked, so the order
    /// of results does not depend on it.
    positions: HashMap<Filter, usize>,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    filter: Filter,
    /// In order of insertion, never empty.
    values: Vec<T>,
}

impl<T> FilterIndex<T> {
    /// An index without filters.
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), positions: HashMap::new() }
    }

    /// Files `value` under `filter`.
    pub(crate) fn insert(&mut self, filter: Filter, value: T) {
        let position = self.positions.get(&filter).copied();
        match position.and_then(|at| self.entries.get_mut(at)) {
            Some(entry) => entry.values.push(value),
            None => {
                self.positions.insert(filter.clone(), self.entries.len());
                self.entries.push(Entry { filter, values: vec![value] });
            }
        }
    }

    /// Takes `value` out from under `filter`; whether it was there. If it was there more than
    /// once, the oldest goes.
    pub(crate) fn remove(&mut self, filter: &Filter, value: &T) -> bool
    where
        T: PartialEq,
    {
        let Some(&at) = self.positions.get(filter) else { return false };
        let Some(entry) = self.entries.get_mut(at) else { return false };
        let Some(found) = entry.values.iter().position(|v| v == value) else { return false };
        entry.values.remove(found);
        if entry.values.is_empty() {
            self.entries.swap_remove(at);
            self.positions.remove(filter);
            if let Some(moved) = self.entries.get(at) {
                self.positions.insert(moved.filter.clone(), at);
            }
        }
        true
    }

    /// Appends the values whose filters match the attributes that `lookup` finds. The order
    /// follows from the order of insertions and removals alone.
    pub(crate) fn matching<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>, values: &mut Vec<T>)
    where
        T: Clone,
    {
        for entry in &self.entries {
            if entry.filter.matches_with(&lookup) {
                values.extend_from_slice(&entry.values);
            }
        }
    }

    /// The values filed under `filter`.
    pub(crate) fn get(&self, filter: &Filter) -> &[T] {
        let entry = self.positions.get(filter).and_then(|&at| self.entries.get(at));
        entry.map_or(&[], |entry| &entry.values)
    }

    /// How many different filters there are; equal ones count once.
    #[cfg(test)]
    pub(crate) fn distinct_filters(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is filed.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for FilterIndex<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(index: &FilterIndex<u32>, present: &str) -> Vec<u32> {
        let mut values = Vec::new();
        index.matching(|key| (key == present).then_some(""), &mut values);
        values
    }

    #[test]
    fn equal_filters_share_an_entry_and_leave_one_by_one() {
        let mut index = FilterIndex::new();
        for (filter, value) in [("attributes:a", 1), ("attributes:b", 2), ("(attributes:a)", 3)] {
            index.insert(filter.parse().expect("valid"), value);
        }
        assert_eq!(index.distinct_filters(), 2);
        assert_eq!(matching(&index, "a"), [1, 3]);
        assert!(index.remove(&Filter::has("a"), &1));
        assert_eq!(matching(&index, "a"), [3]);
        assert!(index.remove(&Filter::has("a"), &3));
        assert_eq!((matching(&index, "a"), matching(&index, "b")), (vec![], vec![2]));
        assert!(!index.remove(&Filter::has("b"), &1));
        assert!(index.remove(&Filter::has("b"), &2));
        assert!(index.is_empty());
    }

    #[test]
    fn an_entry_that_moves_is_found_again() {
        let mut index = FilterIndex::new();
        let filters = ["a", "b", "c"].map(Filter::has);
        for (filter, value) in filters.iter().zip(0..) {
            index.insert(filter.clone(), value);
        }
        assert!(index.remove(&Filter::has("a"), &0));
        index.insert(Filter::has("c"), 9);
        assert_eq!(matching(&index, "c"), [2, 9]);
        assert_eq!(index.distinct_filters(), 2);
    }
}
