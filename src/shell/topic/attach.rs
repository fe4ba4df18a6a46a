//! Subscriptions that come to a topic and leave it, and how many filters it may have.

use super::{TopicShared, TopicState};
use crate::SubscriptionConfig;
use crate::clock::Reading;
use crate::error::{AdminError, Resource};
use crate::filter::Normal;
use crate::shell::effects::Effects;
use crate::shell::matcher::ViewKey;
use crate::shell::subscription::{Start, SubscriptionShared};
use crate::sync::Arc;

/// However many subscriptions there are, so many places in the filter index for each are allowed.
pub(crate) const INDEX_ENTRIES_PER_SUBSCRIPTION: usize = 16;

impl TopicShared {
    /// Attaches a new subscription: its start is the head of its view at this moment (PUB-8).
    pub(crate) fn subscribe(
        &self,
        name: Arc<str>,
        config: SubscriptionConfig,
        reading: Reading,
    ) -> Result<Arc<SubscriptionShared>, AdminError> {
        let topic = self.me.upgrade().ok_or_else(|| self.not_found())?;
        let filter = config.filter.clone();
        if filter.is_all() {
            let mut state = self.lock();
            self.check_room(&state, &name)?;
            return Ok(self.attach(&mut state, None, topic, name, config, reading));
        }
        // Whoever holds the registry is alone with changes of filters; publishers go on.
        let normal = Arc::new(filter.normal());
        let mut registry = self.matcher.registry();
        let known = registry.find(&normal);
        let (key, came) = match known {
            Some(key) => (key, None),
            None => {
                self.check_index(&normal, &name)?;
                let mut state = self.lock();
                self.check_room(&state, &name)?;
                let key = state.views.add(&filter);
                drop(state);
                let version = self.matcher.insert(&mut registry, Arc::clone(&normal), key);
                (key, Some(version))
            }
        };
        let mut state = self.lock();
        if let Some(version) = came {
            state.views.came(version, key, filter);
        }
        if let Err(error) = self.check_room(&state, &name) {
            if known.is_none() {
                state.views.remove(key);
                drop(state);
                self.matcher.remove(&mut registry, &normal);
            }
            return Err(error);
        }
        Ok(self.attach(&mut state, Some(key), topic, name, config, reading))
    }

    /// The subscription is there when this returns: whatever is published later looks at it.
    pub(super) fn attach(
        &self,
        state: &mut TopicState,
        key: Option<ViewKey>,
        topic: Arc<TopicShared>,
        name: Arc<str>,
        config: SubscriptionConfig,
        reading: Reading,
    ) -> Arc<SubscriptionShared> {
        let view = state.attach(key, &self.view);
        let retention = state.retention_of(&config);
        state.least_retention = state.least_retention.min(retention);
        let accepted = state.accepted_by(&view);
        let (is_unfiltered, retains_acked) = (key.is_none(), config.retain_acked);
        let subscription =
            SubscriptionShared::new(topic, view, is_unfiltered, name, config, retention, reading);
        let (published, head) = (state.ledger.published, state.log.head());
        subscription.begin_books(Start { accepted, published, head });
        if retains_acked {
            state.retain_acked(&subscription, &subscription.config());
        }
        state.subscriptions.insert(subscription.incarnation, Arc::clone(&subscription));
        self.watch_limit(state, &subscription);
        subscription
    }

    pub(super) fn check_room(&self, state: &TopicState, name: &str) -> Result<(), AdminError> {
        if state.deleted {
            return Err(self.not_found());
        }
        match self.core.limits.subscriptions_per_topic {
            Some(max) if state.subscriptions.len() >= max => {
                let resource = Resource::Subscription;
                Err(AdminError::TooMany { resource, name: name.to_owned(), max })
            }
            _ => Ok(()),
        }
    }

    /// Whether the index may have one filter more (LIB-201, LIB-202). The registry is held.
    pub(super) fn check_index(&self, normal: &Normal, name: &str) -> Result<(), AdminError> {
        let limits = &self.core.limits;
        let before = self.matcher.counts();
        // Wherever it will stand, it takes no more places than it has tests.
        let most_entries = before.entries.saturating_add(normal.tests().max(1));
        if before.weak() < limits.weak_filters_per_topic
            && most_entries <= limits.index_entries_per_topic
        {
            return Ok(());
        }
        let after = self.matcher.counts_with(normal);
        let max = limits.weak_filters_per_topic;
        if after.weak() > before.weak() && after.weak() > max {
            return Err(AdminError::TooManyWeakFilters { name: name.to_owned(), max });
        }
        let subscriptions = self.lock().subscriptions.len() + 1;
        let average = subscriptions.saturating_mul(INDEX_ENTRIES_PER_SUBSCRIPTION);
        let max = limits.index_entries_per_topic.max(average);
        if after.entries > max {
            return Err(AdminError::FilterIndexFull { name: name.to_owned(), max });
        }
        Ok(())
    }

    /// Takes a subscription off the topic and gives back what it alone kept (RES-13).
    pub(crate) fn detach(&self, subscription: &SubscriptionShared) {
        let mut effects = Effects::default();
        let filtered = !subscription.is_unfiltered;
        let mut registry = filtered.then(|| self.matcher.registry());
        let mut unused = false;
        let mut state = self.lock();
        let removed = state.subscriptions.remove(&subscription.incarnation);
        if removed.is_some() {
            let accepted = state.accepted(subscription);
            let kept = subscription.forget_everything(&mut effects);
            state.ledger.past_accepted += accepted;
            state.ledger.past.add(&kept.ledger);
            for position in kept.pinned {
                state.log.unpin(position);
            }
            unused = state.leave(subscription, kept.keeps);
            state.forget_acked(subscription.incarnation);
            state.log.seal_if_unused();
            self.apply_changes(&mut state, &mut effects);
            self.tell_first(&mut state, &mut effects);
        }
        drop(state);
        if let Some(registry) = registry.as_mut().filter(|_| unused) {
            self.matcher.remove(registry, &subscription.view.filter.normal());
        }
        drop(registry);
        effects.run();
        drop(removed);
    }
}
