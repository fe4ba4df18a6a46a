//! Limits of what runs at a time and of how often it starts (J-39), in virtual time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jobs::{JobCtx, JobError, Jobs, KindOptions, NewJob, RateLimit, Status, Worker, WorkerOptions};
use parking_lot::Mutex;
use support::{Place, World, settle, status};

/// Runs a case on both stores.
macro_rules! on_both_stores {
    ($($case:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $case() { super::$case(super::Place::memory()).await })*
        }
        mod durable {
            $(#[tokio::test] async fn $case() { super::$case(super::Place::file()).await })*
        }
    };
}

on_both_stores! {
    per_worker
    per_kind
    per_queue
    by_priority
    per_key
    rate_per_kind
    a_lost_worker_keeps_the_place_until_its_lease_is_over
    jobs_that_wait_can_be_cancelled
    jobs_that_wait_survive_a_restart
    a_failed_attempt_gives_up_its_place
}

/// When jobs began (in milliseconds), by the argument `n`, and how many ran at most at a time.
#[derive(Debug, Default)]
struct Seen {
    began: Vec<(u64, u64)>,
    now: HashMap<String, usize>,
    most: HashMap<String, usize>,
}

type Log = Arc<Mutex<Seen>>;

/// A handler that takes ten seconds, and counts those that run by the argument `customer`.
fn register(jobs: &Jobs, kind: &str, options: KindOptions, log: &Log) {
    let log = Arc::clone(log);
    jobs.register_with(kind, options, move |ctx: JobCtx, args: serde_json::Value| {
        let log = Arc::clone(&log);
        async move {
            let customer = args["customer"].as_str().unwrap_or("nobody").to_owned();
            for name in [customer.clone(), "all".to_owned()] {
                let mut log = log.lock();
                let now = log.now.entry(name.clone()).or_default();
                *now += 1;
                let now = *now;
                let most = log.most.entry(name).or_default();
                *most = now.max(*most);
            }
            let at = jobs::Timestamp::from(ctx.bus().now()).as_millis() - support::START;
            log.lock().began.push((at, args["n"].as_u64().unwrap()));
            ctx.bus().sleep(Duration::from_secs(10)).await;
            for name in [customer.as_str(), "all"] {
                *log.lock().now.get_mut(name).unwrap() -= 1;
            }
            match args["fails"].as_bool() {
                Some(true) => Err(JobError::permanent("Broken", "as told")),
                _ => Ok::<u64, JobError>(0),
            }
        }
    })
    .unwrap();
}

fn job(kind: &str, n: u64, customer: &str) -> NewJob {
    NewJob::new(kind, &serde_json::json!({"n": n, "customer": customer})).unwrap()
}

async fn worker(jobs: &Jobs, concurrency: usize) -> Worker {
    jobs.spawn_worker(WorkerOptions::new().concurrency(concurrency)).await.unwrap()
}

fn completed(jobs: &Jobs) -> usize {
    let query = jobs::Query::new().status(Status::Completed);
    jobs.list(&query, None, 1_000).unwrap().jobs.len()
}

async fn per_worker(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let log = Log::default();
    register(&jobs, "k", KindOptions::new(), &log);
    jobs.submit_many((0..6).map(|n| job("k", n, "c")).collect()).await.unwrap();
    let _worker = worker(&jobs, 2).await;
    world.to(29).await;
    assert_eq!((log.lock().most["all"], completed(&jobs)), (2, 4), "J-39");
    world.to(31).await;
    assert_eq!((log.lock().most["all"], completed(&jobs)), (2, 6), "J-39");
}

