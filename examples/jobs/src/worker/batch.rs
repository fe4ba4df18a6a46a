//! Jobs that come together: claimed in one transaction, called one after the other, and, if their
//! handlers answer at once, ended in one transaction too.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::WorkerShared;
use super::attempt::{Begun, End, HeldOne, run_one, settle, settle_of};
use super::pull::{Held, claim};
use crate::engine::Engine;
use crate::id::JobId;
use crate::limits::{QUICK_SPAN, STORE_PAUSE};
use crate::queue::Pulled;
use crate::transitions::{Claimed, Settle, Started};

impl Claimed {
    pub(super) fn settle(&self) -> Settle {
        match self {
            Claimed::After(delay) => Settle::After(*delay),
            Claimed::Ack | Claimed::Start(_) => Settle::Ack,
        }
    }
}

/// Works on messages that came together until all of them are settled.
pub(super) async fn run_batch(
    engine: Arc<Engine>,
    shared: Arc<WorkerShared>,
    pulled: Pulled,
    permit: OwnedSemaphorePermit,
) {
    let mut held = Held::new(pulled, &shared);
    let Ok(claims) = claim(&engine, &shared, &held.deliveries, false).await else {
        for delivery in held.deliveries.take().into_iter().flatten() {
            settle(delivery, Settle::After(STORE_PAUSE));
        }
        return;
    };
    let mut settles: Vec<Option<Settle>> = claims.iter().map(|(_, c)| Some(c.settle())).collect();
    let (ended, mut slow) = call_all(&shared, claims).await;
    slow.extend(finish_all(&engine, &shared, ended, &mut settles).await);
    if slow.is_empty() && settles.iter().all(|settle| *settle == Some(Settle::Ack)) {
        // The usual case, and the cheap one.
        if let Some(all) = held.deliveries.take() {
            all.ack_all();
        }
        return;
    }
    run_slow(&engine, &shared, &mut held, settles, slow, permit).await;
}

/// Calls the handlers, the highest priority first; answers the ends of those that were quick, and
/// those that were not, each with its place in the batch.
async fn call_all(
    shared: &Arc<WorkerShared>,
    claims: Vec<(Option<JobId>, Claimed)>,
) -> (Vec<(usize, End)>, Vec<(usize, Begun)>) {
    let mut started: Vec<(usize, JobId, Started)> = Vec::with_capacity(claims.len());
    for (place, (id, claimed)) in claims.into_iter().enumerate() {
        if let (Some(id), Claimed::Start(job)) = (id, claimed) {
            started.push((place, id, job));
        }
    }
    if started.iter().any(|(_, _, job)| job.priority != 0) {
        started.sort_by_key(|(_, _, job)| Reverse(job.priority));
    }
    let (mut ended, mut slow) = (Vec::with_capacity(started.len()), Vec::new());
    let mut patience = Patience::new(shared);
    for (place, id, job) in started {
        let begun = Begun::new(shared, id, job);
        if patience.is_over() {
            // These run beside each other, and send heartbeats.
            slow.push((place, begun));
            continue;
        }
        match begun.look().await {
            Ok(end) => ended.push((place, end)),
            Err(begun) => slow.push((place, begun)),
        }
    }
    (ended, slow)
}

/// For how long handlers are called one after the other: not long, as nothing else of the batch
/// goes on meanwhile.
struct Patience<'a> {
    shared: &'a WorkerShared,
    begun: SystemTime,
    calls: u32,
    over: bool,
}

impl<'a> Patience<'a> {
    fn new(shared: &'a WorkerShared) -> Self {
        Self { shared, begun: shared.bus.now(), calls: 0, over: false }
    }

    /// Looks at the clock for each of the first calls, and then for every eighth.
    fn is_over(&mut self) -> bool {
        self.calls += 1;
        if !self.over && (self.calls <= 8 || self.calls.is_multiple_of(8)) {
            let spent = self.shared.bus.now().duration_since(self.begun);
            self.over = spent.is_ok_and(|spent| spent > QUICK_SPAN);
        }
        self.over
    }
}

/// Writes the ends of all that were quick in one transaction; answers those it could not write.
async fn finish_all(
    engine: &Arc<Engine>,
    shared: &Arc<WorkerShared>,
    ended: Vec<(usize, End)>,
    settles: &mut [Option<Settle>],
) -> Vec<(usize, Begun)> {
    if ended.is_empty() {
        return Vec::new();
    }
    let ended = Arc::new(ended);
    let ends = Arc::clone(&ended);
    let finished = engine
        .commit(move |tx| {
            let finish = |(_, end): &(usize, End)| {
                tx.finish(&end.id, end.attempt, end.verdict.clone(), end.progress.clone())
            };
            ends.iter().map(finish).collect::<Result<Vec<_>, _>>()
        })
        .await;
    let Ok(finished) = finished else {
        // Whoever has failed may not have let go of them yet.
        let ended = Arc::try_unwrap(ended).unwrap_or_else(|shared| Vec::clone(&shared));
        let unwritten = |(place, end)| (place, Begun::ended(shared, end));
        return ended.into_iter().map(unwritten).collect();
    };
    for ((place, _), finished) in ended.iter().zip(&finished) {
        if let Some(place) = settles.get_mut(*place) {
            *place = Some(settle_of(finished, shared.lease));
        }
    }
    Vec::new()
}

/// Runs what takes longer, each in a task of its own.
async fn run_slow(
    engine: &Arc<Engine>,
    shared: &Arc<WorkerShared>,
    held: &mut Held<'_>,
    mut settles: Vec<Option<Settle>>,
    slow: Vec<(usize, Begun)>,
    mut permit: OwnedSemaphorePermit,
) {
    let mut begun: HashMap<usize, Begun> = slow.into_iter().collect();
    for place in begun.keys() {
        if let Some(place) = settles.get_mut(*place) {
            *place = None;
        }
    }
    let mut tasks = JoinSet::new();
    let deliveries = held.deliveries.take().into_iter().flatten();
    for (place, delivery) in deliveries.enumerate() {
        match settles.get(place).copied().flatten() {
            Some(how) => settle(delivery, how),
            None => {
                let Some(job) = begun.remove(&place) else { continue };
                let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
                *job.running.ack_id.lock() = Some((held.lane, delivery.ack_id()));
                shared.running.lock().insert(number, Arc::clone(&job.running));
                let worker = Arc::clone(shared);
                let one = HeldOne { delivery: Some(delivery), worker, number };
                let permit = permit.split(1);
                tasks.spawn(run_one(Arc::clone(engine), one, job, permit));
            }
        }
    }
    drop(permit);
    shared.busy.notify_one();
    while tasks.join_next().await.is_some() {}
}
