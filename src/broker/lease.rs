//! The lease word: all that a subscription remembers of one message it has handed out.
//!
//! Sixteen bytes. What a word means for the message is decided in `subscription.rs`; here is only
//! how it is packed. Never-delivered messages have no word.

use crate::time::Time;

/// Where a message that was handed out at least once stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Acknowledged, or dropped by a rule; the word only keeps its place.
    Done = 0,
    /// Handed out; the deadline runs.
    Leased = 1,
    /// The deadline has passed and nobody has the message yet: its id can still ack (LS-8).
    Lapsed = 2,
    /// Given back by a nack: deliverable, its id is dead (LS-6, LS-10).
    Ready = 3,
    /// Given back with a delay of the consumer's: deliverable at the deadline, its id is dead.
    Delayed = 4,
    /// Given back, with the delay of the retry policy: otherwise the same.
    BackingOff = 5,
    /// The deadline has passed and the delay of the retry policy runs: its id can still act
    /// (RTY-8).
    LapsedBackingOff = 6,
    /// On its way to the dead-letter topic; its id is dead.
    Forwarding = 7,
    /// Acknowledged before an earlier message of its ordering key (ORD-7 b).
    Provisional = 8,
}

impl Phase {
    const ALL: [Phase; 9] = [
        Phase::Done,
        Phase::Leased,
        Phase::Lapsed,
        Phase::Ready,
        Phase::Delayed,
        Phase::BackingOff,
        Phase::LapsedBackingOff,
        Phase::Forwarding,
        Phase::Provisional,
    ];
}

/// Deadline (48 bits), attempts (12), phase (4); generation (32); owner (32).
///
/// Two numbers, so that a word travels in registers.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    bits: u64,
    /// The generation below, the owner above.
    lease: u64,
}

/// Attempts are counted up to this number and stay there.
pub(crate) const MAX_ATTEMPTS: u16 = (1 << 12) - 1;

/// In the owner of a lease that was handed out with exactly-once delivery on.
pub(crate) const STRICT: u32 = 1 << 30;

const PHASE_BITS: u32 = 4;
const DEADLINE_SHIFT: u32 = 16;
const OWNER_SHIFT: u32 = 32;

impl Word {
    /// The word of a message that is over before it was ever handed out.
    pub(crate) const DONE: Word = Word { bits: Phase::Done as u64, lease: 0 };

    /// The word of a message that was looked at and not handed out yet.
    #[inline]
    pub(crate) fn filed(owner: u32) -> Word {
        Word { bits: Phase::Ready as u64, lease: u64::from(owner) << OWNER_SHIFT }
    }

    /// A first lease.
    #[inline]
    pub(crate) fn leased(deadline: Time, owner: u32) -> Word {
        let bits = deadline.as_millis() << DEADLINE_SHIFT | 1 << PHASE_BITS | Phase::Leased as u64;
        Word { bits, lease: 1 | u64::from(owner) << OWNER_SHIFT }
    }

    /// Whether this is the lease with that generation, outstanding and on nobody's account.
    #[inline]
    pub(crate) fn is_plain_lease(self, generation: u32) -> bool {
        self.bits & ((1 << PHASE_BITS) - 1) == Phase::Leased as u64
            && self.generation() == generation
            && self.owner() == 0
    }

    #[inline]
    pub(crate) fn phase(self) -> Phase {
        let raw = (self.bits & ((1 << PHASE_BITS) - 1)) as usize;
        Phase::ALL.get(raw).copied().expect("only phases are ever stored")
    }

    #[inline]
    pub(crate) fn deadline(self) -> Time {
        Time::from_millis(self.bits >> DEADLINE_SHIFT)
    }

    #[inline]
    pub(crate) fn attempts(self) -> u16 {
        (self.bits >> PHASE_BITS) as u16 & MAX_ATTEMPTS
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        self.lease as u32
    }

