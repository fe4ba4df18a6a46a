//! Answers to deliveries: one by one, by id, or a batch at once.

use smallvec::SmallVec;

use super::{End, Settle, State, SubscriptionShared};
use crate::ack_id::AckId;
use crate::broker::subscription::{LeaseId, Settled};
use crate::clock::Reading;
use crate::delivery::{BatchOutcome, Outcome};
use crate::error::{AckError, AckFailure};
use crate::observe::{self, Answer};
use crate::shell::batch::Batch;
use crate::shell::effects::Effects;
use crate::sync::{Arc, Ordering};
use crate::time::Span;

/// Words that are asked for at once: about as many as a processor can wait for.
const LOOK_AHEAD: usize = 64;

impl SubscriptionShared {
    /// Settles one delivery.
    pub(crate) fn settle(&self, lease: LeaseId, how: Settle) -> Result<Settled, AckError> {
        let mut settled = Settled::Stale;
        self.settle_each([lease], how, |outcome| settled = outcome)?;
        Ok(settled)
    }

    /// Settles deliveries in order, under one lock.
    #[inline]
    pub(crate) fn settle_each(
        &self,
        leases: impl IntoIterator<Item = LeaseId>,
        how: Settle,
        mut outcome: impl FnMut(Settled),
    ) -> Result<(), AckError> {
        let mut tally = observe::Tally::default();
        let settled = self.settle_as(leases, how, true, |settled| {
            tally.count(matches!(settled, Settled::Done | Settled::Provisional));
            outcome(settled);
        });
        tally.report(how.into(), &self.name, &self.topic.name);
        settled
    }

    /// As `settle_each`; what is no activity keeps no subscription alive (EXP-3).
    pub(crate) fn settle_as(
        &self,
        leases: impl IntoIterator<Item = LeaseId>,
        how: Settle,
        is_activity: bool,
        mut outcome: impl FnMut(Settled),
    ) -> Result<(), AckError> {
        let reading = self.read_to_settle(how);
        let mut state = match self.enter_for(reading, 0) {
            Ok(state) => state,
            Err(End::Detached) => {
                leases.into_iter().for_each(|_| outcome(Settled::Stale));
                self.touch_detached(reading);
                return Ok(());
            }
            Err(end) => return Err(self.ack_error(end)),
        };
        let mut effects = Effects::default();
        if is_activity {
            self.touch_to_settle(&mut state, how, reading);
        }
        self.settle_in(&mut state, leases.into_iter(), how, reading, outcome, &mut effects);
        let after = self.leave(state, &mut effects);
        self.finish(&mut effects, after);
        Ok(())
    }

    /// Settles what is left of a batch, and keeps its box for the next one. If the subscription is
    /// gone all are stale.
    #[inline]
    pub(crate) fn settle_batch(&self, mut batch: Box<Batch>, how: Settle) -> BatchOutcome {
        let reading = self.read_to_settle(how);
        let mut state = self.state.lock();
        let mut done = 0;
        if matches!(how, Settle::Ack) {
            let after;
            (done, after) = self.ack_in_lane(&mut state, &mut batch, reading);
            if let Some(after) = after {
                let old = state.keep_spare(batch);
                drop(state);
                drop(old);
                if after.trim {
                    self.topic.trim(self);
                }
                return self.report(how, BatchOutcome { done, ..BatchOutcome::default() });
            }
        }
        let mut outcome = BatchOutcome { done, ..BatchOutcome::default() };
        let mut state = match self.enter_with(state, reading, 0) {
            Ok(state) => state,
            Err(end) => {
                outcome.stale += batch.len();
                if end == End::Detached {
                    self.touch_detached(reading);
                }
                return outcome;
            }
        };
        let mut effects = Effects::default();
        self.touch_to_settle(&mut state, how, reading);
        if matches!(how, Settle::Ack) && state.faults.is_none() {
            let (broker, mut reader) = self.reader(&mut state);
            let count = |settled, many| outcome.count(settled, many);
            broker.ack_runs(batch.epoch, &batch.runs, &mut reader, count);
            self.settled(&mut state, how, &mut effects);
        } else {
            let count = |settled| outcome.count(settled, 1);
            self.settle_in(&mut state, batch.leases(), how, reading, count, &mut effects);
        }
        let segments = state.keep_box(batch);
        let after = self.leave(state, &mut effects);
        // Before the topic gives segments back, so that it can use them again.
        drop(segments);
        self.finish(&mut effects, after);
        self.report(how, outcome)
    }

