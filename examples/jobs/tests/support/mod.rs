//! What the scenario tests share: a bus in virtual time, and stores to run on.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use jobs::store::JobStore;
use jobs::{Job, JobId, Jobs, JobsBuilder, MemoryStore, NewJob, RedbStore, Status, Timestamp};
use siftbus::{Bus, Clock, ManualClock, Subscription};

/// 2026-01-01T00:00:00Z, where manual clocks begin.
pub const START: u64 = 1_767_225_600_000;

/// Both kinds of store; the durable one in a folder that goes with it.
#[derive(Debug)]
pub enum Place {
    Memory(MemoryStore),
    File(tempfile::TempDir),
}

impl Place {
    pub fn memory() -> Self {
        Place::Memory(MemoryStore::new())
    }

    pub fn file() -> Self {
        Place::File(tempfile::tempdir().unwrap())
    }

    pub fn builder(&self, bus: &Bus) -> JobsBuilder {
        let builder = Jobs::builder(bus.clone());
        match self {
            Place::Memory(store) => builder.store(store.clone()),
            Place::File(folder) => builder.store(Self::open(folder)),
        }
    }

    pub fn store(&self) -> Box<dyn JobStore> {
        match self {
            Place::Memory(store) => Box::new(store.clone()),
            Place::File(folder) => Box::new(Self::open(folder)),
        }
    }

    fn open(folder: &tempfile::TempDir) -> RedbStore {
        RedbStore::open(folder.path().join("jobs.redb")).unwrap()
    }
}

/// A bus whose time stands still, and moves when told.
#[derive(Debug)]
pub struct World {
    pub clock: ManualClock,
    pub bus: Bus,
}

impl World {
    pub fn new() -> Self {
        Self::at(0)
    }

    /// A new bus, `millis` after the start.
    pub fn at(millis: u64) -> Self {
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(START + millis);
        let clock = ManualClock::starting_at(start);
        let bus = Bus::builder().clock(Clock::manual(&clock)).seed(7).build();
        Self { clock, bus }
    }

    /// Milliseconds since the start.
    pub fn millis(&self) -> u64 {
        Timestamp::from(self.bus.now()).as_millis() - START
    }

    /// Moves time, and lets every task come to rest at each instant on the way.
    pub async fn advance(&self, by: Duration) {
        let target = self.clock.now() + by;
        settle().await;
        while let Some(due) = self.clock.next_due().filter(|due| *due <= target) {
            self.clock.advance_to(due.max(self.clock.now()));
            settle().await;
        }
        self.clock.advance_to(target);
        settle().await;
    }

    /// Moves time to so many seconds after the start.
    pub async fn to(&self, seconds: u64) {
        let now = self.millis();
        assert!(now <= seconds * 1_000, "time does not go back");
        self.advance(Duration::from_millis(seconds * 1_000 - now)).await;
    }

    pub async fn workers_queue(&self) -> Subscription {
        self.bus.subscription("jobs-worker").await.unwrap()
    }
}

/// Lets every task of this runtime that can go on do so.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

pub fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_millis(START + seconds * 1_000)
}

/// The body of the seed's request.
pub fn task() -> NewJob {
    let args = serde_json::json!({"path": "gs://manas_input/sample.jpg"});
    NewJob::new("process_task", &args).unwrap()
}

pub fn status(jobs: &Jobs, id: &JobId) -> Status {
    jobs.get(id).unwrap().status
}

/// Attempts as number, worker, outcome.
pub fn attempts(job: &Job) -> Vec<(u32, String, String)> {
    let outcome = |attempt: &jobs::Attempt| match attempt.outcome {
        Some(outcome) => format!("{outcome:?}").to_lowercase(),
        None => "running".to_owned(),
    };
    job.attempts.iter().map(|a| (a.n, a.worker.to_string(), outcome(a))).collect()
}
