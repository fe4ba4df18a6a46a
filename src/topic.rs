//! A topic: where messages go in.

use tokio::task::coop::consume_budget;

use crate::attributes::{RESERVED_KEY_PREFIX, TRACE_KEY_PREFIX};
use crate::config::{SubscriptionConfig, TopicConfig, TopicUpdate};
use crate::error::{AdminError, MessageProblem, PublishError, PublishReason};
use crate::events::Event;
use crate::explain::{Explanation, FilterLint, FilterStats, SubscriptionExplanation};
use crate::filter::Filter;
use crate::limits::Limits;
use crate::message::{Message, MessageId};
use crate::shell::topic::admission::{Gate, Load};
use crate::shell::topic::deduplication::Given;
use crate::shell::topic::{Appended, Recipients, TopicShared};
use crate::stats::{Sum, TopicStats};
use crate::subscription::Subscription;
use crate::sync::Arc;

/// A handle on a topic.
///
/// Cheap to clone. Bound to one incarnation: after the topic is deleted, its handles answer
/// `NotFound`, also if a new topic takes the name (RES-12).
#[derive(Clone, Debug)]
pub struct Topic {
    shared: Arc<TopicShared>,
}

impl Topic {
    pub(crate) fn new(shared: Arc<TopicShared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<TopicShared> {
        &self.shared
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The configuration in force.
    pub fn config(&self) -> TopicConfig {
        self.shared.config()
    }

    /// Publishes a message to every subscription that is attached now and whose filter matches
    /// (PUB-7).
    ///
    /// Without a subscription that takes it the message is gone, unless the topic has retention
    /// (PUB-9).
    ///
    /// # Errors
    ///
    /// [`PublishReason`] says why; the message comes back.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready has published nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Message, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let receipt = topic.publish(Message::new("paid").with_attribute("region", "eu")).await?;
    /// assert_eq!(receipt.recipients(), Some(0), "nobody has subscribed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn publish(&self, message: impl Into<Message>) -> Result<Receipt, PublishError> {
        consume_budget().await;
        let mut message = message.into();
        match self.publish_at_once(&mut message, Gate::Queue(None)) {
            Err(error) if error.is_for_room() => {
                let appended = self.wait_to_publish(error.into_messages()).await?;
                Ok(Receipt::of(&appended))
            }
            done => done,
        }
    }

    /// Publishes several messages at once, all or none (PUB-2). They get one publish time and
    /// consecutive ids (PUB-3, PUB-6), and cost far less than one by one.
    ///
    /// # Errors
    ///
    /// [`PublishReason`] says why; all messages come back.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready has published nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let receipts = topic.publish_many(["one", "two"]).await?;
    /// assert_eq!(receipts.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn publish_many(
        &self,
        messages: impl IntoIterator<Item = impl Into<Message>>,
    ) -> Result<Receipts, PublishError> {
        consume_budget().await;
        let messages = messages.into_iter().map(Into::into).collect();
        match self.publish_many_at_once(messages, Gate::Queue(None)) {
            Err(error) if error.is_for_room() => {
                let messages = error.into_messages();
                let len = messages.len();
                Ok(Receipts::of(self.wait_to_publish(messages).await?, len))
            }
            done => done,
        }
    }

