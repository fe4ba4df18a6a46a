//! Who may start now: limits per kind, per queue and per key, and rates per kind (J-39).
//!
//! A job has its place for as long as its document says that it runs, so a worker that died keeps
//! the place until the lease is over. Jobs without a place wait here, and are woken when there is
//! one; nothing polls. After a restart nobody has a place, and every job asks again (J-37). Limits
//! per worker are the worker's own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::document::Job;
use crate::id::JobId;
use crate::json::Json;
use crate::time::Timestamp;

/// How many jobs of a kind may start in a span: a token bucket on the bus's clock (J-39).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// From one start to the next, in nanoseconds.
    interval: u64,
    burst: u32,
}

impl RateLimit {
    /// So many starts per span, evenly spaced; a count or a span of zero counts as the smallest
    /// one there is.
    pub fn new(starts: u32, per: Duration) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        Self { interval: (per / u64::from(starts.max(1))).max(1), burst: 1 }
    }

    /// How many may start at once after a pause, at least 1. Default: 1.
    #[must_use]
    pub fn burst(mut self, starts: u32) -> Self {
        self.burst = starts.max(1);
        self
    }

    /// When the next one may start, and what `spent` is after that: the instant, in nanoseconds,
    /// at which the bucket is full again.
    fn take(&self, spent: u64, now: Timestamp) -> (Timestamp, u64) {
        let nanos = now.as_millis().saturating_mul(NANOS);
        let spent = spent.max(nanos);
        let ahead = self.interval.saturating_mul(u64::from(self.burst) - 1);
        let start = spent.saturating_sub(ahead).div_ceil(NANOS);
        (Timestamp::from_millis(start).max(now), spent.saturating_add(self.interval))
    }
}

/// Nanoseconds of a millisecond.
const NANOS: u64 = 1_000_000;

/// The limits of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) concurrency: Option<usize>,
    /// The path of an argument, and how many jobs may run for each of its values.
    pub(crate) key: Option<(Arc<str>, usize)>,
    pub(crate) rate: Option<RateLimit>,
}

/// What a limit counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    Kind(Arc<str>),
    Queue(Arc<str>),
    Key(Arc<str>, String),
}

type Scopes = SmallVec<[(Scope, usize); 3]>;

/// Whether a job may start.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may; `true`: it was given a place just now.
    Start(bool),
    /// Not before this instant.
    Later(Timestamp),
    /// It is woken when there is a place.
    Wait,
}

/// The places, and who waits for one.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    places: Mutex<Places>,
    /// Whether a limit was ever asked about.
    used: AtomicBool,
}

#[derive(Debug, Default)]
struct Places {
    /// How many have a place in a scope.
    taken: HashMap<Scope, usize>,
    held: HashMap<JobId, Scopes>,
    /// Under the scope that has no place, the highest priority and the longest wait first. Such a
    /// scope is full: whoever leaves hands the place on.
    waiting: HashMap<Scope, BTreeMap<Turn, Waiter>>,
    waits: HashMap<JobId, (Scope, Turn)>,
    tickets: u64,
    /// Have a place and need a message.
    woken: Vec<JobId>,
    /// When the buckets of kinds are full again.
    spent: HashMap<Arc<str>, u64>,
    /// Starts that were promised for an instant to come.
    booked: HashMap<JobId, Timestamp>,
}

type Turn = (Reverse<i32>, u64);

#[derive(Debug)]
struct Waiter {
    id: JobId,
    scopes: Scopes,
}

impl Gate {
    /// Asks for a job that could start otherwise.
    pub(crate) fn admit(
        &self,
        job: &Job,
        limits: &Limits,
        queue: Option<(&Arc<str>, usize)>,
        now: Timestamp,
    ) -> Admission {
        let mut scopes = Scopes::new();
        scopes.extend(queue.map(|(name, max)| (Scope::Queue(Arc::clone(name)), max)));
        scopes.extend(limits.concurrency.map(|max| (Scope::Kind(Arc::clone(&job.kind)), max)));
        if let Some((path, max)) = &limits.key
            && let Some(value) = value_at(&job.args, path)
        {
            scopes.push((Scope::Key(Arc::clone(&job.kind), value), *max));
        }
        if scopes.is_empty() && limits.rate.is_none() {
            return Admission::Start(false);
        }
        self.used.store(true, Ordering::SeqCst);
        let mut places = self.places.lock();
        if places.held.contains_key(&job.id) {
            return Admission::Start(false);
        }
        if places.waits.contains_key(&job.id) {
            return Admission::Wait;
        }
        if let Some(rate) = limits.rate
            && let Some(at) = places.book(job, rate, now)
        {
            return Admission::Later(at);
        }
        match places.enter(job.id.clone(), job.priority, scopes) {
            true => Admission::Start(true),
            false => Admission::Wait,
        }
    }

