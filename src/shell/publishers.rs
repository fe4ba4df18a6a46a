//! Publishers that wait for room on one topic: a queue in order of arrival.
//!
//! Only the first may go. It is told when there may be room, and looks for itself; one that leaves,
//! served or not, hands its turn on. A waiter holds nothing. Kept behind the topic's lock; wakers
//! come and go by value, so that they are dropped and woken without it (I-7).

use std::collections::VecDeque;
use std::task::Waker;

use crate::time::Time;

#[derive(Debug, Default)]
pub(crate) struct Publishers {
    queue: VecDeque<Place>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    charge: u64,
    since: Time,
    /// Taken when it is told.
    waker: Option<Waker>,
}

impl Publishers {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether nobody is ahead of the owner of `ticket`; without one, whether nobody waits.
    #[inline]
    pub(crate) fn may_go(&self, ticket: Option<u64>) -> bool {
        self.queue.front().is_none_or(|first| Some(first.ticket) == ticket)
    }

    /// Takes a place at the end, or renews the waker of one that is held. Answers a waker that is
    /// no longer needed, and whether its owner had been told.
    pub(crate) fn wait(
        &mut self,
        ticket: &mut Option<u64>,
        charge: u64,
        since: Time,
        waker: Waker,
    ) -> (Option<Waker>, bool) {
        if let Some(place) = ticket.and_then(|ticket| self.find(ticket)) {
            let old = place.waker.replace(waker);
            let was_told = old.is_none();
            return (old, was_told);
        }
        self.next_ticket += 1;
        *ticket = Some(self.next_ticket);
        let ticket = self.next_ticket;
        self.queue.push_back(Place { ticket, charge, since, waker: Some(waker) });
        (None, false)
    }

    /// Gives a place up. Answers what was left there, if there was one.
    pub(crate) fn leave(&mut self, ticket: &mut Option<u64>) -> Option<Left> {
        let ticket = ticket.take()?;
        let at = self.queue.binary_search_by_key(&ticket, |place| place.ticket).ok()?;
        let place = self.queue.remove(at)?;
        Some(Left { was_first: at == 0, was_told: place.waker.is_none(), waker: place.waker })
    }

    /// Tells the first, if it has not been told.
    pub(crate) fn tell_first(&mut self) -> Option<Waker> {
        self.queue.front_mut()?.waker.take()
    }

    /// What the first needs, unless it was told already.
    pub(crate) fn first_charge(&self) -> Option<u64> {
        self.queue.front().filter(|place| place.waker.is_some()).map(|place| place.charge)
    }

    /// Since when the first has waited.
    pub(crate) fn first_since(&self) -> Option<Time> {
        self.queue.front().map(|place| place.since)
    }

    /// Tells everybody: the topic is gone.
    pub(crate) fn tell_all(&mut self) -> impl Iterator<Item = Waker> {
        self.queue.iter_mut().filter_map(|place| place.waker.take())
    }

    fn find(&mut self, ticket: u64) -> Option<&mut Place> {
        let at = self.queue.binary_search_by_key(&ticket, |place| place.ticket).ok()?;
        self.queue.get_mut(at)
    }
}

/// What somebody who left the queue has left.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) was_first: bool,
    pub(crate) was_told: bool,
    pub(crate) waker: Option<Waker>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_goes_and_hands_its_turn_on() {
        let mut queue = Publishers::default();
        let (mut first, mut second) = (None, None);
        queue.wait(&mut first, 5, Time::default(), Waker::noop().clone());
        queue.wait(&mut second, 7, Time::default(), Waker::noop().clone());
        assert!(queue.may_go(first) && !queue.may_go(second) && !queue.may_go(None));
        assert_eq!(queue.first_charge(), Some(5));
        assert!(queue.tell_first().is_some() && queue.tell_first().is_none());
        let left = queue.leave(&mut first).expect("it had a place");
        assert!(left.was_first && left.was_told && queue.may_go(second));
        let left = queue.leave(&mut second).expect("it had a place");
        assert!(left.was_first && !left.was_told && queue.is_empty());
        assert!(queue.leave(&mut second).is_none() && queue.may_go(None));
    }
}
