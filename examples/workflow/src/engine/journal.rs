//! The rows of a store and what they mean (F-120): keys, encodings, checksums.
//!
//! Rows are JSON behind a checksum, so that a file can be read by people and a damaged row is
//! recognised. The events of one transition are one row, keyed by the first of them.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::event::{Event, EventKind, Failure};
use super::state::{EventId, State, Status};
use super::time::Timestamp;
use crate::store::{Batch, Store, StoreError, Table};

/// The number of an execution in its store.
pub(crate) type Sequence = u64;

/// What is known about an execution besides its events. Written when it starts and when it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) flow: Arc<str>,
    pub(crate) name: Arc<str>,
    /// The digest of the definition that it started with (F-122).
    pub(crate) definition: Arc<str>,
    pub(crate) status: Status,
    pub(crate) started: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Timestamp>,
    /// The task of another execution that started this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Parent>,
    /// The task token to report to when it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) callback: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
}

/// The task that started a child flow.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parent {
    pub(crate) execution: Sequence,
    pub(crate) task: EventId,
    /// Whether the task waits for the end.
    pub(crate) sync: bool,
}

/// A flow as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlowRow {
    pub(crate) definition: Arc<str>,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    #[serde(default)]
    pub(crate) description: String,
}

#[derive(Serialize, Deserialize)]
struct Chunk<E> {
    time: Timestamp,
    events: E,
}

/// A state and the event after which it was taken.
#[derive(Serialize, Deserialize)]
struct Snapshot<S> {
    state: S,
}

/// Why rows cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This row is damaged; others need not be.
    #[error("{0}")]
    Corrupt(String),
}

/// Checks the format of a store, or writes it into an empty one.
pub(crate) fn check_format(store: &dyn Store) -> Result<bool, StoreError> {
    match store.read(Table::Meta, FORMAT_KEY)? {
        Some(found) if found == FORMAT.as_bytes() => Ok(true),
        Some(found) => {
            let found = String::from_utf8_lossy(&found).chars().take(40).collect();
            Err(StoreError::UnknownFormat { found, expected: FORMAT })
        }
        None => {
            // A store that has rows and no format was not written by an engine.
            for table in Table::ALL {
                let mut any = false;
                store.scan(table, b"", b"", &mut |_, _| {
                    any = true;
                    false
                })?;
                if any {
                    let found = "none".to_owned();
                    return Err(StoreError::UnknownFormat { found, expected: FORMAT });
                }
            }
            Ok(false)
        }
    }
}

pub(crate) fn put_format(batch: &mut Batch) {
    batch.put(Table::Meta, FORMAT_KEY, FORMAT);
}

pub(crate) const TOKEN_KEY: &[u8] = b"token_key";
pub(crate) const NEXT_KEY: &[u8] = b"next_execution";
const FORMAT_KEY: &[u8] = b"format";
const FORMAT: &str = "siftbus-workflow-1";

pub(crate) fn name_key(flow: &str, execution: &str) -> Vec<u8> {
    // Names hold no such character.
    [flow.as_bytes(), b"/", execution.as_bytes()].concat()
}

pub(crate) fn sequence_key(sequence: Sequence) -> [u8; 8] {
    sequence.to_be_bytes()
}

pub(crate) fn event_key(sequence: Sequence, event: EventId) -> Vec<u8> {
    [sequence.to_be_bytes().as_slice(), &event.to_be_bytes()].concat()
}

pub(crate) fn ended_key(ended: Timestamp, sequence: Sequence) -> Vec<u8> {
    [ended.as_millis().to_be_bytes(), sequence.to_be_bytes()].concat()
}

/// The number at the end of a key.
pub(crate) fn sequence_of(key: &[u8]) -> Option<Sequence> {
    Some(Sequence::from_be_bytes(*key.last_chunk()?))
}

pub(crate) fn put<T: Serialize>(batch: &mut Batch, table: Table, key: impl Into<Vec<u8>>, row: &T) {
    batch.put(table, key, encode(row));
}

