//! Where documents are kept: one trait, and the stores behind it (2.6).
//!
//! A store knows documents, an index of keys, an index of due instants and an outbox. It knows no
//! rule of the state machine and no clock.

mod faulty;
mod memory;
#[cfg(feature = "redb")]
mod redb;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use faulty::{Faults, FaultyStore};
pub use memory::MemoryStore;
#[cfg(feature = "redb")]
pub use redb::RedbStore;

use crate::document::{Job, Status};
use crate::error::StoreError;
use crate::id::JobId;
use crate::time::Timestamp;

/// A place for jobs. Reads see what was committed; writes are transactions, one at a time.
pub trait JobStore: std::fmt::Debug + Send + Sync + 'static {
    /// Runs `work` in one transaction: all of it is kept if `work` answers `Ok` and the commit
    /// succeeds, and nothing otherwise.
    ///
    /// `undo` says that `work` may fail after it has written; a store that changes things in
    /// place then remembers how to take them back.
    ///
    /// # Errors
    ///
    /// What `work` answers, and failures of the store.
    fn write(&self, undo: bool, work: &mut Work<'_>) -> Result<(), StoreError>;

    /// The document of a job.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn get(&self, id: &JobId) -> Result<Option<Job>, StoreError>;

    /// The jobs that fit, in the order of their ids.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn list(&self, query: &Query, after: Option<&JobId>, limit: usize) -> Result<Page, StoreError>;

    /// How many jobs are not in a final state.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn unfinished(&self) -> Result<u64, StoreError>;

    /// Jobs whose due instant has come, earliest first.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError>;

    /// The earliest due instant, or one before it.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Rows of the outbox whose time has come, earliest first.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<OutboxRow>, StoreError>;

    /// When the next row of the outbox is due.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn next_outbox(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Whether a commit is so dear that transitions should wait to share one.
    fn shares_commits(&self) -> bool;

    /// Whether everything in it ends with the program, and writes never fail. Rows of the outbox
    /// that would be removed in the next instant are not written then. Default: no.
    fn is_volatile(&self) -> bool {
        false
    }
}

/// What is done in a transaction.
pub type Work<'a> = dyn FnMut(&mut dyn StoreTx) -> Result<(), StoreError> + 'a;

/// A transaction of a [`JobStore`].
pub trait StoreTx {
    /// How many jobs are not in a final state, as this transaction has left them.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn unfinished(&mut self) -> Result<u64, StoreError>;

    /// The document of a job, as this transaction has left it.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn get(&mut self, id: &JobId) -> Result<Option<Job>, StoreError>;

    /// Which job was submitted under an idempotency key.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn job_of_key(&mut self, key: &str) -> Result<Option<JobId>, StoreError>;

    /// Adds a document, with its key; gives it back, and changes nothing, if its id is taken.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn insert(&mut self, job: Box<Job>) -> Result<Option<Box<Job>>, StoreError>;

    /// Changes a document in place and files it anew; answers whether there is one. `change`
    /// answers whether it changed anything, and must not touch id, key or creation.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn update(
        &mut self,
        id: &JobId,
        change: &mut dyn FnMut(&mut Job) -> bool,
    ) -> Result<bool, StoreError>;

    /// Removes a document with its key; answers whether there was one.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn remove(&mut self, id: &JobId) -> Result<bool, StoreError>;

    /// Adds a row to the outbox; adding it twice is the same as once.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn push_outbox(&mut self, row: &OutboxRow) -> Result<(), StoreError>;

    /// Removes a row of the outbox, if it is there.
    ///
    /// # Errors
    ///
    /// Failures of the store.
    fn remove_outbox(&mut self, row: &OutboxKey) -> Result<(), StoreError>;

    /// The transaction of `redb` below, for rows of your own in the same commit.
    #[cfg(feature = "redb")]
    fn redb(&self) -> Option<&::redb::WriteTransaction> {
        None
    }
}

/// A message that a transition causes, kept until it is published (J-35).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// When to publish it, and its place among the rows.
    pub key: OutboxKey,
    /// What to publish; `None`: the job's own message, made from its document.
    pub message: Option<OutboxMessage>,
}

/// The place of a row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutboxKey {
    /// When it is due.
    pub at: Timestamp,
    /// The job it is about.
    pub id: JobId,
    /// 0 for the job's own message; otherwise the document's version, so that it is unique.
    pub number: u64,
}

/// A message as it is kept in the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxMessage {
    /// The topic's name.
    pub topic: String,
    /// The attributes.
    pub attributes: BTreeMap<String, String>,
    /// The payload.
    pub data: String,
}

/// Which jobs to list; what is not set fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// In this state.
    pub status: Option<Status>,
    /// Of this kind.
    pub kind: Option<String>,
    /// With this label.
    pub label: Option<(String, String)>,
}

impl Query {
    /// All jobs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Jobs in a state.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Jobs of a kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Jobs with a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.label = Some((key.into(), value.into()));
        self
    }

    /// Whether a job fits.
    pub fn fits(&self, job: &Job) -> bool {
        let label = |(key, value): &(String, String)| job.labels().any(|pair| pair == (key, value));
        self.status.is_none_or(|status| status == job.status)
            && self.kind.as_deref().is_none_or(|kind| kind == &*job.kind)
            && self.label.as_ref().is_none_or(label)
    }
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where to go on, if there may be more.
    pub next: Option<JobId>,
}
