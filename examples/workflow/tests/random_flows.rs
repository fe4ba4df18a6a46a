//! Random flows against a second reading of the specification, with and without crashes.
//!
//! A failure names its seed; `WORKFLOW_SEED` and `WORKFLOW_FLOWS` say where to begin and how many.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

mod model;

use std::collections::BTreeMap;

use model::{Answer, End, Flow};
use serde_json::{Value, json};
use workflow::cases::{Case, CaseOptions, Expected, Outcome, read_workers, run};
use workflow::engine::{EventKind, Program, State, Timestamp};
use workflow::language::Definition;

fn seeds(flows: u64) -> std::ops::Range<u64> {
    let number = |key: &str| std::env::var(key).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("WORKFLOW_SEED").unwrap_or(1);
    first..first + number("WORKFLOW_FLOWS").unwrap_or(flows)
}

fn case(flow: &Flow) -> Case {
    let doubles = flow
        .answers
        .iter()
        .map(|(step, answers)| (format!("acs:fc:::services/s/functions/{step}"), double(answers)));
    let doubles: BTreeMap<String, Value> = doubles.collect();
    Case {
        name: "random".to_owned(),
        definition: flow.definition.to_string(),
        input: flow.input.clone(),
        workers: read_workers(json!(doubles), &mut Vec::new()).unwrap(),
        script: Vec::new(),
        expected: Expected::default(),
        subflows: BTreeMap::new(),
        notes: Vec::new(),
    }
}

/// A double that answers by the number of the attempt; the last answer is for all further ones.
fn double(answers: &[Answer]) -> Value {
    let last = answers.len();
    let cases = answers.iter().enumerate().map(|(index, answer)| {
        let mut case = json!({"after_ms": answer.after.unwrap_or(0)});
        if index + 1 < last {
            case["when"] = json!({"attempt": index + 1});
        }
        match &answer.result {
            _ if answer.after.is_none() => case["hang"] = json!(true),
            Ok(output) => case["output"] = output.clone(),
            Err((error, cause)) => {
                case["error"] = json!(error);
                case["cause"] = json!(cause);
            }
        }
        case
    });
    json!({"kind": "by_input", "cases": cases.collect::<Vec<_>>()})
}

fn end(outcome: &Outcome) -> End {
    let description = &outcome.description;
    let since = |time: Timestamp| time.since(description.started).as_millis() as u64;
    let entered = outcome.events.iter().filter_map(|event| match event.kind {
        EventKind::StepEntered { .. } => Some((since(event.time), event.step.to_string())),
        _ => None,
    });
    let mut visits: Vec<_> = entered.collect();
    visits.sort();
    let failed = description.failure.as_ref();
    End {
        status: description.status.name(),
        elapsed: since(description.ended.unwrap()),
        output: description.output.clone(),
        failed: failed.map(|failure| (failure.error.clone(), failure.cause.clone())),
        visits,
    }
}

/// Every rule of lists, data and errors at once: F-01 to F-14, F-20 to F-22, F-40 to F-43, F-50 to
/// F-54, F-63, F-70, F-71.
#[test]
fn the_engine_does_what_the_model_says() {
    let mut ends = BTreeMap::new();
    for seed in seeds(400) {
        let flow = model::flows::flow(seed);
        let outcome = run(&case(&flow), &CaseOptions::default()).unwrap();
        let (engine, model) = (end(&outcome), flow.run());
        let text = || serde_json::to_string_pretty(&flow.definition).unwrap();
        assert_eq!(engine, model, "seed {seed}\n{}\n{:?}", text(), flow.answers);
        *ends.entry(model.status).or_insert(0) += 1;
    }
    if std::env::var("WORKFLOW_FLOWS").is_err() {
        let all: Vec<_> = ends.keys().copied().collect();
        assert_eq!(
            all,
            ["Failed", "Succeeded", "TimedOut"],
            "the flows end in every way: {ends:?}"
        );
    }
}

/// F-122, F-126, F-128: a crash after every commit and a snapshot after every few events leave the
/// same journal, and folding it gives the same state at any cut.
#[test]
fn crashes_and_snapshots_change_nothing() {
    for seed in seeds(60) {
        let flow = model::flows::flow(seed);
        let plain = run(&case(&flow), &CaseOptions::default()).unwrap();
        let mut options = CaseOptions { crash_after_every_commit: true, ..CaseOptions::default() };
        options.limits.snapshot_events = 1 + (seed % 5) as u32;
        let crashed = run(&case(&flow), &options).unwrap();
        assert_eq!(plain.events, crashed.events, "seed {seed}");
        assert_eq!(plain.description, crashed.description, "seed {seed}");

        let program = Program::new(Definition::parse(&flow.definition.to_string()).unwrap());
        let mut state = State::default();
        for event in &plain.events {
            state.apply(&program, event).unwrap_or_else(|misfit| panic!("seed {seed}: {misfit}"));
            // What a snapshot keeps is all there is.
            let bytes = serde_json::to_vec(&state).unwrap();
            let read: State = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read, state, "seed {seed}");
            assert_eq!(serde_json::to_vec(&read).unwrap(), bytes, "seed {seed}");
        }
        assert_eq!(state.status, plain.description.status, "seed {seed}");
    }
}
