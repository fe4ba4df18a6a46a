//! Ordering keys cost memory only while they have messages (LIB-104): what a program that keeps
//! meeting new keys has in memory does not grow.
//!
//! Measured in resident pages, so it is alone in its process. Virtual time only.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use siftbus::{Bus, Clock, ManualClock, Message, SubscriptionConfig, TopicConfig};

const KEYS: usize = 50_000;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[tokio::test]
async fn lib_104_new_keys_use_the_memory_of_those_that_have_gone() {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let ordered = SubscriptionConfig::new().message_ordering(true);
    let worker = topic.subscribe("s", ordered).await.unwrap();
    let before = resident_bytes();
    let mut after_first = 0;
    for round in 0..10 {
        let keyed = |n| Message::new("x").with_ordering_key(format!("{round}-{n}"));
        topic.publish_many((0..KEYS).map(keyed)).await.unwrap();
        // Every key is held at once.
        let batch = worker.pull(KEYS).await.unwrap();
        assert_eq!(batch.len(), KEYS);
        let now = resident_bytes().saturating_sub(before);
        match round {
            0 => after_first = now,
            // A third more for what an allocator cannot use again.
            _ => assert!(now <= after_first * 4 / 3, "LIB-104: {now} after {after_first}"),
        }
        assert_eq!(batch.ack_all().done, KEYS);
    }
    bus.audit().assert_balanced();
}
