//! Random texts, definitions and conditions: no panic, errors by position, the same from JSON and
//! YAML, the same printed and read again.
//!
//! Every failure names the seed that fails again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Map, Value, json};
use workflow::Definition;
use workflow::language::{Checked, Condition, LanguageLimits};

/// Small, seeded, and good enough to choose with.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) as usize) % count
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

fn check(text: &str, seed: u64) -> Checked {
    let checked = Definition::check(text, &LanguageLimits::default());
    assert!(checked.errors.is_sorted() && checked.warnings.is_sorted(), "seed {seed}\n{text}");
    assert_eq!(checked.definition.is_some(), checked.errors.is_empty(), "seed {seed}\n{text}");
    assert_eq!(checked, Definition::check(text, &LanguageLimits::default()), "seed {seed}");
    checked
}

const KEYS: &[&str] = &[
    "version",
    "type",
    "steps",
    "name",
    "inputMappings",
    "outputMappings",
    "target",
    "source",
    "timeoutSeconds",
    "resourceArn",
    "pattern",
    "serviceParams",
    "retry",
    "catch",
    "errors",
    "errorMappings",
    "intervalSeconds",
    "maxAttempts",
    "multiplier",
    "goto",
    "duration",
    "timestamp",
    "choices",
    "condition",
    "default",
    "branches",
    "iterationMapping",
    "collection",
    "item",
    "index",
    "error",
    "cause",
    "end",
    "x-free",
    "x-maxConcurrency",
    "stepz",
    "Type",
];

const SCALARS: &[&str] = &[
    "v1",
    "flow",
    "task",
    "pass",
    "wait",
    "choice",
    "parallel",
    "foreach",
    "succeed",
    "fail",
    "a",
    "b",
    "c",
    "$.a",
    "$local.b",
    "$context.task.token",
    "$foo",
    "$$x",
    "$.a == 1",
    "$.a = 1",
    "acs:fc:::services/s/functions/f",
    "job:k",
    "waitForCallback",
    "sync",
    "FnF.ALL",
    "2026-01-01T00:00:00Z",
    "StateMachine",
    "",
    "1a",
];

fn scalar(random: &mut Random) -> Value {
    match random.below(8) {
        0 => json!(null),
        1 => json!(random.below(2) == 0),
        2 => json!(random.below(200_000) as i64 - 1_000),
        3 => json!(random.below(2_000) as f64 / 8.0),
        _ => json!(*random.one_of(SCALARS)),
    }
}

