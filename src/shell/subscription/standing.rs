//! Where one message stands on a subscription: looked up, nothing is changed.

use super::{State, SubscriptionShared};
use crate::broker::lease::{Phase, Word};
use crate::error::AdminError;
use crate::explain::{DeliveryExplanation, Standing};
use crate::message::{MessageId, Published};
use crate::shell::topic::explain::Found;

impl SubscriptionShared {
    /// Where the message with this id stands (LIB-206).
    pub(crate) fn explain_delivery(
        &self,
        id: MessageId,
    ) -> Result<DeliveryExplanation, AdminError> {
        let reading = self.core.read();
        drop(self.enter(reading).map_err(|end| self.admin_error(end))?);
        self.topic.with_message(id, |found| {
            let mut state = self.lock();
            if let Some(end) = state.ended {
                return Err(self.admin_error(end));
            }
            let mut publish_time = None;
            let (standing, attempts) = match found {
                Found::At(position, message) => {
                    publish_time = Some(message.time.to_system());
                    self.standing(&mut state, position, &message)
                }
                Found::Delayed(due) => (Standing::Scheduled { until: due.to_system() }, None),
                Found::Nowhere => match state.history.as_ref().and_then(|kept| kept.find(id)) {
                    // What was handed out here stays in the log until it is settled here.
                    Some(handed_out) => {
                        publish_time = Some(handed_out.published.to_system());
                        (Standing::Settled, Some(handed_out.attempt.into()))
                    }
                    None => (Standing::Gone, None),
                },
            };
            let subscription = self.name.to_string();
            Ok(DeliveryExplanation { subscription, id, standing, attempts, publish_time })
        })
    }

    /// Both locks are held, the topic's and this one.
    fn standing(
        &self,
        state: &mut State,
        position: u64,
        message: &Published,
    ) -> (Standing, Option<u32>) {
        if let Some(clause) = state.config.filter.explain(&message.message) {
            return (Standing::FilteredOut(clause), Some(0));
        }
        let Some(index) = self.index_of(state, position) else {
            let is_ahead = state.replay.as_ref().is_some_and(|replay| replay.is_ahead(position));
            return match position < state.start.head {
                _ if is_ahead => (Standing::Fresh, Some(0)),
                true => (Standing::Earlier, None),
                false => (Standing::Settled, None),
            };
        };
        let word = state.broker.word(index);
        let in_hand = |word: Word| matches!(word.phase(), Phase::Leased | Phase::Provisional);
        if message.expires() <= self.core.latest() && !word.is_some_and(in_hand) {
            return (Standing::Settled, word.map(|word| word.attempts().into()));
        }
        if index >= state.broker.cursor() {
            return (Standing::Fresh, Some(0));
        }
        match word {
            Some(word) => (standing_of(word), Some(word.attempts().into())),
            None => (Standing::Settled, None),
        }
    }

    /// The index of a message that has one now.
    fn index_of(&self, state: &mut State, position: u64) -> Option<u64> {
        let (low, head) = (state.broker.low(), self.head(state));
        let indices = state.broker.words().map(|(index, _)| index);
        let stragglers: Vec<u64> = indices.take_while(|index| *index < low).collect();
        let (_, reader) = self.reader(state);
        let (mut first, mut end) = (low, head);
        while first < end {
            let middle = first + (end - first) / 2;
            let is_below = reader.position(middle).is_some_and(|at| at < position);
            if is_below { first = middle + 1 } else { end = middle }
        }
        let in_line = (first < head).then_some(first);
        let mut candidates = in_line.into_iter().chain(stragglers);
        candidates.find(|index| reader.position(*index) == Some(position))
    }
}

fn standing_of(word: Word) -> Standing {
    let until = word.deadline().to_system();
    match word.phase() {
        Phase::Done => Standing::Settled,
        Phase::Leased => Standing::Leased { until },
        // Looked at for its ordering key, and not handed out yet.
        Phase::Ready if word.generation() == 0 => Standing::Fresh,
        Phase::Lapsed | Phase::Ready => Standing::Ready,
        Phase::Delayed | Phase::BackingOff | Phase::LapsedBackingOff => Standing::Delayed { until },
        Phase::Forwarding => Standing::Forwarding,
        Phase::Provisional => Standing::Provisional,
    }
}
