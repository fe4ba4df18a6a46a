//! Rows 8 to 11: what filters cost a publish, by their number and kind, and what one costs to
//! create. Matching is the difference between a publish to a topic with filters and the same
//! publish to the same subscription without any; a message that matches is also delivered.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use siftbus::{Bus, Filter, SubscriptionConfig, Topic, TopicConfig};

use crate::filtered::{MESSAGES, conjunction, filtered, messages, spread, unknown, value};
use crate::measure::{Contestant, Sample, one_thread, race, wall};
use crate::peers;
use crate::table::{Goal, Line, Table};

/// One shape of filters at 10 and at 100,000 of them.
struct Shape {
    row: &'static str,
    name: &'static str,
    filter: fn(usize) -> Filter,
    /// An attribute besides `correlid` and `region`.
    extra: &'static str,
    /// Whether messages have a value that a filter names; they never match in the end.
    hits: bool,
    most_nanos: f64,
    stretch_nanos: f64,
    most_ratio: f64,
}

fn match_cost(shape: &Shape, table: &mut Table) {
    let (none, ten) = (filtered(0, shape.filter), filtered(10, shape.filter));
    let many = filtered(100_000, shape.filter);
    let asked = |count: usize| {
        let hit = move |nth| spread(nth, count);
        if shape.hits { messages(hit, shape.extra) } else { messages(unknown, shape.extra) }
    };
    let (few, lots) = (asked(10), asked(100_000));
    for (form, batch) in [("one at a time", 1), ("batches of 100", 100)] {
        let results = race(
            31,
            vec![
                Box::new(|| many.publish(&lots, batch)),
                Box::new(|| ten.publish(&few, batch)),
                Box::new(|| none.publish(&lots, batch)),
            ],
        );
        let (at_many, at_ten) = (results.difference(0, 2), results.difference(1, 2));
        table.add(Line {
            row: shape.row,
            what: format!("match with 100,000 filters, {}, {form}", shape.name),
            ours: format!("{:.1} ns more", at_many),
            peer: format!("publish without {:.1} ns", results.nanos(2)),
            judged: at_many,
            goal: Goal::AtMost(shape.most_nanos),
            stretch: Goal::AtMost(shape.stretch_nanos),
        });
        table.add(Line {
            row: shape.row,
            what: format!("100,000 filters against 10, {}, {form}", shape.name),
            ours: format!("{:.1} ns more", at_many),
            peer: format!("{:.1} ns more", at_ten),
            judged: at_many / at_ten.max(1.0),
            goal: Goal::AtMost(shape.most_ratio),
            stretch: Goal::Shown,
        });
    }
}

pub(crate) fn equality(table: &mut Table) {
    let filter = |number| Filter::eq("correlid", &value(number));
    let shape = Shape {
        row: "8",
        name: "k = X, no hit",
        filter,
        extra: "kind",
        hits: false,
        most_nanos: 40.0,
        stretch_nanos: 30.0,
        most_ratio: 1.8,
    };
    match_cost(&shape, table);
    // With a hit: found, compared and delivered, each time to another subscription.
    let sizes = [10, 1_000, 100_000];
    let topics = sizes.map(|count| filtered(count, filter));
    let asked = sizes.map(|count| messages(move |nth| spread(nth, count), "kind"));
    let run = |at: usize| {
        let sample = topics[at].publish(&asked[at], 1);
        topics[at].drain();
        sample
    };
    let results = race(15, vec![Box::new(|| run(2)), Box::new(|| run(1)), Box::new(|| run(0))]);
    for (at, count) in [(0, "100,000"), (1, "1,000")] {
        table.add(Line {
            row: "8",
            what: format!("publish to one of {count} equality filters and to all, one at a time"),
            ours: format!("{:.1} ns", results.nanos(at)),
            peer: format!("one of 10: {:.1} ns", results.nanos(2)),
            judged: results.ratio(at, 2),
            // Each goes to another subscription, whose state is cold: that is delivery.
            goal: Goal::Shown,
            stretch: Goal::Shown,
        });
    }
    thousand(table);
    scanned(table);
    million(table);
}

/// A thousand filters against ten.
fn thousand(table: &mut Table) {
    let filter = |number| Filter::eq("correlid", &value(number));
    let [many, ten, none] = [1_000, 10, 0].map(|count| filtered(count, filter));
    let asked = messages(unknown, "kind");
    for (form, batch) in [("one at a time", 1), ("batches of 100", 100)] {
        let contestants = [&many, &ten, &none].map(|topic| -> Contestant<'_> {
            let asked = &asked;
            Box::new(move || topic.publish(asked, batch))
        });
        let results = race(31, contestants.into());
        let (at_many, at_ten) = (results.difference(0, 2), results.difference(1, 2));
        table.add(Line {
            row: "8",
            what: format!("1,000 filters against 10, k = X, no hit, {form}"),
            ours: format!("{at_many:.1} ns more"),
            peer: format!("{at_ten:.1} ns more"),
            judged: at_many / at_ten.max(1.0),
            goal: Goal::AtMost(1.3),
            stretch: Goal::Shown,
        });
    }
}

