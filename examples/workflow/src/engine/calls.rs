//! The calls of the engine: flows, executions, reports (section "Calls" of the README).
//!
//! Each commits before it answers. The `stage_` forms leave the commit to the caller, so that many
//! calls can share one.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::FlowError;
use super::event::{Event, Failure};
use super::fold::{digest_failure, digest_success};
use super::journal::{
    self, FlowRow, Head, NEXT_KEY, Parent, ReadError, Sequence, name_key, put, sequence_key,
};
use super::program::Program;
use super::recover::corrupt_failure;
use super::shell::{Engine, Live};
use super::state::{Closed, EventId, State, Status};
use super::step::Signal;
use super::time::Timestamp;
use super::token::hex;
use crate::language::{Definition, DefinitionError, LanguageLimits};
use crate::store::Table;

/// The flows of a store, and their definitions as far as they were needed.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    pub(super) rows: HashMap<String, FlowRow>,
    pub(super) programs: HashMap<Arc<str>, Arc<Program>>,
}

/// What to start.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StartExecution {
    /// The flow.
    pub flow: String,
    /// The name of the execution; `None`: one is made.
    pub name: Option<String>,
    /// The Input, a JSON object.
    pub input: Value,
    /// The token of a task to report to when the execution ends.
    pub callback_token: Option<String>,
}

impl StartExecution {
    /// An execution of a flow.
    pub fn new(flow: impl Into<String>, input: Value) -> Self {
        Self { flow: flow.into(), name: None, input, callback_token: None }
    }

    /// With a name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Reports to a task when it ends.
    #[must_use]
    pub fn callback_token(mut self, token: impl Into<String>) -> Self {
        self.callback_token = Some(token.into());
        self
    }
}

/// An execution that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The name of the execution.
    pub name: String,
    /// Whether this call has started it; otherwise one of this name was running.
    pub is_new: bool,
}

/// What is reported about a callback task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// `ReportTaskSucceeded`.
    Succeeded {
        /// The output, JSON text of an object.
        output: String,
    },
    /// `ReportTaskFailed`.
    Failed {
        /// 1 to 128 characters.
        error: String,
        /// At most 4,096 characters.
        cause: String,
    },
}

impl Report {
    /// The task has succeeded.
    pub fn succeeded(output: impl Into<String>) -> Self {
        Report::Succeeded { output: output.into() }
    }

    /// The task has failed.
    pub fn failed(error: impl Into<String>, cause: impl Into<String>) -> Self {
        Report::Failed { error: error.into(), cause: cause.into() }
    }
}

/// The answer to a report.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The event that the report made; the same for the same report again (A-S4-b).
    pub event_id: EventId,
}

/// An execution as `DescribeExecution` answers it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// The flow.
    pub flow: String,
    /// The execution.
    pub name: String,
    /// Where it stands.
    pub status: Status,
    /// Its Input; `null` if the record cannot be read.
    pub input: Value,
    /// When it started.
    pub started: Timestamp,
    /// When it ended, if it did.
    pub ended: Option<Timestamp>,
    /// What it came to, if it succeeded.
    pub output: Option<Value>,
    /// Why it did not succeed.
    pub failure: Option<Failure>,
    /// The digest of the definition that it runs.
    pub definition: String,
    /// How many events it has.
    pub events: EventId,
}

impl Description {
    /// The answer as the service writes it: inputs and outputs are JSON text.
    pub fn view(&self) -> Value {
        let mut view = serde_json::Map::new();
        let mut put = |key: &str, text: String| view.insert(key.to_owned(), json!(text));
        put("Name", self.name.clone());
        put("FlowName", self.flow.clone());
        put("Status", self.status.name().to_owned());
        put("Input", self.input.to_string());
        put("StartedTime", self.started.to_string());
        if let Some(ended) = self.ended {
            put("StoppedTime", ended.to_string());
        }
        if let Some(output) = &self.output {
            put("Output", output.to_string());
        }
        if let Some(failure) = &self.failure {
            put("Error", failure.error.clone());
            put("Cause", failure.cause.clone());
        }
        Value::Object(view)
    }
}

