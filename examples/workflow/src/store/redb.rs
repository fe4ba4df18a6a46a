//! The store that stays: one file, one transaction per commit.

use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition, TableError};

use super::{Batch, Change, Store, StoreError, Table};

/// A store in a file. A commit that has answered `Ok` is on the disk.
#[derive(Debug)]
pub struct RedbStore {
    database: Database,
}

impl RedbStore {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if the file is open elsewhere, otherwise [`StoreError::Failed`],
    /// also if
    /// it is no store; nothing in it is touched then.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
            other => failed(other),
        })?;
        Ok(Self { database })
    }
}

impl Store for RedbStore {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = match transaction.open_table(definition(table)) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let row = table.get(key).map_err(failed)?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = match transaction.open_table(definition(table)) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for row in table.range(prefix.max(from)..).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            if !key.value().starts_with(prefix) || !visit(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(failed)?;
        // A table can be open once in a transaction: go through the changes table by table. Within
        // a table their order is kept, and nothing depends on the order between tables.
        let mut changes = batch.into_changes();
        changes.sort_by_key(|change| match change {
            Change::Put { table, .. } | Change::Delete { table, .. } => *table,
        });
        let mut changes = changes.into_iter().peekable();
        while let Some(Change::Put { table, .. } | Change::Delete { table, .. }) = changes.peek() {
            let current = *table;
            let mut rows = transaction.open_table(definition(current)).map_err(failed)?;
            while let Some(change) = changes.next_if(|change| match change {
                Change::Put { table, .. } | Change::Delete { table, .. } => *table == current,
            }) {
                match change {
                    Change::Put { key, value, .. } => {
                        rows.insert(key.as_slice(), value.as_slice()).map_err(failed)?;
                    }
                    Change::Delete { key, .. } => {
                        rows.remove(key.as_slice()).map_err(failed)?;
                    }
                }
            }
        }
        transaction.commit().map_err(failed)
    }

    fn is_durable(&self) -> bool {
        true
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}
