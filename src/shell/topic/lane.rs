//! The short way in: one message at a time while nothing is out of the ordinary.
//!
//! No filter that matches, no publisher that waits, no limit and no budget near, no fault armed:
//! what has to be true for that is worked out once, at the end of a publish that went the long way,
//! and kept as a [`Lane`]; whether a filter matches is known before. Whoever takes the lock
//! otherwise closes it, so that no rule has to know of it.

use super::admission::{Gate, Load};
use super::{Appended, One, Recipients, TopicShared, TopicState, tell};
use crate::clock::Reading;
use crate::error::PublishReason;
use crate::message::{Message, MessageId, Published};
use crate::shell::effects::Effects;
use crate::shell::matcher::Matches;

/// How much may be appended the short way. Closed by default.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Lane {
    messages: u64,
    /// With overhead.
    charge: u64,
}

impl Lane {
    pub(super) fn close(&mut self) {
        self.messages = 0;
    }

    /// Whether there is room for one message; it is used up then.
    #[inline]
    fn take(&mut self, charge: u64) -> bool {
        let has_room = self.messages > 0 && charge <= self.charge;
        if has_room {
            self.messages -= 1;
            self.charge -= charge;
        }
        has_room
    }
}

impl TopicShared {
    /// [`publish_gated`](Self::publish_gated) of a single message, which stays where it is if it
    /// cannot be published.
    #[inline]
    pub(crate) fn publish_one(
        &self,
        message: &mut Message,
        matches: &mut Matches,
        load: Load,
        gate: Gate,
        reading: Reading,
    ) -> Result<Appended, PublishReason> {
        let mut state = self.state.lock();
        let is_plain = load.is_plain()
            && matches!(gate, Gate::Queue(None))
            && state.views.have_none(matches)
            && state.lane.take(load.charge)
            && self.core.budget.has_ample_room(load.charge);
        if !is_plain {
            state.lane.close();
            let one = One::new(std::mem::take(message));
            let published = self.publish_locked(state, one, matches, load, gate, reading);
            return published.map_err(|(reason, mut back)| {
                *message = back.next().unwrap_or_default();
                reason
            });
        }
        let first = MessageId::from_u64(self.core.take_ids(1));
        let time = state.last_publish.max(reading.now);
        state.last_publish = time;
        state.log.append(Published { message: std::mem::take(message), id: first, time });
        let recipients = state.unfiltered;
        state.ledger.appended += 1;
        state.ledger.published += 1;
        state.ledger.owed += recipients as u64;
        debug_assert!(!state.log.has_changes(), "the lane ends where a segment does");
        self.view.set_head(state.log.head());
        let awaited = self.view.is_awaited().then(|| self.view.take_waiting());
        drop(state);
        if let Some(awaited) = awaited {
            let mut effects = Effects::default();
            tell(awaited, &mut effects);
            effects.run();
        }
        Ok(Appended { first, recipients: Recipients::Same(recipients) })
    }

    /// Opens the lane if nothing but its own messages can change anything for the next publish.
    pub(super) fn open_lane(&self, state: &mut TopicState) {
        let is_plain = !state.deleted
            && state.faults.is_none()
            && state.doors.publishers.is_empty()
            && state.sweep.is_some()
            && state.log.keeps_new();
        if is_plain {
            let (head, bytes) = (state.log.head(), state.log.appended_bytes());
            let (until, bytes_until) = state.doors.open_until();
            let (slots, slot_bytes) = state.log.tail_room();
            let unreported = self.charged(state).saturating_sub(state.doors.reported);
            let charge = self.core.budget.slack().saturating_sub(unreported);
            state.lane = Lane {
                messages: until.saturating_sub(head).min(slots),
                charge: charge.min(bytes_until.saturating_sub(bytes)).min(slot_bytes),
            };
        }
    }
}
