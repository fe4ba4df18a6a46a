//! A second reading of the specification: an interpreter of flows that is as plain as can be.
//!
//! It shares nothing with the engine: it walks the JSON of a definition by recursion, with the time
//! as a number, and knows no events. Branches do not see each other, so each runs alone, and what
//! an error in one takes away from the others is cut afterwards. Not in it: child flows, messages,
//! callbacks, limits.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub(crate) mod flows;

pub(crate) type Object = Map<String, Value>;

/// What a worker does with an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// When, in milliseconds; `None`: never.
    pub(crate) after: Option<u64>,
    pub(crate) result: Result<Value, (String, String)>,
}

/// A condition with its text.
#[derive(Clone, Debug)]
pub(crate) enum Truth {
    Equal(&'static str, Value),
    Above(&'static str, i64),
    In(Value, &'static str),
    Not(Box<Truth>),
    And(Box<Truth>, Box<Truth>),
    Or(Box<Truth>, Box<Truth>),
}

impl Truth {
    pub(crate) fn text(&self) -> String {
        match self {
            Truth::Equal(key, value) => format!("$.{key} == {value}"),
            Truth::Above(key, value) => format!("$.{key} > {value}"),
            Truth::In(value, key) => format!("{value} in $.{key}"),
            Truth::Not(truth) => format!("!({})", truth.text()),
            Truth::And(a, b) => format!("({}) && ({})", a.text(), b.text()),
            Truth::Or(a, b) => format!("({}) || ({})", a.text(), b.text()),
        }
    }

    fn holds(&self, input: &Object) -> bool {
        let null = Value::Null;
        let at = |key: &str| input.get(key).unwrap_or(&null);
        match self {
            Truth::Equal(key, value) => at(key) == value,
            Truth::Above(key, value) => at(key).as_f64().is_some_and(|found| found > *value as f64),
            Truth::In(value, key) => match at(key) {
                Value::Array(items) => items.contains(value),
                Value::Object(object) => {
                    value.as_str().is_some_and(|value| object.contains_key(value))
                }
                _ => false,
            },
            Truth::Not(truth) => !truth.holds(input),
            Truth::And(a, b) => a.holds(input) && b.holds(input),
            Truth::Or(a, b) => a.holds(input) || b.holds(input),
        }
    }
}

/// A flow, its workers and its conditions.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) definition: Value,
    pub(crate) input: Value,
    /// The answers to the attempts of each task; the last repeats.
    pub(crate) answers: BTreeMap<String, Vec<Answer>>,
    pub(crate) truths: BTreeMap<String, Truth>,
}

type Failed = (String, String);

/// What came of a flow.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub(crate) status: &'static str,
    pub(crate) elapsed: u64,
    pub(crate) output: Option<Value>,
    pub(crate) failed: Option<Failed>,
    /// When each step was entered, sorted.
    pub(crate) visits: Vec<(u64, String)>,
}

/// What came of a list or a step: its end, its result, and the steps that were entered.
struct Ran<T> {
    at: u64,
    result: Result<T, Failed>,
    visits: Vec<(u64, String)>,
}

/// Where a list goes on.
enum Next {
    On,
    End,
    Goto(String),
}

impl Flow {
    pub(crate) fn run(&self) -> End {
        let none = Object::new();
        let input = object(&self.input);
        let mapped = match self.definition.get("inputMappings") {
            Some(mappings) => self.mapped(mappings, &input, &none, &input, "", 0),
            None => input,
        };
        let ran = self.list(steps(&self.definition), &mapped, 0);
        let deadline = self.definition.get("timeoutSeconds").map(millis);
        if let Some(deadline) = deadline.filter(|deadline| ran.at >= *deadline) {
            let mut visits = ran.visits;
            visits.retain(|(at, _)| *at < deadline);
            visits.sort();
            let failed = Some(("FnF.ExecutionTimeout".to_owned(), String::new()));
            return End { status: "TimedOut", elapsed: deadline, output: None, failed, visits };
        }
        let mut visits = ran.visits;
        visits.sort();
        let (status, output, failed) = match ran.result {
            Ok(local) => {
                let output = match self.definition.get("outputMappings") {
                    Some(mappings) => self.mapped(mappings, &mapped, &local, &mapped, "", 0),
                    None => local,
                };
                ("Succeeded", Some(Value::Object(output)), None)
            }
            Err(failed) => ("Failed", None, Some(failed)),
        };
        End { status, elapsed: ran.at, output, failed, visits }
    }

