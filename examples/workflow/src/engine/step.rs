//! The decisions: what follows from a signal, as events and commands.
//!
//! [`step`] is pure: no clock, no lock, no I/O; the same state, signals and time give the same
//! transition (F-121). It changes the state by applying the events it emits and by nothing else, so
//! replaying them gives the same state. The parts are in `run.rs` (going through lists) and
//! `attempt.rs` (tasks, retries, timers); this file holds what they share.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::event::{Event, EventKind, Failure, HISTORY_LIMIT};
use super::limits::FlowLimits;
use super::program::Program;
use super::state::{Activity, EventId, Frame, State};
use super::time::Timestamp;
use super::token::TokenKey;
use crate::language::{Mapping, Pattern, Root, Source, Step, Task};

/// What an execution decides with, besides its state.
#[derive(Copy, Clone, Debug)]
pub struct Context<'a> {
    /// The definition that the execution started with.
    pub program: &'a Program,
    /// The limits in force.
    pub limits: &'a FlowLimits,
    /// What task tokens are made with.
    pub key: &'a TokenKey,
    /// The flow's name.
    pub flow: &'a str,
    /// The execution's name.
    pub execution: &'a str,
}

/// What happens to an execution.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// It starts.
    Start {
        /// Its Input, an object.
        input: Arc<Value>,
    },
    /// It is stopped by a call.
    Stop(Failure),
    /// Time has moved on: whatever is due is done.
    Due,
    /// An invocation was handed to a worker.
    TaskStarted(EventId),
    /// An invocation was answered, or a message published, or a child flow started or ended.
    TaskDone {
        /// The `TaskScheduled`.
        task: EventId,
        /// What came of it.
        result: Result<Value, Failure>,
    },
    /// Nobody can be given the invocation.
    TaskRefused {
        /// The `TaskScheduled`.
        task: EventId,
        /// Why.
        failure: Failure,
    },
    /// Somebody reported the result of a callback task.
    TaskReported {
        /// The `TaskScheduled`.
        task: EventId,
        /// What was reported.
        result: Result<Value, Failure>,
    },
    /// Somebody reported that a task is alive.
    TaskHeartbeat(EventId),
}

/// What to do once the events are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Hand out the invocation with this `TaskScheduled`.
    Dispatch(EventId),
    /// Tell whoever works on it that the result is not wanted any more.
    Cancel {
        /// The `TaskScheduled`.
        task: EventId,
        /// The step's number.
        step: u32,
    },
    /// Tell who waits for the execution that it has ended.
    Finished,
}

/// What follows from signals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transition {
    /// To be written to the journal.
    pub events: Vec<Event>,
    /// To be carried out after that.
    pub commands: Vec<Command>,
}

/// Decides what follows from signals that arrive at one instant, and moves the state there.
///
/// Branches that become runnable advance in index order, each until it blocks (F-54), so the
/// signals are taken in that order; signals that mean nothing any more are ignored (F-111).
pub fn step(
    context: &Context<'_>,
    state: &mut State,
    signals: Vec<Signal>,
    now: Timestamp,
) -> Transition {
    let mut machine =
        Machine { context, state, now, ready: BTreeMap::new(), transition: Transition::default() };
    for signal in machine.in_order(signals) {
        // A halt means that the execution has ended; the signals that are left mean nothing then.
        if machine.take(signal).and_then(|()| machine.run()).is_err() {
            break;
        }
    }
    machine.transition
}

/// The execution has ended in the middle of a decision.
#[derive(Debug)]
pub(super) struct Halt;

pub(super) type Decided = Result<(), Halt>;

/// One signal in the order in which an instant's signals are taken.
#[derive(Debug)]
pub(super) enum Turn {
    Signal(Signal),
    FrameDue(EventId),
    Deadline,
}

pub(super) struct Machine<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) state: &'a mut State,
    pub(super) now: Timestamp,
    /// Scopes that can go on, by their path.
    pub(super) ready: BTreeMap<Vec<u32>, EventId>,
    transition: Transition,
}

