//! Scenario A-S0, an asynchronous function with job status, and all its failure cases, in virtual
//! time on both stores.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jobs::{
    Cancel, JobCtx, JobError, Jobs, JobsError, NewJob, Refused, Status, SubmitError, Worker,
    WorkerOptions,
};
use support::{Place, World, attempts, seconds, settle, status, task};

/// Runs a case on both stores.
macro_rules! on_both_stores {
    ($($(#[$doc:meta])* $case:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $case() { super::$case(super::Place::memory()).await })*
        }
        mod durable {
            $(#[tokio::test] async fn $case() { super::$case(super::Place::file()).await })*
        }
    };
}

on_both_stores! {
    the_seed_scenario
    a_worker_dies
    b_duplicate_while_running
    c_duplicate_after_completion
    d_stale_worker
    d_stale_worker_by_hand
    e_handler_fails_twice
    f_handler_fails_for_good
    g_cancel_while_created
    g_cancel_while_running
    g_cancel_after_the_grace
    j_idempotent_submission
    k_deadline
    dropped_deliveries_come_at_once
    panics_are_retried
    deadline_between_attempts
    retry_by_hand
}

/// A handler that sleeps for fifty seconds of the bus's time, and counts.
fn register_worker_task(jobs: &Jobs) -> Arc<AtomicU32> {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    jobs.register("process_task", move |ctx: JobCtx, _: serde_json::Value| {
        let counter = Arc::clone(&counter);
        async move {
            ctx.bus().sleep(Duration::from_secs(50)).await;
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, JobError>(serde_json::json!({"ok": true}))
        }
    })
    .unwrap();
    calls
}

async fn worker(jobs: &Jobs, name: &str) -> Worker {
    jobs.spawn_worker(WorkerOptions::new().name(name)).await.unwrap()
}

async fn the_seed_scenario(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let observer = world.bus.topic("jobs").await.unwrap();
    let observer = observer.subscribe("observer", Default::default()).await.unwrap();
    let effects = register_worker_task(&jobs);
    let queue = world.workers_queue().await;

    let id = jobs.submit(task()).await.unwrap().id;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.attempt, job.created_at), (Status::Created, 0, seconds(0)), "J-01");
    settle().await;
    assert_eq!((queue.stats().backlog, queue.stats().outstanding), (1, 0));
    let message = observer.try_pull(10).unwrap().into_iter().next().unwrap();
    let mut found: Vec<_> = message.attributes().iter().collect();
    found.sort();
    let name = id.to_string();
    let path = ("path", "gs://manas_input/sample.jpg");
    assert_eq!(found, [("job_id", name.as_str()), ("kind", "process_task"), path]);
    assert_eq!(message.data().as_ref(), br#"{"path":"gs://manas_input/sample.jpg"}"#);
    assert_eq!((message.id().as_u64(), message.message().ordering_key()), (1, ""));

    world.to(1).await;
    let _worker = worker(&jobs, "w1").await;
    settle().await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.attempt), (Status::Running, 1), "J-02");
    assert_eq!(job.started_at, Some(seconds(1)));
    assert_eq!(job.lease.unwrap().until, seconds(11));
    assert_eq!(queue.stats().outstanding, 1);

    let mut beat = job.heartbeat_at.unwrap();
    for second in 2..51 {
        world.to(second).await;
        let job = jobs.get(&id).unwrap();
        assert_eq!((job.status, job.attempt), (Status::Running, 1), "at {second}");
        let now = job.heartbeat_at.unwrap();
        assert!(now >= beat && now.until(seconds(second)) <= Duration::from_secs(5), "J-31");
        assert!(job.lease.unwrap().until > seconds(second), "J-03");
        beat = now;
    }
    assert_eq!(queue.stats().redeliveries, 0);
    assert!(beat >= seconds(46));

    world.to(51).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.finished_at), (Status::Completed, Some(seconds(51))), "J-04");
    assert_eq!(job.result.unwrap().as_str(), r#"{"ok":true}"#);
    assert_eq!((queue.stats().outstanding, queue.stats().backlog), (0, 0), "J-32");
    assert_eq!(effects.load(Ordering::SeqCst), 1);

    let day = 24 * 3_600;
    world.to(51 + day - 1).await;
    assert_eq!(status(&jobs, &id), Status::Completed);
    world.to(51 + day).await;
    assert_eq!(jobs.get(&id), Err(JobsError::NotFound(id.clone())), "J-13, J-38");
    world.to(52 + day).await;
    assert!(jobs.list(&Default::default(), None, 10).unwrap().jobs.is_empty(), "J-13");
}

