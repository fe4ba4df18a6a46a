//! A queue of small values addressed by an index that only grows, kept in chunks.
//!
//! Pushing never moves what is there (no doubling of megabytes under a lock) and the memory is
//! what the values need: the first chunk starts small, later ones have `N` places. It knows
//! nothing of what it holds: lease words in a window, positions in a view.

use std::collections::VecDeque;

/// Values of the indices `first..end`.
#[derive(Debug)]
pub(crate) struct Chunks<T, const N: usize> {
    /// The index of the first place of the first chunk.
    base: u64,
    first: u64,
    end: u64,
    chunks: VecDeque<Vec<T>>,
}

impl<T: Copy, const N: usize> Chunks<T, N> {
    /// An empty queue whose next index is `start`.
    pub(crate) fn starting_at(start: u64) -> Self {
        Self { base: start, first: start, end: start, chunks: VecDeque::new() }
    }

    #[inline]
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.end - self.first
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first == self.end
    }

    #[inline]
    pub(crate) fn get(&self, index: u64) -> Option<&T> {
        if index < self.first {
            return None;
        }
        let place = index.checked_sub(self.base)? as usize;
        self.chunks.get(place / N)?.get(place % N)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut T> {
        if index < self.first {
            return None;
        }
        let place = index.checked_sub(self.base)? as usize;
        self.chunks.get_mut(place / N)?.get_mut(place % N)
    }

    /// What lies at each of the indices, as far as anything does, whether it was removed or not. No
    /// look at one waits for another.
    #[inline]
    pub(crate) fn look_at(&self, indices: impl Iterator<Item = u64>) -> impl Iterator<Item = &T> {
        let (front, back) = self.chunks.as_slices();
        indices.filter_map(move |index| {
            let place = index.wrapping_sub(self.base) as usize;
            let chunk = match front.get(place / N) {
                Some(chunk) => chunk,
                None => back.get(place / N - front.len())?,
            };
            chunk.get(place % N)
        })
    }

    /// The values from `index` to the end of its chunk.
    #[inline]
    pub(crate) fn run_mut(&mut self, index: u64) -> &mut [T] {
        if index < self.first {
            return &mut [];
        }
        let place = (index - self.base) as usize;
        let chunk = self.chunks.get_mut(place / N);
        chunk.and_then(|chunk| chunk.get_mut(place % N..)).unwrap_or_default()
    }

    pub(crate) fn push(&mut self, value: T) {
        self.push_run(1, value);
    }

    /// Pushes the same value `count` times.
    #[inline]
    pub(crate) fn push_run(&mut self, count: usize, value: T) {
        if let Some(chunk) = self.chunks.back_mut().filter(|chunk| count == 1 && chunk.len() < N) {
            chunk.push(value);
            self.end += 1;
            return;
        }
        self.push_chunks(count, value);
    }

    fn push_chunks(&mut self, count: usize, value: T) {
        let mut left = count;
        while left > 0 {
            if self.chunks.back().is_none_or(|chunk| chunk.len() == N) {
                // Only the first chunk grows step by step; one that follows will be filled.
                let capacity = if self.chunks.is_empty() { 0 } else { N };
                self.chunks.push_back(Vec::with_capacity(capacity));
            }
            let Some(chunk) = self.chunks.back_mut() else { return };
            let taken = left.min(N - chunk.len());
            chunk.resize(chunk.len() + taken, value);
            left -= taken;
        }
        self.end += count as u64;
    }

    /// Removes everything below `index`.
    #[inline]
    pub(crate) fn drop_below(&mut self, index: u64) {
        self.first = index.clamp(self.first, self.end);
        if self.is_empty() {
            // One chunk stays, so that a queue that fills and empties does not allocate.
            if self.chunks.len() > 1 {
                self.chunks.truncate(1);
            }
            if let Some(chunk) = self.chunks.front_mut() {
                chunk.clear();
            }
            self.base = self.first;
            return;
        }
        while self.first - self.base >= N as u64 {
            self.chunks.pop_front();
            self.base += N as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_map_of_indices() {
        let mut chunks = Chunks::<u64, 4>::starting_at(7);
        for value in 0..100 {
            chunks.push(value);
            if value % 3 == 0 {
                chunks.drop_below(chunks.first() + 2);
            }
            for index in 0..120 {
                let expected = (chunks.first()..chunks.end()).contains(&index).then(|| index - 7);
                assert_eq!(chunks.get(index).copied(), expected, "index {index}");
                let seen: Vec<u64> = chunks.look_at([index].into_iter()).copied().collect();
                assert!(expected.is_none_or(|value| seen == [value]), "index {index}: {seen:?}");
            }
        }
    }

    #[test]
    fn runs_cross_chunks_and_emptying_keeps_the_index() {
        let mut chunks = Chunks::<u8, 4>::starting_at(0);
        chunks.push_run(10, 1);
        assert_eq!((chunks.len(), chunks.get(9)), (10, Some(&1)));
        chunks.drop_below(99);
        assert!(chunks.is_empty());
        assert_eq!((chunks.first(), chunks.end()), (10, 10));
        chunks.push(2);
        assert_eq!(chunks.get(10), Some(&2));
    }
}
