//! Errors: one enum per boundary, each with a gRPC canonical code (ERR-1 … ERR-45).
//!
//! A variant exists where a caller would do something different, and names the offending value.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::ack_id::AckId;
use crate::message::Message;

/// The canonical codes of gRPC that this crate uses.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The request is wrong, whatever the state of the bus.
    InvalidArgument,
    /// The thing named does not exist, or no longer.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// A number is beyond what is valid; only dead-letter attempts say so (DLQ-2).
    OutOfRange,
    /// The state of the thing does not allow the request.
    FailedPrecondition,
    /// A limit or budget is used up.
    ResourceExhausted,
    /// It would be right, but is not supported.
    Unimplemented,
    /// The time allowed has passed.
    DeadlineExceeded,
    /// The bus is closed.
    Unavailable,
}

/// A name that no topic or subscription can have (RES-4).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid name: (name={name})")]
pub struct NameError {
    pub(crate) name: String,
}

impl NameError {
    /// Always [`Code::InvalidArgument`].
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// Kinds of things that have names.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// A topic.
    Topic,
    /// A subscription.
    Subscription,
    /// A snapshot.
    Snapshot,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Resource::Topic => "topic",
            Resource::Subscription => "subscription",
            Resource::Snapshot => "snapshot",
        })
    }
}

/// What a duration must be, in words; a range without an end has no figure for it.
struct Within(Duration, Duration);

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(min, Duration::MAX) => write!(f, "at least {min:?}"),
            Self(min, max) => write!(f, "from {min:?} to {max:?}"),
        }
    }
}

