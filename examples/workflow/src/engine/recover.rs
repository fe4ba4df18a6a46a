//! Opening a store: fold what runs, hand out again what was not answered (F-122 … F-124).
//!
//! Nothing here writes an event: a history looks as if nothing had happened. An execution whose
//! records cannot be read fails by its head alone; its rows stay as they are.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use siftbus::{AdminError, Bus, Expiration, Filter, Subscription, SubscriptionConfig};

use super::calls::{FlowTable, parsed};
use super::dispatch::{REPLY_TOPIC, ensure_topic};
use super::error::{FlowError, OpenError};
use super::event::{Failure, JOURNAL_CORRUPT};
use super::journal::{
    self, FlowRow, Head, NEXT_KEY, ReadError, Sequence, TOKEN_KEY, check_format, ended_key,
    event_key, put, put_format, sequence_key, sequence_of,
};
use super::program::Program;
use super::shell::{Engine, EngineOptions, EngineStats, Invocations, Live};
use super::state::{Activity, EventId, Phase, State, Status};
use super::step::Command;
use super::time::Timestamp;
use super::token::{KEY_BYTES, TokenKey, hex};
use crate::poll::at_once;
use crate::store::{Batch, Store, StoreError, Table};

impl Engine {
    /// Opens a store on a bus. What ran goes on with the first [`turn`](Self::turn): register
    /// workers before it.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the store is left as it is, also if its format is unknown.
    pub fn open(
        bus: &Bus,
        store: Arc<dyn Store>,
        options: EngineOptions,
    ) -> Result<Self, OpenError> {
        let key = token_key(&*store, options.key.as_ref())?;
        let id = format!("e-{}", hex(&digest_of_key(&key)));
        let replies = reply_subscription(bus, &id)?;
        let next = store.read(Table::Meta, NEXT_KEY)?.as_deref().and_then(sequence_of);
        let mut engine = Self {
            bus: bus.clone(),
            store,
            limits: options.limits,
            require_handlers: options.require_handlers,
            key,
            id,
            replies,
            flows: FlowTable::default(),
            next: next.unwrap_or(1),
            live: HashMap::new(),
            names: BTreeMap::new(),
            due: BTreeSet::new(),
            signals: BTreeMap::new(),
            staged: Batch::new(),
            commands: VecDeque::new(),
            invocations: Invocations::default(),
            waiting: HashMap::new(),
            failed: None,
            next_sweep: Timestamp::default(),
            stats: EngineStats::default(),
        };
        engine.read_flows()?;
        engine.recover()?;
        Ok(engine)
    }

    fn read_flows(&mut self) -> Result<(), StoreError> {
        let mut damaged = None;
        let mut names = Vec::new();
        self.store.scan(Table::Flow, b"", b"", &mut |key, _| {
            names.push(key.to_vec());
            true
        })?;
        for key in names {
            let name = String::from_utf8_lossy(&key).into_owned();
            match journal::read::<FlowRow>(&*self.store, Table::Flow, &key) {
                Ok(Some(row)) => {
                    self.flows.rows.insert(name, row);
                }
                Ok(None) => {}
                Err(ReadError::Store(error)) => return Err(error),
                Err(ReadError::Corrupt(why)) => damaged = Some((name, why)),
            }
        }
        match damaged {
            // A flow that vanishes silently could be created anew over the old one.
            Some((key, why)) => Err(StoreError::Corrupt { table: Table::Flow.name(), key, why }),
            None => Ok(()),
        }
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        let mut open = Vec::new();
        self.store.scan(Table::Open, b"", b"", &mut |key, _| {
            open.extend(sequence_of(key));
            true
        })?;
        for sequence in open {
            match self.load(sequence) {
                Ok(live) if live.state.status.is_final() => self.settle(sequence, live),
                Ok(live) => self.resume(sequence, live),
                Err(ReadError::Store(error)) => return Err(error),
                Err(ReadError::Corrupt(why)) => self.fail_corrupt(sequence, &why),
            }
        }
        Ok(())
    }

    /// Folds the events of an execution, from its snapshot if there is one.
    fn load(&mut self, sequence: Sequence) -> Result<Live, ReadError> {
        let head = self.head(sequence)?;
        let program = self.program(&head.definition).map_err(ReadError::Corrupt)?;
        let (mut state, snapshot) = self.fold(sequence, &program)?;
        if !state.status.is_final() {
            self.read_heartbeats(sequence, &program, &mut state)?;
        }
        Ok(Live { head, program, state, due: None, snapshot })
    }