    /// The jobs do not run any more, or did not start after all; whoever waits gets the places.
    /// Answers whether somebody was woken.
    pub(crate) fn leave(&self, ids: &[JobId]) -> bool {
        if ids.is_empty() || !self.used.load(Ordering::SeqCst) {
            return false;
        }
        let mut places = self.places.lock();
        for id in ids {
            places.leave(id);
        }
        !places.woken.is_empty()
    }

    /// The jobs that have come to a place and need a message.
    pub(crate) fn take_woken(&self) -> Vec<JobId> {
        std::mem::take(&mut self.places.lock().woken)
    }

    /// Gives back jobs whose messages could not be filed.
    pub(crate) fn return_woken(&self, ids: Vec<JobId>) {
        self.places.lock().woken.extend(ids);
    }
}

impl Places {
    /// The instant a job has to wait for, if its kind has started as many as it may.
    fn book(&mut self, job: &Job, rate: RateLimit, now: Timestamp) -> Option<Timestamp> {
        let at = match self.booked.remove(&job.id) {
            Some(at) => at,
            None => {
                let spent = self.spent.entry(Arc::clone(&job.kind)).or_default();
                let (at, after) = rate.take(*spent, now);
                *spent = after;
                at
            }
        };
        (at > now).then(|| {
            self.booked.insert(job.id.clone(), at);
            at
        })
    }

    /// Takes a place in every scope, or waits for the first one that has none.
    fn enter(&mut self, id: JobId, priority: i32, scopes: Scopes) -> bool {
        self.tickets += 1;
        self.enter_with((Reverse(priority), self.tickets), id, scopes)
    }

    fn enter_with(&mut self, turn: Turn, id: JobId, scopes: Scopes) -> bool {
        let full = |(scope, max): &&(Scope, usize)| {
            self.taken.get(scope).is_some_and(|taken| taken >= max)
        };
        if let Some((scope, _)) = scopes.iter().find(full) {
            let scope = scope.clone();
            self.waits.insert(id.clone(), (scope.clone(), turn));
            self.waiting.entry(scope).or_default().insert(turn, Waiter { id, scopes });
            return false;
        }
        for (scope, _) in &scopes {
            *self.taken.entry(scope.clone()).or_default() += 1;
        }
        if !scopes.is_empty() {
            self.held.insert(id, scopes);
        }
        true
    }

    fn leave(&mut self, id: &JobId) {
        self.booked.remove(id);
        if let Some((scope, turn)) = self.waits.remove(id) {
            self.next_of(&scope, |waiters| waiters.remove(&turn));
        }
        for (scope, max) in self.held.remove(id).unwrap_or_default() {
            if let Some(taken) = self.taken.get_mut(&scope) {
                *taken -= 1;
                if *taken == 0 {
                    self.taken.remove(&scope);
                }
            }
            self.wake(&scope, max);
        }
    }

    /// Hands on what is free; who lacks a place elsewhere goes on waiting there, in the old turn.
    fn wake(&mut self, scope: &Scope, max: usize) {
        while self.taken.get(scope).copied().unwrap_or(0) < max {
            let next = self.next_of(scope, BTreeMap::pop_first);
            let Some((turn, Waiter { id, scopes })) = next else { return };
            self.waits.remove(&id);
            if self.enter_with(turn, id.clone(), scopes) {
                self.woken.push(id);
            }
        }
    }

    fn next_of<R>(
        &mut self,
        scope: &Scope,
        take: impl FnOnce(&mut BTreeMap<Turn, Waiter>) -> Option<R>,
    ) -> Option<R> {
        let waiters = self.waiting.get_mut(scope)?;
        let taken = take(waiters);
        if waiters.is_empty() {
            self.waiting.remove(scope);
        }
        taken
    }
}

