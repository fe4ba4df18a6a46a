//! Tasks that are jobs of the package `jobs`, in virtual time (section 3.8, F-113).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jobs::{JobCtx, JobError, JobId, Jobs, WorkerOptions};
use serde_json::{Value, json};
use siftbus::Bus;
use workflow::engine::{Description, EngineOptions, StartExecution, Status};
use workflow::flows::Flows;
use workflow::job_worker::{JOB_CANCELLED, serve_jobs};
use workflow::store::MemoryStore;

fn flow(more: &str) -> String {
    let task = "{type: task, name: work, resourceArn: 'job:square'";
    format!("version: v1\ntype: flow\nsteps:\n  - {task}{more}}}\n")
}

/// A kind of jobs that squares after a minute, or fails by name.
async fn jobs(bus: &Bus, calls: &Arc<AtomicU32>) -> Jobs {
    let jobs = Jobs::builder(bus.clone()).build().await.unwrap();
    let calls = Arc::clone(calls);
    jobs.register("square", move |context: JobCtx, args: Value| {
        calls.fetch_add(1, Ordering::Relaxed);
        async move {
            context.bus().sleep(Duration::from_secs(60)).await;
            let n = args["n"].as_i64().ok_or(JobError::permanent("NoNumber", "n is none"))?;
            Ok(json!({"square": n * n}))
        }
    })
    .unwrap();
    jobs
}

async fn run(definition: &str, input: Value) -> (Description, Jobs, Flows, u32) {
    let bus = Bus::new();
    let calls = Arc::new(AtomicU32::new(0));
    let jobs = jobs(&bus, &calls).await;
    let worker = jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    let flows = Flows::open(&bus, Arc::new(MemoryStore::new()), EngineOptions::default()).unwrap();
    serve_jobs(&bus, &jobs, "square").unwrap();
    flows.create_flow("f", definition).await.unwrap();
    flows.start_execution(StartExecution::new("f", input).named("exec-1")).await.unwrap();
    let ended = flows.wait("f", "exec-1", Duration::from_secs(600)).await.unwrap();
    drop(worker);
    (ended, jobs, flows, calls.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn with_sync_the_result_of_the_job_is_that_of_the_task() {
    let (ended, _, _, calls) = run(&flow(", pattern: sync"), json!({"n": 7})).await;
    assert_eq!((ended.status, ended.output), (Status::Succeeded, Some(json!({"square": 49}))));
    assert_eq!((ended.ended.unwrap().since(ended.started).as_secs(), calls), (60, 1));
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_job_is_that_of_the_task() {
    let (ended, _, _, _) = run(&flow(", pattern: sync"), json!({"n": "x"})).await;
    let failure = ended.failure.unwrap();
    assert_eq!((failure.error.as_str(), failure.cause.as_str()), ("NoNumber", "n is none"));
}

#[tokio::test(start_paused = true)]
async fn otherwise_the_task_is_done_when_the_job_is_submitted() {
    let (ended, jobs, _, _) = run(&flow(""), json!({"n": 2})).await;
    assert_eq!(ended.ended.unwrap().since(ended.started).as_secs(), 0);
    let id: JobId = ended.output.unwrap()["JobId"].as_str().unwrap().parse().unwrap();
    assert_eq!(jobs.get(&id).unwrap().kind.to_string(), "square");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_times_out_calls_its_job_off() {
    let definition = flow(", pattern: sync, timeoutSeconds: 5");
    let (ended, jobs, flows, calls) = run(&definition, json!({"n": 2})).await;
    assert_eq!((ended.failure.unwrap().error.as_str(), calls), ("FnF.TaskTimeout", 1));
    // The job is told at the next heartbeat of its worker, at the latest.
    jobs.bus().sleep(Duration::from_secs(600)).await;
    let page = jobs.list(&jobs::Query::default(), None, 10).unwrap();
    let only = page.jobs.first().unwrap();
    assert!(only.status == jobs::Status::Cancelled || only.cancel_requested(), "{only:?}");
    drop(flows);
    assert_eq!(JOB_CANCELLED, "JobCancelled");
}
