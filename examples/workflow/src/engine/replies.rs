//! What arrives on the reply topic, as signals (F-111, F-113).

use std::sync::Arc;

use serde_json::Value;
use siftbus::Message;

use super::calls::Report;
use super::event::{FUNCTION_UNKNOWN, Failure};
use super::journal::Sequence;
use super::shell::Engine;
use super::state::{EventId, Phase};
use super::step::Signal;

impl Engine {
    /// Takes one message of the reply topic. What fits no open task is counted, never an error.
    pub(super) fn reply(&mut self, message: &Message) {
        match message.attribute("type") {
            Some("task-report") => self.report_message(message),
            _ => match self.addressee(message) {
                Some((sequence, task)) => self.result_message(sequence, task, message),
                None => self.stats.late_replies += 1,
            },
        }
    }

    /// The open task that a reply is for.
    fn addressee(&self, message: &Message) -> Option<(Sequence, EventId)> {
        let (execution, task) = message.attribute("task_id")?.rsplit_once('/')?;
        let task: EventId = task.parse().ok()?;
        let is_open = |sequence: &Sequence| {
            let live = self.live.get(sequence);
            let open = live.and_then(|live| live.state.task_frame(task));
            open.is_some_and(|(_, _, state)| state.phase != Phase::Submitted)
        };
        let execution: Arc<str> = Arc::from(execution);
        if let Some(flow) = message.attribute("flow") {
            let sequence = self.names.get(&(execution, Arc::from(flow)))?;
            return is_open(sequence).then_some((*sequence, task));
        }
        // Without the flow's name a reply counts if only one open task can be meant.
        let from = (Arc::clone(&execution), Arc::from(""));
        let mut candidates = self
            .names
            .range(from..)
            .take_while(|((name, _), _)| *name == execution)
            .map(|(_, sequence)| *sequence)
            .filter(is_open);
        let sequence = candidates.next()?;
        candidates.next().is_none().then_some((sequence, task))
    }

    fn result_message(&mut self, sequence: Sequence, task: EventId, message: &Message) {
        let signal = match message.attribute("status") {
            Some("started") => Signal::TaskStarted(task),
            Some("heartbeat") => Signal::TaskHeartbeat(task),
            Some("ok") => {
                let nonsense = |error: serde_json::Error| {
                    Failure::new(FUNCTION_UNKNOWN, format!("the answer is not JSON: {error}"))
                };
                let result = serde_json::from_slice(message.data()).map_err(nonsense);
                Signal::TaskDone { task, result }
            }
            Some("error") => {
                let error = message.attribute("error").unwrap_or_default();
                let cause = String::from_utf8_lossy(message.data());
                Signal::TaskDone { task, result: Err(Failure::new(error, cause)) }
            }
            _ => {
                self.stats.late_replies += 1;
                return;
            }
        };
        self.signal(sequence, signal);
    }

    /// A report over the bus is treated like the call (section 4.2 of the specification); nobody
    /// waits for the answer.
    fn report_message(&mut self, message: &Message) {
        let token = message.attribute("task_token").unwrap_or_default();
        let data = String::from_utf8_lossy(message.data());
        let result = match message.attribute("status") {
            Some("heartbeat") => self.stage_heartbeat(token),
            Some("error") => {
                let error = message.attribute("error").unwrap_or_default();
                self.stage_report(token, Report::failed(error, &*data)).map(|_| ())
            }
            _ => self.stage_report(token, Report::succeeded(&*data)).map(|_| ()),
        };
        if result.is_err() {
            self.stats.late_replies += 1;
        }
    }

    /// Reports the end of an execution to the task whose token it was started with.
    pub(super) fn report_end(&mut self, token: &str, result: Result<Value, Failure>) {
        let report = match result {
            Ok(output) => Report::succeeded(output.to_string()),
            Err(failure) => Report::failed(failure.error, failure.cause),
        };
        // The task may be over by now: then nobody wants to know.
        if self.stage_report(token, report).is_err() {
            self.stats.late_replies += 1;
        }
    }
}
