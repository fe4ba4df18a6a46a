//! The policies of a subscription for deliveries that fail: retry and dead letter. Plain values.
//!
//! Setters take anything; ranges are checked against the bus's limits when the value is used. How
//! a policy acts is in `broker/policy.rs`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::config::check_range;
use crate::error::ConfigError;
use crate::limits::{
    DEFAULT_DELIVERY_ATTEMPTS, DEFAULT_MAXIMUM_BACKOFF, DEFAULT_MINIMUM_BACKOFF, Limits,
};

/// How long a message waits after a failed delivery before it is handed out again (RTY-2).
///
/// The delay before redelivery `n` is `minimum_backoff × 2^(n − 1)`, at most `maximum_backoff`,
/// counted from the nack or from the lapse, for each message by itself (RTY-3). Other messages are
/// not held up, unless they have the same ordering key (ORD-11).
///
/// ```
/// use siftbus::{RetryPolicy, SubscriptionConfig};
/// use std::time::Duration;
///
/// let retry = RetryPolicy::new()
///     .minimum_backoff(Duration::from_secs(1))
///     .maximum_backoff(Duration::from_secs(60));
/// let config = SubscriptionConfig::new().retry_policy(retry);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The delay before the first redelivery. Default: 10 s (RTY-4). With zero every delay is zero.
    pub minimum_backoff: Duration,
    /// The longest delay. Default: 600 s (RTY-4).
    pub maximum_backoff: Duration,
    /// By how many percent of itself a delay may be shorter, chosen at random from the bus's seed.
    /// Default: 0, no jitter (LIB-101).
    pub jitter_percent: u8,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            minimum_backoff: DEFAULT_MINIMUM_BACKOFF,
            maximum_backoff: DEFAULT_MAXIMUM_BACKOFF,
            jitter_percent: 0,
        }
    }
}

impl RetryPolicy {
    /// From 10 s to 600 s, without jitter.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the delay before the first redelivery; rounded up to whole milliseconds.
    #[must_use]
    pub fn minimum_backoff(mut self, backoff: Duration) -> Self {
        self.minimum_backoff = backoff;
        self
    }

    /// Sets the longest delay; rounded up to whole milliseconds.
    #[must_use]
    pub fn maximum_backoff(mut self, backoff: Duration) -> Self {
        self.maximum_backoff = backoff;
        self
    }

    /// Lets every delay be shorter by up to this share of itself; at most 100.
    #[must_use]
    pub fn jitter_percent(mut self, percent: u8) -> Self {
        self.jitter_percent = percent;
        self
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        check_range("minimum_backoff", self.minimum_backoff, &limits.retry_backoff)?;
        check_range("maximum_backoff", self.maximum_backoff, &limits.retry_backoff)?;
        let above_minimum = self.minimum_backoff..=*limits.retry_backoff.end();
        check_range("maximum_backoff", self.maximum_backoff, &above_minimum)?;
        if self.jitter_percent > 100 {
            return Err(ConfigError::Jitter { percent: self.jitter_percent });
        }
        Ok(())
    }
}

/// Where a message goes that cannot be processed, and after how many deliveries (DLQ-1).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, DeadLetterPolicy, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let orders = bus.create_topic("orders", TopicConfig::new()).await?;
/// let failed = bus.create_topic("failed-orders", TopicConfig::new()).await?;
/// let inspect = failed.subscribe("inspect", SubscriptionConfig::new()).await?;
///
/// let policy = DeadLetterPolicy::new("failed-orders").max_delivery_attempts(1);
/// let config = SubscriptionConfig::new().dead_letter_policy(policy);
/// let billing = orders.subscribe("billing", config).await?;
/// orders.publish("bad").await?;
/// billing.pull(1).await?.nack_all();
///
/// let dead = inspect.pull(1).await?.into_iter().next().expect("forwarded");
/// assert_eq!(dead.attribute(siftbus::DEAD_LETTER_SOURCE_DELIVERY_COUNT), Some("1"));
/// assert_eq!(dead.attribute(siftbus::DEAD_LETTER_SOURCE_SUBSCRIPTION), Some("billing"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DeadLetterPolicy {
    /// The name of the topic that gets what failed; it has to exist when the policy is set.
    pub dead_letter_topic: String,
    /// How many deliveries may fail. Default: 5 (LIM-20).
    #[serde(default = "default_attempts", deserialize_with = "attempts_or_default")]
    pub max_delivery_attempts: u32,
}

impl DeadLetterPolicy {
    /// After five failed deliveries to the topic of that name.
    pub fn new(dead_letter_topic: impl Into<String>) -> Self {
        Self {
            dead_letter_topic: dead_letter_topic.into(),
            max_delivery_attempts: DEFAULT_DELIVERY_ATTEMPTS,
        }
    }

    /// Sets how many deliveries may fail; zero means the default (DLQ-2).
    #[must_use]
    pub fn max_delivery_attempts(mut self, attempts: u32) -> Self {
        self.max_delivery_attempts = nonzero_attempts(attempts);
        self
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        let (value, range) = (self.max_delivery_attempts, &limits.dead_letter_attempts);
        if range.contains(&value) {
            return Ok(());
        }
        Err(ConfigError::DeliveryAttempts { value, min: *range.start(), max: *range.end() })
    }
}

fn default_attempts() -> u32 {
    DEFAULT_DELIVERY_ATTEMPTS
}

fn attempts_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    u32::deserialize(deserializer).map(nonzero_attempts)
}

/// Zero means the default (DLQ-2).
fn nonzero_attempts(attempts: u32) -> u32 {
    if attempts == 0 { DEFAULT_DELIVERY_ATTEMPTS } else { attempts }
}
