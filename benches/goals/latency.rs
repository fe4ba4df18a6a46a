//! Row 7: how long a message is on its way to whoever waits for it.
//!
//! One caller publishes, a handler leases, acknowledges and publishes an answer; the time is that
//! of the round trip, so two publishes, two wake-ups and two acknowledgements. Brokers are compared
//! by the way of one message, from the beginning of its publish to the handler that has it.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use siftbus::{Clock, Message, Subscription, Topic};
use tokio::runtime::Runtime;

use crate::brokers::{self, Delivers};
use crate::cycle::bus_with;
use crate::measure::{median, one_thread, payload, two_threads};
use crate::peers;
use crate::table::{Goal, Line, Table};

const TRIPS: usize = 20_000;
const ROUNDS: usize = 15;

/// A topic for questions and one for answers.
struct Ways {
    _buses: [siftbus::Bus; 2],
    ask: (Topic, Subscription),
    answer: (Topic, Subscription),
}

async fn ways(clock: fn() -> Clock) -> Ways {
    let (one, ask, asked) = bus_with(clock()).await;
    let (other, answer, answered) = bus_with(clock()).await;
    Ways { _buses: [one, other], ask: (ask, asked), answer: (answer, answered) }
}

async fn take_one(subscription: &Subscription) -> Bytes {
    let batch = subscription.pull(1).await.unwrap();
    let data = batch.iter().next().unwrap().data().clone();
    batch.ack_all();
    data
}

impl Ways {
    async fn round_trips(&self, payload: &Bytes, times: &mut Vec<u64>) {
        let (answer, asked) = (self.answer.0.clone(), self.ask.1.clone());
        let handler = tokio::spawn(async move {
            for _ in 0..TRIPS {
                let data = take_one(&asked).await;
                answer.publish(Message::new(data)).await.unwrap();
            }
        });
        let (ask, answered) = (self.ask.0.clone(), self.answer.1.clone());
        let payload = payload.clone();
        let caller = tokio::spawn(async move {
            let mut times = Vec::with_capacity(TRIPS);
            for _ in 0..TRIPS {
                let start = Instant::now();
                ask.publish(Message::new(payload.clone())).await.unwrap();
                black_box(take_one(&answered).await.len());
                times.push(start.elapsed().as_nanos() as u64);
            }
            times
        });
        times.extend(caller.await.unwrap());
        handler.await.unwrap();
    }
}

/// The median and the 99th percentile of one round, in nanoseconds.
#[derive(Copy, Clone, Debug)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

fn percentiles(run: impl FnOnce(&mut Vec<u64>)) -> Percentiles {
    let mut times = Vec::with_capacity(TRIPS);
    run(&mut times);
    times.sort_unstable();
    let at = |hundredths: usize| times[times.len() * hundredths / 100] as f64;
    Percentiles { p50: at(50), p99: at(99) }
}

pub(crate) fn round_trips(table: &mut Table) {
    let (one, two) = (one_thread(), two_threads());
    rounds(table, &one, "one thread", [2.0, 1.6, 1.5].map(Goal::AtMost));
    rounds(table, &two, "two threads", [Goal::Shown; 3]);
    for (name, start, goal) in brokers::deliverers() {
        match start().and_then(|mut broker| beside(&two, broker.as_mut())) {
            Ok((ours, theirs)) => table.add(Line {
                row: "7",
                what: format!("one message to a handler on two live threads, against {name}"),
                ours: format!("p50 {ours:.0} ns"),
                peer: format!("{theirs:.0} ns"),
                judged: theirs / ours,
                goal: Goal::AtLeast(goal),
                stretch: Goal::Shown,
            }),
            Err(error) => table.skip("7", &format!("{name}: {error}")),
        }
    }
}

/// The medians of one message's way, ours and the broker's, in nanoseconds.
fn beside(runtime: &Runtime, broker: &mut dyn Delivers) -> io::Result<(f64, f64)> {
    const MESSAGES: usize = 20;
    let payload = payload(16);
    let world = runtime.block_on(bus_with(Clock::system()));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let mut times = Vec::with_capacity(MESSAGES);
        for _ in 0..MESSAGES {
            times.push(broker.deliver()?.as_nanos() as f64);
        }
        let mine = runtime.block_on(one_way(&world.1, &world.2, &payload));
        if round > 0 {
            ours.push(mine);
            theirs.extend(times);
        }
    }
    Ok((median(ours), median(theirs)))
}

/// The median over many messages, each published when the one before has been handled; nobody
/// sleeps meanwhile.
async fn one_way(topic: &Topic, subscription: &Subscription, payload: &Bytes) -> f64 {
    let handled = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let now = move || start.elapsed().as_nanos() as u64;
    let (taker, done) = (subscription.clone(), Arc::clone(&handled));
    let handler = tokio::spawn(async move {
        for _ in 0..TRIPS {
            let batch = taker.pull(1).await.unwrap();
            black_box(batch.iter().next().unwrap().data());
            let time = now();
            batch.ack_all();
            done.store(time, Ordering::Release);
        }
    });
    let (topic, payload) = (topic.clone(), payload.clone());
    let publisher = tokio::spawn(async move {
        let mut times = Vec::with_capacity(TRIPS);
        for _ in 0..TRIPS {
            let published = now();
            topic.publish(Message::new(payload.clone())).await.unwrap();
            let time = loop {
                match handled.swap(0, Ordering::Acquire) {
                    0 => tokio::task::yield_now().await,
                    time => break time,
                }
            };
            times.push((time - published) as f64);
        }
        times
    });
    handler.await.unwrap();
    median(publisher.await.unwrap())
}

/// Both clocks and the peer in turn; `goals` are those of both medians and the 99th percentile.
fn rounds(table: &mut Table, runtime: &Runtime, threads: &str, goals: [Goal; 3]) {
    let payload = payload(16);
    let (system, coarse) =
        (runtime.block_on(ways(Clock::system)), runtime.block_on(ways(Clock::coarse)));
    let ours =
        |ways: &Ways| percentiles(|times| runtime.block_on(ways.round_trips(&payload, times)));
    let mut kept = Vec::with_capacity(ROUNDS);
    for round in 0..=ROUNDS {
        let peer = percentiles(|times| {
            runtime.block_on(peers::mpsc_round_trips(&payload, TRIPS, times));
        });
        let measured = [ours(&system), ours(&coarse), peer];
        if round > 0 {
            kept.push(measured);
        }
    }
    let mut add = |what: &str, ours: usize, goal: Goal, of: fn(&Percentiles) -> f64| {
        let nanos = |at: usize| median(kept.iter().map(|round| of(&round[at])).collect());
        table.add(Line {
            row: "7",
            what: format!("round trip to a handler and back, {threads}, {what}"),
            ours: format!("{:.0} ns", nanos(ours)),
            peer: format!("tokio mpsc {:.0} ns", nanos(2)),
            judged: median(kept.iter().map(|r| of(&r[ours]) / of(&r[2])).collect()),
            goal,
            stretch: Goal::Shown,
        });
    };
    add("p50, system clock", 0, goals[0], |times| times.p50);
    add("p50, coarse clock", 1, goals[1], |times| times.p50);
    add("p99, system clock", 0, goals[2], |times| times.p99);
    add("p99, coarse clock", 1, goals[2], |times| times.p99);
}
