//! What the feature `metrics` writes (LIB-51).
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use siftbus::{Bus, SubscriptionConfig, TopicConfig};

/// Keeps the last value under each name.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(String, f64)>>>);

struct Cell(Kept, String);

impl Cell {
    fn keep(&self, value: f64) {
        self.0.0.lock().unwrap().push((self.1.clone(), value));
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.keep(value as f64);
    }

    fn absolute(&self, value: u64) {
        self.keep(value as f64);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.keep(value);
    }

    fn decrement(&self, value: f64) {
        self.keep(-value);
    }

    fn set(&self, value: f64) {
        self.keep(value);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Cell(self.clone(), key.name().to_owned())))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Cell(self.clone(), key.name().to_owned())))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(start_paused = true)]
async fn lib_51_figures_have_the_names_that_operators_know() {
    let bus = Bus::new();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
    topic.publish_many(["0", "1", "2"]).await.unwrap();
    worker.pull(1).await.unwrap().ack_all();
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || bus.record_metrics());
    let kept = kept.0.lock().unwrap();
    let value = |name: &str| kept.iter().find(|(kept, _)| kept == name).map(|(_, value)| *value);
    assert_eq!(value("topic/send_message_operation_count"), Some(3.0), "LIB-51");
    assert_eq!(value("subscription/num_undelivered_messages"), Some(2.0), "LIB-51");
    assert_eq!(value("subscription/ack_message_count"), Some(1.0), "LIB-51");
    assert_eq!(value("subscription/oldest_unacked_message_age"), Some(5.0), "LIB-51");
}
