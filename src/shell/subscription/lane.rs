//! The short way: fresh messages handed out and acknowledged while nothing is out of the ordinary.
//!
//! No filter, no keys in order, no redelivery, at most one who waits, nothing due: what has to be
//! true for that is worked out once, at the end of a call that went the long way, and kept as a
//! [`Lane`]. Whoever takes the lock otherwise closes it, so that no rule has to know of it. What
//! the short way cannot do it leaves to the long one.

use super::{After, Request, Settle, State, SubscriptionShared, TELL_WORDS};
use crate::broker::subscription::Leased;
use crate::clock::Reading;
use crate::shell::batch::Batch;
use crate::sync::Arc;
use crate::time::Time;

/// Until when the short way is open. Closed by default.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Lane {
    /// Before this nothing is due: no lapse, no end of a delay, of a message or of the
    /// subscription.
    until: Time,
    /// A timer is set for this instant: what is due then or later needs no other.
    timer: Time,
}

impl Lane {
    pub(super) fn close(&mut self) {
        self.until = Time::default();
    }

    #[inline]
    pub(super) fn is_open(self, now: Time) -> bool {
        now < self.until
    }
}

impl State {
    /// The short way tells nobody of what it leaves behind. One who waits alone needs no word: it
    /// is told of each publish, and there is nobody else.
    #[inline]
    pub(super) fn close_lane_if_many_wait(&mut self) {
        if self.waiters.len() > 1 {
            self.lane.close();
        }
    }
}

impl SubscriptionShared {
    /// Opens the lane if nothing but what a publish brings can change anything for the next call.
    #[inline]
    pub(super) fn open_lane(&self, state: &mut State) {
        let Some(timer) = state.timer else { return };
        let is_plain = self.is_unfiltered
            && state.ended.is_none()
            && state.not_before.is_none()
            && state.replay.is_none()
            && state.faults.is_none()
            && state.history.is_none()
            && !state.blocks
            && state.waiters.len() <= 1
            && !state.has_lapses_to_report()
            && state.broker.has_only_fresh();
        if is_plain {
            let until = state.broker.nothing_due_before().min(state.expires_at()).min(timer.due);
            state.lane = Lane { until, timer: timer.due };
        }
    }

    /// Leases fresh messages that lie together; all that there are, or as many as are asked for.
    #[inline]
    pub(super) fn lease_in_lane(
        &self,
        state: &mut State,
        request: &Request,
        max_messages: usize,
        reading: Reading,
    ) -> Option<Box<Batch>> {
        let deadline = reading.deadline(state.ack_deadline);
        let is_plain = state.lane.is_open(reading.now)
            && deadline >= state.lane.timer
            && request.is_plain()
            && !self.core.budget.is_pressed();
        if !is_plain {
            return None;
        }
        let (first, wanted) = (state.broker.cursor(), max_messages as u64);
        if first.saturating_add(wanted) > state.seen {
            self.look_at_head(state);
            if state.broker.has_ttls() {
                return None;
            }
        }
        let count = wanted.min(state.seen - first);
        let segment = state.cached.as_ref()?;
        let slot = first.checked_sub(segment.base())?;
        let is_told = state.broker.word_count() + count < state.told_words + TELL_WORDS;
        if count == 0 || !is_told || !segment.has((slot + count - 1) as usize) {
            return None;
        }
        let spare = state.spare.as_mut()?;
        match &*spare.segments {
            [] => spare.segments.push(Arc::clone(segment)),
            [kept] if Arc::ptr_eq(kept, segment) => {}
            _ => return None,
        }
        let mut batch = state.spare.take()?;
        state.broker.hand_out_fresh(count as usize, deadline);
        batch.epoch = state.broker.epoch();
        batch.runs.push(Leased { slot: slot as u16, ..Leased::run(first, count as u32, 1, 1) });
        state.last_activity = state.last_activity.max(reading.now);
        Some(batch)
    }

    /// Whether the short way is open and there is nothing to hand out.
    #[inline]
    pub(super) fn is_lane_empty(&self, state: &State, request: &Request, reading: Reading) -> bool {
        state.lane.is_open(reading.now)
            && request.is_plain()
            && !self.core.budget.is_pressed()
            && state.broker.cursor() == self.view.head()
    }

    /// Acknowledges a batch of one run as far as its leases are in force; what is left of it is
    /// left in it. Answers how many, and what is to be done after; without that the long way goes
    /// on.
    #[inline]
    pub(super) fn ack_in_lane(
        &self,
        state: &mut State,
        batch: &mut Batch,
        reading: Reading,
    ) -> (usize, Option<After>) {
        let is_plain = state.lane.is_open(reading.now)
            && batch.epoch == state.broker.epoch()
            && !self.core.budget.is_pressed()
            && !self.core.lifecycle.is_watched();
        let [run] = batch.runs.as_mut_slice() else { return (0, None) };
        if !is_plain {
            return (0, None);
        }
        let count = state.broker.ack_run(run);
        if count < run.len {
            *run = run.part(count, run.len - count);
            return (count as usize, None);
        }
        batch.runs.clear();
        self.touch_to_settle(state, Settle::Ack, reading);
        let is_told = state.told_words < state.broker.word_count() + TELL_WORDS;
        let after = After { trim: state.has_passed_boundary(), forward: false };
        (count as usize, is_told.then_some(after))
    }
}
