//! The soak: mixed load with random faults for as long as is asked for; then everything has to be
//! accounted for, and memory to have stayed flat.
//!
//! `cargo bench --bench soak` runs for ten minutes, `-- --seconds 30` for half a minute; `--seed n`
//! draws the same load and faults again (threads meet differently all the same). Real threads, real
//! time, short deadlines. Without `--bench` or `--seconds` (as `cargo test --benches` calls it) it
//! runs for two seconds. Any violation ends it with a panic and a code other than zero.

#![allow(clippy::disallowed_methods, reason = "a bench reads real time")]
#![allow(clippy::indexing_slicing, reason = "a bench that is wrong may panic")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

mod chaos;
mod load;
mod memory;
mod random;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use siftbus::{
    BacklogLimit, Budget, Bus, DeadLetterPolicy, Expiration, Filter, Overflow, RetryPolicy,
    Subscription, SubscriptionConfig, Topic, TopicConfig,
};

use memory::Memory;

/// How long the load may take to drain once it has stopped.
const PATIENCE: Duration = Duration::from_secs(60);
/// The load is stuck if nothing is acknowledged between so many looks, a second apart. Looks, not
/// time: the whole process may be held up.
const STUCK: u32 = 20;
const BUDGET: u64 = 32 * 1024 * 1024;

/// What the tasks share.
struct World {
    bus: Bus,
    orders: Topic,
    dead: Topic,
    seed: u64,
    /// Publishers and the chaos stop first, consumers when all is drained.
    stop_load: AtomicBool,
    stop_work: AtomicBool,
    published: AtomicU64,
    refused: AtomicU64,
    acked: AtomicU64,
    exact: load::Exact,
    chaos: chaos::Done,
}

struct Arguments {
    seconds: u64,
    seed: u64,
}

fn main() {
    let Arguments { seconds, seed } = arguments();
    println!("soak: {seconds} s, seed {seed}");
    quiet_what_is_on_purpose();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(soak(Duration::from_secs(seconds), seed));
    println!("soak: passed (seed {seed})");
}

/// A handler that panics on purpose is caught by the bus, and no news.
fn quiet_what_is_on_purpose() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<&str>() != Some(&"on purpose") {
            usual(panic);
        }
    }));
}

async fn soak(length: Duration, seed: u64) {
    let world = World::new(seed).await;
    let consumers = load::consumers(&world).await;
    let producers = load::producers(&world);
    let chaos = tokio::spawn(chaos::run(Arc::clone(&world)));
    let mut memory = Memory::new(length);
    watch(&world, length, &mut memory).await;
    // Faults stop, and everything must drain.
    world.stop_load.store(true, Ordering::SeqCst);
    chaos.await.unwrap();
    for producer in producers {
        producer.await.unwrap();
    }
    chaos::disarm(&world);
    let drained = world.bus.timeout(PATIENCE, world.bus.wait_idle()).await;
    assert!(drained.is_ok(), "seed {seed}: not drained in {PATIENCE:?}: {}", backlogs(&world));
    world.stop_work.store(true, Ordering::SeqCst);
    for subscription in world.bus.subscriptions() {
        // Whoever waits for a message is let go.
        let _ = subscription.delete().await;
    }
    for consumer in consumers {
        consumer.await.unwrap();
    }
    report(&world, length);
    world.bus.audit().assert_balanced();
    memory.judge(seed);
    world.chaos.judge(length, seed);
}

/// Looks once a second: the books balance, something moves, memory.
async fn watch(world: &World, length: Duration, memory: &mut Memory) {
    let begin = Instant::now();
    let (mut last, mut unmoved) = (0, 0);
    while begin.elapsed() < length {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.bus.audit().assert_balanced();
        let acked = world.acked.load(Ordering::Relaxed);
        unmoved = if acked > last { 0 } else { unmoved + 1 };
        last = acked;
        let seed = world.seed;
        assert!(unmoved < STUCK, "seed {seed}: nothing moves: {}", backlogs(world));
        memory.sample(begin.elapsed());
    }
}

