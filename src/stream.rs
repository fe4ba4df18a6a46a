//! Streams of deliveries with flow control.
//!
//! A stream leases in its poll and never ahead: a lease that lapsed unseen in a buffer would count
//! as a failed attempt.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::task::coop::poll_proceed;

use crate::config::FlowControl;
use crate::delivery::{Deliveries, Delivery};
use crate::error::PullError;
use crate::shell::subscription::{Request, SubscriptionShared};
use crate::sync::Arc;
use crate::time::Span;

/// What both streams are: a place among the waiters, and a quota.
#[derive(Debug)]
struct Source {
    shared: Arc<SubscriptionShared>,
    request: Request,
    ticket: Option<u64>,
    ended: bool,
}

impl Source {
    fn open(
        shared: &Arc<SubscriptionShared>,
        max_messages: usize,
        flow: &FlowControl,
    ) -> Result<Self, PullError> {
        flow.check(&shared.core.limits)?;
        let messages = flow.max_outstanding_messages as u64;
        let owner = shared.open_stream(messages, flow.max_outstanding_bytes as u64)?;
        let ack_deadline = flow.ack_deadline.map(Span::round_up);
        let one_per_key = flow.one_per_ordering_key;
        let is_push = false;
        let request = Request { max_messages, owner, one_per_key, ack_deadline, is_push };
        Ok(Self { shared: Arc::clone(shared), request, ticket: None, ended: false })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Deliveries, PullError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let turn = ready!(poll_proceed(cx));
        match self.shared.poll_lease(&self.request, &mut self.ticket, cx.waker()) {
            Ok(None) => Poll::Pending,
            Ok(leased) => {
                turn.made_progress();
                let (shared, deliveries) = (&self.shared, Deliveries::new(&self.shared, leased));
                crate::observe::received(&shared.name, &shared.topic.name, deliveries.len());
                Poll::Ready(Some(Ok(deliveries)))
            }
            Err(error) => {
                self.ended = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.shared.close_stream(self.request.owner, &mut self.ticket);
    }
}

/// A stream of single deliveries, made by [`Subscription::stream`](crate::Subscription::stream).
///
/// Each poll leases at most one message, if the quota allows (STR-11); what was handed out counts
/// until it is settled on whatever channel, or lapses (STR-12). While the stream exists the
/// subscription does not expire (EXP-3). It ends with one error when the subscription is deleted or
/// the bus is closed (STR-17).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, FlowControl, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
/// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
/// topic.publish_many(["one", "two"]).await?;
///
/// let mut stream = billing.stream(FlowControl::new().max_outstanding_messages(10))?;
/// for expected in ["one", "two"] {
///     let delivery = stream.next().await.expect("the subscription is there")?;
///     assert_eq!(delivery.data(), expected);
///     delivery.ack();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct DeliveryStream {
    source: Source,
}

impl DeliveryStream {
    pub(crate) fn open(
        shared: &Arc<SubscriptionShared>,
        max_messages: usize,
        flow: &FlowControl,
    ) -> Result<Self, PullError> {
        Ok(Self { source: Source::open(shared, max_messages, flow)? })
    }

    /// The next delivery; `None` after the error that ended the stream.
    ///
    /// # Cancel safety
    ///
    /// The lease is taken in the poll that returns it, so a dropped future strands nothing.
    pub async fn next(&mut self) -> Option<Result<Delivery, PullError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for DeliveryStream {
    type Item = Result<Delivery, PullError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.source.poll(cx).map(|polled| match polled? {
            Ok(batch) => batch.into_iter().next().map(Ok),
            Err(error) => Some(Err(error)),
        })
    }
}

/// A stream of batches, made by [`Subscription::batches`](crate::Subscription::batches).
///
/// Each poll leases up to as many messages as were asked for, within the quota. Otherwise as
/// [`DeliveryStream`].
#[derive(Debug)]
pub struct BatchStream {
    source: Source,
}

impl BatchStream {
    pub(crate) fn open(
        shared: &Arc<SubscriptionShared>,
        max_messages: usize,
        flow: &FlowControl,
    ) -> Result<Self, PullError> {
        Ok(Self { source: Source::open(shared, max_messages, flow)? })
    }

    /// The next batch; `None` after the error that ended the stream.
    ///
    /// # Cancel safety
    ///
    /// The leases are taken in the poll that returns them, so a dropped future strands nothing.
    pub async fn next(&mut self) -> Option<Result<Deliveries, PullError>> {
        poll_fn(|cx| self.source.poll(cx)).await
    }
}

impl Stream for BatchStream {
    type Item = Result<Deliveries, PullError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.source.poll(cx)
    }
}
