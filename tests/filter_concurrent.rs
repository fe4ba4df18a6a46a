//! Filters that come and go while others publish: what was subscribed before a publish is never
//! missed, and what was deleted before it gets nothing (LIB-200).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt;
use siftbus::{Bus, Filter, Message, Subscription, SubscriptionConfig, Topic, TopicConfig};

const VALUES: usize = 40;

fn message(n: usize) -> Message {
    let (value, other) = (format!("{}", n % VALUES), format!("x{}", n % 7));
    Message::new(n.to_string()).with_attributes([("k", value), ("l", other)])
}

/// Every kind of place in the index.
fn filter(n: usize) -> Filter {
    let (value, other) = (n % VALUES, n % 7);
    let text = match n % 8 {
        0 | 1 => format!("attributes.k = \"{value}\""),
        2 => format!("hasPrefix(attributes.l, \"x{other}\")"),
        3 => format!("attributes.k = \"{value}\" OR attributes.l = \"x{other}\""),
        4 => format!("attributes.k != \"{value}\""),
        5 => format!("attributes.k > {value} AND attributes.l != \"x{other}\""),
        6 => format!("NOT attributes:m{other} AND attributes.k != \"{value}\""),
        _ => format!("attributes:l AND NOT contains(attributes.k, '{}')", value % 10),
    };
    Filter::parse_extended(&text).unwrap()
}

fn subscribe(topic: &Topic, name: &str, filter: Filter) -> Subscription {
    let config = SubscriptionConfig::new().filter(filter);
    topic.subscribe(name, config).now_or_never().unwrap().unwrap()
}

fn take_all(subscription: &Subscription) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        let batch = subscription.try_pull(1_000).unwrap();
        if batch.is_empty() {
            return numbers;
        }
        let text = |data: &[u8]| std::str::from_utf8(data).unwrap().parse::<usize>().unwrap();
        numbers.extend(batch.iter().map(|delivery| text(delivery.data())));
        batch.ack_all();
    }
}

#[test]
fn nothing_is_missed_and_nothing_comes_late() {
    const MESSAGES: usize = 6_000;
    for seed in 0..3 {
        let bus = Bus::builder().seed(seed).build();
        let topic = bus.create_topic("topic", TopicConfig::new()).now_or_never().unwrap().unwrap();
        // Messages below `begun` are being published or were, those below `done` were.
        let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while n < MESSAGES {
                    let count = 1 + n % 5;
                    begun.store(n + count, Ordering::SeqCst);
                    let messages = (n..n + count).map(message);
                    topic.try_publish_many(messages).unwrap();
                    n += count;
                    done.store(n, Ordering::SeqCst);
                }
                stop.store(true, Ordering::SeqCst);
            });
            for thread in 0..2 {
                let (topic, begun, done, stop) = (&topic, &begun, &done, &stop);
                scope.spawn(move || {
                    let mut round = thread * 1_000_003 + seed as usize;
                    let mut kept = std::collections::VecDeque::new();
                    while !stop.load(Ordering::SeqCst) {
                        round += 2;
                        let filter = filter(round);
                        let name = format!("s{thread}-{round}");
                        let earliest = done.load(Ordering::SeqCst);
                        let subscription = subscribe(topic, &name, filter.clone());
                        // Whatever begins from here on must come.
                        let from = begun.load(Ordering::SeqCst);
                        kept.push_back((subscription, filter, earliest, from));
                        if kept.len() > 20 {
                            let (subscription, filter, earliest, from) = kept.pop_front().unwrap();
                            let until = done.load(Ordering::SeqCst);
                            check(&subscription, &filter, earliest, from, until);
                            subscription.delete().now_or_never().unwrap().unwrap();
                        }
                    }
                    for (subscription, filter, earliest, from) in kept {
                        check(&subscription, &filter, earliest, from, done.load(Ordering::SeqCst));
                        subscription.delete().now_or_never().unwrap().unwrap();
                    }
                });
            }
        });
        // LIB-200: all are gone, so nobody takes a message and nothing is left in the index.
        for n in 0..VALUES {
            let receipt = topic.try_publish(message(n)).unwrap();
            assert_eq!(receipt.recipients(), Some(0), "seed {seed}");
        }
        let stats = topic.filter_stats();
        assert_eq!((stats.filters, stats.entries), (0, 0), "seed {seed}");
    }
}

fn check(subscription: &Subscription, filter: &Filter, earliest: usize, from: usize, until: usize) {
    let got = take_all(subscription);
    let text = filter.source();
    assert!(got.is_sorted_by(|a, b| a < b), "LIB-200: {text}: twice or out of order");
    assert!(got.iter().all(|&n| n >= earliest), "LIB-200: {text}: from before it was there");
    assert!(got.iter().all(|&n| filter.matches(&message(n))), "LIB-200: {text}: no match");
    let expected = (from..until).filter(|&n| filter.matches(&message(n)));
    let missing: Vec<_> = expected.filter(|n| got.binary_search(n).is_err()).collect();
    assert!(missing.is_empty(), "LIB-200: {text}: missed {missing:?} of {from}..{until}");
}
