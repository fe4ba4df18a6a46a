//! A subscription: where one group of consumers takes messages out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::{consume_budget, poll_proceed};

use crate::ack_id::AckId;
use crate::config::{FlowControl, SubscriptionConfig, SubscriptionUpdate, check_range};
use crate::delivery::{Deliveries, Delivery, Outcome};
use crate::error::{AckError, AdminError, ConfigError, PullError};
use crate::events::Event;
use crate::limits::Limits;
use crate::observe::{self, Operation};
use crate::shell::subscription::{End, Request, Settle, SubscriptionShared};
use crate::stats::SubscriptionStats;
use crate::stream::{BatchStream, DeliveryStream};
use crate::sync::Arc;
use crate::time::Span;
use crate::topic::DELETED_TOPIC;

/// A handle on a subscription.
///
/// Cheap to clone; clones compete for the same messages. Bound to one incarnation: after the
/// subscription is deleted or has expired, its handles answer `NotFound`.
#[derive(Clone, Debug)]
pub struct Subscription {
    shared: Arc<SubscriptionShared>,
}

impl Subscription {
    pub(crate) fn new(shared: Arc<SubscriptionShared>) -> Self {
        Self { shared }
    }

    /// The subscription's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The name of its topic, or [`DELETED_TOPIC`] after the topic's deletion (RES-11).
    pub fn topic_name(&self) -> &str {
        if self.shared.topic.is_deleted() { DELETED_TOPIC } else { &self.shared.topic.name }
    }

    /// The configuration in force; a retention that was not given is filled in.
    pub fn config(&self) -> SubscriptionConfig {
        self.shared.config()
    }

