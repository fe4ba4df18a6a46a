//! What a call leaves to be done once its locks are released: wake and free (I-7).

use std::task::Waker;

use super::core::BusCore;
use super::topic::TopicShared;
use crate::broker::log::Segment;
use crate::message::Published;
use crate::sync::Arc;

/// Most calls leave nothing, many a single waker: only the rest is allocated.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    waker: Option<Waker>,
    /// A waker that is no longer needed.
    pub(crate) old_waker: Option<Waker>,
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    wakers: Vec<Waker>,
    garbage: Vec<Arc<Segment>>,
    unclaimed: Vec<Published>,
    /// The budget has room again.
    room: Option<Arc<BusCore>>,
    /// A subscription is quiet, and somebody waits for that.
    quiet: Option<Arc<BusCore>>,
    /// A full subscription of this topic has room again.
    room_on: Option<Arc<TopicShared>>,
    /// Leases ended by their deadline, for who traces that.
    #[cfg(feature = "tracing")]
    lapsed: Option<(Arc<super::subscription::SubscriptionShared>, u64)>,
}

impl Effects {
    pub(crate) fn wake(&mut self, waker: Waker) {
        match self.waker {
            None => self.waker = Some(waker),
            Some(_) => self.rest().wakers.push(waker),
        }
    }

    /// A segment that may hold the last reference to a message: dropping one may run user code.
    pub(crate) fn free(&mut self, segment: Arc<Segment>) {
        self.rest().garbage.push(segment);
    }

    /// The segments that were to be freed, for who can use them again.
    pub(crate) fn take_garbage(&mut self) -> Vec<Arc<Segment>> {
        self.rest.as_mut().map(|rest| std::mem::take(&mut rest.garbage)).unwrap_or_default()
    }

    /// A message that nobody takes.
    pub(crate) fn discard(&mut self, message: Published) {
        self.rest().unclaimed.push(message);
    }

    /// Publishers anywhere may find room in the budget.
    pub(crate) fn room(&mut self, core: &Arc<BusCore>) {
        self.rest().room = Some(Arc::clone(core));
    }

    /// Whoever waits for quiet looks again.
    pub(crate) fn quiet(&mut self, core: &Arc<BusCore>) {
        self.rest().quiet = Some(Arc::clone(core));
    }

    /// Publishers to a topic may find room on its subscriptions.
    pub(crate) fn room_on(&mut self, topic: &Arc<TopicShared>) {
        self.rest().room_on = Some(Arc::clone(topic));
    }

    /// Leases of a subscription ended by their deadline.
    #[cfg(feature = "tracing")]
    pub(crate) fn lapsed(
        &mut self,
        subscription: Arc<super::subscription::SubscriptionShared>,
        leases: u64,
    ) {
        self.rest().lapsed = Some((subscription, leases));
    }

    #[inline]
    pub(crate) fn run(mut self) {
        self.carry_out();
    }

    /// The same in place, since moving what was just written costs much more than a look at it.
    #[inline]
    pub(crate) fn carry_out(&mut self) {
        if self.waker.is_some() || self.rest.is_some() {
            self.run_all();
        }
    }

    fn run_all(&mut self) {
        if let Some(waker) = self.waker.take() {
            wake(waker);
        }
        if let Some(rest) = self.rest.take() {
            rest.wakers.into_iter().for_each(wake);
            if let Some(topic) = rest.room_on {
                topic.tell_first_publisher();
            }
            if let Some(core) = rest.quiet {
                core.lifecycle.look_again();
            }
            if let Some(core) = rest.room {
                core.room_freed();
            }
            #[cfg(feature = "tracing")]
            if let Some((subscription, leases)) = rest.lapsed {
                crate::observe::lapsed(&subscription.name, &subscription.topic.name, leases);
            }
        }
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }
}

fn wake(waker: Waker) {
    crate::counters::notified();
    waker.wake();
}
