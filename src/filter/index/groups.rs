//! Groups: filters of one list that have a test in common stand behind it, so that one look at a
//! message dismisses them all. Only what must hold for the whole filter can be such a test. What is
//! left to check of a filter does not change by it.

use std::collections::HashMap;
use std::sync::Arc;

use super::keys::Kind;
use super::list::List;
use super::node::{ListId, Place};
use super::{FilterIndex, Group};
use crate::filter::ast::Test;
use crate::filter::normal::{Literal, Normal};
use crate::filter::program::Check;

impl<T: Copy> FilterIndex<T> {
    /// The list that a filter bound for `list` belongs in: that itself, or the largest group, or a
    /// group within that, whose test it has.
    pub(super) fn group_for(&self, mut list: ListId, number: u32) -> ListId {
        let Some(filing) = self.filings.get(number as usize) else { return list };
        while !self.list(list).groups().is_empty() {
            let groups = guards(&filing.normal).filter_map(|guard| self.list(list).group(guard));
            let size = |group: &u32| self.list(ListId::Group(*group)).total();
            match groups.max_by_key(size) {
                Some(group) => list = ListId::Group(group),
                None => break,
            }
        }
        list
    }

    /// Puts those of a long list that have a test in common behind it: each filter behind that of
    /// its tests which most of the others have, too.
    pub(super) fn split(&mut self, list: ListId) {
        let numbers = self.list(list).as_slice().iter();
        let filed = numbers.filter_map(|at| Some((*at, self.filings.get(*at as usize)?)));
        let filed: Vec<_> = filed.map(|(at, filing)| (at, Arc::clone(&filing.normal))).collect();
        let mut sharing: HashMap<&Literal, usize> = HashMap::new();
        for guard in filed.iter().flat_map(|(_, normal)| guards(normal)) {
            *sharing.entry(guard).or_default() += 1;
        }
        // What led here holds for all of them, so it tells nothing.
        sharing.retain(|guard, count| *count >= MIN_GROUP && !self.is_known(list, guard));
        let mut bound: HashMap<&Literal, Vec<u32>> = HashMap::new();
        for (number, normal) in &filed {
            let shared = guards(normal).filter_map(|guard| Some((sharing.get(guard)?, guard)));
            if let Some((_, guard)) = shared.max() {
                bound.entry(guard).or_default().push(*number);
            }
        }
        // In the same order in both copies of an index.
        let mut bound: Vec<_> = bound.into_iter().collect();
        bound.sort_unstable();
        for (guard, numbers) in bound.into_iter().filter(|(_, all)| all.len() >= MIN_GROUP) {
            let group = self.add_group(list, guard.clone());
            numbers.into_iter().for_each(|number| self.move_to(number, list, group));
        }
    }

    fn add_group(&mut self, parent: ListId, guard: Literal) -> ListId {
        let field = self.fields.find(&guard.field).unwrap_or(u32::MAX);
        let check = Check::of(&guard.test);
        let list = List::default();
        let group = Group { parent, guard: guard.clone(), field, check, list };
        let group = self.groups.insert(group) as u32;
        if let Some(list) = self.list_mut(parent) {
            list.add_group(guard, group);
        }
        ListId::Group(group)
    }

    /// Takes an empty group out of its list; answers that.
    pub(super) fn remove_group(&mut self, group: u32) -> ListId {
        let group = self.groups.remove(group as usize);
        if let Some(list) = self.list_mut(group.parent) {
            list.remove_group(&group.guard);
        }
        group.parent
    }

    fn move_to(&mut self, number: u32, from: ListId, to: ListId) {
        let Some(filing) = self.filings.get_mut(number as usize) else { return };
        let Some(nth) = filing.places.iter().position(|place| place.list == from) else { return };
        let Place { at, .. } = filing.places.swap_remove(nth);
        let mut places = std::mem::take(&mut filing.places);
        self.push(to, number, &mut places);
        if let Some(filing) = self.filings.get_mut(number as usize) {
            filing.places = places;
        }
        self.swap_remove(from, at);
    }

    /// A node came into a list or went: the lists around it count it.
    pub(super) fn count_grouped(&mut self, mut list: ListId, comes: bool) {
        while let ListId::Group(group) = list {
            let Some(group) = self.groups.get(group as usize) else { return };
            list = group.parent;
            if let Some(around) = self.list_mut(list) {
                around.count_grouped(comes);
            }
        }
    }

    /// The list that a message is led to, of which this one is a part.
    pub(super) fn root(&self, mut list: ListId) -> ListId {
        while let ListId::Group(group) = list {
            let Some(group) = self.groups.get(group as usize) else { return list };
            list = group.parent;
        }
        list
    }

    /// Whether a test holds for whatever is led to a list.
    fn is_known(&self, mut list: ListId, test: &Literal) -> bool {
        while let ListId::Group(group) = list {
            let Some(group) = self.groups.get(group as usize) else { return false };
            if group.guard == *test {
                return true;
            }
            list = group.parent;
        }
        let (field, is_known) = match list {
            ListId::Present(field) => (field, test.test == Test::Has),
            ListId::Key(key) => {
                let Some(entry) = self.keys.get(key) else { return false };
                let is_known = match (&entry.kind, &test.test) {
                    (Kind::Equal, Test::Eq(text))
                    | (Kind::Prefix, Test::Prefix(text))
                    | (Kind::Suffix, Test::Suffix(text)) => *text == entry.value,
                    (_, test) => *test == Test::Has,
                };
                (entry.field, is_known)
            }
            _ => return false,
        };
        is_known && test.holds && self.fields.find(&test.field) == Some(field)
    }
}

/// The tests without which a filter does not match.
fn guards(normal: &Normal) -> impl Iterator<Item = &Literal> {
    normal.conjuncts().iter().filter_map(|term| match term {
        Normal::Literal(literal) => Some(literal),
        _ => None,
    })
}

/// So many filters with a test in common are worth a group.
pub(super) const MIN_GROUP: usize = 8;
