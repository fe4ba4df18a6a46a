//! Publishing alone, by batch size and by number of unfiltered subscriptions. What was published
//! is taken out again outside the time that counts.

#![allow(clippy::disallowed_methods, reason = "a bench reads real time")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

mod support;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siftbus::{Message, Subscription};
use support::{fan, one_thread, payload};

/// Messages that may wait before the backlog is emptied.
const FULL: u64 = 10_000;

fn publish(criterion: &mut Criterion) {
    let runtime = one_thread();
    let payload = payload(16);
    let mut group = criterion.benchmark_group("publish");
    for subscriptions in [1, 100, 1_000] {
        let (_bus, topic, all) = runtime.block_on(fan(subscriptions));
        for batch in [1, 100] {
            group.throughput(Throughput::Elements(batch));
            let id = BenchmarkId::new(format!("batch_{batch}"), subscriptions);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    let mut waiting = 0;
                    for _ in 0..rounds {
                        let messages = (0..batch).map(|_| Message::new(payload.clone()));
                        let start = Instant::now();
                        topic.try_publish_many(messages).unwrap();
                        spent += start.elapsed();
                        waiting += batch;
                        if waiting >= FULL {
                            empty(&all, waiting);
                            waiting = 0;
                        }
                    }
                    empty(&all, waiting);
                    spent
                });
            });
        }
    }
}

/// Takes out what was published, and checks that it is all there.
fn empty(subscriptions: &[Subscription], expected: u64) {
    for subscription in subscriptions {
        let mut taken = 0;
        while taken < expected {
            taken += subscription.try_pull(FULL as usize).unwrap().ack_all().done as u64;
        }
        assert_eq!(taken, expected);
    }
}

criterion_group!(benches, publish);
criterion_main!(benches);
