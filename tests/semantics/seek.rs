//! Section 13.2: going to a time, and purging (SEEK); retained acknowledged messages (RET-3).

use siftbus::{
    Code, Filter, FlowControl, Limits, Message, Outcome, SubscriptionConfig, SubscriptionUpdate,
    TopicConfig, TopicUpdate,
};

use crate::support::{
    DAY, HOUR, MILLI, MINUTE, SECOND, World, drain, nothing_ready, poll_once, take, take_one, texts,
};

fn retaining() -> SubscriptionConfig {
    SubscriptionConfig::new().retain_acked(true)
}

/// Publishes one message a minute.
async fn publish_by_the_minute(w: &World, texts: &[&'static str]) {
    for text in texts {
        w.publish(&[text]).await;
        w.clock.advance(MINUTE);
    }
}

#[tokio::test(start_paused = true)]
async fn ret_03_acked_messages_stay_for_the_retention_and_count_in_storage_only() {
    let w = World::with(retaining().retention(HOUR)).await;
    w.publish(&["a", "b"]).await;
    assert_eq!(drain(&w.worker), ["a", "b"]);
    // RET-3
    assert_eq!((w.worker.stats().backlog, w.topic.stats().retained_messages), (0, 2));
    w.clock.advance(HOUR - MILLI);
    assert_eq!(w.topic.stats().retained_messages, 2);
    w.clock.advance(SECOND + MILLI);
    assert_eq!(w.topic.stats().retained_messages, 0);
}

#[tokio::test(start_paused = true)]
async fn ret_03_can_be_switched_off_which_frees_at_once() {
    let w = World::with(retaining()).await;
    w.publish(&["a"]).await;
    drain(&w.worker);
    assert_eq!(w.topic.stats().retained_messages, 1);
    let config = w.worker.update(SubscriptionUpdate::new().retain_acked(false)).await.unwrap();
    assert!(!config.retain_acked);
    assert_eq!(w.topic.stats().retained_messages, 0); // RET-3, RET-8
    w.worker.update(SubscriptionUpdate::new().retain_acked(true)).await.unwrap();
    w.publish(&["b"]).await;
    drain(&w.worker);
    assert_eq!(w.topic.stats().retained_messages, 1);
}

#[tokio::test(start_paused = true)]
async fn seek_02_what_is_older_is_acked_what_is_as_old_or_younger_is_not() {
    let w = World::with(retaining()).await;
    publish_by_the_minute(&w, &["a", "b", "c"]).await;
    let start = w.clock.now() - 3 * MINUTE;
    assert_eq!(drain(&w.worker), ["a", "b", "c"]);
    // SEEK-2: the boundary is unacked; a fraction of a millisecond after it is after it.
    w.worker.seek(start + MINUTE).await.unwrap();
    assert_eq!(drain(&w.worker), ["b", "c"]);
    w.worker.seek(start + MINUTE + std::time::Duration::from_nanos(1)).await.unwrap();
    assert_eq!(drain(&w.worker), ["c"]);
    // SEEK-6: before the window and before the epoch.
    w.worker.seek(std::time::SystemTime::UNIX_EPOCH - DAY).await.unwrap();
    assert_eq!(drain(&w.worker), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn seek_03_without_retention_only_what_is_unacked_comes_back() {
    let w = World::new().await;
    publish_by_the_minute(&w, &["a", "b", "c", "d"]).await;
    let start = w.clock.now() - 4 * MINUTE;
    let mut batch = take(&w.worker, 3);
    batch.remove(1).ack().await.unwrap();
    let held: Vec<_> = batch.into_iter().map(|delivery| delivery.into_ack_id()).collect();
    w.worker.seek(start).await.unwrap();
    assert_eq!(w.worker.stats().backlog, 3);
    // SEEK-3, SEEK-10: at once, under new ids; the old ones are stale.
    assert_eq!(w.worker.acknowledge(&held).await.unwrap(), [Outcome::Stale, Outcome::Stale]);
    assert_eq!(drain(&w.worker), ["a", "c", "d"]);
    w.worker.seek(start).await.unwrap();
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn seek_03_forward_over_running_leases_keeps_the_younger_ones() {
    let w = World::new().await;
    publish_by_the_minute(&w, &["a", "b", "c"]).await;
    let held = take(&w.worker, 2);
    w.worker.seek(w.clock.now() - 2 * MINUTE).await.unwrap();
    assert_eq!(w.worker.stats().outstanding, 0, "SEEK-10");
    assert_eq!(drain(&w.worker), ["b", "c"]);
    drop(held);
    assert!(nothing_ready(&w.worker), "LS-17: what was sought over stays acked");
}

#[tokio::test(start_paused = true)]
async fn seek_04_into_the_future_discards_what_comes_before_that_time() {
    let w = World::new().await;
    w.publish(&["before"]).await;
    w.worker.seek(w.clock.now() + HOUR).await.unwrap();
    assert_eq!(w.worker.stats().backlog, 0); // SEEK-4
    w.clock.advance(HOUR - MILLI);
    w.publish(&["early"]).await;
    assert!(nothing_ready(&w.worker)); // SEEK-4: acked on arrival
    assert_eq!(w.topic.stats().retained_messages, 0, "and not kept for it");
    w.clock.advance(MILLI);
    w.publish(&["in time"]).await;
    assert_eq!(drain(&w.worker), ["in time"]);
}

#[tokio::test(start_paused = true)]
async fn seek_04_a_waiting_pull_is_not_woken_by_what_is_discarded() {
    let w = World::new().await;
    w.worker.seek(w.clock.now() + HOUR).await.unwrap();
    let mut pull = Box::pin(w.worker.pull(1));
    assert!(poll_once(pull.as_mut()).is_pending());
    w.publish(&["early"]).await;
    assert!(poll_once(pull.as_mut()).is_pending(), "SEEK-4");
    w.clock.advance(HOUR);
    w.publish(&["in time"]).await;
    assert_eq!(texts(&pull.await.unwrap()), ["in time"]);
}

#[tokio::test(start_paused = true)]
async fn seek_05_purge_ends_the_backlog_and_lets_later_messages_through() {
    for config in [SubscriptionConfig::new(), SubscriptionConfig::new().filter(Filter::has("k"))] {
        let w = World::with(config).await;
        let message = |text: &'static str| Message::new(text).with_attribute("k", "1");
        w.topic.publish_many([message("a"), message("b"), message("c")]).await.unwrap();
        let held = take(&w.worker, 2);
        w.worker.purge().await.unwrap();
        assert_eq!(w.worker.stats().backlog, 0); // SEEK-5
        assert_eq!(w.topic.stats().retained_messages, 0);
        w.topic.publish(message("later")).await.unwrap();
        assert_eq!(drain(&w.worker), ["later"]);
        drop(held);
        assert!(nothing_ready(&w.worker));
        w.publish(&["no match", "no match"]).await;
        w.topic.publish(message("d")).await.unwrap();
        w.clock.advance(MILLI);
        w.worker.seek(w.clock.now()).await.unwrap();
        assert_eq!(w.worker.stats().backlog, 0, "SEEK-5: a seek to now");
    }
}

#[tokio::test(start_paused = true)]
async fn seek_07_a_later_subscription_gets_what_the_topic_retains() {
    let topic = TopicConfig::new().retention(HOUR);
    let w = World::build(Limits::embedded(), topic, SubscriptionConfig::new()).await;
    publish_by_the_minute(&w, &["a", "b"]).await;
    drain(&w.worker);
    let late = w.topic.subscribe("late", SubscriptionConfig::new()).await.unwrap();
    assert!(nothing_ready(&late), "PUB-8");
    late.seek(w.clock.now() - DAY).await.unwrap();
    w.publish(&["c"]).await;
    assert_eq!(drain(&late), ["a", "b", "c"]); // SEEK-7
    // RET-6: beyond what the subscription itself would keep.
    let short = SubscriptionConfig::new().retention(MINUTE);
    let short = w.topic.subscribe("short", short).await.unwrap();
    w.clock.advance(30 * MINUTE);
    short.seek(w.clock.now() - DAY).await.unwrap();
    assert_eq!(drain(&short), ["a", "b", "c"]);
    w.topic.update(TopicUpdate::new().retention(None)).await.unwrap();
    short.seek(w.clock.now() - DAY).await.unwrap();
    assert!(nothing_ready(&short), "SEEK-3: nothing is retained any more");
}

#[tokio::test(start_paused = true)]
async fn seek_08_absent_things_are_not_found_and_bad_names_are_refused() {
    let w = World::google().await;
    let named = |name: &str| siftbus::SeekTarget::SnapshotNamed(name.to_owned());
    let missing = w.worker.seek(named("nothing")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound); // SEEK-8
    let malformed = w.worker.seek(named("1")).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument); // SEEK-8, ERR-1
    w.worker.delete().await.unwrap();
    let gone = w.worker.seek(w.clock.now()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound); // SEEK-8
    assert_eq!(w.worker.purge().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn seek_10_ends_leases_and_gives_streams_their_quota_back() {
    let w = World::with(retaining()).await;
    w.publish(&["a", "b"]).await;
    let flow = FlowControl::new().max_outstanding_messages(1);
    let mut stream = w.worker.stream(flow).unwrap();
    let held = stream.next().await.unwrap().unwrap();
    let mut next = Box::pin(stream.next());
    assert!(poll_once(next.as_mut()).is_pending());
    w.worker.seek(w.clock.now() - HOUR).await.unwrap();
    // SEEK-10, STR-12: the lease has ended, so its place is free.
    let again = next.await.unwrap().unwrap();
    assert_eq!((again.data().as_ref(), again.attempt()), (b"a".as_ref(), 1));
    assert_eq!(held.ack().await.unwrap(), Outcome::Stale);
    again.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn seek_11_wakes_who_waits_and_nobody_sees_the_old_state() {
    let w = World::with(retaining()).await;
    publish_by_the_minute(&w, &["a", "b", "c"]).await;
    drain(&w.worker);
    let mut pull = Box::pin(w.worker.pull(10));
    assert!(poll_once(pull.as_mut()).is_pending());
    w.worker.seek(w.clock.now() - 2 * MINUTE).await.unwrap();
    assert_eq!(texts(&pull.await.unwrap()), ["b", "c"]); // SEEK-11
}

#[tokio::test(start_paused = true)]
async fn seek_12_attempts_restart() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    take_one(&w.worker).nack().await.unwrap();
    let second = take_one(&w.worker);
    assert_eq!(second.attempt(), 2);
    w.worker.seek(w.clock.now() - HOUR).await.unwrap();
    assert_eq!(take_one(&w.worker).attempt(), 1); // SEEK-12
}

#[tokio::test(start_paused = true)]
async fn seek_14_the_filter_applies_to_what_comes_back() {
    let topic = TopicConfig::new().retention(DAY);
    let w = World::build(Limits::embedded(), topic, SubscriptionConfig::new()).await;
    let eu = |text: &'static str| Message::new(text).with_attribute("region", "eu");
    for (nth, text) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let message = if nth % 2 == 0 { eu(text) } else { Message::new(text) };
        w.topic.publish(message).await.unwrap();
        w.clock.advance(MINUTE);
    }
    let start = w.clock.now() - 4 * MINUTE;
    let filtered = SubscriptionConfig::new().filter(Filter::eq("region", "eu"));
    let filtered = w.topic.subscribe("filtered", filtered).await.unwrap();
    filtered.seek(start).await.unwrap();
    w.topic.publish_many([eu("e"), Message::new("f")]).await.unwrap();
    let backlog = filtered.stats().backlog;
    assert!(backlog <= 3, "a lower bound until it has been looked through");
    assert_eq!(drain(&filtered), ["a", "c", "e"]); // SEEK-14
    filtered.seek(start + MINUTE).await.unwrap();
    let held = take(&filtered, 1);
    w.topic.publish(eu("g")).await.unwrap();
    assert_eq!(drain(&filtered), ["e", "g"]);
    held.into_iter().for_each(drop);
    assert_eq!(drain(&filtered), ["c"]);
    assert_eq!(filtered.stats().backlog, 0);
    w.topic.publish(eu("h")).await.unwrap();
    assert_eq!(drain(&filtered), ["h"]);
}

#[tokio::test(start_paused = true)]
async fn seek_14_fields_of_the_message_are_looked_at_like_its_attributes() {
    let topic = TopicConfig::new().retention(DAY);
    let w = World::build(Limits::embedded(), topic, SubscriptionConfig::new()).await;
    let start = w.clock.now();
    let keyed = |text: &'static str, key| Message::new(text).with_ordering_key(key);
    w.topic.publish_many([keyed("a", "k"), keyed("long", "k"), keyed("b", "l")]).await.unwrap();
    w.topic.publish(keyed("c", "k").with_attribute("n", "7")).await.unwrap();
    for (name, text, expected) in [
        ("key", "message.ordering_key = 'k'", &["a", "long", "c"][..]),
        ("size", "message.data_size < 2", &["a", "b", "c"]),
        ("count", "message.attribute_count = 1", &["c"]),
        ("all", "message:ordering_key AND attributes.n > 6", &["c"]),
        ("none", "NOT message:ordering_key", &[]),
    ] {
        let filter = Filter::parse_extended(text).unwrap();
        let config = SubscriptionConfig::new().filter(filter);
        let found = w.topic.subscribe(name, config).await.unwrap();
        found.seek(start).await.unwrap();
        assert_eq!(drain(&found), expected, "{text}"); // SEEK-14, LIB-203
        assert_eq!(found.stats().backlog, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn seek_14_a_filtered_seek_back_over_many_messages_finds_the_few() {
    let topic = TopicConfig::new().retention(DAY);
    let w = World::build(Limits::embedded(), topic, SubscriptionConfig::new()).await;
    let few = SubscriptionConfig::new().filter(Filter::eq("k", "rare"));
    let few = w.topic.subscribe("few", few).await.unwrap();
    let start = w.clock.now();
    for nth in 0..20_000 {
        let k = if nth % 5_000 == 4_999 { "rare" } else { "common" };
        w.topic.publish(Message::new("x").with_attribute("k", k)).await.unwrap();
    }
    assert_eq!(drain(&few).len(), 4);
    few.seek(start).await.unwrap();
    // Waits no longer than it has to, and looks through as much as it has to.
    assert_eq!(few.pull(1).await.unwrap().len(), 1);
    assert_eq!(drain(&few).len(), 4, "one was released");
}

#[tokio::test(start_paused = true)]
async fn ret_07_what_a_filtered_seek_comes_to_later_may_be_past_its_time_by_then() {
    let config = SubscriptionConfig::new().filter(Filter::eq("k", "v"));
    let w = World::with(config.retention(MINUTE).retain_acked(true)).await;
    let publish = |text: &'static str| w.topic.publish(Message::new(text).with_attribute("k", "v"));
    publish("old").await.unwrap();
    w.clock.advance(30 * SECOND);
    publish("young").await.unwrap();
    assert_eq!(drain(&w.worker), ["old", "young"]);
    w.worker.seek(w.clock.now() - MINUTE).await.unwrap();
    w.clock.advance(30 * SECOND);
    // RET-7, RET-1, LIB-141: nobody has looked through the log since the seek.
    assert_eq!(drain(&w.worker), ["young"]);
    w.worker.seek(w.clock.now() - MINUTE).await.unwrap();
    w.clock.advance(8 * DAY);
    w.worker.create_snapshot("later").await.unwrap(); // SNP-4: there is no backlog any more
}

#[tokio::test(start_paused = true)]
async fn seek_16_works_after_the_topic_is_deleted_on_what_is_retained() {
    let w = World::with(retaining()).await;
    publish_by_the_minute(&w, &["a", "b"]).await;
    drain(&w.worker);
    w.topic.delete().await.unwrap();
    w.worker.seek(w.clock.now() - HOUR).await.unwrap();
    assert_eq!(drain(&w.worker), ["a", "b"]); // SEEK-16
}

#[tokio::test(start_paused = true)]
async fn exp_03_seeking_and_taking_a_snapshot_are_activity() {
    let ttl = siftbus::Expiration::After(DAY);
    let w = World::with(SubscriptionConfig::new().expiration(ttl)).await;
    w.clock.advance(DAY - MILLI);
    w.worker.seek(w.clock.now()).await.unwrap(); // EXP-3
    w.clock.advance(DAY - MILLI);
    w.worker.create_snapshot("s").await.unwrap(); // EXP-3
    w.clock.advance(DAY - MILLI);
    assert!(w.bus.subscription("worker").await.is_ok());
    w.clock.advance(MILLI);
    assert!(w.bus.subscription("worker").await.is_err(), "EXP-2");
}

#[tokio::test(start_paused = true)]
async fn seek_15_the_order_within_a_key_holds_for_the_replay() {
    for filter in [Filter::all(), Filter::has("k")] {
        let config = retaining().message_ordering(true).filter(filter);
        let w = World::with(config).await;
        let message = |text: &'static str, key: &str| {
            Message::new(text).with_attribute("k", "1").with_ordering_key(key)
        };
        let texts =
            [message("a0", "a"), message("b0", "b"), message("a1", "a"), message("a2", "a")];
        w.topic.publish_many(texts).await.unwrap();
        let held = take(&w.worker, 2);
        w.clock.advance(MINUTE);
        w.worker.seek(w.clock.now() - HOUR).await.unwrap(); // ERR-38
        held.into_iter().for_each(drop);
        assert_eq!(drain(&w.worker), ["a0", "b0", "a1", "a2"]); // SEEK-15
        w.worker.seek(w.clock.now() - HOUR).await.unwrap();
        let first = take_one(&w.worker);
        assert_eq!(drain(&w.worker), ["b0"], "SEEK-15, ORD-5: the key waits");
        first.ack().await.unwrap();
        assert_eq!(drain(&w.worker), ["a1", "a2"]);
    }
}
