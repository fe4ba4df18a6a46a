//! The engine as a value: what it holds, and the order *decide → journal → act* (F-121).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use siftbus::{Bus, Deliveries, Subscription};

use super::calls::FlowTable;
use super::error::FlowError;
use super::event::{Event, EventKind};
use super::journal::{
    Head, Sequence, ended_key, event_key, put, put_events, put_snapshot, sequence_key,
};
use super::limits::FlowLimits;
use super::program::Program;
use super::state::{EventId, State};
use super::step::{Command, Context, Signal, Transition, step};
use super::time::Timestamp;
use super::token::TokenKey;
use crate::store::{Batch, Store, StoreError, Table};

/// Runs flows: one store, one bus.
///
/// Calls change the state and commit before they answer. [`turn`](Self::turn) does what has become
/// possible since: takes replies, fires what is due, hands out invocations. Between two turns the
/// engine does nothing, so whoever owns it decides when time passes.
///
/// If the store fails, every later call answers [`FlowError::Unavailable`]; open the store
/// again then.
#[derive(Debug)]
pub struct Engine {
    pub(super) bus: Bus,
    pub(super) store: Arc<dyn Store>,
    pub(super) limits: FlowLimits,
    pub(super) require_handlers: bool,
    pub(super) key: TokenKey,
    pub(super) id: String,
    pub(super) replies: Subscription,
    pub(super) flows: FlowTable,
    pub(super) next: Sequence,
    /// Executions that are not final, and those whose end is not committed yet.
    pub(super) live: HashMap<Sequence, Live>,
    /// Live executions by execution and flow name: a reply may name the first only.
    pub(super) names: BTreeMap<(Arc<str>, Arc<str>), Sequence>,
    pub(super) due: BTreeSet<(Timestamp, Sequence)>,
    /// What has happened to executions and is not decided yet.
    pub(super) signals: BTreeMap<Sequence, Vec<Signal>>,
    pub(super) staged: Batch,
    pub(super) commands: VecDeque<(Sequence, Command)>,
    pub(super) invocations: Invocations,
    /// Who waits for the end of an execution.
    pub(super) waiting: HashMap<Sequence, Vec<tokio::sync::oneshot::Sender<()>>>,
    pub(super) failed: Option<StoreError>,
    /// When old executions are removed next, if somebody asks for it now and then.
    pub(super) next_sweep: Timestamp,
    pub(super) stats: EngineStats,
}

/// How an engine works; the default is the service's figures and a key from the system.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The limits in force.
    pub limits: FlowLimits,
    /// Whether an invocation that nobody has subscribed to fails at once with
    /// `FC.FunctionNotFound`; otherwise it waits in its topic. Default: `true`.
    pub require_handlers: bool,
    /// The key of the task tokens for a store that has none yet; `None`: random bytes.
    pub key: Option<TokenKey>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { limits: FlowLimits::default(), require_handlers: true, key: None }
    }
}

/// What an engine has counted since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Events written.
    pub events: u64,
    /// Commits of the store.
    pub commits: u64,
    /// Replies to tasks that were not open any more (F-111).
    pub late_replies: u64,
    /// Executions that were running when the store was opened (F-123).
    pub recovered_executions: u64,
    /// Executions that failed with `FnF.JournalCorrupt` because a record could not be read.
    pub corrupt_executions: u64,
    /// Snapshots written (F-126).
    pub snapshots: u64,
}

/// An execution in memory.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) head: Head,
    pub(super) program: Arc<Program>,
    pub(super) state: State,
    /// Its entry in the table of what is due.
    pub(super) due: Option<Timestamp>,
    /// The last event of the stored snapshot.
    pub(super) snapshot: EventId,
}

/// Invocations that are out, by topic (F-116).
#[derive(Debug, Default)]
pub(super) struct Invocations {
    pub(super) open: HashMap<(Sequence, EventId), Arc<str>>,
    pub(super) by_topic: HashMap<Arc<str>, Topic>,
}

#[derive(Debug, Default)]
pub(super) struct Topic {
    pub(super) open: usize,
    pub(super) waiting: VecDeque<(Sequence, EventId)>,
}

