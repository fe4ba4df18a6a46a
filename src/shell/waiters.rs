//! Who waits for a message of one subscription: a queue of wakers with tickets.
//!
//! Whoever is told gets told once; a ticket that was told stays in the queue until its owner comes
//! back or goes away, so that the news is never lost (I-8). Kept behind the subscription's lock.

use std::collections::VecDeque;
use std::task::Waker;

/// Places that may be empty beyond two per waiter.
const SLACK: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    queue: VecDeque<Place>,
    next_ticket: u64,
    /// Waiters that have not been told.
    untold: usize,
    /// All waiters.
    present: usize,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    /// The stream that waits; zero for a pull.
    owner: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Waker),
    Told,
    Gone,
}

impl Waiters {
    /// Takes a place at the end, or renews the waker of one that is held. Answers whether its owner
    /// had been told. Wakers come and go by value: cloning or dropping one may run foreign code,
    /// which the caller does without the lock (I-7).
    pub(crate) fn wait(
        &mut self,
        ticket: &mut Option<u64>,
        owner: u32,
        waker: Waker,
        old_waker: &mut Option<Waker>,
    ) -> bool {
        if let Some(place) = ticket.and_then(|ticket| self.find(ticket)) {
            match &mut place.state {
                State::Waiting(old) => {
                    *old_waker = Some(std::mem::replace(old, waker));
                    return false;
                }
                state => {
                    *state = State::Waiting(waker);
                    self.untold += 1;
                    return true;
                }
            }
        }
        self.next_ticket += 1;
        *ticket = Some(self.next_ticket);
        let state = State::Waiting(waker);
        self.queue.push_back(Place { ticket: self.next_ticket, owner, state });
        self.untold += 1;
        self.present += 1;
        false
    }

    /// Gives a place up. Answers whether its owner had been told, and so owes the news to another.
    pub(crate) fn leave(
        &mut self,
        ticket: &mut Option<u64>,
        old_waker: &mut Option<Waker>,
    ) -> bool {
        let Some(place) = ticket.take().and_then(|ticket| self.find(ticket)) else { return false };
        let state = std::mem::replace(&mut place.state, State::Gone);
        let was_told = matches!(state, State::Told);
        match state {
            State::Waiting(waker) => {
                *old_waker = Some(waker);
                self.untold -= 1;
            }
            State::Told => {}
            State::Gone => return false,
        }
        self.present -= 1;
        self.tidy();
        was_told
    }

    /// Tells the one that waits longest.
    pub(crate) fn tell_one(&mut self) -> Option<Waker> {
        if self.untold == 0 {
            return None;
        }
        let place = self.queue.iter_mut().find(|p| matches!(p.state, State::Waiting(_)))?;
        self.untold -= 1;
        match std::mem::replace(&mut place.state, State::Told) {
            State::Waiting(waker) => Some(waker),
            State::Told | State::Gone => None,
        }
    }

    /// Tells one stream, for which something is reserved (L9).
    pub(crate) fn tell_owner(&mut self, owner: u32) -> Option<Waker> {
        let is_it = |p: &&mut Place| p.owner == owner && matches!(p.state, State::Waiting(_));
        let place = self.queue.iter_mut().find(is_it)?;
        self.untold -= 1;
        match std::mem::replace(&mut place.state, State::Told) {
            State::Waiting(waker) => Some(waker),
            State::Told | State::Gone => None,
        }
    }

    /// Tells everybody.
    pub(crate) fn tell_all(&mut self) -> impl Iterator<Item = Waker> {
        self.untold = 0;
        self.queue.iter_mut().filter_map(|place| match place.state {
            State::Waiting(_) => match std::mem::replace(&mut place.state, State::Told) {
                State::Waiting(waker) => Some(waker),
                State::Told | State::Gone => None,
            },
            State::Told | State::Gone => None,
        })
    }

    /// Whether somebody waits who has not been told.
    pub(crate) fn has_untold(&self) -> bool {
        self.untold > 0
    }

    pub(crate) fn len(&self) -> usize {
        self.present
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.present == 0
    }

    fn find(&mut self, ticket: u64) -> Option<&mut Place> {
        let at = self.queue.binary_search_by_key(&ticket, |place| place.ticket).ok()?;
        self.queue.get_mut(at)
    }

    fn tidy(&mut self) {
        let gone = |place: Option<&Place>| place.is_some_and(|p| matches!(p.state, State::Gone));
        while gone(self.queue.front()) {
            self.queue.pop_front();
        }
        while gone(self.queue.back()) {
            self.queue.pop_back();
        }
        if self.queue.len() > 2 * self.present + SLACK {
            self.queue.retain(|place| !matches!(place.state, State::Gone));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waiting_is_told_first_and_only_once() {
        let mut waiters = Waiters::default();
        let (mut first, mut second) = (None, None);
        waiters.wait(&mut first, 0, Waker::noop().clone(), &mut None);
        waiters.wait(&mut second, 0, Waker::noop().clone(), &mut None);
        assert!(waiters.tell_one().is_some());
        assert!(waiters.leave(&mut first, &mut None), "it had been told");
        assert!(waiters.has_untold());
        assert!(!waiters.leave(&mut second, &mut None), "it had not");
        assert!(waiters.tell_one().is_none() && waiters.is_empty());
    }

    #[test]
    fn a_waiter_that_was_told_may_wait_again() {
        let mut waiters = Waiters::default();
        let mut ticket = None;
        waiters.wait(&mut ticket, 0, Waker::noop().clone(), &mut None);
        assert!(waiters.tell_one().is_some() && waiters.tell_one().is_none());
        waiters.wait(&mut ticket, 0, Waker::noop().clone(), &mut None);
        assert!(waiters.tell_one().is_some());
    }

    #[test]
    fn many_that_give_up_behind_one_that_stays_leave_no_trace() {
        let mut waiters = Waiters::default();
        let (mut first, mut last) = (None, None);
        waiters.wait(&mut first, 0, Waker::noop().clone(), &mut None);
        for _ in 0..1_000 {
            let mut ticket = None;
            waiters.wait(&mut ticket, 0, Waker::noop().clone(), &mut None);
            waiters.wait(&mut last, 0, Waker::noop().clone(), &mut None);
            waiters.leave(&mut ticket, &mut None);
            waiters.leave(&mut last, &mut None);
        }
        assert!(waiters.queue.len() <= 2 + SLACK);
    }
}
