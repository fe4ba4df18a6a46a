//! Rows 19, 20 and idle: what calls cost besides the work, and what doing nothing costs.

use std::time::Duration;

use siftbus::{Bus, SubscriptionConfig, TopicConfig};

use crate::cycle::bus_with;
use crate::measure::{cpu_time, one_thread, race, resident_bytes, two_threads, wall};
use crate::table::{Goal, Line, Table};

/// Clock readings and wake-ups per call, counted.
#[cfg(feature = "internals")]
pub(crate) fn counted(table: &mut Table) {
    use siftbus::internals::counters;
    use siftbus::{Clock, Message};

    const CALLS: u64 = 1_000;
    let runtime = one_thread();
    let (_bus, topic, subscription) = runtime.block_on(bus_with(Clock::system()));
    let mut add = |what: &str, count: u64, goal: f64| {
        let each = count as f64 / CALLS as f64;
        table.add(Line {
            row: "19",
            what: format!("{what}, per call"),
            ours: format!("{each}"),
            peer: String::new(),
            judged: each,
            goal: Goal::AtMost(goal),
            stretch: Goal::Shown,
        });
    };
    let start = counters();
    for _ in 0..CALLS {
        topic.try_publish(Message::new("x")).unwrap();
    }
    let published = counters();
    let batches: Vec<_> = (0..CALLS).map(|_| subscription.try_pull(1).unwrap()).collect();
    let pulled = counters();
    let done: usize = batches.into_iter().map(|batch| batch.ack_all().done).sum();
    assert_eq!(done as u64, CALLS);
    let acked = counters();
    add("clock readings of a publish", published.clock_reads - start.clock_reads, 1.0);
    add("clock readings of a pull", pulled.clock_reads - published.clock_reads, 1.0);
    add("clock readings of an ack", acked.clock_reads - pulled.clock_reads, 0.0);
    add("wakers woken when nobody waits", acked.notifies - start.notifies, 0.0);
    let before = counters();
    runtime.block_on(async {
        for _ in 0..CALLS {
            let waiting = subscription.clone();
            let task = tokio::spawn(async move { waiting.pull(10).await.unwrap().ack_all() });
            tokio::task::yield_now().await;
            topic.publish_many(["a", "b", "c"]).await.unwrap();
            assert_eq!(task.await.unwrap().done, 3);
        }
    });
    add("wakers woken by a batch with one waiter", counters().notifies - before.notifies, 1.0);
}

#[cfg(not(feature = "internals"))]
pub(crate) fn counted(table: &mut Table) {
    table.skip("19", "counts need `--features internals`");
}

pub(crate) fn start_up(table: &mut Table) {
    const UNITS: usize = 1_000;
    let runtime = one_thread();
    let start = || runtime.block_on(bus_with(siftbus::Clock::system()));
    let mut kept = Vec::with_capacity(UNITS * 12);
    let before = resident_bytes();
    let results =
        race(9, vec![Box::new(|| wall(UNITS, || kept.extend((0..UNITS).map(|_| start()))))]);
    let bytes = (resident_bytes() - before) as f64 / kept.len() as f64;
    table.add(Line {
        row: "20",
        what: "bus, topic and subscription ready, µs".into(),
        ours: format!("{:.2} µs", results.nanos(0) / 1e3),
        peer: String::new(),
        judged: results.nanos(0) / 1e3,
        goal: Goal::AtMost(10.0),
        stretch: Goal::AtMost(2.0),
    });
    table.add(Line {
        row: "20",
        what: "memory of a bus with topic and subscription, KiB resident".into(),
        ours: format!("{:.1} KiB", bytes / 1024.0),
        peer: String::new(),
        judged: bytes / 1024.0,
        goal: Goal::AtMost(64.0),
        stretch: Goal::Shown,
    });
}

/// Processor time of a bus on which 10,000 pullers wait and nothing happens.
pub(crate) fn idle(table: &mut Table) {
    const PULLERS: usize = 10_000;
    const WATCHED: Duration = Duration::from_secs(5);
    let runtime = two_threads();
    let (used, bus) = runtime.block_on(async {
        let bus = Bus::new();
        let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
        for number in 0..PULLERS {
            let config = SubscriptionConfig::new();
            let name = format!("subscription-{number}");
            let subscription = topic.subscribe(&name, config).await.unwrap();
            tokio::spawn(async move { subscription.pull(1).await.map(drop) });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = cpu_time();
        tokio::time::sleep(WATCHED).await;
        (cpu_time() - before, bus)
    });
    drop(bus);
    table.add(Line {
        row: "idle",
        what: "10,000 waiting pullers for 5 s, processor time in ms".into(),
        ours: format!("{:.2} ms", used.as_secs_f64() * 1e3),
        peer: String::new(),
        judged: used.as_secs_f64() * 1e3,
        goal: Goal::AtMost(1.0),
        stretch: Goal::Shown,
    });
}