    #[inline]
    fn report(&self, how: Settle, outcome: BatchOutcome) -> BatchOutcome {
        let done = outcome.done + outcome.provisional;
        observe::settled(how.into(), &self.name, &self.topic.name, done + outcome.stale, done);
        outcome
    }

    /// Nothing of a batch is left to be settled.
    pub(crate) fn keep_box(&self, batch: Box<Batch>) {
        let segments = self.lock().keep_box(batch);
        drop(segments);
    }

    #[inline]
    pub(super) fn read_to_settle(&self, how: Settle) -> Reading {
        match how {
            Settle::Ack if self.exact_acks.load(Ordering::Relaxed) => self.core.read(),
            Settle::Nack if self.exact_nacks.load(Ordering::Relaxed) => self.core.read(),
            Settle::Ack | Settle::Nack => self.core.read_for_ack(),
            Settle::NackAfter(_) | Settle::Deadline(_) => self.core.read(),
        }
    }

    #[inline]
    pub(super) fn settle_in(
        &self,
        state: &mut State,
        leases: impl Iterator<Item = LeaseId>,
        how: Settle,
        reading: Reading,
        mut outcome: impl FnMut(Settled),
        effects: &mut Effects,
    ) {
        if state.faults.is_none() {
            self.apply(state, leases, how, reading, outcome);
        } else {
            for lease in leases {
                match self.fault_of(state, lease, how) {
                    Some(settled) => outcome(settled),
                    None => self.apply(state, [lease].into_iter(), how, reading, &mut outcome),
                }
            }
        }
        self.settled(state, how, effects);
    }

    /// Settles in rounds: the words are all asked for before the first is judged. Those of ids in
    /// an order of their own lie anywhere, and would be waited for one after the other.
    #[inline]
    pub(super) fn apply(
        &self,
        state: &mut State,
        mut leases: impl Iterator<Item = LeaseId>,
        how: Settle,
        reading: Reading,
        mut outcome: impl FnMut(Settled),
    ) {
        if leases.size_hint().1 == Some(1) {
            return self.apply_round(state, leases, how, reading, outcome);
        }
        let mut round = SmallVec::<[LeaseId; LOOK_AHEAD]>::new();
        loop {
            round.extend(leases.by_ref().take(LOOK_AHEAD));
            if round.is_empty() {
                return;
            }
            state.broker.look_ahead(&round);
            self.apply_round(state, round.iter().copied(), how, reading, &mut outcome);
            round.clear();
        }
    }

    #[inline]
    fn apply_round(
        &self,
        state: &mut State,
        leases: impl Iterator<Item = LeaseId>,
        how: Settle,
        reading: Reading,
        mut outcome: impl FnMut(Settled),
    ) {
        let (broker, mut reader) = self.reader(state);
        let at = reading.deadline(Span::default());
        match how {
            Settle::Ack => broker.ack_many(leases, &mut reader, outcome),
            Settle::Nack => {
                leases.for_each(|lease| outcome(broker.nack(lease, at, None, &mut reader)));
            }
            Settle::NackAfter(delay) => {
                let ready_at = Some(reading.deadline(delay));
                leases.for_each(|lease| outcome(broker.nack(lease, at, ready_at, &mut reader)));
            }
            Settle::Deadline(span) => {
                let deadline = reading.deadline(span);
                leases.for_each(|l| outcome(broker.set_deadline(l, deadline, &mut reader)));
            }
        }
    }

