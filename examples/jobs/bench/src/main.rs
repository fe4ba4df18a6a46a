//! Jobs per second from submission to completion, beside apalis in the same run.
//!
//! Both get the same arguments and do the same work in the same runtime: a number is raised by one
//! and counted, and it counts once it is completed. Ours keeps a document with lease, attempts and
//! result for every job; apalis in memory keeps nothing, and its SQLite store keeps a row. Ours has
//! a worker that takes up to 1,024 at a time; the worker of apalis takes as many as there are. Both
//! are submitted to one by one and in batches, apalis before its worker starts and meanwhile as
//! well. Rounds are interleaved, the median counts, and the best row of each is compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_core::backend::memory::{MemorySink, MemoryStorageError};
use apalis_sqlite::{SqlitePool, SqliteStorage};
use futures::{SinkExt, StreamExt};
use jobs::{JobCtx, JobError, Jobs, NewJob, RedbStore, WorkerOptions};
use siftbus::Bus;

type Seen = Arc<AtomicUsize>;

#[tokio::main]
async fn main() {
    let memory = number("MEMORY_JOBS", 200_000);
    let durable = number("DURABLE_JOBS", 20_000);
    let rounds = number("ROUNDS", 5);
    println!("{memory} jobs in memory, {durable} durable, {rounds} rounds, median");
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut add = |name, rate| match rows.iter_mut().find(|(known, _)| *known == name) {
        Some((_, rates)) => rates.push(rate),
        None => rows.push((name, vec![rate])),
    };
    for _ in 0..rounds {
        add("memory: apalis, one by one", apalis_memory(memory, false).await);
        add("memory: apalis, push_all", apalis_memory(memory, true).await);
        add("memory: apalis, one by one, meanwhile", apalis_meanwhile(memory, 1).await);
        add("memory: apalis, 100 at once, meanwhile", apalis_meanwhile(memory, 100).await);
        add("memory: jobs, one by one", ours(memory, 1, None).await);
        add("memory: jobs, 100 at once", ours(memory, 100, None).await);
        add("memory: jobs, 1,000 at once", ours(memory, 1_000, None).await);
    }
    for _ in 0..rounds.min(3) {
        let folder = tempfile::tempdir().unwrap();
        add("durable: apalis SQLite, push_all", apalis_sqlite(durable / 10, folder.path()).await);
        let file = folder.path().join("jobs.redb");
        add("durable: jobs redb, 100 at once", ours(durable, 100, Some(&file)).await);
        let file = folder.path().join("single.redb");
        add("durable: jobs redb, 64 submitters", submitters(durable, 64, &file).await);
    }
    for (name, rates) in &rows {
        println!("{name:<36} {:>10.0} jobs/s", median(rates));
    }
    let best = |who: &str| {
        let rows = rows.iter().filter(|(name, _)| name.starts_with(who));
        rows.map(|(_, rates)| median(rates)).fold(f64::NAN, f64::max)
    };
    for place in ["memory", "durable"] {
        let [ours, peer] = ["jobs", "apalis"].map(|who| best(&format!("{place}: {who}")));
        println!("{place}, jobs / apalis: {:.2}", ours / peer);
    }
    println!("reopening 10,000 unfinished jobs: {:.3} s", reopen(10_000).await);
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn start(file: Option<&std::path::Path>, seen: &Seen) -> Jobs {
    let builder = Jobs::builder(Bus::new());
    let builder = match file {
        Some(file) => builder.store(RedbStore::open(file).unwrap()),
        None => builder,
    };
    let jobs = builder.build().await.unwrap();
    let seen = Arc::clone(seen);
    jobs.register("count", move |_: JobCtx, number: usize| {
        seen.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<usize, JobError>(number + 1) }
    })
    .unwrap();
    jobs
}

async fn ours(count: usize, at_once: usize, file: Option<&std::path::Path>) -> f64 {
    let seen = Seen::default();
    let jobs = start(file, &seen).await;
    let worker = jobs.spawn_worker(WorkerOptions::new().concurrency(1_024)).await.unwrap();
    let begun = Instant::now();
    let mut last = None;
    for first in (0..count).step_by(at_once) {
        let numbers = first..(first + at_once).min(count);
        let batch = numbers.map(|number| NewJob::new("count", &number).unwrap()).collect();
        last = jobs.submit_many(batch).await.unwrap().pop();
    }
    finish(&jobs, last.unwrap().id, count, begun, &seen, worker).await
}

async fn submitters(count: usize, tasks: usize, file: &std::path::Path) -> f64 {
    let seen = Seen::default();
    let jobs = start(Some(file), &seen).await;
    let worker = jobs.spawn_worker(WorkerOptions::new().concurrency(1_024)).await.unwrap();
    let begun = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let jobs = jobs.clone();
            tokio::spawn(async move {
                let mut last = None;
                for number in (task..count).step_by(tasks) {
                    let job = NewJob::new("count", &number).unwrap();
                    last = Some(jobs.submit(job).await.unwrap().id);
                }
                last
            })
        })
        .collect();
    let mut last = None;
    for task in tasks {
        last = task.await.unwrap().or(last);
    }
    finish(&jobs, last.unwrap(), count, begun, &seen, worker).await
}

