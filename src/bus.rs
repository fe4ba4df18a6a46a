//! The bus: where topics and subscriptions are made, found and deleted.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use crate::budget::Budget;
use crate::clock::{Clock, Reading};
use crate::config::{SubscriptionConfig, TopicConfig};
use crate::error::AdminError;
use crate::events::{Events, Gone};
use crate::limits::Limits;
use crate::shell::core::{BusCore, random_seed};
use crate::shell::timers::{Key, Rank, Timed};
use crate::stats::{Blocked, BusStats, Held, Sum};
use crate::subscription::Subscription;
use crate::sync::{Arc, Mutex};
use crate::time::Span;
use crate::topic::Topic;

/// A message bus.
///
/// Cheap to clone: clones are the same bus. When the last `Bus` is dropped the bus is closed:
/// every waiting call ends with an error, every message is given back, and handles of topics and
/// subscriptions that are still around answer `Closed`.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let orders = bus.create_topic("orders", TopicConfig::new()).await?;
/// let billing = bus.create_subscription("billing", "orders", SubscriptionConfig::new()).await?;
///
/// orders.publish("order 1").await?;
/// for delivery in billing.pull(10).await? {
///     assert_eq!(delivery.data().as_ref(), b"order 1");
///     delivery.ack();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    core: Arc<BusCore>,
    /// Shared by all clones of this handle, but not by topics and subscriptions.
    _open: Arc<Open>,
}

/// Closes the bus when the last `Bus` is dropped (D23).
#[derive(Debug)]
struct Open(Arc<BusCore>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus {
    /// A bus with the system's clock, the limits for embedding and a random seed.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A bus with a clock, limits or a seed of your choice.
    pub fn builder() -> BusBuilder {
        BusBuilder::default()
    }

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::AlreadyExists`], [`AdminError::Config`],
    /// [`AdminError::TooMany`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll: a future that was never polled has created nothing.
    pub async fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic, AdminError> {
        self.core.create_topic(name, config).map(Topic::new)
    }

    /// The topic with this name.
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::NotFound`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn topic(&self, name: &str) -> Result<Topic, AdminError> {
        self.core.topic(name).map(Topic::new)
    }

    /// All topics, sorted by name.
    pub fn topics(&self) -> Vec<Topic> {
        self.core.topics().into_iter().map(Topic::new).collect()
    }

    /// Creates a subscription on the topic that has the name `topic`. It gets what is published
    /// from now on (PUB-8).
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::NotFound`] (the topic), [`AdminError::AlreadyExists`],
    /// [`AdminError::Config`], [`AdminError::TooMany`], [`AdminError::NoPusher`] and
    /// [`AdminError::NoIssuer`] for a push configuration, [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll: a future that was never polled has created nothing.
    pub async fn create_subscription(
        &self,
        name: &str,
        topic: &str,
        config: SubscriptionConfig,
    ) -> Result<Subscription, AdminError> {
        self.core.check_free(name)?;
        let topic = self.core.topic(topic)?;
        self.core.create_subscription(name, &topic, config).map(Subscription::new)
    }

    /// The subscription with this name.
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::NotFound`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn subscription(&self, name: &str) -> Result<Subscription, AdminError> {
        self.core.subscription(name).map(Subscription::new)
    }

    /// All subscriptions, sorted by name.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.core.read();
        self.core.subscriptions().into_iter().map(Subscription::new).collect()
    }

    /// Deletes the topic that has this name. Its subscriptions keep their backlog (RES-11).
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::NotFound`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn delete_topic(&self, name: &str) -> Result<(), AdminError> {
        let topic = self.core.topic(name)?;
        self.core.delete_topic(&topic)
    }

    /// Deletes the subscription that has this name, with its backlog (RES-13).
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::NotFound`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn delete_subscription(&self, name: &str) -> Result<(), AdminError> {
        self.subscription(name).await?.delete().await
    }

    /// What time it is on this bus, in whole milliseconds.
    pub fn now(&self) -> SystemTime {
        self.core.read().now.to_system()
    }

    /// Waits for a span of the bus's time, rounded up to whole milliseconds: with a manual clock,
    /// until that clock is moved far enough. Ends early if the bus is closed.
    ///
    /// # Cancel safety
    ///
    /// If dropped, nothing is left behind.
    pub async fn sleep(&self, duration: Duration) {
        Sleep::new(&self.core, duration).await;
    }

    /// Runs a future for at most a span of the bus's time.
    ///
    /// # Errors
    ///
    /// [`Elapsed`] if the time is over first; the future is dropped then.
    ///
    /// # Cancel safety
    ///
    /// If dropped, so is the future.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        timeout(&self.core, duration, future).await
    }

    /// Listens to what happens from now on.
    pub fn events(&self) -> Events {
        let mut events = self.core.events.listen(self.core.is_closed());
        events.gone = Some(Gone(Arc::clone(&self.core)));
        let need = self.core.timers.observe_all(true);
        self.core.satisfy(need);
        events
    }

    /// The clock given when the bus was made, for layers that act by it; a manual one is a handle
    /// on the same clock.
    pub fn clock(&self) -> Clock {
        self.core.timeline.clock()
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// What the whole bus holds. Looks at every topic with its segments and at every subscription,
    /// not at messages.
    pub fn stats(&self) -> BusStats {
        self.core.read();
        let topics = self.core.topics();
        let subscriptions = self.core.subscriptions();
        let budget = &self.core.budget;
        let sum = Sum::of(subscriptions.iter().map(|subscription| subscription.stats()));
        let (mut held, mut blocked) = (Held::default(), Vec::new());
        for topic in &topics {
            let stats = topic.stats();
            held.add(&stats.held);
            if stats.publishers_waiting > 0 {
                blocked.push(Blocked {
                    topic: topic.name.to_string(),
                    publishers: stats.publishers_waiting,
                    waiting_for: topic.blocker().map(|name| name.to_string()),
                });
            }
        }
        BusStats {
            topics: topics.len(),
            subscriptions: subscriptions.len(),
            published: self.core.ids_taken(),
            backlog: sum.backlog,
            outstanding: sum.outstanding,
            sum,
            held,
            budget_used: budget.used(),
            budget_bytes: budget.config.bytes,
            under_pressure: budget.is_pressed(),
            publishers_waiting: blocked.iter().map(|blocked| blocked.publishers).sum(),
            blocked,
        }
    }

    /// How much the bus may hold.
    pub fn budget(&self) -> Budget {
        self.core.budget.config
    }

    /// The seed of everything random on this bus.
    pub fn seed(&self) -> u64 {
        self.core.seed
    }

    pub(crate) fn core(&self) -> &Arc<BusCore> {
        &self.core
    }
}

