//! The fold: how each event changes the state (F-122).
//!
//! Replay and live running use the same function, so what was true before a crash is true after it.
//! Everything here follows from the event, the definition and the state; an event that does not fit
//! is an error, never a panic, because events may come from a damaged file.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::event::{BranchStatus, Event, EventKind, Failure};
use super::program::{Program, TOP_LIST};
use super::state::{Activity, Closed, EventId, Fan, Frame, Phase, Scope, State, Status, TaskState};
use super::time::Timestamp;
use super::token::hex;
use crate::language::{Jitter, Pattern, RetryPolicy, Step, StepKind, Task};

/// An event that does not fit the state or the definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event} does not fit: {why}")]
pub struct Misfit {
    /// The event's id.
    pub event: EventId,
    /// What is wrong with it.
    pub why: &'static str,
}

impl State {
    /// The state after `event`.
    ///
    /// # Errors
    ///
    /// [`Misfit`] if the event cannot follow; the state is of no use then.
    pub fn apply(&mut self, program: &Program, event: &Event) -> Result<(), Misfit> {
        let misfit = |why| Misfit { event: event.id, why };
        if event.id != self.last_event + 1 {
            return Err(misfit("its id does not follow the last one"));
        }
        if self.status.is_final() {
            return Err(misfit("the execution had ended before"));
        }
        self.last_event = event.id;
        Fold { state: self, program, event }.fold().map_err(misfit)
    }
}

struct Fold<'a> {
    state: &'a mut State,
    program: &'a Program,
    event: &'a Event,
}

type Folded = Result<(), &'static str>;