async fn a_worker_dies(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let effects = register_worker_task(&jobs);
    let queue = world.workers_queue().await;
    let id = jobs.submit(task()).await.unwrap().id;
    world.to(1).await;
    let first = worker(&jobs, "w1").await;
    world.to(20).await;
    first.crash();
    settle().await;
    let beat = jobs.get(&id).unwrap().heartbeat_at.unwrap();
    let _second = worker(&jobs, "w2").await;
    world.to(25).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.attempt), (Status::Running, 1), "the lease still runs");
    assert_eq!(job.heartbeat_at, Some(beat), "nobody says that it is alive");
    world.to(30).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.attempt), (Status::Running, 2), "J-09");
    assert_eq!(
        attempts(&job),
        [(1, "w1".into(), "lost".into()), (2, "w2".into(), "running".into())]
    );
    assert!(queue.stats().redeliveries >= 1);
    world.to(90).await;
    assert_eq!(status(&jobs, &id), Status::Completed);
    assert_eq!(effects.load(Ordering::SeqCst), 1, "one effect of the attempt that finished");
    assert_eq!(queue.stats().backlog, 0);
}

/// The same where the worker is dropped inside of a process that lives on.
async fn dropped_deliveries_come_at_once(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let effects = register_worker_task(&jobs);
    let queue = world.workers_queue().await;
    let id = jobs.submit(task()).await.unwrap().id;
    let first = worker(&jobs, "w1").await;
    world.to(5).await;
    drop(first);
    settle().await;
    assert_eq!((queue.stats().ready, queue.stats().outstanding), (1, 0), "released at once");
    let _second = worker(&jobs, "w2").await;
    settle().await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.attempt, queue.stats().delayed), (1, 1), "J-09: the lease still runs");
    let until = job.lease.unwrap().until;
    world.to(16).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.attempt), (Status::Running, 2));
    assert_eq!(job.attempts[1].started_at, until, "J-09: as soon as the lease is over");
    world.to(80).await;
    assert_eq!(status(&jobs, &id), Status::Completed);
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

async fn b_duplicate_while_running(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let effects = register_worker_task(&jobs);
    let queue = world.workers_queue().await;
    let id = jobs.submit(task()).await.unwrap().id;
    let _worker = worker(&jobs, "w1").await;
    world.to(2).await;
    duplicate(&world, &jobs, &id).await;
    settle().await;
    assert_eq!((queue.stats().outstanding, queue.stats().delayed), (1, 1), "J-32: nacked");
    let before = jobs.get(&id).unwrap();
    assert_eq!((before.attempt, before.attempts.len()), (1, 1));
    world.to(51).await;
    assert_eq!(status(&jobs, &id), Status::Completed);
    world.to(70).await;
    assert_eq!((effects.load(Ordering::SeqCst), queue.stats().backlog), (1, 0));
}

/// The job's message once more, as a second publication after a crash would bring it.
async fn duplicate(world: &World, jobs: &Jobs, id: &jobs::JobId) {
    let args = jobs.get(id).unwrap().args;
    let message = siftbus::Message::new(args.to_bytes())
        .with_attributes([("job_id", id.to_string()), ("kind", "process_task".to_owned())]);
    world.bus.topic("jobs").await.unwrap().publish(message).await.unwrap();
}

