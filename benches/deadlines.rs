//! Leases by the number of those that are outstanding: leased and acknowledged with a constant
//! deadline, extended, and lapsed.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

#[allow(dead_code, reason = "not every bench uses everything")]
mod support;

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siftbus::{
    Budget, Bus, Clock, Deliveries, ManualClock, Message, Subscription, SubscriptionConfig, Topic,
    TopicConfig,
};
use support::{one_thread, payload};

/// Messages in a batch.
const BATCH: usize = 100;
const DEADLINE: Duration = Duration::from_secs(10);

struct Held {
    clock: ManualClock,
    _bus: Bus,
    topic: Topic,
    subscription: Subscription,
    held: Vec<Deliveries>,
}

/// A subscription with so many leases outstanding.
fn holding(leases: usize) -> Held {
    let clock = ManualClock::new();
    let (bus, topic, subscription) = one_thread().block_on(async {
        let bus = Bus::builder().clock(Clock::manual(&clock)).budget(Budget::unlimited()).build();
        let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
        let config = SubscriptionConfig::new().ack_deadline(DEADLINE);
        let subscription = topic.subscribe("subscription", config).await.unwrap();
        (bus, topic, subscription)
    });
    let mut all = Held { clock, _bus: bus, topic, subscription, held: Vec::new() };
    for _ in 0..leases / BATCH {
        let batch = all.lease();
        all.held.push(batch);
    }
    all
}

impl Held {
    fn lease(&self) -> Deliveries {
        let payload = payload(16);
        let messages = (0..BATCH).map(|_| Message::new(payload.clone()));
        self.topic.try_publish_many(messages).unwrap();
        let batch = self.subscription.try_pull(BATCH).unwrap();
        assert_eq!(batch.len(), BATCH);
        batch
    }
}

fn deadlines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deadlines");
    group.throughput(Throughput::Elements(BATCH as u64));
    for leases in [1_000, 100_000, 1_000_000] {
        let held = holding(leases);
        group.bench_function(BenchmarkId::new("lease_ack", leases), |bencher| {
            bencher.iter(|| assert_eq!(held.lease().ack_all().done, BATCH));
        });
        let batch = held.held.first().unwrap();
        group.bench_function(BenchmarkId::new("extend", leases), |bencher| {
            bencher.iter(|| assert_eq!(batch.set_deadline(2 * DEADLINE).unwrap().done, BATCH));
        });
        drop(held);
    }
    group.bench_function("lapse_and_redeliver", |bencher| {
        bencher.iter_batched(
            || holding(BATCH),
            |held| {
                held.clock.advance(DEADLINE);
                let again = held.subscription.try_pull(BATCH).unwrap();
                assert_eq!(again.ack_all().done, BATCH);
                held
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, deadlines);
criterion_main!(benches);
