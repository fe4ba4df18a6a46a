//! Publishing where room may be short: waiting for a turn, time limits, permits.
//!
//! What is judged and who is woken is the shell's business; here are the futures around it.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::bus::timeout;
use crate::clock::Reading;
use crate::delivery::Delivery;
use crate::error::{PublishError, PublishReason};
use crate::message::Message;
use crate::observe::Operation;
use crate::received::Received;
use crate::shell::matcher::Matches;
use crate::shell::topic::admission::{Gate, Load};
use crate::shell::topic::{Appended, TopicShared};
use crate::sync::Arc;
use crate::topic::{Receipt, Receipts, Topic, check, is_plain};

impl Topic {
    /// [`publish`](Self::publish), waiting for room no longer than `timeout` of the bus's time.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and [`PublishReason::TimedOut`].
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready has published nothing.
    pub async fn publish_timeout(
        &self,
        message: impl Into<Message>,
        timeout: Duration,
    ) -> Result<Receipt, PublishError> {
        match self.publish_at_once(&mut message.into(), Gate::Queue(None)) {
            Err(error) if error.is_for_room() => {
                let mut turn = Turn::new(self.shared(), error.into_messages());
                turn.publish_within(timeout).await.map(|appended| Receipt::of(&appended))
            }
            done => done,
        }
    }

