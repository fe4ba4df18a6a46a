//! The only file that reads time, and the clocks to choose from.
//!
//! One line of time per bus: wall time at construction plus monotonic time since, so that steps of
//! the system's clock move nothing. A reading is taken at most once per call; comparisons use it
//! rounded down, deadlines rounded up, so that nothing is early (DL-3).

#![allow(clippy::disallowed_methods)]

use std::time::{Duration, SystemTime};

use crate::shell::core::BusCore;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::time::{Span, Time};

/// Where a bus takes its time from.
///
/// | clock | cost of a reading | use |
/// | --- | --- | --- |
/// | [`System`](Clock::System) | about 24 ns | the default; follows tokio's clock, paused or not |
/// | [`Coarse`](Clock::Coarse) | about 4 ns | many small calls; deadlines up to one tick (1–10 ms) late |
/// | [`Manual`](Clock::Manual) | about 1 ns | tests and simulations that move time themselves |
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Clock {
    /// tokio's clock: real time, or the paused time of a test.
    #[default]
    System,
    /// The system's coarse monotonic clock; on systems without one, the precise clock.
    Coarse,
    /// A clock that stands still until it is moved.
    Manual(ManualClock),
}

impl Clock {
    /// [`Clock::System`].
    pub fn system() -> Self {
        Self::System
    }

    /// [`Clock::Coarse`].
    pub fn coarse() -> Self {
        Self::Coarse
    }

    /// [`Clock::Manual`] with a handle on the same clock.
    pub fn manual(clock: &ManualClock) -> Self {
        Self::Manual(clock.clone())
    }
}

/// One look at the clock.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Reading {
    /// Rounded down: what is due by now is due.
    pub(crate) now: Time,
    /// Rounded up: deadlines count from here.
    up: Time,
}

impl Reading {
    /// `nanos` after `anchor`, on a clock that may be `late_millis` behind.
    #[inline]
    fn since(anchor: Time, nanos: u64, late_millis: u64) -> Reading {
        let rest = u64::from(!nanos.is_multiple_of(NANOS_PER_MILLI));
        let now = anchor.as_millis() + nanos / NANOS_PER_MILLI;
        Reading { now: Time::from_millis(now), up: Time::from_millis(now + rest + late_millis) }
    }

    #[inline]
    pub(crate) fn deadline(self, span: Span) -> Time {
        self.up.after(span)
    }

    #[inline]
    pub(crate) fn not_before(self, latest: Time) -> Reading {
        Reading { now: self.now.max(latest), up: self.up.max(latest) }
    }

    /// A reading at a whole millisecond that somebody else has taken.
    pub(crate) fn at(now: Time) -> Reading {
        Reading { now, up: now }
    }
}

/// The line of time of one bus.
#[derive(Debug)]
pub(crate) struct Timeline {
    source: Source,
    /// Wall time of the anchor in whole milliseconds.
    anchor: Time,
    /// The anchor on tokio's clock, for the driver's sleep.
    anchor_instant: tokio::time::Instant,
}

#[derive(Debug)]
enum Source {
    System,
    #[cfg(target_os = "linux")]
    Coarse {
        /// Nanoseconds.
        anchor: u64,
        tick_millis: u64,
    },
    Manual(Arc<ManualInner>),
}

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Timeline {
    pub(crate) fn new(clock: &Clock) -> Self {
        let source = match clock {
            Clock::System => Source::System,
            #[cfg(target_os = "linux")]
            Clock::Coarse => Source::Coarse { anchor: coarse_time(), tick_millis: coarse_tick() },
            #[cfg(not(target_os = "linux"))]
            Clock::Coarse => Source::System,
            Clock::Manual(manual) => Source::Manual(Arc::clone(&manual.inner)),
        };
        Self {
            source,
            anchor: Time::from_system(SystemTime::now()),
            anchor_instant: tokio::time::Instant::now(),
        }
    }

    /// The clock that this line was made from.
    pub(crate) fn clock(&self) -> Clock {
        match &self.source {
            Source::System => Clock::System,
            #[cfg(target_os = "linux")]
            Source::Coarse { .. } => Clock::Coarse,
            Source::Manual(inner) => Clock::Manual(ManualClock { inner: Arc::clone(inner) }),
        }
    }

    #[inline]
    pub(crate) fn read(&self) -> Reading {
        crate::counters::clock_read();
        match &self.source {
            Source::System => {
                let now = tokio::time::Instant::now();
                let since = now.saturating_duration_since(self.anchor_instant);
                let nanos = since.as_secs() * NANOS_PER_SECOND + u64::from(since.subsec_nanos());
                Reading::since(self.anchor, nanos, 0)
            }
            #[cfg(target_os = "linux")]
            Source::Coarse { anchor, tick_millis } => {
                Reading::since(self.anchor, coarse_time().saturating_sub(*anchor), *tick_millis)
            }
            Source::Manual(manual) => {
                Reading::since(Time::default(), manual.nanos.load(Ordering::SeqCst), 0)
            }
        }
    }

    /// Whether an ack reads this clock: it does where a reading is cheap, or exact (D15).
    pub(crate) fn is_cheap(&self) -> bool {
        !matches!(self.source, Source::System)
    }

    pub(crate) fn is_manual(&self) -> bool {
        matches!(self.source, Source::Manual(_))
    }

    /// How long a thread has to park so that this clock then shows at least `time`; `None` if time
    /// alone does not bring it.
    pub(crate) fn wait_until(&self, time: Time) -> Option<Duration> {
        if time == Time::NEVER || self.is_manual() {
            return None;
        }
        Some(self.instant_of(time).saturating_duration_since(tokio::time::Instant::now()))
    }

    /// When the driver has to wake so that this clock then shows at least `time`.
    pub(crate) fn instant_of(&self, time: Time) -> tokio::time::Instant {
        let since = time.as_millis().saturating_sub(self.anchor.as_millis());
        let late = match &self.source {
            #[cfg(target_os = "linux")]
            Source::Coarse { tick_millis, .. } => Duration::from_millis(*tick_millis * 2),
            _ => Duration::ZERO,
        };
        self.anchor_instant + Duration::from_millis(since) + late
    }
}

