//! Answers to reports, damaged stores, replay: what case files cannot say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::json;
use siftbus::{Bus, Clock, ManualClock, Message, Subscription, SubscriptionConfig, TopicConfig};
use workflow::engine::{
    Engine, EngineOptions, EventKind, FlowError, OpenError, Program, Report, StartExecution, State,
    Status, TokenKey,
};
use workflow::language::Definition;
use workflow::store::{Batch, MemoryStore, Store, StoreError, Table};

const CALLBACK: &str = "
version: v1
type: flow
steps:
  - type: task
    name: ask
    resourceArn: acs:mns:::/topics/t/messages
    pattern: waitForCallback
    inputMappings: [{target: token, source: $context.task.token}]
";

const LOOP: &str = "
version: v1
type: flow
steps:
  - {type: wait, name: pause, duration: 1}
  - {type: pass, name: p}
  - type: choice
    name: again
    choices: [{condition: '$.stop == true', goto: done}]
    default: {goto: pause}
  - {type: succeed, name: done}
";

fn options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.key = Some(TokenKey::new([3; 32]));
    options
}

fn open(store: &MemoryStore) -> (ManualClock, Engine) {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).seed(1).build();
    let engine = Engine::open(&bus, Arc::new(store.clone()), options()).unwrap();
    (clock, engine)
}

fn start(engine: &mut Engine, flow: &str, name: &str) {
    engine.start_execution(StartExecution::new(flow, json!({})).named(name)).unwrap();
    engine.turn().unwrap();
}

fn token(flow: &str, name: &str) -> String {
    // ExecutionStarted, StepEntered, StepStarted, TaskScheduled.
    TokenKey::new([3; 32]).token(flow, name, 4)
}