    pub(super) fn fold(
        &self,
        sequence: Sequence,
        program: &Program,
    ) -> Result<(State, EventId), ReadError> {
        let snapshot = journal::snapshot(&*self.store, sequence)?;
        let mut state = snapshot.unwrap_or_default();
        let start = state.last_event;
        let mut misfit = None;
        journal::events(&*self.store, sequence, start + 1, &mut |event| {
            misfit = state.apply(program, &event).err();
            misfit.is_none()
        })?;
        match misfit {
            Some(misfit) => Err(ReadError::Corrupt(misfit.to_string())),
            None if state.last_event == 0 => {
                Err(ReadError::Corrupt("the execution has no events".to_owned()))
            }
            None => Ok((state, start)),
        }
    }

    /// Heartbeats leave no event; they move the deadline that the fold has found.
    fn read_heartbeats(
        &self,
        sequence: Sequence,
        program: &Program,
        state: &mut State,
    ) -> Result<(), StoreError> {
        for frame in state.frames.values_mut() {
            let step = program.step(frame.step);
            let Activity::Task(task) = &mut frame.activity else { continue };
            let Some(crate::language::StepKind::Task(definition)) = step.map(|step| &step.kind)
            else {
                continue;
            };
            let Some(heartbeat) = definition.heartbeat else { continue };
            let row = self.store.read(Table::Heartbeat, &event_key(sequence, task.scheduled))?;
            if let Some(last) = row.as_deref().and_then(sequence_of) {
                task.heartbeat = Some(Timestamp::from_millis(last).after(heartbeat));
            }
        }
        Ok(())
    }

    /// An execution goes on: its timers are set, and what was not answered is handed out again
    /// with the same task id and token.
    fn resume(&mut self, sequence: Sequence, live: Live) {
        self.stats.recovered_executions += 1;
        let unanswered: Vec<EventId> = live
            .state
            .open_tasks()
            .filter(|(_, task)| task.phase != Phase::Submitted)
            .map(|(_, task)| task.scheduled)
            .collect();
        self.names.insert((Arc::clone(&live.head.name), Arc::clone(&live.head.flow)), sequence);
        self.live.insert(sequence, live);
        self.reschedule(sequence);
        let commands = unanswered.into_iter().map(|task| (sequence, Command::Dispatch(task)));
        self.commands.extend(commands);
    }

    /// An execution had ended, but the task that it was to report to was not told.
    fn settle(&mut self, sequence: Sequence, live: Live) {
        if live.head.callback.is_some() {
            // The task may belong to an execution that is read later: tell it with the first turn.
            self.names.insert((Arc::clone(&live.head.name), Arc::clone(&live.head.flow)), sequence);
            self.live.insert(sequence, live);
            self.commands.push_back((sequence, Command::Finished));
        } else {
            self.staged.delete(Table::Open, sequence_key(sequence));
        }
    }

    fn fail_corrupt(&mut self, sequence: Sequence, why: &str) {
        self.stats.corrupt_executions += 1;
        // Without a readable head there is nothing to write it into: asking for the execution then
        // finds the damage each time.
        if let Ok(mut head) = self.head(sequence) {
            head.status = Status::Failed;
            head.ended = Some(self.now());
            head.failure = Some(corrupt_failure(why));
            put(&mut self.staged, Table::Execution, sequence_key(sequence), &head);
            let ended = head.ended.unwrap_or_default();
            self.staged.put(Table::Ended, ended_key(ended, sequence), []);
            self.staged.delete(Table::Open, sequence_key(sequence));
        }
    }

    pub(super) fn head(&self, sequence: Sequence) -> Result<Head, ReadError> {
        if let Some(live) = self.live.get(&sequence) {
            return Ok(live.head.clone());
        }
        let head = journal::read(&*self.store, Table::Execution, &sequence_key(sequence))?;
        head.ok_or_else(|| ReadError::Corrupt("the head of the execution is missing".to_owned()))
    }

    /// The state of an execution that has ended, or why it cannot be had.
    pub(super) fn final_state(&self, sequence: Sequence) -> Result<State, Failure> {
        let read = |error: ReadError| match error {
            ReadError::Corrupt(why) => corrupt_failure(&why),
            ReadError::Store(error) => corrupt_failure(&error.to_string()),
        };
        let head = self.head(sequence).map_err(read)?;
        if let Some(failure) = head.failure.filter(|failure| failure.error == JOURNAL_CORRUPT) {
            return Err(failure);
        }
        let text = self.store.read(Table::Definition, head.definition.as_bytes());
        let program = match self.flows.programs.get(&head.definition) {
            Some(program) => Arc::clone(program),
            None => {
                let text = text.ok().flatten().and_then(|text| String::from_utf8(text).ok());
                let parsed = text.and_then(|text| parsed(&text).ok());
                let (definition, _) = parsed
                    .ok_or_else(|| corrupt_failure("the definition cannot be read any more"))?;
                Arc::new(Program::new(definition))
            }
        };
        self.fold(sequence, &program).map(|(state, _)| state).map_err(read)
    }

