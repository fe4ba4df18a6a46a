//! Messages that wait at their topic until they are due, and those that have come late (L10).
//!
//! A delayed message has its id from the moment it was accepted, and enters the log when it is
//! due. So the ids in a log no longer grow with positions everywhere: those that came late are
//! remembered beside it, by position and by id. When something is due is only known here; who
//! waits for that, and publishes, is the shell.

use std::collections::BTreeMap;
use std::ops::Range;

use super::log::live::Weight;
use crate::message::{Message, MessageId};
use crate::time::Time;

/// What waits, in the order in which it is due; at one instant in the order of acceptance.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    messages: BTreeMap<(Time, MessageId), Message>,
    due: BTreeMap<MessageId, Time>,
    weight: Weight,
}

impl Delayed {
    pub(crate) fn insert(&mut self, id: MessageId, due: Time, message: Message) {
        self.weight.add(Weight::one(message.size() as u64));
        self.due.insert(id, due);
        self.messages.insert((due, id), message);
    }

    pub(crate) fn len(&self) -> u64 {
        self.weight.messages
    }

    /// What the budget counts for what waits.
    #[inline]
    pub(crate) fn charge(&self) -> u64 {
        self.weight.charge()
    }

    /// When the first is due; `NEVER` if none waits.
    pub(crate) fn next_due(&self) -> Time {
        self.messages.first_key_value().map_or(Time::NEVER, |((due, _), _)| *due)
    }

    /// When a message is due that waits.
    pub(crate) fn due_of(&self, id: MessageId) -> Option<Time> {
        self.due.get(&id).copied()
    }

    /// Takes the first that is due by `now`.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<(Time, MessageId, Message)> {
        let first = self.messages.first_entry().filter(|first| first.key().0 <= now)?;
        let ((due, id), message) = first.remove_entry();
        self.due.remove(&id);
        self.weight.remove(Weight::one(message.size() as u64));
        Some((due, id, message))
    }

    /// Takes one that waits, due or not.
    pub(crate) fn take(&mut self, id: MessageId) -> Option<Message> {
        let due = self.due.remove(&id)?;
        let message = self.messages.remove(&(due, id))?;
        self.weight.remove(Weight::one(message.size() as u64));
        Some(message)
    }
}

/// The messages in a log whose ids are lower than those before them.
#[derive(Debug, Default)]
pub(crate) struct Late {
    ids: BTreeMap<u64, MessageId>,
    positions: BTreeMap<MessageId, u64>,
}

impl Late {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(crate) fn insert(&mut self, position: u64, id: MessageId) {
        self.ids.insert(position, id);
        self.positions.insert(id, position);
    }

    /// Where a message lies that came late.
    pub(crate) fn position(&self, id: MessageId) -> Option<u64> {
        self.positions.get(&id).copied()
    }

    /// Whether the message at a position came late.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.ids.contains_key(&position)
    }

    /// Whether any of these came late.
    pub(crate) fn has_any(&self, positions: Range<u64>) -> bool {
        self.ids.range(positions).next().is_some()
    }

    /// Forgets the messages of a segment that the log no longer has.
    pub(crate) fn forget(&mut self, segment: Range<u64>, is_there: impl Fn(u64) -> bool) {
        let gone: Vec<u64> =
            self.ids.range(segment).map(|(&at, _)| at).filter(|at| !is_there(*at)).collect();
        for id in gone.iter().filter_map(|position| self.ids.remove(position)) {
            self.positions.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> MessageId {
        MessageId::from_u64(number)
    }

    #[test]
    fn what_is_due_comes_out_in_order_of_instant_and_acceptance() {
        let mut delayed = Delayed::default();
        for (number, due) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            delayed.insert(id(number), Time::from_millis(due), Message::new("data"));
        }
        assert_eq!((delayed.len(), delayed.next_due()), (4, Time::from_millis(10)));
        assert_eq!(delayed.charge(), 4 * (4 + 16 + 128));
        assert!(delayed.take_due(Time::from_millis(9)).is_none());
        assert!(delayed.take(id(3)).is_some() && delayed.take(id(3)).is_none());
        let due = std::iter::from_fn(|| delayed.take_due(Time::from_millis(30)));
        assert_eq!(due.map(|(_, id, _)| id.as_u64()).collect::<Vec<_>>(), [2, 4, 1]);
        assert_eq!((delayed.len(), delayed.charge()), (0, 0));
        assert_eq!((delayed.next_due(), delayed.due_of(id(1))), (Time::NEVER, None));
    }

    #[test]
    fn late_ones_are_forgotten_with_their_segment() {
        let mut late = Late::default();
        (0..10).for_each(|position| late.insert(position, id(100 + position)));
        late.forget(0..8, |position| position == 3);
        assert!(late.has(3) && late.has(8) && !late.has(2));
        assert_eq!((late.position(id(103)), late.position(id(102))), (Some(3), None));
        late.forget(0..10, |_| false);
        assert!(late.is_empty() && late.position(id(109)).is_none());
    }
}
