//! What topics and subscriptions are created with and can be changed to: plain values.
//!
//! Setters take anything; whether it is allowed is checked against the bus's limits when the value
//! is used.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::BacklogLimit;
use crate::error::ConfigError;
use crate::filter::Filter;
use crate::limits::{
    DEFAULT_ACK_DEADLINE, DEFAULT_EXPIRATION, DEFAULT_RETENTION, Limits, MAX_LABEL_CHARS,
    MAX_LABELS,
};
use crate::policy::{DeadLetterPolicy, RetryPolicy};
use crate::push_config::PushConfig;

/// How a topic behaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TopicConfig {
    /// How long every message is kept, acknowledged or not; unset: only as long as a
    /// subscription needs it (RET-2, RET-9).
    pub retention: Option<Duration>,
    /// For how long a publish with the same idempotency key as an earlier one is not published
    /// again; unset: it always is (LIB-381).
    pub deduplication_window: Option<Duration>,
    /// Labels: yours to use, at most 64 (RES-18).
    pub labels: BTreeMap<String, String>,
}

impl TopicConfig {
    /// No retention, no deduplication, no labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps every message for this long, even if nobody subscribes.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Publishes messages with the same idempotency key once within this time, rounded up to whole
    /// milliseconds and counted from the first (LIB-381).
    #[must_use]
    pub fn deduplication_window(mut self, window: Duration) -> Self {
        self.deduplication_window = Some(window);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        if let Some(window) = self.deduplication_window {
            check_range("deduplication window", window, &limits.deduplication_window)?;
        }
        if let Some(retention) = self.retention {
            check_range("topic retention", retention, &limits.topic_retention)?;
        }
        check_labels(&self.labels)
    }
}

/// What to change of a topic; what is `None` stays as it is.
///
/// ```
/// use siftbus::TopicUpdate;
/// use std::time::Duration;
///
/// let longer = TopicUpdate::new().retention(Some(Duration::from_secs(3_600)));
/// let cleared = TopicUpdate::new().retention(None);
/// assert_ne!(longer, cleared);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TopicUpdate {
    /// The new retention; `Some(None)` clears it (RET-5).
    pub retention: Option<Option<Duration>>,
    /// The new deduplication window, at once also for keys that are remembered; `Some(None)`
    /// clears it, and they are forgotten (LIB-382).
    pub deduplication_window: Option<Option<Duration>>,
    /// The new labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
}

impl TopicUpdate {
    /// Changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or clears the retention.
    #[must_use]
    pub fn retention(mut self, retention: Option<Duration>) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Sets or clears the deduplication window.
    #[must_use]
    pub fn deduplication_window(mut self, window: Option<Duration>) -> Self {
        self.deduplication_window = Some(window);
        self
    }

    /// Replaces all labels.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = Some(labels);
        self
    }

    pub(crate) fn applied_to(&self, config: &TopicConfig) -> TopicConfig {
        let window = self.deduplication_window;
        TopicConfig {
            deduplication_window: window.unwrap_or(config.deduplication_window),
            retention: self.retention.unwrap_or(config.retention),
            labels: self.labels.clone().unwrap_or_else(|| config.labels.clone()),
        }
    }
}

/// When a subscription that nobody uses goes away (EXP-1).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Expiration {
    /// It stays until it is deleted.
    Never,
    /// After this much time without activity. Pulling, acknowledging and updating are activity;
    /// publishing to the topic is not (EXP-3).
    After(Duration),
}

/// The most hand-outs that a subscription can be asked to remember.
pub const MAX_HISTORY: usize = 1_000_000;

