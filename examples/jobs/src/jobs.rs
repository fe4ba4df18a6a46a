//! The handle: submitting jobs, asking about them, calling them off (2.4).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use siftbus::{AdminError, Bus};
use tokio::sync::broadcast;

use crate::document::{DEFAULT_QUEUE, Job};
use crate::engine::Engine;
use crate::error::{JobsError, StoreError, SubmitError, WaitError};
use crate::handler::{JobCtx, JobError, Kind, KindOptions, erase};
use crate::id::JobId;
use crate::limits::{MAX_PAGE, MAX_QUEUES, MAX_SUBMIT};
use crate::machine::Cancel;
use crate::new_job::{NewJob, check_name};
use crate::queue::{Queue, open_topic};
use crate::running::Stop;
use crate::store::{Page, Query, StoreTx};
use crate::submission::{Submission, prepare};
use crate::transitions::Tx;

/// Jobs on a bus, with a store. Cheap to clone: clones are the same.
///
/// When the last one is dropped, and the last worker has ended, everything stops; what is in a
/// durable store goes on when it is opened again.
#[derive(Clone, Debug)]
pub struct Jobs {
    pub(crate) engine: Arc<Engine>,
}

impl Jobs {
    /// Jobs on this bus.
    pub fn builder(bus: Bus) -> crate::builder::JobsBuilder {
        crate::builder::JobsBuilder::new(bus)
    }

    /// Registers what is done for jobs of a kind; replaces a handler of the same kind.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Invalid`] if the kind is no name.
    pub fn register<A, T, F, W>(&self, kind: &str, handler: F) -> Result<(), SubmitError>
    where
        A: DeserializeOwned + Send + 'static,
        T: Serialize + Send + 'static,
        F: Fn(JobCtx, A) -> W + Send + Sync + 'static,
        W: Future<Output = Result<T, JobError>> + Send + 'static,
    {
        self.register_with(kind, KindOptions::new(), handler)
    }

