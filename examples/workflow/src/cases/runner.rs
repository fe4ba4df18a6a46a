//! Plays a case on one thread: in virtual time, deterministically (F-130 … F-132), or in real time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use siftbus::{Bus, Clock, ManualClock};

use super::compare::differences;
use super::doubles::Doubles;
use super::files::{Action, ActionKind, Case};
use crate::engine::{
    Description, Engine, EngineOptions, Event, EventKind, FlowError, FlowLimits, Report,
    StartExecution, Timestamp, TokenKey,
};
use crate::language::Definition;
use crate::store::{Batch, MemoryStore, Store, StoreError, Table};

/// How cases are played.
#[derive(Clone, Debug, Default)]
pub struct CaseOptions {
    /// Which store.
    pub store: CaseStore,
    /// Whether engine and bus are dropped after every commit, before it is acted on (F-128).
    pub crash_after_every_commit: bool,
    /// The limits in force.
    pub limits: FlowLimits,
    /// How time passes.
    pub clock: CaseClock,
}

/// The time of a case.
#[derive(Copy, Clone, Debug, Default)]
pub enum CaseClock {
    /// Virtual: when nothing is left to do, it jumps to the next timer or action (F-131).
    #[default]
    Virtual,
    /// That of the system; each event is told as it is written.
    System(fn(&Event)),
}

/// The store of a case.
#[derive(Clone, Debug, Default)]
pub enum CaseStore {
    /// In memory.
    #[default]
    Memory,
    /// In a file of this folder, made anew for each case.
    #[cfg(feature = "redb")]
    Redb(PathBuf),
    /// In this file, which is kept.
    #[cfg(feature = "redb")]
    File(PathBuf),
}

/// What came of a case.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Everything that differs from what was expected, in words; empty if nothing does.
    pub differences: Vec<String>,
    /// The execution.
    pub description: Description,
    /// Its events.
    pub events: Vec<Event>,
    /// How often the store was opened again.
    pub crashes: usize,
}

/// What an execution left behind.
pub(super) struct Played {
    pub(super) description: Description,
    pub(super) events: Vec<Event>,
    pub(super) now: Timestamp,
    pub(super) runs: Vec<Run>,
    pub(super) key: TokenKey,
}

/// One execution of a case: the one asked for, or a child.
pub(super) struct Run {
    pub(super) flow: String,
    pub(super) name: String,
    pub(super) definition: Definition,
    pub(super) events: Vec<Event>,
}

/// Plays a case.
///
/// # Errors
///
/// What keeps the case from being played at all: its definition, its doubles, the store.
pub fn run(case: &Case, options: &CaseOptions) -> Result<Outcome, String> {
    let mut stage = Stage::new(case, options)?;
    stage.play()?;
    let played = stage.played()?;
    let mut differences = std::mem::take(&mut stage.differences);
    differences.extend(self::differences(&case.expected, &played, &stage.doubles));
    let Played { description, events, .. } = played;
    Ok(Outcome { differences, description, events, crashes: stage.crashes })
}

/// One case being played.
struct Stage<'a> {
    case: &'a Case,
    options: &'a CaseOptions,
    time: Time,
    store: KeptStore,
    /// Both are dropped and made again by a crash.
    up: Option<(Bus, Engine)>,
    doubles: Doubles,
    start: Timestamp,
    differences: Vec<String>,
    crashes: usize,
}

impl<'a> Stage<'a> {
    fn new(case: &'a Case, options: &'a CaseOptions) -> Result<Self, String> {
        let time = match options.clock {
            CaseClock::Virtual => Time::Virtual(ManualClock::new()),
            CaseClock::System(tell) => Time::system(tell)?,
        };
        let store = KeptStore::new(&options.store, &case.name)?;
        let doubles = Doubles::new(&case.workers)?;
        let mut stage = Self {
            case,
            options,
            time,
            store,
            up: None,
            doubles,
            start: Timestamp::default(),
            differences: Vec::new(),
            crashes: 0,
        };
        stage.open(false)?;
        stage.start = stage.now();
        stage.create_flows()?;
        // Only what the execution commits is followed by crashes; flows are made once.
        stage.crash()?;
        stage.crashes = 0;
        Ok(stage)
    }

