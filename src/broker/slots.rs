//! Segments of the topic log: slots that are written once and read by many without a lock.
//!
//! One of the two files with `unsafe`, beside `arena.rs`. A [`Tail`] is the one writer of its
//! [`Segment`]: it cannot be cloned and is the only thing that hands out the right to write.
//! Readers hold the segment by `Arc`.
//!
//! **Invariant.** Slots below `published` are initialised and never written again until the
//! segment is dropped; slots at or above it are touched by the tail alone. `published` only grows,
//! by a release store after the slot was written; readers load it with acquire. `seen` only ever
//! holds what was loaded from `published`, stored with release, so that whoever loads it with
//! acquire sees the same slots.
//!
//! Measured against forms without `unsafe` (ns per message for publish, read and free of an
//! 80-byte message): batches of 100 read borrowed 20, against 19 for one immutable chunk per
//! batch, 23 for sealing by move, 32 for `OnceLock` slots; one at a time 42, against 54, 53 and 56.
//! Chunks cost 37 bytes a message more, and sealing by move makes every reader near the tail copy
//! (11 ns a delivery instead of 1 with a hundred subscriptions) under the publisher's lock.

#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicUsize, Ordering, Spaced, UnsafeCell};

/// A run of consecutive positions of a log, from `base` on.
pub(crate) struct Segment<T> {
    base: u64,
    cells: Box<[Slot<T>]>,
    /// What readers have seen of `published`: below it they leave the writer's cache line alone.
    seen: AtomicUsize,
    published: Spaced<AtomicUsize>,
}

/// One slot, on a cache line of its own: the writer works on the next while this one is read.
#[derive(Debug)]
#[repr(align(64))]
struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: a `T` is moved in by one thread and dropped by another (hence `Send`), and shared
// references to it are handed out on many (hence `Sync`); the cells are otherwise only touched as
// the invariant above says.
unsafe impl<T: Send + Sync> Send for Segment<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Segment<T> {}

impl<T> Segment<T> {
    /// A segment of one slot that is full from the start.
    pub(crate) fn of_one(base: u64, value: T) -> Arc<Self> {
        let mut tail = Tail::new(base, Slots::new(1));
        let pushed = tail.push(value);
        assert!(pushed.is_ok(), "a new segment has a free slot");
        tail.segment
    }

    /// The position of the first slot.
    #[inline]
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The position after the last published slot; it grows while the segment is a tail.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.base + self.len() as u64
    }

    /// How many slots are published.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.published.value.load(Ordering::Acquire)
    }

    /// Whether a slot is published.
    #[inline]
    pub(crate) fn has(&self, slot: usize) -> bool {
        slot < self.seen.load(Ordering::Acquire) || self.look_for(slot)
    }

    fn look_for(&self, slot: usize) -> bool {
        let published = self.len();
        self.seen.store(published, Ordering::Release);
        slot < published
    }

    /// How many slots there are.
    pub(crate) fn capacity(&self) -> usize {
        self.cells.len()
    }

    /// The value in slot `slot`, if it was published.
    #[inline]
    pub(crate) fn get(&self, slot: usize) -> Option<&T> {
        if !self.has(slot) {
            return None;
        }
        let cell = &self.cells.get(slot)?.0;
        // SAFETY: `slot < published`, so the slot was initialised before the release store that
        // was acquired above, directly or through `seen`, and nobody writes it while `self` is
        // borrowed.
        Some(cell.with(|value| unsafe { (*value).assume_init_ref() }))
    }

    /// The value at a position of the log, if this segment has it.
    #[inline]
    pub(crate) fn at(&self, position: u64) -> Option<&T> {
        let slot = position.checked_sub(self.base)?;
        self.get(usize::try_from(slot).ok()?)
    }
}

impl<T> Segment<T> {
    /// The slots of a segment that nobody else holds, empty, to be used again.
    pub(crate) fn into_slots(segment: Arc<Self>) -> Option<Slots<T>> {
        let mut segment = Arc::into_inner(segment)?;
        segment.clear();
        Some(Slots(std::mem::take(&mut segment.cells)))
    }

    fn clear(&mut self) {
        let published = self.len();
        // First, so that a value whose drop panics is not dropped again.
        self.published.value.store(0, Ordering::Relaxed);
        self.seen.store(0, Ordering::Relaxed);
        for cell in self.cells.iter().take(published) {
            // SAFETY: the slot was published and is not any more, so nobody else drops it, and
            // `&mut self` says that no reader is left.
            cell.0.with_mut(|value| unsafe { (*value).assume_init_drop() });
        }
    }
}

impl<T> Drop for Segment<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Empty slots.
#[derive(Debug)]
pub(crate) struct Slots<T>(Box<[Slot<T>]>);

impl<T> Slots<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self((0..capacity).map(|_| Slot(UnsafeCell::new(MaybeUninit::uninit()))).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> fmt::Debug for Segment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("base", &self.base).field("len", &self.len()).finish()
    }
}

/// The right to append to a segment.
#[derive(Debug)]
pub(crate) struct Tail<T> {
    segment: Arc<Segment<T>>,
    len: usize,
}