    /// Removes executions that ended longer ago than the history is kept; answers how many.
    ///
    /// # Errors
    ///
    /// [`FlowError::Unavailable`].
    pub fn sweep(&mut self) -> Result<usize, FlowError> {
        let kept = self.limits.history_retention;
        let now = self.now();
        let mut over = Vec::new();
        let scanned = self.store.scan(Table::Ended, b"", b"", &mut |key, _| {
            let ended = key.first_chunk().map(|millis| u64::from_be_bytes(*millis));
            let past = ended.is_some_and(|ended| Timestamp::from_millis(ended).after(kept) <= now);
            if past {
                over.push(key.to_vec());
            }
            past && over.len() < SWEPT_AT_ONCE
        });
        scanned.map_err(FlowError::Unavailable)?;
        for key in &over {
            self.staged.delete(Table::Ended, key.as_slice());
            if let Some(sequence) = sequence_of(key) {
                self.remove(sequence).map_err(FlowError::Unavailable)?;
            }
        }
        self.commit()?;
        Ok(over.len())
    }

    /// Sweeps if it was not done for an hour, and goes on while there is more.
    pub(crate) fn sweep_in_time(&mut self) -> Result<(), FlowError> {
        if self.now() < self.next_sweep {
            return Ok(());
        }
        if self.sweep()? < SWEPT_AT_ONCE {
            self.next_sweep = self.now().after(SWEPT_EVERY);
        }
        Ok(())
    }

    fn remove(&mut self, sequence: Sequence) -> Result<(), StoreError> {
        if let Ok(head) = self.head(sequence) {
            self.staged.delete(Table::Name, journal::name_key(&head.flow, &head.name));
        }
        let prefix = sequence_key(sequence);
        self.staged.delete(Table::Execution, prefix);
        self.staged.delete(Table::Snapshot, prefix);
        for table in [Table::Event, Table::Heartbeat] {
            let mut keys = Vec::new();
            self.store.scan(table, &prefix, b"", &mut |key, _| {
                keys.push(key.to_vec());
                true
            })?;
            keys.into_iter().for_each(|key| self.staged.delete(table, key));
        }
        Ok(())
    }
}

/// Why an execution whose records cannot be read has failed (F-124).
pub(super) fn corrupt_failure(why: &str) -> Failure {
    Failure::new(JOURNAL_CORRUPT, why)
}

fn token_key(store: &dyn Store, given: Option<&TokenKey>) -> Result<TokenKey, OpenError> {
    if check_format(store)? {
        let bytes = store.read(Table::Meta, TOKEN_KEY)?.and_then(|key| key.try_into().ok());
        let damaged = || StoreError::Corrupt {
            table: Table::Meta.name(),
            key: "token_key".to_owned(),
            why: format!("a key has {KEY_BYTES} bytes"),
        };
        return Ok(TokenKey::new(bytes.ok_or_else(damaged)?));
    }
    let key = match given {
        Some(key) => key.clone(),
        None => {
            let mut bytes = [0; KEY_BYTES];
            getrandom::fill(&mut bytes).map_err(|error| OpenError::Random(error.to_string()))?;
            TokenKey::new(bytes)
        }
    };
    let mut batch = Batch::new();
    put_format(&mut batch);
    batch.put(Table::Meta, TOKEN_KEY, key.bytes().as_slice());
    store.commit(batch)?;
    Ok(key)
}

fn digest_of_key(key: &TokenKey) -> [u8; 8] {
    use sha2::{Digest, Sha256};
    let digest = Sha256::new().chain_update(b"engine id").chain_update(key.bytes()).finalize();
    *digest.first_chunk().expect("SHA-256 has 32 bytes")
}

/// The engine's replies: those that name it. The subscription goes by itself when nobody has read
/// it for a day.
fn reply_subscription(bus: &Bus, id: &str) -> Result<Subscription, AdminError> {
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);
    let topic = ensure_topic(bus, REPLY_TOPIC)?;
    let name = format!("{REPLY_TOPIC}.{id}");
    let config = SubscriptionConfig::new()
        .filter(Filter::eq("engine_id", id))
        .ack_deadline(MINUTE)
        .retention(DAY)
        .expiration(Expiration::After(DAY));
    match at_once(topic.subscribe(&name, config)) {
        Err(AdminError::AlreadyExists { .. }) => at_once(bus.subscription(&name)),
        made => made,
    }
}

/// Executions removed in one commit.
const SWEPT_AT_ONCE: usize = 500;
/// How often old executions are looked for.
const SWEPT_EVERY: std::time::Duration = std::time::Duration::from_secs(3_600);
