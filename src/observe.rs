//! What other tools see: spans and events for `tracing`, figures for `metrics`; each behind its
//! feature, and nothing without.
//!
//! Names are OpenTelemetry's for messaging. Everything is written with no lock held, since it runs
//! code of the program. Trace context in attributes is the publisher's: it is carried like every
//! attribute and shown with the span, so that an exporter can link; it is never changed.

use std::future::{Future, poll_fn};
use std::pin::pin;

use crate::delivery::Delivery;
use crate::error::Code;
use crate::message::Message;

/// What an operation on a subscription is called.
#[cfg_attr(not(feature = "tracing"), allow(dead_code))]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ack,
    Nack,
    ModifyAckDeadline,
    Reject,
}

/// One operation as others see it: a span for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Operation {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Operation {
    /// Messages go to a topic.
    #[inline]
    pub(crate) fn send(_topic: &str, _messages: &[Message]) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: spans::send(_topic, _messages),
        }
    }

    /// A pull of a subscription.
    #[inline]
    pub(crate) fn receive(_subscription: &str, _topic: &str) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: spans::receive(_subscription, _topic),
        }
    }

    /// A handler or an endpoint works on a message.
    #[inline]
    pub(crate) fn process(_subscription: &str, _topic: &str, _delivery: &Delivery) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: spans::process(_subscription, _topic, _delivery),
        }
    }

    /// Does a part of it.
    #[inline]
    pub(crate) fn run<T>(&self, act: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        act()
    }

    /// Does all of it.
    pub(crate) async fn follow<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| self.run(|| work.as_mut().poll(cx))).await
    }

    /// How many messages it moved; for a single one that was published, its id.
    #[inline]
    pub(crate) fn moved(&self, _messages: usize, _id: Option<u64>) {
        #[cfg(feature = "tracing")]
        {
            self.span.record("messaging.batch.message_count", _messages);
            if let Some(id) = _id {
                self.span.record("messaging.message.id", tracing::field::display(id));
            }
        }
    }

    /// Whoever worked on the message failed.
    #[inline]
    pub(crate) fn failed_in_handler(&self) {
        #[cfg(feature = "tracing")]
        self.span.record("error.type", "handler");
    }

    /// It came to nothing.
    #[inline]
    pub(crate) fn failed(&self, _code: Code) {
        #[cfg(feature = "tracing")]
        self.span.record("error.type", tracing::field::debug(_code));
    }
}

/// Messages were handed out by a call that does not wait.
#[inline]
pub(crate) fn received(_subscription: &str, _topic: &str, _messages: usize) {
    #[cfg(feature = "tracing")]
    Operation::receive(_subscription, _topic).moved(_messages, None);
}

/// Deliveries were answered.
#[inline]
pub(crate) fn settled(
    _answer: Answer,
    _subscription: &str,
    _topic: &str,
    _messages: usize,
    _done: usize,
) {
    #[cfg(feature = "tracing")]
    if _messages > 0 {
        spans::settled(_answer, _subscription, _topic, _messages, _done);
    }
}

/// How many deliveries were answered, and for how many the answer took effect.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    #[cfg(feature = "tracing")]
    messages: usize,
    #[cfg(feature = "tracing")]
    done: usize,
}

impl Tally {
    #[inline]
    pub(crate) fn count(&mut self, _is_done: bool) {
        #[cfg(feature = "tracing")]
        {
            self.messages += 1;
            self.done += usize::from(_is_done);
        }
    }

    #[inline]
    pub(crate) fn report(self, _answer: Answer, _subscription: &str, _topic: &str) {
        #[cfg(feature = "tracing")]
        settled(_answer, _subscription, _topic, self.messages, self.done);
    }
}

/// Leases ended by their deadline.
#[cfg(feature = "tracing")]
pub(crate) fn lapsed(subscription: &str, topic: &str, leases: u64) {
    tracing::debug!(
        messaging.system = SYSTEM,
        messaging.operation.name = "lapse",
        messaging.destination.name = topic,
        messaging.destination.subscription.name = subscription,
        messaging.batch.message_count = leases,
        "lapse"
    );
}

/// Something happened that listeners hear of too.
pub(crate) fn happened(_event: &crate::Event) {
    #[cfg(feature = "tracing")]
    match _event {
        crate::Event::PublisherBlocked { .. }
        | crate::Event::MessagesDropped { .. }
        | crate::Event::FilterLinted { .. } => {
            tracing::warn!(messaging.system = SYSTEM, event = ?_event);
        }
        _ => tracing::debug!(messaging.system = SYSTEM, event = ?_event),
    }
}

/// Whether somebody wants to be warned of what may be costly to find out.
pub(crate) fn wants_warnings() -> bool {
    #[cfg(feature = "tracing")]
    let wants = tracing::enabled!(tracing::Level::WARN);
    #[cfg(not(feature = "tracing"))]
    let wants = false;
    wants
}

#[cfg(feature = "tracing")]
const SYSTEM: &str = "siftbus";

#[cfg(feature = "tracing")]
mod spans {
    //! The spans themselves. Their names are fixed, as `tracing` wants it; `otel.name` has the
    //! name with the destination.

    use tracing::field::{Empty, display};
    use tracing::{Span, debug, debug_span};

    use super::{Answer, Delivery, Message, SYSTEM};
    use crate::attributes::{Attributes, TRACE_PARENTS};

