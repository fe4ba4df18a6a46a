//! A look at a subscription that changes nothing.

use super::SubscriptionShared;
use crate::broker::subscription::Backlog;
use crate::peek::{MessageState, Peeked};
use crate::time::Time;

impl SubscriptionShared {
    /// The oldest `max` messages of the backlog.
    pub(crate) fn peek(&self, max: usize) -> Vec<Peeked> {
        let reading = self.core.read();
        let Ok(mut state) = self.enter(reading) else { return Vec::new() };
        let head = self.head(&state);
        let live: Vec<_> = match state.broker.has_ttls() {
            // Some of them may be over.
            true => state.broker.words().collect(),
            false => state.broker.words().take(max).collect(),
        };
        let fresh = state.broker.cursor()..head;
        let places = live
            .into_iter()
            .filter_map(|(index, word)| {
                Some((index, word.attempts(), MessageState::of(word.phase())?))
            })
            .chain(fresh.map(|index| (index, 0, MessageState::Fresh)));
        let (_, mut reader) = self.reader(&mut state);
        let seen = places.filter_map(|(index, attempts, message)| {
            let position = reader.position(index)?;
            let published = reader.segment(position)?.at(position)?;
            let in_hand = matches!(message, MessageState::Outstanding | MessageState::Provisional);
            if published.expires() <= reading.now && !in_hand {
                return None;
            }
            Some(Peeked::new(published, attempts, message))
        });
        seen.take(max).collect()
    }

    /// When the oldest message of the backlog was published.
    pub(super) fn oldest(&self, state: &mut super::State) -> Option<Time> {
        let head = self.head(state);
        let oldest = state.broker.words().next().map(|(index, _)| index);
        let oldest = oldest.unwrap_or(state.broker.cursor());
        let (_, mut reader) = self.reader(state);
        (oldest < head).then(|| reader.meta(oldest)).flatten().map(|meta| meta.published)
    }
}
