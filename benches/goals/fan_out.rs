//! Rows 4 and 5: one publish for many subscriptions, and the whole way to each of them.

use std::hint::black_box;

use bytes::Bytes;
use siftbus::{Bus, Message, Subscription, SubscriptionConfig, Topic, TopicConfig};

use crate::cycle::BATCH;
use crate::measure::{Sample, cpu, one_thread, payload, race, two_threads, wall};
use crate::peers;
use crate::table::{Goal, Line, Table};

struct Fan {
    _bus: Bus,
    topic: Topic,
    subscriptions: Vec<Subscription>,
}

async fn fan(subscriptions: usize) -> Fan {
    let bus = Bus::new();
    let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
    let mut all = Vec::with_capacity(subscriptions);
    for number in 0..subscriptions {
        let config = SubscriptionConfig::new();
        all.push(topic.subscribe(&format!("subscription-{number}"), config).await.unwrap());
    }
    Fan { _bus: bus, topic, subscriptions: all }
}

impl Fan {
    /// Times the publishing alone, then empties every subscription.
    async fn publish(&self, messages: usize, batch: usize, payload: &Bytes) -> Sample {
        let start = std::time::Instant::now();
        for _ in 0..messages / batch {
            if batch == 1 {
                self.topic.publish(Message::new(payload.clone())).await.unwrap();
            } else {
                let messages = (0..batch).map(|_| Message::new(payload.clone()));
                self.topic.publish_many(messages).await.unwrap();
            }
        }
        let sample = Sample { time: start.elapsed(), units: messages };
        for subscription in &self.subscriptions {
            assert_eq!(subscription.pull(messages).await.unwrap().ack_all().done, messages);
        }
        sample
    }

    /// Publishes to a task per subscription, which pulls, looks and acknowledges.
    async fn whole(&self, messages: usize, payload: &Bytes) {
        let tasks: Vec<_> = self
            .subscriptions
            .iter()
            .cloned()
            .map(|subscription| {
                tokio::spawn(async move {
                    let mut left = messages;
                    while left > 0 {
                        let batch = subscription.pull(BATCH).await.unwrap();
                        for delivery in &batch {
                            black_box(delivery.data().len());
                        }
                        left -= batch.len();
                        batch.ack_all();
                    }
                })
            })
            .collect();
        for _ in 0..messages / BATCH {
            let messages = (0..BATCH).map(|_| Message::new(payload.clone()));
            self.topic.publish_many(messages).await.unwrap();
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
}

pub(crate) fn publish_to_many(table: &mut Table) {
    const MESSAGES: usize = 2_000;
    let runtime = one_thread();
    let payload = payload(16);
    let (one, many) = (runtime.block_on(fan(1)), runtime.block_on(fan(1_000)));
    for (what, batch) in [("one at a time", 1), ("batches of 100", BATCH)] {
        // The few microseconds of one subscription are repeated so that both are measured as well.
        let publish = |fan: &Fan| runtime.block_on(fan.publish(MESSAGES, batch, &payload));
        let results = race(31, vec![Box::new(|| publish(&many)), Box::new(|| publish(&one))]);
        table.add(Line {
            row: "4",
            what: format!("publish to 1,000 subscriptions, {what}"),
            ours: format!("{:.1} ns", results.nanos(0)),
            peer: format!("to one {:.1} ns", results.nanos(1)),
            judged: results.ratio(0, 1),
            goal: Goal::AtMost(1.2),
            stretch: Goal::AtMost(1.05),
        });
    }
}

pub(crate) fn whole(table: &mut Table) {
    let runtime = two_threads();
    let payload = payload(16);
    for (receivers, messages) in [(100, 2_000), (1_000, 500)] {
        let fan = runtime.block_on(fan(receivers));
        let units = receivers * messages;
        let ours = || runtime.block_on(fan.whole(messages, &payload));
        let broadcast =
            || runtime.block_on(peers::broadcast_to(&payload, receivers, messages, BATCH));
        let each = || runtime.block_on(peers::mpsc_to_each(&payload, receivers, messages, BATCH));
        let results = race(
            9,
            vec![
                Box::new(|| cpu(units, ours)),
                Box::new(|| cpu(units, broadcast)),
                Box::new(|| cpu(units, each)),
                Box::new(|| wall(units, ours)),
            ],
        );
        table.add(Line {
            row: "5",
            what: format!(
                "to {receivers} tasks, processor time per delivery, borrowed batch \
                 (wall {:.1} ns; a channel for each {:.1} ns)",
                results.nanos(3),
                results.nanos(2),
            ),
            ours: format!("{:.1} ns", results.nanos(0)),
            peer: format!("tokio broadcast {:.1} ns", results.nanos(1)),
            judged: results.ratio(0, 1),
            goal: Goal::AtMost(0.33),
            stretch: Goal::AtMost(0.1),
        });
    }
}
