//! The log of one topic: segments, holds and pins.
//!
//! Every message is written once. It stays for as long as a *hold* is at or below its position, or
//! a *pin* is on it; nothing else keeps messages (L2). A sealed segment below all holds is given
//! back when nothing in it is pinned, and dissolved into segments of one slot when its pinned
//! messages are less than half of its bytes.
//!
//! Readers find segments through a [`Directory`], which the shell keeps behind a lock of its own;
//! the log answers with [`Change`]s to it. The log knows nothing of subscriptions.

pub(crate) mod audit;
pub(crate) mod live;

use std::collections::BTreeMap;

use smallvec::SmallVec;

use self::live::Weight;
use super::delayed::Late;
use super::slots::{Slots, Tail};
use crate::message::{MessageId, Published};
use crate::sync::Arc;
use crate::time::Time;

/// A segment of a topic's log.
pub(crate) type Segment = super::slots::Segment<Published>;

/// Slots of the first segment of a log; later ones double up to [`MAX_SLOTS`].
pub(crate) const MIN_SLOTS: usize = 8;
/// A segment closes at this many messages.
pub(crate) const MAX_SLOTS: usize = 256;
/// A segment closes when its messages reach this many bytes.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 256 * 1024;

/// What happened to the set of segments that readers may find.
#[derive(Debug)]
pub(crate) enum Change {
    Added(Arc<Segment>),
    Removed(u64),
}

/// Where readers find segments: base → segment.
#[derive(Debug, Default)]
pub(crate) struct Directory(BTreeMap<u64, Arc<Segment>>);

impl Directory {
    /// The segment that has `position`.
    pub(crate) fn find(&self, position: u64) -> Option<&Arc<Segment>> {
        let (_, segment) = self.0.range(..=position).next_back()?;
        (position < segment.end()).then_some(segment)
    }

    /// Every segment, the newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.0.values().rev()
    }

    /// The message with this id and its position. Ids grow with positions, except of those that
    /// came late.
    pub(crate) fn by_id(&self, id: MessageId, late: &Late) -> Option<(u64, &Published)> {
        if let Some(position) = late.position(id) {
            return self.find(position)?.at(position).map(|message| (position, message));
        }
        let in_time = |segment: &Segment| {
            let positions = segment.base()..segment.end();
            positions.clone().find(|position| !late.has(*position)).unwrap_or(positions.end)
        };
        let begins_at_or_below = |segment: &&Arc<Segment>| {
            segment.at(in_time(segment)).is_some_and(|first| first.id <= id)
        };
        let segment = self.newest_first().find(begins_at_or_below)?;
        let (mut low, mut high) = (segment.base(), segment.end());
        if late.has_any(low..high) {
            let mut positions = low..high;
            low = positions.find(|at| segment.at(*at).is_some_and(|found| found.id == id))?;
            high = low;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let is_below = segment.at(middle).is_some_and(|message| message.id < id);
            if is_below { low = middle + 1 } else { high = middle }
        }
        segment.at(low).filter(|message| message.id == id).map(|message| (low, message))
    }

    /// The first position in memory at or above `from`, with its segment.
    pub(crate) fn at_or_above(&self, from: u64) -> Option<(u64, &Arc<Segment>)> {
        if let Some(segment) = self.find(from) {
            return Some((from, segment));
        }
        let (&base, segment) = self.0.range(from..).next()?;
        (segment.len() > 0).then_some((base, segment))
    }

    /// Carries a change out; answers the segment that it took out of the directory.
    pub(crate) fn apply(&mut self, change: Change) -> Option<Arc<Segment>> {
        match change {
            Change::Added(segment) => self.0.insert(segment.base(), segment),
            Change::Removed(base) => self.0.remove(&base),
        }
    }
}

/// What the log knows of one segment besides its messages.
#[derive(Debug)]
struct Account {
    segment: Arc<Segment>,
    bytes: u64,
    /// Pins per slot; empty until the first one.
    pins: Box<[u32]>,
    pinned: usize,
    pinned_bytes: u64,
    /// What of it lies below the point to which the log has counted, and of that what is pinned.
    below: Weight,
    pinned_below: Weight,
}

impl Account {
    fn new(segment: Arc<Segment>) -> Self {
        Self {
            segment,
            bytes: 0,
            pins: Box::default(),
            pinned: 0,
            pinned_bytes: 0,
            below: Weight::default(),
            pinned_below: Weight::default(),
        }
    }
}