impl Machine<'_> {
    /// Signals by due time and path; timers come before what arrives at the same place.
    fn in_order(&self, signals: Vec<Signal>) -> Vec<Turn> {
        if let [only] = signals.as_slice()
            && !matches!(only, Signal::Due)
        {
            return signals.into_iter().map(Turn::Signal).collect();
        }
        let now = self.now;
        let mut turns: Vec<((Timestamp, Vec<u32>), Turn)> = Vec::new();
        if signals.contains(&Signal::Due) {
            if let Some(deadline) = self.state.deadline.filter(|deadline| *deadline <= now) {
                turns.push(((deadline, Vec::new()), Turn::Deadline));
            }
            for (id, frame) in self.state.frames.iter() {
                if let Some(due) = frame.due().filter(|due| *due <= now) {
                    turns.push(((due, self.state.path(frame.scope)), Turn::FrameDue(id)));
                }
            }
        }
        for signal in signals {
            let task = match &signal {
                Signal::Due => continue,
                Signal::TaskStarted(task)
                | Signal::TaskDone { task, .. }
                | Signal::TaskRefused { task, .. }
                | Signal::TaskReported { task, .. }
                | Signal::TaskHeartbeat(task) => Some(*task),
                Signal::Start { .. } | Signal::Stop(_) => None,
            };
            let frame = task.and_then(|task| self.state.task_frame(task));
            let path = frame.map(|(_, frame, _)| self.state.path(frame.scope)).unwrap_or_default();
            turns.push(((now, path), Turn::Signal(signal)));
        }
        turns.sort_by(|a, b| a.0.cmp(&b.0));
        turns.into_iter().map(|(_, turn)| turn).collect()
    }

    fn take(&mut self, turn: Turn) -> Decided {
        match turn {
            Turn::Signal(Signal::Start { input }) => self.start(input),
            _ if self.state.last_event == 0 || self.state.status.is_final() => Err(Halt),
            Turn::Signal(Signal::Stop(failure)) => {
                self.finish(EventKind::ExecutionStopped(failure))
            }
            Turn::Deadline => self.finish(EventKind::ExecutionTimedOut),
            Turn::FrameDue(frame) => self.frame_due(frame),
            Turn::Signal(Signal::TaskStarted(task)) => self.task_started(task),
            Turn::Signal(Signal::TaskDone { task, result }) => self.task_done(task, result, true),
            Turn::Signal(Signal::TaskRefused { task, failure }) => {
                self.task_done(task, Err(failure), false)
            }
            Turn::Signal(Signal::TaskReported { task, result }) => self.reported(task, result),
            Turn::Signal(Signal::TaskHeartbeat(task)) => {
                self.heartbeat(task);
                Ok(())
            }
            Turn::Signal(Signal::Due) => Ok(()),
        }
    }

    /// Emits an event and applies it. Without room for it the execution ends: the last place is
    /// kept for that (F-90).
    pub(super) fn emit(
        &mut self,
        step: &Arc<str>,
        scheduled: Of,
        kind: EventKind,
    ) -> Result<EventId, Halt> {
        let id = self.state.last_event + 1;
        if id >= self.context.limits.events {
            let cause = format!("an execution has at most {} events", self.context.limits.events);
            let failure = Failure::new(HISTORY_LIMIT, cause);
            self.finish(EventKind::ExecutionFailed(failure))?;
        }
        let scheduled = match scheduled {
            Of::Itself => id,
            Of::Event(event) => event,
        };
        self.push(Event { id, time: self.now, step: Arc::clone(step), scheduled, kind });
        Ok(id)
    }

    /// Ends the execution; never comes back with `Ok`.
    pub(super) fn finish(&mut self, kind: EventKind) -> Decided {
        let open: Vec<_> = self.state.open_tasks().map(|(f, t)| (f.step, t.scheduled)).collect();
        for (step, task) in open {
            self.command(Command::Cancel { task, step });
        }
        let id = self.state.last_event + 1;
        self.push(Event { id, time: self.now, step: Arc::from(""), scheduled: 0, kind });
        self.ready.clear();
        self.command(Command::Finished);
        Err(Halt)
    }

    fn push(&mut self, event: Event) {
        if let Err(misfit) = self.state.apply(self.context.program, &event) {
            unreachable!("the fold takes what is decided: {misfit}, {event:?}");
        }
        self.transition.events.push(event);
    }

    pub(super) fn command(&mut self, command: Command) {
        self.transition.commands.push(command);
    }

    /// Lets a scope go on.
    pub(super) fn make_ready(&mut self, scope: EventId) {
        let path = self.state.path(scope);
        self.ready.insert(path, scope);
    }

    /// A frame and its step. Both exist while a decision is made about them.
    pub(super) fn frame(&self, id: EventId) -> (&Frame, Arc<Step>) {
        let frame = self.state.frames.get(id).expect("a decision is about a step that runs");
        let step = self.context.program.step(frame.step).expect("frames hold steps that exist");
        (frame, Arc::clone(step))
    }

    /// Whether a frame still runs.
    pub(super) fn activity(&self, id: EventId) -> Option<&Activity> {
        self.state.frames.get(id).map(|frame| &frame.activity)
    }

    /// `$context` (F-15), if any of the sources uses it; otherwise nothing of it.
    pub(super) fn context_value<'s>(
        &self,
        sources: impl Iterator<Item = &'s Source>,
        step: &str,
        attempt: Option<Attempt>,
    ) -> Value {
        let uses = |source: &Source| matches!(source, Source::Path(p) if p.root == Root::Context);
        if !sources.into_iter().any(uses) {
            return Value::Null;
        }
        let mut context = json!({
            "flow": {"name": self.context.flow},
            "execution": {
                "name": self.context.execution,
                "startedTime": self.state.started.to_string(),
                "input": self.state.input,
            },
            "step": {"name": step},
        });
        if let (Some(attempt), Value::Object(context)) = (attempt, &mut context) {
            let task = match attempt.has_token {
                true => {
                    let Context { key, flow, execution, .. } = self.context;
                    let token = key.token(flow, execution, attempt.scheduled);
                    json!({"token": token, "attempt": attempt.number})
                }
                false => json!({"attempt": attempt.number}),
            };
            context.insert("task".to_owned(), task);
        }
        context
    }

    /// Why missing targets fail a step, if the flow is strict (F-14).
    pub(super) fn strictly(&self, missing: &[String]) -> Option<Failure> {
        if !self.context.program.definition.strict || missing.is_empty() {
            return None;
        }
        let cause = format!("nothing to map to {}", missing.join(", "));
        Some(Failure::new(super::event::PARAMETER_ERROR, cause))
    }

    /// Why data of this many bytes fails a step, if it does (F-10).
    pub(super) fn oversize(&self, bytes: usize) -> Option<Failure> {
        let max = self.context.limits.data_bytes;
        (bytes > max).then(|| {
            let cause = format!("{bytes} bytes of data, at most {max} are allowed");
            Failure::new(super::event::DATA_LIMIT, cause)
        })
    }

    /// A failure cut to what an error and a cause may hold (F-63).
    pub(super) fn cut(&self, failure: Failure, unnamed: &str) -> Failure {
        let limits = self.context.limits;
        let error = match failure.error.as_str() {
            "" => unnamed.to_owned(),
            error => cut(error, limits.error_chars),
        };
        Failure { error, cause: cut(&failure.cause, limits.cause_chars) }
    }
}

/// An attempt of a task that is about to be scheduled: what `$context.task` tells of it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Attempt {
    /// Counted from 1.
    pub(super) number: u32,
    /// Its `TaskScheduled`.
    pub(super) scheduled: EventId,
    /// Whether there is a token; with other patterns nobody may report (F-16).
    pub(super) has_token: bool,
}

impl Attempt {
    pub(super) fn of(task: &Task, number: u32, scheduled: EventId) -> Self {
        let has_token = task.pattern == Pattern::WaitForCallback;
        Self { number, scheduled, has_token }
    }
}

/// Which event an event belongs to.
pub(super) enum Of {
    Itself,
    Event(EventId),
}

/// The sources of mappings.
pub(super) fn sources(mappings: &[Mapping]) -> impl Iterator<Item = &Source> {
    mappings.iter().map(|mapping| &mapping.source)
}

/// How many bytes a value has as compact JSON.
pub(crate) fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and every JSON value can be written.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

pub(crate) fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}
