//! Events of an execution: the only truth about it (F-120).
//!
//! The state is a fold over them. Each carries what the fold needs and nothing that can be computed
//! from the definition; the view that users see is made by [`Event::detail`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::time::Timestamp;

/// Why a step, a branch or an execution failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The name that `retry` and `catch` match.
    pub error: String,
    /// An explanation for people.
    pub cause: String,
}

impl Failure {
    /// A failure with a name and an explanation.
    pub fn new(error: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { error: error.into(), cause: cause.into() }
    }

    /// Whether `retry` and `catch` may stop it; limits of the engine cannot be caught.
    pub fn is_catchable(&self) -> bool {
        !matches!(self.error.as_str(), DATA_LIMIT | HISTORY_LIMIT | JOURNAL_CORRUPT)
    }
}

/// A step's data or the flow's output is too large (F-10).
pub const DATA_LIMIT: &str = "FnF.DataLimitExceeded";
/// The execution has used up its events (F-90).
pub const HISTORY_LIMIT: &str = "FnF.HistoryLimitExceeded";
/// A record of the execution cannot be read (F-124).
pub const JOURNAL_CORRUPT: &str = "FnF.JournalCorrupt";
/// An attempt of a task took longer than its `timeoutSeconds`.
pub const TASK_TIMEOUT: &str = "FnF.TaskTimeout";
/// A callback task did not report a heartbeat in time.
pub const HEARTBEAT_TIMEOUT: &str = "FnF.HeartbeatTimeout";
/// A `fail` step that names no error.
pub const STEP_FAILED: &str = "FnF.StepFailed";
/// A collection, duration or timestamp that cannot be used.
pub const PARAMETER_ERROR: &str = "FnF.ParameterError";
/// A task's result is not a JSON object (F-09).
pub const INVALID_OUTPUT: &str = "FnF.InvalidOutput";
/// An invocation was delivered too often without a reply.
pub const WORKER_LOST: &str = "FnF.WorkerLost";
/// A child flow ran out of time.
pub const EXECUTION_TIMEOUT: &str = "FnF.ExecutionTimeout";
/// A child flow was stopped.
pub const EXECUTION_STOPPED: &str = "FnF.ExecutionStopped";
/// A function failed without a name.
pub const FUNCTION_UNKNOWN: &str = "FC.Unknown";
/// Nobody serves the resource.
pub const FUNCTION_NOT_FOUND: &str = "FC.FunctionNotFound";
/// The pattern that matches every catchable error.
pub const ALL_ERRORS: &str = "FnF.ALL";

/// One event of an execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counted from 1 without gaps.
    pub id: u32,
    /// When it was decided.
    pub time: Timestamp,
    /// The step it is about; empty for those of the execution.
    pub step: Arc<str>,
    /// For `Task*` the id of its `TaskScheduled`, for `Step*`, `Branch*` and `Iteration*` that of
    /// its `StepEntered`, otherwise 0.
    pub scheduled: u32,
    /// What happened.
    pub kind: EventKind,
}

/// What happened, with what the fold has to know about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the service; the fields say what they hold")]
pub enum EventKind {
    ExecutionStarted {
        input: Arc<Value>,
        /// The flow's own input, where its `inputMappings` make another one of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mapped: Option<Arc<Value>>,
    },
    ExecutionStopped(Failure),
    ExecutionSucceeded {
        output: Arc<Value>,
    },
    ExecutionFailed(Failure),
    ExecutionTimedOut,
    StepEntered {
        /// The event that opened the list in which the step stands.
        scope: u32,
        input: Arc<Value>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
    },
    StepStarted {
        /// When a wait ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// Which branch a choice took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        choice: Option<Taken>,
        /// What a `foreach` goes through.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        items: Option<Arc<Vec<Value>>>,
    },
    StepSucceeded,
    StepFailed(Failure),
    StepExited {
        /// Absent where the step failed and nothing caught it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Arc<Value>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        goto: Option<Arc<str>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
    },
    BranchEntered {
        index: u32,
    },
    BranchExited {
        index: u32,
        status: BranchStatus,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    IterationEntered {
        index: u32,
    },
    IterationExited {
        index: u32,
        status: BranchStatus,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    TaskScheduled {
        /// The step's `StepEntered`.
        entered: u32,
        attempt: u32,
        input: Arc<Value>,
        /// The evaluated `serviceParams`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        params: Option<Arc<Value>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
    },
    TaskStarted,
    TaskSubmitted {
        output: Arc<Value>,
    },
    TaskSubmitFailed(Failure),
    TaskSucceeded {
        output: Arc<Value>,
    },
    TaskFailed(Failure),
    TaskTimedOut(Failure),
}

/// Which branch a choice took.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taken {
    /// The condition with this index was the first true one.
    Choice(u32),
    /// None was true.
    Default,
}

/// How a branch or an iteration ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BranchStatus {
    /// Its last step ended.
    Succeeded,
    /// An error left it.
    Failed,
    /// Another branch failed first (F-52).
    Aborted,
}

impl BranchStatus {
    fn name(self) -> &'static str {
        match self {
            BranchStatus::Succeeded => "Succeeded",
            BranchStatus::Failed => "Failed",
            BranchStatus::Aborted => "Aborted",
        }
    }
}

