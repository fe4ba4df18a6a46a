//! What each stream has outstanding, counted against its quota (STR-11, STR-12).
//!
//! An owner is a number that lease words carry. Whatever ends a lease, on whatever channel, gives
//! the quota back here; waking the stream is the shell's business.

use std::collections::BTreeMap;

use super::lease::STRICT;

#[derive(Debug, Default)]
pub(crate) struct Owners {
    quotas: BTreeMap<u32, Quota>,
    /// Numbers are not used twice: a lapsed lease that is revived later must not count against a
    /// stream that came after its own.
    last: u32,
    /// Owners that have had something given back since the last look.
    freed: Vec<u32>,
}

/// How much one stream may have outstanding, and has.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Quota {
    pub(crate) max_messages: u64,
    pub(crate) max_bytes: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Quota {
    /// Messages that may still be handed out; zero while either limit is reached.
    pub(crate) fn room_for_messages(&self) -> u64 {
        if self.bytes >= self.max_bytes {
            0
        } else {
            self.max_messages.saturating_sub(self.messages)
        }
    }

    pub(crate) fn room_for_bytes(&self) -> u64 {
        self.max_bytes.saturating_sub(self.bytes)
    }
}

impl Owners {
    /// A number for a new owner; never zero.
    pub(crate) fn add(&mut self, max_messages: u64, max_bytes: u64) -> u32 {
        self.last += 1;
        assert!(self.last < STRICT, "fewer than a thousand million streams");
        self.quotas.insert(self.last, Quota { max_messages, max_bytes, messages: 0, bytes: 0 });
        self.last
    }

    /// The owner takes nothing any more; what it has outstanding counts for nobody.
    pub(crate) fn remove(&mut self, owner: u32) {
        self.quotas.remove(&owner);
    }

    pub(crate) fn get(&self, owner: u32) -> Option<Quota> {
        self.quotas.get(&owner).copied()
    }

    pub(crate) fn charge(&mut self, owner: u32, size: u64) {
        if let Some(quota) = self.quotas.get_mut(&owner) {
            quota.messages += 1;
            quota.bytes += size;
        }
    }

    pub(crate) fn release(&mut self, owner: u32, size: u64) {
        let Some(quota) = self.quotas.get_mut(&owner) else { return };
        quota.messages = quota.messages.saturating_sub(1);
        quota.bytes = quota.bytes.saturating_sub(size);
        if !self.freed.contains(&owner) {
            self.freed.push(owner);
        }
    }

    /// Nothing is outstanding any more, for nobody.
    pub(crate) fn release_all(&mut self) {
        for (owner, quota) in &mut self.quotas {
            if quota.messages > 0 && !self.freed.contains(owner) {
                self.freed.push(*owner);
            }
            (quota.messages, quota.bytes) = (0, 0);
        }
    }

    pub(crate) fn take_freed(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.freed)
    }

    #[inline]
    pub(crate) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_used_and_given_back() {
        let mut owners = Owners::default();
        let owner = owners.add(2, 100);
        owners.charge(owner, 60);
        let quota = owners.get(owner).expect("added");
        assert_eq!((quota.room_for_messages(), quota.room_for_bytes()), (1, 40));
        owners.charge(owner, 60);
        assert_eq!(owners.get(owner).expect("added").room_for_messages(), 0);
        owners.release(owner, 60);
        assert_eq!(owners.take_freed(), [owner]);
        assert_eq!(owners.get(owner).expect("added").room_for_messages(), 1);
        owners.charge(0, 1);
        owners.release(0, 1);
        assert!(!owners.has_freed(), "nobody's quota");
    }

    #[test]
    fn what_is_outstanding_of_one_that_left_counts_for_nobody() {
        let mut owners = Owners::default();
        let first = owners.add(2, 100);
        owners.charge(first, 1);
        owners.remove(first);
        let second = owners.add(2, 100);
        assert_ne!(first, second);
        owners.charge(first, 1);
        owners.release(first, 1);
        assert_eq!(owners.get(second).expect("added").messages, 0);
    }
}
