//! The state of one subscription, as a value: what is ready, leased, delayed, done, and until when.
//!
//! The lease state machine LS-1 … LS-19 in one place. It has no clock and no lock: `now` and the
//! head of its view are arguments, messages are looked at through [`Backlog`], and a call that
//! hands
//! out or judges leases is preceded by [`SubscriptionState::advance`] to the same `now`. Waiting
//! and
//! waking are not known here; neither is where messages are stored.
//!
//! Indices are those of the subscription's view: positions of the log for an unfiltered one.

mod audit;
pub(crate) mod failure;
mod faults;
mod limit;
mod ordered;
mod seek;
mod ttl;
mod unfiled;
mod weight;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use self::failure::{Failure, Outgoing};
use self::ordered::slot_of;
use super::deadlines::{Deadlines, Run};
use super::lease::{Phase, STRICT, Word};
use super::ledger::Ledger;
use super::ordering::{Client, Ordering};
use super::owners::Owners;
use super::policy::Policy;
use super::window::Window;
use crate::time::{Span, Time};

/// Entries that one call works through before it lets go of the lock (L6).
pub(crate) const MAX_WORK: usize = 4_096;

/// The ready heap and the deadlines may have this many entries beyond two per live word.
pub(crate) const HINT_SLACK: usize = 1_024;

/// What a subscription may know of a message: read through the log.
pub(crate) trait Backlog {
    /// The message at an index of the view, while the log has it.
    fn meta(&mut self, index: u64) -> Option<Meta>;

    /// The hash of the ordering key of the message at an index; `None` without a key.
    fn key(&mut self, index: u64) -> Option<u64>;
}

#[derive(Copy, Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) published: Time,
    /// From when on it is handed out to nobody any more, by its own time to live.
    pub(crate) expires: Time,
    pub(crate) size: u64,
}

/// Names one delivery: valid until the message is settled, handed out again, or sought over.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseId {
    pub(crate) epoch: u32,
    pub(crate) generation: u32,
    pub(crate) index: u64,
}

/// Consecutive messages handed out together; the shell fills in where they lie.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leased {
    /// Of the first one.
    pub(crate) index: u64,
    pub(crate) len: u32,
    pub(crate) generation: u32,
    pub(crate) attempt: u16,
    pub(crate) slot: u16,
    pub(crate) segment: u32,
}

/// Runs of messages handed out; most often it is one.
pub(crate) type Runs = Vec<Leased>;

/// How much to hand out, to whom.
#[derive(Copy, Clone, Debug)]
pub(crate) struct LeaseOptions {
    pub(crate) now: Time,
    pub(crate) max_messages: usize,
    /// The hand-out stops once this many bytes are reached, so it may overshoot by one message.
    pub(crate) max_bytes: u64,
    pub(crate) deadline: Time,
    /// Whose quota the messages count against; zero for nobody's.
    pub(crate) owner: u32,
    /// For whom, where keys have an order.
    pub(crate) client: Client,
}

/// What became of a settlement.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Done,
    Stale,
    /// Takes effect once earlier messages of the key are acknowledged (ORD-7 b).
    Provisional,
    /// Not applied: an earlier message of the key is not acknowledged (EOD-9).
    Unordered,
    /// Not applied, by a fault on demand: it can be repeated (EOD-10).
    Transient,
}