/// Anything at all, made of the words of the language.
fn anything(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 1 } else { 3 }) {
        0 => scalar(random),
        1 => (0..random.below(4)).map(|_| anything(random, depth - 1)).collect(),
        _ => {
            let count = random.below(6);
            let pairs = (0..count).map(|_| {
                let key = (*random.one_of(KEYS)).to_string();
                (key, anything(random, depth - 1))
            });
            Value::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

/// A definition that is nearly always good; names are counted, so that they differ.
fn flow(random: &mut Random) -> Value {
    let mut names = 0;
    json!({"version": "v1", "type": "flow", "steps": steps(random, 3, &mut names)})
}

fn steps(random: &mut Random, depth: usize, names: &mut usize) -> Value {
    let first = *names;
    let count = 1 + random.below(3);
    *names += count;
    let step = |index: usize, random: &mut Random, names: &mut usize| {
        let sibling = format!("s{}", first + random.below(count));
        let mut step = match random.below(if depth == 0 { 5 } else { 8 }) {
            0 => json!({"type": "task", "resourceArn": "job:k",
                "catch": [{"errors": ["FnF.ALL"], "goto": sibling}]}),
            1 => json!({"type": "wait", "duration": random.below(9)}),
            2 => json!({"type": "succeed"}),
            3 => json!({"type": "fail", "error": "$.e"}),
            4 => json!({"type": "pass", "outputMappings": [{"target": "t", "source": "$.a"}]}),
            5 => json!({"type": "choice",
                "choices": [{"condition": "$.a == 1", "goto": sibling,
                    "steps": steps(random, depth - 1, names)}],
                "default": {"steps": steps(random, depth - 1, names)}}),
            6 => {
                json!({"type": "parallel", "branches": [{"steps": steps(random, depth - 1,
                    names)}]})
            }
            _ => json!({"type": "foreach", "iterationMapping": {"collection": "$.a", "item": "i"},
                "steps": steps(random, depth - 1, names)}),
        };
        step["name"] = json!(format!("s{}", first + index));
        step
    };
    (0..count).map(|index| step(index, random, names)).collect()
}

#[test]
fn any_structure_has_the_same_errors_as_json_and_as_yaml() {
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let value = match random.below(3) {
            0 => anything(&mut random, 5),
            1 => json!({"version": "v1", "type": "flow", "steps": anything(&mut random, 5)}),
            _ => {
                let mut value = flow(&mut random);
                value["steps"][0][*random.one_of(KEYS)] = anything(&mut random, 3);
                value
            }
        };
        let json = serde_json::to_string_pretty(&value).unwrap();
        let as_json = check(&json, seed);
        // A text that does not begin with a brace goes to the reader of YAML.
        let as_yaml = check(&format!("# yaml\n{json}"), seed);
        let seen = |checked: &Checked| {
            let all = checked.errors.iter().chain(&checked.warnings);
            let place = |error: &workflow::DefinitionError| {
                let position = error.position;
                (error.code, error.path.clone(), position.line, position.column, error.hint.clone())
            };
            all.map(place).collect::<Vec<_>>()
        };
        let moved: Vec<_> = seen(&as_json)
            .into_iter()
            .map(|(code, path, line, column, hint)| (code, path, line + 1, column, hint))
            .collect();
        assert_eq!(moved, seen(&as_yaml), "seed {seed}\n{json}");
    }
}

#[test]
fn sound_definitions_are_read_whole() {
    for seed in 0..1_000 {
        let value = flow(&mut Random(seed));
        let checked = check(&value.to_string(), seed);
        let definition =
            checked.definition.unwrap_or_else(|| panic!("{seed} {:?}", checked.errors));
        let names = value.to_string().matches("\"name\"").count();
        assert_eq!(definition.step_count, names, "seed {seed}");
        for id in 0..names {
            let step =
                definition.step_by_id(id).unwrap_or_else(|| panic!("seed {seed}, step {id}"));
            assert_eq!(definition.step(&step.name).map(|step| step.id), Some(id), "seed {seed}");
        }
    }
}

#[test]
fn any_text_is_answered() {
    const PIECES: &[&str] = &[
        "\n", "\n  ", "\n    ", "- ", ": ", ", ", "{", "}", "[", "]", "\"", "'", "&a ", "*a",
        "!t ", "|\n", ">\n", "#", "?", "<<: *a", "---\n", "%", "\t", "é", "\u{85}", "\\", "~",
        "0x1",
    ];
    for seed in 0..6_000 {
        let mut random = Random(seed);
        let mut text = ["", "version: v1\ntype: flow\nsteps:\n"][random.below(2)].to_string();
        for _ in 0..random.below(60) {
            text += match random.below(3) {
                0 => *random.one_of(KEYS),
                1 => *random.one_of(SCALARS),
                _ => *random.one_of(PIECES),
            };
        }
        check(&text, seed);
    }
}

/// A condition with brackets around everything, as `structure` prints it.
fn condition(random: &mut Random, depth: usize) -> String {
    let operand = |random: &mut Random| condition(random, depth - 1);
    match random.below(if depth == 0 { 3 } else { 8 }) {
        0 => ["true", "false", "null", "1", "-2", "1.5", "1e300", "\"x\"", "\"\\\"\""]
            [random.below(9)]
        .into(),
        1 => ["$", "$.a", "$input.b[0]", "$.c[-1:]", "$[\"a b\"][*]"][random.below(5)].into(),
        2 => ["\"in\"", "$.in", "$.a-b"][random.below(3)].into(),
        3 => format!("!{}", operand(random)),
        4 => format!("-{}", operand(random)),
        5 => {
            let operator = *random.one_of(&["==", "!=", "<", "<=", ">", ">=", "in"]);
            format!("({} {operator} {})", operand(random), operand(random))
        }
        kind => {
            let operator = [" && ", " || "][kind - 6];
            let count = 2 + random.below(2);
            let operands: Vec<_> = (0..count).map(|_| operand(random)).collect();
            format!("({})", operands.join(operator))
        }
    }
}

#[test]
fn numbers_survive_printing() {
    // A finding of the fuzzer: a float was read as its neighbour after it had been printed.
    let text = format!("$.a == 1444400200000000000044{}", "4".repeat(29));
    let printed = Condition::parse(&text).unwrap().structure();
    assert_eq!(Condition::parse(&printed).unwrap().structure(), printed);
    let number: Value = serde_json::from_str(&printed[8..printed.len() - 1]).unwrap();
    assert_eq!(number.to_string(), printed[8..printed.len() - 1]);
}

#[test]
fn conditions_are_printed_as_they_are_read() {
    let inputs =
        [json!({}), json!({"a": true, "b": [1, "x"], "c": [1, 2], "in": "x"}), json!({"a": 1})];
    for seed in 0..4_000 {
        let text = condition(&mut Random(seed), 5);
        let read =
            Condition::parse(&text).unwrap_or_else(|error| panic!("{seed}: {error}\n{text}"));
        let again = Condition::parse(&read.structure()).unwrap();
        assert_eq!(again.structure(), read.structure(), "seed {seed}");
        for input in &inputs {
            assert_eq!(again.matches(input), read.matches(input), "seed {seed}: {text}");
        }
    }
}