/// A configuration that the bus's [`Limits`](crate::Limits) do not allow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A duration is out of its range.
    #[error("{field} is {value:?}; it must be {}", Within(*min, *max))]
    OutOfRange {
        /// Which setting.
        field: &'static str,
        /// What was given.
        value: Duration,
        /// The least that is allowed.
        min: Duration,
        /// The most that is allowed.
        max: Duration,
    },
    /// The subscription would expire before its retention has passed (LIM-18).
    #[error("expiration after {expiration:?} is less than the retention of {retention:?}")]
    ExpiresBeforeRetention {
        /// Idle time after which the subscription would expire.
        expiration: Duration,
        /// The retention asked for.
        retention: Duration,
    },
    /// The filter has too many bytes (LIM-21).
    #[error("the filter has {len} bytes; at most {max} are allowed")]
    FilterTooLong {
        /// Bytes of the filter.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The filter needs a greater dialect than this bus allows (LIB-203).
    #[error("the filter needs the extended dialect, which this bus does not allow")]
    FilterDialect,
    /// There are too many labels (RES-18).
    #[error("{count} labels; at most {max} are allowed")]
    TooManyLabels {
        /// How many were given.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A label's key or value is not allowed (RES-18).
    #[error("label {key:?} = {value:?} is not allowed")]
    Label {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// The number of attempts of a dead-letter policy is out of its range (LIM-20).
    #[error("max_delivery_attempts is {value}; it must be from {min} to {max}")]
    DeliveryAttempts {
        /// What was given.
        value: u32,
        /// The least that is allowed.
        min: u32,
        /// The most that is allowed.
        max: u32,
    },
    /// A share of more than everything (LIB-101).
    #[error("jitter_percent is {percent}; at most 100 is allowed")]
    Jitter {
        /// What was given.
        percent: u8,
    },
    /// A number is out of its range.
    #[error("{field} is {value}; it must be from {min} to {max}")]
    CountOutOfRange {
        /// Which setting.
        field: &'static str,
        /// What was given.
        value: usize,
        /// The least that is allowed.
        min: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// Nothing can be pushed there: it is no http or https URL with a host (PUSH-2, ERR-16).
    #[error("unsupported push_endpoint: {url:?}")]
    PushEndpoint {
        /// What was given.
        url: String,
    },
    /// A push has no such attribute, or not with this value (PUSH-3).
    #[error("push attribute {key:?} = {value:?} is not known")]
    PushAttribute {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// This version of the envelope is not supported (PUSH-3).
    #[error("pushes of version {version:?} are not supported")]
    PushVersion {
        /// What was given.
        version: String,
    },
    /// Push and exactly-once delivery exclude each other (PUSH-4, ERR-17).
    #[error("exactly-once delivery is not supported with push")]
    PushExactlyOnce,
    /// A push's token needs the e-mail of a service account (PUSH-15).
    #[error("the token of a push needs a service_account_email")]
    NoServiceAccount,
    /// A limit that would let nothing through.
    #[error("{field} must be at least 1")]
    Zero {
        /// Which setting.
        field: &'static str,
    },
}

impl ConfigError {
    /// [`Code::OutOfRange`] for dead-letter attempts (ERR-15), [`Code::Unimplemented`] for an old
    /// version of pushes, else [`Code::InvalidArgument`] (ERR-4, ERR-6, ERR-8 … ERR-13, ERR-16,
    /// ERR-17).
    pub fn code(&self) -> Code {
        match self {
            Self::DeliveryAttempts { .. } => Code::OutOfRange,
            Self::PushVersion { .. } => Code::Unimplemented,
            _ => Code::InvalidArgument,
        }
    }
}

/// Why something could not be created, found, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nothing has this name, or this handle is of one that was deleted (RES-8, RES-12).
    #[error("{resource} {name:?} does not exist")]
    NotFound {
        /// What was looked for.
        resource: Resource,
        /// Its name.
        name: String,
    },
    /// The name is taken (RES-7).
    #[error("{resource} {name:?} already exists")]
    AlreadyExists {
        /// What was to be created.
        resource: Resource,
        /// Its name.
        name: String,
    },
    /// The configuration is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There are as many as the limits allow (LIM-23, LIM-24).
    #[error("cannot create {resource} {name:?}: there are {max} already")]
    TooMany {
        /// What was to be created.
        resource: Resource,
        /// Its name.
        name: String,
        /// How many are allowed.
        max: usize,
    },
    /// The topic has as many filters that must be looked at for every message as it may (LIB-201).
    #[error("cannot create subscription {name:?}: {max} filters have to be scanned already")]
    TooManyWeakFilters {
        /// The subscription's name.
        name: String,
        /// How many are allowed.
        max: usize,
    },
    /// The topic's filter index has as many places as it may (LIB-202).
    #[error("cannot create subscription {name:?}: the filter index has {max} entries")]
    FilterIndexFull {
        /// The subscription's name.
        name: String,
        /// How many are allowed.
        max: usize,
    },
    /// The subscription was detached from its topic, which cannot be undone (RES-15).
    #[error("subscription {subscription:?} is detached")]
    Detached {
        /// The subscription's name.
        subscription: String,
    },
    /// The snapshot is of another topic, perhaps one that had the same name (SEEK-9).
    #[error("snapshot {snapshot:?} is not of topic {topic:?}")]
    OtherTopic {
        /// The snapshot's name.
        snapshot: String,
        /// The topic of the subscription.
        topic: String,
    },
    /// A snapshot would have less than an hour to live (SNP-4).
    #[error("the backlog of subscription {subscription:?} is too old for a snapshot")]
    BacklogTooOld {
        /// The subscription's name.
        subscription: String,
    },
    /// The life of a snapshot can only be shortened, and ends in the future (SNP-9).
    #[error("a snapshot cannot expire at {expire_time:?}; {latest:?} is the latest")]
    SnapshotLife {
        /// What was given.
        expire_time: std::time::SystemTime,
        /// When it expires now.
        latest: std::time::SystemTime,
    },
    /// A push configuration, on a bus without a pusher: nothing would be pushed (LIB-420).
    #[error("subscription {subscription:?} would push, but no pusher is attached to the bus")]
    NoPusher {
        /// The subscription's name.
        subscription: String,
    },
    /// A push configuration asks for a token, and the pusher has no issuer: it was built without
    /// the feature `oidc` (LIB-421).
    #[error("subscription {subscription:?} would push with a token, but the pusher has no issuer")]
    NoIssuer {
        /// The subscription's name.
        subscription: String,
    },
    /// The bus has a pusher already (LIB-420).
    #[error("a pusher is attached to the bus already")]
    PusherAttached,
    /// The call starts a task and needs a tokio runtime for it.
    #[error("no tokio runtime to run on")]
    NoRuntime,
    /// The bus is closed.
    #[error("the bus is closed")]
    Closed,
}

impl AdminError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Name(error) => error.code(),
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::Config(error) => error.code(),
            Self::TooMany { .. }
            | Self::TooManyWeakFilters { .. }
            | Self::FilterIndexFull { .. } => Code::ResourceExhausted,
            Self::SnapshotLife { .. } => Code::InvalidArgument,
            Self::Detached { .. }
            | Self::OtherTopic { .. }
            | Self::BacklogTooOld { .. }
            | Self::NoPusher { .. }
            | Self::NoIssuer { .. }
            | Self::PusherAttached
            | Self::NoRuntime => Code::FailedPrecondition,
            Self::Closed => Code::Unavailable,
        }
    }
}