#[test]
fn the_same_report_gets_the_same_event() {
    let store = MemoryStore::new();
    let (_, mut engine) = open(&store);
    engine.create_flow("f", CALLBACK).unwrap();
    start(&mut engine, "f", "exec-1");
    let token = token("f", "exec-1");
    let first = engine.report(&token, Report::succeeded(r#"{"a": 1, "b": 2}"#)).unwrap();
    let events = engine.history("f", "exec-1", 0, 100).unwrap();
    let event = &events[first.event_id as usize - 1];
    assert!(matches!(event.kind, EventKind::TaskSucceeded { .. }), "EventId names the event");
    // A-S4-b: same content, same EventId; the order of keys does not count.
    let again = engine.report(&token, Report::succeeded(r#"{"b":2,"a":1}"#));
    assert_eq!(again, Ok(first));
    let other = engine.report(&token, Report::succeeded(r#"{"a":2}"#));
    assert_eq!(other, Err(FlowError::TaskAlreadyCompleted));
    // Also after the store was opened again.
    let (_, mut engine) = open(&store);
    assert_eq!(engine.report(&token, Report::succeeded(r#"{"a":1,"b":2}"#)), Ok(first));
}

#[test]
fn reports_are_refused_by_name() {
    let (_, mut engine) = open(&MemoryStore::new());
    engine.create_flow("f", CALLBACK).unwrap();
    start(&mut engine, "f", "exec-1");
    let valid = token("f", "exec-1");
    let report = |engine: &mut Engine, token: &str, report| engine.report(token, report);
    // A-S4-a: other engine's key.
    let foreign = TokenKey::new([4; 32]).token("f", "exec-1", 4);
    let refused = report(&mut engine, &foreign, Report::succeeded("{}")).unwrap_err();
    assert_eq!((refused.name(), refused.http_status()), ("InvalidTaskToken", 400));
    // A-S4-f: unknown execution.
    let unknown = token("f", "exec-2");
    let refused = report(&mut engine, &unknown, Report::succeeded("{}")).unwrap_err();
    assert_eq!((refused.name(), refused.http_status()), ("ExecutionNotExists", 404));
    // A-S4-g, both sides of the limit: {"x":"…"} has eight bytes around the text.
    let limit = engine.limits().data_bytes;
    let sized = |bytes: usize| Report::succeeded(json!({"x": "y".repeat(bytes - 8)}).to_string());
    let refused = report(&mut engine, &valid, sized(limit + 1)).unwrap_err();
    assert_eq!((refused.name(), refused.http_status()), ("EntityTooLarge", 400));
    let refused = report(&mut engine, &valid, Report::failed("", "")).unwrap_err();
    assert_eq!(refused.name(), "InvalidArgument");
    let refused = report(&mut engine, &valid, Report::failed("e".repeat(129), "")).unwrap_err();
    assert_eq!(refused.name(), "InvalidArgument");
    let refused = report(&mut engine, &valid, Report::failed("e", "c".repeat(4_097))).unwrap_err();
    assert_eq!(refused.name(), "InvalidArgument");
    let description = engine.describe_execution("f", "exec-1").unwrap();
    assert_eq!(description.status, Status::Running, "the task stays waiting");
    assert!(
        report(&mut engine, &valid, Report::failed("e".repeat(128), "c".repeat(4_096))).is_ok()
    );
}

#[test]
fn calls_are_refused_by_name() {
    let (_, mut engine) = open(&MemoryStore::new());
    engine.create_flow("f", CALLBACK).unwrap();
    assert_eq!(engine.create_flow("f", CALLBACK).unwrap_err().name(), "FlowAlreadyExists");
    assert_eq!(engine.create_flow("1f", CALLBACK).unwrap_err().name(), "InvalidArgument");
    assert_eq!(engine.create_flow("g", "steps: 1").unwrap_err().name(), "InvalidDefinition");
    let mut begin = |start: StartExecution| engine.start_execution(start).map(|s| s.is_new);
    let none = StartExecution::new("none", json!({}));
    assert_eq!(begin(none).unwrap_err().name(), "FlowNotExists");
    let list = StartExecution::new("f", json!([]));
    assert_eq!(begin(list).unwrap_err().name(), "InvalidArgument", "F-09");
    let large = StartExecution::new("f", json!({"x": "y".repeat(1 << 20)}));
    assert_eq!(begin(large).unwrap_err().name(), "EntityTooLarge", "F-90");
    let named = || StartExecution::new("f", json!({})).named("exec-1");
    // A-S2-g: the running one, then none.
    assert_eq!(begin(named()), Ok(true));
    assert_eq!(begin(named()), Ok(false));
    engine.stop_execution("f", "exec-1", "", "").unwrap();
    let again = engine.start_execution(named()).unwrap_err();
    assert_eq!((again.name(), again.http_status()), ("ExecutionAlreadyExists", 409));
}

#[test]
fn running_executions_have_a_limit() {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    let mut options = options();
    options.limits.running_executions = 2;
    let mut engine = Engine::open(&bus, Arc::new(MemoryStore::new()), options).unwrap();
    engine.create_flow("f", CALLBACK).unwrap();
    for _ in 0..2 {
        engine.start_execution(StartExecution::new("f", json!({}))).unwrap();
    }
    let refused = engine.start_execution(StartExecution::new("f", json!({}))).unwrap_err();
    assert_eq!((refused.name(), refused.http_status()), ("TooManyExecutions", 429), "F-90");
}

#[test]
fn an_unknown_format_is_refused_and_nothing_is_touched() {
    for (key, value) in [("format", "siftbus-workflow-999"), ("something", "else")] {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(Table::Meta, key, value);
        store.commit(batch).unwrap();
        let before = store.dump();
        let bus = Bus::new();
        let refused = Engine::open(&bus, Arc::new(store.clone()), options()).unwrap_err();
        assert!(matches!(refused, OpenError::Store(StoreError::UnknownFormat { .. })), "{refused}");
        assert_eq!(store.dump(), before);
    }
}

/// Any single damaged byte of an execution's rows: that execution is as it was or has failed with a
/// named error, and the other goes on (F-124).
#[test]
fn a_damaged_record_fails_its_execution_alone() {
    let store = MemoryStore::new();
    let (_, mut engine) = open(&store);
    engine.create_flow("f", CALLBACK).unwrap();
    start(&mut engine, "f", "first");
    start(&mut engine, "f", "second");
    drop(engine);
    let rows = store.dump();
    let first = 1_u64.to_be_bytes();
    let of_first = |(table, key, _): &&(Table, Vec<u8>, Vec<u8>)| {
        matches!(table, Table::Event | Table::Execution) && key.starts_with(&first)
    };
    let mut failed = 0;
    for (table, key, row) in rows.iter().filter(of_first) {
        for at in (0..row.len()).step_by(7) {
            let damaged = MemoryStore::new();
            let mut batch = Batch::new();
            for (table, key, row) in &rows {
                batch.put(*table, key.clone(), row.clone());
            }
            let mut row = row.clone();
            row[at] ^= 0x20;
            batch.put(*table, key.clone(), row);
            damaged.commit(batch).unwrap();
            let (_, mut engine) = open(&damaged);
            engine.turn().unwrap();
            let description = engine.describe_execution("f", "first").unwrap();
            assert_eq!(description.status, Status::Failed, "{table:?} at {at}");
            assert_eq!(description.failure.unwrap().error, "FnF.JournalCorrupt");
            assert_eq!(engine.stats().corrupt_executions, 1);
            failed += 1;
            let refused = engine.report(&token("f", "first"), Report::succeeded("{}"));
            assert_eq!(refused.unwrap_err(), FlowError::ExecutionNotRunning);
            engine.report(&token("f", "second"), Report::succeeded("{}")).unwrap();
            let other = engine.describe_execution("f", "second").unwrap();
            assert_eq!(other.status, Status::Succeeded, "the others go on");
            // Nothing was wiped: the damaged row is still there.
            assert!(damaged.read(*table, key).unwrap().is_some());
        }
    }
    assert!(failed > 20, "{failed} places were damaged");
}

/// The journal is the only truth: folding it gives what the engine has in memory, with snapshots
/// and
/// without (F-122, F-126).
#[test]
fn replay_equals_the_live_state() {
    let store = MemoryStore::new();
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    let mut options = options();
    options.limits.snapshot_events = 10;
    let mut engine = Engine::open(&bus, Arc::new(store.clone()), options.clone()).unwrap();
    engine.create_flow("f", LOOP).unwrap();
    start(&mut engine, "f", "exec-1");
    let program = Program::new(Definition::parse(LOOP).unwrap());
    for _ in 0..40 {
        clock.advance(Duration::from_millis(700));
        engine.turn().unwrap();
        let mut replayed = State::default();
        for event in engine.history("f", "exec-1", 0, usize::MAX).unwrap() {
            replayed.apply(&program, &event).unwrap();
        }
        let live = engine.state("f", "exec-1").unwrap();
        assert_eq!(live, &replayed);
        let bytes = |state: &State| serde_json::to_vec(state).unwrap();
        assert_eq!(bytes(live), bytes(&replayed), "F-126: byte for byte");
        // Opening the store starts from the snapshot.
        let other = Bus::builder().clock(Clock::manual(&ManualClock::new())).build();
        let opened = Engine::open(&other, Arc::new(store.clone()), options.clone()).unwrap();
        assert_eq!(opened.state("f", "exec-1"), Some(live));
    }
    assert!(engine.stats().snapshots >= 4, "snapshots were taken");
}

/// One corrupted snapshot costs a longer fold and nothing else.
#[test]
fn a_damaged_snapshot_is_not_needed() {
    let store = MemoryStore::new();
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    let mut options = options();
    options.limits.snapshot_events = 10;
    let mut engine = Engine::open(&bus, Arc::new(store.clone()), options.clone()).unwrap();
    engine.create_flow("f", LOOP).unwrap();
    start(&mut engine, "f", "exec-1");
    for _ in 0..5 {
        clock.advance(Duration::from_secs(1));
        engine.turn().unwrap();
    }
    let live = engine.state("f", "exec-1").unwrap().clone();
    drop(engine);
    let mut batch = Batch::new();
    batch.put(Table::Snapshot, 1_u64.to_be_bytes(), b"nonsense".as_slice());
    store.commit(batch).unwrap();
    let bus = Bus::builder().clock(Clock::manual(&ManualClock::new())).build();
    let opened = Engine::open(&bus, Arc::new(store), options).unwrap();
    assert_eq!(opened.state("f", "exec-1"), Some(&live));
}

#[test]
fn old_executions_are_swept() {
    let store = MemoryStore::new();
    let (clock, mut engine) = open(&store);
    engine.create_flow("f", CALLBACK).unwrap();
    let empty = store.dump().len();
    start(&mut engine, "f", "exec-1");
    engine.report(&token("f", "exec-1"), Report::succeeded("{}")).unwrap();
    let kept = engine.limits().history_retention;
    clock.advance(kept - Duration::from_millis(1));
    assert_eq!(engine.sweep(), Ok(0), "F-90");
    clock.advance(Duration::from_millis(1));
    assert_eq!(engine.sweep(), Ok(1), "F-90");
    let refused = engine.report(&token("f", "exec-1"), Report::succeeded("{}")).unwrap_err();
    assert_eq!(refused.name(), "ExecutionNotExists");
    // All that is left of it is the number of the next one.
    assert_eq!(store.dump().len(), empty + 1);
}

const CALL: &str = "
version: v1
type: flow
steps:
  - {type: task, name: call, resourceArn: 'acs:fc:::services/s/functions/f'}
  - {type: wait, name: pause, duration: 10}
";

/// A call of the bus that acts in its first poll.
fn at_once<F: Future>(call: F) -> F::Output {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the call waits"),
    }
}

/// A subscription on the invocations of the function `f`.
fn invocations(bus: &Bus) -> Subscription {
    let topic = at_once(bus.create_topic("flow-task.fc.s.f", TopicConfig::new())).unwrap();
    at_once(topic.subscribe("flow-task.fc.s.f.workers", SubscriptionConfig::new())).unwrap()
}

/// Answers an invocation as a worker would.
fn answer(bus: &Bus, invocation: &Message, output: &str) {
    let mut reply = Message::new(output.to_owned())
        .with_attribute("type", "task-result")
        .with_attribute("status", "ok");
    for key in ["engine_id", "flow", "task_id", "correlid"] {
        reply = reply.with_attribute(key, invocation.attribute(key).unwrap());
    }
    at_once(bus.topic("flow-reply")).unwrap().try_publish(reply).unwrap();
}

fn count(engine: &Engine, name: &str) -> usize {
    let events = engine.history("f", "exec-1", 0, 1_000).unwrap();
    events.iter().filter(|event| event.kind.name() == name).count()
}

/// A-S2-d, F-111: of two answers to one task the second is taken off the bus and ignored.
#[test]
fn a_worker_that_answers_twice_is_heard_once() {
    let (_, mut engine) = open(&MemoryStore::new());
    let bus = engine.bus().clone();
    let work = invocations(&bus);
    engine.create_flow("f", CALL).unwrap();
    start(&mut engine, "f", "exec-1");
    let taken = work.try_pull(10).unwrap();
    assert_eq!(taken.len(), 1);
    for output in [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":1}"#] {
        answer(&bus, taken.iter().next().unwrap().message(), output);
    }
    engine.turn().unwrap();
    assert_eq!((count(&engine, "TaskStarted"), count(&engine, "TaskSucceeded")), (1, 1));
    let state = engine.state("f", "exec-1").unwrap();
    assert_eq!(state.scopes.values().next().unwrap().local, json!({"n": 1}));
    // One that comes later is counted; nothing is left on the bus.
    answer(&bus, taken.iter().next().unwrap().message(), r#"{"n":3}"#);
    engine.turn().unwrap();
    assert_eq!(engine.stats().late_replies, 1);
    assert_eq!(engine.replies().try_pull(10).unwrap().len(), 0);
}

/// A-S2-b, F-110, F-123: after a crash between scheduling and answer the invocation comes again
/// with the same task id and token; both workers answer, one answer counts.
#[test]
fn an_invocation_comes_again_after_a_crash_with_the_same_id() {
    let store = MemoryStore::new();
    let mut seen = Vec::new();
    let mut last = None;
    for round in 0..3 {
        let (_, mut engine) = open(&store);
        let bus = engine.bus().clone();
        let work = invocations(&bus);
        if round == 0 {
            engine.create_flow("f", CALL).unwrap();
            start(&mut engine, "f", "exec-1");
        }
        engine.turn().unwrap();
        let taken = work.try_pull(10).unwrap();
        assert_eq!(taken.len(), 1, "round {round}");
        let invocation = taken.iter().next().unwrap().message().clone();
        seen.push((
            invocation.attribute("task_id").unwrap().to_owned(),
            invocation.attribute("attempt").unwrap().to_owned(),
            invocation.data().clone(),
        ));
        last = Some((engine, bus, invocation));
    }
    assert!(seen.iter().all(|invocation| invocation == &seen[0]), "F-110: {seen:?}");
    let (mut engine, bus, invocation) = last.unwrap();
    answer(&bus, &invocation, "{}");
    answer(&bus, &invocation, "{}");
    engine.turn().unwrap();
    let events = engine.history("f", "exec-1", 0, 100).unwrap();
    let names: Vec<_> = events.iter().map(|event| event.kind.name()).collect();
    let expected = [
        "ExecutionStarted",
        "StepEntered",
        "StepStarted",
        "TaskScheduled",
        "TaskStarted",
        "TaskSucceeded",
        "StepSucceeded",
        "StepExited",
        "StepEntered",
        "StepStarted",
    ];
    assert_eq!(names, expected, "F-123: no event appears twice");
}

/// F-116: at most `inflight` invocations of one resource are out; the others wait in their turn,
/// and one that times out meanwhile gives its place to the next.
#[test]
fn further_invocations_wait_for_their_place() {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).seed(1).build();
    let mut options = options();
    options.limits.inflight = 2;
    let mut engine = Engine::open(&bus, Arc::new(MemoryStore::new()), options).unwrap();
    let work = invocations(&bus);
    let timed = CALL.replace("functions/f'", "functions/f', timeoutSeconds: $t");
    engine.create_flow("f", &timed.replace("$t", "60")).unwrap();
    engine.create_flow("short", &timed.replace("$t", "5")).unwrap();
    let run = |engine: &mut Engine, flow: &str, name: &str| {
        engine.start_execution(StartExecution::new(flow, json!({})).named(name)).unwrap();
    };
    for (flow, name) in [("f", "a"), ("f", "b"), ("short", "c"), ("short", "d"), ("f", "e")] {
        run(&mut engine, flow, name);
    }
    engine.turn().unwrap();
    let of = |message: &Message| message.attribute("execution").unwrap().to_owned();
    let taken = work.try_pull(10).unwrap();
    let out: Vec<_> = taken.iter().map(|delivery| of(delivery.message())).collect();
    assert_eq!(out, ["a", "b"], "F-116");
    // TaskScheduled is written for all of them.
    for (flow, name) in [("short", "d"), ("f", "e")] {
        assert_eq!(engine.history(flow, name, 0, 10).unwrap().len(), 4, "F-116: {name}");
    }
    clock.advance(Duration::from_secs(5));
    engine.turn().unwrap();
    assert_eq!(engine.running(), 3, "those of the flow `short` have timed out");
    assert_eq!(work.try_pull(10).unwrap().len(), 0);
    let first = taken.iter().next().unwrap().message().clone();
    answer(&bus, &first, "{}");
    engine.turn().unwrap();
    let next = work.try_pull(10).unwrap();
    let out: Vec<_> = next.iter().map(|delivery| of(delivery.message())).collect();
    assert_eq!(out, ["e"], "F-116: the place goes to the first that is still wanted");
}

/// A-S2-g over the whole life of a name, and A-S4-j: what waits for a callback costs neither timers
/// nor messages.
#[test]
fn ten_thousand_waiting_executions_are_quiet() {
    let (clock, mut engine) = open(&MemoryStore::new());
    engine.create_flow("f", CALLBACK).unwrap();
    let name = |n: usize| format!("exec-{n}");
    let starts = (0..10_000).map(|n| StartExecution::new("f", json!({})).named(name(n)));
    let started = engine.start_executions(starts.collect()).unwrap();
    assert!(started.iter().all(|start| start.as_ref().is_ok_and(|start| start.is_new)));
    engine.turn().unwrap();
    let commits = engine.stats().commits;
    assert_eq!((engine.running(), engine.next_due()), (10_000, None), "A-S4-j");
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(engine.turn(), Ok(false), "A-S4-j: nothing to do");
    assert_eq!(engine.stats().commits, commits, "A-S4-j");
    let again = StartExecution::new("f", json!({"other": 1})).named(name(7));
    let started = engine.start_execution(again.clone()).unwrap();
    assert_eq!((started.name, started.is_new), (name(7), false), "A-S2-g: the one that runs");
    let full = engine.start_execution(StartExecution::new("f", json!({}))).unwrap_err();
    assert_eq!(full.http_status(), 429, "F-90");
    engine.report(&token("f", &name(7)), Report::succeeded("{}")).unwrap();
    engine.turn().unwrap();
    let refused = engine.start_execution(again).unwrap_err();
    assert_eq!(refused.name(), "ExecutionAlreadyExists", "A-S2-g");
}
