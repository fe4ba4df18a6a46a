//! The transitions of jobs as they are written: the state machine's answers, and the rows of the
//! outbox that belong into the same transaction (J-35, J-36).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::document::{AttemptOutcome, DEFAULT_QUEUE, Failure, Job, Progress, Status};
use crate::engine::{After, Counts, Engine, Place};
use crate::error::StoreError;
use crate::gate::Admission;
use crate::handler::{Kind, KnownKinds};
use crate::id::JobId;
use crate::json::Json;
use crate::machine::{Cancel, Claim, Outcome, Refused, Swept};
use crate::message::job_message;
use crate::running::Stop;
use crate::store::{OutboxKey, OutboxMessage, OutboxRow, StoreTx};
use crate::time::Timestamp;

/// A transaction at an instant, with what has to follow it.
pub(crate) struct Tx<'a> {
    pub(crate) tx: &'a mut dyn StoreTx,
    pub(crate) engine: &'a Engine,
    pub(crate) now: Timestamp,
    pub(crate) after: &'a mut After,
    kinds: KnownKinds,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(
        tx: &'a mut dyn StoreTx,
        engine: &'a Engine,
        now: Timestamp,
        after: &'a mut After,
    ) -> Self {
        Self { tx, engine, now, after, kinds: KnownKinds::default() }
    }
}

/// What a handler said.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Ok(Json),
    Retry(Failure, Option<Duration>),
    Permanent(Failure),
    Cancelled,
}

/// A job that a worker has claimed.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) kind: Arc<Kind>,
    pub(crate) args: Json,
    pub(crate) attempt: u32,
    pub(crate) priority: i32,
    pub(crate) correlation_id: Option<Arc<str>>,
}

/// What came of a claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    Start(Started),
    /// The message has served its turn.
    Ack,
    /// The message is needed later.
    After(Duration),
}

/// What to do with a job's message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    Ack,
    After(Duration),
}

