//! Leasing and settling in the order of keys (section 9).
//!
//! Only ordered subscriptions come here. A message that was passed over because its key has to
//! wait has a word without a generation; its index is filed under its key (L8). A failure rewinds
//! its key: every later message of it that was handed out comes again, in order (ORD-7).

use super::{
    LeaseId, LeaseOptions, Leased, MAX_WORK, Phase, Run, Runs, Settled, SubscriptionState, Word,
};
use crate::broker::ordering::{Client, KEYED, Kind, Ordering};
use crate::broker::subscription::Backlog;

impl SubscriptionState {
    /// Hands messages out in the order of their keys from now on. To be called at creation (ORD-2).
    pub(crate) fn set_ordered(&mut self) {
        self.ordering = Some(Box::new(Ordering::new()));
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.ordering.is_some()
    }

    pub(crate) fn provisional(&self) -> u64 {
        self.ordering.as_ref().map_or(0, |ordering| ordering.provisional)
    }

    /// Messages known to wait for earlier ones of their key; those that no pull has come to yet
    /// are not among them.
    pub(crate) fn blocked(&self) -> u64 {
        self.ordering.as_ref().map_or(0, |ordering| ordering.blocked())
    }

    pub(crate) fn ordering(&mut self) -> Option<&mut Ordering> {
        self.ordering.as_deref_mut()
    }

    /// As `lease`. Answers whether it stopped because it had looked at enough.
    #[inline(never)]
    pub(super) fn lease_ordered(
        &mut self,
        head: u64,
        options: LeaseOptions,
        backlog: &mut impl Backlog,
        out: &mut Runs,
    ) -> (usize, bool) {
        let max = options.max_messages.min(MAX_WORK);
        if let Some(ordering) = self.ordering() {
            ordering.begin(options.client);
        }
        if let Some(taken) = self.lease_unfiled(head, max, options, backlog, out) {
            return (taken, false);
        }
        self.file_unfiled(backlog);
        let (mut taken, mut bytes, mut work) = (0, 0, MAX_WORK);
        while taken < max && bytes < options.max_bytes {
            let next = self.next_in_order(head, options, backlog, &mut work);
            let leased = match next {
                Some(Next::Filed(index))
                    if self.drop_if_over(index, options.now, backlog, &mut work) =>
                {
                    if work == 0 {
                        break;
                    }
                    continue;
                }
                Some(Next::Filed(index)) => self.hand_out(index, options),
                Some(Next::Leased(leased)) => Some(leased),
                None => break,
            };
            let Some(leased) = leased else { continue };
            bytes += self.charge(leased.index, options, backlog);
            out.extend([leased]);
            taken += 1;
        }
        self.bound_hints();
        (taken, work == 0)
    }

    /// Whether a lease would hand something out to `client`, or would have to look.
    pub(crate) fn has_in_order(&mut self, head: u64, client: Client) -> bool {
        self.window.cursor() < head
            || self.offer(client, Kind::Again).is_some()
            || self.offer(client, Kind::Fresh).is_some()
    }

    /// The index to be handed out next: the lower one of what was handed out before and what is
    /// fresh, but never two redeliveries in a row while something fresh waits (L13).
    fn next_in_order(
        &mut self,
        head: u64,
        options: LeaseOptions,
        backlog: &mut impl Backlog,
        work: &mut usize,
    ) -> Option<Next> {
        let client = options.client;
        let again = self.offer(client, Kind::Again);
        let fresh = self.offer(client, Kind::Fresh);
        let wants_fresh = match (again, fresh) {
            (Some(again), Some(fresh)) => self.redelivered_last || fresh.0 < again.0,
            (Some(_), None) => self.redelivered_last,
            (None, _) => true,
        };
        if wants_fresh {
            if let Some((index, is_own)) = fresh {
                return Some(Next::Filed(self.take_offer(client, Kind::Fresh, index, is_own)));
            }
            if let Some(next) = self.scan(head, options, backlog, work) {
                return Some(next);
            }
        }
        let (index, is_own) = again?;
        Some(Next::Filed(self.take_offer(client, Kind::Again, index, is_own)))
    }