pub(crate) fn residual(table: &mut Table) {
    let shape = Shape {
        row: "9",
        name: "k = X AND NOT test, hit and checked",
        filter: conjunction,
        extra: "test",
        hits: true,
        most_nanos: 100.0,
        stretch_nanos: 60.0,
        most_ratio: 2.5,
    };
    match_cost(&shape, table);
}

pub(crate) fn prefix(table: &mut Table) {
    let shape = Shape {
        row: "10",
        name: "prefixes of one length",
        filter: |number| Filter::prefix("correlid", &value(number)[..12]),
        extra: "kind",
        hits: false,
        most_nanos: 45.0,
        stretch_nanos: 30.0,
        most_ratio: 1.8,
    };
    match_cost(&shape, table);
    let of = |lengths: usize| {
        filtered(100_000, move |number| {
            let length = 8 + number % lengths;
            Filter::prefix("correlid", &value(number)[..length])
        })
    };
    let (one, eight) = (of(1), of(8));
    let asked = messages(unknown, "kind");
    let results =
        race(31, vec![Box::new(|| eight.publish(&asked, 1)), Box::new(|| one.publish(&asked, 1))]);
    table.add(Line {
        row: "10",
        what: "each further length of 100,000 prefixes".into(),
        ours: format!("{:.1} ns with 8 lengths", results.nanos(0)),
        peer: format!("{:.1} ns with one", results.nanos(1)),
        judged: results.difference(0, 1) / 7.0,
        goal: Goal::AtMost(15.0),
        stretch: Goal::AtMost(10.0),
    });
}

pub(crate) fn create(table: &mut Table) {
    let runtime = one_thread();
    let names: Vec<String> = (0..10_000).map(|number| format!("more-{number}")).collect();
    let configs: Vec<_> = (0..10_000)
        .map(|number| SubscriptionConfig::new().filter(Filter::eq("correlid", &value(number))))
        .collect();
    let create = || {
        let bus = Bus::new();
        runtime.block_on(async {
            let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
            let configs = configs.clone();
            let start = Instant::now();
            for (name, config) in names.iter().zip(configs) {
                topic.subscribe(name, config).await.unwrap();
            }
            Sample { time: start.elapsed(), units: names.len() }
        })
    };
    let results = race(9, vec![Box::new(create)]);
    table.add(Line {
        row: "11",
        what: "create a filtered subscription, 10,000 on one topic".into(),
        ours: format!("{:.0} ns", results.nanos(0)),
        peer: String::new(),
        judged: results.nanos(0) / 1e3,
        goal: Goal::AtMost(2.0),
        stretch: Goal::AtMost(1.0),
    });
    table.add(Line {
        row: "11",
        what: "all 10,000 together".into(),
        ours: format!("{:.1} ms", results.nanos(0) * 1e4 / 1e6),
        peer: String::new(),
        judged: results.nanos(0) * 1e4 / 1e6,
        goal: Goal::AtMost(20.0),
        stretch: Goal::Shown,
    });
    let topic = filtered(100_000, |number| Filter::eq("correlid", &value(number)));
    let stats = topic.topic.filter_stats();
    let bytes = stats.memory_bytes as f64 / stats.filters as f64;
    table.add(Line {
        row: "11",
        what: "memory of the index for a filter, both copies, at 100,000".into(),
        ours: format!("{bytes:.0} bytes"),
        peer: String::new(),
        judged: bytes,
        goal: Goal::AtMost(200.0),
        stretch: Goal::Shown,
    });
}

/// A million filters against ten.
fn million(table: &mut Table) {
    let filter = |number| Filter::eq("correlid", &value(number));
    let (few, lots) = (filtered(10, filter), filtered(1_000_000, filter));
    let asked = messages(unknown, "kind");
    let results =
        race(31, vec![Box::new(|| lots.publish(&asked, 1)), Box::new(|| few.publish(&asked, 1))]);
    table.add(Line {
        row: "8",
        what: "publish beside 1,000,000 equality filters against 10, one at a time".into(),
        ours: format!("{:.1} ns", results.nanos(0)),
        peer: format!("{:.1} ns", results.nanos(1)),
        judged: results.ratio(0, 1),
        goal: Goal::AtMost(3.0),
        stretch: Goal::AtMost(1.5),
    });
}