    /// [`register`](Self::register) with settings for the kind.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn register_with<A, T, F, W>(
        &self,
        kind: &str,
        options: KindOptions,
        handler: F,
    ) -> Result<(), SubmitError>
    where
        A: DeserializeOwned + Send + 'static,
        T: Serialize + Send + 'static,
        F: Fn(JobCtx, A) -> W + Send + Sync + 'static,
        W: Future<Output = Result<T, JobError>> + Send + 'static,
    {
        check_name("kind", kind)?;
        let name: Arc<str> = kind.into();
        let options = options.or(&self.engine.settings.defaults);
        let kind = Kind::new(Arc::clone(&name), options, Some(erase(handler)));
        self.engine.kinds.write().insert(name, Arc::new(kind));
        Ok(())
    }

    /// The kinds with a handler, sorted.
    pub fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> =
            self.engine.kinds.read().keys().map(|kind| kind.to_string()).collect();
        kinds.sort();
        kinds
    }

    /// Submits a job: once this returns it is in the store, and it will be worked on (J-01).
    ///
    /// # Errors
    ///
    /// [`SubmitError`] says why not; nothing was stored then.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped may have submitted the job; with an idempotency key it can be
    /// submitted again without harm.
    pub async fn submit(&self, job: NewJob) -> Result<Submission, SubmitError> {
        let mut submitted = self.submit_many(vec![job]).await?;
        submitted.pop().ok_or_else(|| {
            StoreError::Failed("the store did not answer for the job".to_owned()).into()
        })
    }

    /// Submits several jobs in one transaction, all or none; at most 10,000.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    ///
    /// # Cancel safety
    ///
    /// As [`submit`](Self::submit).
    pub async fn submit_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Submission>, SubmitError> {
        let count = jobs.len();
        if count > MAX_SUBMIT {
            let problem = format!("{count} at once; at most {MAX_SUBMIT} are allowed");
            return Err(SubmitError::Invalid { field: "jobs", problem });
        }
        for job in &jobs {
            job.check()?;
            self.check_kind(&job.kind)?;
            if let Some(queue) = &job.queue {
                self.queue(queue).await?;
            }
        }
        let jobs = prepare(&self.engine, jobs, self.engine.now());
        self.engine.commit(move |tx| tx.submit(jobs)).await?
    }

    fn check_kind(&self, kind: &str) -> Result<(), SubmitError> {
        if self.engine.settings.known_kinds_only && !self.engine.kinds.read().contains_key(kind) {
            let (kind, known) = (kind.to_owned(), self.kinds());
            return Err(SubmitError::UnknownKind { kind, known });
        }
        Ok(())
    }

    /// Submits jobs, and writes rows of your own, in one transaction: all of it is kept or nothing.
    ///
    /// # Errors
    ///
    /// What `work` answers, and failures of the store; nothing is kept then.
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use jobs::{Jobs, NewJob, SubmitError};
    /// use siftbus::Bus;
    ///
    /// let jobs = Jobs::builder(Bus::new()).build().await?;
    /// let refused: Result<(), SubmitError> = jobs
    ///     .transact(|tx| {
    ///         tx.submit(NewJob::new("mail", &"to: me")?)?;
    ///         Err(SubmitError::TooMany { max: 0 })
    ///     })
    ///     .await;
    /// assert!(refused.is_err());
    /// assert!(jobs.list(&Default::default(), None, 10)?.jobs.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn transact<R>(
        &self,
        work: impl FnOnce(&mut Transaction<'_, '_>) -> Result<R, SubmitError>,
    ) -> Result<R, SubmitError> {
        let mut refused = None;
        let done = self.engine.commit_alone(true, |tx| {
            work(&mut Transaction { tx, jobs: self }).map_err(|error| {
                let given_up = StoreError::Failed("the transaction was given up".to_owned());
                refused = Some(error);
                given_up
            })
        });
        done.map_err(|error| refused.unwrap_or(error.into()))
    }

    /// The job as it is now.
    ///
    /// # Errors
    ///
    /// [`JobsError::NotFound`], [`JobsError::Store`].
    pub fn get(&self, id: &JobId) -> Result<Job, JobsError> {
        let now = self.engine.now();
        let job = self.engine.store.get(id)?;
        // A job whose time is over is gone, whether or not a sweep has come by.
        job.filter(|job| job.expires_at.is_none_or(|expires| expires > now))
            .ok_or_else(|| JobsError::NotFound(id.clone()))
    }

    /// Jobs that fit, in the order of their ids: for those that are made here, of submission. At
    /// most 1,000 at once.
    ///
    /// # Errors
    ///
    /// [`JobsError::Store`].
    pub fn list(
        &self,
        query: &Query,
        after: Option<&JobId>,
        limit: usize,
    ) -> Result<Page, JobsError> {
        Ok(self.engine.store.list(query, after, limit.clamp(1, MAX_PAGE))?)
    }

    /// Calls a job off: one that waits is cancelled at once, a handler that runs is told to stop
    /// (J-07, J-08).
    ///
    /// # Errors
    ///
    /// [`JobsError::NotFound`]; [`JobsError::Refused`] if it is over already; [`JobsError::Store`].
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped may have cancelled the job.
    pub async fn cancel(&self, id: &JobId) -> Result<Cancel, JobsError> {
        let name = id.clone();
        let answer = self.engine.commit(move |tx| tx.cancel(&name)).await?;
        let cancel = answer.map_err(|why| why.error(id))?;
        if cancel == Cancel::Requested {
            self.engine.tell_handler(id, Stop::Cancelled, false);
        }
        Ok(cancel)
    }

    /// Has a job that is over run again, with all its attempts anew and without its deadline
    /// (J-12).
    ///
    /// # Errors
    ///
    /// [`JobsError::NotFound`]; [`JobsError::Refused`] if it is not over; [`JobsError::Store`].
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped may have done it.
    pub async fn retry(&self, id: &JobId) -> Result<(), JobsError> {
        let name = id.clone();
        let answer = self.engine.commit(move |tx| tx.retry(&name)).await?;
        answer.map_err(|why| why.error(id))
    }

    /// The job as it is now, and then every change of it.
    ///
    /// # Errors
    ///
    /// [`JobsError::NotFound`], [`JobsError::Store`].
    pub fn watch(&self, id: &JobId) -> Result<Watch, JobsError> {
        let changes = self.engine.hub.watch(id);
        let mut watch = Watch {
            jobs: self.clone(),
            id: id.clone(),
            changes: Some(changes),
            next: None,
            seen: 0,
        };
        watch.next = Some(Arc::new(self.get(id)?));
        Ok(watch)
    }

    /// Waits until a job is over, at most so long.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] with the job as it is then; [`WaitError::Jobs`].
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn wait(&self, id: &JobId, timeout: Duration) -> Result<Job, WaitError> {
        let mut watch = self.watch(id)?;
        let last = self.engine.bus.timeout(timeout, watch.last()).await;
        match last {
            Ok(job) => job.map_or_else(|| Ok(self.get(id)?), |job| Ok(Job::clone(&job))),
            Err(_) => Err(WaitError::TimedOut(Box::new(self.get(id)?))),
        }
    }

    /// The bus, whose clock counts.
    pub fn bus(&self) -> &Bus {
        &self.engine.bus
    }

    /// A queue; its topic and the subscription of its workers are made when they are first needed.
    ///
    /// The default queue has the topic of the builder, any other `{topic}.{queue}`.
    pub(crate) async fn queue(&self, name: &str) -> Result<Queue, SubmitError> {
        let invalid = |problem: String| SubmitError::Invalid { field: "queue", problem };
        {
            let queues = self.engine.queues.lock();
            if let Some(found) = queues.get(name) {
                return Ok(found.clone());
            }
            if queues.len() >= MAX_QUEUES {
                return Err(invalid(format!("{MAX_QUEUES} queues are in use, which is the limit")));
            }
        }
        check_name("queue", name)?;
        let made = self.make_queue(name).await.map_err(|error| invalid(error.to_string()))?;
        self.engine.queues.lock().insert(name.into(), made.clone());
        Ok(made)
    }

    async fn make_queue(&self, name: &str) -> Result<Queue, AdminError> {
        let engine = &self.engine;
        let topic = match name {
            DEFAULT_QUEUE => engine.topic.clone(),
            _ => open_topic(&engine.bus, &format!("{}.{name}", engine.topic.name())).await?,
        };
        Queue::make(&engine.bus, topic).await
    }
}

