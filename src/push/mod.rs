//! Push: the bus calls, instead of being asked.
//!
//! Here is push in process: an endpoint, the time it has to answer, and what its answer means.
//! Slow start and back-off are the runner's.

#[cfg(feature = "http")]
mod authorize;
#[cfg(feature = "http")]
mod client;
#[cfg(feature = "http")]
mod envelope;
#[cfg(feature = "http")]
mod headers;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http")]
mod pusher;

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use crate::bus::Sleep;
use crate::delivery::Delivery;
use crate::error::{AdminError, ConfigError, PullError};
use crate::handler::cause_of;
use crate::observe::Operation;
use crate::received::{Failure, Received, Verdict};
use crate::runner::{Either, Gate, Pace, PushPace, Runner, Work, catch_panics, either};
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

#[cfg(feature = "http")]
pub use self::client::HttpClient;
#[cfg(feature = "http")]
pub use self::http::{HttpEndpoint, MAX_PUSH_ANSWER, MAX_PUSH_BODY, PushAnswer};
#[cfg(feature = "http")]
pub use self::pusher::{Pusher, PusherBuilder};

/// How wide a push window may grow.
pub const PUSH_WINDOW: RangeInclusive<usize> = 1..=3_000;

/// How wide a push window grows by default (PUSH-23).
pub const DEFAULT_PUSH_WINDOW: usize = 1_000;

/// Where messages are pushed to.
///
/// Any async function from [`Received`] to a result is one.
pub trait PushEndpoint: Send + Sync + 'static {
    /// Takes one message. `Ok` acknowledges it. If there is no answer within the subscription's ack
    /// deadline the future is dropped and the message pushed again (PUSH-19).
    fn push(&self, received: Received) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Whether it ends by itself when the ack deadline has passed. Not for use outside.
    #[doc(hidden)]
    const KEEPS_TIME: bool = false;
}

impl<E, F> PushEndpoint for E
where
    E: Fn(Received) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Failure>> + Send,
{
    fn push(&self, received: Received) -> impl Future<Output = Result<(), Failure>> + Send {
        self(received)
    }
}

/// How messages are pushed.
#[derive(Clone, Debug)]
pub struct PushOptions {
    max_window: usize,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { max_window: DEFAULT_PUSH_WINDOW }
    }
}

impl PushOptions {
    /// A window of up to [`DEFAULT_PUSH_WINDOW`].
    pub fn new() -> Self {
        Self::default()
    }

    /// How many pushes may be under way at once; [`PUSH_WINDOW`] is allowed (PUSH-23).
    #[must_use]
    pub fn max_window(mut self, max: usize) -> Self {
        self.max_window = max;
        self
    }
}

/// How a push is doing: what has been done, and how fast it may go.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushStats {
    /// How many pushes may be under way now (PUSH-23).
    pub window: usize,
    /// How many are.
    pub in_flight: usize,
    /// Failures not yet made up for by successes (PUSH-25).
    pub level: u32,
    /// Until when nothing new is pushed, if there is a pause (PUSH-24).
    pub paused_until: Option<SystemTime>,
    /// Pushes that were acknowledged.
    pub succeeded: u64,
    /// Pushes that were not, those without an answer included.
    pub failed: u64,
    /// Pushes without an answer within the ack deadline (PUSH-19).
    pub timed_out: u64,
}

#[derive(Debug, Default)]
struct Counts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

/// A push that runs, made by [`Subscription::push_to`].
///
/// When it is dropped nothing more is pushed, the calls that run are dropped, and their messages
/// are released at once. [`drain`](Self::drain) lets them finish.
#[must_use = "dropping a push stops it"]
#[derive(Debug)]
pub struct Push {
    runner: Runner,
    counts: Arc<Counts>,
}

impl Subscription {
    /// Pushes every message to an endpoint in this process.
    ///
    /// The number of pushes at once starts at one and grows with success (PUSH-21, PUSH-23);
    /// failures narrow it and lead to pauses of 100 ms to 60 s of the whole push (PUSH-24). A
    /// panic is a failure. One push at a time per ordering key (PUSH-27). Only a push that succeeds
    /// keeps the subscription from expiring (EXP-3).
    ///
    /// # Errors
    ///
    /// [`AdminError::NoRuntime`] outside of a tokio runtime, [`AdminError::NotFound`],
    /// [`AdminError::Closed`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Received, SubscriptionConfig, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    ///
    /// let (done, mut orders) = tokio::sync::mpsc::unbounded_channel();
    /// let push = billing.push_to(move |order: Received| {
    ///     let done = done.clone();
    ///     async move { Ok(done.send(order.data().clone())?) }
    /// })?;
    /// topic.publish_many(["order 1", "order 2"]).await?;
    /// assert_eq!(orders.recv().await.expect("pushed"), "order 1");
    /// assert_eq!(orders.recv().await.expect("pushed"), "order 2");
    /// assert_eq!(push.drain().await.succeeded, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn push_to(&self, endpoint: impl PushEndpoint) -> Result<Push, AdminError> {
        self.push_with(endpoint, PushOptions::new())
    }

    /// As [`push_to`](Self::push_to), with options.
    ///
    /// # Errors
    ///
    /// As [`push_to`](Self::push_to), and [`AdminError::Config`].
    pub fn push_with(
        &self,
        endpoint: impl PushEndpoint,
        options: PushOptions,
    ) -> Result<Push, AdminError> {
        check_window(options.max_window)?;
        self.push_on(&self.ready_to_run()?, endpoint, options)
    }

    /// Pushes on this runtime, with options that were checked.
    fn push_on(
        &self,
        runtime: &tokio::runtime::Handle,
        endpoint: impl PushEndpoint,
        options: PushOptions,
    ) -> Result<Push, AdminError> {
        self.shared().check_here()?;
        let max_window = options.max_window;
        let core = &self.shared().core;
        let pace = Pace::Push(PushPace::new(max_window, core.seed ^ core.take_object_id()));
        let counts = Arc::<Counts>::default();
        let work = Pushes { subscription: self.clone(), endpoint, counts: Arc::clone(&counts) };
        let runner = Runner::start(self, runtime.clone(), pace, max_window, Arc::new(work));
        Ok(Push { runner, counts })
    }
}

