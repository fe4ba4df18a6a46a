//! What all handles share: the store, the bus, and how a transition is committed.
//!
//! A transition is written first and acted on afterwards: messages are published, watchers told
//! and timers set only once the store has it (J-32, J-35). Where a commit is dear, transitions that
//! are ready at the same time share one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use siftbus::{Bus, Message, Topic};
use tokio::sync::{Notify, oneshot};

use crate::document::{DEFAULT_QUEUE, Job, Status};
use crate::error::StoreError;
use crate::gate::Gate;
use crate::handler::{Kind, KindOptions};
use crate::hub::Hub;
use crate::id::{IdFormat, IdSource, JobId};
use crate::queue::Queue;
use crate::running::{Running, Stop};
use crate::store::{JobStore, OutboxKey, OutboxRow};
use crate::time::Timestamp;
use crate::transitions::Tx;
use crate::worker::WorkerShared;

pub(crate) struct Engine {
    pub(crate) bus: Bus,
    pub(crate) topic: Topic,
    pub(crate) store: Box<dyn JobStore>,
    pub(crate) kinds: RwLock<HashMap<Arc<str>, Arc<Kind>>>,
    pub(crate) settings: Settings,
    pub(crate) ids: IdSource,
    pub(crate) hub: Hub,
    pub(crate) gate: Gate,
    pub(crate) queues: Mutex<HashMap<Arc<str>, Queue>>,
    pub(crate) workers: Mutex<Vec<Weak<WorkerShared>>>,
    pub(crate) counters: Counters,
    /// Held from the beginning of a transaction until its watchers were told, so that they see
    /// changes in order.
    commits: Mutex<()>,
    group: Mutex<Vec<Op>>,
    group_ready: Arc<Notify>,
    pub(crate) tick: Arc<Notify>,
    /// Rows of the outbox that whoever wrote them is about to publish: the ticker leaves them.
    in_hand: Mutex<HashMap<u64, Arc<Vec<OutboxKey>>>>,
    hands: AtomicU64,
    /// When the ticker wakes by itself, in milliseconds.
    wakes_at: AtomicU64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("topic", &self.topic.name()).finish_non_exhaustive()
    }
}

/// What the builder was told.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) defaults: KindOptions,
    pub(crate) dead_letters: Option<Topic>,
    pub(crate) events: Option<Topic>,
    pub(crate) known_kinds_only: bool,
    pub(crate) max_unfinished: u64,
    pub(crate) ids: IdFormat,
    pub(crate) queue_limits: HashMap<Arc<str>, usize>,
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) counts: Mutex<Counts>,
    /// Jobs that were over, by kind and state.
    pub(crate) finished: Mutex<BTreeMap<(Status, Arc<str>), u64>>,
    pub(crate) workers: AtomicU64,
}

/// What a transaction has done, or all of them.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) submitted: u64,
    pub(crate) started: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) retried: u64,
    pub(crate) leases_lost: u64,
    pub(crate) expired: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.submitted += other.submitted;
        self.started += other.started;
        self.completed += other.completed;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.retried += other.retried;
        self.leases_lost += other.leases_lost;
        self.expired += other.expired;
    }
}

/// What has to be done once a transaction is committed.
#[derive(Debug, Default)]
pub(crate) struct After {
    pub(crate) changed: Vec<JobId>,
    /// Rows whose messages are published right after the commit, and these messages.
    pub(crate) keys: Vec<OutboxKey>,
    pub(crate) messages: Messages,
    /// Under which number the rows are in hand.
    hand: Option<u64>,
    pub(crate) earliest: Option<Timestamp>,
    /// Jobs that were given a place, and jobs that do not run any more (J-39).
    pub(crate) entered: Vec<JobId>,
    pub(crate) left: Vec<JobId>,
    pub(crate) counts: Counts,
    finished: Vec<(Status, Arc<Kind>, u64)>,
}

/// Messages of jobs on their way to the bus.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// Of the default queue and no priority.
    usual: Vec<Message>,
    others: HashMap<Place, Vec<Message>>,
}

