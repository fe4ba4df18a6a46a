//! A store that fails on purpose, to test what is above it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{JobStore, OutboxKey, OutboxRow, Page, Query, StoreTx, Work};
use crate::document::Job;
use crate::error::StoreError;
use crate::id::JobId;
use crate::time::Timestamp;

/// Another store whose n-th write fails. Each row that is written counts, and so does each commit.
/// Reads go through.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl<S: JobStore> FaultyStore<S> {
    /// A store that works until its [`Faults`] say otherwise.
    pub fn new(inner: S) -> (Self, Faults) {
        let faults = Faults::default();
        (Self { inner, faults: faults.clone() }, faults)
    }
}

/// What is wrong with a [`FaultyStore`]. Clones steer the same store.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Plan>);

#[derive(Debug, Default)]
struct Plan {
    writes: AtomicU64,
    /// Zero: nothing fails.
    fail_at: AtomicU64,
    stays_broken: AtomicBool,
}

impl Faults {
    /// Lets the n-th write from now fail, counted from 1, once.
    pub fn fail_at(&self, n: u64) {
        self.plan(n, false);
    }

    /// Lets the n-th write from now fail, counted from 1, and all after it.
    pub fn fail_from(&self, n: u64) {
        self.plan(n, true);
    }

    /// Lets nothing fail any more.
    pub fn heal(&self) {
        self.0.fail_at.store(0, Ordering::SeqCst);
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::SeqCst)
    }

    fn plan(&self, n: u64, stays_broken: bool) {
        self.0.stays_broken.store(stays_broken, Ordering::SeqCst);
        self.0.fail_at.store(self.writes() + n.max(1), Ordering::SeqCst);
    }

    fn write(&self) -> Result<(), StoreError> {
        let n = self.0.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let fail_at = self.0.fail_at.load(Ordering::SeqCst);
        let broken = self.0.stays_broken.load(Ordering::SeqCst) && n > fail_at;
        if fail_at != 0 && (n == fail_at || broken) {
            return Err(StoreError::Failed(format!("write {n} fails on purpose")));
        }
        Ok(())
    }
}

impl<S: JobStore> JobStore for FaultyStore<S> {
    fn write(&self, _: bool, work: &mut Work<'_>) -> Result<(), StoreError> {
        self.inner.write(true, &mut |inner| {
            work(&mut FaultyTx { inner, faults: &self.faults })?;
            self.faults.write()
        })
    }

    fn get(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.inner.get(id)
    }

    fn list(&self, query: &Query, after: Option<&JobId>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(query, after, limit)
    }

    fn unfinished(&self) -> Result<u64, StoreError> {
        self.inner.unfinished()
    }

    fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.inner.due(now, limit)
    }

    fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.next_due()
    }

    fn outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.inner.outbox(now, limit)
    }

    fn next_outbox(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.next_outbox()
    }

    fn shares_commits(&self) -> bool {
        self.inner.shares_commits()
    }
}

struct FaultyTx<'a> {
    inner: &'a mut dyn StoreTx,
    faults: &'a Faults,
}

impl StoreTx for FaultyTx<'_> {
    fn unfinished(&mut self) -> Result<u64, StoreError> {
        self.inner.unfinished()
    }

    fn get(&mut self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.inner.get(id)
    }

    fn job_of_key(&mut self, key: &str) -> Result<Option<JobId>, StoreError> {
        self.inner.job_of_key(key)
    }

    fn insert(&mut self, job: Box<Job>) -> Result<Option<Box<Job>>, StoreError> {
        self.faults.write()?;
        self.inner.insert(job)
    }

    fn update(
        &mut self,
        id: &JobId,
        change: &mut dyn FnMut(&mut Job) -> bool,
    ) -> Result<bool, StoreError> {
        self.faults.write()?;
        self.inner.update(id, change)
    }

    fn remove(&mut self, id: &JobId) -> Result<bool, StoreError> {
        self.faults.write()?;
        self.inner.remove(id)
    }

    fn push_outbox(&mut self, row: &OutboxRow) -> Result<(), StoreError> {
        self.faults.write()?;
        self.inner.push_outbox(row)
    }

    fn remove_outbox(&mut self, key: &OutboxKey) -> Result<(), StoreError> {
        self.faults.write()?;
        self.inner.remove_outbox(key)
    }

    #[cfg(feature = "redb")]
    fn redb(&self) -> Option<&::redb::WriteTransaction> {
        self.inner.redb()
    }
}
