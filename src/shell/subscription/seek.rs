//! A subscription that starts anew at another place, and the way back through the log.
//!
//! What is brought back is decided by the cut that the topic takes (`topic/seek.rs`); how messages
//! are numbered then, by `broker/replay.rs`. Here is the part between: the log is looked through
//! as far as a pull needs it, and the topic is told what has to be kept meanwhile.

use super::{End, Keeps, SubscriptionShared};
use super::{Reader, State};
use crate::broker::replay::{Marks, Replay, Runs};
use crate::broker::subscription::{Backlog, MAX_WORK, SubscriptionState};
use crate::clock::Reading;
use crate::error::AdminError;
use crate::shell::effects::Effects;
use crate::sync::Arc;
use crate::time::Time;

/// Where a subscription starts anew, as its topic has worked it out under its lock.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The head of the log.
    pub(crate) head: u64,
    pub(crate) to: To,
    /// What is published before this is acknowledged on arrival (SEEK-4).
    pub(crate) not_before: Option<Time>,
}

#[derive(Debug)]
pub(crate) enum To {
    /// A position: below it everything is done. From `retained` on what was acknowledged comes
    /// back, before that only what is unacknowledged now (SEEK-3).
    Position { at: u64, retained: u64 },
    /// What a snapshot says.
    Marks(Marks),
}

/// What the topic has to do about a subscription that has started anew.
pub(crate) struct Restarted {
    pub(crate) from: Keeps,
    pub(crate) to: Keeps,
    pub(crate) unpin: Vec<u64>,
    pub(crate) old: (Box<SubscriptionState>, Option<Box<Replay>>),
}

impl SubscriptionShared {
    /// Whether the subscription takes calls, brought to `reading`; counts as activity (EXP-3).
    pub(crate) fn check_active(&self, reading: Reading) -> Result<(), AdminError> {
        let mut state = self.enter(reading).map_err(|end| self.admin_error(end))?;
        state.touch(reading.now);
        Ok(())
    }

    /// Called by the topic, under its lock: every id dies, and hand-out goes on from the cut (L1).
    pub(crate) fn restart(&self, cut: Cut, effects: &mut Effects) -> Result<Restarted, AdminError> {
        let mut state = self.lock();
        if let Some(end) = state.ended {
            return Err(self.admin_error(end));
        }
        let (start, replay) = match cut.to {
            To::Marks(marks) if self.is_unfiltered => Replay::listed(&marks, 0),
            To::Marks(marks) => self.scanned(0, cut.head, marks),
            To::Position { at, retained } => self.restart_at(&mut state, at, retained, cut.head),
        };
        let unpin = self.pinned_positions(&state);
        let before = self.backlog_of(&state);
        let replay = std::mem::replace(&mut state.replay, replay.map(Box::new));
        let after = self.head(&state) - start;
        let sought = state.broker.seek(start, before, after);
        self.tell_words(&mut state);
        self.look_at_head(&mut state);
        state.stragglers.clear();
        state.boundaries.clear();
        state.let_go(u64::MAX).into_iter().for_each(|segment| effects.free(segment));
        let (from, to) = (state.told, self.keeps(&state));
        state.told = to;
        state.told_low = start;
        state.not_before = cut.not_before;
        if state.not_before.is_some() {
            self.register(&mut state);
        }
        self.tell_if_deliverable(&mut state, effects);
        // Streams that waited for quota have it now.
        for owner in state.broker.owners().take_freed() {
            if let Some(waker) = state.starved.remove(&owner) {
                effects.wake(waker);
            }
        }
        Ok(Restarted { from, to, unpin, old: (sought, replay) })
    }

    /// The first index and the way back, for a seek to a position.
    fn restart_at(
        &self,
        state: &mut State,
        at: u64,
        retained: u64,
        head: u64,
    ) -> (u64, Option<Replay>) {
        let from = self.unlisted_from(state, head);
        if !self.is_unfiltered && at >= head.min(from) && (at >= head || !state.is_scanning()) {
            // Whatever is left has not been handed out yet, and the view lists it.
            return (self.view.index_at(at), None);
        }
        let mut marks = Marks::all_from(retained.min(from).max(at));
        if retained > at {
            let unacked = self.unacked(state);
            let mut runs = Runs::default();
            unacked.filter(|p| (at..marks.from).contains(p)).for_each(|p| runs.push(p));
            marks.runs = Arc::new(runs);
        }
        match self.is_unfiltered {
            true => Replay::listed(&marks, at),
            false => self.scanned(at, head, marks),
        }
    }

    fn scanned(&self, from: u64, head: u64, marks: Marks) -> (u64, Option<Replay>) {
        let (start, replay) = Replay::scanned(from, head, marks, self.view.head());
        (start, Some(replay))
    }

    /// From this position on everything that matches is unacknowledged.
    fn unlisted_from(&self, state: &mut State, head: u64) -> u64 {
        if let Some((next, marks)) = state.replay.as_ref().and_then(|replay| replay.rest()) {
            return marks.from.max(next);
        }
        let cursor = state.broker.cursor();
        let join = state.replay.as_ref().map_or(cursor, |replay| replay.join().max(cursor));
        let (_, reader) = self.reader(state);
        reader.position(join).unwrap_or(head)
    }

