//! Publishing at a later time: a message waits at its topic and enters the log when it is due
//! (L10).
//!
//! It is charged to the budget meanwhile. What is due is published whatever the limits say: it was
//! accepted before. Times and recipients are those of the moment when it is due.

use std::sync::Weak;

use super::admission::{Gate, Load};
use super::deduplication::Given;
use super::{Matches, Messages, One, TopicShared, TopicState};
use crate::broker::deduplication::charge_of;
use crate::clock::Reading;
use crate::error::PublishReason;
use crate::message::{Message, MessageId};
use crate::shell::effects::Effects;
use crate::shell::timers::{Key, Rank, Timed};
use crate::sync::Arc;
use crate::time::{Span, Time};

/// Publishes what is due on its topic.
pub(crate) struct Due(pub(super) Weak<TopicShared>);

impl Timed for Due {
    fn fire(self: Arc<Self>, reading: Reading) {
        if let Some(topic) = self.0.upgrade() {
            topic.lock().due_timer = None;
            topic.publish_due(reading);
        }
    }
}

impl TopicShared {
    /// Takes a message that is to be published at `due`, if there is room for it.
    pub(crate) fn publish_later(
        &self,
        message: Message,
        load: Load,
        due: Time,
        gate: Gate,
        reading: Reading,
    ) -> Result<Given, (PublishReason, Message)> {
        let mut effects = Effects::default();
        let mut state = self.lock();
        if state.deleted {
            drop(state);
            return Err((self.gone(), message));
        }
        if let Some(code) = state.faults.as_mut().and_then(|faults| faults.strike()) {
            drop(state);
            return Err((self.fault(code), message));
        }
        let checked = self.check_delay(&state, due, reading);
        let known = checked.and_then(|()| self.known_before(&mut state, &message, reading));
        if let Ok(Some(id)) = known {
            drop(state);
            return Ok(Given::duplicate(id));
        }
        let mut load = load;
        if state.deduplication.is_some() && load.has_keys {
            load.charge += charge_of(message.idempotency_key());
        }
        if let Err(reason) = known.and_then(|_| self.admit_later(&state, load, gate)) {
            drop(state);
            return Err((reason, message));
        }
        let id = MessageId::from_u64(self.core.take_ids(1));
        self.remember(&mut state, &message, id, reading);
        state.delayed.insert(id, due.min(Time::LAST), message);
        self.schedule_due(&mut state);
        self.settle_account(&mut state, &mut effects);
        drop(state);
        effects.run();
        Ok(Given { id, recipients: None, is_duplicate: false })
    }

    /// A message waits at most as long as the topic would keep it afterwards (LIB-376).
    fn check_delay(
        &self,
        state: &TopicState,
        due: Time,
        reading: Reading,
    ) -> Result<(), PublishReason> {
        let longest = *self.core.limits.topic_retention.end();
        let retention = state.config.retention.unwrap_or(longest);
        match due > reading.deadline(Span::round_up(retention)) {
            true => {
                let delay = reading.now.until(due);
                Err(PublishReason::DelayBeyondRetention { delay, retention })
            }
            false => Ok(()),
        }
    }

    /// Publishes what is due by now, in the order in which it is.
    fn publish_due(&self, reading: Reading) {
        loop {
            let mut state = self.lock();
            let Some((due, id, message)) = state.delayed.take_due(reading.now) else {
                return self.schedule_due(&mut state);
            };
            let mut message = One::new(message);
            // Under the lock, so that what is due keeps its order whoever publishes it.
            let mut matches = Matches::none();
            self.matching(message.as_slice(), &mut matches);
            let (load, gate) = (Load::of(message.as_slice()), Gate::Accepted);
            let admitted =
                self.admit(&mut state, load, message.as_slice(), &matches, gate, reading);
            let place = |state: &mut TopicState, head| {
                // What nobody takes is not in the log.
                if state.log.head() > head {
                    state.late.insert(head, id);
                }
            };
            let first = id.as_u64();
            let (overflowing, ttl) = (admitted.unwrap_or_default(), load.least_ttl);
            let at = Reading::at(due);
            self.append(state, &mut message, first, &mut matches, ttl, at, overflowing, place);
        }
    }

    /// Takes back a message that waits.
    pub(crate) fn withdraw(&self, id: MessageId) -> Option<Message> {
        let mut effects = Effects::default();
        let mut state = self.lock();
        let message = state.delayed.take(id);
        if let Some((known, message)) = state.deduplication.as_mut().zip(message.as_ref()) {
            known.remove(message.idempotency_key(), id);
        }
        state.ledger.withdrawn += u64::from(message.is_some());
        self.schedule_due(&mut state);
        self.settle_account(&mut state, &mut effects);
        drop(state);
        effects.run();
        message
    }

    /// The topic goes, and what waits with it: to be dropped once the lock is released.
    pub(super) fn withdraw_all(&self, state: &mut TopicState) -> impl Sized + use<> {
        let delayed = std::mem::take(&mut state.delayed);
        state.ledger.withdrawn += delayed.len();
        self.schedule_due(state);
        delayed
    }

    /// Makes sure that the first message that waits is published when it is due.
    fn schedule_due(&self, state: &mut TopicState) {
        let due = state.delayed.next_due();
        let old = state.due_timer;
        if due == Time::NEVER {
            if let Some(key) = state.due_timer.take() {
                self.core.timers.cancel(key);
            }
        } else if old.is_none_or(|key| key.due != due) {
            let key = Key { due, rank: Rank::Publish, id: self.id };
            state.due_timer = Some(key);
            let object: Weak<Due> = Arc::downgrade(&self.due);
            // Whoever published it waits for it.
            let need = self.core.timers.schedule(old, key, object, true);
            self.core.satisfy(need);
        }
    }
}
