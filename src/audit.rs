//! The audit: proof that every message is somewhere, and in one place only.
//!
//! For each subscription: what its topic accepted for it equals what is still there, by place, plus
//! what has left, by reason. The three come from different counters, each written where the thing
//! happens. Summed over subscriptions that are and were, it equals what publishers were told; and
//! the segments in memory are those that somebody needs.

use serde::{Deserialize, Serialize};

use crate::broker::ledger::{Ledger, Places};
use crate::bus::Bus;
use crate::shell::core::BusCore;
use crate::sync::Arc;

/// Where every message of a bus is, or what became of it; made by [`Bus::audit`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
/// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
/// topic.publish_many(["one", "two", "three"]).await?;
/// let batch = billing.pull(2).await?;
///
/// let audit = bus.audit();
/// audit.assert_balanced();
/// let account = &audit.subscriptions[0].account;
/// assert_eq!((account.accepted, account.leased, account.fresh), (3, 2, 1));
/// # batch.ack_all();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Audit {
    /// Messages that were published, ever.
    pub published: u64,
    /// Messages that have an id and wait at their topics until it is time to publish them.
    pub delayed: u64,
    /// Messages that waited so, and were withdrawn or went with their topic.
    pub withdrawn: u64,
    /// Of those, how many no subscription took and no rule kept (PUB-9).
    pub unclaimed: u64,
    /// For each message, how many subscriptions matched it; the sum of all receipts.
    pub owed: u64,
    /// The topics that are in use, deleted ones with a backlog among them, oldest first.
    pub topics: Vec<TopicAudit>,
    /// The subscriptions that are attached, oldest first within each topic.
    pub subscriptions: Vec<SubscriptionAudit>,
    /// The accounts of all subscriptions that have ended, together.
    pub ended: Account,
    /// What does not agree; empty unless the bus has lost or doubled something.
    pub violations: Vec<String>,
}

/// What a topic has taken in and what it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicAudit {
    /// The topic's name.
    pub topic: String,
    /// Messages that were published.
    pub published: u64,
    /// Messages that wait until it is time to publish them.
    pub delayed: u64,
    /// Messages that waited so and were withdrawn.
    pub withdrawn: u64,
    /// Of those, how many no subscription took and no rule kept.
    pub unclaimed: u64,
    /// For each message, how many subscriptions matched it.
    pub owed: u64,
    /// Segments of the log in memory.
    pub segments: usize,
    /// Messages in those segments.
    pub messages: u64,
}

/// The account of one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionAudit {
    /// The subscription's name.
    pub subscription: String,
    /// The name of its topic.
    pub topic: String,
    /// Where its messages are and what became of them.
    pub account: Account,
}

/// Messages by where they are and by what became of them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Account {
    /// Matched, since the subscription was created.
    pub accepted: u64,
    /// Settled once and brought back by a seek.
    pub replayed: u64,
    /// There, never handed out.
    pub fresh: u64,
    /// There, handed out before, deliverable now.
    pub ready: u64,
    /// There, handed out.
    pub leased: u64,
    /// There, deliverable later.
    pub delayed: u64,
    /// There, on the way to the dead-letter topic.
    pub forwarding: u64,
    /// There, acknowledged before an earlier message of the ordering key.
    pub provisional: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Taken by the dead-letter topic.
    pub forwarded: u64,
    /// Dropped because their retention or their own time to live had passed.
    pub expired: u64,
    /// Dropped by a limit of the subscription, or another policy with a name.
    pub dropped: u64,
    /// Skipped by a purge or a seek.
    pub purged: u64,
    /// Still there when the subscription was deleted or expired.
    pub removed: u64,
}