    pub(super) fn send(topic: &str, messages: &[Message]) -> Span {
        let span = debug_span!(
            "send",
            otel.name = %format_args!("send {topic}"),
            otel.kind = "producer",
            messaging.system = SYSTEM,
            "messaging.operation.type" = "send",
            messaging.operation.name = "send",
            messaging.destination.name = topic,
            messaging.batch.message_count = messages.len(),
            messaging.message.id = Empty,
            messaging.message.body.size = Empty,
            messaging.gcp_pubsub.message.ordering_key = Empty,
            traceparent = Empty,
            "error.type" = Empty,
        );
        if let [message] = messages {
            describe(&span, message);
        }
        span
    }

    pub(super) fn receive(subscription: &str, topic: &str) -> Span {
        debug_span!(
            "receive",
            otel.name = %format_args!("receive {subscription}"),
            otel.kind = "client",
            messaging.system = SYSTEM,
            "messaging.operation.type" = "receive",
            messaging.operation.name = "receive",
            messaging.destination.name = topic,
            messaging.destination.subscription.name = subscription,
            messaging.batch.message_count = Empty,
            "error.type" = Empty,
        )
    }

    pub(super) fn process(subscription: &str, topic: &str, delivery: &Delivery) -> Span {
        let span = debug_span!(
            "process",
            otel.name = %format_args!("process {subscription}"),
            otel.kind = "consumer",
            messaging.system = SYSTEM,
            "messaging.operation.type" = "process",
            messaging.operation.name = "process",
            messaging.destination.name = topic,
            messaging.destination.subscription.name = subscription,
            messaging.message.id = %delivery.id(),
            messaging.message.body.size = Empty,
            messaging.gcp_pubsub.message.ordering_key = Empty,
            messaging.gcp_pubsub.message.delivery_attempt = delivery.attempt(),
            traceparent = Empty,
            "error.type" = Empty,
        );
        describe(&span, delivery.message());
        span
    }

    pub(super) fn settled(
        answer: Answer,
        subscription: &str,
        topic: &str,
        messages: usize,
        done: usize,
    ) {
        let name = match answer {
            Answer::Ack => "ack",
            Answer::Nack => "nack",
            Answer::ModifyAckDeadline => "modack",
            Answer::Reject => "reject",
        };
        let span = debug_span!(
            "settle",
            otel.name = %format_args!("{name} {subscription}"),
            otel.kind = "client",
            messaging.system = SYSTEM,
            "messaging.operation.type" = "settle",
            messaging.operation.name = name,
            messaging.destination.name = topic,
            messaging.destination.subscription.name = subscription,
            messaging.batch.message_count = messages,
        );
        span.in_scope(|| match answer {
            Answer::Ack => debug!(name: "ack", done, stale = messages - done, "ack"),
            Answer::Nack => debug!(name: "nack", done, stale = messages - done, "nack"),
            Answer::ModifyAckDeadline => {
                debug!(name: "modack", done, stale = messages - done, "modack");
            }
            Answer::Reject => debug!(name: "reject", done, stale = messages - done, "reject"),
        });
    }

    fn describe(span: &Span, message: &Message) {
        if span.is_disabled() {
            return;
        }
        span.record("messaging.message.body.size", message.data().len());
        let key = message.ordering_key();
        if !key.is_empty() {
            span.record("messaging.gcp_pubsub.message.ordering_key", key);
        }
        let attributes: &Attributes = message.attributes();
        if let Some(parent) = TRACE_PARENTS.iter().find_map(|key| attributes.get(key)) {
            span.record("traceparent", display(parent));
        }
    }
}

#[cfg(feature = "metrics")]
impl crate::Bus {
    /// Writes the figures of the bus to the recorder of the `metrics` facade, under the names that
    /// operators of the service know; to be called every few seconds (LIB-51).
    pub fn record_metrics(&self) {
        use metrics::{counter, gauge};
        let stats = self.stats();
        gauge!("siftbus/budget_used_bytes").set(stats.budget_used as f64);
        gauge!("siftbus/budget_bytes").set(stats.budget_bytes as f64);
        for topic in self.topics() {
            let (stats, name) = (topic.stats(), topic.name().to_owned());
            let labels = [("topic_id", name)];
            counter!("topic/send_message_operation_count", &labels).absolute(stats.published);
            gauge!("topic/publishers_waiting", &labels).set(stats.publishers_waiting as f64);
            gauge!("topic/retained_bytes", &labels).set(stats.retained_bytes as f64);
        }
        for subscription in self.subscriptions() {
            let stats = subscription.stats();
            let labels = [("subscription_id", subscription.name().to_owned())];
            let age = stats.oldest_unacked_age.unwrap_or_default().as_secs_f64();
            gauge!("subscription/num_undelivered_messages", &labels).set(stats.backlog as f64);
            gauge!("subscription/num_outstanding_messages", &labels).set(stats.outstanding as f64);
            gauge!("subscription/oldest_unacked_message_age", &labels).set(age);
            let totals = [
                ("subscription/ack_message_count", stats.acknowledged),
                ("subscription/dead_letter_message_count", stats.dead_lettered),
                ("subscription/expired_ack_deadlines_count", stats.expired_leases),
                ("subscription/redelivery_count", stats.redeliveries),
                ("subscription/filtered_out_message_count", stats.filtered_out),
                ("subscription/dropped_message_count", stats.dropped_messages),
            ];
            for (name, total) in totals {
                counter!(name, &labels).absolute(total);
            }
        }
    }
}
