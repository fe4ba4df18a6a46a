//! Row 15 and the rows of policies: many leases with deadlines of their own, order by key, and what
//! policies cost where nothing fails.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use siftbus::{
    AckId, BacklogLimit, Bus, DeadLetterPolicy, Deliveries, Message, RetryPolicy, Subscription,
    SubscriptionConfig, Topic, TopicConfig,
};

use crate::cycle::{AHEAD, BATCH, borrowed, single, two_tasks};
use crate::measure::{Results, Sample, cpu, median, one_thread, payload, race, two_threads, wall};
use crate::table::{Goal, Line, Table};

async fn bus_with(config: SubscriptionConfig) -> (Bus, Topic, Subscription) {
    let bus = Bus::new();
    bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
    let subscription = topic.subscribe("subscription", config).await.unwrap();
    (bus, topic, subscription)
}

/// Rows 1 to 3 with a retry and a dead-letter policy, beside the same without.
pub(crate) fn unused_policies(table: &mut Table) {
    const BATCHES: usize = 1_000;
    const SINGLES: usize = 50_000;
    let payload = payload(16);
    let limit = BacklogLimit::new(AHEAD as u64);
    let plain = || SubscriptionConfig::new().backlog_limit(limit);
    let with = || {
        plain().retry_policy(RetryPolicy::new()).dead_letter_policy(DeadLetterPolicy::new("dead"))
    };
    let mut add = |what: &str, results: Results| {
        table.add(Line {
            row: "policies",
            what: format!("{what} with a retry and a dead-letter policy"),
            ours: format!("{:.1} ns", results.nanos(0)),
            peer: format!("without {:.1} ns", results.nanos(1)),
            judged: results.ratio(0, 1),
            goal: Goal::AtMost(1.1),
            stretch: Goal::AtMost(1.02),
        });
    };
    let (one, two) = (one_thread(), two_threads());
    let batched = |(_, topic, subscription): &(Bus, Topic, Subscription)| {
        let make = || Message::new(payload.clone());
        let work = borrowed(topic, subscription, BATCHES, make);
        wall(BATCHES * BATCH, || one.block_on(work))
    };
    let between = |(_, topic, subscription): &(Bus, Topic, Subscription)| {
        let work = two_tasks(topic, subscription, &payload, BATCHES);
        wall(BATCHES * BATCH, || two.block_on(work))
    };
    let singly = |(_, topic, subscription): &(Bus, Topic, Subscription)| {
        let work = single(topic, subscription, SINGLES, &payload);
        wall(SINGLES, || one.block_on(work))
    };
    let worlds = || (one.block_on(bus_with(with())), one.block_on(bus_with(plain())));
    let (a, b) = worlds();
    add("row 1", race(31, vec![Box::new(|| batched(&a)), Box::new(|| batched(&b))]));
    let (a, b) = worlds();
    add("row 2", race(31, vec![Box::new(|| between(&a)), Box::new(|| between(&b))]));
    let (a, b) = worlds();
    add("row 3", race(31, vec![Box::new(|| singly(&a)), Box::new(|| singly(&b))]));
}

/// Messages of 10,000 keys on an ordered subscription, beside the same on an unordered one: with
/// one batch in hand, and with four, where each pull has to know the keys of what others hold.
pub(crate) fn ordered(table: &mut Table) {
    const KEYS: usize = 10_000;
    const BATCHES: usize = 500;
    const UNITS: usize = BATCHES * BATCH;
    let runtime = one_thread();
    let payload = payload(16);
    let keyed: Vec<Message> = (0..KEYS)
        .map(|n| Message::new(payload.clone()).with_ordering_key(format!("key-{n}")))
        .collect();
    let next = std::cell::Cell::new(0);
    let make = || {
        next.set((next.get() + 1) % KEYS);
        keyed[next.get()].clone()
    };
    let world = |is_ordered| {
        let config = SubscriptionConfig::new().message_ordering(is_ordered);
        runtime.block_on(bus_with(config))
    };
    let run = |(_, topic, subscription): &(Bus, Topic, Subscription)| {
        cpu(UNITS, || runtime.block_on(borrowed(topic, subscription, BATCHES, make)))
    };
    let several = |(_, topic, subscription): &(Bus, Topic, Subscription)| {
        cpu(UNITS, || runtime.block_on(four_in_hand(topic, subscription, BATCHES, make)))
    };
    let worlds = [true, false, true, false].map(world);
    let results = race(
        31,
        vec![
            Box::new(|| run(&worlds[0])),
            Box::new(|| run(&worlds[1])),
            Box::new(|| several(&worlds[2])),
            Box::new(|| several(&worlds[3])),
        ],
    );
    let what = ["batches of 100", "the same, four batches in hand"];
    for (nth, (what, goal)) in what.into_iter().zip([Goal::AtMost(1.5), Goal::Shown]).enumerate() {
        let (ours, peer) = (2 * nth, 2 * nth + 1);
        table.add(Line {
            row: "ordered",
            what: format!("10,000 keys in turn, ordered, {what}"),
            ours: format!("{:.1} ns", results.nanos(ours)),
            peer: format!("unordered {:.1} ns", results.nanos(peer)),
            judged: results.ratio(ours, peer),
            goal,
            stretch: if nth == 0 { Goal::AtMost(1.2) } else { Goal::Shown },
        });
    }
}

