//! What is published: a message, and what the bus adds to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use crate::attributes::{Attributes, Riders};
use crate::time::{Span, Time};

/// A message as a publisher makes it: payload, attributes, and what else few of them have: an
/// ordering key, a time to live, an idempotency key.
///
/// Cheap to clone: clones share the payload and the attributes, and so do all subscriptions that
/// get the message.
///
/// ```
/// use siftbus::Message;
///
/// let message = Message::new("paid").with_attributes([("region", "eu"), ("kind", "order")]);
/// assert_eq!(message.data().as_ref(), b"paid");
/// assert_eq!(message.attribute("region"), Some("eu"));
/// ```
#[derive(Clone, Default)]
pub struct Message {
    data: Bytes,
    /// With everything inside that few messages have.
    attributes: Attributes,
}

impl Message {
    /// A message with a payload and nothing else.
    #[inline]
    pub fn new(data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }

    /// Adds an attribute, replacing a value under the same key.
    ///
    /// Several at once are cheaper with [`with_attributes`](Self::with_attributes).
    ///
    /// # Panics
    ///
    /// If all attributes together have 4 GiB or more.
    #[must_use]
    pub fn with_attribute(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.attributes = self.attributes.with(key.as_ref(), value.as_ref());
        self
    }

    /// Sets all attributes at once.
    ///
    /// # Panics
    ///
    /// If they have 4 GiB or more together.
    #[inline]
    #[must_use]
    pub fn with_attributes<K, V>(mut self, attributes: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let attributes: Attributes = attributes.into_iter().collect();
        if !self.attributes.is_unused() {
            self.attributes = attributes.with_riders(self.attributes.riders());
            return self;
        }
        Self { data: self.data, attributes }
    }

    /// Sets the ordering key; the empty key means none.
    #[must_use]
    pub fn with_ordering_key(mut self, key: impl AsRef<str>) -> Self {
        let ordering_key = key.as_ref();
        let riders = self.attributes.riders();
        self.attributes = self.attributes.with_riders(Riders { ordering_key, ..riders });
        self
    }

