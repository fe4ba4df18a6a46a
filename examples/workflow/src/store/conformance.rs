//! What every store has to do, as checks that each of them is put through.
//!
//! A store of your own is one if [`check`] returns; it panics with what is wrong otherwise.

use super::{Batch, Store, StoreError, Table};

/// Puts a store through all checks. `open` opens the same empty store each time it is called; what
/// the one before has committed must be there.
///
/// # Errors
///
/// What the store answers where it must not fail.
///
/// # Panics
///
/// If the store does not do what [`Store`] says.
pub fn check<S: Store>(mut open: impl FnMut() -> S) -> Result<(), StoreError> {
    let store = open();
    nothing_is_there(&store)?;
    rows_are_written_and_removed(&store)?;
    tables_are_apart(&store)?;
    scans_go_in_order(&store)?;
    the_last_change_counts(&store)?;
    large_rows_fit(&store)?;
    drop(store);
    let store = open();
    what_was_committed_stays(&store)
}

fn nothing_is_there(store: &dyn Store) -> Result<(), StoreError> {
    for table in Table::ALL {
        assert_eq!(store.read(table, b"key")?, None, "{table:?} is empty");
        assert!(scan(store, table, b"", b"")?.is_empty(), "{table:?} is empty");
    }
    store.commit(Batch::new())
}

fn rows_are_written_and_removed(store: &dyn Store) -> Result<(), StoreError> {
    for table in Table::ALL {
        let mut batch = Batch::new();
        batch.put(table, b"a", table.name());
        batch.put(table, b"", b"the empty key");
        batch.put(table, b"empty row", b"");
        store.commit(batch)?;
        assert_eq!(store.read(table, b"a")?.as_deref(), Some(table.name().as_bytes()));
        assert_eq!(store.read(table, b"")?.as_deref(), Some(b"the empty key".as_slice()));
        assert_eq!(store.read(table, b"empty row")?.as_deref(), Some(b"".as_slice()));
        let mut batch = Batch::new();
        batch.delete(table, b"a");
        batch.delete(table, b"");
        batch.delete(table, b"empty row");
        batch.delete(table, b"was never there");
        store.commit(batch)?;
        assert!(scan(store, table, b"", b"")?.is_empty(), "{table:?} is empty again");
    }
    Ok(())
}

fn tables_are_apart(store: &dyn Store) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for table in Table::ALL {
        batch.put(table, b"same key", table.name());
    }
    store.commit(batch)?;
    for table in Table::ALL {
        let row = store.read(table, b"same key")?;
        assert_eq!(row.as_deref(), Some(table.name().as_bytes()), "{table:?}");
        let mut batch = Batch::new();
        batch.delete(table, b"same key");
        store.commit(batch)?;
    }
    Ok(())
}

fn scans_go_in_order(store: &dyn Store) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for key in [b"b2".as_slice(), b"a1", b"b1", b"c1", b"b3", b"b"] {
        batch.put(Table::Event, key, key);
    }
    store.commit(batch)?;
    let all = [b"a1".as_slice(), b"b", b"b1", b"b2", b"b3", b"c1"];
    assert_eq!(scan(store, Table::Event, b"", b"")?, all, "keys are ordered as bytes");
    assert_eq!(scan(store, Table::Event, b"b", b"")?, all[1..5], "only keys with the prefix");
    assert_eq!(scan(store, Table::Event, b"b", b"b2")?, all[3..5], "from a key on, including it");
    assert!(scan(store, Table::Event, b"b", b"c1")?.is_empty(), "the prefix still counts");
    let mut first = Vec::new();
    store.scan(Table::Event, b"b", b"", &mut |key, value| {
        assert_eq!(key, value);
        first.push(key.to_vec());
        first.len() < 2
    })?;
    assert_eq!(first, all[1..3], "a scan can be ended");
    let mut batch = Batch::new();
    all.iter().for_each(|key| batch.delete(Table::Event, *key));
    store.commit(batch)
}

fn the_last_change_counts(store: &dyn Store) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(Table::Execution, b"k", b"1");
    batch.put(Table::Open, b"k", b"other table");
    batch.delete(Table::Execution, b"k");
    batch.put(Table::Execution, b"k", b"2");
    batch.delete(Table::Open, b"k");
    store.commit(batch)?;
    assert_eq!(store.read(Table::Execution, b"k")?.as_deref(), Some(b"2".as_slice()));
    assert_eq!(store.read(Table::Open, b"k")?, None, "the order within a table is kept");
    Ok(())
}

fn large_rows_fit(store: &dyn Store) -> Result<(), StoreError> {
    let large = vec![7; LARGE_ROW_BYTES];
    let mut batch = Batch::new();
    batch.put(Table::Snapshot, b"large", large.clone());
    store.commit(batch)?;
    assert_eq!(store.read(Table::Snapshot, b"large")?, Some(large));
    Ok(())
}

fn what_was_committed_stays(store: &dyn Store) -> Result<(), StoreError> {
    assert_eq!(store.read(Table::Execution, b"k")?.as_deref(), Some(b"2".as_slice()));
    let large = store.read(Table::Snapshot, b"large")?;
    assert_eq!(large.map(|row| row.len()), Some(LARGE_ROW_BYTES));
    let mut batch = Batch::new();
    batch.delete(Table::Execution, b"k");
    batch.delete(Table::Snapshot, b"large");
    store.commit(batch)
}

fn scan(
    store: &dyn Store,
    table: Table,
    prefix: &[u8],
    from: &[u8],
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    store.scan(table, prefix, from, &mut |key, _| {
        keys.push(key.to_vec());
        true
    })?;
    Ok(keys)
}

/// Larger than any row an engine writes with the limits of the service.
const LARGE_ROW_BYTES: usize = 4 << 20;