impl Fold<'_> {
    fn fold(mut self) -> Folded {
        let event = self.event;
        match &event.kind {
            EventKind::ExecutionStarted { input, mapped } => self.started(input, mapped.as_ref()),
            EventKind::ExecutionSucceeded { output } => {
                self.state.output = Some(Arc::clone(output));
                self.ended(Status::Succeeded, None)
            }
            EventKind::ExecutionStopped(failure) => self.ended(Status::Stopped, Some(failure)),
            EventKind::ExecutionFailed(failure) => self.ended(Status::Failed, Some(failure)),
            EventKind::ExecutionTimedOut => {
                let failure = Failure::new(super::event::EXECUTION_TIMEOUT, "");
                self.ended(Status::TimedOut, Some(&failure))
            }
            EventKind::StepEntered { scope, input, .. } => self.step_entered(*scope, input),
            EventKind::StepStarted { until, choice, items } => {
                self.step_started(*until, *choice, items.as_ref())
            }
            EventKind::StepSucceeded => self.frame().map(|_| ()),
            EventKind::StepFailed(failure) => {
                self.frame()?.activity = Activity::Failed(failure.clone());
                Ok(())
            }
            EventKind::StepExited { output, goto, .. } => {
                self.step_exited(output.as_deref(), goto.as_deref())
            }
            EventKind::BranchEntered { index } | EventKind::IterationEntered { index } => {
                self.branch_entered(*index)
            }
            EventKind::BranchExited { index, status, failure }
            | EventKind::IterationExited { index, status, failure } => {
                self.branch_exited(*index, *status, failure.as_ref())
            }
            EventKind::TaskScheduled { entered, attempt, input, params, .. } => {
                self.task_scheduled(*entered, *attempt, input, params.as_ref())
            }
            EventKind::TaskStarted => self.phase(Phase::Started),
            EventKind::TaskSubmitted { .. } => self.phase(Phase::Submitted),
            EventKind::TaskSucceeded { output } => self.task_succeeded(output),
            EventKind::TaskFailed(failure) => {
                let digest = || digest_failure(&failure.error, &failure.cause);
                let event = event.id;
                self.task_failed(failure, || Closed::Reported { event, digest: digest() })
            }
            EventKind::TaskTimedOut(failure) => self.task_failed(failure, || Closed::TimedOut),
            EventKind::TaskSubmitFailed(failure) => self.task_failed(failure, || Closed::Ended),
        }
    }

    fn started(&mut self, input: &Arc<Value>, mapped: Option<&Arc<Value>>) -> Folded {
        if self.event.id != 1 {
            return Err("an execution starts once");
        }
        let state = &mut *self.state;
        state.status = Status::Running;
        state.started = self.event.time;
        state.input = Arc::clone(input);
        let timeout = self.program.definition.timeout;
        state.deadline = timeout.map(|timeout| self.event.time.after(timeout));
        let scope = Scope {
            owner: 0,
            index: 0,
            list: TOP_LIST,
            input: Arc::clone(mapped.unwrap_or(input)),
            local: empty(),
            position: 0,
            current: 0,
        };
        state.scopes.insert(self.event.id, scope);
        Ok(())
    }

    fn ended(&mut self, status: Status, failure: Option<&Failure>) -> Folded {
        let state = &mut *self.state;
        state.status = status;
        state.ended = Some(self.event.time);
        state.failure = failure.cloned();
        state.deadline = None;
        state.scopes.clear();
        state.frames.clear();
        Ok(())
    }

    fn step_entered(&mut self, scope_id: EventId, input: &Arc<Value>) -> Folded {
        let step = self.program.id_of(&self.event.step).ok_or("no step of this name")?;
        let scope = self.state.scopes.get_mut(scope_id).ok_or("no such list runs")?;
        if scope.current != 0 {
            return Err("another step of the list runs");
        }
        let list = self.program.list(scope.list).ok_or("no such list")?;
        if list.get(scope.position as usize) != Some(&step) {
            return Err("another step of the list is next");
        }
        scope.current = self.event.id;
        let frame = Frame {
            scope: scope_id,
            step,
            input: Arc::clone(input),
            retries: Vec::new(),
            activity: Activity::Instant,
        };
        self.state.frames.insert(self.event.id, frame);
        Ok(())
    }

    fn step_started(
        &mut self,
        until: Option<Timestamp>,
        taken: Option<super::event::Taken>,
        items: Option<&Arc<Vec<Value>>>,
    ) -> Folded {
        let step = self.step()?;
        let id = self.event.scheduled;
        let program = self.program;
        let frame = self.frame()?;
        frame.activity = match &step.kind {
            StepKind::Wait(_) => match until {
                Some(until) => Activity::Wait { until },
                None => Activity::Instant,
            },
            StepKind::Choice(_) => Activity::Choice { taken },
            StepKind::Parallel(parallel) => {
                Activity::Fan(Fan { total: parallel.branches.len() as u32, ..Fan::default() })
            }
            StepKind::Foreach(_) => match items {
                Some(items) => Activity::Fan(fan_over(items)),
                None => Activity::Instant,
            },
            _ => Activity::Instant,
        };
        let Some((index, steps)) = branch_of(&step, taken) else { return Ok(()) };
        if steps == 0 {
            return Ok(());
        }
        let list = program.nested(frame.step, index).ok_or("no such branch")?;
        let scope = Scope {
            owner: id,
            index: 0,
            list,
            input: Arc::clone(&frame.input),
            local: empty(),
            position: 0,
            current: 0,
        };
        self.state.scopes.insert(id, scope);
        Ok(())
    }

    fn step_exited(&mut self, output: Option<&Value>, goto: Option<&str>) -> Folded {
        let id = self.event.scheduled;
        let step = self.step()?;
        close_below(self.state, id, false);
        let frame = self.state.frames.remove(id).ok_or("no such step runs")?;
        let scope = self.state.scopes.get_mut(frame.scope).ok_or("its list does not run")?;
        scope.current = 0;
        if let (Some(Value::Object(output)), Value::Object(local)) = (output, &mut scope.local) {
            for (key, value) in output {
                local.insert(key.clone(), value.clone());
            }
        }
        let list = self.program.list(scope.list).ok_or("no such list")?;
        scope.position = match goto {
            Some(name) => {
                let target = self.program.id_of(name).ok_or("no step to go to")?;
                let position = list.iter().position(|step| *step == target);
                position.ok_or("the step to go to is in another list")? as u32
            }
            None if step.end => list.len() as u32,
            None => scope.position + 1,
        };
        Ok(())
    }

    fn branch_entered(&mut self, index: u32) -> Folded {
        let step = self.step()?;
        let program = self.program;
        let id = self.event.id;
        let owner = self.event.scheduled;
        let frame = self.frame()?;
        if let Activity::Retry { items, .. } = &frame.activity {
            frame.activity = Activity::Fan(match (items, &step.kind) {
                (Some(items), _) => fan_over(items),
                (None, StepKind::Parallel(parallel)) => {
                    Fan { total: parallel.branches.len() as u32, ..Fan::default() }
                }
                (None, _) => return Err("the step has no branches"),
            });
        }
        let Activity::Fan(fan) = &mut frame.activity else {
            return Err("the step has no branches");
        };
        if index != fan.entered || index >= fan.total {
            return Err("another branch is next");
        }
        fan.entered += 1;
        fan.running.insert(index, id);
        let (list, input) = match &step.kind {
            StepKind::Foreach(foreach) => {
                let item = fan.items.as_ref().and_then(|items| items.get(index as usize));
                let item = item.ok_or("no such element")?;
                let mut input = (*frame.input).clone();
                if let Value::Object(input) = &mut input {
                    input.insert(foreach.item.clone(), item.clone());
                    if let Some(key) = &foreach.index {
                        input.insert(key.clone(), Value::from(index));
                    }
                }
                (program.nested(frame.step, 0), Arc::new(input))
            }
            _ => (program.nested(frame.step, index as usize), Arc::clone(&frame.input)),
        };
        let list = list.ok_or("no such branch")?;
        let scope = Scope { owner, index, list, input, local: empty(), position: 0, current: 0 };
        self.state.scopes.insert(id, scope);
        Ok(())
    }

    fn branch_exited(
        &mut self,
        index: u32,
        status: BranchStatus,
        failure: Option<&Failure>,
    ) -> Folded {
        let owner = self.event.scheduled;
        match status {
            BranchStatus::Succeeded => {
                let Activity::Fan(fan) = &mut self.frame()?.activity else {
                    return Err("the step has no branches");
                };
                let scope = fan.running.remove(&index).ok_or("no such branch runs")?;
                fan.finished += 1;
                let scope = self.state.scopes.remove(scope).ok_or("no such list runs")?;
                if let Some(Frame { activity: Activity::Fan(fan), .. }) =
                    self.state.frames.get_mut(owner)
                {
                    fan.locals.insert(index, scope.local);
                }
                Ok(())
            }
            BranchStatus::Failed => {
                let failure = failure.ok_or("a failed branch has an error")?;
                close_below(self.state, owner, true);
                let frame = self.frame()?;
                let items = match &mut frame.activity {
                    Activity::Fan(fan) => fan.items.take(),
                    _ => return Err("the step has no branches"),
                };
                self.failed(owner, failure, 0, items)
            }
            // The branch that failed has closed the others.
            BranchStatus::Aborted => Ok(()),
        }
    }

    fn task_scheduled(
        &mut self,
        entered: EventId,
        attempt: u32,
        input: &Arc<Value>,
        params: Option<&Arc<Value>>,
    ) -> Folded {
        let (id, time) = (self.event.id, self.event.time);
        let program = self.program;
        let frame = self.state.frames.get_mut(entered).ok_or("no such step runs")?;
        let task = match program.step(frame.step).map(|step| &step.kind) {
            Some(StepKind::Task(task)) => task,
            _ => return Err("the step is no task"),
        };
        frame.input = Arc::clone(input);
        frame.activity = Activity::Task(TaskState {
            scheduled: id,
            attempt,
            input: Arc::clone(input),
            params: params.cloned(),
            phase: Phase::Scheduled,
            deadline: task.timeout.map(|timeout| time.after(timeout)),
            heartbeat: task.heartbeat.map(|heartbeat| time.after(heartbeat)),
        });
        Ok(())
    }

    fn task_succeeded(&mut self, output: &Value) -> Folded {
        let step = self.task(|activity| *activity = Activity::Instant)?;
        if self.task_of(step)?.pattern == Pattern::WaitForCallback {
            let closed = Closed::Reported { event: self.event.id, digest: digest_success(output) };
            self.state.closed.insert(self.event.scheduled, closed);
        }
        Ok(())
    }

    fn task_failed(&mut self, failure: &Failure, closed: impl FnOnce() -> Closed) -> Folded {
        let scheduled = self.event.scheduled;
        let (id, attempt, step) = {
            let (id, frame, task) = self.state.task_frame(scheduled).ok_or("no such task")?;
            (id, task.attempt, frame.step)
        };
        if self.task_of(step)?.pattern == Pattern::WaitForCallback {
            self.state.closed.insert(scheduled, closed());
        }
        self.failed(id, failure, attempt, None)
    }

    /// What a failed attempt of a step leads to: a retry, or the end of the step.
    fn failed(
        &mut self,
        id: EventId,
        failure: &Failure,
        attempts: u32,
        items: Option<Arc<Vec<Value>>>,
    ) -> Folded {
        let event = self.event;
        let program = self.program;
        let frame = self.state.frames.get_mut(id).ok_or("no such step runs")?;
        let step = program.step(frame.step).ok_or("no such step")?;
        frame.activity = match take_retry(step, frame, failure) {
            Some((policy, k)) => {
                let delay = jittered(policy.jitter, policy.delay(k), event.id);
                Activity::Retry { until: event.time.after(delay), attempts, items }
            }
            None => Activity::Failed(failure.clone()),
        };
        Ok(())
    }

    fn frame(&mut self) -> Result<&mut Frame, &'static str> {
        self.state.frames.get_mut(self.event.scheduled).ok_or("no such step runs")
    }

    fn step(&mut self) -> Result<Arc<Step>, &'static str> {
        let step = self.frame()?.step;
        self.program.step(step).cloned().ok_or("no such step")
    }

    /// Moves the event's task on; answers its step.
    fn task(&mut self, change: impl FnOnce(&mut Activity)) -> Result<u32, &'static str> {
        let (id, ..) = self.state.task_frame(self.event.scheduled).ok_or("no such task")?;
        let frame = self.state.frames.get_mut(id).ok_or("no such task")?;
        change(&mut frame.activity);
        Ok(frame.step)
    }

    fn phase(&mut self, phase: Phase) -> Folded {
        self.task(|activity| {
            if let Activity::Task(task) = activity {
                task.phase = phase;
            }
        })
        .map(|_| ())
    }

    fn task_of(&self, step: u32) -> Result<&Task, &'static str> {
        match self.program.step(step).map(|step| &step.kind) {
            Some(StepKind::Task(task)) => Ok(task),
            _ => Err("the step is no task"),
        }
    }
}

