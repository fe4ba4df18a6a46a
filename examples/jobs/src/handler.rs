//! Handlers: what a program registers for a kind of job, what it is given, and how it answers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::document::Failure;
use crate::engine::Engine;
use crate::gate::{Limits, RateLimit};
use crate::id::JobId;
use crate::json::Json;
use crate::limits::DEFAULT_MAX_ATTEMPTS;
use crate::limits::MAX_RESULT_BYTES;
use crate::machine::Rules;
use crate::retry::RetryPolicy;
use crate::running::{Running, Stop};

/// Why a handler did not return a result.
///
/// Every error of the standard kind becomes [`Retry`](Self::Retry) with `?`, named after its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobError {
    /// To be tried again after the usual delay, while attempts are left.
    Retry(Failure),
    /// To be tried again after a delay of yours, while attempts are left.
    RetryAfter(Failure, Duration),
    /// Trying again would not help.
    Permanent(Failure),
    /// The handler stopped because it was told to.
    Cancelled,
}

impl JobError {
    /// To be tried again after the usual delay.
    pub fn retry(name: &str, message: impl fmt::Display) -> Self {
        Self::Retry(Failure::new(name, message.to_string()))
    }

    /// Trying again would not help.
    pub fn permanent(name: &str, message: impl fmt::Display) -> Self {
        Self::Permanent(Failure::new(name, message.to_string()))
    }
}

impl<E: std::error::Error> From<E> for JobError {
    fn from(error: E) -> Self {
        let path = std::any::type_name::<E>();
        let path = path.split('<').next().unwrap_or(path);
        JobError::retry(path.rsplit("::").next().unwrap_or(path), error)
    }
}

/// What a handler knows about the job it works on, and how it talks back.
#[derive(Clone, Debug)]
pub struct JobCtx {
    pub(crate) running: Arc<Running>,
}

impl JobCtx {
    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.running.id
    }

    /// The job's kind.
    pub fn kind(&self) -> &str {
        &self.running.kind.name
    }

    /// The correlation id given by the caller.
    pub fn correlation_id(&self) -> Option<&str> {
        self.running.correlation_id.as_deref()
    }

    /// Which attempt this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.running.attempt
    }

    /// A number that grows with each attempt at this job: hand it to systems outside, and let them
    /// refuse a lower one than they have seen (J-33).
    pub fn fencing_token(&self) -> u64 {
        u64::from(self.running.attempt)
    }

    /// The bus, for its clock (`now`, `sleep`, `timeout`) and to publish.
    pub fn bus(&self) -> &siftbus::Bus {
        &self.running.worker.bus
    }

    /// Says how far it has come. Cheap: written with the next heartbeat, the latest wins (J-24).
    pub fn progress(&self, done: u64, total: u64, note: &str) {
        self.running.set_progress(done, total, note);
    }

    /// An error as soon as the handler should stop.
    ///
    /// # Errors
    ///
    /// [`JobError::Cancelled`] if the job was cancelled, its deadline has passed or its lease is
    /// lost.
    pub fn check_cancelled(&self) -> Result<(), JobError> {
        match self.running.stop() {
            Some(_) => Err(JobError::Cancelled),
            None => Ok(()),
        }
    }

    /// Waits until the handler should stop, and says why.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn cancelled(&self) -> Stop {
        self.running.stopped().await
    }
}

/// What holds for all jobs of a kind.
#[derive(Clone, Debug, Default)]
pub struct KindOptions {
    pub(crate) max_attempts: Option<u32>,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) completed_ttl: Option<Duration>,
    pub(crate) failed_ttl: Option<Duration>,
    pub(crate) cancel_grace: Option<Duration>,
    pub(crate) limits: Limits,
}

