//! Workers: they pull jobs, run handlers, and say that they are alive (J-31, J-32, J-33).
//!
//! The order is fixed: claim, handler, commit of the final transition, and only then the ack. A
//! crash anywhere leaves a message that comes again, and a document that says what to do with it.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use siftbus::{AckId, Deliveries, Delivery, Subscription};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::document::{DEFAULT_QUEUE, Failure};
use crate::engine::Engine;
use crate::error::{JobsError, StoreError};
use crate::handler::{Call, JobCtx, JobError};
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::json::Json;
use crate::limits::{CLAIM_BATCH, DEFAULT_LEASE, STORE_PAUSE, UNKNOWN_KIND_PAUSE};
use crate::machine::Refused;
use crate::message::{JOB_ID, KIND};
use crate::running::{Running, Stop};
use crate::transitions::{Changed, Claimed, Settle, Started, Verdict};

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

    /// How many jobs it has at a time, at least 1 (J-39). Default: 8.
    #[must_use]
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = jobs.max(1);
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
        let (source, shared) = self.worker(&options).await?;
        let permits = Arc::new(Semaphore::new(options.concurrency));
        let task =
            tokio::spawn(run(Arc::clone(&self.engine), source, Arc::clone(&shared), permits));
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
        let (source, shared) = self.worker(&options).await?;
        let permits = Arc::new(Semaphore::new(options.concurrency));
        run(Arc::clone(&self.engine), source, shared, permits).await
    }

    /// Takes one job of whatever kind, to work on it without a handler: waits for it, claims it,
    /// and leaves heartbeats and the end to the caller.
    ///
    /// # Errors
    ///
    /// [`JobsError::Bus`] if the queue cannot be had; [`JobsError::Store`].
    ///
    /// # Cancel safety
    ///
    /// A job that was claimed when the future was dropped comes again once its lease is over.
    pub async fn claim(&self, options: &WorkerOptions) -> Result<ClaimedJob, JobsError> {
        let (source, shared) = self.worker(options).await?;
        loop {
            let pulled = source.pull(1).await.map_err(|error| JobsError::Bus(error.to_string()))?;
            let deliveries = set_lease(pulled, &source, shared.lease);
            let mut held = Held::new(deliveries, &shared);
            let claims = claim(&self.engine, &shared, &held.deliveries, true).await?;
            let taken = std::mem::take(&mut held.deliveries);
            for (delivery, claimed) in taken.into_iter().flatten().zip(claims) {
                match claimed {
                    (Some(id), Claimed::Start(started)) => {
                        return Ok(ClaimedJob {
                            jobs: self.clone(),
                            id,
                            attempt: started.attempt,
                            args: started.args,
                            lease: shared.lease,
                            delivery: Some(delivery),
                        });
                    }
                    (_, other) => settle(delivery, other.settle()),
                }
            }
        }
    }

    async fn worker(
        &self,
        options: &WorkerOptions,
    ) -> Result<(Subscription, Arc<WorkerShared>), JobsError> {
        let source = self.subscription(&options.queue).await;
        let source = source.map_err(|error| JobsError::Bus(error.to_string()))?;
        let mut workers = self.engine.workers.lock();
        workers.retain(|worker| worker.strong_count() > 0);
        let name = options.name.clone().unwrap_or_else(|| {
            format!("w{}", self.engine.counters.workers.fetch_add(1, Ordering::Relaxed) + 1).into()
        });
        let shared = Arc::new(WorkerShared {
            name,
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
        Ok((source, shared))
    }
}

/// A job that was claimed by hand ([`Jobs::claim`]).
///
/// It sends no heartbeats by itself. If it is dropped, its message is given back at once, and
/// whoever gets that begins again when the lease is over.
#[derive(Debug)]
#[must_use = "dropping a claimed job gives it up"]
pub struct ClaimedJob {
    jobs: Jobs,
    id: JobId,
    attempt: u32,
    args: Json,
    lease: Duration,
    delivery: Option<Delivery>,
}

impl ClaimedJob {
    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// Which attempt this is; also the fencing token (J-33).
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The arguments.
    pub fn args(&self) -> &Json {
        &self.args
    }

    /// Says that the work goes on, and how far it has come (J-03).
    ///
    /// # Errors
    ///
    /// [`JobsError::Refused`] if the lease is lost or the job over; [`JobsError::Store`].
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped may have written it.
    pub async fn heartbeat(
        &self,
        progress: Option<crate::document::Progress>,
    ) -> Result<(), JobsError> {
        let (id, attempt, lease) = (self.id.clone(), self.attempt, self.lease);
        let beat =
            self.jobs.engine.commit(move |tx| tx.heartbeat(&id, attempt, lease, progress)).await?;
        beat.map_err(|why| why.error(&self.id))?;
        if let Some(delivery) = &self.delivery {
            let moved = delivery.set_deadline(self.lease).await;
            moved.map_err(|error| JobsError::Bus(error.to_string()))?;
        }
        Ok(())
    }

    /// Ends the attempt with a result (J-04).
    ///
    /// # Errors
    ///
    /// [`JobsError::Refused`] if another attempt has begun or the job is over;
    /// [`JobsError::Store`]; nothing is changed then, and the attempt can be ended again.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped may have written it.
    pub async fn complete(
        &mut self,
        result: &(impl serde::Serialize + ?Sized),
    ) -> Result<(), JobsError> {
        let result = Json::of(result).unwrap_or(Json::null());
        let (size, max) = (result.len(), crate::limits::MAX_RESULT_BYTES);
        if size > max {
            return Err(JobsError::ResultTooLarge { size, max });
        }
        self.end(Verdict::Ok(result)).await
    }

    /// Ends the attempt with an error (J-05, J-06).
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete).
    ///
    /// # Cancel safety
    ///
    /// As [`complete`](Self::complete).
    pub async fn fail(&mut self, error: JobError) -> Result<(), JobsError> {
        self.end(verdict(Err(error))).await
    }

    /// Leaves the job the way a process does that dies: lease and ack deadline run out.
    pub fn abandon(mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.into_ack_id();
        }
    }

    async fn end(&mut self, verdict: Verdict) -> Result<(), JobsError> {
        let (id, attempt) = (self.id.clone(), self.attempt);
        let finished =
            self.jobs.engine.commit(move |tx| tx.finish(&id, attempt, verdict, None)).await?;
        let how = settle_of(&finished, self.lease);
        if let Some(delivery) = self.delivery.take() {
            settle(delivery, how);
        }
        finished.map(drop).map_err(|why| why.error(&self.id))
    }
}

