//! Taking the lock of a subscription, with everything brought to now, and releasing it.
//!
//! Both have a short form for when nothing is out of the ordinary.

use super::{After, End, State, SubscriptionShared, TELL_WORDS, TRIM_EVERY};
use crate::clock::Reading;
use crate::shell::effects::Effects;
use crate::sync::MutexGuard;

impl SubscriptionShared {
    /// Takes the lock with everything brought to `reading`, in rounds of bounded work (L6).
    #[inline]
    pub(super) fn enter(&self, reading: Reading) -> Result<MutexGuard<'_, State>, End> {
        self.enter_slowly(self.lock(), reading, u64::MAX)
    }

    /// The same for one who asks for `wanted` fresh messages: `seen` may be short of the head only
    /// if that many are below it.
    #[inline]
    pub(super) fn enter_for(
        &self,
        reading: Reading,
        wanted: u64,
    ) -> Result<MutexGuard<'_, State>, End> {
        self.enter_with(self.lock(), reading, wanted)
    }

    /// The same with the lock taken already.
    #[inline]
    pub(super) fn enter_with<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        reading: Reading,
        wanted: u64,
    ) -> Result<MutexGuard<'a, State>, End> {
        state.lane.close();
        let is_plain = state.ended.is_none()
            && state.not_before.is_none()
            && !state.broker.is_ordered()
            && reading.now < state.expires_at();
        if is_plain {
            if state.broker.cursor().saturating_add(wanted) > state.seen {
                self.look_at_head(&mut state);
            }
            if !state.broker.is_due(reading.now, state.seen) {
                return Ok(state);
            }
        }
        self.enter_slowly(state, reading, wanted)
    }

    /// The same where something is to be done first, or may be.
    pub(super) fn enter_slowly<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        reading: Reading,
        wanted: u64,
    ) -> Result<MutexGuard<'a, State>, End> {
        loop {
            if let Some(end) = state.ended.filter(|end| *end != End::Detached) {
                return Err(end);
            }
            if state.has_expired(reading.now) {
                drop(state);
                self.expire();
                return Err(End::Deleted);
            }
            if let Some(end) = state.ended {
                return Err(end);
            }
            let cursor = state.broker.cursor();
            // Whose keys are in order may have to go past any number that wait for their turn.
            if cursor.saturating_add(wanted) > state.seen || state.broker.is_ordered() {
                self.look_at_head(&mut state);
            }
            let head = state.seen;
            let (broker, mut reader) = self.reader(&mut state);
            let more = broker.advance(reading.now, head, &mut reader);
            let goes_on = more || broker.cursor() != cursor;
            let skips = |state| self.skip_early(state, reading.now);
            if !goes_on && (state.not_before.is_none() || !skips(&mut state)) {
                return Ok(state);
            }
            drop(state);
            state = self.lock();
        }
    }

    /// Releases the lock. Answers what has to be done without it.
    #[inline]
    pub(super) fn leave(&self, mut state: MutexGuard<'_, State>, effects: &mut Effects) -> After {
        let is_plain = self.is_unfiltered
            && state.replay.is_none()
            && !state.blocks
            && state.broker.is_plain()
            && !state.has_lapses_to_report()
            && !self.core.lifecycle.is_watched()
            && !self.core.budget.is_pressed()
            && state.broker.word_count().abs_diff(state.told_words) < TELL_WORDS;
        if is_plain {
            self.open_lane(&mut state);
            return After { trim: state.has_passed_boundary(), forward: false };
        }
        self.leave_slowly(state, effects)
    }

    pub(super) fn leave_slowly(
        &self,
        mut state: MutexGuard<'_, State>,
        effects: &mut Effects,
    ) -> After {
        let may_forward = !state.is_forwarding && !state.is_paused;
        let forward = state.broker.has_outgoing() && may_forward;
        if state.broker.owners().has_freed() {
            for owner in state.broker.owners().take_freed() {
                if let Some(waker) = state.starved.remove(&owner) {
                    effects.wake(waker);
                }
            }
        }
        if let Some(ordering) = state.broker.ordering() {
            for owner in ordering.take_woken() {
                if let Some(waker) = state.waiters.tell_owner(owner) {
                    self.core.wake_begun();
                    effects.wake(waker);
                }
            }
        }
        if self.core.lifecycle.is_watched() && state.broker.outstanding() == 0 {
            effects.quiet(&self.core);
        }
        self.offer_room(&mut state, effects);
        #[cfg(feature = "tracing")]
        self.report_lapses(&mut state, effects);
        if self.core.budget.is_pressed() {
            let trim = self.leave_pressed(state, effects);
            return After { trim, forward };
        }
        if state.broker.word_count().abs_diff(state.told_words) >= TELL_WORDS {
            self.tell_words(&mut state);
        }
        let trim = if state.replay.is_some() {
            self.has_come_forward(&state)
        } else if self.is_unfiltered {
            state.has_passed_boundary()
        } else {
            state.let_go(u64::MAX).into_iter().for_each(|segment| effects.free(segment));
            let done = state.broker.low() - state.told_low;
            let is_empty = state.broker.low() == self.view.head();
            done >= TRIM_EVERY || (done > 0 && is_empty) || state.broker.has_pins()
        };
        After { trim, forward }
    }

    #[cfg(feature = "tracing")]
    pub(super) fn report_lapses(&self, state: &mut State, effects: &mut Effects) {
        let lapses = state.broker.expired_leases();
        let news = lapses - std::mem::replace(&mut state.reported_lapses, lapses);
        if let Some(this) = self.me.upgrade().filter(|_| news > 0) {
            effects.lapsed(this, news);
        }
    }

    /// Under pressure everything that is freed is given back at once.
    #[cold]
    pub(super) fn leave_pressed(
        &self,
        mut state: MutexGuard<'_, State>,
        effects: &mut Effects,
    ) -> bool {
        state.broker.shed_gaps();
        state.let_go(u64::MAX).into_iter().for_each(|segment| effects.free(segment));
        self.tell_words(&mut state) || self.keeps(&state) != state.told || state.broker.has_pins()
    }

    /// Tells the topic how many lease words there are. Answers whether that was news.
    pub(super) fn tell_words(&self, state: &mut State) -> bool {
        let words = state.broker.word_count();
        let before = std::mem::replace(&mut state.told_words, words);
        self.topic.count_words(before, words);
        before != words
    }

    #[inline]
    pub(super) fn finish(&self, effects: &mut Effects, after: After) {
        effects.carry_out();
        if after.trim {
            self.topic.trim(self);
        }
        if after.forward {
            self.forward();
        }
    }
}
