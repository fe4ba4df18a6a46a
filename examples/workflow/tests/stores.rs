//! Both stores through the conformance suite.
#![allow(clippy::unwrap_used)]

use workflow::store::{MemoryStore, conformance};

#[test]
fn memory() {
    let store = MemoryStore::new();
    conformance::check(|| store.clone()).unwrap();
}

#[test]
#[cfg(feature = "redb")]
fn redb() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    conformance::check(|| workflow::store::RedbStore::open(&path).unwrap()).unwrap();
}
