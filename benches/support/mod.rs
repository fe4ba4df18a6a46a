//! What the benches share: runtimes, payloads, a topic with subscriptions.

use bytes::Bytes;
use siftbus::{Bus, Subscription, SubscriptionConfig, Topic, TopicConfig};

/// A runtime on the calling thread.
pub(crate) fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// A payload whose clones share one allocation.
pub(crate) fn payload(bytes: usize) -> Bytes {
    let payload = Bytes::from(vec![7; bytes]);
    drop(payload.clone());
    payload
}

/// A topic with so many unfiltered subscriptions.
pub(crate) async fn fan(subscriptions: usize) -> (Bus, Topic, Vec<Subscription>) {
    let bus = Bus::new();
    let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
    let mut all = Vec::with_capacity(subscriptions);
    for number in 0..subscriptions {
        let config = SubscriptionConfig::new();
        all.push(topic.subscribe(&format!("subscription-{number}"), config).await.unwrap());
    }
    (bus, topic, all)
}
