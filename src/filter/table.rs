//! A hash table of small numbers: where in a list of its owner the thing with a hash is.
//!
//! Open addressing by groups of eight slots. A word holds a byte of the hash of each slot of a
//! group, so that one comparison says for almost all that is not there that it is not there,
//! without a branch that cannot be foreseen, and these words are few enough to stay in the cache.
//! They can be read for many look-ups before any is resolved: cache misses overlap. What the
//! numbers stand for, and whether two things are equal, is the owner's business.

/// Numbers filed under hashes.
#[derive(Debug, Clone, Default)]
pub(super) struct HashIndex {
    /// One word a group, one byte a slot: [`FREE`], [`REMOVED`] or the print of what is there.
    prints: Vec<u64>,
    /// Tag in the upper half, number in the lower.
    slots: Vec<u64>,
    len: usize,
    /// Slots that are not free, be it that something was removed from them.
    used: usize,
}

/// The first group of a look-up and the first slot of interest, read ahead of the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    tag: u32,
    group: u32,
    prints: u64,
    slot: u64,
}

impl HashIndex {
    /// Reads the first group for a hash; `None` if nothing with this hash can be there.
    #[inline]
    pub(super) fn probe(&self, hash: u64) -> Option<Probe> {
        let tag = (hash >> 32) as u32;
        let group = self.home(tag);
        let prints = self.prints_of(group);
        let alike = zeros(prints ^ (EACH * u64::from(print_of(tag))));
        if alike == 0 && zeros(prints) != 0 {
            return None;
        }
        let slot = self.slots.get(slot_at(group, alike)).copied().unwrap_or_default();
        Some(Probe { tag, group: group as u32, prints, slot })
    }

    /// The number whose thing `is_equal` and has the hash of the probe.
    #[inline]
    pub(super) fn find(&self, probe: Probe, mut is_equal: impl FnMut(u32) -> bool) -> Option<u32> {
        let Probe { tag, group, mut prints, mut slot } = probe;
        let (mut group, wanted) = (group as usize, EACH * u64::from(print_of(tag)));
        loop {
            let mut alike = zeros(prints ^ wanted);
            while alike != 0 {
                if (slot >> 32) as u32 == tag && is_equal(slot as u32) {
                    return Some(slot as u32);
                }
                alike &= alike - 1;
                slot = self.slots.get(slot_at(group, alike)).copied().unwrap_or_default();
            }
            if zeros(prints) != 0 {
                return None;
            }
            group = self.after(group);
            prints = self.prints_of(group);
            let alike = zeros(prints ^ wanted);
            slot = self.slots.get(slot_at(group, alike)).copied().unwrap_or_default();
        }
    }

