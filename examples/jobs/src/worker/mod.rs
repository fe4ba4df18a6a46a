//! Workers: they pull jobs, run handlers, and say that they are alive (J-31, J-32, J-33).
//!
//! The order is fixed: claim, handler, commit of the final transition, and only then the ack. A
//! crash anywhere leaves a message that comes again, and a document that says what to do with it.
//! Here is what a program sees of it; `pull` takes messages, `batch` works on those that come
//! together, `attempt` on jobs that take longer, and `heartbeat` keeps their leases.

mod attempt;
mod batch;
mod by_hand;
mod heartbeat;
mod pull;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use siftbus::Bus;
use tokio::sync::{Notify, Semaphore};

pub use by_hand::ClaimedJob;

use crate::document::DEFAULT_QUEUE;
use crate::error::JobsError;
use crate::jobs::Jobs;
use crate::limits::{DEFAULT_LEASE, MAX_CONCURRENCY};
use crate::queue::Queue;
use crate::running::Running;

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) queue: Arc<str>,
    pub(crate) concurrency: usize,
    pub(crate) lease: Duration,
    pub(crate) heartbeat: Option<Duration>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            name: None,
            queue: DEFAULT_QUEUE.into(),
            concurrency: 8,
            lease: DEFAULT_LEASE,
            heartbeat: None,
        }
    }
}

impl WorkerOptions {
    /// Eight jobs at a time from the queue `default`, with a lease of 10 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// The worker's name in leases and attempts. Default: `w1`, `w2`, …
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The queue it works on. Default: `default`.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<Arc<str>>) -> Self {
        self.queue = queue.into();
        self
    }

    /// How many jobs it has at a time, 1 to 65,536 (J-39). Default: 8.
    #[must_use]
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = jobs.clamp(1, MAX_CONCURRENCY);
        self
    }

    /// How long a job is its own between two heartbeats (J-31). Default: 10 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(1));
        self
    }

    /// How often it says that it is alive. Default: a third of the lease.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = Some(heartbeat);
        self
    }

    fn beat(&self) -> Duration {
        self.heartbeat.unwrap_or(self.lease / 3).max(Duration::from_millis(1))
    }
}

/// What the tasks of one worker share.
#[derive(Debug)]
pub(crate) struct WorkerShared {
    name: Arc<str>,
    pub(crate) bus: Bus,
    lease: Duration,
    beat: Duration,
    running: Mutex<HashMap<u64, Arc<Running>>>,
    numbers: AtomicU64,
    /// Wakes the heartbeat when there is a job again.
    busy: Notify,
    stopping: Notify,
    stopped: AtomicBool,
    /// Leave messages as a process that dies would.
    crashed: AtomicBool,
}

impl WorkerShared {
    pub(crate) fn running(&self) -> Vec<Arc<Running>> {
        self.running.lock().values().cloned().collect()
    }
}

/// A worker that runs. If it is dropped, its jobs are given up and begin again elsewhere once
/// their leases are over.
#[derive(Debug)]
#[must_use = "dropping a worker gives up its jobs"]
pub struct Worker {
    shared: Arc<WorkerShared>,
    task: tokio::task::JoinHandle<Result<(), JobsError>>,
}

impl Worker {
    /// The worker's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Takes no more jobs, and waits until those it has are over.
    ///
    /// # Errors
    ///
    /// What ended the worker before.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the jobs are given up.
    pub async fn stop(mut self) -> Result<(), JobsError> {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.shared.stopping.notify_one();
        match (&mut self.task).await {
            Ok(result) => result,
            Err(error) => Err(JobsError::Bus(error.to_string())),
        }
    }

    /// Ends the way a process does that is killed: nothing is written, nothing given back; leases
    /// and ack deadlines run out. For tests of recovery.
    pub fn crash(self) {
        self.shared.crashed.store(true, Ordering::SeqCst);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Jobs {
    /// Starts a worker in a task of its own.
    ///
    /// # Errors
    ///
    /// [`JobsError::Bus`] if the queue cannot be had.
    ///
    /// # Cancel safety
    ///
    /// If dropped, nothing is started.
    pub async fn spawn_worker(&self, options: WorkerOptions) -> Result<Worker, JobsError> {
        let (queue, shared) = self.worker(&options).await?;
        let permits = Arc::new(Semaphore::new(options.concurrency));
        let task =
            tokio::spawn(pull::run(Arc::clone(&self.engine), queue, Arc::clone(&shared), permits));
        Ok(Worker { shared, task })
    }

    /// Works until it is dropped, or the bus is closed.
    ///
    /// # Errors
    ///
    /// [`JobsError::Bus`] when nothing can be pulled any more.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the jobs it has are given up.
    pub async fn run_worker(&self, options: WorkerOptions) -> Result<(), JobsError> {
        let (queue, shared) = self.worker(&options).await?;
        let permits = Arc::new(Semaphore::new(options.concurrency));
        pull::run(Arc::clone(&self.engine), queue, shared, permits).await
    }

    async fn worker(
        &self,
        options: &WorkerOptions,
    ) -> Result<(Queue, Arc<WorkerShared>), JobsError> {
        let queue = self.queue(&options.queue).await;
        let queue = queue.map_err(|error| JobsError::Bus(error.to_string()))?;
        let mut workers = self.engine.workers.lock();
        workers.retain(|worker| worker.strong_count() > 0);
        let name = options.name.clone().unwrap_or_else(|| {
            format!("w{}", self.engine.counters.workers.fetch_add(1, Ordering::Relaxed) + 1).into()
        });
        let shared = Arc::new(WorkerShared {
            name,
            bus: self.engine.bus.clone(),
            lease: options.lease,
            beat: options.beat(),
            running: Mutex::default(),
            numbers: AtomicU64::new(0),
            busy: Notify::new(),
            stopping: Notify::new(),
            stopped: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
        });
        workers.push(Arc::downgrade(&shared));
        Ok((queue, shared))
    }
}
