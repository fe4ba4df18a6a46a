//! Documents in one file, kept by `redb`: every commit is on disk when it returns.
//!
//! Unfinished and finished documents are in tables of their own, so that opening a store looks at
//! the unfinished ones alone. Documents are JSON, to be read without this program.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use ::redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    Table, TableDefinition, WriteTransaction,
};

use super::{JobStore, OutboxKey, OutboxMessage, OutboxRow, Page, Query, StoreTx, Work};
use crate::document::{Job, Status};
use crate::error::StoreError;
use crate::id::JobId;
use crate::time::Timestamp;

const UNFINISHED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs_unfinished");
const FINISHED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs_finished");
const DUE: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("job_due");
const KEYS: TableDefinition<'_, &str, &str> = TableDefinition::new("job_key");
const OUTBOX: TableDefinition<'_, (u64, &str, u64), &[u8]> = TableDefinition::new("job_outbox");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("job_meta");

/// The format that this version writes, and the newest that it reads.
const FORMAT: u64 = 1;

/// A durable store in one file. One program can have it open at a time.
#[derive(Clone, Debug)]
pub struct RedbStore {
    database: Arc<Database>,
    durability: Durability,
}

impl RedbStore {
    /// Opens the store in a file, which is made if it does not exist.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if it is open already, here or in another program;
    /// [`StoreError::Format`] for a file that is something else, or newer.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let shown = || path.display().to_string();
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                StoreError::InUse { path: shown() }
            }
            error => StoreError::Format { path: shown(), problem: error.to_string() },
        })?;
        Self::with_database(Arc::new(database)).map_err(|error| match error {
            StoreError::Format { problem, .. } => StoreError::Format { path: shown(), problem },
            error => error,
        })
    }

    /// A store in tables of a database of yours; their names begin with `job`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Format`] if the tables are of a newer format.
    pub fn with_database(database: Arc<Database>) -> Result<Self, StoreError> {
        let txn = database.begin_write().map_err(failed)?;
        {
            let mut meta = txn.open_table(META).map_err(format_error)?;
            let format = meta.get("format").map_err(failed)?.map(|format| format.value());
            match format {
                None => drop(meta.insert("format", FORMAT).map_err(failed)?),
                Some(FORMAT) => {}
                Some(other) => {
                    let problem =
                        format!("format {other} is not known; this version reads {FORMAT}");
                    return Err(StoreError::Format { path: "the store".to_owned(), problem });
                }
            }
            RedbTx::open(&txn)?;
        }
        txn.commit().map_err(failed)?;
        Ok(Self { database, durability: Durability::Immediate })
    }

    /// Lets commits return before they are on disk: the last ones may be lost when the program
    /// ends, though never in part.
    #[must_use]
    pub fn eventual(mut self) -> Self {
        self.durability = Durability::None;
        self
    }
}

impl JobStore for RedbStore {
    fn write(&self, _: bool, work: &mut Work<'_>) -> Result<(), StoreError> {
        let mut txn = self.database.begin_write().map_err(failed)?;
        txn.set_durability(self.durability).map_err(failed)?;
        // An error drops the transaction, which takes everything back.
        work(&mut RedbTx::open(&txn)?)?;
        txn.commit().map_err(failed)
    }

    fn get(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        let txn = self.database.begin_read().map_err(failed)?;
        for table in [UNFINISHED, FINISHED] {
            let table = txn.open_table(table).map_err(failed)?;
            let found = id.with_str(|id| table.get(id).map_err(failed))?;
            if let Some(bytes) = found {
                return decode(id, bytes.value()).map(Some);
            }
        }
        Ok(None)
    }

