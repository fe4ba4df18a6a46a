//! Section 13.3: snapshots (SNP), and their end (EXP-7).

use std::collections::BTreeMap;

use siftbus::{
    Code, Event, Filter, Limits, Message, Outcome, SeekTarget, SnapshotUpdate, SubscriptionConfig,
    TopicConfig,
};

use crate::support::{
    DAY, HOUR, MILLI, MINUTE, SECOND, World, drain, manual_bus, nothing_ready, take, take_one,
};

#[tokio::test(start_paused = true)]
async fn snp_01_keeps_what_is_unacked_and_everything_that_follows() {
    let w = World::new().await;
    w.publish(&["acked", "leased", "nacked", "fresh"]).await;
    take_one(&w.worker).ack().await.unwrap();
    let leased = take_one(&w.worker);
    take_one(&w.worker).nack().await.unwrap();
    let snapshot = w.worker.create_snapshot("s").await.unwrap();
    leased.ack().await.unwrap();
    w.publish(&["later"]).await;
    assert_eq!(drain(&w.worker), ["nacked", "fresh", "later"]);
    assert!(w.topic.stats().retained_messages >= 4); // SNP-1
    // SNP-5: unacked then or published since; and it can be done again.
    for _ in 0..2 {
        w.worker.seek(&snapshot).await.unwrap();
        assert_eq!(w.worker.stats().backlog, 4);
        assert_eq!(drain(&w.worker), ["leased", "nacked", "fresh", "later"]);
    }
    w.clock.advance(MINUTE);
    w.worker.seek(w.clock.now() - HOUR).await.unwrap();
    assert!(nothing_ready(&w.worker), "SEEK-3: a seek to a time does not see a snapshot");
}

#[tokio::test(start_paused = true)]
async fn snp_03_expires_seven_days_after_the_oldest_unacked_message() {
    let w = World::new().await;
    let empty = w.worker.create_snapshot("empty").await.unwrap();
    assert_eq!(empty.expire_time(), w.clock.now() + 7 * DAY); // SNP-3
    w.publish(&["old", "young"]).await;
    let published = w.clock.now();
    w.clock.advance(DAY);
    let full = w.worker.create_snapshot("full").await.unwrap();
    assert_eq!(full.expire_time(), published + 7 * DAY); // SNP-3, LIM-22
}

