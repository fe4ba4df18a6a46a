//! Definitions that are good: the cases of the package, forms of the document, warnings.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use workflow::Definition;
use workflow::language::{
    ErrorPattern, Jitter, LanguageLimits, Pattern, Source, Step, StepKind, Wait, parse_timestamp,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_case_is_a_definition() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut seen = 0;
    for case in fs::read_dir(cases).unwrap() {
        let Ok(files) = fs::read_dir(case.unwrap().path()) else { continue };
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&file).unwrap();
                let checked = Definition::check(&text, &LanguageLimits::default());
                assert_eq!(checked.errors, [], "{}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 6, "{seen} definitions");
}

fn definition(text: &str) -> Definition {
    Definition::parse(text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"))
}

fn flow(steps: &str) -> String {
    format!("version: v1\ntype: flow\nsteps:\n{steps}")
}

/// Code, path, line and column of every warning of a definition without errors.
fn warnings(steps: &str) -> Vec<(String, String, u32, u32)> {
    let text = flow(steps);
    let checked = Definition::check(&text, &LanguageLimits::default());
    assert_eq!(checked.errors, [], "{text}");
    assert!(checked.warnings.is_sorted());
    let place = |warning: workflow::DefinitionError| {
        let workflow::language::Position { line, column } = warning.position;
        (warning.code.to_string(), warning.path, line, column)
    };
    checked.warnings.into_iter().map(place).collect()
}

fn warned(steps: &str, code: &str, path: &str, line: u32, column: u32) {
    let expected = (code.to_string(), path.to_string(), line, column);
    assert_eq!(warnings(steps), [expected], "{steps}");
}

fn quiet(steps: &str) {
    assert_eq!(warnings(steps), [], "{steps}");
}

#[test]
fn every_type_with_every_field() {
    // Sections 3.1 to 3.9.
    let flow = definition(include_str!("data/all.yaml"));
    assert_eq!(flow.version, "v1beta1");
    assert_eq!(flow.timeout, Some(Duration::from_millis(1500)));
    assert!(flow.strict);
    let kept: Vec<_> = flow.annotations.keys().collect();
    assert_eq!(kept, ["name", "description", "x-strict", "x-anything"]);
    assert_eq!(flow.input_mappings.as_ref().unwrap().len(), 1);
    assert_eq!(flow.step_count, 14);

    let task = flow.step("call").unwrap();
    assert_eq!((task.id, task.end, task.type_name()), (0, true, "task"));
    let StepKind::Task(call) = &task.kind else { panic!("{task:?}") };
    assert_eq!(call.pattern, Pattern::WaitForCallback);
    assert_eq!(call.timeout, Some(Duration::from_secs(30)));
    assert_eq!(call.heartbeat, Some(Duration::from_millis(2500)));
    assert_eq!(call.service_params.len(), 2);
    assert_eq!(call.service_params[0].0, "MessageBody");
    let [first, second] = &*call.handling.retry else { panic!("two policies") };
    assert_eq!(first.errors.len(), 2);
    assert_eq!(first.jitter, Jitter::Equal);
    let delays: Vec<_> = (0..4).map(|k| first.delay(k).as_millis()).collect();
    // F-70: interval · multiplier^k, at most the maximum.
    assert_eq!(delays, [10_000, 20_000, 40_000, 60_000]);
    assert_eq!(first.max_attempts, 0);
    // Section 3.9: the defaults.
    assert_eq!(second.errors, [ErrorPattern::All]);
    assert_eq!((second.interval, second.max_interval), (SECOND, SECOND * 86_400));
    assert_eq!((second.max_attempts, second.multiplier), (3, 2.0));
    assert_eq!(second.jitter, Jitter::None);
    assert_eq!(call.handling.catch[0].goto.index, 9);
    assert!(call.handling.catch[0].matches("anything"));
    assert_eq!(call.handling.error_mappings.as_ref().unwrap().len(), 3);

    let wait = |name: &str| match &flow.step(name).unwrap().kind {
        StepKind::Wait(wait) => wait.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait("nap"), Wait::For(Duration::from_millis(1_001)));
    assert!(matches!(wait("nap_by_path"), Wait::ForPath(_)));
    let until = parse_timestamp("2026-01-01T00:00:30Z").unwrap();
    assert_eq!(wait("until"), Wait::Until(until));
    assert!(matches!(wait("until_by_path"), Wait::UntilPath(_)));

    let StepKind::Choice(choice) = &flow.step("pick").unwrap().kind else { panic!("choice") };
    assert!(choice.choices[1].condition.is_always_true());
    assert_eq!(choice.choices[0].then.goto.as_ref().unwrap().index, 2);
    assert_eq!(choice.choices[0].then.steps[0].id, 6);
    assert!(choice.default.as_ref().unwrap().steps.is_empty());

    let StepKind::Parallel(parallel) = &flow.step("both").unwrap().kind else { panic!("both") };
    assert_eq!(parallel.branches.len(), 2);
    let StepKind::Foreach(each) = &flow.step("each").unwrap().kind else { panic!("each") };
    assert_eq!((each.item.as_str(), each.index.as_deref()), ("item", Some("index")));
    assert_eq!(each.max_concurrency, Some(3));
    assert!(flow.step("done").unwrap().end);
    let StepKind::Fail(fail) = &flow.step("failed").unwrap().kind else { panic!("failed") };
    assert!(matches!(fail.error, Some(Source::Path(_))));
    assert_eq!(flow.step_by_id(13).unwrap().name, flow.step("failed").unwrap().name);
}

#[test]
fn json_is_accepted_as_it_is() {
    // Section 3.1: JSON is accepted; tabs, escapes and surrogate pairs included.
    let text = "{\n\t\"version\": \"v1\", \
        \"type\": \"flow\",\n\t\"steps\": [\n\t\t{\"type\": \"pass\",\
                \"name\": \"a\", \"outputMappings\": [{\"target\": \"x\", \"source\":\
                \"\\ud83d\\ude00\\/\"}]}]}\n";
    let flow = definition(text);
    let mappings = flow.steps[0].output_mappings.as_ref().unwrap();
    assert_eq!(mappings[0].source, Source::Constant("😀/".into()));
    // What is not JSON may still be YAML in flow style.
    definition("{version: v1, type: flow, steps: [{type: pass, name: a}], }");
    definition(
        "\u{feff}{\"version\": \"v1\", \"type\": \"flow\", \"steps\": [{type: pass, name: a}]}",
    );
    definition("\u{feff}version: v1\ntype: flow\nsteps: [{type: pass, name: a}]\n");
    definition(
        "%YAML 1.2\n---\nversion: v1\r\ntype: flow\r\nsteps: [{type: pass, name: a}]\r\n...\n",
    );
}

#[test]
fn constants_keep_their_kind_and_order() {
    // F-11 and section 3.1: order of keys, integers and floats, core schema, tags of the core.
    let text = flow(
        "- type: pass\n  name: a\n  outputMappings:\n    - target: x\n      source: {b: 1, a: 1.0, \
         c: yes, d: 010, e: 2026-01-01, f: ~, g: !!str 5, h: ! 7, i: 18446744073709551615, \
         j: '1', k: 1e2, l: $.x, m: !!float 1}\n",
    );
    let flow = definition(&text);
    let Source::Constant(value) = &flow.steps[0].output_mappings.as_ref().unwrap()[0].source else {
        panic!("a constant")
    };
    assert_eq!(
        value.to_string(),
        concat!(
            r#"{"b":1,"a":1.0,"c":"yes","d":"010","e":"2026-01-01","f":null,"g":"5","#,
            r#""h":"7","i":18446744073709551615,"j":"1","k":100.0,"l":"$.x","m":1.0}"#,
        )
    );
}

#[test]
fn aliases_are_expanded() {
    let text = "x-retry: &retry\n  - errors: [FnF.ALL]\n    maxAttempts: 7\nversion: v1\n\
                type: flow\n\
                steps:\n  - type: task\n    name: a\n    resourceArn: job:k\n    retry: *retry\n\
                \x20 - type: task\n    name: b\n    resourceArn: job:k\n    retry: *retry\n";
    let flow = definition(text);
    let attempts = |step: &Step| step.handling().unwrap().retry[0].max_attempts;
    assert_eq!(flow.steps.iter().map(attempts).collect::<Vec<_>>(), [7, 7]);
}

#[test]
fn names_and_gotos_by_scope() {
    // F-21: a goto names a sibling, itself too; names may differ by case.
    let flow = definition(&flow(
        "- type: parallel\n  name: p\n  branches:\n    - steps:\n        - {type: wait, name: w, \
         duration: 1}\n        - {type: choice, name: W, choices: [{condition: $.a, goto: w}, \
         {condition: $.b, goto: W}]}\n  catch: [{errors: [A], goto: p}]\n",
    ));
    let StepKind::Choice(choice) = &flow.step("W").unwrap().kind else { panic!("a choice") };
    let goto = |index: usize| choice.choices[index].then.goto.clone().unwrap();
    assert_eq!((goto(0).index, goto(1).index), (0, 1));
}

const TASK: &str = "- {type: task, name: t, resourceArn: 'job:k'}\n";
const PASS: &str = "- {type: pass, name: a}\n";

#[test]
fn unreachable_steps() {
    // FDLW01.
    warned(&format!("- {{type: succeed, name: s}}\n{PASS}"), "FDLW01", "$.steps[1]", 5, 3);
    warned(&format!("- {{type: fail, name: f}}\n{PASS}"), "FDLW01", "$.steps[1]", 5, 3);
    warned(&format!("- {{type: pass, name: e, end: true}}\n{PASS}"), "FDLW01", "$.steps[1]", 5, 3);
    let always =
        "- {type: choice, name: c, choices: [{condition: $.a, goto: z}], default: {goto: z}}\n";
    let last = "- {type: pass, name: z}\n";
    warned(&format!("{always}{PASS}{last}"), "FDLW01", "$.steps[1]", 5, 3);
    let constant = "- {type: choice, name: c, choices: [{condition: true, goto: z}]}\n";
    warned(&format!("{constant}{PASS}{last}"), "FDLW01", "$.steps[1]", 5, 3);
    let fails = "- {type: choice, name: c, choices: [{condition: true, steps: [{type: fail, \
        name: f}], goto: a}]}\n";
    warned(&format!("{fails}{PASS}"), "FDLW01", "$.steps[1]", 5, 3);
    let parallel = "- {type: parallel, name: p, branches: [{steps: [{type: fail, name: f}]}, \
        {steps: [{type: pass, name: b}]}]}\n";
    warned(&format!("{parallel}{PASS}"), "FDLW01", "$.steps[1]", 5, 3);
    // Each step of an unreachable run; none that a goto, a catch or the next in line reaches.
    assert_eq!(warnings(&format!("- {{type: fail, name: f}}\n{PASS}{last}")).len(), 2);
    quiet(&format!("{PASS}{last}"));
    let may = "- {type: choice, name: c, choices: [{condition: $.a, goto: z}]}\n";
    quiet(&format!("{may}{PASS}{last}"));
    let caught = "- {type: task, name: t, resourceArn: 'job:k', end: true, \
        catch: [{errors: [A], goto: z}]}\n";
    quiet(&format!("{caught}{last}"));
    let each = "- {type: foreach, name: e, iterationMapping: {collection: $.a, item: i}, \
        steps: [{type: fail, name: f}]}\n";
    quiet(&format!("{each}{last}"));
}

#[test]
fn targets_mapped_twice() {
    // FDLW02, at the later one.
    warned(
        "- type: pass\n  name: a\n  outputMappings:\n    - {target: x, \
            source: 1}\n    - {target: y, source: 1}\n    - {target: x, source: 2}\n",
        "FDLW02",
        "$.steps[0].outputMappings[2].target",
        9,
        16,
    );
    quiet(
        "- {type: pass, name: a, inputMappings: [{target: x, source: 1}], \
            outputMappings: [{target: x, source: 1}]}\n",
    );
}

#[test]
fn loops_that_may_spin() {
    // FDLW03, at the goto that leads back; a wait or task on the way is enough.
    let back = "- {type: choice, name: c, choices: [{condition: $.go, goto: a}]}\n";
    warned(&format!("{PASS}{back}"), "FDLW03", "$.steps[1].choices[0].goto", 5, 61);
    quiet(&format!("{PASS}- {{type: wait, name: w, duration: 1}}\n{back}"));
    quiet(&format!("{PASS}{TASK}{back}"));
    warned(
        "- {type: choice, name: c, choices: [{condition: $.go, goto: c}]}\n",
        "FDLW03",
        "$.steps[0].choices[0].goto",
        4,
        61,
    );
    // A wait in the branch itself, in a parallel, and in a step that may be jumped over.
    quiet(
        "- {type: choice, name: c, choices: [{condition: $.go, steps: [{type: wait, name: w, \
            duration: 1}], goto: c}]}\n",
    );
    quiet(&format!(
        "{PASS}- {{type: parallel, name: p, branches: [{{steps: [{{type: wait, name: w, \
            duration: 1}}]}}, {{steps: [{{type: pass, name: q}}]}}]}}\n{back}"
    ));
    let over = "- {type: choice, name: o, choices: [{condition: $.skip, goto: c}]}\n";
    warned(
        &format!("{PASS}{over}- {{type: wait, name: w, duration: 1}}\n{back}"),
        "FDLW03",
        "$.steps[3].choices[0].goto",
        7,
        61,
    );
    quiet("- {type: task, name: t, resourceArn: 'job:k', catch: [{errors: [A], goto: t}]}\n");
    // In a nested list as well.
    warned(
        "- {type: foreach, name: e, iterationMapping: {collection: $.a, item: i}, \
            steps: [{type: choice, name: c, choices: [{condition: $.go, goto: c}]}]}\n",
        "FDLW03",
        "$.steps[0].steps[0].choices[0].goto",
        4,
        140,
    );
}

#[test]
fn callbacks_without_token() {
    // FDLW04, at the pattern.
    let task = |more: &str| {
        format!(
            "- {{type: task, name: t, resourceArn: 'bus:topic/t', \
                pattern: waitForCallback{more}}}\n"
        )
    };
    warned(&task(""), "FDLW04", "$.steps[0].pattern", 4, 62);
    warned(
        &task(", inputMappings: [{target: x, source: $context.execution.name}]"),
        "FDLW04",
        "$.steps[0].pattern",
        4,
        62,
    );
    for source in [
        "$context.task.token",
        "$context.task",
        "$context",
        "\"$context['task'].*\"",
        "$context.task.token",
    ] {
        quiet(&task(&format!(", inputMappings: [{{target: x, source: {source}}}]")));
        quiet(&task(&format!(", serviceParams: {{MessageBody: {source}}}")));
    }
}

#[test]
fn hidden_catches() {
    // FDLW05: every error of the catch is taken by an earlier one.
    let task = |catches: &str| {
        format!("- {{type: task, name: t, resourceArn: 'job:k', catch: [{catches}]}}\n{PASS}")
    };
    let catch = |errors: &str| format!("{{errors: [{errors}], goto: a}}");
    let place = |catches: &[&str], column| {
        let list: Vec<_> = catches.iter().map(|errors| catch(errors)).collect();
        warned(
            &task(&list.join(", ")),
            "FDLW05",
            &format!("$.steps[0].catch[{}]", catches.len() - 1),
            4,
            column,
        );
    };
    place(&["FnF.ALL", "A"], 85);
    place(&["A", "A"], 79);
    place(&["A", "B", "A, B"], 103);
    place(&["FnF.ALL", "FnF.ALL"], 85);
    for catches in ["A, B", "B, FnF.ALL"] {
        quiet(&task(&format!("{}, {}", catch("A"), catch(catches))));
    }
}