async fn per_kind(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let (log, free) = (Log::default(), Log::default());
    register(&jobs, "k", KindOptions::new().concurrency(2), &log);
    register(&jobs, "free", KindOptions::new(), &free);
    jobs.submit_many((0..5).map(|n| job("k", n, "c")).collect()).await.unwrap();
    jobs.submit_many((0..5).map(|n| job("free", n, "c")).collect()).await.unwrap();
    // Two workers: the limit is the kind's, not the worker's.
    let _workers = (worker(&jobs, 8).await, worker(&jobs, 8).await);
    settle().await;
    // It waits for a place like the others, in front of them.
    let urgent = job("k", 5, "c").priority(9);
    jobs.submit(urgent).await.unwrap();
    assert_eq!((log.lock().began.len(), free.lock().began.len()), (2, 5), "J-39: others go on");
    world.to(35).await;
    assert_eq!(log.lock().most["all"], 2, "J-39");
    // As soon as there is a place, in the order of priority and then of submission.
    assert_eq!(
        log.lock().began,
        [(0, 0), (0, 1), (10_000, 5), (10_000, 2), (20_000, 3), (20_000, 4)],
        "J-39"
    );
    assert_eq!(completed(&jobs), 11);
    assert_eq!(world.workers_queue().await.stats().backlog, 0);
}

/// Jobs above 0 pass whatever waits, and those below 0 wait for all others (2.7).
async fn by_priority(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    jobs.register("k", move |ctx: JobCtx, n: i64| {
        seen.lock().push(n);
        async move {
            ctx.bus().sleep(Duration::from_secs(25)).await;
            Ok::<_, JobError>(n)
        }
    })
    .unwrap();
    let submit = async |n: i64, priority: i32| {
        jobs.submit(NewJob::new("k", &n).unwrap().priority(priority)).await.unwrap().id
    };
    let last = submit(-1, -5).await;
    for n in 0..3 {
        submit(n, 0).await;
    }
    let options = WorkerOptions::new().concurrency(1).lease(Duration::from_secs(3));
    let _worker = jobs.spawn_worker(options).await.unwrap();
    world.to(1).await;
    submit(9, 1).await;
    world.to(130).await;
    assert_eq!(*order.lock(), [0, 9, 1, 2, -1]);
    let last = jobs.get(&last).unwrap();
    assert_eq!((last.status, last.attempt), (Status::Completed, 1), "J-31: each lane is kept");
}

async fn per_queue(place: Place) {
    let world = World::new();
    let builder = place.builder(&world.bus).queue_concurrency("default", 1);
    let jobs = builder.queue_concurrency("wide", 3).build().await.unwrap();
    let (log, wide) = (Log::default(), Log::default());
    register(&jobs, "a", KindOptions::new(), &log);
    register(&jobs, "b", KindOptions::new(), &log);
    register(&jobs, "w", KindOptions::new(), &wide);
    for n in 0..2 {
        jobs.submit(job("a", n, "c")).await.unwrap();
        jobs.submit(job("b", n, "c")).await.unwrap();
    }
    jobs.submit_many((0..4).map(|n| job("w", n, "c").queue("wide")).collect()).await.unwrap();
    let _worker = worker(&jobs, 8).await;
    let _wide = jobs.spawn_worker(WorkerOptions::new().queue("wide")).await.unwrap();
    world.to(45).await;
    assert_eq!(log.lock().most["all"], 1, "J-39: two kinds share the queue's place");
    assert_eq!(wide.lock().most["all"], 3, "J-39");
    assert_eq!(completed(&jobs), 8);
}

async fn per_key(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let log = Log::default();
    register(&jobs, "k", KindOptions::new().concurrency_key("customer", 1), &log);
    for n in 0..3 {
        jobs.submit(job("k", n, "anna")).await.unwrap();
        jobs.submit(job("k", n, "bert")).await.unwrap();
    }
    for _ in 0..2 {
        let no_key = NewJob::new("k", &serde_json::json!({"n": 9})).unwrap();
        jobs.submit(no_key).await.unwrap();
    }
    let _worker = worker(&jobs, 8).await;
    world.to(35).await;
    let most = log.lock().most.clone();
    assert_eq!((most["anna"], most["bert"]), (1, 1), "J-39: one job per customer");
    assert_eq!(most["nobody"], 2, "J-39: without a key there is no such limit");
    assert_eq!(most["all"], 4);
    assert_eq!(completed(&jobs), 8);
}

