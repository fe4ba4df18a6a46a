//! The state machine of a job (2.1): what may happen to a document, and what it changes.
//!
//! Pure: the time is an argument, nothing is stored or sent here. A refused event changes nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::document::{Attempt, AttemptOutcome, Failure, Job, Lease, Progress, Status};
use crate::json::Json;
use crate::limits::{
    DEFAULT_CANCEL_GRACE, DEFAULT_COMPLETED_TTL, DEFAULT_FAILED_TTL, MAX_ATTEMPTS_KEPT,
};
use crate::time::Timestamp;

/// What holds for all jobs of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) completed_ttl: Duration,
    pub(crate) failed_ttl: Duration,
    pub(crate) cancel_grace: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            completed_ttl: DEFAULT_COMPLETED_TTL,
            failed_ttl: DEFAULT_FAILED_TTL,
            cancel_grace: DEFAULT_CANCEL_GRACE,
        }
    }
}

/// Why a document was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The state does not allow the event.
    #[error("{event} is not possible in state {from}")]
    InvalidTransition {
        /// The state.
        from: Status,
        /// The event.
        event: &'static str,
    },
    /// Another attempt has begun since (J-33).
    #[error("this attempt is over; attempt {current} is the current one")]
    StaleAttempt {
        /// The current attempt.
        current: u32,
    },
    /// The lease has run out (J-03).
    #[error("the lease has run out")]
    LeaseLost,
    /// The job has come to a final state.
    #[error("the job is {status} already")]
    AlreadyFinal {
        /// The state.
        status: Status,
    },
}

/// What a worker that was handed a job's message has to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Run it (J-02, J-09).
    Start,
    /// Nothing: the job is over, maybe as of now (J-10, J-11).
    Done,
    /// Come back later: it may not start yet, or somebody has it.
    Later(Timestamp),
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Ok(Json),
    /// To be tried again at an instant, if attempts are left.
    Retry(Failure, Timestamp),
    Permanent(Failure),
    Cancelled,
}

/// What a sweep found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Swept {
    /// Nothing is due.
    Nothing,
    /// The job has come to a final state (J-08, J-11).
    Changed,
    /// The document is to be removed (J-13).
    Remove,
}

/// What came of asking for a job to be cancelled.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It is cancelled (J-07).
    Done,
    /// Its handler was told to stop (J-08).
    Requested,
}

impl Job {
    /// J-02, J-09, J-10, J-11: a worker takes the job.
    pub(crate) fn claim(
        &mut self,
        now: Timestamp,
        worker: &Arc<str>,
        lease: Duration,
        rules: &Rules,
    ) -> Claim {
        if self.status.is_final() {
            return Claim::Done;
        }
        if self.sweep(now, rules) == Swept::Changed {
            return Claim::Done;
        }
        if self.status == Status::Running {
            if let Some(lease) = &self.lease
                && lease.until > now
            {
                return Claim::Later(lease.until);
            }
            self.end_attempt(now, AttemptOutcome::Lost, None);
            if self.cancel_requested() {
                self.finish_as(Status::Cancelled, None, now, rules);
                return Claim::Done;
            }
            if self.attempts_used() >= self.max_attempts {
                let message = format!("attempt {} was lost, and it was the last one", self.attempt);
                let failure = Failure::new("LeaseLost", message);
                self.finish_as(Status::Failed, Some(failure), now, rules);
                return Claim::Done;
            }
        } else if self.run_at > now {
            return Claim::Later(self.run_at);
        }
        self.begin_attempt(now, worker, lease);
        Claim::Start
    }

    /// Whether [`claim`](Self::claim) would begin an attempt, deadlines aside.
    pub(crate) fn would_start(&self, now: Timestamp) -> bool {
        match self.status {
            Status::Created | Status::Retrying => self.run_at <= now,
            Status::Running => {
                self.lease.as_ref().is_none_or(|lease| lease.until <= now)
                    && !self.cancel_requested()
                    && self.attempts_used() < self.max_attempts
            }
            Status::Completed | Status::Failed | Status::Cancelled => false,
        }
    }

