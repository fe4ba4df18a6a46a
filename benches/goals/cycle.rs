//! Rows 1–3: publish, pull, acknowledge on one subscription, against channels that ack nothing.

use std::hint::black_box;

use bytes::Bytes;
use siftbus::{
    BacklogLimit, Bus, Clock, Message, Subscription, SubscriptionConfig, Topic, TopicConfig,
};

use crate::measure::{one_thread, payload, race, two_threads, wall};
use crate::peers;
use crate::table::{Goal, Line, Table};

/// Messages in a batch.
pub(crate) const BATCH: usize = 100;
/// Messages that a publisher may be ahead of its consumer.
pub(crate) const AHEAD: usize = 1_024;

/// A topic with one subscription, on a bus of its own.
pub(crate) async fn bus_with(clock: Clock) -> (Bus, Topic, Subscription) {
    world(Bus::builder().clock(clock).build(), SubscriptionConfig::new()).await
}

/// A topic with one subscription on `bus`.
pub(crate) async fn world(bus: Bus, config: SubscriptionConfig) -> (Bus, Topic, Subscription) {
    let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
    let subscription = topic.subscribe("subscription", config).await.unwrap();
    (bus, topic, subscription)
}

/// Publishes, pulls and acknowledges `batches` batches; what is pulled is looked at in place.
pub(crate) async fn borrowed(
    topic: &Topic,
    subscription: &Subscription,
    batches: usize,
    make: impl Fn() -> Message,
) {
    for _ in 0..batches {
        topic.publish_many((0..BATCH).map(|_| make())).await.unwrap();
        let batch = subscription.pull(BATCH).await.unwrap();
        assert_eq!(batch.len(), BATCH);
        for delivery in &batch {
            black_box(delivery.data().len());
        }
        batch.ack_all();
    }
}

async fn owned(topic: &Topic, subscription: &Subscription, batches: usize, payload: &Bytes) {
    for _ in 0..batches {
        topic.publish_many((0..BATCH).map(|_| Message::new(payload.clone()))).await.unwrap();
        for delivery in subscription.pull(BATCH).await.unwrap() {
            black_box(delivery.data().len());
            delivery.ack();
        }
    }
}

pub(crate) fn one_thread_batched(table: &mut Table) {
    const BATCHES: usize = 1_000;
    const UNITS: usize = BATCHES * BATCH;
    let runtime = one_thread();
    let payload = payload(16);
    let (_bus, topic, subscription) = runtime.block_on(bus_with(Clock::system()));
    let results = race(
        31,
        vec![
            Box::new(|| {
                let make = || Message::new(payload.clone());
                wall(UNITS, || runtime.block_on(borrowed(&topic, &subscription, BATCHES, make)))
            }),
            Box::new(|| {
                wall(UNITS, || runtime.block_on(peers::mpsc_batches(&payload, BATCHES, BATCH)))
            }),
            Box::new(|| {
                wall(UNITS, || runtime.block_on(owned(&topic, &subscription, BATCHES, &payload)))
            }),
        ],
    );
    let peer = format!("tokio mpsc {:.1} ns", results.nanos(1));
    table.add(Line {
        row: "1",
        what: "batches of 100, one thread, borrowed batch".into(),
        ours: format!("{:.1} ns", results.nanos(0)),
        peer: peer.clone(),
        judged: results.ratio(0, 1),
        goal: Goal::AtMost(1.0),
        stretch: Goal::AtMost(0.6),
    });
    table.add(Line {
        row: "1",
        what: "the same, owned deliveries, each acked by itself".into(),
        ours: format!("{:.1} ns", results.nanos(2)),
        peer,
        judged: results.ratio(2, 1),
        goal: Goal::Shown,
        stretch: Goal::Shown,
    });
}

/// A subscription whose publisher waits while it is `AHEAD` messages behind, as the sender of a
/// bounded channel does.
pub(crate) async fn bounded(clock: Clock) -> (Bus, Topic, Subscription) {
    let config = SubscriptionConfig::new().backlog_limit(BacklogLimit::new(AHEAD as u64));
    world(Bus::builder().clock(clock).build(), config).await
}

/// A publisher task and a consumer task.
pub(crate) async fn two_tasks(
    topic: &Topic,
    subscription: &Subscription,
    payload: &Bytes,
    batches: usize,
) {
    let (topic, subscription, payload) = (topic.clone(), subscription.clone(), payload.clone());
    let producer = tokio::spawn(async move {
        for _ in 0..batches {
            topic.publish_many((0..BATCH).map(|_| Message::new(payload.clone()))).await.unwrap();
        }
    });
    let consumer = tokio::spawn(async move {
        let mut left = batches * BATCH;
        while left > 0 {
            let batch = subscription.pull(BATCH).await.unwrap();
            for delivery in &batch {
                black_box(delivery.data().len());
            }
            left -= batch.len();
            batch.ack_all();
        }
    });
    producer.await.unwrap();
    consumer.await.unwrap();
}

