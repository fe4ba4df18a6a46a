//! Handing messages out: now, or to somebody who waits in line.
//!
//! Which messages is the broker's decision; settling them is in `settle.rs`.

use std::sync::Weak;
use std::task::Waker;

use super::{ANYBODY, Request, State, SubscriptionShared};
use crate::broker::ordering::Client;
use crate::broker::subscription::LeaseOptions;
use crate::clock::Reading;
use crate::error::PullError;
use crate::shell::batch::Batch;
use crate::shell::effects::Effects;
use crate::sync::{MutexGuard, Ordering};

/// What a lease has come to.
enum Leased {
    Batch(Box<Batch>),
    Nothing,
    /// Nothing either, and whoever asked stands in line.
    Waiting,
}

impl SubscriptionShared {
    /// Leases what is there now; `None` if that is nothing.
    #[inline]
    pub(crate) fn lease(&self, request: &Request) -> Result<Option<Box<Batch>>, PullError> {
        Ok(match self.lease_or_wait(request, &mut None, &mut None)? {
            Leased::Batch(batch) => Some(batch),
            Leased::Nothing | Leased::Waiting => None,
        })
    }

    /// The same for somebody who waits, or may come to: a place in line is given up under the lock
    /// under which the messages were taken, and taken, if there is a waker, under the lock under
    /// which nothing was found.
    #[inline]
    fn lease_or_wait(
        &self,
        request: &Request,
        ticket: &mut Option<u64>,
        waker: &mut Option<Waker>,
    ) -> Result<Leased, PullError> {
        let reading = self.core.read();
        if self.core.lifecycle.is_closing() {
            return Err(self.closing_error(reading));
        }
        let most = request.max_messages.min(self.core.limits.pull_messages);
        let mut state = self.state.lock();
        match self.lease_in_lane(&mut state, request, most, reading) {
            Some(batch) if ticket.is_none() => Ok(Leased::Batch(batch)),
            Some(batch) => {
                let mut effects = Effects::default();
                self.leave_line(&mut state, ticket, &mut effects);
                drop(state);
                effects.run();
                Ok(Leased::Batch(batch))
            }
            None if waker.is_some() && self.is_lane_empty(&state, request, reading) => {
                state.touch(reading.now);
                let mut effects = Effects::default();
                let waits = self.stand_in_line(&mut state, request, ticket, waker, &mut effects);
                drop(state);
                effects.run();
                Ok(if waits { Leased::Waiting } else { Leased::Nothing })
            }
            None => self.lease_in_rounds(state, request, most, reading, ticket, waker),
        }
    }

