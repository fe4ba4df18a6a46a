//! Messages into the log of a topic, and who is told.
//!
//! Whether there is room is judged in `admission.rs`, who of the filtered gets what in
//! `filtered.rs`; `lane.rs` is the short way.

use super::admission::{Gate, Load, Overflowing};
use super::deduplication::Given;
use super::{TopicShared, TopicState};
use crate::broker::hops::Path;
use crate::clock::Reading;
use crate::error::PublishReason;
use crate::message::{Message, MessageId, Published};
use crate::shell::effects::Effects;
use crate::shell::matcher::Matches;
use crate::shell::view::Awaited;
use crate::sync::MutexGuard;
use crate::time::{Span, Time};

/// Who got the messages of one publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recipients {
    /// Each message went to as many.
    Same(usize),
    Each(Vec<usize>),
    /// Some were duplicates: each message has its own answer.
    Given(Vec<Given>),
}

impl Recipients {
    /// Of `count` messages together.
    fn total(&self, count: usize) -> u64 {
        match self {
            Recipients::Same(each) => (*each as u64) * (count as u64),
            Recipients::Each(each) => each.iter().map(|&recipients| recipients as u64).sum(),
            Recipients::Given(each) => {
                each.iter().filter_map(|given| given.recipients).map(|count| count as u64).sum()
            }
        }
    }
}

/// What a publish answers, before it is dressed up.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) first: MessageId,
    pub(crate) recipients: Recipients,
}

impl TopicShared {
    /// Which filters match which of these messages; asked before they are published.
    #[inline]
    pub(crate) fn matching(&self, messages: &[Message], matches: &mut Matches) {
        if !self.matcher.is_empty() {
            self.look_up(messages, matches);
        }
    }

    #[inline(never)]
    pub(super) fn look_up(&self, messages: &[Message], matches: &mut Matches) {
        self.matcher.matching(messages, matches);
        messages.iter().for_each(|message| self.seen.notice(message));
    }

    /// Appends a message that a dead-letter policy sends here, without regard to limits (DLQ-7).
    /// Answers false if the topic is gone.
    pub(crate) fn publish_forwarded(&self, message: Message, path: Path, reading: Reading) -> bool {
        let place = |state: &mut TopicState, head| {
            // What nobody takes is not in the log.
            if state.log.head() > head {
                state.hops.insert(head, path);
            }
        };
        let mut message = One::new(message);
        let mut matches = Matches::none();
        self.matching(message.as_slice(), &mut matches);
        let mut state = self.lock();
        if state.deleted {
            return false;
        }
        let (load, gate) = (Load::of(message.as_slice()), Gate::Accepted);
        let admitted = self.admit(&mut state, load, message.as_slice(), &matches, gate, reading);
        let overflowing = admitted.unwrap_or_default();
        let (first, ttl) = (self.core.take_ids(1), load.least_ttl);
        self.append(state, &mut message, first, &mut matches, ttl, reading, overflowing, place);
        true
    }

    /// Appends messages if there is room for them, and gives them back if not.
    #[inline]
    pub(crate) fn publish_gated<M: Messages>(
        &self,
        messages: M,
        matches: &mut Matches,
        load: Load,
        gate: Gate,
        reading: Reading,
    ) -> Result<Appended, (PublishReason, M)> {
        self.publish_locked(self.lock(), messages, matches, load, gate, reading)
    }

    /// The same with the lock taken already.
    pub(super) fn publish_locked<M: Messages>(
        &self,
        mut state: MutexGuard<'_, TopicState>,
        mut messages: M,
        matches: &mut Matches,
        load: Load,
        gate: Gate,
        reading: Reading,
    ) -> Result<Appended, (PublishReason, M)> {
        if state.deleted {
            drop(state);
            return Err((self.gone(), messages));
        }
        if let Some(code) = state.faults.as_mut().and_then(|faults| faults.strike()) {
            drop(state);
            return Err((self.fault(code), messages));
        }
        if load.has_keys && state.deduplication.is_some() {
            return self.publish_once(state, messages, gate, reading);
        }
        let mut overflowing = Overflowing::new();
        if !self.is_open(&state, load, gate) {
            match self.admit(&mut state, load, messages.as_slice(), matches, gate, reading) {
                Ok(dropping) => overflowing = dropping,
                Err(reason) => {
                    drop(state);
                    return Err((reason, messages));
                }
            }
        }
        let first = self.core.take_ids(load.messages);
        let ttl = load.least_ttl;
        Ok(self.append(state, &mut messages, first, matches, ttl, reading, overflowing, |_, _| {}))
    }

