//! What is known about a job: its document, as it is stored and as it is shown (2.2, J-20 … J-24).
//!
//! Only values; which change is allowed when is in `machine.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use smallvec::SmallVec;

use crate::id::JobId;
use crate::json::Json;
use crate::limits::{
    MAX_ERROR_MESSAGE_CHARS, MAX_ERROR_NAME_CHARS, MAX_NOTE_CHARS, SWEEP_STEP_MILLIS,
};
use crate::time::Timestamp;

/// Where a job stands (2.1).
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Submitted; it waits for a worker, or for its start.
    Created,
    /// A worker has it.
    Running,
    /// An attempt has failed; it waits for the next one.
    Retrying,
    /// Done, with a result.
    Completed,
    /// Given up, with an error.
    Failed,
    /// Called off.
    Cancelled,
}

impl Status {
    /// All of them, in the order of a job's life.
    pub const ALL: [Status; 6] = [
        Status::Created,
        Status::Running,
        Status::Retrying,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
    ];

    /// Whether nothing happens to the job any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }

    /// The name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Retrying => "retrying",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no status: created, running, retrying, completed, failed and cancelled are known"
)]
pub struct ParseStatusError {
    text: String,
}

impl std::str::FromStr for Status {
    type Err = ParseStatusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Status::ALL.into_iter().find(|status| status.as_str() == text);
        known.ok_or_else(|| ParseStatusError { text: text.chars().take(64).collect() })
    }
}

/// A job as the store holds it.
///
/// As JSON ([`view`](Self::view)) it has times in RFC 3339, and the scalar arguments repeated at
/// the top level (J-21).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What is to be done: the name of a handler.
    pub kind: Arc<str>,
    /// Where it stands.
    pub status: Status,
    /// What the handler is given.
    pub args: Json,
    /// The queue, if it is not the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Arc<str>>,
    /// Of jobs that wait, those with a higher number start earlier ([`NewJob::priority`]).
    /// Default: 0.
    ///
    /// [`NewJob::priority`]: crate::NewJob::priority
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Which attempt runs or ran last, counted from 1; 0 before the first. Never decreases.
    pub attempt: u32,
    /// How many attempts it has before it fails, after each retry by hand anew.
    pub max_attempts: u32,
    /// Raised by each change.
    pub version: u64,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it may start, or start again.
    pub run_at: Timestamp,
    /// When its first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When a worker last said that it is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_at: Option<Timestamp>,
    /// When it came to a final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When it fails if it has not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When its document goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Who has it, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The last 20 attempts (J-23).
    #[serde(default, skip_serializing_if = "SmallVec::is_empty")]
    pub attempts: SmallVec<[Attempt; 1]>,
    /// What the handler returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// What few jobs have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extra: Option<Box<Extra>>,
}

/// The parts of a document that most jobs do not have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Extra {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency_key: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) correlation_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<Failure>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) manual_retries: u32,
    /// The attempt after which the last retry by hand came.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) first_attempt: u32,
    /// Set while cancelling was asked for: when the handler's time to stop is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancel_by: Option<Timestamp>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// Who has a job, and until when unless it says that it is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The worker's name.
    pub owner: Arc<str>,
    /// When another worker may take the job.
    pub until: Timestamp,
}

/// One attempt at a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which one, counted from 1.
    pub n: u32,
    /// The worker's name.
    pub worker: Arc<str>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, or was found to have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AttemptOutcome>,
    /// The error it ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<Failure>>,
}

/// How an attempt ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptOutcome {
    /// The handler returned a result.
    Ok,
    /// The handler returned an error.
    Error,
    /// The worker stopped saying that it is alive.
    Lost,
    /// The job was cancelled.
    Cancelled,
    /// The job's deadline passed.
    Deadline,
}

/// How far a handler has come (J-24).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// What it is at, at most 256 characters.
    pub note: String,
    /// Whether `done` went down within an attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub progress_reset: bool,
}

impl Progress {
    /// So many of so many, and what is being done; the note is cut at 256 characters.
    pub fn new(done: u64, total: u64, note: &str) -> Self {
        let note = note.chars().take(MAX_NOTE_CHARS).collect();
        Self { done, total, note, progress_reset: false }
    }
}

/// Why an attempt or a job failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A short name to act on, at most 128 characters.
    pub name: String,
    /// For people, at most 4,096 characters.
    pub message: String,
}