/// Where a job waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    queue: Option<Arc<str>>,
    priority: i32,
}

impl Place {
    pub(crate) fn of(job: &Job) -> Self {
        Self { queue: job.queue.clone(), priority: job.priority.signum() }
    }
}

impl Messages {
    pub(crate) fn push(&mut self, place: Place, message: Message) {
        match place {
            Place { queue: None, priority: 0 } => self.usual.push(message),
            place => self.others.entry(place).or_default().push(message),
        }
    }

    /// The messages of each queue in pieces that can be published at once.
    pub(crate) fn parts(self, engine: &Engine) -> Vec<(Topic, Vec<Message>)> {
        let queues = engine.queues.lock();
        // A queue is there before its jobs; without it they are published to where all can see.
        let topic = |place: &Place| {
            let queue = queues.get(place.queue.as_deref().unwrap_or(DEFAULT_QUEUE));
            queue.map_or(&engine.topic, |queue| queue.topic(place.priority))
        };
        let others = self.others.into_iter().map(|(place, part)| (topic(&place), part));
        let max = *engine.bus.limits().publish_messages.end();
        let mut parts = Vec::new();
        for (topic, messages) in std::iter::once((&engine.topic, self.usual)).chain(others) {
            if messages.len() <= max {
                parts.push((topic.clone(), messages));
                continue;
            }
            let mut rest = messages.into_iter().peekable();
            while rest.peek().is_some() {
                parts.push((topic.clone(), rest.by_ref().take(max).collect()));
            }
        }
        parts.retain(|(_, messages)| !messages.is_empty());
        parts
    }
}

impl After {
    /// Counts a job that is over.
    pub(crate) fn finished(&mut self, status: Status, kind: &Arc<Kind>) {
        match status {
            Status::Completed => self.counts.completed += 1,
            Status::Cancelled => self.counts.cancelled += 1,
            _ => self.counts.failed += 1,
        }
        match self.finished.last_mut() {
            Some((last, of, count)) if *last == status && Arc::ptr_eq(of, kind) => *count += 1,
            _ => self.finished.push((status, Arc::clone(kind), 1)),
        }
    }

    pub(crate) fn due(&mut self, at: Option<Timestamp>) {
        self.earliest = self.earliest.into_iter().chain(at).min();
    }
}

/// Lets go of rows when they are removed, or when that has failed.
struct InHand {
    engine: Arc<Engine>,
    hand: u64,
    removed: bool,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.engine.let_go(self.hand);
        if !self.removed {
            self.engine.tick.notify_one();
        }
    }
}