/// A transaction of the store that jobs can be submitted in.
pub struct Transaction<'t, 'a> {
    tx: &'t mut Tx<'a>,
    jobs: &'t Jobs,
}

impl std::fmt::Debug for Transaction<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

impl Transaction<'_, '_> {
    /// Submits a job if the transaction is kept.
    ///
    /// # Errors
    ///
    /// As [`Jobs::submit`]; a queue must have been used before.
    pub fn submit(&mut self, job: NewJob) -> Result<Submission, SubmitError> {
        job.check()?;
        if let Some(queue) = &job.queue
            && !self.jobs.engine.queues.lock().contains_key(queue)
        {
            let problem = format!("{queue:?} has no worker and no job yet");
            return Err(SubmitError::Invalid { field: "queue", problem });
        }
        self.jobs.check_kind(&job.kind)?;
        let prepared = prepare(self.tx.engine, vec![job], self.tx.now);
        let submitted = self.tx.submit(prepared)??;
        submitted.into_iter().next().ok_or_else(|| {
            StoreError::Failed("the store did not answer for the job".to_owned()).into()
        })
    }

    /// The transaction of the store, for reading and, with a durable store, for rows of your own.
    pub fn store(&mut self) -> &mut dyn StoreTx {
        self.tx.tx
    }
}

/// The changes of one job. Ends after a final state, or when the job is gone.
#[derive(Debug)]
pub struct Watch {
    jobs: Jobs,
    id: JobId,
    /// `None` once it has ended.
    changes: Option<broadcast::Receiver<Arc<Job>>>,
    next: Option<Arc<Job>>,
    /// The version that was answered last.
    seen: u64,
}

impl Watch {
    /// The job as it was when this began, and then after each change; `None` after the last one.
    ///
    /// Who is more than 64 changes behind skips to the newest.
    ///
    /// # Cancel safety
    ///
    /// If dropped, no change is lost.
    pub async fn next(&mut self) -> Option<Arc<Job>> {
        let job = match self.next.take() {
            Some(job) => job,
            None => self.changed().await?,
        };
        self.seen = job.version;
        if job.status.is_final() {
            self.changes = None;
        }
        Some(job)
    }

    /// Waits until the job is over; `None` if it is gone.
    ///
    /// # Cancel safety
    ///
    /// If dropped, changes on the way are lost.
    pub async fn last(&mut self) -> Option<Arc<Job>> {
        loop {
            let job = self.next().await?;
            if job.status.is_final() {
                return Some(job);
            }
        }
    }

    async fn changed(&mut self) -> Option<Arc<Job>> {
        loop {
            match self.changes.as_mut()?.recv().await {
                Ok(job) if job.version > self.seen => return Some(job),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let job = self.jobs.get(&self.id).ok()?;
                    if job.version > self.seen {
                        return Some(Arc::new(job));
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.changes = None;
        self.jobs.engine.hub.unwatch(&self.id);
    }
}
