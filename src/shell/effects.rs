//! What a call leaves to be done once its locks are released: wake, free, report (I-7).

use std::task::Waker;

use smallvec::SmallVec;

use super::core::BusCore;
use crate::broker::log::Segment;
use crate::events::Event;
use crate::message::Published;
use crate::sync::Arc;

#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) wakers: SmallVec<[Waker; 2]>,
    /// Segments that may hold the last reference to a message: dropping one may run user code.
    pub(crate) garbage: Vec<Arc<Segment>>,
    /// Messages that nobody takes.
    pub(crate) unclaimed: Vec<Published>,
    pub(crate) events: Vec<Event>,
}

impl Effects {
    pub(crate) fn run(self, core: &BusCore) {
        for waker in self.wakers {
            crate::counters::notified();
            waker.wake();
        }
        drop(self.garbage);
        drop(self.unclaimed);
        for event in self.events {
            core.events.send(event);
        }
    }
}
