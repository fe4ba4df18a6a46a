//! Why a message would reach a subscription or not, where it stands there, and what is odd about a
//! filter: plain values.
//!
//! Nothing here changes anything. Filters are read anew from their text, so that what is shown are
//! the user's words and places; publishing keeps none of it.

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use crate::message::MessageId;
use crate::time::Time;

/// What a topic would do with a message, subscription by subscription.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, Filter, Message, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
/// let filter = Filter::parse(r#"attributes.region = "eu" AND NOT attributes:test"#)?;
/// topic.subscribe("billing", SubscriptionConfig::new().filter(filter)).await?;
///
/// let explanation = topic.explain(&Message::new("x").with_attribute("region", "us"));
/// assert_eq!(
///     explanation.to_string(),
///     "billing: no, `attributes.region = \"eu\"` is false: attributes.region is \"us\"\n",
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// One for each subscription, sorted by name.
    pub subscriptions: Vec<SubscriptionExplanation>,
}

/// Whether one subscription would get a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionExplanation {
    /// The subscription's name.
    pub subscription: String,
    /// The first clause of its filter that is false; `None`: it would get the message.
    pub failed: Option<FailedClause>,
}

impl SubscriptionExplanation {
    /// Whether it would get the message.
    pub fn matches(&self) -> bool {
        self.failed.is_none()
    }
}

/// A part of a filter that would have to be true and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedClause {
    /// The clause as it stands in the filter.
    pub text: String,
    /// Its bytes in the text of the filter.
    pub span: Range<usize>,
    /// What the clause asked about, and what the message has; `None` where that is absent.
    pub found: Vec<(String, Option<String>)>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subscriptions.iter().try_for_each(|subscription| writeln!(f, "{subscription}"))
    }
}

impl fmt::Display for SubscriptionExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failed {
            None => write!(f, "{}: yes", self.subscription),
            Some(clause) => write!(f, "{}: no, {clause}", self.subscription),
        }
    }
}

impl fmt::Display for FailedClause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is false", self.text)?;
        for (nth, (field, value)) in self.found.iter().enumerate() {
            f.write_str(if nth == 0 { ": " } else { ", " })?;
            match value {
                Some(value) => write!(f, "{field} is {}", crate::filter::quote(value))?,
                None => write!(f, "{field} is absent")?,
            }
        }
        Ok(())
    }
}

/// Where one message stands on one subscription, made by
/// [`Subscription::explain_delivery`](crate::Subscription::explain_delivery) (LIB-206).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryExplanation {
    /// The subscription's name.
    pub subscription: String,
    /// The message that was asked about.
    pub id: MessageId,
    /// Where it stands.
    pub standing: Standing,
    /// How often it was handed out; `None` once the subscription does not remember.
    pub attempts: Option<u32>,
    /// When it was published; `None` if it is gone or was not published yet.
    pub publish_time: Option<SystemTime>,
}

/// Where a message stands on a subscription.
///
/// On a subscription with ordering, [`Fresh`](Self::Fresh) and [`Ready`](Self::Ready) messages
/// still wait for earlier ones of their key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Never handed out, deliverable now.
    Fresh,
    /// Handed out before, deliverable now.
    Ready,
    /// In somebody's hand.
    Leased {
        /// The ack deadline.
        until: SystemTime,
    },
    /// Given back with a delay, or held back by the retry policy.
    Delayed {
        /// When it is deliverable again.
        until: SystemTime,
    },
    /// On its way to the dead-letter topic.
    Forwarding,
    /// Acknowledged, once earlier messages of its ordering key are.
    Provisional,
    /// Not delivered any more: acknowledged, sent to the dead-letter topic, purged, past its time
    /// to live, or dropped by retention or a limit of the backlog.
    Settled,
    /// The subscription's filter does not match.
    FilteredOut(FailedClause),
    /// It waits at its topic until it is published.
    Scheduled {
        /// When that is.
        until: SystemTime,
    },
    /// Published before the subscription began; a seek may bring it in.
    Earlier,
    /// Not in the topic's log: nobody needs it any more, or it was never published to this topic.
    Gone,
}

impl fmt::Display for DeliveryExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: message {} {}", self.subscription, self.id, self.standing)?;
        match self.attempts {
            None | Some(0) => Ok(()),
            Some(1) => f.write_str(", handed out once"),
            Some(attempts) => write!(f, ", handed out {attempts} times"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("is deliverable"),
            Self::Ready => f.write_str("is deliverable again"),
            Self::Leased { until } => write!(f, "is leased until {}", written(*until)),
            Self::Delayed { until } => write!(f, "is delayed until {}", written(*until)),
            Self::Forwarding => f.write_str("is on its way to the dead-letter topic"),
            Self::Provisional => f.write_str("is acknowledged once earlier ones of its key are"),
            Self::Settled => f.write_str("is settled"),
            Self::FilteredOut(clause) => write!(f, "is filtered out, {clause}"),
            Self::Scheduled { until } => write!(f, "is published at {}", written(*until)),
            Self::Earlier => f.write_str("is from before the subscription"),
            Self::Gone => f.write_str("is not in the log of the topic"),
        }
    }
}

fn written(time: SystemTime) -> String {
    Time::from_system(time).to_rfc3339()
}

/// Something about a filter that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterLint {
    /// No message can match.
    NeverMatches,
    /// Every message matches, although the filter is not empty.
    AlwaysMatches,
    /// The filter says the same without this part.
    NoEffect {
        /// The clause as it stands in the filter.
        text: String,
        /// Its bytes in the text of the filter.
        span: Range<usize>,
    },
    /// No message on this topic has had this attribute, as far as the topic remembers.
    KeyNeverSeen {
        /// The attribute's key.
        key: String,
    },
}

impl fmt::Display for FilterLint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverMatches => f.write_str("no message can match"),
            Self::AlwaysMatches => f.write_str("every message matches"),
            Self::NoEffect { text, .. } => write!(f, "`{text}` has no effect"),
            Self::KeyNeverSeen { key } => {
                write!(f, "no message has had the attribute {} yet", crate::filter::quote(key))
            }
        }
    }
}

/// The filters of a topic by what they cost a publish.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct FilterStats {
    /// Different filters; equal ones count once.
    pub filters: usize,
    /// Subscriptions with a filter.
    pub subscriptions: usize,
    /// Filters that a look-up decides.
    pub exact: usize,
    /// Filters that a look-up finds and that are then checked.
    pub indexed: usize,
    /// Filters that are checked for each message with a certain attribute.
    pub presence: usize,
    /// Filters that may be checked for every message.
    pub scan: usize,
    /// Filters that match everything or nothing.
    pub constant: usize,
    /// Subscriptions that share a filter with an earlier one.
    pub shared: usize,
    /// Places in the index.
    pub entries: usize,
    /// Bytes of the index; the filters' texts and trees come on top.
    pub memory_bytes: usize,
}
