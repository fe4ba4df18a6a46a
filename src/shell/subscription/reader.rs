//! Messages by index, through replay, view and directory; where those of a batch lie.

use std::collections::{BTreeMap, VecDeque};

use ahash::RandomState;

use super::{KEY_SEED, State, SubscriptionShared};
use crate::broker::log::{Directory, Segment};
use crate::broker::replay::{Place, Replay};
use crate::broker::subscription::{Backlog, Leased, Meta, Runs, SubscriptionState};
use crate::message::Published;
use crate::shell::batch::Batch;
use crate::shell::view::View;
use crate::sync::{Arc, RwLock};

/// Looks at messages by index, through view and directory.
pub(super) struct Reader<'a> {
    pub(super) seed: u64,
    /// `None` for an unfiltered subscription: there, index and position are the same.
    pub(super) view: Option<&'a View>,
    pub(super) directory: &'a RwLock<Directory>,
    pub(super) stragglers: &'a BTreeMap<u64, u64>,
    pub(super) replay: Option<&'a Replay>,
    pub(super) cached: &'a mut Option<Arc<Segment>>,
    pub(super) boundaries: &'a mut VecDeque<u64>,
}

impl SubscriptionShared {
    #[inline]
    pub(super) fn reader<'a>(
        &'a self,
        state: &'a mut State,
    ) -> (&'a mut SubscriptionState, Reader<'a>) {
        let reader = Reader {
            seed: self.core.seed,
            view: (!self.is_unfiltered).then_some(&*self.view),
            directory: &self.topic.directory,
            stragglers: &state.stragglers,
            replay: state.replay.as_deref(),
            cached: &mut state.cached,
            boundaries: &mut state.boundaries,
        };
        (&mut state.broker, reader)
    }
}

impl Reader<'_> {
    pub(super) fn position(&self, index: u64) -> Option<u64> {
        let found = match self.replay {
            None => self.position_in_view(index),
            Some(replay) => match replay.place(index) {
                Place::Log(position) => position,
                Place::View(index) => self.position_in_view(index),
            },
        };
        found.or_else(|| self.stragglers.get(&index).copied())
    }

    pub(super) fn position_in_view(&self, index: u64) -> Option<u64> {
        match self.view {
            None => Some(index),
            Some(view) => view.position(index),
        }
    }

    /// The segment of a position; the one found last is kept at hand.
    pub(super) fn segment(&mut self, position: u64) -> Option<&Arc<Segment>> {
        let hit = self.cached.as_ref().is_some_and(|segment| segment.at(position).is_some());
        if !hit {
            let found = self.directory.read().find(position).cloned()?;
            if self.view.is_none() && self.boundaries.back().is_none_or(|last| *last < found.base())
            {
                self.boundaries.push_back(found.base());
            }
            *self.cached = Some(found);
        }
        self.cached.as_ref()
    }

    /// The message at an index, with its position.
    pub(super) fn published(&mut self, index: u64) -> Option<(u64, Published)> {
        let position = self.position(index)?;
        self.segment(position)?.at(position).map(|message| (position, message.clone()))
    }

    /// Fills in where the messages of the runs from `start` on lie.
    #[inline]
    pub(super) fn resolve(&mut self, batch: &mut Batch, start: usize) {
        if self.view.is_none()
            && self.replay.is_none()
            && let Some([run]) = batch.runs.get_mut(start..)
            && let Some(segment) = self.segment(run.index)
            && run.index + u64::from(run.len) <= segment.end()
        {
            run.slot = (run.index - segment.base()) as u16;
            run.segment = batch.segments.len() as u32;
            batch.segments.push(Arc::clone(segment));
            return;
        }
        self.resolve_parts(batch, start);
    }

    /// The same for runs that are spread over the log.
    pub(super) fn resolve_parts(&mut self, batch: &mut Batch, start: usize) {
        let unresolved: Runs = batch.runs.drain(start..).collect();
        let mut last: Option<(u64, u64)> = None;
        for mut rest in unresolved {
            while rest.len > 0 {
                let Some(position) = self.position(rest.index) else { break };
                let (base, end) = match last {
                    Some(range) if (range.0..range.1).contains(&position) => range,
                    _ => {
                        let Some(segment) = self.segment(position) else { break };
                        let range = (segment.base(), segment.end());
                        batch.segments.push(Arc::clone(segment));
                        *last.insert(range)
                    }
                };
                let most = u64::from(rest.len).min(end - position) as u32;
                let follows = |nth: &u32| {
                    let index = rest.index + u64::from(*nth);
                    self.position(index) == Some(position + u64::from(*nth))
                };
                let len = 1 + (1..most).take_while(follows).count() as u32;
                let segment = batch.segments.len() as u32 - 1;
                let slot = (position - base) as u16;
                batch.runs.push(Leased { segment, slot, ..rest.part(0, len) });
                rest = rest.part(len, rest.len - len);
            }
        }
    }
}

impl Backlog for Reader<'_> {
    fn meta(&mut self, index: u64) -> Option<Meta> {
        let position = self.position(index)?;
        let message = self.segment(position)?.at(position)?;
        let (expires, size) = (message.expires(), message.message.size() as u64);
        Some(Meta { published: message.time, expires, size })
    }

    fn key(&mut self, index: u64) -> Option<u64> {
        let seed = self.seed;
        let position = self.position(index)?;
        let message = &self.segment(position)?.at(position)?.message;
        let key = message.attributes().ordering_key_bytes();
        if key.is_empty() {
            return None;
        }
        // Keyed, so that nobody can make up keys that meet; two that do are one key.
        Some(RandomState::with_seeds(seed, !seed, KEY_SEED, seed ^ KEY_SEED).hash_one(key))
    }
}