    /// [`publish`](Self::publish) without waiting.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn try_publish(&self, message: impl Into<Message>) -> Result<Receipt, PublishError> {
        match self.publish_at_once(&mut message.into(), Gate::Queue(None)) {
            Err(error) if self.make_room(&error) => {
                let messages = error.into_messages();
                let receipts = self.publish_many_at_once(messages, Gate::Queue(None))?;
                Ok(receipts.first())
            }
            done => done,
        }
    }

    /// [`publish_many`](Self::publish_many) without waiting.
    ///
    /// # Errors
    ///
    /// As [`publish_many`](Self::publish_many).
    pub fn try_publish_many(
        &self,
        messages: impl IntoIterator<Item = impl Into<Message>>,
    ) -> Result<Receipts, PublishError> {
        let messages = messages.into_iter().map(Into::into).collect();
        match self.publish_many_at_once(messages, Gate::Queue(None)) {
            Err(error) if self.make_room(&error) => {
                self.publish_many_at_once(error.into_messages(), Gate::Queue(None))
            }
            done => done,
        }
    }

    /// Creates a subscription on this topic. It gets what is published from now on (PUB-8).
    ///
    /// # Errors
    ///
    /// As [`Bus::create_subscription`](crate::Bus::create_subscription).
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll: a future that was never polled has created nothing.
    pub async fn subscribe(
        &self,
        name: &str,
        config: SubscriptionConfig,
    ) -> Result<Subscription, AdminError> {
        let created = self.shared.core.create_subscription(name, &self.shared, config);
        created.map(Subscription::new)
    }

    /// The subscriptions attached to this topic, sorted by name.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.shared.core.read();
        let mut attached = match self.shared.is_deleted() {
            true => Vec::new(),
            false => self.shared.subscriptions(),
        };
        attached.sort_by(|a, b| a.name.cmp(&b.name));
        attached.into_iter().map(Subscription::new).collect()
    }

    /// Changes the configuration; answers the new one.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`], [`AdminError::Config`], [`AdminError::Closed`]; nothing is
    /// changed then.
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn update(&self, update: TopicUpdate) -> Result<TopicConfig, AdminError> {
        let core = &self.shared.core;
        core.check_open()?;
        let config = self.shared.update(&update, core.read())?;
        core.events.send(Event::TopicUpdated { topic: self.name().to_owned() });
        Ok(config)
    }

    /// Deletes the topic. Its subscriptions keep their backlog and name [`DELETED_TOPIC`] as their
    /// topic from then on (RES-11).
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`] if it was deleted before (RES-8), [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn delete(&self) -> Result<(), AdminError> {
        let core = &self.shared.core;
        core.check_open()?;
        core.read();
        core.delete_topic(&self.shared)
    }

    /// For each subscription whether it would get a message published now and, if not, which
    /// clause of its filter is false (LIB-204). Publishes nothing.
    pub fn explain(&self, message: &Message) -> Explanation {
        let explained = self.subscriptions().into_iter().map(|subscription| {
            let failed = subscription.config().filter.explain(message);
            SubscriptionExplanation { subscription: subscription.name().to_owned(), failed }
        });
        Explanation { subscriptions: explained.collect() }
    }

    /// The subscriptions that would get a message published now, sorted by name: the cheap form of
    /// [`explain`](Self::explain), which asks the index (LIB-204).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Filter, Message, SubscriptionConfig, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let european = SubscriptionConfig::new().filter(Filter::eq("region", "eu"));
    /// topic.subscribe("european", european).await?;
    /// let would = topic.would_match(&Message::new("x").with_attribute("region", "eu"));
    /// assert_eq!(would.first().map(|subscription| subscription.name()), Some("european"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn would_match(&self, message: &Message) -> Vec<Subscription> {
        self.shared.core.read();
        let mut takers = self.shared.would_take(message);
        takers.sort_by(|a, b| a.name.cmp(&b.name));
        takers.into_iter().map(Subscription::new).collect()
    }

    /// What about a filter is probably not meant on this topic: what [`Filter::lint`] says, and
    /// keys that no message has had since the topic has filters (LIB-205).
    pub fn lint(&self, filter: &Filter) -> Vec<FilterLint> {
        self.shared.lint(filter)
    }

    /// The filters of this topic by what they cost. Looks at every filter.
    pub fn filter_stats(&self) -> FilterStats {
        self.shared.core.read();
        self.shared.filter_stats()
    }

    /// What the topic holds.
    pub fn stats(&self) -> TopicStats {
        self.shared.core.read();
        let mut stats = self.shared.stats();
        let subscriptions = self.shared.subscriptions();
        stats.sum = Sum::of(subscriptions.iter().map(|subscription| subscription.stats()));
        if stats.publishers_waiting > 0 {
            stats.waiting_for = self.shared.blocker().map(|name| name.to_string());
        }
        stats
    }
}

/// What a subscription names as its topic after the topic was deleted (RES-11).
pub const DELETED_TOPIC: &str = "_deleted-topic_";

/// What became of a published message (D12).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    id: MessageId,
    recipients: Option<usize>,
    is_duplicate: bool,
}

impl Receipt {
    pub(crate) fn of(appended: &Appended) -> Self {
        Self::nth(&appended.recipients, 0, appended.first)
    }

    /// Of one of several messages; `id` counts if they are consecutive.
    fn nth(recipients: &Recipients, nth: usize, id: MessageId) -> Self {
        let recipients = match recipients {
            Recipients::Same(count) => Some(*count),
            Recipients::Each(counts) => counts.get(nth).copied(),
            Recipients::Given(each) => match each.get(nth) {
                Some(given) => return Self::given(*given),
                None => None,
            },
        };
        Self { id, recipients, is_duplicate: false }
    }

    pub(crate) fn given(given: Given) -> Self {
        let Given { id, recipients, is_duplicate } = given;
        Self { id, recipients, is_duplicate }
    }

    /// The id that the bus gave the message; of a duplicate, that of the first with its key.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// How many subscriptions took the message; `None` of a message that is to be published later.
    pub fn recipients(&self) -> Option<usize> {
        self.recipients
    }

    /// Whether nothing was published, because a message with the same idempotency key had been
    /// within the topic's deduplication window (LIB-381).
    pub fn is_duplicate(&self) -> bool {
        self.is_duplicate
    }
}

/// What became of several messages, in the order in which they were handed over (PUB-3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    first: MessageId,
    len: usize,
    recipients: Recipients,
}

impl Receipts {
    pub(crate) fn of(appended: Appended, len: usize) -> Self {
        Self { first: appended.first, len, recipients: appended.recipients }
    }

    /// Of a publish of one.
    fn first(self) -> Receipt {
        Receipt::of(&Appended { first: self.first, recipients: self.recipients })
    }

    /// How many messages were handed over.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none was; a publish of nothing is an error, so this is never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ids of the messages.
    pub fn ids(&self) -> impl Iterator<Item = MessageId> + use<> {
        let first = self.first.as_u64();
        let each = match &self.recipients {
            Recipients::Given(each) => each.iter().map(|given| given.id).collect(),
            Recipients::Same(_) | Recipients::Each(_) => Vec::new(),
        };
        (first..)
            .zip(0..self.len)
            .map(move |(id, nth)| each.get(nth).copied().unwrap_or(MessageId::from_u64(id)))
    }

    /// A receipt for each message.
    pub fn iter(&self) -> impl Iterator<Item = Receipt> {
        self.ids().enumerate().map(|(nth, id)| Receipt::nth(&self.recipients, nth, id))
    }
}

/// Checks the messages of one publish; answers what they bring (LIM-2 … LIM-8, PUB-1, PUB-11).
#[inline]
pub(crate) fn check(messages: &[Message], limits: &Limits) -> Result<Load, PublishReason> {
    if !limits.publish_messages.contains(&messages.len()) {
        return Err(PublishReason::MessageCount {
            count: messages.len(),
            min: *limits.publish_messages.start(),
            max: *limits.publish_messages.end(),
        });
    }
    let mut load = Load::new(messages.len(), 0);
    let plain = messages.iter().take_while(|message| has_only_data(message, limits));
    let (count, mut size) = plain.fold((0, 0), |(n, size), m| (n + 1, size + m.size() as u64));
    for (index, message) in messages.iter().enumerate().skip(count) {
        size += message.size() as u64;
        let looked = check_message(message, limits)
            .map_err(|problem| PublishReason::Message { index, problem })?;
        if looked {
            load.note(message);
        }
    }
    if size > limits.publish_bytes as u64 {
        let (size, max) = (usize::try_from(size).unwrap_or(usize::MAX), limits.publish_bytes);
        return Err(PublishReason::RequestTooLarge { size, max });
    }
    if !limits.mixed_ordering_keys {
        let first = messages.first().map(Message::ordering_key).unwrap_or_default();
        if let Some(other) = messages.iter().find(|message| message.ordering_key() != first) {
            let (first, other) = (first.to_owned(), other.ordering_key().to_owned());
            return Err(PublishReason::MixedOrderingKeys { first, other });
        }
    }
    Ok(load.with_bytes(size))
}

/// Whether a message has only a payload, as most have, and one that may be published.
#[inline]
pub(crate) fn is_plain(message: &Message, limits: &Limits) -> bool {
    has_only_data(message, limits)
        && message.size() <= limits.publish_bytes
        && limits.publish_messages.contains(&1)
}

#[inline]
fn has_only_data(message: &Message, limits: &Limits) -> bool {
    let bytes = message.data().len();
    message.attributes().is_unused() && bytes > 0 && bytes <= limits.message_bytes
}

/// Answers whether it had to be looked at closely.
#[inline]
fn check_message(message: &Message, limits: &Limits) -> Result<bool, MessageProblem> {
    let attributes = message.attributes();
    if !limits.empty_messages && message.data().is_empty() && attributes.is_empty() {
        return Err(MessageProblem::Empty);
    }
    let (size, max) = (message.data().len(), limits.message_bytes);
    if size > max {
        return Err(MessageProblem::DataTooLarge { size, max });
    }
    if attributes.is_unused() || (!attributes.is_odd() && limits.allow_even(attributes.len())) {
        return Ok(false);
    }
    check_closely(message, limits).map(|()| true)
}

fn check_closely(message: &Message, limits: &Limits) -> Result<(), MessageProblem> {
    let attributes = message.attributes();
    let (len, max) = (message.ordering_key().len(), limits.ordering_key_bytes);
    if len > max {
        return Err(MessageProblem::OrderingKeyTooLong { len, max });
    }
    let (count, max) = (attributes.len(), limits.attributes);
    if count > max {
        return Err(MessageProblem::TooManyAttributes { count, max });
    }
    for (key, value) in attributes.pairs() {
        let max = limits.attribute_key_bytes;
        let reserved = key.starts_with(RESERVED_KEY_PREFIX.as_bytes())
            && !key.starts_with(TRACE_KEY_PREFIX.as_bytes());
        let shown = || String::from_utf8_lossy(key).into_owned();
        if key.is_empty() || key.len() > max || reserved {
            return Err(MessageProblem::AttributeKey { key: shown(), max });
        }
        let (len, max) = (value.len(), limits.attribute_value_bytes);
        if len > max {
            return Err(MessageProblem::AttributeValueTooLong { key: shown(), len, max });
        }
    }
    let (len, max) = (message.idempotency_key().len(), limits.idempotency_key_bytes);
    if len > max {
        return Err(MessageProblem::IdempotencyKeyTooLong { len, max });
    }
    let allowed = &limits.message_ttl;
    if let Some(ttl) = message.ttl().filter(|ttl| !allowed.contains(ttl)) {
        let (min, max) = (*allowed.start(), *allowed.end());
        return Err(MessageProblem::TtlOutOfRange { ttl, min, max });
    }
    Ok(())
}