/// A flow as `DescribeFlow` answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowDescription {
    /// The name.
    pub name: String,
    /// The definition as it was given.
    pub definition: String,
    /// What it is for.
    pub description: String,
    /// When it was created.
    pub created: Timestamp,
    /// When its definition was last changed.
    pub modified: Timestamp,
}

impl Engine {
    /// Creates a flow; answers the warnings about its definition.
    ///
    /// # Errors
    ///
    /// [`FlowError::InvalidArgument`], [`FlowError::FlowAlreadyExists`],
    /// [`FlowError::EntityTooLarge`], [`FlowError::TooManyFlows`],
    /// [`FlowError::InvalidDefinition`], [`FlowError::Unavailable`].
    pub fn create_flow(
        &mut self,
        name: &str,
        definition: &str,
    ) -> Result<Vec<DefinitionError>, FlowError> {
        check_name("flow", name)?;
        if self.flows.rows.contains_key(name) {
            return Err(FlowError::FlowAlreadyExists(name.to_owned()));
        }
        if self.flows.rows.len() >= self.limits.flows {
            return Err(FlowError::TooManyFlows(self.limits.flows));
        }
        let created = self.now();
        self.put_flow(name, definition, created)
    }

    /// Gives a flow another definition. Executions that run keep theirs (F-122).
    ///
    /// # Errors
    ///
    /// [`FlowError::FlowNotExists`], and as [`create_flow`](Self::create_flow).
    pub fn update_flow(
        &mut self,
        name: &str,
        definition: &str,
    ) -> Result<Vec<DefinitionError>, FlowError> {
        let created = self.flow_row(name)?.created;
        self.put_flow(name, definition, created)
    }

    /// Removes a flow. Executions that run go on.
    ///
    /// # Errors
    ///
    /// [`FlowError::FlowNotExists`], [`FlowError::Unavailable`].
    pub fn delete_flow(&mut self, name: &str) -> Result<(), FlowError> {
        self.flow_row(name)?;
        self.flows.rows.remove(name);
        self.staged.delete(Table::Flow, name);
        self.commit()
    }

    /// A flow.
    ///
    /// # Errors
    ///
    /// [`FlowError::FlowNotExists`], [`FlowError::Unavailable`].
    pub fn describe_flow(&self, name: &str) -> Result<FlowDescription, FlowError> {
        let row = self.flow_row(name)?;
        let text = self.store.read(Table::Definition, row.definition.as_bytes());
        let text = text.map_err(FlowError::Unavailable)?.unwrap_or_default();
        Ok(FlowDescription {
            name: name.to_owned(),
            definition: String::from_utf8_lossy(&text).into_owned(),
            description: row.description.clone(),
            created: row.created,
            modified: row.modified,
        })
    }

    /// The names of all flows, sorted.
    pub fn flows(&self) -> Vec<String> {
        let mut names: Vec<String> = self.flows.rows.keys().cloned().collect();
        names.sort();
        names
    }

    /// Starts an execution. One of the same name that runs is answered instead of a new one.
    ///
    /// # Errors
    ///
    /// [`FlowError::FlowNotExists`], [`FlowError::InvalidArgument`] (a bad name, an Input that
    /// is no
    /// object), [`FlowError::EntityTooLarge`], [`FlowError::ExecutionAlreadyExists`],
    /// [`FlowError::TooManyExecutions`], [`FlowError::Unavailable`].
    pub fn start_execution(&mut self, start: StartExecution) -> Result<Started, FlowError> {
        let started = self.stage_start(start, None)?;
        self.commit()?;
        Ok(started)
    }

    /// Starts executions in one commit; answers each.
    ///
    /// # Errors
    ///
    /// [`FlowError::Unavailable`] if the store fails; what is refused is among the answers.
    pub fn start_executions(
        &mut self,
        starts: Vec<StartExecution>,
    ) -> Result<Vec<Result<Started, FlowError>>, FlowError> {
        let started = starts.into_iter().map(|start| self.stage_start(start, None)).collect();
        self.commit()?;
        Ok(started)
    }

