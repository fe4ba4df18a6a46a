//! The row of seek: going back over a million retained messages, and forth again.

use std::time::{Duration, Instant, SystemTime};

use siftbus::{
    Budget, Bus, Clock, Filter, ManualClock, Message, Subscription, SubscriptionConfig, TopicConfig,
};
use tokio::runtime::Runtime;

use crate::measure::{median, one_thread, payload};
use crate::table::{Goal, Line, Table};

const MESSAGES: usize = 1_000_000;
const ROUNDS: usize = 21;

/// A topic that retains what its subscriptions have acknowledged.
struct Past {
    _bus: Bus,
    begin: SystemTime,
    end: SystemTime,
    all: Subscription,
    half: Subscription,
}

impl Past {
    fn new(runtime: &Runtime) -> Self {
        let clock = ManualClock::new();
        let bus = Bus::builder().clock(Clock::manual(&clock)).budget(Budget::unlimited()).build();
        let config = TopicConfig::new().retention(Duration::from_secs(3_600));
        let topic = runtime.block_on(bus.create_topic("topic", config)).unwrap();
        let subscribe = |name, config| runtime.block_on(topic.subscribe(name, config)).unwrap();
        let all = subscribe("all", SubscriptionConfig::new());
        let odd = SubscriptionConfig::new().filter(Filter::eq("parity", "1"));
        let half = subscribe("half", odd);
        let begin = clock.now();
        let payload = payload(16);
        let kinds =
            ["0", "1"].map(|parity| Message::new(payload.clone()).with_attribute("parity", parity));
        for _ in 0..MESSAGES / 1_000 {
            let messages = (0..1_000).map(|n| kinds[n % 2].clone());
            topic.try_publish_many(messages).unwrap();
            clock.advance(Duration::from_millis(1));
            for subscription in [&all, &half] {
                subscription.try_pull(1_000).unwrap().ack_all();
            }
        }
        clock.advance(Duration::from_millis(1));
        let end = clock.now();
        Self { _bus: bus, begin, end, all, half }
    }
}

/// Milliseconds that a seek takes.
fn millis(runtime: &Runtime, subscription: &Subscription, to: SystemTime) -> f64 {
    let start = Instant::now();
    runtime.block_on(subscription.seek(to)).unwrap();
    start.elapsed().as_secs_f64() * 1e3
}

pub(crate) fn back_and_forth(table: &mut Table) {
    let runtime = one_thread();
    let past = Past::new(&runtime);
    let (mut back, mut filtered, mut forth, mut held) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        back.push(millis(&runtime, &past.all, past.begin));
        assert_eq!(past.all.stats().backlog, MESSAGES as u64);
        forth.push(millis(&runtime, &past.all, past.end));
        assert_eq!(past.all.stats().backlog, 0);
        filtered.push(millis(&runtime, &past.half, past.begin));
        assert_eq!(past.half.try_pull(1).unwrap().len(), 1);
        millis(&runtime, &past.half, past.end);
    }
    for _ in 0..3 {
        millis(&runtime, &past.all, past.begin);
        let leases = past.all.try_pull(MESSAGES).unwrap();
        assert_eq!(leases.len(), MESSAGES);
        held.push(millis(&runtime, &past.all, past.begin));
        assert_eq!(leases.ack_all().stale, MESSAGES);
        millis(&runtime, &past.all, past.end);
    }
    let mut add = |what: &str, values: Vec<f64>, goal: Goal| {
        let judged = median(values);
        table.add(Line {
            row: "seek",
            what: format!("1,000,000 messages {what}"),
            ours: format!("{judged:.4} ms"),
            peer: String::new(),
            judged,
            goal,
            stretch: Goal::Shown,
        });
    };
    add("back, no filter", back, Goal::AtMost(1.0));
    add("forth, no filter", forth, Goal::AtMost(1.0));
    add("back, filter on half of them", filtered, Goal::AtMost(1.0));
    add("back, no filter, all of them leased", held, Goal::Shown);
}
