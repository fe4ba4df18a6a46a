//! Section 2: the limits (LIM), on both sides, for both presets.
//!
//! `Limits::google()` enforces every documented range; `Limits::embedded()` keeps the limits of
//! attributes and ordering keys and takes any positive duration (design D10, which replaces
//! LIM-27). Names (LIM-1) and labels are in `resources.rs`, refusals of pulls (LIM-14) in
//! `pull.rs`. Where the specification leaves the exact byte open, the test stands clear of it on
//! both sides.

use std::time::Duration;

use siftbus::filter::{Filter, ParseLimits};
use siftbus::{
    Code, Expiration, FlowControl, Limits, Message, Subscription, SubscriptionConfig, Topic,
    TopicConfig, TopicUpdate,
};

use crate::support::{
    DAY, HOUR, MILLI, MINUTE, SECOND, World, ack_deadline, manual_bus, take, take_one,
};

#[tokio::test(start_paused = true)]
async fn lim_02_a_request_holds_1_to_1000_messages_in_google() {
    let (google, embedded) = (World::google().await, World::new().await);
    let many = |count: usize| (0..count).map(|_| Message::new("x"));
    // LIM-2
    assert_eq!(google.topic.publish_many(many(1)).await.unwrap().len(), 1);
    assert_eq!(google.topic.publish_many(many(1_000)).await.unwrap().len(), 1_000);
    for count in [0, 1_001] {
        let error = google.topic.publish_many(many(count)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{count} messages");
        assert_eq!(error.into_messages().len(), count);
    }
    assert_eq!(google.worker.stats().backlog, 1_001);
    // D10: bounded by the budget only.
    assert_eq!(embedded.topic.publish_many(many(1_001)).await.unwrap().len(), 1_001);
    assert_eq!(embedded.worker.stats().backlog, 1_001);
}

#[tokio::test(start_paused = true)]
async fn lim_03_a_google_request_is_at_most_10_mib() {
    let (google, embedded) = (World::google().await, World::new().await);
    let halves = |total: usize| {
        let half = total / 2;
        [Message::new(vec![1; half]), Message::new(vec![2; total - half])]
    };
    // LIM-3 with the figure of LIM-27: 10,485,760 bytes, ids and times included.
    assert_eq!(google.topic.publish_many(halves(10_485_600)).await.unwrap().len(), 2);
    let error = google.topic.publish_many(halves(10_485_760)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.into_messages(), halves(10_485_760));
    assert_eq!(embedded.topic.publish_many(halves(10_485_760)).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn lim_04_google_data_is_at_most_10_mb() {
    let (google, embedded) = (World::google().await, World::new().await);
    // LIM-4
    google.topic.publish(vec![0; 10_000_000]).await.unwrap();
    let error = google.topic.publish(vec![0; 10_485_761]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    embedded.topic.publish(vec![0; 10_485_761]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lim_05_to_08_attributes_and_ordering_keys_are_limited_in_both_presets() {
    let m = || Message::new("data");
    let numbered = |count: usize| m().with_attributes((0..count).map(|i| (format!("k{i}"), "v")));
    let (key_256, key_257) = ("k".repeat(256), "k".repeat(257));
    let (wide_256, wide_258) = ("é".repeat(128), "é".repeat(129));
    let (value_1024, value_1025) = ("v".repeat(1_024), "v".repeat(1_025));
    let good = [
        ("LIM-5", numbered(100)),
        ("LIM-6", m().with_attribute(key_256, "v")),
        ("LIM-6, LIM-28", m().with_attribute(wide_256, "v")),
        ("LIM-6, case", m().with_attribute("Google", "v")),
        ("LIM-6, inside", m().with_attribute("mygoog", "v")),
        ("LIM-6, traces", m().with_attribute("googclient_traceparent", "v")),
        ("LIM-7", m().with_attribute("k", value_1024.clone())),
        ("LIM-7, empty", m().with_attribute("k", "")),
        ("LIM-8", m().with_ordering_key(value_1024)),
    ];
    let bad = [
        ("LIM-5", numbered(101)),
        ("LIM-6", m().with_attribute(key_257, "v")),
        ("LIM-6, LIM-28", m().with_attribute(wide_258, "v")),
        ("LIM-6, goog", m().with_attribute("googx", "v")),
        ("LIM-6, goog alone", m().with_attribute("goog", "v")),
        ("LIM-6, not traces", m().with_attribute("googclient", "v")),
        ("LIM-6, empty", m().with_attribute("", "v")),
        ("LIM-7", m().with_attribute("k", value_1025.clone())),
        ("LIM-8", m().with_ordering_key(value_1025)),
    ];
    for w in [World::google().await, World::new().await] {
        for (rule, message) in &good {
            let published = w.topic.publish(message.clone()).await;
            assert!(published.is_ok(), "{rule}: {published:?}");
        }
        for (rule, message) in &bad {
            let error = w.topic.publish(message.clone()).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{rule}: {error}");
            assert_eq!(
                error.into_messages(),
                std::slice::from_ref(message),
                "{rule}: handed back (D16)"
            );
        }
        assert_eq!(w.worker.stats().backlog, good.len() as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn lim_09_ack_deadline_of_a_subscription() {
    let (google, embedded) = (World::google().await, World::new().await);
    let with = |deadline| SubscriptionConfig::new().ack_deadline(deadline);
    // LIM-9, ERR-8, ERR-9: 10 to 600 seconds.
    let bad = [SECOND, 10 * SECOND - MILLI, 600 * SECOND + MILLI, DAY];
    both_sides(&google.topic, [10 * SECOND, 600 * SECOND].map(with), bad.map(with)).await;
    assert_eq!(update_code(&google.worker, 10 * SECOND).await, None);
    assert_eq!(update_code(&google.worker, 600 * SECOND).await, None);
    assert_eq!(update_code(&google.worker, 9 * SECOND).await, Some(Code::InvalidArgument));
    assert_eq!(update_code(&google.worker, 601 * SECOND).await, Some(Code::InvalidArgument));
    assert_eq!(google.worker.config().ack_deadline, 600 * SECOND);
    // D10: any positive value.
    both_sides(&embedded.topic, [MILLI, SECOND, DAY].map(with), [Duration::ZERO].map(with)).await;
    assert_eq!(update_code(&embedded.worker, MILLI).await, None);
    assert_eq!(update_code(&embedded.worker, Duration::ZERO).await, Some(Code::InvalidArgument));
}

#[tokio::test(start_paused = true)]
async fn lim_10_modify_ack_deadline_takes_0_to_600_seconds_in_google() {
    let (google, embedded) = (World::google().await, World::new().await);
    google.publish(&["a"]).await;
    embedded.publish(&["a"]).await;
    let over = 600 * SECOND + MILLI;
    let id = take_one(&google.worker).into_ack_id();
    let ids = [id];
    // LIM-10, ERR-31
    assert!(google.worker.modify_ack_deadline(&ids, 600 * SECOND).await.is_ok());
    let error = google.worker.modify_ack_deadline(&ids, over).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(google.worker.modify_ack_deadline(&ids, Duration::ZERO).await.is_ok());

    let delivery = take_one(&google.worker);
    assert!(delivery.set_deadline(600 * SECOND).outcome().is_ok());
    assert_eq!(delivery.set_deadline(over).outcome().unwrap_err().code(), Code::InvalidArgument);

    let delivery = take_one(&embedded.worker);
    assert!(delivery.set_deadline(DAY).outcome().is_ok());
    let ids = [delivery.into_ack_id()];
    assert!(embedded.worker.modify_ack_deadline(&ids, 2 * DAY).await.is_ok());
    embedded.clock.advance(DAY + HOUR);
    assert_eq!(embedded.worker.stats().outstanding, 1);
}

#[tokio::test(start_paused = true)]
async fn lim_11_deadline_of_a_stream() {
    let (google, embedded) = (World::google().await, World::new().await);
    let open = |w: &World, deadline| {
        let flow = FlowControl::new().ack_deadline(deadline);
        let stream = w.worker.stream(flow.clone()).map(drop).map_err(|e| e.code());
        let batches = w.worker.batches(10, flow).map(drop).map_err(|e| e.code());
        assert_eq!(stream, batches);
        stream
    };
    // LIM-11
    assert_eq!(open(&google, 10 * SECOND), Ok(()));
    assert_eq!(open(&google, 600 * SECOND), Ok(()));
    assert_eq!(open(&google, 10 * SECOND - MILLI), Err(Code::InvalidArgument));
    assert_eq!(open(&google, 600 * SECOND + MILLI), Err(Code::InvalidArgument));
    assert_eq!(open(&embedded, MILLI), Ok(()));
    assert_eq!(open(&embedded, DAY), Ok(()));
    assert_eq!(open(&embedded, Duration::ZERO), Err(Code::InvalidArgument));
}

#[tokio::test(start_paused = true)]
async fn lim_12_a_google_ack_request_is_at_most_512_kib_of_ids() {
    let (google, embedded) = (World::google().await, World::new().await);
    for (w, too_large) in [(google, Some(Code::InvalidArgument)), (embedded, None)] {
        w.publish(&["a"]).await;
        let id = take_one(&w.worker).into_ack_id();
        let count = 524_288 / id.to_string().len();
        let (small, large) = (vec![id.clone(); count], vec![id.clone(); count + 1]);
        // LIM-12: the large request is refused whole, so the lease still runs.
        let modify = w.worker.modify_ack_deadline(&large, 60 * SECOND).await;
        assert_eq!(modify.err().map(|error| error.code()), too_large);
        let ack = w.worker.acknowledge(&large).await;
        assert_eq!(ack.err().map(|error| error.code()), too_large);
        assert_eq!(w.worker.stats().outstanding, u64::from(too_large.is_some()));
        assert!(w.worker.modify_ack_deadline(&small, 60 * SECOND).await.is_ok());
        assert!(w.worker.acknowledge(&small).await.is_ok());
        assert_eq!(w.worker.stats().outstanding, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn lim_16_retention_of_a_subscription() {
    let (google, embedded) = (World::google().await, World::new().await);
    let with = |retention| SubscriptionConfig::new().retention(retention);
    // LIM-16, ERR-10: 10 minutes to 31 days.
    let bad = [Duration::ZERO, 10 * MINUTE - MILLI, 31 * DAY + MILLI];
    both_sides(&google.topic, [10 * MINUTE, 31 * DAY].map(with), bad.map(with)).await;
    both_sides(&embedded.topic, [MILLI, 400 * DAY].map(with), [Duration::ZERO].map(with)).await;
}

#[tokio::test(start_paused = true)]
async fn lim_17_retention_of_a_topic() {
    let (google, embedded) = (World::google().await, World::new().await);
    let cases = [
        (10 * MINUTE, true, true),
        (31 * DAY, true, true),
        (10 * MINUTE - MILLI, false, true),
        (31 * DAY + MILLI, false, true),
        (MILLI, false, true),
        (Duration::ZERO, false, false),
    ];
    for (i, (retention, in_google, in_embedded)) in cases.into_iter().enumerate() {
        for (w, good) in [(&google, in_google), (&embedded, in_embedded)] {
            let expected = if good { None } else { Some(Code::InvalidArgument) };
            let config = TopicConfig::new().retention(retention);
            let made = w.bus.create_topic(&format!("topic{i}"), config).await;
            // LIM-17, ERR-4
            assert_eq!(made.err().map(|e| e.code()), expected, "create, {retention:?}");
            let updated = w.topic.update(TopicUpdate::new().retention(Some(retention))).await;
            assert_eq!(updated.err().map(|e| e.code()), expected, "update, {retention:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lim_18_expiration_is_at_least_a_day_and_an_explicit_retention() {
    let (google, embedded) = (World::google().await, World::new().await);
    let new = SubscriptionConfig::new;
    let good = [
        new().expiration(Expiration::After(DAY)),
        new().expiration(Expiration::After(3 * DAY)).retention(3 * DAY),
        new().expiration(Expiration::Never).retention(31 * DAY),
    ];
    let bad = [
        new().expiration(Expiration::After(DAY - MILLI)),
        new().expiration(Expiration::After(3 * DAY)).retention(3 * DAY + MILLI),
    ];
    // LIM-18, EXP-1, ERR-11
    both_sides(&google.topic, good, bad).await;
    // D10: any positive expiry.
    let good = [
        new().expiration(Expiration::After(MILLI)),
        new().expiration(Expiration::After(HOUR)).retention(2 * HOUR),
    ];
    let bad = [new().expiration(Expiration::After(Duration::ZERO))];
    both_sides(&embedded.topic, good, bad).await;
}

#[tokio::test(start_paused = true)]
async fn lim_21_a_filter_has_at_most_256_bytes_in_google_and_4096_in_embedded() {
    let (google, embedded) = (World::google().await, World::new().await);
    let text = |bytes: usize| format!("attributes.k = \"{}\"", "v".repeat(bytes - 17));
    let mut any_length = ParseLimits::EMBEDDED;
    any_length.max_bytes = 10_000;
    let with = |bytes| {
        let filter = Filter::parse_with(&text(bytes), any_length).unwrap();
        assert_eq!(filter.source().len(), bytes);
        SubscriptionConfig::new().filter(filter)
    };
    // LIM-21, D10: the parser is strict always; a longer filter needs limits of its own.
    assert!(Filter::parse(&text(256)).is_ok());
    assert!(Filter::parse(&text(257)).is_err());
    assert!(Filter::parse_with(&text(4_096), ParseLimits::EMBEDDED).is_ok());
    assert!(Filter::parse_with(&text(4_097), ParseLimits::EMBEDDED).is_err());
    both_sides(&google.topic, [256].map(with), [257, 4_096].map(with)).await;
    both_sides(&embedded.topic, [257, 4_096].map(with), [4_097].map(with)).await;
}

#[tokio::test(start_paused = true)]
async fn lim_23_and_24_caps_are_off_by_default_and_can_be_set() {
    let mut limits = Limits::google();
    assert_eq!((limits.topics, limits.subscriptions), (None, None)); // LIM-27
    assert_eq!(limits.subscriptions_per_topic, None);
    limits.topics = Some(2);
    limits.subscriptions = Some(3);
    limits.subscriptions_per_topic = Some(2);
    let (_clock, bus) = manual_bus(limits);
    let first = bus.create_topic("first", TopicConfig::new()).await.unwrap();
    let second = bus.create_topic("second", TopicConfig::new()).await.unwrap();
    let third = bus.create_topic("third", TopicConfig::new()).await;
    assert_eq!(third.unwrap_err().code(), Code::ResourceExhausted); // LIM-23
    for name in ["one", "two"] {
        first.subscribe(name, SubscriptionConfig::new()).await.unwrap();
    }
    let crowded = first.subscribe("three", SubscriptionConfig::new()).await;
    assert_eq!(crowded.unwrap_err().code(), Code::ResourceExhausted); // LIM-24
    second.subscribe("three", SubscriptionConfig::new()).await.unwrap();
    let full = second.subscribe("four", SubscriptionConfig::new()).await;
    assert_eq!(full.unwrap_err().code(), Code::ResourceExhausted); // LIM-23
    // What is deleted makes room; what was refused left nothing behind.
    bus.delete_subscription("one").await.unwrap();
    first.subscribe("four", SubscriptionConfig::new()).await.unwrap();
    second.delete().await.unwrap();
    bus.create_topic("third", TopicConfig::new()).await.unwrap();
    assert_eq!((bus.topics().len(), bus.subscriptions().len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn lim_27_the_size_of_a_message_counts_data_attributes_and_key() {
    let message = Message::new("12345")
        .with_attribute("key", "value")
        .with_attribute("é", "")
        .with_ordering_key("order");
    let data_attributes_key = 5 + (3 + 5) + 2 + 5;
    // LIM-27: plus the id and 8 bytes of time, which only a published message has.
    let more = message.size() - data_attributes_key;
    assert!((0..=28).contains(&more), "{}", message.size());
    assert_eq!(Message::new("").size(), more);
}

#[tokio::test(start_paused = true)]
async fn pull_06_a_pull_is_bounded_by_the_caller_only() {
    // PULL-6 and LIM-15: no cap of the library's own, also above one lock hold's work (L6).
    let w = World::new().await;
    w.topic.publish_many((0..10_000).map(|_| Message::new("x"))).await.unwrap();
    assert_eq!(take(&w.worker, 10_000).len(), 10_000);
    let google = World::google().await;
    for _ in 0..2 {
        google.topic.publish_many((0..1_000).map(|_| Message::new("x"))).await.unwrap();
    }
    // LIM-15: the service caps at 1,000, also when more are asked for.
    assert_eq!(take(&google.worker, 1_500).len(), 1_000);
}

/// Every good configuration makes a subscription that reports it, no bad one leaves a trace.
async fn both_sides<const G: usize, const B: usize>(
    topic: &Topic,
    good: [SubscriptionConfig; G],
    bad: [SubscriptionConfig; B],
) {
    for (i, config) in good.into_iter().enumerate() {
        let made = topic.subscribe(&format!("good{i}"), config.clone()).await.unwrap();
        assert_eq!(made.config().ack_deadline, config.ack_deadline);
        made.delete().await.unwrap();
    }
    let before = topic.subscriptions().len();
    for config in bad {
        let shown = format!("{config:?}");
        let error = topic.subscribe("bad", config).await.expect_err(&shown);
        assert_eq!(error.code(), Code::InvalidArgument, "{shown}");
    }
    assert_eq!(topic.subscriptions().len(), before);
}

async fn update_code(subscription: &Subscription, deadline: Duration) -> Option<Code> {
    subscription.update(ack_deadline(deadline)).await.err().map(|error| error.code())
}

#[test]
fn the_default_preset_is_embedded() {
    // D10
    assert_eq!(Limits::default(), Limits::embedded());
    assert_ne!(Limits::default(), Limits::google());
}