/// Nothing was published; the messages come back.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, Code, Message, TopicConfig};
///
/// let bus = Bus::new();
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
/// let bad = Message::new("x").with_attribute("goog-key", "v");
/// let error = topic.publish(bad.clone()).await.expect_err("the key is reserved");
/// assert_eq!(error.code(), Code::InvalidArgument);
/// assert_eq!(error.into_messages(), [bad]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Error)]
#[error("{}", inner.reason)]
pub struct PublishError {
    inner: Box<Unpublished>,
}

struct Unpublished {
    reason: PublishReason,
    messages: Vec<Message>,
}

impl PublishError {
    pub(crate) fn new(reason: PublishReason, messages: Vec<Message>) -> Self {
        Self { inner: Box::new(Unpublished { reason, messages }) }
    }

    /// Whether it might do later.
    pub(crate) fn is_for_room(&self) -> bool {
        matches!(self.inner.reason, PublishReason::NoRoom { .. })
    }

    /// What the messages take of the budget.
    pub(crate) fn charge(&self) -> u64 {
        let overhead = crate::budget::MESSAGE_OVERHEAD;
        self.inner.messages.iter().map(|message| (message.size() + overhead) as u64).sum()
    }

    /// What stood in the way.
    pub fn reason(&self) -> &PublishReason {
        &self.inner.reason
    }

    /// The gRPC code of the reason.
    pub fn code(&self) -> Code {
        self.inner.reason.code()
    }

    /// The messages, in the order in which they were handed over.
    pub fn into_messages(self) -> Vec<Message> {
        self.inner.messages
    }
}

impl std::fmt::Debug for PublishError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishError")
            .field("reason", &self.inner.reason)
            .field("messages", &self.inner.messages.len())
            .finish()
    }
}

