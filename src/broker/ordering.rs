//! The ordering keys of one subscription: which messages each has, and whose turn it is.
//!
//! A key is there only while it has messages. It knows its messages in order; those at the front
//! have been *handed* out. Who may be handed the next one is decided here; what a word says, and
//! what becomes of it, in `subscription/ordered.rs`. Offers are hints, as the ready heap is: they
//! are checked against key and word when they are taken (I-2).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::places::Places;

/// In the owner of a word whose message has a key: the rest is the key's place.
pub(crate) const KEYED: u32 = 1 << 31;

/// Who takes messages, as far as keys are concerned: a stream by its number, or a single call.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// One response of a pull: all its messages are taken together (ORD-4, ORD-5).
    Call(u64),
    /// A stream, which may be sent the next message before the last is acknowledged (ORD-6).
    Stream(u32),
    /// Somebody who works on one message of a key at a time (ORD-9).
    OneAtATime,
}

/// The messages of one key.
#[derive(Debug)]
pub(crate) struct Key {
    hash: u64,
    queue: Queue,
    /// How many from the front have been handed out since the last rewind.
    pub(crate) handed: usize,
    /// Of those, how many are leased.
    pub(crate) outstanding: usize,
    /// Words of this key that are ready or lapsed.
    pub(crate) waiting: u64,
    /// Of those, how many have to wait for earlier ones.
    blocked: u64,
    /// Who had the last hand-out.
    pub(crate) holder: Client,
    /// The index that is on offer, and to whom.
    offered: Option<(u64, Option<u32>)>,
}

/// Indices in ascending order; one alone takes no allocation.
#[derive(Debug, Default)]
struct Queue {
    first: Option<u64>,
    rest: VecDeque<u64>,
}

/// Indices that may be handed out, redeliveries and fresh messages apart (L13).
#[derive(Debug, Default)]
struct Offers {
    again: BinaryHeap<Reverse<u64>>,
    fresh: BinaryHeap<Reverse<u64>>,
}

#[derive(Debug)]
pub(crate) struct Ordering {
    by_hash: HashMap<u64, u32, BuildHasherDefault<Taken>>,
    keys: Places<Key>,
    /// For anybody.
    free: Offers,
    /// For the call that is under way.
    call: (u64, Offers),
    /// For the stream that holds the key (ORD-8).
    reserved: BTreeMap<u32, Offers>,
    /// Streams for which something was reserved since the last look.
    woken: Vec<u32>,
    pub(crate) provisional: u64,
    blocked: u64,
    /// What one client has in hand, while nothing else is live: see [`Unfiled`].
    pub(crate) unfiled: Option<Unfiled>,
}

/// Leases that are not filed under their keys, because nobody has to ask whose turn it is: all live
/// messages lie from here on, and one client has them all, in order. As long as it acknowledges
/// them in that order, each of them is the first of its key when its turn comes. Whatever else
/// happens files them first.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Unfiled {
    pub(crate) client: Client,
}

/// Which of two kinds an offer is of.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Again,
    Fresh,
}

impl Key {
    pub(crate) fn is_for(&self, client: Client) -> bool {
        self.outstanding == 0 || (client == self.holder && client != Client::OneAtATime)
    }

    pub(crate) fn front(&self) -> Option<u64> {
        self.queue.first
    }

    /// The index whose turn it is.
    pub(crate) fn next(&self) -> Option<u64> {
        self.queue.get(self.handed)
    }

    pub(crate) fn get(&self, place: usize) -> Option<u64> {
        self.queue.get(place)
    }

    pub(crate) fn place_of(&self, index: u64) -> Option<usize> {
        self.queue.place_of(index)
    }

    /// The stream against whose quota the messages count.
    pub(crate) fn stream(&self) -> u32 {
        match self.holder {
            Client::Stream(owner) => owner,
            Client::Call(_) | Client::OneAtATime => 0,
        }
    }
}

impl Queue {
    #[cfg(test)]
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    fn get(&self, place: usize) -> Option<u64> {
        match place {
            0 => self.first,
            _ => self.rest.get(place - 1).copied(),
        }
    }

    fn push(&mut self, index: u64) {
        match self.first {
            None => self.first = Some(index),
            Some(_) => self.rest.push_back(index),
        }
    }

    fn place_of(&self, index: u64) -> Option<usize> {
        if self.first == Some(index) {
            return Some(0);
        }
        self.rest.binary_search(&index).ok().map(|place| place + 1)
    }