/// Nanoseconds since some moment in the past.
#[cfg(target_os = "linux")]
#[inline]
fn coarse_time() -> u64 {
    nanos(&rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse))
}

/// How far the coarse clock may be behind, in milliseconds.
#[cfg(target_os = "linux")]
fn coarse_tick() -> u64 {
    nanos(&rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse)) / NANOS_PER_MILLI + 1
}

/// A monotonic clock counts from the start of the machine: no second of it is negative.
#[cfg(target_os = "linux")]
#[inline]
fn nanos(time: &rustix::time::Timespec) -> u64 {
    time.tv_sec.unsigned_abs() * NANOS_PER_SECOND + time.tv_nsec.unsigned_abs()
}

/// A clock that moves only when told to: years pass in microseconds.
///
/// It belongs to one bus. Moving it steps through everything that falls due on the way, in order
/// (TIME-2); when a call returns, the state of the bus is final and every waiter concerned has been
/// woken.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, Clock, ManualClock, SubscriptionConfig, TopicConfig};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let bus = Bus::builder().clock(Clock::manual(&clock)).build();
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
/// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
/// topic.publish("order 1").await?;
///
/// let id = billing.pull(1).await?.into_iter().next().expect("published").into_ack_id();
/// clock.advance(Duration::from_secs(10)); // the ack deadline
/// let again = billing.pull(1).await?.into_iter().next().expect("redelivered");
/// assert_eq!(again.attempt(), 2);
/// assert_ne!(again.ack_id(), id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    inner: Arc<ManualInner>,
}

#[derive(Debug)]
struct ManualInner {
    /// Since the Unix epoch.
    nanos: AtomicU64,
    bus: Mutex<std::sync::Weak<BusCore>>,
}

/// Turns of the runtime that woken tasks get to come back.
const MAX_TURNS: usize = 10_000;

/// 2026-01-01T00:00:00Z.
const MANUAL_START: Duration = Duration::from_secs(1_767_225_600);

impl ManualClock {
    /// A clock that shows 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        Self::starting_at(SystemTime::UNIX_EPOCH + MANUAL_START)
    }

    /// A clock that shows `time`; times before 1970 count as 1970.
    pub fn starting_at(time: SystemTime) -> Self {
        let nanos = AtomicU64::new(since_epoch(time));
        Self { inner: Arc::new(ManualInner { nanos, bus: Mutex::new(std::sync::Weak::new()) }) }
    }

    /// What the clock shows.
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.nanos())
    }

    /// When the next thing falls due: a lease, a delay, a retention, an expiration, a sleep.
    ///
    /// A lower bound: it may be earlier than the first change that can be seen.
    pub fn next_due(&self) -> Option<SystemTime> {
        let core = self.inner.bus.lock().upgrade()?;
        let due = core.timers.next_due();
        (due != Time::NEVER).then(|| due.to_system())
    }

    /// Moves the clock forward, stepping through everything that falls due.
    pub fn advance(&self, by: Duration) {
        let target = self.nanos_after(by);
        while self.step(target) {}
    }

    /// Moves the clock forward to `time`; a time that has passed does nothing.
    pub fn advance_to(&self, time: SystemTime) {
        let target = since_epoch(time);
        while self.step(target) {}
    }

    /// Moves the clock forward and, at every instant on the way, waits until each task that was
    /// woken has been polled, giving up on one that is not after 10,000 turns of the runtime.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the clock stays where it has come to.
    pub async fn advance_settled(&self, by: Duration) {
        let target = self.nanos_after(by);
        self.settled().await;
        while self.step(target) {
            self.settled().await;
        }
        self.settled().await;
    }

    async fn settled(&self) {
        let core = self.inner.bus.lock().upgrade();
        for _ in 0..MAX_TURNS {
            tokio::task::yield_now().await;
            if core.as_ref().is_none_or(|core| core.wakes_pending() == 0) {
                return;
            }
        }
    }

    /// Goes to the next due instant, or to `target` if that is earlier. Answers whether to go on.
    fn step(&self, target: u64) -> bool {
        let core = self.inner.bus.lock().upgrade();
        let due = core.as_ref().map_or(Time::NEVER, |core| core.timers.next_due());
        let due_nanos = due.as_millis().saturating_mul(NANOS_PER_MILLI);
        let stop = due_nanos > target;
        self.inner.nanos.fetch_max(due_nanos.min(target), Ordering::SeqCst);
        if let Some(core) = core {
            core.read();
        }
        !stop
    }

    fn nanos_after(&self, by: Duration) -> u64 {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.nanos().saturating_add(by).min(LAST_NANO)
    }

    fn nanos(&self) -> u64 {
        self.inner.nanos.load(Ordering::SeqCst)
    }

    /// Binds the clock to its bus.
    pub(crate) fn attach(&self, core: &Arc<BusCore>) {
        let mut bus = self.inner.bus.lock();
        assert!(bus.strong_count() == 0, "a manual clock belongs to one bus");
        *bus = Arc::downgrade(core);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

fn since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).min(LAST_NANO)
}

/// The last instant that a manual clock shows, in the year 2554.
const LAST_NANO: u64 = (u64::MAX / NANOS_PER_MILLI - 1) * NANOS_PER_MILLI;