    /// Rounds are of bounded size (L6): a large request takes the lock several times.
    fn lease_in_rounds<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        request: &Request,
        mut left: usize,
        reading: Reading,
        ticket: &mut Option<u64>,
        waker: &mut Option<Waker>,
    ) -> Result<Leased, PullError> {
        let mut state = match self.enter_with(state, reading, left as u64) {
            Ok(state) => state,
            Err(end) => return Err(self.pull_error(end)),
        };
        if !request.is_push {
            state.touch(reading.now);
        }
        if request.owner != 0 {
            self.check_no_push(&state)?;
        }
        state.calls += 1;
        let client = request.client(state.calls);
        let mut batch = state.spare.take().unwrap_or_default();
        // Dropped when the lock is released.
        let passed = std::mem::take(&mut batch.segments);
        batch.epoch = state.broker.epoch();
        loop {
            let mut effects = Effects::default();
            if state.is_scanning() {
                // Which of them are free is not known before where keys have an order (LIB-11).
                let wanted = if state.broker.is_ordered() { usize::MAX } else { left };
                self.look_back(&mut state, wanted, reading.now);
                self.look_at_head(&mut state);
            }
            let most = state.at_once(left);
            let (taken, stopped) =
                self.lease_round(&mut state, request, most, client, reading, &mut batch);
            left -= taken;
            if ticket.is_some() && !batch.is_empty() {
                // Before others are told of the rest, or it would be told itself.
                self.leave_line(&mut state, ticket, &mut effects);
            }
            let done = self.is_last_round(&mut state, client, left, taken, stopped, &mut effects);
            if done && batch.is_empty() {
                state.spare = Some(batch);
                let waits = waker.is_some()
                    && self.stand_in_line(&mut state, request, ticket, waker, &mut effects);
                let after = self.leave(state, &mut effects);
                self.finish(&mut effects, after);
                return Ok(if waits { Leased::Waiting } else { Leased::Nothing });
            }
            let after = self.leave(state, &mut effects);
            self.finish(&mut effects, after);
            if done {
                break;
            }
            state = match self.enter_for(reading, left as u64) {
                Ok(state) if state.broker.epoch() == batch.epoch => state,
                // Nothing is leaked by what was handed out before: it is of an ended subscription
                // now, or was sought over.
                Err(end) if batch.is_empty() => return Err(self.pull_error(end)),
                Ok(_) | Err(_) => break,
            };
        }
        drop(passed);
        Ok(Leased::Batch(batch))
    }

    /// Whether a lease ends after this round. Whoever waits is told if it leaves something behind
    /// (L9).
    #[inline]
    pub(super) fn is_last_round(
        &self,
        state: &mut State,
        client: Client,
        left: usize,
        taken: usize,
        stopped: bool,
        effects: &mut Effects,
    ) -> bool {
        let is_scanning = state.is_scanning();
        let head = state.seen;
        let more = is_scanning || state.broker.has_deliverable(head, client);
        let goes_on = is_scanning && !state.broker.has_deliverable(head, client);
        let done = left == 0 || !goes_on && (!more || (taken == 0 && !stopped));
        if more && done && (is_scanning || state.broker.has_deliverable(head, ANYBODY)) {
            self.tell_one(state, effects);
        }
        done
    }

    #[inline]
    pub(super) fn lease_round(
        &self,
        state: &mut State,
        request: &Request,
        most: usize,
        client: Client,
        reading: Reading,
        batch: &mut Batch,
    ) -> (usize, bool) {
        let mut max_messages = most;
        let mut max_bytes = u64::MAX;
        if request.owner != 0 {
            let Some(quota) = state.broker.owners().get(request.owner) else { return (0, false) };
            let room = usize::try_from(quota.room_for_messages()).unwrap_or(usize::MAX);
            max_messages = max_messages.min(room);
            max_bytes = quota.room_for_bytes();
        }
        let options = LeaseOptions {
            now: reading.now,
            max_messages,
            max_bytes,
            deadline: reading.deadline(request.lease_span(state.ack_deadline)),
            owner: request.owner,
            client,
        };
        let start = batch.runs.len();
        let head = state.seen;
        let (broker, mut reader) = self.reader(state);
        let (taken, stopped) = broker.lease(head, &options, &mut reader, &mut batch.runs);
        if taken == 0 {
            return (taken, stopped);
        }
        if state.faults.is_some() && self.delays_last(state, reading, batch) {
            return (0, true);
        }
        let (_, mut reader) = self.reader(state);
        reader.resolve(batch, start);
        if let Some(history) = &mut state.history {
            history.note(batch, start);
        }
        self.reschedule(state);
        (taken, stopped)
    }

    /// Whether pulls lately found nothing at first.
    #[inline]
    pub(crate) fn is_often_empty(&self) -> bool {
        self.is_often_empty.load(Ordering::Relaxed)
    }

    /// Leases for somebody who waits, or puts the waker on the list and answers `None`. The lease
    /// is taken in the poll that returns it, so a dropped future strands nothing (D6).
    #[inline]
    pub(crate) fn poll_lease(
        &self,
        request: &Request,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> Result<Option<Box<Batch>>, PullError> {
        // Cloning a waker runs foreign code, so not under the lock, and not for nothing.
        let guess = ticket.is_none() && self.is_often_empty();
        let mut ready = guess.then(|| waker.clone());
        match self.lease_or_wait(request, ticket, &mut ready)? {
            Leased::Batch(batch) => {
                if guess {
                    self.is_often_empty.store(false, Ordering::Relaxed);
                }
                Ok(Some(batch))
            }
            Leased::Waiting => Ok(None),
            Leased::Nothing => self.wait(request, ticket, waker),
        }
    }

    /// Takes a place in line. Answers whether there is still nothing to hand out.
    fn stand_in_line(
        &self,
        state: &mut State,
        request: &Request,
        ticket: &mut Option<u64>,
        waker: &mut Option<Waker>,
        effects: &mut Effects,
    ) -> bool {
        // Asked under the lock, as whoever closes takes it after the mark is set. Closing and a
        // stream at its quota are met by `wait`.
        if self.core.lifecycle.is_closing() || self.is_starved(state, request.owner) {
            return false;
        }
        let Some(waker) = waker.take() else { return false };
        if state.waiters.wait(ticket, request.place(), waker, &mut effects.old_waker) {
            self.core.wakes_ended(1);
        }
        state.close_lane_if_many_wait();
        self.register(state);
        self.observe(state);
        // Looked at after registering, as a publisher looks at the flag after the head is set.
        !self.may_deliver(state, request.client(0))
    }

    /// Has the view tell of the next message.
    pub(super) fn register(&self, state: &mut State) {
        if !state.is_registered {
            state.is_registered = true;
            let me = state.listener.take().unwrap_or_else(|| self.me.clone());
            self.view.register(me);
        }
    }

    /// Goes on after a first look that found nothing.
    pub(crate) fn wait(
        &self,
        request: &Request,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> Result<Option<Box<Batch>>, PullError> {
        self.is_often_empty.store(true, Ordering::Relaxed);
        loop {
            let mut effects = Effects::default();
            let mut waker = Some(waker.clone());
            let reading = Reading::at(self.core.latest());
            let mut state = self.enter(reading).map_err(|end| self.pull_error(end))?;
            if self.core.lifecycle.is_closing() {
                return Err(PullError::Closed);
            }
            if self.is_starved(&mut state, request.owner) {
                // A stream at its quota is no waiter (L9).
                let replaced = waker.and_then(|own| state.starved.insert(request.owner, own));
                self.observe(&mut state);
                let owed = self.give_up(&mut state, ticket, &mut effects);
                if owed {
                    self.tell_if_deliverable(&mut state, &mut effects);
                }
                let after = self.leave(state, &mut effects);
                drop(replaced);
                self.finish(&mut effects, after);
                return Ok(None);
            }
            if self.stand_in_line(&mut state, request, ticket, &mut waker, &mut effects) {
                return Ok(None);
            }
            drop(state);
            if let Leased::Batch(batch) = self.lease_or_wait(request, ticket, &mut None)? {
                return Ok(Some(batch));
            }
        }
    }

    /// Somebody who waited goes: it has what it wanted, or was dropped.
    pub(crate) fn stop_waiting(&self, ticket: &mut Option<u64>) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        if self.give_up(&mut state, ticket, &mut effects) {
            self.tell_if_deliverable(&mut state, &mut effects);
        }
        drop(state);
        effects.run();
    }

    /// Answers whether the waiter had been told, and so owes the news to another.
    pub(super) fn give_up(
        &self,
        state: &mut State,
        ticket: &mut Option<u64>,
        effects: &mut Effects,
    ) -> bool {
        let was_active = state.waiters.has_active();
        let told = self.leave_line(state, ticket, effects);
        if was_active && !state.waiters.has_active() {
            // Being on the list until now was activity (PULL-11).
            self.touch_now(state);
        }
        told
    }

    /// Answers whether the waiter had been told. Whoever calls has marked the activity.
    #[inline]
    fn leave_line(
        &self,
        state: &mut State,
        ticket: &mut Option<u64>,
        effects: &mut Effects,
    ) -> bool {
        let told = state.waiters.leave(ticket, &mut effects.old_waker);
        if told {
            self.core.wakes_ended(1);
        }
        told
    }

    /// Something counts as activity at a time that nobody has read.
    pub(super) fn touch_now(&self, state: &mut State) {
        if self.core.timeline.is_cheap() {
            state.touch(self.core.timeline.read().now);
        } else {
            state.is_touched = true;
        }
    }

    /// A publish has put something into the view; `listener` is what the view had of this.
    pub(crate) fn messages_arrived(&self, listener: Weak<Self>, effects: &mut Effects) {
        let mut state = self.state.lock();
        state.close_lane_if_many_wait();
        state.is_registered = false;
        state.listener = Some(listener);
        let trim = state.not_before.is_some() && self.skip_what_came_early(&mut state);
        self.offer_room(&mut state, effects);
        if self.may_deliver(&mut state, ANYBODY) {
            self.tell_one(&mut state, effects);
        }
        if (state.waiters.has_untold() || state.not_before.is_some()) && state.ended.is_none() {
            self.register(&mut state);
        }
        drop(state);
        if trim {
            self.topic.trim(self);
        }
    }
}