    /// The best offer that is still true.
    fn offer(&mut self, client: Client, kind: Kind) -> Option<(u64, bool)> {
        loop {
            let ordering = self.ordering.as_deref_mut()?;
            let (index, is_own) = ordering.peek(client, kind)?;
            let word = self.window.get(index);
            let slot = word.and_then(slot_of);
            let is_true = word.is_some_and(|word| kind_of(word) == Some(kind))
                && slot.and_then(|slot| ordering.key(slot)).is_none_or(|key| {
                    key.next() == Some(index) && key.is_for(if is_own { client } else { ANYBODY })
                });
            if is_true {
                return Some((index, is_own));
            }
            ordering.pop(client, kind, is_own, slot);
        }
    }

    fn take_offer(&mut self, client: Client, kind: Kind, index: u64, is_own: bool) -> u64 {
        let slot = self.window.get(index).and_then(slot_of);
        if let Some(ordering) = self.ordering() {
            ordering.pop(client, kind, is_own, slot);
        }
        index
    }

    /// Goes on at the cursor until there is something for the client; what is not is filed.
    fn scan(
        &mut self,
        head: u64,
        options: LeaseOptions,
        backlog: &mut impl Backlog,
        work: &mut usize,
    ) -> Option<Next> {
        while self.window.cursor() < head && *work > 0 {
            *work -= 1;
            let index = self.window.cursor();
            if self.is_over(index, options.now, backlog) {
                self.ledger.expired += 1;
                self.window.skip(Word::DONE);
                continue;
            }
            let ordering = self.ordering.as_deref_mut()?;
            let Some(hash) = backlog.key(index) else {
                self.deliverable += 1;
                self.window.push_run(1, Word::filed(0));
                return Some(Next::Filed(index));
            };
            let slot = ordering.file(hash, index);
            let Some(key) = ordering.key(slot) else { continue };
            if key.next() == Some(index) && key.is_for(options.client) {
                // Everything before it is handed out, so nothing of the key waits or is on offer.
                debug_assert_eq!(key.waiting, 0, "a message that waits is the next one");
                key.handed += 1;
                key.outstanding += 1;
                key.holder = options.client;
                return Some(Next::Leased(self.lease_scanned(index, slot, options)));
            }
            key.waiting += 1;
            self.deliverable += 1;
            self.window.push_run(1, Word::filed(KEYED | slot));
            self.settle_key(slot);
        }
        None
    }

    /// Hands out the message at the cursor without filing it first.
    fn lease_scanned(&mut self, index: u64, slot: u32, options: LeaseOptions) -> Leased {
        self.window.push_run(1, Word::leased(options.deadline, KEYED | slot | self.strict));
        self.leased += 1;
        self.redelivered_last = false;
        self.deadlines.add(Run { due: options.deadline, first: index, len: 1 });
        Leased::run(index, 1, 1, 1)
    }

    fn hand_out(&mut self, index: u64, options: LeaseOptions) -> Option<Leased> {
        let word = self.window.get_mut(index)?;
        let slot = slot_of(*word);
        let owner = slot.map_or(options.owner, |slot| KEYED | slot);
        let is_fresh = word.generation() == 0;
        word.renew(options.deadline, owner | self.strict);
        let (generation, attempt) = (word.generation(), word.attempts());
        self.deliverable -= 1;
        self.leased += 1;
        self.redeliveries += u64::from(!is_fresh);
        self.redelivered_last = !is_fresh;
        self.deadlines.add(Run { due: options.deadline, first: index, len: 1 });
        if let Some(slot) = slot {
            if let Some(key) = self.ordering.as_deref_mut().and_then(|o| o.key(slot)) {
                key.handed += 1;
                key.outstanding += 1;
                key.waiting -= 1;
                key.holder = options.client;
            }
            self.settle_key(slot);
        }
        Some(Leased::run(index, 1, generation, attempt))
    }

