//! Figures of the engine: events per second in memory and durable, waiting callbacks, rounds of the
//! polling flow. `cargo bench -p workflow` prints them.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench measures real time and stops at what goes wrong"
)]

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use siftbus::{Bus, Message, Subscription, SubscriptionConfig, TopicConfig};
use workflow::engine::{Engine, EngineOptions, StartExecution};
use workflow::store::{MemoryStore, Store};

const PASSES: &str = "
version: v1
type: flow
steps:
  - {type: pass, name: a, outputMappings: [{target: x, source: $input.x}]}
  - {type: pass, name: b, outputMappings: [{target: y, source: $local.x}]}
  - {type: pass, name: c}
";

const CALLBACK: &str = "
version: v1
type: flow
steps:
  - type: task
    name: ask
    resourceArn: acs:mns:::/topics/t/messages
    pattern: waitForCallback
    inputMappings: [{target: token, source: $context.task.token}]
";

const POLL: &str = "
version: v1
type: flow
steps:
  - {type: wait, name: pause, duration: 0}
  - {type: task, name: look, resourceArn: 'acs:fc:::services/s/functions/f'}
  - type: choice
    name: again
    choices: [{condition: '$.done == true', goto: end}]
    default: {goto: pause}
  - {type: succeed, name: end}
";

fn main() {
    events("events, in memory, batches of 64", Arc::new(MemoryStore::new()), 64, 60_000);
    let folder = std::env::temp_dir().join(format!("workflow-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let open = |name: &str| Arc::new(workflow::store::RedbStore::open(folder.join(name)).unwrap());
    events("events, durable, batches of 64", open("batched"), 64, 6_000);
    events("events, durable, one by one", open("single"), 1, 1_000);
    rounds();
    waiting(open("waiting"), 100_000);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn engine(store: Arc<dyn Store>) -> (Bus, Engine) {
    let bus = Bus::new();
    let mut options = EngineOptions::default();
    options.limits.running_executions = 1_000_000;
    let engine = Engine::open(&bus, store, options).unwrap();
    (bus, engine)
}

/// Executions of three pass steps; `batch` of them share a commit.
fn events(what: &str, store: Arc<dyn Store>, batch: usize, executions: usize) {
    let (_bus, mut engine) = engine(store);
    engine.create_flow("f", PASSES).unwrap();
    let start = Instant::now();
    for _ in 0..executions / batch {
        let starts = (0..batch).map(|_| StartExecution::new("f", json!({"x": 1})));
        engine.start_executions(starts.collect()).unwrap();
    }
    per_second(what, engine.stats().events, start);
}

/// The polling flow against a worker that answers at once: wait, task over the bus, choice.
fn rounds() {
    let (bus, mut engine) = engine(Arc::new(MemoryStore::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topic = "flow-task.fc.s.f";
    let work: Subscription = runtime.block_on(async {
        let topic = bus.create_topic(topic, TopicConfig::new()).await.unwrap();
        topic.subscribe("work", SubscriptionConfig::new()).await.unwrap()
    });
    let replies = runtime.block_on(bus.topic("flow-reply")).unwrap();
    engine.create_flow("f", POLL).unwrap();
    engine
        .start_executions((0..64).map(|_| StartExecution::new("f", json!({}))).collect())
        .unwrap();
    let start = Instant::now();
    let mut answered = 0_u64;
    while answered < 16_000 {
        engine.turn().unwrap();
        let batch = work.try_pull(1_000).unwrap();
        for delivery in &batch {
            let mut reply = Message::new("{\"done\":false}");
            for key in ["engine_id", "flow", "task_id", "correlid"] {
                reply = reply.with_attribute(key, delivery.attribute(key).unwrap());
            }
            reply = reply.with_attribute("type", "task-result").with_attribute("status", "ok");
            replies.try_publish(reply).unwrap();
            answered += 1;
        }
        batch.ack_all();
    }
    per_second("rounds of the polling flow, in memory", answered, start);
}

/// Executions that wait for a callback: memory of each, and how long a reopening takes.
fn waiting(store: Arc<workflow::store::RedbStore>, count: usize) {
    let before = resident();
    let shared: Arc<dyn Store> = store;
    {
        let (_bus, mut engine) = engine(Arc::clone(&shared));
        engine.create_flow("f", CALLBACK).unwrap();
        for _ in 0..count / 500 {
            let starts = (0..500).map(|_| StartExecution::new("f", json!({})));
            engine.start_executions(starts.collect()).unwrap();
            engine.turn().unwrap();
        }
        assert_eq!(engine.running(), count);
        let each = (resident() - before) * 1_024 / count as u64;
        println!("{:<42} {each:>10} bytes each, resident", "executions waiting for a callback");
    }
    let start = Instant::now();
    let (_bus, engine) = engine(shared);
    assert_eq!(engine.running(), count);
    println!(
        "{:<42} {:>10.2} s",
        format!("reopening {count} of them"),
        start.elapsed().as_secs_f64()
    );
}

fn per_second(what: &str, count: u64, start: Instant) {
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("{what:<42} {rate:>10.0} per second");
}

/// Kibibytes of this process in memory; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line.map(|line| line.trim().trim_end_matches(" kB"));
    digits.and_then(|digits| digits.trim().parse().ok()).unwrap_or(0)
}
