//! The state of one execution: plain data, a fold over its events.
//!
//! A *scope* is a running list of steps; a *frame* is a step that was entered and has not
//! exited. Both
//! are named by the event that opened them, so that events and state refer to each other without
//! further numbers. What changes the state is in `fold.rs`, what decides in `step.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::by_event::ByEvent;
use super::event::{Failure, Taken};
use super::program::{ListId, StepId};
use super::time::Timestamp;

/// An event that opened a scope or a frame, or scheduled a task.
pub type EventId = u32;

/// Where an execution stands.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Nothing was written yet.
    #[default]
    Starting,
    /// Not final.
    Running,
    /// Stopped by a call.
    Stopped,
    /// Its list came to its end.
    Succeeded,
    /// An error left it.
    Failed,
    /// Its `timeoutSeconds` are over.
    TimedOut,
}

impl Status {
    /// Whether it stays as it is.
    pub fn is_final(self) -> bool {
        !matches!(self, Status::Starting | Status::Running)
    }

    /// The name as the service writes it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Starting => "Starting",
            Status::Running => "Running",
            Status::Stopped => "Stopped",
            Status::Succeeded => "Succeeded",
            Status::Failed => "Failed",
            Status::TimedOut => "TimedOut",
        }
    }
}

/// The state of one execution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// The id of the last event; 0 before the first.
    pub last_event: EventId,
    /// The Input of the execution.
    pub input: Arc<Value>,
    /// When it started.
    pub started: Timestamp,
    /// When it ended, if it did.
    pub ended: Option<Timestamp>,
    /// When `timeoutSeconds` are over.
    pub deadline: Option<Timestamp>,
    /// What it came to, if it succeeded.
    pub output: Option<Arc<Value>>,
    /// Why it did not succeed.
    pub failure: Option<Failure>,
    /// Running lists, by the event that opened them.
    pub scopes: ByEvent<Scope>,
    /// Steps entered and not exited, by their `StepEntered`.
    pub frames: ByEvent<Frame>,
    /// Callback tasks that are over, by their `TaskScheduled`: what a report on them is told.
    pub closed: BTreeMap<EventId, Closed>,
}

/// A running list of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// The frame that it belongs to; 0 for the flow.
    pub owner: EventId,
    /// Which branch or iteration of the owner.
    pub index: u32,
    /// Its steps.
    pub list: ListId,
    /// What its steps see as the input of their parent.
    pub input: Arc<Value>,
    /// The union of the outputs of its finished steps (F-01); an object.
    pub local: Value,
    /// The step that runs, or comes next.
    pub position: u32,
    /// The frame that runs in it; 0 between two steps.
    pub current: EventId,
}

/// A step that was entered and has not exited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The scope in whose list the step stands.
    pub scope: EventId,
    /// The step.
    pub step: StepId,
    /// Its input.
    pub input: Arc<Value>,
    /// Retries used, by policy (F-70); empty while none was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<u32>,
    /// What it does.
    pub activity: Activity,
}

/// What an entered step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Activity {
    /// Nothing that takes time.
    Instant,
    /// Waits.
    Wait {
        /// Until then.
        until: Timestamp,
    },
    /// Runs the steps of the branch it took.
    Choice {
        /// The branch; `None` if there was none to take.
        taken: Option<Taken>,
    },
    /// Runs branches or iterations.
    Fan(Fan),
    /// Has an attempt of a task out.
    Task(TaskState),
    /// Waits to be tried again.
    Retry {
        /// Until then.
        until: Timestamp,
        /// Attempts of a task so far.
        attempts: u32,
        /// The elements of a `foreach`.
        items: Option<Arc<Vec<Value>>>,
    },
    /// Has failed; what follows stands in the next events.
    Failed(Failure),
}

/// Branches or iterations of one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fan {
    /// The elements, if it is a `foreach`.
    pub items: Option<Arc<Vec<Value>>>,
    /// How many there are.
    pub total: u32,
    /// How many have been entered.
    pub entered: u32,
    /// How many have succeeded.
    pub finished: u32,
    /// Those that run, by index.
    pub running: BTreeMap<u32, EventId>,
    /// The locals of those that succeeded, by index.
    pub locals: BTreeMap<u32, Value>,
}

/// An attempt of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    /// Its `TaskScheduled`; 0 before there is one.
    pub scheduled: EventId,
    /// Counted from 1.
    pub attempt: u32,
    /// The input of this attempt.
    pub input: Arc<Value>,
    /// The evaluated `serviceParams`.
    pub params: Option<Arc<Value>>,
    /// How far it has come.
    pub phase: Phase,
    /// When it is over its `timeoutSeconds`.
    pub deadline: Option<Timestamp>,
    /// When the next heartbeat is due.
    pub heartbeat: Option<Timestamp>,
}

/// How far an attempt of a task has come.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Published, or about to be.
    Scheduled,
    /// Handed to a worker.
    Started,
    /// Submitted; a report is waited for.
    Submitted,
}

/// How a callback task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closed {
    /// It took too long.
    TimedOut,
    /// It was reported.
    Reported {
        /// The event that the report made.
        event: EventId,
        /// A digest of what was reported.
        digest: String,
    },
    /// It could not be submitted.
    Ended,
    /// Its branch was aborted.
    Cancelled,
}

impl State {
    /// When something falls due, at the earliest.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.status != Status::Running {
            return None;
        }
        self.frames.values().filter_map(Frame::due).chain(self.deadline).min()
    }

    /// The indices that lead to a scope from the top: branches and iterations advance in this
    /// order (F-54).
    pub fn path(&self, scope: EventId) -> Vec<u32> {
        let mut path = Vec::new();
        let mut next = self.scopes.get(scope);
        while let Some(scope) = next {
            if scope.owner == 0 {
                break;
            }
            path.push(scope.index);
            next = self.frames.get(scope.owner).and_then(|frame| self.scopes.get(frame.scope));
        }
        path.reverse();
        path
    }

    /// The frame whose task has this `TaskScheduled` out.
    pub fn task_frame(&self, scheduled: EventId) -> Option<(EventId, &Frame, &TaskState)> {
        // A frame is older than its task, and there are few frames: look from the newest back.
        self.frames.before(scheduled).rev().find_map(|(id, frame)| match &frame.activity {
            Activity::Task(task) if task.scheduled == scheduled => Some((id, frame, task)),
            _ => None,
        })
    }

    /// The attempts that are out: each frame with its task.
    pub fn open_tasks(&self) -> impl Iterator<Item = (&Frame, &TaskState)> {
        self.frames.values().filter_map(|frame| match &frame.activity {
            Activity::Task(task) if task.scheduled != 0 => Some((frame, task)),
            _ => None,
        })
    }
}

impl Frame {
    /// When the frame goes on by itself, if it does.
    pub fn due(&self) -> Option<Timestamp> {
        match &self.activity {
            Activity::Wait { until } | Activity::Retry { until, .. } => Some(*until),
            Activity::Task(task) => match (task.deadline, task.heartbeat) {
                (Some(deadline), Some(heartbeat)) => Some(deadline.min(heartbeat)),
                (deadline, heartbeat) => deadline.or(heartbeat),
            },
            _ => None,
        }
    }
}
