//! The load: publishers of every kind, and consumers that ack, nack, drop, reject and hold.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use siftbus::{
    Delivery, Failure, FlowControl, HandlerOptions, Message, Outcome, PublishReason, Subscription,
};
use tokio::task::JoinHandle;

use crate::World;
use crate::random::Random;

/// Publishers are this far ahead of the slowest core at most: a message every so often each.
const PAUSE: Duration = Duration::from_millis(2);
/// After this an id of an exactly-once delivery is too old to come again, by retention.
const REMEMBERED: Duration = Duration::from_secs(6);

/// What exactly-once subscriptions have acknowledged, and when: none of it may come again (EOD-1).
#[derive(Default)]
pub(crate) struct Exact(Mutex<ExactInner>);

#[derive(Default)]
struct ExactInner {
    acked: BTreeMap<(u8, u64), Instant>,
    count: u64,
    transient: u64,
}

impl Exact {
    /// A delivery has begun: `before` is the moment before it was pulled.
    fn check(&self, which: u8, id: u64, before: Instant, seed: u64) {
        let acked = self.0.lock().unwrap().acked.get(&(which, id)).copied();
        let again = acked.is_some_and(|at| at < before);
        assert!(!again, "seed {seed}: EOD-1: message {id} came again after a successful ack");
    }

    fn acknowledged(&self, which: u8, id: u64) {
        let mut inner = self.0.lock().unwrap();
        inner.count += 1;
        inner.acked.insert((which, id), Instant::now());
        if inner.count.is_multiple_of(1_024) {
            inner.acked.retain(|_, at| at.elapsed() < REMEMBERED);
        }
    }

    pub(crate) fn summary(&self) -> String {
        let inner = self.0.lock().unwrap();
        format!("{} acknowledged, {} acks repeated", inner.count, inner.transient)
    }
}

pub(crate) fn producers(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    (0..4).map(|n| tokio::spawn(publish(Arc::clone(world), n))).collect()
}

async fn publish(world: Arc<World>, nth: u64) {
    let mut random = Random::new(world.seed, 100 + nth);
    while world.is_loaded() {
        let count = if random.one_in(2) { 1 } else { random.below(60) + 1 };
        let messages: Vec<Message> = (0..count).map(|_| message(&mut random)).collect();
        let done = match random.below(4) {
            0 => world.orders.try_publish_many(messages).map(|receipts| receipts.len()),
            1 if count == 1 => {
                let delay = Duration::from_millis(random.below(300) + 1);
                world.orders.publish_after(messages[0].clone(), delay).await.map(|_| 1)
            }
            _ => world.orders.publish_many(messages).await.map(|receipts| receipts.len()),
        };
        match done {
            Ok(count) => world.published.fetch_add(count as u64, Ordering::Relaxed),
            Err(error) => match error.reason() {
                PublishReason::Fault { .. } => world.refused.fetch_add(1, Ordering::Relaxed),
                PublishReason::NoRoom { .. } | PublishReason::BacklogFull { .. } => 0,
                other => panic!("seed {}: {other:?}", world.seed),
            },
        };
        tokio::time::sleep(PAUSE).await;
    }
}

fn message(random: &mut Random) -> Message {
    let size = if random.one_in(50) { random.below(20_000) } else { random.below(200) } as usize;
    let parity = if random.one_in(2) { "even" } else { "odd" };
    let mut message = Message::new(vec![b'x'; size]).with_attribute("parity", parity);
    if !random.one_in(4) {
        message = message.with_ordering_key(format!("key-{}", random.below(300)));
    }
    if random.one_in(10) {
        message = message.with_ttl(Duration::from_millis(random.below(500) + 1));
    }
    message
}

pub(crate) async fn consumers(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for (nth, name) in
        ["plain", "plain", "ordered", "ordered", "filtered", "grave"].into_iter().enumerate()
    {
        let subscription = world.subscription(name).await;
        tasks.push(tokio::spawn(pull(Arc::clone(world), subscription, nth as u64)));
    }
    for (which, name) in [(0, "exact"), (0, "exact"), (1, "exact-ordered"), (1, "exact-ordered")] {
        let subscription = world.subscription(name).await;
        tasks.push(tokio::spawn(pull_exactly_once(Arc::clone(world), subscription, which)));
    }
    for one_per_key in [true, false] {
        let subscription = world.subscription("one-by-one").await;
        tasks.push(tokio::spawn(stream(Arc::clone(world), subscription, one_per_key)));
    }
    let subscription = world.subscription("handled").await;
    tasks.push(tokio::spawn(handle(Arc::clone(world), subscription)));
    tasks
}

