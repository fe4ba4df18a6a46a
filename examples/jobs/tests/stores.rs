//! What every store has to do (2.6): one suite, run on each of them, and on each of them behind a
//! store that fails.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;

use jobs::store::{FaultyStore, JobStore, OutboxKey, OutboxMessage, OutboxRow, StoreTx};
use jobs::{Job, JobId, Json, MemoryStore, Query, RedbStore, Status, StoreError, Timestamp};
use support::{Place, seconds};

/// Runs the suite on a store that is made anew for each case.
macro_rules! store_tests {
    ($name:ident, $make:expr) => {
        mod $name {
            #[test]
            fn documents_come_back_as_they_were() {
                super::documents_come_back_as_they_were($make);
            }
            #[test]
            fn a_transaction_is_kept_whole_or_not_at_all() {
                super::a_transaction_is_kept_whole_or_not_at_all($make);
            }
            #[test]
            fn ids_and_keys_are_taken_once() {
                super::ids_and_keys_are_taken_once($make);
            }
            #[test]
            fn due_jobs_come_in_order_until_they_change() {
                super::due_jobs_come_in_order_until_they_change($make);
            }
            #[test]
            fn the_outbox_is_in_order_of_time() {
                super::the_outbox_is_in_order_of_time($make);
            }
            #[test]
            fn lists_are_filtered_and_come_in_pages() {
                super::lists_are_filtered_and_come_in_pages($make);
            }
        }
    };
}

store_tests!(memory, &super::Place::memory());
store_tests!(durable, &super::Place::file());

fn job(n: u64) -> Box<Job> {
    let text = serde_json::json!({
        "id": format!("job-{n:03}"), "kind": "k", "status": "created", "args": {"n": n},
        "attempt": 0, "max_attempts": 5, "version": 1,
        "created_at": seconds(n).as_millis(), "run_at": seconds(n).as_millis(),
    });
    Box::new(serde_json::from_value(text).unwrap())
}

fn id(n: u64) -> JobId {
    job(n).id
}

fn row(at: u64, n: u64, number: u64) -> OutboxRow {
    let message = OutboxMessage {
        topic: "t".to_owned(),
        attributes: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        data: "{}".to_owned(),
    };
    let key = OutboxKey { at: seconds(at), id: id(n), number };
    OutboxRow { key, message: (number != 0).then_some(message) }
}

fn write<R>(
    store: &dyn JobStore,
    work: impl FnOnce(&mut dyn StoreTx) -> Result<R, StoreError>,
) -> Result<R, StoreError> {
    let (mut work, mut value) = (Some(work), None);
    store.write(true, &mut |tx| {
        value = Some(work.take().unwrap()(tx)?);
        Ok(())
    })?;
    Ok(value.unwrap())
}

fn finish(job: &mut Job, at: Timestamp) -> bool {
    job.status = Status::Completed;
    job.expires_at = Some(at);
    job.version += 1;
    true
}

/// Everything that can be seen of a store.
fn whole(store: &dyn JobStore) -> (Vec<Job>, Vec<OutboxRow>, Vec<JobId>, u64) {
    let all = Timestamp::LAST;
    (
        store.list(&Query::new(), None, 1_000).unwrap().jobs,
        store.outbox(all, 1_000).unwrap(),
        store.due(all, 1_000).unwrap(),
        store.unfinished().unwrap(),
    )
}

fn documents_come_back_as_they_were(place: &Place) {
    let store = place.store();
    let text = serde_json::json!({
        "id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "kind": "k", "status": "retrying", "args": [1, "ä\""],
        "queue": "q", "priority": -3, "attempt": 2, "max_attempts": 5, "version": 9,
        "created_at": 1, "run_at": 2, "started_at": 3, "heartbeat_at": 4, "finished_at": 5,
        "deadline": 6, "expires_at": 7, "lease": {"owner": "w", "until": 8},
        "attempts": [{"n": 1, "worker": "w", "started_at": 3, "ended_at": 4, "outcome": "error",
            "error": {"name": "N", "message": "m"}}],
        "result": null,
        "extra": {"idempotency_key": "k1", "correlation_id": "c", "labels": {"a": "b"},
            "progress": {"done": 1, "total": 2, "note": "n", "progress_reset": true},
            "last_error": {"name": "N", "message": "m"}, "manual_retries": 1, "first_attempt": 1,
            "cancel_by": 10},
    });
    let job: Job = serde_json::from_value(text).unwrap();
    assert_eq!(write(&*store, |tx| tx.insert(Box::new(job.clone()))).unwrap(), None);
    assert_eq!(store.get(&job.id).unwrap(), Some(job.clone()));
    assert_eq!(store.get(&id(1)).unwrap(), None);
    drop(store);
    if let Place::File(_) = place {
        assert_eq!(place.store().get(&job.id).unwrap(), Some(job), "after it was opened again");
    }
}

