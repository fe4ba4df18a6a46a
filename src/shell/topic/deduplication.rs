//! Publishing a message once, however often it is handed in (LIB-381).
//!
//! Decided under the topic's lock before ids are given, so that of two publishers with one key
//! exactly one publishes. A duplicate is answered with the id of the first; it is stored nowhere
//! and needs no room.

use super::admission::{Gate, Load};
use super::{Appended, Matches, Messages, Recipients, TopicShared, TopicState};
use crate::broker::deduplication::{Deduplication, charge_of};
use crate::broker::subscription::MAX_WORK;
use crate::clock::Reading;
use crate::error::PublishReason;
use crate::message::{Message, MessageId};
use crate::sync::MutexGuard;
use crate::time::{Span, Time};

/// What became of one message of a publish.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) id: MessageId,
    /// Unknown of a message that is to be published later.
    pub(crate) recipients: Option<usize>,
    pub(crate) is_duplicate: bool,
}

impl Given {
    pub(super) fn duplicate(id: MessageId) -> Self {
        Self { id, recipients: Some(0), is_duplicate: true }
    }
}

/// What is to be done with one message of a publish.
enum Fate {
    /// It was published before.
    Known(MessageId),
    /// It is published, as which of those that are.
    New(usize),
    /// It is the same as an earlier one of this publish.
    Same(usize),
}

impl TopicShared {
    /// As `publish_gated`, of messages some of which have a key, where the topic asks for it.
    #[cold]
    pub(super) fn publish_once<M: Messages>(
        &self,
        mut state: MutexGuard<'_, TopicState>,
        messages: M,
        gate: Gate,
        reading: Reading,
    ) -> Result<Appended, (PublishReason, M)> {
        let (fates, fresh) = state.sort_out(messages.as_slice(), reading.now);
        let count = (fates.len() - fresh.len()) as u64;
        if fresh.is_empty() {
            state.count_duplicates(count);
            drop(state);
            return Ok(answer(&fates, None));
        }
        let mut matches = Matches::none();
        self.matching(&fresh, &mut matches);
        let mut load = Load::of(&fresh);
        let keys: Vec<&str> = keys(&fresh).collect();
        load.charge += keys.iter().map(|key| charge_of(key)).sum::<u64>();
        let room = self.check_keys(&state, keys.len());
        let admitted =
            room.and_then(|()| self.admit(&mut state, load, &fresh, &matches, gate, reading));
        let overflowing = match admitted {
            Ok(overflowing) => overflowing,
            Err(reason) => {
                drop(state);
                drop(fresh);
                return Err((reason, messages));
            }
        };
        let first = self.core.take_ids(fresh.len() as u64);
        state.count_duplicates(count);
        for (message, id) in fresh.iter().zip(first..) {
            self.remember(&mut state, message, MessageId::from_u64(id), reading);
        }
        let (mut fresh, ttl) = (fresh.into_iter(), load.least_ttl);
        let nothing = |_: &mut TopicState, _| {};
        let appended =
            self.append(state, &mut fresh, first, &mut matches, ttl, reading, overflowing, nothing);
        // Whatever is dropped of them is, with no lock held.
        drop(messages);
        Ok(if count == 0 { appended } else { answer(&fates, Some(appended)) })
    }

    /// The same question for a message that is to be published later.
    pub(super) fn known_before(
        &self,
        state: &mut TopicState,
        message: &Message,
        reading: Reading,
    ) -> Result<Option<MessageId>, PublishReason> {
        let key = message.idempotency_key();
        let Some(known) = state.deduplication.as_mut().filter(|_| !key.is_empty()) else {
            return Ok(None);
        };
        known.forget_old(reading.now, MAX_WORK);
        match known.find(key, reading.now) {
            Some(id) => {
                known.count_duplicates(1);
                Ok(Some(id))
            }
            None => self.check_keys(state, 1).map(|()| None),
        }
    }