pub(crate) fn two_tasks_batched(table: &mut Table) {
    const BATCHES: usize = 2_000;
    const UNITS: usize = BATCHES * BATCH;
    let runtime = two_threads();
    let payload = payload(16);
    let (_bus, topic, subscription) = runtime.block_on(bounded(Clock::system()));
    let results = race(
        21,
        vec![
            Box::new(|| {
                wall(UNITS, || {
                    runtime.block_on(two_tasks(&topic, &subscription, &payload, BATCHES));
                })
            }),
            Box::new(|| {
                wall(UNITS, || {
                    runtime.block_on(peers::mpsc_tasks(&payload, BATCHES, BATCH, AHEAD));
                })
            }),
            Box::new(|| {
                wall(UNITS, || {
                    runtime.block_on(peers::channel_of_batches(&payload, BATCHES, BATCH, AHEAD));
                })
            }),
        ],
    );
    table.add(Line {
        row: "2",
        what: "the same, of what is possible: a channel of whole batches; throughput".into(),
        ours: format!("{:.1} ns", results.nanos(0)),
        peer: format!("tokio mpsc of Vec {:.1} ns", results.nanos(2)),
        judged: results.ratio(2, 0),
        goal: Goal::Shown,
        stretch: Goal::Shown,
    });
    table.add(Line {
        row: "2",
        what: "batches of 100, two tasks on two threads, borrowed batch; throughput".into(),
        ours: format!("{:.1} ns", results.nanos(0)),
        peer: format!("tokio mpsc {:.1} ns", results.nanos(1)),
        judged: results.ratio(1, 0),
        goal: Goal::AtLeast(1.3),
        stretch: Goal::AtLeast(2.0),
    });
}

pub(crate) async fn single(
    topic: &Topic,
    subscription: &Subscription,
    messages: usize,
    payload: &Bytes,
) {
    for _ in 0..messages {
        topic.publish(Message::new(payload.clone())).await.unwrap();
        let batch = subscription.pull(1).await.unwrap();
        for delivery in &batch {
            black_box(delivery.data().len());
        }
        batch.ack_all();
    }
}

async fn two_tasks_single(topic: &Topic, subscription: &Subscription, n: usize, payload: &Bytes) {
    let (topic, subscription, payload) = (topic.clone(), subscription.clone(), payload.clone());
    let producer = tokio::spawn(async move {
        for _ in 0..n {
            topic.publish(Message::new(payload.clone())).await.unwrap();
        }
    });
    let consumer = tokio::spawn(async move {
        for _ in 0..n {
            let batch = subscription.pull(1).await.unwrap();
            for delivery in &batch {
                black_box(delivery.data().len());
            }
            batch.ack_all();
        }
    });
    producer.await.unwrap();
    consumer.await.unwrap();
}

pub(crate) fn one_at_a_time(table: &mut Table) {
    const UNITS: usize = 50_000;
    let runtime = one_thread();
    let threads = two_threads();
    let payload = payload(16);
    let (_bus, topic, subscription) = runtime.block_on(bus_with(Clock::system()));
    let (_coarse, coarse_topic, coarse) = runtime.block_on(bus_with(Clock::coarse()));
    let (_two, two_topic, two) = threads.block_on(bounded(Clock::system()));
    let results = race(
        21,
        vec![
            Box::new(|| {
                wall(UNITS, || runtime.block_on(single(&topic, &subscription, UNITS, &payload)))
            }),
            Box::new(|| {
                wall(UNITS, || runtime.block_on(single(&coarse_topic, &coarse, UNITS, &payload)))
            }),
            Box::new(|| wall(UNITS, || runtime.block_on(peers::mpsc_single(&payload, UNITS)))),
            Box::new(|| wall(UNITS, || peers::mpsc_unbounded_single(&payload, UNITS))),
            Box::new(|| wall(UNITS, || peers::locked_queue_single(&payload, UNITS))),
            Box::new(|| {
                wall(UNITS, || {
                    threads.block_on(two_tasks_single(&two_topic, &two, UNITS, &payload));
                })
            }),
            Box::new(|| {
                wall(UNITS, || {
                    threads.block_on(peers::mpsc_tasks_single(&payload, UNITS, AHEAD));
                })
            }),
        ],
    );
    let mut add = |what: &str, ours: usize, name: &str, peer: usize, goal: Goal, stretch: Goal| {
        table.add(Line {
            row: "3",
            what: what.into(),
            ours: format!("{:.0} ns", results.nanos(ours)),
            peer: format!("{name} {:.0} ns", results.nanos(peer)),
            judged: results.ratio(ours, peer),
            goal,
            stretch,
        });
    };
    let (system, coarse, bounded, unbounded, queue, two, two_peer) = (0, 1, 2, 3, 4, 5, 6);
    let (most, best) = (Goal::AtMost(2.6), Goal::AtMost(2.1));
    add("one at a time, one thread, system clock", system, "tokio mpsc", bounded, most, best);
    let (most, best) = (Goal::AtMost(1.9), Goal::AtMost(1.5));
    add("the same, coarse clock", coarse, "tokio mpsc", bounded, most, best);
    let shown = Goal::Shown;
    add("the same, coarse clock", coarse, "tokio mpsc unbounded", unbounded, shown, shown);
    add("the same, coarse clock", coarse, "Mutex<VecDeque>", queue, shown, shown);
    let most = Goal::AtMost(1.0);
    add("one at a time, two tasks on two threads", two, "tokio mpsc", two_peer, most, shown);
}
