//! What calls of the engine answer when they refuse.

use siftbus::{AdminError, Code};

use crate::language::DefinitionError;
use crate::store::StoreError;

/// Why a call was refused; nothing has changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The task token was not made by this engine's store (A-S4-a).
    #[error("the task token is not valid")]
    InvalidTaskToken,
    /// No execution of this name.
    #[error("there is no execution {0}")]
    ExecutionNotExists(String),
    /// The task took too long before (A-S4-d).
    #[error("the task has timed out")]
    TaskTimedOut,
    /// The task was reported otherwise before, or could not be submitted (A-S4-b).
    #[error("the task has been completed before")]
    TaskAlreadyCompleted,
    /// The branch of the task was aborted (F-52).
    #[error("the branch of the task was aborted")]
    TaskCancelled,
    /// The execution has ended (A-S4-f).
    #[error("the execution is not running")]
    ExecutionNotRunning,
    /// The reported output is not a JSON object (A-S4-g).
    #[error("the output is not a JSON object")]
    InvalidOutput,
    /// Something is larger than a limit allows.
    #[error("{what} has {bytes} bytes, at most {max} are allowed")]
    EntityTooLarge {
        /// What is.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// An argument cannot be used.
    #[error("{0}")]
    InvalidArgument(String),
    /// The definition has errors: all of them, ordered by position.
    #[error("the definition has {} errors", .0.len())]
    InvalidDefinition(Vec<DefinitionError>),
    /// There is a flow of this name.
    #[error("there is a flow {0}")]
    FlowAlreadyExists(String),
    /// No flow of this name.
    #[error("there is no flow {0}")]
    FlowNotExists(String),
    /// An execution of this name has ended (A-S2-g).
    #[error("there was an execution {0}")]
    ExecutionAlreadyExists(String),
    /// As many executions run as may.
    #[error("{0} executions are running, no more are allowed")]
    TooManyExecutions(usize),
    /// There are as many flows as may be.
    #[error("there are {0} flows, no more are allowed")]
    TooManyFlows(usize),
    /// The store failed; the engine has to be opened again.
    #[error("the engine cannot go on: {0}")]
    Unavailable(StoreError),
    /// The engine was dropped.
    #[error("the engine is closed")]
    Closed,
}

impl FlowError {
    /// The name of the error in answers, as the service writes it.
    pub fn name(&self) -> &'static str {
        match self {
            FlowError::InvalidTaskToken => "InvalidTaskToken",
            FlowError::ExecutionNotExists(_) => "ExecutionNotExists",
            FlowError::TaskTimedOut => "TaskTimedOut",
            FlowError::TaskAlreadyCompleted => "TaskAlreadyCompleted",
            FlowError::TaskCancelled => "TaskCancelled",
            FlowError::ExecutionNotRunning => "ExecutionNotRunning",
            FlowError::InvalidOutput => "InvalidOutput",
            FlowError::EntityTooLarge { .. } => "EntityTooLarge",
            FlowError::InvalidArgument(_) => "InvalidArgument",
            FlowError::InvalidDefinition(_) => "InvalidDefinition",
            FlowError::FlowAlreadyExists(_) => "FlowAlreadyExists",
            FlowError::FlowNotExists(_) => "FlowNotExists",
            FlowError::ExecutionAlreadyExists(_) => "ExecutionAlreadyExists",
            FlowError::TooManyExecutions(_) => "TooManyExecutions",
            FlowError::TooManyFlows(_) => "TooManyFlows",
            FlowError::Unavailable(_) | FlowError::Closed => "Unavailable",
        }
    }

    /// The status with which HTTP answers.
    pub fn http_status(&self) -> u16 {
        match self {
            FlowError::InvalidTaskToken
            | FlowError::InvalidOutput
            | FlowError::EntityTooLarge { .. }
            | FlowError::InvalidArgument(_)
            | FlowError::InvalidDefinition(_) => 400,
            FlowError::ExecutionNotExists(_) | FlowError::FlowNotExists(_) => 404,
            FlowError::TaskTimedOut
            | FlowError::TaskAlreadyCompleted
            | FlowError::TaskCancelled
            | FlowError::ExecutionNotRunning
            | FlowError::FlowAlreadyExists(_)
            | FlowError::ExecutionAlreadyExists(_) => 409,
            FlowError::TooManyExecutions(_) | FlowError::TooManyFlows(_) => 429,
            FlowError::Unavailable(_) | FlowError::Closed => 503,
        }
    }

    /// The canonical code.
    pub fn code(&self) -> Code {
        match self {
            FlowError::InvalidTaskToken
            | FlowError::InvalidOutput
            | FlowError::EntityTooLarge { .. }
            | FlowError::InvalidArgument(_)
            | FlowError::InvalidDefinition(_) => Code::InvalidArgument,
            FlowError::ExecutionNotExists(_) | FlowError::FlowNotExists(_) => Code::NotFound,
            FlowError::TaskTimedOut
            | FlowError::TaskAlreadyCompleted
            | FlowError::TaskCancelled
            | FlowError::ExecutionNotRunning => Code::FailedPrecondition,
            FlowError::FlowAlreadyExists(_) | FlowError::ExecutionAlreadyExists(_) => {
                Code::AlreadyExists
            }
            FlowError::TooManyExecutions(_) | FlowError::TooManyFlows(_) => Code::ResourceExhausted,
            FlowError::Unavailable(_) | FlowError::Closed => Code::Unavailable,
        }
    }
}

/// Why an engine cannot be opened; nothing in the store has changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store fails or is of another format.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus refuses the topics of the engine.
    #[error(transparent)]
    Bus(#[from] AdminError),
    /// The system gives no random bytes for the key of the tokens.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}
