//! Section 11: dead letters (DLQ), and rejecting (LIB-102).

use std::time::Duration;

use siftbus::filter::Filter;
use siftbus::{
    Budget, Bus, Clock, Code, DEAD_LETTER_SOURCE_DELIVERY_COUNT as COUNT,
    DEAD_LETTER_SOURCE_DELIVERY_ERROR_MESSAGE as REASON, DEAD_LETTER_SOURCE_SUBSCRIPTION as SOURCE,
    DEAD_LETTER_SOURCE_SUBSCRIPTION_PROJECT as PROJECT,
    DEAD_LETTER_SOURCE_TOPIC_PUBLISH_TIME as TIME, DeadLetterPolicy, Limits, ManualClock, Message,
    Outcome, RetryPolicy, Subscription, SubscriptionConfig, SubscriptionUpdate, TopicConfig,
};

use crate::support::{
    DAY, HOUR, MINUTE, SECOND, World, drain, manual_bus, nothing_ready, poll_once, take, take_one,
};

fn policy(attempts: u32) -> DeadLetterPolicy {
    DeadLetterPolicy::new("dead").max_delivery_attempts(attempts)
}

fn set(policy: Option<DeadLetterPolicy>) -> SubscriptionUpdate {
    SubscriptionUpdate::new().dead_letter_policy(policy)
}

/// A world whose `worker` forwards to topic `dead`, with a subscription `inspect` there.
async fn world(attempts: u32, config: SubscriptionConfig) -> (World, Subscription) {
    let w = World::with(config).await;
    let dead = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let inspect = dead.subscribe("inspect", SubscriptionConfig::new()).await.unwrap();
    w.worker.update(set(Some(policy(attempts)))).await.unwrap();
    (w, inspect)
}

#[tokio::test(start_paused = true)]
async fn dlq_01_the_topic_has_to_exist() {
    let w = World::new().await;
    for name in ["dead", "", "with\nbreak"] {
        let missing = DeadLetterPolicy::new(name);
        let config = SubscriptionConfig::new().dead_letter_policy(missing.clone());
        let created = w.topic.subscribe("other", config).await.unwrap_err();
        assert_eq!(created.code(), Code::NotFound, "DLQ-1, ERR-14: {name:?}");
        let updated = w.worker.update(set(Some(missing))).await.unwrap_err();
        assert_eq!(updated.code(), Code::NotFound, "DLQ-1: {name:?}");
    }
    assert_eq!(w.worker.config().dead_letter_policy, None);
    let itself = DeadLetterPolicy::new("orders");
    w.worker.update(set(Some(itself))).await.unwrap(); // DLQ-1: the source topic is accepted
    // What concerns something else is no reason to look for the topic again (DLQ-10).
    w.topic.delete().await.unwrap();
    w.worker.update(SubscriptionUpdate::new().ack_deadline(MINUTE)).await.unwrap();
}

/// Two subscriptions on a bus whose budget is full; those of `worker` have all failed, and each
/// that is forwarded takes room a second time, because `other` keeps it too.
struct Overdrawn {
    clock: ManualClock,
    bus: Bus,
    worker: Subscription,
    other: Subscription,
    inspect: Subscription,
    texts: Vec<String>,
}

const BUDGET: u64 = 64 * 1_024;

impl Overdrawn {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let budget = Budget::new(BUDGET).topic_reserve(0);
        let bus = Bus::builder().clock(Clock::manual(&clock)).budget(budget).build();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let dead = bus.create_topic("dead", TopicConfig::new()).await.unwrap();
        let inspect = dead.subscribe("inspect", SubscriptionConfig::new()).await.unwrap();
        let config = SubscriptionConfig::new().dead_letter_policy(policy(1));
        let worker = topic.subscribe("worker", config).await.unwrap();
        let other = SubscriptionConfig::new().retention(HOUR);
        let other = topic.subscribe("other", other).await.unwrap();
        let mut texts = Vec::new();
        loop {
            let text = format!("{:>1000}", texts.len());
            if topic.try_publish(text.clone()).is_err() {
                break;
            }
            texts.push(text);
        }
        worker.try_pull(1_000).unwrap().nack_all();
        Self { clock, bus, worker, other, inspect, texts }
    }

    fn check(&self) -> u64 {
        let (letters, waiting) = (self.inspect.stats().accepted, self.worker.stats().forwarding);
        assert_eq!(letters + waiting, self.texts.len() as u64, "L7: nothing is lost");
        let most = BUDGET + BUDGET / 8 + 2_000;
        assert!(self.bus.stats().budget_used <= most, "L7: {}", self.bus.stats().budget_used);
        self.bus.audit().assert_balanced();
        waiting
    }
}

