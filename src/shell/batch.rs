//! A batch of messages handed out: runs of leases, and the segments that their messages lie in.
//!
//! Who leases and who settles is the subscription's business; here is how a batch is kept, walked
//! through and taken apart. A batch is boxed, and its box used again: moving what was just written
//! costs as much as a lock.

use smallvec::SmallVec;

use crate::broker::log::Segment;
use crate::broker::subscription::{LeaseId, Leased, Runs};
use crate::message::Published;
use crate::sync::Arc;

/// A box with room for more runs than this is not kept for the next batch.
const MAX_SPARE_RUNS: usize = 128;

pub(crate) type Segments = SmallVec<[Arc<Segment>; 1]>;

/// Messages handed out and not settled yet, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) epoch: u32,
    pub(crate) runs: Runs,
    pub(crate) segments: Segments,
}

impl Batch {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len as usize).sum()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    #[inline]
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter { epoch: self.epoch, run: None, runs: self.runs.iter(), segments: &self.segments }
    }

    /// What the messages are leased under.
    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.runs.iter().flat_map(|run| (0..run.len).map(|nth| run.lease(self.epoch, nth)))
    }

    /// The message at a place, which goes on to the next one.
    #[inline]
    pub(crate) fn take(&self, place: &mut Place) -> Option<Taken<'_>> {
        let run = self.runs.get(place.run)?;
        let slot = usize::from(run.slot) + place.nth as usize;
        let published = self.segments.get(run.segment as usize)?.get(slot)?;
        let lease = run.lease(self.epoch, place.nth);
        place.nth += 1;
        if place.nth == run.len {
            *place = Place { run: place.run + 1, nth: 0 };
        }
        Some(Taken { lease, attempt: run.attempt, published })
    }

    /// How many are at a place and after it.
    pub(crate) fn left(&self, place: Place) -> usize {
        let runs = self.runs.iter().skip(place.run);
        runs.map(|run| run.len as usize).sum::<usize>() - place.nth as usize
    }

    /// Forgets what is before a place.
    pub(crate) fn drop_before(&mut self, place: Place) {
        self.runs.drain(..place.run);
        if let Some(first) = self.runs.first_mut() {
            *first = first.part(place.nth, first.len - place.nth);
        }
    }

    /// Those that are to be kept stay; answers the others.
    pub(crate) fn split(&mut self, keep: impl IntoIterator<Item = bool>) -> Runs {
        let (mut kept, mut rest) = (Runs::new(), Runs::new());
        let ones = self.runs.iter().flat_map(|run| (0..run.len).map(|nth| run.part(nth, 1)));
        for (one, keep) in ones.zip(keep) {
            push(if keep { &mut kept } else { &mut rest }, one);
        }
        self.runs = kept;
        rest
    }

    #[inline]
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.runs.capacity() <= MAX_SPARE_RUNS
    }
}

/// Adds a run, to the last one if it goes on there.
fn push(runs: &mut Runs, run: Leased) {
    match runs.last_mut() {
        Some(last) if last.part(last.len, run.len) == run => last.len += run.len,
        _ => runs.push(run),
    }
}

/// How far a walk through a batch has come.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Place {
    run: usize,
    nth: u32,
}

/// One message of a batch.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) lease: LeaseId,
    pub(crate) attempt: u16,
    pub(crate) published: &'a Published,
}

/// The messages of a batch, borrowed.
#[derive(Clone, Debug)]
pub(crate) struct Iter<'a> {
    epoch: u32,
    /// What is left of the run that the walk has come to, with the segment that it lies in.
    run: Option<(Leased, &'a Segment)>,
    runs: std::slice::Iter<'a, Leased>,
    segments: &'a [Arc<Segment>],
}

impl<'a> Iter<'a> {
    /// Of a batch without messages.
    pub(crate) fn empty() -> Self {
        Self { epoch: 0, run: None, runs: [].iter(), segments: &[] }
    }

    /// Of the message that comes next.
    #[inline]
    fn next_in_run(&mut self) -> Option<Taken<'a>> {
        let (run, segment) = self.run.as_mut().filter(|(run, _)| run.len > 0)?;
        let published = segment.get(usize::from(run.slot))?;
        let (lease, attempt) = (run.lease(self.epoch, 0), run.attempt);
        *run = run.part(1, run.len - 1);
        Some(Taken { lease, attempt, published })
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Taken<'a>;

    #[inline]
    fn next(&mut self) -> Option<Taken<'a>> {
        if let Some(taken) = self.next_in_run() {
            return Some(taken);
        }
        let run = *self.runs.next()?;
        self.run = Some((run, self.segments.get(run.segment as usize)?));
        self.next_in_run()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let runs = self.runs.clone().chain(self.run.as_ref().map(|(run, _)| run));
        let left = runs.map(|run| run.len as usize).sum();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(all(test, not(siftbus_loom)))]
mod tests {
    use super::*;
    use crate::broker::slots::{Slots, Tail};
    use crate::message::{Message, MessageId};
    use crate::time::Time;

    fn batch() -> Batch {
        let mut tail = Tail::new(5, Slots::new(8));
        for id in 0..8 {
            let (message, time) = (Message::new("x"), Time::default());
            let published = Published { message, id: MessageId::from_u64(id), time };
            assert!(tail.push(published).is_ok());
        }
        let run = |index, len, slot| Leased { slot, ..Leased::run(index, len, 1, 1) };
        Batch {
            epoch: 3,
            runs: [run(5, 4, 0), run(20, 1, 4), run(10, 3, 5)].into_iter().collect(),
            segments: [Arc::clone(tail.segment())].into_iter().collect(),
        }
    }

    fn ids(batch: &Batch) -> Vec<(u64, u64)> {
        batch.iter().map(|taken| (taken.lease.index, taken.published.id.as_u64())).collect()
    }

    const ALL: [(u64, u64); 8] =
        [(5, 0), (6, 1), (7, 2), (8, 3), (20, 4), (10, 5), (11, 6), (12, 7)];

    #[test]
    fn a_walk_comes_to_every_message() {
        let batch = batch();
        assert_eq!(ids(&batch), ALL);
        assert_eq!((batch.len(), batch.iter().len()), (8, 8));
        assert!(batch.leases().map(|lease| lease.index).eq(ALL.map(|(index, _)| index)));
    }

    #[test]
    fn what_is_before_a_place_can_be_dropped_anywhere() {
        for taken in 0..=8 {
            let mut batch = batch();
            let mut place = Place::default();
            for _ in 0..taken {
                assert!(batch.take(&mut place).is_some());
            }
            assert_eq!(batch.left(place), 8 - taken);
            batch.drop_before(place);
            assert_eq!(ids(&batch), ALL[taken..]);
        }
    }

    #[test]
    fn a_split_keeps_the_order_of_both_parts() {
        let mut batch = batch();
        let rest = batch.split((0..8).map(|id| id % 4 < 2));
        assert_eq!(ids(&batch), [ALL[0], ALL[1], ALL[4], ALL[5]]);
        assert_eq!(batch.runs.len(), 3, "what goes on is one run");
        batch.runs = rest;
        assert_eq!(ids(&batch), [ALL[2], ALL[3], ALL[6], ALL[7]]);
    }
}
