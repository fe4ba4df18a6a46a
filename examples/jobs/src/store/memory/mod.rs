//! Documents in memory: gone when the program ends.

mod documents;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use documents::Documents;
use parking_lot::Mutex;

use super::{JobStore, OutboxKey, OutboxMessage, OutboxRow, Page, Query, StoreTx, Work};
use crate::document::Job;
use crate::error::StoreError;
use crate::id::JobId;
use crate::time::Timestamp;

/// A store in memory. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    jobs: Documents,
    keys: HashMap<Arc<str>, JobId>,
    /// May hold more than is due: an entry counts if its document says the same instant.
    due: BTreeMap<Timestamp, Vec<JobId>>,
    own_messages: BTreeSet<(Timestamp, JobId)>,
    messages: BTreeMap<OutboxKey, OutboxMessage>,
    unfinished: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl JobStore for MemoryStore {
    fn write(&self, undo: bool, work: &mut Work<'_>) -> Result<(), StoreError> {
        let mut tables = self.0.lock();
        let undo = undo.then(Vec::new);
        let mut tx = MemoryTx { tables: &mut tables, undo };
        let result = work(&mut tx);
        if result.is_err() {
            tx.roll_back();
        }
        result
    }

    fn get(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.0.lock().jobs.get(id).cloned())
    }

    fn list(&self, query: &Query, after: Option<&JobId>, limit: usize) -> Result<Page, StoreError> {
        let tables = self.0.lock();
        let mut found = tables.jobs.after(after).filter(|job| query.fits(job));
        let jobs: Vec<Job> = found.by_ref().take(limit).cloned().collect();
        let more = found.next().is_some();
        let next = jobs.last().filter(|_| more).map(|job| job.id.clone());
        Ok(Page { jobs, next })
    }

    fn unfinished(&self) -> Result<u64, StoreError> {
        Ok(self.0.lock().unfinished)
    }

    fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let mut tables = self.0.lock();
        let Tables { jobs, due, .. } = &mut *tables;
        let mut found: Vec<(Timestamp, JobId)> = Vec::new();
        while found.len() < limit
            && let Some(mut bucket) = due.first_entry()
            && *bucket.key() <= now
        {
            let at = *bucket.key();
            match bucket.get_mut().pop() {
                Some(id) if jobs.get(&id).is_some_and(|job| job.due() == Some(at)) => {
                    // It may be filed twice, after a change was taken back.
                    if !found.contains(&(at, id.clone())) {
                        found.push((at, id));
                    }
                }
                Some(_) => {}
                None => drop(bucket.remove()),
            }
        }
        // They stay due until their documents say otherwise.
        for (at, id) in &found {
            due.entry(*at).or_default().push(id.clone());
        }
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.0.lock().due.first_key_value().map(|(at, _)| *at))
    }

    fn outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let tables = self.0.lock();
        let own = tables.own_messages.iter().take_while(|(at, _)| *at <= now);
        let own = own.map(|(at, id)| OutboxRow {
            key: OutboxKey { at: *at, id: id.clone(), number: 0 },
            message: None,
        });
        let others = tables.messages.iter().take_while(|(key, _)| key.at <= now);
        let others = others
            .map(|(key, message)| OutboxRow { key: key.clone(), message: Some(message.clone()) });
        Ok(own.take(limit).chain(others.take(limit)).take(limit).collect())
    }

    fn next_outbox(&self) -> Result<Option<Timestamp>, StoreError> {
        let tables = self.0.lock();
        let own = tables.own_messages.first().map(|(at, _)| *at);
        let other = tables.messages.first_key_value().map(|(key, _)| key.at);
        Ok(own.into_iter().chain(other).min())
    }

    fn shares_commits(&self) -> bool {
        false
    }

    fn is_volatile(&self) -> bool {
        true
    }
}

struct MemoryTx<'a> {
    tables: &'a mut Tables,
    undo: Option<Vec<Undo>>,
}

/// How to take back a change.
enum Undo {
    Put(JobId, Option<Box<Job>>),
    AddOutbox(OutboxRow),
    RemoveOutbox(OutboxKey),
}

