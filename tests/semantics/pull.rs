//! Section 6: pull (PULL). The library's `pull` waits (return_immediately = false), `try_pull`
//! does not (return_immediately = true). PULL-6 is in `limits.rs`.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use siftbus::{
    Bus, Code, Deliveries, Expiration, PullError, Subscription, SubscriptionConfig, Topic,
    TopicConfig,
};

use crate::support::{
    DAY, MILLI, MINUTE, SECOND, WakeCount, World, drain, nothing_ready, poll_once, take, take_one,
    texts,
};

/// A pull that is polled once, and then only when the test says so.
struct Parked<'a> {
    pull: Pin<Box<dyn Future<Output = Result<Deliveries, PullError>> + 'a>>,
    woken: Arc<WakeCount>,
}

impl<'a> Parked<'a> {
    fn new(worker: &'a Subscription) -> Self {
        let mut parked = Self { pull: Box::pin(worker.pull(1)), woken: WakeCount::new() };
        assert!(parked.poll().is_none());
        parked
    }

    fn poll(&mut self) -> Option<Deliveries> {
        let waker = Waker::from(self.woken.clone());
        match self.pull.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(pulled) => Some(pulled.unwrap()),
            Poll::Pending => None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lib_331_a_waiter_that_is_not_polled_is_passed_over_after_50_ms() {
    let w = World::new().await;
    let mut pulls = [(); 3].map(|()| Parked::new(&w.worker));
    let woken = |pulls: &[Parked<'_>; 3]| pulls.each_ref().map(|pull| pull.woken.get());
    w.publish(&["one"]).await;
    assert_eq!(woken(&pulls), [1, 0, 0], "LIB-331");
    w.clock.advance(Duration::from_millis(49));
    assert_eq!(woken(&pulls), [1, 0, 0], "LIB-331: not yet");
    w.clock.advance(Duration::from_millis(1));
    assert_eq!(woken(&pulls), [1, 1, 0], "LIB-331");
    w.clock.advance(Duration::from_millis(50));
    assert_eq!(woken(&pulls), [1, 1, 1], "LIB-331: the next one, if that is not polled either");
    w.clock.advance(SECOND);
    assert_eq!(woken(&pulls), [1, 1, 1], "LIB-331: each is woken once");
    assert_eq!(pulls[2].poll().unwrap().ack_all().done, 1);
    // Those that were passed over wait on, in their place.
    assert!(pulls[0].poll().is_none() && pulls[1].poll().is_none());
    w.publish(&["two", "three"]).await;
    assert_eq!(woken(&pulls), [2, 2, 1], "LIB-15");
    assert_eq!(pulls[0].poll().unwrap().ack_all().done, 1);
    assert_eq!(pulls[1].poll().unwrap().ack_all().done, 1);
    w.clock.advance(SECOND);
    assert_eq!(woken(&pulls), [2, 2, 1], "LIB-331: nobody is woken for nothing");
}

#[tokio::test(start_paused = true)]
async fn lib_331_the_driver_passes_over_without_a_call() {
    let bus = Bus::new();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
    let mut stuck = Parked::new(&worker);
    let other = tokio::spawn({
        let worker = worker.clone();
        async move { worker.pull(1).await.unwrap().ack_all().done }
    });
    tokio::task::yield_now().await;
    topic.publish("one").await.unwrap();
    let published = bus.now();
    assert_eq!(other.await.unwrap(), 1, "LIB-331");
    assert_eq!(bus.now().duration_since(published).unwrap(), Duration::from_millis(50), "LIB-331");
    assert_eq!(stuck.woken.get(), 1);
    assert!(stuck.poll().is_none());
}

#[tokio::test(start_paused = true)]
async fn pull_01_returns_up_to_max_messages_each_with_a_lease() {
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    let first = w.worker.pull(2).await.unwrap();
    // PULL-1
    assert_eq!(texts(&first), ["a", "b"]);
    assert_eq!((w.worker.stats().outstanding, w.worker.stats().ready), (2, 1));
    let rest = w.worker.pull(2).await.unwrap();
    assert_eq!(texts(&rest), ["c"]);
    first.ack_all();
    rest.ack_all();
}

#[tokio::test(start_paused = true)]
async fn pull_02_try_pull_answers_at_once_possibly_empty() {
    let w = World::new().await;
    let empty = w.worker.try_pull(10).unwrap();
    assert!(empty.is_empty()); // PULL-2
    assert_eq!((empty.len(), empty.iter().count()), (0, 0));
    w.publish(&["a"]).await;
    assert_eq!(texts(&w.worker.try_pull(10).unwrap()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn pull_03_pull_waits_for_the_first_message_and_not_for_more() {
    let (bus, topic, worker) = waiting_world().await;
    let start = bus.now();
    let (pulled, _) = tokio::join!(worker.pull(10), async {
        bus.sleep(MINUTE).await;
        topic.publish("a").await.unwrap();
    });
    // PULL-3: woken by the publish, in no time.
    assert_eq!(texts(&pulled.unwrap()), ["a"]);
    let waited = bus.now().duration_since(start).unwrap();
    assert!(waited >= MINUTE && waited <= MINUTE + 10 * MILLI, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn pull_03_a_waiting_pull_is_woken_by_a_nack_a_release_and_the_end_of_a_delay() {
    let (bus, topic, worker) = waiting_world().await;
    topic.publish("a").await.unwrap();
    for (way, delay) in [("nack", 0), ("release", 0), ("batch", 0), ("delay", 5), ("lapse", 10)] {
        let held = worker.try_pull(1).unwrap();
        let start = bus.now();
        let (pulled, _) = tokio::join!(worker.pull(1), async {
            bus.sleep(SECOND).await;
            let start = bus.now();
            match way {
                "nack" => drop(held.into_iter().next().unwrap().nack()),
                "release" => drop(held.into_iter().next().unwrap()),
                "batch" => drop(held),
                "delay" => drop(held.into_iter().next().unwrap().nack_after(5 * SECOND)),
                _ => {
                    let delivery = held.into_iter().next().unwrap();
                    delivery.set_deadline(10 * SECOND).outcome().unwrap();
                    delivery.into_ack_id();
                }
            }
            assert_eq!(bus.now(), start);
        });
        let waited = bus.now().duration_since(start).unwrap();
        let expected = (1 + delay) * SECOND;
        // PULL-3
        assert!(waited >= expected && waited <= expected + 20 * MILLI, "{way}: {waited:?}");
        pulled.unwrap().nack_all();
    }
}

#[tokio::test(start_paused = true)]
async fn pull_03_as_many_waiting_pulls_are_woken_as_there_are_messages() {
    let (_bus, topic, worker) = waiting_world().await;
    let pullers: Vec<_> = (0..5)
        .map(|_| {
            let worker = worker.clone();
            tokio::spawn(async move { texts_acked(worker.pull(1).await.unwrap()) })
        })
        .collect();
    tokio::task::yield_now().await;
    // One batch wakes one puller, which passes the wake on as it took all it asked for (L9).
    topic.publish_many(["a", "b", "c", "d", "e"]).await.unwrap();
    let mut seen = Vec::new();
    for puller in pullers {
        seen.extend(puller.await.unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn pull_05_max_messages_must_be_positive() {
    for w in [World::new().await, World::google().await] {
        w.publish(&["a"]).await;
        // PULL-5, LIM-14, ERR-24
        assert_eq!(w.worker.pull(0).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(w.worker.try_pull(0).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(take_one(&w.worker).attempt(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn pull_07_outstanding_messages_are_not_returned() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    let held = take(&w.worker, 1);
    assert_eq!(drain(&w.worker), ["b"]); // PULL-7
    assert!(nothing_ready(&w.worker));
    drop(held);
    assert_eq!(drain(&w.worker), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn pull_09_a_waiting_pull_ends_not_found_when_its_subscription_is_deleted() {
    let (bus, topic, worker) = waiting_world().await;
    let start = bus.now();
    let (first, second, _) = tokio::join!(worker.pull(1), worker.pull(10), async {
        bus.sleep(SECOND).await;
        worker.delete().await.unwrap();
    });
    // PULL-9, at once, for everyone who waits.
    assert_eq!(first.unwrap_err().code(), Code::NotFound);
    assert_eq!(second.unwrap_err().code(), Code::NotFound);
    assert!(bus.now().duration_since(start).unwrap() <= SECOND + 10 * MILLI);
    // The same when the deletion goes by name; the topic's deletion alone ends no pull (RES-11).
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    let (pulled, _) = tokio::join!(worker.pull(1), async {
        topic.delete().await.unwrap();
        bus.sleep(SECOND).await;
        bus.delete_subscription("worker").await.unwrap();
    });
    assert_eq!(pulled.unwrap_err().code(), Code::NotFound);
    assert!(bus.now().duration_since(start).unwrap() >= 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn pull_10_a_dropped_pull_leases_nothing() {
    let w = World::new().await;
    let mut waiting = Box::pin(w.worker.pull(1));
    assert!(poll_once(waiting.as_mut()).is_pending());
    w.publish(&["a"]).await;
    drop(waiting);
    // PULL-10, although the pull had been woken.
    assert_eq!(w.worker.stats().outstanding, 0);
    assert_eq!(take_one(&w.worker).attempt(), 1);
}

#[tokio::test(start_paused = true)]
async fn pull_10_a_pull_that_ran_into_its_timeout_leases_nothing() {
    let (bus, topic, worker) = waiting_world().await;
    assert!(bus.timeout(MINUTE, worker.pull(1)).await.is_err());
    topic.publish("a").await.unwrap();
    assert_eq!(worker.stats().outstanding, 0); // PULL-10
    let pulled = bus.timeout(MINUTE, worker.pull(1)).await.unwrap().unwrap();
    assert_eq!(pulled.iter().next().unwrap().attempt(), 1);
}

#[tokio::test(start_paused = true)]
async fn pull_11_a_waiting_pull_counts_as_activity() {
    let w = World::with(SubscriptionConfig::new().expiration(Expiration::After(DAY))).await;
    {
        let mut waiting = pin!(w.worker.pull(1));
        assert!(poll_once(waiting.as_mut()).is_pending());
        w.clock.advance(100 * DAY);
        assert!(w.bus.subscription("worker").await.is_ok()); // PULL-11, EXP-3
        w.publish(&["a"]).await;
        let Poll::Ready(pulled) = poll_once(waiting.as_mut()) else { panic!("a message is there") };
        assert_eq!(texts(&pulled.unwrap()), ["a"]);
    }
    w.clock.advance(DAY - MILLI);
    assert!(w.bus.subscription("worker").await.is_ok());
    w.clock.advance(MILLI);
    assert_eq!(w.bus.subscription("worker").await.unwrap_err().code(), Code::NotFound);
}

async fn waiting_world() -> (Bus, Topic, Subscription) {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    (bus, topic, worker)
}

fn texts_acked(batch: Deliveries) -> Vec<String> {
    let texts = texts(&batch);
    batch.ack_all();
    texts
}