    /// Offers the next message of a key, after its first ones may have become final.
    pub(super) fn settle_key(&mut self, slot: u32) {
        while let Some(key) = self.ordering.as_deref_mut().and_then(|o| o.key(slot)) {
            let front = key.front();
            let next = key.next();
            let is_final = front.filter(|index| {
                self.window.get(*index).is_some_and(|word| word.phase() == Phase::Provisional)
            });
            let Some(index) = is_final else {
                let kind = next.and_then(|next| self.window.get(next)).and_then(kind_of);
                if let Some(ordering) = self.ordering() {
                    ordering.settle(slot, kind);
                }
                return;
            };
            self.finish_in_order(slot, index);
            self.ledger.acked += 1;
            if let Some(ordering) = self.ordering() {
                ordering.provisional -= 1;
            }
        }
    }

    /// A message has left; its key forgets it.
    pub(super) fn finish_in_order(&mut self, slot: u32, index: u64) {
        if let Some(word) = self.window.get_mut(index) {
            word.set_phase(Phase::Done);
        }
        self.retire(index);
        if let Some(ordering) = self.ordering() {
            ordering.remove(slot, index);
        }
    }

    /// The usual ack: of the first message of its key, while leased. Answers whether it was one.
    #[inline(never)]
    pub(super) fn ack_first(&mut self, index: u64, slot: u32, backlog: &mut impl Backlog) -> bool {
        let Some(ordering) = self.ordering.as_deref_mut() else { return false };
        let Some(key) = ordering.key(slot) else { return false };
        if key.front() != Some(index) {
            return false;
        }
        key.outstanding -= 1;
        let owner = key.stream();
        let is_gone = ordering.remove(slot, index);
        self.leased -= 1;
        self.ledger.acked += 1;
        self.release_owner(owner, index, backlog);
        if let Some(word) = self.window.get_mut(index) {
            word.set_phase(Phase::Done);
        }
        self.retire(index);
        if !is_gone {
            self.settle_key(slot);
        }
        true
    }

    /// As `ack`. An ack before that of an earlier message of the key is provisional (ORD-7 b), or
    /// refused where acks must be final (EOD-9).
    #[inline(never)]
    pub(super) fn ack_ordered(
        &mut self,
        id: LeaseId,
        slot: u32,
        backlog: &mut impl Backlog,
    ) -> Settled {
        let Some(phase) = self.judge(id) else { return Settled::Stale };
        let index = id.index;
        let is_strict = self.window.get(index).is_some_and(Word::is_strict);
        let Some(key) = self.ordering.as_deref_mut().and_then(|o| o.key(slot)) else {
            return Settled::Stale;
        };
        let is_first = key.front() == Some(index);
        match phase {
            Phase::Leased if is_strict && !is_first => return Settled::Unordered,
            Phase::Leased => self.end_lease(index, backlog),
            Phase::Lapsed => {
                key.handed += 1;
                key.waiting -= 1;
                self.deliverable -= 1;
            }
            Phase::LapsedBackingOff => {
                key.handed += 1;
                self.delayed -= 1;
            }
            _ => return Settled::Stale,
        }
        if is_first {
            self.finish_in_order(slot, index);
            self.ledger.acked += 1;
        } else {
            if let Some(word) = self.window.get_mut(index) {
                word.set_phase(Phase::Provisional);
            }
            if let Some(ordering) = self.ordering() {
                ordering.provisional += 1;
            }
        }
        self.settle_key(slot);
        if is_first { Settled::Done } else { Settled::Provisional }
    }

    /// Takes back every later message of the key of a message that has failed (ORD-7 a). Only that
    /// one counts a failed attempt (ORD-7 c).
    pub(super) fn rewind(&mut self, index: u64, backlog: &mut impl Backlog) {
        let Some(slot) = self.window.get(index).and_then(slot_of) else { return };
        let Some(key) = self.ordering.as_deref_mut().and_then(|o| o.key(slot)) else { return };
        let Some(place) = key.place_of(index) else { return };
        let end = key.handed;
        key.handed = key.handed.min(place);
        // One beyond may have lapsed and still answer to its id.
        for place in place + 1..=end {
            let key = self.ordering.as_deref_mut().and_then(|o| o.key(slot));
            let Some(later) = key.and_then(|key| key.get(place)) else { break };
            self.take_back(slot, later, backlog);
        }
    }

