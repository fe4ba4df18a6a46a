//! What all handles of a bus share: registries, the line of time, limits, numbers.

use std::hash::{BuildHasher, Hasher};

use dashmap::DashMap;

use super::books::Books;
use super::budget::BusBudget;
use super::driver;
use super::lifecycle::Lifecycle;
use super::pushing::Pushing;
use super::snapshot::SnapshotShared;
use super::subscription::SubscriptionShared;
use super::timers::{Need, Timers};
use super::topic::TopicShared;
use crate::ack_id::mix;
use crate::budget::Budget;
use crate::clock::{Clock, Reading, Timeline};
use crate::error::{AdminError, Resource};
use crate::events::{Event, EventSource};
use crate::limits::Limits;
use crate::name;
use crate::subscription::config_checked;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Padded};
use crate::time::Time;
use crate::{SubscriptionConfig, TopicConfig};

pub(crate) struct BusCore {
    pub(crate) limits: Limits,
    pub(crate) seed: u64,
    pub(crate) timeline: Timeline,
    pub(crate) timers: Arc<Timers>,
    pub(crate) events: EventSource,
    pub(crate) books: Books,
    pub(crate) budget: BusBudget,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) pushing: Pushing,
    /// Threads that are parked until something happens.
    pub(crate) parked: Mutex<Vec<std::thread::Thread>>,
    topics: DashMap<Arc<str>, Arc<TopicShared>>,
    subscriptions: DashMap<Arc<str>, Arc<SubscriptionShared>>,
    pub(super) snapshots: DashMap<Arc<str>, Arc<SnapshotShared>>,
    /// The newest instant that any call has seen.
    latest: AtomicU64,
    /// Written by every publish.
    next_message: Padded<AtomicU64>,
    next_object: AtomicU64,
    closed: AtomicBool,
    /// Wakers woken whose waiters have not come back yet.
    wakes: Padded<AtomicU64>,
}

impl BusCore {
    pub(crate) fn new(clock: &Clock, limits: Limits, budget: Budget, seed: u64) -> Arc<Self> {
        let timeline = Timeline::new(clock);
        let core = Arc::new(Self {
            limits,
            seed,
            timers: Arc::new(Timers::new()),
            events: EventSource::new(),
            books: Books::new(),
            budget: BusBudget::new(budget),
            lifecycle: Lifecycle::new(),
            pushing: Pushing::default(),
            parked: Mutex::new(Vec::new()),
            topics: DashMap::new(),
            subscriptions: DashMap::new(),
            snapshots: DashMap::new(),
            latest: AtomicU64::new(timeline.read().now.as_millis()),
            timeline,
            next_message: Padded(AtomicU64::new(1)),
            next_object: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            wakes: Padded(AtomicU64::new(0)),
        });
        if let Clock::Manual(manual) = clock {
            manual.attach(&core);
        }
        core
    }

    /// Reads the clock; whatever has fallen due happens first (L14).
    #[inline]
    pub(crate) fn read(self: &Arc<Self>) -> Reading {
        let reading = self.timeline.read();
        let latest = self.latest();
        if reading.now > latest {
            self.latest.fetch_max(reading.now.as_millis(), Ordering::SeqCst);
        }
        let reading = reading.not_before(latest);
        if self.timers.next_due() <= reading.now {
            self.advance(reading);
        }
        reading
    }

    /// The reading by which an ack is judged: a new one where that is cheap, else the newest that
    /// the bus has seen (D15).
    pub(crate) fn read_for_ack(self: &Arc<Self>) -> Reading {
        if self.timeline.is_cheap() { self.read() } else { Reading::at(self.latest()) }
    }

    /// The newest instant that the bus has seen.
    pub(crate) fn latest(&self) -> Time {
        Time::from_millis(self.latest.load(Ordering::Relaxed))
    }

    #[cold]
    fn advance(self: &Arc<Self>, reading: Reading) {
        while let Some(object) = self.timers.pop_due(reading.now) {
            object.fire(reading);
        }
        if self.timers.needs_driver() {
            driver::start(self);
        }
    }

    pub(crate) fn satisfy(self: &Arc<Self>, need: Need) {
        match need {
            Need::Nothing => {}
            Need::Driver => driver::start(self),
        }
    }

    /// The first of `count` consecutive message ids.
    pub(crate) fn take_ids(&self, count: u64) -> u64 {
        self.next_message.fetch_add(count, Ordering::Relaxed)
    }

    /// How many message ids were given out.
    pub(crate) fn ids_taken(&self) -> u64 {
        self.next_message.load(Ordering::Relaxed) - 1
    }