/// Why nothing was published.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishReason {
    /// The topic was deleted (PUB-10).
    #[error("topic {topic:?} does not exist")]
    NotFound {
        /// The topic's name.
        topic: String,
    },
    /// There are no messages, or too many for one request (LIM-2).
    #[error("{count} messages in one publish; {min} to {max} are allowed")]
    MessageCount {
        /// How many there were.
        count: usize,
        /// The least that is allowed.
        min: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// All messages together are too large (LIM-3).
    #[error("{size} bytes in one publish; at most {max} are allowed")]
    RequestTooLarge {
        /// Bytes of all messages.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The messages have different ordering keys (PUB-11).
    #[error("ordering keys {first:?} and {other:?} in one publish")]
    MixedOrderingKeys {
        /// The key of the first message.
        first: String,
        /// Another message's key.
        other: String,
    },
    /// One message is not allowed; none was published (PUB-2).
    #[error("message {index}: {problem}")]
    Message {
        /// Which message, counted from zero.
        index: usize,
        /// What is wrong with it.
        problem: MessageProblem,
    },
    /// The messages together take more than the whole budget of the bus (LIB-41).
    #[error("{bytes} bytes with overhead; the budget of the bus is {max}")]
    AboveBudget {
        /// Bytes of all messages, with overhead.
        bytes: u64,
        /// The budget.
        max: u64,
    },
    /// More messages at once than a subscription may ever have (LIB-45).
    #[error("{count} messages for subscription {subscription:?}, which may have {max}")]
    AboveLimit {
        /// The subscription's name.
        subscription: String,
        /// How many messages it would get.
        count: u64,
        /// How many it may have.
        max: u64,
    },
    /// More bytes at once than a subscription may ever have (LIB-45).
    #[error("{bytes} bytes for subscription {subscription:?}, which may have {max}")]
    AboveByteLimit {
        /// The subscription's name.
        subscription: String,
        /// The bytes of the messages it would get.
        bytes: u64,
        /// How many it may have.
        max: u64,
    },
    /// There is no room now: in the budget, behind publishers that wait, or on a subscription.
    #[error("no room on topic {topic:?} now")]
    NoRoom {
        /// The topic's name.
        topic: String,
        /// The subscription at its limit, if it is for one.
        subscription: Option<String>,
    },
    /// A subscription that rejects what is beyond its limit has reached it (LIB-45).
    #[error("the backlog of subscription {subscription:?} is full")]
    BacklogFull {
        /// The subscription's name.
        subscription: String,
    },
    /// The topic remembers as many idempotency keys as it may (LIB-382).
    #[error("topic {topic:?} remembers {max} idempotency keys")]
    DeduplicationFull {
        /// The topic's name.
        topic: String,
        /// How many it may remember.
        max: usize,
    },
    /// A message would wait longer at its topic than the topic's retention, or without one the
    /// longest that is allowed (LIB-376).
    #[error("a delay of {delay:?}; the retention is {retention:?}")]
    DelayBeyondRetention {
        /// From now until the message would be published.
        delay: Duration,
        /// The longest delay.
        retention: Duration,
    },
    /// There was no room within the time allowed.
    #[error("no room on topic {topic:?} within {timeout:?}")]
    TimedOut {
        /// The topic's name.
        topic: String,
        /// How long the publisher waited.
        timeout: Duration,
    },
    /// The delivery is of another bus, or the message needs more than was reserved.
    #[error("{what}")]
    Misused {
        /// What is wrong.
        what: &'static str,
    },
    /// A fault that a test has armed (LIB-406); nothing was published.
    #[error("a publish to topic {topic:?} fails on demand with {code:?}")]
    Fault {
        /// The topic's name.
        topic: String,
        /// The code that was asked for.
        code: Code,
    },
    /// The bus is closed.
    #[error("the bus is closed")]
    Closed,
}

impl PublishReason {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::MessageCount { .. }
            | Self::RequestTooLarge { .. }
            | Self::MixedOrderingKeys { .. }
            | Self::Message { .. }
            | Self::AboveBudget { .. }
            | Self::AboveLimit { .. }
            | Self::DelayBeyondRetention { .. }
            | Self::AboveByteLimit { .. }
            | Self::Misused { .. } => Code::InvalidArgument,
            Self::NoRoom { .. } | Self::BacklogFull { .. } | Self::DeduplicationFull { .. } => {
                Code::ResourceExhausted
            }
            Self::TimedOut { .. } => Code::DeadlineExceeded,
            Self::Fault { code, .. } => *code,
            Self::Closed => Code::Unavailable,
        }
    }
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageProblem {
    /// Neither payload nor attributes (PUB-1).
    #[error("neither data nor attributes")]
    Empty,
    /// The payload is too large (LIM-4).
    #[error("{size} bytes of data; at most {max} are allowed")]
    DataTooLarge {
        /// Bytes of the payload.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Too many attributes (LIM-5).
    #[error("{count} attributes; at most {max} are allowed")]
    TooManyAttributes {
        /// How many there are.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// An attribute's key is empty, too long or reserved (LIM-6).
    #[error("attribute key {key:?}: 1 to {max} bytes are allowed, and not starting with \"goog\"")]
    AttributeKey {
        /// The key.
        key: String,
        /// Bytes allowed.
        max: usize,
    },
    /// An attribute's value is too long (LIM-7).
    #[error("the value of attribute {key:?} has {len} bytes; at most {max} are allowed")]
    AttributeValueTooLong {
        /// The attribute's key.
        key: String,
        /// Bytes of the value.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The time to live is not allowed (LIB-370).
    #[error("a time to live of {ttl:?}; it must be {}", Within(*min, *max))]
    TtlOutOfRange {
        /// What was given, rounded up to whole milliseconds.
        ttl: Duration,
        /// The least that is allowed.
        min: Duration,
        /// The most that is allowed.
        max: Duration,
    },
    /// The idempotency key is too long (LIB-380).
    #[error("an idempotency key of {len} bytes; at most {max} are allowed")]
    IdempotencyKeyTooLong {
        /// Bytes of the key.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The ordering key is too long (LIM-8).
    #[error("an ordering key of {len} bytes; at most {max} are allowed")]
    OrderingKeyTooLong {
        /// Bytes of the key.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// Why nothing could be pulled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PullError {
    /// The subscription was deleted or has expired (PULL-9, EXP-4).
    #[error("subscription {subscription:?} does not exist")]
    NotFound {
        /// The subscription's name.
        subscription: String,
    },
    /// The subscription was detached from its topic, perhaps while the call waited (RES-14,
    /// PULL-9).
    #[error("subscription {subscription:?} is detached")]
    Detached {
        /// The subscription's name.
        subscription: String,
    },
    /// A subscription with a push configuration has no streams; it can be pulled (STR-4, ERR-34).
    #[error("subscription {subscription:?} is a push subscription")]
    PushSubscription {
        /// The subscription's name.
        subscription: String,
    },
    /// Zero messages were asked for (PULL-5).
    #[error("max_messages is 0; at least 1 is needed")]
    ZeroMessages,
    /// The flow control is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The bus is closed.
    #[error("the bus is closed")]
    Closed,
}

impl PullError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Detached { .. } | Self::PushSubscription { .. } => Code::FailedPrecondition,
            Self::ZeroMessages => Code::InvalidArgument,
            Self::Config(error) => error.code(),
            Self::Closed => Code::Unavailable,
        }
    }
}

/// Why nothing could be acknowledged. A stale id is no error but an
/// [`Outcome`](crate::Outcome) (ACK-6).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AckError {
    /// The subscription was deleted or has expired (ACK-8).
    #[error("subscription {subscription:?} does not exist")]
    NotFound {
        /// The subscription's name.
        subscription: String,
    },
    /// The list of ids is empty (ACK-7).
    #[error("no ack ids specified")]
    NoIds,
    /// The ids take more bytes than one request may have (LIM-12).
    #[error("{bytes} bytes of ack ids; at most {max} are allowed")]
    RequestTooLarge {
        /// Bytes of all ids as text.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// An id was issued by another subscription; no id was applied (ACK-4, ACK-5).
    #[error("invalid ack id (ack_id={id})")]
    ForeignId {
        /// The id as text.
        id: String,
    },
    /// With exactly-once delivery, or by a fault on demand: some answers did not take effect, those
    /// to all other ids did (EOD-5, EOD-10).
    #[error("Some acknowledgement ids in the request were invalid.")]
    ExactlyOnce {
        /// The ids that failed, each with the reason.
        failures: Vec<(AckId, AckFailure)>,
    },
    /// The delivery was rejected, but there is nowhere to send it: it was given back instead
    /// (LIB-102).
    #[error("subscription {subscription:?} has no dead-letter policy")]
    NoDeadLetterPolicy {
        /// The subscription's name.
        subscription: String,
    },
    /// The deadline is out of range (LIM-10).
    #[error(transparent)]
    Deadline(#[from] ConfigError),
    /// The bus is closed.
    #[error("the bus is closed")]
    Closed,
}

impl AckError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::NoIds
            | Self::RequestTooLarge { .. }
            | Self::ForeignId { .. }
            | Self::ExactlyOnce { .. } => Code::InvalidArgument,
            Self::NoDeadLetterPolicy { .. } => Code::FailedPrecondition,
            Self::Deadline(error) => error.code(),
            Self::Closed => Code::Unavailable,
        }
    }
}

