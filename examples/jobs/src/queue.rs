//! Queues: where the messages of jobs wait for workers.
//!
//! Jobs of a priority above zero, of zero and below it wait in lanes of their own, each a topic
//! with one subscription; workers take from the first lane that has something.

use std::time::Duration;

use siftbus::{
    AckId, AdminError, Bus, Deliveries, Expiration, PullError, Subscription, SubscriptionConfig,
    Topic, TopicConfig,
};

/// A queue with its lanes, the one that is taken from first at the front.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    lanes: [Lane; 3],
}

#[derive(Clone, Debug)]
struct Lane {
    topic: Topic,
    source: Subscription,
}

/// Messages that a worker has taken from one lane.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) deliveries: Deliveries,
    pub(crate) lane: usize,
}

/// Jobs stay in the bus for as long as it takes: ten years.
const KEEP: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

impl Queue {
    /// The queue of a topic: what is not there is made. Jobs of priority zero use the topic itself,
    /// the others `{topic}+urgent` and `{topic}+idle`; workers pull from `{topic}-worker` and so
    /// on.
    pub(crate) async fn make(bus: &Bus, topic: Topic) -> Result<Self, AdminError> {
        let urgent = open_topic(bus, &format!("{}+urgent", topic.name())).await?;
        let idle = open_topic(bus, &format!("{}+idle", topic.name())).await?;
        let lanes = [
            Lane::make(bus, urgent).await?,
            Lane::make(bus, topic).await?,
            Lane::make(bus, idle).await?,
        ];
        Ok(Self { lanes })
    }

    /// Where jobs of a priority are published to.
    pub(crate) fn topic(&self, priority: i32) -> &Topic {
        let [urgent, usual, idle] = &self.lanes;
        let lane = match priority.signum() {
            1 => urgent,
            0 => usual,
            _ => idle,
        };
        &lane.topic
    }

    /// Waits for messages, and takes at most so many from the first lane that has some; they are
    /// the worker's own for the lease (J-31).
    ///
    /// # Cancel safety
    ///
    /// If dropped, nothing was taken.
    pub(crate) async fn pull(&self, max: usize, lease: Duration) -> Result<Pulled, PullError> {
        let [urgent, usual, idle] = &self.lanes;
        let (lane, deliveries) = tokio::select! {
            biased;
            pulled = urgent.source.pull(max) => (0, pulled?),
            pulled = usual.source.pull(max) => (1, pulled?),
            pulled = idle.source.pull(max) => (2, pulled?),
        };
        // All lanes are configured alike.
        if usual.source.config().ack_deadline != lease {
            // A lease out of the bus's range keeps the subscription's deadline; heartbeats go on.
            let _ = deliveries.set_deadline(lease);
        }
        Ok(Pulled { deliveries, lane })
    }

    /// Says that messages go on being worked on, each with the lane that it came from.
    pub(crate) async fn extend(&self, messages: &[(usize, AckId)], lease: Duration) {
        for (number, lane) in self.lanes.iter().enumerate() {
            let of_lane = messages.iter().filter(|(of, _)| *of == number);
            let ids: Vec<AckId> = of_lane.map(|(_, id)| id.clone()).collect();
            if !ids.is_empty() {
                // A deadline that could not be moved shows as a second delivery, which waits for
                // the lease.
                let _ = lane.source.modify_ack_deadline(&ids, lease).await;
            }
        }
    }
}

impl Lane {
    async fn make(bus: &Bus, topic: Topic) -> Result<Self, AdminError> {
        let config = SubscriptionConfig::new()
            .retention(KEEP.min(*bus.limits().retention.end()))
            .expiration(Expiration::Never);
        let name = format!("{}-worker", topic.name());
        let source = match topic.subscribe(&name, config).await {
            Err(AdminError::AlreadyExists { .. }) => bus.subscription(&name).await?,
            made => made?,
        };
        Ok(Self { topic, source })
    }
}

/// A topic, which is made if it is not there.
pub(crate) async fn open_topic(bus: &Bus, name: &str) -> Result<Topic, AdminError> {
    match bus.create_topic(name, TopicConfig::new()).await {
        Err(AdminError::AlreadyExists { .. }) => bus.topic(name).await,
        made => made,
    }
}
