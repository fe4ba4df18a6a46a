//! The lockstep model: random operations on the bus and on a naive reference must agree.
//!
//! Compared are the ids, order and attempts of what is handed out, the outcome of every
//! settlement, the dead letters, the receipts of publishes and, after each operation, the counts of
//! every subscription and the books (LIB-40). Ordering keys, exactly-once delivery, retry and
//! dead-letter policies are in it, and change while it runs; seeks, snapshots, detached and
//! expiring subscriptions (`replay.rs`); faults on demand (`faults.rs`); times to live, delayed
//! publishes and deduplication (`later.rs`). A seed fixes a run,
//! also which operations are frequent in it. On a mismatch the seed, the operations and both views
//! are printed; `SIFTBUS_SEED=<n>` runs that seed alone, `SIFTBUS_SEEDS=<n>` as many from zero. Not
//! here: waiting, streams, threads.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod faults;
mod later;
mod naive;
mod random;
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use naive::{Counts, Draft, Lease, Naive, Policies, Refusal};
use random::Random;
use siftbus::filter::Filter;
use siftbus::{
    AckError, AckFailure, AckId, Bus, Clock, Code, DeadLetterPolicy, Deliveries, Delivery,
    Expiration, Limits, ManualClock, Message, MessageId, PullError, RetryPolicy, Snapshot,
    Subscription, SubscriptionConfig, SubscriptionUpdate, Topic, TopicConfig, TopicUpdate,
};

const SEEDS: u64 = 120;
const OPERATIONS: usize = 400;
/// The books are compared after so many operations, or after each if a seed is run alone.
const AUDIT_EVERY: usize = 4;
/// Subscriptions by slot: two take everything, two share an equal filter, one has its own.
const FILTERS: [Option<u64>; 5] = [None, None, Some(0), Some(0), Some(1)];
/// Deliveries and ids in hand; beyond it the oldest are dropped.
const MAX_HELD: usize = 60;
const SNAPSHOT_LIFE: Duration = Duration::from_secs(60);
const SNAPSHOT_LEAST_LIFE: Duration = Duration::from_secs(5);

#[test]
fn the_bus_agrees_with_the_naive_reference() {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    let seeds = match number("SIFTBUS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIFTBUS_SEEDS").unwrap_or(SEEDS),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    run_one(seed, seeds.end - seeds.start == 1);
                }
            });
        }
    });
}

fn run_one(seed: u64, is_alone: bool) {
    let mut run = Run::new(seed, is_alone);
    let result = catch_unwind(AssertUnwindSafe(|| run.all(OPERATIONS)));
    if let Err(panic) = result {
        eprintln!("SIFTBUS_SEED={seed}\n{}", run.log.join("\n"));
        eprintln!("reference: {:#?}", run.naive);
        for (slot, subscription) in &run.subscriptions {
            eprintln!("bus, slot {slot}: {:?}", subscription.stats());
        }
        resume_unwind(panic);
    }
}

/// A delivery that was handed out and not settled by the run yet; its id may be dead by now.
struct Held {
    slot: usize,
    incarnation: u64,
    lease: Lease,
    hold: Hold,
}

enum Hold {
    Delivery(Delivery),
    Id(AckId),
}

struct Run {
    random: Random,
    /// How often each kind of operation is chosen in this run; some never are.
    weights: [u64; KINDS.len()],
    log: Vec<String>,
    naive: Naive,
    start: SystemTime,
    clock: ManualClock,
    bus: Bus,
    topic: Option<Topic>,
    subscriptions: BTreeMap<usize, Subscription>,
    held: Vec<Held>,
    /// What is forwarded comes here; the payload says which message it was.
    inspect: Subscription,
    payloads: BTreeMap<String, u64>,
    texts: u64,
    ids: BTreeMap<u64, MessageId>,
    incarnations: u64,
    last_id: u64,
    snapshots: BTreeMap<u64, Snapshot>,
    names: u64,
    /// Filtered subscriptions that may not have looked through all they went back over: what their
    /// backlog is does not show yet (LIB-141).
    scanning: BTreeSet<usize>,
    /// Whether it is the only run, to find out what was wrong.
    is_alone: bool,
}

