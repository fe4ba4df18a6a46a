//! Random flows that end: every type of step that the model knows, with loops only forward.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Answer, Flow, Truth};

/// Small, seeded, and good enough to choose with.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) as usize) % count
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

const KEYS: [&str; 6] = ["a", "b", "c", "list", "obj", "items"];
const ERRORS: [&str; 4] = ["E1", "E2", "E3", "FnF.ALL"];

pub(crate) struct Maker {
    random: Random,
    names: usize,
    answers: BTreeMap<String, Vec<Answer>>,
    truths: BTreeMap<String, Truth>,
}

/// A flow that follows from the seed.
pub(crate) fn flow(seed: u64) -> Flow {
    let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let (answers, truths) = (BTreeMap::new(), BTreeMap::new());
    let mut maker = Maker { random, names: 0, answers, truths };
    let mut definition = json!({"version": "v1", "type": "flow", "steps": maker.steps(0, true)});
    if maker.random.one_in(4) {
        definition["inputMappings"] = maker.mappings(&["$input", "$"]);
    }
    if maker.random.one_in(4) {
        definition["outputMappings"] = maker.mappings(&["$input", "$local", "$"]);
    }
    if maker.random.one_in(5) {
        // No two things happen at that instant: everything else takes whole hundredths.
        definition["timeoutSeconds"] = json!(maker.random.below(9) as f64 + 0.005);
    }
    let input = json!({"a": 1, "b": "x", "list": [1, "x", 3], "obj": {"k": 1, "a": "deep"}});
    Flow { definition, input, answers: maker.answers, truths: maker.truths }
}