/// Uses up one retry of the first policy that matches, if it has one left (F-70); answers which it
/// was and how many were used before.
fn take_retry<'a>(
    step: &'a Step,
    frame: &mut Frame,
    failure: &Failure,
) -> Option<(&'a RetryPolicy, u32)> {
    if !failure.is_catchable() {
        return None;
    }
    let policies = &step.handling()?.retry;
    let chosen = policies.iter().position(|policy| policy.matches(&failure.error))?;
    let policy = policies.get(chosen)?;
    frame.retries.resize(frame.retries.len().max(chosen + 1), 0);
    let used = frame.retries.get_mut(chosen)?;
    if *used >= policy.max_attempts {
        return None;
    }
    *used += 1;
    Some((policy, *used - 1))
}

/// Spreads a delay by a number that follows from the event, so that replay finds the same (F-71).
fn jittered(jitter: Jitter, delay: Duration, seed: EventId) -> Duration {
    if jitter == Jitter::None {
        return delay;
    }
    let millis = delay.as_millis() as u64;
    let (fixed, spread) = match jitter {
        Jitter::Equal => (millis / 2, millis - millis / 2),
        _ => (0, millis),
    };
    // The finisher of SplitMix64: neighbouring event ids give unrelated numbers.
    let mut mixed = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    Duration::from_millis(fixed + mixed % (spread + 1))
}

