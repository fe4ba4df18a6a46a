//! `job:{KIND}`: tasks that are jobs of the package `jobs` (section 3.8 of the specification).
//!
//! A worker like any other takes the invocation and submits the job under a key made of the task,
//! so that an invocation that comes again finds the same job.

use jobs::{Job, Jobs, Json, NewJob, Status, SubmitError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use siftbus::Bus;

use crate::engine::FUNCTION_UNKNOWN;
use crate::worker::{TaskContext, TaskError, Worker, WorkerError};

/// The error of a job that was called off.
pub const JOB_CANCELLED: &str = "JobCancelled";

/// Serves `job:{kind}` on a bus by submitting jobs of this kind.
///
/// With the pattern `sync` the result of the job is that of the task, and the name of its error
/// that of the task's; a job that was called off fails with [`JOB_CANCELLED`]. With the other
/// patterns the task is done when the job is submitted, and its result is `{"JobId": …}`. The job's
/// arguments are the input of the task. A task that is given up, by its timeout or because its
/// branch was aborted, calls its job off.
///
/// # Errors
///
/// [`WorkerError`].
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn serve_jobs(bus: &Bus, jobs: &Jobs, kind: &str) -> Result<(), WorkerError> {
    let worker = Worker::new(bus, &format!("job:{kind}"))?;
    let (jobs, kind) = (jobs.clone(), kind.to_owned());
    worker.spawn(move |input, context| work(jobs.clone(), kind.clone(), input, context));
    Ok(())
}

async fn work(
    jobs: Jobs,
    kind: String,
    input: Value,
    mut context: TaskContext,
) -> Result<Value, TaskError> {
    let args = Json::of(&input).map_err(|error| refused("FC.InvalidArgument", &error))?;
    let job = NewJob::with_json(kind, args).idempotency_key(key(&context));
    let submitted = jobs.submit(job).await.map_err(|error| not_submitted(&error))?;
    if context.pattern() != "sync" {
        return Ok(json!({"JobId": submitted.id}));
    }
    let mut watch = jobs.watch(&submitted.id).map_err(|error| refused(FUNCTION_UNKNOWN, &error))?;
    let last = tokio::select! {
        last = watch.last() => last,
        () = context.cancelled() => {
            // Nobody waits for the answer any more; a job that is over stays as it is.
            drop(jobs.cancel(&submitted.id).await);
            None
        }
    };
    last.map_or_else(|| Err(cancelled()), |job| result(&job))
}

fn result(job: &Job) -> Result<Value, TaskError> {
    match job.status {
        Status::Completed => {
            let result = job.result.as_ref().map_or(Ok(Value::Null), Json::parse);
            result.map_err(|error| refused(FUNCTION_UNKNOWN, &error))
        }
        Status::Failed => match job.error() {
            Some(error) => Err(TaskError::new(&error.name, &error.message)),
            None => Err(TaskError::new(FUNCTION_UNKNOWN, "the job has failed")),
        },
        _ => Err(cancelled()),
    }
}

fn cancelled() -> TaskError {
    TaskError::new(JOB_CANCELLED, "the job was called off")
}

/// The same whenever the invocation comes again, and within what a key of a job may have.
fn key(context: &TaskContext) -> String {
    let digest = Sha256::digest(context.idempotency_key());
    format!("flow-{}", crate::engine::hex(&digest))
}

fn not_submitted(error: &SubmitError) -> TaskError {
    let name = match error {
        SubmitError::Invalid { .. } | SubmitError::TooLarge { .. } => "FC.InvalidArgument",
        SubmitError::UnknownKind { .. } => crate::engine::FUNCTION_NOT_FOUND,
        SubmitError::TooMany { .. } => "FC.ResourceExhausted",
        _ => "FC.InternalServerError",
    };
    refused(name, error)
}

fn refused(name: &str, error: &dyn std::fmt::Display) -> TaskError {
    TaskError::new(name, error.to_string())
}
