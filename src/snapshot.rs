//! Snapshots and seek: keeping what was not acknowledged, and going back to it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::bus::Bus;
use crate::error::AdminError;
use crate::events::Event;
use crate::shell::snapshot::SnapshotShared;
use crate::shell::topic::seek::Target;
use crate::subscription::Subscription;
use crate::sync::Arc;
use crate::time::Time;
use crate::topic::Topic;

/// A handle on a snapshot: what a subscription had not acknowledged at one moment, and everything
/// published to its topic afterwards (SNP-1).
///
/// Every subscription of the topic can seek to it (SNP-6). It outlives its subscription and its
/// topic (SNP-7) and goes when its life is over (SNP-10), with the messages that only it kept.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
/// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
/// topic.publish("order 1").await?;
///
/// let before = billing.create_snapshot("before-deployment").await?;
/// billing.pull(1).await?.ack_all(); // by the new version, which turns out to be wrong
/// billing.seek(&before).await?;
/// assert_eq!(billing.stats().backlog, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    shared: Arc<SnapshotShared>,
}

impl Snapshot {
    pub(crate) fn new(shared: Arc<SnapshotShared>) -> Self {
        Self { shared }
    }

    /// The snapshot's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The name of the topic, also after that was deleted (SNP-2).
    pub fn topic_name(&self) -> &str {
        &self.shared.topic.name
    }

    /// When it goes away: seven days after the oldest message in it was published, or after its
    /// creation if there was none (SNP-3, LIM-22).
    pub fn expire_time(&self) -> SystemTime {
        self.shared.expires().to_system()
    }

    /// Labels: yours to use.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.shared.labels()
    }

    /// Changes labels or shortens its life, all or nothing (SNP-9).
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`], [`AdminError::SnapshotLife`] for an end that has passed or is
    /// later than it was, [`AdminError::Config`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn update(&self, update: SnapshotUpdate) -> Result<(), AdminError> {
        let expires = update.expire_time.map(Time::from_system);
        self.shared.update(update.labels, expires)?;
        let snapshot = self.name().to_owned();
        self.shared.core.events.send(Event::SnapshotUpdated { snapshot });
        Ok(())
    }

    /// Deletes it, with the messages that only it kept.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`] if it is gone already (SNP-8), [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn delete(&self) -> Result<(), AdminError> {
        self.shared.delete()
    }
}

/// What to change of a snapshot; what is `None` stays as it is (SNP-9).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SnapshotUpdate {
    /// The new labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
    /// The new end of its life: in the future, and no later than before.
    pub expire_time: Option<SystemTime>,
}

impl SnapshotUpdate {
    /// Changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces all labels.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = Some(labels);
        self
    }

    /// Shortens its life.
    #[must_use]
    pub fn expire_time(mut self, time: SystemTime) -> Self {
        self.expire_time = Some(time);
        self
    }
}

/// Where a subscription goes: to a time, or to a snapshot (SEEK-1).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SeekTarget {
    /// What was published before is acknowledged, the rest is not (SEEK-2); any time will do, also
    /// one in the future (SEEK-4) or before everything (SEEK-6).
    Time(SystemTime),
    /// A snapshot at hand.
    Snapshot(Snapshot),
    /// The snapshot that has this name.
    SnapshotNamed(String),
}

impl From<SystemTime> for SeekTarget {
    fn from(time: SystemTime) -> Self {
        Self::Time(time)
    }
}

impl From<&Snapshot> for SeekTarget {
    fn from(snapshot: &Snapshot) -> Self {
        Self::Snapshot(snapshot.clone())
    }
}

