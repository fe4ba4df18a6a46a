//! Changes that are committed together.

use super::Table;

/// Changes that are committed together, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes a row, replacing what was there.
    Put {
        /// The table.
        table: Table,
        /// The key.
        key: Vec<u8>,
        /// The row.
        value: Vec<u8>,
    },
    /// Removes a row, if it is there.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: Vec<u8>,
    },
}

impl Batch {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change::Put { table, key: key.into(), value: value.into() });
    }

    /// Removes a row.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.changes.push(Change::Delete { table, key: key.into() });
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}
