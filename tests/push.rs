//! Push in process: answers, timeouts, slow start, back-off, the end.
//!
//! On a manual clock; endpoints wait for the clock or for the test, never for real time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use siftbus::{
    AdminError, Bus, Clock, Code, Failure, ManualClock, Message, PUSH_WINDOW, PullError, Push,
    PushOptions, Received, Subscription, SubscriptionConfig, SubscriptionUpdate, Topic,
    TopicConfig,
};
use tokio::sync::{Semaphore, mpsc};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    clock: ManualClock,
    bus: Bus,
    topic: Topic,
    worker: Subscription,
}

impl World {
    async fn new() -> World {
        let clock = ManualClock::new();
        let bus = Bus::builder().clock(Clock::manual(&clock)).seed(7).build();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
        World { clock, bus, topic, worker }
    }

    async fn publish(&self, count: usize) {
        for n in 0..count {
            self.topic.publish(n.to_string()).await.unwrap();
        }
        turns().await;
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance_settled(by).await;
        turns().await;
    }

    /// Advances until something was pushed again; answers how long that took, in milliseconds.
    async fn until_pushed(&self, calls: &AtomicUsize) -> u64 {
        let before = calls.load(Ordering::SeqCst);
        for millis in 0..70_000 {
            if calls.load(Ordering::SeqCst) > before {
                return millis;
            }
            self.clock.advance_settled(MILLI).await;
        }
        panic!("nothing was pushed");
    }
}

async fn turns() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// An endpoint that takes what it is let take, and fails while it is told to.
#[derive(Clone)]
struct Endpoint {
    calls: Arc<AtomicUsize>,
    let_go: Arc<Semaphore>,
    fails: Arc<AtomicBool>,
}

impl Endpoint {
    fn new() -> Endpoint {
        let let_go = Arc::new(Semaphore::new(0));
        Endpoint { calls: Arc::default(), let_go, fails: Arc::default() }
    }

    /// Answers at once.
    fn open() -> Endpoint {
        let endpoint = Endpoint::new();
        endpoint.let_go.add_permits(Semaphore::MAX_PERMITS / 2);
        endpoint
    }