/// How a subscription behaves.
///
/// ```
/// use siftbus::{Expiration, Filter, SubscriptionConfig};
/// use std::time::Duration;
///
/// let config = SubscriptionConfig::new()
///     .filter(Filter::parse(r#"attributes.region = "eu""#)?)
///     .ack_deadline(Duration::from_secs(60))
///     .expiration(Expiration::After(Duration::from_secs(24 * 3_600)));
/// # Ok::<(), siftbus::filter::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SubscriptionConfig {
    /// Which messages it gets; fixed at creation (FIL-3). Default: all.
    pub filter: Filter,
    /// How long a delivery may stay without an answer before it is handed out again. Default:
    /// 10 s (LIM-9).
    pub ack_deadline: Duration,
    /// How long an unacknowledged message is kept, counted from publish. Unset: 7 days, or the
    /// expiration if that is shorter (LIM-16, EXP-1).
    pub retention: Option<Duration>,
    /// Whether acknowledged messages are kept for the retention too, so that a seek can bring them
    /// back (RET-3). Default: no. A filtered subscription keeps the topic's whole log of that time.
    pub retain_acked: bool,
    /// When it expires. Default: after 31 days without activity (LIM-18).
    pub expiration: Expiration,
    /// Whether messages with the same ordering key are handed out in publish order; fixed at
    /// creation (ORD-1, ORD-2). Default: no.
    pub message_ordering: bool,
    /// Whether an answer that comes too late is an error, so that a successful ack means that the
    /// message is never delivered again (EOD-1). Default: no.
    pub exactly_once_delivery: bool,
    /// How long a message waits after a failed delivery. Default: not at all (RTY-1).
    pub retry_policy: Option<RetryPolicy>,
    /// Where messages go that cannot be processed. Default: nowhere, they are delivered until
    /// their retention has passed (DLQ-1).
    pub dead_letter_policy: Option<DeadLetterPolicy>,
    /// Where messages are pushed to. Default: nowhere, they are pulled (PUSH-1).
    pub push_config: Option<PushConfig>,
    /// How large its backlog may grow, and what happens beyond. Default: bounded only by the
    /// budget of the bus (LIB-45).
    pub backlog_limit: Option<BacklogLimit>,
    /// How many hand-outs it remembers, so that
    /// [`explain_delivery`](crate::Subscription::explain_delivery) can tell of messages that have
    /// left the log: 24 bytes each, at most [`MAX_HISTORY`]; fixed at creation (LIB-351).
    /// Default: none.
    pub history: usize,
    /// Labels: yours to use, at most 64 (RES-18).
    pub labels: BTreeMap<String, String>,
}

impl Default for SubscriptionConfig {
    fn default() -> Self {
        Self {
            filter: Filter::all(),
            ack_deadline: DEFAULT_ACK_DEADLINE,
            retention: None,
            retain_acked: false,
            expiration: Expiration::After(DEFAULT_EXPIRATION),
            message_ordering: false,
            exactly_once_delivery: false,
            retry_policy: None,
            dead_letter_policy: None,
            push_config: None,
            backlog_limit: None,
            history: 0,
            labels: BTreeMap::new(),
        }
    }
}

impl SubscriptionConfig {
    /// All messages, 10 s to acknowledge, 7 days of retention, expires after 31 idle days.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which messages it gets.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// How long a delivery may stay without an answer; rounded up to whole milliseconds.
    #[must_use]
    pub fn ack_deadline(mut self, deadline: Duration) -> Self {
        self.ack_deadline = deadline;
        self
    }

    /// How long an unacknowledged message is kept; rounded up to whole milliseconds.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// How large its backlog may grow, and what happens beyond.
    #[must_use]
    pub fn backlog_limit(mut self, limit: BacklogLimit) -> Self {
        self.backlog_limit = Some(limit);
        self
    }

    /// How many hand-outs it remembers for `explain_delivery`; at most [`MAX_HISTORY`].
    #[must_use]
    pub fn history(mut self, hand_outs: usize) -> Self {
        self.history = hand_outs;
        self
    }

    /// Whether acknowledged messages are kept for the retention too (RET-3).
    #[must_use]
    pub fn retain_acked(mut self, retain: bool) -> Self {
        self.retain_acked = retain;
        self
    }