impl AckError {
    /// Whether the same answer, given again by id, may take effect (EOD-10).
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ExactlyOnce { failures } => {
                failures.iter().all(|(_, failure)| *failure == AckFailure::Transient)
            }
            _ => false,
        }
    }
}

/// Why an answer failed on a subscription with exactly-once delivery, or by a fault on demand.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AckFailure {
    /// The delivery was settled, has lapsed or was superseded, or the id is of another
    /// subscription (EOD-3, EOD-4, EOD-6).
    InvalidAckId,
    /// An earlier message of the ordering key is not acknowledged yet: the lease goes on, and the
    /// ack can be repeated after that (EOD-9).
    OutOfOrder,
    /// A fault that a test has armed: the delivery is as it was, and the answer can be repeated by
    /// id (EOD-10). The bus never says so by itself.
    Transient,
}

impl AckFailure {
    /// The text under which the service's error details list the id (EOD-5).
    pub fn reason(self) -> &'static str {
        match self {
            Self::InvalidAckId => "PERMANENT_FAILURE_INVALID_ACK_ID",
            Self::OutOfOrder => "PERMANENT_FAILURE_UNORDERED_ACK_ID",
            Self::Transient => "TRANSIENT_FAILURE_INVALID_ACK_ID",
        }
    }
}