fn a_transaction_is_kept_whole_or_not_at_all(place: &Place) {
    let store = place.store();
    write(&*store, |tx| {
        for n in 1..=3 {
            tx.insert(job(n))?;
            tx.push_outbox(&row(n, n, n % 2))?;
        }
        tx.update(&id(3), &mut |job| finish(job, seconds(9)))?;
        Ok(())
    })
    .unwrap();
    let before = whole(&*store);
    let refused = write(&*store, |tx| {
        tx.insert(job(4))?;
        tx.update(&id(1), &mut |job| finish(job, seconds(5)))?;
        assert_eq!(tx.get(&id(1))?.unwrap().status, Status::Completed, "seen within");
        tx.update(&id(3), &mut |job| {
            job.status = Status::Created;
            job.expires_at = None;
            true
        })?;
        tx.remove(&id(2))?;
        tx.remove_outbox(&row(1, 1, 1).key)?;
        tx.remove_outbox(&row(2, 2, 0).key)?;
        tx.push_outbox(&row(7, 4, 0))?;
        Err::<(), _>(StoreError::Failed("given up".to_owned()))
    });
    assert_eq!(refused, Err(StoreError::Failed("given up".to_owned())));
    assert_eq!(whole(&*store), before);
    assert_eq!(before.3, 2, "two are unfinished");
}

fn ids_and_keys_are_taken_once(place: &Place) {
    let store = place.store();
    let mut keyed = job(1);
    let mut text = serde_json::to_value(&*keyed).unwrap();
    text["extra"] = serde_json::json!({"idempotency_key": "k1"});
    *keyed = serde_json::from_value(text).unwrap();
    write(&*store, |tx| {
        assert_eq!(tx.insert(keyed.clone())?, None);
        assert_eq!(tx.insert(keyed.clone())?, Some(keyed.clone()), "given back");
        assert_eq!(tx.job_of_key("k1")?, Some(id(1)));
        assert_eq!(tx.job_of_key("k2")?, None);
        tx.update(&id(1), &mut |job| finish(job, seconds(5)))?;
        assert!(tx.insert(keyed.clone())?.is_some(), "also once it is over");
        assert!(!tx.update(&id(2), &mut |_| panic!("there is none"))?);
        assert!(tx.remove(&id(1))?);
        assert!(!tx.remove(&id(1))?);
        assert_eq!(tx.job_of_key("k1")?, None, "J-13: the key goes with the document");
        assert_eq!(tx.insert(keyed.clone())?, None);
        Ok(())
    })
    .unwrap();
    assert_eq!(store.unfinished().unwrap(), 1);
}

fn due_jobs_come_in_order_until_they_change(place: &Place) {
    let store = place.store();
    write(&*store, |tx| {
        for n in [3, 1, 2, 4] {
            let mut job = job(n);
            job.deadline = Some(seconds(n));
            tx.insert(job)?;
        }
        tx.insert(job(5))?;
        Ok(())
    })
    .unwrap();
    assert_eq!(store.next_due().unwrap(), Some(seconds(1)));
    for _ in 0..2 {
        assert_eq!(store.due(seconds(3), 10).unwrap(), [id(1), id(2), id(3)], "looking is free");
    }
    assert_eq!(store.due(seconds(3), 2).unwrap(), [id(1), id(2)]);
    write(&*store, |tx| {
        tx.update(&id(1), &mut |job| finish(job, seconds(100)))?;
        tx.remove(&id(2))?;
        tx.update(&id(3), &mut |_| false)?;
        Ok(())
    })
    .unwrap();
    assert_eq!(store.due(seconds(3), 10).unwrap(), [id(3)]);
    assert_eq!(store.due(seconds(100), 10).unwrap(), [id(3), id(4), id(1)]);
}