    /// Stops an execution.
    ///
    /// # Errors
    ///
    /// [`FlowError::ExecutionNotExists`], [`FlowError::ExecutionNotRunning`],
    /// [`FlowError::InvalidArgument`] for an error or a cause that is too long,
    /// [`FlowError::Unavailable`].
    pub fn stop_execution(
        &mut self,
        flow: &str,
        name: &str,
        error: &str,
        cause: &str,
    ) -> Result<(), FlowError> {
        self.stage_stop(flow, name, error, cause)?;
        self.commit()
    }

    /// Reports the result of a callback task.
    ///
    /// # Errors
    ///
    /// In this order: [`FlowError::InvalidTaskToken`], [`FlowError::ExecutionNotExists`],
    /// [`FlowError::TaskTimedOut`], [`FlowError::TaskAlreadyCompleted`],
    /// [`FlowError::TaskCancelled`], [`FlowError::ExecutionNotRunning`],
    /// [`FlowError::InvalidOutput`], [`FlowError::EntityTooLarge`], [`FlowError::InvalidArgument`];
    /// [`FlowError::Unavailable`].
    pub fn report(&mut self, token: &str, report: Report) -> Result<Answer, FlowError> {
        let answer = self.stage_report(token, report)?;
        self.commit()?;
        Ok(answer)
    }

    /// Reports that a callback task is alive.
    ///
    /// # Errors
    ///
    /// As [`report`](Self::report).
    pub fn report_heartbeat(&mut self, token: &str) -> Result<(), FlowError> {
        self.stage_heartbeat(token)?;
        self.commit()
    }

    /// An execution.
    ///
    /// # Errors
    ///
    /// [`FlowError::ExecutionNotExists`], [`FlowError::Unavailable`].
    pub fn describe_execution(&self, flow: &str, name: &str) -> Result<Description, FlowError> {
        let sequence = self.existing(flow, name)?;
        if let Some(live) = self.live.get(&sequence) {
            return Ok(described(&live.head, &live.state));
        }
        let unreadable = |failure| Description {
            flow: flow.to_owned(),
            name: name.to_owned(),
            status: Status::Failed,
            input: Value::Null,
            started: Timestamp::default(),
            ended: None,
            output: None,
            failure: Some(failure),
            definition: String::new(),
            events: 0,
        };
        let head = match self.head(sequence) {
            Ok(head) => head,
            Err(ReadError::Corrupt(why)) => return Ok(unreadable(corrupt_failure(&why))),
            Err(ReadError::Store(error)) => return Err(FlowError::Unavailable(error)),
        };
        Ok(match self.final_state(sequence) {
            Ok(state) => described(&head, &state),
            Err(failure) => Description {
                started: head.started,
                ended: head.ended,
                definition: head.definition.to_string(),
                ..unreadable(failure)
            },
        })
    }

