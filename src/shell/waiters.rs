//! Who waits for a message of one subscription: a queue of wakers with tickets.
//!
//! Whoever is told gets told once; a ticket that was told stays in the queue until its owner comes
//! back or goes away, so that the news is never lost (I-8). Kept behind the subscription's lock.

use std::collections::VecDeque;
use std::task::Waker;

/// The owner of a place that a push waits in. It does not keep the subscription alive (EXP-3).
pub(crate) const PUSH: u32 = u32::MAX;

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
    /// Those of them that push.
    pushes: usize,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    /// The stream that waits; zero for a pull, `PUSH` for a push.
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
        self.pushes += usize::from(owner == PUSH);
        false
    }

    /// Gives a place up. Answers whether its owner had been told, and so owes the news to another.
    pub(crate) fn leave(
        &mut self,
        ticket: &mut Option<u64>,
        old_waker: &mut Option<Waker>,
    ) -> bool {
        let Some(place) = ticket.take().and_then(|ticket| self.find(ticket)) else { return false };
        let is_push = place.owner == PUSH;
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
        self.pushes -= usize::from(is_push);
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

    /// Whether somebody waits whose waiting is activity (EXP-3).
    pub(crate) fn has_active(&self) -> bool {
        self.present > self.pushes
    }

    fn find(&mut self, ticket: u64) -> Option<&mut Place> {
        if self.queue.front().is_some_and(|first| first.ticket == ticket) {
            return self.queue.front_mut();
        }
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

#[cfg(all(test, siftbus_loom))]
mod loom_tests {
    use std::task::Wake;

    use super::*;
    use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

    /// A subscription as far as waiting goes: messages, who waits, and the rules of L9.
    #[derive(Default)]
    struct Shared {
        waiters: Waiters,
        ready: usize,
    }

    impl Shared {
        fn tell(&mut self, wakers: &mut Vec<Waker>) {
            if self.ready > 0 && self.waiters.has_untold() {
                wakers.extend(self.waiters.tell_one());
            }
        }
    }

    /// Whether somebody was woken.
    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    struct Pull {
        shared: Arc<Mutex<Shared>>,
        ticket: Option<u64>,
        flag: Arc<Flag>,
        done: bool,
    }

    impl Pull {
        fn new(shared: &Arc<Mutex<Shared>>) -> Self {
            Self { shared: Arc::clone(shared), ticket: None, flag: Arc::default(), done: false }
        }

        /// A poll of `pull(1)`: takes one and passes the news of the rest on, or waits.
        fn poll(&mut self) {
            let (mut wakers, mut old) = (Vec::new(), None);
            let waker = Waker::from(Arc::clone(&self.flag));
            let mut shared = self.shared.lock();
            if shared.ready > 0 {
                shared.ready -= 1;
                self.done = true;
                shared.waiters.leave(&mut self.ticket, &mut old);
                shared.tell(&mut wakers);
            } else {
                shared.waiters.wait(&mut self.ticket, 0, waker, &mut old);
            }
            drop(shared);
            wakers.into_iter().for_each(Waker::wake);
        }

        /// Dropped before it was done: what it was told is passed on.
        fn give_up(&mut self) {
            let (mut wakers, mut old) = (Vec::new(), None);
            let mut shared = self.shared.lock();
            if shared.waiters.leave(&mut self.ticket, &mut old) {
                shared.tell(&mut wakers);
            }
            drop(shared);
            wakers.into_iter().for_each(Waker::wake);
        }

        /// A runtime polls again whoever was woken.
        fn is_woken(&self) -> bool {
            !self.done && self.flag.0.swap(false, Ordering::SeqCst)
        }
    }

    fn publish(shared: &Mutex<Shared>, count: usize) {
        let mut wakers = Vec::new();
        let mut state = shared.lock();
        state.ready += count;
        state.tell(&mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    #[test]
    fn one_batch_against_two_pulls_of_one() {
        loom::model(|| {
            let shared = Arc::new(Mutex::new(Shared::default()));
            let mut pulls = [Pull::new(&shared), Pull::new(&shared)];
            let publisher = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || publish(&shared, 2))
            };
            pulls.iter_mut().for_each(Pull::poll);
            publisher.join().expect("it ends");
            while let Some(pull) = pulls.iter_mut().find(|pull| pull.is_woken()) {
                pull.poll();
            }
            assert!(pulls.iter().all(|pull| pull.done), "a message and a waiter are left (L9)");
        });
    }

    /// Whoever was told and not polled in time is passed over, and comes just then.
    #[test]
    fn a_late_poll_against_the_one_who_passes_it_over() {
        loom::model(|| {
            let shared = Arc::new(Mutex::new(Shared::default()));
            let (mut late, mut other) = (Pull::new(&shared), Pull::new(&shared));
            late.poll();
            other.poll();
            publish(&shared, 1);
            let driver = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || publish(&shared, 0))
            };
            late.poll();
            driver.join().expect("it ends");
            while let Some(pull) = [&mut late, &mut other].into_iter().find(|pull| pull.is_woken())
            {
                pull.poll();
            }
            assert!(late.done != other.done, "one message, one who has it (L9)");
            assert_eq!(shared.lock().ready, 0);
        });
    }

    #[test]
    fn a_message_against_a_pull_that_is_dropped() {
        loom::model(|| {
            let shared = Arc::new(Mutex::new(Shared::default()));
            let (mut stays, mut goes) = (Pull::new(&shared), Pull::new(&shared));
            goes.poll();
            stays.poll();
            let publisher = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || publish(&shared, 1))
            };
            goes.give_up();
            publisher.join().expect("it ends");
            while stays.is_woken() {
                stays.poll();
            }
            assert!(stays.done, "the news went with the one that was dropped (L9)");
        });
    }
}
