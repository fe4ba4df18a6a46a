//! `jobs`: asynchronous jobs on a `siftbus` bus.
//!
//! Submit a job and get an id; ask by the id how far it is; workers with leases and heartbeats run
//! handlers, failed attempts are made again, and finished jobs are kept for a while. It uses the
//! public interface of the bus alone.
//!
//! ```
//! use std::time::Duration;
//!
//! use jobs::{JobCtx, JobError, Jobs, NewJob, WorkerOptions};
//! use siftbus::Bus;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let jobs = Jobs::builder(Bus::new()).build().await?;
//!     jobs.register("double", |ctx: JobCtx, number: u64| async move {
//!         ctx.progress(1, 1, "doubling");
//!         Ok::<u64, JobError>(number * 2)
//!     })?;
//!     let worker = jobs.spawn_worker(WorkerOptions::new()).await?;
//!
//!     let id = jobs.submit(NewJob::new("double", &21)?).await?.id;
//!     let job = jobs.wait(&id, Duration::from_secs(5)).await?;
//!     assert_eq!(job.result.expect("completed").parse::<u64>()?, 42);
//!     worker.stop().await?;
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//!
//! - A job that was submitted is in the store before its message is sent, and is not lost; with a
//!   durable store ([`RedbStore`]) not even by a crash (J-01, J-35, J-37).
//! - Handler *calls* happen at least once, *transitions* (and with them the result, the counters
//!   and the messages that follow) exactly once (J-34). What a handler does to other systems
//!   happens exactly once only if they look at the [fencing token](JobCtx::fencing_token) or at an
//!   idempotency key.
//! - Never two workers at a time, as long as handlers stop when they are told
//!   ([`JobCtx::cancelled`]): a worker that cannot renew its lease is told before it ends (J-31).
//! - Submitting twice under one [idempotency key](NewJob::idempotency_key) gives one job (A-S0-j).

mod builder;
mod document;
mod engine;
mod error;
mod gate;
mod handler;
#[cfg(feature = "http")]
pub mod http;
mod hub;
mod id;
mod jobs;
mod json;
pub mod limits;
mod machine;
mod message;
mod new_job;
mod queue;
mod retry;
mod running;
pub mod store;
mod submission;
mod ticker;
mod time;
mod transitions;
mod worker;

pub use builder::JobsBuilder;
pub use document::{
    Attempt, AttemptOutcome, DEFAULT_QUEUE, Failure, Job, Lease, ParseStatusError, Progress, Status,
};
pub use error::{BuildError, JobsError, StoreError, SubmitError, WaitError};
pub use gate::RateLimit;
pub use handler::{JobCtx, JobError, KindOptions};
pub use id::{IdFormat, JobId, ParseJobIdError};
pub use jobs::{Jobs, Transaction, Watch};
pub use json::Json;
pub use machine::{Cancel, Refused};
pub use message::{JOB_ID, KIND};
pub use new_job::NewJob;
pub use retry::{Jitter, RetryPolicy};
pub use running::Stop;
#[cfg(feature = "redb")]
pub use store::RedbStore;
pub use store::{MemoryStore, Page, Query};
pub use submission::Submission;
pub use time::{ParseTimestampError, Timestamp, When, parse_span};
pub use worker::{ClaimedJob, Worker, WorkerOptions};
