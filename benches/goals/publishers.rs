//! The row of publishers: several tasks publish one at a time to one topic, and one consumes.

use std::hint::black_box;

use bytes::Bytes;
use siftbus::{Clock, Message, Subscription, Topic};

use crate::cycle::{BATCH, bus_with};
use crate::measure::{payload, race, two_threads, wall};
use crate::peers;
use crate::table::{Goal, Line, Table};

async fn publishers(topic: &Topic, taker: &Subscription, payload: &Bytes, n: usize, each: usize) {
    let producers = (0..n).map(|_| {
        let (topic, payload) = (topic.clone(), payload.clone());
        tokio::spawn(async move {
            for _ in 0..each {
                topic.publish(Message::new(payload.clone())).await.unwrap();
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let taker = taker.clone();
    let consumer = tokio::spawn(async move {
        let mut left = n * each;
        while left > 0 {
            let batch = taker.pull(BATCH).await.unwrap();
            for delivery in &batch {
                black_box(delivery.data().len());
            }
            left -= batch.len();
            batch.ack_all();
        }
    });
    for task in producers {
        task.await.unwrap();
    }
    consumer.await.unwrap();
}

pub(crate) fn side_by_side(table: &mut Table) {
    const UNITS: usize = 96_000;
    let runtime = two_threads();
    let payload = payload(16);
    for count in [1, 4, 16] {
        let each = UNITS / count;
        let (_bus, topic, taker) = runtime.block_on(bus_with(Clock::system()));
        let ours = || runtime.block_on(publishers(&topic, &taker, &payload, count, each));
        let kanal = || runtime.block_on(peers::kanal_publishers(&payload, count, each));
        let flume = || runtime.block_on(peers::flume_publishers(&payload, count, each));
        let results = race(
            15,
            vec![
                Box::new(|| wall(UNITS, ours)),
                Box::new(|| wall(UNITS, kanal)),
                Box::new(|| wall(UNITS, flume)),
            ],
        );
        for (name, peer) in [("kanal", 1), ("flume", 2)] {
            table.add(Line {
                row: "publishers",
                what: format!("{count} publishers and one consumer on two threads, unbounded"),
                ours: format!("{:.0} ns", results.nanos(0)),
                peer: format!("{name} {:.0} ns", results.nanos(peer)),
                judged: results.ratio(0, peer),
                goal: Goal::AtMost(1.5),
                stretch: Goal::AtMost(1.0),
            });
        }
    }
}
