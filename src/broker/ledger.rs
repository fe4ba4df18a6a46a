//! What became of messages: sums that are written where it happens, so that an audit can compare
//! them with what is there.
//!
//! A subscription's books: what its view accepted for it is counted by the topic at publish, what
//! has left is counted here, what is still there by the words. None of the three is derived from
//! another, so that a message that is lost anywhere leaves them unequal.

/// Messages that have left one subscription, by the reason; and those that came back.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) acked: u64,
    /// Past retention, or past their own time to live.
    pub(crate) expired: u64,
    /// Taken by the dead-letter topic.
    pub(crate) forwarded: u64,
    /// By a limit of the subscription, or another policy with a name.
    pub(crate) dropped: u64,
    /// Skipped by a purge or a seek.
    pub(crate) purged: u64,
    /// Still there when the subscription went.
    pub(crate) removed: u64,
    /// Settled once and brought back by a seek.
    pub(crate) replayed: u64,
}

impl Ledger {
    pub(crate) fn add(&mut self, other: &Ledger) {
        self.acked += other.acked;
        self.expired += other.expired;
        self.forwarded += other.forwarded;
        self.dropped += other.dropped;
        self.purged += other.purged;
        self.removed += other.removed;
        self.replayed += other.replayed;
    }
}

/// Where the messages of one subscription are that have not left.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Never handed out.
    pub(crate) fresh: u64,
    /// Handed out before, deliverable now.
    pub(crate) ready: u64,
    pub(crate) leased: u64,
    pub(crate) delayed: u64,
    /// On the way to the dead-letter topic.
    pub(crate) forwarding: u64,
    /// Acknowledged before an earlier message of the ordering key.
    pub(crate) provisional: u64,
}

impl Places {
    pub(crate) fn total(&self) -> u64 {
        self.fresh + self.ready + self.leased + self.delayed + self.forwarding + self.provisional
    }
}

/// What one topic has taken in, for the life of the topic.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicLedger {
    /// Messages that were given an id, and did not wait or have waited long enough.
    pub(crate) published: u64,
    /// Messages that waited to be published, and are not going to be.
    pub(crate) withdrawn: u64,
    /// Of those published, how many were written to the log.
    pub(crate) appended: u64,
    /// Of those, how many nobody took and no rule kept.
    pub(crate) unclaimed: u64,
    /// For each message, how many subscriptions matched it.
    pub(crate) owed: u64,
    /// What subscriptions that have ended had accepted.
    pub(crate) past_accepted: u64,
    /// What became of that.
    pub(crate) past: Ledger,
}

impl TopicLedger {
    pub(crate) fn add(&mut self, other: &TopicLedger) {
        self.published += other.published;
        self.withdrawn += other.withdrawn;
        self.appended += other.appended;
        self.unclaimed += other.unclaimed;
        self.owed += other.owed;
        self.past_accepted += other.past_accepted;
        self.past.add(&other.past);
    }
}