    /// The events of an execution after the one with the id `after`, at most `limit`.
    ///
    /// Events behind a record that cannot be read are not among them.
    ///
    /// # Errors
    ///
    /// [`FlowError::ExecutionNotExists`], [`FlowError::Unavailable`].
    pub fn history(
        &self,
        flow: &str,
        name: &str,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<Event>, FlowError> {
        let sequence = self.existing(flow, name)?;
        let mut events = Vec::new();
        let read = journal::events(&*self.store, sequence, 1, &mut |event| {
            if event.id > after && events.len() < limit {
                events.push(event);
            }
            events.len() < limit
        });
        match read {
            Err(ReadError::Store(error)) => Err(FlowError::Unavailable(error)),
            Ok(()) | Err(ReadError::Corrupt(_)) => Ok(events),
        }
    }

    /// The names of the executions of a flow, in the order of their names, from the one after
    /// `after` on, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`FlowError::Unavailable`].
    pub fn executions(
        &self,
        flow: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, FlowError> {
        let prefix = name_key(flow, "");
        let from = after.map(|after| name_key(flow, after));
        let mut names = Vec::new();
        let scanned =
            self.store.scan(Table::Name, &prefix, from.as_deref().unwrap_or(&[]), &mut |key, _| {
                let name = key.get(prefix.len()..).unwrap_or_default();
                let name = String::from_utf8_lossy(name).into_owned();
                if names.len() < limit && after != Some(name.as_str()) {
                    names.push(name);
                }
                names.len() < limit
            });
        scanned.map_err(FlowError::Unavailable)?;
        Ok(names)
    }

    pub(crate) fn stage_start(
        &mut self,
        start: StartExecution,
        parent: Option<Parent>,
    ) -> Result<Started, FlowError> {
        self.check_working()?;
        let definition = Arc::clone(&self.flow_row(&start.flow)?.definition);
        if let Some(name) = &start.name {
            check_name("execution", name)?;
        }
        if !start.input.is_object() {
            return Err(FlowError::InvalidArgument("the input is not a JSON object".to_owned()));
        }
        let bytes = super::step::json_bytes(&start.input);
        self.check_size("the input", bytes)?;
        if let Some(token) = &start.callback_token {
            self.key.open(token).ok_or(FlowError::InvalidTaskToken)?;
        }
        if let Some(name) = &start.name
            && let Some(found) = self.find(&start.flow, name)?
        {
            return match self.live.get(&found).is_some_and(|live| !live.state.status.is_final()) {
                true => Ok(Started { name: name.clone(), is_new: false }),
                false => Err(FlowError::ExecutionAlreadyExists(name.clone())),
            };
        }
        if self.live.len() >= self.limits.running_executions {
            return Err(FlowError::TooManyExecutions(self.limits.running_executions));
        }
        let program = self.program(&definition).map_err(FlowError::InvalidArgument)?;
        let sequence = self.next;
        self.next += 1;
        let name = start.name.unwrap_or_else(|| format!("{}-{sequence}", self.id));
        let head = Head {
            flow: Arc::from(start.flow),
            name: Arc::from(name.as_str()),
            definition,
            status: Status::Running,
            started: self.now(),
            ended: None,
            parent,
            callback: start.callback_token,
            failure: None,
        };
        self.staged.put(Table::Meta, NEXT_KEY, self.next.to_be_bytes());
        self.staged.put(Table::Name, name_key(&head.flow, &name), sequence_key(sequence));
        self.staged.put(Table::Open, sequence_key(sequence), []);
        put(&mut self.staged, Table::Execution, sequence_key(sequence), &head);
        self.names.insert((Arc::clone(&head.name), Arc::clone(&head.flow)), sequence);
        let live = Live { head, program, state: State::default(), due: None, snapshot: 0 };
        self.live.insert(sequence, live);
        self.decide(sequence, vec![Signal::Start { input: Arc::new(start.input) }]);
        Ok(Started { name, is_new: true })
    }

    pub(crate) fn stage_stop(
        &mut self,
        flow: &str,
        name: &str,
        error: &str,
        cause: &str,
    ) -> Result<(), FlowError> {
        self.check_working()?;
        self.check_failure(error, cause)?;
        let sequence = self.existing(flow, name)?;
        match self.decide(sequence, vec![Signal::Stop(Failure::new(error, cause))]) {
            0 => Err(FlowError::ExecutionNotRunning),
            _ => Ok(()),
        }
    }

    pub(crate) fn stage_report(
        &mut self,
        token: &str,
        report: Report,
    ) -> Result<Answer, FlowError> {
        self.check_working()?;
        if let Report::Succeeded { output } = &report {
            self.check_size("the request", output.len())?;
        }
        let digest = match &report {
            Report::Succeeded { output } => {
                serde_json::from_str(output).ok().map(|output: Value| digest_success(&output))
            }
            Report::Failed { error, cause } => Some(digest_failure(error, cause)),
        };
        let (sequence, task) = match self.open_task(token, digest.as_deref())? {
            Found::Open(sequence, task) => (sequence, task),
            Found::Reported(event_id) => return Ok(Answer { event_id }),
        };
        let result = self.reported(report)?;
        // A report always makes its event first; what follows from it comes after.
        let live = self.live.get(&sequence).ok_or(FlowError::ExecutionNotRunning)?;
        let event_id = live.state.last_event + 1;
        self.decide(sequence, vec![Signal::TaskReported { task, result }]);
        Ok(Answer { event_id })
    }

    pub(crate) fn stage_heartbeat(&mut self, token: &str) -> Result<(), FlowError> {
        self.check_working()?;
        match self.open_task(token, None)? {
            Found::Open(sequence, task) => {
                self.decide(sequence, vec![Signal::TaskHeartbeat(task)]);
                Ok(())
            }
            Found::Reported(_) => Err(FlowError::TaskAlreadyCompleted),
        }
    }

    /// The task that a token names, in the order of checks of the specification.
    fn open_task(&self, token: &str, digest: Option<&str>) -> Result<Found, FlowError> {
        let named = self.key.open(token).ok_or(FlowError::InvalidTaskToken)?;
        let sequence = self.existing(&named.flow, &named.execution)?;
        let folded;
        let state = match self.live.get(&sequence) {
            Some(live) => &live.state,
            None => {
                folded = self.final_state(sequence).map_err(|_| FlowError::ExecutionNotRunning)?;
                &folded
            }
        };
        match state.closed.get(&named.scheduled) {
            Some(Closed::TimedOut) => return Err(FlowError::TaskTimedOut),
            Some(Closed::Reported { event, digest: before }) => {
                return match digest == Some(before) {
                    true => Ok(Found::Reported(*event)),
                    false => Err(FlowError::TaskAlreadyCompleted),
                };
            }
            Some(Closed::Ended) => return Err(FlowError::TaskAlreadyCompleted),
            Some(Closed::Cancelled) => return Err(FlowError::TaskCancelled),
            None => {}
        }
        if state.status.is_final() {
            return Err(FlowError::ExecutionNotRunning);
        }
        match state.task_frame(named.scheduled) {
            Some(_) => Ok(Found::Open(sequence, named.scheduled)),
            None => Err(FlowError::InvalidTaskToken),
        }
    }

    fn reported(&self, report: Report) -> Result<Result<Value, Failure>, FlowError> {
        match report {
            Report::Succeeded { output } => {
                let value: Value =
                    serde_json::from_str(&output).map_err(|_| FlowError::InvalidOutput)?;
                if !value.is_object() {
                    return Err(FlowError::InvalidOutput);
                }
                let (bytes, max) = (super::step::json_bytes(&value), self.limits.data_bytes);
                if bytes > max {
                    return Err(FlowError::EntityTooLarge { what: "the output", bytes, max });
                }
                Ok(Ok(value))
            }
            Report::Failed { error, cause } => {
                if error.is_empty() {
                    return Err(FlowError::InvalidArgument("an error has a name".to_owned()));
                }
                self.check_failure(&error, &cause)?;
                Ok(Err(Failure { error, cause }))
            }
        }
    }

    fn check_failure(&self, error: &str, cause: &str) -> Result<(), FlowError> {
        for (what, text, max) in
            [("error", error, self.limits.error_chars), ("cause", cause, self.limits.cause_chars)]
        {
            let chars = text.chars().count();
            if chars > max {
                let why = format!("the {what} has {chars} characters, at most {max} are allowed");
                return Err(FlowError::InvalidArgument(why));
            }
        }
        Ok(())
    }

    fn check_size(&self, what: &'static str, bytes: usize) -> Result<(), FlowError> {
        let max = self.limits.request_bytes;
        match bytes > max {
            true => Err(FlowError::EntityTooLarge { what, bytes, max }),
            false => Ok(()),
        }
    }

    fn check_working(&self) -> Result<(), FlowError> {
        match &self.failed {
            Some(error) => Err(FlowError::Unavailable(error.clone())),
            None => Ok(()),
        }
    }

    fn flow_row(&self, name: &str) -> Result<&FlowRow, FlowError> {
        self.flows.rows.get(name).ok_or_else(|| FlowError::FlowNotExists(name.to_owned()))
    }

    fn put_flow(
        &mut self,
        name: &str,
        text: &str,
        created: Timestamp,
    ) -> Result<Vec<DefinitionError>, FlowError> {
        self.check_working()?;
        self.check_size("the definition", text.len())?;
        let (definition, warnings) = parsed(text).map_err(FlowError::InvalidDefinition)?;
        let digest: Arc<str> = Arc::from(hex(&Sha256::digest(text)));
        let description = definition.annotations.get("description").and_then(Value::as_str);
        let row = FlowRow {
            definition: Arc::clone(&digest),
            created,
            modified: self.now(),
            description: description.unwrap_or_default().to_owned(),
        };
        self.staged.put(Table::Definition, digest.as_bytes(), text);
        put(&mut self.staged, Table::Flow, name, &row);
        self.flows.rows.insert(name.to_owned(), row);
        self.flows.programs.insert(digest, Arc::new(Program::new(definition)));
        self.commit()?;
        Ok(warnings)
    }

    /// A definition made ready to run; read from the store if it was not needed before.
    pub(super) fn program(&mut self, digest: &Arc<str>) -> Result<Arc<Program>, String> {
        if let Some(program) = self.flows.programs.get(digest) {
            return Ok(Arc::clone(program));
        }
        let text = self.store.read(Table::Definition, digest.as_bytes());
        let text = text.map_err(|error| error.to_string())?;
        let text = text.and_then(|text| String::from_utf8(text).ok());
        let text = text.ok_or("the definition is missing or no text")?;
        let parsed = parsed(&text).map_err(|_| "the definition cannot be read any more")?;
        let program = Arc::new(Program::new(parsed.0));
        self.flows.programs.insert(Arc::clone(digest), Arc::clone(&program));
        Ok(program)
    }

    /// The number of an execution.
    pub(super) fn find(&self, flow: &str, name: &str) -> Result<Option<Sequence>, FlowError> {
        let key = (Arc::from(name), Arc::from(flow));
        if let Some(sequence) = self.names.get(&key) {
            return Ok(Some(*sequence));
        }
        let row = self.store.read(Table::Name, &name_key(flow, name));
        Ok(row.map_err(FlowError::Unavailable)?.and_then(|row| journal::sequence_of(&row)))
    }

    fn existing(&self, flow: &str, name: &str) -> Result<Sequence, FlowError> {
        let found = self.find(flow, name)?;
        found.ok_or_else(|| FlowError::ExecutionNotExists(format!("{flow}/{name}")))
    }
}

enum Found {
    Open(Sequence, EventId),
    /// The same was reported before.
    Reported(EventId),
}

fn described(head: &Head, state: &State) -> Description {
    Description {
        flow: head.flow.to_string(),
        name: head.name.to_string(),
        status: if head.status.is_final() { head.status } else { state.status },
        input: (*state.input).clone(),
        started: state.started,
        ended: state.ended.or(head.ended),
        output: state.output.as_ref().map(|output| (**output).clone()),
        failure: head.failure.clone().or_else(|| state.failure.clone()),
        definition: head.definition.to_string(),
        events: state.last_event,
    }
}

/// Names of flows and executions: `[A-Za-z_][A-Za-z0-9_-]{0,127}`.
fn check_name(what: &str, name: &str) -> Result<(), FlowError> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if starts && name.len() <= NAME_CHARS && name.chars().all(rest) {
        return Ok(());
    }
    let shown = super::step::cut(name, 40);
    let why = format!(
        "{shown:?} cannot be the name of a {what}: a letter or `_`, then up to 127 letters, \
         digits, `_` or `-`"
    );
    Err(FlowError::InvalidArgument(why))
}

pub(super) fn parsed(
    text: &str,
) -> Result<(Definition, Vec<DefinitionError>), Vec<DefinitionError>> {
    let checked = Definition::check(text, &LanguageLimits::default());
    checked.definition.map(|definition| (definition, checked.warnings)).ok_or(checked.errors)
}

/// Characters of a name.
pub(super) const NAME_CHARS: usize = 128;
