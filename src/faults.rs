//! Faults on demand: what a test can make go wrong, exactly once or as often as it likes.
//!
//! A program that uses the bus has to live with late, repeated and lost deliveries. Here they are
//! made on purpose, without threads that race and without waiting. Which message a fault strikes
//! follows from the order of events alone, so a test with a manual clock repeats exactly. The books
//! stay balanced under every fault.

use std::time::Duration;

use crate::ack_id::AckId;
use crate::broker::faults::Fault;
use crate::error::Code;
use crate::message::MessageId;
use crate::shell::subscription::SubscriptionShared;
use crate::shell::topic::TopicShared;
use crate::stats::FaultCounts;
use crate::subscription::Subscription;
use crate::sync::Arc;
use crate::time::Span;
use crate::topic::Topic;

impl Subscription {
    /// What can be made to go wrong on this subscription, for tests (LIB-400).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Clock, ManualClock, Outcome, SubscriptionConfig, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    /// topic.publish("order 1").await?;
    ///
    /// billing.faults().lose_acks(1);
    /// let delivery = billing.pull(1).await?.into_iter().next().expect("published");
    /// assert_eq!(delivery.ack().await?, Outcome::Done, "so the consumer believes");
    /// clock.advance(Duration::from_secs(10));
    /// let again = billing.pull(1).await?.into_iter().next().expect("the ack was lost");
    /// assert_eq!(again.attempt(), 2);
    /// again.ack();
    /// assert_eq!(billing.faults().injected().lost_acks, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn faults(&self) -> SubscriptionFaults {
        SubscriptionFaults { shared: Arc::clone(self.shared()), of: None }
    }
}

impl Topic {
    /// What can be made to go wrong on this topic, for tests (LIB-400).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Code, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// topic.faults().fail_publishes(1, Code::Unavailable);
    ///
    /// let error = topic.publish("order 1").await.unwrap_err();
    /// assert_eq!(error.code(), Code::Unavailable);
    /// let message = error.into_messages().remove(0);
    /// topic.publish(message).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn faults(&self) -> TopicFaults {
        TopicFaults { shared: Arc::clone(self.shared()) }
    }
}

/// Arms faults of a subscription; made by [`Subscription::faults`].
///
/// What is armed stays armed until it has happened as often as was asked for, or until
/// [`disarm`](Self::disarm). If several fit an event, the one that was armed first happens. All
/// handles of a subscription share what is armed; a subscription of the same name made later has
/// nothing armed.
#[derive(Clone, Debug)]
#[must_use = "nothing is armed yet"]
pub struct SubscriptionFaults {
    shared: Arc<SubscriptionShared>,
    of: Option<MessageId>,
}

impl SubscriptionFaults {
    /// The same for one message only.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, SubscriptionConfig, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    /// let ids: Vec<_> = topic.publish_many(["one", "two"]).await?.ids().collect();
    /// billing.faults().of(ids[1]).duplicate_deliveries(1);
    ///
    /// billing.pull(10).await?.ack_all();
    /// let again = billing.pull(10).await?;
    /// assert_eq!(again.len(), 1);
    /// again.ack_all();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn of(mut self, message: MessageId) -> Self {
        self.of = Some(message);
        self
    }

    /// The next `count` acks that would take effect are lost on their way (LIB-401): the caller is
    /// told what it would be told otherwise, the lease goes on, and the message comes again when
    /// it ends. With exactly-once delivery the caller is told of a transient failure, since a
    /// success would be a promise.
    pub fn lose_acks(&self, count: u64) {
        self.shared.arm_fault(Fault::LoseAck, self.of, count);
    }

    /// The next `count` acks and new deadlines that would take effect fail with
    /// [`AckFailure::Transient`](crate::AckFailure::Transient) and change nothing (EOD-10,
    /// LIB-405). The error names the id, by which the answer can be repeated.
    pub fn fail_answers(&self, count: u64) {
        self.shared.arm_fault(Fault::FailAnswer, self.of, count);
    }

    /// The messages of the next `count` acks that would take effect come once more, at once
    /// (LIB-403): the acks are answered as usual, and the second delivery has the same attempt. The
    /// later messages of its ordering key come again with it (ORD-7). Acks of exactly-once
    /// deliveries are passed over, for they are for good (EOD-1).
    pub fn duplicate_deliveries(&self, count: u64) {
        self.shared.arm_fault(Fault::Duplicate, self.of, count);
    }

    /// The next `count` messages that would be handed out come `by` later, in whole milliseconds
    /// (LIB-402). Others overtake them, those of the same ordering key do not. No attempt counts.
    pub fn delay_deliveries(&self, count: u64, by: Duration) {
        self.shared.arm_fault(Fault::Delay(Span::round_up(by)), self.of, count);
    }

    /// Ends the lease of a delivery now, as if its deadline had come (LIB-404): the attempt has
    /// failed, with all that follows. Answers whether the lease was running.
    pub fn end_lease(&self, id: &AckId) -> bool {
        self.shared.end_lease_now(id)
    }

    /// Ends all leases now, or that of the one message; answers how many were running. Of an
    /// ordering key only the first fails, the others are taken back with it (ORD-7).
    pub fn end_leases(&self) -> u64 {
        match self.of {
            Some(message) => u64::from(self.shared.end_lease_of(message)),
            None => self.shared.end_all_leases(),
        }
    }

    /// What is still to happen, for whatever message.
    pub fn armed(&self) -> FaultCounts {
        self.shared.with_faults(|faults| faults.armed())
    }

    /// What has happened, to whatever message.
    pub fn injected(&self) -> FaultCounts {
        self.shared.with_faults(|faults| faults.injected())
    }

    /// Takes back what is armed; what has happened stays counted.
    pub fn disarm(&self) {
        self.shared.with_faults(|faults| faults.disarm());
    }
}

/// Arms faults of a topic; made by [`Topic::faults`].
#[derive(Clone, Debug)]
#[must_use = "nothing is armed yet"]
pub struct TopicFaults {
    shared: Arc<TopicShared>,
}

impl TopicFaults {
    /// The next `count` publishes fail with [`PublishReason::Fault`](crate::PublishReason::Fault)
    /// and this code (LIB-406): nothing is published, the messages come back. A publish of several
    /// messages counts as one; dead letters are not concerned. What is armed with several codes
    /// happens in that order.
    pub fn fail_publishes(&self, count: u64, code: Code) {
        self.shared.arm_fault(code, count);
    }

    /// How many publishes are still to fail.
    pub fn armed(&self) -> u64 {
        self.shared.with_faults(|faults| faults.armed())
    }

    /// How many publishes have failed on demand.
    pub fn injected(&self) -> u64 {
        self.shared.with_faults(|faults| faults.injected())
    }

    /// Takes back what is armed; what has happened stays counted.
    pub fn disarm(&self) {
        self.shared.with_faults(|faults| faults.disarm());
    }
}