    /// Publishes on behalf of a delivery that is being worked on: charged to the budget, but never
    /// waiting for it, nor for a subscription that lets publishers wait (LIB-43).
    ///
    /// For replies and for loops that feed themselves, where waiting for room would keep the
    /// delivery from being acknowledged, and so room from being freed.
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish) except for want of room, and
    /// [`PublishReason::Misused`] if the delivery is of another bus.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Budget, Bus, MESSAGE_OVERHEAD, SubscriptionConfig, TopicConfig};
    ///
    /// // Room for one message and a bit.
    /// let budget = Budget::new(MESSAGE_OVERHEAD as u64 + 50);
    /// let bus = Bus::builder().budget(budget).build();
    /// let pages = bus.create_topic("pages", TopicConfig::new()).await?;
    /// let crawler = pages.subscribe("crawler", SubscriptionConfig::new()).await?;
    /// pages.publish("index").await?;
    ///
    /// let delivery = crawler.pull(1).await?.into_iter().next().expect("published");
    /// assert!(pages.try_publish("a link on it").is_err());
    /// pages.publish_for(&delivery, "a link on it")?;
    /// delivery.ack();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn publish_for(
        &self,
        delivery: &Delivery,
        message: impl Into<Message>,
    ) -> Result<Receipt, PublishError> {
        self.publish_on_behalf(delivery.is_of(&self.shared().core), message.into())
    }

    fn publish_on_behalf(
        &self,
        is_of_this_bus: bool,
        mut message: Message,
    ) -> Result<Receipt, PublishError> {
        if !is_of_this_bus {
            let what = "the delivery is of another bus";
            return Err(PublishError::new(PublishReason::Misused { what }, vec![message]));
        }
        self.publish_at_once(&mut message, Gate::Open)
    }

    /// Waits until there is room for a message of up to `bytes` ([`Message::size`]), and keeps it:
    /// for those who cannot build, or part with, their message before they know (LIB-43).
    ///
    /// # Errors
    ///
    /// [`PublishReason`] says why; there are no messages to come back.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready holds nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let permit = topic.reserve(1_000).await?;
    /// permit.publish("made only now")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn reserve(&self, bytes: usize) -> Result<Permit, PublishError> {
        let load = Load::new(1, bytes as u64);
        let mut turn = Turn::new(self.shared(), Vec::new());
        turn.load = load;
        let shared = self.shared();
        let reserved = poll_fn(|cx| {
            turn.poll(cx, |_, gate, reading| shared.reserve(load.charge, gate, reading))
        });
        reserved.await.map_err(|reason| PublishError::new(reason, Vec::new()))?;
        Ok(Permit { topic: self.clone(), charge: load.charge })
    }

    pub(crate) async fn wait_to_publish(
        &self,
        messages: Vec<Message>,
    ) -> Result<Appended, PublishError> {
        let mut turn = Turn::new(self.shared(), messages);
        let published = turn.publish_in_turn().await;
        published.map_err(|reason| PublishError::new(reason, turn.take()))
    }

    /// Takes the message out if it is published, or into the error.
    #[inline]
    pub(crate) fn publish_at_once(
        &self,
        message: &mut Message,
        gate: Gate,
    ) -> Result<Receipt, PublishError> {
        let shared = self.shared();
        let core = &shared.core;
        let load = if is_plain(message, &core.limits) {
            Load::new(1, message.size() as u64)
        } else {
            match check(std::slice::from_ref(message), &core.limits) {
                Ok(load) => load,
                Err(reason) => return Err(self.refused(reason, message)),
            }
        };
        let mut matches = Matches::none();
        shared.matching(std::slice::from_ref(message), &mut matches);
        let operation = Operation::send(&shared.name, std::slice::from_ref(message));
        let published =
            operation.run(|| shared.publish_one(message, &mut matches, load, gate, core.read()));
        match published {
            Ok(appended) => {
                operation.moved(1, Some(appended.first.as_u64()));
                Ok(Receipt::of(&appended))
            }
            Err(reason) => {
                operation.failed(reason.code());
                Err(PublishError::new(reason, vec![std::mem::take(message)]))
            }
        }
    }

    #[cold]
    fn refused(&self, reason: PublishReason, message: &mut Message) -> PublishError {
        let reason = self.shared().existence().err().unwrap_or(reason);
        PublishError::new(reason, vec![std::mem::take(message)])
    }

    pub(crate) fn publish_many_at_once(
        &self,
        messages: Vec<Message>,
        gate: Gate,
    ) -> Result<Receipts, PublishError> {
        let shared = self.shared();
        let core = &shared.core;
        let load = match check(&messages, &core.limits) {
            Ok(load) => load,
            Err(reason) => {
                let reason = shared.existence().err().unwrap_or(reason);
                return Err(PublishError::new(reason, messages));
            }
        };
        let len = messages.len();
        let mut matches = Matches::none();
        shared.matching(&messages, &mut matches);
        let operation = Operation::send(&shared.name, &messages);
        let messages = messages.into_iter();
        let published =
            operation.run(|| shared.publish_gated(messages, &mut matches, load, gate, core.read()));
        match published {
            Ok(appended) => {
                operation.moved(len, (len == 1).then(|| appended.first.as_u64()));
                Ok(Receipts::of(appended, len))
            }
            Err((reason, messages)) => {
                operation.failed(reason.code());
                Err(PublishError::new(reason, messages.collect()))
            }
        }
    }

    /// There was no room: sweeps what time has freed. Whether it is worth another try.
    pub(crate) fn make_room(&self, error: &PublishError) -> bool {
        error.is_for_room() && Turn::make_room(self.shared(), error.charge())
    }
}

/// Room for one message, made by [`Topic::reserve`]; given back when it is dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives the room back"]
pub struct Permit {
    topic: Topic,
    charge: u64,
}

impl Permit {
    /// Publishes at once.
    ///
    /// # Errors
    ///
    /// [`PublishReason::Misused`] if the message is larger than was reserved, and otherwise as
    /// [`Topic::try_publish`] except for want of room; the message comes back, the permit is
    /// spent.
    pub fn publish(self, message: impl Into<Message>) -> Result<Receipt, PublishError> {
        let mut message = message.into();
        if Load::new(1, message.size() as u64).charge > self.charge {
            let what = "the message is larger than what was reserved";
            return Err(PublishError::new(PublishReason::Misused { what }, vec![message]));
        }
        self.topic.publish_at_once(&mut message, Gate::Reserved)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.topic.shared().unreserve(self.charge);
    }
}

