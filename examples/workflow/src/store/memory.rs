//! The store that forgets: ordered maps in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Batch, Change, Store, StoreError, Table};

/// A store in memory. Clones are the same store, so it survives an engine that is dropped.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    tables: Arc<RwLock<BTreeMap<Table, Rows>>>,
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every row, table by table, in the order of keys: to compare stores as a whole.
    pub fn dump(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let rows = |(table, rows): (&Table, &Rows)| {
            let table = *table;
            let row = move |(key, value): (&Vec<u8>, &Vec<u8>)| (table, key.clone(), value.clone());
            rows.iter().map(row).collect::<Vec<_>>()
        };
        tables.iter().flat_map(rows).collect()
    }
}

impl Store for MemoryStore {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Ok(tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rows) = tables.get(&table) else { return Ok(()) };
        let start = prefix.max(from).to_vec();
        for (key, value) in rows.range(start..) {
            if !key.starts_with(prefix) || !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for change in batch.into_changes() {
            match change {
                Change::Put { table, key, value } => {
                    tables.entry(table).or_default().insert(key, value);
                }
                Change::Delete { table, key } => {
                    if let Some(rows) = tables.get_mut(&table) {
                        rows.remove(&key);
                    }
                }
            }
        }
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}
