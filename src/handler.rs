//! Handlers: an async function run over a subscription, message by message.
//!
//! A client of the handles. Taking messages, pauses and draining are the runner's; here are the
//! options, the lease that is kept while the handler runs, and what its result means.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::bus::Sleep;
use crate::config::check_range;
use crate::delivery::{Delivery, Outcome};
use crate::error::{AckError, AdminError, ConfigError, PullError};
use crate::observe::Operation;
use crate::received::{Failure, Lease, Received, Verdict};
use crate::runner::{
    Either, Gate, HandlerPace, MAX_BACKOFF, MIN_BACKOFF, Pace, Runner, Work, catch_panics, doubled,
    either,
};
use crate::shell::core::BusCore;
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicU64, Ordering};

/// Calls of a handler that may run at once, and at least one.
pub const HANDLER_CONCURRENCY: RangeInclusive<usize> = 1..=10_000;

/// How a handler is run.
///
/// ```
/// use siftbus::HandlerOptions;
/// use std::time::Duration;
///
/// let options = HandlerOptions::new()
///     .concurrency(32)
///     .max_extension(Duration::from_secs(600))
///     .backoff(Duration::from_millis(10)..=Duration::from_secs(5));
/// ```
#[derive(Clone)]
pub struct HandlerOptions {
    concurrency: usize,
    max_extension: Duration,
    backoff: RangeInclusive<Duration>,
    on_failure: Option<OnFailure>,
}

type OnFailure = Arc<dyn Fn(&Received, &Failure) + Send + Sync>;

impl Default for HandlerOptions {
    fn default() -> Self {
        Self {
            concurrency: 8,
            max_extension: Duration::from_secs(3_600),
            backoff: MIN_BACKOFF..=MAX_BACKOFF,
            on_failure: None,
        }
    }
}

impl HandlerOptions {
    /// 8 at once, leases kept for up to an hour, 100 ms to 60 s of back-off.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls may run at once; [`HANDLER_CONCURRENCY`] is allowed.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// How long a lease is kept while the handler runs, counted from its start (LIB-302). A lease
    /// lasts at least the subscription's ack deadline.
    #[must_use]
    pub fn max_extension(mut self, max: Duration) -> Self {
        self.max_extension = max;
        self
    }

    /// How long after a failure a message is delivered again: the least after the first delivery,
    /// doubled with each one more, up to the most. Where the subscription has a retry policy the
    /// larger delay counts. The same range is that of the pauses of a handler that only fails
    /// (LIB-303).
    #[must_use]
    pub fn backoff(mut self, backoff: RangeInclusive<Duration>) -> Self {
        self.backoff = backoff;
        self
    }

    /// Is told of every failure, panics included, before the message is given back. It must not
    /// block; what it panics with is dropped.
    #[must_use]
    pub fn on_failure(
        mut self,
        tell: impl Fn(&Received, &Failure) + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Some(Arc::new(tell));
        self
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (value, range) = (self.concurrency, HANDLER_CONCURRENCY);
        if !range.contains(&value) {
            let (min, max) = range.into_inner();
            return Err(ConfigError::CountOutOfRange { field: "concurrency", value, min, max });
        }
        let (min, max) = self.backoff.clone().into_inner();
        check_range("the least backoff", min, &(Duration::ZERO..=max))
    }
}

impl std::fmt::Debug for HandlerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandlerOptions")
            .field("concurrency", &self.concurrency)
            .field("max_extension", &self.max_extension)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

/// What a handler has done.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerStats {
    /// Calls that run now.
    pub running: usize,
    /// Calls that went well.
    pub succeeded: u64,
    /// Calls that failed, panics included.
    pub failed: u64,
    /// Calls that panicked.
    pub panicked: u64,
    /// Calls whose message went to the dead-letter topic, not counted as failed.
    pub rejected: u64,
    /// Leases that ended while the handler ran.
    pub lost: u64,
    /// Results that came too late: the message had been handed out again, or was gone.
    pub stale: u64,
    /// Whether the handler is paused because everything failed (LIB-303).
    pub is_paused: bool,
}