    /// Waits for the first message, then takes up to `max_messages` of those that are ready.
    ///
    /// Each has to be acknowledged before the ack deadline, or it is handed out again; what is
    /// dropped is released at once. Wakes with a publish, a nack, or the end of somebody else's
    /// lease; nothing polls.
    ///
    /// # Errors
    ///
    /// [`PullError::ZeroMessages`], [`PullError::NotFound`] also if the subscription is deleted
    /// while the call waits (PULL-9), [`PullError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// The lease is taken in the poll that returns it, so a dropped future strands nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, SubscriptionConfig, TopicConfig};
    ///
    /// let bus = Bus::new();
    /// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    /// topic.publish_many(["one", "two", "three"]).await?;
    ///
    /// let batch = billing.pull(2).await?;
    /// assert_eq!(batch.len(), 2);
    /// batch.ack_all();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn pull(&self, max_messages: usize) -> Result<Deliveries, PullError> {
        consume_budget().await;
        let operation = Operation::receive(&self.shared.name, &self.shared.topic.name);
        let request = request(max_messages)?;
        // A look that is likely to find nothing is better left to somebody who can wait at once.
        let looked = !self.shared.is_often_empty();
        let leased = if looked { operation.run(|| self.shared.lease(&request)) } else { Ok(None) };
        let pulled = match leased {
            Ok(None) => {
                operation
                    .follow(Pulling { shared: &self.shared, request, ticket: None, looked })
                    .await
            }
            leased => leased.map(|batch| Deliveries::new(&self.shared, batch)),
        };
        match &pulled {
            Ok(deliveries) => operation.moved(deliveries.len(), None),
            Err(error) => operation.failed(error.code()),
        }
        pulled
    }

    /// Takes up to `max_messages` of those that are ready now; maybe none (PULL-2).
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    pub fn try_pull(&self, max_messages: usize) -> Result<Deliveries, PullError> {
        let leased = self.shared.lease(&request(max_messages)?)?;
        let deliveries = Deliveries::new(&self.shared, leased);
        if !deliveries.is_empty() {
            observe::received(&self.shared.name, &self.shared.topic.name, deliveries.len());
        }
        Ok(deliveries)
    }

    /// Waits for one message, for a runner.
    pub(crate) async fn pull_one(&self, is_push: bool) -> Result<Delivery, PullError> {
        loop {
            let request = Request { is_push, ..ONE };
            let batch =
                Pulling { shared: &self.shared, request, ticket: None, looked: false }.await?;
            if let Some(delivery) = batch.into_iter().next() {
                observe::received(&self.shared.name, &self.shared.topic.name, 1);
                return Ok(delivery);
            }
        }
    }

    /// One message that is ready now, for a runner.
    pub(crate) fn try_pull_one(&self, is_push: bool) -> Result<Option<Delivery>, PullError> {
        let leased = self.shared.lease(&Request { is_push, ..ONE })?;
        let delivery = Deliveries::new(&self.shared, leased).into_iter().next();
        if delivery.is_some() {
            observe::received(&self.shared.name, &self.shared.topic.name, 1);
        }
        Ok(delivery)
    }

    /// A stream of single deliveries, leased one by one as the stream is polled (STR-11).
    ///
    /// # Errors
    ///
    /// [`PullError::Config`] for flow control that lets nothing through or is out of range,
    /// [`PullError::PushSubscription`] (STR-4), [`PullError::NotFound`], [`PullError::Closed`].
    pub fn stream(&self, flow: FlowControl) -> Result<DeliveryStream, PullError> {
        DeliveryStream::open(&self.shared, 1, &flow)
    }

    /// A stream of batches of up to `max_messages`, each leased as the stream is polled.
    ///
    /// # Errors
    ///
    /// As [`stream`](Self::stream), and [`PullError::ZeroMessages`].
    pub fn batches(
        &self,
        max_messages: usize,
        flow: FlowControl,
    ) -> Result<BatchStream, PullError> {
        request(max_messages)?;
        BatchStream::open(&self.shared, max_messages, &flow)
    }

    /// Acknowledges deliveries by id, on whatever channel they came (ACK-9). Answers an outcome
    /// for each id.
    ///
    /// # Errors
    ///
    /// [`AckError::NotFound`] before anything else (ACK-8), [`AckError::NoIds`],
    /// [`AckError::RequestTooLarge`], [`AckError::ForeignId`] — then no id is applied (ACK-4) —
    /// and [`AckError::Closed`]. With exactly-once delivery [`AckError::ExactlyOnce`] lists the ids
    /// that failed, foreign ones among them; all others were applied (EOD-5, EOD-6).
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn acknowledge(&self, ids: &[AckId]) -> Result<Vec<Outcome>, AckError> {
        self.settle(ids, Settle::Ack)
    }

    /// Moves the deadlines of deliveries to `deadline` from now; zero gives them back at once
    /// (LS-5, LS-6). Answers an outcome for each id.
    ///
    /// # Errors
    ///
    /// As [`acknowledge`](Self::acknowledge), and [`AckError::Deadline`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn modify_ack_deadline(
        &self,
        ids: &[AckId],
        deadline: Duration,
    ) -> Result<Vec<Outcome>, AckError> {
        // Existence first (ACK-8); nothing is settled by an empty list.
        self.shared.settle_each([], Settle::Ack, |_| {})?;
        check_range("ack deadline", deadline, &self.shared.core.limits.modify_ack_deadline)?;
        if deadline.is_zero() {
            return self.settle(ids, Settle::Nack);
        }
        self.settle(ids, Settle::Deadline(Span::round_up(deadline)))
    }

    fn settle(&self, ids: &[AckId], how: Settle) -> Result<Vec<Outcome>, AckError> {
        // Existence first (ACK-8); nothing is settled by an empty list.
        self.shared.settle_each([], how, |_| {})?;
        if ids.is_empty() {
            return Err(AckError::NoIds);
        }
        let (bytes, max) = (ids.len() * AckId::TEXT_LEN, self.shared.core.limits.ack_request_bytes);
        if bytes > max {
            return Err(AckError::RequestTooLarge { bytes, max });
        }
        let foreign = ids.iter().find(|id| !self.shared.knows(id));
        if let Some(foreign) = foreign.filter(|_| !self.shared.is_exactly_once()) {
            return Err(AckError::ForeignId { id: foreign.to_string() });
        }
        let mut outcomes = Vec::with_capacity(ids.len());
        let mut failures = Vec::new();
        let mut answered = ids.iter();
        let leases = ids.iter().map(|id| self.shared.lease_named(id));
        self.shared.settle_each(leases, how, |settled| {
            let id = answered.next();
            match self.shared.outcome(settled) {
                Ok(outcome) => outcomes.push(outcome),
                Err(failure) => failures.extend(id.map(|id| (id.clone(), failure))),
            }
        })?;
        if failures.is_empty() { Ok(outcomes) } else { Err(AckError::ExactlyOnce { failures }) }
    }

    /// Changes the configuration; answers the new one. Counts as activity (EXP-5).
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`], [`AdminError::Config`], [`AdminError::NoPusher`] and
    /// [`AdminError::NoIssuer`] for a push configuration, [`AdminError::Closed`]; nothing is
    /// changed then.
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn update(
        &self,
        update: SubscriptionUpdate,
    ) -> Result<SubscriptionConfig, AdminError> {
        let limits = &self.shared.core.limits;
        let config = self.shared.update(|config| {
            let config = update.applied_to(config);
            if matches!(update.dead_letter_policy, Some(Some(_))) {
                self.shared.core.check_dead_letter(&config)?;
            }
            let config = config_checked(config, limits)?;
            if matches!(update.push_config, Some(Some(_))) {
                self.shared.core.pushing.check(self.name(), &config)?;
            }
            Ok(config)
        })?;
        let subscription = self.name().to_owned();
        self.shared.core.events.send(Event::SubscriptionUpdated { subscription });
        Ok(config)
    }

    /// Deletes the subscription with its backlog (RES-13). Whoever waits on it gets `NotFound`.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`] if it was deleted or had expired before (RES-8),
    /// [`AdminError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn delete(&self) -> Result<(), AdminError> {
        let core = &self.shared.core;
        core.check_open()?;
        core.read();
        if !self.shared.delete() {
            return Err(self.shared.admin_error(End::Deleted));
        }
        let deleted = || Event::SubscriptionDeleted { subscription: self.name().to_owned() };
        core.events.send_with(deleted);
        Ok(())
    }

    /// What there is to do, and what was done. All zero once the subscription is gone.
    pub fn stats(&self) -> SubscriptionStats {
        self.shared.stats()
    }

    pub(crate) fn shared(&self) -> &Arc<SubscriptionShared> {
        &self.shared
    }
}