    /// F-01, F-20, F-21: steps in order, the union of their outputs.
    fn list(&self, steps: &[Value], input: &Object, start: u64) -> Ran<Object> {
        let (mut at, mut local, mut position) = (start, Object::new(), 0);
        let mut visits = Vec::new();
        while let Some(step) = steps.get(position) {
            visits.push((at, name(step).to_owned()));
            let ran = self.step(step, input, &local, at);
            visits.extend(ran.visits);
            at = ran.at;
            match ran.result {
                Err(failed) => return Ran { at, result: Err(failed), visits },
                Ok((output, next)) => {
                    local.extend(output);
                    position = match next {
                        Next::On => position + 1,
                        Next::End => steps.len(),
                        Next::Goto(target) => {
                            steps.iter().position(|step| name(step) == target).unwrap()
                        }
                    };
                }
            }
        }
        Ran { at, result: Ok(local), visits }
    }

    fn step(
        &self,
        step: &Value,
        parent: &Object,
        local: &Object,
        start: u64,
    ) -> Ran<(Object, Next)> {
        let input = |attempt| self.input(step, parent, local, attempt);
        let mut entered = input(1);
        let kind = step["type"].as_str().unwrap();
        let mut next = match step.get("end") == Some(&json!(true)) || kind == "succeed" {
            true => Next::End,
            false => Next::On,
        };
        let (mut at, mut visits) = (start, Vec::new());
        let mut used = vec![0_u64; list(step, "retry").len()];
        let mut attempt = 1;
        let own = loop {
            entered = if kind == "task" { input(attempt) } else { entered };
            let ran = self.once(step, kind, &entered, attempt, at, &mut next);
            at = ran.at;
            visits.extend(ran.visits);
            let failed = match ran.result {
                Ok(own) => break own,
                Err(failed) => failed,
            };
            if let Some(delay) = retried(step, &failed, &mut used) {
                at += delay;
                attempt += 1;
                continue;
            }
            let Some(catch) = list(step, "catch").iter().find(|it| matches(it, &failed)) else {
                return Ran { at, result: Err(failed), visits };
            };
            let (error, cause) = failed;
            let own = json!({"error": error, "cause": cause, "code": error});
            let output = match step.get("errorMappings") {
                Some(mappings) => {
                    self.mapped(mappings, &entered, &object(&own), &entered, name(step), 0)
                }
                None => Object::new(),
            };
            let goto = Next::Goto(catch["goto"].as_str().unwrap().to_owned());
            return Ran { at, result: Ok((output, goto)), visits };
        };
        let output = match (step.get("outputMappings"), own) {
            (Some(mappings), own) => {
                self.mapped_of(mappings, &entered, &own, &entered, name(step), 0)
            }
            (None, Value::Object(own)) => own,
            (None, _) => Object::new(),
        };
        Ran { at, result: Ok((output, next)), visits }
    }

    /// What a step does, without mappings and the handling of errors: its `$local`.
    fn once(
        &self,
        step: &Value,
        kind: &str,
        input: &Object,
        attempt: usize,
        at: u64,
        next: &mut Next,
    ) -> Ran<Value> {
        let quick = |result| Ran { at, result, visits: Vec::new() };
        match kind {
            "pass" | "succeed" => quick(Ok(json!({}))),
            "fail" => {
                let text = |key: &str, default: &str| {
                    step.get(key).and_then(Value::as_str).unwrap_or(default).to_owned()
                };
                quick(Err((text("error", "FnF.StepFailed"), text("cause", ""))))
            }
            "wait" => Ran { at: at + millis(&step["duration"]), ..quick(Ok(json!({}))) },
            "choice" => self.choice(step, input, at, next),
            "parallel" => {
                let runs = list(step, "branches");
                self.fan(runs.iter().map(|branch| (steps(branch), input.clone())), at, runs.len())
            }
            "foreach" => {
                let mapping = &step["iterationMapping"];
                let path = mapping["collection"].as_str().unwrap();
                let key = path.strip_prefix("$.").unwrap();
                let Some(Value::Array(items)) = input.get(key) else {
                    let cause = format!("{path} gives no array");
                    return quick(Err(("FnF.ParameterError".to_owned(), cause)));
                };
                let most = step.get("x-maxConcurrency").and_then(Value::as_u64).unwrap_or(100);
                let runs = items.iter().enumerate().map(|(index, item)| {
                    let mut input = input.clone();
                    input.insert(mapping["item"].as_str().unwrap().to_owned(), item.clone());
                    if let Some(key) = mapping.get("index").and_then(Value::as_str) {
                        input.insert(key.to_owned(), json!(index));
                    }
                    (steps(step), input)
                });
                self.fan(runs, at, most as usize)
            }
            _ => self.task(step, input, attempt, at),
        }
    }

