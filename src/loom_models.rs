//! Models of a whole bus: who waits, against who brings the news. Built only for the model checker.
//!
//! A future is polled once, the other side acts meanwhile, and whoever still waits must have been
//! woken if there is anything for it to do.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;

use crate::sync::{Arc, AtomicBool, Ordering};
use crate::{
    BacklogLimit, Bus, Clock, Code, ManualClock, Message, Subscription, SubscriptionConfig, Topic,
    TopicConfig,
};

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn world(config: SubscriptionConfig) -> (Bus, Topic, Subscription) {
    let bus = Bus::builder().clock(Clock::manual(&ManualClock::new())).build();
    let topic = bus.create_topic("t", TopicConfig::new()).now_or_never();
    let topic = topic.expect("at once").expect("a new name");
    let subscription = topic.subscribe("s", config).now_or_never();
    (bus, topic, subscription.expect("at once").expect("a new name"))
}

/// Polls `waiting` once while `news` happens on another thread, then again for as long as it is
/// woken. Answers what came of it.
fn race<T>(
    mut waiting: Pin<&mut impl Future<Output = T>>,
    news: impl FnOnce() + 'static,
) -> Option<T> {
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    let other = loom::thread::spawn(news);
    let mut polled = waiting.as_mut().poll(&mut context);
    other.join().expect("it ends");
    while polled.is_pending() && flag.0.swap(false, Ordering::SeqCst) {
        polled = waiting.as_mut().poll(&mut context);
    }
    match polled {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn model(act: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.max_duration = Some(std::time::Duration::from_secs(15));
    builder.check(act);
}

#[test]
fn publish_against_pull() {
    model(|| {
        let (_bus, topic, subscription) = world(SubscriptionConfig::new());
        let pull = std::pin::pin!(subscription.pull(1));
        let publisher = topic.clone();
        let pulled = race(pull, move || {
            publisher.try_publish(Message::new("x")).expect("there is room");
        });
        let batch = pulled.expect("it was told (I-8)").expect("the subscription is there");
        assert_eq!(batch.ack_all().done, 1);
    });
}

#[test]
fn ack_against_a_waiting_publisher() {
    model(|| {
        let limit = SubscriptionConfig::new().backlog_limit(BacklogLimit::new(1));
        let (_bus, topic, subscription) = world(limit);
        topic.try_publish(Message::new("first")).expect("there is room");
        let batch = subscription.try_pull(1).expect("there");
        let publish = std::pin::pin!(topic.publish(Message::new("second")));
        let published = race(publish, move || {
            assert_eq!(batch.ack_all().done, 1);
        });
        published.expect("it was told (I-8)").expect("there is room");
    });
}

#[test]
fn close_against_pull() {
    model(|| {
        let (_bus, _topic, subscription) = world(SubscriptionConfig::new());
        let pull = std::pin::pin!(subscription.pull(1));
        let deleted = subscription.clone();
        let pulled = race(pull, move || {
            deleted.delete().now_or_never().expect("at once").expect("there");
        });
        assert!(pulled.expect("it was told (I-8)").is_err());
    });
}

/// Both kinds of waiters, against `Bus::close`: each gets its error, and the publisher its message.
#[test]
fn close_of_the_bus_against_a_pull_and_a_publisher() {
    model(|| {
        let limit = SubscriptionConfig::new().backlog_limit(BacklogLimit::new(1));
        let (bus, topic, full) = world(limit);
        let idle = bus.create_topic("idle", TopicConfig::new()).now_or_never();
        let idle = idle.expect("at once").expect("a new name");
        let idle = idle.subscribe("idle", SubscriptionConfig::new()).now_or_never();
        let idle = idle.expect("at once").expect("a new name");
        topic.try_publish(Message::new("first")).expect("there is room");
        let both = std::pin::pin!(async {
            futures_util::future::join(topic.publish(Message::new("second")), idle.pull(1)).await
        });
        let closed = race(both, move || {
            let unsettled = bus.close(Duration::ZERO).now_or_never();
            assert_eq!(unsettled, Some(0), "nothing was in anybody's hand (D23)");
        });
        let (published, pulled) = closed.expect("both were told (I-8)");
        let refused = published.expect_err("it was closed");
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(refused.into_messages().len(), 1);
        assert_eq!(pulled.map(drop).map_err(|error| error.code()), Err(Code::Unavailable));
        drop(full);
    });
}

#[test]
fn the_end_of_a_full_subscription_against_a_waiting_publisher() {
    model(|| {
        let limit = SubscriptionConfig::new().backlog_limit(BacklogLimit::new(1));
        let (_bus, topic, subscription) = world(limit);
        topic.try_publish(Message::new("first")).expect("there is room");
        let publish = std::pin::pin!(topic.publish(Message::new("second")));
        let published = race(publish, move || {
            subscription.delete().now_or_never().expect("at once").expect("there");
        });
        published.expect("it was told (I-8)").expect("there is room");
    });
}
