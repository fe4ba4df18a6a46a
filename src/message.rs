//! What is published: a message, and what the bus adds to it.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::attributes::Attributes;
use crate::time::Time;

/// A message as a publisher makes it: payload, attributes, an optional ordering key.
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
    /// With the ordering key inside.
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
            self.attributes = attributes.with_ordering_key(self.ordering_key());
            return self;
        }
        Self { data: self.data, attributes }
    }

    /// Sets the ordering key; the empty key means none.
    #[must_use]
    pub fn with_ordering_key(mut self, key: impl AsRef<str>) -> Self {
        self.attributes = self.attributes.with_ordering_key(key.as_ref());
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

    /// The size that limits, flow control and statistics count: payload, attributes and ordering
    /// key, and 16 bytes for id and publish time (LIM-27).
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
            && self.ordering_key() == other.ordering_key()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("data", &self.data)
            .field("attributes", &self.attributes)
            .field("ordering_key", &self.ordering_key())
            .finish()
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