    /// Unacknowledged positions below [`unlisted_from`](Self::unlisted_from), in order.
    fn unacked(&self, state: &mut State) -> impl Iterator<Item = u64> + use<> {
        let cursor = state.broker.cursor();
        let join = state.replay.as_ref().map_or(cursor, |replay| replay.join().max(cursor));
        let mut indices: Vec<u64> = state.broker.live_indices().collect();
        indices.extend(cursor..join);
        let (_, reader) = self.reader(state);
        let mut positions: Vec<u64> =
            indices.into_iter().filter_map(|index| reader.position(index)).collect();
        if let Some((next, marks)) = state.replay.as_ref().and_then(|replay| replay.rest()) {
            positions.extend(marks.runs.iter().filter(|position| *position >= next));
        }
        positions.into_iter()
    }

    /// What is unacknowledged, for a snapshot: below the head of the log position by position where
    /// there is a filter, for whoever seeks to it may have another. Also which of these positions
    /// are not kept by a hold from there on. Called under the topic's lock.
    pub(crate) fn marks(&self, head: u64, reading: Reading) -> Result<Marked, AdminError> {
        loop {
            // Brings the state to now; the topic's lock is held, so nothing may expire here.
            let mut state = self.lock();
            if let Some(end) = state.ended {
                return Err(self.admin_error(end));
            }
            let now_head = self.head(&state);
            let (broker, mut reader) = self.reader(&mut state);
            if broker.advance(reading.now, now_head, &mut reader) {
                continue;
            }
            while state.is_scanning() {
                self.look_back(&mut state, usize::MAX, reading.now);
            }
            let mut runs = Runs::default();
            let hold = self.keeps(&state).hold.unwrap_or(head);
            let mut from = self.unlisted_from(&mut state, head);
            self.unacked(&mut state).for_each(|position| runs.push(position));
            if !self.is_unfiltered {
                let cursor = state.broker.cursor();
                let join = state.replay.as_ref().map_or(cursor, |way| way.join().max(cursor));
                let fresh_end = self.head(&state);
                let (_, reader) = self.reader(&mut state);
                let rest = join..fresh_end;
                rest.filter_map(|index| reader.position(index)).for_each(|p| runs.push(p));
                from = head;
            }
            let oldest = state.broker.oldest();
            let (_, mut reader) = self.reader(&mut state);
            let oldest = reader.meta(oldest).map(|meta| meta.published);
            return Ok(Marked { marks: Marks { runs: Arc::new(runs), from }, hold, oldest });
        }
    }

    /// Looks through the log as [`scan`](Self::scan) does, and drops what of that is past its time
    /// by now: a seek may have been long ago (RET-7).
    #[cold]
    pub(super) fn look_back(&self, state: &mut State, wanted: usize, now: Time) {
        self.scan(state, wanted);
        let head = self.head(state);
        let (broker, mut reader) = self.reader(state);
        while broker.advance(now, head, &mut reader) {}
    }

    /// Looks through the log until `wanted` fresh messages are known or some work is done.
    fn scan(&self, state: &mut State, wanted: usize) {
        let cursor = state.broker.cursor();
        let mut count = 0;
        let State { replay: Some(replay), broker, .. } = &mut *state else { return };
        let mut known = replay.head(0).saturating_sub(cursor);
        let directory = self.topic.directory.read();
        let (mut work, now) = (MAX_WORK, self.core.latest());
        while work > 0 && known < wanted as u64 {
            work -= 1;
            let Some(scan) = replay.scan() else { break };
            let found = scan.next().and_then(|next| directory.at_or_above(next));
            let Some((position, segment)) = found.filter(|(at, _)| scan.covers(*at)) else {
                replay.finish_scan();
                break;
            };
            if !scan.marks(position) {
                // A gap in the log lies between: look at the marks again.
                scan.go_on_at(position);
                continue;
            }
            scan.go_on_at(position + 1);
            // What is over by its time to live does not come back (LIB-372).
            let matches = segment.at(position).is_some_and(|message| {
                message.expires() > now && self.view.filter.matches(&message.message)
            });
            if matches {
                replay.add(position);
                known += 1;
                count += 1;
            }
        }
        broker.count_replayed(count);
    }

    /// What is unacknowledged, as far as is known.
    pub(super) fn backlog_of(&self, state: &State) -> u64 {
        state.broker.backlog(self.head(state)) + self.beyond_scan(state)
    }

    /// Messages behind the stretch that is still to be looked through.
    pub(super) fn beyond_scan(&self, state: &State) -> u64 {
        match &state.replay {
            Some(replay) if replay.is_scanning() => {
                self.view.head() - replay.view_low(state.broker.low())
            }
            _ => 0,
        }
    }

