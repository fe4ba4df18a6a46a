//! Leases of an ordered subscription that are not filed under their keys.
//!
//! Keys decide whose turn it is. While one client has all that is live and acknowledges it in
//! order, nobody asks, and a batch costs what it costs without order. Whatever else is about to
//! happen to such a lease files all of them first (L8); from then on `ordered.rs` goes by the keys.

use super::{Backlog, LeaseId, LeaseOptions, MAX_WORK, Phase, Runs, SubscriptionState};
use crate::broker::ordering::{Client, KEYED, Unfiled};

impl SubscriptionState {
    /// Hands fresh messages out without a look at their keys, if nothing is live but what the
    /// client has in hand in the same way.
    #[inline]
    pub(super) fn lease_unfiled(
        &mut self,
        head: u64,
        max: usize,
        options: LeaseOptions,
        backlog: &mut impl Backlog,
        out: &mut Runs,
    ) -> Option<usize> {
        let (live, cursor) = (self.window.live(), self.window.cursor());
        if cursor < self.ttl_below {
            // Each message has to be looked at.
            return None;
        }
        let unfiled = &mut self.ordering.as_deref_mut()?.unfiled;
        let held = match unfiled {
            None if live == 0 => 0,
            Some(_) if cursor >= head => return Some(0),
            Some(unfiled) if live == 0 || unfiled.client == options.client => live,
            _ => return None,
        };
        let max = if options.client == Client::OneAtATime { max.min(1) } else { max };
        let in_all = held + (head - cursor).min(max as u64);
        // One at a time needs to know the keys of what is in hand; filing is bounded work (L6).
        let is_alone = held == 0 || options.client != Client::OneAtATime;
        if !is_alone || in_all > MAX_WORK as u64 {
            return None;
        }
        *unfiled = (cursor < head).then_some(Unfiled { client: options.client });
        if options.owner == 0 && options.max_bytes == u64::MAX {
            return Some(self.lease_fresh(head, max, options.deadline, out));
        }
        let (mut taken, mut bytes) = (0, 0);
        while taken < max && bytes < options.max_bytes && self.window.cursor() < head {
            let leased = self.lease_next_fresh(options);
            bytes += self.note_lease(leased.index, options, backlog);
            taken += 1;
            out.extend([leased]);
        }
        self.bound_hints();
        Some(taken)
    }

    /// Files what was handed out without a look at its keys: from now on each message has to know
    /// whose turn it is. To be called before anything happens to it but an ack in order.
    #[inline]
    pub(super) fn file_unfiled(&mut self, backlog: &mut impl Backlog) {
        if self.ordering.as_ref().is_some_and(|ordering| ordering.unfiled.is_some()) {
            self.file_all(backlog);
        }
    }

    #[cold]
    fn file_all(&mut self, backlog: &mut impl Backlog) {
        let live = self.window.live_from(0, usize::MAX);
        let Some(ordering) = self.ordering.as_deref_mut() else { return };
        let Some(Unfiled { client }) = ordering.unfiled.take() else { return };
        for index in live {
            let Some(word) = self.window.get_mut(index) else { continue };
            debug_assert_eq!(word.phase(), Phase::Leased, "all that is live is in one hand");
            let Some(hash) = backlog.key(index) else { continue };
            let slot = ordering.file(hash, index);
            word.set_owner(KEYED | slot);
            if let Some(key) = ordering.key(slot) {
                key.handed += 1;
                key.outstanding += 1;
                key.holder = client;
            }
        }
    }