/// Why a request got no reply.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request could not be published.
    #[error("the request was not published: {0}")]
    Publish(#[from] PublishError),
    /// No reply came in time.
    #[error("no reply within {timeout:?}")]
    TimedOut {
        /// How long the request waited.
        timeout: Duration,
    },
    /// Replies can no longer arrive: the reply subscription or the bus is gone.
    #[error("the reply subscription is gone")]
    Closed,
}

impl RequestError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Publish(error) => error.code(),
            Self::TimedOut { .. } => Code::DeadlineExceeded,
            Self::Closed => Code::Unavailable,
        }
    }
}

/// Why a reply could not be sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The delivery is no request: this attribute is missing.
    #[error("the delivery is no request: attribute {attribute:?} is missing")]
    NotARequest {
        /// Which attribute.
        attribute: &'static str,
    },
    /// The topic that the request names cannot be found.
    #[error("no topic to reply to: {0}")]
    Topic(#[from] AdminError),
    /// The reply could not be published.
    #[error("the reply was not published: {0}")]
    Publish(#[from] PublishError),
}

impl ReplyError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotARequest { .. } => Code::InvalidArgument,
            Self::Topic(error) => error.code(),
            Self::Publish(error) => error.code(),
        }
    }
}

/// An address that nothing can be pushed to: it is no http or https URL with a host (PUSH-2).
#[cfg(feature = "http")]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unsupported push_endpoint: {url:?}")]
pub struct EndpointError {
    pub(crate) url: String,
}

/// A text that is no certificate to be trusted.
#[cfg(feature = "http")]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no certificate to trust: {reason}")]
pub struct CertificateError {
    pub(crate) reason: String,
}

#[cfg(feature = "http")]
impl CertificateError {
    /// Always [`Code::InvalidArgument`].
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

#[cfg(feature = "http")]
impl EndpointError {
    /// Always [`Code::InvalidArgument`].
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}
