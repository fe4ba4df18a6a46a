//! Rows 16–18: what attributes and payloads cost on the way from publish to acknowledge.

use std::hint::black_box;

use bytes::Bytes;
use siftbus::{Clock, Message};

use crate::cycle::{BATCH, borrowed, bus_with};
use crate::measure::{one_thread, payload, race, wall};
use crate::table::{Goal, Line, Table};

const PAIRS: [(&str, &str); 4] =
    [("region", "eu-1"), ("kind", "order"), ("tenant", "t-17"), ("priority", "high")];

pub(crate) fn attributes(table: &mut Table) {
    const BATCHES: usize = 500;
    const UNITS: usize = BATCHES * BATCH;
    let runtime = one_thread();
    let payload = payload(16);
    let (_bus, topic, subscription) = runtime.block_on(bus_with(Clock::system()));
    let run = |make: &dyn Fn() -> Message| {
        wall(UNITS, || runtime.block_on(borrowed(&topic, &subscription, BATCHES, make)))
    };
    let plain = || Message::new(payload.clone());
    let two = || Message::new(payload.clone()).with_attributes([PAIRS[0], PAIRS[1]]);
    let four = || Message::new(payload.clone()).with_attributes(PAIRS);
    let message = four();
    let look_up = || {
        wall(UNITS, || {
            for number in 0..UNITS {
                black_box(message.attribute(black_box(PAIRS[number % 4].0)));
            }
        })
    };
    let results = race(
        21,
        vec![
            Box::new(|| run(&plain)),
            Box::new(|| run(&two)),
            Box::new(|| run(&four)),
            Box::new(look_up),
        ],
    );
    for (count, contestant, goal, stretch) in
        [(2, 1, 25.0, Goal::AtMost(12.0)), (4, 2, 40.0, Goal::Shown)]
    {
        table.add(Line {
            row: "16",
            what: format!("{count} short attributes more on a message, end to end, ns more"),
            ours: format!("{:.1} ns", results.nanos(contestant)),
            peer: format!("without {:.1} ns", results.nanos(0)),
            judged: results.difference(contestant, 0),
            goal: Goal::AtMost(goal),
            stretch,
        });
    }
    table.add(Line {
        row: "16",
        what: "look up one of four attributes, ns".into(),
        ours: format!("{:.1} ns", results.nanos(3)),
        peer: String::new(),
        judged: results.nanos(3),
        goal: Goal::AtMost(10.0),
        stretch: Goal::Shown,
    });
}

pub(crate) fn payload_shared(table: &mut Table) {
    const BATCHES: usize = 500;
    const UNITS: usize = BATCHES * BATCH;
    let runtime = one_thread();
    let (small, large) = (payload(16), payload(64 * 1024));
    let (_bus, topic, subscription) = runtime.block_on(bus_with(Clock::system()));
    let run = |payload: &Bytes| {
        let make = || Message::new(payload.clone());
        wall(UNITS, || runtime.block_on(borrowed(&topic, &subscription, BATCHES, make)))
    };
    let results = race(31, vec![Box::new(|| run(&large)), Box::new(|| run(&small))]);
    table.add(Line {
        row: "17",
        what: "payload of 64 KiB against 16 B, shared".into(),
        ours: format!("{:.1} ns", results.nanos(0)),
        peer: format!("16 B {:.1} ns", results.nanos(1)),
        judged: results.ratio(0, 1),
        goal: Goal::AtMost(1.05),
        stretch: Goal::AtMost(1.0),
    });
}

pub(crate) fn payload_copied(table: &mut Table) {
    const BYTES: usize = 64 * 1024;
    const UNITS: usize = 4_000;
    let runtime = one_thread();
    let source = vec![7_u8; BYTES];
    let (_bus, topic, subscription) = runtime.block_on(bus_with(Clock::system()));
    let ours = || {
        wall(UNITS, || {
            runtime.block_on(async {
                for _ in 0..UNITS {
                    topic.publish(Bytes::copy_from_slice(&source)).await.unwrap();
                    let batch = subscription.pull(1).await.unwrap();
                    for delivery in &batch {
                        black_box(delivery.data().len());
                    }
                    batch.ack_all();
                }
            });
        })
    };
    let copy = || {
        wall(UNITS, || {
            for _ in 0..UNITS {
                black_box(Bytes::copy_from_slice(black_box(&source)));
            }
        })
    };
    let results = race(31, vec![Box::new(ours), Box::new(copy)]);
    table.add(Line {
        row: "18",
        what: "payload of 64 KiB copied in, one at a time".into(),
        ours: format!("{:.0} ns", results.nanos(0)),
        peer: format!("the copy alone {:.0} ns", results.nanos(1)),
        judged: results.ratio(0, 1),
        goal: Goal::AtMost(1.2),
        stretch: Goal::AtMost(1.05),
    });
}