impl Account {
    fn new(accepted: u64, places: Places, ledger: &Ledger) -> Self {
        Self {
            accepted,
            replayed: ledger.replayed,
            fresh: places.fresh,
            ready: places.ready,
            leased: places.leased,
            delayed: places.delayed,
            forwarding: places.forwarding,
            provisional: places.provisional,
            acked: ledger.acked,
            forwarded: ledger.forwarded,
            expired: ledger.expired,
            dropped: ledger.dropped,
            purged: ledger.purged,
            removed: ledger.removed,
        }
    }

    /// Whether what came in is what is there and what has left.
    pub fn is_balanced(&self) -> bool {
        let there = self.fresh
            + self.ready
            + self.leased
            + self.delayed
            + self.forwarding
            + self.provisional;
        let gone =
            self.acked + self.forwarded + self.expired + self.dropped + self.purged + self.removed;
        self.accepted + self.replayed == there + gone
    }
}

impl Audit {
    /// Whether nothing was lost or doubled.
    pub fn is_balanced(&self) -> bool {
        self.violations.is_empty()
    }

    /// For tests.
    ///
    /// # Panics
    ///
    /// If the books do not balance, with what does not agree.
    pub fn assert_balanced(&self) {
        assert!(self.is_balanced(), "the audit found:\n{}", self.violations.join("\n"));
    }
}

impl Bus {
    /// Proves, for this moment, that every message that was accepted is in exactly one place for
    /// each subscription that matched it, and that memory holds what is needed and nothing else
    /// (LIB-40).
    ///
    /// Stops the whole bus while it counts, and looks at every message: about a tenth of a
    /// microsecond each. For tests and for diagnosis, not for a dashboard; see
    /// [`Subscription::stats`](crate::Subscription::stats) for that.
    pub fn audit(&self) -> Audit {
        audit(self.core())
    }
}

/// In tests of this crate, and with the feature `internals` in debug builds, every bus proves when
/// it is closed that it has lost nothing.
pub(crate) fn at_close(core: &Arc<BusCore>) {
    let is_on = cfg!(any(test, feature = "internals")) && cfg!(debug_assertions);
    if is_on && !std::thread::panicking() {
        audit(core).assert_balanced();
    }
}

pub(crate) fn audit(core: &Arc<BusCore>) -> Audit {
    let mut audit = Audit::default();
    let (topics, pages) = core.books.open();
    // All locks, in order of id, first of the topics and then of their subscriptions.
    let locked: Vec<_> = topics.iter().map(|topic| topic.hold_still()).collect();
    let past = &pages.past;
    let (mut accepted, mut gone) = (past.past_accepted, past.past);
    (audit.published, audit.unclaimed, audit.owed) = (past.published, past.unclaimed, past.owed);
    audit.withdrawn = past.withdrawn;
    for topic in &locked {
        let ledger = topic.ledger();
        audit.published += ledger.published;
        audit.delayed += topic.delayed();
        audit.withdrawn += ledger.withdrawn;
        audit.unclaimed += ledger.unclaimed;
        audit.owed += ledger.owed;
        accepted += ledger.past_accepted;
        gone.add(&ledger.past);
        let (segments, messages) = topic.in_memory();
        audit.topics.push(TopicAudit {
            topic: topic.name().to_owned(),
            published: ledger.published,
            delayed: topic.delayed(),
            withdrawn: ledger.withdrawn,
            unclaimed: ledger.unclaimed,
            owed: ledger.owed,
            segments,
            messages,
        });
        let said = |what: String| format!("topic {:?}: {what}", topic.name());
        if ledger.published != ledger.appended + ledger.unclaimed {
            let what = format!("{ledger:?}: published is neither appended nor unclaimed");
            audit.violations.push(said(what));
        }
        let mut subscriptions = topic.subscriptions();
        audit.violations.extend(topic.check_log(&subscriptions).into_iter().map(said));
        let mut owed = ledger.past_accepted;
        for subscription in &mut subscriptions {
            let name = &subscription.shared.name;
            let said = |what: String| format!("subscription {name:?}: {what}");
            let taken = topic.accepted(subscription.shared, subscription.accepted_before());
            owed += taken;
            let (places, wrong) = subscription.places();
            let account = Account::new(taken, places, &subscription.ledger());
            audit.violations.extend(wrong.into_iter().map(said));
            if !account.is_balanced() {
                audit.violations.push(said(format!("does not balance: {account:?}")));
            }
            let missing = subscription.missing();
            if missing > 0 {
                let what = format!("{missing} messages to deliver are not in the log (I-4)");
                audit.violations.push(said(what));
            }
            audit.subscriptions.push(SubscriptionAudit {
                subscription: name.to_string(),
                topic: topic.name().to_owned(),
                account,
            });
        }
        if owed != ledger.owed {
            let what = format!("publishers were told {} copies, {owed} accepted", ledger.owed);
            audit.violations.push(format!("topic {:?}: {what}", topic.name()));
        }
    }
    audit.ended = Account::new(accepted, Places::default(), &gone);
    if !audit.ended.is_balanced() {
        audit.violations.push(format!("ended subscriptions: do not balance: {:?}", audit.ended));
    }
    let taken = core.ids_taken();
    let Audit { published, delayed, withdrawn, .. } = audit;
    if published + delayed + withdrawn != taken {
        let what = format!("{published} messages published, {delayed} wait, {withdrawn} withdrawn");
        audit.violations.push(format!("{taken} ids given out, {what}"));
    }
    drop(locked);
    drop(pages);
    drop(topics);
    audit
}