/// What is in memory, by what keeps it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// At or above the hold of somebody who has not settled it.
    pub(crate) backlog: Weight,
    /// Below that, one by one: entries of filters, messages that are stuck, snapshots.
    pub(crate) pinned: Weight,
    /// At or above another hold only.
    pub(crate) history: Weight,
    /// Shares a segment with what is needed.
    pub(crate) unneeded: Weight,
}

#[derive(Debug, Default)]
pub(crate) struct TopicLog {
    tail: Option<Tail<Published>>,
    /// Of segments that went, for the next ones; together no more than one segment may have.
    spares: Vec<Slots<Published>>,
    /// By base; the tail's account is among them.
    accounts: BTreeMap<u64, Account>,
    tail_bytes: u64,
    head: u64,
    next_slots: usize,
    holds: BTreeMap<u64, u32>,
    bytes: u64,
    messages: u64,
    /// Of everything that was ever appended.
    appended_bytes: u64,
    live: Weight,
    /// Below this only what is pinned is live.
    counted_to: u64,
    changes: SmallVec<[Change; 2]>,
    /// Segments sealed since the last look: their messages may still be about to be pinned.
    sealed: SmallVec<[u64; 2]>,
}

impl TopicLog {
    /// The position of the next message.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// What is in memory, by what keeps it. `backlog_from` is the lowest hold of somebody who has
    /// not settled what lies above it. Looks at segments, and at the messages of three at most.
    pub(crate) fn held(&self, backlog_from: u64) -> Held {
        let lowest = self.lowest_hold();
        let backlog_from = backlog_from.max(lowest);
        let mut held = Held::default();
        for (&base, account) in &self.accounts {
            let (end, is_tail) = (account.segment.end(), self.tail_base() == Some(base));
            let (all, pinned) = (account.weight(), account.pinned_weight());
            let rest = || {
                let mut rest = all;
                rest.remove(pinned);
                rest
            };
            if base >= backlog_from && !is_tail {
                held.backlog.add(all);
            } else if end <= lowest && !is_tail {
                held.pinned.add(pinned);
                held.unneeded.add(rest());
            } else if base >= lowest && end <= backlog_from && !is_tail {
                held.pinned.add(pinned);
                held.history.add(rest());
            } else {
                account.sort_by_message(lowest, backlog_from, &mut held);
            }
        }
        held
    }

    /// The lowest hold that is none of `others`; the head if there is none.
    pub(crate) fn lowest_hold_besides(&self, others: impl Iterator<Item = u64>) -> u64 {
        let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
        others.for_each(|position| *counts.entry(position).or_default() += 1);
        let is_of_somebody_else = |&(position, count): &(&u64, &u32)| {
            *count > counts.get(position).copied().unwrap_or_default()
        };
        self.holds.iter().find(is_of_somebody_else).map_or(self.head, |(&position, _)| position)
    }

    fn tail_base(&self) -> Option<u64> {
        self.tail.as_ref().map(|tail| tail.segment().base())
    }