/// The scalar at a dotted path of the arguments as text; jobs without one have no key.
fn value_at(args: &Json, path: &str) -> Option<String> {
    let args: serde_json::Value = args.parse().ok()?;
    let path = path.strip_prefix("$.").unwrap_or(path);
    match path.split('.').try_fold(&args, |value, name| value.get(name))? {
        serde_json::Value::String(text) => Some(format!("\"{text}")),
        value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => {
            Some(value.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::id::Random;
    use crate::new_job::NewJob;

    #[test]
    fn keys_are_scalars_at_a_path() {
        // J-39
        let args = Json::of(&serde_json::json!({"a": {"b": "x", "n": 1}, "t": "1"})).unwrap();
        assert_eq!(value_at(&args, "a.b"), value_at(&args, "$.a.b"));
        assert!(value_at(&args, "a.b").is_some());
        assert_ne!(value_at(&args, "a.n"), value_at(&args, "t"), "1 is not \"1\"");
        for path in ["a", "a.c", "", "a.b.c", "t.x"] {
            assert_eq!(value_at(&args, path), None, "{path}");
        }
    }

    #[test]
    fn starts_are_spaced_after_the_burst() {
        // J-39
        let now = Timestamp::from_millis(5_000);
        let rate = RateLimit::new(3, Duration::from_secs(1)).burst(2);
        let mut spent = 0;
        let starts: Vec<u64> = (0..5)
            .map(|_| {
                let (at, after) = rate.take(spent, now);
                spent = after;
                at.as_millis() - 5_000
            })
            .collect();
        assert_eq!(starts, [0, 0, 334, 667, 1_000]);
        let odd = RateLimit::new(0, Duration::ZERO).burst(0);
        assert_eq!(odd.take(0, now).0, now);
        let slow = RateLimit::new(1, Duration::MAX).burst(u32::MAX);
        assert!(slow.take(slow.take(0, now).1, now).0 >= now, "no overflow");
    }

    /// Random arrivals and departures: no limit is ever passed, and whoever waits comes to a place
    /// (J-39).
    #[test]
    fn no_limit_is_passed_and_nobody_is_forgotten() {
        for seed in 0..200 {
            let random = Random::new(seed);
            let pick = |n: u64| random.next() % n;
            let limits = Limits {
                concurrency: Some(3),
                key: Some(("k".into(), 1 + pick(2) as usize)),
                rate: None,
            };
            let (gate, queue) = (Gate::default(), Arc::<str>::from("q"));
            let now = Timestamp::from_millis(1);
            let mut inside: HashSet<JobId> = HashSet::new();
            let mut outside: HashSet<JobId> = HashSet::new();
            for n in 0..200u64 {
                let id: JobId = format!("j{n}").parse().unwrap();
                let args = serde_json::json!({"k": pick(3)});
                let kind = ["a", "b"][pick(2) as usize];
                let new = NewJob::new(kind, &args).unwrap().priority(pick(3) as i32);
                let job = new.into_job(id.clone(), 1, now);
                match gate.admit(&job, &limits, Some((&queue, 5)), now) {
                    Admission::Start(true) => drop(inside.insert(id)),
                    Admission::Wait => drop(outside.insert(id)),
                    other => panic!("{other:?}, seed {seed}"),
                }
                let crowd = if pick(4) == 0 { &mut outside } else { &mut inside };
                if pick(2) == 0
                    && let Some(id) = crowd.iter().min_by_key(|id| id.to_string()).cloned()
                {
                    crowd.remove(&id);
                    gate.leave(&[id]);
                }
                check(&gate, &mut inside, &mut outside, seed);
            }
            while let Some(id) = inside.iter().next().cloned() {
                inside.remove(&id);
                gate.leave(&[id]);
                check(&gate, &mut inside, &mut outside, seed);
            }
            assert!(outside.is_empty(), "forgotten {outside:?}, seed {seed}");
            let places = gate.places.lock();
            let empty = places.taken.is_empty() && places.held.is_empty();
            assert!(empty && places.waiting.is_empty() && places.waits.is_empty(), "seed {seed}");
        }
    }

    fn check(gate: &Gate, inside: &mut HashSet<JobId>, outside: &mut HashSet<JobId>, seed: u64) {
        for id in gate.take_woken() {
            assert!(outside.remove(&id), "{id} did not wait, seed {seed}");
            inside.insert(id);
        }
        let places = gate.places.lock();
        let held: HashSet<JobId> = places.held.keys().cloned().collect();
        assert_eq!(held, *inside, "seed {seed}");
        let mut counted: HashMap<Scope, usize> = HashMap::new();
        for (scope, max) in places.held.values().flatten() {
            let count = counted.entry(scope.clone()).or_default();
            *count += 1;
            assert!(*count <= *max, "{scope:?} has {count}, seed {seed}");
        }
        assert_eq!(counted, places.taken, "seed {seed}");
        for (scope, waiters) in &places.waiting {
            let max = waiters.values().flat_map(|w| &w.scopes).find(|(s, _)| s == scope).unwrap().1;
            assert_eq!(counted.get(scope), Some(&max), "a place is free, seed {seed}");
        }
    }
}
