//! Deliveries: messages handed out, and the ways to answer for them.
//!
//! RAII throughout: what is neither acknowledged nor given back is released when it is dropped.
//! Settling acts at the call; nothing here waits.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::ack_id::AckId;
use crate::attributes::Attributes;
use crate::broker::subscription::{LeaseId, Settled};
use crate::error::AckError;
use crate::message::{Message, MessageId, Published};
use crate::shell::batch::{self, Batch, Place, Taken};
use crate::shell::subscription::{Settle, SubscriptionShared};
use crate::sync::Arc;
use crate::time::Span;

/// What became of an answer to a delivery.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It took effect.
    Done,
    /// It came too late: the delivery was settled or superseded before. Nothing changed, and
    /// unless it was acknowledged the message is delivered again (LS-10 … LS-14).
    Stale,
    /// It takes effect once all earlier messages of the ordering key are acknowledged (ORD-7).
    Provisional,
}

/// The result of an answer that has been given already.
///
/// Settling acts at the call; awaiting a `Settlement` is only needed to learn what came of it, and
/// it may as well be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    result: Result<Outcome, AckError>,
}

impl Settlement {
    /// The result, without awaiting.
    ///
    /// # Errors
    ///
    /// [`AckError::NotFound`] if the subscription is gone, [`AckError::Closed`] if the bus is; with
    /// exactly-once delivery [`AckError::ExactlyOnce`] if the answer did not take effect (EOD-5).
    pub fn outcome(self) -> Result<Outcome, AckError> {
        self.result
    }
}

impl Future for Settlement {
    type Output = Result<Outcome, AckError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(self.result.clone())
    }
}

/// How many answers of a batch took effect.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchOutcome {
    /// Deliveries whose answer took effect.
    pub done: usize,
    /// Deliveries whose answer did not take effect: superseded, or the subscription is gone.
    pub stale: usize,
    /// Acks that take effect once earlier messages of the ordering key are acknowledged (ORD-7).
    pub provisional: usize,
}

/// A batch of deliveries with one owner.
///
/// Borrow it ([`iter`](Self::iter)) and answer for all at once, which is the cheapest way, or take
/// it apart into [`Delivery`] values. What is left when it is dropped is released in order, under
/// one lock, and can be delivered again at once.
///
/// While a batch is held it keeps the stretch of the log in memory where its messages lie; an
/// owned [`Delivery`] keeps its own message only.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let topic = bus.create_topic("numbers", TopicConfig::new()).await?;
/// let odd = topic.subscribe("odd", SubscriptionConfig::new()).await?;
/// topic.publish_many(["1", "2", "3"]).await?;
///
/// let batch = odd.pull(10).await?;
/// let outcome = batch.ack_where(|delivery| delivery.data().as_ref() != b"2");
/// assert_eq!(outcome.done, 2);
/// assert_eq!(odd.stats().ready, 1, "the rest was released");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use = "dropping a batch releases its messages"]
pub struct Deliveries {
    shared: Arc<SubscriptionShared>,
    /// `None` once all are settled.
    batch: Option<Box<Batch>>,
}

