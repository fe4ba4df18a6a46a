//! The filtered side of a topic: its views, and who of them gets what is appended.
//!
//! Matching is done before the topic's lock is taken; what changed meanwhile is made up for under
//! it (L5). A view that has no subscription, because one is just coming or has just gone, gets
//! nothing.

use std::collections::VecDeque;

use slab::Slab;
use smallvec::SmallVec;

use super::{Recipients, TopicState};
use crate::filter::Filter;
use crate::message::{Message, Published};
use crate::shell::effects::Effects;
use crate::shell::matcher::{MAX_RECENT, Matcher, Matches, Recent, ViewKey};
use crate::shell::subscription::{Keeps, SubscriptionShared};
use crate::shell::view::{FilteredView, View};
use crate::sync::Arc;

/// The views of a topic's filters, behind its lock.
#[derive(Debug, Default)]
pub(super) struct Views {
    views: Slab<FilteredView>,
    generation: u32,
    /// Every filter up to this version of the index has its view attached.
    version: u64,
    recent: VecDeque<Recent>,
    /// Slots of views that got something in the publish that is under way.
    pub(super) touched: SmallVec<[u32; 8]>,
}

impl Views {
    /// Whether no view gets anything of these messages.
    #[inline]
    pub(super) fn have_none(&self, matches: &Matches) -> bool {
        let is_decided = matches.version() >= self.version || self.views.is_empty();
        is_decided && (matches.is_empty() || self.views.is_empty())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &FilteredView> {
        self.views.iter().map(|(_, filtered)| filtered)
    }

    /// Makes a view, so far without subscriptions.
    pub(super) fn add(&mut self, filter: &Filter) -> ViewKey {
        self.generation = self.generation.wrapping_add(1);
        let key = ViewKey { slot: self.views.vacant_key() as u32, generation: self.generation };
        self.views.insert(FilteredView::new(filter.clone(), key));
        key
    }

    pub(super) fn remove(&mut self, key: ViewKey) {
        if self.get(key).is_some() {
            self.views.remove(key.slot as usize);
        }
    }

    /// The index has a filter from this version on.
    pub(super) fn came(&mut self, version: u64, key: ViewKey, filter: Filter) {
        self.version = self.version.max(version);
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { version, key, filter });
    }

    pub(super) fn get(&self, key: ViewKey) -> Option<&FilteredView> {
        self.views.get(key.slot as usize).filter(|filtered| filtered.key == key)
    }

    pub(super) fn get_mut(&mut self, key: ViewKey) -> Option<&mut FilteredView> {
        self.views.get_mut(key.slot as usize).filter(|filtered| filtered.key == key)
    }

    pub(super) fn get_at(&self, slot: u32) -> Option<&FilteredView> {
        self.views.get(slot as usize)
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut FilteredView> {
        self.views.get_mut(slot as usize)
    }

    /// The views that get the message at `nth` of a publish.
    pub(super) fn takers(
        &self,
        nth: u32,
        message: &Message,
        matches: &mut Matches,
        matcher: &Matcher,
    ) -> SmallVec<[ViewKey; 4]> {
        let mut takers: SmallVec<[ViewKey; 4]> = SmallVec::new();
        let decided = matches.version();
        if decided < self.version {
            let oldest = self.recent.front().map_or(u64::MAX, |recent| recent.version);
            if oldest > decided + 1 {
                matcher.matching_one(message, |key| takers.push(key));
                takers.retain(|key| self.is_taken(*key));
                return takers;
            }
            let since = self.recent.iter().filter(|recent| recent.version > decided);
            let since = since.filter(|recent| recent.filter.matches(message));
            takers.extend(since.map(|recent| recent.key));
        }
        takers.extend(matches.take(nth).iter().map(|(_, key)| *key));
        takers.retain(|key| self.is_taken(*key));
        takers
    }

    fn is_taken(&self, key: ViewKey) -> bool {
        self.get(key).is_some_and(|filtered| filtered.subscriptions() > 0)
    }
}

impl TopicState {
    pub(super) fn append_matching(
        &mut self,
        count: usize,
        messages: impl Iterator<Item = Published>,
        matches: &mut Matches,
        matcher: &Matcher,
        effects: &mut Effects,
    ) -> Recipients {
        let mut recipients = messages.zip(0..).map(|(message, nth)| {
            let takers = self.views.takers(nth, &message.message, matches, matcher);
            self.append_one(message, &takers, effects)
        });
        match count {
            1 => Recipients::Same(recipients.next().unwrap_or_default()),
            _ => Recipients::Each(recipients.collect()),
        }
    }

    /// Appends a message for those who take it; answers how many subscriptions that is.
    fn append_one(
        &mut self,
        message: Published,
        takers: &[ViewKey],
        effects: &mut Effects,
    ) -> usize {
        if !self.log.keeps_new() && takers.is_empty() {
            effects.discard(message);
            self.ledger.unclaimed += 1;
            return self.unfiltered;
        }
        let bytes = message.message.size() as u64;
        let position = self.log.append(message);
        self.ledger.appended += 1;
        let mut recipients = self.unfiltered;
        for &key in takers {
            let Some(filtered) = self.views.get_mut(key) else { continue };
            filtered.push(position, bytes);
            self.doors.entries += 1;
            recipients += filtered.subscriptions();
            if !filtered.touched {
                filtered.touched = true;
                self.views.touched.push(key.slot);
            }
            self.log.pin(position);
        }
        recipients
    }

    /// One subscription more on a view: the unfiltered one, or that of a filter.
    pub(super) fn attach(&mut self, key: Option<ViewKey>, unfiltered: &Arc<View>) -> Arc<View> {
        let Some(key) = key else {
            self.unfiltered += 1;
            self.log.hold(self.log.head());
            return Arc::clone(unfiltered);
        };
        let filtered = self.views.get_mut(key).expect("the registry only names views that exist");
        filtered.add_low(filtered.view.head());
        Arc::clone(&filtered.view)
    }

    /// The opposite of `attach`, for a subscription for which this was kept. Answers whether its
    /// view is no longer needed by anybody and went.
    pub(super) fn leave(&mut self, subscription: &SubscriptionShared, keeps: Keeps) -> bool {
        if let Some(position) = keeps.hold {
            self.log.release_hold(position);
        }
        let Some(key) = subscription.view.key else {
            self.unfiltered -= 1;
            return false;
        };
        let Some(filtered) = self.views.get_mut(key) else { return false };
        for position in filtered.remove_low(keeps.view_low) {
            self.doors.entries -= 1;
            self.log.unpin(position);
        }
        let unused = filtered.subscriptions() == 0;
        if unused {
            self.views.remove(key);
            self.doors.forget_view(key);
        }
        unused
    }
}
