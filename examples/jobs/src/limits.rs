//! Every bound of the job layer, as a named constant (J-23).

use std::time::Duration;

/// Bytes of a job's id (J-20).
pub const MAX_ID_BYTES: usize = 128;
/// Bytes of a job's kind, and of a queue's name: letters, digits and `. _ - :`.
pub const MAX_KIND_BYTES: usize = 128;
/// Bytes of a job's arguments as JSON (J-23).
pub const MAX_ARGS_BYTES: usize = 256 * 1024;
/// Bytes of a job's result as JSON (J-23).
pub const MAX_RESULT_BYTES: usize = 256 * 1024;
/// Attempts that a document remembers; older ones are forgotten (J-23).
pub const MAX_ATTEMPTS_KEPT: usize = 20;
/// Characters of a progress note; longer ones are cut (J-23).
pub const MAX_NOTE_CHARS: usize = 256;
/// Labels of a job (J-23).
pub const MAX_LABELS: usize = 64;
/// Bytes of a label's key and of its value.
pub const MAX_LABEL_BYTES: usize = 256;
/// Bytes of an idempotency key and of a correlation id.
pub const MAX_KEY_BYTES: usize = 256;
/// Characters of an error's name; longer ones are cut.
pub const MAX_ERROR_NAME_CHARS: usize = 128;
/// Characters of an error's message; longer ones are cut.
pub const MAX_ERROR_MESSAGE_CHARS: usize = 4_096;
/// Attempts that a job may have.
pub const MAX_ATTEMPTS: u32 = 1_000;
/// Attempts that a job has unless it says otherwise (J-30).
pub const DEFAULT_MAX_ATTEMPTS: u32 = 5;
/// Bytes of a value that is copied to an attribute of the message.
pub const MAX_ATTRIBUTE_BYTES: usize = 1_024;
/// Bytes of the name of such a value.
pub const MAX_ATTRIBUTE_KEY_BYTES: usize = 64;
/// Attributes that are copied from the arguments; further ones stay in the arguments alone.
pub const MAX_ATTRIBUTES: usize = 64;
/// Queues that one program may use.
pub const MAX_QUEUES: usize = 64;
/// Jobs that wait or run at the same time, unless the builder says otherwise.
pub const DEFAULT_MAX_UNFINISHED: u64 = 1_000_000;
/// Jobs of one submission.
pub const MAX_SUBMIT: usize = 10_000;
/// Jobs of one page of a list, unless the request says otherwise (HTTP).
pub const DEFAULT_PAGE: usize = 100;
/// Jobs of one page of a list.
pub const MAX_PAGE: usize = 1_000;
/// Bytes of a request's body (HTTP).
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Bytes of a request's body that are read, though refused, so that the answer arrives (HTTP).
#[cfg(feature = "http")]
pub(crate) const MAX_SKIPPED_BYTES: usize = 64 * 1024 * 1024;
/// How long a request may wait for a change (HTTP).
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// How long a finished job is kept: completed (J-38).
pub const DEFAULT_COMPLETED_TTL: Duration = Duration::from_secs(24 * 3_600);
/// How long a finished job is kept: failed or cancelled (J-38).
pub const DEFAULT_FAILED_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long a worker has a job between two heartbeats (J-31).
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);
/// How long a handler has to stop after its job was cancelled (A-S0-g).
pub const DEFAULT_CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Documents that one sweep looks at (J-38), and messages of one publish.
pub(crate) const SWEEP_BATCH: usize = 500;
/// Finished jobs leave together with those of the same second.
pub(crate) const SWEEP_STEP_MILLIS: u64 = 1_000;
/// Jobs that a worker may have at a time.
pub const MAX_CONCURRENCY: usize = 65_536;
/// Jobs that a worker takes at once.
pub(crate) const CLAIM_BATCH: usize = 256;
/// For how long a worker calls the handlers of a batch one after the other; whoever is left then,
/// or does not answer at once, gets a task of its own.
pub(crate) const QUICK_SPAN: Duration = Duration::from_millis(10);
/// How long a worker waits after the store has failed.
pub(crate) const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long a job waits for a program that knows its kind.
pub(crate) const UNKNOWN_KIND_PAUSE: Duration = Duration::from_secs(5);
/// Changes of one job that a watcher may be behind.
pub(crate) const WATCH_CAPACITY: usize = 64;
