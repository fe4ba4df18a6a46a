//! Rows 12, 13 and keys: bytes in memory of a backlog, of leases and of ordering keys.
//!
//! Counted in resident pages, so nothing is given back before the end of the program: what was
//! given back could be used again unseen.

use siftbus::{Budget, Bus, Filter, Message, Subscription, SubscriptionConfig, TopicConfig};

use crate::cycle::{BATCH, world};
use crate::measure::{one_thread, payload, resident_bytes};
use crate::table::{Goal, Line, Table};

const MESSAGES: usize = 300_000;
/// Subscriptions beyond the first.
const FURTHER: usize = 10;

fn add(table: &mut Table, row: &'static str, what: &str, bytes: f64, goal: f64, stretch: Goal) {
    table.add(Line {
        row,
        what: what.into(),
        ours: format!("{bytes:.2} B"),
        peer: String::new(),
        judged: bytes,
        goal: Goal::AtMost(goal),
        stretch,
    });
}

/// How many bytes each message of a backlog of `MESSAGES` adds.
async fn filled(further: impl Fn(usize) -> SubscriptionConfig, count: usize) -> f64 {
    let bus = Bus::builder().budget(Budget::unlimited()).build();
    let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
    topic.subscribe("first", SubscriptionConfig::new()).await.unwrap();
    for number in 0..count {
        topic.subscribe(&format!("further-{number}"), further(number)).await.unwrap();
    }
    let before = resident_bytes();
    for _ in 0..MESSAGES / BATCH {
        let messages = (0..BATCH).map(|_| Message::new(vec![7; 100]));
        topic.publish_many(messages).await.unwrap();
    }
    std::mem::forget(bus);
    (resident_bytes() - before) as f64 / MESSAGES as f64
}

pub(crate) fn backlog(table: &mut Table) {
    let runtime = one_thread();
    let plain = |_| SubscriptionConfig::new();
    // Each has a filter of its own, which lets everything through.
    let filter = |number| Filter::parse(&format!("NOT attributes:absent{number}")).unwrap();
    let filtered = |number| SubscriptionConfig::new().filter(filter(number));
    let alone = runtime.block_on(filled(plain, 0));
    let beside = runtime.block_on(filled(plain, FURTHER));
    let entries = runtime.block_on(filled(filtered, FURTHER));
    let each = |more: f64| (more - alone).max(0.0) / FURTHER as f64;
    let what = "memory of a message of 100 B in a backlog, payload included";
    add(table, "12", what, alone, 200.0, Goal::AtMost(132.0));
    let what = "the same, more for each further subscription without filter";
    add(table, "12", what, each(beside), 1.0, Goal::Shown);
    let what = "the same, more for each further subscription with a filter of its own";
    add(table, "12", what, each(entries), 16.0, Goal::Shown);
}

/// Takes everything and keeps the leases, as somebody does who acknowledges later by id.
async fn lease_all(subscription: &Subscription) {
    for _ in 0..MESSAGES / BATCH {
        let batch = subscription.pull(BATCH).await.unwrap();
        let ids = batch.into_iter().map(siftbus::Delivery::into_ack_id);
        assert_eq!(ids.count(), BATCH);
    }
    assert_eq!(subscription.stats().outstanding, MESSAGES as u64);
}

pub(crate) fn leases(table: &mut Table) {
    let runtime = one_thread();
    let bus = Bus::builder().budget(Budget::unlimited()).build();
    let (bus, topic, subscription) = runtime.block_on(world(bus, SubscriptionConfig::new()));
    let payload = payload(16);
    for _ in 0..MESSAGES / BATCH {
        topic.try_publish_many((0..BATCH).map(|_| Message::new(payload.clone()))).unwrap();
    }
    let before = resident_bytes();
    runtime.block_on(lease_all(&subscription));
    let bytes = (resident_bytes() - before) as f64 / MESSAGES as f64;
    std::mem::forget(bus);
    add(table, "13", "memory of an outstanding lease", bytes, 16.0, Goal::Shown);
}

/// A million messages, each with an ordering key of its own, held and then acknowledged; and
/// another million with other keys. What the allocator keeps for its next use is no one's.
pub(crate) fn keys(table: &mut Table) {
    const KEYS: usize = 1_000_000;
    let runtime = one_thread();
    let bus = Bus::builder().budget(Budget::unlimited()).build();
    let config = SubscriptionConfig::new().message_ordering(true);
    let (bus, topic, subscription) = runtime.block_on(world(bus, config));
    let payload = payload(16);
    let hold_and_ack = |round: usize| {
        for first in (0..KEYS).step_by(BATCH) {
            let key = |n| format!("{round}-{n:010}");
            let keyed = |n| Message::new(payload.clone()).with_ordering_key(key(n));
            topic.try_publish_many((first..first + BATCH).map(keyed)).unwrap();
        }
        let published = resident_bytes();
        let mut batches = Vec::new();
        while batches.len() < KEYS / BATCH {
            batches.push(runtime.block_on(subscription.pull(BATCH)).unwrap());
        }
        let held = resident_bytes();
        let done: usize = batches.into_iter().map(|batch| batch.ack_all().done).sum();
        assert_eq!((done, subscription.stats().backlog), (KEYS, 0));
        (published, held)
    };
    let (published, held) = hold_and_ack(0);
    let (_, held_again) = hold_and_ack(1);
    std::mem::forget(bus);
    let each = |bytes: usize| bytes as f64 / KEYS as f64;
    let what = "memory of an ordering key that has a message, lease and batch included";
    add(table, "keys", what, each(held - published), 250.0, Goal::Shown);
    let what = "what a million others add to it, message included, once the first have gone";
    add(table, "keys", what, each(held_again.saturating_sub(held)), 25.0, Goal::Shown);
}
