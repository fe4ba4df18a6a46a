//! Faults on demand of a subscription: when an armed one strikes, and who has to be woken then.
//!
//! Nothing here runs unless a fault was armed, apart from one look at whether any was.

use super::{Batch, Settle, State, SubscriptionShared};
use crate::ack_id::AckId;
use crate::broker::faults::{Fault, Faults};
use crate::broker::subscription::{LeaseId, MAX_WORK, Settled};
use crate::clock::Reading;
use crate::message::MessageId;
use crate::shell::effects::Effects;

impl SubscriptionShared {
    pub(crate) fn arm_fault(&self, fault: Fault, of: Option<MessageId>, count: u64) {
        let mut state = self.lock();
        state.faults.get_or_insert_default().arm(fault, of, count);
    }

    /// Asks the faults, if any was ever armed.
    pub(crate) fn with_faults<T: Default>(&self, ask: impl FnOnce(&mut Faults) -> T) -> T {
        let mut state = self.lock();
        state.faults.as_deref_mut().map(ask).unwrap_or_default()
    }

    /// Ends the lease that an id names, as its deadline would (LIB-404).
    pub(crate) fn end_lease_now(&self, id: &AckId) -> bool {
        if !self.knows(id) || id.incarnation != self.incarnation {
            return false;
        }
        self.end_leases(|this, state, reading| {
            let (broker, mut reader) = this.reader(state);
            let is_ended = broker.end_lease_now(id.lease, reading.now, &mut reader);
            (u64::from(is_ended), None)
        }) > 0
    }

    /// Ends the lease of a message, if it is leased.
    pub(crate) fn end_lease_of(&self, of: MessageId) -> bool {
        self.end_leases(|this, state, reading| {
            let lease = this.lease_of(state, of);
            let (broker, mut reader) = this.reader(state);
            let is_ended =
                lease.is_some_and(|id| broker.end_lease_now(id, reading.now, &mut reader));
            (u64::from(is_ended), None)
        }) > 0
    }

    /// Ends every lease that runs.
    pub(crate) fn end_all_leases(&self) -> u64 {
        let mut from = 0;
        self.end_leases(|this, state, reading| {
            let (broker, mut reader) = this.reader(state);
            let (ended, next) = broker.end_leases_now(from, MAX_WORK, reading.now, &mut reader);
            from = next.unwrap_or(from);
            (ended, next)
        })
    }

    /// Takes the lock for `act` as often as it says that there is more, and sees to what follows.
    fn end_leases(
        &self,
        mut act: impl FnMut(&Self, &mut State, Reading) -> (u64, Option<u64>),
    ) -> u64 {
        let reading = self.core.read();
        let mut sum = 0;
        loop {
            let mut effects = Effects::default();
            let Ok(mut state) = self.enter(reading) else { return sum };
            let (ended, next) = act(self, &mut state, reading);
            state.faults.get_or_insert_default().count_ended(ended);
            sum += ended;
            self.tell_if_deliverable(&mut state, &mut effects);
            self.reschedule(&mut state);
            let after = self.leave(state, &mut effects);
            self.finish(&mut effects, after);
            if next.is_none() {
                return sum;
            }
        }
    }

    /// The lease of a message; looks at all that were handed out.
    fn lease_of(&self, state: &mut State, of: MessageId) -> Option<LeaseId> {
        let epoch = state.broker.epoch();
        let words: Vec<(u64, u32)> =
            state.broker.words().map(|(index, word)| (index, word.generation())).collect();
        let (_, mut reader) = self.reader(state);
        let (index, generation) = words.into_iter().find(|(index, _)| {
            reader.published(*index).is_some_and(|(_, published)| published.id == of)
        })?;
        Some(LeaseId { epoch, generation, index })
    }

    /// Takes the message that was leased last back if its delivery is to be delayed (LIB-402).
    #[cold]
    pub(super) fn delays_last(
        &self,
        state: &mut State,
        reading: Reading,
        batch: &mut Batch,
    ) -> bool {
        let Some(last) = batch.runs.last().copied() else { return false };
        let message = self.message_id(state, last.index);
        let is_delay = |fault| matches!(fault, Fault::Delay(_));
        let strike = |faults: &mut Box<Faults>| faults.strike(message, is_delay);
        let Some(Fault::Delay(by)) = state.faults.as_mut().and_then(strike) else { return false };
        batch.runs.pop();
        let id = last.lease(state.broker.epoch(), 0);
        let (broker, mut reader) = self.reader(state);
        broker.hold_back(id, reading.deadline(by), &mut reader);
        self.reschedule(state);
        true
    }

    /// What an answer comes to if a fault strikes; `None` lets it pass. Only answers that would
    /// take effect are struck.
    #[cold]
    pub(super) fn fault_of(
        &self,
        state: &mut State,
        lease: LeaseId,
        how: Settle,
    ) -> Option<Settled> {
        let foreseen = match how {
            Settle::Ack => {
                let (broker, mut reader) = self.reader(state);
                broker.foresee_ack(lease, &mut reader)
            }
            Settle::Deadline(_) if state.broker.may_extend(lease) => Settled::Done,
            Settle::Deadline(_) | Settle::Nack | Settle::NackAfter(_) => return None,
        };
        if !matches!(foreseen, Settled::Done | Settled::Provisional)
            || !state.faults.as_ref().is_some_and(|faults| faults.concerns_answers())
        {
            return None;
        }
        let is_strict = state.broker.is_strict(lease);
        let message = self.message_id(state, lease.index);
        let fits = |fault| match (how, fault) {
            (_, Fault::FailAnswer) | (Settle::Ack, Fault::LoseAck) => true,
            // An ack that succeeds is for good there (EOD-1).
            (Settle::Ack, Fault::Duplicate) => !is_strict,
            _ => false,
        };
        let strike = |faults: &mut Box<Faults>| faults.strike(message, fits);
        match state.faults.as_mut().and_then(strike)? {
            Fault::FailAnswer => Some(Settled::Transient),
            Fault::LoseAck if is_strict => Some(Settled::Transient),
            Fault::LoseAck => Some(foreseen),
            Fault::Duplicate => {
                let (broker, mut reader) = self.reader(state);
                broker.deliver_again(lease, &mut reader);
                Some(foreseen)
            }
            Fault::Delay(_) => None,
        }
    }

    fn message_id(&self, state: &mut State, index: u64) -> Option<MessageId> {
        let (_, mut reader) = self.reader(state);
        reader.published(index).map(|(_, published)| published.id)
    }
}