    /// Who the outstanding message is counted against; zero for nobody.
    #[inline]
    pub(crate) fn owner(self) -> u32 {
        (self.lease >> OWNER_SHIFT) as u32 & !STRICT
    }

    /// Who the outstanding message is counted against from now on.
    pub(crate) fn set_owner(&mut self, owner: u32) {
        let strict = self.lease & u64::from(STRICT) << OWNER_SHIFT;
        let generation = u64::from(self.generation());
        self.lease = u64::from(owner) << OWNER_SHIFT | strict | generation;
    }

    /// Whether the lease was handed out with exactly-once delivery on.
    #[inline]
    pub(crate) fn is_strict(self) -> bool {
        (self.lease >> OWNER_SHIFT) as u32 & STRICT != 0
    }

    /// The hand-out that was taken back does not count (ORD-7 c).
    pub(crate) fn uncount(&mut self) {
        if self.attempts() > 0 {
            self.bits -= 1 << PHASE_BITS;
        }
    }

    /// Nobody has seen the hand-out that was made last: as if it had never been.
    pub(crate) fn undo_hand_out(&mut self) {
        self.uncount();
        self.set_generation(self.generation().wrapping_sub(1));
    }

    /// A delivery that is under way is the first one, all others are forgotten (DLQ-13).
    pub(crate) fn restart_attempts(&mut self) {
        let attempts = u64::from(self.phase() == Phase::Leased);
        let others = !(u64::from(MAX_ATTEMPTS) << PHASE_BITS);
        self.bits = self.bits & others | attempts << PHASE_BITS;
    }

    #[inline]
    pub(crate) fn set_phase(&mut self, phase: Phase) {
        self.bits = self.bits >> PHASE_BITS << PHASE_BITS | phase as u64;
    }

    #[inline]
    pub(crate) fn set_deadline(&mut self, deadline: Time) {
        self.bits =
            deadline.as_millis() << DEADLINE_SHIFT | self.bits & ((1 << DEADLINE_SHIFT) - 1);
    }

    /// Hands the message out once more: next generation, one attempt more.
    #[inline]
    pub(crate) fn renew(&mut self, deadline: Time, owner: u32) {
        let generation = self.generation().wrapping_add(1);
        let attempts = u64::from((self.attempts() + 1).min(MAX_ATTEMPTS));
        self.bits =
            deadline.as_millis() << DEADLINE_SHIFT | attempts << PHASE_BITS | Phase::Leased as u64;
        self.lease = u64::from(owner) << OWNER_SHIFT | u64::from(generation);
    }

    #[inline]
    fn set_generation(&mut self, generation: u32) {
        self.lease = self.lease >> OWNER_SHIFT << OWNER_SHIFT | u64::from(generation);
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Word")
            .field("phase", &self.phase())
            .field("deadline", &self.deadline())
            .field("attempts", &self.attempts())
            .field("generation", &self.generation())
            .field("owner", &self.owner())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_sixteen_bytes_and_its_parts_do_not_meet() {
        assert_eq!(size_of::<Word>(), 16);
        let mut word = Word::leased(Time::NEVER, 7);
        assert_eq!((word.phase(), word.attempts(), word.generation()), (Phase::Leased, 1, 1));
        assert_eq!(word.deadline(), Time::NEVER);
        word.set_deadline(Time::from_millis(5));
        word.set_phase(Phase::Delayed);
        assert_eq!((word.phase(), word.attempts()), (Phase::Delayed, 1));
        assert_eq!((word.deadline(), word.owner()), (Time::from_millis(5), 7));
    }

    #[test]
    fn attempts_stop_at_their_limit_and_generations_go_on() {
        let mut word = Word::leased(Time::NEVER, 0);
        for _ in 0..MAX_ATTEMPTS {
            word.renew(Time::NEVER, 0);
        }
        assert_eq!(word.attempts(), MAX_ATTEMPTS);
        assert_eq!(word.generation(), u32::from(MAX_ATTEMPTS) + 1);
        assert_eq!(word.phase(), Phase::Leased);
    }
}
