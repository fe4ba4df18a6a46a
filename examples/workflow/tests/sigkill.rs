//! A real process, killed with SIGKILL in the middle of an execution: another one goes on (A-S2-a).
//!
//! The test starts itself again as the child. Real time passes here, because a process cannot be
//! killed in virtual time.
#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use siftbus::Bus;
use workflow::engine::{Engine, EngineOptions, Event, StartExecution, Status};
use workflow::store::RedbStore;

const FLOW: &str = "
version: v1
type: flow
steps:
  - {type: pass, name: init, outputMappings: [{target: once, source: true}]}
  - {type: wait, name: one, duration: 0.02}
  - {type: wait, name: two, duration: 0.02}
  - {type: wait, name: three, duration: 0.4}
  - {type: pass, name: last, outputMappings: [{target: done, source: true}]}
";

const CHILD: &str = "WORKFLOW_SIGKILL_CHILD";

fn open(store: &Path) -> (Bus, Engine) {
    let bus = Bus::new();
    let store = Arc::new(RedbStore::open(store).unwrap());
    let engine = Engine::open(&bus, store, EngineOptions::default()).unwrap();
    (bus, engine)
}

fn events(engine: &Engine) -> Vec<Event> {
    engine.history("f", "exec-1", 0, usize::MAX).unwrap()
}

/// What the child does: works until it is killed, and says how far it has come.
fn child(store: &Path) -> ! {
    let (_bus, mut engine) = open(store);
    engine.create_flow("f", FLOW).unwrap();
    engine.start_execution(StartExecution::new("f", json!({})).named("exec-1")).unwrap();
    loop {
        engine.turn().unwrap();
        println!("\nevents {}", events(&engine).len());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn another_process_goes_on() {
    if let Some(store) = std::env::var_os(CHILD) {
        child(Path::new(&store));
    }
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.redb");
    let mut killed = Command::new(std::env::current_exe().unwrap())
        .args(["another_process_goes_on", "--exact", "--nocapture"])
        .env(CHILD, &store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The wait `two` has begun once eleven events are there.
    let lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    let far = lines.map_while(Result::ok).find_map(|line| {
        let count: usize = line.strip_prefix("events ")?.parse().ok()?;
        (count >= 11).then_some(count)
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    let far = far.unwrap();

    let (_bus, mut engine) = open(&store);
    let before = events(&engine);
    assert!(before.len() >= far, "what was committed is there");
    assert_eq!(engine.stats().recovered_executions, 1);
    while engine.describe_execution("f", "exec-1").unwrap().status == Status::Running {
        engine.turn().unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let description = engine.describe_execution("f", "exec-1").unwrap();
    assert_eq!(description.output, Some(json!({"once": true, "done": true})));
    let after = events(&engine);
    assert_eq!(after.get(..before.len()), Some(before.as_slice()), "nothing was written anew");
    // Two events of the execution and four of each of its five steps: none twice.
    assert_eq!(after.len(), 2 + 5 * 4);
}
