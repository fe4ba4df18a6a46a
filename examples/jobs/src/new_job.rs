//! A job as it is submitted, and the checks of its parts (J-20, J-23).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::document::{DEFAULT_QUEUE, Extra, Job, Status};
use crate::error::SubmitError;
use crate::id::JobId;
use crate::json::Json;
use crate::limits::{
    MAX_ARGS_BYTES, MAX_ATTEMPTS, MAX_KEY_BYTES, MAX_KIND_BYTES, MAX_LABEL_BYTES, MAX_LABELS,
};
use crate::time::{Timestamp, When};

/// A job to submit.
///
/// ```
/// use jobs::NewJob;
/// use std::time::Duration;
///
/// let job = NewJob::new("thumbnail", &serde_json::json!({"path": "cat.jpg"}))?
///     .idempotency_key("upload-17")
///     .deadline(Duration::from_secs(300))
///     .label("team", "pictures");
/// # Ok::<(), jobs::SubmitError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NewJob {
    pub(crate) kind: Arc<str>,
    pub(crate) args: Json,
    pub(crate) id: Option<JobId>,
    pub(crate) queue: Option<Arc<str>>,
    pub(crate) priority: i32,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) run_at: Option<When>,
    pub(crate) deadline: Option<When>,
    pub(crate) rest: Option<Box<Rest>>,
}

/// What few jobs have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rest {
    pub(crate) idempotency_key: Option<Arc<str>>,
    pub(crate) correlation_id: Option<Arc<str>>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl NewJob {
    /// A job of a kind, with arguments that become JSON.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Invalid`] if the arguments cannot be written as JSON.
    pub fn new(
        kind: impl Into<Arc<str>>,
        args: &(impl Serialize + ?Sized),
    ) -> Result<Self, SubmitError> {
        let args = Json::of(args)
            .map_err(|error| SubmitError::Invalid { field: "args", problem: error.to_string() })?;
        Ok(Self::with_json(kind, args))
    }

    /// A job of a kind, with arguments that are JSON already.
    pub fn with_json(kind: impl Into<Arc<str>>, args: Json) -> Self {
        Self {
            kind: kind.into(),
            args,
            id: None,
            queue: None,
            priority: 0,
            max_attempts: None,
            run_at: None,
            deadline: None,
            rest: None,
        }
    }

    /// Names the job; default: a ULID (J-20). Submitting the same job under the same id again
    /// answers the first one.
    #[must_use]
    pub fn id(mut self, id: JobId) -> Self {
        self.id = Some(id);
        self
    }

    /// Puts it into a queue of its own workers. Default: `default`.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<Arc<str>>) -> Self {
        let queue = queue.into();
        self.queue = (&*queue != DEFAULT_QUEUE).then_some(queue);
        self
    }

    /// Of jobs that wait, all above 0 start before the others, and all below 0 after them; beyond
    /// that, of jobs that a worker takes at once, or that wait for a place (J-39), those with a
    /// higher number start first. Default: 0.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// How many attempts it has, 1 to 1,000. Default: its kind's, or 5 (J-30).
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// When it may start: an instant or a span from now. Default: at once.
    #[must_use]
    pub fn run_at(mut self, when: impl Into<When>) -> Self {
        self.run_at = Some(when.into());
        self
    }

    /// When it fails if it has not finished: an instant or a span from now. Default: never.
    #[must_use]
    pub fn deadline(mut self, when: impl Into<When>) -> Self {
        self.deadline = Some(when.into());
        self
    }

    /// Makes submitting it twice harmless: the second time answers the first job (A-S0-j).
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.rest.get_or_insert_default().idempotency_key = Some(key.into());
        self
    }

    /// Travels with the completion event as the attribute `correlid` (J-36).
    #[must_use]
    pub fn correlation_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.rest.get_or_insert_default().correlation_id = Some(id.into());
        self
    }

    /// Adds a label, to list jobs by.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.rest.get_or_insert_default().labels.insert(key.into(), value.into());
        self
    }

    /// Checks every part against its limit.
    pub(crate) fn check(&self) -> Result<(), SubmitError> {
        check_name("kind", &self.kind)?;
        if let Some(queue) = &self.queue {
            check_name("queue", queue)?;
        }
        let (size, max) = (self.args.len(), MAX_ARGS_BYTES);
        if size > max {
            return Err(SubmitError::TooLarge { field: "args", size, max });
        }
        if let Some(attempts) = self.max_attempts
            && !(1..=MAX_ATTEMPTS).contains(&attempts)
        {
            let problem = format!("{attempts} is not from 1 to {MAX_ATTEMPTS}");
            return Err(SubmitError::Invalid { field: "max_attempts", problem });
        }
        match &self.rest {
            Some(rest) => rest.check(),
            None => Ok(()),
        }
    }

    /// The document of this job (J-01).
    pub(crate) fn into_job(self, id: JobId, max_attempts: u32, now: Timestamp) -> Job {
        let extra = self.rest.map(|rest| {
            Box::new(Extra {
                idempotency_key: rest.idempotency_key,
                correlation_id: rest.correlation_id,
                labels: rest.labels,
                ..Extra::default()
            })
        });
        Job {
            id,
            kind: self.kind,
            status: Status::Created,
            args: self.args,
            queue: self.queue,
            priority: self.priority,
            attempt: 0,
            max_attempts: self.max_attempts.unwrap_or(max_attempts),
            version: 1,
            created_at: now,
            run_at: self.run_at.map_or(now, |when| when.from(now)).max(now),
            started_at: None,
            heartbeat_at: None,
            finished_at: None,
            deadline: self.deadline.map(|when| when.from(now)),
            expires_at: None,
            lease: None,
            attempts: Default::default(),
            result: None,
            extra,
        }
    }
}