    /// Messages get ids from `first` on. `placed` gets the head as it was before, under the lock.
    #[expect(clippy::too_many_arguments, reason = "what one publish is, taken apart for speed")]
    #[inline(always)]
    pub(super) fn append(
        &self,
        mut state: MutexGuard<'_, TopicState>,
        messages: &mut impl Messages,
        first: u64,
        matches: &mut Matches,
        least_ttl: Span,
        reading: Reading,
        overflowing: Overflowing,
        placed: impl FnOnce(&mut TopicState, u64),
    ) -> Appended {
        let mut effects = Effects::default();
        let mut awaited = Awaited::new();
        let time = state.last_publish.max(reading.now);
        state.last_publish = time;
        let head = state.log.head();
        let count = messages.as_slice().len();
        let mut published = stamped(messages, first, time);
        let recipients = if !state.views.have_none(matches) {
            state.append_matching(count, published, matches, &self.matcher, &mut effects)
        } else if state.log.keeps_new() {
            state.log.append_all(count, &mut published);
            state.ledger.appended += count as u64;
            Recipients::Same(state.unfiltered)
        } else {
            // Nobody takes it and no rule keeps it (PUB-9).
            published.for_each(|message| effects.discard(message));
            state.ledger.unclaimed += count as u64;
            Recipients::Same(0)
        };
        state.ledger.published += count as u64;
        state.ledger.owed += recipients.total(count);
        placed(&mut state, head);
        self.apply_changes(&mut state, &mut effects);
        if least_ttl != Span::FOREVER {
            self.note_ttl(&mut state, time.after(least_ttl));
        }
        self.show_heads(&mut state, &mut awaited);
        self.schedule_sweep(&mut state, time);
        if count == 1 {
            self.open_lane(&mut state);
        }
        drop(state);
        if !awaited.is_empty() {
            tell(awaited, &mut effects);
        }
        effects.run();
        for subscription in overflowing {
            subscription.drop_oldest();
        }
        Appended { first: MessageId::from_u64(first), recipients }
    }

    /// Lets pullers see what was appended, and takes those who wait.
    #[inline]
    pub(super) fn show_heads(&self, state: &mut TopicState, awaited: &mut Awaited) {
        self.view.set_head(state.log.head());
        if self.view.is_awaited() {
            awaited.append(&mut self.view.take_waiting());
        }
        if state.views.touched.is_empty() {
            return;
        }
        for slot in std::mem::take(&mut state.views.touched) {
            let Some(filtered) = state.views.at_mut(slot) else { continue };
            filtered.touched = false;
            filtered.show();
            if filtered.view.is_awaited() {
                awaited.append(&mut filtered.view.take_waiting());
            }
        }
    }
}

/// Messages on their way into the log.
pub(crate) trait Messages: Iterator<Item = Message> {
    /// Those that were not taken yet.
    fn as_slice(&self) -> &[Message];
}

impl Messages for std::vec::IntoIter<Message> {
    #[inline]
    fn as_slice(&self) -> &[Message] {
        std::vec::IntoIter::as_slice(self)
    }
}

/// A single message.
pub(crate) struct One(Option<Message>);

impl One {
    #[inline]
    pub(crate) fn new(message: Message) -> Self {
        Self(Some(message))
    }
}

impl Iterator for One {
    type Item = Message;

    #[inline]
    fn next(&mut self) -> Option<Message> {
        self.0.take()
    }
}

impl Messages for One {
    #[inline]
    fn as_slice(&self) -> &[Message] {
        self.0.as_slice()
    }
}

/// Messages that get their ids and publish time as they are taken.
fn stamped(
    messages: &mut impl Iterator<Item = Message>,
    first: u64,
    time: Time,
) -> impl Iterator<Item = Published> {
    let mut next = first;
    messages.map(move |message| {
        let id = MessageId::from_u64(next);
        next += 1;
        Published { message, id, time }
    })
}

/// Has whoever waits on these subscriptions woken.
pub(super) fn tell(awaited: Awaited, effects: &mut Effects) {
    for listener in awaited {
        if let Some(subscription) = listener.upgrade() {
            subscription.messages_arrived(listener, effects);
        }
    }
}