/// Removes every list and step below a frame; callback tasks among them are cancelled if `aborted`.
fn close_below(state: &mut State, owner: EventId, aborted: bool) {
    let scopes: Vec<EventId> =
        state.scopes.iter().filter(|(_, scope)| scope.owner == owner).map(|(id, _)| id).collect();
    for id in scopes {
        let Some(scope) = state.scopes.remove(id) else { continue };
        if scope.current == 0 {
            continue;
        }
        close_below(state, scope.current, aborted);
        let Some(frame) = state.frames.remove(scope.current) else { continue };
        if let (true, Activity::Task(task)) = (aborted, &frame.activity) {
            state.closed.insert(task.scheduled, Closed::Cancelled);
        }
    }
}

fn fan_over(items: &Arc<Vec<Value>>) -> Fan {
    Fan { total: items.len() as u32, items: Some(Arc::clone(items)), ..Fan::default() }
}

/// Which of a choice's lists was taken, and how many steps it has.
fn branch_of(step: &Step, taken: Option<super::event::Taken>) -> Option<(usize, usize)> {
    let StepKind::Choice(choice) = &step.kind else { return None };
    match taken? {
        super::event::Taken::Choice(index) => {
            let branch = choice.choices.get(index as usize)?;
            Some((index as usize, branch.then.steps.len()))
        }
        super::event::Taken::Default => {
            Some((choice.choices.len(), choice.default.as_ref()?.steps.len()))
        }
    }
}

/// A digest of a reported output; the order of keys does not count.
pub(crate) fn digest_success(output: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(b"output");
    digest_value(&mut hash, output);
    short(hash)
}

/// A digest of a reported error.
pub(crate) fn digest_failure(error: &str, cause: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"error");
    digest_text(&mut hash, error);
    digest_text(&mut hash, cause);
    short(hash)
}

fn short(hash: Sha256) -> String {
    hex(hash.finalize().get(..16).unwrap_or_default())
}

fn digest_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

/// The depth of JSON is bounded by its parser.
fn digest_value(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort();
            hash.update(b"{");
            hash.update((keys.len() as u64).to_be_bytes());
            for key in keys {
                digest_text(hash, key);
                digest_value(hash, object.get(key).unwrap_or(&Value::Null));
            }
        }
        Value::Array(array) => {
            hash.update(b"[");
            hash.update((array.len() as u64).to_be_bytes());
            array.iter().for_each(|value| digest_value(hash, value));
        }
        Value::String(text) => {
            hash.update(b"s");
            digest_text(hash, text);
        }
        other => digest_text(hash, &other.to_string()),
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}
