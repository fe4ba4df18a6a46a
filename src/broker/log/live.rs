//! What of the log is live: messages that a hold is at or below, or that are pinned (L3).
//!
//! Counted by events. What lies at or above `counted_to` is held and counts in full; below it only
//! what is pinned counts. `counted_to` follows the lowest hold, by whole segments as these go out
//! of use, which touches no message, and message by message when somebody waits for room.

use super::{Account, Held, TopicLog};

/// What the budget charges for a message beyond its size: its slot, the allocations of payload and
/// attributes, and a lease.
pub(crate) const MESSAGE_OVERHEAD: u64 = 128;

/// A number of messages and the sum of their sizes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Weight {
    pub(crate) fn one(size: u64) -> Self {
        Self { messages: 1, bytes: size }
    }

    /// What the budget counts for it.
    pub(crate) fn charge(self) -> u64 {
        self.bytes.saturating_add(self.messages.saturating_mul(MESSAGE_OVERHEAD))
    }

    pub(crate) fn add(&mut self, other: Weight) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    pub(crate) fn remove(&mut self, other: Weight) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }
}

impl TopicLog {
    /// What is live; more than that before [`count_exactly`](Self::count_exactly).
    #[inline]
    pub(crate) fn live(&self) -> Weight {
        self.live
    }

    /// Counts up to the lowest hold, message by message.
    pub(crate) fn count_exactly(&mut self) {
        self.count(true);
    }

    /// Moves `counted_to` towards the lowest hold.
    pub(super) fn count(&mut self, exactly: bool) {
        let tail = self.tail_base();
        let to = self.lowest_hold().min(self.head);
        while self.counted_to < to {
            let Some(base) = self.base_at_or_above(self.counted_to) else {
                self.counted_to = to;
                return;
            };
            let Some(account) = self.accounts.get_mut(&base) else { return };
            let end = account.segment.end();
            if end <= to && tail != Some(base) {
                let mut rest = account.weight();
                rest.remove(account.below);
                let mut pinned = account.pinned_weight();
                pinned.remove(account.pinned_below);
                rest.remove(pinned);
                self.live.remove(rest);
                account.below = account.weight();
                account.pinned_below = account.pinned_weight();
                self.counted_to = end;
            } else if exactly && base < to {
                let dead = account.pass(self.counted_to.max(base)..end.min(to));
                self.live.remove(dead);
                self.counted_to = end.min(to);
            } else if base >= to {
                self.counted_to = to;
            } else {
                return;
            }
        }
    }

    /// A hold is placed below what was counted: what lies between is live again.
    pub(super) fn count_back(&mut self, position: u64) {
        while self.counted_to > position {
            let last = self.counted_to - 1;
            let found = self.accounts.range_mut(..=last).next_back();
            let found = found.filter(|(_, account)| account.segment.end() > position);
            let Some((&base, account)) = found else { break };
            let start = base.max(position);
            let revived = account.pass_back(start..account.segment.end().min(self.counted_to));
            self.live.add(revived);
            self.counted_to = start;
        }
        self.counted_to = self.counted_to.min(position);
    }

    /// What would be live if everything were counted anew from `counted_to`.
    pub(super) fn live_by_the_slots(&self) -> Weight {
        let mut live = Weight::default();
        for (&base, account) in &self.accounts {
            for (position, slot) in (base..account.segment.end()).zip(0..) {
                let Some(message) = account.segment.get(slot) else { continue };
                let pinned = account.pins.get(slot).is_some_and(|pins| *pins > 0);
                if position >= self.counted_to || pinned {
                    live.add(Weight::one(message.message.size() as u64));
                }
            }
        }
        live
    }

    fn base_at_or_above(&self, position: u64) -> Option<u64> {
        let before = self.accounts.range(..=position).next_back();
        match before.filter(|(_, account)| account.segment.end() > position) {
            Some((&base, _)) => Some(base),
            None => self.accounts.range(position..).next().map(|(&base, _)| base),
        }
    }
}

impl Account {
    /// Adds its messages to where they belong, one by one.
    pub(super) fn sort_by_message(&self, lowest: u64, backlog_from: u64, held: &mut Held) {
        for position in self.segment.base()..self.segment.end() {
            let (weight, is_pinned) = self.weigh(position);
            let place = match is_pinned {
                _ if position >= backlog_from => &mut held.backlog,
                true => &mut held.pinned,
                false if position >= lowest => &mut held.history,
                false => &mut held.unneeded,
            };
            place.add(weight);
        }
    }

    pub(super) fn weight(&self) -> Weight {
        Weight { messages: self.segment.len() as u64, bytes: self.bytes }
    }

    pub(super) fn pinned_weight(&self) -> Weight {
        Weight { messages: self.pinned as u64, bytes: self.pinned_bytes }
    }

    /// The positions go below `counted_to`. Answers what is no longer live.
    fn pass(&mut self, positions: std::ops::Range<u64>) -> Weight {
        let mut dead = Weight::default();
        for position in positions {
            let (weight, pinned) = self.weigh(position);
            self.below.add(weight);
            match pinned {
                true => self.pinned_below.add(weight),
                false => dead.add(weight),
            }
        }
        dead
    }

    /// The positions come above `counted_to`. Answers what is live again.
    fn pass_back(&mut self, positions: std::ops::Range<u64>) -> Weight {
        let mut revived = Weight::default();
        for position in positions {
            let (weight, pinned) = self.weigh(position);
            self.below.remove(weight);
            match pinned {
                true => self.pinned_below.remove(weight),
                false => revived.add(weight),
            }
        }
        revived
    }

    fn weigh(&self, position: u64) -> (Weight, bool) {
        let slot = (position - self.segment.base()) as usize;
        let size = self.segment.get(slot).map_or(0, |message| message.message.size() as u64);
        (Weight::one(size), self.pins.get(slot).is_some_and(|pins| *pins > 0))
    }
}
