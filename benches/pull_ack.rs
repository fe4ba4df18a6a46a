//! Publish, pull and acknowledge on one subscription, by batch size and form of the delivery.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siftbus::{Message, Subscription};
use support::{fan, one_thread, payload};

fn pull_ack(criterion: &mut Criterion) {
    let runtime = one_thread();
    let payload = payload(16);
    let (_bus, topic, all) = runtime.block_on(fan(1));
    let subscription = all.first().unwrap();
    let mut group = criterion.benchmark_group("pull_ack");
    for batch in [1, 10, 100, 1_000] {
        group.throughput(Throughput::Elements(batch as u64));
        let fill = || {
            let messages = (0..batch).map(|_| Message::new(payload.clone()));
            topic.try_publish_many(messages).unwrap();
        };
        group.bench_function(BenchmarkId::new("borrowed", batch), |bencher| {
            bencher.iter(|| {
                fill();
                let deliveries = subscription.try_pull(batch).unwrap();
                for delivery in &deliveries {
                    black_box(delivery.data().len());
                }
                assert_eq!(deliveries.ack_all().done, batch);
            });
        });
        group.bench_function(BenchmarkId::new("owned", batch), |bencher| {
            bencher.iter(|| {
                fill();
                let deliveries = subscription.try_pull(batch).unwrap();
                assert_eq!(deliveries.len(), batch);
                for delivery in deliveries {
                    black_box(delivery.data().len());
                    drop(delivery.ack());
                }
            });
        });
        group.bench_function(BenchmarkId::new("by_id", batch), |bencher| {
            bencher.iter(|| {
                fill();
                assert_eq!(ack_by_id(&runtime, subscription, batch), batch);
            });
        });
    }
}

fn ack_by_id(
    runtime: &tokio::runtime::Runtime,
    subscription: &Subscription,
    batch: usize,
) -> usize {
    let deliveries = subscription.try_pull(batch).unwrap();
    let ids: Vec<_> = deliveries.into_iter().map(|delivery| delivery.into_ack_id()).collect();
    runtime.block_on(subscription.acknowledge(&ids)).unwrap().len()
}

criterion_group!(benches, pull_ack);
criterion_main!(benches);
