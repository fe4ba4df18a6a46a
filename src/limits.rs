//! Every limit as a value, with two presets.
//!
//! Checks live where the thing is used; here are only the numbers. `tests/semantics/limits.rs`
//! tries each row of both presets on both sides.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::attributes::MAX_EVEN_BYTES;

/// Which names topics and subscriptions may have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameGrammar {
    /// 1 to 1,024 bytes without control characters.
    Any,
    /// A bare id of 3 to 255 characters, or `projects/{project}/topics/{id}` (RES-2 … RES-6).
    Strict,
}

/// What a bus accepts (LIM-1 … LIM-28).
///
/// | field | [`embedded`](Limits::embedded) | [`google`](Limits::google) | rule |
/// | --- | --- | --- | --- |
/// | `names` | any, 1–1,024 bytes | strict grammar | LIM-1 |
/// | `publish_messages` | 1–unlimited | 1–1,000 | LIM-2 |
/// | `publish_bytes` | unlimited | 10,485,760 | LIM-3 |
/// | `message_bytes` (payload) | unlimited | 10,485,760 | LIM-4 |
/// | `empty_messages` | allowed | refused | PUB-1 |
/// | `mixed_ordering_keys` in one publish | allowed | refused | PUB-11 |
/// | `attributes` per message | 100 | 100 | LIM-5 |
/// | `attribute_key_bytes` | 1–256 | 1–256 | LIM-6 |
/// | `attribute_value_bytes` | 1,024 | 1,024 | LIM-7 |
/// | `ordering_key_bytes` | 1,024 | 1,024 | LIM-8 |
/// | `idempotency_key_bytes` | 1,024 | 1,024 | LIB-380 |
/// | `deduplication_window` of a topic | 1 ns– | 1 ns– | LIB-381 |
/// | `deduplication_keys` of a topic | 1,000,000 | 1,000,000 | LIB-382 |
/// | `message_ttl` | 1 ns– | 1 ns– | LIB-370 |
/// | `ack_deadline` of a subscription | 1 ns– | 10–600 s | LIM-9 |
/// | `modify_ack_deadline` | 0– | 0–600 s | LIM-10 |
/// | `stream_ack_deadline` | 1 ns– | 10–600 s | LIM-11 |
/// | `ack_request_bytes` (text of the ids) | unlimited | 524,288 | LIM-12 |
/// | `pull_messages` (more are not handed out at once) | unlimited | 1,000 | LIM-15 |
/// | `retention` of a subscription | 1 ns– | 10 min–31 d | LIM-16 |
/// | `topic_retention` | 1 ns– | 10 min–31 d | LIM-17 |
/// | `expiration` | 1 ns– | 1 d–, and ≥ retention | LIM-18 |
/// | `retry_backoff`, shortest and longest | 0– | 0–600 s | LIM-19 |
/// | `dead_letter_attempts` | 1–4,095 | 5–100 | LIM-20 |
/// | `filter_bytes` | 4,096 | 256 | LIM-21 |
/// | `filter_dialect` | extended | strict | LIB-203 |
/// | `weak_filters_per_topic` | 10,000 | 10,000 | LIB-201 |
/// | `index_entries_per_topic` | 1,000,000 | 1,000,000 | LIB-202 |
/// | `topics`, `subscriptions`, `snapshots` per bus; `subscriptions_per_topic`, `snapshots_per_topic` | unlimited | unlimited | LIM-23, LIM-24 |
/// | `snapshot_life`, `snapshot_least_life` | 7 d, 1 h | 7 d, 1 h | LIM-22 |
///
/// ```
/// use siftbus::{Bus, Limits};
///
/// let mut limits = Limits::google();
/// limits.topics = Some(10_000);
/// let bus = Bus::builder().limits(limits).build();
/// assert_eq!(bus.limits().filter_bytes, 256);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Which names are accepted.
    pub names: NameGrammar,
    /// Messages in one publish.
    pub publish_messages: RangeInclusive<usize>,
    /// Bytes of all messages in one publish, counted as [`Message::size`](crate::Message::size).
    pub publish_bytes: usize,
    /// Bytes of one payload.
    pub message_bytes: usize,
    /// Whether a message may have neither payload nor attributes.
    pub empty_messages: bool,
    /// Whether messages of one publish may have different ordering keys.
    pub mixed_ordering_keys: bool,
    /// Attributes of one message.
    pub attributes: usize,
    /// Bytes of an attribute's key; at least one, and not starting with `goog`, unless with
    /// `googclient_`, under which client libraries send trace context.
    pub attribute_key_bytes: usize,
    /// Bytes of an attribute's value.
    pub attribute_value_bytes: usize,
    /// Bytes of an ordering key.
    pub ordering_key_bytes: usize,
    /// Bytes of an idempotency key.
    pub idempotency_key_bytes: usize,
    /// For how long a topic may recognise idempotency keys.
    pub deduplication_window: RangeInclusive<Duration>,
    /// How many idempotency keys one topic remembers.
    pub deduplication_keys: usize,
    /// A message's time to live.
    pub message_ttl: RangeInclusive<Duration>,
    /// A subscription's ack deadline.
    pub ack_deadline: RangeInclusive<Duration>,
    /// A changed deadline of one lease; zero is a nack.
    pub modify_ack_deadline: RangeInclusive<Duration>,
    /// The ack deadline of a stream.
    pub stream_ack_deadline: RangeInclusive<Duration>,
    /// Bytes of the text of all ack ids in one request.
    pub ack_request_bytes: usize,
    /// Messages that one pull hands out, whatever it asks for.
    pub pull_messages: usize,
    /// Retention of a subscription.
    pub retention: RangeInclusive<Duration>,
    /// Retention of a topic.
    pub topic_retention: RangeInclusive<Duration>,
    /// Idle time after which a subscription expires.
    pub expiration: RangeInclusive<Duration>,
    /// Whether a subscription must not expire before its retention has passed.
    pub expiration_covers_retention: bool,
    /// The least and the greatest delay of a retry policy.
    pub retry_backoff: RangeInclusive<Duration>,
    /// Failed deliveries before a message goes to the dead-letter topic.
    pub dead_letter_attempts: RangeInclusive<u32>,
    /// Bytes of a subscription's filter.
    pub filter_bytes: usize,
    /// Topics of a bus.
    pub topics: Option<usize>,
    /// Subscriptions of a bus.
    pub subscriptions: Option<usize>,
    /// Subscriptions attached to one topic.
    pub subscriptions_per_topic: Option<usize>,
    /// Filters of one topic that may have to be looked at for every message: those that only ask
    /// for absence or difference, or for presence and more.
    pub weak_filters_per_topic: usize,
    /// Places in the filter index of one topic; 16 for each subscription are allowed anyway.
    pub index_entries_per_topic: usize,
    /// The greatest dialect of a subscription's filter.
    pub filter_dialect: crate::filter::Dialect,
    /// Snapshots of a bus.
    pub snapshots: Option<usize>,
    /// Snapshots of one topic.
    pub snapshots_per_topic: Option<usize>,
    /// How long a snapshot lives, counted from the oldest message in it.
    pub snapshot_life: Duration,
    /// A snapshot that would live shorter than this is refused.
    pub snapshot_least_life: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest time to live, deadline, retention or expiration; all are rounded up to whole
