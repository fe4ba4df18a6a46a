//! The engine: executions as pure state machines, a journal, and the bus.
//!
//! The core (`step`, `run`, `attempt`, `fold`) decides and knows no I/O. [`Engine`] around it
//! commits what was decided and then acts: it publishes invocations, takes replies, and fires what
//! is due. It is synchronous and holds no task; `flows.rs` drives it for asynchronous programs.

mod attempt;
mod by_event;
mod calls;
mod dispatch;
mod error;
mod event;
mod fold;
mod journal;
mod limits;
mod program;
mod recover;
mod replies;
mod run;
mod shell;
mod state;
mod step;
mod time;
mod token;

pub use by_event::ByEvent;
pub use calls::{Answer, Description, FlowDescription, Report, StartExecution, Started};
pub(crate) use dispatch::ensure_topic;
pub use dispatch::{CANCEL_TOPIC, REPLY_TOPIC, task_topic, worker_subscription};
pub use error::{FlowError, OpenError};
pub use event::*;
pub use fold::Misfit;
pub use limits::FlowLimits;
pub use program::{ListId, Program, StepId};
pub use shell::{Engine, EngineOptions, EngineStats};
pub use state::{Activity, Closed, EventId, Fan, Frame, Phase, Scope, State, Status, TaskState};
pub use step::{Command, Context, Signal, Transition, step};
pub use time::Timestamp;
#[cfg(feature = "jobs")]
pub(crate) use token::hex;
pub use token::{KEY_BYTES, TokenKey, TokenOf};
