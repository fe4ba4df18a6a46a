//! Bad input never panics: it is answered with a typed error that has the code of the error table
//! (section 17 of the specification) and names the offending value.
//!
//! Ranges of both presets are tried in `semantics/limits.rs`; here it is what the error says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Display;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, SystemTime};

use siftbus::filter::Filter;
use siftbus::{
    AckId, Bus, Clock, Code, Delivery, Expiration, FlowControl, Limits, ManualClock, Message,
    MessageId, OidcToken, PublishError, PushConfig, PushOptions, Requester, Subscription,
    SubscriptionConfig, SubscriptionUpdate, Topic, TopicConfig, TopicUpdate,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct World {
    clock: ManualClock,
    bus: Bus,
    topic: Topic,
    worker: Subscription,
}

async fn world(limits: Limits) -> World {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).limits(limits).build();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    World { clock, bus, topic, worker }
}

/// The error has this code and its text names one of these values.
#[track_caller]
fn says(error: impl Display, code: Code, expected: Code, names: &[&str]) {
    let text = error.to_string();
    assert_eq!(code, expected, "{text}");
    assert!(names.iter().any(|name| text.contains(name)), "{text:?} names none of {names:?}");
    assert!(text.len() < 2_000, "an error text of {} bytes", text.len());
}

macro_rules! says {
    ($result:expr, $code:ident, $($name:expr),+) => {{
        let error = $result.expect_err("bad input");
        says(&error, error.code(), Code::$code, &[$($name),+]);
        error
    }};
}

fn take_one(subscription: &Subscription) -> Delivery {
    subscription.try_pull(1).unwrap().into_iter().next().expect("a message is ready")
}

