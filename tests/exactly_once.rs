//! Exactly-once delivery under threads: no delivery after a successful ack (EOD-1, EOD-14), and an
//! outcome for each id that is true (EOD-3 … EOD-5).
//!
//! A publisher, workers that answer in every way there is, in and out of time, and a clock that
//! lets leases lapse run at once on real threads; the time is virtual all the same. Nothing is
//! judged by when threads saw something, only by what the bus said: the number of the attempt grows
//! with each hand-out, so one after a successful ack would have a higher one than was acknowledged.
//! A seed fixes what each thread does, not how they meet; on a failure it is printed.
//! `SIFTBUS_SEEDS=<n>` runs so many.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use siftbus::{
    AckError, AckFailure, AckId, Bus, Clock, Delivery, ManualClock, Message, Outcome, RetryPolicy,
    Subscription, SubscriptionConfig, TopicConfig,
};

const SEEDS: u64 = 8;
const MESSAGES: u64 = 1_500;
const WORKERS: u64 = 4;
const KEYS: u64 = 50;
const DEADLINE: Duration = Duration::from_millis(5);
/// Ids that are dead for sure and answered once more, now and then.
const REMEMBERED: usize = 64;

#[test]
fn no_delivery_after_a_successful_ack_and_a_true_outcome_for_each_id() {
    let seeds = std::env::var("SIFTBUS_SEEDS").ok().map_or(SEEDS, |n| n.parse().unwrap());
    for seed in 1..=seeds {
        run(seed);
    }
}

/// What one worker has seen.
#[derive(Default)]
struct Seen {
    /// Message and attempt of every hand-out.
    handed_out: Vec<(u64, u32)>,
    /// The same of what was acknowledged with success.
    acked: Vec<(u64, u32)>,
    /// Answers that failed.
    failed: u64,
}

fn run(seed: u64) {
    let (is_ordered, retries) = (seed.is_multiple_of(2), seed % 4 > 1);
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).seed(seed).build();
    let topic = now(bus.create_topic("orders", TopicConfig::new())).unwrap();
    let mut config = SubscriptionConfig::new()
        .ack_deadline(DEADLINE)
        .message_ordering(is_ordered)
        .exactly_once_delivery(true);
    if retries {
        let millis = Duration::from_millis;
        config = config
            .retry_policy(RetryPolicy::new().minimum_backoff(millis(1)).maximum_backoff(millis(8)));
    }
    let worker = now(topic.subscribe("worker", config)).unwrap();
    let (acked, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..MESSAGES {
                let key = format!("{}", n % KEYS);
                topic.try_publish(Message::new(n.to_string()).with_ordering_key(key)).unwrap();
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                clock.advance(Duration::from_millis(1));
                std::thread::yield_now();
            }
        });
        let workers: Vec<_> = (0..WORKERS)
            .map(|n| {
                let acked = &acked;
                let worker = Worker::new(seed, n, &worker);
                scope.spawn(move || worker.work(acked))
            })
            .collect();
        seen.extend(workers.into_iter().map(|worker| worker.join().expect("it has not failed")));
        is_over.store(true, Ordering::SeqCst);
    });
    judge(seed, is_ordered, &seen);
    assert_eq!(worker.stats().backlog, 0, "seed {seed}");
    assert_eq!(worker.stats().acknowledged, MESSAGES, "seed {seed}: EOD-5");
    bus.audit().assert_balanced();
}

fn judge(seed: u64, is_ordered: bool, seen: &[Seen]) {
    let acks = seen.iter().flat_map(|seen| seen.acked.iter().copied());
    let count = acks.clone().count();
    let acked: BTreeMap<u64, u32> = acks.collect();
    assert_eq!(acked.len(), count, "seed {seed}: EOD-3: one ack of a message succeeds");
    assert_eq!(count as u64, MESSAGES, "seed {seed}: nothing is lost");
    let mut attempts = BTreeSet::new();
    for (message, attempt) in seen.iter().flat_map(|seen| seen.handed_out.iter().copied()) {
        // EOD-1, EOD-14
        let last = acked[&message];
        assert!(attempt <= last, "seed {seed}: {message} came again ({attempt}) after its ack");
        // What goes back with an earlier one of its key does not count (ORD-7).
        let is_new = attempts.insert((message, attempt));
        assert!(is_new || is_ordered, "seed {seed}: {message} was handed out twice at once");
    }
    assert!(seen.iter().any(|seen| seen.failed > 0), "seed {seed}: some answers came too late");
}

struct Worker<'a> {
    seed: u64,
    random: u64,
    subscription: &'a Subscription,
    held: Vec<Delivery>,
    ids: Vec<(AckId, u64, u32)>,
    /// Ids that were answered with success, or given back: never again.
    dead: Vec<AckId>,
    seen: Seen,
}

