//! Submitting: documents are made before the transaction and filed in it (J-01, A-S0-j).

use std::collections::HashMap;

use siftbus::Message;

use crate::document::Job;
use crate::engine::{Engine, Place};
use crate::error::{StoreError, SubmitError};
use crate::handler::KnownKinds;
use crate::id::JobId;
use crate::message::{job_message, job_messages};
use crate::new_job::NewJob;
use crate::store::OutboxKey;
use crate::time::Timestamp;
use crate::transitions::Tx;

/// What came of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The job's id.
    pub id: JobId,
    /// Whether the job is new; not so if its idempotency key or id was used for the same job.
    pub is_new: bool,
}

/// A job that is ready to be filed.
pub(crate) struct Prepared {
    job: Box<Job>,
    /// Whether the caller has given the id.
    named: bool,
    /// Unless it starts later.
    message: Option<Message>,
}

/// Makes the documents of jobs that were checked, and their messages.
pub(crate) fn prepare(engine: &Engine, jobs: Vec<NewJob>, now: Timestamp) -> Vec<Prepared> {
    let mut kinds = KnownKinds::default();
    let prepare = |mut new: NewJob| {
        let max_attempts = kinds.of(engine, &new.kind).max_attempts;
        let given = new.id.take();
        let named = given.is_some();
        let id = given.unwrap_or_else(|| engine.ids.next(now));
        let job = Box::new(new.into_job(id, max_attempts, now));
        Prepared { job, named, message: None }
    };
    let mut prepared: Vec<Prepared> = jobs.into_iter().map(prepare).collect();
    let starts = |job: &&Prepared| job.job.run_at <= now;
    let messages = job_messages(prepared.iter().filter(starts).map(|job| &*job.job));
    let starting = prepared.iter_mut().filter(|job| starts(&&**job));
    starting.zip(messages).for_each(|(job, message)| job.message = Some(message));
    prepared
}

/// Where a job to be submitted is already.
enum Known {
    No,
    As(JobId),
    /// At this place of the same submission.
    Before(usize),
}

/// The first place of each key and each given id in a submission.
#[derive(Default)]
struct Places<'a> {
    keys: HashMap<&'a str, usize>,
    ids: HashMap<&'a JobId, usize>,
}

impl Prepared {
    fn key(&self) -> Option<&str> {
        self.job.idempotency_key()
    }

    /// Whether the other one is this one submitted again.
    fn repeats(&self, other: &Job) -> bool {
        other.kind == self.job.kind
            && other.args.means(&self.job.args)
            && (!self.named || other.id == self.job.id)
    }

    fn conflict(&self, by_key: bool, id: &JobId) -> SubmitError {
        let (field, key) = match self.key().filter(|_| by_key) {
            Some(key) => ("idempotency_key", key.to_owned()),
            None => ("id", self.job.id.to_string()),
        };
        SubmitError::Conflict { field, key, id: id.clone() }
    }
}

impl Tx<'_> {
    /// J-01: all of the jobs or none; a job that was submitted before is answered again.
    pub(crate) fn submit(
        &mut self,
        jobs: Vec<Prepared>,
    ) -> Result<Result<Vec<Submission>, SubmitError>, StoreError> {
        let mut known = Vec::new();
        if jobs.iter().any(|job| job.named || job.key().is_some()) {
            let mut places = Places::default();
            for (place, job) in jobs.iter().enumerate() {
                match self.known(place, job, &jobs, &mut places)? {
                    Ok(answer) => known.push(answer),
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        let old = known.iter().filter(|known| !matches!(known, Known::No)).count();
        let max = self.engine.settings.max_unfinished;
        if old < jobs.len() && self.tx.unfinished()? + (jobs.len() - old) as u64 > max {
            return Ok(Err(SubmitError::TooMany { max }));
        }
        let mut known = known.into_iter();
        let mut submitted: Vec<Submission> = Vec::with_capacity(jobs.len());
        for job in jobs {
            let (id, is_new) = match known.next().unwrap_or(Known::No) {
                Known::No => (self.insert(job)?, true),
                Known::As(id) => (id, false),
                Known::Before(place) => {
                    let first = submitted.get(place).map(|submission| submission.id.clone());
                    (first.unwrap_or(job.job.id), false)
                }
            };
            submitted.push(Submission { id, is_new });
        }
        Ok(Ok(submitted))
    }

    /// Whether a job was submitted before, under its key or its id.
    fn known<'a>(
        &mut self,
        place: usize,
        job: &'a Prepared,
        all: &[Prepared],
        places: &mut Places<'a>,
    ) -> Result<Result<Known, SubmitError>, StoreError> {
        let of_key = job.key().map(|key| self.tx.job_of_key(key)).transpose()?.flatten();
        let by_key = of_key.is_some();
        if let Some(id) = of_key.or_else(|| job.named.then(|| job.job.id.clone()))
            && let Some(found) = self.tx.get(&id)?
        {
            if found.expires_at.is_some_and(|expires| expires <= self.now) {
                // Its time is over, and nobody has come by to remove it (J-13).
                self.remove(&id)?;
                return self.known(place, job, all, places);
            }
            return Ok(match job.repeats(&found) {
                true => Ok(Known::As(id)),
                false => Err(job.conflict(by_key, &id)),
            });
        }
        let first_of_key = job.key().map(|key| *places.keys.entry(key).or_insert(place));
        let first_of_id = job.named.then(|| *places.ids.entry(&job.job.id).or_insert(place));
        let before = |first: &usize| *first != place;
        let by_key = first_of_key.filter(before);
        let Some(first) = by_key.or(first_of_id.filter(before)) else { return Ok(Ok(Known::No)) };
        let Some(other) = all.get(first) else { return Ok(Ok(Known::No)) };
        Ok(match job.repeats(&other.job) && job.named == other.named {
            true => Ok(Known::Before(first)),
            false => Err(job.conflict(by_key.is_some(), &other.job.id)),
        })
    }

    fn insert(&mut self, new: Prepared) -> Result<JobId, StoreError> {
        let Prepared { mut job, mut message, .. } = new;
        self.after.due(job.due());
        let place = Place::of(&job);
        let key = loop {
            let key = OutboxKey { at: job.run_at, id: job.id.clone(), number: 0 };
            match self.tx.insert(job)? {
                None => break key,
                // An id made here can only be taken if seed and time repeat; a later one is free.
                Some(mut refused) => {
                    refused.id = self.engine.ids.next(self.now);
                    message = message.map(|_| job_message(&refused));
                    job = refused;
                }
            }
        };
        let id = key.id.clone();
        self.file_start(key, place, message)?;
        self.after.counts.submitted += 1;
        Ok(id)
    }
}