    /// A message is about to be published, or to wait for that.
    pub(super) fn remember(
        &self,
        state: &mut TopicState,
        message: &Message,
        id: MessageId,
        reading: Reading,
    ) {
        let key = message.idempotency_key();
        let Some(known) = state.deduplication.as_mut().filter(|_| !key.is_empty()) else { return };
        known.insert(key, id, reading.now);
        if let Some(due) = known.next_due() {
            self.sweep_at(state, due);
        }
    }

    fn check_keys(&self, state: &TopicState, more: usize) -> Result<(), PublishReason> {
        let max = self.core.limits.deduplication_keys;
        let known = state.deduplication.as_ref().map_or(0, |known| known.len());
        match known + more > max {
            true => {
                let topic = self.name.to_string();
                Err(PublishReason::DeduplicationFull { topic, max })
            }
            false => Ok(()),
        }
    }

    /// Forgets keys that have left the window, in rounds of bounded work (L6).
    pub(super) fn forget_keys(&self, reading: Reading) {
        let forget = |state: &mut TopicState| {
            let known = state.deduplication.as_mut();
            known.is_some_and(|known| known.forget_old(reading.now, MAX_WORK))
        };
        while forget(&mut self.lock()) {}
    }
}

impl TopicState {
    /// Takes over whether there is a window and how long it is; answers what is forgotten, to be
    /// dropped once the lock is released.
    pub(super) fn deduplicate(&mut self, window: Option<Span>, seed: u64) -> impl Sized + use<> {
        match (window, &mut self.deduplication) {
            (None, known) => return known.take(),
            (Some(window), Some(known)) => known.set_window(window),
            (Some(window), known @ None) => {
                *known = Some(Box::new(Deduplication::new(window, seed)));
            }
        }
        None
    }

    /// What each message is to become, and those that are to be published.
    fn sort_out(&mut self, messages: &[Message], now: Time) -> (Vec<Fate>, Vec<Message>) {
        let (mut fates, mut fresh) = (Vec::with_capacity(messages.len()), Vec::new());
        let mut here: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
        if let Some(known) = &mut self.deduplication {
            known.forget_old(now, MAX_WORK);
        }
        for message in messages {
            let key = message.idempotency_key();
            let known = self.deduplication.as_ref().filter(|_| !key.is_empty());
            if let Some(id) = known.and_then(|known| known.find(key, now)) {
                fates.push(Fate::Known(id));
                continue;
            }
            if let Some(nth) = here.get(key) {
                fates.push(Fate::Same(*nth));
                continue;
            }
            if !key.is_empty() {
                here.insert(key, fresh.len());
            }
            fates.push(Fate::New(fresh.len()));
            fresh.push(message.clone());
        }
        (fates, fresh)
    }

    fn count_duplicates(&mut self, count: u64) {
        if let Some(known) = &mut self.deduplication {
            known.count_duplicates(count);
        }
    }
}

fn keys(messages: &[Message]) -> impl Iterator<Item = &str> {
    messages.iter().map(Message::idempotency_key).filter(|key| !key.is_empty())
}

/// What the publisher is told, message by message.
fn answer(fates: &[Fate], appended: Option<Appended>) -> Appended {
    let first = appended.as_ref().map_or(0, |appended| appended.first.as_u64());
    let id = |nth: usize| MessageId::from_u64(first + nth as u64);
    let recipients = |nth: usize| match appended.as_ref().map(|appended| &appended.recipients) {
        Some(Recipients::Same(count)) => Some(*count),
        Some(Recipients::Each(counts)) => counts.get(nth).copied(),
        Some(Recipients::Given(_)) | None => None,
    };
    let given = fates.iter().map(|fate| match *fate {
        Fate::Known(known) => Given::duplicate(known),
        Fate::Same(nth) => Given::duplicate(id(nth)),
        Fate::New(nth) => Given { id: id(nth), recipients: recipients(nth), is_duplicate: false },
    });
    let each: Vec<Given> = given.collect();
    let first = each.first().map_or(id(0), |given| given.id);
    Appended { first, recipients: Recipients::Given(each) }
}