/// Messages in hand; a worker that has crashed leaves them to their deadlines.
struct Held<'a> {
    deliveries: Option<Deliveries>,
    worker: &'a WorkerShared,
}

impl<'a> Held<'a> {
    fn new(deliveries: Deliveries, worker: &'a WorkerShared) -> Self {
        Self { deliveries: Some(deliveries), worker }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.worker.crashed.load(Ordering::SeqCst) {
            for delivery in self.deliveries.take().into_iter().flatten() {
                delivery.into_ack_id();
            }
        }
    }
}

/// A message in hand, likewise.
struct HeldOne {
    delivery: Option<Delivery>,
    worker: Arc<WorkerShared>,
    number: u64,
}

impl Drop for HeldOne {
    fn drop(&mut self) {
        self.worker.running.lock().remove(&self.number);
        if self.worker.crashed.load(Ordering::SeqCst)
            && let Some(delivery) = self.delivery.take()
        {
            delivery.into_ack_id();
        }
    }
}

/// Pulls and starts batches until it is told to stop.
async fn run(
    engine: Arc<Engine>,
    source: Subscription,
    shared: Arc<WorkerShared>,
    permits: Arc<Semaphore>,
) -> Result<(), JobsError> {
    let all = permits.available_permits();
    let mut batches = JoinSet::new();
    let mut heart = JoinSet::new();
    heart.spawn(beat(Arc::clone(&engine), source.clone(), Arc::clone(&shared)));
    let ended = loop {
        while batches.try_join_next().is_some() {}
        let next = async {
            let first = Arc::clone(&permits).acquire_owned().await;
            let mut permit = first.map_err(|error| JobsError::Bus(error.to_string()))?;
            let more = permits.available_permits().min(CLAIM_BATCH - 1);
            if let Ok(rest) = u32::try_from(more)
                && let Ok(rest) = Arc::clone(&permits).try_acquire_many_owned(rest)
            {
                permit.merge(rest);
            }
            let pulled = source.pull(permit.num_permits()).await;
            let mut pulled = pulled.map_err(|error| JobsError::Bus(error.to_string()))?;
            pulled = set_lease(pulled, &source, shared.lease);
            // What was not needed is free at once.
            drop(permit.split(permit.num_permits().saturating_sub(pulled.len())));
            Ok::<_, JobsError>((pulled, permit))
        };
        let next = tokio::select! {
            biased;
            () = stop_asked(&shared) => break Ok(()),
            next = next => next,
        };
        match next {
            Ok((pulled, permit)) => {
                let (engine, shared) = (Arc::clone(&engine), Arc::clone(&shared));
                batches.spawn(run_batch(engine, shared, pulled, permit));
            }
            Err(error) => break Err(error),
        }
    };
    if ended.is_ok() {
        // The permits come back when everything is over.
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        drop(permits.acquire_many(all).await);
        while batches.join_next().await.is_some() {}
    }
    ended
}

