//! The filters that stand in one place of the index: under a key, a presence, or without any. Of a
//! long list those that have a test in common stand in a group behind it, which is a list again.

use std::collections::HashMap;

use crate::filter::normal::Literal;

/// Node numbers; the usual one without an allocation.
#[derive(Debug, Default)]
pub(super) enum List {
    #[default]
    Empty,
    One(u32),
    // Boxed, since a vector in place would make every entry larger for the sake of a few.
    #[expect(clippy::box_collection)]
    Many(Box<Vec<u32>>),
    Split(Box<Split>),
}

/// A list with groups.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// Nodes that are in no group.
    nodes: Vec<u32>,
    groups: Vec<u32>,
    /// Only asked for single tests, never walked.
    by_guard: HashMap<Literal, u32>,
    /// Nodes in all groups, and in those within them.
    grouped: usize,
}

impl List {
    /// The nodes that are in no group.
    #[inline]
    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::Empty => &[],
            Self::One(number) => std::slice::from_ref(number),
            Self::Many(numbers) => numbers,
            Self::Split(split) => &split.nodes,
        }
    }

    #[inline]
    pub(super) fn groups(&self) -> &[u32] {
        match self {
            Self::Split(split) => &split.groups,
            _ => &[],
        }
    }

    /// The group behind a test.
    pub(super) fn group(&self, guard: &Literal) -> Option<u32> {
        match self {
            Self::Split(split) => split.by_guard.get(guard).copied(),
            _ => None,
        }
    }

    /// How many nodes there are, those in groups included.
    pub(super) fn total(&self) -> usize {
        let grouped = if let Self::Split(split) = self { split.grouped } else { 0 };
        self.as_slice().len() + grouped
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty() && self.groups().is_empty()
    }

    pub(super) fn push(&mut self, number: u32) {
        match self {
            Self::Empty => *self = Self::One(number),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, number])),
            Self::Many(numbers) => numbers.push(number),
            Self::Split(split) => split.nodes.push(number),
        }
    }

    /// Answers which number stands there now.
    pub(super) fn swap_remove(&mut self, at: usize) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::One(_) => {
                *self = Self::Empty;
                None
            }
            Self::Many(numbers) => {
                numbers.swap_remove(at);
                let moved = numbers.get(at).copied();
                if let [only] = numbers[..] {
                    *self = Self::One(only);
                }
                moved
            }
            Self::Split(split) => {
                split.nodes.swap_remove(at);
                split.nodes.get(at).copied()
            }
        }
    }

    pub(super) fn add_group(&mut self, guard: Literal, group: u32) {
        if !matches!(self, Self::Split(_)) {
            let nodes = self.as_slice().to_vec();
            *self = Self::Split(Box::new(Split { nodes, ..Split::default() }));
        }
        if let Self::Split(split) = self {
            split.groups.push(group);
            split.by_guard.insert(guard, group);
        }
    }

    /// Takes a group out that is empty; without groups the list is a plain one again.
    pub(super) fn remove_group(&mut self, guard: &Literal) {
        let Self::Split(split) = self else { return };
        if let Some(group) = split.by_guard.remove(guard) {
            split.groups.retain(|other| *other != group);
        }
        if split.groups.is_empty() {
            let nodes = std::mem::take(&mut split.nodes);
            *self = match nodes[..] {
                [] => Self::Empty,
                [only] => Self::One(only),
                _ => Self::Many(Box::new(nodes)),
            };
        }
    }

    /// A node came into a group, or went.
    pub(super) fn count_grouped(&mut self, comes: bool) {
        if let Self::Split(split) = self {
            split.grouped = if comes { split.grouped + 1 } else { split.grouped - 1 };
        }
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Empty | Self::One(_) => 0,
            Self::Many(numbers) => size_of::<Vec<u32>>() + numbers.capacity() * size_of::<u32>(),
            Self::Split(split) => {
                let numbers = split.nodes.capacity() + split.groups.capacity();
                let guards = split.by_guard.capacity() * size_of::<(Literal, u32)>();
                size_of::<Split>() + numbers * size_of::<u32>() + guards
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::ast::{Field, Test};

    #[test]
    fn behaves_like_a_vector_whose_gaps_are_filled_from_the_end() {
        let (mut list, mut model) = (List::default(), Vec::new());
        for number in 0..200u32 {
            if number % 3 == 2 && !model.is_empty() {
                let at = number as usize * 7 % model.len();
                model.swap_remove(at);
                assert_eq!(list.swap_remove(at), model.get(at).copied());
            } else {
                model.push(number);
                list.push(number);
            }
            assert_eq!(list.as_slice(), model);
        }
        while !model.is_empty() {
            model.swap_remove(0);
            assert_eq!(list.swap_remove(0), model.first().copied());
        }
        assert_eq!(list.swap_remove(0), None);
        assert!(list.is_empty() && list.memory() == 0);
    }

    #[test]
    fn is_a_plain_list_again_when_its_groups_are_gone() {
        let guard = |key: &str| Literal {
            field: Field::Attribute(key.into()),
            test: Test::Has,
            holds: false,
        };
        for length in 0..4 {
            let mut list = List::default();
            (0..length).for_each(|number| list.push(number));
            list.add_group(guard("a"), 7);
            list.add_group(guard("b"), 8);
            list.count_grouped(true);
            assert_eq!((list.group(&guard("b")), list.total()), (Some(8), length as usize + 1));
            list.count_grouped(false);
            list.remove_group(&guard("a"));
            assert_eq!((list.group(&guard("a")), list.groups()), (None, &[8][..]));
            list.remove_group(&guard("b"));
            assert!(!matches!(list, List::Split(_)));
            assert_eq!((list.as_slice().len(), list.is_empty()), (length as usize, length == 0));
        }
    }
}