    /// Files a number; the caller has made sure that nothing equal is there.
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        if (self.used + 1) * LEAST_SLOTS_PER_ENTRY > self.slots.len() {
            // Where much was removed, the same size may do.
            self.rebuild((self.len + 1) * LEAST_SLOTS_PER_ENTRY);
        }
        self.len += 1;
        self.place((hash >> 32) << 32 | u64::from(number));
    }

    /// Takes a number out that was filed under this hash.
    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        let Some((group, lane)) = self.locate(hash, number) else { return };
        // A look-up that came this way went on only if nothing was free here.
        let goes_on = zeros(self.prints_of(group)) == 0;
        self.set_print(group, lane, if goes_on { REMOVED } else { FREE });
        self.len -= 1;
        self.used -= usize::from(!goes_on);
        if self.slots.len() > SLOTS && self.len * MOST_SLOTS_PER_ENTRY < self.slots.len() {
            self.rebuild(self.len * LEAST_SLOTS_PER_ENTRY * 2);
        }
    }

    pub(super) fn memory(&self) -> usize {
        (self.slots.capacity() + self.prints.capacity()) * size_of::<u64>()
    }

    /// Group and lane of a number that is there.
    fn locate(&self, hash: u64, number: u32) -> Option<(usize, usize)> {
        let tag = (hash >> 32) as u32;
        let (wanted, slot) =
            (EACH * u64::from(print_of(tag)), hash >> 32 << 32 | u64::from(number));
        let mut group = self.home(tag);
        loop {
            let prints = self.prints_of(group);
            let mut alike = zeros(prints ^ wanted);
            while alike != 0 {
                if self.slots.get(slot_at(group, alike)) == Some(&slot) {
                    return Some((group, lane_of(alike)));
                }
                alike &= alike - 1;
            }
            if zeros(prints) != 0 {
                return None;
            }
            group = self.after(group);
        }
    }

    /// Makes a table of at least so many slots and places everything anew.
    fn rebuild(&mut self, least: usize) {
        let groups = least.div_ceil(SLOTS).next_power_of_two();
        let prints = std::mem::replace(&mut self.prints, vec![0; groups]);
        let slots = std::mem::replace(&mut self.slots, vec![0; groups * SLOTS]);
        self.used = 0;
        for (prints, slots) in prints.iter().zip(slots.chunks(SLOTS)) {
            let there = prints.to_le_bytes().into_iter().zip(slots);
            there.filter(|(print, _)| *print > REMOVED).for_each(|(_, slot)| self.place(*slot));
        }
    }

    /// Puts a slot into the first free place of its way. What was removed is not used again, which
    /// keeps ways short: a full group is rare.
    fn place(&mut self, slot: u64) {
        let tag = (slot >> 32) as u32;
        let mut group = self.home(tag);
        while zeros(self.prints_of(group)) == 0 {
            group = self.after(group);
        }
        let free = zeros(self.prints_of(group));
        if let Some(place) = self.slots.get_mut(slot_at(group, free)) {
            *place = slot;
        }
        self.set_print(group, lane_of(free), print_of(tag));
        self.used += 1;
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.prints.len().wrapping_sub(1)
    }

    #[inline]
    fn after(&self, group: usize) -> usize {
        (group + 1) & (self.prints.len() - 1)
    }

    #[inline]
    fn prints_of(&self, group: usize) -> u64 {
        self.prints.get(group).copied().unwrap_or_default()
    }

    fn set_print(&mut self, group: usize, lane: usize, print: u8) {
        if let Some(prints) = self.prints.get_mut(group) {
            let shift = lane * u8::BITS as usize;
            *prints = *prints & !(0xFF << shift) | u64::from(print) << shift;
        }
    }
}

/// The highest bit of each byte that is zero. Above the first such byte others may be taken for
/// one; whether there is any, and which is the first, is exact.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(EACH) & !word & (EACH << 7)
}

/// The first byte of those marked by [`zeros`]; none is marked: one behind the last.
#[inline]
fn lane_of(marks: u64) -> usize {
    (marks.trailing_zeros() / u8::BITS) as usize
}

#[inline]
fn slot_at(group: usize, marks: u64) -> usize {
    group * SLOTS + lane_of(marks)
}

/// One byte of a tag, but neither [`FREE`] nor [`REMOVED`].
#[inline]
fn print_of(tag: u32) -> u8 {
    let print = (tag >> 24) as u8;
    if print > REMOVED { print } else { print + REMOVED + 1 }
}

const FREE: u8 = 0;
const REMOVED: u8 = 1;

/// A one in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

/// Slots of a group, one byte of a word each.
const SLOTS: usize = size_of::<u64>();

/// A table grows when there would be fewer slots for each entry, so that few groups are full.
const LEAST_SLOTS_PER_ENTRY: usize = 2;

/// A table shrinks when there are more.
const MOST_SLOTS_PER_ENTRY: usize = 10;

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
        // Few different hashes: full groups, and ways that go around the end of the table.
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
            let probe = index.probe(hash(asked));
            let found = probe.and_then(|probe| index.find(probe, |found| found == asked));
            assert_eq!(found, model.contains_key(&asked).then_some(asked));
            assert_eq!(index.len, model.len());
        }
        assert!(index.slots.len() <= 60 * MOST_SLOTS_PER_ENTRY);
    }

    #[test]
    fn an_empty_table_finds_nothing_and_gives_its_memory_back() {
        let mut index = HashIndex::default();
        assert!(index.probe(5).is_none());
        (0..10_000).for_each(|n| index.insert(u64::from(n) << 33, n));
        let full = index.memory();
        (0..10_000).for_each(|n| index.remove(u64::from(n) << 33, n));
        assert!(index.memory() * 100 < full);
    }
}
