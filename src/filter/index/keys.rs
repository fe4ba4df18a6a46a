//! Keys, found by hash: values, their beginnings and ends, and ranges of numbers, each with the
//! filters that stand under it. One table for all fields, so that many fields are not many tables.

use slab::Slab;
use smol_str::SmolStr;

use super::list::List;
use super::node::Lone;
use crate::filter::hash::KeyedHash;
use crate::filter::table::{HashIndex, Probe};

#[derive(Debug)]
pub(super) struct Keys<T> {
    pub(super) hash: KeyedHash,
    entries: Slab<KeyEntry<T>>,
    by_hash: HashIndex,
}

/// One cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct KeyEntry<T> {
    pub(super) value: SmolStr,
    pub(super) kind: Kind,
    pub(super) field: u32,
    pub(super) list: List,
    /// The only filter, if so little is to be done for it that it fits here.
    pub(super) lone: Option<Lone<T>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Equal,
    Prefix,
    Suffix,
    Number,
    /// The node that matches all but this value.
    AllBut,
}

impl<T> Keys<T> {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self { hash, entries: Slab::new(), by_hash: HashIndex::default() }
    }

    #[inline]
    pub(super) fn get(&self, key: u32) -> Option<&KeyEntry<T>> {
        self.entries.get(key as usize)
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut KeyEntry<T>> {
        self.entries.get_mut(key as usize)
    }

    /// Begins a look-up; `None` if there is no key with this hash.
    #[inline]
    pub(super) fn probe(&self, hash: u64) -> Option<Probe> {
        self.by_hash.probe(hash)
    }

    /// The key that a probe leads to.
    #[inline]
    pub(super) fn resolve(
        &self,
        probe: Probe,
        field: u32,
        kind: Kind,
        value: &[u8],
    ) -> Option<&KeyEntry<T>> {
        let key = self.number(probe, field, kind, value)?;
        self.get(key)
    }

    #[inline]
    fn number(&self, probe: Probe, field: u32, kind: Kind, value: &[u8]) -> Option<u32> {
        self.by_hash.find(probe, |key| {
            self.get(key).is_some_and(|entry| {
                entry.field == field && entry.kind == kind && entry.value.as_bytes() == value
            })
        })
    }

    pub(super) fn find(&self, field: u32, kind: Kind, value: &[u8]) -> Option<u32> {
        let probe = self.probe(self.hash.text(domain(field, kind), value))?;
        self.number(probe, field, kind, value)
    }

    /// The number of a key, and whether it had to be made.
    pub(super) fn enter(&mut self, field: u32, kind: Kind, value: SmolStr) -> (u32, bool) {
        let hash = self.hash.text(domain(field, kind), value.as_bytes());
        let probe = self.probe(hash);
        let known = probe.and_then(|probe| self.number(probe, field, kind, value.as_bytes()));
        if let Some(key) = known {
            return (key, false);
        }
        let entry = KeyEntry { value, kind, field, list: List::Empty, lone: None };
        let key = self.entries.insert(entry) as u32;
        self.by_hash.insert(hash, key);
        (key, true)
    }

    pub(super) fn remove(&mut self, key: u32) -> Option<KeyEntry<T>> {
        let entry = self.entries.try_remove(key as usize)?;
        let hash = self.hash.text(domain(entry.field, entry.kind), entry.value.as_bytes());
        self.by_hash.remove(hash, key);
        Some(entry)
    }

    pub(super) fn memory(&self) -> usize {
        let lists = self.entries.iter().map(|(_, entry)| entry.list.memory()).sum::<usize>();
        self.by_hash.memory() + self.entries.capacity() * size_of::<KeyEntry<T>>() + lists
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<T> KeyEntry<T> {
    /// The length that the field counts for this key.
    pub(super) fn length(&self) -> u32 {
        match self.kind {
            Kind::Number => number_bits(&self.value),
            _ => self.value.len() as u32,
        }
    }
}

/// Equal texts of different fields and kinds have different hashes.
#[inline]
pub(super) fn domain(field: u32, kind: Kind) -> u64 {
    u64::from(field) << 8 | kind as u64
}

/// How a range of numbers is written as a key: its bits and its image, in hexadecimal.
pub(super) fn number_name(bits: u32, image: u64) -> [u8; 18] {
    let digit = |number: u64| match number & 15 {
        digit @ 0..=9 => b'0' + digit as u8,
        digit => b'a' - 10 + digit as u8,
    };
    std::array::from_fn(|at| match at {
        0 => digit(u64::from(bits) >> 4),
        1 => digit(u64::from(bits)),
        at => digit(image >> (4 * (17 - at))),
    })
}

fn number_bits(name: &str) -> u32 {
    name.get(..2).and_then(|bits| u32::from_str_radix(bits, 16).ok()).unwrap_or_default()
}
