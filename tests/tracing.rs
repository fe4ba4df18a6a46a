//! What the feature `tracing` writes (LIB-51): spans and events with OpenTelemetry's names.
#![cfg(feature = "tracing")]
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use siftbus::{
    Budget, Bus, Failure, HandlerOptions, MESSAGE_OVERHEAD, Message, Requester, SubscriptionConfig,
    Topic, TopicConfig, reply,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

/// A span, or an event, as it was seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: String,
    fields: BTreeMap<String, String>,
    /// The span in which it happened.
    inside: Option<usize>,
    closed: bool,
}

impl Seen {
    fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    spans: Vec<Seen>,
    events: Vec<Seen>,
    entered: Vec<usize>,
}

impl Collector {
    fn install() -> (Self, DefaultGuard) {
        let collector = Self::default();
        let guard = tracing::subscriber::set_default(collector.clone());
        (collector, guard)
    }

    fn spans(&self, name: &str) -> Vec<Seen> {
        let collected = self.0.lock().unwrap();
        assert!(collected.entered.is_empty(), "every span was left");
        collected.spans.iter().filter(|span| span.name == name).cloned().collect()
    }

    fn events(&self, message: &str) -> Vec<Seen> {
        let collected = self.0.lock().unwrap();
        let is_it = |event: &&Seen| event.get("message") == message;
        collected.events.iter().filter(is_it).cloned().collect()
    }

    fn span(&self, at: Option<usize>) -> Seen {
        self.0.lock().unwrap().spans[at.unwrap()].clone()
    }
}

fn at(id: &Id) -> usize {
    id.into_u64() as usize - 1
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("siftbus")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut seen = Seen { name: span.metadata().name().to_owned(), ..Seen::default() };
        span.record(&mut seen);
        let mut collected = self.0.lock().unwrap();
        seen.inside = collected.entered.last().copied();
        collected.spans.push(seen);
        Id::from_u64(collected.spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        values.record(&mut self.0.lock().unwrap().spans[at(id)]);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        let mut collected = self.0.lock().unwrap();
        seen.inside = collected.entered.last().copied();
        collected.events.push(seen);
    }

    fn enter(&self, id: &Id) {
        self.0.lock().unwrap().entered.push(at(id));
    }

    fn exit(&self, id: &Id) {
        assert_eq!(self.0.lock().unwrap().entered.pop(), Some(at(id)), "spans nest");
    }

    fn try_close(&self, id: Id) -> bool {
        self.0.lock().unwrap().spans[at(&id)].closed = true;
        true
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn world(config: SubscriptionConfig) -> (Bus, Topic, siftbus::Subscription) {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("billing", config).await.unwrap();
    (bus, topic, worker)
}

#[tokio::test(start_paused = true)]
async fn lib_51_a_message_is_sent_received_and_settled() {
    let (_bus, topic, worker) = world(SubscriptionConfig::new()).await;
    let (collector, _guard) = Collector::install();
    let message = Message::new("four").with_ordering_key("k").with_attribute("traceparent", PARENT);
    let receipt = topic.publish(message).await.unwrap();
    topic.publish_many(["one", "two"]).await.unwrap();

    let sent = collector.spans("send");
    let [one, many] = &sent[..] else { panic!("LIB-51: a span per publish, not {sent:?}") };
    assert_eq!((one.get("otel.name"), one.get("otel.kind")), ("send orders", "producer"));
    assert_eq!(one.get("messaging.system"), "siftbus", "LIB-51");
    assert_eq!(one.get("messaging.operation.type"), "send", "LIB-51");
    assert_eq!(one.get("messaging.destination.name"), "orders", "LIB-51");
    assert_eq!(one.get("messaging.message.id"), receipt.id().to_string(), "LIB-51");
    assert_eq!(one.get("messaging.message.body.size"), "4", "LIB-51");
    assert_eq!(one.get("messaging.gcp_pubsub.message.ordering_key"), "k", "LIB-51");
    assert_eq!(one.get("traceparent"), PARENT, "LIB-51");
    assert_eq!(many.get("messaging.batch.message_count"), "2", "LIB-51");
    assert!(one.closed && many.closed);

    let batch = worker.pull(10).await.unwrap();
    let received = collector.spans("receive");
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].get("otel.name"), "receive billing", "LIB-51");
    assert_eq!(received[0].get("messaging.destination.subscription.name"), "billing");
    assert_eq!(received[0].get("messaging.batch.message_count"), "3", "LIB-51");
    assert_eq!(batch.iter().next().unwrap().attribute("traceparent"), Some(PARENT), "LIB-51");

    let mut owned = batch.into_iter();
    owned.next().unwrap().ack();
    owned.next().unwrap().set_deadline(Duration::from_secs(60)).outcome().unwrap();
    drop(owned);
    let names: Vec<_> =
        collector.spans("settle").iter().map(|s| s.get("otel.name").to_owned()).collect();
    assert_eq!(names, ["ack billing", "modack billing", "nack billing", "nack billing"], "LIB-51");
    let ack = &collector.events("ack")[0];
    assert_eq!((ack.get("done"), ack.get("stale")), ("1", "0"), "LIB-51");
    assert_eq!(collector.span(ack.inside).get("messaging.operation.type"), "settle", "LIB-51");
    assert_eq!(collector.events("nack").len(), 2, "LIB-51");
}