impl Maker {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("s{}", self.names)
    }

    fn steps(&mut self, depth: usize, can_fail: bool) -> Value {
        let count = 1 + self.random.below(if depth == 0 { 5 } else { 3 });
        let names: Vec<String> = (0..count).map(|_| self.name()).collect();
        let steps = names.iter().enumerate().map(|(index, name)| {
            // A goto leads forward, so that every flow ends.
            let later = &names[index + 1..];
            self.step(name, later, depth, can_fail)
        });
        steps.collect::<Vec<_>>().into()
    }

    fn step(&mut self, name: &str, later: &[String], depth: usize, can_fail: bool) -> Value {
        let kinds = ["pass", "wait", "task", "task", "choice", "parallel", "foreach", "succeed"];
        let mut kind = self.random.one_of(&kinds);
        if depth >= 3 && ["choice", "parallel", "foreach"].contains(&kind) {
            kind = "pass";
        }
        if can_fail && self.random.one_in(12) {
            kind = "fail";
        }
        if kind == "succeed" && !self.random.one_in(3) {
            kind = "pass";
        }
        let mut step = json!({"type": kind, "name": name});
        match kind {
            "wait" => step["duration"] = json!(self.random.below(400) as f64 / 100.0),
            "fail" => {
                step["error"] = json!(self.random.one_of(&ERRORS[..3]));
                step["cause"] = json!("because");
            }
            "task" => self.task(&mut step, name, can_fail),
            "choice" => self.choice(&mut step, later, depth, can_fail),
            "parallel" => {
                let count = 1 + self.random.below(3);
                let branches =
                    (0..count).map(|_| json!({"steps": self.steps(depth + 1, can_fail)}));
                step["branches"] = branches.collect::<Vec<_>>().into();
            }
            "foreach" => self.foreach(&mut step, depth, can_fail),
            _ => {}
        }
        if ["task", "parallel", "foreach"].contains(&kind) {
            self.handling(&mut step, later);
        }
        if step.get("inputMappings").is_none() && self.random.one_in(3) {
            step["inputMappings"] = self.mappings(&["$input", "$local", "$"]);
        }
        if self.random.one_in(2) {
            step["outputMappings"] = self.mappings(&["$input", "$local", "$"]);
        }
        if kind != "succeed" && kind != "fail" && self.random.one_in(15) {
            step["end"] = json!(true);
        }
        step
    }

    fn task(&mut self, step: &mut Value, name: &str, can_fail: bool) {
        step["resourceArn"] = json!(format!("acs:fc:::services/s/functions/{name}"));
        let mut mappings = self.mappings(&["$input", "$local", "$"]);
        let list = mappings.as_array_mut().unwrap();
        // The double tells attempts apart by it.
        list.push(json!({"target": "attempt", "source": "$context.task.attempt"}));
        list.push(json!({"target": "v", "source": "$.a"}));
        step["inputMappings"] = mappings;
        let has_timeout = can_fail && self.random.one_in(2);
        if has_timeout {
            step["timeoutSeconds"] = json!(self.random.below(3) as f64 + 0.5);
        }
        let attempts = 1 + self.random.below(4);
        let answers = (0..attempts).map(|attempt| {
            // Never at the instant of a timeout.
            let after = Some(10 + 20 * self.random.below(100) as u64);
            let result = match self.random.below(if can_fail { 8 } else { 1 }) {
                1 | 2 => Err((self.random.one_of(&ERRORS[..3]).to_owned(), format!("c{attempt}"))),
                3 => Ok(json!([1])),
                _ => Ok(json!({"v": "$in.v", "c": attempt, "list": [{"k": attempt}]})),
            };
            let after = after.filter(|_| !(has_timeout && self.random.one_in(5)));
            Answer { after, result }
        });
        let answers = answers.collect();
        self.answers.insert(name.to_owned(), answers);
    }

    fn choice(&mut self, step: &mut Value, later: &[String], depth: usize, can_fail: bool) {
        let count = 1 + self.random.below(3);
        let choices = (0..count).map(|_| {
            let truth = self.truth(2);
            let text = truth.text();
            self.truths.insert(text.clone(), truth);
            let mut choice = json!({"condition": text});
            if self.random.one_in(9) {
                choice["condition"] = json!(self.random.one_in(2));
            }
            self.continuation(&mut choice, later, depth, can_fail);
            choice
        });
        step["choices"] = choices.collect::<Vec<_>>().into();
        if self.random.one_in(2) {
            let mut default = json!({});
            self.continuation(&mut default, later, depth, can_fail);
            step["default"] = default;
        }
    }

    fn continuation(&mut self, of: &mut Value, later: &[String], depth: usize, can_fail: bool) {
        if self.random.one_in(2) {
            of["steps"] = self.steps(depth + 1, can_fail);
        }
        if !later.is_empty() && self.random.one_in(2) {
            of["goto"] = json!(self.random.one_of(later));
        }
    }

    fn foreach(&mut self, step: &mut Value, depth: usize, can_fail: bool) {
        let items: Vec<Value> =
            (0..self.random.below(5)).map(|n| json!({"a": n, "b": "y"})).collect();
        let mut mappings = self.mappings(&["$input", "$local", "$"]);
        let source = if can_fail && self.random.one_in(9) { json!("$.a") } else { json!(items) };
        mappings.as_array_mut().unwrap().push(json!({"target": "items", "source": source}));
        step["inputMappings"] = mappings;
        step["iterationMapping"] = json!({"collection": "$.items", "item": "obj"});
        if self.random.one_in(2) {
            step["iterationMapping"]["index"] = json!("a");
        }
        let mut inner = can_fail;
        if self.random.one_in(2) {
            step["x-maxConcurrency"] = json!(1 + self.random.below(3));
            // Which of those that wait comes first after an error is another matter.
            inner = false;
        }
        step["steps"] = self.steps(depth + 1, inner);
    }

    fn handling(&mut self, step: &mut Value, later: &[String]) {
        // The collection of a foreach is no attempt: it is not retried.
        let fails_on_entry = step["type"] == "foreach"
            && step["inputMappings"].as_array().unwrap().last().unwrap()["source"] == "$.a";
        if self.random.one_in(2) && !fails_on_entry {
            let count = 1 + self.random.below(2);
            let policies = (0..count).map(|_| {
                json!({
                    "errors": self.errors(), "intervalSeconds": self.random.below(3),
                    "multiplier": 1 + self.random.below(3), "maxAttempts": self.random.below(3),
                    "maxIntervalSeconds": 1 + self.random.below(4),
                })
            });
            step["retry"] = policies.collect::<Vec<_>>().into();
        }
        if self.random.one_in(2) && !later.is_empty() {
            let count = 1 + self.random.below(2);
            let catches = (0..count)
                .map(|_| json!({"errors": self.errors(), "goto": self.random.one_of(later)}));
            step["catch"] = catches.collect::<Vec<_>>().into();
            if self.random.one_in(2) {
                step["errorMappings"] = json!([
                    {"target": "b", "source": "$local.error"}, {"target": "c", "source": "$input.a"},
                    {"target": "a", "source": "$local.cause"},
                ]);
            }
        }
    }

    fn errors(&mut self) -> Vec<&'static str> {
        let all = [ERRORS.as_slice(), &["FnF.TaskTimeout", "FnF.InvalidOutput"]].concat();
        (0..1 + self.random.below(2)).map(|_| self.random.one_of(&all)).collect()
    }

    fn mappings(&mut self, roots: &[&str]) -> Value {
        let mappings = (0..self.random.below(4)).map(|_| {
            let source = match self.random.below(7) {
                0 => json!(self.random.below(3)),
                1 => self.random.one_of(&[
                    json!("$$.a"),
                    json!({"k": ["$.a"]}),
                    json!(null),
                    json!("x"),
                    json!(1.5),
                ]),
                2 => json!(format!("{}.list[*].k", self.random.one_of(roots))),
                3 => json!(self.random.one_of(roots)),
                4 => json!(format!("{}.obj.k", self.random.one_of(roots))),
                _ => json!(format!("{}.{}", self.random.one_of(roots), self.random.one_of(&KEYS))),
            };
            json!({"target": self.random.one_of(&KEYS), "source": source})
        });
        mappings.collect::<Vec<_>>().into()
    }

    fn truth(&mut self, depth: usize) -> Truth {
        let key = self.random.one_of(&KEYS);
        let inner = |maker: &mut Self| Box::new(maker.truth(depth - 1));
        match self.random.below(if depth == 0 { 3 } else { 6 }) {
            0 => Truth::Equal(key, self.random.one_of(&[json!(1), json!("x"), json!(null)])),
            1 => Truth::Above(key, self.random.below(2) as i64),
            2 => Truth::In(self.random.one_of(&[json!("k"), json!(1), json!("x")]), key),
            3 => Truth::Not(inner(self)),
            4 => Truth::And(inner(self), inner(self)),
            _ => Truth::Or(inner(self), inner(self)),
        }
    }
}