impl Deliveries {
    #[inline]
    pub(crate) fn new(shared: &Arc<SubscriptionShared>, batch: Option<Box<Batch>>) -> Self {
        Self { shared: Arc::clone(shared), batch }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.len())
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.batch.as_ref().is_none_or(|batch| batch.is_empty())
    }

    /// The deliveries, borrowed, in the order in which they were handed out.
    #[inline]
    pub fn iter(&self) -> DeliveryIter<'_> {
        let taken = self.batch.as_ref().map_or_else(batch::Iter::empty, |batch| batch.iter());
        DeliveryIter { shared: &self.shared, taken }
    }

    /// Acknowledges all (LS-4).
    pub fn ack_all(mut self) -> BatchOutcome {
        self.settle(Settle::Ack)
    }

    /// Gives all back, to be delivered again at once (LS-6).
    pub fn nack_all(mut self) -> BatchOutcome {
        self.settle(Settle::Nack)
    }

    /// Acknowledges those that `keep` accepts and releases the rest. Answers how many acks took
    /// effect.
    pub fn ack_where(mut self, mut keep: impl FnMut(&DeliveryRef<'_>) -> bool) -> BatchOutcome {
        // All are asked first: should `keep` panic, all are released.
        let kept: Vec<bool> = self.iter().map(|delivery| keep(&delivery)).collect();
        let Some(mut batch) = self.batch.take() else { return BatchOutcome::default() };
        let rest = batch.split(kept);
        let mut outcome = BatchOutcome::default();
        let count = |settled| outcome.count(settled, 1);
        if self.shared.settle_each(batch.leases(), Settle::Ack, count).is_err() {
            outcome.stale = batch.len();
        }
        batch.runs = rest;
        self.batch = Some(batch);
        outcome
    }

    /// Moves the deadline of all to `deadline` from now; zero gives them back (LS-5).
    ///
    /// # Errors
    ///
    /// As [`Subscription::modify_ack_deadline`](crate::Subscription::modify_ack_deadline).
    pub fn set_deadline(&self, deadline: Duration) -> Result<BatchOutcome, AckError> {
        check_deadline(&self.shared, deadline)?;
        let mut outcome = BatchOutcome::default();
        if let Some(batch) = &self.batch {
            let count = |settled| outcome.count(settled, 1);
            self.shared.settle_each(batch.leases(), deadline_of(deadline), count)?;
        }
        Ok(outcome)
    }

    /// Settles what is left; afterwards nothing is.
    #[inline]
    fn settle(&mut self, how: Settle) -> BatchOutcome {
        match self.batch.take() {
            Some(batch) => self.shared.settle_batch(batch, how),
            None => BatchOutcome::default(),
        }
    }
}

impl BatchOutcome {
    #[inline]
    pub(crate) fn count(&mut self, settled: Settled, many: usize) {
        match settled {
            Settled::Done => self.done += many,
            Settled::Stale | Settled::Unordered | Settled::Transient => self.stale += many,
            Settled::Provisional => self.provisional += many,
        }
    }
}

fn check_deadline(shared: &SubscriptionShared, deadline: Duration) -> Result<(), AckError> {
    // Existence comes first (ACK-8); nothing is settled by an empty list.
    shared.settle_each([], Settle::Ack, |_| {})?;
    let range = &shared.core.limits.modify_ack_deadline;
    Ok(crate::config::check_range("ack deadline", deadline, range)?)
}

fn deadline_of(deadline: Duration) -> Settle {
    match deadline.is_zero() {
        true => Settle::Nack,
        false => Settle::Deadline(Span::round_up(deadline)),
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        match self.batch.take() {
            Some(batch) if batch.is_empty() => self.shared.keep_box(batch),
            left => drop(left.map(|batch| self.shared.settle_batch(batch, Settle::Nack))),
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Deliveries {
    type Item = DeliveryRef<'a>;
    type IntoIter = DeliveryIter<'a>;

    fn into_iter(self) -> DeliveryIter<'a> {
        self.iter()
    }
}

impl IntoIterator for Deliveries {
    type Item = Delivery;
    type IntoIter = DeliveryIntoIter;

    fn into_iter(self) -> DeliveryIntoIter {
        DeliveryIntoIter { rest: self, place: Place::default() }
    }
}

/// Owned deliveries of a batch; what was not taken is released when this is dropped.
#[derive(Debug)]
pub struct DeliveryIntoIter {
    rest: Deliveries,
    /// How far they have been taken.
    place: Place,
}

impl Iterator for DeliveryIntoIter {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        let shared = &self.rest.shared;
        let taken = self.rest.batch.as_deref()?.take(&mut self.place)?;
        Some(Delivery {
            inner: Some(Owned { shared: Arc::clone(shared), lease: taken.lease }),
            published: taken.published.clone(),
            attempt: taken.attempt,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.batch.as_ref().map_or(0, |batch| batch.left(self.place));
        (left, Some(left))
    }
}

impl ExactSizeIterator for DeliveryIntoIter {}

impl Drop for DeliveryIntoIter {
    fn drop(&mut self) {
        if let Some(batch) = &mut self.rest.batch {
            batch.drop_before(self.place);
        }
    }
}

/// Borrowed deliveries of a batch.
#[derive(Clone)]
pub struct DeliveryIter<'a> {
    shared: &'a Arc<SubscriptionShared>,
    taken: batch::Iter<'a>,
}

impl fmt::Debug for DeliveryIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryIter").field("left", &self.taken.len()).finish()
    }
}