/// A publisher that waits for its turn; dropped, it hands the turn on.
pub(crate) struct Turn<'a> {
    pub(crate) shared: &'a Arc<TopicShared>,
    messages: Vec<Message>,
    pub(crate) load: Load,
    ticket: Option<u64>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(shared: &'a Arc<TopicShared>, messages: Vec<Message>) -> Self {
        Self { shared, load: Load::of(&messages), messages, ticket: None }
    }

    pub(crate) fn take(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }

    async fn publish_within(&mut self, limit: Duration) -> Result<Appended, PublishError> {
        let shared = self.shared;
        let published = timeout(&shared.core, limit, self.publish_in_turn()).await;
        let reason = match published {
            Ok(Ok(appended)) => return Ok(appended),
            Ok(Err(reason)) => reason,
            Err(_) => PublishReason::TimedOut { topic: shared.name.to_string(), timeout: limit },
        };
        Err(PublishError::new(reason, self.take()))
    }

    /// Waits for the turn of the messages, as an operation of its own after the attempt that found
    /// no room.
    async fn publish_in_turn(&mut self) -> Result<Appended, PublishReason> {
        let operation = Operation::send(&self.shared.name, &self.messages);
        let len = self.messages.len();
        let published = poll_fn(|cx| operation.run(|| self.poll_publish(cx))).await;
        match &published {
            Ok(appended) => operation.moved(len, (len == 1).then(|| appended.first.as_u64())),
            Err(reason) => operation.failed(reason.code()),
        }
        published
    }

    fn poll_publish(&mut self, cx: &mut Context<'_>) -> Poll<Result<Appended, PublishReason>> {
        let (shared, load) = (self.shared, self.load);
        self.poll(cx, |messages, gate, reading| Self::append(shared, load, messages, gate, reading))
    }

    /// Publishes the messages, or leaves them where they are.
    pub(crate) fn append(
        shared: &TopicShared,
        load: Load,
        messages: &mut Vec<Message>,
        gate: Gate,
        reading: Reading,
    ) -> Result<Appended, PublishReason> {
        let mut matches = Matches::none();
        shared.matching(messages, &mut matches);
        let taken = std::mem::take(messages).into_iter();
        let published = shared.publish_gated(taken, &mut matches, load, gate, reading);
        published.map_err(|(reason, back)| {
            *messages = back.collect();
            reason
        })
    }

    /// Tries, and waits if there is no room.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Vec<Message>, Gate, Reading) -> Result<T, PublishReason>,
    ) -> Poll<Result<T, PublishReason>> {
        let core = &self.shared.core;
        loop {
            let reading = core.read();
            match attempt(&mut self.messages, Gate::Queue(self.ticket), reading) {
                Err(PublishReason::NoRoom { .. }) => {}
                done => {
                    self.leave();
                    return Poll::Ready(done);
                }
            }
            Self::make_room(self.shared, self.load.charge);
            let waker = cx.waker().clone();
            let waits = self.shared.wait_for_room(
                self.load,
                &self.messages,
                &mut self.ticket,
                waker,
                core.read(),
            );
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Sweeps what time has freed, and gives up history, if it is the budget that is short.
    fn make_room(shared: &TopicShared, charge: u64) -> bool {
        if !shared.is_short_of_budget(charge) {
            return false;
        }
        let core = &shared.core;
        core.press(core.read());
        if shared.is_short_of_budget(charge) {
            core.yield_history(charge);
        }
        true
    }

    fn leave(&mut self) {
        if self.ticket.is_some() {
            self.shared.stop_waiting(&mut self.ticket);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Received {
    /// Publishes on behalf of this message while its handler runs: charged to the budget, but never
    /// waiting for it, as [`Topic::publish_for`] (LIB-43).
    ///
    /// # Errors
    ///
    /// As [`Topic::publish_for`].
    pub fn publish_to(
        &self,
        topic: &Topic,
        message: impl Into<Message>,
    ) -> Result<Receipt, PublishError> {
        topic.publish_on_behalf(self.is_of(&topic.shared().core), message.into())
    }
}
