//! Errors: one enum per boundary, each with a canonical code of gRPC.

use siftbus::Code;

use crate::document::Job;
use crate::id::JobId;
use crate::machine::Refused;

/// The store could not do what was asked; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another program, or another handle, has the store open.
    #[error("{path}: the store is in use by another program; it can be opened once")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file is no store of ours, or of a format this version does not know.
    #[error("{path}: {problem}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Reading or writing failed.
    #[error("the store failed: {0}")]
    Failed(String),
    /// A document cannot be read.
    #[error("the document of job {id} cannot be read: {problem}")]
    Corrupt {
        /// The job.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl StoreError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::InUse { .. } | Self::Format { .. } => Code::FailedPrecondition,
            Self::Failed(_) | Self::Corrupt { .. } => Code::Unavailable,
        }
    }
}

/// A job was not submitted; nothing was stored or sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// A part of it is not allowed.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A part of it is too large (J-23).
    #[error("{field} has {size} bytes; at most {max} are allowed")]
    TooLarge {
        /// Which part.
        field: &'static str,
        /// Its bytes.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The key or id was used for another job (A-S0-j).
    #[error("{field} {key:?} was used for job {id}, which is not the same")]
    Conflict {
        /// `idempotency_key` or `id`.
        field: &'static str,
        /// The key or id.
        key: String,
        /// The job that has it.
        id: JobId,
    },
    /// No handler is registered for the kind, and the builder asked for one.
    #[error("no handler for kind {kind:?}; known are {known:?}")]
    UnknownKind {
        /// The kind.
        kind: String,
        /// Those that are known.
        known: Vec<String>,
    },
    /// As many jobs as allowed wait or run already.
    #[error("{max} jobs are unfinished, which is the limit")]
    TooMany {
        /// How many are allowed.
        max: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SubmitError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } | Self::TooLarge { .. } | Self::UnknownKind { .. } => {
                Code::InvalidArgument
            }
            Self::Conflict { .. } => Code::AlreadyExists,
            Self::TooMany { .. } => Code::ResourceExhausted,
            Self::Store(error) => error.code(),
        }
    }
}

/// Something asked of a job was not done; the document is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobsError {
    /// There is no such job, or no longer.
    #[error("no job {0}")]
    NotFound(JobId),
    /// The state of the job does not allow it.
    #[error("job {id}: {reason}")]
    Refused {
        /// The job.
        id: JobId,
        /// Why not.
        reason: Refused,
    },
    /// The result is too large (J-23).
    #[error("the result has {size} bytes; at most {max} are allowed: store it and return where")]
    ResultTooLarge {
        /// Its bytes.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus is closed, or the subscription of the workers is gone.
    #[error("the bus does not deliver: {0}")]
    Bus(String),
}

impl JobsError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::Refused { .. } => Code::FailedPrecondition,
            Self::ResultTooLarge { .. } => Code::InvalidArgument,
            Self::Store(error) => error.code(),
            Self::Bus(_) => Code::Unavailable,
        }
    }

    pub(crate) fn refused(id: &JobId, reason: Refused) -> Self {
        Self::Refused { id: id.clone(), reason }
    }
}

/// A job did not finish in the time allowed, or cannot be watched.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time is over; the job goes on.
    #[error("job {} is still {}", .0.id, .0.status)]
    TimedOut(Box<Job>),
    /// There is no such job, or no longer.
    #[error(transparent)]
    Jobs(#[from] JobsError),
}

impl WaitError {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::TimedOut(_) => Code::DeadlineExceeded,
            Self::Jobs(error) => error.code(),
        }
    }
}

/// The job layer could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The topics or subscriptions could not be made.
    #[error(transparent)]
    Bus(#[from] siftbus::AdminError),
    /// A name is not allowed.
    #[error(transparent)]
    Name(#[from] SubmitError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