impl EventKind {
    /// The event's type as the service names it.
    pub fn name(&self) -> &'static str {
        match self {
            EventKind::ExecutionStarted { .. } => "ExecutionStarted",
            EventKind::ExecutionStopped(_) => "ExecutionStopped",
            EventKind::ExecutionSucceeded { .. } => "ExecutionSucceeded",
            EventKind::ExecutionFailed(_) => "ExecutionFailed",
            EventKind::ExecutionTimedOut => "ExecutionTimedOut",
            EventKind::StepEntered { .. } => "StepEntered",
            EventKind::StepStarted { .. } => "StepStarted",
            EventKind::StepSucceeded => "StepSucceeded",
            EventKind::StepFailed(_) => "StepFailed",
            EventKind::StepExited { .. } => "StepExited",
            EventKind::BranchEntered { .. } => "BranchEntered",
            EventKind::BranchExited { .. } => "BranchExited",
            EventKind::IterationEntered { .. } => "IterationEntered",
            EventKind::IterationExited { .. } => "IterationExited",
            EventKind::TaskScheduled { .. } => "TaskScheduled",
            EventKind::TaskStarted => "TaskStarted",
            EventKind::TaskSubmitted { .. } => "TaskSubmitted",
            EventKind::TaskSubmitFailed(_) => "TaskSubmitFailed",
            EventKind::TaskSucceeded { .. } => "TaskSucceeded",
            EventKind::TaskFailed(_) => "TaskFailed",
            EventKind::TaskTimedOut(_) => "TaskTimedOut",
        }
    }

    /// Whether an execution ends with it.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            EventKind::ExecutionStopped(_)
                | EventKind::ExecutionSucceeded { .. }
                | EventKind::ExecutionFailed(_)
                | EventKind::ExecutionTimedOut
        )
    }
}

impl Event {
    /// The detail that users see, as a JSON object.
    pub fn detail(&self, execution: &str) -> Value {
        let failed = |failure: &Failure| json!({"error": failure.error, "cause": failure.cause});
        match &self.kind {
            EventKind::ExecutionStarted { input, .. } => json!({"input": input}),
            EventKind::ExecutionSucceeded { output } => json!({"output": output}),
            EventKind::ExecutionTimedOut | EventKind::StepSucceeded | EventKind::TaskStarted => {
                json!({})
            }
            EventKind::ExecutionStopped(failure)
            | EventKind::ExecutionFailed(failure)
            | EventKind::StepFailed(failure)
            | EventKind::TaskSubmitFailed(failure)
            | EventKind::TaskFailed(failure)
            | EventKind::TaskTimedOut(failure) => failed(failure),
            EventKind::StepEntered { input, missing, .. } => {
                with_missing(json!({"input": input}), missing)
            }
            EventKind::StepStarted { until, choice, items } => {
                let mut detail = serde_json::Map::new();
                if let Some(until) = until {
                    detail.insert("until".to_owned(), json!(until.to_string()));
                }
                match choice {
                    Some(Taken::Choice(index)) => {
                        detail.insert("choice".to_owned(), json!(index));
                    }
                    Some(Taken::Default) => {
                        detail.insert("choice".to_owned(), json!("default"));
                    }
                    None => {}
                }
                if let Some(items) = items {
                    detail.insert("iterations".to_owned(), json!(items.len()));
                }
                Value::Object(detail)
            }
            EventKind::StepExited { output, goto, missing } => {
                let mut detail = serde_json::Map::new();
                if let Some(output) = output {
                    detail.insert("output".to_owned(), (**output).clone());
                }
                if let Some(goto) = goto {
                    detail.insert("goto".to_owned(), json!(goto));
                }
                with_missing(Value::Object(detail), missing)
            }
            EventKind::BranchEntered { index } | EventKind::IterationEntered { index } => {
                json!({"index": index})
            }
            EventKind::BranchExited { index, status, failure }
            | EventKind::IterationExited { index, status, failure } => {
                let mut detail = json!({"index": index, "status": status.name()});
                if let Some(failure) = failure {
                    set(&mut detail, "error", json!(failure.error));
                    set(&mut detail, "cause", json!(failure.cause));
                }
                detail
            }
            EventKind::TaskScheduled { attempt, input, params, missing, .. } => {
                let task_id = format!("{execution}/{}", self.id);
                let mut detail = json!({"taskId": task_id, "attempt": attempt, "input": input});
                if let Some(params) = params {
                    set(&mut detail, "serviceParams", (**params).clone());
                }
                with_missing(detail, missing)
            }
            EventKind::TaskSubmitted { output } | EventKind::TaskSucceeded { output } => {
                json!({"output": output})
            }
        }
    }

    /// The event as `GetExecutionHistory` answers it.
    pub fn view(&self, execution: &str) -> Value {
        json!({
            "EventId": self.id,
            "ScheduleEventId": self.scheduled,
            "StepName": self.step,
            "Time": self.time.to_string(),
            "Type": self.kind.name(),
            "EventDetail": self.detail(execution).to_string(),
        })
    }
}

fn set(detail: &mut Value, key: &str, value: Value) {
    if let Value::Object(detail) = detail {
        detail.insert(key.to_owned(), value);
    }
}

fn with_missing(mut detail: Value, missing: &[String]) -> Value {
    if !missing.is_empty() {
        set(&mut detail, "missing", json!(missing));
    }
    detail
}