impl KindOptions {
    /// The builder's settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Attempts of a job that says nothing else. Default: 5.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.max(1));
        self
    }

    /// The delays between attempts (J-30).
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// How long completed jobs are kept. Default: 24 h (J-38).
    #[must_use]
    pub fn completed_ttl(mut self, ttl: Duration) -> Self {
        self.completed_ttl = Some(ttl);
        self
    }

    /// How long failed and cancelled jobs are kept. Default: 7 days (J-38).
    #[must_use]
    pub fn failed_ttl(mut self, ttl: Duration) -> Self {
        self.failed_ttl = Some(ttl);
        self
    }

    /// How long a handler has to stop after its job was cancelled. Default: 10 s.
    #[must_use]
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = Some(grace);
        self
    }

    /// How many jobs of the kind run at a time, at least 1. Default: as many as there are workers
    /// for (J-39).
    ///
    /// Those without a place wait, the highest priority first.
    #[must_use]
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.limits.concurrency = Some(jobs.max(1));
        self
    }

    /// How many jobs of the kind run at a time for each value of an argument, at least 1; for
    /// example one job per customer. Default: no such limit (J-39).
    ///
    /// The path is the argument's name, or several with dots (`customer.id`). Jobs in which it is
    /// no text, number or boolean have no key and are not limited by it.
    #[must_use]
    pub fn concurrency_key(mut self, path: impl Into<Arc<str>>, jobs: usize) -> Self {
        self.limits.key = Some((path.into(), jobs.max(1)));
        self
    }

    /// How many jobs of the kind may start in a span. Every attempt counts; a job whose turn has
    /// come, and that then waits for a place, does not ask again. Default: no limit (J-39).
    #[must_use]
    pub fn rate(mut self, rate: RateLimit) -> Self {
        self.limits.rate = Some(rate);
        self
    }

    /// What is set here, and of the rest what is set there.
    pub(crate) fn or(self, other: &KindOptions) -> KindOptions {
        KindOptions {
            max_attempts: self.max_attempts.or(other.max_attempts),
            retry: self.retry.or_else(|| other.retry.clone()),
            completed_ttl: self.completed_ttl.or(other.completed_ttl),
            failed_ttl: self.failed_ttl.or(other.failed_ttl),
            cancel_grace: self.cancel_grace.or(other.cancel_grace),
            limits: Limits {
                concurrency: self.limits.concurrency.or(other.limits.concurrency),
                key: self.limits.key.or_else(|| other.limits.key.clone()),
                rate: self.limits.rate.or(other.limits.rate),
            },
        }
    }
}

/// A kind of job with all that is settled about it.
pub(crate) struct Kind {
    pub(crate) name: Arc<str>,
    pub(crate) max_attempts: u32,
    pub(crate) retry: RetryPolicy,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    /// `None` for a kind that this program does not work on.
    pub(crate) handler: Option<Handler>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kind {
    pub(crate) fn new(name: Arc<str>, options: KindOptions, handler: Option<Handler>) -> Self {
        let standard = Rules::default();
        Self {
            name,
            max_attempts: options.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS),
            retry: options.retry.unwrap_or_default(),
            rules: Rules {
                completed_ttl: options.completed_ttl.unwrap_or(standard.completed_ttl),
                failed_ttl: options.failed_ttl.unwrap_or(standard.failed_ttl),
                cancel_grace: options.cancel_grace.unwrap_or(standard.cancel_grace),
            },
            limits: options.limits,
            handler,
        }
    }
}

/// Kinds looked up lately: jobs that come together mostly are of one kind.
#[derive(Debug, Default)]
pub(crate) struct KnownKinds(Option<Arc<Kind>>);

impl KnownKinds {
    pub(crate) fn of(&mut self, engine: &Engine, name: &str) -> &Arc<Kind> {
        let known = self.0.take().filter(|kind| *kind.name == *name);
        self.0.insert(known.unwrap_or_else(|| engine.kind(name)))
    }
}

/// A call of a handler that has begun.
pub(crate) type Call = Pin<Box<dyn Future<Output = Result<Json, JobError>> + Send>>;
/// A handler whose types are forgotten.
pub(crate) type Handler = Box<dyn Fn(JobCtx, Json) -> Call + Send + Sync>;

/// Forgets the types of a handler; arguments that do not fit fail for good.
pub(crate) fn erase<A, T, F, W>(handler: F) -> Handler
where
    A: DeserializeOwned + Send + 'static,
    T: Serialize + Send + 'static,
    F: Fn(JobCtx, A) -> W + Send + Sync + 'static,
    W: Future<Output = Result<T, JobError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Box::new(move |ctx, args| {
        let handler = Arc::clone(&handler);
        Box::pin(async move {
            let args =
                args.parse().map_err(|error| JobError::permanent("InvalidArguments", error))?;
            let answer = handler(ctx, args).await?;
            let result =
                Json::of(&answer).map_err(|error| JobError::permanent("InvalidResult", error))?;
            drop(answer);
            check_result(result)
        })
    })
}

/// J-23: a result that is too large fails for good.
pub(crate) fn check_result(result: Json) -> Result<Json, JobError> {
    let size = result.len();
    if size > MAX_RESULT_BYTES {
        let message = format!("{size} bytes; at most {MAX_RESULT_BYTES} are allowed");
        return Err(JobError::permanent("ResultTooLarge", message));
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_named_after_their_type() {
        let error = "x".parse::<u8>().unwrap_err();
        let JobError::Retry(failure) = JobError::from(error) else { panic!("not a retry") };
        assert_eq!(failure.name, "ParseIntError");
    }

    #[test]
    fn results_are_bounded_on_both_sides() {
        // J-23
        let result = |bytes: usize| Json::of(&"x".repeat(bytes - 2)).unwrap();
        assert!(check_result(result(MAX_RESULT_BYTES)).is_ok());
        assert!(check_result(result(MAX_RESULT_BYTES + 1)).is_err());
    }
}