    fn choice(&self, step: &Value, input: &Object, at: u64, next: &mut Next) -> Ran<Value> {
        let holds = |choice: &&Value| match &choice["condition"] {
            Value::Bool(always) => *always,
            text => self.truths[text.as_str().unwrap()].holds(input),
        };
        let taken = list(step, "choices").iter().find(holds).or(step.get("default"));
        let Some(taken) = taken else {
            return Ran { at, result: Ok(json!({})), visits: Vec::new() };
        };
        let ran = self.list(steps(taken), input, at);
        if let Some(goto) = taken.get("goto").and_then(Value::as_str) {
            *next = Next::Goto(goto.to_owned());
        }
        Ran { at: ran.at, result: ran.result.map(Value::Object), visits: ran.visits }
    }

    /// F-50 to F-54: each run for itself, then the first error cuts the others.
    fn fan<'a>(
        &self,
        runs: impl Iterator<Item = (&'a [Value], Object)>,
        at: u64,
        at_once: usize,
    ) -> Ran<Value> {
        let mut busy: Vec<u64> = Vec::new();
        let mut ran = Vec::new();
        for (steps, input) in runs {
            let start = match busy.len() < at_once {
                true => at,
                false => {
                    let first = (0..busy.len()).min_by_key(|index| busy[*index]).unwrap();
                    busy.swap_remove(first)
                }
            };
            let run = self.list(steps, &input, start);
            busy.push(run.at);
            ran.push(run);
        }
        let failed = |(index, run): (usize, &Ran<Object>)| {
            run.result.as_ref().err().map(|failed| (run.at, index, failed.clone()))
        };
        let first = ran.iter().enumerate().filter_map(failed).min_by_key(|it| (it.0, it.1));
        let Some((at, index, failed)) = first else {
            let at = ran.iter().map(|run| run.at).max().unwrap_or(at);
            let visits = ran.iter().flat_map(|run| run.visits.clone()).collect();
            let locals = ran.into_iter().map(|run| Value::Object(run.result.unwrap()));
            return Ran { at, result: Ok(locals.collect()), visits };
        };
        let mut visits = Vec::new();
        for (other, run) in ran.into_iter().enumerate() {
            // At the instant of the error those before it have advanced, those behind have not.
            let is_before = |time: u64| time < at || (time == at && other <= index);
            visits.extend(run.visits.into_iter().filter(|(time, _)| is_before(*time)));
        }
        Ran { at, result: Err(failed), visits }
    }

    fn task(&self, step: &Value, input: &Object, attempt: usize, at: u64) -> Ran<Value> {
        let answers = &self.answers[name(step)];
        let answer = &answers[(attempt - 1).min(answers.len() - 1)];
        let timeout = step.get("timeoutSeconds").map(millis);
        let after = answer.after.filter(|after| timeout.is_none_or(|timeout| *after < timeout));
        let Some(after) = after else {
            let cause = "the task took longer than its timeoutSeconds".to_owned();
            let result = Err(("FnF.TaskTimeout".to_owned(), cause));
            return Ran { at: at + timeout.unwrap(), result, visits: Vec::new() };
        };
        let result = match &answer.result {
            Err(failed) => Err(failed.clone()),
            Ok(Value::Object(output)) => {
                let filled = |value: &Value| match value.as_str() {
                    Some("$in.v") => input.get("v").cloned().unwrap_or_default(),
                    _ => value.clone(),
                };
                let pairs = output.iter().map(|(key, value)| (key.clone(), filled(value)));
                Ok(Value::Object(pairs.collect()))
            }
            Ok(_) => {
                let cause = "the result is not a JSON object".to_owned();
                Err(("FnF.InvalidOutput".to_owned(), cause))
            }
        };
        Ran { at: at + after, result, visits: Vec::new() }
    }