#[derive(Debug, Default)]
struct Counts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    rejected: AtomicU64,
    lost: AtomicU64,
    stale: AtomicU64,
}

/// A handler that runs, made by [`Subscription::handle`].
///
/// When it is dropped it takes no more, the calls that run are dropped, and their messages are
/// released at once. [`drain`](Self::drain) lets them finish.
#[must_use = "dropping a handler stops it"]
#[derive(Debug)]
pub struct Handler {
    runner: Runner,
    counts: Arc<Counts>,
}

impl Subscription {
    /// Runs an async handler on every message, several at once.
    ///
    /// While a call runs its lease is kept (LIB-302). Its result settles the message: `Ok`
    /// acknowledges, a [`Failure`] says whether and when it is tried again. A panic is caught and
    /// counts as a failure to be retried. On the messages of one ordering key it works one at a
    /// time. Handlers of several handles, and pulls beside them, compete.
    ///
    /// The handler runs on the current tokio runtime until the [`Handler`] is dropped or drained,
    /// the subscription is gone or the bus closed.
    ///
    /// Middleware of `tower` needs nothing of this crate: for a service of [`Received`] that can be
    /// cloned, the handler is `move |order| service.clone().oneshot(order)`.
    ///
    /// # Errors
    ///
    /// [`AdminError::Config`] for options out of range, [`AdminError::NoRuntime`] outside of a
    /// tokio runtime, [`AdminError::NotFound`], [`AdminError::Closed`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, HandlerOptions, Received, SubscriptionConfig, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    ///
    /// let (done, mut orders) = tokio::sync::mpsc::unbounded_channel();
    /// let handler = billing.handle(HandlerOptions::new(), move |order: Received| {
    ///     let done = done.clone();
    ///     async move { Ok(done.send(order.data().clone())?) }
    /// })?;
    /// topic.publish("order 1").await?;
    /// assert_eq!(orders.recv().await.expect("handled"), "order 1");
    ///
    /// let stats = handler.drain().await;
    /// assert_eq!((stats.succeeded, stats.failed), (1, 0));
    /// assert_eq!(billing.stats().backlog, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn handle<H, F>(&self, options: HandlerOptions, handler: H) -> Result<Handler, AdminError>
    where
        H: Fn(Received) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        options.check()?;
        let runtime = self.ready_to_run()?;
        let (min, max) = options.backoff.clone().into_inner();
        let concurrency = options.concurrency;
        let pace = Pace::Handler(HandlerPace::new(concurrency, min, max));
        let counts = Arc::<Counts>::default();
        let subscription = self.clone();
        let work = Calls { subscription, handler, options, counts: Arc::clone(&counts) };
        let runner = Runner::start(self, runtime, pace, concurrency, Arc::new(work));
        Ok(Handler { runner, counts })
    }

    pub(crate) fn has_dead_letter_policy(&self) -> bool {
        self.shared().config().dead_letter_policy.is_some()
    }

    /// What is needed to run tasks on this subscription.
    pub(crate) fn ready_to_run(&self) -> Result<tokio::runtime::Handle, AdminError> {
        self.shared().check_here()?;
        tokio::runtime::Handle::try_current().map_err(|_| AdminError::NoRuntime)
    }
}

impl Handler {
    /// Takes no more messages, waits for the calls that run, and answers what was done.
    ///
    /// Bound it with [`Bus::timeout`](crate::Bus::timeout).
    ///
    /// # Cancel safety
    ///
    /// If dropped, so is the handler: the calls that still run are dropped, their messages
    /// released.
    pub async fn drain(self) -> HandlerStats {
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

    /// What was done so far.
    pub fn stats(&self) -> HandlerStats {
        let gate = self.runner.gate();
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &*self.counts;
        HandlerStats {
            running: gate.running,
            succeeded: get(&counts.succeeded),
            failed: get(&counts.failed),
            panicked: get(&counts.panicked),
            rejected: get(&counts.rejected),
            lost: get(&counts.lost),
            stale: get(&counts.stale),
            is_paused: gate.paused_until.is_some(),
        }
    }
}

/// The calls of a handler.
struct Calls<H> {
    subscription: Subscription,
    handler: H,
    options: HandlerOptions,
    counts: Arc<Counts>,
}

impl<H, F> Work for Calls<H>
where
    H: Fn(Received) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    const IS_PUSH: bool = false;