    fn list(&self, query: &Query, after: Option<&JobId>, limit: usize) -> Result<Page, StoreError> {
        let txn = self.database.begin_read().map_err(failed)?;
        let after = after.map(JobId::to_string);
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = (start, Bound::Unbounded);
        let (finished, unfinished) = match query.status {
            Some(status) => (status.is_final(), !status.is_final()),
            None => (true, true),
        };
        let mut jobs: Vec<Job> = Vec::new();
        // One more than is asked for says whether there is more.
        for (table, wanted) in [(UNFINISHED, unfinished), (FINISHED, finished)] {
            if !wanted {
                continue;
            }
            let table = txn.open_table(table).map_err(failed)?;
            let mut found = 0;
            for row in table.range::<&str>(range).map_err(failed)? {
                let (id, bytes) = row.map_err(failed)?;
                let job = decode(&id.value(), bytes.value())?;
                if query.fits(&job) {
                    jobs.push(job);
                    found += 1;
                }
                if found > limit {
                    break;
                }
            }
        }
        jobs.sort_unstable_by(|one, two| one.id.cmp(&two.id));
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        let next = jobs.last().filter(|_| more).map(|job| job.id.clone());
        Ok(Page { jobs, next })
    }

    fn unfinished(&self) -> Result<u64, StoreError> {
        let txn = self.database.begin_read().map_err(failed)?;
        txn.open_table(UNFINISHED).map_err(failed)?.len().map_err(failed)
    }

    fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let txn = self.database.begin_read().map_err(failed)?;
        let table = txn.open_table(DUE).map_err(failed)?;
        let end = (now.as_millis() + 1, "");
        let mut found = Vec::new();
        for row in table.range(..end).map_err(failed)?.take(limit) {
            let (key, ()) = row.map(|(key, value)| (key, value.value())).map_err(failed)?;
            found.push(parse_id(key.value().1)?);
        }
        Ok(found)
    }

    fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let txn = self.database.begin_read().map_err(failed)?;
        let table = txn.open_table(DUE).map_err(failed)?;
        let first = table.first().map_err(failed)?;
        Ok(first.map(|(key, _)| Timestamp::from_millis(key.value().0)))
    }

    fn outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let txn = self.database.begin_read().map_err(failed)?;
        let table = txn.open_table(OUTBOX).map_err(failed)?;
        let end = (now.as_millis() + 1, "", 0);
        let mut found = Vec::new();
        for row in table.range(..end).map_err(failed)?.take(limit) {
            let (key, message) = row.map_err(failed)?;
            let (at, id, number) = key.value();
            let key = OutboxKey { at: Timestamp::from_millis(at), id: parse_id(id)?, number };
            let message: Option<OutboxMessage> =
                serde_json::from_slice(message.value()).map_err(|error| corrupt(id, &error))?;
            found.push(OutboxRow { key, message });
        }
        Ok(found)
    }

    fn next_outbox(&self) -> Result<Option<Timestamp>, StoreError> {
        let txn = self.database.begin_read().map_err(failed)?;
        let table = txn.open_table(OUTBOX).map_err(failed)?;
        let first = table.first().map_err(failed)?;
        Ok(first.map(|(key, _)| Timestamp::from_millis(key.value().0)))
    }

    fn shares_commits(&self) -> bool {
        true
    }
}

struct RedbTx<'txn> {
    txn: &'txn WriteTransaction,
    unfinished: Table<'txn, &'static str, &'static [u8]>,
    finished: Table<'txn, &'static str, &'static [u8]>,
    due: Table<'txn, (u64, &'static str), ()>,
    keys: Table<'txn, &'static str, &'static str>,
    outbox: Table<'txn, (u64, &'static str, u64), &'static [u8]>,
}

impl<'txn> RedbTx<'txn> {
    fn open(txn: &'txn WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            txn,
            unfinished: txn.open_table(UNFINISHED).map_err(format_error)?,
            finished: txn.open_table(FINISHED).map_err(format_error)?,
            due: txn.open_table(DUE).map_err(format_error)?,
            keys: txn.open_table(KEYS).map_err(format_error)?,
            outbox: txn.open_table(OUTBOX).map_err(format_error)?,
        })
    }

    fn table(&mut self, status: Status) -> &mut Table<'txn, &'static str, &'static [u8]> {
        if status.is_final() { &mut self.finished } else { &mut self.unfinished }
    }

    fn read(&self, id: &str) -> Result<Option<Job>, StoreError> {
        for table in [&self.unfinished, &self.finished] {
            if let Some(bytes) = table.get(id).map_err(failed)? {
                return decode(&id, bytes.value()).map(Some);
            }
        }
        Ok(None)
    }

    fn put(&mut self, id: &str, job: &Job) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(job).map_err(|error| corrupt(id, &error))?;
        self.table(job.status).insert(id, bytes.as_slice()).map_err(failed)?;
        Ok(())
    }
}