type Operation = fn(&mut Run);

const KINDS: [(Operation, u64); 30] = [
    (Run::publish, 12),
    (Run::pull, 12),
    (Run::pull_and_settle_the_batch, 4),
    (Run::settle_a_delivery, 14),
    (Run::settle_by_id, 8),
    (Run::refuse_a_foreign_id, 1),
    (Run::drop_a_delivery, 4),
    (Run::advance, 10),
    (Run::advance_to_an_end, 8),
    (Run::advance_to_an_expiry, 2),
    (Run::reject, 1),
    (Run::update, 2),
    (Run::update_policies, 2),
    (Run::update_topic, 1),
    (Run::recreate_a_subscription, 1),
    (Run::recreate_the_topic, 1),
    (Run::switch_exactly_once, 1),
    (Run::seek_to_a_time, 3),
    (Run::seek_to_a_snapshot, 2),
    (Run::create_a_snapshot, 2),
    (Run::delete_a_snapshot, 1),
    (Run::retain_acked, 1),
    (Run::detach, 1),
    (Run::advance_to_a_going, 1),
    (Run::ack_with_a_fault, 3),
    (Run::delay_a_delivery, 2),
    (Run::end_leases, 2),
    (Run::publish_later, 3),
    (Run::withdraw, 1),
    (Run::update_window, 1),
];

impl Run {
    fn new(seed: u64, is_alone: bool) -> Run {
        let mut random = Random::new(seed);
        let clock = ManualClock::new();
        let mut limits = Limits::embedded();
        (limits.snapshot_life, limits.snapshot_least_life) = (SNAPSHOT_LIFE, SNAPSHOT_LEAST_LIFE);
        let clock_of_bus = Clock::manual(&clock);
        let bus = Bus::builder().clock(clock_of_bus).limits(limits).seed(seed).build();
        let dead = bus.create_topic("dead", TopicConfig::new()).now_or_never().unwrap().unwrap();
        let config = SubscriptionConfig::new().expiration(Expiration::Never);
        let inspect = dead.subscribe("inspect", config).now_or_never().unwrap().unwrap();
        let weights = KINDS.map(|(_, usual)| usual * [0, 1, 1, 1, 2, 5][random.below(6) as usize]);
        Run {
            random,
            weights,
            log: Vec::new(),
            naive: Naive::default(),
            start: clock.now(),
            clock,
            bus,
            topic: None,
            subscriptions: BTreeMap::new(),
            held: Vec::new(),
            inspect,
            payloads: BTreeMap::new(),
            texts: 0,
            ids: BTreeMap::new(),
            incarnations: 0,
            last_id: 0,
            snapshots: BTreeMap::new(),
            names: 0,
            scanning: BTreeSet::new(),
            is_alone,
        }
    }

    fn all(&mut self, operations: usize) {
        self.create_topic();
        for slot in 0..FILTERS.len() {
            self.create_subscription(slot);
        }
        self.weights[0] = self.weights[0].max(4);
        for nth in 0..operations {
            let kind = self.random.weighted(&self.weights);
            (KINDS[kind].0)(self);
            self.compare();
            if self.is_alone || nth % AUDIT_EVERY == 0 {
                self.bus.audit().assert_balanced(); // LIB-40
            }
        }
        self.bus.audit().assert_balanced();
    }