/// milliseconds.
const TICK: Duration = Duration::from_nanos(1);

/// The default ack deadline of a subscription (RES-19).
pub(crate) const DEFAULT_ACK_DEADLINE: Duration = Duration::from_secs(10);
/// The default retention of a subscription (LIM-16).
pub(crate) const DEFAULT_RETENTION: Duration = DAY.saturating_mul(7);
/// After how much idle time a subscription expires by default (LIM-18).
pub(crate) const DEFAULT_EXPIRATION: Duration = DAY.saturating_mul(31);
/// The default delay before the first redelivery (RTY-4).
pub(crate) const DEFAULT_MINIMUM_BACKOFF: Duration = Duration::from_secs(10);
/// The default of the longest delay before a redelivery (RTY-4).
pub(crate) const DEFAULT_MAXIMUM_BACKOFF: Duration = Duration::from_secs(600);
/// The default number of failed deliveries of a dead-letter policy (LIM-20).
pub(crate) const DEFAULT_DELIVERY_ATTEMPTS: u32 = 5;
/// Attempts are counted no further (LIB-10).
pub(crate) const MAX_DELIVERY_ATTEMPTS: u32 = 4_095;
/// Bytes of the reason that a rejected message carries; more are cut off (LIB-102).
pub(crate) const MAX_ERROR_MESSAGE_BYTES: usize = 1_024;
/// Labels of a resource (RES-18).
pub(crate) const MAX_LABELS: usize = 64;
/// Characters of a label's key or value (RES-18).
pub(crate) const MAX_LABEL_CHARS: usize = 63;