    /// Messages in memory.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of the messages in memory, counted as `Message::size`.
    #[cfg(all(test, not(siftbus_loom)))]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of everything that was ever appended.
    #[inline]
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// Whether some hold keeps whatever is appended next.
    pub(crate) fn keeps_new(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Slots that a later segment may use. Answers those that are not needed.
    pub(crate) fn keep(&mut self, slots: Slots<Published>) -> Option<Slots<Published>> {
        let wanted = self.next_slots.clamp(MIN_SLOTS, MAX_SLOTS);
        if slots.len() != wanted || (self.spares.len() + 1) * wanted > MAX_SLOTS {
            return Some(slots);
        }
        self.spares.push(slots);
        None
    }

    /// How many messages, and how many bytes of them, may follow before the tail is closed.
    pub(crate) fn tail_room(&self) -> (u64, u64) {
        let Some(tail) = &self.tail else { return (0, 0) };
        let slots = tail.segment().capacity() - tail.len();
        ((slots as u64).saturating_sub(1), (MAX_SEGMENT_BYTES - 1).saturating_sub(self.tail_bytes))
    }

    /// Appends one message; answers its position.
    #[inline]
    pub(crate) fn append(&mut self, message: Published) -> u64 {
        let position = self.head;
        let bytes = message.message.size() as u64;
        let tail = match &mut self.tail {
            Some(tail) => tail,
            None => self.open_tail(),
        };
        let pushed = tail.push(message);
        debug_assert!(pushed.is_ok(), "a full tail is closed at once");
        let is_full = tail.is_full();
        self.appended(1, bytes, is_full);
        position
    }

    /// So much was put into the tail.
    #[inline]
    fn appended(&mut self, messages: u64, bytes: u64, is_full: bool) {
        self.bytes += bytes;
        self.appended_bytes += bytes;
        self.live.bytes += bytes;
        self.live.messages += messages;
        self.tail_bytes += bytes;
        self.messages += messages;
        self.head += messages;
        if is_full || self.tail_bytes >= MAX_SEGMENT_BYTES {
            self.seal();
        }
    }

    /// Appends `count` messages in order.
    #[inline(always)]
    pub(crate) fn append_all(
        &mut self,
        count: usize,
        messages: &mut impl Iterator<Item = Published>,
    ) {
        let mut left = count;
        while left > 0 {
            let mut bytes = self.tail_bytes;
            let tail = match &mut self.tail {
                Some(tail) => tail,
                None => self.open_tail(),
            };
            let added = tail.fill(messages, |message| {
                bytes += message.message.size() as u64;
                bytes < MAX_SEGMENT_BYTES
            });
            let is_full = tail.is_full();
            left -= added;
            self.appended(added as u64, bytes - self.tail_bytes, is_full);
        }
    }

    /// Whether the directory has to be changed. To be asked once whatever was appended is pinned.
    #[inline]
    pub(crate) fn has_changes(&mut self) -> bool {
        if !self.sealed.is_empty() {
            self.reconsider_sealed();
        }
        !self.changes.is_empty()
    }

    fn reconsider_sealed(&mut self) {
        for base in std::mem::take(&mut self.sealed) {
            self.reconsider(base);
        }
    }

    /// Closes the tail if nothing keeps it, so that it can go.
    pub(crate) fn seal_if_unused(&mut self) {
        if self.holds.is_empty() {
            self.seal();
        }
    }

    /// Changes to the directory since the last call, in order.
    pub(crate) fn take_changes(&mut self) -> SmallVec<[Change; 2]> {
        std::mem::take(&mut self.changes)
    }

    /// Keeps everything from `position` on until the hold moves.
    pub(crate) fn hold(&mut self, position: u64) {
        if position < self.counted_to {
            self.count_back(position);
        }
        *self.holds.entry(position).or_default() += 1;
    }

    /// Moves a hold forward and gives back what it alone kept.
    pub(crate) fn move_hold(&mut self, from: u64, to: u64) {
        let before = self.lowest_hold();
        self.hold(to);
        self.remove_hold(from);
        self.give_back(before);
    }

    /// Ends a hold and gives back what it alone kept.
    pub(crate) fn release_hold(&mut self, position: u64) {
        let before = self.lowest_hold();
        self.remove_hold(position);
        self.give_back(before);
    }

    /// Keeps one message, whatever the holds do.
    pub(crate) fn pin(&mut self, position: u64) {
        let counted_to = self.counted_to;
        let Some(account) = self.account_mut(position) else {
            debug_assert!(false, "position {position} is pinned but not in the log (I-4)");
            return;
        };
        let slot = (position - account.segment.base()) as usize;
        if account.pins.is_empty() {
            account.pins = vec![0; account.segment.capacity()].into_boxed_slice();
        }
        let size = account.segment.get(slot).map_or(0, |message| message.message.size() as u64);
        if let Some(pins) = account.pins.get_mut(slot) {
            *pins += 1;
            if *pins == 1 {
                account.pinned += 1;
                account.pinned_bytes += size;
                if position < counted_to {
                    account.pinned_below.add(Weight::one(size));
                    self.live.add(Weight::one(size));
                }
            }
        }
    }

    /// Takes one pin away.
    pub(crate) fn unpin(&mut self, position: u64) {
        let counted_to = self.counted_to;
        let Some(account) = self.account_mut(position) else {
            debug_assert!(false, "position {position} is unpinned but not in the log (I-4)");
            return;
        };
        let base = account.segment.base();
        let slot = (position - base) as usize;
        let Some(pins) = account.pins.get_mut(slot).filter(|pins| **pins > 0) else {
            debug_assert!(false, "position {position} has no pin (I-4)");
            return;
        };
        *pins -= 1;
        if *pins == 0 {
            let message = account.segment.get(slot);
            let size = message.map_or(0, |message| message.message.size() as u64);
            account.pinned -= 1;
            account.pinned_bytes -= size;
            if position < counted_to {
                account.pinned_below.remove(Weight::one(size));
                self.live.remove(Weight::one(size));
            }
            self.reconsider(base);
        }
    }

    /// The first position in memory at or above `from`, with its message.
    pub(crate) fn first_at_or_above(&self, from: u64) -> Option<(u64, Arc<Segment>)> {
        if let Some((_, account)) = self.accounts.range(..=from).next_back()
            && from < account.segment.end()
        {
            return Some((from, Arc::clone(&account.segment)));
        }
        let (&base, account) = self.accounts.range(from..).next()?;
        (account.segment.len() > 0).then(|| (base, Arc::clone(&account.segment)))
    }

    /// The lowest other hold if `position` is held once and lowest, else nothing; the head if there
    /// is no other.
    pub(crate) fn next_hold_above(&self, position: u64) -> Option<u64> {
        let mut holds = self.holds.iter();
        let (&lowest, &count) = holds.next()?;
        let next = holds.next().map_or(self.head, |(&next, _)| next);
        (lowest == position && count == 1).then_some(next)
    }

    /// The first position in memory whose message was published at `time` or later; the head if
    /// there is none (SEEK-2). Publish times never decrease (I-5), so this is a search.
    pub(crate) fn position_at(&self, time: Time) -> u64 {
        let is_early = |from: u64| {
            let found = self.first_at_or_above(from);
            found.is_some_and(|(at, segment)| segment.at(at).is_some_and(|m| m.time < time))
        };
        let (mut low, mut high) = (0, self.head);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_early(middle) { low = middle + 1 } else { high = middle }
        }
        self.first_at_or_above(low).map_or(self.head, |(position, _)| position)
    }