impl<T> Tail<T> {
    pub(crate) fn new(base: u64, slots: Slots<T>) -> Self {
        let (seen, published) = (AtomicUsize::new(0), Spaced::new(AtomicUsize::new(0)));
        let segment = Arc::new(Segment { base, cells: slots.0, seen, published });
        Self { segment, len: 0 }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment<T>> {
        &self.segment
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.len == self.segment.cells.len()
    }

    /// Writes the next slot and publishes it.
    ///
    /// # Errors
    ///
    /// Gives the value back if the segment is full.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> Result<(), T> {
        let Some(cell) = self.segment.cells.get(self.len) else { return Err(value) };
        // SAFETY: this slot is not below `published`, so no reader looks at it, and `&mut self` of
        // the one tail of this segment says that no other writer does.
        cell.0.with_mut(|slot| unsafe { (*slot).write(value) });
        self.len += 1;
        self.segment.published.value.store(self.len, Ordering::Release);
        Ok(())
    }

    /// Writes values to slots for as long as there are free ones and `go_on` likes what is written,
    /// then publishes them all at once. Answers how many. If `values` panics, what was written by
    /// this call is leaked.
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        values: &mut impl Iterator<Item = T>,
        mut go_on: impl FnMut(&T) -> bool,
    ) -> usize {
        let start = self.len;
        for cell in self.segment.cells.get(start..).unwrap_or_default() {
            let Some(value) = values.next() else { break };
            let more = go_on(&value);
            // SAFETY: this slot is not below `published`, so no reader looks at it, and `&mut
            // self` of the one tail of this segment says that no other writer does.
            cell.0.with_mut(|slot| unsafe { (*slot).write(value) });
            self.len += 1;
            if !more {
                break;
            }
        }
        self.segment.published.value.store(self.len, Ordering::Release);
        self.len - start
    }
}

#[cfg(all(test, not(siftbus_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_pushed_and_no_more() {
        let mut tail = Tail::new(10, Slots::new(2));
        let segment = Arc::clone(tail.segment());
        assert!(segment.get(0).is_none());
        tail.push(String::from("a")).expect("free");
        assert_eq!(segment.at(10).map(String::as_str), Some("a"));
        assert!(segment.at(11).is_none() && segment.at(9).is_none());
        tail.push(String::from("b")).expect("free");
        assert!(tail.is_full());
        assert_eq!(tail.push(String::from("c")), Err(String::from("c")));
        assert_eq!(segment.end(), 12);
    }

    #[test]
    fn dropping_a_segment_drops_each_published_value_once() {
        let counted = Arc::new(());
        let mut tail = Tail::new(0, Slots::new(8));
        for _ in 0..3 {
            assert!(tail.push(Arc::clone(&counted)).is_ok());
        }
        let segment = Arc::clone(tail.segment());
        drop(tail);
        assert_eq!(Arc::strong_count(&counted), 4);
        drop(segment);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn slots_are_used_again_once_nobody_holds_them() {
        let counted = Arc::new(());
        let mut tail = Tail::new(0, Slots::new(4));
        tail.push(Arc::clone(&counted)).expect("free");
        let (segment, reader) = (Arc::clone(tail.segment()), Arc::clone(tail.segment()));
        drop(tail);
        assert!(Segment::into_slots(segment).is_none() && reader.get(0).is_some());
        let slots = Segment::into_slots(reader).expect("the last one");
        assert_eq!(Arc::strong_count(&counted), 1);
        let mut tail = Tail::new(9, slots);
        assert!(tail.segment().get(0).is_none(), "they are empty");
        tail.push(counted).expect("free");
        assert_eq!((tail.segment().end(), tail.segment().capacity()), (10, 4));
    }

    #[test]
    fn readers_on_other_threads_see_whole_values() {
        let mut tail = Tail::new(0, Slots::new(256));
        let segment = Arc::clone(tail.segment());
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < 256 {
                let len = segment.len();
                for slot in seen..len {
                    let value: &Vec<usize> = segment.get(slot).expect("published");
                    assert_eq!(value.as_slice(), [slot, slot]);
                }
                seen = len;
                std::hint::spin_loop();
            }
        });
        for slot in 0..256 {
            tail.push(vec![slot, slot]).expect("free");
        }
        reader.join().expect("the reader saw whole values");
    }
}

#[cfg(all(test, siftbus_loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn publish_against_read() {
        loom::model(|| {
            let mut tail = Tail::new(0, Slots::new(2));
            let segment = Arc::clone(tail.segment());
            // The count of a std `Arc` is invisible to loom: the last owner is dropped after join.
            let last = Arc::clone(&segment);
            let reader = loom::thread::spawn(move || {
                for slot in 0..segment.len() {
                    assert_eq!(segment.get(slot), Some(&Box::new(slot)));
                }
            });
            tail.push(Box::new(0)).expect("free");
            tail.push(Box::new(1)).expect("free");
            drop(tail);
            reader.join().expect("the reader saw published slots only");
            drop(last);
        });
    }

    /// What one reader has seen of the writer another may rely on.
    #[test]
    fn publish_against_two_reads() {
        loom::model(|| {
            let mut tail = Tail::new(0, Slots::new(1));
            let segment = Arc::clone(tail.segment());
            let last = Arc::clone(&segment);
            let read = |segment: &Segment<Box<usize>>| {
                assert!(segment.get(0).is_none_or(|value| **value == 0), "it is whole");
            };
            let reader = loom::thread::spawn({
                let segment = Arc::clone(&segment);
                move || read(&segment)
            });
            let other = loom::thread::spawn(move || read(&segment));
            tail.push(Box::new(0)).expect("free");
            drop(tail);
            reader.join().expect("it saw whole values");
            other.join().expect("it saw whole values");
            drop(last);
        });
    }
}
