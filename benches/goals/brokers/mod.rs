//! Row 6: the same full cycle against brokers in processes of their own, over loopback; and how
//! long one message is on its way there, for row 7.
//!
//! Each that is installed is started with everything in memory on a free port, and ended after.
//! They are spoken to in their own protocols by a few lines each, with a whole batch in one write,
//! so that no client library stands between; what they pay for is the crossing of processes. Those
//! that are not here are skipped by name.

mod emulator;
mod grpc;
mod nats;
mod redis;
mod server;

use std::io;
use std::time::{Duration, Instant};

use siftbus::{Clock, Message};

use self::server::{Server, not_found, unexpected};
use crate::cycle::{BATCH, borrowed, bus_with};
use crate::measure::{median, one_thread, payload};
use crate::table::{Goal, Line, Table};

/// Something that takes a batch, hands it out and has it acknowledged.
trait Broker {
    /// Publishes `BATCH` messages of 16 bytes with two attributes, takes and acknowledges them.
    fn cycle(&mut self) -> io::Result<()>;
}

/// Something that brings a message to a subscriber that waits.
pub(crate) trait Delivers {
    /// How long one message took from the beginning of its publish on.
    fn deliver(&mut self) -> io::Result<Duration>;
}

const PEER_BATCHES: usize = 30;
const OUR_BATCHES: usize = 1_000;
const ROUNDS: usize = 15;

/// The attributes that every message has, and what is in it.
const ATTRIBUTES: [(&str, &str); 2] = [("region", "eu"), ("kind", "order")];
const PAYLOAD: &str = "xxxxxxxxxxxxxxxx";

/// How a broker is started.
type Start = fn() -> io::Result<Box<dyn Broker>>;

pub(crate) type StartDelivering = fn() -> io::Result<Box<dyn Delivers>>;

pub(crate) fn full_cycles(table: &mut Table) {
    let peers: [(&str, Start, f64, f64); 3] = [
        ("NATS JetStream, in memory", || Ok(Box::new(nats::JetStream::start()?)), 250.0, 500.0),
        ("Redis Streams", || Ok(Box::new(redis::Streams::start()?)), 100.0, 200.0),
        ("Pub/Sub emulator", || Ok(Box::new(emulator::Emulator::start()?)), 200.0, 400.0),
    ];
    for (name, start, goal, stretch) in peers {
        match start().and_then(|mut broker| beside(broker.as_mut())) {
            Ok((ours, theirs, ratio)) => table.add(Line {
                row: "6",
                what: format!("batches of 100, 2 attributes, against {name}: times faster"),
                ours: format!("{ours:.0} ns"),
                peer: format!("{theirs:.0} ns"),
                judged: ratio,
                goal: Goal::AtLeast(goal),
                stretch: Goal::AtLeast(stretch),
            }),
            Err(error) => table.skip("6", &format!("{name}: {error}")),
        }
    }
}

/// Brokers that bring a message to whoever waits, and how many times slower they have to be.
pub(crate) fn deliverers() -> [(&'static str, StartDelivering, f64); 2] {
    [
        ("NATS core", || Ok(Box::new(nats::Core::start()?)), 100.0),
        ("Pub/Sub emulator, streaming pull", || Ok(Box::new(emulator::Emulator::start()?)), 1e4),
    ]
}

/// Both in turn: nanoseconds a message, and how many times ours fits into theirs.
fn beside(broker: &mut dyn Broker) -> io::Result<(f64, f64, f64)> {
    let runtime = one_thread();
    let payload = payload(PAYLOAD.len());
    let (_bus, topic, subscription) = runtime.block_on(bus_with(Clock::system()));
    let message = || Message::new(payload.clone()).with_attributes(ATTRIBUTES);
    let ours = |batches| {
        nanos(batches, || {
            runtime.block_on(borrowed(&topic, &subscription, batches, message));
            Ok(())
        })
    };
    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..=ROUNDS {
        let theirs = nanos(PEER_BATCHES, || (0..PEER_BATCHES).try_for_each(|_| broker.cycle()))?;
        // What the broker still has to tidy up is not ours to pay for, nor is a cold cache, which
        // theirs is long enough not to feel.
        std::thread::sleep(Duration::from_millis(20));
        ours(OUR_BATCHES / 20)?;
        let ours = ours(OUR_BATCHES)?;
        if round > 0 {
            rounds.push((ours, theirs));
        }
    }
    let of = |part: fn(&(f64, f64)) -> f64| median(rounds.iter().map(part).collect());
    Ok((of(|round| round.0), of(|round| round.1), of(|round| round.1 / round.0)))
}

fn nanos(batches: usize, work: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_nanos() as f64 / (batches * BATCH) as f64)
}
