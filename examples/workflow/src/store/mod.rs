//! Where the journal is kept: one trait, two stores, one conformance suite.
//!
//! A store keeps rows of bytes in a few tables and commits changes all or none. It knows nothing of
//! flows; what the rows mean is in `engine/journal.rs`.

mod batch;
pub mod conformance;
mod memory;
#[cfg(feature = "redb")]
mod redb;

use std::fmt;

pub use batch::{Batch, Change};
pub use memory::MemoryStore;
#[cfg(feature = "redb")]
pub use redb::RedbStore;

/// Where rows are kept.
///
/// Every method may be called from any thread. A commit is atomic: after a crash either all of its
/// changes are there or none, and once it has answered `Ok` they stay. A row that was committed is
/// seen by every later read.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// One row.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the rows whose keys start with `prefix` and are not before `from`, in the order of
    /// their keys, until `visit` answers `false`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;

    /// Writes all changes or none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails; whether the changes are there is then only known after it
    /// was opened again.
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Whether a commit waits for a disk.
    fn is_durable(&self) -> bool;
}

/// The tables of a store.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The format, the key of the tokens, numbers of the engine.
    Meta,
    /// Flow name → what the flow is now.
    Flow,
    /// Digest of a definition → its text.
    Definition,
    /// Number of an execution → what is known about it besides its events.
    Execution,
    /// Flow and execution name → number of the execution.
    Name,
    /// Number of an execution that is not settled → nothing.
    Open,
    /// Number of an execution and first event id → events of one transition.
    Event,
    /// Number of an execution → its state after some event.
    Snapshot,
    /// Number of an execution and task → when its last heartbeat was.
    Heartbeat,
    /// End and number of an execution → nothing.
    Ended,
}

impl Table {
    /// All tables.
    pub const ALL: [Table; 10] = [
        Table::Meta,
        Table::Flow,
        Table::Definition,
        Table::Execution,
        Table::Name,
        Table::Open,
        Table::Event,
        Table::Snapshot,
        Table::Heartbeat,
        Table::Ended,
    ];

    /// The name of the table in a file.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Flow => "flow",
            Table::Definition => "definition",
            Table::Execution => "execution",
            Table::Name => "name",
            Table::Open => "open",
            Table::Event => "event",
            Table::Snapshot => "snapshot",
            Table::Heartbeat => "heartbeat",
            Table::Ended => "ended",
        }
    }
}

/// Why a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was written by another version; nothing in it was touched.
    #[error("the store has format {found}, this version reads format {expected}")]
    UnknownFormat {
        /// What the store says.
        found: String,
        /// What this version reads.
        expected: &'static str,
    },
    /// A row that belongs to no single execution cannot be read; nothing was touched.
    #[error("the row {key} of table {table} cannot be read: {why}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The key, as text.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file is in use by another process or engine.
    #[error("the store is in use by somebody else")]
    InUse,
    /// The store below failed.
    #[error("the store failed: {0}")]
    Failed(String),
}