    /// When it goes away by itself.
    #[must_use]
    pub fn expiration(mut self, expiration: Expiration) -> Self {
        self.expiration = expiration;
        self
    }

    /// Hands messages with the same ordering key out in publish order (ORD-1).
    #[must_use]
    pub fn message_ordering(mut self, is_on: bool) -> Self {
        self.message_ordering = is_on;
        self
    }

    /// Makes late answers errors; a late ack does not count then (EOD-3, EOD-4).
    #[must_use]
    pub fn exactly_once_delivery(mut self, is_on: bool) -> Self {
        self.exactly_once_delivery = is_on;
        self
    }

    /// Lets messages wait after a failed delivery.
    #[must_use]
    pub fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry_policy = Some(policy);
        self
    }

    /// Sends messages to another topic that failed too often.
    #[must_use]
    pub fn dead_letter_policy(mut self, policy: DeadLetterPolicy) -> Self {
        self.dead_letter_policy = Some(policy);
        self
    }

    /// Pushes every message to an endpoint (PUSH-1). Not together with exactly-once delivery
    /// (PUSH-4), and only on a bus with a pusher.
    #[must_use]
    pub fn push_config(mut self, config: PushConfig) -> Self {
        self.push_config = Some(config);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Checks the value and fills in what depends on the rest.
    pub(crate) fn checked(mut self, limits: &Limits) -> Result<Self, ConfigError> {
        check_range("ack deadline", self.ack_deadline, &limits.ack_deadline)?;
        if let Expiration::After(expiration) = self.expiration {
            check_range("expiration", expiration, &limits.expiration)?;
        }
        match (self.retention, self.expiration) {
            (Some(retention), expiration) => {
                check_range("retention", retention, &limits.retention)?;
                if let Expiration::After(expiration) = expiration
                    && limits.expiration_covers_retention
                    && expiration < retention
                {
                    return Err(ConfigError::ExpiresBeforeRetention { expiration, retention });
                }
            }
            (None, Expiration::After(expiration)) => {
                self.retention = Some(DEFAULT_RETENTION.min(expiration));
            }
            (None, Expiration::Never) => self.retention = Some(DEFAULT_RETENTION),
        }
        if let Some(policy) = &self.retry_policy {
            policy.check(limits)?;
        }
        if let Some(policy) = &self.dead_letter_policy {
            policy.check(limits)?;
        }
        self.push_config = self.push_config.map_or(Ok(None), PushConfig::checked)?;
        if self.push_config.is_some() && self.exactly_once_delivery {
            return Err(ConfigError::PushExactlyOnce);
        }
        if self.backlog_limit.is_some_and(|limit| limit.messages == 0) {
            return Err(ConfigError::Zero { field: "backlog_limit.messages" });
        }
        if self.backlog_limit.is_some_and(|limit| limit.bytes == Some(0)) {
            return Err(ConfigError::Zero { field: "backlog_limit.bytes" });
        }
        if self.history > MAX_HISTORY {
            return Err(ConfigError::CountOutOfRange {
                field: "history",
                value: self.history,
                min: 0,
                max: MAX_HISTORY,
            });
        }
        let (len, max) = (self.filter.source().len(), limits.filter_bytes);
        if len > max {
            return Err(ConfigError::FilterTooLong { len, max });
        }
        if self.filter.dialect() > limits.filter_dialect {
            return Err(ConfigError::FilterDialect);
        }
        check_labels(&self.labels)?;
        Ok(self)
    }

    /// The retention in force.
    pub(crate) fn effective_retention(&self) -> Duration {
        self.retention.unwrap_or(DEFAULT_RETENTION)
    }
}

