//! Taking messages: as many as there is room for, claimed together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use siftbus::Deliveries;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::batch::run_batch;
use super::{WorkerShared, heartbeat};
use crate::engine::Engine;
use crate::error::{JobsError, StoreError};
use crate::handler::KnownKinds;
use crate::id::JobId;
use crate::limits::{CLAIM_BATCH, UNKNOWN_KIND_PAUSE};
use crate::message::{JOB_ID, KIND};
use crate::queue::{Pulled, Queue};
use crate::transitions::Claimed;

/// Pulls and starts batches until it is told to stop.
pub(super) async fn run(
    engine: Arc<Engine>,
    queue: Queue,
    shared: Arc<WorkerShared>,
    permits: Arc<Semaphore>,
) -> Result<(), JobsError> {
    let all = permits.available_permits();
    let mut batches = JoinSet::new();
    let mut heart = JoinSet::new();
    heart.spawn(heartbeat::beat(Arc::clone(&engine), queue.clone(), Arc::clone(&shared)));
    let ended = loop {
        while batches.try_join_next().is_some() {}
        let next = async {
            let first = Arc::clone(&permits).acquire_owned().await;
            let mut permit = first.map_err(|error| JobsError::Bus(error.to_string()))?;
            let more = permits.available_permits().min(CLAIM_BATCH - 1);
            if let Ok(rest) = u32::try_from(more)
                && let Ok(rest) = Arc::clone(&permits).try_acquire_many_owned(rest)
            {
                permit.merge(rest);
            }
            let pulled = queue.pull(permit.num_permits(), shared.lease).await;
            let pulled = pulled.map_err(|error| JobsError::Bus(error.to_string()))?;
            // What was not needed is free at once.
            drop(permit.split(permit.num_permits().saturating_sub(pulled.deliveries.len())));
            Ok::<_, JobsError>((pulled, permit))
        };
        let next = tokio::select! {
            biased;
            () = stop_asked(&shared) => break Ok(()),
            next = next => next,
        };
        match next {
            Ok((pulled, permit)) => {
                let (engine, shared) = (Arc::clone(&engine), Arc::clone(&shared));
                batches.spawn(run_batch(engine, shared, pulled, permit));
            }
            Err(error) => break Err(error),
        }
    };
    if ended.is_ok() {
        // The permits come back when everything is over.
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        drop(permits.acquire_many(all).await);
        while batches.join_next().await.is_some() {}
    }
    ended
}

async fn stop_asked(shared: &WorkerShared) {
    while !shared.stopped.load(Ordering::SeqCst) {
        shared.stopping.notified().await;
    }
}

/// Claims all of a batch in one transaction.
pub(super) async fn claim(
    engine: &Arc<Engine>,
    shared: &Arc<WorkerShared>,
    deliveries: &Option<Deliveries>,
    any_kind: bool,
) -> Result<Vec<(Option<JobId>, Claimed)>, StoreError> {
    let mut kinds = KnownKinds::default();
    let count = deliveries.as_ref().map_or(0, Deliveries::len);
    let mut wanted: Vec<(Option<JobId>, bool)> = Vec::with_capacity(count);
    for delivery in deliveries.iter().flatten() {
        let id = delivery.attribute(JOB_ID).and_then(|id| id.parse().ok());
        let kind = delivery.attribute(KIND).unwrap_or_default();
        let known = any_kind || kinds.of(engine, kind).handler.is_some();
        wanted.push((id, known));
    }
    let (worker, lease) = (Arc::clone(&shared.name), shared.lease);
    engine
        .commit(move |tx| {
            let mut claims = Vec::with_capacity(wanted.len());
            for (id, known) in wanted {
                let claimed = match &id {
                    // Nobody's job: a stranger has published to the topic.
                    None => Claimed::Ack,
                    Some(_) if !known => Claimed::After(UNKNOWN_KIND_PAUSE),
                    Some(id) => match tx.claim(id, &worker, lease) {
                        // One bad document must not hold up the others.
                        Err(StoreError::Corrupt { .. }) => Claimed::After(UNKNOWN_KIND_PAUSE),
                        other => other?,
                    },
                };
                claims.push((id, claimed));
            }
            Ok(claims)
        })
        .await
}

/// Messages in hand; a worker that has crashed leaves them to their deadlines.
pub(super) struct Held<'a> {
    pub(super) deliveries: Option<Deliveries>,
    pub(super) lane: usize,
    worker: &'a WorkerShared,
}

impl<'a> Held<'a> {
    pub(super) fn new(pulled: Pulled, worker: &'a WorkerShared) -> Self {
        let Pulled { deliveries, lane } = pulled;
        Self { deliveries: Some(deliveries), lane, worker }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.worker.crashed.load(Ordering::SeqCst) {
            for delivery in self.deliveries.take().into_iter().flatten() {
                delivery.into_ack_id();
            }
        }
    }
}