    fn create_flows(&mut self) -> Result<(), String> {
        let case = self.case;
        let engine = self.engine();
        let main = [(&case.name, &case.definition)];
        for (name, definition) in main.into_iter().chain(&case.subflows) {
            match engine.create_flow(name, definition) {
                // A file that is kept may have the flow from before.
                Ok(_) | Err(FlowError::FlowAlreadyExists(_)) => {}
                Err(FlowError::InvalidDefinition(errors)) => {
                    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    return Err(format!("{name}: {}", errors.join("; ")));
                }
                Err(error) => return Err(format!("{name}: {error}")),
            }
        }
        Ok(())
    }

    fn open(&mut self, crashing: bool) -> Result<(), String> {
        let mut bus = Bus::builder().seed(SEED);
        if let Time::Virtual(clock) = &mut self.time {
            // A clock belongs to one bus: the next one goes on where the last one stood.
            *clock = ManualClock::starting_at(clock.now());
            bus = bus.clock(Clock::manual(clock));
        }
        let bus = bus.build();
        let store = self.store.open()?;
        let store: Arc<dyn Store> = match crashing {
            true => Arc::new(CrashingStore { store, crashed: AtomicBool::new(false) }),
            false => store,
        };
        let mut options = EngineOptions::default();
        options.limits = self.options.limits.clone();
        options.key = Some(key());
        let engine = Engine::open(&bus, store, options).map_err(|error| error.to_string())?;
        self.doubles.listen(&bus).map_err(|error| error.to_string())?;
        self.up = Some((bus, engine));
        Ok(())
    }

    fn crash(&mut self) -> Result<(), String> {
        self.up = None;
        self.crashes += 1;
        self.open(self.options.crash_after_every_commit)
    }

    fn bus(&self) -> &Bus {
        &self.up.as_ref().expect("a stage is open between two calls").0
    }

    fn engine(&mut self) -> &mut Engine {
        &mut self.up.as_mut().expect("a stage is open between two calls").1
    }

