//! Crashes and failing stores: whatever happens where, every job ends as it would have, and no
//! transition happens twice (A-S0-h, A-S0-i, J-32 … J-37).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jobs::store::{FaultyStore, JobStore, OutboxKey, OutboxRow};
use jobs::{
    JobCtx, JobError, JobId, Jobs, MemoryStore, NewJob, RedbStore, Status, Stop, WorkerOptions,
};
use parking_lot::Mutex;
use support::{Place, World, attempts, settle, status, task};

fn register(jobs: &Jobs) {
    jobs.register("process_task", |ctx: JobCtx, _: serde_json::Value| async move {
        ctx.bus().sleep(Duration::from_secs(50)).await;
        Ok::<_, JobError>(serde_json::json!({"ok": true}))
    })
    .unwrap();
}

/// Ends everything that a crash ends, so that the file is free.
async fn gone(jobs: Jobs, world: World) {
    drop(jobs);
    drop(world);
    settle().await;
}

#[tokio::test]
async fn h_crash_between_document_and_publish() {
    let place = Place::file();
    let id: JobId = {
        // What is on disk then: the document and its row, and no message was sent.
        let world = World::new();
        let jobs = place.builder(&world.bus).build().await.unwrap();
        let id = jobs.submit(task()).await.unwrap().id;
        settle().await;
        gone(jobs, world).await;
        let store = place.store();
        let key = OutboxKey { at: support::seconds(0), id: id.clone(), number: 0 };
        let row = OutboxRow { key, message: None };
        store.write(true, &mut |tx| tx.push_outbox(&row)).unwrap();
        id
    };
    let world = World::at(60_000);
    let jobs = place.builder(&world.bus).build().await.unwrap();
    register(&jobs);
    assert_eq!(world.workers_queue().await.stats().backlog, 1, "J-35: published at once");
    assert_eq!(jobs.list(&Default::default(), None, 10).unwrap().jobs.len(), 1);
    let _worker = jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    world.to(120).await;
    assert_eq!(status(&jobs, &id), Status::Completed);
    assert_eq!(world.workers_queue().await.stats().backlog, 0);
}

#[tokio::test]
async fn i_crash_while_running() {
    let place = Place::file();
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    register(&jobs);
    let id = jobs.submit(task()).await.unwrap().id;
    let later = jobs.submit(task().run_at(Duration::from_secs(30))).await.unwrap().id;
    let worker = jobs.spawn_worker(WorkerOptions::new().name("w1")).await.unwrap();
    world.to(4).await;
    let until = jobs.get(&id).unwrap().lease.unwrap().until;
    worker.crash();
    settle().await;
    gone(jobs, world).await;

    let world = World::at(5_000);
    let jobs = place.builder(&world.bus).build().await.unwrap();
    register(&jobs);
    let queue = world.workers_queue().await;
    let _worker = jobs.spawn_worker(WorkerOptions::new().name("w2")).await.unwrap();
    world.to(13).await;
    assert_eq!((queue.stats().backlog, jobs.get(&id).unwrap().attempt), (0, 1), "J-37: not before");
    world.to(14).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.attempt), (Status::Running, 2));
    assert!(job.attempts[1].started_at >= until);
    assert_eq!(status(&jobs, &later), Status::Created);
    world.to(31).await;
    assert_eq!(status(&jobs, &later), Status::Running, "J-37: at its start");
    world.to(90).await;
    for id in [&id, &later] {
        assert_eq!(status(&jobs, id), Status::Completed);
    }
    let job = jobs.get(&id).unwrap();
    assert_eq!(attempts(&job).iter().map(|a| a.2.as_str()).collect::<Vec<_>>(), ["lost", "ok"]);
}

#[tokio::test]
async fn a_job_that_loses_every_attempt_fails() {
    for place in [Place::memory(), Place::file()] {
        let world = World::new();
        let jobs = place.builder(&world.bus).build().await.unwrap();
        let id = jobs.submit(task().max_attempts(2)).await.unwrap().id;
        for attempt in 1..=2 {
            let claimed = jobs.claim(&WorkerOptions::new()).await.unwrap();
            assert_eq!(claimed.attempt(), attempt);
            claimed.abandon();
            world.advance(Duration::from_secs(10)).await;
        }
        register(&jobs);
        let _worker = jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
        settle().await;
        let job = jobs.get(&id).unwrap();
        assert_eq!((job.status, job.attempt), (Status::Failed, 2), "J-10");
        assert_eq!(job.error().unwrap().name, "LeaseLost");
        assert_eq!(world.workers_queue().await.stats().backlog, 0);
    }
}