#[cfg(all(test, not(siftbus_loom)))]
mod tests {
    use super::*;
    use crate::{Deliveries, Subscription, SubscriptionConfig, Topic, TopicConfig};
    use futures_util::FutureExt;

    fn world() -> (Bus, Topic, Subscription) {
        let bus = Bus::new();
        let topic = bus.create_topic("t", TopicConfig::new()).now_or_never();
        let topic = topic.expect("at once").expect("a new name");
        let subscription = topic.subscribe("s", SubscriptionConfig::new()).now_or_never();
        let subscription = subscription.expect("at once").expect("a new name");
        topic.try_publish_many(["one", "two", "three"]).expect("there is room");
        (bus, topic, subscription)
    }

    /// The bus is not closed, which would find the same again.
    fn found(bus: Bus, what: &str) {
        let audit = bus.audit();
        assert!(!audit.is_balanced());
        assert!(audit.violations.iter().any(|line| line.contains(what)), "{:?}", audit.violations);
        std::mem::forget(bus);
    }

    #[test]
    fn a_message_that_is_lost_is_noticed() {
        let (bus, _topic, subscription) = world();
        assert!(bus.audit().is_balanced(), "LIB-40");
        subscription.shared().lose_one();
        found(bus, "does not balance");
    }

    #[test]
    fn memory_that_is_kept_for_nobody_is_noticed() {
        let (bus, _topic, subscription) = world();
        subscription.shared().lose_hold();
        found(bus, "holds");
    }

    #[test]
    fn each_place_and_each_end_has_its_column() {
        let (bus, topic, subscription) = world();
        subscription.try_pull(1).map(Deliveries::ack_all).expect("there");
        drop(subscription.try_pull(1).expect("there"));
        let held = subscription.try_pull(1).expect("there");
        let account = bus.audit().subscriptions.first().expect("one").account;
        assert_eq!((account.acked, account.leased, account.fresh, account.ready), (1, 1, 1, 0));
        drop(held);
        subscription.delete().now_or_never().expect("at once").expect("there");
        let audit = bus.audit();
        assert_eq!((audit.ended.accepted, audit.ended.acked, audit.ended.removed), (3, 1, 2));
        topic.try_publish("nobody takes this").expect("there is room");
        drop((topic, subscription));
        bus.delete_topic("t").now_or_never().expect("at once").expect("there");
        let audit = bus.audit();
        audit.assert_balanced();
        assert_eq!((audit.published, audit.unclaimed, audit.owed), (4, 1, 3), "LIB-40");
    }
}
