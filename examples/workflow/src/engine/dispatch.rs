//! From a scheduled task to the bus: invocations, messages, child flows, cancellations.

use std::sync::Arc;

use md5::{Digest, Md5};
use serde_json::{Value, json};
use siftbus::{AdminError, Bus, Message, SubscriptionConfig, Topic, TopicConfig};

use super::calls::StartExecution;
use super::event::{
    EXECUTION_STOPPED, EXECUTION_TIMEOUT, FUNCTION_NOT_FOUND, Failure, PARAMETER_ERROR,
};
use super::journal::{Parent, Sequence};
use super::shell::Engine;
use super::state::{EventId, Phase, State, Status};
use super::step::{Signal, cut};
use super::token::hex;
use crate::language::{Pattern, ResourceTarget, StepKind, Task};
use crate::poll::at_once;

/// The topic of the replies; engines take theirs by a filter on `engine_id`.
pub const REPLY_TOPIC: &str = "flow-reply";
/// The topic of the cancellations.
pub const CANCEL_TOPIC: &str = "flow-cancel";

/// The topic on which invocations of a resource travel; `None` for those that are no invocations.
pub fn task_topic(target: &ResourceTarget) -> Option<String> {
    match target {
        ResourceTarget::Function { service, function } => {
            Some(format!("flow-task.fc.{}.{}", name(service), name(function)))
        }
        ResourceTarget::Job(kind) => Some(format!("flow-task.job.{}", name(kind))),
        _ => None,
    }
}

/// The subscription that the workers of a resource share.
pub fn worker_subscription(topic: &str) -> String {
    format!("{topic}.workers")
}

/// A name with everything but letters, digits and `-_.~` written as `%XX`: it passes every grammar
/// of topics.
fn name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

/// What a task with this child flow is told.
pub(super) fn result_of(state: &State) -> Result<Value, Failure> {
    let failure = state.failure.clone().unwrap_or_else(|| Failure::new("", ""));
    match (state.status, &state.output) {
        (Status::Succeeded, Some(output)) => Ok((**output).clone()),
        (Status::TimedOut, _) => Err(Failure::new(EXECUTION_TIMEOUT, failure.cause)),
        (Status::Stopped, _) => Err(Failure::new(EXECUTION_STOPPED, failure.cause)),
        _ => Err(failure),
    }
}

/// A task that is out, with what it takes to hand it out.
struct Outgoing {
    task: Task,
    step: Arc<str>,
    flow: Arc<str>,
    execution: Arc<str>,
    scheduled: EventId,
    attempt: u32,
    input: Arc<Value>,
    params: Option<Arc<Value>>,
    deadline: Option<String>,
}

impl Outgoing {
    fn task_id(&self) -> String {
        format!("{}/{}", self.execution, self.scheduled)
    }

    fn param(&self, key: &str) -> Option<&Value> {
        self.params.as_ref()?.get(key)
    }
}

impl Engine {
    /// Hands out a task that is still scheduled.
    pub(super) fn dispatch(&mut self, sequence: Sequence, task: EventId) {
        let Some(outgoing) = self.outgoing(sequence, task) else { return };
        match &outgoing.task.resource.target {
            ResourceTarget::MessageTopic(topic) | ResourceTarget::BusTopic(topic) => {
                self.send(sequence, &outgoing, topic, false);
            }
            ResourceTarget::MessageQueue(queue) => self.send(sequence, &outgoing, queue, true),
            ResourceTarget::Flow(flow) => self.start_child(sequence, &outgoing, flow),
            target => {
                let topic = task_topic(target).expect("the others are matched above");
                self.invoke(sequence, &outgoing, Arc::from(topic));
            }
        }
    }

    fn outgoing(&self, sequence: Sequence, scheduled: EventId) -> Option<Outgoing> {
        let live = self.live.get(&sequence)?;
        let (_, frame, state) = live.state.task_frame(scheduled)?;
        let step = live.program.step(frame.step)?;
        let StepKind::Task(task) = &step.kind else { return None };
        (state.phase != Phase::Submitted).then(|| Outgoing {
            task: task.clone(),
            step: Arc::clone(&step.name),
            flow: Arc::clone(&live.head.flow),
            execution: Arc::clone(&live.head.name),
            scheduled,
            attempt: state.attempt,
            input: Arc::clone(&state.input),
            params: state.params.clone(),
            deadline: state.deadline.map(|deadline| deadline.to_string()),
        })
    }

