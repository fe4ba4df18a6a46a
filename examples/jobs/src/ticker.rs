//! What happens by itself: messages that are due are published, deadlines and graces end jobs, and
//! finished jobs go after their time (J-08, J-11, J-13, J-35, J-37, J-38).
//!
//! One task that sleeps until something is due; nothing polls.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use siftbus::Message;
use tokio::sync::Notify;

use crate::document::Status;
use crate::engine::{Engine, Messages, Place};
use crate::error::{BuildError, StoreError};
use crate::jobs::Jobs;
use crate::limits::{MAX_PAGE, STORE_PAUSE, SWEEP_BATCH};
use crate::message::job_message;
use crate::store::{OutboxKey, OutboxRow, Query};
use crate::time::Timestamp;

/// Runs for as long as the engine is there.
pub(crate) async fn run(engine: Weak<Engine>, tick: Arc<Notify>) {
    loop {
        let Some(engine) = engine.upgrade() else { return };
        // Whatever is filed while this looks around asks for another look.
        engine.set_wake(None);
        let woken = wake(&engine).await;
        let drained = drain(&engine).await;
        let shortest = if drained == Ok(true) { IN_HAND_PAUSE } else { SHORTEST };
        let swept = sweep(&engine).await;
        let (bus, wait) = match woken.and(drained).and(swept).and_then(|()| next(&engine)) {
            Ok(Some(at)) => {
                engine.set_wake(Some(at));
                (engine.bus.clone(), Some(engine.now().until(at).max(shortest)))
            }
            Ok(None) => (engine.bus.clone(), None),
            Err(_) => (engine.bus.clone(), Some(STORE_PAUSE)),
        };
        drop(engine);
        match wait {
            Some(wait) => drop(bus.timeout(wait, tick.notified()).await),
            None => tick.notified().await,
        }
        if bus.topics().is_empty() {
            // Closed, or without the topic of the jobs: there is nothing to publish to.
            return;
        }
    }
}

/// A publish that fails is not tried again at once.
const SHORTEST: Duration = Duration::from_millis(1);
/// Rows that somebody is about to publish are looked at again after this.
const IN_HAND_PAUSE: Duration = Duration::from_millis(100);

fn next(engine: &Engine) -> Result<Option<Timestamp>, StoreError> {
    let (due, outbox) = (engine.store.next_due()?, engine.store.next_outbox()?);
    Ok(due.into_iter().chain(outbox).min())
}

/// Publishes what is due, and forgets it afterwards (J-35). Answers whether it left rows to those
/// who have just written them.
pub(crate) async fn drain(engine: &Arc<Engine>) -> Result<bool, StoreError> {
    loop {
        let mut rows = engine.store.outbox(engine.now(), SWEEP_BATCH)?;
        let found = rows.len();
        if found > 0 {
            // Rows are taken in hand before they can be seen and removed before they are let go:
            // one that is seen before and after, and in nobody's hand in between, is left over.
            let in_hand = engine.in_hand();
            let again = engine.store.outbox(engine.now(), SWEEP_BATCH)?;
            let again: HashSet<&OutboxKey> = again.iter().map(|row| &row.key).collect();
            rows.retain(|row| again.contains(&row.key) && !in_hand.contains(&row.key));
        }
        let skipped = rows.len() < found;
        let full = found == SWEEP_BATCH && !skipped;
        let mut keys = Vec::with_capacity(rows.len());
        let mut jobs = Messages::default();
        for row in rows {
            match row.message {
                None => {
                    // A job that is over has nothing more to do.
                    let job = engine.store.get(&row.key.id)?;
                    if let Some(job) = job.filter(|job| !job.status.is_final()) {
                        jobs.push(Place::of(&job), job_message(&job));
                    }
                }
                Some(message) => {
                    let topic = [&engine.settings.events, &engine.settings.dead_letters];
                    let topic =
                        topic.into_iter().flatten().find(|topic| topic.name() == message.topic);
                    let attributes = message.attributes.iter();
                    let made = Message::new(message.data).with_attributes(attributes);
                    // A topic that is not configured any more has nobody who waits.
                    if let Some(topic) = topic
                        && topic.publish(made).await.is_err()
                    {
                        return Err(StoreError::Failed("a message was not published".to_owned()));
                    }
                }
            }
            keys.push(row.key);
        }
        for (topic, part) in jobs.parts(engine) {
            if topic.publish_many(part).await.is_err() {
                return Err(StoreError::Failed("a job's message was not published".to_owned()));
            }
        }
        if !keys.is_empty() {
            engine
                .commit(move |tx| keys.iter().try_for_each(|key| tx.tx.remove_outbox(key)))
                .await?;
        }
        if !full {
            return Ok(skipped);
        }
    }
}

/// Files messages for jobs that have come to a place (J-39).
async fn wake(engine: &Arc<Engine>) -> Result<(), StoreError> {
    let ids = engine.gate.take_woken();
    if ids.is_empty() {
        return Ok(());
    }
    let again = ids.clone();
    let filed = engine.commit(move |tx| ids.iter().try_for_each(|id| tx.wake(id))).await;
    if filed.is_err() {
        engine.gate.return_woken(again);
    }
    filed
}

/// Does what time alone does, in batches.
async fn sweep(engine: &Arc<Engine>) -> Result<(), StoreError> {
    loop {
        let due = engine.store.due(engine.now(), SWEEP_BATCH)?;
        let full = due.len() == SWEEP_BATCH;
        if due.is_empty() {
            return Ok(());
        }
        let stopped = engine
            .commit(move |tx| {
                let mut stopped = Vec::new();
                for id in due {
                    stopped.extend(tx.sweep(&id)?.map(|stop| (id, stop)));
                }
                Ok(stopped)
            })
            .await?;
        for (id, stop) in stopped {
            engine.tell_handler(&id, stop, true);
        }
        if !full {
            return Ok(());
        }
    }
}

/// J-37: after a restart the bus is empty, so every job that is not over gets a message anew:
/// one that waits when it is to start, one that was running when its lease is over.
pub(crate) async fn recover(jobs: &Jobs) -> Result<usize, BuildError> {
    let engine = &jobs.engine;
    let mut recovered = 0;
    for status in [Status::Created, Status::Running, Status::Retrying] {
        let query = Query::new().status(status);
        let mut after = None;
        loop {
            let page = engine.store.list(&query, after.as_ref(), MAX_PAGE)?;
            let rows: Vec<OutboxRow> = page
                .jobs
                .iter()
                .map(|job| {
                    let lease = job.lease.as_ref().map(|lease| lease.until);
                    let at = lease.unwrap_or(job.run_at);
                    OutboxRow {
                        key: OutboxKey { at, id: job.id.clone(), number: 0 },
                        message: None,
                    }
                })
                .collect();
            for queue in page.jobs.iter().filter_map(|job| job.queue.as_deref()) {
                jobs.queue(queue).await?;
            }
            recovered += rows.len();
            if !rows.is_empty() {
                engine
                    .commit(move |tx| rows.iter().try_for_each(|row| tx.tx.push_outbox(row)))
                    .await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(recovered)
}
