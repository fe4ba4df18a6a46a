//! Many filters matched against one message, at a cost that does not grow with their number.
//!
//! Every filter is filed under the keys of its cover (`cover.rs`): a message looks up its own
//! attributes, and only filters found there are looked at. Most need no further check, since the
//! key says it all; others run what is left of them. Where many are found at one place, those that
//! have a test in common stand behind it; those of the form "all but this value" need no look.
//!
//! A value with exclusive access for changes: two copies that take turns make readers independent
//! of writers (`shell/matcher.rs`). Both go through the same steps, so their node numbers agree.
//! Hashing is keyed; nothing that can be seen depends on it. Here is what an index consists of;
//! where a filter will stand is decided in `planning.rs`, done in `filing.rs` and `groups.rs`, and
//! used in `matching.rs`.

mod counts;
mod fields;
mod filing;
mod groups;
mod keys;
mod list;
mod matching;
mod node;
mod planning;

use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use self::counts::Standing;
use self::fields::Fields;
use self::keys::Keys;
use self::list::List;
use self::node::{Filing, ListId, Node, Residual};
use super::cover::Plan;
use super::hash::KeyedHash;
use super::normal::{Literal, Normal};
use super::program::Check;

pub(crate) use self::counts::Counts;
pub(crate) use self::matching::Subject;

/// Filters with what is filed under each, typically a small id.
#[derive(Debug)]
pub(crate) struct FilterIndex<T> {
    fields: Fields,
    keys: Keys<T>,
    nodes: Slab<Node<T>>,
    /// For each node.
    filings: Slab<Filing>,
    always: List,
    /// Filters without a cover.
    scanned: List,
    groups: Slab<Group>,
    /// Fields with filters of the form "all but", in the order in which they came to have some.
    exclusions: Vec<u32>,
    /// How many places are in lists that no key leads to.
    keyless: usize,
    counts: Counts,
    /// How many filters were ever inserted.
    version: u64,
}

/// Filters of a list that have a test in common, without which none of them matches.
#[derive(Debug)]
struct Group {
    /// Where the list is.
    parent: ListId,
    guard: Literal,
    field: u32,
    check: Check,
    list: List,
}

impl<T: Copy> FilterIndex<T> {
    /// An index without filters, whose hashes depend on `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let hash = KeyedHash::new(seed);
        Self {
            fields: Fields::new(hash),
            keys: Keys::new(hash),
            nodes: Slab::new(),
            filings: Slab::new(),
            always: List::default(),
            scanned: List::default(),
            groups: Slab::new(),
            exclusions: Vec::new(),
            keyless: 0,
            counts: Counts::default(),
            version: 0,
        }
    }

    /// How many filters were ever inserted: a later answer has all filters of an earlier one,
    /// but for those removed since.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// What the counts would be with one filter more. Changes nothing.
    pub(crate) fn counts_with(&self, normal: &Normal) -> Counts {
        let plan = self.plan(normal);
        let mut counts = self.counts;
        *counts.of(Standing::of(&plan)) += 1;
        counts.entries += plan.route.entries();
        counts
    }

    /// Files `value` under a filter that is not there yet, as it was planned just before; answers
    /// its number.
    pub(crate) fn insert(&mut self, normal: Arc<Normal>, plan: Plan, value: T) -> u32 {
        self.version += 1;
        normal.literals(&mut |literal| self.fields.enter(&literal.field));
        let node = Node { value, is_repeated: false, residual: Residual::Nothing };
        let number = self.nodes.insert(node) as u32;
        let standing = Standing::of(&plan);
        // Both are changed together, so they give out the same numbers.
        self.filings.insert(Filing { places: SmallVec::new(), normal, standing });
        self.file(number, plan);
        number
    }

    /// Takes a filter out by its number.
    pub(crate) fn remove(&mut self, number: u32) {
        if !self.nodes.contains(number as usize) {
            return;
        }
        self.unfile(number);
        self.nodes.remove(number as usize);
        let filing = self.filings.remove(number as usize);
        filing.normal.literals(&mut |literal| self.fields.leave(&literal.field));
        if self.nodes.is_empty() {
            // What stays empty for long should not keep what it once needed.
            self.nodes = Slab::new();
            self.filings = Slab::new();
            self.keys = Keys::new(self.keys.hash);
            self.fields = Fields::new(self.keys.hash);
        }
    }

    /// Bytes that the index takes, the filters' own texts and trees excepted.
    pub(crate) fn memory(&self) -> usize {
        let residuals = self.nodes.iter().map(|(_, node)| match &node.residual {
            Residual::Program(program) => program.memory(),
            _ => 0,
        });
        let residuals = residuals.sum::<usize>();
        let lists = [&self.always, &self.scanned].into_iter();
        let lists = lists.chain(self.groups.iter().map(|(_, group)| &group.list));
        self.fields.memory()
            + lists.map(List::memory).sum::<usize>()
            + self.groups.capacity() * size_of::<Group>()
            + self.keys.memory()
            + self.nodes.capacity() * size_of::<Node<T>>()
            + self.filings.capacity() * size_of::<Filing>()
            + residuals
    }
}

#[cfg(test)]
mod tests;