async fn c_duplicate_after_completion(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let effects = register_worker_task(&jobs);
    let queue = world.workers_queue().await;
    let id = jobs.submit(task()).await.unwrap().id;
    let _worker = worker(&jobs, "w1").await;
    world.to(60).await;
    let before = jobs.get(&id).unwrap();
    duplicate(&world, &jobs, &id).await;
    world.to(61).await;
    assert_eq!(queue.stats().backlog, 0, "acked at once");
    assert_eq!(jobs.get(&id).unwrap(), before, "byte for byte the same");
    assert_eq!(jobs.get(&id).unwrap().view(), before.view());
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

async fn d_stale_worker(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    register_worker_task(&jobs);
    let id = jobs.submit(task()).await.unwrap().id;
    let mut stalled = jobs.claim(&WorkerOptions::new().name("w1")).await.unwrap();
    world.to(5).await;
    let _second = worker(&jobs, "w2").await;
    world.to(20).await;
    let before = jobs.get(&id).unwrap();
    assert_eq!((before.status, before.attempt), (Status::Running, 2), "J-09");
    let refused = stalled.complete(&serde_json::json!({"late": true})).await;
    let reason = Refused::StaleAttempt { current: 2 };
    assert_eq!(refused, Err(JobsError::Refused { id: id.clone(), reason }), "J-33");
    assert_eq!(jobs.get(&id).unwrap().attempts, before.attempts, "nothing changes");
    assert_eq!(status(&jobs, &id), Status::Running);
}

async fn d_stale_worker_by_hand(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    register_worker_task(&jobs);
    let id = jobs.submit(task()).await.unwrap().id;
    let mut first = jobs.claim(&WorkerOptions::new().name("w1")).await.unwrap();
    world.to(6).await;
    first.heartbeat(Some(jobs::Progress::new(3, 10, "page 3"))).await.unwrap();
    let job = jobs.get(&id).unwrap();
    assert_eq!(job.lease.clone().unwrap().until, seconds(16), "J-03");
    assert_eq!(job.progress().unwrap().note, "page 3", "J-24");
    world.to(17).await;
    let late = first.heartbeat(None).await;
    let reason = Refused::LeaseLost;
    assert_eq!(late, Err(JobsError::Refused { id: id.clone(), reason }), "J-03");
    let mut second = jobs.claim(&WorkerOptions::new().name("w2")).await.unwrap();
    assert_eq!((second.attempt(), jobs.get(&id).unwrap().progress()), (2, None));
    let late = first.complete(&1).await;
    let reason = Refused::StaleAttempt { current: 2 };
    assert_eq!(late, Err(JobsError::Refused { id: id.clone(), reason }), "J-33");
    second.complete(&2).await.unwrap();
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.result.unwrap().as_str()), (Status::Completed, "2"));
    let again = second.complete(&3).await;
    let reason = Refused::AlreadyFinal { status: Status::Completed };
    assert_eq!(again, Err(JobsError::Refused { id, reason }));
    first.abandon();
}

async fn e_handler_fails_twice(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    jobs.register("process_task", |ctx: JobCtx, _: serde_json::Value| async move {
        ctx.bus().sleep(Duration::from_secs(1)).await;
        match ctx.attempt() {
            1 | 2 => Err(JobError::retry("Timeout", format!("attempt {}", ctx.attempt()))),
            _ => Ok(serde_json::json!({"ok": true})),
        }
    })
    .unwrap();
    let id = jobs.submit(task()).await.unwrap().id;
    let mut watch = jobs.watch(&id).unwrap();
    let _worker = worker(&jobs, "w1").await;
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(job) = watch.next().await {
            seen.push((job.status, job.attempt, job.run_at));
        }
        seen
    });
    world.to(20).await;
    use Status::{Completed, Created, Retrying, Running};
    let expected = [
        (Created, 0, seconds(0)),
        (Running, 1, seconds(0)),
        (Retrying, 1, seconds(2)),
        (Running, 2, seconds(2)),
        (Retrying, 2, seconds(5)),
        (Running, 3, seconds(5)),
        (Completed, 3, seconds(5)),
    ];
    assert_eq!(seen.await.unwrap(), expected, "J-05, J-30: 1 s, then 2 s");
    let job = jobs.get(&id).unwrap();
    assert_eq!(job.last_error().unwrap().to_string(), "Timeout: attempt 2");
    assert_eq!((job.error(), job.finished_at), (None, Some(seconds(6))));
    let outcomes: Vec<_> = attempts(&job).into_iter().map(|(_, _, outcome)| outcome).collect();
    assert_eq!(outcomes, ["error", "error", "ok"]);
}