impl Tx<'_> {
    /// Files a job's message, to be published after the commit or when its time comes.
    pub(crate) fn file_start(
        &mut self,
        key: OutboxKey,
        place: Place,
        message: Option<siftbus::Message>,
    ) -> Result<(), StoreError> {
        self.after.changed.push(key.id.clone());
        let at_once = message.is_some();
        if !(at_once && self.engine.store.is_volatile()) {
            self.tx.push_outbox(&OutboxRow { key: key.clone(), message: None })?;
        }
        match message {
            Some(message) => {
                self.after.keys.push(key);
                self.after.messages.push(place, message);
            }
            None => self.after.due(Some(key.at)),
        }
        Ok(())
    }

    /// J-02, J-09, J-10: a worker was handed a job's message.
    pub(crate) fn claim(
        &mut self,
        id: &JobId,
        worker: &Arc<str>,
        lease: Duration,
    ) -> Result<Claimed, StoreError> {
        let (now, engine) = (self.now, self.engine);
        let mut claimed = Claimed::Ack;
        let mut entered = false;
        self.update(id, &mut |job, kind, counts| {
            if job.would_start(now) {
                match admit(engine, job, kind, now) {
                    Admission::Start(new) => entered = new,
                    Admission::Later(at) => {
                        claimed = Claimed::After(now.until(at));
                        return false;
                    }
                    // It gets another message when there is a place; a restart sends one anyway.
                    Admission::Wait => return false,
                }
            }
            let was_running = job.status == Status::Running;
            let version = job.version;
            claimed = match job.claim(now, worker, lease, &kind.rules) {
                Claim::Done => Claimed::Ack,
                Claim::Later(at) => Claimed::After(now.until(at)),
                Claim::Start => {
                    counts.started += 1;
                    Claimed::Start(Started {
                        args: job.args.clone(),
                        attempt: job.attempt,
                        priority: job.priority,
                        correlation_id: job
                            .extra
                            .as_ref()
                            .and_then(|extra| extra.correlation_id.clone()),
                        kind: Arc::clone(kind),
                    })
                }
            };
            let changed = job.version != version;
            if was_running && changed {
                counts.leases_lost += 1;
            }
            changed
        })?;
        if entered {
            self.after.entered.push(id.clone());
        }
        Ok(claimed)
    }

    /// Files a message for a job that was given a place (J-39).
    pub(crate) fn wake(&mut self, id: &JobId) -> Result<(), StoreError> {
        match self.tx.get(id)? {
            // One whose lease is over may wait as well.
            Some(job) if !job.status.is_final() => {
                let key = OutboxKey { at: self.now, id: id.clone(), number: 0 };
                self.file_start(key, Place::of(&job), Some(job_message(&job)))
            }
            _ => Ok(()),
        }
    }

    /// J-03.
    pub(crate) fn heartbeat(
        &mut self,
        id: &JobId,
        attempt: u32,
        lease: Duration,
        mut progress: Option<Progress>,
    ) -> Result<Result<(), Changed>, StoreError> {
        let now = self.now;
        let mut answer = Err(Changed::Absent);
        self.update(id, &mut |job, _, _| {
            let beat = job.heartbeat(attempt, now, lease, progress.take());
            answer = beat.map_err(Changed::Refused);
            answer.is_ok()
        })?;
        Ok(answer)
    }

    /// J-04, J-05, J-06, J-08. Answers what to do with the message.
    pub(crate) fn finish(
        &mut self,
        id: &JobId,
        attempt: u32,
        verdict: Verdict,
        mut progress: Option<Progress>,
    ) -> Result<Result<Settle, Changed>, StoreError> {
        let (now, engine) = (self.now, self.engine);
        let mut answer = Err(Changed::Absent);
        let mut verdict = Some(verdict);
        self.update(id, &mut |job, kind, counts| {
            let outcome = match verdict.take() {
                Some(Verdict::Ok(result)) => Outcome::Ok(result),
                Some(Verdict::Permanent(failure)) => Outcome::Permanent(failure),
                Some(Verdict::Retry(failure, after)) => {
                    let usual = || kind.retry.delay_of(attempt, &failure, engine.ids.random());
                    let at = now.after(after.unwrap_or_else(usual));
                    Outcome::Retry(failure, at)
                }
                Some(Verdict::Cancelled) | None => Outcome::Cancelled,
            };
            answer = match job.finish(attempt, outcome, progress.take(), now, &kind.rules) {
                Ok(()) if job.status == Status::Retrying => {
                    counts.retried += 1;
                    Ok(Settle::After(now.until(job.run_at)))
                }
                Ok(()) => Ok(Settle::Ack),
                Err(refused) => Err(Changed::Refused(refused)),
            };
            answer.is_ok()
        })?;
        Ok(answer)
    }

    /// J-07, J-08.
    pub(crate) fn cancel(&mut self, id: &JobId) -> Result<Result<Cancel, Changed>, StoreError> {
        let now = self.now;
        let mut answer = Err(Changed::Absent);
        let mut row = None;
        self.update(id, &mut |job, kind, _| {
            let (version, run_at) = (job.version, job.run_at);
            answer = job.cancel(now, &kind.rules).map_err(Changed::Refused);
            row = Some(OutboxKey { at: run_at, id: job.id.clone(), number: 0 });
            job.version != version
        })?;
        if let (Ok(Cancel::Done), Some(row)) = (&answer, row) {
            self.tx.remove_outbox(&row)?;
        }
        Ok(answer)
    }

    /// J-12.
    pub(crate) fn retry(&mut self, id: &JobId) -> Result<Result<(), Changed>, StoreError> {
        let now = self.now;
        let mut answer = Err(Changed::Absent);
        let mut message = None;
        self.update(id, &mut |job, _, _| {
            answer = job.retry(now).map_err(Changed::Refused);
            if answer.is_ok() {
                message = Some((Place::of(job), job_message(job)));
            }
            answer.is_ok()
        })?;
        if let Some((place, message)) = message {
            let key = OutboxKey { at: now, id: id.clone(), number: 0 };
            self.file_start(key, place, Some(message))?;
        }
        Ok(answer)
    }

    /// J-08, J-11, J-13.
    pub(crate) fn sweep(&mut self, id: &JobId) -> Result<Option<Stop>, StoreError> {
        let now = self.now;
        let mut swept = Swept::Nothing;
        let mut stop = None;
        self.update(id, &mut |job, kind, _| {
            let was_running = job.status == Status::Running;
            swept = job.sweep(now, &kind.rules);
            let deadline = job
                .attempts
                .last()
                .is_some_and(|attempt| attempt.outcome == Some(AttemptOutcome::Deadline));
            if was_running && swept == Swept::Changed {
                stop = Some(if deadline { Stop::DeadlineExceeded } else { Stop::Cancelled });
            }
            swept == Swept::Changed
        })?;
        if swept == Swept::Remove {
            self.remove(id)?;
        }
        Ok(stop)
    }

    /// Removes a job whose time is over (J-13).
    pub(crate) fn remove(&mut self, id: &JobId) -> Result<(), StoreError> {
        self.tx.remove(id)?;
        self.after.changed.push(id.clone());
        self.after.counts.expired += 1;
        Ok(())
    }

    /// Changes a document; a job that comes to a final state leaves its messages in the outbox.
    fn update(&mut self, id: &JobId, change: &mut Change<'_>) -> Result<(), StoreError> {
        let Self { tx, engine, after, kinds, .. } = self;
        let mut rows = Vec::new();
        let mut due = None;
        let mut changed = false;
        let mut runs = false;
        tx.update(id, &mut |job| {
            let was_final = job.status.is_final();
            let kind = kinds.of(engine, &job.kind);
            changed = change(job, kind, &mut after.counts);
            if changed {
                due = job.due();
                runs = job.status == Status::Running;
            }
            if changed && !was_final && job.status.is_final() {
                after.finished(job.status, kind);
                rows = final_rows(engine, job);
            }
            changed
        })?;
        if changed {
            after.changed.push(id.clone());
            if !runs {
                after.left.push(id.clone());
            }
            after.due(due);
        }
        for row in &rows {
            tx.push_outbox(row)?;
            after.due(Some(row.key.at));
        }
        Ok(())
    }
}

