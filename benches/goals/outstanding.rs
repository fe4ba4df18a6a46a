//! Row 14: what a lease and its acknowledgement cost while a million others are outstanding.
//!
//! The goal is about the leases. The last acknowledgement of a message also frees it, and a million
//! of those have left every cache by then: so the messages are kept for another subscription where
//! the goal is judged, and what freeing adds is shown beside it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use siftbus::{Budget, Bus, Deliveries, Message, Subscription, SubscriptionConfig, Topic};
use tokio::runtime::Runtime;

use crate::cycle::{BATCH, world};
use crate::measure::{Sample, one_thread, payload, race, wall};
use crate::table::{Goal, Line, Table};

const BATCHES: usize = 1_000;

struct Busy {
    _bus: Bus,
    topic: Topic,
    subscription: Subscription,
    held: VecDeque<Deliveries>,
}

impl Busy {
    fn new(runtime: &Runtime, payload: &Bytes, outstanding: usize, kept: bool) -> Self {
        let bus = Bus::builder().budget(Budget::unlimited()).build();
        let config = SubscriptionConfig::new().ack_deadline(Duration::from_secs(600));
        let (bus, topic, subscription) = runtime.block_on(world(bus, config));
        if kept {
            runtime.block_on(topic.subscribe("keeper", SubscriptionConfig::new())).unwrap();
        }
        let mut busy = Self { _bus: bus, topic, subscription, held: VecDeque::new() };
        for _ in 0..outstanding / BATCH {
            busy.publish(payload);
            busy.lease();
        }
        busy
    }

    fn publish(&self, payload: &Bytes) {
        let messages = (0..BATCH).map(|_| Message::new(payload.clone()));
        self.topic.try_publish_many(messages).unwrap();
    }

    fn lease(&mut self) {
        let batch = self.subscription.try_pull(BATCH).unwrap();
        assert_eq!(batch.len(), BATCH);
        self.held.push_back(batch);
    }

    /// Leases the newest and acknowledges the oldest; what is leased is published before.
    fn turn(&mut self, payload: &Bytes) -> Sample {
        (0..BATCHES).for_each(|_| self.publish(payload));
        wall(BATCHES * BATCH, || {
            for _ in 0..BATCHES {
                self.lease();
                let oldest = self.held.pop_front().unwrap();
                assert_eq!(oldest.ack_all().done, BATCH);
            }
        })
    }
}

pub(crate) fn a_million(table: &mut Table) {
    compare(table, true, "", [1.1, 5.0].map(Goal::AtMost));
    compare(table, false, ", messages freed", [Goal::Shown; 2]);
}

fn compare(table: &mut Table, kept: bool, how: &str, goals: [Goal; 2]) {
    let runtime = one_thread();
    let payload = payload(16);
    let mut many = Busy::new(&runtime, &payload, 1_000_000, kept);
    let mut few = Busy::new(&runtime, &payload, 1_000, kept);
    let results = race(15, vec![Box::new(|| many.turn(&payload)), Box::new(|| few.turn(&payload))]);
    let mut add = |what: &str, judged: f64, goal: Goal| {
        table.add(Line {
            row: "14",
            what: format!("1,000,000 leases outstanding: lease and ack by 100{how}, {what}"),
            ours: format!("{:.1} ns", results.nanos(0)),
            peer: format!("1,000 outstanding {:.1} ns", results.nanos(1)),
            judged,
            goal,
            stretch: Goal::Shown,
        });
    };
    add("ratio", results.ratio(0, 1), goals[0]);
    add("ns more", results.difference(0, 1), goals[1]);
}