    #[inline]
    pub(super) fn touch_to_settle(&self, state: &mut State, how: Settle, reading: Reading) {
        match how {
            Settle::Ack | Settle::Nack if !self.core.timeline.is_cheap() => {
                state.is_touched = true;
            }
            _ => state.touch(reading.now),
        }
    }

    /// Tells who may go on now, and looks when something is due next.
    #[inline]
    pub(super) fn settled(&self, state: &mut State, how: Settle, effects: &mut Effects) {
        match how {
            // What is acknowledged may be what its key waited for.
            Settle::Ack if state.broker.is_ordered() || state.faults.is_some() => {
                self.tell_if_deliverable(state, effects);
            }
            Settle::Ack => {}
            Settle::Nack => {
                self.tell_if_deliverable(state, effects);
                if state.broker.policy().retries() {
                    self.reschedule(state);
                }
            }
            Settle::NackAfter(_) | Settle::Deadline(_) => self.reschedule(state),
        }
    }

    /// Sends a delivery to the dead-letter topic (LIB-102). Without a policy it is given back.
    pub(crate) fn reject(&self, lease: LeaseId, reason: Option<&str>) -> Result<Settled, AckError> {
        let reading = self.core.read();
        let mut effects = Effects::default();
        let mut state = match self.enter(reading) {
            Ok(state) => state,
            Err(End::Detached) => {
                self.touch_detached(reading);
                return Ok(Settled::Stale);
            }
            Err(end) => return Err(self.ack_error(end)),
        };
        state.touch(reading.now);
        if !state.broker.policy().forwards() {
            drop(state);
            self.settle(lease, Settle::Nack)?;
            return Err(AckError::NoDeadLetterPolicy { subscription: self.name.to_string() });
        }
        let at = reading.deadline(Span::default());
        let (broker, mut reader) = self.reader(&mut state);
        let settled = broker.reject(lease, at, reason.map(Arc::from), &mut reader);
        let after = self.leave(state, &mut effects);
        self.finish(&mut effects, after);
        let done = usize::from(settled == Settled::Done);
        observe::settled(Answer::Reject, &self.name, &self.topic.name, 1, done);
        Ok(settled)
    }

    pub(crate) fn ack_id(&self, lease: LeaseId) -> AckId {
        AckId { name_hash: self.name_hash, incarnation: self.incarnation, lease }
    }

    /// What the caller is told: an outcome, or an error where answers must not be late (D16).
    pub(crate) fn outcome(&self, settled: Settled) -> Result<Outcome, AckFailure> {
        match settled {
            Settled::Done => Ok(Outcome::Done),
            Settled::Provisional => Ok(Outcome::Provisional),
            Settled::Unordered => Err(AckFailure::OutOfOrder),
            Settled::Transient => Err(AckFailure::Transient),
            Settled::Stale if self.is_exactly_once() => Err(AckFailure::InvalidAckId),
            Settled::Stale => Ok(Outcome::Stale),
        }
    }

    pub(crate) fn is_exactly_once(&self) -> bool {
        self.exactly_once.load(Ordering::Relaxed)
    }

    /// As `outcome`, for a single delivery.
    pub(crate) fn result(&self, lease: LeaseId, settled: Settled) -> Result<Outcome, AckError> {
        let failed =
            |failure| AckError::ExactlyOnce { failures: vec![(self.ack_id(lease), failure)] };
        self.outcome(settled).map_err(failed)
    }

    /// The lease that an id names here; that of a foreign id, or of an earlier subscription of the
    /// same name, is none.
    #[inline]
    pub(crate) fn lease_named(&self, id: &AckId) -> LeaseId {
        let is_own = self.knows(id) && id.incarnation == self.incarnation;
        if is_own { id.lease } else { LeaseId::NONE }
    }

    /// Whether an id was issued by this subscription or one of the same name before it (ACK-5,
    /// ACK-6).
    pub(crate) fn knows(&self, id: &AckId) -> bool {
        id.name_hash == self.name_hash
    }
}