    fn begin_attempt(&mut self, now: Timestamp, worker: &Arc<str>, lease: Duration) {
        self.status = Status::Running;
        self.attempt += 1;
        self.started_at.get_or_insert(now);
        self.heartbeat_at = Some(now);
        self.lease = Some(Lease { owner: Arc::clone(worker), until: now.after(lease) });
        if self.attempts.len() == MAX_ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
        self.attempts.push(Attempt {
            n: self.attempt,
            worker: Arc::clone(worker),
            started_at: now,
            ended_at: None,
            outcome: None,
            error: None,
        });
        if let Some(extra) = &mut self.extra {
            extra.progress = None;
        }
        self.version += 1;
    }

    /// J-03: a worker says that it is alive.
    pub(crate) fn heartbeat(
        &mut self,
        attempt: u32,
        now: Timestamp,
        lease: Duration,
        progress: Option<Progress>,
    ) -> Result<(), Refused> {
        self.check_attempt(attempt, "heartbeat")?;
        match &mut self.lease {
            Some(held) if held.until > now => held.until = now.after(lease),
            _ => return Err(Refused::LeaseLost),
        }
        self.heartbeat_at = Some(now);
        self.set_progress(progress);
        self.version += 1;
        Ok(())
    }

    /// J-24: a lower number is taken, and flagged for the rest of the attempt.
    fn set_progress(&mut self, progress: Option<Progress>) {
        let Some(mut progress) = progress else { return };
        if let Some(before) = self.progress() {
            progress.progress_reset |= before.progress_reset || progress.done < before.done;
        }
        self.extra_mut().progress = Some(progress);
    }

    /// J-04, J-05, J-06, J-08: an attempt has ended.
    pub(crate) fn finish(
        &mut self,
        attempt: u32,
        outcome: Outcome,
        progress: Option<Progress>,
        now: Timestamp,
        rules: &Rules,
    ) -> Result<(), Refused> {
        self.check_attempt(attempt, "finish")?;
        self.set_progress(progress);
        let cancelled = self.cancel_requested();
        match outcome {
            Outcome::Ok(result) => {
                self.end_attempt(now, AttemptOutcome::Ok, None);
                if cancelled {
                    self.finish_as(Status::Cancelled, None, now, rules);
                } else {
                    self.result = Some(result);
                    self.finish_as(Status::Completed, None, now, rules);
                }
            }
            Outcome::Cancelled => {
                self.end_attempt(now, AttemptOutcome::Cancelled, None);
                self.finish_as(Status::Cancelled, None, now, rules);
            }
            Outcome::Retry(failure, run_at) => {
                let deadline_passed = self.deadline.is_some_and(|deadline| deadline <= now);
                let left = self.attempts_used() < self.max_attempts && !deadline_passed;
                self.fail_attempt(failure, left.then_some(run_at), now, rules);
            }
            Outcome::Permanent(failure) => self.fail_attempt(failure, None, now, rules),
        }
        Ok(())
    }

    fn fail_attempt(
        &mut self,
        failure: Failure,
        retry_at: Option<Timestamp>,
        now: Timestamp,
        rules: &Rules,
    ) {
        self.end_attempt(now, AttemptOutcome::Error, Some(failure.clone()));
        self.extra_mut().last_error = Some(failure.clone());
        match retry_at {
            _ if self.cancel_requested() => self.finish_as(Status::Cancelled, None, now, rules),
            Some(run_at) => {
                self.status = Status::Retrying;
                self.lease = None;
                self.run_at = run_at.max(now);
                self.version += 1;
            }
            None => self.finish_as(Status::Failed, Some(failure), now, rules),
        }
    }

    /// J-07, J-08: somebody calls the job off.
    pub(crate) fn cancel(&mut self, now: Timestamp, rules: &Rules) -> Result<Cancel, Refused> {
        match self.status {
            Status::Created | Status::Retrying => {
                self.finish_as(Status::Cancelled, None, now, rules);
                Ok(Cancel::Done)
            }
            Status::Running => {
                if !self.cancel_requested() {
                    self.extra_mut().cancel_by = Some(now.after(rules.cancel_grace));
                    self.version += 1;
                }
                Ok(Cancel::Requested)
            }
            status => Err(Refused::AlreadyFinal { status }),
        }
    }