    async fn work(&self, delivery: Delivery, gate: &Gate) {
        let lease = Arc::<Lease>::default();
        let received = Received::new(&delivery, Some(Arc::clone(&lease)));
        let told = self.options.on_failure.as_ref().map(|_| received.clone());
        let shared = self.subscription.shared();
        let operation = Operation::process(&shared.name, &shared.topic.name, &delivery);
        let call = catch_panics(|| operation.run(|| (self.handler)(received)));
        let keeper = self.keep(&delivery, &lease);
        let result = match either(operation.follow(call), keeper).await {
            Either::First(Ok(result)) => result,
            Either::First(Err(panicked)) => {
                count(&self.counts.panicked);
                Err(Failure::panicked(&*panicked))
            }
            Either::Second(never) => match never {},
        };
        if result.is_err() {
            operation.failed_in_handler();
        }
        operation.run(|| self.settle(delivery, result, told, gate));
    }
}

enum Never {}

impl<H> Calls<H> {
    /// Keeps the lease until the handler has ended: begins only if it does not end at once.
    async fn keep(&self, delivery: &Delivery, lease: &Lease) -> Never {
        let shared = self.subscription.shared();
        let core: &Arc<BusCore> = &shared.core;
        let deadline = shared.ack_deadline().to_duration();
        let begin = core.read().now;
        let end = self.options.max_extension.max(deadline);
        let mut lasts = deadline;
        loop {
            Sleep::new(core, lasts / 2).await;
            let left = end.saturating_sub(begin.until(core.read().now));
            let kept = shared.ack_deadline().to_duration().min(left);
            let outcome = delivery.set_deadline(kept.max(TICK)).outcome();
            if outcome.as_ref().is_err_and(AckError::is_transient) {
                // EOD-10: the lease is as it was; there is time left to ask again.
                lasts = (lasts / 2).max(2 * TICK);
                continue;
            }
            let is_ours = outcome == Ok(Outcome::Done);
            if is_ours && kept < left {
                lasts = kept;
                continue;
            }
            if is_ours {
                Sleep::new(core, kept).await;
            }
            count(&self.counts.lost);
            lease.lose();
            return std::future::pending().await;
        }
    }

    fn settle(
        &self,
        delivery: Delivery,
        result: Result<(), Failure>,
        told: Option<Received>,
        gate: &Gate,
    ) {
        if let (Err(failure), Some(received), Some(tell)) =
            (&result, told, &self.options.on_failure)
        {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                tell(&received, failure);
            }));
        }
        let settlement = match result.as_ref().map_err(Failure::verdict) {
            Ok(()) => {
                count(&self.counts.succeeded);
                gate.succeeded();
                delivery.ack()
            }
            Err(Verdict::Reject) if self.subscription.has_dead_letter_policy() => {
                count(&self.counts.rejected);
                gate.succeeded();
                delivery.reject_with(&cause_of(&result))
            }
            Err(Verdict::RetryAfter(delay)) => {
                count(&self.counts.failed);
                delivery.nack_after(delay)
            }
            // Nothing is lost: what nobody takes when it is rejected is tried again.
            Err(Verdict::Retry | Verdict::Reject) => {
                count(&self.counts.failed);
                gate.failed();
                let (min, max) = self.options.backoff.clone().into_inner();
                let delay = doubled(min, max, delivery.attempt());
                delivery.nack_after(delay)
            }
        };
        if settlement.outcome() != Ok(Outcome::Done) {
            count(&self.counts.stale);
        }
    }
}

/// The reason that goes along to the dead-letter topic.
pub(crate) fn cause_of(result: &Result<(), Failure>) -> String {
    let cause = result.as_ref().err().and_then(Failure::cause);
    cause.map_or_else(String::new, ToString::to_string)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A deadline of zero would give the message back.
const TICK: Duration = Duration::from_millis(1);
