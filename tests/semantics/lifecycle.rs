//! Rules of our own: closing, waiting for quiet, declaring (LIB-46 … LIB-49).

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use siftbus::{
    Bus, Clock, Code, FlowControl, ManualClock, SubscriptionConfig, TopicConfig, Topology,
};

use crate::support::{HOUR, SECOND, World, poll_once, take, take_one};

#[tokio::test(start_paused = true)]
async fn lib_46_close_waits_for_what_is_in_hand() {
    let w = World::new().await;
    w.publish(&["0", "1", "2"]).await;
    let held = take(&w.worker, 2);
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    let idle = w.topic.subscribe("idle", SubscriptionConfig::new()).await.unwrap();
    let mut waiting = pin!(idle.pull(1));
    assert!(poll_once(waiting.as_mut()).is_pending());

    let mut closing = pin!(w.bus.close(HOUR));
    assert!(poll_once(closing.as_mut()).is_pending(), "LIB-46");
    let pulled = w.worker.try_pull(1);
    assert_eq!(pulled.unwrap_err().code(), Code::Unavailable, "LIB-46: no new deliveries");
    assert_eq!(waiting.await.unwrap_err().code(), Code::Unavailable, "LIB-46");
    assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(stream.next().await.is_none());
    w.topic.publish("a reply").await.expect("LIB-46: handlers may still publish");
    let created = w.bus.create_topic("late", TopicConfig::new()).await;
    assert_eq!(created.unwrap_err().code(), Code::Unavailable, "LIB-46: nothing is created");
    w.bus.topic("orders").await.expect("LIB-46: looking up goes on");

    let mut held = held.into_iter();
    held.next().unwrap().ack();
    assert!(poll_once(closing.as_mut()).is_pending());
    held.next().unwrap().nack();
    assert_eq!(closing.await, 0, "LIB-46");
    assert_eq!(w.topic.publish("x").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(w.bus.close(HOUR).await, 0, "LIB-46: twice is fine");
}

#[tokio::test]
async fn lib_46_a_lapse_or_the_end_of_patience_ends_the_wait() {
    for (patience, unsettled) in [(HOUR, 0), (3 * SECOND, 1)] {
        let w = World::new().await;
        w.publish(&["0"]).await;
        let held = take_one(&w.worker);
        let mut closing = pin!(w.bus.close(patience));
        assert!(poll_once(closing.as_mut()).is_pending());
        w.clock.advance(patience.min(10 * SECOND));
        assert_eq!(closing.await, unsettled, "LIB-46");
        assert_eq!(held.ack().outcome().unwrap_err().code(), Code::Unavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn lib_46_close_against_a_waiting_publisher() {
    let budget = siftbus::Budget::new(200);
    let bus = Bus::builder().budget(budget).build();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
    topic.publish("0").await.unwrap();
    let mut waiting = pin!(topic.publish("1"));
    assert!(poll_once(waiting.as_mut()).is_pending());
    assert_eq!(bus.close(SECOND).await, 0);
    let error = waiting.await.unwrap_err();
    assert_eq!((error.code(), error.into_messages().len()), (Code::Unavailable, 1), "LIB-46");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn lib_47_idle_is_when_everything_is_settled() {
    let w = World::new().await;
    w.bus.wait_idle().await;
    w.publish(&["0", "1"]).await;
    let mut idle = pin!(w.bus.wait_idle());
    assert!(poll_once(idle.as_mut()).is_pending());
    let held = take(&w.worker, 2);
    assert!(poll_once(idle.as_mut()).is_pending(), "LIB-47");
    held.into_iter().for_each(|delivery| drop(delivery.ack()));
    idle.await;
    w.publish(&["2"]).await;
    let mut idle = pin!(w.bus.wait_idle());
    assert!(poll_once(idle.as_mut()).is_pending());
    w.worker.delete().await.unwrap();
    idle.await;
}

#[tokio::test(start_paused = true)]
async fn lib_48_what_exists_stays_as_it_is() {
    let bus = Bus::new();
    let labelled = TopicConfig::new().label("a", "1");
    bus.get_or_create_topic("t", labelled.clone()).await.unwrap();
    let again = bus.get_or_create_topic("t", TopicConfig::new()).await.unwrap();
    assert_eq!(again.config(), labelled, "LIB-48");
    let short = SubscriptionConfig::new().ack_deadline(SECOND);
    bus.get_or_create_subscription("s", "t", short).await.unwrap();
    let topology = Topology::new()
        .topic("t", TopicConfig::new())
        .topic("u", TopicConfig::new())
        .subscription("s", "t", SubscriptionConfig::new())
        .subscription("v", "u", SubscriptionConfig::new());
    bus.declare(&topology).await.unwrap();
    bus.declare(&topology).await.unwrap();
    assert_eq!(bus.subscription("s").await.unwrap().config().ack_deadline, SECOND, "LIB-48");
    assert_eq!((bus.topics().len(), bus.subscriptions().len()), (2, 2));
    let text = serde_json::to_string(&topology).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), topology);
    let wrong = r#"{ "topics": { "t": { "retenton": null } } }"#;
    assert!(serde_json::from_str::<Topology>(wrong).is_err(), "LIB-48");
    let dangling = Topology::new().subscription("w", "nowhere", SubscriptionConfig::new());
    assert_eq!(bus.declare(&dangling).await.unwrap_err().code(), Code::NotFound);
}

/// The one place in these tests where a millisecond of real time passes: a thread cannot be woken
/// by a lapse on a paused clock.
#[test]
fn lib_49_plain_threads_park_and_keep_time() {
    let bus = Bus::new();
    let topic = bus.create_topic("t", TopicConfig::new()).now_or_never().unwrap().unwrap();
    let config = SubscriptionConfig::new().ack_deadline(Duration::from_millis(1));
    let worker = topic.subscribe("s", config).now_or_never().unwrap().unwrap();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let worker = worker.clone();
            std::thread::spawn(move || {
                let first = worker.blocking_pull(1).unwrap().into_iter().next().unwrap();
                first.into_ack_id();
                // LIB-49: comes back by a lapse, which one of the parked threads notices.
                let again = worker.blocking_pull(1).unwrap().into_iter().next().unwrap();
                let attempt = again.attempt();
                again.ack();
                attempt
            })
        })
        .collect();
    topic.blocking_publish_many(["0", "1", "2"]).unwrap();
    let attempts: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(attempts >= 3, "LIB-49");
    drop(bus);
}

#[test]
fn lib_49_a_thread_waits_for_room() {
    let clock = ManualClock::new();
    let budget = siftbus::Budget::new(200);
    let bus = Bus::builder().clock(Clock::manual(&clock)).budget(budget).build();
    let topic = bus.create_topic("t", TopicConfig::new()).now_or_never().unwrap().unwrap();
    let worker = topic.subscribe("s", SubscriptionConfig::new()).now_or_never().unwrap().unwrap();
    let publisher = std::thread::spawn(move || {
        for _ in 0..100 {
            topic.blocking_publish("x").unwrap();
        }
    });
    let mut done = 0;
    while done < 100 {
        done += worker.blocking_pull(10).unwrap().ack_all().done;
    }
    publisher.join().unwrap();
    bus.audit().assert_balanced();
}
