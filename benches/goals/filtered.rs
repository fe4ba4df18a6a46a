//! A topic with as many filters as asked for, and messages for it. Included by the bench beside
//! other programs that match filters (`benches/filter_peers`), too.

use std::time::Instant;

use siftbus::{Bus, Filter, Message, Subscription, SubscriptionConfig, Topic, TopicConfig};

use crate::measure::{Sample, one_thread};

/// Messages of one run.
pub(crate) const MESSAGES: usize = 2_000;

/// A topic with one unfiltered subscription, and as many filtered ones as asked for.
pub(crate) struct Filtered {
    pub(crate) bus: Bus,
    pub(crate) topic: Topic,
    pub(crate) everything: Subscription,
    pub(crate) filtered: Vec<Subscription>,
}

pub(crate) fn filtered(count: usize, filter: impl Fn(usize) -> Filter) -> Filtered {
    let bus = Bus::builder().seed(7).build();
    one_thread().block_on(async {
        let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
        let everything = topic.subscribe("all", SubscriptionConfig::new()).await.unwrap();
        let mut filtered = Vec::with_capacity(count);
        for number in 0..count {
            let config = SubscriptionConfig::new().filter(filter(number));
            filtered.push(topic.subscribe(&format!("s{number}"), config).await.unwrap());
        }
        Filtered { bus, topic, everything, filtered }
    })
}

/// Sixteen digits that look random, so that neither table nor processor can foresee them.
pub(crate) fn value(number: usize) -> String {
    format!("{:016x}", (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Messages with three attributes; `correlid` has the value of the filter numbered.
pub(crate) fn messages(number: impl Fn(usize) -> usize, extra: &'static str) -> Vec<Message> {
    let message = |nth: usize| {
        let correlid = value(number(nth));
        Message::new("x").with_attributes([
            ("correlid", correlid.as_str()),
            ("region", "eu"),
            (extra, "1"),
        ])
    };
    (0..MESSAGES).map(message).collect()
}

/// A number in `0..count` that is another each time.
pub(crate) fn spread(nth: usize, count: usize) -> usize {
    nth.wrapping_mul(7_919) % count
}

/// No filter has this number.
pub(crate) fn unknown(nth: usize) -> usize {
    nth + 1_000_000_000
}

impl Filtered {
    pub(crate) fn publish(&self, messages: &[Message], batch: usize) -> Sample {
        let messages = messages.to_vec();
        let start = Instant::now();
        if batch == 1 {
            for message in messages {
                self.topic.try_publish(message).unwrap();
            }
        } else {
            let mut messages = messages.into_iter();
            for _ in 0..MESSAGES / batch {
                self.topic.try_publish_many(messages.by_ref().take(batch)).unwrap();
            }
        }
        let sample = Sample { time: start.elapsed(), units: MESSAGES };
        self.everything.try_pull(MESSAGES).unwrap().ack_all();
        sample
    }

    /// Empties the filtered subscriptions that may have got something.
    pub(crate) fn drain(&self) {
        let count = self.filtered.len();
        for nth in 0..MESSAGES.min(count) {
            let numbers = [spread(nth, count)];
            for number in numbers {
                self.filtered[number].try_pull(MESSAGES).unwrap().ack_all();
            }
        }
    }
}

/// A value of its own, and an attribute that must be absent.
pub(crate) fn conjunction(number: usize) -> Filter {
    let tested = Filter::has("test").not().unwrap();
    Filter::eq("correlid", &value(number)).and(&tested).unwrap()
}