impl Engine {
    /// Does everything that can be done now; answers whether that was anything.
    ///
    /// # Errors
    ///
    /// [`FlowError::Unavailable`] if the store fails.
    pub fn turn(&mut self) -> Result<bool, FlowError> {
        let mut worked = false;
        loop {
            let taken = self.take_replies();
            self.take_due();
            let signals = std::mem::take(&mut self.signals);
            if signals.is_empty() && self.is_settled() && taken.is_none() {
                return Ok(worked);
            }
            worked = true;
            for (sequence, signals) in signals {
                self.decide(sequence, signals);
            }
            self.commit()?;
            // The order is fixed: commit, apply, acknowledge (F-112).
            if let Some(taken) = taken {
                taken.ack_all();
            }
        }
    }

    /// When the next wait, deadline or retry is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What the engine has counted.
    pub fn stats(&self) -> EngineStats {
        self.stats.clone()
    }

    /// The name of the engine on the bus; it stays with the store.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The subscription on which replies arrive; whoever drives the engine waits on it.
    pub fn replies(&self) -> &Subscription {
        &self.replies
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The limits in force.
    pub fn limits(&self) -> &FlowLimits {
        &self.limits
    }

    /// How many executions are running.
    pub fn running(&self) -> usize {
        self.live.len()
    }

    /// The state of an execution that runs: for tests and tools.
    pub fn state(&self, flow: &str, name: &str) -> Option<&State> {
        let sequence = self.names.get(&(Arc::from(name), Arc::from(flow)))?;
        self.live.get(sequence).map(|live| &live.state)
    }

    /// Tells `told` when an execution that runs has ended.
    pub(crate) fn tell_end(
        &mut self,
        flow: &str,
        name: &str,
        told: tokio::sync::oneshot::Sender<()>,
    ) {
        if let Some(sequence) = self.names.get(&(Arc::from(name), Arc::from(flow))) {
            self.waiting.entry(*sequence).or_default().push(told);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from(self.bus.now())
    }

    fn is_settled(&self) -> bool {
        self.staged.is_empty() && self.commands.is_empty()
    }

    /// Takes the replies that have arrived.
    fn take_replies(&mut self) -> Option<Deliveries> {
        // A bus that is closed has no replies; that is found by whoever waits for them.
        let replies = self.replies.try_pull(REPLIES_AT_ONCE).ok()?;
        if replies.is_empty() {
            return None;
        }
        for reply in &replies {
            self.reply(reply.message());
        }
        Some(replies)
    }

    fn take_due(&mut self) {
        let now = self.now();
        while let Some((due, sequence)) = self.due.first().copied() {
            if due > now {
                return;
            }
            self.due.pop_first();
            if let Some(live) = self.live.get_mut(&sequence) {
                live.due = None;
                self.signals.entry(sequence).or_default().push(Signal::Due);
            }
        }
    }

    pub(super) fn signal(&mut self, sequence: Sequence, signal: Signal) {
        self.signals.entry(sequence).or_default().push(signal);
    }

    /// Decides what follows from signals and stages it.
    pub(super) fn decide(&mut self, sequence: Sequence, signals: Vec<Signal>) -> usize {
        let now = self.now();
        let Some(live) = self.live.get_mut(&sequence) else { return 0 };
        let heartbeats: Vec<EventId> = signals
            .iter()
            .filter_map(|signal| match signal {
                Signal::TaskHeartbeat(task) => Some(*task),
                _ => None,
            })
            .collect();
        let context = Context {
            program: &live.program,
            limits: &self.limits,
            key: &self.key,
            flow: &live.head.flow,
            execution: &live.head.name,
        };
        let transition = step(&context, &mut live.state, signals, now);
        for task in heartbeats {
            let open = live.state.task_frame(task);
            if open.is_none_or(|(_, _, task)| task.heartbeat.is_none()) {
                continue;
            }
            self.staged.put(
                Table::Heartbeat,
                event_key(sequence, task),
                now.as_millis().to_be_bytes(),
            );
        }
        let events = transition.events.len();
        self.stage(sequence, transition);
        events
    }

    fn stage(&mut self, sequence: Sequence, transition: Transition) {
        let Transition { events, commands } = transition;
        let Some(live) = self.live.get_mut(&sequence) else { return };
        put_events(&mut self.staged, sequence, &events);
        self.stats.events += events.len() as u64;
        if live.state.status.is_final() {
            live.head.status = live.state.status;
            live.head.ended = live.state.ended;
            live.head.failure = live.state.failure.clone();
            put(&mut self.staged, Table::Execution, sequence_key(sequence), &live.head);
            let ended = live.state.ended.unwrap_or_default();
            self.staged.put(Table::Ended, ended_key(ended, sequence), []);
            if live.snapshot > 0 {
                self.staged.delete(Table::Snapshot, sequence_key(sequence));
            }
            if live.head.callback.is_none() {
                self.staged.delete(Table::Open, sequence_key(sequence));
            }
        } else if live.state.last_event - live.snapshot >= self.limits.snapshot_events.max(1) {
            live.snapshot = live.state.last_event;
            put_snapshot(&mut self.staged, sequence, &live.state);
            self.stats.snapshots += 1;
        }
        self.reschedule(sequence);
        for event in &events {
            self.after_event(sequence, event);
        }
        self.commands.extend(commands.into_iter().map(|command| (sequence, command)));
    }

    /// Brings the table of what is due up to date.
    pub(super) fn reschedule(&mut self, sequence: Sequence) {
        let Some(live) = self.live.get_mut(&sequence) else { return };
        let due = live.state.next_due();
        if due == live.due {
            return;
        }
        if let Some(before) = live.due.take() {
            self.due.remove(&(before, sequence));
        }
        live.due = due;
        self.due.extend(due.map(|due| (due, sequence)));
    }

    /// An invocation is not out any more once its task has been answered, submitted or given up.
    fn after_event(&mut self, sequence: Sequence, event: &Event) {
        let over = matches!(
            event.kind,
            EventKind::TaskSubmitted { .. }
                | EventKind::TaskSubmitFailed(_)
                | EventKind::TaskSucceeded { .. }
                | EventKind::TaskFailed(_)
                | EventKind::TaskTimedOut(_)
        );
        if over {
            self.invocation_over(sequence, event.scheduled);
        }
        let closed = over && !matches!(event.kind, EventKind::TaskSubmitted { .. });
        let beats = |live: &Live| {
            live.program.id_of(&event.step).is_some_and(|step| {
                live.program.step(step).is_some_and(|step| match &step.kind {
                    crate::language::StepKind::Task(task) => task.heartbeat.is_some(),
                    _ => false,
                })
            })
        };
        if closed && self.live.get(&sequence).is_some_and(beats) {
            self.staged.delete(Table::Heartbeat, event_key(sequence, event.scheduled));
        }
    }

    /// Commits what is staged, then acts.
    ///
    /// # Errors
    ///
    /// [`FlowError::Unavailable`] if the store fails, now or before: nothing is acted on then.
    pub(crate) fn commit(&mut self) -> Result<(), FlowError> {
        if let Some(error) = &self.failed {
            return Err(FlowError::Unavailable(error.clone()));
        }
        if !self.staged.is_empty() {
            let staged = std::mem::take(&mut self.staged);
            if let Err(error) = self.store.commit(staged) {
                // What was decided is ahead of the store now: only opening it again tells the
                // truth.
                self.failed = Some(error.clone());
                return Err(FlowError::Unavailable(error));
            }
            self.stats.commits += 1;
        }
        while let Some((sequence, command)) = self.commands.pop_front() {
            match command {
                Command::Dispatch(task) => self.dispatch(sequence, task),
                Command::Cancel { task, step } => self.cancel(sequence, task, step),
                Command::Finished => self.finished(sequence),
            }
        }
        Ok(())
    }

    /// Tells whoever waits for an execution that it has ended, and forgets it.
    fn finished(&mut self, sequence: Sequence) {
        let Some(live) = self.live.remove(&sequence) else { return };
        for waiting in self.waiting.remove(&sequence).into_iter().flatten() {
            // Who has gone away need not be told.
            let _ = waiting.send(());
        }
        self.names.remove(&(Arc::clone(&live.head.name), Arc::clone(&live.head.flow)));
        if let Some(due) = live.due {
            self.due.remove(&(due, sequence));
        }
        if let Some(parent) = live.head.parent.filter(|parent| parent.sync) {
            let result = super::dispatch::result_of(&live.state);
            self.signal(parent.execution, Signal::TaskDone { task: parent.task, result });
        }
        if let Some(token) = &live.head.callback {
            self.report_end(token, super::dispatch::result_of(&live.state));
            self.staged.delete(Table::Open, sequence_key(sequence));
        }
    }
}

/// Replies taken at once: they go into one commit (F-125).
pub(super) const REPLIES_AT_ONCE: usize = 256;