impl StoreTx for RedbTx<'_> {
    fn unfinished(&mut self) -> Result<u64, StoreError> {
        self.unfinished.len().map_err(failed)
    }

    fn get(&mut self, id: &JobId) -> Result<Option<Job>, StoreError> {
        id.with_str(|id| self.read(id))
    }

    fn job_of_key(&mut self, key: &str) -> Result<Option<JobId>, StoreError> {
        let id = self.keys.get(key).map_err(failed)?;
        id.map(|id| parse_id(id.value())).transpose()
    }

    fn insert(&mut self, job: Box<Job>) -> Result<Option<Box<Job>>, StoreError> {
        let taken = job.id.with_str(|id| {
            let taken = |table: &Table<'_, &'static str, &'static [u8]>| {
                table.get(id).map(|found| found.is_some()).map_err(failed)
            };
            if taken(&self.unfinished)? || taken(&self.finished)? {
                return Ok(true);
            }
            self.put(id, &job)?;
            if let Some(at) = job.due() {
                self.due.insert((at.as_millis(), id), ()).map_err(failed)?;
            }
            if let Some(key) = job.idempotency_key() {
                self.keys.insert(key, id).map_err(failed)?;
            }
            Ok(false)
        })?;
        Ok(taken.then_some(job))
    }

    fn update(
        &mut self,
        id: &JobId,
        change: &mut dyn FnMut(&mut Job) -> bool,
    ) -> Result<bool, StoreError> {
        id.with_str(|id| {
            let Some(mut job) = self.read(id)? else { return Ok(false) };
            let (was, was_due) = (job.status, job.due());
            if !change(&mut job) {
                return Ok(true);
            }
            if was.is_final() != job.status.is_final() {
                self.table(was).remove(id).map_err(failed)?;
            }
            self.put(id, &job)?;
            let due = job.due();
            if due != was_due {
                if let Some(at) = was_due {
                    self.due.remove((at.as_millis(), id)).map_err(failed)?;
                }
                if let Some(at) = due {
                    self.due.insert((at.as_millis(), id), ()).map_err(failed)?;
                }
            }
            Ok(true)
        })
    }

    fn remove(&mut self, id: &JobId) -> Result<bool, StoreError> {
        id.with_str(|id| {
            let Some(job) = self.read(id)? else { return Ok(false) };
            self.table(job.status).remove(id).map_err(failed)?;
            if let Some(at) = job.due() {
                self.due.remove((at.as_millis(), id)).map_err(failed)?;
            }
            if let Some(key) = job.idempotency_key() {
                self.keys.remove(key).map_err(failed)?;
            }
            Ok(true)
        })
    }

    fn push_outbox(&mut self, row: &OutboxRow) -> Result<(), StoreError> {
        let OutboxKey { at, id, number } = &row.key;
        id.with_str(|id| {
            let bytes = serde_json::to_vec(&row.message).map_err(|error| corrupt(id, &error))?;
            let key = (at.as_millis(), id, *number);
            self.outbox.insert(key, bytes.as_slice()).map_err(failed)?;
            Ok(())
        })
    }

    fn remove_outbox(&mut self, key: &OutboxKey) -> Result<(), StoreError> {
        key.id.with_str(|id| {
            self.outbox.remove((key.at.as_millis(), id, key.number)).map_err(failed)?;
            Ok(())
        })
    }

    fn redb(&self) -> Option<&WriteTransaction> {
        Some(self.txn)
    }
}

fn decode(id: &impl ToString, bytes: &[u8]) -> Result<Job, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| corrupt(&id.to_string(), &error))
}

fn parse_id(text: &str) -> Result<JobId, StoreError> {
    text.parse().map_err(|error| corrupt(text, &error))
}

fn corrupt(id: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt { id: id.to_owned(), problem: error.to_string() }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// Tables of our names with other types are somebody else's.
fn format_error(error: ::redb::TableError) -> StoreError {
    match error {
        ::redb::TableError::Storage(error) => failed(error),
        error => StoreError::Format { path: "the store".to_owned(), problem: error.to_string() },
    }
}