/// J-31: a worker whose heartbeats cannot be written stops its handler while the lease still runs.
#[tokio::test]
async fn two_failed_heartbeats_stop_the_handler() {
    let world = World::new();
    let (store, faults) = FaultyStore::new(MemoryStore::new());
    let jobs = Jobs::builder(world.bus.clone()).store(store).build().await.unwrap();
    let told = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&told);
    jobs.register("process_task", move |ctx: JobCtx, _: serde_json::Value| {
        let seen = Arc::clone(&seen);
        async move {
            let why = ctx.cancelled().await;
            *seen.lock() = Some((why, ctx.bus().now()));
            Err::<(), _>(JobError::Cancelled)
        }
    })
    .unwrap();
    let id = jobs.submit(task()).await.unwrap().id;
    let _worker = jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    world.to(1).await;
    let until = jobs.get(&id).unwrap().lease.unwrap().until;
    faults.fail_from(1);
    world.to(9).await;
    let (why, when) = told.lock().unwrap();
    assert_eq!(why, Stop::LeaseLost);
    assert!(jobs::Timestamp::from(when) < until, "before another worker may start");
    faults.heal();
    world.to(30).await;
    assert!(jobs.get(&id).unwrap().status.is_final() || jobs.get(&id).unwrap().attempt > 1);
}

/// What a run leaves behind, whatever happened on the way.
async fn run_with_fault(fault: u64, stays: u64, durable: bool) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let memory = MemoryStore::new();
    let (store, faults): (Box<dyn Wrapped>, _) = match durable {
        true => {
            let file = RedbStore::open(folder.path().join("jobs.redb")).unwrap();
            let (store, faults) = FaultyStore::new(file);
            (Box::new(store), faults)
        }
        false => {
            let (store, faults) = FaultyStore::new(memory.clone());
            (Box::new(store), faults)
        }
    };
    let builder = store.build(Jobs::builder(world.bus.clone()).events_topic("job-events"));
    let jobs = builder.build().await.unwrap();
    let topic = world.bus.topic("job-events").await.unwrap();
    let events = topic.subscribe("events", Default::default()).await.unwrap();
    jobs.register("work", |ctx: JobCtx, n: u64| async move {
        if n % 2 == 1 {
            ctx.bus().sleep(Duration::from_secs(n)).await;
        }
        match (n % 3, ctx.attempt()) {
            (2, 1) => Err(JobError::retry("Once", "")),
            _ => Ok(n * 10),
        }
    })
    .unwrap();
    let _worker = jobs.spawn_worker(WorkerOptions::new().concurrency(3)).await.unwrap();
    faults.fail_from(fault);
    let mut ids = HashMap::new();
    for n in 0..6_u64 {
        let job = || NewJob::new("work", &n).unwrap().idempotency_key(format!("job {n}"));
        // As a client does that gets an error: it submits again.
        for _ in 0..20 {
            if let Ok(submission) = jobs.submit(job()).await {
                ids.insert(n, submission.id);
                break;
            }
            if faults.writes() >= fault + stays {
                faults.heal();
            }
            world.advance(Duration::from_secs(1)).await;
        }
    }
    for _ in 0..20 {
        world.advance(Duration::from_secs(1)).await;
        if faults.writes() >= fault + stays {
            faults.heal();
        }
    }
    let reached = faults.writes() >= fault;
    faults.heal();
    world.advance(Duration::from_secs(120)).await;
    let name = format!("fault at {fault}, durable {durable}");
    assert_eq!(ids.len(), 6, "{name}");
    for (n, id) in &ids {
        let job = jobs.get(id).unwrap();
        assert_eq!(job.status, Status::Completed, "{name}: job {n}: {job:?}");
        assert_eq!(job.result.as_ref().unwrap().parse::<u64>().unwrap(), n * 10);
        assert!(job.attempts.iter().all(|attempt| attempt.outcome.is_some()), "{name}");
    }
    assert_eq!(jobs.list(&Default::default(), None, 100).unwrap().jobs.len(), 6, "{name}");
    assert_eq!(world.workers_queue().await.stats().backlog, 0, "{name}");
    // J-34, J-36: the end of each job is told; twice at most if forgetting the row failed.
    let told: Vec<_> = events.try_pull(100).unwrap().into_iter().collect();
    let mut distinct: Vec<_> =
        told.iter().map(|event| event.attribute("job_id").unwrap()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 6, "{name}");
    reached
}