    fn compare(&mut self) {
        self.compare_the_dead();
        self.forget_what_has_gone();
        self.naive.look();
        for slot in 0..FILTERS.len() {
            let mut counts = self.subscriptions.get(&slot).map(|subscription| {
                let stats = subscription.stats();
                Counts {
                    backlog: stats.backlog,
                    // The bus knows of some that they have to wait, the reference asks nobody.
                    ready: stats.ready + stats.blocked,
                    delayed: stats.delayed,
                    outstanding: stats.outstanding,
                    provisional: stats.provisional,
                }
            });
            let mut expected = self.naive.counts(slot);
            if let (Some(counts), Some((expected, doubtful))) = (&mut counts, &mut expected) {
                if self.scanning.contains(&slot) {
                    (counts.backlog, counts.ready) = (expected.backlog, expected.ready);
                    let delayed = counts.delayed.saturating_sub(expected.delayed);
                    counts.delayed -= delayed.min(*doubtful);
                }
                self.allow(counts, expected, *doubtful);
            }
            let expected = expected.map(|(expected, _)| expected);
            assert_eq!(counts, expected, "counts of slot {slot}: bus, reference");
        }
        if let Some(topic) = &self.topic {
            let attached = self.naive.subscriptions.values().filter(|s| s.attached).count();
            let stats = topic.stats();
            assert_eq!(stats.subscriptions, attached, "attached: bus, reference");
            let waiting = self.naive.waiting.len() as u64;
            assert_eq!(stats.delayed, waiting, "LIB-377: what waits: bus, reference");
        }
    }

    /// LIB-371: what is over may still be counted, as ready or as delayed.
    fn allow(&self, counts: &Counts, expected: &mut Counts, doubtful: u64) {
        let (ready, delayed) = (
            counts.ready.saturating_sub(expected.ready),
            counts.delayed.saturating_sub(expected.delayed),
        );
        if ready + delayed <= doubtful && counts.backlog == expected.backlog + ready + delayed {
            expected.backlog += ready + delayed;
            expected.ready += ready;
            expected.delayed += delayed;
        }
    }

    /// DLQ-4, DLQ-5: what has gone to the dead-letter topic, in order for each subscription.
    fn compare_the_dead(&mut self) {
        let batch = self.inspect.try_pull(10_000).unwrap();
        let mut came: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for delivery in &batch {
            let source = delivery.attribute(siftbus::DEAD_LETTER_SOURCE_SUBSCRIPTION).unwrap();
            let slot = source.trim_start_matches("slot").parse().unwrap();
            let text = std::str::from_utf8(delivery.data()).unwrap();
            came.entry(slot).or_default().push(self.payloads[text]);
        }
        batch.ack_all();
        let expected = self.naive.take_dead();
        assert_eq!(came, expected, "dead letters: bus, reference");
    }

    fn say(&mut self, text: String) {
        self.log.push(format!("{:4} at {:8} {text}", self.log.len(), self.naive.now));
    }