pub(crate) fn check_window(value: usize) -> Result<(), ConfigError> {
    if PUSH_WINDOW.contains(&value) {
        return Ok(());
    }
    let (min, max) = PUSH_WINDOW.into_inner();
    Err(ConfigError::CountOutOfRange { field: "max_window", value, min, max })
}

impl Push {
    /// Pushes nothing more, waits for the pushes that are under way, and answers what was done.
    ///
    /// # Cancel safety
    ///
    /// If dropped, so is the push: what is still under way is dropped, its messages released.
    pub async fn drain(self) -> PushStats {
        self.runner.drain().await;
        self.stats()
    }

    /// Waits until no more messages can come, because the subscription is gone or the bus is
    /// closed, and says which.
    ///
    /// # Cancel safety
    ///
    /// If dropped, nothing changes.
    pub async fn ended(&self) -> PullError {
        self.runner.ended().await
    }

    /// Pushes nothing more; what is under way goes on.
    #[cfg(feature = "http")]
    fn stop(&self) {
        self.runner.stop_taking();
    }

    /// How it is doing.
    pub fn stats(&self) -> PushStats {
        let gate = self.runner.gate();
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PushStats {
            window: gate.window,
            in_flight: gate.running,
            level: gate.level,
            paused_until: gate.paused_until,
            succeeded: get(&self.counts.succeeded),
            failed: get(&self.counts.failed),
            timed_out: get(&self.counts.timed_out),
        }
    }

    /// What went wrong last, if anything did.
    pub fn last_failure(&self) -> Option<String> {
        self.counts.last_failure.lock().clone()
    }
}

/// The pushes of a subscription.
struct Pushes<E> {
    subscription: Subscription,
    endpoint: E,
    counts: Arc<Counts>,
}

impl<E: PushEndpoint> Work for Pushes<E> {
    const IS_PUSH: bool = true;

    async fn work(&self, delivery: Delivery, gate: &Gate) {
        let received = Received::new(&delivery, None);
        let shared = self.subscription.shared();
        let operation = Operation::process(&shared.name, &shared.topic.name, &delivery);
        let push = catch_panics(|| operation.run(|| self.endpoint.push(received)));
        let push = operation.follow(push);
        let answer = if E::KEEPS_TIME {
            Either::First(push.await)
        } else {
            either(push, self.time_over()).await
        };
        let result = match answer {
            Either::First(Ok(result)) => result,
            Either::First(Err(panicked)) => Err(Failure::panicked(&*panicked)),
            Either::Second(()) => Err(Failure::no_answer()),
        };
        if result.is_err() {
            operation.failed_in_handler();
        }
        operation.run(|| self.settle(delivery, result, gate));
    }
}

impl<E> Pushes<E> {
    /// Ready when there should have been an answer (PUSH-19). Begins only if there is none at once.
    async fn time_over(&self) {
        let shared = self.subscription.shared();
        Sleep::new(&shared.core, shared.ack_deadline().to_duration()).await;
    }

    fn settle(&self, delivery: Delivery, result: Result<(), Failure>, gate: &Gate) {
        let Err(failure) = &result else {
            self.counts.succeeded.fetch_add(1, Ordering::Relaxed);
            gate.succeeded();
            delivery.ack();
            return;
        };
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        if failure.is_no_answer() {
            self.counts.timed_out.fetch_add(1, Ordering::Relaxed);
        }
        *self.counts.last_failure.lock() = Some(failure.to_string());
        match failure.verdict() {
            Verdict::Reject if self.subscription.has_dead_letter_policy() => {
                delivery.reject_with(&cause_of(&result));
            }
            // The pause first: whoever is woken by the message then sees it (PUSH-24).
            Verdict::Retry | Verdict::Reject => {
                gate.failed();
                delivery.give_back(Duration::ZERO);
            }
            Verdict::RetryAfter(delay) => {
                gate.failed();
                delivery.give_back(delay);
            }
        }
    }
}
