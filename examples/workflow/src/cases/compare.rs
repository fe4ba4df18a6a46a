//! What came out beside what was expected.

use serde_json::Value;

use super::doubles::{Doubles, masked};
use super::files::{Expected, Published};
use super::runner::Played;
use crate::engine::{Event, EventKind};
use crate::language::{Resource, ResourceTarget, StepKind};

/// Everything that differs, in words.
pub(super) fn differences(expected: &Expected, played: &Played, doubles: &Doubles) -> Vec<String> {
    let mut found = Vec::new();
    let mut differs = |what: &str, expected: String, got: String| {
        if expected != got {
            found.push(format!("{what}: expected {expected}, got {got}"));
        }
    };
    let description = &played.description;
    if let Some(status) = &expected.status {
        differs("status", status.clone(), description.status.name().to_owned());
    }
    let failure = description.failure.as_ref();
    if let Some(error) = &expected.error {
        let got = failure.map(|failure| failure.error.clone()).unwrap_or_default();
        differs("error", error.clone(), got);
    }
    if let Some(cause) = &expected.cause {
        let got = failure.map(|failure| failure.cause.clone()).unwrap_or_default();
        differs("cause", cause.clone(), got);
    }
    if let Some(elapsed) = expected.elapsed_ms {
        let end = description.ended.unwrap_or(played.now);
        let got = end.since(description.started).as_millis();
        differs("elapsed_ms", elapsed.to_string(), got.to_string());
    }
    let visited: Vec<String> = played.events.iter().filter_map(entered).collect();
    if let Some(expected) = &expected.visited {
        differs("visited", format!("{expected:?}"), format!("{visited:?}"));
    }
    if let Some(expected) = &expected.visited_unordered {
        let sorted = |steps: &[String]| {
            let mut steps = steps.to_vec();
            steps.sort();
            format!("{steps:?}")
        };
        differs("visited_unordered", sorted(expected), sorted(&visited));
    }
    if let Some(max) = expected.event_count_max
        && description.events > max
    {
        differs("event_count_max", max.to_string(), description.events.to_string());
    }
    for (arn, count) in expected.invocations.iter().flatten() {
        let got = played.calls(arn, doubles).len();
        differs(&format!("invocations of {arn}"), count.to_string(), got.to_string());
    }
    let output = description.output.clone();
    if let Some(expected) = &expected.output
        && !output.as_ref().is_some_and(|got| same(expected, got))
    {
        let got = output.map_or("none".to_owned(), |got| got.to_string());
        found.push(format!("output: expected {expected}, got {got}"));
    }
    for (arn, inputs) in expected.invocation_inputs.iter().flatten() {
        let got = played.calls(arn, doubles);
        if !same_multiset(inputs, &got) {
            let (inputs, got) = (Value::from(inputs.clone()), Value::from(got));
            found.push(format!("inputs of {arn}: expected {inputs}, got {got}"));
        }
    }
    match &expected.published {
        None => {}
        Some(Published::All(messages)) => {
            check_messages("published", messages, played.messages(None), &mut found);
        }
        Some(Published::ByResource(resources)) => {
            for (arn, messages) in resources {
                check_messages(arn, messages, played.messages(Some(arn)), &mut found);
            }
        }
    }
    if let Some(expected) = &expected.events_in_order {
        let mut events = played.events.iter();
        for (kind, step) in expected {
            if !events.any(|event| event.kind.name() == kind && &*event.step == step) {
                found.push(format!("events_in_order: no [{kind}, {step}] after the ones before"));
                break;
            }
        }
    }
    found
}

fn check_messages(what: &str, expected: &[Value], got: Vec<Value>, found: &mut Vec<String>) {
    if !same_multiset(expected, &got) {
        let (expected, got) = (Value::from(expected.to_vec()), Value::from(got));
        found.push(format!("published to {what}: expected {expected}, got {got}"));
    }
}

fn entered(event: &Event) -> Option<String> {
    matches!(event.kind, EventKind::StepEntered { .. }).then(|| event.step.to_string())
}

impl Played {
    /// The inputs with which a resource was called: of functions what their double has seen, of
    /// messages and child flows what was scheduled.
    fn calls(&self, arn: &str, doubles: &Doubles) -> Vec<Value> {
        let Some(resource) = Resource::parse(arn) else { return Vec::new() };
        match resource.target {
            ResourceTarget::Function { .. } | ResourceTarget::Job(_) => doubles.inputs(arn),
            target => self.scheduled(&target).into_iter().map(|(input, _)| input).collect(),
        }
    }

    /// The evaluated parameters of messages.
    fn messages(&self, arn: Option<&str>) -> Vec<Value> {
        match arn {
            Some(arn) => {
                let target = Resource::parse(arn).map(|resource| resource.target);
                let scheduled = target.map(|target| self.scheduled(&target)).unwrap_or_default();
                scheduled.into_iter().map(|(_, params)| params).collect()
            }
            None => {
                let mut all = Vec::new();
                for (target, _, params) in self.tasks() {
                    if matches!(
                        target,
                        ResourceTarget::MessageTopic(_)
                            | ResourceTarget::MessageQueue(_)
                            | ResourceTarget::BusTopic(_)
                    ) {
                        all.push(params);
                    }
                }
                all
            }
        }
    }

    fn scheduled(&self, target: &ResourceTarget) -> Vec<(Value, Value)> {
        let tasks = self.tasks().into_iter();
        tasks.filter(|(of, ..)| of == target).map(|(_, input, params)| (input, params)).collect()
    }

    /// Every scheduled task of every execution: its target, input and parameters.
    fn tasks(&self) -> Vec<(ResourceTarget, Value, Value)> {
        let mut tasks = Vec::new();
        for run in &self.runs {
            for event in &run.events {
                let EventKind::TaskScheduled { input, params, .. } = &event.kind else { continue };
                let Some(step) = run.definition.step(&event.step) else { continue };
                let StepKind::Task(task) = &step.kind else { continue };
                let token = self.key.token(&run.flow, &run.name, event.id);
                let params = params.as_ref().map(|params| masked(params, &token));
                let params = params.unwrap_or_else(|| serde_json::json!({}));
                tasks.push((task.resource.target.clone(), masked(input, &token), params));
            }
        }
        tasks
    }
}

/// Whether two values are the same; numbers by value.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter().all(|(key, value)| y.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

fn same_multiset(expected: &[Value], got: &[Value]) -> bool {
    let mut left: Vec<&Value> = got.iter().collect();
    expected.len() == got.len()
        && expected.iter().all(|value| {
            let at = left.iter().position(|other| same(value, other));
            at.map(|at| left.swap_remove(at)).is_some()
        })
}