    /// What the topic has to keep now.
    pub(super) fn keeps(&self, state: &State) -> Keeps {
        let low = state.broker.low();
        match (&state.replay, self.is_unfiltered) {
            (None, true) => Keeps { hold: Some(low), view_low: 0 },
            (None, false) => Keeps { hold: None, view_low: low },
            (Some(replay), true) => {
                Keeps { hold: Some(replay.hold(low).unwrap_or(low)), view_low: 0 }
            }
            (Some(replay), false) => {
                Keeps { hold: replay.hold(low), view_low: replay.view_low(low) }
            }
        }
    }

    /// Whether it is worth telling the topic how far a replay has come.
    #[cold]
    pub(super) fn has_come_forward(&self, state: &State) -> bool {
        let (low, keeps) = (state.broker.low(), self.keeps(state));
        let is_far = low - state.told_low >= super::TRIM_EVERY || low == self.head(state);
        state.broker.has_pins() || keeps != state.told && (is_far || keeps.hold != state.told.hold)
    }

    /// Where stragglers lie that are to be pinned, and those that no longer need it.
    pub(super) fn positions_of_pins(
        &self,
        state: &mut State,
        pin: Vec<u64>,
        unpin: Vec<u64>,
    ) -> (Vec<u64>, Vec<u64>) {
        let (_, reader) = self.reader(state);
        let pin: Vec<(u64, u64)> =
            pin.into_iter().filter_map(|at| Some((at, reader.position(at)?))).collect();
        let unpin: Vec<(u64, u64)> =
            unpin.into_iter().filter_map(|at| Some((at, reader.position(at)?))).collect();
        if !self.is_unfiltered {
            state.stragglers.extend(pin.iter().copied());
            for (index, _) in &unpin {
                state.stragglers.remove(index);
            }
        }
        let positions = |pairs: Vec<(u64, u64)>| pairs.into_iter().map(|(_, at)| at).collect();
        (positions(pin), positions(unpin))
    }

    /// Where the stragglers lie that the topic has pinned.
    pub(super) fn pinned_positions(&self, state: &State) -> Vec<u64> {
        let stragglers = state.broker.pinned_stragglers().into_iter();
        let replay = state.replay.as_deref();
        let view = (!self.is_unfiltered).then_some(&*self.view);
        let directory = &self.topic.directory;
        let (mut cached, mut boundaries) = (None, std::collections::VecDeque::new());
        let reader = Reader {
            view,
            directory,
            stragglers: &state.stragglers,
            seed: self.core.seed,
            replay,
            cached: &mut cached,
            boundaries: &mut boundaries,
        };
        stragglers.filter_map(|index| reader.position(index)).collect()
    }

    /// Acknowledges on arrival what was published before the time sought to (SEEK-4). Answers
    /// whether more is to be done.
    #[cold]
    pub(super) fn skip_early(&self, state: &mut State, now: Time) -> bool {
        let Some(not_before) = state.not_before else { return false };
        let head = self.head(state);
        let (broker, mut reader) = self.reader(state);
        let found = broker.skip_before(not_before, head, &mut reader);
        self.look_at_head(state);
        if found == Some(true) || (found == Some(false) && now >= not_before) {
            state.not_before = None;
        }
        found.is_none()
    }

    /// The same when a publish has just put it there. Answers whether the topic is to be told.
    pub(super) fn skip_what_came_early(&self, state: &mut State) -> bool {
        let now = self.core.latest();
        while self.skip_early(state, now) {}
        true
    }

    /// Acks count as activity, also where they do nothing (EXP-3, EXP-6).
    pub(super) fn touch_detached(&self, reading: Reading) {
        let mut state = self.lock();
        state.touch(reading.now);
        self.reschedule(&mut state);
    }

    /// The first position that is kept for it.
    pub(crate) fn lowest_needed(&self) -> Option<u64> {
        let mut state = self.lock();
        let index = state.broker.low();
        let (_, reader) = self.reader(&mut state);
        reader.position(index)
    }

    /// Ends deliveries for good; name, settings and expiration stay (RES-14). Doing it twice is
    /// fine (RES-15).
    pub(crate) fn detach(&self) -> Result<(), AdminError> {
        let reading = self.core.read();
        match self.enter(reading) {
            Ok(mut state) => state.touch(reading.now),
            Err(End::Detached) => return Ok(()),
            Err(end) => return Err(self.admin_error(end)),
        }
        self.end(End::Detached);
        Ok(())
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.lock().ended == Some(End::Detached)
    }
}

/// What is unacknowledged on a subscription.
#[derive(Debug)]
pub(crate) struct Marked {
    pub(crate) marks: Marks,
    /// Everything from here on is kept by a hold; what is marked below lies alone.
    pub(crate) hold: u64,
    /// When the oldest was published.
    pub(crate) oldest: Option<Time>,
}

impl State {
    pub(super) fn is_scanning(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| replay.is_scanning())
    }

    /// Forgets what of a replay is over.
    pub(super) fn trim_replay(&mut self) {
        let (low, oldest) = (self.broker.low(), self.broker.oldest());
        if let Some(replay) = &mut self.replay {
            replay.trim(low);
            if replay.is_over(oldest) {
                self.replay = None;
            }
        }
    }
}
