//! Who watches which job, and what they are told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::document::Job;
use crate::id::JobId;
use crate::limits::WATCH_CAPACITY;

/// The watchers of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    watched: Mutex<HashMap<JobId, broadcast::Sender<Arc<Job>>>>,
    /// As many as there are in `watched`: commits look here first.
    count: AtomicUsize,
}

impl Hub {
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// What happens to a job from now on.
    pub(crate) fn watch(&self, id: &JobId) -> broadcast::Receiver<Arc<Job>> {
        let mut watched = self.watched.lock();
        let sender =
            watched.entry(id.clone()).or_insert_with(|| broadcast::channel(WATCH_CAPACITY).0);
        let receiver = sender.subscribe();
        self.count.store(watched.len(), Ordering::SeqCst);
        receiver
    }

    /// Forgets a job that nobody watches any more.
    pub(crate) fn unwatch(&self, id: &JobId) {
        let mut watched = self.watched.lock();
        if watched.get(id).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(id);
        }
        self.count.store(watched.len(), Ordering::SeqCst);
    }

    /// Those of the jobs that are watched.
    pub(crate) fn watched_of<'i>(&self, ids: &'i [JobId]) -> Vec<&'i JobId> {
        let watched = self.watched.lock();
        // A few are found faster by a look at each.
        let few = watched.len() <= 4;
        let is_watched = |id: &&JobId| match few {
            true => watched.keys().any(|watched| watched == *id),
            false => watched.contains_key(*id),
        };
        ids.iter().filter(is_watched).collect()
    }

    /// Tells of a change; `None`: the job is gone.
    pub(crate) fn tell(&self, id: &JobId, job: Option<Job>) {
        let mut watched = self.watched.lock();
        match job {
            Some(job) => {
                if let Some(sender) = watched.get(id) {
                    // Nobody listening is no error.
                    let _ = sender.send(Arc::new(job));
                }
            }
            None => drop(watched.remove(id)),
        }
        self.count.store(watched.len(), Ordering::SeqCst);
    }
}