async fn stop_asked(shared: &WorkerShared) {
    while !shared.stopped.load(Ordering::SeqCst) {
        shared.stopping.notified().await;
    }
}

/// The lease is the ack deadline (J-31).
fn set_lease(pulled: Deliveries, source: &Subscription, lease: Duration) -> Deliveries {
    if source.config().ack_deadline != lease {
        // A lease out of the bus's range keeps the subscription's deadline; heartbeats go on.
        let _ = pulled.set_deadline(lease);
    }
    pulled
}

/// Claims all of a batch in one transaction.
async fn claim(
    engine: &Arc<Engine>,
    shared: &Arc<WorkerShared>,
    deliveries: &Option<Deliveries>,
    any_kind: bool,
) -> Result<Vec<(Option<JobId>, Claimed)>, StoreError> {
    let mut wanted: Vec<(Option<JobId>, bool)> = Vec::new();
    for delivery in deliveries.iter().flatten() {
        let id = delivery.attribute(JOB_ID).and_then(|id| id.parse().ok());
        let kind = delivery.attribute(KIND).unwrap_or_default();
        let known = any_kind || engine.kinds.read().contains_key(kind);
        wanted.push((id, known));
    }
    let (worker, lease) = (Arc::clone(&shared.name), shared.lease);
    engine
        .commit(move |tx| {
            let mut claims = Vec::with_capacity(wanted.len());
            for (id, known) in wanted {
                let claimed = match &id {
                    // Nobody's job: a stranger has published to the topic.
                    None => Claimed::Ack,
                    Some(_) if !known => Claimed::After(UNKNOWN_KIND_PAUSE),
                    Some(id) => match tx.claim(id, &worker, lease) {
                        // One bad document must not hold up the others.
                        Err(StoreError::Corrupt { .. }) => Claimed::After(UNKNOWN_KIND_PAUSE),
                        other => other?,
                    },
                };
                claims.push((id, claimed));
            }
            Ok(claims)
        })
        .await
}

impl Claimed {
    fn settle(&self) -> Settle {
        match self {
            Claimed::After(delay) => Settle::After(*delay),
            Claimed::Ack | Claimed::Start(_) => Settle::Ack,
        }
    }
}

/// A job of a batch whose handler has been called.
struct Begun {
    running: Arc<Running>,
    call: Call,
    /// The handler's answer, if it was quick.
    answer: Option<Result<Json, JobError>>,
}

async fn run_batch(
    engine: Arc<Engine>,
    shared: Arc<WorkerShared>,
    pulled: Deliveries,
    permit: OwnedSemaphorePermit,
) {
    let mut held = Held::new(pulled, &shared);
    let Ok(claims) = claim(&engine, &shared, &held.deliveries, false).await else {
        for delivery in held.deliveries.take().into_iter().flatten() {
            settle(delivery, Settle::After(STORE_PAUSE));
        }
        return;
    };
    let mut settles: Vec<Option<Settle>> = claims.iter().map(|(_, c)| Some(c.settle())).collect();
    let mut started: Vec<(usize, JobId, Started)> = Vec::with_capacity(claims.len());
    for (place, (id, claimed)) in claims.into_iter().enumerate() {
        if let (Some(id), Claimed::Start(job)) = (id, claimed) {
            started.push((place, id, job));
        }
    }
    started.sort_by_key(|(_, _, job)| std::cmp::Reverse(job.priority));
    let mut quick = Vec::with_capacity(started.len());
    let mut slow = Vec::new();
    for (place, id, job) in started {
        let begun = begin(&engine, id, job).await;
        match begun.answer.is_some() {
            true => quick.push((place, begun)),
            false => slow.push((place, begun)),
        }
    }
    let unsettled = finish_quick(&engine, &shared, quick, &mut settles).await;
    slow.extend(unsettled);
    if slow.is_empty() && settles.iter().all(|settle| *settle == Some(Settle::Ack)) {
        // The usual case, and the cheap one.
        if let Some(all) = held.deliveries.take() {
            all.ack_all();
        }
        return;
    }
    run_slow(&engine, &shared, &mut held, settles, slow, permit).await;
}

