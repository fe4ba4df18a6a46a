//! Values that come and go, each at a place of its own; memory follows their number.
//!
//! A place is a small number that stays the same. Places are kept in chunks, the lowest that is
//! free is given out first, and a chunk that nothing is left in goes. So there is no moment in
//! which much is moved, and a burst of values leaves nothing behind but the list of chunks.

use std::collections::BTreeSet;

/// Places in a chunk: as many as a word has bits.
const CHUNK: usize = u64::BITS as usize;

#[derive(Debug)]
pub(crate) struct Places<T> {
    chunks: Vec<Option<Box<Chunk<T>>>>,
    /// Chunks, there or not, that have a free place; beyond the last one there are more.
    free: BTreeSet<u32>,
    /// A chunk kept at hand, so that one value that comes and goes does not allocate.
    spare: Option<Box<Chunk<T>>>,
    len: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    /// A bit for each place that is taken.
    taken: u64,
    values: [Option<T>; CHUNK],
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: BTreeSet::new(), spare: None, len: 0 }
    }
}

impl<T> Places<T> {
    #[inline]
    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(place as usize / CHUNK)?.as_deref_mut()?;
        chunk.values.get_mut(place as usize % CHUNK)?.as_mut()
    }

    /// Puts a value at the lowest free place; answers that.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let number = self.free.first().copied().unwrap_or_else(|| {
            self.chunks.push(None);
            let number = self.chunks.len() as u32 - 1;
            self.free.insert(number);
            number
        });
        let Some(chunk) = self.chunks.get_mut(number as usize) else {
            unreachable!("chunks that are free are in the list")
        };
        let spare = &mut self.spare;
        let chunk = chunk.get_or_insert_with(|| spare.take().unwrap_or_default());
        let at = chunk.taken.trailing_ones();
        chunk.taken |= 1 << at;
        if let Some(place) = chunk.values.get_mut(at as usize) {
            *place = Some(value);
        }
        if chunk.taken == u64::MAX {
            self.free.remove(&number);
        }
        self.len += 1;
        number * CHUNK as u32 + at
    }

    pub(crate) fn remove(&mut self, place: u32) {
        let number = place as usize / CHUNK;
        let Some(slot) = self.chunks.get_mut(number) else { return };
        let Some(chunk) = slot.as_deref_mut() else { return };
        let value = chunk.values.get_mut(place as usize % CHUNK).and_then(Option::take);
        if value.is_none() {
            return;
        }
        if chunk.taken == u64::MAX {
            self.free.insert(number as u32);
        }
        chunk.taken &= !(1 << (place as usize % CHUNK));
        self.len -= 1;
        if chunk.taken == 0 {
            self.spare = slot.take();
            self.forget_last();
        }
    }

    /// Forgets chunks at the end that are not there.
    fn forget_last(&mut self) {
        while self.chunks.last().is_some_and(Option::is_none) {
            self.chunks.pop();
            self.free.remove(&(self.chunks.len() as u32));
        }
        if self.chunks.len() < self.chunks.capacity() / 8 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let there = self.chunks.iter_mut().zip((0_u32..).step_by(CHUNK));
        there.filter_map(|(chunk, base)| Some((chunk.as_deref_mut()?, base))).flat_map(
            |(chunk, base)| {
                let values = chunk.values.iter_mut().zip(base..);
                values.filter_map(|(value, place)| Some((place, value.as_mut()?)))
            },
        )
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Places for which there is memory.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        let chunks = self.chunks.iter().flatten().count() + usize::from(self.spare.is_some());
        chunks * CHUNK
    }
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self { taken: 0, values: std::array::from_fn(|_| None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_map_that_gives_out_the_lowest_number() {
        let mut places = Places::default();
        let mut model: std::collections::BTreeMap<u32, u64> = std::collections::BTreeMap::new();
        let mut random = 7_u64;
        for step in 0..20_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Grows in the first half, shrinks in the second.
            let grows = (random >> 33) % 3 < if step < 10_000 { 2 } else { 1 };
            if grows || model.is_empty() {
                let lowest = (0..).find(|place| !model.contains_key(place));
                assert_eq!(Some(places.insert(step)), lowest, "step {step}");
                model.insert(lowest.expect("there is one"), step);
            } else if let Some(place) = model.keys().nth((random >> 40) as usize % model.len()) {
                let place = *place;
                places.remove(place);
                model.remove(&place);
                assert!(places.get_mut(place).is_none());
            }
            if step % 500 == 0 {
                let there: Vec<_> = places.iter_mut().map(|(at, value)| (at, *value)).collect();
                assert_eq!(there, model.clone().into_iter().collect::<Vec<_>>());
            }
            assert_eq!(places.len(), model.len());
            if model.is_empty() {
                assert!(places.capacity() <= CHUNK);
            }
        }
    }

    #[test]
    fn memory_goes_with_the_values() {
        let mut places = Places::default();
        let last = (0..100_000).map(|value| places.insert(value)).last();
        assert_eq!(last, Some(99_999));
        assert!(places.capacity() < 100_000 + CHUNK);
        // In the order in which they came, as keys go that are worked on.
        for gone in 0..100_000_u32 {
            places.remove(gone);
            let left = 100_000 - gone as usize - 1;
            assert!(places.capacity() <= left + 3 * CHUNK, "{left} are left");
        }
        assert!(places.chunks.capacity() < 100 && places.free.is_empty());
        assert_eq!(places.insert(7), 0);
    }
}
