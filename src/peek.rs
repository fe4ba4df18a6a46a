//! Looking at messages without taking them.

use std::time::SystemTime;

use crate::broker::lease::Phase;
use crate::error::AdminError;
use crate::explain::DeliveryExplanation;
use crate::message::{Message, MessageId, Published};
use crate::subscription::Subscription;
use crate::topic::Topic;

/// Where a message that was looked at stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageState {
    /// Never handed out.
    Fresh,
    /// Handed out before, deliverable now.
    Ready,
    /// In somebody's hand.
    Outstanding,
    /// Deliverable later.
    Delayed,
    /// On its way to the dead-letter topic.
    Forwarding,
    /// Acknowledged, once earlier messages of its ordering key are.
    Provisional,
}

impl MessageState {
    /// `None` for what has left.
    pub(crate) fn of(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Done => None,
            Phase::Leased => Some(Self::Outstanding),
            Phase::Lapsed | Phase::Ready => Some(Self::Ready),
            Phase::Delayed | Phase::BackingOff | Phase::LapsedBackingOff => Some(Self::Delayed),
            Phase::Forwarding => Some(Self::Forwarding),
            Phase::Provisional => Some(Self::Provisional),
        }
    }
}

/// A message that was looked at, made by [`Subscription::peek`] and [`Topic::messages`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Peeked {
    /// The message as it was published; shares its payload with the bus.
    pub message: Message,
    /// Its id.
    pub id: MessageId,
    /// When it was published.
    pub publish_time: SystemTime,
    /// How often it was handed out on this subscription so far; 0 from a topic.
    pub attempts: u32,
    /// Where it stands on this subscription; [`MessageState::Fresh`] from a topic.
    pub state: MessageState,
}

impl Peeked {
    pub(crate) fn new(published: &Published, attempts: u16, state: MessageState) -> Self {
        Self {
            message: published.message.clone(),
            id: published.id,
            publish_time: published.time.to_system(),
            attempts: attempts.into(),
            state,
        }
    }
}

impl Subscription {
    /// The oldest `max` messages of the backlog, whatever their state, in publish order (LIB-50).
    /// Nothing is leased, no attempt is counted, and it is not activity. Empty once the
    /// subscription is gone.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, MessageState, SubscriptionConfig, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    /// topic.publish_many(["one", "two"]).await?;
    /// let held = billing.pull(1).await?;
    ///
    /// let seen = billing.peek(10);
    /// assert_eq!((seen[0].state, seen[0].attempts), (MessageState::Outstanding, 1));
    /// assert_eq!((seen[1].state, seen[1].attempts), (MessageState::Fresh, 0));
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn peek(&self, max: usize) -> Vec<Peeked> {
        self.shared().peek(max)
    }

    /// Where a message of the topic stands on this subscription (LIB-206).
    ///
    /// Exact while the message is in the topic's log, that is for as long as any subscription or
    /// rule of retention needs it; afterwards it is [`Standing::Gone`](crate::Standing::Gone), or
    /// [`Standing::Settled`](crate::Standing::Settled) with its attempts if the subscription keeps
    /// a [`history`](crate::SubscriptionConfig#structfield.history) that still has it (LIB-351).
    /// Nothing is leased, and it is not activity. Publishes wait while it looks; it takes a time
    /// logarithmic in the backlog and linear in the log's segments of up to 256 messages.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`], [`AdminError::Detached`] or [`AdminError::Closed`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Message, Standing, SubscriptionConfig, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    /// let id = topic.publish("one").await?.id();
    ///
    /// let explanation = billing.explain_delivery(id)?;
    /// assert_eq!(explanation.standing, Standing::Fresh);
    /// assert_eq!(explanation.to_string(), format!("billing: message {id} is deliverable"));
    ///
    /// billing.pull(1).await?.ack_all();
    /// assert_eq!(billing.explain_delivery(id)?.standing, Standing::Settled);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn explain_delivery(&self, id: MessageId) -> Result<DeliveryExplanation, AdminError> {
        self.shared().explain_delivery(id)
    }
}

impl Topic {
    /// The newest `max` messages that are in memory, whoever needs them, in publish order
    /// (LIB-50): what retention keeps, what a subscription has not settled, and what shares a
    /// segment with these.
    pub fn messages(&self, max: usize) -> Vec<Peeked> {
        self.shared().core.read();
        self.shared().newest(max)
    }
}
