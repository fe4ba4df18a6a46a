//! Deliveries may be dropped anywhere: outside a runtime, while a panic unwinds, after everything
//! else is gone. A drop releases what is left (design D5), never panics and needs no runtime.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use siftbus::{
    Bus, Code, Deliveries, Delivery, FlowControl, Subscription, SubscriptionConfig, Topic,
    TopicConfig,
};

const TEXTS: [&str; 4] = ["a", "b", "c", "d"];

/// Everything that needs a runtime happens in here, and the runtime is gone afterwards.
fn in_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(future)
}

fn world() -> (Bus, Topic, Subscription) {
    in_a_runtime(async {
        let bus = Bus::new();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
        topic.publish_many(TEXTS).await.unwrap();
        (bus, topic, worker)
    })
}

fn in_hand(worker: &Subscription) -> (Deliveries, Vec<Delivery>) {
    let batch = worker.try_pull(2).unwrap();
    let owned = worker.try_pull(2).unwrap().into_iter().collect();
    (batch, owned)
}

fn attempts(worker: &Subscription) -> Vec<u32> {
    worker.try_pull(10).unwrap().iter().map(|delivery| delivery.attempt()).collect()
}

#[test]
fn outside_a_runtime_a_drop_releases() {
    let (_bus, _topic, worker) = world();
    let (batch, owned) = in_hand(&worker);
    assert_eq!(worker.stats().outstanding, 4);
    drop(batch);
    assert_eq!((worker.stats().outstanding, worker.stats().ready), (2, 2));
    drop(owned);
    assert_eq!((worker.stats().outstanding, worker.stats().ready), (0, 4));
    assert_eq!(attempts(&worker), [2, 2, 2, 2]);
}

#[test]
fn a_batch_dropped_half_consumed_releases_the_rest_in_order() {
    let (_bus, _topic, worker) = world();
    let mut consumed = worker.try_pull(4).unwrap().into_iter();
    let first = consumed.next().unwrap();
    let second = consumed.next().unwrap();
    drop(consumed);
    assert_eq!((worker.stats().outstanding, worker.stats().ready), (2, 2));
    second.ack().outcome().unwrap();
    drop(first);
    let left: Vec<Bytes> = worker.try_pull(4).unwrap().iter().map(|d| d.data().clone()).collect();
    assert_eq!(left, ["a", "c", "d"]);
}

#[test]
fn a_panic_that_unwinds_releases() {
    let (_bus, _topic, worker) = world();
    let held = worker.clone();
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let (batch, owned) = in_hand(&held);
        assert_eq!(held.stats().outstanding, 4);
        assert!(batch.is_empty(), "the panic this test is about: {}", owned.len());
    }));
    assert!(panicked.is_err());
    assert_eq!((worker.stats().outstanding, worker.stats().ready), (0, 4));
    assert_eq!(attempts(&worker), [2, 2, 2, 2]);
}

#[test]
fn a_panic_in_ack_where_loses_nothing() {
    let (_bus, _topic, worker) = world();
    let batch = worker.try_pull(4).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        batch.ack_where(|delivery| {
            assert!(delivery.data().as_ref() < b"c".as_slice(), "the panic of this test");
            true
        })
    }));
    assert!(panicked.is_err());
    // What was not acknowledged is released; nothing stays leased by nobody.
    let stats = worker.stats();
    assert_eq!(stats.outstanding, 0);
    assert!((2..=4).contains(&stats.ready) && stats.ready == stats.backlog, "{stats:?}");
}

#[test]
fn after_the_bus_and_every_handle_are_gone_drops_and_settlements_are_harmless() {
    let (bus, topic, worker) = world();
    let (batch, mut owned) = in_hand(&worker);
    let stream = worker.stream(FlowControl::new()).unwrap();
    let mut events = bus.events();
    drop((bus, topic, worker));
    // The messages stay readable.
    assert_eq!(batch.iter().next().unwrap().data().as_ref(), b"a");
    assert_eq!(owned[0].data().as_ref(), b"c");
    drop(batch);
    let settled = owned.pop().unwrap().ack().outcome();
    assert!(settled.is_ok() || settled.unwrap_err().code() == Code::Unavailable);
    drop((owned, stream));
    while events.try_next().is_some() {}
}

#[test]
fn dropping_the_last_bus_handle_closes_it_for_all_others() {
    let (bus, topic, worker) = world();
    let second = bus.clone();
    drop(bus);
    // Another handle keeps it open.
    assert_eq!(worker.stats().backlog, 4);
    let delivery = worker.try_pull(1).unwrap().into_iter().next().unwrap();
    drop(second);
    // D23, ERR-44.
    assert_eq!(worker.try_pull(1).unwrap_err().code(), Code::Unavailable);
    let error = topic.try_publish("late").unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.into_messages().len(), 1);
    assert_eq!(worker.stream(FlowControl::new()).unwrap_err().code(), Code::Unavailable);
    drop(delivery);
}