/// What is done to a document of a kind; answers whether it was changed.
type Change<'c> = dyn FnMut(&mut Job, &Arc<Kind>, &mut Counts) -> bool + 'c;

/// Asks whether the limits let a job start (J-39).
fn admit(engine: &Engine, job: &Job, kind: &Kind, now: Timestamp) -> Admission {
    let limits = &engine.settings.queue_limits;
    let queue = match limits.is_empty() {
        true => None,
        false => limits.get_key_value(job.queue.as_deref().unwrap_or(DEFAULT_QUEUE)),
    };
    engine.gate.admit(job, &kind.limits, queue.map(|(name, max)| (name, *max)), now)
}

/// Why a job was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Absent,
    Refused(Refused),
}

impl Changed {
    pub(crate) fn error(self, id: &JobId) -> crate::error::JobsError {
        match self {
            Changed::Absent => crate::error::JobsError::NotFound(id.clone()),
            Changed::Refused(reason) => crate::error::JobsError::refused(id, reason),
        }
    }
}

/// The completion event (J-36) and the dead letter (J-06) of a job that has ended.
fn final_rows(engine: &Engine, job: &Job) -> Vec<OutboxRow> {
    let mut rows = Vec::new();
    let mut push = |topic: &str, attributes: BTreeMap<String, String>, data: String| {
        let at = job.finished_at.unwrap_or(Timestamp::FIRST);
        let number = job.version * 2 + rows.len() as u64;
        let key = OutboxKey { at, id: job.id.clone(), number };
        let message = OutboxMessage { topic: topic.to_owned(), attributes, data };
        rows.push(OutboxRow { key, message: Some(message) });
    };
    if let Some(events) = &engine.settings.events {
        let mut attributes = BTreeMap::from([
            ("job_id".to_owned(), job.id.to_string()),
            ("kind".to_owned(), job.kind.to_string()),
            ("status".to_owned(), job.status.to_string()),
        ]);
        if let Some(id) = job.correlation_id() {
            attributes.insert("correlid".to_owned(), id.to_owned());
        }
        push(events.name(), attributes, job.view().as_str().to_owned());
    }
    if let Some(dead_letters) = &engine.settings.dead_letters
        && job.status == Status::Failed
    {
        let message = job_message(job);
        let mut attributes: BTreeMap<String, String> =
            message.attributes().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let error = job.error().cloned().unwrap_or_default();
        attributes.insert("error".to_owned(), error.name);
        attributes.insert("attempt".to_owned(), job.attempt.to_string());
        push(dead_letters.name(), attributes, job.args.as_str().to_owned());
    }
    rows
}