    fn remove(&mut self, place: usize) {
        if place == 0 {
            self.first = self.rest.pop_front();
        } else {
            self.rest.remove(place - 1);
        }
        // A burst of one key leaves no memory behind.
        if self.rest.is_empty() && self.rest.capacity() > 64 {
            self.rest = VecDeque::new();
        }
    }
}

impl Offers {
    fn of(&mut self, kind: Kind) -> &mut BinaryHeap<Reverse<u64>> {
        match kind {
            Kind::Again => &mut self.again,
            Kind::Fresh => &mut self.fresh,
        }
    }

    fn len(&self) -> usize {
        self.again.len() + self.fresh.len()
    }
}

impl Ordering {
    pub(crate) fn new() -> Self {
        Self {
            by_hash: HashMap::default(),
            keys: Places::default(),
            free: Offers::default(),
            call: (0, Offers::default()),
            reserved: BTreeMap::new(),
            woken: Vec::new(),
            provisional: 0,
            blocked: 0,
            unfiled: None,
        }
    }

    pub(crate) fn key(&mut self, slot: u32) -> Option<&mut Key> {
        self.keys.get_mut(slot)
    }

    /// Keys that have messages.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Messages that are known to wait for earlier ones of their key.
    pub(crate) fn blocked(&self) -> u64 {
        self.blocked
    }

    /// Appends a message to its key; answers the key's place.
    pub(crate) fn file(&mut self, hash: u64, index: u64) -> u32 {
        let Self { by_hash, keys, .. } = self;
        let slot = *by_hash.entry(hash).or_insert_with(|| {
            keys.insert(Key {
                hash,
                queue: Queue::default(),
                handed: 0,
                outstanding: 0,
                waiting: 0,
                blocked: 0,
                holder: Client::OneAtATime,
                offered: None,
            })
        });
        if let Some(key) = keys.get_mut(slot) {
            key.queue.push(index);
        }
        slot
    }

    /// Takes a message out of its key, which goes with its last one: answers whether it has gone.
    pub(crate) fn remove(&mut self, slot: u32, index: u64) -> bool {
        let Some(key) = self.keys.get_mut(slot) else { return true };
        let Some(place) = key.place_of(index) else { return false };
        key.queue.remove(place);
        if place < key.handed {
            key.handed -= 1;
        }
        let is_empty = key.queue.first.is_none();
        if is_empty {
            self.by_hash.remove(&key.hash);
            self.blocked -= key.blocked;
            self.keys.remove(slot);
            // A burst of keys leaves no memory behind.
            if self.by_hash.capacity() > ROOM && self.by_hash.len() < self.by_hash.capacity() / 8 {
                self.by_hash.shrink_to(self.by_hash.len() * 2);
            }
        }
        is_empty
    }

    /// Offers a message without a key to anybody.
    pub(crate) fn offer(&mut self, index: u64, kind: Kind) {
        self.free.of(kind).push(Reverse(index));
    }

    /// Offers the next message of a key to whoever may have it, and counts who has to wait.
    /// `next` is the kind of the next message if it is ready.
    pub(crate) fn settle(&mut self, slot: u32, next: Option<Kind>) {
        let Some(key) = self.keys.get_mut(slot) else { return };
        let is_free = key.outstanding == 0;
        let blocked = if is_free && next.is_some() { 0 } else { key.waiting };
        self.blocked = self.blocked + blocked - key.blocked;
        key.blocked = blocked;
        let Some((index, kind)) = key.next().zip(next) else { return };
        if is_free {
            if key.offered != Some((index, None)) {
                key.offered = Some((index, None));
                self.free.of(kind).push(Reverse(index));
            }
            return;
        }
        match key.holder {
            Client::Stream(owner) if key.offered != Some((index, Some(owner))) => {
                // A stream that has gone takes nothing: the key waits for what it still holds.
                if let Some(offers) = self.reserved.get_mut(&owner) {
                    key.offered = Some((index, Some(owner)));
                    offers.of(kind).push(Reverse(index));
                    if !self.woken.contains(&owner) {
                        self.woken.push(owner);
                    }
                }
            }
            Client::Call(call) if self.call.0 == call => {
                if key.offered != Some((index, Some(0))) {
                    key.offered = Some((index, Some(0)));
                    self.call.1.of(kind).push(Reverse(index));
                }
            }
            Client::Stream(_) | Client::Call(_) | Client::OneAtATime => {}
        }
    }