    fn attach(&self, subscription: &Subscription, options: PushOptions) -> Push {
        let endpoint = self.clone();
        let push = move |_: Received| {
            let Endpoint { calls, let_go, fails } = endpoint.clone();
            calls.fetch_add(1, Ordering::SeqCst);
            async move {
                let_go.acquire().await?.forget();
                match fails.load(Ordering::SeqCst) {
                    true => Err(Failure::retry("down")),
                    false => Ok(()),
                }
            }
        };
        subscription.push_with(push, options).unwrap()
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn the_window_starts_at_one_and_doubles_per_round_trip() {
    let w = World::new().await;
    let endpoint = Endpoint::new();
    let push = endpoint.attach(&w.worker, PushOptions::new().max_window(16));
    w.publish(100).await;
    for window in [1, 2, 4, 8, 16, 16] {
        let stats = push.stats();
        assert_eq!((stats.window, stats.in_flight), (window, window), "PUSH-21, PUSH-23");
        assert_eq!(w.worker.stats().outstanding, window as u64);
        endpoint.let_go.add_permits(window);
        turns().await;
    }
    assert_eq!(push.stats().succeeded, 47);
}

#[tokio::test]
async fn a_failure_halves_the_window_and_leaves_the_rest_under_way() {
    let w = World::new().await;
    let endpoint = Endpoint::new();
    let push = endpoint.attach(&w.worker, PushOptions::new().max_window(8));
    w.publish(100).await;
    for window in [1, 2, 4] {
        endpoint.let_go.add_permits(window);
        turns().await;
    }
    assert_eq!(push.stats().in_flight, 8);
    endpoint.fails.store(true, Ordering::SeqCst);
    endpoint.let_go.add_permits(1);
    turns().await;
    let stats = push.stats();
    assert_eq!((stats.window, stats.in_flight), (4, 7), "PUSH-23, PUSH-25");
    assert!(stats.paused_until.is_some(), "PUSH-24");
    endpoint.fails.store(false, Ordering::SeqCst);
    endpoint.let_go.add_permits(3);
    turns().await;
    assert_eq!((push.stats().in_flight, push.stats().level), (4, 0), "PUSH-25: none is new");
    w.advance(SECOND).await;
    assert_eq!((push.stats().window, push.stats().in_flight), (7, 7));
}

#[tokio::test]
async fn pauses_of_a_failing_endpoint_double_up_to_a_minute() {
    let w = World::new().await;
    let endpoint = Endpoint::open();
    endpoint.fails.store(true, Ordering::SeqCst);
    let push = endpoint.attach(&w.worker, PushOptions::new());
    w.publish(50).await;
    assert_eq!(endpoint.calls(), 1, "PUSH-24: the whole subscription pauses");
    for pause in [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000] {
        let took = w.until_pushed(&endpoint.calls).await;
        let within = pause * 9 / 10..=pause * 11 / 10 + 2;
        assert!(within.contains(&took), "PUSH-25: {took} ms is not about {pause} ms");
        assert!(took <= 60_002, "PUSH-24");
    }
    // It comes back: each success lowers the level by one, and everything is delivered.
    let level = push.stats().level;
    assert_eq!(level, 13);
    endpoint.fails.store(false, Ordering::SeqCst);
    w.advance(66 * SECOND).await;
    let stats = push.stats();
    assert_eq!((stats.succeeded, stats.level, w.worker.stats().backlog), (50, 0, 0), "PUSH-25");
}

#[tokio::test]
async fn an_answer_must_come_within_the_ack_deadline() {
    let w = World::new().await;
    let endpoint = Endpoint::new();
    let push = endpoint.attach(&w.worker, PushOptions::new());
    w.publish(1).await;
    w.advance(10 * SECOND - MILLI).await;
    assert_eq!((push.stats().failed, push.stats().in_flight), (0, 1));
    w.advance(MILLI).await;
    let stats = push.stats();
    assert_eq!((stats.timed_out, stats.failed, stats.in_flight), (1, 1, 0), "PUSH-19");
    // The late answer is void, and the message pushed again after the pause.
    endpoint.let_go.add_permits(1);
    turns().await;
    assert_eq!((push.stats().succeeded, w.worker.stats().backlog), (0, 1), "PUSH-20");
    w.advance(110 * MILLI).await;
    assert_eq!((push.stats().succeeded, w.worker.stats().backlog), (1, 0), "PUSH-18");
    assert_eq!(endpoint.calls(), 2);
}

#[tokio::test]
async fn a_failed_push_counts_as_an_attempt() {
    let w = World::new().await;
    let (sender, mut attempts) = mpsc::unbounded_channel();
    let _push = w
        .worker
        .push_to(move |received: Received| {
            let sent = sender.send(received.attempt());
            async move {
                sent?;
                if received.attempt() < 3 {
                    panic!("PUSH-18: a panic is a failure")
                }
                Ok(())
            }
        })
        .unwrap();
    w.publish(1).await;
    w.advance(SECOND).await;
    let mut seen = Vec::new();
    while let Ok(attempt) = attempts.try_recv() {
        seen.push(attempt);
    }
    assert_eq!(seen, [1, 2, 3], "PUSH-18");
}

/// Messages of three keys; the second of `a` fails at first.
#[tokio::test]
async fn of_a_key_one_push_is_under_way_and_nothing_overtakes() {
    let w = World::new().await;
    let config = SubscriptionConfig::new().message_ordering(true);
    let ordered = w.topic.subscribe("ordered", config).await.unwrap();
    let (let_go, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let most = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let push = {
        let (let_go, seen, running) = (Arc::clone(&let_go), Arc::clone(&seen), Arc::clone(&most));
        ordered.push_to(move |received: Received| {
            let key = received.message().ordering_key().to_owned();
            let text = String::from_utf8(received.data().to_vec()).unwrap();
            let (let_go, running) = (Arc::clone(&let_go), Arc::clone(&running));
            let now =
                *running.lock().unwrap().entry(key.clone()).and_modify(|n| *n += 1).or_insert(1);
            assert_eq!(now, 1, "PUSH-27, ORD-9: {key}");
            seen.lock().unwrap().push(text.clone());
            async move {
                let_go.acquire().await?.forget();
                running.lock().unwrap().insert(key, 0);
                match (text.as_str(), received.attempt()) {
                    ("a1", 1) => Err(Failure::retry("down")),
                    _ => Ok(()),
                }
            }
        })
    };
    let push = push.unwrap();
    for n in 0..4 {
        for key in ["a", "b", "c"] {
            let message = Message::new(format!("{key}{n}")).with_ordering_key(key);
            w.topic.publish(message).await.unwrap();
        }
    }
    for _ in 0..40 {
        let_go.add_permits(1);
        w.advance(200 * MILLI).await;
    }
    let stats = push.stats();
    assert_eq!((stats.succeeded, stats.failed, ordered.stats().backlog), (12, 1, 0));
    let seen = seen.lock().unwrap();
    let of = |key: &str| -> Vec<_> { seen.iter().filter(|text| text.starts_with(key)).collect() };
    assert_eq!(of("a"), ["a0", "a1", "a1", "a2", "a3"], "ORD-7: nothing overtakes");
    assert_eq!(of("b"), ["b0", "b1", "b2", "b3"], "PUSH-27");
    assert_eq!(of("c"), ["c0", "c1", "c2", "c3"], "PUSH-27");
}

/// The ack deadline of the moment is the time for an answer, and the lease outlasts it.
#[tokio::test]
async fn an_updated_ack_deadline_counts_for_the_next_push() {
    let w = World::new().await;
    let endpoint = Endpoint::new();
    let push = endpoint.attach(&w.worker, PushOptions::new());
    w.publish(1).await;
    let longer = SubscriptionUpdate::new().ack_deadline(30 * SECOND);
    w.worker.update(longer).await.unwrap();
    w.advance(10 * SECOND).await;
    assert_eq!(push.stats().timed_out, 1, "PUSH-5: what was under way keeps its time");
    assert!(w.worker.try_pull(1).unwrap().ack_all().done == 1, "LIB-306: given back at once");
    w.publish(1).await;
    w.advance(SECOND).await;
    assert_eq!((endpoint.calls(), push.stats().in_flight), (2, 1));
    for _ in 0..28 {
        w.advance(SECOND).await;
        assert_eq!(w.worker.try_pull(1).unwrap().len(), 0, "PUSH-5: it is leased");
    }
    assert_eq!((push.stats().timed_out, push.stats().in_flight), (1, 1), "PUSH-5, PUSH-19");
    w.advance(2 * SECOND).await;
    assert_eq!(push.stats().timed_out, 2, "PUSH-5, PUSH-19");
}

#[tokio::test]
async fn the_first_push_comes_at_once() {
    let w = World::new().await;
    let endpoint = Endpoint::open();
    let _push = endpoint.attach(&w.worker, PushOptions::new());
    w.advance(3_600 * SECOND).await;
    let before = w.bus.now();
    w.publish(1).await;
    assert_eq!((endpoint.calls(), w.bus.now()), (1, before), "PUSH-28");
}

#[tokio::test]
async fn the_backlog_moves_between_push_and_pull() {
    let w = World::new().await;
    w.publish(10).await;
    let endpoint = Endpoint::open();
    let push = endpoint.attach(&w.worker, PushOptions::new());
    turns().await;
    assert_eq!(push.stats().succeeded, 10, "PUSH-1: the backlog is pushed");
    endpoint.fails.store(true, Ordering::SeqCst);
    w.publish(5).await;
    drop(push);
    turns().await;
    assert_eq!(w.worker.try_pull(10).unwrap().ack_all().done, 5, "PUSH-1: and can be pulled");
}

#[tokio::test]
async fn a_pull_competes_with_push() {
    let w = World::new().await;
    let endpoint = Endpoint::new();
    let push = endpoint.attach(&w.worker, PushOptions::new());
    w.publish(3).await;
    assert_eq!(push.stats().in_flight, 1);
    assert_eq!(w.worker.try_pull(10).unwrap().ack_all().done, 2, "PULL-8");
}

#[tokio::test]
async fn the_end_of_the_subscription_ends_the_push() {
    let w = World::new().await;
    let endpoint = Endpoint::new();
    let push = endpoint.attach(&w.worker, PushOptions::new());
    w.publish(3).await;
    w.worker.delete().await.unwrap();
    // What is under way is left to finish.
    assert_eq!(push.stats().in_flight, 1, "PUSH-29");
    endpoint.let_go.add_permits(1);
    turns().await;
    assert!(matches!(push.ended().await, PullError::NotFound { .. }), "PUSH-29");
    assert_eq!((push.stats().in_flight, endpoint.calls()), (0, 1), "PUSH-29: no new pushes");
}

#[tokio::test]
async fn drain_waits_for_what_is_under_way() {
    let w = World::new().await;
    let endpoint = Endpoint::new();
    let push = endpoint.attach(&w.worker, PushOptions::new());
    w.publish(3).await;
    let drained = tokio::spawn(push.drain());
    turns().await;
    endpoint.let_go.add_permits(10);
    let stats = drained.await.unwrap();
    assert_eq!((stats.succeeded, stats.in_flight, w.worker.stats().ready), (1, 0, 2), "LIB-306");
}

#[tokio::test]
async fn what_a_seek_brings_back_is_pushed_again() {
    let w = World::new().await;
    let update = SubscriptionUpdate::new().retain_acked(true);
    w.worker.update(update).await.unwrap();
    let (endpoint, start) = (Endpoint::open(), w.bus.now());
    let push = endpoint.attach(&w.worker, PushOptions::new());
    w.publish(3).await;
    assert_eq!(push.stats().succeeded, 3);
    w.worker.seek(start).await.unwrap();
    turns().await;
    assert_eq!(push.stats().succeeded, 6, "SEEK-13");
}

#[tokio::test]
async fn a_pause_does_not_outlive_the_bus() {
    let w = World::new().await;
    let endpoint = Endpoint::open();
    endpoint.fails.store(true, Ordering::SeqCst);
    let push = endpoint.attach(&w.worker, PushOptions::new());
    w.publish(1).await;
    assert!(push.stats().paused_until.is_some());
    w.bus.close(Duration::ZERO).await;
    assert_eq!(push.ended().await, PullError::Closed, "LIB-306");
}

#[tokio::test]
async fn windows_out_of_range_are_refused() {
    let w = World::new().await;
    let push = |max| w.worker.push_with(|_| async { Ok(()) }, PushOptions::new().max_window(max));
    let (least, most) = PUSH_WINDOW.into_inner();
    for max in [least, most] {
        assert!(push(max).is_ok(), "PUSH-23");
    }
    for max in [least - 1, most + 1] {
        let error = push(max).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "PUSH-23");
        assert!(matches!(error, AdminError::Config(_)));
    }
}

#[tokio::test]
async fn faults_strike_what_is_pushed() {
    let w = World::new().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let endpoint = move |_: Received| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<(), Failure>(()) }
    };
    let push = w.worker.push_to(endpoint).unwrap();
    w.worker.faults().duplicate_deliveries(1);
    w.worker.faults().lose_acks(1);
    w.publish(1).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2, "LIB-403, LIB-401");
    w.advance(12 * SECOND).await;
    assert_eq!(calls.load(Ordering::SeqCst), 3, "LIB-401: the second ack was lost");
    assert_eq!((push.stats().succeeded, w.worker.stats().backlog), (3, 0));
    w.bus.audit().assert_balanced();
}