impl<'a> Worker<'a> {
    fn new(seed: u64, number: u64, subscription: &'a Subscription) -> Worker<'a> {
        let (random, seen) = (seed * 1_000 + number + 1, Seen::default());
        let (held, ids, dead) = (Vec::new(), Vec::new(), Vec::new());
        Worker { seed, random, subscription, held, ids, dead, seen }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (self.random >> 33) % bound
    }

    fn work(mut self, acked: &AtomicU64) -> Seen {
        while acked.load(Ordering::SeqCst) < MESSAGES {
            let before = self.seen.acked.len();
            let max = 1 + self.below(7) as usize;
            let batch = self.subscription.try_pull(max).unwrap();
            let came = batch.iter().map(|one| (one.id().as_u64(), one.attempt()));
            self.seen.handed_out.extend(came);
            for delivery in batch {
                if self.below(3) == 0 {
                    let (message, attempt) = (delivery.id().as_u64(), delivery.attempt());
                    self.ids.push((delivery.into_ack_id(), message, attempt));
                } else {
                    self.held.push(delivery);
                }
            }
            // Sometimes at once, sometimes much later: the lease may have lapsed by then.
            while self.held.len() as u64 > self.below(12) {
                let at = self.below(self.held.len() as u64) as usize;
                let delivery = self.held.swap_remove(at);
                self.answer(delivery);
            }
            if self.ids.len() as u64 > self.below(12) {
                self.answer_by_id();
            }
            self.answer_what_is_dead();
            acked.fetch_add((self.seen.acked.len() - before) as u64, Ordering::SeqCst);
        }
        self.seen
    }

    fn answer(&mut self, delivery: Delivery) {
        let (id, message) = (delivery.ack_id(), delivery.id().as_u64());
        let attempt = delivery.attempt();
        let delay = Duration::from_millis(self.below(20));
        let is_done = match self.below(10) {
            0 => return drop(delivery),
            1 => self.took_effect(delivery.nack().outcome()),
            2 => self.took_effect(delivery.nack_after(delay).outcome()),
            3 => {
                // Shorter, longer, or given back; if it took effect, it goes on.
                let moved = self.took_effect(delivery.set_deadline(delay).outcome());
                if moved && !delay.is_zero() {
                    return self.held.push(delivery);
                }
                moved
            }
            _ => {
                let is_done = self.took_effect(delivery.ack().outcome());
                self.seen.acked.extend(is_done.then_some((message, attempt)));
                is_done
            }
        };
        if is_done {
            self.dead.push(id);
        }
    }

    /// Whether an answer took effect. Refused it may be as too late, or as out of order (EOD-9).
    fn took_effect(&mut self, outcome: Result<Outcome, AckError>) -> bool {
        match outcome {
            Ok(Outcome::Done) => true,
            Err(AckError::ExactlyOnce { failures }) => {
                assert_eq!(failures.len(), 1, "seed {}: EOD-5", self.seed);
                self.seen.failed += 1;
                false
            }
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    /// EOD-5: ids that are not listed as failed took effect.
    fn answer_by_id(&mut self) {
        let ids: Vec<AckId> = self.ids.iter().map(|(id, ..)| id.clone()).collect();
        let acks = self.below(3) > 0;
        let came = if acks {
            now(self.subscription.acknowledge(&ids))
        } else {
            let deadline = Duration::from_millis(self.below(20));
            now(self.subscription.modify_ack_deadline(&ids, deadline))
        };
        let failures = match came {
            Ok(outcomes) => {
                assert!(outcomes.iter().all(|one| *one == Outcome::Done), "seed {}", self.seed);
                Vec::new()
            }
            Err(AckError::ExactlyOnce { failures }) => failures,
            Err(error) => panic!("seed {}: {error}", self.seed),
        };
        self.seen.failed += failures.len() as u64;
        let failed: BTreeMap<String, AckFailure> =
            failures.into_iter().map(|(id, why)| (id.to_string(), why)).collect();
        for (id, message, attempt) in std::mem::take(&mut self.ids) {
            match failed.get(&id.to_string()) {
                None if acks => {
                    self.seen.acked.push((message, attempt));
                    self.dead.push(id);
                }
                // EOD-9: it can be repeated.
                None | Some(AckFailure::OutOfOrder) => self.ids.push((id, message, attempt)),
                Some(AckFailure::InvalidAckId) => self.dead.push(id),
                Some(other) => panic!("seed {}: {other:?}", self.seed),
            }
        }
    }

    /// EOD-3, LS-10: what was acknowledged, given back or found dead stays so.
    fn answer_what_is_dead(&mut self) {
        if self.dead.len() < REMEMBERED {
            return;
        }
        let ids = std::mem::take(&mut self.dead);
        let came = match self.below(2) {
            0 => now(self.subscription.acknowledge(&ids)),
            _ => now(self.subscription.modify_ack_deadline(&ids, DEADLINE)),
        };
        let Err(AckError::ExactlyOnce { failures }) = came else {
            panic!("seed {}: EOD-3: {came:?}", self.seed)
        };
        let listed: Vec<AckId> = failures.into_iter().map(|(id, _)| id).collect();
        assert_eq!(listed, ids, "seed {}: EOD-5: all of them, in order", self.seed);
    }
}

fn now<F: Future>(future: F) -> F::Output {
    futures_util::FutureExt::now_or_never(future).expect("answers at once")
}