    /// J-12: a person has a finished job run again. Its deadline has served its turn.
    pub(crate) fn retry(&mut self, now: Timestamp) -> Result<(), Refused> {
        if !self.status.is_final() {
            return Err(Refused::InvalidTransition { from: self.status, event: "retry" });
        }
        self.status = Status::Created;
        self.run_at = now;
        self.finished_at = None;
        self.expires_at = None;
        self.deadline = None;
        self.result = None;
        let attempt = self.attempt;
        let extra = self.extra_mut();
        extra.manual_retries += 1;
        extra.first_attempt = attempt;
        extra.error = None;
        extra.progress = None;
        extra.cancel_by = None;
        self.version += 1;
        Ok(())
    }

    /// J-08, J-11, J-13: what time alone does.
    pub(crate) fn sweep(&mut self, now: Timestamp, rules: &Rules) -> Swept {
        if self.status.is_final() {
            return match self.expires_at {
                Some(expires) if expires <= now => Swept::Remove,
                _ => Swept::Nothing,
            };
        }
        if let Some(deadline) = self.deadline
            && deadline <= now
        {
            self.end_attempt(now, AttemptOutcome::Deadline, None);
            let failure = Failure::new("DeadlineExceeded", format!("not finished by {deadline}"));
            self.finish_as(Status::Failed, Some(failure), now, rules);
            return Swept::Changed;
        }
        if self.status == Status::Running && self.cancel_by().is_some_and(|by| by <= now) {
            self.end_attempt(now, AttemptOutcome::Cancelled, None);
            self.finish_as(Status::Cancelled, None, now, rules);
            return Swept::Changed;
        }
        Swept::Nothing
    }

    fn check_attempt(&self, attempt: u32, event: &'static str) -> Result<(), Refused> {
        if attempt < self.attempt {
            return Err(Refused::StaleAttempt { current: self.attempt });
        }
        match self.status {
            Status::Running if attempt == self.attempt => Ok(()),
            status if status.is_final() => Err(Refused::AlreadyFinal { status }),
            from => Err(Refused::InvalidTransition { from, event }),
        }
    }