    fn publish(&mut self) {
        let count = match self.random.below(3) {
            0 => 1,
            1 => self.random.below(5) + 1,
            _ => self.random.below(40) + 1,
        };
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft()).collect();
        self.say(format!("publish {drafts:?}"));
        let texts: Vec<String> = drafts.iter().map(|_| self.text()).collect();
        let messages: Vec<Message> =
            drafts.iter().zip(&texts).map(|(draft, text)| message(*draft, text)).collect();
        let Some(topic) = &self.topic else { return };
        let receipts = if messages.len() == 1 {
            vec![topic.try_publish(messages[0].clone()).unwrap()]
        } else {
            topic.try_publish_many(messages).unwrap().iter().collect()
        };
        assert_eq!(receipts.len(), drafts.len(), "PUB-3");
        for ((receipt, draft), text) in receipts.into_iter().zip(drafts).zip(texts) {
            if self.accepted(&receipt, draft, text) {
                let expected = self.naive.publish(self.last_id, draft);
                let recipients = receipt.recipients();
                assert_eq!(recipients, Some(expected), "recipients of {}", receipt.id());
            }
        }
    }

    fn pull(&mut self) {
        let Some((slot, batch, leases)) = self.pull_batch(None) else { return };
        let incarnation = self.naive.subscriptions[&slot].incarnation;
        for (delivery, lease) in batch.into_iter().zip(leases) {
            let hold = if self.random.one_in(3) {
                Hold::Id(delivery.into_ack_id())
            } else {
                Hold::Delivery(delivery)
            };
            self.held.push(Held { slot, incarnation, lease, hold });
        }
        while self.held.len() > MAX_HELD {
            let oldest = self.held.remove(0);
            self.release(oldest);
        }
    }

    /// Pulls from both and compares what came.
    fn pull_batch(&mut self, delay: Option<u64>) -> Option<(usize, Deliveries, Vec<Lease>)> {
        let slot = self.slot();
        let max = match self.random.below(3) {
            0 => 1,
            1 => self.random.below(5) + 1,
            _ => self.random.below(100) + 1,
        } as usize;
        self.say(format!("pull {max} from slot {slot}, delay {delay:?}"));
        let expected = self.naive.pull(slot, max, delay);
        let subscription = self.subscriptions.get(&slot)?;
        if let Some(delay) = delay {
            subscription.faults().delay_deliveries(1, Duration::from_millis(delay));
        }
        let came = subscription.try_pull(max);
        subscription.faults().disarm();
        let (batch, expected) = match (came, expected) {
            (Err(PullError::Detached { .. }), Err(Refusal::Precondition)) => return None,
            (came, expected) => (came.unwrap(), expected.unwrap()),
        };
        if expected.len() < max {
            self.scanning.remove(&slot);
        }
        let came: Vec<(u64, u32)> =
            batch.iter().map(|delivery| (delivery.id().as_u64(), delivery.attempt())).collect();
        let seen: Vec<(u64, u32)> =
            expected.iter().map(|lease| (lease.message, lease.attempt)).collect();
        assert_eq!(came, seen, "handed out: bus, reference");
        Some((slot, batch, expected))
    }

    fn pull_and_settle_the_batch(&mut self) {
        let Some((slot, batch, leases)) = self.pull_batch(None) else { return };
        let incarnation = self.naive.subscriptions[&slot].incarnation;
        let way = self.random.below(4);
        self.say(format!("  and settle it: {}", ["ack", "nack", "ack even", "drop"][way as usize]));
        let (acked, settled) = match way {
            0 => (leases.clone(), Some(batch.ack_all())),
            1 => (Vec::new(), Some(batch.nack_all())),
            2 => {
                let even = leases.iter().copied().filter(|l| l.message % 2 == 0).collect();
                (even, Some(batch.ack_where(|d| d.id().as_u64() % 2 == 0)))
            }
            _ => {
                drop(batch);
                (Vec::new(), None)
            }
        };
        // Acks come first, then the rest is given back, as the bus does it.
        let mut count = siftbus::BatchOutcome::default();
        let (first, rest): (Vec<Lease>, Vec<Lease>) =
            leases.into_iter().partition(|lease| acked.contains(lease));
        let nacks = way == 1;
        for (lease, acks) in
            first.into_iter().map(|l| (l, true)).chain(rest.into_iter().map(|l| (l, false)))
        {
            let outcome = match acks {
                true => self.naive.ack(slot, incarnation, lease),
                false => self.naive.nack(slot, incarnation, lease, 0),
            };
            match outcome {
                _ if !acks && !nacks => {}
                naive::Outcome::Done => count.done += 1,
                naive::Outcome::Provisional => count.provisional += 1,
                _ => count.stale += 1,
            }
        }
        if let Some(settled) = settled {
            assert_eq!(settled, count, "the batch: bus, reference");
        }
    }

    fn settle_a_delivery(&mut self) {
        let Some(held) = self.take_held(|hold| matches!(hold, Hold::Delivery(_))) else { return };
        let Held { slot, incarnation, lease, hold: Hold::Delivery(delivery) } = held else {
            unreachable!("only deliveries were asked for")
        };
        let (way, span) = (self.random.below(4), self.span());
        let what = ["ack", "nack", "nack after", "set deadline"][way as usize];
        self.say(format!("{what} ({span}) {lease:?} of slot {slot}.{incarnation}"));
        let duration = Duration::from_millis(span);
        let came = match way {
            0 => delivery.ack().outcome(),
            1 => delivery.nack().outcome(),
            2 => delivery.nack_after(duration).outcome(),
            _ => {
                let came = delivery.set_deadline(duration).outcome();
                let hold = Hold::Delivery(delivery);
                self.held.push(Held { slot, incarnation, lease, hold });
                came
            }
        };
        let came = in_short(came);
        self.settle_doubt(slot, incarnation, lease, came);
        let expected = match way {
            0 => self.naive.ack(slot, incarnation, lease),
            1 => self.naive.nack(slot, incarnation, lease, 0),
            2 => self.naive.nack(slot, incarnation, lease, span),
            _ => self.naive.set_deadline(slot, incarnation, lease, span),
        };
        assert_eq!(came, expected, "{what}: bus, reference");
    }

    /// Acks or moves deadlines of several ids at once, some of them stale, some twice.
    fn settle_by_id(&mut self) {
        let slot = self.slot();
        let count = self.random.below(6) + 1;
        let mut chosen = Vec::new();
        for _ in 0..count {
            let Some(held) = self.take_held(|hold| matches!(hold, Hold::Id(_))) else { break };
            // What came of a single one of several is not always told.
            let is_clear = !self.naive.is_doubtful(slot, held.incarnation, held.lease);
            if held.slot == slot && is_clear {
                chosen.push(held);
            } else {
                self.held.push(held);
            }
        }
        let mut ids: Vec<(AckId, u64, Lease)> = Vec::new();
        for held in chosen {
            let Hold::Id(id) = &held.hold else { unreachable!("only ids were asked for") };
            ids.push((id.clone(), held.incarnation, held.lease));
            if self.random.one_in(4) {
                ids.push((id.clone(), held.incarnation, held.lease));
            }
            if self.random.one_in(2) {
                self.held.push(held);
            }
        }
        let Some(subscription) = self.subscriptions.get(&slot) else { return };
        if ids.is_empty() {
            return;
        }
        let subscription = subscription.clone();
        let span = self.random.one_in(2).then(|| self.span());
        let leases: Vec<_> = ids.iter().map(|(_, inc, lease)| (*inc, *lease)).collect();
        self.say(format!("by id: {span:?} {leases:?} of slot {slot}"));
        let only_ids: Vec<AckId> = ids.into_iter().map(|(id, _, _)| id).collect();
        let came = match span {
            None => subscription.acknowledge(&only_ids).now_or_never(),
            Some(span) => {
                let by = Duration::from_millis(span);
                subscription.modify_ack_deadline(&only_ids, by).now_or_never()
            }
        };
        let came = came.expect("answers at once");
        self.naive.touch(slot);
        let expected: Vec<naive::Outcome> = leases
            .into_iter()
            .map(|(incarnation, lease)| {
                let outcome = match span {
                    None => self.naive.ack(slot, incarnation, lease),
                    Some(span) => self.naive.set_deadline(slot, incarnation, lease, span),
                };
                // ACK-6: ids of a deleted namesake are stale on the new subscription.
                match outcome {
                    naive::Outcome::NotFound => self.naive.stale(slot),
                    outcome => outcome,
                }
            })
            .collect();
        match came {
            Ok(came) => {
                let came: Vec<_> = came.into_iter().map(|outcome| in_short(Ok(outcome))).collect();
                assert_eq!(came, expected, "by id: bus, reference");
            }
            // EOD-5: those that failed, in order; the others were applied.
            Err(AckError::ExactlyOnce { failures }) => {
                let came: Vec<_> = failures.into_iter().map(|(_, why)| failure(why)).collect();
                let failed = |o: &naive::Outcome| {
                    matches!(o, naive::Outcome::Invalid | naive::Outcome::Unordered)
                };
                let expected: Vec<_> = expected.into_iter().filter(failed).collect();
                assert_eq!(came, expected, "failures by id: bus, reference");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// ACK-4, ACK-5: one id of another subscription refuses the whole request.
    fn refuse_a_foreign_id(&mut self) {
        let Some(held) = self.take_held(|hold| matches!(hold, Hold::Id(_))) else { return };
        let slot = (held.slot + 1) % FILTERS.len();
        let Hold::Id(foreign) = held.hold.clone_id() else { unreachable!("an id") };
        self.held.push(held);
        let Some(subscription) = self.subscriptions.get(&slot) else { return };
        let own = self.held.iter().find_map(|held| match &held.hold {
            Hold::Id(id) if held.slot == slot => Some(id.clone()),
            _ => None,
        });
        let is_exactly_once = self.naive.subscriptions[&slot].exactly_once;
        // EOD-6: beside a foreign id the others are applied there.
        let own = own.filter(|_| !is_exactly_once);
        let ids: Vec<AckId> = own.into_iter().chain([foreign]).collect();
        let came = subscription.acknowledge(&ids).now_or_never().expect("answers at once");
        assert_eq!(came.unwrap_err().code(), Code::InvalidArgument, "a foreign id");
        self.naive.touch(slot);
        self.say(format!("a foreign id for slot {slot} was refused"));
    }

    fn drop_a_delivery(&mut self) {
        if let Some(held) = self.take_held(|hold| matches!(hold, Hold::Delivery(_))) {
            self.release(held);
        }
    }

    /// D5: dropping a delivery is a nack; dropping an id is nothing.
    fn release(&mut self, held: Held) {
        let Held { slot, incarnation, lease, hold } = held;
        if let Hold::Delivery(delivery) = hold {
            self.say(format!("drop {lease:?} of slot {slot}.{incarnation}"));
            drop(delivery);
            self.naive.nack(slot, incarnation, lease, 0);
        }
    }

    fn advance(&mut self) {
        let by = match self.random.below(4) {
            0 => self.random.below(10),
            1 => self.random.below(2_000),
            2 => self.random.below(20_000),
            _ => self.random.below(100_000),
        };
        self.advance_by(by);
    }

    /// To the exact end of a lease or delay, or one millisecond before.
    fn advance_to_an_end(&mut self) {
        let ends = self.naive.ends();
        self.advance_towards(&ends);
    }

    fn advance_to_an_expiry(&mut self) {
        let expiries = self.naive.expiries();
        self.advance_towards(&expiries);
    }

    fn advance_towards(&mut self, instants: &[u64]) {
        if instants.is_empty() {
            return;
        }
        let at = instants[self.random.below(instants.len().min(4) as u64) as usize];
        let short = u64::from(self.random.one_in(3));
        self.advance_by((at - self.naive.now).saturating_sub(short));
    }

    fn advance_by(&mut self, by: u64) {
        self.say(format!("advance {by} ms"));
        if self.random.one_in(2) {
            self.clock.advance(Duration::from_millis(by));
        } else {
            self.clock.advance_to(self.clock.now() + Duration::from_millis(by));
        }
        self.naive.advance(by);
        let now = self.start + Duration::from_millis(self.naive.now);
        assert_eq!((self.clock.now(), self.bus.now()), (now, now), "D7: one timeline");
    }

    fn update(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        let (deadline, retention) = match self.random.below(3) {
            0 => (Some(self.ack_deadline()), None),
            1 => (None, Some(self.retention())),
            _ => (Some(self.ack_deadline()), Some(self.retention())),
        };
        self.say(format!("update slot {slot}: deadline {deadline:?}, retention {retention:?}"));
        let mut update = SubscriptionUpdate::new();
        if let Some(deadline) = deadline {
            update = update.ack_deadline(Duration::from_millis(deadline));
        }
        if let Some(retention) = retention {
            update = update.retention(Duration::from_millis(retention));
        }
        subscription.update(update).now_or_never().expect("answers at once").unwrap();
        self.naive.update(slot, deadline, retention);
    }

    fn reject(&mut self) {
        let Some(held) = self.take_held(|hold| matches!(hold, Hold::Delivery(_))) else { return };
        let Held { slot, incarnation, lease, hold: Hold::Delivery(delivery) } = held else {
            unreachable!("only deliveries were asked for")
        };
        self.say(format!("reject {lease:?} of slot {slot}.{incarnation}"));
        let came = match delivery.reject().outcome() {
            Err(AckError::NoDeadLetterPolicy { .. }) => None,
            came => Some(in_short(came)),
        };
        if let Some(came) = came {
            self.settle_doubt(slot, incarnation, lease, came);
        }
        let expected = self.naive.reject(slot, incarnation, lease);
        assert!(came.is_none_or(|came| came == expected), "reject: {came:?}, {expected:?}");
    }

    /// RTY-9, DLQ-13: policies change on a live subscription.
    fn update_policies(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        let policies = self.policies();
        self.say(format!("slot {slot}: {policies:?}"));
        let update = SubscriptionUpdate::new()
            .retry_policy(policies.retry.map(retry))
            .dead_letter_policy(policies.max_attempts.map(dead_letter));
        subscription.update(update).now_or_never().expect("answers at once").unwrap();
        self.naive.set_policies(slot, policies);
    }

    fn policies(&mut self) -> Policies {
        let random = &mut self.random;
        Policies {
            retry: [None, None, Some((0, 500)), Some((5, 5)), Some((100, 20_000))]
                [random.below(5) as usize],
            max_attempts: [None, None, Some(1), Some(2), Some(4)][random.below(5) as usize],
        }
    }

    fn update_topic(&mut self) {
        let Some(topic) = self.topic.clone() else { return };
        let retention = self.topic_retention();
        self.say(format!("update the topic: retention {retention:?}"));
        let update = TopicUpdate::new().retention(retention.map(Duration::from_millis));
        topic.update(update).now_or_never().expect("answers at once").unwrap();
        self.naive.update_topic(retention);
    }

    /// Deletes a subscription, or creates it if it is not there.
    fn recreate_a_subscription(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.remove(&slot) else {
            return self.create_subscription(slot);
        };
        self.say(format!("delete slot {slot}"));
        subscription.delete().now_or_never().expect("answers at once").unwrap();
        self.naive.subscriptions.remove(&slot);
        assert_eq!(subscription.try_pull(1).unwrap_err().code(), Code::NotFound, "LS-18");
        if self.random.one_in(2) {
            self.create_subscription(slot);
        }
    }

    /// Deletes the topic, or creates it if it is not there.
    fn recreate_the_topic(&mut self) {
        let Some(topic) = self.topic.take() else { return self.create_topic() };
        self.say("delete the topic".to_owned());
        topic.delete().now_or_never().expect("answers at once").unwrap();
        self.naive.delete_topic();
        assert_eq!(topic.try_publish("x").unwrap_err().code(), Code::NotFound, "PUB-10");
        if self.random.one_in(2) {
            self.create_topic();
        }
    }

    fn create_topic(&mut self) {
        let retention = self.topic_retention();
        self.say(format!("create the topic, retention {retention:?}"));
        let mut config = TopicConfig::new();
        if let Some(retention) = retention {
            config = config.retention(Duration::from_millis(retention));
        }
        let created = self.bus.create_topic("topic", config).now_or_never();
        self.topic = Some(created.expect("answers at once").unwrap());
        self.naive.create_topic(retention);
    }

    fn create_subscription(&mut self, slot: usize) {
        let Some(topic) = self.topic.clone() else { return };
        let (deadline, retention) = (self.ack_deadline(), self.retention());
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.say(format!("create slot {slot}.{incarnation}: {deadline}, {retention}"));
        let mut config = SubscriptionConfig::new()
            .ack_deadline(Duration::from_millis(deadline))
            .retention(Duration::from_millis(retention))
            .expiration(Expiration::Never);
        let (policies, is_ordered) = (self.policies(), self.random.one_in(2));
        self.say(format!("  {policies:?}, ordered: {is_ordered}"));
        config = config.message_ordering(is_ordered);
        if let Some(span) = policies.retry {
            config = config.retry_policy(retry(span));
        }
        if let Some(attempts) = policies.max_attempts {
            config = config.dead_letter_policy(dead_letter(attempts));
        }
        if let Some(k) = FILTERS[slot] {
            config = config.filter(Filter::eq("k", &k.to_string()));
        }
        let ttl = [None, None, None, Some(20_000), Some(150_000)][self.random.below(5) as usize];
        let is_exactly_once = self.random.one_in(4);
        self.say(format!("  expires after {ttl:?}, exactly once: {is_exactly_once}"));
        if let Some(ttl) = ttl {
            config = config.expiration(Expiration::After(Duration::from_millis(ttl)));
        }
        config = config.exactly_once_delivery(is_exactly_once);
        let created = topic.subscribe(&format!("slot{slot}"), config).now_or_never();
        self.scanning.remove(&slot);
        self.subscriptions.insert(slot, created.expect("answers at once").unwrap());
        let mut reference =
            naive::Subscription::new(incarnation, FILTERS[slot], deadline, retention);
        (reference.is_ordered, reference.policies) = (is_ordered, policies);
        (reference.ttl, reference.exactly_once) = (ttl, is_exactly_once);
        self.naive.create(slot, reference);
    }

    fn slot(&mut self) -> usize {
        self.random.below(FILTERS.len() as u64) as usize
    }

    fn take_held(&mut self, wanted: impl Fn(&Hold) -> bool) -> Option<Held> {
        let fits: Vec<usize> =
            (0..self.held.len()).filter(|at| wanted(&self.held[*at].hold)).collect();
        if fits.is_empty() {
            return None;
        }
        let at = fits[self.random.below(fits.len() as u64) as usize];
        Some(self.held.remove(at))
    }

    /// A new deadline or delay, zero now and then.
    fn span(&mut self) -> u64 {
        [0, 1, 5, 500, 10_000, 10_001, 60_000][self.random.below(7) as usize]
    }

    fn ack_deadline(&mut self) -> u64 {
        [1, 5, 100, 10_000, 30_000][self.random.below(5) as usize]
    }

    fn retention(&mut self) -> u64 {
        [1_000, 20_000, 100_000, 1_000_000][self.random.below(4) as usize]
    }

    fn topic_retention(&mut self) -> Option<u64> {
        [None, None, Some(500), Some(50_000)][self.random.below(4) as usize]
    }
}

impl Hold {
    fn clone_id(&self) -> Hold {
        match self {
            Hold::Id(id) => Hold::Id(id.clone()),
            Hold::Delivery(delivery) => Hold::Id(delivery.ack_id()),
        }
    }
}

fn message(draft: Draft, text: &str) -> Message {
    let mut message = Message::new(text.to_owned());
    if let Some(k) = draft.attribute {
        message = message.with_attribute("k", k.to_string());
    }
    if let Some(key) = draft.key {
        message = message.with_ordering_key(key.to_string());
    }
    if let Some(ttl) = draft.ttl {
        message = message.with_ttl(Duration::from_millis(ttl));
    }
    if let Some(key) = draft.idempotency {
        message = message.with_idempotency_key(key.to_string());
    }
    message
}

fn retry((minimum, maximum): (u64, u64)) -> RetryPolicy {
    RetryPolicy::new()
        .minimum_backoff(Duration::from_millis(minimum))
        .maximum_backoff(Duration::from_millis(maximum))
}

fn dead_letter(attempts: u32) -> DeadLetterPolicy {
    DeadLetterPolicy::new("dead").max_delivery_attempts(attempts)
}

fn in_short(came: Result<siftbus::Outcome, AckError>) -> naive::Outcome {
    match came {
        Ok(siftbus::Outcome::Done) => naive::Outcome::Done,
        Ok(siftbus::Outcome::Stale) => naive::Outcome::Stale,
        Ok(siftbus::Outcome::Provisional) => naive::Outcome::Provisional,
        Ok(other) => panic!("{other:?}"),
        Err(AckError::ExactlyOnce { failures }) => {
            assert_eq!(failures.len(), 1);
            failure(failures[0].1)
        }
        Err(error) => {
            assert_eq!(error.code(), Code::NotFound, "{error}");
            naive::Outcome::NotFound
        }
    }
}

fn failure(why: AckFailure) -> naive::Outcome {
    match why {
        AckFailure::InvalidAckId => naive::Outcome::Invalid,
        AckFailure::OutOfOrder => naive::Outcome::Unordered,
        AckFailure::Transient => naive::Outcome::Transient,
        other => panic!("{other:?}"),
    }
}
