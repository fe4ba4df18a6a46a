//! Idempotency keys and the deduplication window of a topic (LIB-380 … LIB-382).

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use siftbus::filter::Filter;
use siftbus::{
    BacklogLimit, Budget, Bus, Clock, Code, Limits, MESSAGE_OVERHEAD, ManualClock, Message,
    MessageId, Overflow, PublishReason, SubscriptionConfig, TopicConfig, TopicUpdate, Topology,
};

use crate::support::{DAY, HOUR, MILLI, MINUTE, SECOND, World, drain, poll_once, take_one};

fn keyed(text: &'static str, key: &str) -> Message {
    Message::new(text).with_idempotency_key(key)
}

async fn world() -> World {
    let topic = TopicConfig::new().deduplication_window(MINUTE);
    World::build(Limits::embedded(), topic, SubscriptionConfig::new()).await
}

#[tokio::test(start_paused = true)]
async fn lib_380_a_key_rides_along_and_is_no_attribute() {
    let w = World::new().await;
    let message = keyed("a", "key").with_attribute("k", "v").with_ordering_key("o");
    assert_eq!(message.size(), 1 + 2 + 1 + 3 + 16, "LIB-380, LIM-27");
    assert_eq!((message.attributes().len(), message.attributes().size()), (1, 2));
    assert_ne!(message, keyed("a", "other").with_attribute("k", "v").with_ordering_key("o"));
    assert_eq!(keyed("a", ""), Message::new("a"), "LIB-380: the empty key is none");
    // Without a window nothing is compared.
    for _ in 0..2 {
        assert!(!w.topic.publish(message.clone()).await.unwrap().is_duplicate());
    }
    let delivery = take_one(&w.worker);
    assert_eq!(delivery.message().idempotency_key(), "key", "LIB-380");
    assert_eq!(delivery.message(), &message);
    for (bytes, is_fine) in [(1_024, true), (1_025, false)] {
        let result = w.topic.try_publish(keyed("x", &"k".repeat(bytes)));
        assert_eq!(result.is_ok(), is_fine, "LIB-380: {bytes} bytes");
        let code = result.err().map(|error| error.code());
        assert_eq!(code, (!is_fine).then_some(Code::InvalidArgument));
    }
}