    /// A number that no other object of this bus has.
    pub(crate) fn take_object_id(&self) -> u64 {
        self.next_object.fetch_add(1, Ordering::Relaxed)
    }

    /// A keyed hash of a name, the same for every subscription that ever has it.
    pub(crate) fn name_hash(&self, name: &str) -> u64 {
        name.bytes().fold(mix(self.seed), |hash, byte| mix(hash ^ u64::from(byte)))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Counted for a clock that stands still until who was woken has been polled.
    #[inline]
    pub(crate) fn wake_begun(&self) {
        if self.timeline.is_manual() {
            self.wakes.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[inline]
    pub(crate) fn wakes_ended(&self, count: u64) {
        if self.timeline.is_manual() {
            self.wakes.fetch_sub(count, Ordering::SeqCst);
        }
    }

    pub(crate) fn wakes_pending(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst)
    }

    pub(crate) fn create_topic(
        self: &Arc<Self>,
        name: &str,
        config: TopicConfig,
    ) -> Result<Arc<TopicShared>, AdminError> {
        name::check(self.limits.names, "topics", name)?;
        self.check_growing()?;
        self.read();
        let taken = || AdminError::AlreadyExists { resource: Resource::Topic, name: name.into() };
        if self.topics.contains_key(name) {
            return Err(taken());
        }
        config.check(&self.limits)?;
        if let Some(max) = self.limits.topics.filter(|max| self.topics.len() >= *max) {
            return Err(AdminError::TooMany { resource: Resource::Topic, name: name.into(), max });
        }
        let name: Arc<str> = Arc::from(name);
        let topic = TopicShared::new(self, Arc::clone(&name), config);
        match self.topics.entry(Arc::clone(&name)) {
            dashmap::Entry::Occupied(_) => return Err(taken()),
            dashmap::Entry::Vacant(place) => drop(place.insert(Arc::clone(&topic))),
        }
        self.check_still_open()?;
        self.events.send(Event::TopicCreated { topic: name.to_string() });
        Ok(topic)
    }

    pub(crate) fn topic(self: &Arc<Self>, name: &str) -> Result<Arc<TopicShared>, AdminError> {
        name::check(self.limits.names, "topics", name)?;
        self.check_open()?;
        self.read();
        let found = self.topics.get(name).map(|topic| Arc::clone(&topic));
        found.ok_or_else(|| AdminError::NotFound { resource: Resource::Topic, name: name.into() })
    }

    /// The topic that has this name now.
    pub(crate) fn find_topic(&self, name: &str) -> Option<Arc<TopicShared>> {
        self.topics.get(name).map(|topic| Arc::clone(&topic))
    }

    /// A policy has to name a topic that is there (DLQ-1).
    pub(crate) fn check_dead_letter(&self, config: &SubscriptionConfig) -> Result<(), AdminError> {
        let Some(policy) = &config.dead_letter_policy else { return Ok(()) };
        let name = &policy.dead_letter_topic;
        if self.topics.contains_key(name.as_str()) {
            return Ok(());
        }
        Err(AdminError::NotFound { resource: Resource::Topic, name: name.clone() })
    }

    pub(crate) fn topics(&self) -> Vec<Arc<TopicShared>> {
        let mut topics: Vec<_> = self.topics.iter().map(|topic| Arc::clone(&topic)).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    pub(crate) fn delete_topic(
        self: &Arc<Self>,
        topic: &Arc<TopicShared>,
    ) -> Result<(), AdminError> {
        let removed = self.topics.remove_if(&topic.name, |_, found| Arc::ptr_eq(found, topic));
        if removed.is_none() {
            return Err(topic.not_found());
        }
        topic.delete(Reading::at(self.latest()));
        self.events.send(Event::TopicDeleted { topic: topic.name.to_string() });
        Ok(())
    }

    /// Checks that a name can be that of a new subscription (RES-4, RES-7).
    pub(crate) fn check_free(self: &Arc<Self>, name: &str) -> Result<(), AdminError> {
        name::check(self.limits.names, "subscriptions", name)?;
        self.check_open()?;
        self.read();
        if self.subscriptions.contains_key(name) {
            let resource = Resource::Subscription;
            return Err(AdminError::AlreadyExists { resource, name: name.into() });
        }
        Ok(())
    }

    pub(crate) fn create_subscription(
        self: &Arc<Self>,
        name: &str,
        topic: &Arc<TopicShared>,
        config: SubscriptionConfig,
    ) -> Result<Arc<SubscriptionShared>, AdminError> {
        let resource = Resource::Subscription;
        name::check(self.limits.names, "subscriptions", name)?;
        self.check_growing()?;
        let reading = self.read();
        let taken = || AdminError::AlreadyExists { resource, name: name.into() };
        self.check_free(name)?;
        self.check_dead_letter(&config)?;
        let config = config_checked(config, &self.limits)?;
        if let Some(max) = self.limits.subscriptions.filter(|max| self.subscriptions.len() >= *max)
        {
            return Err(AdminError::TooMany { resource, name: name.into(), max });
        }
        self.pushing.check(name, &config)?;
        let name: Arc<str> = Arc::from(name);
        let subscription = topic.subscribe(Arc::clone(&name), config, reading)?;
        let lost = match self.subscriptions.entry(Arc::clone(&name)) {
            dashmap::Entry::Occupied(_) => true,
            dashmap::Entry::Vacant(place) => {
                drop(place.insert(Arc::clone(&subscription)));
                false
            }
        };
        if lost {
            // Somebody else was faster with this name; what was attached goes again.
            subscription.delete();
            return Err(taken());
        }
        self.check_still_open()?;
        subscription.schedule_expiry();
        self.events.send_with(|| Event::SubscriptionCreated {
            subscription: name.to_string(),
            topic: topic.name.to_string(),
        });
        self.lint(&subscription, topic);
        Ok(subscription)
    }

    /// Says what is odd about the filter of a new subscription, if somebody listens (LIB-350).
    fn lint(&self, subscription: &SubscriptionShared, topic: &TopicShared) {
        if !self.events.has_listeners() && !crate::observe::wants_warnings() {
            return;
        }
        let lints = topic.lint(&subscription.view.filter);
        if !lints.is_empty() {
            let (subscription, topic) = (subscription.name.to_string(), topic.name.to_string());
            self.events.send(Event::FilterLinted { subscription, topic, lints });
        }
    }

    pub(crate) fn subscription(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Arc<SubscriptionShared>, AdminError> {
        name::check(self.limits.names, "subscriptions", name)?;
        self.check_open()?;
        self.read();
        let found = self.subscriptions.get(name).map(|found| Arc::clone(&found));
        found.ok_or_else(|| AdminError::NotFound {
            resource: Resource::Subscription,
            name: name.into(),
        })
    }

    pub(crate) fn subscriptions(&self) -> Vec<Arc<SubscriptionShared>> {
        let mut all: Vec<_> = self.subscriptions.iter().map(|found| Arc::clone(&found)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Takes a subscription out of the registry. Answers false if it was out already.
    pub(crate) fn forget_subscription(&self, subscription: &Arc<SubscriptionShared>) -> bool {
        let same = |found: &Arc<SubscriptionShared>| Arc::ptr_eq(found, subscription);
        self.subscriptions.remove_if(&subscription.name, |_, found| same(found)).is_some()
    }

    /// Ends everything: every waiter gets an error, every message is given back (D23).
    pub(crate) fn close(self: &Arc<Self>) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.begin_close();
        crate::audit::at_close(self);
        for snapshot in self.all_snapshots() {
            snapshot.remove();
        }
        // Topics first: the end of a full subscription makes room, and a publisher that waits must
        // not get in there when everything ends.
        for topic in self.topics() {
            topic.delete(Reading::at(self.latest()));
        }
        for subscription in self.subscriptions() {
            subscription.close();
        }
        self.subscriptions.clear();
        self.topics.clear();
        for sleeper in self.timers.clear() {
            sleeper.fire(Reading::at(self.latest()));
        }
        self.events.close();
        self.lifecycle.look_again();
    }

    pub(crate) fn check_open(&self) -> Result<(), AdminError> {
        if self.is_closed() { Err(AdminError::Closed) } else { Ok(()) }
    }

    /// Nothing is created once closing has begun.
    fn check_growing(&self) -> Result<(), AdminError> {
        if self.lifecycle.is_closing() { Err(AdminError::Closed) } else { self.check_open() }
    }

    /// After something was put into a registry: if the bus was closed meanwhile, `close` may have
    /// missed it.
    pub(super) fn check_still_open(&self) -> Result<(), AdminError> {
        if !self.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        for snapshot in self.all_snapshots() {
            snapshot.remove();
        }
        for subscription in self.subscriptions() {
            subscription.close();
        }
        self.subscriptions.clear();
        self.topics.clear();
        Err(AdminError::Closed)
    }
}

/// A seed for a bus that was given none.
pub(crate) fn random_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

impl std::fmt::Debug for BusCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus")
            .field("topics", &self.topics.len())
            .field("subscriptions", &self.subscriptions.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