#[derive(Debug)]
pub(crate) struct SubscriptionState {
    /// Raised whenever all outstanding ids must die at once.
    epoch: u32,
    window: Window,
    ready: BinaryHeap<Reverse<u64>>,
    deadlines: Deadlines,
    leased: u64,
    deliverable: u64,
    delayed: u64,
    forwarding: u64,
    dead_letters_dropped: u64,
    policy: Policy,
    /// Zero, or the mark of a strict lease.
    strict: u32,
    outbox: VecDeque<Outgoing>,
    /// Of an ordered subscription.
    ordering: Option<Box<Ordering>>,
    /// The last hand-out was a redelivery: a fresh message is next if one waits (L13).
    redelivered_last: bool,
    retention: Span,
    /// No message expires before this; `NEVER` while none is known.
    retention_due: Time,
    /// No message from this index on, of those that it may be asked for, has a time to live.
    ttl_below: u64,
    /// The oldest message when `retention_due` was worked out.
    front: u64,
    owners: Owners,
    /// Stragglers that have to be pinned, and those that no longer need to be.
    to_pin: Vec<u64>,
    to_unpin: Vec<u64>,
    redeliveries: u64,
    expired_leases: u64,
    ledger: Ledger,
    /// The backlog in bytes, where that is limited.
    weights: Option<Box<weight::Weights>>,
}

