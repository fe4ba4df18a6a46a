//! Closing a bus, waiting for quiet, and a bus declared as one value.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bus::{Bus, timeout};
use crate::config::{SubscriptionConfig, TopicConfig};
use crate::error::AdminError;
use crate::shell::lifecycle::Quiet;
use crate::subscription::Subscription;
use crate::topic::Topic;

impl Bus {
    /// Closes the bus: nothing is handed out from now on, and once the last delivery is settled, or
    /// after `patience` of the bus's time, everything ends (LIB-46).
    ///
    /// Until then publishing goes on, so that handlers can send their replies; messages stay where
    /// they are. Then every waiting call and every later one gets an error that says closed.
    /// Answers how many deliveries were still in hand. Calling it again waits in the same way.
    ///
    /// # Cancel safety
    ///
    /// If dropped, nothing is handed out any more; the rest ends with the last [`Bus`], or the next
    /// call of this.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, SubscriptionConfig, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    /// topic.publish("order 1").await?;
    /// let delivery = billing.pull(1).await?.into_iter().next().expect("published");
    ///
    /// let closing = tokio::spawn({
    ///     let bus = bus.clone();
    ///     async move { bus.close(Duration::from_secs(5)).await }
    /// });
    /// delivery.ack();
    /// assert_eq!(closing.await?, 0, "everything was settled");
    /// assert!(topic.publish("too late").await.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn close(&self, patience: Duration) -> u64 {
        let core = self.core();
        core.begin_close();
        let _ = timeout(core, patience, core.wait_for(Quiet::Settled)).await;
        let unsettled = core.outstanding();
        core.close();
        unsettled
    }

    /// Waits until no subscription has a backlog: everything that was published has been settled
    /// (LIB-47). For tests; put a [`timeout`](Self::timeout) around it.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn wait_idle(&self) {
        self.core().wait_for(Quiet::Empty).await;
    }

    /// The topic with this name, created if there is none. One that is there keeps its
    /// configuration.
    ///
    /// # Errors
    ///
    /// As [`create_topic`](Self::create_topic), except that it exists.
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn get_or_create_topic(
        &self,
        name: &str,
        config: TopicConfig,
    ) -> Result<Topic, AdminError> {
        loop {
            match self.create_topic(name, config.clone()).await {
                Err(AdminError::AlreadyExists { .. }) => {}
                created => return created,
            }
            match self.topic(name).await {
                Err(AdminError::NotFound { .. }) => {}
                found => return found,
            }
        }
    }

    /// The subscription with this name, created on the topic if there is none. One that is there
    /// keeps its topic and its configuration.
    ///
    /// # Errors
    ///
    /// As [`create_subscription`](Self::create_subscription), except that it exists.
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn get_or_create_subscription(
        &self,
        name: &str,
        topic: &str,
        config: SubscriptionConfig,
    ) -> Result<Subscription, AdminError> {
        loop {
            match self.subscription(name).await {
                Err(AdminError::NotFound { .. }) => {}
                found => return found,
            }
            match self.create_subscription(name, topic, config.clone()).await {
                Err(AdminError::AlreadyExists { .. }) => {}
                created => return created,
            }
        }
    }

    /// Creates what of a topology is not there yet, topics first, in order of their names (LIB-48).
    /// What is there keeps its configuration.
    ///
    /// # Errors
    ///
    /// As [`create_topic`](Self::create_topic) and
    /// [`create_subscription`](Self::create_subscription), except that something exists. What was
    /// created before the error stays.
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn declare(&self, topology: &Topology) -> Result<(), AdminError> {
        for (name, config) in &topology.topics {
            self.get_or_create_topic(name, config.clone()).await?;
        }
        for (name, declared) in &topology.subscriptions {
            let config = declared.config.clone();
            self.get_or_create_subscription(name, &declared.topic, config).await?;
        }
        Ok(())
    }
}

/// Topics and subscriptions as one value: built in code, or read from a file with serde.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, SubscriptionConfig, TopicConfig, Topology};
///
/// let built = Topology::new()
///     .topic("orders", TopicConfig::new())
///     .subscription("billing", "orders", SubscriptionConfig::new());
///
/// let read: Topology = serde_json::from_str(
///     r#"{
///         "topics": { "orders": {} },
///         "subscriptions": { "billing": { "topic": "orders" } }
///     }"#,
/// )?;
/// assert_eq!(built, read);
///
/// let bus = Bus::new();
/// bus.declare(&read).await?;
/// assert_eq!(bus.subscription("billing").await?.topic_name(), "orders");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Topology {
    /// Topics by name.
    pub topics: BTreeMap<String, TopicConfig>,
    /// Subscriptions by name.
    pub subscriptions: BTreeMap<String, Declared>,
}

/// A subscription of a [`Topology`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Declared {
    /// The name of its topic.
    pub topic: String,
    /// How it behaves.
    #[serde(default)]
    pub config: SubscriptionConfig,
}

impl Topology {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a topic.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>, config: TopicConfig) -> Self {
        self.topics.insert(name.into(), config);
        self
    }

    /// Adds a subscription.
    #[must_use]
    pub fn subscription(
        mut self,
        name: impl Into<String>,
        topic: impl Into<String>,
        config: SubscriptionConfig,
    ) -> Self {
        self.subscriptions.insert(name.into(), Declared { topic: topic.into(), config });
        self
    }
}