    fn token(&self, outgoing: &Outgoing) -> Option<String> {
        let Outgoing { flow, execution, scheduled, .. } = outgoing;
        (outgoing.task.pattern == Pattern::WaitForCallback)
            .then(|| self.key.token(flow, execution, *scheduled))
    }

    fn refuse(&mut self, sequence: Sequence, task: EventId, failure: Failure) {
        self.signal(sequence, Signal::TaskRefused { task, failure });
    }

    /// Publishes an invocation, or lets it wait if too many of its resource are out (F-116).
    fn invoke(&mut self, sequence: Sequence, outgoing: &Outgoing, topic: Arc<str>) {
        let key = (sequence, outgoing.scheduled);
        if !self.invocations.open.contains_key(&key) {
            let entry = self.invocations.by_topic.entry(Arc::clone(&topic)).or_default();
            if entry.open >= self.limits.inflight {
                entry.waiting.push_back(key);
                return;
            }
        }
        let found = at_once(self.bus.topic(&topic)).ok();
        let served = found.as_ref().is_some_and(|topic| !topic.subscriptions().is_empty());
        if self.require_handlers && !served {
            let cause = format!("nobody serves {}", outgoing.task.resource.arn);
            let failure = Failure::new(FUNCTION_NOT_FOUND, cause);
            self.refuse(sequence, outgoing.scheduled, failure);
            return self.next_waiting(&topic);
        }
        let published = found
            .map_or_else(|| ensure_topic(&self.bus, &topic), Ok)
            .map_err(|error| error.to_string())
            .and_then(|topic| {
                topic.try_publish(self.invocation(outgoing)).map_err(|error| error.to_string())
            });
        if let Err(cause) = published {
            let failure = Failure::new("FC.ResourceExhausted", cause);
            self.refuse(sequence, outgoing.scheduled, failure);
            return self.next_waiting(&topic);
        }
        if self.invocations.open.insert(key, Arc::clone(&topic)).is_none() {
            self.invocations.by_topic.entry(topic).or_default().open += 1;
        }
    }

    /// The message that asks for the work (section "Task dispatch" of the README).
    fn invocation(&self, outgoing: &Outgoing) -> Message {
        let task_id = outgoing.task_id();
        let mut message = Message::new(outgoing.input.to_string())
            .with_attribute("type", "task")
            .with_attribute("flow", &outgoing.flow)
            .with_attribute("execution", &outgoing.execution)
            .with_attribute("step", &outgoing.step)
            .with_attribute("task_id", &task_id)
            .with_attribute("attempt", outgoing.attempt.to_string())
            .with_attribute("pattern", outgoing.task.pattern.name())
            .with_attribute("resource", cut(&outgoing.task.resource.arn, ATTRIBUTE_CHARS))
            .with_attribute("correlid", &task_id)
            .with_attribute("reply_to", REPLY_TOPIC)
            .with_attribute("engine_id", &self.id);
        if let Some(deadline) = &outgoing.deadline {
            message = message.with_attribute("deadline", deadline);
        }
        if let Some(token) = self.token(outgoing) {
            message = message.with_attribute("task_token", token);
        }
        message
    }

    /// An invocation is over; one that waits for its place goes out.
    pub(super) fn invocation_over(&mut self, sequence: Sequence, task: EventId) {
        let Some(topic) = self.invocations.open.remove(&(sequence, task)) else { return };
        if let Some(entry) = self.invocations.by_topic.get_mut(&topic) {
            entry.open = entry.open.saturating_sub(1);
        }
        self.next_waiting(&topic);
    }

    /// Hands out the next invocation of a topic that waits, if there is a place. One that is not
    /// wanted any more, because its task is over, takes none.
    fn next_waiting(&mut self, topic: &Arc<str>) {
        let next = |engine: &mut Self| {
            let entry = engine.invocations.by_topic.get_mut(topic)?;
            (entry.open < engine.limits.inflight).then(|| entry.waiting.pop_front()).flatten()
        };
        while let Some((sequence, task)) = next(self) {
            if self.outgoing(sequence, task).is_some() {
                let command = super::step::Command::Dispatch(task);
                self.commands.push_back((sequence, command));
                return;
            }
        }
        let is_over = |entry: &super::shell::Topic| entry.open == 0 && entry.waiting.is_empty();
        if self.invocations.by_topic.get(topic).is_some_and(is_over) {
            self.invocations.by_topic.remove(topic);
        }
    }