#[tokio::test(start_paused = true)]
async fn lib_381_within_the_window_the_first_counts() {
    let w = world().await;
    let first = w.topic.publish(keyed("first", "k")).await.unwrap();
    assert_eq!((first.recipients(), first.is_duplicate()), (Some(1), false));
    w.clock.advance(MINUTE - MILLI);
    let again = w.topic.publish(keyed("other data", "k")).await.unwrap();
    // LIB-381
    assert_eq!((again.id(), again.recipients(), again.is_duplicate()), (first.id(), Some(0), true));
    assert!(!w.topic.publish(keyed("other key", "K")).await.unwrap().is_duplicate());
    assert!(!w.topic.publish("no key").await.unwrap().is_duplicate());
    assert_eq!(drain(&w.worker), ["first", "other key", "no key"]);
    // Acknowledged or not makes no difference; counted from the first.
    assert!(w.topic.try_publish(keyed("x", "k")).unwrap().is_duplicate());
    w.clock.advance(MILLI);
    let new = w.topic.publish(keyed("new", "k")).await.unwrap();
    assert!(!new.is_duplicate() && new.id() > first.id(), "LIB-381: a duplicate extends nothing");
    assert_eq!(drain(&w.worker), ["new"]);
    let stats = w.topic.stats();
    assert_eq!((stats.published, stats.duplicates, stats.deduplication_keys), (4, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn lib_381_each_message_of_a_batch_has_its_own_answer() {
    let w = world().await;
    let known = w.topic.publish(keyed("known", "k")).await.unwrap().id();
    let odd = SubscriptionConfig::new().filter(Filter::has("odd"));
    let odd = w.topic.subscribe("odd", odd).await.unwrap();
    let batch = [
        keyed("a", "a").with_attribute("odd", ""),
        keyed("known again", "k").with_attribute("odd", ""),
        Message::new("plain"),
        keyed("a again", "a"),
        keyed("b", "b").with_attribute("odd", ""),
    ];
    let receipts = w.topic.publish_many(batch.clone()).await.unwrap();
    let told: Vec<_> =
        receipts.iter().map(|r| (r.id(), r.recipients().unwrap(), r.is_duplicate())).collect();
    let next = |n: u64| (known.as_u64() + n).to_string().parse::<MessageId>().unwrap();
    // LIB-381, PUB-3
    let expected = [
        (next(1), 2, false),
        (known, 0, true),
        (next(2), 1, false),
        (next(1), 0, true),
        (next(3), 2, false),
    ];
    assert_eq!(told, expected);
    assert_eq!(receipts.ids().collect::<Vec<_>>(), expected.map(|(id, ..)| id));
    assert_eq!(receipts.len(), 5);
    assert_eq!(drain(&w.worker), ["known", "a", "plain", "b"]);
    assert_eq!(drain(&odd), ["a", "b"], "LIB-381: filters see what is published");
    let all_again = w.topic.try_publish_many(batch[..2].to_vec()).unwrap();
    assert!(all_again.iter().all(|receipt| receipt.is_duplicate()));
    assert_eq!(all_again.ids().collect::<Vec<_>>(), [next(1), known]);
}

#[tokio::test(start_paused = true)]
async fn lib_381_a_duplicate_needs_no_room_and_what_failed_is_not_remembered() {
    let topic = TopicConfig::new().deduplication_window(MINUTE);
    let limit = BacklogLimit::new(1).overflow(Overflow::Reject);
    let limited = SubscriptionConfig::new().backlog_limit(limit);
    let w = World::build(Limits::embedded(), topic, limited).await;
    w.topic.publish(keyed("a", "a")).await.unwrap();
    let error = w.topic.publish(keyed("b", "b")).await.unwrap_err();
    assert_eq!(error.into_messages(), [keyed("b", "b")]);
    assert!(w.topic.publish(keyed("a", "a")).await.unwrap().is_duplicate(), "LIB-381");
    let batch = [keyed("a", "a"), keyed("b", "b"), keyed("b", "b")];
    let error = w.topic.publish_many(batch.clone()).await.unwrap_err();
    assert_eq!(error.into_messages(), batch, "PUB-2: all come back, in order");
    drain(&w.worker);
    let receipts = w.topic.publish_many(batch).await.unwrap();
    let duplicates: Vec<_> = receipts.iter().map(|receipt| receipt.is_duplicate()).collect();
    assert_eq!(duplicates, [true, false, true], "LIB-381: one message, so it fits");
    assert_eq!(drain(&w.worker), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn lib_381_a_delayed_publish_counts_from_its_acceptance() {
    let w = world().await;
    let later = w.topic.publish_after(keyed("later", "k"), 10 * SECOND).await.unwrap();
    let again = w.topic.publish(keyed("now", "k")).await.unwrap();
    assert_eq!((again.id(), again.is_duplicate()), (later.id(), true), "LIB-381");
    let once_more = w.topic.publish_after(keyed("later still", "k"), SECOND).await.unwrap();
    assert_eq!((once_more.id(), once_more.is_duplicate()), (later.id(), true), "LIB-381");
    w.clock.advance(10 * SECOND);
    assert_eq!(drain(&w.worker), ["later"]);
    w.clock.advance(50 * SECOND);
    assert!(!w.topic.publish(keyed("new", "k")).await.unwrap().is_duplicate());
    // What is withdrawn was never published.
    let id = w.topic.publish_after(keyed("changed mind", "w"), SECOND).await.unwrap().id();
    w.topic.withdraw(id).unwrap();
    assert!(!w.topic.publish(keyed("better", "w")).await.unwrap().is_duplicate(), "LIB-381");
    assert_eq!(drain(&w.worker), ["new", "better"]);
}

#[test]
fn lib_381_of_many_publishers_with_one_key_exactly_one_publishes() {
    let bus = Bus::new();
    let config = TopicConfig::new().deduplication_window(DAY);
    let (topic, worker) = futures_util::FutureExt::now_or_never(async {
        let topic = bus.create_topic("t", config).await.unwrap();
        let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
        (topic, worker)
    })
    .unwrap();
    let publish = || {
        let keys = (0..500).map(|n| n.to_string());
        keys.filter(|key| !topic.try_publish(keyed("x", key)).unwrap().is_duplicate()).count()
    };
    let published: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(publish)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((published, worker.stats().backlog), (500, 500), "LIB-381");
    bus.audit().assert_balanced();
}

/// What a message of one byte with a key of one takes of the budget, and what the key does.
const ONE: u64 = 1 + 1 + 16 + MESSAGE_OVERHEAD as u64;
const KEY: u64 = 1 + 96;

#[tokio::test(start_paused = true)]
async fn lib_382_keys_are_charged_until_they_leave_the_window() {
    let clock = ManualClock::new();
    let budget = Budget::new(2 * ONE + 2 * KEY).topic_reserve(0);
    let bus = Bus::builder().clock(Clock::manual(&clock)).budget(budget).build();
    let config = TopicConfig::new().deduplication_window(MINUTE);
    let topic = bus.create_topic("t", config).await.unwrap();
    let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
    topic.publish(keyed("a", "a")).await.unwrap();
    topic.publish(keyed("b", "b")).await.unwrap();
    assert_eq!(topic.stats().charged_bytes, 2 * (ONE + KEY), "LIB-382");
    assert!(topic.try_publish(keyed("c", "c")).is_err());
    drain(&worker);
    topic.publish(keyed("c", "c")).await.unwrap();
    drain(&worker);
    assert!(topic.stats().charged_bytes >= 3 * KEY, "LIB-382");
    // Publishers that wait are woken by the end of the window, too.
    topic.publish(Message::new(vec![0; 30])).await.unwrap();
    let mut waiting = pin!(topic.publish("d"));
    assert!(poll_once(waiting.as_mut()).is_pending());
    clock.advance(MINUTE + SECOND);
    let Poll::Ready(done) = poll_once(waiting) else { panic!("LIB-382: keys have gone") };
    done.unwrap();
    assert_eq!(topic.stats().deduplication_keys, 0);
}

#[tokio::test(start_paused = true)]
async fn lib_382_their_number_is_bounded() {
    let mut limits = Limits::embedded();
    limits.deduplication_keys = 2;
    let topic = TopicConfig::new().deduplication_window(MINUTE);
    let w = World::build(limits, topic, SubscriptionConfig::new()).await;
    w.topic.publish_many([keyed("a", "a"), keyed("b", "b")]).await.unwrap();
    let error = w.topic.publish(keyed("c", "c")).await.unwrap_err();
    let full = PublishReason::DeduplicationFull { topic: "orders".into(), max: 2 };
    assert_eq!((error.reason(), error.code()), (&full, Code::ResourceExhausted), "LIB-382");
    assert!(w.topic.publish_after(keyed("c", "c"), SECOND).await.is_err());
    assert!(w.topic.publish(keyed("a", "a")).await.unwrap().is_duplicate());
    w.topic.publish("no key").await.unwrap();
    w.clock.advance(MINUTE);
    w.topic.publish_many([keyed("c", "c"), keyed("d", "d")]).await.unwrap();
    w.clock.advance(MINUTE);
    let three = [keyed("e", "e"), keyed("f", "f"), keyed("g", "g")];
    assert!(w.topic.publish_many(three).await.is_err(), "LIB-382: all or nothing");
    assert_eq!(drain(&w.worker), ["a", "b", "no key", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn lib_382_the_window_can_be_changed_while_it_is_in_use() {
    let w = World::new().await;
    w.topic.publish(keyed("before", "k")).await.unwrap();
    let set = |window| TopicUpdate::new().deduplication_window(window);
    let config = w.topic.update(set(Some(HOUR))).await.unwrap();
    assert_eq!(config.deduplication_window, Some(HOUR));
    assert!(!w.topic.publish(keyed("first", "k")).await.unwrap().is_duplicate());
    w.clock.advance(10 * MINUTE);
    assert!(w.topic.publish(keyed("x", "k")).await.unwrap().is_duplicate());
    // LIB-382: at once, for what is remembered too.
    w.topic.update(set(Some(10 * MINUTE))).await.unwrap();
    assert!(!w.topic.publish(keyed("second", "k")).await.unwrap().is_duplicate());
    w.topic.update(TopicUpdate::new().retention(Some(HOUR))).await.unwrap();
    assert!(w.topic.publish(keyed("x", "k")).await.unwrap().is_duplicate());
    w.topic.update(set(None)).await.unwrap();
    assert_eq!(w.topic.stats().deduplication_keys, 0);
    w.topic.update(set(Some(HOUR))).await.unwrap();
    assert!(!w.topic.publish(keyed("third", "k")).await.unwrap().is_duplicate(), "LIB-382");
    assert_eq!(drain(&w.worker), ["before", "first", "second", "third"]);
    let error = w.topic.update(set(Some(Duration::ZERO))).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "LIB-381");
    assert_eq!(w.topic.config().deduplication_window, Some(HOUR));
    // A topic made again begins anew.
    w.topic.delete().await.unwrap();
    let config = TopicConfig::new().deduplication_window(HOUR);
    let again = w.bus.create_topic("orders", config).await.unwrap();
    assert!(!again.publish(keyed("x", "k")).await.unwrap().is_duplicate(), "LIB-382, RES-12");
}

#[tokio::test(start_paused = true)]
async fn lib_382_a_topology_says_it_as_any_other_setting() {
    let text = r#"{ "topics": { "t": { "deduplication_window": { "secs": 60, "nanos": 0 } } } }"#;
    let read: Topology = serde_json::from_str(text).unwrap();
    let built = Topology::new().topic("t", TopicConfig::new().deduplication_window(MINUTE));
    assert_eq!(read, built);
    let written = serde_json::to_string(&built).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&written).unwrap(), built, "LIB-48");
    let bus = Bus::new();
    bus.declare(&read).await.unwrap();
    let topic = bus.topic("t").await.unwrap();
    topic.publish(keyed("x", "k")).await.unwrap();
    assert!(topic.publish(keyed("x", "k")).await.unwrap().is_duplicate(), "LIB-381");
}

#[tokio::test(start_paused = true)]
async fn lib_382_nothing_is_swept_once_no_key_is_left() {
    let w = world().await;
    for nth in 0..3_000_u32 {
        w.topic.publish(keyed("x", &nth.to_string())).await.unwrap();
    }
    drain(&w.worker);
    w.clock.advance(MINUTE + SECOND);
    w.bus.now();
    assert_eq!(w.topic.stats().deduplication_keys, 0, "LIB-382: though nobody publishes");
    let start = w.clock.now();
    let mut instants = 0;
    while let Some(due) = w.clock.next_due().filter(|due| *due < start + 7 * DAY) {
        w.clock.advance_to(due);
        instants += 1;
    }
    assert!(instants < 5, "{instants} instants in a week in which nothing can happen");
}
