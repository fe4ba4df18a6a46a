//! A job that is claimed by hand: for workers that are no handlers.

use std::time::Duration;

use siftbus::Delivery;

use super::WorkerOptions;
use super::attempt::{settle, settle_of, verdict};
use super::pull::{Held, claim};
use crate::error::JobsError;
use crate::handler::JobError;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::json::Json;
use crate::transitions::{Claimed, Verdict};

impl Jobs {
    /// Takes one job of whatever kind, to work on it without a handler: waits for it, claims it,
    /// and leaves heartbeats and the end to the caller.
    ///
    /// # Errors
    ///
    /// [`JobsError::Bus`] if the queue cannot be had; [`JobsError::Store`].
    ///
    /// # Cancel safety
    ///
    /// A job that was claimed when the future was dropped comes again once its lease is over.
    pub async fn claim(&self, options: &WorkerOptions) -> Result<ClaimedJob, JobsError> {
        let (queue, shared) = self.worker(options).await?;
        loop {
            let pulled = queue.pull(1, shared.lease).await;
            let pulled = pulled.map_err(|error| JobsError::Bus(error.to_string()))?;
            let mut held = Held::new(pulled, &shared);
            let claims = claim(&self.engine, &shared, &held.deliveries, true).await?;
            let taken = std::mem::take(&mut held.deliveries);
            for (delivery, claimed) in taken.into_iter().flatten().zip(claims) {
                match claimed {
                    (Some(id), Claimed::Start(started)) => {
                        return Ok(ClaimedJob {
                            jobs: self.clone(),
                            id,
                            attempt: started.attempt,
                            args: started.args,
                            lease: shared.lease,
                            delivery: Some(delivery),
                        });
                    }
                    (_, other) => settle(delivery, other.settle()),
                }
            }
        }
    }
}

/// A job that was claimed by hand ([`Jobs::claim`]).
///
/// It sends no heartbeats by itself. If it is dropped, its message is given back at once, and
/// whoever gets that begins again when the lease is over.
#[derive(Debug)]
#[must_use = "dropping a claimed job gives it up"]
pub struct ClaimedJob {
    jobs: Jobs,
    id: JobId,
    attempt: u32,
    args: Json,
    lease: Duration,
    delivery: Option<Delivery>,
}

impl ClaimedJob {
    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// Which attempt this is; also the fencing token (J-33).
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The arguments.
    pub fn args(&self) -> &Json {
        &self.args
    }

    /// Says that the work goes on, and how far it has come (J-03).
    ///
    /// # Errors
    ///
    /// [`JobsError::Refused`] if the lease is lost or the job over; [`JobsError::Store`].
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped may have written it.
    pub async fn heartbeat(
        &self,
        progress: Option<crate::document::Progress>,
    ) -> Result<(), JobsError> {
        let (id, attempt, lease) = (self.id.clone(), self.attempt, self.lease);
        let beat =
            self.jobs.engine.commit(move |tx| tx.heartbeat(&id, attempt, lease, progress)).await?;
        beat.map_err(|why| why.error(&self.id))?;
        if let Some(delivery) = &self.delivery {
            let moved = delivery.set_deadline(self.lease).await;
            moved.map_err(|error| JobsError::Bus(error.to_string()))?;
        }
        Ok(())
    }

    /// Ends the attempt with a result (J-04).
    ///
    /// # Errors
    ///
    /// [`JobsError::Refused`] if another attempt has begun or the job is over;
    /// [`JobsError::Store`]; nothing is changed then, and the attempt can be ended again.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped may have written it.
    pub async fn complete(
        &mut self,
        result: &(impl serde::Serialize + ?Sized),
    ) -> Result<(), JobsError> {
        let result = Json::of(result).unwrap_or(Json::null());
        let (size, max) = (result.len(), crate::limits::MAX_RESULT_BYTES);
        if size > max {
            return Err(JobsError::ResultTooLarge { size, max });
        }
        self.end(Verdict::Ok(result)).await
    }

    /// Ends the attempt with an error (J-05, J-06).
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete).
    ///
    /// # Cancel safety
    ///
    /// As [`complete`](Self::complete).
    pub async fn fail(&mut self, error: JobError) -> Result<(), JobsError> {
        self.end(verdict(Err(error))).await
    }

    /// Leaves the job the way a process does that dies: lease and ack deadline run out.
    pub fn abandon(mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.into_ack_id();
        }
    }

    async fn end(&mut self, verdict: Verdict) -> Result<(), JobsError> {
        let (id, attempt) = (self.id.clone(), self.attempt);
        let finished =
            self.jobs.engine.commit(move |tx| tx.finish(&id, attempt, verdict, None)).await?;
        let how = settle_of(&finished, self.lease);
        if let Some(delivery) = self.delivery.take() {
            settle(delivery, how);
        }
        finished.map(drop).map_err(|why| why.error(&self.id))
    }
}