    /// Publishes a message (F-60); that it was published is the result.
    fn send(&mut self, sequence: Sequence, outgoing: &Outgoing, topic: &str, queue: bool) {
        let message = match self.message(outgoing) {
            Ok(message) => message,
            Err(cause) => {
                let failure = Failure::new(PARAMETER_ERROR, cause);
                return self.refuse(sequence, outgoing.scheduled, failure);
            }
        };
        let digest = Md5::digest(message.data());
        let published = ensure_topic(&self.bus, topic)
            .and_then(|found| match queue {
                // A queue keeps what nobody has taken yet.
                true => ensure_subscription(&found, topic).map(|()| found),
                false => Ok(found),
            })
            .map_err(|error| error.to_string())
            .and_then(|topic| topic.try_publish(message).map_err(|error| error.to_string()));
        match published {
            Ok(receipt) => {
                let request = format!("{}#{}", self.id, outgoing.task_id());
                let output = json!({
                    "MessageId": receipt.id().as_u64().to_string(),
                    "RequestId": hex(&Md5::digest(request)).to_uppercase(),
                    "MessageBodyMD5": hex(&digest).to_uppercase(),
                });
                let task = outgoing.scheduled;
                self.signal(sequence, Signal::TaskDone { task, result: Ok(output) });
            }
            Err(cause) => {
                let failure = Failure::new(PARAMETER_ERROR, cause);
                self.refuse(sequence, outgoing.scheduled, failure);
            }
        }
    }

    fn message(&self, outgoing: &Outgoing) -> Result<Message, String> {
        let body = match outgoing.param("MessageBody") {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => outgoing.input.to_string(),
        };
        let mut message = Message::new(body).with_attribute("task_id", outgoing.task_id());
        if let Some(attributes) = outgoing.param("MessageAttributes") {
            let Value::Object(attributes) = attributes else {
                return Err("MessageAttributes is not an object".to_owned());
            };
            for (key, value) in attributes {
                let value = scalar(value)
                    .ok_or_else(|| format!("the message attribute {key} is not a scalar"))?;
                message = message.with_attribute(key, value);
            }
        }
        if let Some(tag) = outgoing.param("MessageTag") {
            let tag = scalar(tag).ok_or("MessageTag is not a scalar")?;
            message = message.with_attribute("tag", tag);
        }
        if let Some(token) = self.token(outgoing) {
            message = message.with_attribute("task_token", token);
        }
        Ok(message)
    }

    /// Starts a child flow, or finds the one that this task has started before a crash (F-61).
    fn start_child(&mut self, sequence: Sequence, outgoing: &Outgoing, flow: &str) {
        let task = outgoing.scheduled;
        let sync = outgoing.task.pattern == Pattern::Sync;
        let parent = Parent { execution: sequence, task, sync };
        let name = match outgoing.param("ExecutionName") {
            None => child_name(outgoing),
            Some(Value::String(name)) => name.clone(),
            Some(_) => {
                let failure = Failure::new(PARAMETER_ERROR, "ExecutionName is not a string");
                return self.refuse(sequence, task, failure);
            }
        };
        let input = match outgoing.param("Input") {
            None => Ok((*outgoing.input).clone()),
            Some(Value::String(text)) => {
                serde_json::from_str(text).map_err(|error| format!("Input: {error}"))
            }
            Some(value) => Ok(value.clone()),
        };
        let input = match input {
            Ok(input) if input.is_object() => input,
            Ok(_) => {
                let failure = Failure::new(PARAMETER_ERROR, "Input is not a JSON object");
                return self.refuse(sequence, task, failure);
            }
            Err(cause) => {
                return self.refuse(sequence, task, Failure::new(PARAMETER_ERROR, cause));
            }
        };
        match self.child_of(flow, &name, parent) {
            Child::Running => {}
            Child::Ended(result) if sync => {
                return self.signal(sequence, Signal::TaskDone { task, result });
            }
            Child::Ended(_) => {}
            Child::Another => {
                let cause = format!("there is an execution {name} of the flow {flow}");
                let failure = Failure::new("FnF.ExecutionAlreadyExists", cause);
                return self.refuse(sequence, task, failure);
            }
            Child::None => {
                let start = StartExecution::new(flow, input).named(&name);
                if let Err(error) = self.stage_start(start, Some(parent)) {
                    let failure = match &error {
                        super::error::FlowError::FlowNotExists(_) => {
                            Failure::new(FUNCTION_NOT_FOUND, error.to_string())
                        }
                        other => Failure::new(format!("FnF.{}", other.name()), other.to_string()),
                    };
                    return self.refuse(sequence, task, failure);
                }
            }
        }
        match sync {
            true => self.signal(sequence, Signal::TaskStarted(task)),
            false => {
                let output = json!({"FlowName": flow, "ExecutionName": name});
                self.signal(sequence, Signal::TaskDone { task, result: Ok(output) });
            }
        }
    }

