//! Carrying messages that cannot be processed to their dead-letter topic (section 11, L7).
//!
//! The broker decides what is to go and keeps it in an outbox; here it is published and the broker
//! told what came of it. One drainer at a time, so that messages arrive in the order in which they
//! failed; it holds no lock while it publishes.

use std::time::Duration;

use super::{State, SubscriptionShared};
use crate::broker::subscription::MAX_WORK;
use crate::broker::subscription::failure::Outgoing;
use crate::clock::Reading;
use crate::config::SubscriptionConfig;
use crate::limits::MAX_ERROR_MESSAGE_BYTES;
use crate::message::{Message, Published};
use crate::shell::effects::Effects;
use crate::shell::topic::TopicShared;
use crate::sync::Arc;

/// Messages that are carried before the subscription is looked at again.
const BATCH: usize = 64;

/// How many times the message was delivered before it was forwarded, in decimal (DLQ-6).
pub const DEAD_LETTER_SOURCE_DELIVERY_COUNT: &str = "CloudPubSubDeadLetterSourceDeliveryCount";
/// The id of the subscription that forwarded the message (DLQ-6).
pub const DEAD_LETTER_SOURCE_SUBSCRIPTION: &str = "CloudPubSubDeadLetterSourceSubscription";
/// The project of that subscription; empty if its name has none (DLQ-6).
pub const DEAD_LETTER_SOURCE_SUBSCRIPTION_PROJECT: &str =
    "CloudPubSubDeadLetterSourceSubscriptionProject";
/// When the message was first published, in the form of RFC 3339 (DLQ-6).
pub const DEAD_LETTER_SOURCE_TOPIC_PUBLISH_TIME: &str =
    "CloudPubSubDeadLetterSourceTopicPublishTime";
/// Why the message was rejected; absent if nobody said (DLQ-6, LIB-102).
pub const DEAD_LETTER_SOURCE_DELIVERY_ERROR_MESSAGE: &str =
    "CloudPubSubDeadLetterSourceDeliveryErrorMessage";

const ADDED: [&str; 5] = [
    DEAD_LETTER_SOURCE_DELIVERY_COUNT,
    DEAD_LETTER_SOURCE_SUBSCRIPTION,
    DEAD_LETTER_SOURCE_SUBSCRIPTION_PROJECT,
    DEAD_LETTER_SOURCE_TOPIC_PUBLISH_TIME,
    DEAD_LETTER_SOURCE_DELIVERY_ERROR_MESSAGE,
];

/// A message taken out of the outbox.
struct Parcel {
    outgoing: Outgoing,
    position: u64,
    published: Published,
}

enum Sent {
    Taken,
    /// It has been to that topic too often.
    InCircles,
    NoTopic,
    /// Not yet: the budget is overdrawn.
    Held,
}

impl SubscriptionShared {
    /// Carries everything in the outbox to the dead-letter topic, unless somebody does already.
    pub(super) fn forward(&self) {
        let Some(drainer) = Drainer::start(self) else { return };
        while let Some((parcels, topic)) = drainer.next() {
            let target = topic.and_then(|name| self.core.find_topic(&name));
            let sent: Vec<(Outgoing, Sent)> = parcels
                .into_iter()
                .map(|parcel| {
                    let sent = match self.core.budget.is_overdrawn() {
                        true => Sent::Held,
                        false => self.send(&parcel, target.as_ref()),
                    };
                    (parcel.outgoing, sent)
                })
                .collect();
            self.settle_forwarded(&sent);
        }
    }

    fn send(&self, parcel: &Parcel, target: Option<&Arc<TopicShared>>) -> Sent {
        let Some(target) = target else { return Sent::NoTopic };
        let path = self.topic.path_of(parcel.position);
        let Some(path) = path.extended(self.topic.id(), target.id()) else {
            return Sent::InCircles;
        };
        let message = self.dressed(parcel);
        match target.publish_forwarded(message, path, Reading::at(self.core.latest())) {
            true => Sent::Taken,
            false => Sent::NoTopic,
        }
    }

    /// The message with the attributes of DLQ-6, which replace older ones (DLQ-7).
    fn dressed(&self, parcel: &Parcel) -> Message {
        let Parcel { outgoing, published, .. } = parcel;
        let (project, id) = project_and_id(&self.name);
        let count = outgoing.attempts.to_string();
        let time = published.time.to_rfc3339();
        let added = [&*count, id, project, &*time];
        let reason = outgoing.reason.as_deref().map(shortened);
        let added = ADDED.into_iter().zip(added.into_iter().chain(reason));
        let kept = published.message.attributes().iter().filter(|(key, _)| !ADDED.contains(key));
        // A dead letter is there to be looked at, whenever that is (LIB-372).
        published.message.clone().with_ttl(Duration::MAX).with_attributes(kept.chain(added))
    }

    fn settle_forwarded(&self, sent: &[(Outgoing, Sent)]) {
        let mut effects = Effects::default();
        let reading = Reading::at(self.core.latest());
        let mut state = self.lock();
        for (outgoing, sent) in sent {
            match sent {
                Sent::Taken => state.broker.forwarded(outgoing, true),
                Sent::InCircles => state.broker.forwarded(outgoing, false),
                Sent::NoTopic => {
                    let (broker, mut reader) = self.reader(&mut state);
                    broker.not_forwarded(outgoing, reading.now, &mut reader);
                }
                Sent::Held => {}
            }
        }
        let held = sent.iter().rev().filter(|(_, sent)| matches!(sent, Sent::Held));
        held.for_each(|(outgoing, _)| state.broker.take_back_outgoing(outgoing.clone()));
        self.tell_if_deliverable(&mut state, &mut effects);
        if state.ended.is_none() {
            self.reschedule(&mut state);
        }
        let mut after = self.leave(state, &mut effects);
        // This is the drainer: it looks again anyway.
        after.forward = false;
        self.finish(&mut effects, after);
    }