async fn f_handler_fails_for_good(place: Place) {
    let world = World::new();
    let builder = place.builder(&world.bus).dead_letter_topic("dead").events_topic("job-events");
    let jobs = builder.build().await.unwrap();
    let topic = world.bus.topic("dead").await.unwrap();
    let dead = topic.subscribe("morgue", Default::default()).await.unwrap();
    let topic = world.bus.topic("job-events").await.unwrap();
    let events = topic.subscribe("events", Default::default()).await.unwrap();
    jobs.register("flaky", |_: JobCtx, _: serde_json::Value| async move {
        Err::<(), _>(JobError::retry("Down", "no answer"))
    })
    .unwrap();
    jobs.register("broken", |_: JobCtx, _: serde_json::Value| async move {
        Err::<(), _>(JobError::permanent("NoSuchFile", "a.jpg"))
    })
    .unwrap();
    let args = serde_json::json!({"path": "a.jpg"});
    let flaky = NewJob::new("flaky", &args).unwrap().max_attempts(2).correlation_id("c-1");
    let flaky = jobs.submit(flaky).await.unwrap().id;
    let broken = jobs.submit(NewJob::new("broken", &args).unwrap()).await.unwrap().id;
    let _worker = worker(&jobs, "w1").await;
    world.to(10).await;
    for (id, attempt, error) in [(&flaky, 2, "Down: no answer"), (&broken, 1, "NoSuchFile: a.jpg")]
    {
        let job = jobs.get(id).unwrap();
        assert_eq!((job.status, job.attempt), (Status::Failed, attempt), "J-06");
        assert_eq!(job.error().unwrap().to_string(), error);
    }
    let letters: Vec<_> = dead.try_pull(10).unwrap().into_iter().collect();
    assert_eq!(letters.len(), 2, "J-06");
    let letter =
        letters.iter().find(|l| l.attribute("job_id") == Some(&flaky.to_string())).unwrap();
    assert_eq!(
        (letter.attribute("error"), letter.attribute("path")),
        (Some("Down"), Some("a.jpg"))
    );
    let told: Vec<_> = events.try_pull(10).unwrap().into_iter().collect();
    assert_eq!(told.len(), 2, "J-36");
    let event = told.iter().find(|e| e.attribute("correlid") == Some("c-1")).unwrap();
    assert_eq!(
        (event.attribute("status"), event.attribute("kind")),
        (Some("failed"), Some("flaky"))
    );
    let document: serde_json::Value = serde_json::from_slice(event.data()).unwrap();
    assert_eq!(document["error"]["name"], "Down");
    assert_eq!(world.workers_queue().await.stats().backlog, 0);
    // J-38: failed jobs are kept for seven days.
    world.to(7 * 24 * 3_600).await;
    assert!(jobs.get(&flaky).is_ok());
    world.to(7 * 24 * 3_600 + 10).await;
    assert!(jobs.get(&flaky).is_err());
}

async fn g_cancel_while_created(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let effects = register_worker_task(&jobs);
    let id = jobs.submit(task()).await.unwrap().id;
    let later = jobs.submit(task().run_at(Duration::from_secs(30))).await.unwrap().id;
    for id in [&id, &later] {
        assert_eq!(jobs.cancel(id).await, Ok(Cancel::Done), "J-07");
        assert_eq!(status(&jobs, id), Status::Cancelled);
        let reason = Refused::AlreadyFinal { status: Status::Cancelled };
        let refused = Err(JobsError::Refused { id: id.clone(), reason });
        assert_eq!(jobs.cancel(id).await, refused, "A-S0-g");
    }
    let _worker = worker(&jobs, "w1").await;
    world.to(100).await;
    let stats = world.workers_queue().await.stats();
    assert_eq!((effects.load(Ordering::SeqCst), stats.backlog), (0, 0));
}

async fn g_cancel_while_running(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    jobs.register("process_task", |ctx: JobCtx, _: serde_json::Value| async move {
        let why = ctx.cancelled().await;
        assert_eq!(why, jobs::Stop::Cancelled);
        ctx.bus().sleep(Duration::from_secs(3)).await;
        ctx.check_cancelled()?;
        Ok(())
    })
    .unwrap();
    let id = jobs.submit(task()).await.unwrap().id;
    let _worker = worker(&jobs, "w1").await;
    world.to(2).await;
    assert_eq!(jobs.cancel(&id).await, Ok(Cancel::Requested), "J-08");
    world.to(4).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.cancel_requested()), (Status::Running, true));
    world.to(5).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.finished_at), (Status::Cancelled, Some(seconds(5))));
    assert_eq!(attempts(&job), [(1, "w1".into(), "cancelled".into())]);
    assert_eq!(world.workers_queue().await.stats().backlog, 0);
}

async fn g_cancel_after_the_grace(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let effects = register_worker_task(&jobs);
    let id = jobs.submit(task()).await.unwrap().id;
    let _worker = worker(&jobs, "w1").await;
    world.to(2).await;
    jobs.cancel(&id).await.unwrap();
    world.to(11).await;
    assert_eq!(status(&jobs, &id), Status::Running, "the handler has ten seconds");
    world.to(12).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.finished_at), (Status::Cancelled, Some(seconds(12))), "J-08");
    world.to(70).await;
    assert_eq!(effects.load(Ordering::SeqCst), 0, "its answer would not count");
    assert_eq!(world.workers_queue().await.stats().backlog, 0);
}