#[tokio::test(start_paused = true)]
async fn lib_385_dead_letters_pause_while_the_budget_is_overdrawn() {
    let w = Overdrawn::new().await;
    let first = w.check();
    assert!(first > 10 && w.inspect.stats().backlog > 2, "LIB-385: {first} wait");
    assert!(nothing_ready(&w.worker), "L7: nobody is handed what waits");
    assert_eq!(w.check(), first, "LIB-385: and nothing moves meanwhile");
    // Whoever makes room lets the next ones through, in the order in which they failed.
    let mut arrived = Vec::new();
    while arrived.len() < w.texts.len() {
        let before = w.check();
        let letters = drain(&w.inspect);
        assert!(!letters.is_empty() || before == 0, "LIB-385: it goes on");
        arrived.extend(letters);
        w.check();
    }
    assert_eq!(arrived, w.texts, "LIB-385, DLQ-4");
    assert_eq!(drain(&w.other), w.texts);
    assert_eq!(w.worker.stats().dead_lettered, w.texts.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn lib_385_what_time_frees_lets_them_go_on_though_nobody_calls() {
    let w = Overdrawn::new().await;
    let before = w.check();
    w.clock.advance(HOUR + SECOND);
    // The retention of `other` has made room, and with the pause the clock is observed. Dead
    // letters alone take more than the budget.
    let after = w.inspect.peek(1_000).len() as u64;
    assert!(after > w.texts.len() as u64 - before + 10, "LIB-385: {after} after {before} waited");
    w.check();
    drain(&w.inspect);
    assert_eq!(w.check(), 0);
}

#[tokio::test(start_paused = true)]
async fn lib_385_a_subscription_that_goes_takes_its_pause_along() {
    let w = Overdrawn::new().await;
    w.worker.delete().await.unwrap();
    w.other.delete().await.unwrap();
    let letters = drain(&w.inspect);
    assert_eq!(letters[..], w.texts[..letters.len()]);
    w.bus.audit().assert_balanced();
    let start = w.clock.now();
    w.clock.advance(DAY);
    assert!(w.bus.now() > start && !w.bus.stats().under_pressure, "LIB-385");
}

#[tokio::test(start_paused = true)]
async fn dlq_02_attempts_have_a_range() {
    for (limits, good, bad) in [
        (Limits::google(), [5, 100], [1, 4, 101]),
        (Limits::embedded(), [1, 4_095], [4_096, 5_000, u32::MAX]),
    ] {
        let w = World::build(limits, TopicConfig::new(), SubscriptionConfig::new()).await;
        w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
        for attempts in good {
            let config = w.worker.update(set(Some(policy(attempts)))).await.unwrap();
            assert_eq!(config.dead_letter_policy.unwrap().max_delivery_attempts, attempts);
        }
        for attempts in bad {
            // DLQ-2, LIM-20, ERR-15
            let config = SubscriptionConfig::new().dead_letter_policy(policy(attempts));
            let created = w.topic.subscribe("other", config).await.unwrap_err();
            assert_eq!(created.code(), Code::OutOfRange, "{attempts}");
            let updated = w.worker.update(set(Some(policy(attempts)))).await.unwrap_err();
            assert_eq!(updated.code(), Code::OutOfRange, "{attempts}");
        }
    }
    assert_eq!(DeadLetterPolicy::new("dead").max_delivery_attempts, 5, "LIM-20");
    assert_eq!(policy(0).max_delivery_attempts, 5, "DLQ-2");
    let read = r#"{"dead_letter_topic":"dead","max_delivery_attempts":0}"#;
    let read: DeadLetterPolicy = serde_json::from_str(read).unwrap();
    assert_eq!(read.max_delivery_attempts, 5, "DLQ-2");
}

#[tokio::test(start_paused = true)]
async fn dlq_03_04_05_the_nth_failure_forwards_at_that_moment() {
    let (w, inspect) = world(3, SubscriptionConfig::new()).await;
    w.publish(&["a"]).await;
    let mut waiting = Box::pin(inspect.pull(1));
    assert!(poll_once(waiting.as_mut()).is_pending());
    for attempt in 1..=3 {
        assert_eq!(inspect.stats().backlog, 0);
        let delivery = take_one(&w.worker);
        assert_eq!(delivery.attempt(), attempt); // DLQ-3
        delivery.set_deadline(MINUTE).await.unwrap(); // DLQ-3: no attempt
        delivery.nack().await.unwrap();
    }
    // DLQ-4, DLQ-5, LS-16: there at once, and gone here; nobody has pulled the source.
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.dead_lettered, stats.forwarding), (0, 1, 0));
    let dead = waiting.await.unwrap().into_iter().next().unwrap();
    assert_eq!((dead.data().as_ref(), dead.attempt()), (b"a".as_slice(), 1));
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn dlq_05_a_lapse_forwards_at_its_moment() {
    let (w, inspect) = world(1, SubscriptionConfig::new()).await;
    w.publish(&["a"]).await;
    let late = take_one(&w.worker);
    w.clock.advance(10 * SECOND);
    assert_eq!(inspect.stats().backlog, 1); // DLQ-5
    assert_eq!(late.ack().await.unwrap(), Outcome::Stale, "LS-16: dead, not lapsed");
    assert_eq!(w.worker.stats().backlog, 0);
    assert_eq!(drain(&inspect), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn dlq_05_a_lapse_is_forwarded_by_the_bus_itself() {
    // Tokio's clock: the driver has to wake though nobody waits on the source.
    let bus = siftbus::Bus::new();
    let orders = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let dead = bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let inspect = dead.subscribe("inspect", SubscriptionConfig::new()).await.unwrap();
    let config = SubscriptionConfig::new().dead_letter_policy(policy(1));
    let worker = orders.subscribe("worker", config).await.unwrap();
    orders.publish("a").await.unwrap();
    for delivery in worker.pull(1).await.unwrap() {
        delivery.into_ack_id();
    }
    let start = bus.now();
    let dead = inspect.pull(1).await.unwrap();
    assert_eq!(dead.len(), 1);
    let waited = bus.now().duration_since(start).unwrap();
    assert!((10 * SECOND..11 * SECOND).contains(&waited), "DLQ-5, DL-3: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn dlq_06_what_the_forwarded_message_has() {
    let (clock, bus) = manual_bus(Limits::google());
    let topic = bus.create_topic("projects/p1/topics/orders", TopicConfig::new()).await.unwrap();
    let name = "projects/p2/topics/dead";
    let dead = bus.create_topic(name, TopicConfig::new()).await.unwrap();
    let inspect = dead.subscribe("inspect", SubscriptionConfig::new()).await.unwrap();
    let config = SubscriptionConfig::new().dead_letter_policy(DeadLetterPolicy::new(name));
    let worker = topic.subscribe("projects/p3/subscriptions/billing", config).await.unwrap();
    let message = Message::new("data").with_attribute("k", "v").with_ordering_key("key");
    let id = topic.publish(message).await.unwrap().id();
    clock.advance(1_500 * crate::support::MILLI);
    for _ in 0..5 {
        take_one(&worker).nack().await.unwrap();
    }
    let dead = take_one(&inspect);
    // DLQ-6
    assert_eq!(dead.data().as_ref(), b"data");
    assert_eq!(dead.message().ordering_key(), "key");
    assert!(dead.id() > id);
    assert_eq!(dead.publish_time(), clock.now());
    let attributes: Vec<_> = dead.attributes().iter().collect();
    let expected = [
        ("k", "v"),
        (COUNT, "5"),
        (SOURCE, "billing"),
        (PROJECT, "p3"),
        (TIME, "2026-01-01T00:00:00Z"),
    ];
    assert_eq!(attributes, expected);
}

#[tokio::test(start_paused = true)]
async fn dlq_07_the_attributes_replace_older_ones_and_are_exempt_from_limits() {
    let (w, first) = world(1, SubscriptionConfig::new()).await;
    let last = w.bus.create_topic("last", TopicConfig::new()).await.unwrap();
    let end = last.subscribe("end", SubscriptionConfig::new()).await.unwrap();
    let onwards = DeadLetterPolicy::new("last").max_delivery_attempts(2);
    first.update(set(Some(onwards))).await.unwrap();
    let attributes = (0..100).map(|n| (format!("k{n}"), "v"));
    w.topic.publish(Message::new("a").with_attributes(attributes)).await.unwrap();
    take_one(&w.worker).nack().await.unwrap();
    w.clock.advance(SECOND);
    assert_eq!(first.stats().backlog, 1, "DLQ-7: more than 100 attributes");
    for _ in 0..2 {
        take_one(&first).nack().await.unwrap();
    }
    let dead = take_one(&end);
    assert_eq!(dead.attributes().len(), 104); // DLQ-7
    assert_eq!((dead.attribute(COUNT), dead.attribute(SOURCE)), (Some("2"), Some("inspect")));
}

#[tokio::test(start_paused = true)]
async fn dlq_09_a_dead_letter_topic_without_subscriptions_loses_the_message() {
    let w = World::new().await;
    w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    w.worker.update(set(Some(policy(1)))).await.unwrap();
    w.publish(&["a"]).await;
    take_one(&w.worker).nack().await.unwrap();
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.dead_lettered), (0, 1)); // DLQ-9
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn dlq_10_without_its_topic_delivery_goes_on_and_nothing_is_lost() {
    let retry = RetryPolicy::new().minimum_backoff(SECOND).maximum_backoff(HOUR);
    for retry in [None, Some(retry)] {
        let (w, inspect) = world(2, SubscriptionConfig::new()).await;
        w.worker.update(SubscriptionUpdate::new().retry_policy(retry.clone())).await.unwrap();
        w.bus.topic("dead").await.unwrap().delete().await.unwrap();
        w.publish(&["a"]).await;
        for attempt in 1..=6 {
            let delivery = take_one(&w.worker);
            assert_eq!(delivery.attempt(), attempt); // DLQ-10
            delivery.nack().await.unwrap();
            if retry.is_some() {
                assert!(nothing_ready(&w.worker), "RTY-2 holds here too");
                w.clock.advance(HOUR);
            }
        }
        // A lapse leaves the id alive as ever (LS-8).
        let lapsed = take_one(&w.worker);
        w.clock.advance(10 * SECOND);
        assert_eq!(w.worker.stats().backlog, 1);
        lapsed.set_deadline(MINUTE).await.unwrap();
        assert_eq!(w.worker.stats().outstanding, 1);
        let named = w.worker.config().dead_letter_policy.unwrap();
        assert_eq!(named.dead_letter_topic, "dead", "DLQ-10: the policy keeps naming it");
        let dead = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
        let again = dead.subscribe("again", SubscriptionConfig::new()).await.unwrap();
        lapsed.nack().await.unwrap();
        let forwarded = take_one(&again); // DLQ-10: it works again
        assert_eq!(forwarded.attribute(COUNT), Some("7"));
        assert_eq!((inspect.stats().backlog, w.worker.stats().backlog), (0, 0));
        w.bus.audit().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn dlq_11_what_the_filter_rejects_never_gets_there() {
    let filter = Filter::parse("attributes:wanted").unwrap();
    let (w, inspect) = world(1, SubscriptionConfig::new().filter(filter)).await;
    w.topic.publish(Message::new("no")).await.unwrap();
    w.topic.publish(Message::new("yes").with_attribute("wanted", "")).await.unwrap();
    assert_eq!(w.worker.try_pull(10).unwrap().nack_all().done, 1);
    assert_eq!(drain(&inspect), ["yes"]); // DLQ-11
}

#[tokio::test(start_paused = true)]
async fn dlq_12_a_seek_lets_attempts_count_from_one() {
    let (w, inspect) = world(2, SubscriptionConfig::new()).await;
    w.publish(&["a"]).await;
    take_one(&w.worker).nack().await.unwrap();
    w.worker.seek(w.clock.now() - HOUR).await.unwrap();
    for attempt in [1, 2] {
        assert!(nothing_ready(&inspect), "DLQ-12");
        let delivery = take_one(&w.worker);
        assert_eq!(delivery.attempt(), attempt, "DLQ-12");
        delivery.nack().await.unwrap();
    }
    assert_eq!(drain(&inspect), ["a"], "DLQ-12, DLQ-4");
}

#[tokio::test(start_paused = true)]
async fn dlq_13_removing_the_policy_keeps_messages_and_setting_it_restarts_the_count() {
    let (w, inspect) = world(3, SubscriptionConfig::new()).await;
    w.publish(&["a"]).await;
    for _ in 0..2 {
        take_one(&w.worker).nack().await.unwrap();
    }
    w.worker.update(set(None)).await.unwrap();
    for _ in 0..5 {
        take_one(&w.worker).nack().await.unwrap();
    }
    assert_eq!((w.worker.stats().backlog, inspect.stats().backlog), (1, 0)); // DLQ-13
    w.worker.update(set(Some(policy(3)))).await.unwrap();
    for attempt in 1..=3 {
        let delivery = take_one(&w.worker);
        assert_eq!(delivery.attempt(), attempt, "DLQ-13: the count restarts");
        delivery.nack().await.unwrap();
    }
    assert_eq!(drain(&inspect), ["a"]);
    // Another number of attempts counts from the next failure on, with the attempts there were.
    w.publish(&["b"]).await;
    take_one(&w.worker).nack().await.unwrap();
    w.worker.update(set(Some(policy(2)))).await.unwrap();
    take_one(&w.worker).nack().await.unwrap();
    assert_eq!(drain(&inspect), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn dlq_14_what_expires_is_dropped_and_not_forwarded() {
    let config = SubscriptionConfig::new().retention(10 * MINUTE);
    let (w, inspect) = world(1, config).await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    delivery.set_deadline(DAY).await.unwrap();
    w.clock.advance(DAY);
    drop(delivery);
    assert_eq!((w.worker.stats().backlog, inspect.stats().backlog), (0, 0)); // DLQ-14
    assert_eq!(w.worker.stats().expired_messages, 1);
}

#[tokio::test(start_paused = true)]
async fn dlq_04_attempts_are_exact_however_they_failed() {
    let retry = RetryPolicy::new().minimum_backoff(Duration::ZERO);
    let (w, inspect) = world(4, SubscriptionConfig::new().retry_policy(retry)).await;
    w.topic.publish_many((0..1_000).map(|n| n.to_string())).await.unwrap();
    let mut deliveries = 0;
    for round in 0.. {
        let batch = w.worker.try_pull(1_000).unwrap();
        if batch.is_empty() {
            break;
        }
        deliveries += batch.len();
        match round % 3 {
            0 => drop(batch),
            1 => assert_eq!(batch.nack_all().stale, 0),
            _ => {
                for delivery in batch {
                    delivery.into_ack_id();
                }
                w.clock.advance(10 * SECOND);
            }
        }
    }
    assert_eq!(deliveries, 4_000); // DLQ-4
    let expected: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    assert_eq!(drain(&inspect), expected, "in the order in which they failed");
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_102_reject_forwards_at_once_with_a_reason() {
    let (w, inspect) = world(5, SubscriptionConfig::new()).await;
    w.publish(&["a", "b", "c"]).await;
    let mut held = take(&w.worker, 3);
    let lapsed = held.pop().unwrap();
    assert_eq!(held.pop().unwrap().reject_with("no such customer").await.unwrap(), Outcome::Done);
    let id = held[0].ack_id();
    assert_eq!(held.pop().unwrap().reject().await.unwrap(), Outcome::Done);
    assert_eq!(w.worker.acknowledge(&[id]).await.unwrap(), [Outcome::Stale]);
    let dead = take(&inspect, 10);
    // LIB-102
    assert_eq!(dead[0].attribute(REASON), Some("no such customer"));
    assert_eq!((dead[0].data().as_ref(), dead[0].attribute(COUNT)), (b"b".as_slice(), Some("1")));
    assert_eq!((dead[1].data().as_ref(), dead[1].attribute(REASON)), (b"a".as_slice(), None));
    dead.into_iter().for_each(|delivery| drop(delivery.ack()));
    // A late answer counts as long as nobody else has the message, as with an ack (LS-8).
    w.clock.advance(10 * SECOND);
    let long = "ä".repeat(2_000);
    assert_eq!(lapsed.reject_with(&long).await.unwrap(), Outcome::Done);
    assert_eq!(take_one(&inspect).attribute(REASON).unwrap().len(), 1_024);
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn lib_102_reject_without_a_policy_gives_back() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let error = take_one(&w.worker).reject().await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition); // LIB-102
    assert_eq!(take_one(&w.worker).attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn lib_103_a_message_does_not_run_in_circles() {
    // DLQ-1, LIB-103: the source topic itself, once.
    let w = World::new().await;
    let itself = DeadLetterPolicy::new("orders").max_delivery_attempts(1);
    w.worker.update(set(Some(itself))).await.unwrap();
    w.publish(&["a"]).await;
    take_one(&w.worker).nack().await.unwrap();
    assert_eq!(w.worker.stats().backlog, 1);
    let copy = take_one(&w.worker);
    let message = copy.message().clone();
    copy.nack().await.unwrap();
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.dead_lettered, stats.dead_letters_dropped), (0, 1, 1));
    // What a program publishes itself is a new message.
    w.topic.publish(message).await.unwrap();
    take_one(&w.worker).nack().await.unwrap();
    assert_eq!(w.worker.stats().backlog, 1);
    w.bus.audit().assert_balanced();

    // Two topics in a circle: each is come back to once.
    let (w, inspect) = world(1, SubscriptionConfig::new()).await;
    let back = DeadLetterPolicy::new("orders").max_delivery_attempts(1);
    inspect.update(set(Some(back))).await.unwrap();
    w.publish(&["a"]).await;
    let mut hops = 0;
    while let Some(delivery) = take(&w.worker, 1).pop().or_else(|| take(&inspect, 1).pop()) {
        delivery.nack().await.unwrap();
        hops += 1;
    }
    assert_eq!(hops, 4, "orders, dead, orders, dead");
    assert_eq!(inspect.stats().dead_letters_dropped, 1);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_103_a_chain_of_topics_ends_after_16_hops() {
    let (_, bus) = manual_bus(Limits::embedded());
    let mut topics = Vec::new();
    for n in 0..20 {
        topics.push(bus.create_topic(&format!("t{n}"), TopicConfig::new()).await.unwrap());
    }
    let mut subscriptions = Vec::new();
    for (n, topic) in topics.iter().enumerate().take(19) {
        let next = DeadLetterPolicy::new(format!("t{}", n + 1)).max_delivery_attempts(1);
        let config = SubscriptionConfig::new().dead_letter_policy(next);
        subscriptions.push(topic.subscribe(&format!("s{n}"), config).await.unwrap());
    }
    topics[0].publish("a").await.unwrap();
    let mut hops = 0;
    for subscription in &subscriptions {
        let batch = subscription.try_pull(1).unwrap();
        hops += batch.nack_all().done;
    }
    assert_eq!(hops, 17); // DLQ-1, LIB-103: 16 hops, the 17th is refused
    assert_eq!(subscriptions[16].stats().dead_letters_dropped, 1);
}