/// Hands any store to the builder.
trait Wrapped {
    fn build(self: Box<Self>, builder: jobs::JobsBuilder) -> jobs::JobsBuilder;
}

impl<S: JobStore> Wrapped for S {
    fn build(self: Box<Self>, builder: jobs::JobsBuilder) -> jobs::JobsBuilder {
        builder.store(*self)
    }
}

#[tokio::test]
async fn every_write_may_fail_in_memory() {
    let mut fault = 1;
    while run_with_fault(fault, 1, false).await {
        fault += 1;
    }
    assert!(fault > 40, "{fault} writes are too few to be all of them");
}

#[tokio::test]
async fn every_write_may_fail_for_a_while() {
    for fault in (1..120).step_by(3) {
        run_with_fault(fault, 8, false).await;
    }
}

#[tokio::test]
async fn every_write_may_fail_on_disk() {
    for fault in (1..120).step_by(11) {
        run_with_fault(fault, 1, true).await;
    }
}

/// A process that dies at every n-th write, and a new one that opens what it left.
#[tokio::test]
async fn a_process_may_die_at_every_write() {
    for fault in (1..60).step_by(3) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.redb");
        let (mut millis, mut total) = (0, 0);
        for life in 0..2 {
            let world = World::at(millis);
            let (store, faults) = FaultyStore::new(RedbStore::open(&path).unwrap());
            let jobs = Jobs::builder(world.bus.clone()).store(store).build().await.unwrap();
            register(&jobs);
            if life == 0 {
                faults.fail_from(fault);
            }
            for n in 0..3_u64 {
                let job = NewJob::new("process_task", &n).unwrap().idempotency_key(n.to_string());
                let submitted = jobs.submit(job).await;
                assert!(life == 0 || submitted.is_ok());
            }
            let worker = jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
            world.advance(Duration::from_secs(20)).await;
            if life == 0 {
                worker.crash();
                settle().await;
                millis = world.millis();
                gone(jobs, world).await;
                continue;
            }
            world.advance(Duration::from_secs(200)).await;
            let all = jobs.list(&Default::default(), None, 10).unwrap().jobs;
            total = all.len();
            for job in all {
                assert_eq!(job.status, Status::Completed, "fault at {fault}: {job:?}");
                assert!(job.attempt <= 2);
            }
            assert_eq!(world.workers_queue().await.stats().backlog, 0, "fault at {fault}");
        }
        assert_eq!(total, 3, "fault at {fault}");
    }
}

#[tokio::test]
async fn rows_of_the_caller_share_the_transaction() {
    let place = Place::file();
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let table = redb::TableDefinition::<&str, u64>::new("orders");
    for (order, keep) in [("one", true), ("two", false)] {
        let kept = jobs
            .transact(|tx| {
                let submission = tx.submit(task())?;
                let txn = tx.store().redb().unwrap();
                txn.open_table(table).unwrap().insert(order, 1).unwrap();
                match keep {
                    true => Ok(submission),
                    false => Err(jobs::SubmitError::TooMany { max: 0 }),
                }
            })
            .await;
        assert_eq!(kept.is_ok(), keep);
    }
    assert_eq!(world.workers_queue().await.stats().backlog, 1);
    assert_eq!(jobs.list(&Default::default(), None, 10).unwrap().jobs.len(), 1);
    gone(jobs, world).await;
    let Place::File(folder) = &place else { unreachable!() };
    let database = redb::Database::open(folder.path().join("jobs.redb")).unwrap();
    use redb::{ReadableDatabase, ReadableTableMetadata};
    let txn = database.begin_read().unwrap();
    assert_eq!(txn.open_table(table).unwrap().len().unwrap(), 1, "all or nothing");
}