    /// Before an ack: out of order it needs to know the keys.
    #[inline]
    pub(super) fn prepare_ack(&mut self, id: LeaseId, backlog: &mut impl Backlog) {
        if self.ordering.as_ref().is_some_and(|ordering| ordering.unfiled.is_some()) {
            self.window.trim();
            if id.index != self.window.low() && self.judge(id).is_some() {
                self.file_all(backlog);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::subscription::{Leased, Meta, Settled};
    use crate::time::{Span, Time};

    /// Every message has one of three keys in turn, or none.
    struct Keys;

    impl Backlog for Keys {
        fn meta(&mut self, _: u64) -> Option<Meta> {
            Some(Meta { published: Time::default(), expires: Time::NEVER, size: 1 })
        }

        fn key(&mut self, index: u64) -> Option<u64> {
            Some(index % 4).filter(|key| *key < 3)
        }
    }

    fn state() -> SubscriptionState {
        let mut state = SubscriptionState::new(0, Span::FOREVER);
        state.set_ordered();
        state
    }

    fn lease(state: &mut SubscriptionState, head: u64, max: usize, client: Client) -> Vec<Leased> {
        let options = LeaseOptions {
            max_messages: max,
            max_bytes: u64::MAX,
            deadline: Time::from_millis(10),
            now: Time::default(),
            owner: 0,
            client,
        };
        let mut out = Runs::new();
        state.lease(head, &options, &mut Keys, &mut out);
        let single = |run: &Leased, nth| {
            let index = run.index + u64::from(nth);
            Leased::run(index, 1, run.generation, run.attempt)
        };
        out.iter().flat_map(|run| (0..run.len).map(|nth| single(run, nth))).collect()
    }

    fn ack(state: &mut SubscriptionState, leased: &[Leased]) -> Vec<Settled> {
        let mut settled = Vec::new();
        state.ack_runs(0, leased, &mut Keys, |outcome, count| {
            settled.extend(std::iter::repeat_n(outcome, count));
        });
        settled
    }

    fn keys(state: &mut SubscriptionState) -> usize {
        state.ordering().map_or(0, |ordering| ordering.len())
    }

    #[test]
    fn what_one_client_acknowledges_in_order_is_never_filed() {
        let mut state = state();
        for turn in 1..=10 {
            let batch = lease(&mut state, turn * 100, 100, Client::Call(turn));
            assert_eq!((batch.len(), keys(&mut state)), (100, 0));
            let (first, rest) = batch.split_at(30);
            assert!(ack(&mut state, first).iter().all(|settled| *settled == Settled::Done));
            assert!(ack(&mut state, rest).iter().all(|settled| *settled == Settled::Done));
        }
        assert_eq!((state.low(), state.outstanding(), keys(&mut state)), (1_000, 0, 0));
    }

    #[test]
    fn another_client_and_an_ack_out_of_order_file_what_is_in_hand() {
        let mut one = state();
        let held = lease(&mut one, 8, 4, Client::Call(1));
        // ORD-5: of the three keys nothing for another pull, but what has no key.
        let other = lease(&mut one, 8, 4, Client::Call(2));
        assert_eq!((other.len(), other[0].index, keys(&mut one)), (1, 7, 3));
        assert!(ack(&mut one, &held).iter().all(|settled| *settled == Settled::Done));

        let mut two = state();
        let held = lease(&mut two, 8, 8, Client::Stream(1));
        assert_eq!(ack(&mut two, &held[..1]), [Settled::Done]);
        // ORD-7 b: 5 is the second of its key; 7 has none.
        assert_eq!(ack(&mut two, &held[5..6]), [Settled::Provisional]);
        assert_eq!(ack(&mut two, &held[7..]), [Settled::Done]);
        assert_eq!(keys(&mut two), 3);
        assert_eq!(ack(&mut two, &held[1..2]), [Settled::Done]);
        assert_eq!(two.outstanding(), 4);
    }

    #[test]
    fn what_is_not_filed_is_bounded() {
        let mut state = state();
        let head = 3 * MAX_WORK as u64;
        for _ in 0..3 {
            assert_eq!(lease(&mut state, head, MAX_WORK, Client::Stream(1)).len(), MAX_WORK);
        }
        assert_eq!(keys(&mut state), 3, "the first were filed when the second came (L6)");
        // One at a time: the next of the same key has to wait, also while nothing is filed.
        let mut state = self::state();
        let first = lease(&mut state, 5, 5, Client::OneAtATime);
        assert_eq!(first.len(), 1);
        let indices: Vec<u64> =
            lease(&mut state, 5, 5, Client::OneAtATime).iter().map(|leased| leased.index).collect();
        assert_eq!(indices, [1, 2, 3], "ORD-9");
    }
}