    /// There is room in the budget again.
    pub(crate) fn resume_forwarding(&self) {
        self.stop_pausing(&mut self.lock());
        self.forward();
    }

    pub(super) fn stop_pausing(&self, state: &mut State) {
        if std::mem::take(&mut state.is_paused) {
            let need = self.core.timers.observe_waiting(self.incarnation, false);
            self.core.satisfy(need);
        }
    }

    /// Leaves the outbox as it is until less is used (L7). Answers false if that is so by now.
    fn pause(&self, state: &mut State) -> bool {
        if !self.core.budget.pause(&self.me) {
            return false;
        }
        state.is_paused = true;
        // Whatever time brings may make room.
        let need = self.core.timers.observe_waiting(self.incarnation, true);
        self.core.satisfy(need);
        true
    }

    /// Brings what is stored in line with policies that have changed (RTY-9, DLQ-13).
    pub(super) fn apply_policies(&self, old: &SubscriptionConfig, new: &SubscriptionConfig) {
        let mut effects = Effects::default();
        if old.retry_policy.is_some() && new.retry_policy.is_none() {
            let mut next = Some(0);
            while let Some(from) = next {
                next = self.lock().broker.end_backoff(from, MAX_WORK);
            }
            self.tell_if_deliverable(&mut self.lock(), &mut effects);
        }
        if old.dead_letter_policy.is_none() && new.dead_letter_policy.is_some() {
            let mut next = Some(0);
            while let Some(from) = next {
                next = self.lock().broker.restart_attempts(from, MAX_WORK);
            }
        }
        effects.run();
    }
}

/// The right to empty the outbox of one subscription; given back also if a panic comes by.
struct Drainer<'a>(&'a SubscriptionShared);

impl<'a> Drainer<'a> {
    fn start(shared: &'a SubscriptionShared) -> Option<Self> {
        let mut state = shared.lock();
        if state.is_forwarding || state.is_paused || !state.broker.has_outgoing() {
            return None;
        }
        state.is_forwarding = true;
        Some(Self(shared))
    }

    /// As `take`, after what can be freed is, if far too much is used.
    fn next(&self) -> Option<(Vec<Parcel>, Option<String>)> {
        let core = &self.0.core;
        if core.budget.is_overdrawn() {
            core.press(Reading::at(core.latest()));
            core.yield_history(0);
        }
        self.take()
    }

    /// The next messages and the name of the topic to which they go; gives the right back, in the
    /// same section of the lock, if there are none, or they have to wait.
    fn take(&self) -> Option<(Vec<Parcel>, Option<String>)> {
        let shared = self.0;
        let mut effects = Effects::default();
        let mut state = shared.lock();
        let waits = shared.core.budget.is_overdrawn() && state.broker.has_outgoing();
        if waits && state.ended.is_none() && shared.pause(&mut state) {
            state.is_forwarding = false;
            return None;
        }
        let policy = state.config.dead_letter_policy.as_ref();
        let topic = policy.map(|policy| policy.dead_letter_topic.clone());
        let mut parcels = Vec::new();
        while parcels.len() < BATCH && state.ended.is_none() {
            let Some(outgoing) = state.broker.take_outgoing() else { break };
            let (broker, mut reader) = shared.reader(&mut state);
            match reader.published(outgoing.id.index) {
                Some((_, published)) if published.expires() <= shared.core.latest() => {
                    broker.expired_on_the_way(&outgoing);
                }
                Some((position, published)) => {
                    parcels.push(Parcel { outgoing, position, published });
                }
                // Gone from the log: there is nothing to carry.
                None => broker.forwarded(&outgoing, false),
            }
        }
        if parcels.is_empty() {
            state.is_forwarding = false;
        }
        let mut after = shared.leave(state, &mut effects);
        after.forward = false;
        shared.finish(&mut effects, after);
        (!parcels.is_empty()).then_some((parcels, topic))
    }
}

impl Drop for Drainer<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().is_forwarding = false;
        }
    }
}

/// `projects/{project}/subscriptions/{id}` in two; any other name is the id alone.
fn project_and_id(name: &str) -> (&str, &str) {
    let parts = name.strip_prefix("projects/").and_then(|rest| rest.split_once("/subscriptions/"));
    parts.unwrap_or(("", name))
}

/// The longest start of a text that fits into an attribute.
fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_ERROR_MESSAGE_BYTES)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(project_and_id("projects/p/subscriptions/s"), ("p", "s"), "DLQ-6");
        assert_eq!(project_and_id("billing"), ("", "billing"));
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let long = "ä".repeat(MAX_ERROR_MESSAGE_BYTES);
        assert_eq!(shortened(&long).len(), MAX_ERROR_MESSAGE_BYTES);
        assert_eq!(shortened(&long[..2]), "ä");
        let odd = format!("x{long}");
        assert_eq!(shortened(&odd).len(), MAX_ERROR_MESSAGE_BYTES - 1);
    }
}