    /// A pull begins: what was offered to the call before it alone is no longer.
    pub(crate) fn begin(&mut self, client: Client) {
        if let Client::Call(call) = client
            && self.call.0 != call
        {
            self.call.0 = call;
            self.call.1.again.clear();
            self.call.1.fresh.clear();
        }
    }

    /// The lowest index on offer to `client`, and whether it comes from those for it alone.
    pub(crate) fn peek(&mut self, client: Client, kind: Kind) -> Option<(u64, bool)> {
        let free = self.free.of(kind).peek().map(|Reverse(index)| *index);
        let own = self.own(client).and_then(|own| own.of(kind).peek()).map(|Reverse(at)| *at);
        match (free, own) {
            (Some(free), Some(own)) if own < free => Some((own, true)),
            (Some(free), _) => Some((free, false)),
            (None, own) => own.map(|own| (own, true)),
        }
    }

    /// Takes the offer that was seen last; `slot` is that of its key.
    pub(crate) fn pop(&mut self, client: Client, kind: Kind, is_own: bool, slot: Option<u32>) {
        let offers = if is_own { self.own(client) } else { Some(&mut self.free) };
        let popped = offers.and_then(|offers| offers.of(kind).pop());
        let key = slot.and_then(|slot| self.keys.get_mut(slot));
        if let Some((key, Reverse(index))) = key.zip(popped)
            && key.offered.is_some_and(|(offered, _)| offered == index)
        {
            key.offered = None;
        }
    }

    fn own(&mut self, client: Client) -> Option<&mut Offers> {
        match client {
            Client::Stream(owner) => self.reserved.get_mut(&owner),
            Client::Call(call) if call == self.call.0 => Some(&mut self.call.1),
            Client::Call(_) | Client::OneAtATime => None,
        }
    }

    pub(crate) fn open_stream(&mut self, owner: u32) {
        self.reserved.insert(owner, Offers::default());
    }

    pub(crate) fn close_stream(&mut self, owner: u32) {
        self.reserved.remove(&owner);
    }

    pub(crate) fn take_woken(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.woken)
    }

    /// All offers together, those that are no longer true among them.
    pub(crate) fn offers(&self) -> usize {
        self.free.len() + self.call.1.len() + self.reserved.values().map(Offers::len).sum::<usize>()
    }

    /// Forgets all offers; answers the places of all keys, in which they have to be made anew.
    pub(crate) fn withdraw_offers(&mut self) -> Vec<u32> {
        self.free = Offers::default();
        self.call.1 = Offers::default();
        self.reserved.values_mut().for_each(|offers| *offers = Offers::default());
        let keys = self.keys.iter_mut().map(|(slot, key)| {
            key.offered = None;
            slot
        });
        keys.collect()
    }
}

/// Hashes for which there is room without anybody using it.
const ROOM: usize = 1_024;

/// Hashes of keys are hashes already.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Taken(u64);

impl Hasher for Taken {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_while_it_has_messages() {
        let mut ordering = Ordering::new();
        let slots: Vec<u32> = (0..1_000).map(|n| ordering.file(n % 10, n)).collect();
        assert_eq!(ordering.len(), 10);
        for (index, slot) in (0..).zip(&slots) {
            ordering.remove(*slot, index);
        }
        assert_eq!((ordering.len(), ordering.by_hash.len()), (0, 0));
    }

    #[test]
    fn a_burst_of_keys_leaves_no_memory_behind() {
        let mut ordering = Ordering::new();
        let slots: Vec<u32> = (0..200_000).map(|n| ordering.file(n, n)).collect();
        assert_eq!((ordering.len(), size_of::<Key>()), (200_000, 120));
        for (index, slot) in (0..).zip(&slots) {
            ordering.remove(*slot, index);
        }
        assert!(ordering.by_hash.capacity() <= 2 * ROOM, "{}", ordering.by_hash.capacity());
        assert!(ordering.keys.capacity() <= 64, "{}", ordering.keys.capacity());
    }

    #[test]
    fn messages_are_found_and_removed_wherever_they_stand() {
        let mut queue = Queue::default();
        (0..10).for_each(|n| queue.push(n * 2));
        assert_eq!(
            (queue.place_of(0), queue.place_of(8), queue.place_of(9)),
            (Some(0), Some(4), None)
        );
        queue.remove(4);
        queue.remove(0);
        let left: Vec<u64> = (0..queue.len()).filter_map(|place| queue.get(place)).collect();
        assert_eq!(left, [2, 4, 6, 10, 12, 14, 16, 18]);
    }
}
