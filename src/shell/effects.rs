//! What a call leaves to be done once its locks are released: wake and free (I-7).

use std::task::Waker;

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

    /// A message that nobody takes.
    pub(crate) fn discard(&mut self, message: Published) {
        self.rest().unclaimed.push(message);
    }

    #[inline]
    pub(crate) fn run(self) {
        if let Some(waker) = self.waker {
            wake(waker);
        }
        if let Some(rest) = self.rest {
            rest.wakers.into_iter().for_each(wake);
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