impl<'a> Iterator for DeliveryIter<'a> {
    type Item = DeliveryRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<DeliveryRef<'a>> {
        let taken = self.taken.next()?;
        Some(DeliveryRef { shared: self.shared, taken })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.taken.size_hint()
    }
}

impl ExactSizeIterator for DeliveryIter<'_> {}

/// One delivery of a batch, borrowed: to look at.
#[derive(Copy, Clone)]
pub struct DeliveryRef<'a> {
    shared: &'a Arc<SubscriptionShared>,
    taken: Taken<'a>,
}

impl<'a> DeliveryRef<'a> {
    /// The message as it was published.
    pub fn message(&self) -> &'a Message {
        &self.taken.published.message
    }

    /// The payload.
    pub fn data(&self) -> &'a Bytes {
        self.taken.published.message.data()
    }

    /// All attributes.
    pub fn attributes(&self) -> &'a Attributes {
        self.taken.published.message.attributes()
    }

    /// The value of one attribute.
    pub fn attribute(&self, key: &str) -> Option<&'a str> {
        self.taken.published.message.attribute(key)
    }

    /// The id of the message, the same in every delivery.
    pub fn id(&self) -> MessageId {
        self.taken.published.id
    }

    /// When the message was published, in whole milliseconds (PUB-6).
    pub fn publish_time(&self) -> SystemTime {
        self.taken.published.time.to_system()
    }

    /// Which delivery of this message on this subscription this is, counted from 1; more than
    /// 4,095 count as 4,095.
    pub fn attempt(&self) -> u32 {
        u32::from(self.taken.attempt)
    }

    /// The id of this delivery.
    pub fn ack_id(&self) -> AckId {
        self.shared.ack_id(self.taken.lease)
    }
}

impl fmt::Debug for DeliveryRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("DeliveryRef", self.taken.published, self.taken.attempt, f)
    }
}

fn debug(
    name: &str,
    published: &Published,
    attempt: u16,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.debug_struct(name)
        .field("id", &published.id)
        .field("attempt", &attempt)
        .field("message", &published.message)
        .finish()
}

/// One delivery of one message, owned: `'static`, to be sent to a task or kept.
///
/// Answer with [`ack`](Self::ack), [`nack`](Self::nack) or [`nack_after`](Self::nack_after). If it
/// is dropped it is released: the message can be delivered again at once, and the attempt counts.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, Outcome, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
/// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
/// topic.publish("order 1").await?;
///
/// let delivery = billing.pull(1).await?.into_iter().next().expect("published");
/// drop(delivery);
/// let delivery = billing.pull(1).await?.into_iter().next().expect("released");
/// assert_eq!(delivery.attempt(), 2);
/// assert_eq!(delivery.ack().await?, Outcome::Done);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use = "dropping a delivery releases its message"]
pub struct Delivery {
    /// `None` once it was answered for.
    inner: Option<Owned>,
    published: Published,
    attempt: u16,
}

struct Owned {
    shared: Arc<SubscriptionShared>,
    lease: LeaseId,
}

impl Delivery {
    /// The message as it was published.
    pub fn message(&self) -> &Message {
        &self.published.message
    }

    /// The payload.
    pub fn data(&self) -> &Bytes {
        self.published.message.data()
    }

    /// All attributes.
    pub fn attributes(&self) -> &Attributes {
        self.published.message.attributes()
    }

