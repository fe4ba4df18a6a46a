//! How many bytes of payload a bus keeps alive: never much more than what is still needed (L2).
//!
//! Payloads count themselves when they are made and dropped, so whatever the bus holds, for
//! whatever reason, is seen here. Virtual time only.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use siftbus::{
    Bus, Clock, Expiration, Filter, ManualClock, Message, Subscription, SubscriptionConfig, Topic,
    TopicConfig,
};

/// A closed segment has at most so many bytes, and one message more.
const SEGMENT: usize = 256 * 1024;
const LARGE: usize = 64 * 1024;

#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

struct Payload {
    bytes: Vec<u8>,
    counter: Counter,
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.counter.0.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

impl Counter {
    fn message(&self, size: usize) -> Message {
        self.0.fetch_add(size, Ordering::SeqCst);
        let payload = Payload { bytes: vec![0; size], counter: self.clone() };
        Message::new(Bytes::from_owner(payload))
    }

    fn held(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// L2: at most twice what is live, and two segments of the topic.
fn bound(live: usize, size: usize) -> usize {
    2 * live * size + 2 * (SEGMENT + size)
}

async fn world() -> (ManualClock, Bus, Topic, Subscription) {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    (clock, bus, topic, worker)
}

#[tokio::test]
async fn stuck_messages_keep_themselves_only() {
    let (_clock, bus, topic, worker) = world().await;
    let counter = Counter::default();
    let mut stuck = Vec::new();
    for nth in 0..12_000 {
        topic.publish(counter.message(LARGE)).await.unwrap();
        let delivery = worker.try_pull(1).unwrap().into_iter().next().unwrap();
        if nth % 1_000 == 0 {
            stuck.push(delivery.into_ack_id());
        } else {
            delivery.ack();
        }
        // A window has at most 512 words more than eight for each that is live; then survivors
        // move aside, and what lies behind them goes.
        let window = 8 * stuck.len() + 512;
        assert!(counter.held() <= window * LARGE + bound(stuck.len(), LARGE), "L2, at {nth}");
    }
    assert_eq!(worker.stats().backlog, stuck.len() as u64);
    bus.audit().assert_balanced();
    worker.acknowledge(&stuck).await.unwrap();
    drop(topic);
    worker.delete().await.unwrap();
    assert_eq!(counter.held(), 0, "RET-9");
}

#[tokio::test]
async fn a_rare_filter_keeps_what_it_matches() {
    let (_clock, bus, topic, worker) = world().await;
    let counter = Counter::default();
    let rare = SubscriptionConfig::new().filter(Filter::has("rare"));
    let rare = topic.subscribe("rare", rare).await.unwrap();
    let mut matched = 0;
    for nth in 0..5_000 {
        let mut message = counter.message(LARGE);
        if nth % 1_000 == 0 {
            message = message.with_attribute("rare", "1");
            matched += 1;
        }
        topic.publish(message).await.unwrap();
        worker.try_pull(1).unwrap().ack_all();
        assert!(counter.held() <= bound(matched, LARGE), "L2: {} at {nth}", counter.held());
    }
    assert_eq!((rare.stats().backlog, rare.stats().filtered_out), (5, 4_995));
    bus.audit().assert_balanced();
}

#[tokio::test]
async fn abandoned_reply_subscriptions_leave_nothing() {
    const SIZE: usize = 1_024;
    let (clock, bus, topic, worker) = world().await;
    let counter = Counter::default();
    let hour = Duration::from_secs(3_600);
    for nth in 0..10_000 {
        let name = format!("reply-{nth}");
        let config = SubscriptionConfig::new()
            .filter(Filter::eq("to", &name))
            .expiration(Expiration::After(hour));
        topic.subscribe(&name, config).await.unwrap();
        topic.publish(counter.message(SIZE).with_attribute("to", &name)).await.unwrap();
        // Nine that nobody else needs for each that somebody waits for.
        for _ in 0..9 {
            topic.publish(counter.message(SIZE)).await.unwrap();
        }
        worker.try_pull(10).unwrap().ack_all();
        if nth % 500 == 0 {
            assert!(counter.held() <= bound(nth + 1, SIZE), "L2: {} at {nth}", counter.held());
        }
    }
    bus.audit().assert_balanced();
    worker.delete().await.unwrap();
    clock.advance(hour);
    assert_eq!(bus.subscriptions().len(), 0, "EXP-2");
    assert_eq!(counter.held(), 0, "RET-9");
    bus.audit().assert_balanced();
}