impl Limits {
    /// For programs that link the bus: limits of messages as in the service, any positive time.
    pub fn embedded() -> Self {
        Self {
            names: NameGrammar::Any,
            publish_messages: 1..=usize::MAX,
            publish_bytes: usize::MAX,
            message_bytes: usize::MAX,
            empty_messages: true,
            mixed_ordering_keys: true,
            attributes: 100,
            attribute_key_bytes: 256,
            attribute_value_bytes: 1_024,
            ordering_key_bytes: 1_024,
            idempotency_key_bytes: 1_024,
            deduplication_window: TICK..=Duration::MAX,
            deduplication_keys: 1_000_000,
            message_ttl: TICK..=Duration::MAX,
            ack_deadline: TICK..=Duration::MAX,
            modify_ack_deadline: Duration::ZERO..=Duration::MAX,
            stream_ack_deadline: TICK..=Duration::MAX,
            ack_request_bytes: usize::MAX,
            pull_messages: usize::MAX,
            retention: TICK..=Duration::MAX,
            topic_retention: TICK..=Duration::MAX,
            expiration: TICK..=Duration::MAX,
            expiration_covers_retention: false,
            retry_backoff: Duration::ZERO..=Duration::MAX,
            dead_letter_attempts: 1..=MAX_DELIVERY_ATTEMPTS,
            filter_bytes: crate::filter::EMBEDDED_MAX_BYTES,
            topics: None,
            subscriptions: None,
            subscriptions_per_topic: None,
            weak_filters_per_topic: 10_000,
            index_entries_per_topic: 1_000_000,
            filter_dialect: crate::filter::Dialect::Extended,
            snapshots: None,
            snapshots_per_topic: None,
            snapshot_life: crate::snapshot::SNAPSHOT_LIFE,
            snapshot_least_life: crate::snapshot::SNAPSHOT_LEAST_LIFE,
        }
    }

    /// Every documented range of the service, so that what passes here passes there.
    pub fn google() -> Self {
        Self {
            names: NameGrammar::Strict,
            publish_messages: 1..=1_000,
            publish_bytes: 10_485_760,
            message_bytes: 10_485_760,
            empty_messages: false,
            mixed_ordering_keys: false,
            ack_deadline: SECOND * 10..=SECOND * 600,
            modify_ack_deadline: Duration::ZERO..=SECOND * 600,
            stream_ack_deadline: SECOND * 10..=SECOND * 600,
            ack_request_bytes: 524_288,
            pull_messages: 1_000,
            retention: MINUTE * 10..=DAY * 31,
            topic_retention: MINUTE * 10..=DAY * 31,
            expiration: DAY..=Duration::MAX,
            expiration_covers_retention: true,
            retry_backoff: Duration::ZERO..=SECOND * 600,
            dead_letter_attempts: 5..=100,
            filter_bytes: crate::filter::STRICT_MAX_BYTES,
            filter_dialect: crate::filter::Dialect::Strict,
            ..Self::embedded()
        }
    }

    /// Whether so many attributes are fine that are not odd: no string of them is long, no key
    /// empty or reserved.
    #[inline]
    pub(crate) fn allow_even(&self, attributes: usize) -> bool {
        attributes <= self.attributes
            && self.attribute_key_bytes.min(self.attribute_value_bytes) >= MAX_EVEN_BYTES
            && self.ordering_key_bytes >= MAX_EVEN_BYTES
    }
}

impl Default for Limits {
    /// [`Limits::embedded`].
    fn default() -> Self {
        Self::embedded()
    }
}