fn the_outbox_is_in_order_of_time(place: &Place) {
    let store = place.store();
    assert_eq!(store.next_outbox().unwrap(), None);
    let rows = [row(2, 1, 0), row(1, 2, 0), row(3, 3, 0), row(9, 4, 0)];
    let other = row(4, 1, 7);
    write(&*store, |tx| {
        for row in rows.iter().chain([&other, &rows[0]]) {
            tx.push_outbox(row)?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(store.next_outbox().unwrap(), Some(seconds(1)));
    let due = [rows[1].clone(), rows[0].clone(), rows[2].clone(), other.clone()];
    assert_eq!(store.outbox(seconds(4), 10).unwrap(), due, "once each");
    assert_eq!(store.outbox(seconds(4), 1).unwrap(), due[..1]);
    write(&*store, |tx| due.iter().try_for_each(|row| tx.remove_outbox(&row.key))).unwrap();
    assert_eq!(store.outbox(seconds(8), 10).unwrap(), []);
    assert_eq!(store.next_outbox().unwrap(), Some(seconds(9)));
}

fn lists_are_filtered_and_come_in_pages(place: &Place) {
    let store = place.store();
    write(&*store, |tx| {
        for n in 0..20 {
            tx.insert(job(n))?;
            if n % 3 == 0 {
                tx.update(&id(n), &mut |job| finish(job, seconds(100)))?;
            }
        }
        Ok(())
    })
    .unwrap();
    for (query, expected) in [
        (Query::new(), 20),
        (Query::new().status(Status::Completed), 7),
        (Query::new().status(Status::Created), 13),
        (Query::new().status(Status::Failed), 0),
        (Query::new().kind("k"), 20),
        (Query::new().kind("other"), 0),
    ] {
        for limit in [1, 3, 20, 100] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = store.list(&query, after.as_ref(), limit).unwrap();
                assert!(page.jobs.len() <= limit);
                found.extend(page.jobs);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found.len(), expected, "{query:?} by {limit}");
            assert!(found.is_sorted_by(|one, two| one.id < two.id));
        }
    }
}

#[test]
fn every_write_may_fail_and_leaves_all_or_nothing() {
    for place in [Place::memory(), Place::file()] {
        let (store, faults) = match &place {
            Place::Memory(memory) => {
                let (store, faults) = FaultyStore::new(memory.clone());
                (Box::new(store) as Box<dyn JobStore>, faults)
            }
            Place::File(folder) => {
                let store = RedbStore::open(folder.path().join("jobs.redb")).unwrap();
                let (store, faults) = FaultyStore::new(store);
                (Box::new(store) as Box<dyn JobStore>, faults)
            }
        };
        write(&*store, |tx| tx.insert(job(1)).map(drop)).unwrap();
        let before = whole(&*store);
        let change = || {
            write(&*store, |tx| {
                tx.insert(job(2))?;
                tx.push_outbox(&row(1, 2, 0))?;
                tx.push_outbox(&row(1, 2, 3))?;
                tx.update(&id(1), &mut |job| finish(job, seconds(5)))?;
                tx.remove_outbox(&row(1, 2, 0).key)
            })
        };
        let mut n = 0;
        loop {
            n += 1;
            faults.fail_at(n);
            if change().is_ok() {
                break;
            }
            assert_eq!(whole(&*store), before, "after write {n} has failed");
        }
        // Five rows and the commit.
        assert_eq!(n, 7);
        assert_ne!(whole(&*store), before);
    }
}

#[test]
fn a_store_that_is_newer_or_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    drop(RedbStore::open(&path).unwrap());
    let twice = RedbStore::open(&path).unwrap();
    assert!(matches!(RedbStore::open(&path), Err(StoreError::InUse { .. })));
    drop(twice);
    {
        let database = redb::Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("job_meta");
        txn.open_table(meta).unwrap().insert("format", 2).unwrap();
        txn.commit().unwrap();
    }
    let refused = RedbStore::open(&path).unwrap_err();
    assert!(matches!(&refused, StoreError::Format { problem, .. } if problem.contains("format 2")));
    // A table of the same name with other types.
    let path = folder.path().join("other.redb");
    {
        let database = redb::Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let other = redb::TableDefinition::<u64, u64>::new("job_due");
        txn.open_table(other).unwrap().insert(1, 2).unwrap();
        txn.commit().unwrap();
    }
    assert!(matches!(RedbStore::open(&path), Err(StoreError::Format { .. })));
    let path = folder.path().join("text");
    std::fs::write(&path, "no store").unwrap();
    assert!(matches!(RedbStore::open(&path), Err(StoreError::Format { .. })));
    assert!(RedbStore::open(folder.path()).is_err(), "a folder");
    assert_eq!(MemoryStore::new().unfinished(), Ok(0));
    assert_eq!(Json::null().as_str(), "null");
}