    /// F-02, F-03.
    fn input(&self, step: &Value, parent: &Object, local: &Object, attempt: usize) -> Object {
        let mut both = parent.clone();
        both.extend(local.clone());
        match step.get("inputMappings") {
            Some(mappings) => self.mapped(mappings, parent, local, &both, name(step), attempt),
            None => both,
        }
    }

    fn mapped(
        &self,
        mappings: &Value,
        input: &Object,
        local: &Object,
        whole: &Object,
        step: &str,
        attempt: usize,
    ) -> Object {
        let local = Value::Object(local.clone());
        self.mapped_of(mappings, input, &local, whole, step, attempt)
    }

    fn mapped_of(
        &self,
        mappings: &Value,
        input: &Object,
        local: &Value,
        whole: &Object,
        step: &str,
        attempt: usize,
    ) -> Object {
        let context = json!({
            "step": {"name": step}, "task": {"attempt": attempt}, "execution": {"name": "exec-1"},
        });
        let roots = |text: &str| {
            let roots = [
                ("$input", Value::Object(input.clone())),
                ("$local", local.clone()),
                ("$context", context.clone()),
                ("$", Value::Object(whole.clone())),
            ];
            let root = roots.into_iter().find(|(root, _)| text.starts_with(root)).unwrap();
            (root.1, text[root.0.len()..].to_owned())
        };
        let mut object = Object::new();
        for mapping in mappings.as_array().unwrap() {
            let value = match mapping["source"].as_str() {
                Some(text) if text.starts_with("$$") => Some(json!(text[1..])),
                Some(text) if text.starts_with('$') => {
                    let (root, rest) = roots(text);
                    found(root, &rest)
                }
                _ => Some(mapping["source"].clone()),
            };
            if let Some(value) = value {
                object.insert(mapping["target"].as_str().unwrap().to_owned(), value);
            }
        }
        object
    }
}

/// F-13, for keys and one wildcard.
fn found(root: Value, path: &str) -> Option<Value> {
    if let Some((before, after)) = path.split_once("[*]") {
        let items = match found(root, before) {
            Some(Value::Array(items)) => items,
            Some(Value::Object(object)) => object.into_iter().map(|(_, value)| value).collect(),
            _ => Vec::new(),
        };
        return Some(items.into_iter().filter_map(|item| found(item, after)).collect());
    }
    let keys = path.split('.').filter(|key| !key.is_empty());
    keys.into_iter().try_fold(root, |value, key| value.as_object()?.get(key).cloned())
}

/// F-70: the pause before the next attempt, if there is one.
fn retried(step: &Value, failed: &Failed, used: &mut [u64]) -> Option<u64> {
    let index = list(step, "retry").iter().position(|policy| matches(policy, failed))?;
    let policy = &list(step, "retry")[index];
    let number =
        |key: &str, default: u64| policy.get(key).and_then(Value::as_u64).unwrap_or(default);
    if used[index] >= number("maxAttempts", 3) {
        return None;
    }
    let factor = number("multiplier", 2).pow(used[index] as u32);
    used[index] += 1;
    let longest = number("maxIntervalSeconds", 86_400);
    Some((number("intervalSeconds", 1) * factor).min(longest) * 1_000)
}

fn matches(handler: &Value, failed: &Failed) -> bool {
    list(handler, "errors").iter().any(|name| name == "FnF.ALL" || *name == failed.0.as_str())
}

fn steps(holder: &Value) -> &[Value] {
    list(holder, "steps")
}

fn list<'a>(holder: &'a Value, key: &str) -> &'a [Value] {
    holder.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn name(step: &Value) -> &str {
    step["name"].as_str().unwrap()
}

fn object(value: &Value) -> Object {
    value.as_object().cloned().unwrap_or_default()
}

fn millis(seconds: &Value) -> u64 {
    (seconds.as_f64().unwrap() * 1_000.0).round() as u64
}