    /// Calls the engine until it answers; a crash on the way costs a reopening.
    fn call<T>(
        &mut self,
        mut call: impl FnMut(&mut Engine) -> Result<T, FlowError>,
    ) -> Result<Result<T, FlowError>, String> {
        loop {
            match call(self.engine()) {
                Err(FlowError::Unavailable(StoreError::Failed(why))) if why == CRASH => {
                    self.crash()?;
                }
                answer => return Ok(answer),
            }
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let case = self.case;
        let started = self.call(|engine| {
            let start = StartExecution::new(&case.name, case.input.clone()).named(EXECUTION);
            match engine.start_execution(start) {
                // A crash after the commit that ended it at once.
                Err(FlowError::ExecutionAlreadyExists(_)) => Ok(()),
                answer => answer.map(|_| ()),
            }
        })?;
        started.map_err(|error| format!("StartExecution: {}: {error}", error.name()))?;
        let mut script = case.script.iter().peekable();
        loop {
            self.settle()?;
            self.tell()?;
            let elapsed = self.now().since(self.start).as_millis() as u64;
            if let Some(action) = script.next_if(|action| action.at_ms <= elapsed) {
                self.act(action)?;
                continue;
            }
            let script_due =
                script.peek().map(|action| self.start.after(Duration::from_millis(action.at_ms)));
            let done = self.describe()?.status.is_final() && script_due.is_none();
            let next = match self.engine().next_due() {
                _ if done => None,
                engine => engine.into_iter().chain(self.doubles.next_due()).chain(script_due).min(),
            };
            match next {
                Some(next) => self.wait_until(next),
                // Nothing is left but open callbacks (F-131).
                None => return Ok(()),
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from(self.bus().now())
    }

    fn wait_until(&self, next: Timestamp) {
        match &self.time {
            Time::Virtual(clock) => clock.advance_to(next.to_system()),
            Time::System { runtime, .. } => {
                let bus = self.bus();
                let left = next.to_system().duration_since(bus.now()).unwrap_or_default();
                // Past the millisecond, or what is due then would be asked for again and again.
                runtime.block_on(bus.sleep(left + Duration::from_millis(1)));
            }
        }
    }

    /// Tells the events that are new, where somebody listens.
    fn tell(&mut self) -> Result<(), String> {
        let Time::System { tell, told, .. } = &self.time else { return Ok(()) };
        let (tell, told) = (*tell, *told);
        let new = self.engine_history(told)?;
        new.iter().for_each(tell);
        if let (Time::System { told, .. }, Some(last)) = (&mut self.time, new.last()) {
            *told = last.id;
        }
        Ok(())
    }

    fn engine_history(&mut self, after: u32) -> Result<Vec<Event>, String> {
        let name = self.case.name.clone();
        let events = self.engine().history(&name, EXECUTION, after, usize::MAX);
        events.map_err(|error| error.to_string())
    }

    /// Lets everything of this instant happen.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            let bus = self.bus().clone();
            let taken = self.doubles.take(&bus);
            let answered = self.doubles.answer_due(&bus);
            drop(bus);
            let before = self.crashes;
            let turned = self.call(Engine::turn)?.map_err(|error| error.to_string())?;
            if !taken && !answered && !turned && before == self.crashes {
                return Ok(());
            }
        }
    }

    fn describe(&mut self) -> Result<Description, String> {
        let name = &self.case.name;
        let described = self.engine().describe_execution(name, EXECUTION);
        described.map_err(|error| error.to_string())
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        let (answer, expect, what) = match &action.kind {
            ActionKind::Restart => return self.crash(),
            ActionKind::Expect { status, last_event } => {
                return self.expect(action.at_ms, status.as_deref(), last_event.as_ref());
            }
            ActionKind::ReportSucceeded { token_of, nth, token, output, expect } => {
                let token = self.token(token_of.as_deref(), *nth, token.as_deref())?;
                let text = match output {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let answer = self
                    .call(|engine| engine.report(&token, Report::succeeded(&text)).map(|_| ()))?;
                (answer, expect, "report_succeeded")
            }
            ActionKind::ReportFailed { token_of, nth, token, error, cause, expect } => {
                let token = self.token(token_of.as_deref(), *nth, token.as_deref())?;
                let answer = self.call(|engine| {
                    engine.report(&token, Report::failed(error, cause)).map(|_| ())
                })?;
                (answer, expect, "report_failed")
            }
            ActionKind::ReportHeartbeat { token_of, nth, token, expect } => {
                let token = self.token(token_of.as_deref(), *nth, token.as_deref())?;
                // A heartbeat commits each time: one that was committed before the crash is done.
                let mut begun = false;
                let answer = self.call(|engine| match std::mem::replace(&mut begun, true) {
                    true => Ok(()),
                    false => engine.report_heartbeat(&token),
                })?;
                (answer, expect, "report_heartbeat")
            }
            ActionKind::Stop { error, cause, expect } => {
                let name = &self.case.name;
                let before = self.crashes;
                let answer = self.call(|engine| {
                    match engine.stop_execution(name, EXECUTION, error, cause) {
                        Err(error) => Err(error),
                        Ok(()) => Ok(()),
                    }
                })?;
                // The crash came after the commit: the call had done its work.
                let crashed = self.crashes > before;
                let answer = match answer {
                    Err(FlowError::ExecutionNotRunning) if crashed => Ok(()),
                    answer => answer,
                };
                (answer, expect, "stop")
            }
        };
        let got = answer.err().map_or("ok", |error| error.name());
        let expected = expect.as_deref().unwrap_or("ok");
        if got != expected {
            let at = action.at_ms;
            self.differences.push(format!("{what} at {at} ms: expected {expected}, got {got}"));
        }
        Ok(())
    }

    fn expect(
        &mut self,
        at: u64,
        status: Option<&str>,
        last: Option<&(String, String)>,
    ) -> Result<(), String> {
        let description = self.describe()?;
        if let Some(status) = status
            && status != description.status.name()
        {
            let got = description.status.name();
            self.differences.push(format!("status at {at} ms: expected {status}, got {got}"));
        }
        if let Some((kind, step)) = last {
            let events = self.events(&self.case.name.clone(), EXECUTION)?;
            let got = events.last().map(|event| (event.kind.name(), event.step.to_string()));
            if got != Some((kind.as_str(), step.clone())) {
                let difference =
                    format!("last event at {at} ms: expected [{kind}, {step}], got {got:?}");
                self.differences.push(difference);
            }
        }
        Ok(())
    }

    /// The token of an attempt of a step's task.
    fn token(
        &mut self,
        step: Option<&str>,
        nth: Option<usize>,
        token: Option<&str>,
    ) -> Result<String, String> {
        if let Some(token) = token {
            return Ok(token.to_owned());
        }
        let step = step.ok_or("a report names token_of or token")?;
        for run in self.runs()? {
            let scheduled: Vec<u32> = run
                .events
                .iter()
                .filter(|event| matches!(event.kind, EventKind::TaskScheduled { .. }))
                .filter(|event| &*event.step == step)
                .map(|event| event.id)
                .collect();
            let task = match nth {
                Some(nth) => nth.checked_sub(1).and_then(|nth| scheduled.get(nth)),
                None => scheduled.last(),
            };
            if let Some(task) = task {
                return Ok(key().token(&run.flow, &run.name, *task));
            }
        }
        Err(format!("no task of {step} was scheduled"))
    }

    fn events(&mut self, flow: &str, execution: &str) -> Result<Vec<Event>, String> {
        let events = self.engine().history(flow, execution, 0, usize::MAX);
        events.map_err(|error| error.to_string())
    }

    /// Every execution of every flow, the one asked for first.
    fn runs(&mut self) -> Result<Vec<Run>, String> {
        let case = self.case;
        let mut runs = Vec::new();
        for (flow, text) in [(&case.name, &case.definition)].into_iter().chain(&case.subflows) {
            let names = self.engine().executions(flow, None, usize::MAX);
            for name in names.map_err(|error| error.to_string())? {
                let events = self.events(flow, &name)?;
                let definition = Definition::parse(text).map_err(|_| "the definition changed")?;
                runs.push(Run { flow: flow.clone(), name, definition, events });
            }
        }
        runs.sort_by_key(|run| !(run.flow == case.name && run.name == EXECUTION));
        Ok(runs)
    }

    fn played(&mut self) -> Result<Played, String> {
        let description = self.describe()?;
        let events = self.events(&self.case.name.clone(), EXECUTION)?;
        let (now, runs) = (self.now(), self.runs()?);
        Ok(Played { description, events, now, runs, key: key() })
    }
}

/// How time passes, and what that needs.
enum Time {
    Virtual(ManualClock),
    System { runtime: tokio::runtime::Runtime, tell: fn(&Event), told: u32 },
}

impl Time {
    fn system(tell: fn(&Event)) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        Ok(Self::System { runtime, tell, told: 0 })
    }
}

/// What is left of a store when the engine is dropped.
enum KeptStore {
    Memory(MemoryStore),
    #[cfg(feature = "redb")]
    File(PathBuf),
}

impl KeptStore {
    fn new(store: &CaseStore, case: &str) -> Result<Self, String> {
        match store {
            CaseStore::Memory => {
                let _ = case;
                Ok(Self::Memory(MemoryStore::new()))
            }
            #[cfg(feature = "redb")]
            CaseStore::Redb(folder) => {
                let path = folder.join(format!("{case}.redb"));
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        Err(error.to_string())
                    }
                    _ => Ok(Self::File(path)),
                }
            }
            #[cfg(feature = "redb")]
            CaseStore::File(path) => Ok(Self::File(path.clone())),
        }
    }

    fn open(&self) -> Result<Arc<dyn Store>, String> {
        match self {
            Self::Memory(store) => Ok(Arc::new(store.clone())),
            #[cfg(feature = "redb")]
            Self::File(path) => {
                let store = crate::store::RedbStore::open(path);
                Ok(Arc::new(store.map_err(|error| error.to_string())?))
            }
        }
    }
}

/// Commits once, then answers that it has failed, like a process that dies right after.
#[derive(Debug)]
struct CrashingStore {
    store: Arc<dyn Store>,
    crashed: AtomicBool,
}

impl Store for CrashingStore {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.store.scan(table, prefix, from, visit)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if !self.crashed.swap(true, Ordering::Relaxed) {
            self.store.commit(batch)?;
        }
        Err(StoreError::Failed(CRASH.to_owned()))
    }

    fn is_durable(&self) -> bool {
        self.store.is_durable()
    }
}

fn key() -> TokenKey {
    TokenKey::new([SEED as u8; 32])
}

/// The execution of a case.
const EXECUTION: &str = "exec-1";
const SEED: u64 = 7;
const CRASH: &str = "crash after a commit";