impl SubscriptionState {
    /// A subscription that begins at index `start` of its view.
    pub(crate) fn new(start: u64, retention: Span) -> Self {
        Self {
            epoch: 0,
            window: Window::starting_at(start),
            ready: BinaryHeap::new(),
            deadlines: Deadlines::default(),
            leased: 0,
            deliverable: 0,
            delayed: 0,
            forwarding: 0,
            dead_letters_dropped: 0,
            policy: Policy::default(),
            strict: 0,
            outbox: VecDeque::new(),
            ordering: None,
            redelivered_last: false,
            retention,
            retention_due: Time::NEVER,
            ttl_below: 0,
            front: u64::MAX,
            owners: Owners::default(),
            to_pin: Vec::new(),
            to_unpin: Vec::new(),
            redeliveries: 0,
            expired_leases: 0,
            ledger: Ledger::default(),
            weights: None,
        }
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Everything below this index is done, or a straggler.
    pub(crate) fn low(&self) -> u64 {
        self.window.low()
    }

    /// The index of the first message that was never handed out.
    #[inline]
    pub(crate) fn cursor(&self) -> u64 {
        self.window.cursor()
    }

    pub(crate) fn backlog(&self, head: u64) -> u64 {
        self.window.live() + (head - self.window.cursor())
    }

    pub(crate) fn outstanding(&self) -> u64 {
        self.leased
    }

    /// Lease words in use: messages that were handed out or passed over, and have not left.
    #[inline]
    pub(crate) fn word_count(&self) -> u64 {
        self.window.live()
    }

    pub(crate) fn delayed(&self) -> u64 {
        self.delayed
    }

    /// Whether leases from now on end for good with their deadline (EOD-2, EOD-4).
    pub(crate) fn set_exactly_once(&mut self, is_on: bool) {
        self.strict = if is_on { STRICT } else { 0 };
    }

    pub(crate) fn redeliveries(&self) -> u64 {
        self.redeliveries
    }

    pub(crate) fn expired_leases(&self) -> u64 {
        self.expired_leases
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether a lease would hand something out to `client`.
    #[inline]
    pub(crate) fn has_deliverable(&mut self, head: u64, client: Client) -> bool {
        if self.ordering.is_some() {
            return self.has_in_order(head, client);
        }
        self.deliverable > 0 || self.window.cursor() < head
    }

    /// When something changes by itself: a lease lapses or a delay ends. Retention is not counted:
    /// nobody waits for a message to vanish, and it is checked by every call. Only where keys have
    /// an order, the next message of a key waits for just that.
    pub(crate) fn next_due(&self) -> Time {
        let due = self.deadlines.next_due();
        if self.ordering.is_some() { due.min(self.retention_due) } else { due }
    }

    pub(crate) fn owners(&mut self) -> &mut Owners {
        &mut self.owners
    }

    /// Before this no message is past retention; `NEVER` if there is none.
    pub(crate) fn retention_due(&self) -> Time {
        self.retention_due
    }

    pub(crate) fn set_retention(&mut self, retention: Span) {
        self.retention = retention;
        self.retention_due = Time::NEVER;
    }

    /// Stragglers to pin and to unpin since the last call.
    pub(crate) fn take_pins(&mut self) -> (Vec<u64>, Vec<u64>) {
        (std::mem::take(&mut self.to_pin), std::mem::take(&mut self.to_unpin))
    }

    pub(crate) fn has_pins(&self) -> bool {
        !self.to_pin.is_empty() || !self.to_unpin.is_empty()
    }

    /// Forgets everything; answers the stragglers, whose pins are no longer needed.
    pub(crate) fn end(&mut self, head: u64) -> Vec<u64> {
        let mut unpinned = std::mem::take(&mut self.to_pin);
        unpinned.sort_unstable();
        let mut pins = self.window.stragglers_in(0..u64::MAX);
        pins.retain(|index| unpinned.binary_search(index).is_err());
        pins.append(&mut self.to_unpin);
        let (retention, policy, strict) = (self.retention, self.policy, self.strict);
        let epoch = self.epoch + 1;
        *self = Self { epoch, policy, strict, ..Self::new(head, retention) };
        pins
    }

    /// Brings the state to `now`: retention first, then lapses and ended delays (TIME-2). Answers
    /// whether more is to be done, so that a caller can let go of its lock in between.
    #[inline]
    pub(crate) fn advance(&mut self, now: Time, head: u64, backlog: &mut impl Backlog) -> bool {
        self.is_due(now, head) && self.advance_slowly(now, head, backlog)
    }

    /// Whether something may have to be done by `now`.
    #[inline]
    pub(crate) fn is_due(&self, now: Time, head: u64) -> bool {
        let is_unknown = self.retention_due == Time::NEVER
            && (self.window.live() > 0 || self.window.cursor() < head);
        is_unknown
            || now >= self.retention_due
            || now >= self.deadlines.next_due()
            || (self.ttl_below > 0 && self.has_new_front())
    }

    /// Nothing is to be seen to after a call: no keys, outgoing messages, freed quota or weights.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        let is_idle = self.outbox.is_empty() && !self.owners.has_freed();
        self.ordering.is_none() && self.weights.is_none() && is_idle
    }

    /// Whether fresh messages are all that is there to be handed out, and none ends early.
    #[inline]
    pub(crate) fn has_only_fresh(&self) -> bool {
        self.deliverable == 0 && self.ttl_below == 0 && self.is_plain()
    }

    /// Before this nothing is due, whatever is published; long ago if that is not known.
    #[inline]
    pub(crate) fn nothing_due_before(&self) -> Time {
        match self.retention_due {
            Time::NEVER => Time::default(),
            due => due.min(self.deadlines.next_due()),
        }
    }

    #[cold]
    fn advance_slowly(&mut self, now: Time, head: u64, backlog: &mut impl Backlog) -> bool {
        let mut work = MAX_WORK;
        if !self.expire(now, head, backlog, &mut work) {
            return true;
        }
        while let Some(run) = self.deadlines.pop_due(now) {
            if let Some(rest) = self.fire(run, now, backlog, &mut work) {
                self.deadlines.add(rest);
                return true;
            }
        }
        false
    }

    /// Drops what is past retention, oldest first. Answers whether it came to the end.
    fn expire(
        &mut self,
        now: Time,
        head: u64,
        backlog: &mut impl Backlog,
        work: &mut usize,
    ) -> bool {
        let is_known = self.retention_due != Time::NEVER && !self.has_new_front();
        if is_known && now < self.retention_due {
            return true;
        }
        loop {
            let oldest = self.oldest();
            if oldest >= head {
                self.retention_due = Time::NEVER;
                return true;
            }
            self.front = oldest;
            if let Some(meta) = backlog.meta(oldest) {
                let due = meta.published.after(self.retention).min(self.ttl_due(oldest, &meta));
                if now < due {
                    // `NEVER` would mean that nothing is known.
                    self.retention_due = due.min(Time::LAST);
                    return true;
                }
            }
            if *work == 0 {
                return false;
            }
            *work -= 1;
            self.ledger.expired += 1;
            if oldest < self.window.cursor() {
                self.drop_expired(oldest, backlog);
            } else {
                self.window.skip(Word::DONE);
            }
        }
    }

    /// Looks at the words of a run that is due. Answers what is left of it when `work` is used up.
    fn fire(
        &mut self,
        run: Run,
        now: Time,
        backlog: &mut impl Backlog,
        work: &mut usize,
    ) -> Option<Run> {
        // Whole parts of the run may be done and gone already.
        let end = run.first + run.len;
        let start = if run.len > 1 { run.first.max(self.window.low()) } else { run.first };
        if start > run.first {
            for index in self.window.stragglers_in(run.first..start) {
                self.fire_one(index, now, backlog);
            }
        }
        for index in start..end {
            if *work == 0 {
                return Some(Run { due: run.due, first: index, len: end - index });
            }
            *work -= 1;
            self.fire_one(index, now, backlog);
        }
        None
    }

    fn fire_one(&mut self, index: u64, now: Time, backlog: &mut impl Backlog) {
        let Some(word) = self.window.get(index) else { return };
        let (phase, due) = (word.phase(), word.deadline());
        let next = match phase {
            Phase::Leased | Phase::LapsedBackingOff => Phase::Lapsed,
            Phase::Delayed | Phase::BackingOff => Phase::Ready,
            Phase::Done | Phase::Lapsed | Phase::Ready | Phase::Forwarding | Phase::Provisional => {
                return;
            }
        };
        if phase != Phase::Leased && self.is_over(index, now, backlog) {
            // Also looked at early for this: its key need not wait for it (LIB-373).
            self.ledger.expired += 1;
            return self.drop_expired(index, backlog);
        }
        if now < due {
            // The deadline was extended: file it where it belongs now (L13).
            self.deadlines.add(Run { due, first: index, len: 1 });
            return;
        }
        if phase == Phase::Leased {
            return self.lapse(index, due, now, backlog);
        }
        if let Some(word) = self.window.get_mut(index) {
            word.set_phase(next);
            self.delayed -= 1;
            self.make_ready(index);
        }
    }

    /// A lease has reached its end.
    fn lapse(&mut self, index: u64, due: Time, now: Time, backlog: &mut impl Backlog) {
        self.file_unfiled(backlog);
        // With exactly-once delivery a late answer fails, whatever happens to the message (EOD-4).
        let is_strict = self.window.get(index).is_some_and(Word::is_strict);
        let failure = if is_strict { Failure::Nack } else { Failure::Lapse };
        self.expired_leases += 1;
        self.end_lease(index, backlog);
        self.fail(index, failure, due, None, now, backlog);
    }

    /// A lease is over; what becomes of the message is the caller's business.
    #[inline]
    fn end_lease(&mut self, index: u64, backlog: &mut impl Backlog) {
        self.leased -= 1;
        let word = self.window.get(index);
        let owner = match word.and_then(slot_of) {
            Some(slot) => self.end_lease_in_order(slot),
            None => word.map_or(0, Word::owner),
        };
        self.release_owner(owner, index, backlog);
    }

    /// A word has become `Done`.
    #[inline]
    fn retire(&mut self, index: u64) {
        if self.window.finish(index) {
            self.to_unpin.push(index);
        }
    }

    /// Hands out up to `options.max_messages`, at most `MAX_WORK` at a time. Answers how many, and
    /// whether it stopped because it had looked at enough without an end.
    pub(crate) fn lease(
        &mut self,
        head: u64,
        options: &LeaseOptions,
        backlog: &mut impl Backlog,
        out: &mut Runs,
    ) -> (usize, bool) {
        if self.ordering.is_some() {
            let answer = self.lease_ordered(head, *options, backlog, out);
            self.shed();
            return answer;
        }
        let max = options.max_messages.min(MAX_WORK);
        let is_plain = self.deliverable == 0 && self.window.cursor() >= self.ttl_below;
        let answer = if is_plain && options.owner == 0 && options.max_bytes == u64::MAX {
            self.ready.clear();
            (self.lease_fresh(head, max, options.deadline, out), false)
        } else {
            self.lease_merged(head, max, *options, backlog, out)
        };
        self.shed();
        answer
    }

    /// Only fresh messages, nobody's quota: one run.
    #[inline]
    fn lease_fresh(&mut self, head: u64, max: usize, deadline: Time, out: &mut Runs) -> usize {
        let first = self.window.cursor();
        let count = max.min(usize::try_from(head - first).unwrap_or(usize::MAX));
        if count == 0 {
            return 0;
        }
        self.hand_out_fresh(count, deadline);
        out.push(Leased::run(first, count as u32, 1, 1));
        count
    }

    /// Leases the next `count` fresh messages, to nobody's account: a first attempt of the first
    /// generation.
    #[inline]
    pub(crate) fn hand_out_fresh(&mut self, count: usize, deadline: Time) {
        let first = self.window.cursor();
        self.window.push_run(count, Word::leased(deadline, self.strict));
        self.deadlines.add(Run { due: deadline, first, len: count as u64 });
        self.leased += count as u64;
        self.redelivered_last = false;
        self.bound_hints();
    }

    /// Redeliveries and fresh messages merged by index, redeliveries taking at most every second
    /// place while fresh messages wait.
    fn lease_merged(
        &mut self,
        head: u64,
        max: usize,
        options: LeaseOptions,
        backlog: &mut impl Backlog,
        out: &mut impl Extend<Leased>,
    ) -> (usize, bool) {
        let (mut taken, mut bytes, mut work) = (0, 0, MAX_WORK);
        while taken < max && bytes < options.max_bytes {
            self.pass_expired(head, options.now, backlog, &mut work);
            if work == 0 {
                break;
            }
            let fresh = self.window.cursor() < head;
            let wants_fresh = fresh && (self.redelivered_last || self.deliverable == 0);
            let again = match wants_fresh {
                true => None,
                false => self.lease_next_ready(options, backlog, &mut work),
            };
            let leased = match again {
                Some(leased) => leased,
                // All that was ready may have been over (LIB-370).
                None if fresh && work > 0 => self.lease_next_fresh(options),
                None => break,
            };
            bytes += self.note_lease(leased.index, options, backlog);
            taken += 1;
            out.extend([leased]);
        }
        self.bound_hints();
        (taken, work == 0)
    }

    /// A message was handed out: when its lease ends, and whose quota it takes.
    fn note_lease(&mut self, index: u64, options: LeaseOptions, backlog: &mut impl Backlog) -> u64 {
        self.deadlines.add(Run { due: options.deadline, first: index, len: 1 });
        self.leased += 1;
        self.charge(index, options, backlog)
    }

    /// Charges a message to its owner's quota. Answers its size, or nothing if nobody counts bytes.
    fn charge(&mut self, index: u64, options: LeaseOptions, backlog: &mut impl Backlog) -> u64 {
        if options.owner == 0 && options.max_bytes == u64::MAX {
            return 0;
        }
        let size = backlog.meta(index).map_or(0, |meta| meta.size);
        self.owners.charge(options.owner, size);
        size
    }

    fn lease_next_fresh(&mut self, options: LeaseOptions) -> Leased {
        let index = self.window.cursor();
        self.window.push_run(1, Word::leased(options.deadline, options.owner | self.strict));
        self.redelivered_last = false;
        Leased::run(index, 1, 1, 1)
    }

    fn lease_next_ready(
        &mut self,
        options: LeaseOptions,
        backlog: &mut impl Backlog,
        work: &mut usize,
    ) -> Option<Leased> {
        while *work > 0
            && let Some(Reverse(index)) = self.ready.pop()
        {
            let phase = self.window.get(index).map(Word::phase);
            if !matches!(phase, Some(Phase::Ready | Phase::Lapsed)) {
                continue;
            }
            if self.drop_if_over(index, options.now, backlog, work) {
                continue;
            }
            let Some(word) = self.window.get_mut(index) else { continue };
            let was_handed_out = word.generation() > 0;
            word.renew(options.deadline, options.owner | self.strict);
            let (generation, attempt) = (word.generation(), word.attempts());
            self.deliverable -= 1;
            self.redeliveries += u64::from(was_handed_out);
            self.redelivered_last = true;
            return Some(Leased::run(index, 1, generation, attempt));
        }
        None
    }

    /// Acknowledges a delivery (LS-4, LS-8, LS-10, LS-11, LS-13).
    fn ack(&mut self, id: LeaseId, backlog: &mut impl Backlog) -> Settled {
        if id.epoch != self.epoch {
            return Settled::Stale;
        }
        if self.ordering.is_some() {
            self.prepare_ack(id, backlog);
        }
        let Some(word) = self.window.get_mut(id.index) else { return Settled::Stale };
        if word.generation() != id.generation {
            return Settled::Stale;
        }
        if let Some(slot) = slot_of(*word) {
            if word.phase() == Phase::Leased && self.ack_first(id.index, slot, backlog) {
                return Settled::Done;
            }
            return self.ack_ordered(id, slot, backlog);
        }
        let owner = word.owner();
        match word.phase() {
            Phase::Leased => {
                word.set_phase(Phase::Done);
                self.leased -= 1;
                self.release_owner(owner, id.index, backlog);
            }
            Phase::Lapsed => {
                word.set_phase(Phase::Done);
                self.deliverable -= 1;
            }
            Phase::LapsedBackingOff => {
                word.set_phase(Phase::Done);
                self.delayed -= 1;
            }
            Phase::Done
            | Phase::Ready
            | Phase::Delayed
            | Phase::BackingOff
            | Phase::Forwarding
            | Phase::Provisional => {
                return Settled::Stale;
            }
        }
        self.ledger.acked += 1;
        self.retire(id.index);
        Settled::Done
    }

    /// Brings the words of deliveries near that are about to be settled.
    #[inline]
    pub(crate) fn look_ahead(&self, leases: &[LeaseId]) {
        self.window.look_ahead(leases.iter().map(|lease| lease.index));
    }

    /// Acknowledges deliveries in order. `outcome` is told of one after another.
    pub(crate) fn ack_many(
        &mut self,
        leases: impl Iterator<Item = LeaseId>,
        backlog: &mut impl Backlog,
        mut outcome: impl FnMut(Settled),
    ) {
        leases.for_each(|lease| outcome(self.ack(lease, backlog)));
        self.window.trim();
    }

    /// Acknowledges runs of deliveries. `outcome` is told how many went which way.
    #[inline]
    pub(crate) fn ack_runs(
        &mut self,
        epoch: u32,
        runs: &[Leased],
        backlog: &mut impl Backlog,
        mut outcome: impl FnMut(Settled, usize),
    ) {
        for run in runs {
            let mut nth = 0;
            while nth < run.len {
                if self.ordering.is_some() {
                    self.prepare_ack(run.lease(epoch, nth), backlog);
                }
                let count = if epoch == self.epoch { self.ack_plain(run, nth) } else { 0 };
                if count > 0 {
                    outcome(Settled::Done, count as usize);
                    nth += count;
                } else {
                    outcome(self.ack(run.lease(epoch, nth), backlog), 1);
                    nth += 1;
                }
            }
        }
        self.window.trim();
    }

    /// Acknowledges a run of this epoch as far as its leases are in force and lie together. Answers
    /// how many.
    #[inline]
    pub(crate) fn ack_run(&mut self, run: &Leased) -> u32 {
        let count = self.ack_plain(run, 0);
        self.window.trim();
        count
    }

    /// Acknowledges a run from `nth` on as far as its leases are on nobody's account and lie
    /// together. Answers how many.
    #[inline]
    fn ack_plain(&mut self, run: &Leased, nth: u32) -> u32 {
        let (first, left) = (run.index + u64::from(nth), (run.len - nth) as usize);
        let mut count = 0;
        for word in self.window.run_mut(first).iter_mut().take(left) {
            if !word.is_plain_lease(run.generation) {
                break;
            }
            word.set_phase(Phase::Done);
            count += 1;
        }
        self.leased -= u64::from(count);
        self.ledger.acked += u64::from(count);
        self.window.finish_run(first, u64::from(count));
        count
    }

    /// Moves the end of a lease (LS-5), or revives one that has lapsed (LS-9).
    pub(crate) fn set_deadline(
        &mut self,
        id: LeaseId,
        deadline: Time,
        backlog: &mut impl Backlog,
    ) -> Settled {
        if id.epoch != self.epoch {
            return Settled::Stale;
        }
        let word = self.window.get_mut(id.index);
        let Some(word) = word.filter(|word| word.generation() == id.generation) else {
            return Settled::Stale;
        };
        let (phase, before) = (word.phase(), word.deadline());
        if !matches!(phase, Phase::Leased | Phase::Lapsed | Phase::LapsedBackingOff) {
            return Settled::Stale;
        }
        word.set_deadline(deadline);
        // A longer deadline is filed anew when the old one fires; only a shorter one, or one whose
        // entry has fired already, needs an entry of its own (L13).
        if phase == Phase::Leased && deadline >= before {
            return Settled::Done;
        }
        if phase != Phase::Leased {
            self.revive(id.index, phase, backlog);
        }
        self.deadlines.add(Run { due: deadline, first: id.index, len: 1 });
        self.bound_hints();
        Settled::Done
    }

    /// A message that has lapsed is leased again, as it was.
    fn revive(&mut self, index: u64, phase: Phase, backlog: &mut impl Backlog) {
        let Some(word) = self.window.get_mut(index) else { return };
        word.set_phase(Phase::Leased);
        let (slot, mut owner) = (slot_of(*word), word.owner());
        match phase {
            Phase::Lapsed => self.leave_ready(index),
            _ => self.delayed -= 1,
        }
        self.leased += 1;
        if let Some(slot) = slot {
            owner = self.holder_of(slot);
            self.revive_in_order(slot);
        }
        if owner != 0 {
            let size = backlog.meta(index).map_or(0, |meta| meta.size);
            self.owners.charge(owner, size);
        }
    }

    /// The phase of the delivery that `id` names, unless the id is dead.
    fn judge(&self, id: LeaseId) -> Option<Phase> {
        if id.epoch != self.epoch {
            return None;
        }
        let word = self.window.get(id.index)?;
        (word.generation() == id.generation).then(|| word.phase())
    }

    /// Takes a live message out of the backlog because it is past retention.
    pub(super) fn drop_expired(&mut self, index: u64, backlog: &mut impl Backlog) {
        self.take_out(index, backlog);
        self.window.trim();
    }

    /// Ends a live message whatever its phase; counting it is up to the caller.
    fn take_out(&mut self, index: u64, backlog: &mut impl Backlog) {
        let Some(word) = self.window.get_mut(index) else { return };
        let (phase, slot) = (word.phase(), slot_of(*word));
        match phase {
            Phase::Done => return,
            Phase::Leased => self.end_lease(index, backlog),
            Phase::Lapsed | Phase::Ready => self.leave_ready(index),
            Phase::Delayed | Phase::BackingOff | Phase::LapsedBackingOff => self.delayed -= 1,
            Phase::Forwarding => self.forwarding -= 1,
            Phase::Provisional => {
                if let Some(ordering) = self.ordering() {
                    ordering.provisional -= 1;
                }
            }
        }
        self.finish(index);
        if let Some(slot) = slot {
            self.settle_key(slot);
        }
    }

    /// A message has left the backlog.
    fn finish(&mut self, index: u64) {
        let Some(word) = self.window.get_mut(index) else { return };
        word.set_phase(Phase::Done);
        match slot_of(*word) {
            Some(slot) => self.finish_in_order(slot, index),
            None => self.retire(index),
        }
    }

    /// A message that was ready or lapsed is no longer.
    fn leave_ready(&mut self, index: u64) {
        self.deliverable -= 1;
        if self.ordering.is_some() {
            self.count_waiting(index, false);
        }
    }

    fn make_ready(&mut self, index: u64) {
        self.deliverable += 1;
        if self.ordering.is_some() {
            self.count_waiting(index, true);
            return self.settle_key_of(index);
        }
        self.ready.push(Reverse(index));
    }

    #[inline]
    fn release_owner(&mut self, owner: u32, index: u64, backlog: &mut impl Backlog) {
        if owner != 0 {
            let size = backlog.meta(index).map_or(0, |meta| meta.size);
            self.owners.release(owner, size);
        }
    }

    /// Keeps the window short: survivors at its front become stragglers, which need a pin.
    #[inline]
    fn shed(&mut self) {
        if !self.window.is_too_long() {
            return;
        }
        self.shed_survivors();
    }

    #[cold]
    fn shed_survivors(&mut self) {
        let moved = self.window.shed(MAX_WORK);
        self.to_pin.extend(moved);
    }

    /// Rebuilds the hints from the words when they hold too much that is no longer true (I-2).
    #[inline]
    fn bound_hints(&mut self) {
        if self.deadlines.len() > HINT_SLACK
            || self.ready.len() > HINT_SLACK
            || self.ordering.as_ref().is_some_and(|ordering| ordering.offers() > HINT_SLACK)
        {
            self.rebuild_hints();
        }
    }

    fn rebuild_hints(&mut self) {
        let bound = 2 * usize::try_from(self.window.live()).unwrap_or(usize::MAX) + HINT_SLACK;
        let offers = self.ordering.as_ref().map_or(0, |ordering| ordering.offers());
        if self.deadlines.len() <= bound && self.ready.len() <= bound && offers <= bound {
            return;
        }
        self.deadlines.clear();
        self.ready.clear();
        for (index, word) in self.window.iter() {
            match word.phase() {
                Phase::Done | Phase::Forwarding | Phase::Provisional => {}
                Phase::Leased | Phase::Delayed | Phase::BackingOff | Phase::LapsedBackingOff => {
                    self.deadlines.add(Run { due: word.deadline(), first: index, len: 1 });
                }
                Phase::Lapsed | Phase::Ready if self.ordering.is_none() => {
                    self.ready.push(Reverse(index));
                }
                Phase::Lapsed | Phase::Ready => {}
            }
        }
        self.rebuild_offers();
    }
}

impl LeaseId {
    /// Names nothing: no hand-out has that generation.
    pub(crate) const NONE: LeaseId = LeaseId { epoch: 0, generation: 0, index: u64::MAX };
}

impl Leased {
    #[inline]
    pub(crate) fn run(index: u64, len: u32, generation: u32, attempt: u16) -> Leased {
        Leased { index, len, generation, attempt, slot: 0, segment: 0 }
    }

    /// `len` of the run from `nth` on.
    #[inline]
    pub(crate) fn part(self, nth: u32, len: u32) -> Leased {
        Leased { index: self.index + u64::from(nth), slot: self.slot + nth as u16, len, ..self }
    }

    /// The lease of the `nth` message.
    #[inline]
    pub(crate) fn lease(&self, epoch: u32, nth: u32) -> LeaseId {
        LeaseId { epoch, generation: self.generation, index: self.index + u64::from(nth) }
    }
}