/// The same work by looking at every filter, as most programs do it.
fn scanned(table: &mut Table) {
    for count in [10, 1_000, 100_000] {
        let filter = |number| Filter::eq("correlid", &value(number));
        let (topic, none) = (filtered(count, filter), filtered(0, filter));
        let filters: Vec<Filter> = (0..count).map(filter).collect();
        let asked = messages(unknown, "kind");
        let some = &asked[..(2_000_000 / count).clamp(20, MESSAGES)];
        let results = race(
            7,
            vec![
                Box::new(|| topic.publish(&asked, 1)),
                Box::new(|| none.publish(&asked, 1)),
                Box::new(|| wall(some.len(), || peers::scan_filters(&filters, some))),
            ],
        );
        let ours = results.difference(0, 1);
        table.add(Line {
            row: "8",
            what: format!("match with {count} equality filters against looking at each"),
            ours: format!("{ours:.1} ns"),
            peer: format!("{:.0} ns", results.nanos(2)),
            judged: ours / results.nanos(2),
            goal: Goal::Shown,
            stretch: Goal::Shown,
        });
    }
}

/// How many changes come in a second.
const CHANGES: usize = 50_000;

/// Subscribes and deletes at that pace while `running`, until `stop`; counts into `changes`.
fn come_and_go(topic: &Topic, running: &AtomicBool, stop: &AtomicBool, changes: &AtomicUsize) {
    let runtime = one_thread();
    let mut number = 2_000_000_000;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let mut done = 0;
        while running.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
            let due = start.elapsed().as_secs_f64() * CHANGES as f64;
            if due as usize <= done {
                std::hint::spin_loop();
                continue;
            }
            number += 1;
            let config = SubscriptionConfig::new().filter(Filter::eq("correlid", &value(number)));
            runtime.block_on(async {
                let comes = topic.subscribe("comes and goes", config).await.unwrap();
                comes.delete().await.unwrap();
            });
            done += 2;
            changes.fetch_add(2, Ordering::Relaxed);
        }
        std::hint::spin_loop();
    }
}

/// Subscriptions come and go beside a publisher; equal filters are evaluated once.
pub(crate) fn change(table: &mut Table) {
    /// Publishes of [`MESSAGES`] for one sample, so that it lasts.
    const REPEATED: usize = 30;
    let topic = filtered(100_000, |number| Filter::eq("correlid", &value(number)));
    let asked = messages(unknown, "kind");
    let (stop, running) = (AtomicBool::new(false), AtomicBool::new(false));
    let changes = AtomicUsize::new(0);
    let mut busy_time = Duration::ZERO;
    let results = std::thread::scope(|scope| {
        scope.spawn(|| come_and_go(&topic.topic, &running, &stop, &changes));
        let run = |busy: bool| {
            running.store(busy, Ordering::Relaxed);
            let samples = (0..REPEATED).map(|_| topic.publish(&asked, 1));
            let time = samples.map(|sample| sample.time).sum();
            Sample { time, units: MESSAGES * REPEATED }
        };
        let mut beside = || {
            let start = Instant::now();
            let sample = run(true);
            running.store(false, Ordering::Relaxed);
            busy_time += start.elapsed();
            sample
        };
        let results = race(21, vec![Box::new(&mut beside), Box::new(|| run(false))]);
        stop.store(true, Ordering::Relaxed);
        results
    });
    table.add(Line {
        row: "change",
        what: "publish beside subscribe and delete at 50,000 a second".into(),
        ours: format!("{:.1} ns", results.nanos(0)),
        peer: format!("alone {:.1} ns", results.nanos(1)),
        judged: results.ratio(0, 1),
        goal: Goal::AtMost(1.2),
        stretch: Goal::Shown,
    });
    let rate = changes.load(Ordering::Relaxed) as f64 / busy_time.as_secs_f64();
    table.add(Line {
        row: "change",
        what: "changes a second that were kept up meanwhile".into(),
        ours: format!("{rate:.0}"),
        peer: String::new(),
        judged: rate,
        // The pace is met from below, but for its last step.
        goal: Goal::AtLeast(0.99 * CHANGES as f64),
        stretch: Goal::Shown,
    });
    drop(topic.bus);
    let one = filtered(1, |_| conjunction(0));
    let copies = filtered(100_000, |_| conjunction(0));
    let asked = messages(|_| 0, "test");
    let results =
        race(31, vec![Box::new(|| copies.publish(&asked, 1)), Box::new(|| one.publish(&asked, 1))]);
    table.add(Line {
        row: "change",
        what: "100,000 copies of one filter against one".into(),
        ours: format!("{:.1} ns", results.nanos(0)),
        peer: format!("{:.1} ns", results.nanos(1)),
        judged: results.ratio(0, 1),
        goal: Goal::AtMost(1.2),
        stretch: Goal::AtMost(1.05),
    });
}