#[test]
fn whoever_waits_is_told_when_the_bus_closes() {
    in_a_runtime(async {
        let bus = Bus::new();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
        let mut stream = worker.stream(FlowControl::new()).unwrap();
        let mut events = bus.events();
        let puller = worker.clone();
        let pulled = tokio::spawn(async move { puller.pull(1).await.map(drop) });
        let streamed = tokio::spawn(async move { stream.next().await.map(|next| next.map(drop)) });
        let told = tokio::spawn(async move { while events.next().await.is_some() {} });
        tokio::task::yield_now().await;
        drop(bus);
        assert_eq!(pulled.await.unwrap().unwrap_err().code(), Code::Unavailable); // D23
        assert_eq!(streamed.await.unwrap().unwrap().unwrap_err().code(), Code::Unavailable);
        told.await.unwrap();
    });
}

#[test]
fn deliveries_outlive_their_deleted_subscription_and_topic() {
    let (_bus, topic, worker) = world();
    let (batch, owned) = in_hand(&worker);
    in_a_runtime(async {
        worker.delete().await.unwrap();
        topic.delete().await.unwrap();
    });
    assert_eq!(owned[1].data().as_ref(), b"d");
    assert_eq!(batch.nack_all().done, 0);
    drop(owned);
}

#[test]
fn a_delivery_dropped_on_another_thread_releases() {
    let (_bus, _topic, worker) = world();
    let (batch, owned) = in_hand(&worker);
    std::thread::spawn(move || drop((batch, owned))).join().unwrap();
    assert_eq!((worker.stats().outstanding, worker.stats().ready), (0, 4));
}

#[test]
fn a_drop_wakes_a_waiting_pull_on_a_live_runtime() {
    let (_bus, _topic, worker) = world();
    let held = worker.try_pull(4).unwrap();
    let came = in_a_runtime(async {
        let waiting = tokio::spawn({
            let worker = worker.clone();
            async move { worker.pull(4).await.unwrap().len() }
        });
        tokio::task::yield_now().await;
        std::thread::spawn(move || drop(held)).join().unwrap();
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap()
    });
    assert!((1..=4).contains(&came));
}

#[test]
fn a_waker_may_use_the_bus_while_it_is_dropped() {
    // L6: no waker is dropped under a lock, whichever way it goes.
    let ways = ["another waker", "pull dropped", "stream dropped", "starved stream dropped"];
    for way in ways {
        within_ten_seconds(way, move || {
            let (_bus, _topic, worker) = world();
            let waker = Waker::from(Arc::new(BusyWaker(worker.clone())));
            let mut cx = Context::from_waker(&waker);
            let mut noop = Context::from_waker(Waker::noop());
            let flow = FlowControl::new().max_outstanding_messages(1);
            if way == "starved stream dropped" {
                let mut stream = worker.stream(flow).unwrap();
                let Poll::Ready(held) = pin!(stream.next()).poll(&mut noop) else { panic!("a") };
                assert!(pin!(stream.next()).poll(&mut cx).is_pending());
                drop((waker, stream, held));
                return;
            }
            worker.try_pull(4).unwrap().ack_all();
            if way == "stream dropped" {
                let mut stream = worker.stream(flow).unwrap();
                assert!(pin!(stream.next()).poll(&mut cx).is_pending());
                drop((waker, stream));
                return;
            }
            let mut pull = Box::pin(worker.pull(1));
            assert!(pull.as_mut().poll(&mut cx).is_pending());
            drop(waker);
            if way == "another waker" {
                assert!(pull.as_mut().poll(&mut noop).is_pending());
            }
            drop(pull);
        });
    }
}

/// Runs a case that would otherwise hang for ever if it fails.
fn within_ten_seconds(what: &str, case: impl FnOnce() + Send + 'static) {
    let (done, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        case();
        done.send(()).unwrap();
    });
    match wait.recv_timeout(Duration::from_secs(10)) {
        Err(RecvTimeoutError::Timeout) => panic!("{what}: a deadlock"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => thread.join().expect(what),
    }
}

/// A waker whose drop calls into the bus.
struct BusyWaker(Subscription);

impl Wake for BusyWaker {
    fn wake(self: Arc<Self>) {}
}

impl Drop for BusyWaker {
    fn drop(&mut self) {
        let _ = self.0.stats();
    }
}

#[test]
fn a_payload_may_use_the_bus_while_it_is_dropped() {
    // L6: nothing foreign runs under a lock. The last owner of a payload publishes again.
    within_ten_seconds("payload", || {
        let (_bus, topic, worker) = world();
        worker.try_pull(4).unwrap().ack_all();
        let published = Arc::new(AtomicUsize::new(0));
        let payload =
            Busy { topic: topic.clone(), worker: worker.clone(), published: published.clone() };
        topic.try_publish(Bytes::from_owner(payload)).unwrap();
        worker.try_pull(1).unwrap().ack_all();
        in_a_runtime(async {
            worker.delete().await.unwrap();
            topic.delete().await.unwrap();
        });
        drop((topic, worker));
        assert_eq!(
            published.load(Ordering::SeqCst),
            1,
            "the payload was dropped, without a deadlock"
        );
    });
}

/// A payload whose drop calls back into the bus.
struct Busy {
    topic: Topic,
    worker: Subscription,
    published: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Busy {
    fn as_ref(&self) -> &[u8] {
        b"busy"
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.topic.try_publish("from a drop");
        let _ = self.worker.try_pull(1);
        let _ = (self.worker.stats(), self.topic.stats());
        self.published.fetch_add(1, Ordering::SeqCst);
    }
}
