//! The asynchronous engine with workers in process, in virtual time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use siftbus::{Bus, SubscriptionConfig, TopicConfig};
use workflow::engine::{EngineOptions, Report, StartExecution, Status};
use workflow::flows::Flows;
use workflow::store::MemoryStore;
use workflow::worker::TaskError;

const RESOURCE: &str = "acs:fc:::services/s/functions/f";

fn task(more: &str) -> String {
    format!(
        "version: v1\ntype: flow\nsteps:\n  - type: task\n    name: call\n    resourceArn: \
         {RESOURCE}\n{more}"
    )
}

async fn flows(definition: &str) -> (Bus, Flows) {
    let bus = Bus::new();
    let options = EngineOptions::default();
    let flows = Flows::open(&bus, Arc::new(MemoryStore::new()), options).unwrap();
    flows.create_flow("f", definition).await.unwrap();
    (bus, flows)
}

async fn begin(flows: &Flows, input: Value) {
    let start = StartExecution::new("f", input).named("exec-1");
    flows.start_execution(start).await.unwrap();
}

/// F-114: a function in process is called over the bus.
#[tokio::test(start_paused = true)]
async fn a_function_answers() {
    let (_bus, flows) = flows(&task("")).await;
    let double = |input: Value, _| async move {
        let n = input["n"].as_i64().ok_or(("BadInput", "n is no number"))?;
        Ok::<_, TaskError>(json!({"n": 2 * n}))
    };
    flows.register(RESOURCE, double).unwrap();
    begin(&flows, json!({"n": 4})).await;
    let ended = flows.wait("f", "exec-1", Duration::from_secs(1)).await.unwrap();
    assert_eq!((ended.status, ended.output), (Status::Succeeded, Some(json!({"n": 8}))));
}

/// A function that takes longer than its lease is not started a second time.
#[tokio::test(start_paused = true)]
async fn a_lease_is_kept_while_a_function_runs() {
    let (_bus, flows) = flows(&task("")).await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    flows
        .register(RESOURCE, move |_, context| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                context.bus().sleep(Duration::from_secs(100)).await;
                Ok::<_, TaskError>(json!({"done": true}))
            }
        })
        .unwrap();
    begin(&flows, json!({})).await;
    let ended = flows.wait("f", "exec-1", Duration::from_secs(200)).await.unwrap();
    assert_eq!(ended.output, Some(json!({"done": true})));
    assert_eq!(calls.load(Ordering::Relaxed), 1, "F-110");
}

/// F-63 and 3.9: errors keep their name, a panic is `FC.Unknown`.
#[tokio::test(start_paused = true)]
async fn errors_and_panics_are_results() {
    for (how, error) in [("error", "Mine"), ("panic", "FC.Unknown")] {
        let (_bus, flows) = flows(&task("")).await;
        flows
            .register(RESOURCE, move |_, _| async move {
                assert_eq!(how, "error", "panics on purpose");
                Err::<Value, _>(TaskError::new("Mine", "because"))
            })
            .unwrap();
        begin(&flows, json!({})).await;
        let ended = flows.wait("f", "exec-1", Duration::from_secs(1)).await.unwrap();
        assert_eq!(ended.status, Status::Failed);
        assert_eq!(ended.failure.unwrap().error, error);
    }
}

/// 4.2: a task that timed out is cancelled where it runs.
#[tokio::test(start_paused = true)]
async fn a_worker_hears_of_a_cancellation() {
    let (bus, flows) = flows(&task("    timeoutSeconds: 5\n")).await;
    let (told, heard) = tokio::sync::oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    flows
        .register(RESOURCE, move |_, mut context| {
            let told = told.lock().unwrap().take();
            async move {
                context.cancelled().await;
                let _ = told.unwrap().send(context.bus().now());
                Ok::<_, TaskError>(json!({}))
            }
        })
        .unwrap();
    let start = bus.now();
    begin(&flows, json!({})).await;
    let ended = flows.wait("f", "exec-1", Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.failure.unwrap().error, "FnF.TaskTimeout");
    let at = heard.await.unwrap().duration_since(start).unwrap();
    assert!(at < Duration::from_millis(5_100), "told at {at:?}");
}

/// A-S4: the function gives its token away and somebody reports.
#[tokio::test(start_paused = true)]
async fn a_callback_ends_the_task() {
    let more = "    pattern: waitForCallback\n    \
                inputMappings: [{target: token, source: $context.task.token}]\n";
    let (bus, flows) = flows(&task(more)).await;
    let reporter = flows.clone();
    flows
        .register(RESOURCE, move |input, context| {
            let reporter = reporter.clone();
            async move {
                let token = input["token"].as_str().unwrap().to_owned();
                tokio::spawn(async move {
                    context.bus().sleep(Duration::from_secs(60)).await;
                    reporter.report(&token, Report::succeeded(r#"{"s":"ok"}"#)).await.unwrap();
                });
                Ok::<_, TaskError>(input)
            }
        })
        .unwrap();
    let start = bus.now();
    begin(&flows, json!({})).await;
    let ended = flows.wait("f", "exec-1", Duration::from_secs(600)).await.unwrap();
    assert_eq!(ended.output, Some(json!({"s": "ok"})));
    assert_eq!(bus.now().duration_since(start).unwrap().as_secs(), 60);
}

/// 3.9: an invocation that was delivered ten times without a reply is given up.
#[tokio::test(start_paused = true)]
async fn a_task_that_kills_its_workers_is_given_up() {
    let (bus, flows) = flows(&task("")).await;
    let topic = bus.create_topic("flow-task.fc.s.f", TopicConfig::new()).await.unwrap();
    let name = "flow-task.fc.s.f.workers";
    let dying = topic.subscribe(name, SubscriptionConfig::new()).await.unwrap();
    begin(&flows, json!({})).await;
    for _ in 0..10 {
        // A worker that takes it and is gone before it says a word.
        let taken = dying.pull(1).await.unwrap();
        assert_eq!(taken.len(), 1);
        bus.sleep(Duration::from_secs(11)).await;
        drop(taken);
    }
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    flows
        .register(RESOURCE, move |input, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, TaskError>(input) }
        })
        .unwrap();
    let ended = flows.wait("f", "exec-1", Duration::from_secs(600)).await.unwrap();
    assert_eq!(ended.failure.unwrap().error, "FnF.WorkerLost");
    assert_eq!(calls.load(Ordering::Relaxed), 0, "it is not tried an eleventh time");
}

/// F-90: what ended longer ago than the history is kept goes by itself.
#[tokio::test(start_paused = true)]
async fn old_executions_go_by_themselves() {
    let definition = "version: v1\ntype: flow\nsteps: [{type: pass, name: p}]\n";
    let (bus, flows) = flows(definition).await;
    begin(&flows, json!({})).await;
    bus.sleep(Duration::from_secs(89 * 86_400)).await;
    assert!(flows.describe_execution("f", "exec-1").await.is_ok());
    bus.sleep(Duration::from_secs(86_400)).await;
    // The driver sweeps after what it was woken for.
    let _ = flows.describe_execution("f", "exec-1").await;
    let gone = flows.describe_execution("f", "exec-1").await.unwrap_err();
    assert_eq!(gone.name(), "ExecutionNotExists", "F-90");
}