    /// Ends the attempt that runs, if one does.
    fn end_attempt(&mut self, now: Timestamp, outcome: AttemptOutcome, error: Option<Failure>) {
        if self.status != Status::Running {
            return;
        }
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended_at = Some(now);
            attempt.outcome = Some(outcome);
            attempt.error = error.map(Arc::new);
        }
    }

    fn finish_as(&mut self, status: Status, error: Option<Failure>, now: Timestamp, rules: &Rules) {
        let ttl = match status {
            Status::Completed => rules.completed_ttl,
            _ => rules.failed_ttl,
        };
        self.status = status;
        self.lease = None;
        self.finished_at = Some(now);
        self.expires_at = Some(now.after(ttl));
        if let Some(error) = error {
            self.extra_mut().error = Some(error);
        }
        self.version += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{IdSource, Random};
    use crate::new_job::NewJob;

    const LEASE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000 + seconds * 1_000)
    }

    fn job(max_attempts: u32) -> Job {
        let id = IdSource::new(1, Default::default()).next(at(0));
        NewJob::with_json("k", Json::null()).into_job(id, max_attempts, at(0))
    }

    fn failure() -> Failure {
        Failure::new("Down", "no answer")
    }

    #[test]
    fn attempts_that_are_kept_are_the_last_twenty() {
        // J-23
        let (mut job, worker, rules) = (job(1_000), "w".into(), Rules::default());
        for n in 0..=MAX_ATTEMPTS_KEPT as u64 {
            let now = at(n * 10);
            assert_eq!(job.claim(now, &worker, LEASE, &rules), Claim::Start);
            job.finish(job.attempt, Outcome::Retry(failure(), now), None, now, &rules).unwrap();
            let kept = (n as usize + 1).min(MAX_ATTEMPTS_KEPT);
            assert_eq!(job.attempts.len(), kept);
        }
        assert_eq!(job.attempts.first().unwrap().n, 2);
    }

    #[test]
    fn progress_that_goes_back_is_flagged() {
        // J-24
        let (mut job, worker, rules) = (job(5), "w".into(), Rules::default());
        job.claim(at(0), &worker, LEASE, &rules);
        for (done, reset) in [(3, false), (3, false), (2, true), (9, true)] {
            let progress = Progress::new(done, 10, "");
            job.heartbeat(1, at(1), LEASE, Some(progress)).unwrap();
            let seen = job.progress().unwrap();
            assert_eq!((seen.done, seen.progress_reset), (done, reset));
        }
        job.heartbeat(1, at(1), LEASE, None).unwrap();
        assert_eq!(job.progress().unwrap().done, 9, "nothing new is said");
    }

    /// What the table of transitions allows, by hand: state, attempts used, lease, cancel request.
    #[derive(Clone, Debug)]
    struct Model {
        status: Status,
        attempt: u32,
        used: u32,
        run_at: Timestamp,
        lease_until: Timestamp,
        deadline: Option<Timestamp>,
        cancel_by: Option<Timestamp>,
        expires: Timestamp,
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Claim,
        Heartbeat { stale: bool },
        Ok { stale: bool },
        Retry { delay: u64 },
        Permanent,
        Cancelled,
        Cancel,
        RetryByHand,
        Sweep,
    }

    const EVENTS: [Event; 12] = [
        Event::Claim,
        Event::Claim,
        Event::Heartbeat { stale: false },
        Event::Heartbeat { stale: true },
        Event::Ok { stale: false },
        Event::Ok { stale: true },
        Event::Retry { delay: 3 },
        Event::Permanent,
        Event::Cancelled,
        Event::Cancel,
        Event::RetryByHand,
        Event::Sweep,
    ];

    impl Model {
        fn end(&mut self, status: Status, now: Timestamp, rules: &Rules) {
            let done = status == Status::Completed;
            self.status = status;
            self.expires = now.after(if done { rules.completed_ttl } else { rules.failed_ttl });
        }

        /// The state after an event that is allowed, `None` for one that is refused.
        fn after(&self, event: Event, now: Timestamp, max: u32, rules: &Rules) -> Option<Model> {
            use Status::{Cancelled, Completed, Created, Failed, Retrying, Running};
            let mut next = self.clone();
            let is_final = self.status.is_final();
            let overdue = !is_final && self.deadline.is_some_and(|deadline| deadline <= now);
            let grace_over = self.status == Running && self.cancel_by.is_some_and(|by| by <= now);
            match event {
                Event::Claim | Event::Sweep if overdue => next.end(Failed, now, rules),
                Event::Claim | Event::Sweep if grace_over => next.end(Cancelled, now, rules),
                Event::Claim => match self.status {
                    Created | Retrying if self.run_at <= now => next.start(now),
                    Running if self.lease_until <= now => {
                        if self.cancel_by.is_some() {
                            next.end(Cancelled, now, rules);
                        } else if self.used >= max {
                            next.end(Failed, now, rules);
                        } else {
                            next.start(now);
                        }
                    }
                    _ => {}
                },
                Event::Sweep => {}
                Event::Heartbeat { stale: true } | Event::Ok { stale: true } => return None,
                Event::Heartbeat { .. } if self.status == Running && self.lease_until > now => {
                    next.lease_until = now.after(LEASE);
                }
                Event::Heartbeat { .. } => return None,
                Event::Ok { .. } | Event::Retry { .. } | Event::Permanent | Event::Cancelled
                    if self.status != Running =>
                {
                    return None;
                }
                Event::Ok { .. } if self.cancel_by.is_none() => next.end(Completed, now, rules),
                Event::Retry { delay } if self.cancel_by.is_none() => {
                    if self.used < max && !overdue {
                        next.status = Retrying;
                        next.run_at = now.after(Duration::from_secs(delay));
                    } else {
                        next.end(Failed, now, rules);
                    }
                }
                Event::Permanent if self.cancel_by.is_none() => next.end(Failed, now, rules),
                Event::Ok { .. } | Event::Retry { .. } | Event::Permanent | Event::Cancelled => {
                    next.end(Cancelled, now, rules);
                }
                Event::Cancel => match self.status {
                    Created | Retrying => next.end(Cancelled, now, rules),
                    Running if self.cancel_by.is_none() => {
                        next.cancel_by = Some(now.after(rules.cancel_grace));
                    }
                    Running => {}
                    _ => return None,
                },
                Event::RetryByHand if is_final => {
                    next.status = Created;
                    next.used = 0;
                    next.run_at = now;
                    next.deadline = None;
                    next.cancel_by = None;
                }
                Event::RetryByHand => return None,
            }
            Some(next)
        }

        fn start(&mut self, now: Timestamp) {
            self.status = Status::Running;
            self.attempt += 1;
            self.used += 1;
            self.lease_until = now.after(LEASE);
        }
    }

    fn apply(job: &mut Job, event: Event, now: Timestamp, rules: &Rules) -> Result<(), Refused> {
        let attempt = job.attempt;
        let mut finish = |attempt, outcome| job.finish(attempt, outcome, None, now, rules);
        match event {
            Event::Claim => {
                job.claim(now, &"w".into(), LEASE, rules);
                Ok(())
            }
            Event::Heartbeat { stale } => {
                job.heartbeat(attempt.saturating_sub(u32::from(stale)), now, LEASE, None)
            }
            Event::Ok { stale } => {
                finish(attempt.saturating_sub(u32::from(stale)), Outcome::Ok(Json::null()))
            }
            Event::Retry { delay } => {
                finish(attempt, Outcome::Retry(failure(), now.after(Duration::from_secs(delay))))
            }
            Event::Permanent => finish(attempt, Outcome::Permanent(failure())),
            Event::Cancelled => finish(attempt, Outcome::Cancelled),
            Event::Cancel => job.cancel(now, rules).map(drop),
            Event::RetryByHand => job.retry(now),
            Event::Sweep => {
                job.sweep(now, rules);
                Ok(())
            }
        }
    }

    /// Random events against the table of transitions: J-01 … J-13, J-33.
    #[test]
    fn random_events_do_what_the_table_says() {
        let rules = Rules::default();
        for seed in 0..500 {
            let random = Random::new(seed);
            let pick = |n: usize| (random.next() % n as u64) as usize;
            let max = 1 + pick(4) as u32;
            let mut job = job(max);
            job.deadline = (pick(4) == 0).then(|| at(pick(60) as u64));
            let mut model = Model {
                status: Status::Created,
                attempt: 0,
                used: 0,
                run_at: at(0),
                lease_until: at(0),
                deadline: job.deadline,
                cancel_by: None,
                expires: at(0),
            };
            let mut now = at(0);
            for step in 0..60 {
                now = now.after(Duration::from_secs([0, 0, 1, 3, 12][pick(5)]));
                let event = EVENTS[pick(EVENTS.len())];
                // Without an attempt there is no stale one.
                let allowed = match (model.attempt, event) {
                    (0, Event::Heartbeat { .. } | Event::Ok { .. }) => None,
                    _ => model.after(event, now, max, &rules),
                };
                let before = job.clone();
                let done = apply(&mut job, event, now, &rules);
                let place = format!("seed {seed}, step {step}, {event:?} on {before:?}");
                let Some(next) = allowed else {
                    assert!(done.is_err(), "{place}");
                    assert_eq!(job, before, "a refused event changes nothing: {place}");
                    continue;
                };
                assert_eq!(done, Ok(()), "{place}");
                assert_eq!((job.status, job.attempt), (next.status, next.attempt), "{place}");
                assert_eq!(job.attempts_used(), next.used, "{place}");
                if next.status == Status::Running {
                    assert_eq!(job.lease.as_ref().unwrap().until, next.lease_until, "{place}");
                    assert_eq!(job.cancel_by(), next.cancel_by, "{place}");
                }
                if next.status.is_final() {
                    assert_eq!(job.expires_at, Some(next.expires), "{place}");
                }
                invariants(&job, &before, &place);
                model = next;
            }
        }
    }

    fn invariants(job: &Job, before: &Job, place: &str) {
        assert!(job.attempt >= before.attempt, "{place}");
        assert_eq!(job.version > before.version, job != before, "J-22: {place}");
        assert_eq!(job.lease.is_some(), job.status == Status::Running, "{place}");
        assert_eq!(job.finished_at.is_some(), job.status.is_final(), "{place}");
        assert_eq!(job.result.is_some(), job.status == Status::Completed, "{place}");
        assert_eq!(job.error().is_some(), job.status == Status::Failed, "{place}");
        assert!(job.started_at >= before.started_at, "{place}");
        assert!(job.heartbeat_at >= before.heartbeat_at, "{place}");
        let open = job.attempts.iter().filter(|attempt| attempt.outcome.is_none()).count();
        assert_eq!(open, usize::from(job.status == Status::Running), "{place}");
    }
}
