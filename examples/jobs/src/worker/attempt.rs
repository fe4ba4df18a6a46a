//! One attempt that takes longer: its task, and how attempts end (J-32, J-33).

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use siftbus::Delivery;
use tokio::sync::OwnedSemaphorePermit;

use super::WorkerShared;
use crate::document::{Failure, Progress};
use crate::engine::Engine;
use crate::handler::{Call, JobCtx, JobError, Kind};
use crate::id::JobId;
use crate::json::Json;
use crate::limits::STORE_PAUSE;
use crate::machine::Refused;
use crate::running::{Running, Stop};
use crate::transitions::{Changed, Settle, Started, Verdict};

/// A job whose handler was called.
pub(super) struct Begun {
    pub(super) running: Arc<Running>,
    work: Work,
}

/// What is left to do.
enum Work {
    /// The handler has not answered yet.
    Call(Call),
    /// Its answer has to be written.
    Write(Verdict, Option<Progress>),
}

/// How an attempt has ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) id: JobId,
    kind: Arc<Kind>,
    pub(super) attempt: u32,
    pub(super) verdict: Verdict,
    pub(super) progress: Option<Progress>,
}

impl Begun {
    /// Calls the handler, which does nothing yet.
    pub(super) fn new(worker: &Arc<WorkerShared>, id: JobId, job: Started) -> Self {
        let Started { kind, args, attempt, correlation_id, .. } = job;
        let worker = Arc::clone(worker);
        let running = Running::new(worker, id, Arc::clone(&kind), attempt, correlation_id);
        let running = Arc::new(running);
        let ctx = JobCtx { running: Arc::clone(&running) };
        let call: Call = match &kind.handler {
            Some(handler) => handler(ctx, args),
            None => Box::pin(async { Err(JobError::retry("UnknownKind", "the handler is gone")) }),
        };
        Self { running, work: Work::Call(call) }
    }

    /// A job whose handler has answered, which could not be written.
    pub(super) fn ended(worker: &Arc<WorkerShared>, end: End) -> Self {
        let running = Running::new(Arc::clone(worker), end.id, end.kind, end.attempt, None);
        Self { running: Arc::new(running), work: Work::Write(end.verdict, end.progress) }
    }

    /// Looks once whether the handler has answered.
    pub(super) async fn look(mut self) -> Result<End, Self> {
        let Work::Call(call) = &mut self.work else { return Err(self) };
        let looked = poll_fn(|cx| Poll::Ready(poll_call(call, cx))).await;
        match looked {
            Poll::Pending => Err(self),
            Poll::Ready(answer) => Ok(End {
                id: self.running.id.clone(),
                kind: Arc::clone(&self.running.kind),
                attempt: self.running.attempt,
                verdict: verdict(answer),
                progress: self.running.take_progress(),
            }),
        }
    }
}

/// Polls a handler; a panic is an error like any other, by the name `Panic`.
fn poll_call(call: &mut Call, cx: &mut Context<'_>) -> Poll<Result<Json, JobError>> {
    catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "the handler panicked".to_owned());
        Poll::Ready(Err(JobError::retry("Panic", text)))
    })
}

/// A message in hand; a worker that has crashed leaves it to its deadline.
pub(super) struct HeldOne {
    pub(super) delivery: Option<Delivery>,
    pub(super) worker: Arc<WorkerShared>,
    pub(super) number: u64,
}

impl Drop for HeldOne {
    fn drop(&mut self) {
        self.worker.running.lock().remove(&self.number);
        if self.worker.crashed.load(Ordering::SeqCst)
            && let Some(delivery) = self.delivery.take()
        {
            delivery.into_ack_id();
        }
    }
}

/// One job to its end.
pub(super) async fn run_one(
    engine: Arc<Engine>,
    mut held: HeldOne,
    begun: Begun,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let Begun { running, work } = begun;
    // It may have been called off before it was known here.
    if let Ok(Some(job)) = engine.store.get(&running.id)
        && job.cancel_requested()
    {
        running.tell(Stop::Cancelled);
    }
    let answer = match work {
        Work::Write(verdict, progress) => Some((verdict, progress)),
        Work::Call(call) => {
            let answer = wait(&running, call).await;
            answer.map(|answer| (verdict(answer), running.take_progress()))
        }
    };
    let how = match answer {
        Some((verdict, progress)) => {
            finish_one(&engine, &running, verdict, progress, held.worker.lease).await
        }
        None => Settle::After(Duration::ZERO),
    };
    if let Some(delivery) = held.delivery.take() {
        settle(delivery, how);
    }
}

/// The handler's answer; `None` if it does not count any more. The handler is dropped where it is.
async fn wait(running: &Running, mut call: Call) -> Option<Result<Json, JobError>> {
    let mut ended = pin!(running.ended());
    poll_fn(|cx| match poll_call(&mut call, cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => ended.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Writes the end of a job, trying again while the store fails and the job is this worker's.
async fn finish_one(
    engine: &Arc<Engine>,
    running: &Running,
    verdict: Verdict,
    progress: Option<Progress>,
    lease: Duration,
) -> Settle {
    loop {
        let (id, attempt) = (running.id.clone(), running.attempt);
        let (said, shown) = (verdict.clone(), progress.clone());
        match engine.commit(move |tx| tx.finish(&id, attempt, said, shown)).await {
            Ok(finished) => return settle_of(&finished, lease),
            Err(_) if running.is_over() => return Settle::After(lease),
            Err(_) => engine.bus.sleep(STORE_PAUSE).await,
        }
    }
}

pub(super) fn verdict(answer: Result<Json, JobError>) -> Verdict {
    match answer {
        Ok(result) => Verdict::Ok(result),
        Err(JobError::Retry(failure)) => Verdict::Retry(cut(failure), None),
        Err(JobError::RetryAfter(failure, delay)) => Verdict::Retry(cut(failure), Some(delay)),
        Err(JobError::Permanent(failure)) => Verdict::Permanent(cut(failure)),
        Err(JobError::Cancelled) => Verdict::Cancelled,
    }
}

/// Failures may be built without their limits.
fn cut(failure: Failure) -> Failure {
    Failure::new(failure.name, failure.message)
}

pub(super) fn settle_of(finished: &Result<Settle, Changed>, lease: Duration) -> Settle {
    match finished {
        Ok(how) => *how,
        Err(Changed::Absent | Changed::Refused(Refused::AlreadyFinal { .. })) => Settle::Ack,
        // Somebody else has the job; whether this message is still needed shows then.
        Err(Changed::Refused(_)) => Settle::After(lease),
    }
}

pub(super) fn settle(delivery: Delivery, how: Settle) {
    match how {
        Settle::Ack => drop(delivery.ack()),
        Settle::After(delay) => drop(delivery.nack_after(delay)),
    }
}