impl Subscription {
    /// Goes to a time or a snapshot, back or forward: decides anew which messages are
    /// acknowledged.
    ///
    /// It is atomic: when it returns, every later hand-out obeys it (SEEK-11). All deliveries at
    /// hand become stale (SEEK-10) and attempts count from one again (SEEK-12). Only what is
    /// retained can come back: what is unacknowledged, what
    /// [`retain_acked`](crate::SubscriptionConfig::retain_acked) or the topic's retention keeps
    /// (SEEK-3), or what the snapshot does. The subscription's filter applies (SEEK-14). Takes
    /// constant time, apart from leases that were running on messages nothing else retains; a
    /// filtered subscription looks through what it went back over as it pulls. Counts as activity.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`] for the subscription or the snapshot (SEEK-8),
    /// [`AdminError::OtherTopic`] (SEEK-9), [`AdminError::Detached`] (RES-15),
    /// [`AdminError::Name`] for a malformed name of a snapshot, [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, SubscriptionConfig, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let config = SubscriptionConfig::new().retain_acked(true);
    /// let billing = topic.subscribe("billing", config).await?;
    /// let start = bus.now();
    /// topic.publish("order 1").await?;
    /// billing.pull(1).await?.ack_all();
    ///
    /// billing.seek(start).await?;
    /// assert_eq!(billing.pull(1).await?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn seek(&self, target: impl Into<SeekTarget>) -> Result<(), AdminError> {
        let core = &self.shared().core;
        core.check_open()?;
        let reading = core.read();
        let target = match target.into() {
            SeekTarget::Time(time) => Target::Time(Time::from_system_up(time)),
            SeekTarget::Snapshot(snapshot) => {
                snapshot.shared.check_there()?;
                Target::Snapshot(snapshot.shared)
            }
            SeekTarget::SnapshotNamed(name) => {
                self.shared().check_active(reading)?;
                Target::Snapshot(core.snapshot(&name)?)
            }
        };
        self.shared().topic.seek(self.shared(), &target, reading)
    }

    /// Acknowledges everything that was published so far (SEEK-5): a seek to this very moment, so
    /// deliveries at hand become stale. What retention keeps can be sought back.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`], [`AdminError::Detached`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn purge(&self) -> Result<(), AdminError> {
        let core = &self.shared().core;
        core.check_open()?;
        let reading = core.read();
        self.shared().topic.seek(self.shared(), &Target::End, reading)
    }

    /// Captures what is unacknowledged now under a name of its own (SNP-1). Counts as activity.
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::AlreadyExists`], [`AdminError::NotFound`],
    /// [`AdminError::Detached`] (RES-15), [`AdminError::BacklogTooOld`] if less than an hour of
    /// life would be left (SNP-4), [`AdminError::TooMany`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn create_snapshot(&self, name: &str) -> Result<Snapshot, AdminError> {
        self.create_snapshot_labeled(name, BTreeMap::new()).await
    }

    /// [`create_snapshot`](Self::create_snapshot) with labels (SNP-8).
    ///
    /// # Errors
    ///
    /// As [`create_snapshot`](Self::create_snapshot), and [`AdminError::Config`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn create_snapshot_labeled(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Snapshot, AdminError> {
        self.shared().core.create_snapshot(name, self.shared(), labels).map(Snapshot::new)
    }

    /// Takes the subscription off its topic for good: its messages are dropped, pulls and streams
    /// end with [`Detached`](crate::PullError::Detached), nothing new arrives (RES-14). Its name,
    /// settings and expiration stay; answers to deliveries do nothing (RES-15). Doing it again is
    /// fine.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn detach(&self) -> Result<(), AdminError> {
        let was_detached = self.is_detached();
        self.shared().core.check_open()?;
        self.shared().detach()?;
        if !was_detached {
            let subscription = self.name().to_owned();
            self.shared().core.events.send(Event::SubscriptionDetached { subscription });
        }
        Ok(())
    }

    /// Whether it was detached (RES-14).
    pub fn is_detached(&self) -> bool {
        self.shared().is_detached()
    }
}

impl Topic {
    /// The snapshots of this topic's subscriptions, sorted by name (LST-6).
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.shared().core.read();
        let mut snapshots = self.shared().snapshots();
        snapshots.sort_by(|a, b| a.name.cmp(&b.name));
        snapshots.into_iter().map(Snapshot::new).collect()
    }
}

impl Bus {
    /// The snapshot with this name.
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::NotFound`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn snapshot(&self, name: &str) -> Result<Snapshot, AdminError> {
        self.core().snapshot(name).map(Snapshot::new)
    }

    /// All snapshots, sorted by name.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.core().read();
        self.core().all_snapshots().into_iter().map(Snapshot::new).collect()
    }

    /// Deletes the snapshot that has this name.
    ///
    /// # Errors
    ///
    /// [`AdminError::Name`], [`AdminError::NotFound`], [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn delete_snapshot(&self, name: &str) -> Result<(), AdminError> {
        self.core().snapshot(name)?.delete()
    }
}

/// The longest life of a snapshot, counted from the oldest message in it (LIM-22).
pub(crate) const SNAPSHOT_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A snapshot that would have less life than this is refused (SNP-4).
pub(crate) const SNAPSHOT_LEAST_LIFE: Duration = Duration::from_secs(60 * 60);