#[tokio::test(start_paused = true)]
async fn lib_51_a_lapse_and_a_late_answer_are_seen() {
    let (_bus, topic, worker) = world(SubscriptionConfig::new()).await;
    let (collector, _guard) = Collector::install();
    topic.publish_many(["one", "two"]).await.unwrap();
    let late: Vec<_> = worker.try_pull(2).unwrap().into_iter().collect();
    let again = tokio::spawn(async move { worker.pull(2).await.unwrap().ack_all() });
    assert_eq!(again.await.unwrap().done, 2);
    let lapse = &collector.events("lapse")[0];
    assert_eq!(lapse.get("messaging.batch.message_count"), "2", "LIB-51");
    assert_eq!(lapse.get("messaging.destination.subscription.name"), "billing", "LIB-51");
    late.into_iter().for_each(|delivery| drop(delivery.ack()));
    let stale: Vec<_> = collector.events("ack").iter().map(|e| e.get("stale").to_owned()).collect();
    assert_eq!(stale, ["0", "1", "1"], "LIB-51");
}

#[tokio::test(start_paused = true)]
async fn lib_51_a_publisher_that_waits_and_one_that_is_refused() {
    let one = 16 + MESSAGE_OVERHEAD as u64 + 1;
    let bus = Bus::builder().budget(Budget::new(one)).build();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("billing", SubscriptionConfig::new()).await.unwrap();
    let (collector, _guard) = Collector::install();
    topic.publish("1").await.unwrap();
    let waiting = tokio::spawn({
        let topic = topic.clone();
        async move { topic.publish("2").await.unwrap().id() }
    });
    tokio::task::yield_now().await;
    let is_open = |span: &&Seen| !span.closed;
    assert_eq!(collector.spans("send").iter().filter(is_open).count(), 1, "LIB-51: it lasts");
    worker.pull(1).await.unwrap().ack_all();
    let id = waiting.await.unwrap();
    let sent = collector.spans("send");
    assert!(sent.iter().all(|span| span.closed));
    assert_eq!(sent.last().unwrap().get("messaging.message.id"), id.to_string(), "LIB-51");
    assert_eq!(sent.last().unwrap().get("error.type"), "");
    topic.try_publish("3").unwrap_err();
    assert_eq!(collector.spans("send").last().unwrap().get("error.type"), "ResourceExhausted");
}

#[tokio::test(start_paused = true)]
async fn lib_51_a_handler_works_inside_a_span() {
    let (bus, topic, worker) = world(SubscriptionConfig::new()).await;
    let follow_up = bus.create_topic("invoices", TopicConfig::new()).await.unwrap();
    let (collector, _guard) = Collector::install();
    let id = topic.publish("order").await.unwrap().id();
    let handler = worker
        .handle(HandlerOptions::new(), move |received| {
            let follow_up = follow_up.clone();
            async move {
                tokio::task::yield_now().await;
                follow_up.publish("invoice").await?;
                match received.attempt() {
                    1 => Err(Failure::retry("not yet")),
                    _ => Ok(()),
                }
            }
        })
        .unwrap();
    bus.wait_idle().await;
    handler.drain().await;
    let processed = collector.spans("process");
    let [first, second] = &processed[..] else { panic!("LIB-51: {processed:?}") };
    assert_eq!((first.get("otel.name"), first.get("otel.kind")), ("process billing", "consumer"));
    assert_eq!(first.get("messaging.message.id"), id.to_string(), "LIB-51");
    assert_eq!(first.get("messaging.gcp_pubsub.message.delivery_attempt"), "1", "LIB-51");
    assert_eq!(second.get("messaging.gcp_pubsub.message.delivery_attempt"), "2", "LIB-51");
    assert_eq!((first.get("error.type"), second.get("error.type")), ("handler", ""), "LIB-51");
    let invoices: Vec<_> = collector.spans("send").into_iter().skip(1).collect();
    assert_eq!(invoices.len(), 2);
    for invoice in invoices {
        assert_eq!(
            collector.span(invoice.inside).name,
            "process",
            "LIB-51: what it does is inside"
        );
    }
    let settled = collector.spans("settle");
    let ack = settled.iter().find(|span| span.get("otel.name") == "ack billing").unwrap();
    assert_eq!(collector.span(ack.inside).name, "process", "LIB-51");
}

#[tokio::test(start_paused = true)]
async fn lib_51_trace_context_is_carried_and_copied_into_replies() {
    let bus = Bus::new();
    let requests = bus.create_topic("requests", TopicConfig::new()).await.unwrap();
    bus.create_topic("replies", TopicConfig::new()).await.unwrap();
    let worker = requests.subscribe("workers", SubscriptionConfig::new()).await.unwrap();
    let requester = Requester::new(&bus, "requests", "replies").await.unwrap();
    let answering = {
        let bus = bus.clone();
        tokio::spawn(async move {
            for delivery in worker.pull(1).await.unwrap() {
                reply(&bus, &delivery, "pong").await.unwrap();
                delivery.ack();
            }
        })
    };
    let ping = Message::new("ping")
        .with_attribute("googclient_traceparent", PARENT)
        .with_attribute("tracestate", "a=1");
    let pong = requester.request(ping, Duration::from_secs(1)).await.unwrap();
    answering.await.unwrap();
    assert_eq!(pong.attributes().get("googclient_traceparent"), Some(PARENT), "LIB-51");
    assert_eq!(pong.attributes().get("tracestate"), Some("a=1"), "LIB-51");
}
