//! One publish for many subscriptions, each of which pulls, looks and acknowledges.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siftbus::Message;
use support::{fan, one_thread, payload};

/// Messages in a batch.
const BATCH: usize = 100;

fn fan_out(criterion: &mut Criterion) {
    let runtime = one_thread();
    let payload = payload(16);
    let mut group = criterion.benchmark_group("fan_out");
    for subscriptions in [1, 10, 100, 1_000] {
        let (_bus, topic, all) = runtime.block_on(fan(subscriptions));
        group.throughput(Throughput::Elements((subscriptions * BATCH) as u64));
        group.bench_function(BenchmarkId::from_parameter(subscriptions), |bencher| {
            bencher.iter(|| {
                let messages = (0..BATCH).map(|_| Message::new(payload.clone()));
                topic.try_publish_many(messages).unwrap();
                for subscription in &all {
                    let deliveries = subscription.try_pull(BATCH).unwrap();
                    for delivery in &deliveries {
                        black_box(delivery.data().len());
                    }
                    assert_eq!(deliveries.ack_all().done, BATCH);
                }
            });
        });
    }
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
