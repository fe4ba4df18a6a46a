//! Rows 1–3 once more where somebody watches: a subscription with a limit, and statistics of
//! everything read every second. The goals are the same as without.

use std::time::Duration;

use siftbus::{BacklogLimit, Bus, Clock, Message, Subscription, SubscriptionConfig, Topic};

use crate::cycle::{AHEAD, BATCH, borrowed, single, two_tasks, world};
use crate::measure::{Results, one_thread, payload, race, two_threads, wall};
use crate::peers;
use crate::table::{Goal, Line, Table};

/// More than is ever in the backlog, less than is published between two looks at it.
const LIMIT: u64 = 10_000;

async fn limited() -> (Bus, Topic, Subscription) {
    let config = SubscriptionConfig::new().backlog_limit(BacklogLimit::new(LIMIT));
    world(Bus::builder().clock(Clock::system()).build(), config).await
}

/// Runs `work` while a thread reads all statistics every second.
fn watched<R>(world: &(Bus, Topic, Subscription), work: impl FnOnce() -> R) -> R {
    let (bus, topic, subscription) = world;
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let pause = Duration::from_secs(1);
            while is_done.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                std::hint::black_box((bus.stats(), topic.stats(), subscription.stats()));
            }
        });
        let result = work();
        drop(done);
        result
    })
}

pub(crate) fn all(table: &mut Table) {
    add(table, "row 1", batched(), Goal::AtMost(1.0));
    add(table, "row 2, time", between_tasks(), Goal::AtMost(1.0 / 1.3));
    add(table, "row 3", one_at_a_time(), Goal::AtMost(2.6));
}

fn add(table: &mut Table, what: &str, results: Results, goal: Goal) {
    table.add(Line {
        row: "1 limited",
        what: format!("{what}, with a limit and statistics every second"),
        ours: format!("{:.1} ns", results.nanos(0)),
        peer: format!("tokio mpsc {:.1} ns", results.nanos(1)),
        judged: results.ratio(0, 1),
        goal,
        stretch: Goal::Shown,
    });
}

fn batched() -> Results {
    const BATCHES: usize = 1_000;
    const UNITS: usize = BATCHES * BATCH;
    let runtime = one_thread();
    let payload = payload(16);
    let world = runtime.block_on(limited());
    let make = || Message::new(payload.clone());
    let ours = || runtime.block_on(borrowed(&world.1, &world.2, BATCHES, make));
    let peer = || runtime.block_on(peers::mpsc_batches(&payload, BATCHES, BATCH));
    let contestants: Vec<crate::measure::Contestant<'_>> =
        vec![Box::new(|| wall(UNITS, ours)), Box::new(|| wall(UNITS, peer))];
    watched(&world, || race(301, contestants))
}

fn between_tasks() -> Results {
    const BATCHES: usize = 2_000;
    const UNITS: usize = BATCHES * BATCH;
    let runtime = two_threads();
    let payload = payload(16);
    let world = runtime.block_on(limited());
    let ours = || runtime.block_on(two_tasks(&world.1, &world.2, &payload, BATCHES));
    let peer = || runtime.block_on(peers::mpsc_tasks(&payload, BATCHES, BATCH, AHEAD));
    let contestants: Vec<crate::measure::Contestant<'_>> =
        vec![Box::new(|| wall(UNITS, ours)), Box::new(|| wall(UNITS, peer))];
    watched(&world, || race(101, contestants))
}

fn one_at_a_time() -> Results {
    const UNITS: usize = 50_000;
    let runtime = one_thread();
    let payload = payload(16);
    let world = runtime.block_on(limited());
    let ours = || runtime.block_on(single(&world.1, &world.2, UNITS, &payload));
    let peer = || runtime.block_on(peers::mpsc_single(&payload, UNITS));
    let contestants: Vec<crate::measure::Contestant<'_>> =
        vec![Box::new(|| wall(UNITS, ours)), Box::new(|| wall(UNITS, peer))];
    watched(&world, || race(201, contestants))
}