    fn account_mut(&mut self, position: u64) -> Option<&mut Account> {
        let (_, account) = self.accounts.range_mut(..=position).next_back()?;
        (position < account.segment.end()).then_some(account)
    }

    fn lowest_hold(&self) -> u64 {
        self.holds.keys().next().copied().unwrap_or(u64::MAX)
    }

    fn remove_hold(&mut self, position: u64) {
        if let Some(count) = self.holds.get_mut(&position) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(&position);
            }
        } else {
            debug_assert!(false, "no hold at {position} (I-4)");
        }
    }

    fn open_tail(&mut self) -> &mut Tail<Published> {
        let slots = self.next_slots.clamp(MIN_SLOTS, MAX_SLOTS);
        let spare = self.spares.pop().filter(|spare| spare.len() == slots);
        let tail = Tail::new(self.head, spare.unwrap_or_else(|| Slots::new(slots)));
        let segment = Arc::clone(tail.segment());
        self.changes.push(Change::Added(Arc::clone(&segment)));
        self.accounts.insert(self.head, Account::new(segment));
        self.tail.insert(tail)
    }

    /// Closes the tail: from now on it may be given back.
    fn seal(&mut self) {
        let Some(tail) = self.tail.take() else { return };
        // Large messages close a segment early; the next one is made no larger than needed.
        self.next_slots = tail.len().saturating_mul(2);
        let base = tail.segment().base();
        if let Some(account) = self.accounts.get_mut(&base) {
            account.bytes = std::mem::take(&mut self.tail_bytes);
        }
        self.sealed.push(base);
    }

    /// Gives back what lies between the lowest hold as it was and as it is now.
    fn give_back(&mut self, before: u64) {
        let lowest = self.lowest_hold();
        if lowest <= before {
            return;
        }
        self.seal_if_unused();
        self.count(false);
        // A segment that contains `before` starts below it.
        let start = self.accounts.range(..=before).next_back().map_or(before, |(&base, _)| base);
        let bases: SmallVec<[u64; 8]> = self
            .accounts
            .range(start..)
            .take_while(|(_, account)| account.segment.end() <= lowest)
            .map(|(&base, _)| base)
            .collect();
        for base in bases {
            self.reconsider(base);
        }
    }

    /// Gives a segment back, or dissolves it, if it is sealed, below all holds and hardly pinned.
    fn reconsider(&mut self, base: u64) {
        let is_tail = self.tail_base() == Some(base);
        let lowest = self.lowest_hold();
        let Some(account) = self.accounts.get(&base) else { return };
        if is_tail || account.segment.end() > lowest {
            return;
        }
        if self.counted_to < account.segment.end() {
            self.count(false);
        }
        let Some(account) = self.accounts.get(&base) else { return };
        let dense = account.pinned_bytes * 2 >= account.bytes && account.pinned > 0;
        if dense {
            return;
        }
        let Some(account) = self.accounts.remove(&base) else { return };
        self.changes.push(Change::Removed(base));
        self.bytes -= account.bytes;
        self.messages -= account.segment.len() as u64;
        self.scatter(&account);
    }

    /// Puts the pinned messages of a segment that goes back as segments of their own.
    fn scatter(&mut self, account: &Account) {
        for (slot, &pins) in account.pins.iter().enumerate().filter(|(_, pins)| **pins > 0) {
            let Some(message) = account.segment.get(slot) else { continue };
            let position = account.segment.base() + slot as u64;
            let bytes = message.message.size() as u64;
            let segment = Segment::of_one(position, message.compacted());
            self.changes.push(Change::Added(Arc::clone(&segment)));
            let pins = vec![pins].into_boxed_slice();
            let below = Weight::one(bytes);
            let single = Account {
                bytes,
                pins,
                pinned: 1,
                pinned_bytes: bytes,
                below,
                pinned_below: below,
                ..Account::new(segment)
            };
            self.accounts.insert(position, single);
            self.bytes += bytes;
            self.messages += 1;
        }
    }
}