#[tokio::test(start_paused = true)]
async fn bad_pushes_are_named() {
    let w = world(Limits::embedded()).await;
    let push = |config: PushConfig| SubscriptionUpdate::new().push_config(Some(config));
    let long = format!("http://host:{}/", "9".repeat(1_000));
    for url in ["nope", "ftp://host/", "http://", "https://a b/", &long] {
        says!(w.worker.update(push(PushConfig::new(url))).await, InvalidArgument, url); // ERR-16
    }
    let good = PushConfig::new("http://127.0.0.1:1/");
    let other = good.clone().attribute("x-goog-version", "v3");
    says!(w.worker.update(push(other)).await, InvalidArgument, "v3"); // PUSH-3
    let old = good.clone().attribute("x-goog-version", "v1beta1");
    says!(w.worker.update(push(old)).await, Unimplemented, "v1beta1"); // PUSH-3
    let nobody = good.clone().oidc_token(OidcToken::new(""));
    says!(w.worker.update(push(nobody)).await, InvalidArgument, "service_account_email"); // PUSH-15
    let exact = push(good.clone()).exactly_once_delivery(true);
    says!(w.worker.update(exact).await, InvalidArgument, "exactly-once"); // ERR-17
    says!(w.worker.update(push(good)).await, FailedPrecondition, "worker"); // LIB-420
    assert_eq!(w.worker.config().push_config, None, "LIB-420: nothing is stored");
    for max in [0, 3_001] {
        let options = PushOptions::new().max_window(max);
        let refused = w.worker.push_with(|_| async { Ok(()) }, options);
        says!(refused, InvalidArgument, "max_window"); // PUSH-23
    }
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn bad_endpoints_and_certificates_are_named() {
    let w = world(Limits::embedded()).await;
    for url in ["nope", "ftp://host/", "http://", "https://a b/"] {
        says!(siftbus::HttpEndpoint::new(&w.worker, url), InvalidArgument, url); // PUSH-2
    }
    says!(siftbus::HttpClient::trusting(b"nothing"), InvalidArgument, "certificate"); // LIB-423
}

#[tokio::test(start_paused = true)]
async fn bad_names_are_named() {
    let w = world(Limits::embedded()).await;
    let long = "n".repeat(1_025);
    let head = &long[..20];
    let huge = "n".repeat(5_000_000);
    let cases: [(&str, &[&str]); 4] = [
        ("bell\u{7}", &["bell"]),
        (&long, &[head, "1025", "1,025"]),
        (&huge, &[head, "5000000", "5,000,000"]),
        ("", &["name"]),
    ];
    for (bad, names) in cases {
        // ERR-1
        let topic = w.bus.create_topic(bad, TopicConfig::new()).await.unwrap_err();
        says(&topic, topic.code(), Code::InvalidArgument, names);
        let subscription = w.topic.subscribe(bad, SubscriptionConfig::new()).await.unwrap_err();
        says(&subscription, subscription.code(), Code::InvalidArgument, names);
        let look_up = w.bus.topic(bad).await.unwrap_err();
        says(&look_up, look_up.code(), Code::InvalidArgument, names);
    }
}

#[tokio::test(start_paused = true)]
async fn absent_and_taken_names_are_named() {
    let w = world(Limits::embedded()).await;
    // ERR-2
    says!(w.bus.create_topic("orders", TopicConfig::new()).await, AlreadyExists, "orders");
    says!(w.topic.subscribe("worker", SubscriptionConfig::new()).await, AlreadyExists, "worker");
    // ERR-3, ERR-7
    says!(w.bus.topic("ghost").await, NotFound, "ghost");
    says!(w.bus.subscription("ghost").await, NotFound, "ghost");
    says!(w.bus.delete_topic("ghost").await, NotFound, "ghost");
    says!(w.bus.delete_subscription("ghost").await, NotFound, "ghost");
    let config = SubscriptionConfig::new();
    says!(w.bus.create_subscription("new", "ghost", config.clone()).await, NotFound, "ghost");
    let literal = w.bus.create_subscription("new", "_deleted-topic_", config).await;
    says!(literal, InvalidArgument, "_deleted-topic_"); // RES-9
}

#[tokio::test(start_paused = true)]
async fn settings_out_of_range_are_named_with_their_range() {
    let w = world(Limits::google()).await;
    let new = SubscriptionConfig::new;
    let subscribe = |config| w.topic.subscribe("new", config);
    // ERR-8, ERR-9, ERR-10, ERR-11
    says!(subscribe(new().ack_deadline(9 * SECOND)).await, InvalidArgument, "9s");
    says!(subscribe(new().ack_deadline(601 * SECOND)).await, InvalidArgument, "601s");
    says!(subscribe(new().retention(599 * SECOND)).await, InvalidArgument, "599s");
    says!(subscribe(new().retention(Duration::MAX)).await, InvalidArgument, "18446744073709551615");
    let short = new().expiration(Expiration::After(3_600 * SECOND));
    says!(subscribe(short).await, InvalidArgument, "3600s");
    let below_retention = new().expiration(Expiration::After(2 * DAY)).retention(3 * DAY);
    says!(subscribe(below_retention).await, InvalidArgument, "172800s", "259200s");
    // ERR-4, ERR-6
    let topic = TopicConfig::new().retention(7 * SECOND);
    says!(w.bus.create_topic("new", topic).await, InvalidArgument, "7s");
    says!(
        w.topic.update(TopicUpdate::new().retention(Some(7 * SECOND))).await,
        InvalidArgument,
        "7s"
    );
    let label = TopicConfig::new().label("BadKey", "v");
    says!(w.bus.create_topic("new", label).await, InvalidArgument, "BadKey");
    let update = SubscriptionUpdate::new().ack_deadline(3 * SECOND);
    says!(w.worker.update(update).await, InvalidArgument, "3s");
    // All or nothing: a good field beside a bad one is not applied (UPD-2).
    let update = SubscriptionUpdate::new().ack_deadline(60 * SECOND).retention(SECOND);
    says!(w.worker.update(update).await, InvalidArgument, "1s");
    assert_eq!(w.worker.config().ack_deadline, 10 * SECOND);
    assert_eq!((w.bus.topics().len(), w.bus.subscriptions().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_wrong_or_too_long_is_named() {
    let long = format!("attributes:{}", "k".repeat(300));
    let error = Filter::parse(&long).unwrap_err().to_string();
    assert!(error.contains("256"), "{error}"); // ERR-12, LIM-21
    let error = Filter::parse("attributes.k = unquoted").unwrap_err();
    assert!(format!("{error:#}").contains("unquoted"), "{error:#}");
    let w = world(Limits::google()).await;
    let limits = siftbus::filter::ParseLimits::EMBEDDED;
    let filter = Filter::parse_with(&long, limits).unwrap();
    let refused = w.topic.subscribe("new", SubscriptionConfig::new().filter(filter)).await;
    says!(refused, InvalidArgument, "311");
}

#[tokio::test(start_paused = true)]
async fn a_refused_publish_names_the_problem_and_hands_all_messages_back() {
    let w = world(Limits::google()).await;
    let good = || Message::new("good");
    let long = "v".repeat(1_025);
    let cases: [(Message, &[&str]); 8] = [
        (Message::new(""), &["data", "empty"]),
        (good().with_attribute("googkey", "v"), &["googkey"]),
        (good().with_attribute("", "v"), &["key"]),
        (good().with_attribute("k".repeat(257), "v"), &["kkk", "257"]),
        (good().with_attribute("thekey", &long), &["thekey"]),
        (good().with_ordering_key(&long), &["1025"]),
        (good().with_attributes((0..101).map(|i| (i.to_string(), "v"))), &["101"]),
        (Message::new(vec![0; 10_485_761]), &["10485761"]),
    ];
    for (bad, names) in cases {
        let batch = vec![good(), bad.clone(), good()];
        // ERR-21, ERR-22, ERR-23; D16
        let errors: [(PublishError, Vec<Message>); 4] = [
            (w.topic.publish(bad.clone()).await.unwrap_err(), vec![bad.clone()]),
            (w.topic.try_publish(bad.clone()).unwrap_err(), vec![bad]),
            (w.topic.publish_many(batch.clone()).await.unwrap_err(), batch.clone()),
            (w.topic.try_publish_many(batch.clone()).unwrap_err(), batch),
        ];
        for (error, messages) in errors {
            says(&error, error.code(), Code::InvalidArgument, names);
            assert_eq!(error.reason().code(), Code::InvalidArgument);
            assert_eq!(error.into_messages(), messages);
        }
    }
    let mixed = [good().with_ordering_key("left"), good().with_ordering_key("right")];
    let error = says!(w.topic.publish_many(mixed.clone()).await, InvalidArgument, "left", "right");
    assert_eq!(error.into_messages(), mixed);
    let many = vec![good(); 1_001];
    let error = says!(w.topic.publish_many(many).await, InvalidArgument, "1001");
    assert_eq!(error.into_messages().len(), 1_001);
    says!(w.topic.publish_many(Vec::<Message>::new()).await, InvalidArgument, "0 messages");
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn zero_limits_are_refused() {
    let w = world(Limits::embedded()).await;
    // ERR-24, PULL-5
    says!(w.worker.pull(0).await, InvalidArgument, "0");
    says!(w.worker.try_pull(0), InvalidArgument, "0");
    says!(w.worker.batches(0, FlowControl::new()), InvalidArgument, "0");
    let flow = FlowControl::new().ack_deadline(Duration::ZERO);
    says!(w.worker.stream(flow), InvalidArgument, "0ns", "0s");
    let none = SubscriptionConfig::new().ack_deadline(Duration::ZERO);
    says!(w.topic.subscribe("new", none).await, InvalidArgument, "0ns", "0s");
    let none = SubscriptionConfig::new().retention(Duration::ZERO);
    says!(w.topic.subscribe("new", none).await, InvalidArgument, "0ns", "0s");
    let none = SubscriptionConfig::new().expiration(Expiration::After(Duration::ZERO));
    says!(w.topic.subscribe("new", none).await, InvalidArgument, "0ns", "0s");
    let none = TopicConfig::new().retention(Duration::ZERO);
    says!(w.bus.create_topic("new", none).await, InvalidArgument, "0ns", "0s");
}

#[tokio::test(start_paused = true)]
async fn bad_ack_ids_are_named() {
    let w = world(Limits::embedded()).await;
    for bad in ["garbage", "12345", "projects/p/subscriptions/s:1"] {
        // ERR-27, ACK-3
        let error = bad.parse::<AckId>().unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains(bad), "{error}");
    }
    assert!("".parse::<AckId>().is_err());
    let huge = "f".repeat(5_000_000).parse::<AckId>().unwrap_err();
    assert!(huge.to_string().len() < 2_000);
    assert!("one".parse::<MessageId>().is_err());

    let other = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    w.topic.publish("a").await.unwrap();
    let foreign = take_one(&other).into_ack_id();
    let text = foreign.to_string();
    let ids = [foreign];
    says!(w.worker.acknowledge(&ids).await, InvalidArgument, &text);
    says!(w.worker.modify_ack_deadline(&ids, SECOND).await, InvalidArgument, &text);
    says!(w.worker.acknowledge(&[]).await, InvalidArgument, "no ack ids");

    // An id of another bus is foreign or stale, but never takes effect.
    let elsewhere = world(Limits::embedded()).await;
    elsewhere.topic.publish("b").await.unwrap();
    let ids = [take_one(&elsewhere.worker).into_ack_id()];
    take_one(&w.worker).into_ack_id();
    if let Err(error) = w.worker.acknowledge(&ids).await {
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    assert_eq!(w.worker.stats().outstanding, 1);
}

#[tokio::test(start_paused = true)]
async fn deadlines_out_of_range_are_named_and_change_nothing() {
    let w = world(Limits::google()).await;
    w.topic.publish("a").await.unwrap();
    let delivery = take_one(&w.worker);
    // ERR-31
    says!(delivery.set_deadline(601 * SECOND).outcome(), InvalidArgument, "601s");
    let ids = [delivery.ack_id()];
    says!(w.worker.modify_ack_deadline(&ids, 602 * SECOND).await, InvalidArgument, "602s");
    assert_eq!(w.worker.stats().outstanding, 1);
    let flow = FlowControl::new().ack_deadline(603 * SECOND);
    says!(w.worker.stream(flow), InvalidArgument, "603s"); // ERR-32
    assert!(delivery.ack().outcome().is_ok());
}

#[tokio::test(start_paused = true)]
async fn durations_beyond_all_time_neither_panic_nor_wrap() {
    let w = world(Limits::embedded()).await;
    let config = SubscriptionConfig::new()
        .ack_deadline(Duration::MAX)
        .retention(Duration::MAX)
        .expiration(Expiration::After(Duration::MAX));
    let forever = w.topic.subscribe("forever", config).await.unwrap();
    w.topic.publish_many(["a", "b", "c"]).await.unwrap();
    let delivery = take_one(&forever);
    assert!(delivery.set_deadline(Duration::MAX).outcome().is_ok());
    take_one(&forever).nack_after(Duration::MAX).outcome().unwrap();
    take_one(&forever).into_ack_id();
    w.clock.advance(100 * 365 * DAY);
    let stats = forever.stats();
    assert_eq!((stats.backlog, stats.outstanding, stats.delayed), (3, 2, 1));
    let keeps = TopicConfig::new().retention(Duration::MAX);
    let keeps = w.bus.create_topic("keeps", keeps).await.unwrap();
    keeps.publish("a").await.unwrap();
    w.clock.advance(100 * 365 * DAY);
    assert_eq!(keeps.stats().retained_messages, 1);
}

#[test]
fn a_manual_clock_takes_any_duration() {
    let (done, wait) = std::sync::mpsc::channel();
    let case = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let w = runtime.block_on(world(Limits::embedded()));
        let before = w.clock.now();
        w.clock.advance(Duration::MAX);
        assert!(w.clock.now() >= before);
        w.clock.advance(1_000 * 365 * DAY);
        w.clock.advance_to(SystemTime::UNIX_EPOCH);
        assert!(w.clock.now() >= before, "a time that has passed does nothing");
        assert_eq!(w.bus.now(), w.clock.now());
        w.topic.try_publish("far away").unwrap();
        done.send(()).unwrap();
    });
    // A clock that never arrives would hang for ever.
    let timed_out = wait.recv_timeout(10 * SECOND) == Err(RecvTimeoutError::Timeout);
    assert!(!timed_out, "the clock did not arrive");
    case.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn sleeps_and_timeouts_take_any_duration() {
    let bus = Bus::new();
    assert!(bus.timeout(SECOND, bus.sleep(Duration::MAX)).await.is_err());
    assert!(bus.timeout(Duration::MAX, bus.sleep(SECOND)).await.is_ok());
    assert!(bus.timeout(Duration::ZERO, std::future::pending::<()>()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_a_publish_may_not_ask_for_is_named() {
    let mut limits = Limits::google();
    limits.deduplication_keys = 1;
    limits.deduplication_window = SECOND..=DAY;
    let w = world(limits).await;
    // A delay beyond the retention, or the longest retention (LIB-376).
    let error = says!(w.topic.publish_after("x", 32 * DAY).await, InvalidArgument, "2764800s");
    assert_eq!(error.into_messages(), [Message::from("x")]);
    let hour = Duration::from_secs(3_600);
    w.topic.update(TopicUpdate::new().retention(Some(hour))).await.unwrap();
    says!(w.topic.try_publish_after("x", 2 * hour), InvalidArgument, "3600s");
    let time = w.bus.now() + 2 * hour;
    says!(w.topic.publish_at("x", time).await, InvalidArgument, "3600s");
    says!(w.topic.try_publish_at("x", time), InvalidArgument, "7200s");
    let bad = Message::new("x").with_attribute("googkey", "v");
    says!(w.topic.publish_after(bad, SECOND).await, InvalidArgument, "googkey");
    // Keys and windows (LIB-380 … LIB-382).
    let long = Message::new("x").with_idempotency_key("k".repeat(1_025));
    says!(w.topic.publish(long.clone()).await, InvalidArgument, "1025");
    says!(w.topic.publish_after(long, SECOND).await, InvalidArgument, "1025");
    let window = |window| TopicUpdate::new().deduplication_window(Some(window));
    says!(w.topic.update(window(SECOND / 2)).await, InvalidArgument, "500ms");
    let config = TopicConfig::new().deduplication_window(2 * DAY);
    says!(w.bus.create_topic("new", config).await, InvalidArgument, "172800s");
    w.topic.update(window(SECOND)).await.unwrap();
    let keyed = |key: &str| Message::new("x").with_idempotency_key(key);
    w.topic.publish(keyed("a")).await.unwrap();
    let error = says!(w.topic.publish(keyed("b")).await, ResourceExhausted, "orders");
    assert_eq!(error.into_messages(), [keyed("b")]);
    says!(w.topic.publish_after(keyed("b"), SECOND).await, ResourceExhausted, "orders");
    assert_eq!((w.worker.stats().backlog, w.topic.stats().delayed), (1, 0));
    w.topic.delete().await.unwrap();
    says!(w.topic.publish_after("x", SECOND).await, NotFound, "orders");
    says!(w.topic.try_publish_after("x", SECOND), NotFound, "orders");
    assert_eq!(w.topic.withdraw("1".parse().unwrap()), None);
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_that_is_not_allowed_is_named() {
    let mut limits = Limits::google();
    limits.message_ttl = SECOND..=DAY;
    let w = world(limits).await;
    for (ttl, name) in [(Duration::ZERO, "0ns"), (DAY + SECOND, "86401s")] {
        let bad = Message::new("x").with_ttl(ttl);
        let error = says!(w.topic.publish(bad.clone()).await, InvalidArgument, name); // LIB-370
        assert_eq!(error.into_messages().first(), Some(&bad));
        says!(w.topic.publish_many([Message::new("good"), bad]).await, InvalidArgument, name);
    }
    assert_eq!(w.worker.stats().backlog, 0, "PUB-2");
}

#[tokio::test(start_paused = true)]
async fn existence_is_checked_before_the_fields() {
    // Section 17: request shape, name grammar, existence, field limits, state.
    let w = world(Limits::google()).await;
    w.topic.publish("a").await.unwrap();
    let delivery = take_one(&w.worker);
    w.topic.delete().await.unwrap();
    w.worker.delete().await.unwrap();
    let bad = Message::new("x").with_attribute("googkey", "v");
    says!(w.topic.publish(bad).await, NotFound, "orders");
    says!(w.topic.update(TopicUpdate::new().retention(Some(SECOND))).await, NotFound, "orders");
    let update = SubscriptionUpdate::new().ack_deadline(SECOND);
    says!(w.worker.update(update).await, NotFound, "worker");
    let config = SubscriptionConfig::new().ack_deadline(SECOND);
    says!(w.bus.create_subscription("new-one", "ghost", config).await, NotFound, "ghost");
    says!(delivery.set_deadline(DAY).outcome(), NotFound, "worker");
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_or_has_expired_is_named() {
    for expired in [false, true] {
        let w = world(Limits::embedded()).await;
        w.topic.publish("a").await.unwrap();
        let delivery = take_one(&w.worker);
        let ids = [delivery.ack_id()];
        if expired {
            w.clock.advance(31 * DAY); // EXP-4
        } else {
            w.worker.delete().await.unwrap();
        }
        // ERR-3, ERR-35
        says!(w.worker.pull(1).await, NotFound, "worker");
        says!(w.worker.try_pull(1), NotFound, "worker");
        says!(w.worker.stream(FlowControl::new()), NotFound, "worker");
        says!(w.worker.batches(1, FlowControl::new()), NotFound, "worker");
        says!(w.worker.acknowledge(&ids).await, NotFound, "worker");
        says!(w.worker.modify_ack_deadline(&ids, SECOND).await, NotFound, "worker");
        says!(w.worker.update(SubscriptionUpdate::new()).await, NotFound, "worker");
        says!(w.worker.delete().await, NotFound, "worker");
        says!(delivery.set_deadline(SECOND).outcome(), NotFound, "worker");
        says!(delivery.ack().outcome(), NotFound, "worker");
        // What only looks does not fail.
        assert_eq!(w.worker.name(), "worker");
        assert_eq!(w.worker.stats().backlog, 0);
        assert_eq!(w.worker.config().ack_deadline, 10 * SECOND);
    }
    let w = world(Limits::embedded()).await;
    w.topic.delete().await.unwrap();
    let error = says!(w.topic.publish("a").await, NotFound, "orders");
    assert_eq!(error.into_messages(), [Message::from("a")]);
    says!(w.topic.subscribe("new", SubscriptionConfig::new()).await, NotFound, "orders");
    says!(w.topic.update(TopicUpdate::new()).await, NotFound, "orders");
    says!(w.topic.delete().await, NotFound, "orders");
    assert!(w.topic.subscriptions().is_empty());
    assert_eq!(w.topic.stats().subscriptions, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_nobody_can_answer_fails_with_a_type() {
    let w = world(Limits::embedded()).await;
    for name in ["requests", "replies"] {
        w.bus.create_topic(name, TopicConfig::new()).await.unwrap();
    }
    let requester = Requester::new(&w.bus, "requests", "replies").await.unwrap();
    w.bus.create_subscription("server", "requests", SubscriptionConfig::new()).await.unwrap();
    let clock = w.clock.clone();
    let (asked, ()) = tokio::join!(requester.request("anybody?", SECOND), async {
        tokio::task::yield_now().await;
        clock.advance_settled(2 * SECOND).await;
    });
    says!(asked, DeadlineExceeded, "1s");
    // A message that is no request cannot be replied to.
    w.topic.publish("no request").await.unwrap();
    let delivery = take_one(&w.worker);
    assert!(siftbus::reply(&w.bus, &delivery, "x").await.is_err());
    // What the bus refuses is refused here too.
    let bad = Message::new("x").with_attribute("googkey", "v");
    says!(requester.request(bad, SECOND).await, InvalidArgument, "googkey");
    w.bus.delete_topic("requests").await.unwrap();
    says!(requester.request("x", SECOND).await, NotFound, "requests");
}
