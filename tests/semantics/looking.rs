//! Rules of our own: statistics and looking at messages (LIB-22, LIB-50), and hostile consumers.

use std::pin::pin;

use siftbus::{
    BacklogLimit, Budget, Bus, Expiration, MessageState, Outcome, SubscriptionConfig, TopicConfig,
};

use crate::support::{MINUTE, SECOND, World, drain, poll_once, take, take_one};

#[tokio::test(start_paused = true)]
async fn lib_50_peeking_shows_the_backlog_and_changes_nothing() {
    let w = World::with(
        SubscriptionConfig::new().expiration(Expiration::After(MINUTE)).ack_deadline(MINUTE),
    )
    .await;
    let ids = w.publish(&["0", "1", "2", "3"]).await;
    let mut held = take(&w.worker, 3).into_iter();
    held.next().unwrap().ack();
    let outstanding = held.next().unwrap();
    held.next().unwrap().nack_after(10 * SECOND);
    let seen = w.worker.peek(10);
    let short: Vec<_> = seen.iter().map(|p| (p.id, p.state, p.attempts)).collect();
    let expected = [
        (ids[1], MessageState::Outstanding, 1),
        (ids[2], MessageState::Delayed, 1),
        (ids[3], MessageState::Fresh, 0),
    ];
    assert_eq!(short, expected, "LIB-50");
    assert_eq!((seen[0].message.data().as_ref(), w.worker.peek(2).len()), (&b"1"[..], 2));
    drop(outstanding);
    assert_eq!(w.worker.peek(1)[0].state, MessageState::Ready);
    let messages = w.topic.messages(2);
    assert_eq!(messages.iter().map(|p| p.id).collect::<Vec<_>>(), ids[2..], "LIB-50");
    w.clock.advance(MINUTE);
    assert!(w.worker.peek(1).is_empty(), "LIB-50: looking is no activity");
}

#[tokio::test(start_paused = true)]
async fn lib_22_statistics_of_all_three() {
    let budget = Budget::new(1_000_000);
    let bus = Bus::builder().budget(budget).build();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let limited = SubscriptionConfig::new().backlog_limit(BacklogLimit::new(2));
    let worker = topic.subscribe("s", limited).await.unwrap();
    topic.publish_many(["0", "1"]).await.unwrap();
    tokio::time::advance(5 * SECOND).await;
    let mut waiting = pin!(topic.publish("2"));
    assert!(poll_once(waiting.as_mut()).is_pending());
    let stats = worker.stats();
    assert_eq!(stats.oldest_unacked_age, Some(5 * SECOND), "LIB-22");
    assert_eq!((stats.accepted, stats.blocks_publishers), (2, true), "LIB-22");
    let of_topic = topic.stats();
    assert_eq!((of_topic.publishers_waiting, of_topic.published), (1, 2), "LIB-22");
    assert_eq!(of_topic.waiting_for.as_deref(), Some("s"), "LIB-22");
    let of_bus = bus.stats();
    assert_eq!((of_bus.topics, of_bus.subscriptions, of_bus.backlog), (1, 1, 2), "LIB-22");
    assert_eq!((of_bus.publishers_waiting, of_bus.budget_bytes), (1, 1_000_000));
    assert!(of_bus.budget_used >= 2 * 128 && !of_bus.under_pressure);
    take_one(&worker).ack();
    waiting.await.unwrap();
    let later = worker.stats();
    assert_eq!((later.acknowledged, later.blocks_publishers), (1, false));
    assert_eq!(later.rates(&stats, 2 * SECOND).acknowledged, 0.5);
    let mut pull = pin!(async {
        drain(&worker);
        worker.pull(1).await
    });
    assert!(poll_once(pull.as_mut()).is_pending());
    assert_eq!((worker.stats().waiting_pulls, worker.stats().oldest_unacked_age), (1, None));
    let text = serde_json::to_string(&bus.stats()).unwrap();
    assert_eq!(serde_json::from_str::<siftbus::BusStats>(&text).unwrap(), bus.stats());
    let text = serde_json::to_string(&topic.stats()).unwrap();
    assert_eq!(serde_json::from_str::<siftbus::TopicStats>(&text).unwrap(), topic.stats());
}

