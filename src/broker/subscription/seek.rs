//! Starting anew at another place: what a seek does to the state of one subscription.

use super::{Backlog, MAX_WORK, SubscriptionState, Word};
use crate::broker::ordering::Ordering;
use crate::time::Time;

impl SubscriptionState {
    /// Ends every lease and begins at index `start`, with attempts from one (SEEK-10, SEEK-12).
    /// `before` messages were in the backlog, `after` are. Answers what is left of the old state,
    /// which may be large: to be dropped once the locks are released.
    pub(crate) fn seek(&mut self, start: u64, before: u64, after: u64) -> Box<Self> {
        let mut old = Box::new(Self::new(start, self.retention));
        std::mem::swap(self, &mut old);
        self.epoch = old.epoch.wrapping_add(1);
        self.owners = std::mem::take(&mut old.owners);
        self.owners.release_all();
        if old.ordering.is_some() {
            // Keys begin anew, too (SEEK-15).
            self.ordering = Some(Box::new(Ordering::new()));
        }
        self.policy = old.policy;
        self.strict = old.strict;
        self.dead_letters_dropped = old.dead_letters_dropped;
        self.redeliveries = old.redeliveries;
        self.expired_leases = old.expired_leases;
        self.ledger = old.ledger;
        self.ledger.replayed += after.saturating_sub(before);
        self.ledger.purged += before.saturating_sub(after);
        old
    }

    /// A scan has brought `count` messages back.
    pub(crate) fn count_replayed(&mut self, count: u64) {
        self.ledger.replayed += count;
    }

    /// Steps over fresh messages that were published before `time`. Answers whether it has come to
    /// one that was not, or else whether it went through all (`None` if there is more to do).
    pub(crate) fn skip_before(
        &mut self,
        time: Time,
        head: u64,
        backlog: &mut impl Backlog,
    ) -> Option<bool> {
        for _ in 0..MAX_WORK {
            let cursor = self.window.cursor();
            if cursor >= head {
                return Some(false);
            }
            if backlog.meta(cursor).is_some_and(|meta| meta.published >= time) {
                return Some(true);
            }
            self.window.skip(Word::DONE);
            self.ledger.purged += 1;
        }
        None
    }

    /// The lowest index that may be asked for.
    #[inline]
    pub(crate) fn oldest(&self) -> u64 {
        self.window.oldest().unwrap_or(self.window.cursor())
    }
}
