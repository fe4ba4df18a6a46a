//! Who waits and what is there: never both, however pulls are polled, dropped and overtaken (I-8).
//!
//! A random course of publishes, pulls that wait, looks that do not, answers, drops and lapses, on
//! one thread and a manual clock. Pulls are polled when they were woken, and sometimes when they
//! were not; once nobody is left that was woken, nobody may wait for what is there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use siftbus::{
    Bus, Clock, Deliveries, Filter, ManualClock, Message, PullError, Subscription,
    SubscriptionConfig, Topic, TopicConfig,
};

const COURSES: u64 = 400;
const STEPS: usize = 300;

/// Whether its future was woken since its last poll.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Waiter {
    pull: Pin<Box<dyn Future<Output = Result<Deliveries, PullError>>>>,
    flag: Arc<Flag>,
}

struct Course {
    seed: u64,
    state: u64,
    clock: ManualClock,
    topic: Topic,
    worker: Subscription,
    waiters: Vec<Waiter>,
    held: Vec<Deliveries>,
    published: u64,
    acknowledged: u64,
    _bus: Bus,
}

impl Course {
    fn new(seed: u64, config: SubscriptionConfig) -> Self {
        let clock = ManualClock::new();
        let bus = Bus::builder().clock(Clock::manual(&clock)).seed(seed).build();
        let topic = bus.create_topic("topic", TopicConfig::new()).now_or_never().unwrap().unwrap();
        let worker = topic.subscribe("worker", config).now_or_never().unwrap().unwrap();
        let (waiters, held) = (Vec::new(), Vec::new());
        let (published, acknowledged, state) = (0, 0, seed);
        let _bus = bus;
        Self { seed, state, clock, topic, worker, waiters, held, published, acknowledged, _bus }
    }

    /// SplitMix64, below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn step(&mut self) {
        match self.below(16) {
            0..=3 => {
                let count = 1 + self.below(3);
                self.topic.try_publish_many((0..count).map(|_| Message::new("m"))).unwrap();
                self.published += count as u64;
            }
            4..=6 => {
                let (worker, most) = (self.worker.clone(), 1 + self.below(2));
                let pull = Box::pin(async move { worker.pull(most).await });
                self.waiters.push(Waiter { pull, flag: Arc::default() });
                self.poll(self.waiters.len() - 1);
            }
            7 if !self.waiters.is_empty() => {
                let early = self.below(self.waiters.len());
                self.poll(early);
            }
            8 if !self.waiters.is_empty() => {
                let gone = self.below(self.waiters.len());
                drop(self.waiters.swap_remove(gone));
            }
            9..=10 => {
                let most = 1 + self.below(2);
                self.held.push(self.worker.try_pull(most).unwrap());
            }
            11..=13 if !self.held.is_empty() => {
                let answered = self.below(self.held.len());
                self.acknowledged += self.held.swap_remove(answered).ack_all().done as u64;
            }
            14 if !self.held.is_empty() => {
                let given_back = self.below(self.held.len());
                drop(self.held.swap_remove(given_back));
            }
            15 => {
                let seconds = self.below(12) as u64;
                self.clock.advance(Duration::from_secs(seconds));
            }
            _ => {}
        }
        if self.below(2) == 0 {
            self.settle();
        }
        // Rarely, as a look at the figures takes the lock in a way of its own.
        if self.below(16) == 0 {
            self.settle();
            self.check();
        }
    }

    /// Polls a waiter; answers whether it has ended.
    fn poll(&mut self, at: usize) -> bool {
        let waiter = &mut self.waiters[at];
        waiter.flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&waiter.flag));
        let Poll::Ready(pulled) = waiter.pull.as_mut().poll(&mut Context::from_waker(&waker))
        else {
            return false;
        };
        drop(self.waiters.swap_remove(at));
        self.held.push(pulled.unwrap());
        true
    }

    /// Polls whoever was woken until nobody is.
    fn settle(&mut self) {
        let is_woken = |waiter: &Waiter| waiter.flag.0.load(Ordering::SeqCst);
        while let Some(at) = self.waiters.iter().position(is_woken) {
            self.poll(at);
        }
    }

    fn check(&self) {
        let (stats, waiting) = (self.worker.stats(), self.waiters.len());
        let seed = self.seed;
        assert!(waiting == 0 || stats.ready == 0, "PULL-1, I-8: {waiting} wait, seed {seed}");
        assert_eq!(stats.waiting_pulls, waiting, "LIB-22, seed {seed}");
        assert_eq!(stats.backlog + self.acknowledged, self.published, "LS-1, seed {seed}");
    }
}

fn run(config: fn() -> SubscriptionConfig) {
    for seed in 0..COURSES {
        let mut course = Course::new(seed, config());
        (0..STEPS).for_each(|_| course.step());
        course.settle();
        course.check();
        course._bus.audit().assert_balanced();
    }
}

#[test]
fn nobody_waits_for_what_is_there() {
    run(SubscriptionConfig::new);
}

#[test]
fn nobody_waits_behind_a_filter_for_what_is_there() {
    run(|| SubscriptionConfig::new().filter(Filter::parse("NOT attributes:absent").unwrap()));
}