/// Calls the handler and looks once whether it is done.
async fn begin(engine: &Arc<Engine>, id: JobId, job: Started) -> Begun {
    let kind = Arc::clone(&job.kind.name);
    let running = Running::new(engine.bus.clone(), id, kind, job.attempt, job.correlation_id);
    let running = Arc::new(running);
    let ctx = JobCtx { running: Arc::clone(&running) };
    let mut call: Call = match &job.kind.handler {
        Some(handler) => handler(ctx, job.args),
        None => Box::pin(async { Err(JobError::retry("UnknownKind", "the handler is gone")) }),
    };
    let answer = poll_fn(|cx| {
        Poll::Ready(match poll_call(&mut call, cx) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        })
    })
    .await;
    Begun { running, call, answer }
}

/// Polls a handler; a panic is an error like any other, by the name `Panic`.
fn poll_call(call: &mut Call, cx: &mut std::task::Context<'_>) -> Poll<Result<Json, JobError>> {
    catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "the handler panicked".to_owned());
        Poll::Ready(Err(JobError::retry("Panic", text)))
    })
}

/// Writes the ends of all that were quick in one transaction; answers those it could not write.
async fn finish_quick(
    engine: &Arc<Engine>,
    shared: &WorkerShared,
    quick: Vec<(usize, Begun)>,
    settles: &mut [Option<Settle>],
) -> Vec<(usize, Begun)> {
    if quick.is_empty() {
        return quick;
    }
    let ends: Vec<_> = quick
        .iter()
        .map(|(_, begun)| {
            let running = Arc::clone(&begun.running);
            (running, begun.answer.clone().unwrap_or(Err(JobError::Cancelled)))
        })
        .collect();
    let finished = engine
        .commit(move |tx| {
            let mut finished = Vec::with_capacity(ends.len());
            for (running, answer) in ends {
                let progress = running.take_progress();
                let (id, attempt) = (&running.id, running.attempt);
                finished.push(tx.finish(id, attempt, verdict(answer), progress)?);
            }
            Ok(finished)
        })
        .await;
    let Ok(finished) = finished else { return quick };
    for ((place, _), finished) in quick.iter().zip(&finished) {
        if let Some(place) = settles.get_mut(*place) {
            *place = Some(settle_of(finished, shared.lease));
        }
    }
    Vec::new()
}

/// Runs what takes longer, each in a task of its own.
async fn run_slow(
    engine: &Arc<Engine>,
    shared: &Arc<WorkerShared>,
    held: &mut Held<'_>,
    mut settles: Vec<Option<Settle>>,
    slow: Vec<(usize, Begun)>,
    mut permit: OwnedSemaphorePermit,
) {
    let mut begun: HashMap<usize, Begun> = slow.into_iter().collect();
    for place in begun.keys() {
        if let Some(place) = settles.get_mut(*place) {
            *place = None;
        }
    }
    let mut tasks = JoinSet::new();
    let deliveries = held.deliveries.take().into_iter().flatten();
    for (place, delivery) in deliveries.enumerate() {
        match settles.get(place).copied().flatten() {
            Some(how) => settle(delivery, how),
            None => {
                let Some(job) = begun.remove(&place) else { continue };
                let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
                *job.running.ack_id.lock() = Some(delivery.ack_id());
                shared.running.lock().insert(number, Arc::clone(&job.running));
                let worker = Arc::clone(shared);
                let one = HeldOne { delivery: Some(delivery), worker, number };
                let permit = permit.split(1);
                tasks.spawn(run_one(Arc::clone(engine), one, job, permit));
            }
        }
    }
    drop(permit);
    shared.busy.notify_one();
    while tasks.join_next().await.is_some() {}
}

/// One job from its handler's first pause to its end.
async fn run_one(
    engine: Arc<Engine>,
    mut held: HeldOne,
    begun: Begun,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let Begun { running, mut call, mut answer } = begun;
    // It may have been called off before it was known here.
    if let Ok(Some(job)) = engine.store.get(&running.id)
        && job.cancel_requested()
    {
        running.tell(Stop::Cancelled);
    }
    if answer.is_none() {
        answer = {
            let mut ended = pin!(running.ended());
            poll_fn(|cx| match poll_call(&mut call, cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => ended.as_mut().poll(cx).map(|()| None),
            })
            .await
        };
    }
    // A handler whose answer does not count is dropped where it is.
    drop(call);
    let how = match answer {
        Some(answer) => finish_one(&engine, &running, answer, held.worker.lease).await,
        None => Settle::After(Duration::ZERO),
    };
    if let Some(delivery) = held.delivery.take() {
        settle(delivery, how);
    }
}