/// Waits until all are done: every call seen, and nothing left in the bus.
async fn finish(
    jobs: &Jobs,
    last: jobs::JobId,
    count: usize,
    begun: Instant,
    seen: &Seen,
    worker: jobs::Worker,
) -> f64 {
    jobs.wait(&last, Duration::from_secs(300)).await.unwrap();
    let queue = jobs.bus().subscription("jobs-worker").await.unwrap();
    while queue.stats().backlog > 0 {
        tokio::task::yield_now().await;
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(seen.load(Ordering::Relaxed), count);
    worker.stop().await.unwrap();
    rate
}

async fn apalis_memory(count: usize, all: bool) -> f64 {
    let mut backend = MemoryStorage::new();
    let begun = Instant::now();
    if all {
        let mut tasks = futures::stream::iter((0..count).map(|n| TaskBuilder::new(n).build()));
        backend.push_all(&mut tasks).await.unwrap();
    } else {
        for number in 0..count {
            backend.push(number).await.unwrap();
        }
    }
    let seen = Seen::default();
    let counter = Arc::clone(&seen);
    let handler = move |number: usize, worker: WorkerContext| {
        let counter = Arc::clone(&counter);
        async move {
            if counter.fetch_add(1, Ordering::Relaxed) + 1 == count {
                worker.stop().unwrap();
            }
            Ok::<usize, BoxDynError>(number + 1)
        }
    };
    WorkerBuilder::new("peer").backend(backend).build(handler).run().await.unwrap();
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(seen.load(Ordering::Relaxed), count);
    rate
}

/// Submits while the worker works, in a task of its own.
async fn apalis_meanwhile(count: usize, at_once: usize) -> f64 {
    let (sender, receiver) = futures::channel::mpsc::unbounded::<Task<usize>>();
    // Each side has its own: one that both use panics when they meet.
    let sink = || {
        let sender = sender.clone().sink_map_err(MemoryStorageError::from);
        let sender: Box<dyn futures::Sink<_, Error = _> + Send + Sync + Unpin> = Box::new(sender);
        MemorySink::new(Arc::new(futures::lock::Mutex::new(sender)))
    };
    let backend = MemoryStorage::new_with(sink(), receiver.boxed());
    let mut sink = sink();
    let seen = Seen::default();
    let counter = Arc::clone(&seen);
    let handler = move |number: usize, worker: WorkerContext| {
        let counter = Arc::clone(&counter);
        async move {
            if counter.fetch_add(1, Ordering::Relaxed) + 1 == count {
                worker.stop().unwrap();
            }
            Ok::<usize, BoxDynError>(number + 1)
        }
    };
    let worker = WorkerBuilder::new("peer").backend(backend).build(handler);
    let worker = tokio::spawn(worker.run());
    let begun = Instant::now();
    for first in (0..count).step_by(at_once) {
        for number in first..(first + at_once).min(count) {
            sink.feed(TaskBuilder::new(number).build()).await.unwrap();
        }
        sink.flush().await.unwrap();
    }
    worker.await.unwrap().unwrap();
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(seen.load(Ordering::Relaxed), count);
    rate
}

async fn apalis_sqlite(count: usize, folder: &std::path::Path) -> f64 {
    let url = format!("sqlite://{}?mode=rwc", folder.join("peer.sqlite").display());
    let pool = SqlitePool::connect(&url).await.unwrap();
    SqliteStorage::setup(&pool).await.unwrap();
    let mut backend = SqliteStorage::new(&pool);
    let begun = Instant::now();
    let mut tasks = futures::stream::iter((0..count).map(|n| TaskBuilder::new(n).build()));
    backend.push_all(&mut tasks).await.unwrap();
    let seen = Seen::default();
    let counter = Arc::clone(&seen);
    let handler = move |number: usize, worker: WorkerContext| {
        let counter = Arc::clone(&counter);
        async move {
            if counter.fetch_add(1, Ordering::Relaxed) + 1 == count {
                worker.stop().unwrap();
            }
            Ok::<usize, BoxDynError>(number + 1)
        }
    };
    let worker = WorkerBuilder::new("peer").backend(backend).build(handler);
    tokio::time::timeout(Duration::from_secs(120), worker.run()).await.unwrap().unwrap();
    count as f64 / begun.elapsed().as_secs_f64()
}

/// J-37: how long it takes until a store with unfinished jobs is open and they are published again.
async fn reopen(count: usize) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs.redb");
    let jobs = start(Some(&file), &Seen::default()).await;
    for _ in 0..count / 1_000 {
        let batch = (0..1_000).map(|n| NewJob::new("count", &n).unwrap()).collect();
        jobs.submit_many(batch).await.unwrap();
    }
    drop(jobs);
    // The tasks behind see that nobody is there any more, and close the file.
    let begun = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Ok(store) = RedbStore::open(&file) {
            drop(store);
            break Instant::now();
        }
    };
    let jobs = start(Some(&file), &Seen::default()).await;
    let backlog = jobs.bus().subscription("jobs-worker").await.unwrap().stats().backlog;
    assert_eq!(backlog, count as u64);
    begun.elapsed().as_secs_f64()
}
