//! What goes wrong, or is changed, while the load runs: faults on demand, seeks, snapshots,
//! policies, subscriptions that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siftbus::{Code, Expiration, FaultCounts, RetryPolicy, SubscriptionConfig, SubscriptionUpdate};

use crate::World;
use crate::random::Random;

/// What was done; all of it has to have happened in a run of some length.
#[derive(Default)]
pub(crate) struct Done {
    seeks: AtomicU64,
    snapshots: AtomicU64,
    purges: AtomicU64,
    updates: AtomicU64,
    guests: AtomicU64,
    expired_guests: AtomicU64,
    injected: [AtomicU64; 6],
}

impl Done {
    fn counts(&self) -> Vec<(&'static str, u64)> {
        let names = [
            "lost acks",
            "failed answers",
            "duplicates",
            "delayed deliveries",
            "ended leases",
            "failed publishes",
        ];
        let changes = [
            ("seeks", &self.seeks),
            ("snapshots", &self.snapshots),
            ("purges", &self.purges),
            ("updates", &self.updates),
            ("guests", &self.guests),
            ("guests that expired", &self.expired_guests),
        ];
        let all = changes.into_iter().chain(names.into_iter().zip(&self.injected));
        all.map(|(name, count)| (name, count.load(Ordering::Relaxed))).collect()
    }

    pub(crate) fn summary(&self) -> String {
        let shown: Vec<String> =
            self.counts().iter().map(|(name, count)| format!("{count} {name}")).collect();
        shown.join(", ")
    }

    /// A soak that has not soaked everything has proved nothing.
    pub(crate) fn judge(&self, length: Duration, seed: u64) {
        if length < Duration::from_secs(10) {
            return;
        }
        for (name, count) in self.counts() {
            assert!(count > 0, "seed {seed}: there were no {name}");
        }
    }
}

const NAMES: [&str; 8] =
    ["plain", "ordered", "one-by-one", "exact", "exact-ordered", "filtered", "handled", "grave"];

/// Subscriptions on which going back is no broken promise.
const SOUGHT: [&str; 4] = ["plain", "ordered", "one-by-one", "filtered"];

pub(crate) async fn run(world: Arc<World>) {
    let mut random = Random::new(world.seed, 1);
    let mut turn = 0;
    while world.is_loaded() {
        turn += 1;
        match random.below(40) {
            0 => seek(&world, &mut random).await,
            1 => seek_to_a_snapshot(&world, &mut random, turn).await,
            2 if random.one_in(4) => purge(&world, &mut random).await,
            3 => update(&world, &mut random).await,
            4 => guest(&world, &mut random, turn).await,
            _ => fault(&world, &mut random).await,
        }
        tokio::time::sleep(Duration::from_millis(random.below(20) + 1)).await;
    }
    // Guests that nobody uses are gone after their time.
    tokio::time::sleep(GUEST_LIFE + Duration::from_millis(200)).await;
    let left = world.bus.subscriptions().iter().filter(|s| s.name().starts_with("guest")).count();
    let guests = world.chaos.guests.load(Ordering::Relaxed);
    world.chaos.expired_guests.store(guests, Ordering::Relaxed);
    assert_eq!(left, 0, "seed {}: EXP-2: guests that did not expire", world.seed);
}

async fn fault(world: &World, random: &mut Random) {
    let count = random.below(20) + 1;
    let name = NAMES[random.below(NAMES.len() as u64) as usize];
    let faults = world.subscription(name).await.faults();
    match random.below(6) {
        0 => faults.lose_acks(count),
        1 => faults.fail_answers(count),
        2 => faults.duplicate_deliveries(count),
        3 => faults.delay_deliveries(count, Duration::from_millis(random.below(200))),
        4 => {
            faults.end_leases();
        }
        _ => world.orders.faults().fail_publishes(1, Code::Unavailable),
    }
}

async fn seek(world: &World, random: &mut Random) {
    let name = SOUGHT[random.below(SOUGHT.len() as u64) as usize];
    let back = Duration::from_millis(random.below(300));
    world.subscription(name).await.seek(world.bus.now() - back).await.unwrap();
    world.chaos.seeks.fetch_add(1, Ordering::Relaxed);
}

async fn seek_to_a_snapshot(world: &World, random: &mut Random, turn: u64) {
    let from = world.subscription(SOUGHT[random.below(SOUGHT.len() as u64) as usize]).await;
    let snapshot = from.create_snapshot(&format!("snapshot-{turn}")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(random.below(30))).await;
    let name = SOUGHT[random.below(SOUGHT.len() as u64) as usize];
    world.subscription(name).await.seek(&snapshot).await.unwrap();
    snapshot.delete().await.unwrap();
    world.chaos.snapshots.fetch_add(1, Ordering::Relaxed);
}

async fn purge(world: &World, random: &mut Random) {
    let name = SOUGHT[random.below(SOUGHT.len() as u64) as usize];
    world.subscription(name).await.purge().await.unwrap();
    world.chaos.purges.fetch_add(1, Ordering::Relaxed);
}

async fn update(world: &World, random: &mut Random) {
    let name = NAMES[random.below(NAMES.len() as u64) as usize];
    let retry = random.one_in(2).then(|| {
        RetryPolicy::new()
            .minimum_backoff(Duration::from_millis(random.below(20)))
            .maximum_backoff(Duration::from_millis(100))
    });
    let deadline = Duration::from_millis(random.below(400) + 20);
    let update = SubscriptionUpdate::new().retry_policy(retry).ack_deadline(deadline);
    world.subscription(name).await.update(update).await.unwrap();
    world.chaos.updates.fetch_add(1, Ordering::Relaxed);
}

const GUEST_LIFE: Duration = Duration::from_millis(500);

/// A subscription that comes, holds something, and goes in one of several ways.
async fn guest(world: &World, random: &mut Random, turn: u64) {
    let config = SubscriptionConfig::new()
        .retention(GUEST_LIFE)
        .expiration(Expiration::After(GUEST_LIFE))
        .message_ordering(random.one_in(2));
    let guest = world.orders.subscribe(&format!("guest-{turn}"), config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let held = guest.try_pull(10);
    let gone = match random.below(3) {
        0 => guest.delete().await,
        1 => guest.detach().await,
        // Its handle is dropped, and it expires.
        _ => Ok(()),
    };
    if let Err(error) = gone {
        // Where the processor has other work it may have expired meanwhile.
        assert_eq!(error.code(), Code::NotFound, "{error}");
    }
    drop(held);
    world.chaos.guests.fetch_add(1, Ordering::Relaxed);
}

/// Takes back what is armed, and counts what has happened.
pub(crate) fn disarm(world: &World) {
    let [lost, failed, duplicates, delayed, ended, publishes] = &world.chaos.injected;
    for subscription in world.bus.subscriptions() {
        let faults = subscription.faults();
        faults.disarm();
        let FaultCounts {
            lost_acks,
            failed_answers,
            duplicates: doubled,
            delayed_deliveries,
            ended_leases,
            ..
        } = faults.injected();
        lost.fetch_add(lost_acks, Ordering::Relaxed);
        failed.fetch_add(failed_answers, Ordering::Relaxed);
        duplicates.fetch_add(doubled, Ordering::Relaxed);
        delayed.fetch_add(delayed_deliveries, Ordering::Relaxed);
        ended.fetch_add(ended_leases, Ordering::Relaxed);
    }
    world.orders.faults().disarm();
    publishes.fetch_add(world.orders.faults().injected(), Ordering::Relaxed);
}