/// A transition that waits for a shared commit; answers who is to be told of the commit.
type Op = Box<dyn FnOnce(&mut Tx<'_>) -> Result<Told, StoreError> + Send>;
type Told = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

impl Engine {
    pub(crate) fn new(
        bus: Bus,
        topic: Topic,
        store: Box<dyn JobStore>,
        settings: Settings,
    ) -> Arc<Self> {
        let ids = IdSource::new(bus.seed(), settings.ids);
        Arc::new(Self {
            bus,
            topic,
            store,
            kinds: RwLock::default(),
            settings,
            ids,
            hub: Hub::default(),
            gate: Gate::default(),
            queues: Mutex::default(),
            workers: Mutex::default(),
            counters: Counters::default(),
            commits: Mutex::new(()),
            group: Mutex::default(),
            group_ready: Arc::default(),
            tick: Arc::default(),
            in_hand: Mutex::default(),
            hands: AtomicU64::new(0),
            wakes_at: AtomicU64::new(u64::MAX),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.bus.now().into()
    }

    /// All that is settled about a kind, whether this program works on it or not.
    pub(crate) fn kind(&self, name: &str) -> Arc<Kind> {
        if let Some(kind) = self.kinds.read().get(name) {
            return Arc::clone(kind);
        }
        Arc::new(Kind::new(name.into(), self.settings.defaults.clone(), None))
    }

    /// Runs a transition and waits until it is committed.
    pub(crate) async fn commit<R: Send + 'static>(
        self: &Arc<Self>,
        op: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        if !self.store.shares_commits() {
            return self.commit_alone(false, op);
        }
        let (told, answer) = oneshot::channel();
        self.join_group(Box::new(move |tx| match op(tx) {
            // Whoever has stopped waiting needs no answer.
            Ok(value) => Ok(Box::new(move |committed| {
                drop(told.send(committed.map(|()| value)));
            })),
            Err(error) => {
                drop(told.send(Err(error.clone())));
                Err(error)
            }
        }));
        let ended = || StoreError::Failed("a transition beside it failed".to_owned());
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Runs a transition in a transaction of its own, here and now.
    pub(crate) fn commit_alone<R>(
        self: &Arc<Self>,
        undo: bool,
        op: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut op = Some(op);
        let mut value = None;
        let after = self.transact(undo, &mut |tx| {
            if let Some(op) = op.take() {
                value = Some(op(tx)?);
            }
            Ok(())
        })?;
        self.act(after);
        value.ok_or_else(|| StoreError::Failed("the store did not run the transition".to_owned()))
    }

    fn transact(
        &self,
        undo: bool,
        work: &mut dyn FnMut(&mut Tx<'_>) -> Result<(), StoreError>,
    ) -> Result<After, StoreError> {
        let mut after = After::default();
        let now = self.now();
        let _in_order = self.commits.lock();
        let written = self.store.write(undo, &mut |tx| {
            work(&mut Tx::new(tx, self, now, &mut after))?;
            if !after.keys.is_empty() && !self.store.is_volatile() {
                // Before the commit, so that the ticker never sees the rows without this.
                let hand = self.hands.fetch_add(1, Ordering::Relaxed);
                self.in_hand.lock().insert(hand, Arc::new(std::mem::take(&mut after.keys)));
                after.hand = Some(hand);
            }
            Ok(())
        });
        if let Err(error) = written {
            after.hand.inspect(|hand| self.let_go(*hand));
            self.leave(&after.entered);
            return Err(error);
        }
        self.count(&mut after);
        self.leave(&after.left);
        if !self.hub.is_empty() {
            for id in self.hub.watched_of(&after.changed) {
                self.hub.tell(id, self.store.get(id).unwrap_or_default());
            }
        }
        Ok(after)
    }

    fn count(&self, after: &mut After) {
        self.counters.counts.lock().add(&after.counts);
        if after.finished.is_empty() {
            return;
        }
        let mut finished = self.counters.finished.lock();
        for (status, kind, count) in after.finished.drain(..) {
            *finished.entry((status, Arc::clone(&kind.name))).or_default() += count;
        }
    }

    /// Frees the places of jobs; the ticker sends messages to those who get them.
    fn leave(&self, ids: &[JobId]) {
        if self.gate.leave(ids) {
            self.tick.notify_one();
        }
    }

    /// What follows a commit: publishes, then forgets the rows of the outbox; sets the timer.
    fn act(self: &Arc<Self>, after: After) {
        let published = self.publish(after.messages);
        match (after.hand, published) {
            (Some(hand), Ok(())) => self.forget(hand),
            (Some(hand), Err(_)) => {
                // The rows are still there; the ticker tries again.
                self.let_go(hand);
                self.tick.notify_one();
            }
            (None, Ok(())) => {}
            (None, Err(_)) => self.file(&after.keys),
        }
        if after.earliest.is_some_and(|at| at.as_millis() < self.wakes_at.load(Ordering::SeqCst)) {
            self.tick.notify_one();
        }
    }

    fn publish(&self, messages: Messages) -> Result<(), siftbus::PublishError> {
        for (topic, part) in messages.parts(self) {
            topic.try_publish_many(part)?;
        }
        Ok(())
    }

    /// Writes the rows that a store that ends with the program did not need until now.
    fn file(self: &Arc<Self>, keys: &[OutboxKey]) {
        let row = |key: &OutboxKey| OutboxRow { key: key.clone(), message: None };
        let filed = self.transact(false, &mut |tx| {
            keys.iter().try_for_each(|key| tx.tx.push_outbox(&row(key)))
        });
        debug_assert!(filed.is_ok(), "a volatile store does not fail");
        self.tick.notify_one();
    }

    /// Removes rows whose messages are published. Nobody waits for it: published twice is harmless.
    fn forget(self: &Arc<Self>, hand: u64) {
        let Some(keys) = self.in_hand.lock().get(&hand).cloned() else { return };
        let remove =
            move |tx: &mut Tx<'_>| keys.iter().try_for_each(|key| tx.tx.remove_outbox(key));
        if self.store.shares_commits() {
            let guard = InHand { engine: Arc::clone(self), hand, removed: false };
            self.join_group(Box::new(move |tx| {
                remove(tx)?;
                Ok(Box::new(move |committed: Result<(), StoreError>| {
                    // Named whole, or the closure would take one field and leave the guard.
                    let mut guard = guard;
                    guard.removed = committed.is_ok();
                }))
            }));
            return;
        }
        let failed = self.commit_alone(false, remove).is_err();
        self.let_go(hand);
        if failed {
            self.tick.notify_one();
        }
    }

    fn let_go(&self, hand: u64) {
        self.in_hand.lock().remove(&hand);
    }

    /// The rows that somebody is about to publish.
    pub(crate) fn in_hand(&self) -> HashSet<OutboxKey> {
        let in_hand: Vec<_> = self.in_hand.lock().values().cloned().collect();
        in_hand.iter().flat_map(|keys| keys.iter().cloned()).collect()
    }

    fn join_group(&self, op: Op) {
        self.group.lock().push(op);
        self.group_ready.notify_one();
    }

    /// Commits whatever has joined the group, in one transaction.
    fn commit_group(self: &Arc<Self>) {
        let mut ops = std::mem::take(&mut *self.group.lock()).into_iter();
        if ops.len() == 0 {
            return;
        }
        let mut told = Vec::with_capacity(ops.len());
        let result = self.transact(true, &mut |tx| {
            for op in ops.by_ref() {
                told.push(op(tx)?);
            }
            Ok(())
        });
        let (after, result) = match result {
            Ok(after) => (after, Ok(())),
            Err(error) => (After::default(), Err(error)),
        };
        self.act(after);
        for told in told {
            told(result.clone());
        }
    }

    /// Commits groups for as long as the engine is there.
    pub(crate) async fn run_groups(engine: Weak<Engine>, ready: Arc<Notify>) {
        loop {
            ready.notified().await;
            // Whoever else is ready now joins the same commit.
            tokio::task::yield_now().await;
            let Some(engine) = engine.upgrade() else { return };
            blocking(|| engine.commit_group());
        }
    }

    pub(crate) fn group_ready(&self) -> &Arc<Notify> {
        &self.group_ready
    }

    pub(crate) fn set_wake(&self, at: Option<Timestamp>) {
        self.wakes_at.store(at.map_or(u64::MAX, Timestamp::as_millis), Ordering::SeqCst);
    }

    /// Tells the handler of a job, if one of this program has it; `end` takes the job from it.
    pub(crate) fn tell_handler(&self, id: &JobId, stop: Stop, end: bool) {
        let workers: Vec<Arc<WorkerShared>> = {
            let mut workers = self.workers.lock();
            workers.retain(|worker| worker.strong_count() > 0);
            workers.iter().filter_map(Weak::upgrade).collect()
        };
        let found = |running: &Arc<Running>| running.id == *id;
        for running in workers.iter().flat_map(|worker| worker.running()).filter(found) {
            running.tell(stop);
            if end {
                running.end();
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The tasks behind see that nobody is there any more.
        self.tick.notify_one();
        self.group_ready.notify_one();
    }
}

/// Runs something that waits for a disk, where possible without holding up other tasks.
fn blocking<R>(work: impl FnOnce() -> R) -> R {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