/// Writes the end of a job, trying again while the store fails and the job is this worker's.
async fn finish_one(
    engine: &Arc<Engine>,
    running: &Running,
    answer: Result<Json, JobError>,
    lease: Duration,
) -> Settle {
    let mut progress = running.take_progress();
    loop {
        let (id, attempt) = (running.id.clone(), running.attempt);
        let (said, shown) = (verdict(answer.clone()), progress.take());
        let again = shown.clone();
        match engine.commit(move |tx| tx.finish(&id, attempt, said, shown)).await {
            Ok(finished) => return settle_of(&finished, lease),
            Err(_) if running.is_over() => return Settle::After(lease),
            Err(_) => {
                progress = again;
                engine.bus.sleep(STORE_PAUSE).await;
            }
        }
    }
}

fn verdict(answer: Result<Json, JobError>) -> Verdict {
    match answer {
        Ok(result) => Verdict::Ok(result),
        Err(JobError::Retry(failure)) => Verdict::Retry(cut(failure), None),
        Err(JobError::RetryAfter(failure, delay)) => Verdict::Retry(cut(failure), Some(delay)),
        Err(JobError::Permanent(failure)) => Verdict::Permanent(cut(failure)),
        Err(JobError::Cancelled) => Verdict::Cancelled,
    }
}

/// Failures may be built without their limits.
fn cut(failure: Failure) -> Failure {
    Failure::new(failure.name, failure.message)
}

fn settle_of(finished: &Result<Settle, Changed>, lease: Duration) -> Settle {
    match finished {
        Ok(how) => *how,
        Err(Changed::Absent | Changed::Refused(Refused::AlreadyFinal { .. })) => Settle::Ack,
        // Somebody else has the job; whether this message is still needed shows then.
        Err(Changed::Refused(_)) => Settle::After(lease),
    }
}

fn settle(delivery: Delivery, how: Settle) {
    match how {
        Settle::Ack => drop(delivery.ack()),
        Settle::After(delay) => drop(delivery.nack_after(delay)),
    }
}

/// Says for all jobs of a worker that it is alive (J-31), and writes their progress (J-24).
async fn beat(engine: Arc<Engine>, source: Subscription, shared: Arc<WorkerShared>) {
    loop {
        if shared.running.lock().is_empty() {
            shared.busy.notified().await;
        }
        engine.bus.sleep(shared.beat).await;
        let running = shared.running();
        if running.is_empty() {
            continue;
        }
        let lease = shared.lease;
        let jobs = running.clone();
        let beaten = engine
            .commit(move |tx| {
                let mut answers = Vec::with_capacity(jobs.len());
                for job in jobs {
                    let progress = job.take_progress();
                    let kept = progress.clone();
                    let answer = tx.heartbeat(&job.id, job.attempt, lease, progress);
                    if answer.is_err() {
                        job.return_progress(kept);
                    }
                    answers.push(answer?);
                }
                Ok(answers)
            })
            .await;
        match beaten {
            Ok(answers) => {
                let alive = judge(&running, answers);
                if !alive.is_empty() {
                    // A deadline that could not be moved shows as a second delivery, which waits
                    // for the lease.
                    let _ = source.modify_ack_deadline(&alive, lease).await;
                }
            }
            Err(_) => running.iter().for_each(|job| miss(job)),
        }
    }
}

/// Who is still alive; the others are told.
fn judge(running: &[Arc<Running>], answers: Vec<Result<(), Changed>>) -> Vec<AckId> {
    let mut alive = Vec::with_capacity(running.len());
    for (job, answer) in running.iter().zip(answers) {
        match answer {
            Ok(()) => {
                job.missed.store(0, Ordering::SeqCst);
                alive.extend(job.ack_id.lock().clone());
            }
            Err(Changed::Refused(Refused::LeaseLost)) => job.tell(Stop::LeaseLost),
            Err(_) => {
                job.tell(Stop::LeaseLost);
                job.end();
            }
        }
    }
    alive
}

/// Two heartbeats that fail in a row stop the handler before another worker may start.
fn miss(job: &Running) {
    if job.missed.fetch_add(1, Ordering::SeqCst) + 1 >= 2 {
        job.tell(Stop::LeaseLost);
    }
}
