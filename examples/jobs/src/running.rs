//! A job that a worker of this program has in hand: its place to talk with the handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use siftbus::AckId;
use tokio::sync::Notify;

use crate::document::Progress;
use crate::handler::Kind;
use crate::id::JobId;
use crate::worker::WorkerShared;

/// Why a handler should stop.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody cancelled the job.
    Cancelled,
    /// The lease is lost, or about to be: another worker may start (J-31).
    LeaseLost,
    /// The job's deadline has passed.
    DeadlineExceeded,
}

/// One attempt in this program.
pub(crate) struct Running {
    pub(crate) id: JobId,
    pub(crate) kind: Arc<Kind>,
    pub(crate) attempt: u32,
    pub(crate) correlation_id: Option<Arc<str>>,
    pub(crate) worker: Arc<WorkerShared>,
    stop: AtomicU8,
    /// The job is over, or somebody else's: the handler's answer does not count any more.
    over: AtomicU8,
    changed: Notify,
    progress: Mutex<Option<Progress>>,
    /// The message, with the lane it came from.
    pub(crate) ack_id: Mutex<Option<(usize, AckId)>>,
    /// Heartbeats that failed in a row.
    pub(crate) missed: AtomicU8,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("stop", &self.stop())
            .finish_non_exhaustive()
    }
}

impl Running {
    pub(crate) fn new(
        worker: Arc<WorkerShared>,
        id: JobId,
        kind: Arc<Kind>,
        attempt: u32,
        correlation_id: Option<Arc<str>>,
    ) -> Self {
        Self {
            id,
            kind,
            attempt,
            correlation_id,
            worker,
            stop: AtomicU8::new(0),
            over: AtomicU8::new(0),
            changed: Notify::new(),
            progress: Mutex::new(None),
            ack_id: Mutex::new(None),
            missed: AtomicU8::new(0),
        }
    }

    pub(crate) fn set_progress(&self, done: u64, total: u64, note: &str) {
        let mut next = Progress::new(done, total, note);
        let mut progress = self.progress.lock();
        if let Some(before) = &*progress {
            next.progress_reset = before.progress_reset || next.done < before.done;
        }
        *progress = Some(next);
    }

    pub(crate) fn take_progress(&self) -> Option<Progress> {
        self.progress.lock().take()
    }

    /// Gives back a progress that could not be written, unless there is a newer one.
    pub(crate) fn return_progress(&self, progress: Option<Progress>) {
        let mut place = self.progress.lock();
        if place.is_none() {
            *place = progress;
        }
    }

    /// Tells the handler to stop; the first reason counts.
    pub(crate) fn tell(&self, stop: Stop) {
        let code = match stop {
            Stop::Cancelled => 1,
            Stop::LeaseLost => 2,
            Stop::DeadlineExceeded => 3,
        };
        let _ = self.stop.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) fn stop(&self) -> Option<Stop> {
        match self.stop.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(Stop::Cancelled),
            2 => Some(Stop::LeaseLost),
            _ => Some(Stop::DeadlineExceeded),
        }
    }

    pub(crate) async fn stopped(&self) -> Stop {
        loop {
            let changed = self.changed.notified();
            if let Some(stop) = self.stop() {
                return stop;
            }
            changed.await;
        }
    }

    /// Ends the attempt from outside.
    pub(crate) fn end(&self) {
        self.over.store(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) != 0
    }

    pub(crate) async fn ended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_over() {
                return;
            }
            changed.await;
        }
    }
}
