//! When leases end and delays are over: runs of indices that share one due instant.
//!
//! A hint, not the truth (I-2): a run that fires is checked word by word by the subscription. A
//! lease batch extends the open run when it is contiguous with the same instant, so a constant
//! deadline costs one entry per batch or less; pushing later instants onto the heap is O(1).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// `len` indices from `first` on that have to be looked at when `due` has come.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) due: Time,
    pub(crate) first: u64,
    pub(crate) len: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    open: Option<Run>,
    heap: BinaryHeap<Reverse<Run>>,
}

impl Deadlines {
    #[inline]
    pub(crate) fn add(&mut self, run: Run) {
        if let Some(open) = &mut self.open {
            if open.due == run.due && open.first + open.len == run.first {
                open.len += run.len;
                return;
            }
            self.heap.push(Reverse(*open));
        }
        self.open = Some(run);
    }

    /// The earliest instant at which something may be due.
    #[inline]
    pub(crate) fn next_due(&self) -> Time {
        let open = self.open.map_or(Time::NEVER, |run| run.due);
        self.heap.peek().map_or(open, |Reverse(run)| open.min(run.due))
    }

    /// Takes the earliest run that is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Run> {
        let filed = self.heap.peek().map(|Reverse(run)| *run).filter(|run| run.due <= now);
        match (self.open.filter(|run| run.due <= now), filed) {
            (Some(open), Some(filed)) if open < filed => self.open.take(),
            (_, Some(_)) => self.heap.pop().map(|Reverse(run)| run),
            (open, None) => {
                if open.is_some() {
                    self.open = None;
                }
                open
            }
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.heap.len() + usize::from(self.open.is_some())
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(due: u64, first: u64, len: u64) -> Run {
        Run { due: Time::from_millis(due), first, len }
    }

    #[test]
    fn contiguous_runs_of_one_instant_are_one_entry() {
        let mut deadlines = Deadlines::default();
        deadlines.add(run(10, 0, 5));
        deadlines.add(run(10, 5, 3));
        assert_eq!(deadlines.len(), 1);
        deadlines.add(run(10, 9, 1));
        deadlines.add(run(11, 10, 1));
        assert_eq!(deadlines.len(), 3);
    }

    #[test]
    fn runs_come_out_in_order_of_instant_and_index() {
        let mut deadlines = Deadlines::default();
        for item in [run(30, 7, 1), run(10, 9, 2), run(20, 1, 1), run(10, 3, 1)] {
            deadlines.add(item);
        }
        assert_eq!(deadlines.next_due(), Time::from_millis(10));
        assert_eq!(deadlines.pop_due(Time::from_millis(9)), None);
        let mut seen = Vec::new();
        while let Some(run) = deadlines.pop_due(Time::from_millis(20)) {
            seen.push(run.first);
        }
        assert_eq!(seen, [3, 9, 1]);
        assert_eq!(deadlines.next_due(), Time::from_millis(30));
    }
}