#[tokio::test(start_paused = true)]
async fn snp_04_is_refused_when_less_than_an_hour_would_be_left() {
    let w = World::with(SubscriptionConfig::new().retention(30 * DAY)).await;
    w.publish(&["old"]).await;
    w.clock.advance(7 * DAY - HOUR);
    w.worker.create_snapshot("just").await.unwrap(); // LIM-22
    w.clock.advance(MILLI);
    let refused = w.worker.create_snapshot("late").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition); // SNP-4, ERR-39, LIM-22
    assert!(w.bus.snapshot("late").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn snp_06_every_subscription_of_the_topic_can_use_it() {
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    take_one(&w.worker).ack().await.unwrap();
    let snapshot = w.worker.create_snapshot("s").await.unwrap();
    let other = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    drain(&w.worker);
    w.publish(&["d"]).await;
    other.seek(&snapshot).await.unwrap();
    assert_eq!(drain(&other), ["b", "c", "d"]); // SNP-6
    other.seek(SeekTarget::SnapshotNamed("s".to_owned())).await.unwrap();
    assert_eq!(drain(&other), ["b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn snp_07_survives_its_subscription_and_its_topic() {
    let w = World::new().await;
    let other = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    w.publish(&["a", "b"]).await;
    let snapshot = w.worker.create_snapshot("s").await.unwrap();
    w.worker.delete().await.unwrap();
    drain(&other);
    assert_eq!(w.topic.stats().retained_messages, 2);
    w.topic.delete().await.unwrap();
    assert_eq!(snapshot.topic_name(), "orders", "SNP-2");
    other.seek(&snapshot).await.unwrap(); // SNP-7, SEEK-16
    assert_eq!(drain(&other), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn snp_08_names_are_taken_once_and_labels_are_kept() {
    let w = World::google().await;
    let labels = BTreeMap::from([("team".to_owned(), "billing".to_owned())]);
    let made = w.worker.create_snapshot_labeled("snap", labels.clone()).await.unwrap();
    assert_eq!(made.labels(), labels); // SNP-8
    let taken = w.worker.create_snapshot("snap").await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists); // SNP-8, RES-7
    assert_eq!(w.worker.create_snapshot("s").await.unwrap_err().code(), Code::InvalidArgument);
    let bad = BTreeMap::from([("Team".to_owned(), String::new())]);
    let bad = w.worker.create_snapshot_labeled("other", bad).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument); // RES-18
    assert_eq!(w.topic.snapshots().len(), 1); // LST-6
    assert_eq!(w.bus.snapshots()[0].name(), "snap"); // LST-1
    made.delete().await.unwrap();
    assert_eq!(made.delete().await.unwrap_err().code(), Code::NotFound); // SNP-8
    assert_eq!(w.worker.seek(&made).await.unwrap_err().code(), Code::NotFound); // SEEK-8
    w.worker.delete().await.unwrap();
    assert_eq!(w.worker.create_snapshot("snap").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn snp_09_labels_change_and_life_can_only_be_shortened() {
    let w = World::new().await;
    let snapshot = w.worker.create_snapshot("s").await.unwrap();
    let (now, end) = (w.clock.now(), snapshot.expire_time());
    for bad in [now, now - SECOND, end + MILLI] {
        let refused = snapshot.update(SnapshotUpdate::new().expire_time(bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument); // SNP-9
    }
    let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let update = SnapshotUpdate::new().expire_time(now + HOUR).labels(labels.clone());
    snapshot.update(update).await.unwrap();
    assert_eq!((snapshot.expire_time(), snapshot.labels()), (now + HOUR, labels)); // SNP-9
    w.clock.advance(HOUR);
    let gone = snapshot.update(SnapshotUpdate::new()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn snp_10_goes_at_its_end_with_the_messages_that_only_it_kept() {
    let w = World::new().await;
    let mut events = w.bus.events();
    w.publish(&["a"]).await;
    let snapshot = w.worker.create_snapshot("s").await.unwrap();
    drain(&w.worker);
    w.clock.advance(7 * DAY - MILLI);
    assert_eq!(w.topic.stats().retained_messages, 1);
    assert!(w.bus.snapshot("s").await.is_ok());
    w.clock.advance(MILLI);
    // SNP-10, EXP-7
    assert_eq!(w.bus.snapshot("s").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.topic.stats().retained_messages, 0);
    assert_eq!(w.worker.seek(&snapshot).await.unwrap_err().code(), Code::NotFound);
    let told = std::iter::from_fn(|| events.try_next()).any(|event| {
        event == Event::SnapshotExpired { snapshot: "s".into(), topic: "orders".into() }
    });
    assert!(told, "EXP-8");
}

#[tokio::test(start_paused = true)]
async fn snp_11_both_filters_count() {
    let w = World::new().await;
    let with = |text: &'static str, a: &str, b: &str| {
        Message::new(text).with_attributes([("a", a), ("b", b)])
    };
    let on = |key: &str| SubscriptionConfig::new().filter(Filter::eq(key, "1"));
    let first = w.topic.subscribe("first", on("a")).await.unwrap();
    let second = w.topic.subscribe("second", on("b")).await.unwrap();
    let four =
        [with("00", "0", "0"), with("01", "0", "1"), with("10", "1", "0"), with("11", "1", "1")];
    w.topic.publish_many(four.clone()).await.unwrap();
    let snapshot = first.create_snapshot("s").await.unwrap();
    for subscription in [&w.worker, &first, &second] {
        drain(subscription);
    }
    w.topic.publish_many(four).await.unwrap();
    // What the snapshot's filter kept out was acked there (FIL-2); what came since is not.
    w.worker.seek(&snapshot).await.unwrap();
    assert_eq!(drain(&w.worker), ["10", "11", "00", "01", "10", "11"]); // SNP-11, SNP-5
    second.seek(&snapshot).await.unwrap();
    assert_eq!(drain(&second), ["11", "01", "11"]); // SNP-11, SEEK-14
    first.seek(&snapshot).await.unwrap();
    assert_eq!(drain(&first), ["10", "11", "10", "11"]);
}

#[tokio::test(start_paused = true)]
async fn snp_12_a_snapshot_copies_nothing() {
    let w = World::new().await;
    w.topic.publish(Message::new(vec![1; 1_000])).await.unwrap();
    let before = w.topic.stats().retained_bytes;
    w.worker.create_snapshot("s").await.unwrap();
    let data = take_one(&w.worker).data().clone();
    assert_eq!(w.topic.stats().retained_bytes, before); // SNP-12
    w.worker.seek(SeekTarget::SnapshotNamed("s".to_owned())).await.unwrap();
    assert_eq!(take_one(&w.worker).data().as_ptr(), data.as_ptr()); // SNP-12, PUB-15
}

#[tokio::test(start_paused = true)]
async fn seek_09_a_snapshot_of_another_topic_is_refused() {
    let w = World::new().await;
    let snapshot = w.worker.create_snapshot("s").await.unwrap();
    let other = w.bus.create_topic("other", TopicConfig::new()).await.unwrap();
    let foreign = other.subscribe("foreign", SubscriptionConfig::new()).await.unwrap();
    let refused = foreign.seek(&snapshot).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition); // SEEK-9, ERR-37
    // RES-12: a topic made again is another.
    w.topic.delete().await.unwrap();
    let again = w.bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let again = again.subscribe("again", SubscriptionConfig::new()).await.unwrap();
    let refused = again.seek(&snapshot).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition); // SEEK-9
}

#[tokio::test(start_paused = true)]
async fn lim_23_24_the_number_of_snapshots_can_be_limited() {
    let mut limits = Limits::google();
    limits.snapshots = Some(2);
    limits.snapshots_per_topic = Some(1);
    let (_clock, bus) = manual_bus(limits);
    for name in ["one", "two", "three"] {
        let topic = bus.create_topic(name, TopicConfig::new()).await.unwrap();
        topic.subscribe(name, SubscriptionConfig::new()).await.unwrap();
    }
    let subscription = |name| bus.subscription(name);
    subscription("one").await.unwrap().create_snapshot("first").await.unwrap();
    let over = subscription("one").await.unwrap().create_snapshot("second").await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted); // LIM-24
    subscription("two").await.unwrap().create_snapshot("second").await.unwrap();
    let over = subscription("three").await.unwrap().create_snapshot("third").await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted); // LIM-23
}

#[tokio::test(start_paused = true)]
async fn res_14_a_detached_subscription_loses_its_messages_and_delivers_no_more() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    let held = take_one(&w.worker);
    let waiting_elsewhere = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    let waiting = waiting_elsewhere.clone();
    let waiting = tokio::spawn(async move { waiting.pull(1).await });
    tokio::task::yield_now().await;
    waiting_elsewhere.detach().await.unwrap();
    let ended = waiting.await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::FailedPrecondition); // PULL-9
    w.worker.detach().await.unwrap();
    assert!(w.worker.is_detached());
    assert_eq!(w.topic.stats().retained_messages, 0); // RES-14
    assert_eq!(w.worker.try_pull(1).unwrap_err().code(), Code::FailedPrecondition); // ERR-25
    let stream = w.worker.stream(siftbus::FlowControl::new()).unwrap_err();
    assert_eq!(stream.code(), Code::FailedPrecondition); // RES-14
    w.publish(&["c"]).await;
    assert_eq!(w.worker.stats().backlog, 0);
    assert_eq!(held.ack().await.unwrap(), Outcome::Stale); // RES-15
}

#[tokio::test(start_paused = true)]
async fn res_15_what_a_detached_subscription_still_does() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    w.publish(&["b"]).await;
    let id = take_one(&w.worker).into_ack_id();
    let held = take_one(&w.worker);
    w.worker.detach().await.unwrap();
    assert_eq!(held.reject().await.unwrap(), Outcome::Stale, "RES-15");
    // RES-15, each part of it; ERR-41.
    assert_eq!(w.worker.acknowledge(std::slice::from_ref(&id)).await.unwrap(), [Outcome::Stale]);
    assert_eq!(w.worker.modify_ack_deadline(&[id], SECOND).await.unwrap(), [Outcome::Stale]);
    assert_eq!(w.worker.seek(w.clock.now()).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(w.worker.purge().await.unwrap_err().code(), Code::FailedPrecondition);
    let refused = w.worker.create_snapshot("s").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    w.worker.detach().await.unwrap();
    assert!(w.topic.subscriptions().is_empty());
    assert_eq!(w.worker.topic_name(), "orders");
    assert_eq!(w.bus.subscription("worker").await.unwrap().name(), "worker");
    let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let update = siftbus::SubscriptionUpdate::new().labels(labels.clone());
    assert_eq!(w.worker.update(update).await.unwrap().labels, labels);
    w.worker.delete().await.unwrap();
    assert_eq!(w.worker.detach().await.unwrap_err().code(), Code::NotFound);
    w.topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn exp_06_detached_subscriptions_expire_by_the_same_rule() {
    let ttl = siftbus::Expiration::After(DAY);
    let w = World::with(SubscriptionConfig::new().expiration(ttl)).await;
    w.clock.advance(HOUR);
    w.worker.detach().await.unwrap();
    w.clock.advance(DAY - MILLI);
    assert!(w.bus.subscription("worker").await.is_ok());
    w.clock.advance(MILLI);
    assert!(w.bus.subscription("worker").await.is_err()); // EXP-6
}

#[tokio::test(start_paused = true)]
async fn snp_01_stragglers_far_behind_are_captured_and_nothing_else_is_kept() {
    let w = World::new().await;
    w.publish(&["stuck"]).await;
    let stuck = take_one(&w.worker);
    for _ in 0..20 {
        w.topic.publish_many((0..1_000).map(|_| "x")).await.unwrap();
        w.worker.try_pull(1_000).unwrap().ack_all();
    }
    let snapshot = w.worker.create_snapshot("s").await.unwrap();
    stuck.ack().await.unwrap();
    let kept = w.topic.stats().retained_messages;
    assert!(kept < 8_192, "{kept} kept for one message: L2");
    w.worker.seek(&snapshot).await.unwrap();
    w.publish(&["later"]).await;
    assert_eq!(drain(&w.worker), ["stuck", "later"]); // SNP-1, SNP-5
    assert_eq!(take(&w.worker, 1).len(), 0);
}
