//! Section 13.1: how long messages live (RET). What a seek makes of it is in `seek.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use siftbus::{
    Filter, Limits, Message, Outcome, SubscriptionConfig, SubscriptionUpdate, TopicConfig,
    TopicUpdate,
};

use crate::support::{
    DAY, HOUR, MILLI, MINUTE, SECOND, World, drain, manual_bus, nothing_ready, take_one,
};

#[tokio::test(start_paused = true)]
async fn ret_01_an_unacked_message_lives_for_the_retention_counted_from_publish() {
    let w = World::with(SubscriptionConfig::new().retention(HOUR)).await;
    w.publish(&["a"]).await;
    w.clock.advance(30 * MINUTE);
    w.publish(&["b"]).await;
    take_one(&w.worker).nack().await.unwrap();
    w.clock.advance(30 * MINUTE - MILLI);
    assert_eq!(w.worker.stats().backlog, 2);
    // RET-1: at publish time + retention, whatever was tried with it in between.
    w.clock.advance(MILLI);
    assert_eq!(w.worker.stats().backlog, 1);
    assert_eq!(drain(&w.worker), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn ret_01_the_default_is_seven_days() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    w.clock.advance(7 * DAY - MILLI);
    assert_eq!(take_one(&w.worker).ack().await.unwrap(), Outcome::Done);
    w.clock.advance(MILLI);
    assert!(nothing_ready(&w.worker)); // RET-1, LIM-16
}

#[tokio::test(start_paused = true)]
async fn ret_02_a_topic_keeps_messages_for_its_retention_acked_or_not() {
    let topic = TopicConfig::new().retention(HOUR);
    let w = World::build(Limits::embedded(), topic, SubscriptionConfig::new()).await;
    w.publish(&["acked", "pending"]).await;
    take_one(&w.worker).ack().await.unwrap();
    w.clock.advance(HOUR - MILLI);
    assert_eq!(w.topic.stats().retained_messages, 2); // RET-2
    w.worker.delete().await.unwrap();
    assert_eq!(w.topic.stats().retained_messages, 2);
    w.clock.advance(MILLI);
    settle(&w);
    assert_eq!(w.topic.stats().retained_messages, 0); // RET-7: freed within a second
}

#[tokio::test(start_paused = true)]
async fn ret_02_an_unacked_message_lives_for_the_longer_of_both_retentions() {
    let topic = TopicConfig::new().retention(HOUR);
    let short = SubscriptionConfig::new().retention(10 * MINUTE);
    let w = World::build(Limits::embedded(), topic, short).await;
    let long = SubscriptionConfig::new().retention(2 * HOUR);
    let long = w.topic.subscribe("long", long).await.unwrap();
    w.publish(&["a"]).await;
    // RET-2: max(subscription, topic).
    w.clock.advance(HOUR - MILLI);
    assert_eq!((w.worker.stats().backlog, long.stats().backlog), (1, 1));
    take_one(&w.worker).nack().await.unwrap();
    w.clock.advance(MILLI);
    assert_eq!((w.worker.stats().backlog, long.stats().backlog), (0, 1));
    assert!(nothing_ready(&w.worker));
    w.clock.advance(HOUR - MILLI);
    assert_eq!(long.stats().backlog, 1);
    w.clock.advance(MILLI);
    assert!(nothing_ready(&long));
}

#[tokio::test(start_paused = true)]
async fn ret_05_the_topics_retention_can_be_set_changed_and_cleared() {
    let w = World::with(SubscriptionConfig::new().retention(10 * MINUTE)).await;
    let set = TopicUpdate::new().retention(Some(HOUR));
    assert_eq!(w.topic.update(set).await.unwrap().retention, Some(HOUR));
    w.publish(&["a"]).await;
    w.clock.advance(20 * MINUTE);
    assert_eq!(w.worker.stats().backlog, 1); // RET-2
    let cleared = w.topic.update(TopicUpdate::new().retention(None)).await.unwrap();
    assert_eq!(cleared.retention, None); // RET-5
    assert_eq!(w.worker.stats().backlog, 0); // RET-8
}

#[tokio::test(start_paused = true)]
async fn ret_07_no_expired_message_is_delivered_and_its_storage_is_freed() {
    let w = World::with(SubscriptionConfig::new().retention(HOUR)).await;
    let freed = Arc::new(AtomicUsize::new(0));
    for _ in 0..5_000 {
        w.topic.publish(Counted::bytes(&freed)).await.unwrap();
    }
    w.clock.advance(HOUR);
    assert!(nothing_ready(&w.worker)); // RET-7: exact
    settle(&w);
    assert_eq!(w.worker.stats().backlog, 0);
    assert_eq!(w.topic.stats().retained_messages, 0);
    // L2: two segments of 256 may be held beyond what lives.
    let held = 5_000 - freed.load(Ordering::SeqCst);
    assert!(held <= 512, "{held} messages are still in memory");
}

#[tokio::test(start_paused = true)]
async fn ret_07_nothing_is_swept_where_nothing_can_expire() {
    let w = World::with(SubscriptionConfig::new().retention(HOUR)).await;
    w.publish(&["acked", "expires"]).await;
    take_one(&w.worker).ack().await.unwrap();
    let start = w.clock.now();
    w.clock.advance(2 * HOUR);
    let mut instants = 0;
    while let Some(due) = w.clock.next_due().filter(|due| *due < start + 7 * DAY) {
        w.clock.advance_to(due);
        instants += 1;
    }
    // D17: nothing polls. Everything is gone, and until the expiration nothing is due.
    assert!(instants < 5, "{instants} instants in a week in which nothing can happen");
}

#[tokio::test(start_paused = true)]
async fn ret_08_a_shorter_retention_applies_to_stored_messages_at_once() {
    let w = World::new().await;
    w.publish(&["old"]).await;
    let held = take_one(&w.worker);
    w.clock.advance(HOUR);
    w.publish(&["young"]).await;
    let config = w.worker.update(SubscriptionUpdate::new().retention(30 * MINUTE)).await.unwrap();
    assert_eq!(config.retention, Some(30 * MINUTE));
    // RET-8
    assert_eq!(w.worker.stats().backlog, 1);
    assert_eq!(held.ack().await.unwrap(), Outcome::Stale); // LS-15
    // What is gone stays gone when the retention grows again.
    w.worker.update(SubscriptionUpdate::new().retention(DAY)).await.unwrap();
    assert_eq!(drain(&w.worker), ["young"]);
}

#[tokio::test(start_paused = true)]
async fn ret_08_a_longer_retention_applies_to_stored_messages_too() {
    let w = World::with(SubscriptionConfig::new().retention(MINUTE)).await;
    w.publish(&["a"]).await;
    w.clock.advance(MINUTE - MILLI);
    w.worker.update(SubscriptionUpdate::new().retention(HOUR)).await.unwrap();
    w.clock.advance(59 * MINUTE);
    assert_eq!(w.worker.stats().backlog, 1);
    w.clock.advance(MILLI);
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn ret_08_a_longer_retention_of_the_topic_revives_nothing() {
    let w = World::with(SubscriptionConfig::new().retention(HOUR)).await;
    w.publish(&["first"]).await;
    w.clock.advance(SECOND / 2);
    w.publish(&["second"]).await;
    // LS-15: both are gone here, whatever a sweep has seen of it (RET-7).
    w.clock.advance(HOUR);
    w.topic.update(TopicUpdate::new().retention(Some(DAY))).await.unwrap();
    assert_eq!(w.worker.stats().backlog, 0);
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn ret_02_the_topics_retention_ends_with_the_topic() {
    let topic = TopicConfig::new().retention(DAY);
    let short = SubscriptionConfig::new().retention(HOUR);
    let w = World::build(Limits::embedded(), topic, short).await;
    w.publish(&["old"]).await;
    w.clock.advance(HOUR);
    w.publish(&["young"]).await;
    assert_eq!(w.worker.stats().backlog, 2);
    w.topic.delete().await.unwrap();
    // L15: the subscription keeps its backlog (RES-11) for its own retention.
    assert_eq!(w.worker.stats().backlog, 1);
    w.clock.advance(HOUR - MILLI);
    assert_eq!(drain(&w.worker), ["young"]);
}

#[tokio::test(start_paused = true)]
async fn ret_09_without_topic_retention_a_message_stays_until_every_subscription_acked_it() {
    let w = World::new().await;
    let second = w.topic.subscribe("second", SubscriptionConfig::new()).await.unwrap();
    let freed = Arc::new(AtomicUsize::new(0));
    for _ in 0..5_000 {
        w.topic.publish(Counted::bytes(&freed)).await.unwrap();
    }
    w.worker.try_pull(10_000).unwrap().ack_all();
    assert_eq!(w.topic.stats().retained_messages, 5_000); // RET-9
    assert_eq!(freed.load(Ordering::SeqCst), 0);
    second.try_pull(10_000).unwrap().ack_all();
    let held = 5_000 - freed.load(Ordering::SeqCst);
    assert!(held <= 512, "{held} messages are still in memory"); // RET-9, L2
}

#[tokio::test(start_paused = true)]
async fn ret_09_messages_are_gone_with_the_last_subscription() {
    let w = World::new().await;
    let second = w.topic.subscribe("second", SubscriptionConfig::new()).await.unwrap();
    let freed = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        w.topic.publish(Counted::bytes(&freed)).await.unwrap();
    }
    w.worker.delete().await.unwrap();
    assert_eq!((w.topic.stats().retained_messages, freed.load(Ordering::SeqCst)), (100, 0));
    second.delete().await.unwrap();
    settle(&w);
    // RET-9, RES-13
    assert_eq!(w.topic.stats().retained_messages, 0);
    assert_eq!(freed.load(Ordering::SeqCst), 100);
}

#[tokio::test(start_paused = true)]
async fn ret_09_a_message_nobody_takes_is_not_kept() {
    let (_clock, bus) = manual_bus(Limits::embedded());
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let freed = Arc::new(AtomicUsize::new(0));
    topic.publish(Counted::bytes(&freed)).await.unwrap();
    assert_eq!(freed.load(Ordering::SeqCst), 1); // RET-9, PUB-9, L2
    assert_eq!((topic.stats().retained_messages, topic.stats().retained_bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn ret_08_what_was_past_its_retention_does_not_come_back_by_a_longer_one() {
    let topic = TopicConfig::new().retention(SECOND / 2);
    let w = World::build(Limits::embedded(), topic, SubscriptionConfig::new()).await;
    let start = w.clock.now();
    w.publish(&["swept"]).await;
    w.clock.advance(SECOND / 2);
    w.publish(&["a"]).await;
    assert_eq!(drain(&w.worker), ["swept", "a"]);
    w.clock.advance(SECOND / 2);
    // RET-7: it may still be in memory, but it is past its retention.
    w.topic.update(TopicUpdate::new().retention(Some(HOUR))).await.unwrap();
    w.worker.seek(start).await.unwrap();
    assert!(nothing_ready(&w.worker), "RET-8");
}

#[tokio::test(start_paused = true)]
async fn ret_08_nor_does_what_a_seek_has_not_come_to_yet() {
    let topic = TopicConfig::new().retention(SECOND);
    let evens = SubscriptionConfig::new().filter(Filter::has("k")).retention(SECOND);
    let w = World::build(Limits::embedded(), topic, evens).await;
    let start = w.clock.now();
    let message = |text| Message::new(text).with_attribute("k", "");
    w.topic.publish_many(["a", "b"].map(message)).await.unwrap();
    w.worker.try_pull(2).unwrap().ack_all();
    w.worker.seek(start).await.unwrap();
    w.clock.advance(SECOND);
    // LIB-141: it has not looked through the log yet.
    w.worker.update(SubscriptionUpdate::new().retention(HOUR)).await.unwrap();
    assert!(nothing_ready(&w.worker), "RET-8, RET-1");
}

/// The sweep of RET-7 has a second of the clock's time.
fn settle(w: &World) {
    w.clock.advance(SECOND);
}

/// Payload that counts when its memory is given back.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn bytes(freed: &Arc<AtomicUsize>) -> Bytes {
        Bytes::from_owner(Counted(Arc::clone(freed)))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        b"payload"
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