impl Rest {
    fn check(&self) -> Result<(), SubmitError> {
        let keys =
            [("idempotency_key", &self.idempotency_key), ("correlation_id", &self.correlation_id)];
        for (field, key) in keys {
            let Some(key) = key else { continue };
            if key.is_empty() {
                return Err(SubmitError::Invalid { field, problem: "is empty".to_owned() });
            }
            let (size, max) = (key.len(), MAX_KEY_BYTES);
            if size > max {
                return Err(SubmitError::TooLarge { field, size, max });
            }
        }
        if self.labels.len() > MAX_LABELS {
            let problem = format!("{} labels; at most {MAX_LABELS} are allowed", self.labels.len());
            return Err(SubmitError::Invalid { field: "labels", problem });
        }
        for (key, value) in &self.labels {
            if key.is_empty() || key.contains(':') {
                let problem = format!("key {key:?} is empty or has a colon");
                return Err(SubmitError::Invalid { field: "labels", problem });
            }
            let (size, max) = (key.len().max(value.len()), MAX_LABEL_BYTES);
            if size > max {
                return Err(SubmitError::TooLarge { field: "labels", size, max });
            }
        }
        Ok(())
    }
}

/// Kinds and queues: 1 to 128 letters, digits and `. _ - :`.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), SubmitError> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b':');
    if name.is_empty() || name.len() > MAX_KIND_BYTES || !name.bytes().all(fits) {
        let shown: String = name.chars().take(MAX_KIND_BYTES).collect();
        let problem = format!(
            "{shown:?} is no name: 1 to {MAX_KIND_BYTES} letters, digits and . _ - : are needed"
        );
        return Err(SubmitError::Invalid { field, problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> NewJob {
        NewJob::with_json("k", Json::null())
    }

    fn args(bytes: usize) -> Json {
        Json::of(&"x".repeat(bytes - 2)).unwrap()
    }

    #[test]
    fn every_limit_holds_on_both_sides() {
        // J-23
        let long = |bytes: usize| "x".repeat(bytes);
        let labels = |count: usize| (0..count).fold(job(), |job, n| job.label(n.to_string(), ""));
        let pairs = [
            (job().max_attempts(1), job().max_attempts(0)),
            (job().max_attempts(MAX_ATTEMPTS), job().max_attempts(MAX_ATTEMPTS + 1)),
            (job().queue(long(MAX_KIND_BYTES)), job().queue(long(MAX_KIND_BYTES + 1))),
            (
                job().idempotency_key(long(MAX_KEY_BYTES)),
                job().idempotency_key(long(MAX_KEY_BYTES + 1)),
            ),
            (job().correlation_id("c"), job().correlation_id("")),
            (labels(MAX_LABELS), labels(MAX_LABELS + 1)),
            (job().label("k", long(MAX_LABEL_BYTES)), job().label("k", long(MAX_LABEL_BYTES + 1))),
            (
                NewJob::with_json("k", args(MAX_ARGS_BYTES)),
                NewJob::with_json("k", args(MAX_ARGS_BYTES + 1)),
            ),
            (NewJob::with_json("a.b_c-d:E9", Json::null()), NewJob::with_json("a b", Json::null())),
        ];
        for (good, bad) in pairs {
            assert!(good.check().is_ok(), "{good:?}");
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