/// What to change of a subscription; what is `None` stays as it is. The filter cannot be changed
/// (FIL-3). Any update restarts the expiration clock (EXP-5).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SubscriptionUpdate {
    /// The new ack deadline, for hand-outs from now on (LS-19).
    pub ack_deadline: Option<Duration>,
    /// The new retention, for stored messages too (RET-8).
    pub retention: Option<Duration>,
    /// Whether acknowledged messages are kept from now on; if not, those kept are gone at once.
    pub retain_acked: Option<bool>,
    /// The new expiration.
    pub expiration: Option<Expiration>,
    /// Exactly-once delivery on or off, for hand-outs from now on (EOD-2).
    pub exactly_once_delivery: Option<bool>,
    /// The new retry policy, for failures from now on; `Some(None)` removes it, and what waits
    /// because of it can be delivered at once (RTY-9).
    pub retry_policy: Option<Option<RetryPolicy>>,
    /// The new dead-letter policy, for failures from now on; `Some(None)` removes it (DLQ-13).
    pub dead_letter_policy: Option<Option<DeadLetterPolicy>>,
    /// The new endpoint; `Some(None)` makes it a pull subscription. The backlog stays (PUSH-1).
    pub push_config: Option<Option<PushConfig>>,
    /// The new limit of the backlog; `Some(None)` clears it.
    pub backlog_limit: Option<Option<BacklogLimit>>,
    /// The new labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
}

impl SubscriptionUpdate {
    /// Changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the ack deadline of later hand-outs; running leases keep theirs (LS-19).
    #[must_use]
    pub fn ack_deadline(mut self, deadline: Duration) -> Self {
        self.ack_deadline = Some(deadline);
        self
    }

    /// Sets the retention, at once also for what is stored (RET-8).
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Sets or clears the limit of the backlog.
    #[must_use]
    pub fn backlog_limit(mut self, limit: Option<BacklogLimit>) -> Self {
        self.backlog_limit = Some(limit);
        self
    }

    /// Sets whether acknowledged messages are kept too (RET-3).
    #[must_use]
    pub fn retain_acked(mut self, retain: bool) -> Self {
        self.retain_acked = Some(retain);
        self
    }

    /// Sets the expiration (EXP-5).
    #[must_use]
    pub fn expiration(mut self, expiration: Expiration) -> Self {
        self.expiration = Some(expiration);
        self
    }

    /// Switches exactly-once delivery on or off (EOD-2).
    #[must_use]
    pub fn exactly_once_delivery(mut self, is_on: bool) -> Self {
        self.exactly_once_delivery = Some(is_on);
        self
    }

    /// Sets or removes the retry policy (RTY-9).
    #[must_use]
    pub fn retry_policy(mut self, policy: Option<RetryPolicy>) -> Self {
        self.retry_policy = Some(policy);
        self
    }

    /// Sets or removes the dead-letter policy (DLQ-13).
    #[must_use]
    pub fn dead_letter_policy(mut self, policy: Option<DeadLetterPolicy>) -> Self {
        self.dead_letter_policy = Some(policy);
        self
    }

    /// Switches to push, to another endpoint, or with `None` to pull (PUSH-1).
    #[must_use]
    pub fn push_config(mut self, config: Option<PushConfig>) -> Self {
        self.push_config = Some(config);
        self
    }

    /// Replaces all labels.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = Some(labels);
        self
    }

    pub(crate) fn applied_to(&self, config: &SubscriptionConfig) -> SubscriptionConfig {
        SubscriptionConfig {
            filter: config.filter.clone(),
            ack_deadline: self.ack_deadline.unwrap_or(config.ack_deadline),
            retention: self.retention.or(config.retention),
            retain_acked: self.retain_acked.unwrap_or(config.retain_acked),
            expiration: self.expiration.unwrap_or(config.expiration),
            message_ordering: config.message_ordering,
            exactly_once_delivery: self
                .exactly_once_delivery
                .unwrap_or(config.exactly_once_delivery),
            retry_policy: self.retry_policy.clone().unwrap_or(config.retry_policy.clone()),
            dead_letter_policy: self
                .dead_letter_policy
                .clone()
                .unwrap_or(config.dead_letter_policy.clone()),
            push_config: self.push_config.clone().unwrap_or_else(|| config.push_config.clone()),
            backlog_limit: self.backlog_limit.unwrap_or(config.backlog_limit),
            history: config.history,
            labels: self.labels.clone().unwrap_or_else(|| config.labels.clone()),
        }
    }
}

