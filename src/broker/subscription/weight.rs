//! The backlog in bytes, of a subscription that has a limit of them.
//!
//! Words know no sizes. What the view takes in is summed by its topic; what leaves is noted by the
//! window and looked up before the log may forget it; what was there when counting began is looked
//! through in rounds of bounded work. Others pay nothing for this.

use super::{Backlog, SubscriptionState};

#[derive(Debug)]
pub(super) struct Weights {
    /// Counting began at this index of the view; until then the view had taken in so many bytes.
    begun: u64,
    accepted_before: u64,
    /// Of what was there then, this far has been looked through, and found to be so many bytes.
    weighed_to: u64,
    found: u64,
    gone: u64,
}

impl SubscriptionState {
    /// Counts from now on. The view ends at `head` and has taken in `accepted` bytes.
    pub(crate) fn begin_weighing(&mut self, head: u64, accepted: u64) {
        let weighed_to = self.window.oldest().unwrap_or(self.window.cursor());
        self.window.note_exits(true);
        let weights =
            Weights { begun: head, accepted_before: accepted, weighed_to, found: 0, gone: 0 };
        self.weights = Some(Box::new(weights));
    }

    pub(crate) fn end_weighing(&mut self) {
        self.window.note_exits(false);
        self.weights = None;
    }

    #[inline]
    pub(crate) fn is_weighing(&self) -> bool {
        self.weights.is_some()
    }

    /// Looks up what has left, and up to `work` messages of what was there before. Answers whether
    /// something has left.
    pub(crate) fn weigh(&mut self, work: usize, backlog: &mut impl Backlog) -> bool {
        let Some(mut weights) = self.weights.take() else { return false };
        let exits = self.window.take_exits();
        let has_shrunk = !exits.is_empty();
        for index in exits.into_iter().flatten() {
            if index >= weights.begun || index < weights.weighed_to {
                weights.gone += size(index, backlog);
            }
        }
        let end = weights.begun.min(weights.weighed_to.saturating_add(work as u64));
        for index in weights.weighed_to..end {
            if index >= self.window.cursor() || self.window.is_live(index) {
                weights.found += size(index, backlog);
            }
        }
        weights.weighed_to = weights.weighed_to.max(end);
        self.weights = Some(weights);
        has_shrunk
    }

    /// The bytes of the backlog as far as they were looked up, and whether that is all, given what
    /// the view has taken in. `None` while nobody counts.
    pub(crate) fn bytes(&self, accepted: u64) -> Option<(u64, bool)> {
        let weights = self.weights.as_ref()?;
        let came = weights.found + accepted.saturating_sub(weights.accepted_before);
        Some((came.saturating_sub(weights.gone), weights.weighed_to >= weights.begun))
    }
}

fn size(index: u64, backlog: &mut impl Backlog) -> u64 {
    backlog.meta(index).map_or(0, |meta| meta.size)
}