/// Makes a [`Bus`].
///
/// ```
/// use siftbus::{Bus, Clock, Limits};
///
/// let strict = Bus::builder().clock(Clock::coarse()).limits(Limits::google()).seed(7).build();
/// assert_eq!(strict.seed(), 7);
/// ```
#[derive(Clone, Debug, Default)]
pub struct BusBuilder {
    clock: Clock,
    limits: Limits,
    budget: Budget,
    seed: Option<u64>,
}

impl BusBuilder {
    /// Where the bus takes its time from. Default: [`Clock::System`].
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What the bus accepts. Default: [`Limits::embedded`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How much the bus may hold. Default: 256 MiB.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// The seed of everything random. Default: a random one.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes the bus.
    ///
    /// # Panics
    ///
    /// If the manual clock given already belongs to another bus that is still in use.
    pub fn build(self) -> Bus {
        let seed = self.seed.unwrap_or_else(random_seed);
        let core = BusCore::new(&self.clock, self.limits, self.budget, seed);
        Bus { _open: Arc::new(Open(Arc::clone(&core))), core }
    }
}

/// The time given to [`Bus::timeout`] is over.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

impl Elapsed {
    /// Always [`Code::DeadlineExceeded`](crate::Code::DeadlineExceeded).
    pub fn code(&self) -> crate::Code {
        crate::Code::DeadlineExceeded
    }
}

/// Runs a future for at most a span of the bus's time.
pub(crate) async fn timeout<F: Future>(
    core: &Arc<BusCore>,
    duration: Duration,
    future: F,
) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(Sleep::new(core, duration));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// Waits until an instant on the bus's line of time.
pub(crate) struct Sleep {
    core: Arc<BusCore>,
    span: Span,
    alarm: Option<(Key, Arc<Alarm>)>,
}

struct Alarm(Mutex<Bell>, Arc<BusCore>);

enum Bell {
    Set(Waker),
    /// Its owner was woken and has not come back yet.
    Rung,
    Off,
}

impl Sleep {
    pub(crate) fn new(core: &Arc<BusCore>, duration: Duration) -> Self {
        Self { core: Arc::clone(core), span: Span::round_up(duration), alarm: None }
    }
}

impl Alarm {
    /// Changes the bell; wakers are dropped after the lock is released (I-7).
    fn set(&self, bell: Bell) -> Bell {
        let before = std::mem::replace(&mut *self.0.lock(), bell);
        if matches!(before, Bell::Rung) {
            self.1.wakes_ended(1);
        }
        before
    }

    fn poll(&self, waker: &Waker) -> Poll<()> {
        match self.set(Bell::Set(waker.clone())) {
            Bell::Set(_) => Poll::Pending,
            Bell::Rung | Bell::Off => {
                self.set(Bell::Off);
                Poll::Ready(())
            }
        }
    }
}

impl Timed for Alarm {
    fn fire(self: Arc<Self>, _: Reading) {
        let bell = self.set(Bell::Rung);
        if let Bell::Set(waker) = bell {
            self.1.wake_begun();
            waker.wake();
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((_, alarm)) = &self.alarm {
            return alarm.poll(cx.waker());
        }
        if self.span == Span::default() || self.core.is_closed() {
            return Poll::Ready(());
        }
        let due = self.core.read().deadline(self.span).min(crate::time::Time::LAST);
        let key = Key { due, rank: Rank::Sleep, id: self.core.take_object_id() };
        let alarm =
            Arc::new(Alarm(Mutex::new(Bell::Set(cx.waker().clone())), Arc::clone(&self.core)));
        let object: std::sync::Weak<dyn Timed> = Arc::<Alarm>::downgrade(&alarm);
        let need = self.core.timers.schedule(None, key, object, true);
        self.alarm = Some((key, alarm));
        self.core.satisfy(need);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((key, alarm)) = self.alarm.take() {
            self.core.timers.cancel(key);
            alarm.set(Bell::Off);
        }
    }
}