    /// The value of one attribute.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.published.message.attribute(key)
    }

    /// The id of the message, the same in every delivery.
    pub fn id(&self) -> MessageId {
        self.published.id
    }

    /// When the message was published, in whole milliseconds (PUB-6).
    pub fn publish_time(&self) -> SystemTime {
        self.published.time.to_system()
    }

    /// Which delivery of this message on this subscription this is, counted from 1; more than
    /// 4,095 count as 4,095.
    pub fn attempt(&self) -> u32 {
        u32::from(self.attempt)
    }

    /// The id of this delivery.
    pub fn ack_id(&self) -> AckId {
        let owned = self.inner.as_ref().expect("an answered delivery cannot be asked any more");
        owned.shared.ack_id(owned.lease)
    }

    /// Acknowledges: the message is done on this subscription (LS-4). A late ack still counts as
    /// long as nobody else was handed the message (LS-8).
    pub fn ack(self) -> Settlement {
        self.settle(Settle::Ack)
    }

    /// Gives the message back, to be delivered again at once (LS-6).
    pub fn nack(self) -> Settlement {
        self.settle(Settle::Nack)
    }

    /// Gives the message back, to be delivered again after `delay`, rounded up to whole
    /// milliseconds (LIB-2).
    pub fn nack_after(self, delay: Duration) -> Settlement {
        if delay.is_zero() {
            return self.nack();
        }
        self.settle(Settle::NackAfter(Span::round_up(delay)))
    }

    /// Sends the message to the dead-letter topic at once, however often it was delivered
    /// (LIB-102). On a subscription without a dead-letter policy it is given back instead, and
    /// the result is [`AckError::NoDeadLetterPolicy`].
    pub fn reject(self) -> Settlement {
        self.send_away(None)
    }

    /// [`reject`](Self::reject), with a reason that goes along in the attribute
    /// [`DEAD_LETTER_SOURCE_DELIVERY_ERROR_MESSAGE`][reason]; at most 1,024 bytes of it, more are
    /// cut off.
    ///
    /// [reason]: crate::DEAD_LETTER_SOURCE_DELIVERY_ERROR_MESSAGE
    pub fn reject_with(self, reason: &str) -> Settlement {
        self.send_away(Some(reason))
    }

    fn send_away(mut self, reason: Option<&str>) -> Settlement {
        let owned = self.inner.take().expect("an answered delivery cannot be asked any more");
        let Owned { shared, lease } = owned;
        let result = shared.reject(lease, reason);
        Settlement { result: result.and_then(|settled| shared.result(lease, settled)) }
    }

    /// Sets the deadline to `deadline` from now, which may be shorter than it was; zero gives the
    /// message back (LS-5).
    pub fn set_deadline(&self, deadline: Duration) -> Settlement {
        let owned = self.inner.as_ref().expect("an answered delivery cannot be asked any more");
        let result = check_deadline(&owned.shared, deadline)
            .and_then(|()| owned.shared.settle(owned.lease, deadline_of(deadline)))
            .and_then(|settled| owned.shared.result(owned.lease, settled));
        Settlement { result }
    }

    /// Where its bus is, for comparison.
    pub(crate) fn bus_address(&self) -> usize {
        self.inner.as_ref().map_or(0, |owned| Arc::as_ptr(&owned.shared.core).addr())
    }

    pub(crate) fn is_of(&self, core: &Arc<crate::shell::core::BusCore>) -> bool {
        self.inner.as_ref().is_some_and(|owned| Arc::ptr_eq(&owned.shared.core, core))
    }

    /// Gives the message back after a push that failed, which is no activity (EXP-3).
    pub(crate) fn give_back(mut self, delay: Duration) {
        let span = Span::round_up(delay);
        let how = if delay.is_zero() { Settle::Nack } else { Settle::NackAfter(span) };
        if let Some(Owned { shared, lease }) = self.inner.take() {
            // If the subscription or the bus is gone there is nothing to give back.
            let _ = shared.settle_as([lease], how, false, |_| {});
        }
    }

    /// Takes the delivery out of Rust's hands: nothing is released when it is dropped, and it ends
    /// by its deadline unless it is settled by id.
    pub fn into_ack_id(mut self) -> AckId {
        let owned = self.inner.take().expect("an answered delivery cannot be asked any more");
        owned.shared.ack_id(owned.lease)
    }

    fn settle(mut self, how: Settle) -> Settlement {
        let owned = self.inner.take().expect("an answered delivery cannot be asked any more");
        let Owned { shared, lease } = owned;
        let result = shared.settle(lease, how);
        Settlement { result: result.and_then(|settled| shared.result(lease, settled)) }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(owned) = self.inner.take() {
            // If the subscription or the bus is gone there is nothing to release.
            let _ = owned.shared.settle(owned.lease, Settle::Nack);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Delivery", &self.published, self.attempt, f)
    }
}