impl Failure {
    /// A failure with a name to act on and a message for people; both are cut at their limits.
    pub fn new(name: impl AsRef<str>, message: impl AsRef<str>) -> Self {
        let cut = |text: &str, max| text.chars().take(max).collect();
        Self {
            name: cut(name.as_ref(), MAX_ERROR_NAME_CHARS),
            message: cut(message.as_ref(), MAX_ERROR_MESSAGE_CHARS),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

impl Job {
    /// The queue's name.
    pub fn queue(&self) -> &str {
        self.queue.as_deref().unwrap_or(DEFAULT_QUEUE)
    }

    /// The key under which it was submitted.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.extra.as_ref()?.idempotency_key.as_deref()
    }

    /// The correlation id given by the caller.
    pub fn correlation_id(&self) -> Option<&str> {
        self.extra.as_ref()?.correlation_id.as_deref()
    }

    /// The labels.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.extra.iter().flat_map(|extra| &extra.labels);
        labels.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How far the handler has come.
    pub fn progress(&self) -> Option<&Progress> {
        self.extra.as_ref()?.progress.as_ref()
    }

    /// Why the job failed.
    pub fn error(&self) -> Option<&Failure> {
        self.extra.as_ref()?.error.as_ref()
    }

    /// Why the last attempt that failed did so.
    pub fn last_error(&self) -> Option<&Failure> {
        self.extra.as_ref()?.last_error.as_ref()
    }

    /// How often a person had it run again.
    pub fn manual_retries(&self) -> u32 {
        self.extra.as_ref().map_or(0, |extra| extra.manual_retries)
    }

    /// Whether somebody asked for it to be cancelled while it was running.
    pub fn cancel_requested(&self) -> bool {
        self.cancel_by().is_some()
    }

    /// The document as JSON: what HTTP shows and completion events carry.
    pub fn view(&self) -> Json {
        Json::of(&View(self)).unwrap_or(Json::null())
    }

    pub(crate) fn cancel_by(&self) -> Option<Timestamp> {
        self.extra.as_ref()?.cancel_by
    }

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Attempts since the last retry by hand.
    pub(crate) fn attempts_used(&self) -> u32 {
        let first = self.extra.as_ref().map_or(0, |extra| extra.first_attempt);
        self.attempt.saturating_sub(first)
    }

    /// When a sweep has to look at it again; starts are the outbox's business and leases the bus's.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        if self.status.is_final() {
            return self.expires_at.map(|time| time.round_up(SWEEP_STEP_MILLIS));
        }
        let cancel = self.cancel_by().filter(|_| self.status == Status::Running);
        match (self.deadline, cancel) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        }
    }
}

/// The name of the queue that jobs are in unless they say otherwise.
pub const DEFAULT_QUEUE: &str = "default";

/// The document as it is shown, with the scalar arguments at the top level (J-21).
struct View<'a>(&'a Job);

/// Fields that an argument cannot hide.
const FIELDS: [&str; 26] = [
    "id",
    "kind",
    "status",
    "args",
    "queue",
    "priority",
    "attempt",
    "max_attempts",
    "attempts",
    "progress",
    "result",
    "error",
    "last_error",
    "idempotency_key",
    "correlation_id",
    "labels",
    "created_at",
    "run_at",
    "started_at",
    "heartbeat_at",
    "finished_at",
    "deadline",
    "expires_at",
    "lease",
    "cancel_requested",
    "version",
];

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let job = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &job.id)?;
        map.serialize_entry("kind", &job.kind)?;
        map.serialize_entry("status", &job.status)?;
        let args: Option<BTreeMap<String, serde_json::Value>> = job.args.parse().ok();
        for (key, value) in args.iter().flatten() {
            let scalar = !value.is_object() && !value.is_array();
            if scalar && !FIELDS.contains(&key.as_str()) && key != "manual_retries" {
                map.serialize_entry(key, value)?;
            }
        }
        map.serialize_entry("args", &job.args)?;
        map.serialize_entry("queue", job.queue())?;
        map.serialize_entry("priority", &job.priority)?;
        map.serialize_entry("attempt", &job.attempt)?;
        map.serialize_entry("max_attempts", &job.max_attempts)?;
        map.serialize_entry("attempts", &Attempts(&job.attempts))?;
        map.serialize_entry("progress", &job.progress())?;
        map.serialize_entry("result", &job.result)?;
        map.serialize_entry("error", &job.error())?;
        map.serialize_entry("last_error", &job.last_error())?;
        map.serialize_entry("idempotency_key", &job.idempotency_key())?;
        map.serialize_entry("correlation_id", &job.correlation_id())?;
        let labels: BTreeMap<_, _> = job.labels().collect();
        map.serialize_entry("labels", &labels)?;
        map.serialize_entry("created_at", &Text(Some(job.created_at)))?;
        map.serialize_entry("run_at", &Text(Some(job.run_at)))?;
        map.serialize_entry("started_at", &Text(job.started_at))?;
        map.serialize_entry("heartbeat_at", &Text(job.heartbeat_at))?;
        map.serialize_entry("finished_at", &Text(job.finished_at))?;
        map.serialize_entry("deadline", &Text(job.deadline))?;
        map.serialize_entry("expires_at", &Text(job.expires_at))?;
        let lease = job.lease.as_ref();
        map.serialize_entry("lease", &lease.map(LeaseView))?;
        map.serialize_entry("cancel_requested", &job.cancel_requested())?;
        map.serialize_entry("manual_retries", &job.manual_retries())?;
        map.serialize_entry("version", &job.version)?;
        map.end()
    }
}

/// An instant as RFC 3339 (J-22).
struct Text(Option<Timestamp>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(time) => serializer.collect_str(&time),
            None => serializer.serialize_none(),
        }
    }
}

struct LeaseView<'a>(&'a Lease);

impl Serialize for LeaseView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("owner", &self.0.owner)?;
        map.serialize_entry("until", &Text(Some(self.0.until)))?;
        map.end()
    }
}

struct Attempts<'a>(&'a [Attempt]);

impl Serialize for Attempts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(AttemptView))
    }
}

struct AttemptView<'a>(&'a Attempt);

impl Serialize for AttemptView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attempt = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("n", &attempt.n)?;
        map.serialize_entry("worker", &attempt.worker)?;
        map.serialize_entry("started_at", &Text(Some(attempt.started_at)))?;
        map.serialize_entry("ended_at", &Text(attempt.ended_at))?;
        map.serialize_entry("outcome", &attempt.outcome)?;
        if let Some(error) = &attempt.error {
            map.serialize_entry("error", error)?;
        }
        map.end()
    }
}
