//! Tasks and what is due: attempts, results, reports, retries, timeouts.

use std::sync::Arc;

use serde_json::Value;

use super::event::{
    EventKind, FUNCTION_UNKNOWN, Failure, HEARTBEAT_TIMEOUT, INVALID_OUTPUT, TASK_TIMEOUT,
};
use super::state::{Activity, EventId, Phase};
use super::step::{Attempt, Command, Decided, Machine, Of, json_bytes};
use crate::language::{Pattern, Roots, StepKind, Task};

impl Machine<'_> {
    /// Schedules attempts of a task until one is handed out or none is left (F-04, F-70);
    /// `missing` are the targets that its first input lacks.
    pub(super) fn schedule(
        &mut self,
        id: EventId,
        mut attempt: u32,
        missing: Vec<String>,
    ) -> Decided {
        let (frame, _) = self.frame(id);
        let (mut input, mut missing) = match attempt {
            1 => (Arc::clone(&frame.input), missing),
            _ => self.renewed_input(id, attempt),
        };
        loop {
            let scheduled = self.state.last_event + 1;
            let (_, step) = self.frame(id);
            let StepKind::Task(task) = &step.kind else { unreachable!("only tasks are scheduled") };
            let numbered = Attempt::of(task, attempt, scheduled);
            let (params, unfilled) = self.service_params(task, &input, &step.name, numbered);
            missing.extend(unfilled);
            // F-10 counts the input; the parameters are data of the event, with a limit of their
            // own.
            let params_bytes = params.as_ref().map_or(0, |params| json_bytes(params));
            if let Some(failure) = self.oversize(json_bytes(&input).max(params_bytes)) {
                return self.fail(id, failure);
            }
            let incomplete = self.strictly(&missing);
            let callback = numbered.has_token;
            let kind = EventKind::TaskScheduled { entered: id, attempt, input, params, missing };
            let task = self.emit(&step.name, Of::Itself, kind)?;
            let Some(failure) = incomplete else {
                self.command(Command::Dispatch(task));
                return Ok(());
            };
            self.emit(&step.name, Of::Event(task), not_submitted(callback, failure))?;
            match self.activity(id).cloned() {
                Some(Activity::Retry { until, attempts, .. }) if until <= self.now => {
                    attempt = attempts + 1;
                    (input, missing) = self.renewed_input(id, attempt);
                }
                Some(Activity::Failed(failure)) => return self.fail(id, failure),
                _ => return Ok(()),
            }
        }
    }

    /// The input of a further attempt, made anew because its token is (F-04), and what it lacks.
    fn renewed_input(&self, id: EventId, attempt: u32) -> (Arc<Value>, Vec<String>) {
        let (frame, step) = self.frame(id);
        if step.input_mappings.is_none() {
            return (Arc::clone(&frame.input), Vec::new());
        }
        let scheduled = self.state.last_event + 1;
        let mapped = self.step_input(frame.scope, &step, attempt, scheduled);
        (Arc::new(Value::Object(mapped.object)), mapped.missing)
    }

    /// The evaluated `serviceParams`, if there are any, and those that found nothing.
    fn service_params(
        &self,
        task: &Task,
        input: &Value,
        step: &str,
        attempt: Attempt,
    ) -> (Option<Arc<Value>>, Vec<String>) {
        if task.service_params.is_empty() {
            return (None, Vec::new());
        }
        let used = task.service_params.iter().map(|(_, source)| source);
        let context = self.context_value(used, step, Some(attempt));
        let none = Value::Object(serde_json::Map::new());
        let roots = Roots::of_step(input, &none, &context);
        let mut params = serde_json::Map::new();
        let mut missing = Vec::new();
        for (key, source) in &task.service_params {
            match source.evaluate(&roots) {
                Some(value) => {
                    params.insert(key.clone(), value);
                }
                None => missing.push(key.clone()),
            }
        }
        (Some(Arc::new(Value::Object(params))), missing)
    }

    pub(super) fn task_started(&mut self, task: EventId) -> Decided {
        let Some((_, frame, state)) = self.state.task_frame(task) else { return Ok(()) };
        if state.phase != Phase::Scheduled {
            return Ok(());
        }
        let name = self.step_name(frame.step);
        self.emit(&name, Of::Event(task), EventKind::TaskStarted)?;
        Ok(())
    }

    /// An invocation was answered; `started` if somebody had it.
    pub(super) fn task_done(
        &mut self,
        task: EventId,
        result: Result<Value, Failure>,
        started: bool,
    ) -> Decided {
        let Some((id, _, state)) = self.state.task_frame(task) else { return Ok(()) };
        let phase = state.phase;
        if phase == Phase::Submitted {
            return Ok(());
        }
        let (_, step) = self.frame(id);
        if started && phase == Phase::Scheduled {
            // A worker need not say that it begins: its answer says that it has.
            self.emit(&step.name, Of::Event(task), EventKind::TaskStarted)?;
        }
        let StepKind::Task(definition) = &step.kind else { unreachable!("only tasks are done") };
        let callback = definition.pattern == Pattern::WaitForCallback;
        let result = result.and_then(|output| match output.is_object() {
            true => Ok(output),
            false => Err(Failure::new(INVALID_OUTPUT, "the result is not a JSON object")),
        });
        match result {
            Ok(output) if callback => {
                let failure = self.oversize(json_bytes(&output));
                let output = Arc::new(if failure.is_some() { empty() } else { output });
                self.emit(&step.name, Of::Event(task), EventKind::TaskSubmitted { output })?;
                failure.map_or(Ok(()), |failure| self.fail(id, failure))
            }
            Ok(output) => self.task_succeeded(id, task, output),
            Err(failure) => {
                let failure = self.cut(failure, FUNCTION_UNKNOWN);
                self.emit(&step.name, Of::Event(task), not_submitted(callback, failure))?;
                self.after_failure(id)
            }
        }
    }

    /// A report that was checked and accepted (F-62, A-S4-c).
    pub(super) fn reported(&mut self, task: EventId, result: Result<Value, Failure>) -> Decided {
        let Some((id, frame, state)) = self.state.task_frame(task) else { return Ok(()) };
        let step = frame.step;
        if state.phase != Phase::Submitted {
            // Whoever still works on the submission need not answer any more.
            self.command(Command::Cancel { task, step });
        }
        match result {
            Ok(output) => self.task_succeeded(id, task, output),
            Err(failure) => {
                let name = self.step_name(step);
                let failure = self.cut(failure, FUNCTION_UNKNOWN);
                self.emit(&name, Of::Event(task), EventKind::TaskFailed(failure))?;
                self.after_failure(id)
            }
        }
    }

    fn task_succeeded(&mut self, id: EventId, task: EventId, output: Value) -> Decided {
        let (_, step) = self.frame(id);
        // Too large a result fails the step on exit; the event must not hold it.
        let oversize = self.oversize(json_bytes(&output));
        let kept = Arc::new(if oversize.is_some() { empty() } else { output.clone() });
        self.emit(&step.name, Of::Event(task), EventKind::TaskSucceeded { output: kept })?;
        match oversize {
            Some(failure) => self.fail(id, failure),
            None => self.succeed(id, output),
        }
    }

    /// A sign of life moves the next deadline for one; it leaves no event.
    pub(super) fn heartbeat(&mut self, task: EventId) {
        let Some((id, frame, _)) = self.state.task_frame(task) else { return };
        let step = self.context.program.step(frame.step).map(Arc::clone);
        let Some(StepKind::Task(definition)) = step.as_ref().map(|step| &step.kind) else { return };
        let due = definition.heartbeat.map(|heartbeat| self.now.after(heartbeat));
        if let Some(frame) = self.state.frames.get_mut(id)
            && let Activity::Task(task) = &mut frame.activity
        {
            task.heartbeat = due;
        }
    }

    /// A step whose attempt failed is tried again, or has failed.
    pub(super) fn after_failure(&mut self, id: EventId) -> Decided {
        match self.activity(id).cloned() {
            Some(Activity::Retry { until, .. }) if until <= self.now => self.retry(id),
            Some(Activity::Failed(failure)) => self.fail(id, failure),
            _ => Ok(()),
        }
    }

    fn retry(&mut self, id: EventId) -> Decided {
        let (frame, step) = self.frame(id);
        let Activity::Retry { attempts, .. } = frame.activity else { return Ok(()) };
        match &step.kind {
            StepKind::Task(_) => self.schedule(id, attempts + 1, Vec::new()),
            _ => self.start_fan(id),
        }
    }

    /// Something about a step is due: a wait or a retry pause is over, or a task took too long.
    pub(super) fn frame_due(&mut self, id: EventId) -> Decided {
        let due = self.state.frames.get(id).and_then(|frame| frame.due());
        if due.is_none_or(|due| due > self.now) {
            return Ok(());
        }
        match self.activity(id).cloned() {
            Some(Activity::Wait { .. }) => self.succeed(id, empty()),
            Some(Activity::Retry { .. }) => self.retry(id),
            Some(Activity::Task(task)) => {
                let error = match task.deadline {
                    Some(deadline) if task.heartbeat.is_none_or(|beat| deadline <= beat) => {
                        Failure::new(TASK_TIMEOUT, "the task took longer than its timeoutSeconds")
                    }
                    _ => Failure::new(HEARTBEAT_TIMEOUT, "no heartbeat was reported in time"),
                };
                let (frame, step) = self.frame(id);
                let cancel = Command::Cancel { task: task.scheduled, step: frame.step };
                let kind = EventKind::TaskTimedOut(error);
                self.emit(&step.name, Of::Event(task.scheduled), kind)?;
                self.command(cancel);
                self.after_failure(id)
            }
            _ => Ok(()),
        }
    }

    fn step_name(&self, step: u32) -> Arc<str> {
        let step = self.context.program.step(step).expect("frames hold steps that exist");
        Arc::clone(&step.name)
    }
}

/// The event of an invocation that was answered by an error.
fn not_submitted(callback: bool, failure: Failure) -> EventKind {
    match callback {
        true => EventKind::TaskSubmitFailed(failure),
        false => EventKind::TaskFailed(failure),
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}