/// Checks a subscription's configuration and fills in what depends on the rest.
pub(crate) fn config_checked(
    config: SubscriptionConfig,
    limits: &Limits,
) -> Result<SubscriptionConfig, ConfigError> {
    config.checked(limits)
}

/// What a runner asks for at a time.
const ONE: Request =
    Request { max_messages: 1, owner: 0, one_per_key: true, ack_deadline: None, is_push: false };

fn request(max_messages: usize) -> Result<Request, PullError> {
    if max_messages == 0 {
        return Err(PullError::ZeroMessages);
    }
    Ok(Request { max_messages, one_per_key: false, ..ONE })
}

/// A pull that may wait: its place among those who do is given up when it ends or is dropped.
struct Pulling<'a> {
    shared: &'a Arc<SubscriptionShared>,
    request: Request,
    ticket: Option<u64>,
    /// Nothing was there a moment ago.
    looked: bool,
}

impl Future for Pulling<'_> {
    type Output = Result<Deliveries, PullError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let turn = ready!(poll_proceed(cx));
        let Self { shared, request, ticket, looked } = &mut *self;
        let leased = match std::mem::take(looked) {
            true => shared.wait(request, ticket, cx.waker()),
            false => shared.poll_lease(request, ticket, cx.waker()),
        };
        match leased {
            Ok(None) => Poll::Pending,
            Ok(leased) => {
                turn.made_progress();
                Poll::Ready(Ok(Deliveries::new(shared, leased)))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.shared.stop_waiting(&mut self.ticket);
        }
    }
}