async fn j_idempotent_submission(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let queue = world.workers_queue().await;
    let first = jobs.submit(task().idempotency_key("k1")).await.unwrap();
    let again = jobs.submit(task().idempotency_key("k1")).await.unwrap();
    assert!(first.is_new && !again.is_new);
    assert_eq!(first.id, again.id);
    let other = NewJob::new("process_task", &serde_json::json!({"path": "x"})).unwrap();
    let conflict = jobs.submit(other.clone().idempotency_key("k1")).await.unwrap_err();
    assert!(matches!(conflict, SubmitError::Conflict { id, .. } if id == first.id), "A-S0-j");
    settle().await;
    assert_eq!(queue.stats().backlog, 1, "one message");

    // The same by id, and within one submission.
    let id: jobs::JobId = "my-job".parse().unwrap();
    let named = task().id(id.clone());
    let both = jobs.submit_many(vec![named.clone(), named.clone()]).await.unwrap();
    assert_eq!(both.iter().map(|s| s.is_new).collect::<Vec<_>>(), [true, false], "J-20");
    assert_eq!(both[1].id, id);
    assert!(!jobs.submit(named).await.unwrap().is_new);
    assert!(jobs.submit(other.clone().id(id)).await.is_err());
    // All or nothing.
    let batch = vec![task(), other.idempotency_key("k1")];
    assert!(jobs.submit_many(batch).await.is_err());
    settle().await;
    assert_eq!(queue.stats().backlog, 2);
    assert_eq!(jobs.list(&Default::default(), None, 10).unwrap().jobs.len(), 2);
}

async fn k_deadline(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let effects = register_worker_task(&jobs);
    let id = jobs.submit(task().deadline(Duration::from_secs(30))).await.unwrap().id;
    let _worker = worker(&jobs, "w1").await;
    world.to(29).await;
    assert_eq!(status(&jobs, &id), Status::Running);
    world.to(30).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.finished_at), (Status::Failed, Some(seconds(30))), "J-11");
    assert_eq!(job.error().unwrap().name, "DeadlineExceeded");
    world.to(80).await;
    assert_eq!(effects.load(Ordering::SeqCst), 0);
    assert_eq!(world.workers_queue().await.stats().backlog, 0);
}

async fn deadline_between_attempts(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    jobs.register("process_task", |_: JobCtx, _: serde_json::Value| async move {
        Err::<(), _>(JobError::RetryAfter(jobs::Failure::new("Busy", ""), Duration::from_secs(60)))
    })
    .unwrap();
    let id = jobs.submit(task().deadline(Duration::from_secs(30))).await.unwrap().id;
    let _worker = worker(&jobs, "w1").await;
    world.to(29).await;
    assert_eq!(status(&jobs, &id), Status::Retrying);
    world.to(30).await;
    assert_eq!(status(&jobs, &id), Status::Failed, "J-11");
    assert_eq!(attempts(&jobs.get(&id).unwrap()), [(1, "w1".into(), "error".into())]);
    world.to(90).await;
    assert_eq!(world.workers_queue().await.stats().backlog, 0);
}

async fn panics_are_retried(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    jobs.register("process_task", |ctx: JobCtx, _: serde_json::Value| async move {
        if ctx.attempt() == 2 {
            ctx.bus().sleep(Duration::from_secs(1)).await;
        }
        if ctx.attempt() < 3 {
            panic!("boom {}", ctx.attempt());
        }
        Ok::<u32, JobError>(ctx.attempt())
    })
    .unwrap();
    let id = jobs.submit(task()).await.unwrap().id;
    let _worker = worker(&jobs, "w1").await;
    world.to(10).await;
    let job = jobs.get(&id).unwrap();
    assert_eq!((job.status, job.attempt), (Status::Completed, 3));
    assert_eq!(job.last_error().unwrap().to_string(), "Panic: boom 2");
}

async fn retry_by_hand(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    jobs.register("process_task", |ctx: JobCtx, _: serde_json::Value| async move {
        match ctx.attempt() {
            1 | 2 => Err(JobError::retry("Down", "")),
            n => Ok(n),
        }
    })
    .unwrap();
    let id = jobs.submit(task().max_attempts(1)).await.unwrap().id;
    let refused = jobs.retry(&id).await;
    let reason = Refused::InvalidTransition { from: Status::Created, event: "retry" };
    assert_eq!(refused, Err(JobsError::Refused { id: id.clone(), reason }), "J-12");
    let _worker = worker(&jobs, "w1").await;
    settle().await;
    assert_eq!(status(&jobs, &id), Status::Failed);
    for (retries, attempt, end) in [(1, 2, Status::Failed), (2, 3, Status::Completed)] {
        world.advance(Duration::from_secs(1)).await;
        jobs.retry(&id).await.unwrap();
        settle().await;
        let job = jobs.get(&id).unwrap();
        assert_eq!((job.manual_retries(), job.attempt, job.status), (retries, attempt, end));
    }
    // The first end's time to be removed has passed without effect.
    world.to(24 * 3_600 + 1).await;
    assert_eq!(status(&jobs, &id), Status::Completed);
    world.to(24 * 3_600 + 3).await;
    assert!(jobs.get(&id).is_err());
}