fn backlogs(world: &World) -> String {
    let subscriptions = world.bus.subscriptions();
    let lines = subscriptions.iter().map(|one| format!("\n  {}: {:?}", one.name(), one.stats()));
    format!("{:?}{}", world.bus.stats(), lines.collect::<String>())
}

fn report(world: &World, length: Duration) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let audit = world.bus.audit();
    let (published, acked) = (count(&world.published), count(&world.acked));
    println!(
        "published {published} ({:.0}/s), refused on demand {}, acknowledged {acked}",
        published as f64 / length.as_secs_f64(),
        count(&world.refused),
    );
    println!("books: {:?}", audit.ended);
    println!("chaos: {}", world.chaos.summary());
    println!("exactly once: {}", world.exact.summary());
}

impl World {
    async fn new(seed: u64) -> Arc<World> {
        let budget = Budget::new(BUDGET);
        let bus = Bus::builder().budget(budget).seed(seed).build();
        let retention = TopicConfig::new().retention(Duration::from_secs(2));
        let orders = bus.create_topic("orders", retention).await.unwrap();
        let dead = bus.create_topic("dead", TopicConfig::new()).await.unwrap();
        let world = World {
            bus,
            orders,
            dead,
            seed,
            stop_load: AtomicBool::new(false),
            stop_work: AtomicBool::new(false),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            exact: load::Exact::default(),
            chaos: chaos::Done::default(),
        };
        world.subscribe_all().await;
        Arc::new(world)
    }

    async fn subscribe_all(&self) {
        let short = || {
            SubscriptionConfig::new()
                .ack_deadline(Duration::from_millis(200))
                .retention(Duration::from_secs(3))
                .expiration(Expiration::Never)
        };
        let retry = RetryPolicy::new()
            .minimum_backoff(Duration::from_millis(5))
            .maximum_backoff(Duration::from_millis(100));
        let dead = || DeadLetterPolicy::new("dead").max_delivery_attempts(5);
        let ordered = short().message_ordering(true);
        let evens = Filter::parse(r#"attributes.parity = "even""#).unwrap();
        let bounded = BacklogLimit::new(2_000).overflow(Overflow::DropOldest);
        let all = [
            ("plain", short()),
            ("ordered", ordered.clone().retry_policy(retry.clone()).dead_letter_policy(dead())),
            ("one-by-one", ordered.clone().dead_letter_policy(dead())),
            ("exact", short().exactly_once_delivery(true).retry_policy(retry)),
            ("exact-ordered", ordered.exactly_once_delivery(true)),
            ("filtered", short().filter(evens).retain_acked(true)),
            ("handled", short().dead_letter_policy(dead())),
            ("abandoned", short().backlog_limit(bounded)),
        ];
        for (name, config) in all {
            self.orders.subscribe(name, config).await.unwrap();
        }
        self.dead.subscribe("grave", short()).await.unwrap();
    }

    async fn subscription(&self, name: &str) -> Subscription {
        self.bus.subscription(name).await.unwrap()
    }

    fn is_loaded(&self) -> bool {
        !self.stop_load.load(Ordering::SeqCst)
    }

    fn is_working(&self) -> bool {
        !self.stop_work.load(Ordering::SeqCst)
    }
}

fn arguments() -> Arguments {
    let given: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = given.iter().position(|argument| argument == name)?;
        let text = given.get(at + 1).cloned().unwrap_or_default();
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} {text:?} is not a number")))
    };
    let is_bench = given.iter().any(|argument| argument == "--bench");
    let seconds = value("--seconds").unwrap_or(if is_bench { 600 } else { 2 });
    let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap();
    let seed = value("--seed").unwrap_or(since_epoch.as_nanos() as u64);
    Arguments { seconds, seed }
}