async fn rate_per_kind(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let (log, burst) = (Log::default(), Log::default());
    let rate = RateLimit::new(2, Duration::from_secs(1));
    register(&jobs, "k", KindOptions::new().rate(rate), &log);
    register(&jobs, "burst", KindOptions::new().rate(rate.burst(3)), &burst);
    jobs.submit_many((0..5).map(|n| job("k", n, "c")).collect()).await.unwrap();
    jobs.submit_many((0..5).map(|n| job("burst", n, "c")).collect()).await.unwrap();
    let _worker = worker(&jobs, 32).await;
    world.to(20).await;
    let times = |log: &Log| log.lock().began.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    assert_eq!(times(&log), [0, 500, 1_000, 1_500, 2_000], "J-39");
    assert_eq!(times(&burst), [0, 0, 0, 500, 1_000], "J-39");
    assert_eq!(completed(&jobs), 10);
}

async fn a_lost_worker_keeps_the_place_until_its_lease_is_over(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let log = Log::default();
    register(&jobs, "k", KindOptions::new().concurrency(1), &log);
    let first = jobs.submit(job("k", 0, "c")).await.unwrap().id;
    let second = jobs.submit(job("k", 1, "c")).await.unwrap().id;
    let lost = worker(&jobs, 1).await;
    world.to(1).await;
    lost.crash();
    let _worker = worker(&jobs, 8).await;
    world.to(8).await;
    assert_eq!(log.lock().began, [(0, 0)], "J-39: nobody else while the lease runs");
    world.to(40).await;
    assert_eq!(jobs.get(&first).unwrap().attempt, 2, "J-09");
    assert_eq!((status(&jobs, &first), status(&jobs, &second)), {
        (Status::Completed, Status::Completed)
    });
}

async fn jobs_that_wait_can_be_cancelled(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let log = Log::default();
    register(&jobs, "k", KindOptions::new().concurrency(1), &log);
    let ids: Vec<_> = jobs.submit_many((0..3).map(|n| job("k", n, "c")).collect()).await.unwrap();
    let _worker = worker(&jobs, 8).await;
    settle().await;
    assert_eq!(status(&jobs, &ids[1].id), Status::Created, "J-39: it waits");
    jobs.cancel(&ids[1].id).await.unwrap();
    assert_eq!(status(&jobs, &ids[1].id), Status::Cancelled, "J-07");
    world.to(25).await;
    assert_eq!(log.lock().began, [(0, 0), (10_000, 2)], "J-39: the next one has the place");
    jobs.retry(&ids[1].id).await.unwrap();
    world.to(40).await;
    assert_eq!(status(&jobs, &ids[1].id), Status::Completed, "J-12");
}

async fn jobs_that_wait_survive_a_restart(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let log = Log::default();
    register(&jobs, "k", KindOptions::new().concurrency(1), &log);
    let ids = jobs.submit_many((0..3).map(|n| job("k", n, "c")).collect()).await.unwrap();
    let old = worker(&jobs, 8).await;
    world.to(5).await;
    old.crash();
    drop(jobs);
    settle().await;
    let world = World::at(6_000);
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let log = Log::default();
    register(&jobs, "k", KindOptions::new().concurrency(1), &log);
    let _worker = worker(&jobs, 8).await;
    world.to(60).await;
    for id in &ids {
        assert_eq!(status(&jobs, &id.id), Status::Completed, "J-37, J-39");
    }
    assert_eq!(log.lock().most["all"], 1, "J-39");
}

async fn a_failed_attempt_gives_up_its_place(place: Place) {
    let world = World::new();
    let jobs = place.builder(&world.bus).build().await.unwrap();
    let log = Log::default();
    register(&jobs, "k", KindOptions::new().concurrency(1), &log);
    let args = serde_json::json!({"n": 0, "fails": true});
    let first = jobs.submit(NewJob::new("k", &args).unwrap()).await.unwrap().id;
    let second = jobs.submit(job("k", 1, "c").deadline(Duration::from_secs(60))).await.unwrap().id;
    let third = jobs.submit(job("k", 2, "c").deadline(Duration::from_secs(5))).await.unwrap().id;
    let _worker = worker(&jobs, 8).await;
    world.to(21).await;
    assert_eq!(status(&jobs, &first), Status::Failed, "J-06");
    assert_eq!(status(&jobs, &second), Status::Completed, "J-39");
    assert_eq!(status(&jobs, &third), Status::Failed, "J-11: waiting does not stop the clock");
}