/// How much a stream may have outstanding, and for how long (STR-11).
///
/// ```
/// use siftbus::FlowControl;
///
/// let gentle = FlowControl::new().max_outstanding_messages(10);
/// assert_eq!(gentle.max_outstanding_bytes, 100 * 1024 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FlowControl {
    /// The stream hands out nothing while this many of its messages are outstanding. Default:
    /// 1,000.
    pub max_outstanding_messages: usize,
    /// The stream hands out nothing while its outstanding messages have this many bytes; one
    /// message may overshoot. Default: 100 MiB.
    pub max_outstanding_bytes: usize,
    /// Whether the stream hands out no message of an ordering key while another of it is
    /// outstanding, as handlers and push do (ORD-9). Default: no (ORD-6).
    pub one_per_ordering_key: bool,
    /// The ack deadline of what this stream hands out. Default: the subscription's (DL-1).
    pub ack_deadline: Option<Duration>,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            max_outstanding_messages: 1_000,
            max_outstanding_bytes: 100 * 1024 * 1024,
            one_per_ordering_key: false,
            ack_deadline: None,
        }
    }
}

impl FlowControl {
    /// 1,000 messages and 100 MiB outstanding, the subscription's ack deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many messages may be outstanding.
    #[must_use]
    pub fn max_outstanding_messages(mut self, messages: usize) -> Self {
        self.max_outstanding_messages = messages;
        self
    }

    /// Sets how many bytes may be outstanding.
    #[must_use]
    pub fn max_outstanding_bytes(mut self, bytes: usize) -> Self {
        self.max_outstanding_bytes = bytes;
        self
    }

    /// Waits for each message of an ordering key to be answered before the next is handed out.
    #[must_use]
    pub fn one_per_ordering_key(mut self, is_on: bool) -> Self {
        self.one_per_ordering_key = is_on;
        self
    }

    /// Sets the ack deadline of what the stream hands out.
    #[must_use]
    pub fn ack_deadline(mut self, deadline: Duration) -> Self {
        self.ack_deadline = Some(deadline);
        self
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        if self.max_outstanding_messages == 0 {
            return Err(ConfigError::Zero { field: "max_outstanding_messages" });
        }
        if self.max_outstanding_bytes == 0 {
            return Err(ConfigError::Zero { field: "max_outstanding_bytes" });
        }
        match self.ack_deadline {
            Some(deadline) => {
                check_range("stream ack deadline", deadline, &limits.stream_ack_deadline)
            }
            None => Ok(()),
        }
    }
}

pub(crate) fn check_range(
    field: &'static str,
    value: Duration,
    range: &RangeInclusive<Duration>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { field, value, min: *range.start(), max: *range.end() })
}

/// At most 64 labels; letters in lower case or without case, digits, `-` and `_`; a key starts
/// with a letter (RES-18).
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    if labels.len() > MAX_LABELS {
        return Err(ConfigError::TooManyLabels { count: labels.len(), max: MAX_LABELS });
    }
    let letter = |c: char| c.is_alphabetic() && !c.is_uppercase();
    let inner = |c: char| letter(c) || c.is_numeric() || matches!(c, '-' | '_');
    for (key, value) in labels {
        let key_fits = key.starts_with(letter) && key.chars().count() <= MAX_LABEL_CHARS;
        let value_fits = value.chars().count() <= MAX_LABEL_CHARS;
        if !key_fits || !value_fits || !key.chars().all(inner) || !value.chars().all(inner) {
            return Err(ConfigError::Label { key: key.clone(), value: value.clone() });
        }
    }
    Ok(())
}
