//! Row 6: the same full cycle against brokers in processes of their own, over loopback.
//!
//! Each that is installed is started with everything in memory on a free port, and ended after. They
//! are spoken to in their own protocols by a few lines each, with a whole batch in one write, so
//! that no client library stands between; what they pay for is the crossing of processes. Those
//! that are not here are skipped by name.

mod emulator;
mod nats;
mod redis;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use siftbus::{Clock, Message};

use crate::cycle::{BATCH, borrowed, bus_with};
use crate::measure::{median, one_thread, payload};
use crate::table::{Goal, Line, Table};

/// Something that takes a batch, hands it out and has it acknowledged.
trait Broker {
    /// Publishes `BATCH` messages of 16 bytes with two attributes, takes and acknowledges them.
    fn cycle(&mut self) -> io::Result<()>;
}

const PEER_BATCHES: usize = 30;
const OUR_BATCHES: usize = 300;
const ROUNDS: usize = 9;

/// The attributes that every message has.
const ATTRIBUTES: [(&str, &str); 2] = [("region", "eu"), ("kind", "order")];

/// How a broker is started.
type Start = fn() -> io::Result<Box<dyn Broker>>;

pub(crate) fn full_cycles(table: &mut Table) {
    let peers: [(&str, Start, f64, f64); 3] = [
        ("NATS JetStream, in memory", || Ok(Box::new(nats::JetStream::start()?)), 250.0, 500.0),
        ("Redis Streams", || Ok(Box::new(redis::Streams::start()?)), 100.0, 200.0),
        ("Pub/Sub emulator, REST", || Ok(Box::new(emulator::Emulator::start()?)), 200.0, 400.0),
    ];
    for (name, start, goal, stretch) in peers {
        match start().and_then(|mut broker| beside(broker.as_mut())) {
            Ok((ours, theirs, ratio)) => table.add(Line {
                row: "6",
                what: format!("batches of 100, 2 attributes, against {name}"),
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

/// Both in turn: nanoseconds a message, and how many times ours fits into theirs.
fn beside(broker: &mut dyn Broker) -> io::Result<(f64, f64, f64)> {
    let runtime = one_thread();
    let payload = payload(16);
    let (_bus, topic, subscription) = runtime.block_on(bus_with(Clock::system()));
    let message = || Message::new(payload.clone()).with_attributes(ATTRIBUTES);
    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..=ROUNDS {
        let theirs = nanos(PEER_BATCHES, || (0..PEER_BATCHES).try_for_each(|_| broker.cycle()))?;
        let ours = nanos(OUR_BATCHES, || {
            runtime.block_on(borrowed(&topic, &subscription, OUR_BATCHES, message));
            Ok(())
        })?;
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

/// A broker's process, and a folder for what it insists on writing. Both go with it.
struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    /// `arguments` gets the port and the folder.
    fn start(
        program: &str,
        arguments: impl FnOnce(u16, &str) -> Vec<String>,
    ) -> io::Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("siftbus-bench-{port}"));
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(program);
        command.args(arguments(port, &folder.to_string_lossy()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn();
        let child = started.map_err(|error| io::Error::new(error.kind(), "not installed"))?;
        Ok(Server { child, port, folder })
    }

    /// Waits until it answers.
    fn connect(&self) -> io::Result<TcpStream> {
        let start = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                    return Ok(stream);
                }
                Err(error) if start.elapsed() > Duration::from_secs(20) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn unexpected(what: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("an answer that was not expected: {what}"))
}
