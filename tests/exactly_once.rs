//! Exactly-once delivery under threads: no delivery after a successful ack (EOD-1, EOD-14).
//!
//! Publishers, pullers, late ackers and a clock that lets leases lapse run at once on real threads;
//! the time is virtual all the same. Each hand-out and each reply to an ack takes a number from one
//! counter, so that "after" means something. A seed fixes what each thread does, not how they meet;
//! on a failure it is printed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use siftbus::{
    Bus, Clock, Delivery, ManualClock, Message, Outcome, Subscription, SubscriptionConfig,
    TopicConfig,
};

const MESSAGES: usize = 4_000;
const PULLERS: u64 = 4;

#[derive(Default)]
struct Seen {
    steps: AtomicU64,
    /// By message: when it was handed out, and when an ack of it was answered as done.
    handed_out: Mutex<Vec<(u64, u64)>>,
    acked: Mutex<Vec<(u64, u64)>>,
}

impl Seen {
    fn step(&self) -> u64 {
        self.steps.fetch_add(1, Ordering::SeqCst)
    }
}

#[test]
fn no_delivery_after_a_successful_ack() {
    for (seed, is_ordered) in [(1, false), (2, false), (3, true), (4, true)] {
        run(seed, is_ordered);
    }
}

fn run(seed: u64, is_ordered: bool) {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).seed(seed).build();
    let topic = now(bus.create_topic("orders", TopicConfig::new())).unwrap();
    let config = SubscriptionConfig::new()
        .ack_deadline(Duration::from_millis(5))
        .message_ordering(is_ordered)
        .exactly_once_delivery(true);
    let worker = now(topic.subscribe("worker", config)).unwrap();
    let (seen, done) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..MESSAGES {
                let key = format!("{}", n % 50);
                topic.try_publish(Message::new(n.to_string()).with_ordering_key(key)).unwrap();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                clock.advance(Duration::from_millis(1));
                std::thread::yield_now();
            }
        });
        let pullers: Vec<_> = (0..PULLERS)
            .map(|n| {
                let (worker, seen) = (&worker, &seen);
                scope.spawn(move || pull_and_ack(worker, seen, seed * 100 + n))
            })
            .collect();
        pullers.into_iter().for_each(|puller| puller.join().unwrap());
        done.store(true, Ordering::SeqCst);
    });
    let acked = seen.acked.into_inner().unwrap();
    let acked_at: HashMap<u64, u64> = acked.iter().copied().collect();
    assert_eq!(acked_at.len(), acked.len(), "seed {seed}: EOD-3: one ack of a message succeeds");
    assert_eq!(acked.len(), MESSAGES, "seed {seed}: nothing is lost");
    for (message, at) in seen.handed_out.into_inner().unwrap() {
        // EOD-1, EOD-14
        assert!(at < acked_at[&message], "seed {seed}: {message} came after its ack");
    }
    assert_eq!(worker.stats().backlog, 0);
    bus.audit().assert_balanced();
}

fn pull_and_ack(worker: &Subscription, seen: &Seen, seed: u64) {
    let mut random = seed;
    let mut held: Vec<Delivery> = Vec::new();
    loop {
        // The number is taken before the pull: a hand-out is not earlier than it.
        let at = seen.step();
        let batch = worker.try_pull(1 + (random % 7) as usize).unwrap();
        seen.handed_out.lock().unwrap().extend(batch.iter().map(|d| (d.id().as_u64(), at)));
        held.extend(batch);
        if held.is_empty() && worker.stats().backlog == 0 {
            if seen.acked.lock().unwrap().len() == MESSAGES {
                return;
            }
            std::thread::yield_now();
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        // Sometimes at once, sometimes much later: the lease may have lapsed by then.
        while held.len() > (random >> 33) as usize % 12 {
            let delivery = held.remove(0);
            let id = delivery.id().as_u64();
            let outcome = if random >> 40 & 7 == 0 {
                drop(delivery);
                continue;
            } else {
                delivery.ack().outcome()
            };
            match outcome {
                Ok(Outcome::Done) => {
                    let at = seen.step();
                    seen.acked.lock().unwrap().push((id, at));
                }
                Ok(other) => panic!("seed {seed}: {other:?}"),
                Err(error) => assert_eq!(error.code(), siftbus::Code::InvalidArgument, "EOD-4"),
            }
        }
    }
}

fn now<F: Future>(future: F) -> F::Output {
    futures_util::FutureExt::now_or_never(future).expect("answers at once")
}