    fn take_back(&mut self, slot: u32, index: u64, backlog: &mut impl Backlog) {
        let Some(phase) = self.window.get(index).map(|word| word.phase()) else { return };
        let next = match phase {
            Phase::Leased => {
                self.end_lease(index, backlog);
                Phase::Ready
            }
            Phase::Provisional => Phase::Ready,
            Phase::Lapsed => Phase::Ready,
            Phase::LapsedBackingOff => Phase::BackingOff,
            _ => return,
        };
        if let Some(word) = self.window.get_mut(index) {
            word.set_phase(next);
            if matches!(phase, Phase::Leased | Phase::Provisional) {
                word.uncount();
            }
        }
        let Some(ordering) = self.ordering.as_deref_mut() else { return };
        ordering.provisional -= u64::from(phase == Phase::Provisional);
        if matches!(phase, Phase::Leased | Phase::Provisional) {
            self.deliverable += 1;
            if let Some(key) = ordering.key(slot) {
                key.waiting += 1;
            }
        }
    }

    /// The message at `index` has become ready, or is so no longer by the caller's doing.
    pub(super) fn count_waiting(&mut self, index: u64, more: bool) {
        let Some(word) = self.window.get(index) else { return };
        let Some(ordering) = self.ordering.as_deref_mut() else { return };
        match slot_of(word).and_then(|slot| ordering.key(slot)) {
            Some(key) if more => key.waiting += 1,
            Some(key) => key.waiting -= 1,
            None if more => {
                if let Some(kind) = kind_of(word) {
                    ordering.offer(index, kind);
                }
            }
            None => {}
        }
    }

    /// After any change to the message at `index` that may concern its key.
    #[inline]
    pub(super) fn settle_key_of(&mut self, index: u64) {
        if self.ordering.is_some()
            && let Some(slot) = self.window.get(index).and_then(slot_of)
        {
            self.settle_key(slot);
        }
    }

    /// A lapsed lease of a keyed message lives again (LS-9).
    pub(super) fn revive_in_order(&mut self, slot: u32) {
        if let Some(key) = self.ordering.as_deref_mut().and_then(|o| o.key(slot)) {
            key.handed += 1;
            key.outstanding += 1;
        }
        self.settle_key(slot);
    }

    /// Ends the lease of a keyed message; answers the stream that it counted against.
    pub(super) fn end_lease_in_order(&mut self, slot: u32) -> u32 {
        let key = self.ordering.as_deref_mut().and_then(|ordering| ordering.key(slot));
        key.map_or(0, |key| {
            key.outstanding -= 1;
            key.stream()
        })
    }

    pub(super) fn holder_of(&mut self, slot: u32) -> u32 {
        let key = self.ordering.as_deref_mut().and_then(|ordering| ordering.key(slot));
        key.map_or(0, |key| key.stream())
    }

    /// Makes all offers anew from the words (I-2).
    pub(super) fn rebuild_offers(&mut self) {
        let Some(ordering) = self.ordering() else { return };
        for slot in ordering.withdraw_offers() {
            self.settle_key(slot);
        }
        let Some(ordering) = self.ordering.as_deref_mut() else { return };
        for (index, word) in self.window.iter().filter(|(_, word)| slot_of(*word).is_none()) {
            if let Some(kind) = kind_of(word) {
                ordering.offer(index, kind);
            }
        }
    }
}

/// What a client gets next: a message that was filed before, or one that is leased already.
enum Next {
    Filed(u64),
    Leased(Leased),
}

/// A client that holds nothing.
const ANYBODY: Client = Client::OneAtATime;

/// The place of the key of a word's message.
pub(super) fn slot_of(word: Word) -> Option<u32> {
    let owner = word.owner();
    (owner & KEYED != 0).then_some(owner & !KEYED)
}

fn kind_of(word: Word) -> Option<Kind> {
    match word.phase() {
        Phase::Ready if word.generation() == 0 => Some(Kind::Fresh),
        Phase::Ready | Phase::Lapsed => Some(Kind::Again),
        _ => None,
    }
}
