//! What filters cost a publish, by their number, for six kinds of filters; and a plot of it.
//!
//! A publish goes to a topic with one subscription that gets everything and as many with a filter
//! as the size says. Except where every filter but one matches, none does: delivery is not what is
//! measured. Kinds that are bounded per topic stop at their bound. After a full run the medians are
//! drawn into `docs/filter-cost.svg`.

#![allow(clippy::disallowed_methods, reason = "a bench reads real time")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::indexing_slicing, reason = "a bench that cannot go on may panic")]

mod plot;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use siftbus::{Bus, Filter, Message, Subscription, SubscriptionConfig, Topic, TopicConfig};

/// A kind of filters.
struct Shape {
    name: &'static str,
    filter: fn(usize) -> Filter,
    sizes: &'static [usize],
    /// Whether messages have a value that some filter names.
    is_known: bool,
}

const MANY: &[usize] = &[10, 1_000, 100_000, 1_000_000];
const BOUNDED: &[usize] = &[10, 100, 1_000, 10_000];

const SHAPES: [Shape; 6] = [
    Shape {
        name: "unique equality",
        filter: |number| Filter::eq("correlid", &value(number)),
        sizes: MANY,
        is_known: false,
    },
    Shape {
        name: "shared value AND unique value",
        filter: |number| parsed(&format!("{HOT} AND attributes.correlid = \"{}\"", value(number))),
        sizes: MANY,
        is_known: false,
    },
    Shape {
        name: "prefix",
        filter: |number| Filter::prefix("correlid", &value(number)[..12]),
        sizes: MANY,
        is_known: false,
    },
    Shape {
        name: "everyone but one",
        filter: |number| parsed(&format!("attributes.correlid != \"{}\"", value(number))),
        sizes: BOUNDED,
        is_known: true,
    },
    Shape {
        name: "negative only",
        filter: |number| parsed(&format!("NOT attributes:test AND NOT attributes:k{number}")),
        sizes: BOUNDED,
        is_known: false,
    },
    Shape {
        name: "presence AND rest",
        filter: |number| {
            parsed(&format!(
                "attributes:region AND NOT attributes:test AND NOT attributes:k{number}"
            ))
        },
        sizes: BOUNDED,
        is_known: false,
    },
];

const HOT: &str = "attributes.region = \"eu\"";

fn parsed(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

/// Sixteen digits that look random, so that neither table nor processor can foresee them.
fn value(number: usize) -> String {
    format!("{:016x}", (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// A topic with filtered subscriptions, and messages for it.
struct World {
    _bus: Bus,
    topic: Topic,
    everything: Subscription,
    filtered: Vec<Subscription>,
    messages: Vec<Message>,
    delivers: bool,
}

impl World {
    fn new(shape: &Shape, size: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let bus = Bus::builder().seed(7).build();
            let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
            let everything = topic.subscribe("all", SubscriptionConfig::new()).await.unwrap();
            let mut filtered = Vec::with_capacity(size);
            for number in 0..size {
                let config = SubscriptionConfig::new().filter((shape.filter)(number));
                filtered.push(topic.subscribe(&format!("s{number}"), config).await.unwrap());
            }
            // No filter has a number from a thousand million on.
            let first = if shape.is_known { 0 } else { 1_000_000_000 };
            let message = |nth: usize| {
                let correlid = value(first + nth % size);
                Message::new("x").with_attributes([
                    ("correlid", correlid.as_str()),
                    ("region", "eu"),
                    ("test", "1"),
                ])
            };
            let delivers = shape.is_known;
            let count = if delivers { (20_000 / size).max(1) } else { 2_000 };
            let messages = (0..count).map(message).collect();
            Self { _bus: bus, topic, everything, filtered, messages, delivers }
        })
    }

    /// Publishes so many messages one at a time; answers how long that took.
    fn publish(&self, mut count: u64) -> Duration {
        let mut spent = Duration::ZERO;
        while count > 0 {
            let some = self.messages.iter().take(count as usize).cloned().collect::<Vec<_>>();
            count -= some.len() as u64;
            let published = some.len();
            let start = Instant::now();
            for message in some {
                self.topic.try_publish(message).unwrap();
            }
            spent += start.elapsed();
            assert_eq!(self.everything.try_pull(published).unwrap().ack_all().done, published);
            if self.delivers {
                for subscription in &self.filtered {
                    subscription.try_pull(published).unwrap().ack_all();
                }
            }
        }
        spent
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .configure_from_args();
    for shape in &SHAPES {
        let mut group = criterion.benchmark_group("filter");
        for &size in shape.sizes {
            // Made only if it is picked, since a million subscriptions take their time.
            let mut world = None;
            group.bench_function(BenchmarkId::new(shape.name, size), |bencher| {
                let world = world.get_or_insert_with(|| World::new(shape, size));
                bencher.iter_custom(|count| world.publish(count));
            });
        }
    }
    criterion.final_summary();
    let shapes: Vec<_> = SHAPES.iter().map(|shape| (shape.name, shape.sizes)).collect();
    plot::draw(&shapes);
}