    fn child_of(&self, flow: &str, name: &str, parent: Parent) -> Child {
        let Ok(Some(found)) = self.find(flow, name) else { return Child::None };
        let head = match self.head(found) {
            Ok(head) => head,
            Err(_) => return Child::Another,
        };
        let ours = head.parent == Some(parent);
        match (head.status.is_final(), ours, parent.sync) {
            (true, true, _) => {
                let result = match self.final_state(found) {
                    Ok(state) => result_of(&state),
                    Err(failure) => Err(failure),
                };
                Child::Ended(result)
            }
            // An execution of the same name that runs is taken for the one that was asked for.
            (false, true, _) | (false, false, false) => Child::Running,
            _ => Child::Another,
        }
    }

    /// Tells whoever works on a task that its result is not wanted any more; nobody need listen.
    pub(super) fn cancel(&mut self, sequence: Sequence, task: EventId, step: u32) {
        self.invocation_over(sequence, task);
        let Some(live) = self.live.get(&sequence) else { return };
        let Some(step) = live.program.step(step) else { return };
        let StepKind::Task(definition) = &step.kind else { return };
        let Some(topic) = task_topic(&definition.resource.target) else { return };
        let task_id = format!("{}/{task}", live.head.name);
        let message = Message::new("")
            .with_attribute("type", "task-cancel")
            .with_attribute("topic", cut(&topic, ATTRIBUTE_CHARS))
            .with_attribute("flow", &live.head.flow)
            .with_attribute("execution", &live.head.name)
            .with_attribute("task_id", &task_id)
            .with_attribute("correlid", &task_id)
            .with_attribute("resource", cut(&definition.resource.arn, ATTRIBUTE_CHARS))
            .with_attribute("engine_id", &self.id);
        if let Ok(topic) = ensure_topic(&self.bus, CANCEL_TOPIC) {
            // A full bus loses a cancellation: the worker then works for nothing.
            let _ = topic.try_publish(message);
        }
    }
}

enum Child {
    None,
    Running,
    Ended(Result<Value, Failure>),
    Another,
}

/// `{parent}-{step}-{scheduleEventId}`, cut where that would be too long for a name.
fn child_name(outgoing: &Outgoing) -> String {
    let name = format!("{}-{}-{}", outgoing.execution, outgoing.step, outgoing.scheduled);
    if name.len() <= super::calls::NAME_CHARS {
        return name;
    }
    let tail = format!("-{}", hex(&Md5::digest(&name)));
    format!("{}{tail}", cut(&name, super::calls::NAME_CHARS - tail.len()))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The topic of this name; made if it is not there.
pub(crate) fn ensure_topic(bus: &Bus, name: &str) -> Result<Topic, AdminError> {
    match at_once(bus.topic(name)) {
        Err(AdminError::NotFound { .. }) => at_once(bus.create_topic(name, TopicConfig::new())),
        found => found,
    }
}

fn ensure_subscription(topic: &Topic, name: &str) -> Result<(), AdminError> {
    match at_once(topic.subscribe(name, SubscriptionConfig::new())) {
        Ok(_) | Err(AdminError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Characters of a resource in an attribute: four bytes each would still fit.
const ATTRIBUTE_CHARS: usize = 256;