impl MemoryTx<'_> {
    fn roll_back(&mut self) {
        for undo in self.undo.take().into_iter().flatten().rev() {
            match undo {
                Undo::Put(id, before) => {
                    self.tables.remove(&id);
                    // Its place is free as of now.
                    before.map(|before| self.tables.insert(before));
                }
                Undo::AddOutbox(row) => self.tables.push_outbox(&row),
                Undo::RemoveOutbox(key) => drop(self.tables.remove_outbox(&key)),
            }
        }
    }

    fn remember(&mut self, undo: impl FnOnce() -> Undo) {
        if let Some(log) = &mut self.undo {
            log.push(undo());
        }
    }
}

impl StoreTx for MemoryTx<'_> {
    fn unfinished(&mut self) -> Result<u64, StoreError> {
        Ok(self.tables.unfinished)
    }

    fn get(&mut self, id: &JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.tables.jobs.get(id).cloned())
    }

    fn job_of_key(&mut self, key: &str) -> Result<Option<JobId>, StoreError> {
        Ok(self.tables.keys.get(key).cloned())
    }

    fn insert(&mut self, job: Box<Job>) -> Result<Option<Box<Job>>, StoreError> {
        let id = self.undo.is_some().then(|| job.id.clone());
        if let Err(refused) = self.tables.insert(job) {
            return Ok(Some(refused));
        }
        if let Some(id) = id {
            self.remember(|| Undo::Put(id, None));
        }
        Ok(None)
    }

    fn update(
        &mut self,
        id: &JobId,
        change: &mut dyn FnMut(&mut Job) -> bool,
    ) -> Result<bool, StoreError> {
        let Some(job) = self.tables.jobs.get_mut(id) else { return Ok(false) };
        let before = self.undo.is_some().then(|| Box::new(job.clone()));
        let (was_due, was_final) = (job.due(), job.status.is_final());
        if !change(job) {
            return Ok(true);
        }
        let (due, is_final) = (job.due(), job.status.is_final());
        if due != was_due
            && let Some(at) = due
        {
            self.tables.due.entry(at).or_default().push(id.clone());
        }
        match (was_final, is_final) {
            (false, true) => self.tables.unfinished -= 1,
            (true, false) => self.tables.unfinished += 1,
            _ => {}
        }
        if before.is_some() {
            self.remember(|| Undo::Put(id.clone(), before));
        }
        Ok(true)
    }

    fn remove(&mut self, id: &JobId) -> Result<bool, StoreError> {
        let removed = self.tables.remove(id);
        let found = removed.is_some();
        if found {
            self.remember(|| Undo::Put(id.clone(), removed));
        }
        Ok(found)
    }

    fn push_outbox(&mut self, row: &OutboxRow) -> Result<(), StoreError> {
        self.remember(|| Undo::RemoveOutbox(row.key.clone()));
        self.tables.push_outbox(row);
        Ok(())
    }

    fn remove_outbox(&mut self, key: &OutboxKey) -> Result<(), StoreError> {
        if let Some(row) = self.tables.remove_outbox(key) {
            self.remember(|| Undo::AddOutbox(row));
        }
        Ok(())
    }
}

impl Tables {
    fn insert(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        let key = job.extra.as_ref().and_then(|extra| extra.idempotency_key.clone());
        let key = key.map(|key| (key, job.id.clone()));
        let due = job.due().map(|at| (at, job.id.clone()));
        let is_final = job.status.is_final();
        self.jobs.insert(job)?;
        self.keys.extend(key);
        if let Some((at, id)) = due {
            self.due.entry(at).or_default().push(id);
        }
        self.unfinished += u64::from(!is_final);
        Ok(())
    }

    fn remove(&mut self, id: &JobId) -> Option<Box<Job>> {
        let job = self.jobs.remove(id)?;
        if let Some(key) = job.idempotency_key() {
            self.keys.remove(key);
        }
        self.unfinished -= u64::from(!job.status.is_final());
        Some(job)
    }

    fn push_outbox(&mut self, row: &OutboxRow) {
        match &row.message {
            None => {
                self.own_messages.insert((row.key.at, row.key.id.clone()));
            }
            Some(message) => {
                self.messages.insert(row.key.clone(), message.clone());
            }
        }
    }

    fn remove_outbox(&mut self, key: &OutboxKey) -> Option<OutboxRow> {
        let message = match key.number {
            0 => self.own_messages.remove(&(key.at, key.id.clone())).then_some(None)?,
            _ => Some(self.messages.remove(key)?),
        };
        Some(OutboxRow { key: key.clone(), message })
    }
}