/// Waits for messages for a while; `None` once the subscription is gone, or is to be left.
async fn next(
    world: &World,
    subscription: &Subscription,
    max: usize,
) -> Option<siftbus::Deliveries> {
    while world.is_working() {
        let pull = tokio::time::timeout(Duration::from_millis(100), subscription.pull(max)).await;
        match pull {
            Ok(Ok(batch)) => return Some(batch),
            Ok(Err(_)) => return None,
            // Dropped while it waited, as real pulls are.
            Err(_) => {}
        }
    }
    None
}

async fn pull(world: Arc<World>, subscription: Subscription, nth: u64) {
    let mut random = Random::new(world.seed, 200 + nth);
    let mut held: Vec<Delivery> = Vec::new();
    while let Some(batch) = next(&world, &subscription, random.below(100) as usize + 1).await {
        match random.below(10) {
            0 => drop(batch),
            1 if world.is_loaded() => held.extend(batch),
            2..=4 => {
                for delivery in batch {
                    settle(&world, delivery, &mut random);
                }
            }
            _ => {
                let done = batch.ack_all().done as u64;
                world.acked.fetch_add(done, Ordering::Relaxed);
            }
        }
        // What is held for long lapses.
        if held.len() > 300 || !world.is_loaded() {
            held.drain(..).for_each(|delivery| settle(&world, delivery, &mut random));
        }
        tokio::task::yield_now().await;
    }
}

fn settle(world: &World, delivery: Delivery, random: &mut Random) {
    let settlement = match random.below(12) {
        _ if !world.is_loaded() => delivery.ack(),
        0 => delivery.nack(),
        1 => delivery.nack_after(Duration::from_millis(random.below(50))),
        2 => delivery.reject(),
        3 => {
            // Nobody answers, and the lease lapses.
            let _ = delivery.into_ack_id();
            return;
        }
        4 => {
            let _ = delivery.set_deadline(Duration::from_millis(random.below(400))).outcome();
            delivery.ack()
        }
        _ => delivery.ack(),
    };
    if settlement.outcome() == Ok(Outcome::Done) {
        world.acked.fetch_add(1, Ordering::Relaxed);
    }
}

/// EOD-1, EOD-10: acks that failed for a while are repeated, and none that succeeded is undone.
async fn pull_exactly_once(world: Arc<World>, subscription: Subscription, which: u8) {
    let mut random = Random::new(world.seed, 300 + u64::from(which));
    loop {
        let before = Instant::now();
        let max = random.below(50) as usize + 1;
        let pull = tokio::time::timeout(Duration::from_millis(100), subscription.pull(max)).await;
        let Ok(Ok(batch)) = pull else {
            if !world.is_working() || pull.is_ok() {
                return;
            }
            continue;
        };
        for delivery in batch {
            let id = delivery.id().as_u64();
            world.exact.check(which, id, before, world.seed);
            if random.one_in(12) && world.is_loaded() {
                delivery.nack();
                continue;
            }
            let ack_id = delivery.ack_id();
            let mut result = delivery.ack().outcome();
            while result.as_ref().is_err_and(siftbus::AckError::is_transient) {
                world.exact.0.lock().unwrap().transient += 1;
                let ids = std::slice::from_ref(&ack_id);
                result = subscription.acknowledge(ids).await.map(|outcomes| outcomes[0]);
            }
            if result == Ok(Outcome::Done) {
                world.exact.acknowledged(which, id);
                world.acked.fetch_add(1, Ordering::Relaxed);
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn stream(world: Arc<World>, subscription: Subscription, one_per_key: bool) {
    let mut random = Random::new(world.seed, 400 + u64::from(one_per_key));
    let flow = FlowControl::new().max_outstanding_messages(64).one_per_ordering_key(one_per_key);
    // Streams come and go, with what they hold.
    while world.is_working() {
        let Ok(mut stream) = subscription.stream(flow.clone()) else { return };
        for _ in 0..random.below(5_000) {
            let next = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
            match next {
                Ok(Some(Ok(delivery))) => settle(&world, delivery, &mut random),
                Ok(_) => return,
                Err(_) => break,
            }
        }
    }
}

async fn handle(world: Arc<World>, subscription: Subscription) {
    let shared = Arc::clone(&world);
    let handler = move |received: siftbus::Received| {
        let world = Arc::clone(&shared);
        async move {
            let id = received.id().as_u64();
            if !world.is_loaded() {
                return Ok(());
            }
            match id % 40 {
                0 => Err(Failure::retry("on purpose")),
                1 => Err(Failure::reject("on purpose")),
                2 => panic!("on purpose"),
                3 => {
                    tokio::time::sleep(Duration::from_millis(id % 300)).await;
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    };
    let backoff = Duration::from_millis(1)..=Duration::from_millis(50);
    let options = HandlerOptions::new().concurrency(16).backoff(backoff);
    let handler = subscription.handle(options, handler).unwrap();
    handler.ended().await;
    let stats = handler.drain().await;
    world.acked.fetch_add(stats.succeeded, Ordering::Relaxed);
}