    /// Lets the message be handed out only within this time from its publish, rounded up to whole
    /// milliseconds (LIB-370). Default: as long as the subscription's retention lasts, which ends
    /// every message, whatever its time to live.
    ///
    /// A delivery in hand when the time is over can still be acknowledged; once it is given back
    /// or its lease ends, the message is gone. It is counted as expired.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Clock, ManualClock, Message, SubscriptionConfig, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    /// let quotes = bus.create_topic("quotes", TopicConfig::new()).await?;
    /// let trader = quotes.subscribe("trader", SubscriptionConfig::new()).await?;
    ///
    /// quotes.publish(Message::new("42.00").with_ttl(Duration::from_secs(5))).await?;
    /// clock.advance(Duration::from_secs(5));
    /// assert!(trader.try_pull(1)?.is_empty());
    /// assert_eq!(trader.stats().expired_messages, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        let ttl_ms = Some(Span::round_up(ttl).as_millis());
        let riders = self.attributes.riders();
        self.attributes = self.attributes.with_riders(Riders { ttl_ms, ..riders });
        self
    }

    /// Names the message for a topic with a deduplication window: of several publishes with one
    /// key within it only the first counts (LIB-381). At most 1,024 bytes; the empty key means
    /// none. Subscribers see it; it is no attribute. Default: none.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Message, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let bus = Bus::new();
    /// let config = TopicConfig::new().deduplication_window(Duration::from_secs(600));
    /// let payments = bus.create_topic("payments", config).await?;
    ///
    /// let payment = Message::new("42.00").with_idempotency_key("order 7");
    /// let first = payments.publish(payment.clone()).await?;
    /// let again = payments.publish(payment).await?;
    /// assert_eq!((again.id(), again.is_duplicate()), (first.id(), true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl AsRef<str>) -> Self {
        let idempotency_key = key.as_ref();
        let riders = self.attributes.riders();
        self.attributes = self.attributes.with_riders(Riders { idempotency_key, ..riders });
        self
    }

    /// The payload.
    #[inline]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// All attributes.
    #[inline]
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The value of one attribute.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key)
    }

    /// The ordering key; empty if there is none.
    #[inline]
    pub fn ordering_key(&self) -> &str {
        self.attributes.ordering_key()
    }

    /// How long after its publish the message may be handed out; `None` without a limit of its own.
    pub fn ttl(&self) -> Option<Duration> {
        self.attributes.riders().ttl_ms.map(Duration::from_millis)
    }

    /// The idempotency key; empty if there is none.
    #[inline]
    pub fn idempotency_key(&self) -> &str {
        self.attributes.riders().idempotency_key
    }

    /// `FOREVER` without a time to live.
    pub(crate) fn ttl_span(&self) -> Span {
        Span::from_millis(self.attributes.riders().ttl_ms.unwrap_or(u64::MAX))
    }

    /// Whether it has anything that hardly any message has: a time to live, say.
    #[inline]
    pub(crate) fn has_rare(&self) -> bool {
        self.attributes.has_rare()
    }

    /// The size that limits, flow control and statistics count: payload, attributes, ordering key
    /// and idempotency key, and 16 bytes for id and publish time (LIM-27).
    #[inline]
    pub fn size(&self) -> usize {
        const ID_AND_TIME: usize = 16;
        self.data.len() + self.attributes.packed_size() + ID_AND_TIME
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
            && self.attributes == other.attributes
            && self.attributes.riders() == other.attributes.riders()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Message");
        shown
            .field("data", &self.data)
            .field("attributes", &self.attributes)
            .field("ordering_key", &self.ordering_key());
        if let Some(ttl) = self.ttl() {
            shown.field("ttl", &ttl);
        }
        if !self.idempotency_key().is_empty() {
            shown.field("idempotency_key", &self.idempotency_key());
        }
        shown.finish()
    }
}

impl From<Bytes> for Message {
    fn from(data: Bytes) -> Self {
        Self::new(data)
    }
}

impl From<Vec<u8>> for Message {
    fn from(data: Vec<u8>) -> Self {
        Self::new(data)
    }
}

impl From<String> for Message {
    fn from(data: String) -> Self {
        Self::new(data)
    }
}

impl From<&'static str> for Message {
    fn from(data: &'static str) -> Self {
        Self::new(data)
    }
}

impl From<&'static [u8]> for Message {
    fn from(data: &'static [u8]) -> Self {
        Self::new(data)
    }
}

/// The id that the bus gives a message: unique for the life of the bus, growing in publish order
/// (PUB-4).
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct MessageId(u64);

impl MessageId {
    pub(crate) fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The id as a number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MessageId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A message with what the bus added, as it lies in the log.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) message: Message,
    pub(crate) id: MessageId,
    pub(crate) time: Time,
}

impl Published {
    /// From when on it is handed out to nobody any more; `NEVER` without a time to live.
    #[inline]
    pub(crate) fn expires(&self) -> Time {
        if !self.message.has_rare() {
            return Time::NEVER;
        }
        self.time.after(self.message.ttl_span())
    }

    /// The same in memory that nothing else shares, for one that stays when others go.
    pub(crate) fn compacted(&self) -> Self {
        let attributes = self.message.attributes.compacted();
        Self { message: Message { attributes, ..self.message.clone() }, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_the_log_takes_a_cache_line() {
        assert_eq!(size_of::<Published>(), 64);
    }

    #[test]
    fn size_counts_every_part() {
        let message = Message::new("data").with_attribute("k", "vw").with_ordering_key("key");
        assert_eq!(message.size(), 4 + 3 + 3 + 16);
    }

    #[test]
    fn an_empty_ordering_key_is_none() {
        assert_eq!(Message::new("x").with_ordering_key(""), Message::new("x"));
    }
}