#[tokio::test(start_paused = true)]
async fn lib_22_bytes_are_held_for_a_reason() {
    const ONE: u64 = 1 + 16;
    let bus = Bus::new();
    let keeping = TopicConfig::new().retention(MINUTE);
    let topic = bus.create_topic("t", keeping).await.unwrap();
    let all = topic.subscribe("all", SubscriptionConfig::new()).await.unwrap();
    let some = SubscriptionConfig::new().filter(siftbus::Filter::has("k"));
    let some = topic.subscribe("some", some).await.unwrap();
    for _ in 0..1_000 {
        topic.publish("x").await.unwrap();
    }
    topic.publish(siftbus::Message::new("y").with_attribute("k", "v")).await.unwrap();
    assert_eq!(topic.stats().held.messages.backlog, 1_001, "LIB-22");
    assert_eq!(topic.stats().held.bytes.backlog, 1_001 * ONE + 2, "LIB-22");
    drain(&all);
    let held = topic.stats().held;
    assert_eq!((held.messages.backlog, held.messages.pinned), (0, 1), "LIB-22: the filter's");
    assert_eq!(held.messages.history, 1_000, "LIB-22: only the retention's");
    topic.update(siftbus::TopicUpdate::new().retention(None)).await.unwrap();
    let held = topic.stats().held;
    assert_eq!((held.messages.backlog, held.messages.history), (0, 0));
    assert_eq!((held.bytes.pinned, held.messages.pinned), (ONE + 2, 1), "LIB-22");
    assert_eq!(topic.stats().retained_messages, 1);
    assert!(held.messages.unneeded < 256, "LIB-22: {held:?}");
    let permit = topic.reserve(100).await.unwrap();
    assert_eq!(bus.stats().held.permits, 100 + 128, "LIB-22");
    drop(permit);
    let stuck = take_one(&some);
    assert_eq!(topic.stats().sum.outstanding, 1, "LIB-22");
    assert_eq!(bus.stats().sum.accepted, 1_002, "LIB-22: over both");
    assert_eq!(bus.stats().sum.filtered_out, 1_000, "LIB-22");
    stuck.ack();
    assert_eq!(bus.stats().held.messages.pinned, 0);
}

#[tokio::test(start_paused = true)]
async fn lib_22_statistics_say_who_waits_for_whom() {
    let bus = Bus::new();
    let limited = SubscriptionConfig::new().backlog_limit(BacklogLimit::new(1));
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    topic.subscribe("free", SubscriptionConfig::new()).await.unwrap();
    let slow = topic.subscribe("slow", limited).await.unwrap();
    topic.publish("0").await.unwrap();
    let before = bus.stats();
    assert!(before.blocked.is_empty());
    let mut waiting = pin!(topic.publish("1"));
    assert!(poll_once(waiting.as_mut()).is_pending());
    let [blocked] = &bus.stats().blocked[..] else { panic!("LIB-22") };
    assert_eq!((blocked.topic.as_str(), blocked.publishers), ("t", 1), "LIB-22");
    assert_eq!(blocked.waiting_for.as_deref(), Some("slow"), "LIB-22");
    take_one(&slow).ack();
    waiting.await.unwrap();
    let rates = bus.stats().sum.rates(&before.sum, 2 * SECOND);
    assert_eq!((rates.accepted, rates.acknowledged), (1.0, 0.5), "LIB-22");
}

#[tokio::test(start_paused = true)]
async fn acking_everything_twice_frees_it_once() {
    let bus = Bus::builder().budget(Budget::new(5 * 150)).build();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
    for _ in 0..50 {
        while topic.try_publish("x").is_ok() {}
        let ids: Vec<_> = take(&worker, 10).into_iter().map(|d| d.into_ack_id()).collect();
        assert_eq!(ids.len(), 5, "LIB-41");
        let first = worker.acknowledge(&ids).await.unwrap();
        let second = worker.acknowledge(&ids).await.unwrap();
        assert!(first.iter().all(|outcome| *outcome == Outcome::Done), "LS-4");
        assert!(second.iter().all(|outcome| *outcome == Outcome::Stale), "LS-13");
        bus.audit().assert_balanced();
    }
}

#[test]
fn a_runtime_that_ends_takes_only_its_own_waiters_along() {
    let bus = Bus::builder().budget(Budget::new(200)).build();
    let start = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let runtime = start();
    let (topic, worker) = runtime.block_on(async {
        let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
        let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
        topic.publish("0").await.unwrap();
        for _ in 0..3 {
            let topic = topic.clone();
            tokio::spawn(async move { topic.publish("never").await });
        }
        tokio::task::yield_now().await;
        (topic, worker)
    });
    assert_eq!(topic.stats().publishers_waiting, 3);
    drop(runtime);
    // Those that are gone have handed their turn on.
    assert_eq!(topic.stats().publishers_waiting, 0, "LIB-42, LIB-330");
    start().block_on(async {
        let consumer = tokio::spawn(async move {
            for _ in 0..11 {
                worker.pull(1).await.unwrap().ack_all();
            }
        });
        for _ in 0..10 {
            topic.publish("x").await.unwrap();
        }
        consumer.await.unwrap();
    });
    bus.audit().assert_balanced();
}
