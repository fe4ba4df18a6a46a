//! A subscription at its limit: who is told that it is full, and that it no longer is.

use super::{SubscriptionShared, SubscriptionState};
use crate::broker::subscription::MAX_WORK;
use crate::budget::{BacklogLimit, Overflow};
use crate::clock::Reading;
use crate::events::Event;
use crate::shell::effects::Effects;

/// What a limited subscription says to more messages.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// Publishers have to wait; they are told when there is room.
    Full,
    Refused,
    /// It drops its oldest.
    Overflows,
    /// So many at once never fit.
    NeverEnough(u64),
}

impl SubscriptionShared {
    /// Called by the topic, under its lock: what about `count` more, and from which head of the
    /// view on does it have to be asked again? `None` if it has no limit any more, or was filed
    /// elsewhere since.
    pub(crate) fn room_for(&self, count: u64, filed: u64, reading: Reading) -> Option<(Room, u64)> {
        let mut state = self.state.lock();
        let limit = state.config.backlog_limit?;
        if state.ended.is_some() || state.filed != Some(filed) {
            return None;
        }
        let head = self.head(&state);
        let (broker, mut reader) = self.reader(&mut state);
        broker.advance(reading.now, head, &mut reader);
        let free = limit.messages.saturating_sub(self.backlog_of(&state));
        let next = self.view.head() + free;
        state.filed = Some(next);
        let room = match limit.overflow {
            _ if count <= free => Room::Enough,
            Overflow::DropOldest => Room::Overflows,
            _ if count > limit.messages => Room::NeverEnough(limit.messages),
            Overflow::Reject => Room::Refused,
            Overflow::Wait => {
                state.blocks = true;
                Room::Full
            }
        };
        Some((room, next))
    }

    /// Called by the topic, under its lock, when the limit is new: where to file it.
    pub(crate) fn file_attention(&self) -> Option<u64> {
        let mut state = self.state.lock();
        state.filed = state.config.backlog_limit.map(|_| 0);
        state.filed
    }

    /// Whether publishers wait for this subscription.
    pub(crate) fn is_blocking(&self) -> bool {
        self.state.lock().blocks
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.backlog_of(&self.state.lock())
    }

    /// The limit has changed: what is beyond it is dropped, if that is its policy.
    pub(super) fn drop_oldest_if_told(&self) {
        let limit = self.state.lock().config.backlog_limit;
        if limit.is_some_and(|limit| limit.overflow == Overflow::DropOldest) {
            self.drop_oldest();
        }
    }

    /// Drops its oldest messages down to the limit, in rounds of bounded work (L6).
    pub(crate) fn drop_oldest(&self) {
        let mut dropped = 0;
        loop {
            let mut effects = Effects::default();
            let mut state = self.state.lock();
            let Some(BacklogLimit { messages, .. }) = state.config.backlog_limit else { break };
            if state.ended.is_some() {
                break;
            }
            let head = self.head(&state);
            let (broker, mut reader) = self.reader(&mut state);
            let round = SubscriptionState::drop_oldest(broker, head, messages, &mut reader);
            let trim = self.leave(state, &mut effects);
            self.finish(effects, trim);
            dropped += round;
            if round < MAX_WORK as u64 {
                break;
            }
        }
        if dropped > 0 {
            self.core.events.send(Event::MessagesDropped {
                subscription: self.name.to_string(),
                count: dropped,
            });
        }
    }
}
