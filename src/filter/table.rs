//! A hash table of small numbers: where in a list of its owner the thing with a hash is.
//!
//! Open addressing with one word per slot, so that a look-up touches one cache line, and the first
//! slots of many look-ups can be read before any is resolved: their cache misses overlap. What the
//! numbers stand for, and whether two things are equal, is the owner's business.

/// Numbers filed under hashes.
#[derive(Debug, Clone, Default)]
pub(super) struct HashIndex {
    /// Tag in the upper half, number + 1 in the lower; zero is free. A power of two, or empty.
    slots: Vec<u64>,
    len: usize,
}

/// The first slot of a look-up, read ahead of the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    tag: u32,
    at: usize,
    slot: u64,
}

impl HashIndex {
    /// Reads the first slot for a hash.
    #[inline]
    pub(super) fn probe(&self, hash: u64) -> Probe {
        let tag = tag_of(hash);
        let at = self.home(tag);
        Probe { tag, at, slot: self.slots.get(at).copied().unwrap_or_default() }
    }

    /// The number whose thing `is_equal` and has the hash of the probe.
    #[inline]
    pub(super) fn find(&self, probe: Probe, mut is_equal: impl FnMut(u32) -> bool) -> Option<u32> {
        let Probe { tag, mut at, mut slot } = probe;
        while slot != FREE {
            if (slot >> 32) as u32 == tag && is_equal(number_of(slot)) {
                return Some(number_of(slot));
            }
            at = (at + 1) & (self.slots.len() - 1);
            slot = self.slots.get(at).copied().unwrap_or_default();
        }
        None
    }

    /// Files a number; the caller has made sure that nothing equal is there.
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        if (self.len + 1) * MAX_LOAD_OF > self.slots.len() * MAX_LOAD {
            self.resize((self.slots.len() * 2).max(MIN_SLOTS));
        }
        self.len += 1;
        self.place(slot_of(hash, number));
    }

    /// Takes a number out that was filed under this hash.
    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        let wanted = slot_of(hash, number);
        let mut at = self.home(tag_of(hash));
        loop {
            match self.slots.get(at).copied().unwrap_or_default() {
                FREE => return,
                slot if slot == wanted => break,
                _ => at = (at + 1) & (self.slots.len() - 1),
            }
        }
        self.len -= 1;
        self.close_gap(at);
        if self.slots.len() > MIN_SLOTS && self.len * SHRINK_BELOW < self.slots.len() {
            self.resize(self.slots.len() / 2);
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }

    /// Moves up what stands behind a gap because its place was taken: no tombstones are left.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.slots.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots.get(at).copied().unwrap_or_default();
            if slot == FREE {
                break;
            }
            let home = self.home((slot >> 32) as u32);
            // It may move if its home is not between the gap and where it stands.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.set(gap, slot);
                gap = at;
            }
        }
        self.set(gap, FREE);
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![FREE; slots]);
        old.into_iter().filter(|slot| *slot != FREE).for_each(|slot| self.place(slot));
    }

    fn place(&mut self, slot: u64) {
        let mut at = self.home((slot >> 32) as u32);
        while self.slots.get(at).is_some_and(|found| *found != FREE) {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.set(at, slot);
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.slots.len().wrapping_sub(1)
    }

    fn set(&mut self, at: usize, slot: u64) {
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
    }
}

#[inline]
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn slot_of(hash: u64, number: u32) -> u64 {
    (u64::from(tag_of(hash)) << 32) | (u64::from(number) + 1)
}

#[inline]
fn number_of(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}

const FREE: u64 = 0;
const MIN_SLOTS: usize = 8;
/// A table grows when more than `MAX_LOAD` of `MAX_LOAD_OF` slots would be taken.
const MAX_LOAD: usize = 3;
const MAX_LOAD_OF: usize = 4;
/// A table shrinks when fewer than one in so many slots is taken.
const SHRINK_BELOW: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_like_a_map_also_when_hashes_collide() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            (state >> 33) % below
        };
        // Few different hashes: long runs that wrap around the end of the table.
        let hash = |number: u32| u64::from(number % 13).wrapping_mul(0xFFFF_FFFE_1234_5678);
        let mut index = HashIndex::default();
        let mut model = BTreeMap::new();
        for _ in 0..20_000 {
            let number = random(60) as u32;
            if model.remove(&number).is_some() {
                index.remove(hash(number), number);
            } else {
                index.insert(hash(number), number);
                model.insert(number, ());
            }
            let asked = random(60) as u32;
            let found = index.find(index.probe(hash(asked)), |found| found == asked);
            assert_eq!(found, model.contains_key(&asked).then_some(asked));
            assert_eq!(index.len, model.len());
        }
        assert!(index.slots.len() <= MIN_SLOTS * 32);
    }

    #[test]
    fn an_empty_table_finds_nothing_and_gives_its_memory_back() {
        let mut index = HashIndex::default();
        assert_eq!(index.find(index.probe(5), |_| true), None);
        (0..10_000).for_each(|n| index.insert(u64::from(n) << 33, n));
        let full = index.memory();
        (0..10_000).for_each(|n| index.remove(u64::from(n) << 33, n));
        assert!(index.memory() * 100 < full);
    }
}