/// A row, if it is there.
pub(crate) fn read<T: DeserializeOwned>(
    store: &dyn Store,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, ReadError> {
    match store.read(table, key)? {
        None => Ok(None),
        Some(row) => Ok(Some(decode(&row)?)),
    }
}

/// Adds the events of one transition.
pub(crate) fn put_events(batch: &mut Batch, sequence: Sequence, events: &[Event]) {
    let Some(first) = events.first() else { return };
    let rows: Vec<(&Arc<str>, EventId, &EventKind)> =
        events.iter().map(|event| (&event.step, event.scheduled, &event.kind)).collect();
    let chunk = Chunk { time: first.time, events: rows };
    put(batch, Table::Event, event_key(sequence, first.id), &chunk);
}

/// Visits the events of an execution from `from` on, in order, until `visit` answers `false`.
pub(crate) fn events(
    store: &dyn Store,
    sequence: Sequence,
    from: EventId,
    visit: &mut dyn FnMut(Event) -> bool,
) -> Result<(), ReadError> {
    let mut result = Ok(());
    let prefix = sequence_key(sequence);
    // The row that holds `from` may start before it; without snapshots rows are read from the
    // start, with one `from` is where a row starts.
    let mut next = None;
    store.scan(Table::Event, &prefix, &event_key(sequence, from), &mut |key, row| {
        let first = key.last_chunk().map(|id| EventId::from_be_bytes(*id));
        match first.ok_or_else(|| corrupt("the key of a row is too short")).and_then(|first| {
            if next.is_some_and(|next| next != first) || (next.is_none() && first != from) {
                return Err(corrupt(&format!("the event before {first} is missing")));
            }
            Ok((first, decode::<Chunk<Vec<(Arc<str>, EventId, EventKind)>>>(row)?))
        }) {
            Ok((first, chunk)) => {
                let mut id = first;
                for (step, scheduled, kind) in chunk.events {
                    if !visit(Event { id, time: chunk.time, step, scheduled, kind }) {
                        return false;
                    }
                    id += 1;
                }
                next = Some(id);
                true
            }
            Err(error) => {
                result = Err(error);
                false
            }
        }
    })?;
    result
}

/// Stores a state, so that replay can start there (F-126).
pub(crate) fn put_snapshot(batch: &mut Batch, sequence: Sequence, state: &State) {
    put(batch, Table::Snapshot, sequence_key(sequence), &Snapshot { state });
}

/// The stored state of an execution; one that cannot be read is as good as none.
pub(crate) fn snapshot(store: &dyn Store, sequence: Sequence) -> Result<Option<State>, StoreError> {
    match read::<Snapshot<State>>(store, Table::Snapshot, &sequence_key(sequence)) {
        Ok(snapshot) => Ok(snapshot.map(|snapshot| snapshot.state)),
        Err(ReadError::Corrupt(_)) => Ok(None),
        Err(ReadError::Store(error)) => Err(error),
    }
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    let mut bytes = vec![0; SUM_BYTES];
    serde_json::to_writer(&mut bytes, row).expect("rows hold nothing that JSON cannot");
    let sum = checksum(bytes.get(SUM_BYTES..).unwrap_or_default());
    if let Some(place) = bytes.first_chunk_mut() {
        *place = sum;
    }
    bytes
}

fn decode<T: DeserializeOwned>(row: &[u8]) -> Result<T, ReadError> {
    let (sum, json) =
        row.split_first_chunk().ok_or_else(|| corrupt("a row is too short for its checksum"))?;
    if *sum != checksum(json) {
        return Err(corrupt("the checksum of a row does not match"));
    }
    serde_json::from_slice(json).map_err(|error| corrupt(&error.to_string()))
}

fn corrupt(why: &str) -> ReadError {
    ReadError::Corrupt(why.to_owned())
}

/// FNV-1a: against accidents, not against people.
fn checksum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let sum = bytes.iter().fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    sum.to_be_bytes()
}

const SUM_BYTES: usize = 8;
