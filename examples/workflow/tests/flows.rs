//! The asynchronous engine with workers in process, in virtual time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use siftbus::Bus;
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