/// As `borrowed`, but four batches are always in hand, and the oldest is acknowledged.
async fn four_in_hand(
    topic: &Topic,
    subscription: &Subscription,
    batches: usize,
    make: impl Fn() -> Message,
) {
    let mut held = VecDeque::with_capacity(4);
    for _ in 0..batches {
        topic.publish_many((0..BATCH).map(|_| make())).await.unwrap();
        let batch = subscription.pull(BATCH).await.unwrap();
        assert_eq!(batch.len(), BATCH);
        for delivery in &batch {
            black_box(delivery.data().len());
        }
        held.push_back(batch);
        if held.len() > 3 {
            held.pop_front().map(Deliveries::ack_all);
        }
    }
    for batch in held {
        batch.ack_all();
    }
}

/// A million leases whose deadlines are moved in random order, then acknowledged in random order.
/// The last acks give the memory of all messages back, so they are shown apart.
pub(crate) fn random_deadlines(table: &mut Table) {
    const LEASES: usize = 1_000_000;
    const LAST: usize = LEASES / 10;
    const IDS: usize = 1_000;
    const ROUNDS: usize = 3;
    let runtime = one_thread();
    let (mut modifies, mut acks, mut all_acks) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let (_bus, topic, subscription) = runtime.block_on(bus_with(SubscriptionConfig::new()));
        let payload = payload(16);
        let all = (0..LEASES).map(|_| Message::new(payload.clone()));
        runtime.block_on(topic.publish_many(all)).unwrap();
        let batch = subscription.try_pull(LEASES).unwrap();
        let mut ids: Vec<AckId> = batch.into_iter().map(|one| one.into_ack_id()).collect();
        let mut random = round as u64 + 1;
        shuffle(&mut ids, &mut random);
        modifies.push(per_id(&ids, IDS, |ids| {
            let deadline = Duration::from_millis(60_000 + next(&mut random) % 600_000);
            runtime.block_on(subscription.modify_ack_deadline(ids, deadline)).unwrap();
        }));
        shuffle(&mut ids, &mut random);
        let (first, last) = ids.split_at(LEASES - LAST);
        let [first, last] = [first, last].map(|ids| {
            per_id(ids, IDS, |ids| {
                runtime.block_on(subscription.acknowledge(ids)).unwrap();
            })
        });
        acks.push(first);
        all_acks.push((first * (LEASES - LAST) as f64 + last * LAST as f64) / LEASES as f64);
    }
    for (what, values, goal) in [
        ("modify in random order", modifies, 30.0),
        ("ack nine tenths in random order", acks, 30.0),
        ("ack all in random order, with the memory given back", all_acks, f64::INFINITY),
    ] {
        let nanos = median(values);
        let is_judged = goal.is_finite();
        table.add(Line {
            row: "15",
            what: format!("1,000,000 leases: {what}, 1,000 ids a call"),
            ours: format!("{nanos:.1} ns"),
            peer: String::new(),
            judged: nanos,
            goal: if is_judged { Goal::AtMost(goal) } else { Goal::Shown },
            stretch: if is_judged { Goal::AtMost(10.0) } else { Goal::Shown },
        });
    }
}

fn per_id(ids: &[AckId], at_once: usize, mut act: impl FnMut(&[AckId])) -> f64 {
    let start = Instant::now();
    ids.chunks(at_once).for_each(&mut act);
    let sample = Sample { time: start.elapsed(), units: ids.len() };
    sample.time.as_secs_f64() * 1e9 / sample.units as f64
}

fn shuffle(ids: &mut [AckId], random: &mut u64) {
    for at in (1..ids.len()).rev() {
        ids.swap(at, (next(random) % (at as u64 + 1)) as usize);
    }
}

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
