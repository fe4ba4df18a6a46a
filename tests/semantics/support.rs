//! What the semantics tests share: a bus with a manual clock, one topic and one subscription, and
//! short words for taking messages and looking at them.
//!
//! Nothing here asserts a rule, except that a call which must work does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use siftbus::{
    Bus, Clock, Deliveries, Delivery, Limits, ManualClock, Message, MessageId, Subscription,
    SubscriptionConfig, SubscriptionUpdate, Topic, TopicConfig,
};

pub(crate) const MILLI: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A bus on a manual clock with topic `orders` and subscription `worker`.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) bus: Bus,
    pub(crate) topic: Topic,
    pub(crate) worker: Subscription,
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(SubscriptionConfig::new()).await
    }

    pub(crate) async fn with(config: SubscriptionConfig) -> World {
        World::build(Limits::embedded(), TopicConfig::new(), config).await
    }

    pub(crate) async fn google() -> World {
        World::build(Limits::google(), TopicConfig::new(), SubscriptionConfig::new()).await
    }

    pub(crate) async fn build(
        limits: Limits,
        topic: TopicConfig,
        subscription: SubscriptionConfig,
    ) -> World {
        let (clock, bus) = manual_bus(limits);
        let topic = bus.create_topic("orders", topic).await.unwrap();
        let worker = topic.subscribe("worker", subscription).await.unwrap();
        World { clock, bus, topic, worker }
    }

    /// Publishes each text as a message of its own, in order.
    pub(crate) async fn publish(&self, texts: &[&'static str]) -> Vec<MessageId> {
        let mut ids = Vec::new();
        for text in texts {
            ids.push(self.topic.publish(*text).await.unwrap().id());
        }
        ids
    }
}

/// Whatever a test has done, nothing was lost on the way (LIB-40).
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.bus.audit().assert_balanced();
        }
    }
}

pub(crate) fn manual_bus(limits: Limits) -> (ManualClock, Bus) {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).limits(limits).build();
    (clock, bus)
}

/// Everything that is ready, up to `max`, as owned deliveries.
pub(crate) fn take(subscription: &Subscription, max: usize) -> Vec<Delivery> {
    subscription.try_pull(max).unwrap().into_iter().collect()
}

/// The one delivery that must be ready.
pub(crate) fn take_one(subscription: &Subscription) -> Delivery {
    take(subscription, 1).pop().expect("a message is ready")
}

/// The data of what is ready, acknowledged at once.
pub(crate) fn drain(subscription: &Subscription) -> Vec<String> {
    let batch = subscription.try_pull(10_000).unwrap();
    let texts = texts(&batch);
    batch.ack_all();
    texts
}

pub(crate) fn texts(batch: &Deliveries) -> Vec<String> {
    batch.iter().map(|delivery| text_of(delivery.message())).collect()
}

pub(crate) fn text_of(message: &Message) -> String {
    String::from_utf8(message.data().to_vec()).unwrap()
}

/// True when nothing can be handed out now.
pub(crate) fn nothing_ready(subscription: &Subscription) -> bool {
    subscription.try_pull(1).unwrap().is_empty()
}

pub(crate) fn ack_deadline(deadline: Duration) -> SubscriptionUpdate {
    SubscriptionUpdate::new().ack_deadline(deadline)
}

/// Polls once; the waker does nothing.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A waker that counts how often it was woken.
#[derive(Default)]
pub(crate) struct WakeCount(AtomicUsize);

impl WakeCount {
    pub(crate) fn new() -> Arc<WakeCount> {
        Arc::default()
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
