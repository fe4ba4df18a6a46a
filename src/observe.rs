//! What other tools see: events for `tracing`, figures for `metrics`; each behind its feature, and
//! nothing without.
//!
//! Events carry OpenTelemetry's messaging names and are written with no lock held. Trace context in
//! attributes is the publisher's: it is carried like every attribute, never read or stripped.

/// Messages were published.
#[inline]
pub(crate) fn sent(_topic: &str, _messages: usize, _bytes: u64) {
    #[cfg(feature = "tracing")]
    tracing::trace!(
        messaging.system = SYSTEM,
        "messaging.operation.type" = "send",
        messaging.operation.name = "send",
        messaging.destination.name = _topic,
        messaging.batch.message_count = _messages,
        messaging.message.body.size = _bytes,
    );
}

/// Messages were handed out.
#[inline]
pub(crate) fn received(_subscription: &str, _topic: &str, _messages: usize) {
    #[cfg(feature = "tracing")]
    tracing::trace!(
        messaging.system = SYSTEM,
        "messaging.operation.type" = "receive",
        messaging.operation.name = "receive",
        messaging.destination.name = _topic,
        messaging.destination.subscription.name = _subscription,
        messaging.batch.message_count = _messages,
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
