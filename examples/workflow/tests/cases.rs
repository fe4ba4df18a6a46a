//! Every case of `cases/`, plain and with a crash after every commit, with both stores: the results
//! are equal (F-128, F-132).
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use workflow::cases::{Case, CaseOptions, CaseStore, run};
use workflow::engine::{Event, EventKind};

fn folders() -> Vec<PathBuf> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = std::fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> =
        entries.filter(|path| path.join("flow.yaml").is_file()).collect();
    folders.sort();
    assert!(folders.len() >= 5, "the cases are there");
    folders
}

fn play_all(options: &CaseOptions) {
    let mut failed = Vec::new();
    for folder in folders() {
        let case = Case::read(&folder).unwrap();
        match run(&case, options) {
            Ok(outcome) if outcome.differences.is_empty() => {}
            Ok(outcome) => {
                failed.push(format!("{}: {}", case.name, outcome.differences.join("; ")))
            }
            Err(why) => failed.push(format!("{}: {why}", case.name)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn in_memory() {
    play_all(&CaseOptions::default());
}

#[test]
fn in_memory_with_a_crash_after_every_commit() {
    play_all(&CaseOptions { crash_after_every_commit: true, ..CaseOptions::default() });
}

#[test]
#[cfg(feature = "redb")]
fn in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = CaseStore::Redb(folder.path().to_owned());
    play_all(&CaseOptions { store, ..CaseOptions::default() });
}

#[test]
#[cfg(feature = "redb")]
fn in_a_file_with_a_crash_after_every_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = CaseStore::Redb(folder.path().to_owned());
    let crash_after_every_commit = true;
    play_all(&CaseOptions { store, crash_after_every_commit, ..CaseOptions::default() });
}

/// The history with a crash after every commit is that without, event for event: recovery writes
/// nothing (F-123, F-128).
#[test]
fn crashes_leave_no_trace_in_the_history() {
    for folder in folders() {
        let case = Case::read(&folder).unwrap();
        let plain = run(&case, &CaseOptions::default()).unwrap();
        let options = CaseOptions { crash_after_every_commit: true, ..CaseOptions::default() };
        let crashed = run(&case, &options).unwrap();
        assert!(crashed.crashes > 0, "{}: crashes happen", case.name);
        assert_eq!(numbered(&plain.events), numbered(&crashed.events), "{}", case.name);
        let again = run(&case, &CaseOptions::default()).unwrap();
        assert_eq!(plain.events, again.events, "F-132: {}", case.name);
    }
}

/// The events without ids of messages: a bus that was opened anew counts from 1 again.
fn numbered(events: &[Event]) -> Vec<Event> {
    let mut events = events.to_vec();
    for event in &mut events {
        let (EventKind::TaskSucceeded { output } | EventKind::TaskSubmitted { output }) =
            &mut event.kind
        else {
            continue;
        };
        if output.get("MessageBodyMD5").is_some() {
            *output = Arc::new(json!({"MessageBodyMD5": output.get("MessageBodyMD5")}));
        }
    }
    events
}
