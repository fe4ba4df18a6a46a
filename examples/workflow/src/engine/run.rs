//! Going through lists of steps: entering, succeeding, failing, branches.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::event::{BranchStatus, EventKind, Failure, PARAMETER_ERROR, STEP_FAILED, Taken};
use super::state::{Activity, EventId};
use super::step::{Attempt, Command, Decided, Halt, Machine, Of, json_bytes, sources};
use super::time::Timestamp;
use crate::language::{
    Choice, Continuation, Fail, Foreach, Goto, Mapped, Path, Roots, Source, Step, StepKind, Wait,
    evaluate_mappings, overlay, parse_timestamp,
};

impl Machine<'_> {
    /// Starts the execution.
    pub(super) fn start(&mut self, input: Arc<Value>) -> Decided {
        if self.state.last_event != 0 {
            return Err(Halt);
        }
        self.state.started = self.now;
        self.state.input = Arc::clone(&input);
        let none = empty();
        let program = self.context.program;
        let mapped = program.definition.input_mappings.as_ref().map(|mappings| {
            let context = self.context_value(sources(mappings), "", None);
            evaluate_mappings(mappings, &Roots::of_parent(&input, &none, &context))
        });
        let failure = mapped.as_ref().and_then(|mapped| self.strictly(&mapped.missing));
        let mapped = mapped.map(|mapped| Arc::new(Value::Object(mapped.object)));
        let name = Arc::from("");
        let top = self.emit(&name, Of::Event(0), EventKind::ExecutionStarted { input, mapped })?;
        match failure {
            Some(failure) => self.finish(EventKind::ExecutionFailed(failure)),
            None => {
                self.make_ready(top);
                Ok(())
            }
        }
    }

    /// Advances whatever can go on, in the order of paths, until everything is blocked.
    pub(super) fn run(&mut self) -> Decided {
        while let Some((_, scope)) = self.ready.pop_first() {
            self.advance(scope)?;
        }
        Ok(())
    }

    fn advance(&mut self, id: EventId) -> Decided {
        // A branch that was ready may have been aborted by one before it.
        let Some(scope) = self.state.scopes.get(id).filter(|scope| scope.current == 0) else {
            return Ok(());
        };
        let list = self.context.program.list(scope.list).expect("scopes hold lists that exist");
        match list.get(scope.position as usize) {
            Some(step) => {
                let step = self.context.program.step(*step).expect("lists hold steps that exist");
                let step = Arc::clone(step);
                self.enter(id, &step)
            }
            None => self.scope_done(id),
        }
    }

    fn enter(&mut self, scope: EventId, step: &Arc<Step>) -> Decided {
        // A task is scheduled right after the step has started: its token can be known by then.
        const UNTIL_SCHEDULED: EventId = 2;
        let scheduled = self.state.last_event + 1 + UNTIL_SCHEDULED;
        let mapped = self.step_input(scope, step, 1, scheduled);
        let input = Value::Object(mapped.object);
        let oversize = self.oversize(json_bytes(&input));
        let failure = match &step.kind {
            // What a task's input lacks fails its attempt, which may be tried again (F-70).
            StepKind::Task(_) => oversize.clone(),
            _ => oversize.clone().or_else(|| self.strictly(&mapped.missing)),
        };
        let input = Arc::new(if oversize.is_some() { empty() } else { input });
        let missing = mapped.missing.clone();
        let kind = EventKind::StepEntered { scope, input, missing: mapped.missing };
        let frame = self.emit(&step.name, Of::Itself, kind)?;
        match failure {
            Some(failure) => {
                self.emit(&step.name, Of::Event(frame), started(None))?;
                self.fail(frame, failure)
            }
            None => self.begin(frame, step, missing),
        }
    }

    /// The input of a step (F-02, F-03).
    pub(super) fn step_input(
        &self,
        scope: EventId,
        step: &Step,
        attempt: u32,
        scheduled: EventId,
    ) -> Mapped {
        let scope = self.state.scopes.get(scope).expect("a step is entered in a list that runs");
        let Some(mappings) = &step.input_mappings else {
            let object = overlay(&scope.input, &scope.local);
            return Mapped { object, missing: Vec::new() };
        };
        let attempt = match &step.kind {
            StepKind::Task(task) => Some(Attempt::of(task, attempt, scheduled)),
            _ => None,
        };
        let context = self.context_value(sources(mappings), &step.name, attempt);
        evaluate_mappings(mappings, &Roots::of_parent(&scope.input, &scope.local, &context))
    }

    fn begin(&mut self, frame: EventId, step: &Arc<Step>, missing: Vec<String>) -> Decided {
        match &step.kind {
            StepKind::Pass | StepKind::Succeed => {
                self.emit(&step.name, Of::Event(frame), started(None))?;
                self.succeed(frame, empty())
            }
            StepKind::Fail(fail) => {
                self.emit(&step.name, Of::Event(frame), started(None))?;
                let failure = self.failure_of(frame, step, fail);
                self.fail(frame, failure)
            }
            StepKind::Wait(wait) => {
                let until = self.wait_until(frame, wait);
                self.emit(&step.name, Of::Event(frame), started(until.clone().ok()))?;
                match until {
                    Ok(until) if until <= self.now => self.succeed(frame, empty()),
                    Ok(_) => Ok(()),
                    Err(failure) => self.fail(frame, failure),
                }
            }
            StepKind::Choice(choice) => self.choose(frame, step, choice),
            StepKind::Parallel(_) => {
                self.emit(&step.name, Of::Event(frame), started(None))?;
                self.start_fan(frame)
            }
            StepKind::Foreach(foreach) => {
                let items = self.items_of(frame, foreach).map(Arc::new);
                let kind =
                    EventKind::StepStarted { until: None, choice: None, items: items.clone().ok() };
                self.emit(&step.name, Of::Event(frame), kind)?;
                match items {
                    Ok(_) => self.start_fan(frame),
                    Err(failure) => self.fail(frame, failure),
                }
            }
            StepKind::Task(_) => {
                self.emit(&step.name, Of::Event(frame), started(None))?;
                self.schedule(frame, 1, missing)
            }
        }
    }

    fn failure_of(&self, frame: EventId, step: &Step, fail: &Fail) -> Failure {
        let (frame, _) = self.frame(frame);
        let none = empty();
        let used = fail.error.iter().chain(&fail.cause);
        let context = self.context_value(used, &step.name, None);
        let roots = Roots::of_step(&frame.input, &none, &context);
        let text = |source: &Option<Source>, key: &str| match source.as_ref() {
            None => Ok(String::new()),
            Some(source) => match source.evaluate(&roots) {
                Some(Value::String(text)) => Ok(text),
                _ => Err(Failure::new(PARAMETER_ERROR, format!("{key} is not a string"))),
            },
        };
        match (text(&fail.error, "error"), text(&fail.cause, "cause")) {
            (Ok(error), Ok(cause)) => self.cut(Failure { error, cause }, STEP_FAILED),
            (Err(failure), _) | (_, Err(failure)) => failure,
        }
    }

    fn wait_until(&self, frame: EventId, wait: &Wait) -> Result<Timestamp, Failure> {
        let refused = |cause: String| Failure::new(PARAMETER_ERROR, cause);
        let until = match wait {
            Wait::For(duration) => self.now.after(*duration),
            Wait::Until(time) => Timestamp::from(*time),
            Wait::ForPath(path) => {
                let seconds = self.find(frame, path).and_then(|value| value.as_f64());
                let seconds = seconds.filter(|seconds| *seconds >= 0.0);
                let seconds =
                    seconds.ok_or_else(|| refused(format!("{path} gives no number of seconds")))?;
                let longest = self.context.limits.wait.as_secs_f64();
                if seconds > longest {
                    return Err(refused(format!("a wait lasts at most {longest} seconds")));
                }
                self.now.after(Duration::from_millis((seconds * 1_000.0).round() as u64))
            }
            Wait::UntilPath(path) => {
                let text = self.find(frame, path);
                let time = text.as_ref().and_then(Value::as_str).and_then(parse_timestamp);
                let time = time.ok_or_else(|| refused(format!("{path} gives no timestamp")))?;
                Timestamp::from(time)
            }
        };
        let longest = self.context.limits.wait;
        if until > self.now.after(longest) {
            let longest = longest.as_secs();
            return Err(refused(format!("a wait lasts at most {longest} seconds")));
        }
        Ok(until)
    }

    /// What a path finds in the input of a step.
    fn find(&self, frame: EventId, path: &Path) -> Option<Value> {
        let (frame, step) = self.frame(frame);
        let none = empty();
        let context = self.context_value([Source::Path(path.clone())].iter(), &step.name, None);
        path.evaluate(&Roots::of_step(&frame.input, &none, &context))
    }

    fn items_of(&self, frame: EventId, foreach: &Foreach) -> Result<Vec<Value>, Failure> {
        match self.find(frame, &foreach.collection) {
            Some(Value::Array(items)) => Ok(items),
            _ => {
                let cause = format!("{} gives no array", foreach.collection);
                Err(Failure::new(PARAMETER_ERROR, cause))
            }
        }
    }

    fn choose(&mut self, frame: EventId, step: &Arc<Step>, choice: &Choice) -> Decided {
        let (input, _) = self.frame(frame);
        let input = Arc::clone(&input.input);
        let first = choice.choices.iter().position(|branch| branch.condition.matches(&input));
        let taken = match first {
            Some(index) => Some(Taken::Choice(index as u32)),
            None => choice.default.as_ref().map(|_| Taken::Default),
        };
        let kind = EventKind::StepStarted { until: None, choice: taken, items: None };
        self.emit(&step.name, Of::Event(frame), kind)?;
        // The scope of a choice is named by the choice itself.
        if self.state.scopes.contains(frame) {
            self.make_ready(frame);
            return Ok(());
        }
        self.succeed(frame, empty())
    }

    /// Enters as many branches or iterations as may run at once, in index order (F-50, F-51).
    pub(super) fn start_fan(&mut self, frame: EventId) -> Decided {
        let (total, at_once) = self.fan_size(frame);
        if total == 0 {
            return self.succeed(frame, Value::Array(Vec::new()));
        }
        for index in 0..total.min(at_once) {
            self.enter_branch(frame, index)?;
        }
        Ok(())
    }

    fn fan_size(&self, id: EventId) -> (u32, u32) {
        let (frame, step) = self.frame(id);
        let total = match &frame.activity {
            Activity::Fan(fan) => fan.total,
            Activity::Retry { items: Some(items), .. } => items.len() as u32,
            _ => match &step.kind {
                StepKind::Parallel(parallel) => parallel.branches.len() as u32,
                _ => 0,
            },
        };
        let at_once = match &step.kind {
            StepKind::Foreach(foreach) => {
                let limit = self.context.limits.concurrent_iterations;
                foreach.max_concurrency.map_or(limit, |own| limit.min(own as u32))
            }
            _ => total,
        };
        (total, at_once.max(1))
    }

    fn enter_branch(&mut self, frame: EventId, index: u32) -> Decided {
        let (_, step) = self.frame(frame);
        let kind = match &step.kind {
            StepKind::Foreach(_) => EventKind::IterationEntered { index },
            _ => EventKind::BranchEntered { index },
        };
        let scope = self.emit(&step.name, Of::Event(frame), kind)?;
        self.make_ready(scope);
        Ok(())
    }

    /// A list has come to its end.
    fn scope_done(&mut self, id: EventId) -> Decided {
        let scope = self.state.scopes.get(id).expect("a list that ends was running");
        let (owner, index) = (scope.owner, scope.index);
        if owner == 0 {
            return self.end_flow(id);
        }
        let (_, step) = self.frame(owner);
        if let StepKind::Choice(_) = step.kind {
            let local = scope.local.clone();
            return self.succeed(owner, local);
        }
        let kind = exited(&step, index, BranchStatus::Succeeded, None);
        self.emit(&step.name, Of::Event(owner), kind)?;
        let (frame, _) = self.frame(owner);
        let Activity::Fan(fan) = &frame.activity else {
            unreachable!("a branch belongs to a step with branches")
        };
        if fan.finished == fan.total {
            let locals = fan.locals.values().cloned().collect();
            return self.succeed(owner, Value::Array(locals));
        }
        match fan.entered < fan.total {
            true => self.enter_branch(owner, fan.entered),
            false => Ok(()),
        }
    }

    fn end_flow(&mut self, id: EventId) -> Decided {
        let scope = self.state.scopes.get(id).expect("a list that ends was running");
        let definition = Arc::clone(&self.context.program.definition);
        let (output, missing) = match &definition.output_mappings {
            None => (scope.local.clone(), Vec::new()),
            Some(mappings) => {
                let context = self.context_value(sources(mappings), "", None);
                let roots = Roots::of_step(&scope.input, &scope.local, &context);
                let mapped = evaluate_mappings(mappings, &roots);
                (Value::Object(mapped.object), mapped.missing)
            }
        };
        let failure = self.oversize(json_bytes(&output)).or_else(|| self.strictly(&missing));
        self.finish(match failure {
            Some(failure) => EventKind::ExecutionFailed(failure),
            None => EventKind::ExecutionSucceeded { output: Arc::new(output) },
        })
    }

    /// A step has done what it does; its output goes to its list (F-01).
    pub(super) fn succeed(&mut self, id: EventId, local: Value) -> Decided {
        let (frame, step) = self.frame(id);
        let scope = frame.scope;
        let (output, missing) = match &step.output_mappings {
            Some(mappings) => {
                let context = self.context_value(sources(mappings), &step.name, None);
                let roots = Roots::of_step(&frame.input, &local, &context);
                let mapped = evaluate_mappings(mappings, &roots);
                (Value::Object(mapped.object), mapped.missing)
            }
            None if local.is_object() => (local.clone(), Vec::new()),
            None => (empty(), Vec::new()),
        };
        let bytes = json_bytes(&frame.input) + json_bytes(&local) + json_bytes(&output);
        if let Some(failure) = self.oversize(bytes).or_else(|| self.strictly(&missing)) {
            return self.fail(id, failure);
        }
        let goto = goto_of(&step, &frame.activity).map(|goto| Arc::clone(&goto.step));
        self.emit(&step.name, Of::Event(id), EventKind::StepSucceeded)?;
        let output = Some(Arc::new(output));
        self.emit(&step.name, Of::Event(id), EventKind::StepExited { output, goto, missing })?;
        self.make_ready(scope);
        Ok(())
    }

    /// A step has failed and is not tried again: its catch takes the error, or its list fails with
    /// it (F-22, F-70).
    pub(super) fn fail(&mut self, id: EventId, failure: Failure) -> Decided {
        let (frame, step) = self.frame(id);
        let (scope, input) = (frame.scope, Arc::clone(&frame.input));
        self.emit(&step.name, Of::Event(id), EventKind::StepFailed(failure.clone()))?;
        let failure = match self.caught(&step, &input, &failure) {
            None => failure,
            Some((goto, mapped)) => {
                let output = Value::Object(mapped.object);
                let bytes = json_bytes(&input) + json_bytes(&output);
                let wrong = self.oversize(bytes).or_else(|| self.strictly(&mapped.missing));
                match wrong {
                    Some(wrong) => wrong,
                    None => {
                        let kind = EventKind::StepExited {
                            output: Some(Arc::new(output)),
                            goto: Some(goto),
                            missing: mapped.missing,
                        };
                        self.emit(&step.name, Of::Event(id), kind)?;
                        self.make_ready(scope);
                        return Ok(());
                    }
                }
            }
        };
        let kind = EventKind::StepExited { output: None, goto: None, missing: Vec::new() };
        self.emit(&step.name, Of::Event(id), kind)?;
        self.fail_scope(scope, failure)
    }

    /// Where the first matching catch goes, and the output it makes of the error.
    fn caught(&self, step: &Step, input: &Value, failure: &Failure) -> Option<(Arc<str>, Mapped)> {
        let handling = step.handling().filter(|_| failure.is_catchable())?;
        let catch = handling.catch.iter().find(|catch| catch.matches(&failure.error))?;
        let mapped = match &handling.error_mappings {
            None => Mapped::default(),
            Some(mappings) => {
                let Failure { error, cause } = failure;
                let local = json!({"error": error, "cause": cause, "code": error});
                let context = self.context_value(sources(mappings), &step.name, None);
                evaluate_mappings(mappings, &Roots::of_step(input, &local, &context))
            }
        };
        Some((Arc::clone(&catch.goto.step), mapped))
    }

    /// An error has left a list: the step that holds it fails, with all its branches (F-52).
    fn fail_scope(&mut self, id: EventId, failure: Failure) -> Decided {
        let scope = self.state.scopes.get(id).expect("an error leaves a list that runs");
        let (owner, index) = (scope.owner, scope.index);
        if owner == 0 {
            return self.finish(EventKind::ExecutionFailed(failure));
        }
        let (frame, step) = self.frame(owner);
        let others: Vec<u32> = match &frame.activity {
            Activity::Fan(fan) => fan.running.keys().copied().filter(|i| *i != index).collect(),
            _ => return self.fail(owner, failure),
        };
        for command in self.cancels_below(owner) {
            self.command(command);
        }
        let kind = exited(&step, index, BranchStatus::Failed, Some(failure));
        self.emit(&step.name, Of::Event(owner), kind)?;
        for other in others {
            let kind = exited(&step, other, BranchStatus::Aborted, None);
            self.emit(&step.name, Of::Event(owner), kind)?;
        }
        self.after_failure(owner)
    }

    /// A cancellation for each task that is out below a frame.
    fn cancels_below(&self, owner: EventId) -> Vec<Command> {
        let below = |scope: EventId| {
            let mut scope = self.state.scopes.get(scope);
            while let Some(at) = scope {
                if at.owner == owner {
                    return true;
                }
                let frame = self.state.frames.get(at.owner);
                scope = frame.and_then(|frame| self.state.scopes.get(frame.scope));
            }
            false
        };
        let open = self.state.open_tasks().filter(|(frame, _)| below(frame.scope));
        open.map(|(f, task)| Command::Cancel { task: task.scheduled, step: f.step }).collect()
    }
}

fn started(until: Option<Timestamp>) -> EventKind {
    EventKind::StepStarted { until, choice: None, items: None }
}

fn exited(step: &Step, index: u32, status: BranchStatus, failure: Option<Failure>) -> EventKind {
    match &step.kind {
        StepKind::Foreach(_) => EventKind::IterationExited { index, status, failure },
        _ => EventKind::BranchExited { index, status, failure },
    }
}

/// Where a choice goes on after its branch (F-21).
fn goto_of<'a>(step: &'a Step, activity: &Activity) -> Option<&'a Goto> {
    let StepKind::Choice(choice) = &step.kind else { return None };
    let Activity::Choice { taken: Some(taken) } = activity else { return None };
    let continuation: &Continuation = match taken {
        Taken::Choice(index) => &choice.choices.get(*index as usize)?.then,
        Taken::Default => choice.default.as_ref()?,
    };
    continuation.goto.as_ref()
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}