#[cfg(all(test, not(siftbus_loom)))]
mod tests {
    use super::*;
    use crate::message::{Message, MessageId};

    fn published(position: u64, size: usize) -> Published {
        let message = Message::new(vec![0; size]);
        Published { message, id: MessageId::from_u64(position), time: Time::default() }
    }

    /// A log with a directory, as the shell keeps them.
    #[derive(Default)]
    struct Fixture {
        log: TopicLog,
        directory: Directory,
    }

    impl Fixture {
        fn append(&mut self, count: u64, size: usize) {
            for _ in 0..count {
                let head = self.log.head();
                assert_eq!(self.log.append(published(head, size)), head);
            }
            self.settle();
        }

        fn settle(&mut self) {
            self.log.has_changes();
            for change in self.log.take_changes() {
                self.directory.apply(change);
            }
        }

        fn has(&self, position: u64) -> bool {
            let segment = self.directory.find(position);
            segment.and_then(|segment| segment.at(position)).is_some_and(|message| {
                assert_eq!(message.id.as_u64(), position, "a position keeps its message");
                true
            })
        }
    }

    #[test]
    fn segments_below_all_holds_are_given_back() {
        let mut at = Fixture::default();
        at.log.hold(0);
        at.log.hold(0);
        at.append(1_000, 10);
        assert!((0..1_000).all(|position| at.has(position)));
        at.log.move_hold(0, 600);
        at.settle();
        assert!(at.has(0), "the other hold keeps it");
        at.log.move_hold(0, 700);
        at.settle();
        assert!(!at.has(0) && at.has(600) && at.has(999));
        assert!(at.log.messages() <= 400 + MAX_SLOTS as u64);
        at.log.release_hold(600);
        at.log.release_hold(700);
        at.settle();
        assert_eq!((at.log.messages(), at.log.bytes()), (0, 0), "RET-9: nobody is left");
    }

    #[test]
    fn a_pinned_message_outlives_its_segment() {
        let mut at = Fixture::default();
        at.log.hold(0);
        at.append(1_000, 10);
        at.log.pin(100);
        at.log.pin(100);
        at.log.move_hold(0, 1_000);
        at.settle();
        assert!(at.has(100) && !at.has(99) && !at.has(101));
        at.log.unpin(100);
        at.settle();
        assert!(at.has(100), "one pin is left");
        at.log.unpin(100);
        at.settle();
        assert!(!at.has(100));
    }

    #[test]
    fn a_segment_that_is_mostly_pinned_stays_whole_until_it_is_not() {
        let mut at = Fixture::default();
        at.append(MIN_SLOTS as u64 - 1, 10);
        for position in 0..6 {
            at.log.pin(position);
        }
        at.append(1, 10);
        assert!(at.has(7), "dense: kept whole when it was sealed");
        for position in 0..3 {
            at.log.unpin(position);
        }
        at.settle();
        assert!(!at.has(0) && !at.has(7) && at.has(3) && at.has(5));
    }

    #[test]
    fn large_messages_close_segments_by_bytes() {
        let mut at = Fixture::default();
        at.log.hold(0);
        at.append(100, 64 * 1024);
        at.log.move_hold(0, 99);
        at.settle();
        assert!(at.log.bytes() <= 2 * MAX_SEGMENT_BYTES, "{} bytes are held", at.log.bytes());
    }
}
