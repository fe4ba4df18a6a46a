//! A subscription at its limit: who is told that it is full, and that it no longer is.

use super::{State, SubscriptionShared, SubscriptionState};
use crate::broker::subscription::MAX_WORK;
use crate::budget::Overflow;
use crate::clock::Reading;
use crate::events::Event;
use crate::shell::effects::Effects;

/// What a publish would bring to a view, and what that had before.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) head: u64,
    pub(crate) accepted_bytes: u64,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// What a limit counts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Messages,
    Bytes,
}

/// What a limited subscription says to more messages.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// Publishers have to wait; they are told when there is room.
    Full,
    Refused,
    /// It drops its oldest.
    Overflows,
    /// So much at once never fits.
    NeverEnough(Measure, u64),
}

/// At which head of the view, and at which sum of its bytes, the topic looks at the limit.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Filed {
    messages: Option<u64>,
    bytes: Option<u64>,
}

impl Filed {
    fn of(&mut self, measure: Measure) -> &mut Option<u64> {
        match measure {
            Measure::Messages => &mut self.messages,
            Measure::Bytes => &mut self.bytes,
        }
    }
}

impl SubscriptionShared {
    /// Called by the topic, under its lock: what about so much more, and when does it have to be
    /// asked again? `None` if it has no limit any more, or was filed elsewhere since.
    pub(crate) fn room_for(
        &self,
        asked: Asked,
        measure: Measure,
        filed: u64,
        reading: Reading,
    ) -> Option<(Room, u64)> {
        let mut state = self.lock();
        let limit = state.config.backlog_limit?;
        if state.ended.is_some() || *state.filed.of(measure) != Some(filed) {
            return None;
        }
        let head = self.head(&state);
        let (broker, mut reader) = self.reader(&mut state);
        broker.advance(reading.now, head, &mut reader);
        let free = limit.messages.saturating_sub(self.backlog_of(&state));
        let (free_bytes, is_known) = match limit.bytes {
            None => (u64::MAX, true),
            Some(max) => {
                let (bytes, is_known) = self.bytes_of(&mut state, asked.accepted_bytes);
                (max.saturating_sub(bytes), is_known)
            }
        };
        let next = match measure {
            Measure::Messages => asked.head.saturating_add(free),
            Measure::Bytes if is_known => asked.accepted_bytes.saturating_add(free_bytes),
            Measure::Bytes => asked.accepted_bytes,
        };
        *state.filed.of(measure) = Some(next);
        let max_bytes = limit.bytes.unwrap_or(u64::MAX);
        let room = match limit.overflow {
            _ if asked.count <= free && asked.bytes <= free_bytes => Room::Enough,
            Overflow::DropOldest => Room::Overflows,
            _ if asked.count > limit.messages => {
                Room::NeverEnough(Measure::Messages, limit.messages)
            }
            _ if asked.bytes > max_bytes => Room::NeverEnough(Measure::Bytes, max_bytes),
            Overflow::Reject => Room::Refused,
            Overflow::Wait => {
                state.blocks = true;
                state.has_shrunk = false;
                Room::Full
            }
        };
        Some((room, next))
    }

    /// Called by the topic, under its lock, when the limit is new or the subscription begins anew:
    /// where to file it.
    pub(crate) fn file_attention(
        &self,
        accepted_bytes: u64,
    ) -> Option<impl Iterator<Item = (Measure, u64)> + use<>> {
        let mut state = self.lock();
        state.broker.end_weighing();
        state.filed = Filed::default();
        let limit = state.config.backlog_limit?;
        state.filed.messages = (limit.messages < u64::MAX).then_some(0);
        state.filed.bytes = limit.bytes.map(|_| 0);
        state.blocks = false;
        if limit.bytes.is_some() {
            self.begin_weighing(&mut state, accepted_bytes);
        }
        let filed =
            [(Measure::Messages, state.filed.messages), (Measure::Bytes, state.filed.bytes)];
        Some(filed.into_iter().filter_map(|(measure, at)| Some((measure, at?))))
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.lock().config.backlog_limit.is_some()
    }

    /// Whether publishers wait for this subscription.
    pub(crate) fn is_blocking(&self) -> bool {
        self.lock().blocks
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.backlog_of(&self.lock())
    }

    /// Called by the topic, under its lock: the bytes of the backlog, and whether these are all.
    fn bytes_of(&self, state: &mut State, accepted_bytes: u64) -> (u64, bool) {
        if !state.broker.is_weighing() {
            self.begin_weighing(state, accepted_bytes);
        }
        self.weigh(state, MAX_WORK);
        state.broker.bytes(accepted_bytes).unwrap_or((0, false))
    }

    /// While a filtered subscription looks through the log, what comes back is not known yet.
    fn begin_weighing(&self, state: &mut State, accepted_bytes: u64) {
        if !state.is_scanning() {
            let head = self.head(state);
            state.broker.begin_weighing(head, accepted_bytes);
        }
    }

    /// Looks up the sizes of what has left, and of up to `work` messages that were there before.
    #[inline]
    pub(super) fn weigh(&self, state: &mut State, work: usize) {
        if state.broker.is_weighing() {
            let (broker, mut reader) = self.reader(state);
            let has_shrunk = broker.weigh(work, &mut reader);
            state.has_shrunk |= has_shrunk;
        }
    }

    /// If publishers wait for room here and there may be some, the first of them looks.
    #[inline]
    pub(super) fn offer_room(&self, state: &mut State, effects: &mut Effects) {
        self.weigh(state, MAX_WORK);
        if state.blocks && !self.is_full(state) {
            state.blocks = false;
            effects.room_on(&self.topic);
        }
    }

    /// How much a publisher needs is not known here: whatever leaves may be enough.
    fn is_full(&self, state: &State) -> bool {
        let backlog = self.backlog_of(state);
        state.config.backlog_limit.is_some_and(|limit| {
            backlog >= limit.messages || (limit.bytes.is_some() && !state.has_shrunk)
        })
    }

    /// The limit has changed: what is beyond it is dropped, if that is its policy.
    pub(super) fn drop_oldest_if_told(&self) {
        let limit = self.lock().config.backlog_limit;
        if limit.is_some_and(|limit| limit.overflow == Overflow::DropOldest) {
            self.drop_oldest();
        }
    }

    /// Drops its oldest messages down to the limit, in rounds of bounded work (L6).
    pub(crate) fn drop_oldest(&self) {
        let is_in_bytes = self.lock().broker.is_weighing();
        let accepted = is_in_bytes.then(|| self.topic.bytes_accepted_by(&self.view));
        let accepted_bytes = accepted.unwrap_or_default();
        let mut dropped = 0;
        loop {
            let mut effects = Effects::default();
            let mut state = self.lock();
            let Some(limit) = state.config.backlog_limit else { break };
            if state.ended.is_some() {
                break;
            }
            self.weigh(&mut state, MAX_WORK);
            let is_known = state.broker.bytes(0).is_none_or(|(_, is_known)| is_known);
            let head = self.head(&state);
            let (broker, mut reader) = self.reader(&mut state);
            let max_bytes = limit.bytes.unwrap_or(u64::MAX);
            let round = SubscriptionState::drop_oldest(
                broker,
                head,
                limit.messages,
                max_bytes,
                accepted_bytes,
                &mut reader,
            );
            let trim = self.leave(state, &mut effects);
            self.finish(&mut effects, trim);
            dropped += round;
            if round < MAX_WORK as u64 && is_known {
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
