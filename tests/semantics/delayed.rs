//! Delayed publish (LIB-375 … LIB-378).

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use siftbus::filter::Filter;
use siftbus::{
    BacklogLimit, Budget, Bus, Clock, Code, Limits, MESSAGE_OVERHEAD, ManualClock, Message,
    MessageId, Overflow, PublishReason, Standing, SubscriptionConfig, TopicConfig, TopicUpdate,
};

use crate::support::{
    DAY, HOUR, MILLI, MINUTE, SECOND, WakeCount, World, drain, nothing_ready, poll_once, take,
    take_one,
};

#[tokio::test(start_paused = true)]
async fn lib_375_it_waits_at_the_topic_and_is_published_on_the_millisecond() {
    let w = World::new().await;
    let start = w.clock.now();
    let receipt = w.topic.publish_after("later", MINUTE + Duration::from_nanos(1)).await.unwrap();
    assert_eq!(receipt.recipients(), None, "LIB-375");
    w.publish(&["now"]).await;
    assert_eq!((w.worker.stats().backlog, w.topic.stats().delayed), (1, 1));
    w.clock.advance(MINUTE);
    assert_eq!(drain(&w.worker), ["now"], "LIB-375: rounded up");
    w.clock.advance(MILLI);
    let later = take_one(&w.worker);
    assert_eq!((later.id(), later.data().as_ref()), (receipt.id(), &b"later"[..]));
    assert_eq!(later.publish_time(), start + MINUTE + MILLI, "LIB-375");
    assert_eq!((later.attempt(), w.topic.stats().delayed), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn lib_375_recipients_and_filters_are_those_of_the_moment_when_it_is_due() {
    let w = World::new().await;
    let message = Message::new("m").with_attribute("k", "v").with_ttl(MINUTE);
    w.topic.publish_after(message, HOUR).await.unwrap();
    w.clock.advance(HOUR - MILLI);
    let filtered = SubscriptionConfig::new().filter(Filter::has("k"));
    let filtered = w.topic.subscribe("filtered", filtered).await.unwrap();
    let other = SubscriptionConfig::new().filter(Filter::has("other"));
    let other = w.topic.subscribe("other", other).await.unwrap();
    w.worker.delete().await.unwrap();
    // Due at the very instant: whoever reads the clock first publishes it.
    w.clock.advance(MILLI);
    let late = w.topic.subscribe("late", SubscriptionConfig::new()).await.unwrap();
    assert_eq!(drain(&filtered), ["m"], "LIB-375");
    assert!(nothing_ready(&other) && nothing_ready(&late));
}

#[tokio::test(start_paused = true)]
async fn lib_375_what_is_due_comes_in_order_of_instant_and_acceptance() {
    let w = World::with(SubscriptionConfig::new().message_ordering(true)).await;
    let keyed = |text: &'static str| Message::new(text).with_ordering_key("k");
    for (text, delay) in [("d", 3), ("b", 2), ("a", 1), ("c", 2)] {
        w.topic.publish_after(keyed(text), delay * SECOND).await.unwrap();
    }
    w.clock.advance(HOUR);
    let all = take(&w.worker, 10);
    let texts: Vec<_> = all.iter().map(|delivery| delivery.data().as_ref()).collect();
    assert_eq!(texts, [b"a", b"b", b"c", b"d"], "LIB-375, ORD-3");
    let times: Vec<_> = all.iter().map(|delivery| delivery.publish_time()).collect();
    assert!(times.is_sorted(), "PUB-6");
    assert_eq!(times[3].duration_since(times[0]).unwrap(), 2 * SECOND);
    all.into_iter().for_each(|delivery| drop(delivery.ack()));
}

#[tokio::test(start_paused = true)]
async fn lib_375_no_delay_and_a_time_that_has_come_are_a_publish() {
    let w = World::new().await;
    let now = w.topic.publish_after("a", Duration::ZERO).await.unwrap();
    let past = w.topic.publish_at("b", w.clock.now() - DAY).await.unwrap();
    assert_eq!((now.recipients(), past.recipients()), (Some(1), Some(1)), "LIB-375");
    let at = w.clock.now() + HOUR;
    assert_eq!(w.topic.publish_at("c", at).await.unwrap().recipients(), None);
    assert_eq!(w.topic.try_publish_at("d", at + MILLI).unwrap().recipients(), None);
    assert_eq!(drain(&w.worker), ["a", "b"]);
    w.clock.advance_to(at);
    assert_eq!(drain(&w.worker), ["c"]);
    w.clock.advance(MILLI);
    assert_eq!(drain(&w.worker), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn lib_375_it_wakes_whoever_waits() {
    // tokio's clock: nothing but the driver of the bus moves time here.
    let bus = Bus::new();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
    let start = bus.now();
    topic.publish_after("x", HOUR).await.unwrap();
    let batch = worker.pull(1).await.unwrap();
    assert_eq!(bus.now(), start + HOUR, "LIB-375");
    batch.ack_all();
    // A pull that waits on a manual clock is woken by the instant.
    let w = World::new().await;
    let count = WakeCount::new();
    let waker = std::task::Waker::from(count.clone());
    w.topic.publish_after("x", HOUR).await.unwrap();
    let mut pull = pin!(w.worker.pull(1));
    assert!(pull.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    w.clock.advance(HOUR);
    assert_eq!(count.get(), 1, "LIB-375");
    let Poll::Ready(batch) = poll_once(pull) else { panic!("it was woken") };
    batch.unwrap().ack_all();
}

#[tokio::test(start_paused = true)]
async fn lib_376_a_delay_is_bounded_by_the_retention_of_the_topic() {
    let w = World::build(
        Limits::embedded(),
        TopicConfig::new().retention(HOUR),
        SubscriptionConfig::new(),
    )
    .await;
    w.topic.publish_after("x", HOUR).await.unwrap();
    let error = w.topic.publish_after("y", HOUR + MILLI).await.unwrap_err();
    let reason = PublishReason::DelayBeyondRetention { delay: HOUR + MILLI, retention: HOUR };
    assert_eq!((error.reason(), error.code()), (&reason, Code::InvalidArgument), "LIB-376");
    assert_eq!(error.into_messages(), [Message::new("y")]);
    // What waits already is not concerned by a change.
    w.topic.update(TopicUpdate::new().retention(Some(MINUTE))).await.unwrap();
    assert!(w.topic.try_publish_after("z", 2 * MINUTE).is_err());
    w.clock.advance(HOUR);
    assert_eq!(drain(&w.worker), ["x"], "LIB-376");
    // Without a retention, the longest that is allowed.
    let google = World::google().await;
    google.topic.publish_after("x", 31 * DAY).await.unwrap();
    assert!(google.topic.publish_after("x", 31 * DAY + MILLI).await.is_err(), "LIB-376");
    let free = World::new().await;
    free.topic.publish_after("x", 40_000 * DAY).await.unwrap();
    free.topic.publish_after("x", Duration::MAX).await.unwrap();
    let bad = Message::new("x").with_attribute("goog-key", "v");
    let error = free.topic.publish_after(bad.clone(), HOUR).await.unwrap_err();
    assert_eq!((error.code(), error.into_messages()), (Code::InvalidArgument, vec![bad]));
}

/// What a message of one byte takes of the budget.
const ONE: u64 = 1 + 16 + MESSAGE_OVERHEAD as u64;

#[tokio::test(start_paused = true)]
async fn lib_376_what_waits_is_charged_and_publishers_wait_for_room() {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).budget(Budget::new(2 * ONE)).build();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("s", SubscriptionConfig::new()).await.unwrap();
    topic.publish_after("a", MINUTE).await.unwrap();
    assert_eq!(topic.stats().charged_bytes, ONE, "LIB-376");
    topic.publish("b").await.unwrap();
    let refused = topic.try_publish_after("c", MINUTE).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(topic.try_publish("c").is_err());
    // Due a minute after the call, however long it has to wait for room.
    let mut waiting = pin!(topic.publish_after("c", MINUTE));
    assert!(poll_once(waiting.as_mut()).is_pending());
    clock.advance(SECOND);
    assert_eq!(drain(&worker), ["b"]);
    let Poll::Ready(receipt) = poll_once(waiting) else { panic!("there is room (LIB-42)") };
    assert_eq!(receipt.unwrap().recipients(), None);
    clock.advance(MINUTE - SECOND);
    assert_eq!(topic.stats().charged_bytes, 2 * ONE, "LIB-376: the same, published");
    assert_eq!(drain(&worker), ["a", "c"]);
    assert_eq!(topic.stats().charged_bytes, 0);
    // One that has waited for room until it was due is published at once.
    topic.publish_many(["d", "e"]).await.unwrap();
    let mut waiting = pin!(topic.publish_after("f", MINUTE));
    assert!(poll_once(waiting.as_mut()).is_pending());
    clock.advance(HOUR);
    drain(&worker);
    let Poll::Ready(receipt) = poll_once(waiting) else { panic!("there is room") };
    assert_eq!(receipt.unwrap().recipients(), Some(1));
    assert_eq!(drain(&worker), ["f"]);
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_376_what_is_due_is_published_whatever_the_limits_of_subscriptions() {
    for (overflow, expected) in [
        (Overflow::Wait, vec!["a", "b"]),
        (Overflow::Reject, vec!["a", "b"]),
        (Overflow::DropOldest, vec!["b"]),
    ] {
        let limit = BacklogLimit::new(1).overflow(overflow);
        let w = World::with(SubscriptionConfig::new().backlog_limit(limit)).await;
        w.publish(&["a"]).await;
        w.topic.publish_after("b", SECOND).await.unwrap();
        w.clock.advance(SECOND);
        assert_eq!(w.topic.stats().delayed, 0);
        assert_eq!(drain(&w.worker), expected, "LIB-376: {overflow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lib_377_it_can_be_withdrawn_until_it_is_due() {
    let w = World::new().await;
    let id = w.topic.publish_after("x", HOUR).await.unwrap().id();
    let stays = w.topic.publish_after("y", 2 * HOUR).await.unwrap().id();
    let other = w.bus.create_topic("other", TopicConfig::new()).await.unwrap();
    assert_eq!(other.withdraw(id), None);
    assert_eq!(w.topic.withdraw(id), Some(Message::new("x")), "LIB-377");
    assert_eq!(w.topic.withdraw(id), None);
    w.clock.advance(2 * HOUR);
    assert_eq!(w.topic.withdraw(stays), None, "LIB-377: it is published");
    assert_eq!(drain(&w.worker), ["y"]);
    let audit = w.bus.audit();
    audit.assert_balanced();
    assert_eq!((audit.published, audit.delayed, audit.withdrawn), (1, 0, 1), "LIB-40");
    let now = w.publish(&["z"]).await;
    assert_eq!(w.topic.withdraw(now[0]), None);
}

#[tokio::test(start_paused = true)]
async fn lib_377_it_goes_with_its_topic_and_counts_in_no_backlog() {
    let w = World::new().await;
    w.topic.publish_after("x", HOUR).await.unwrap();
    let audit = w.bus.audit();
    assert_eq!((audit.published, audit.delayed, audit.withdrawn), (0, 1, 0), "LIB-40");
    w.bus.wait_idle().await; // LIB-377, LIB-47
    w.topic.delete().await.unwrap();
    assert_eq!(w.topic.publish_after("y", HOUR).await.unwrap_err().code(), Code::NotFound);
    w.clock.advance(HOUR);
    assert!(nothing_ready(&w.worker));
    let audit = w.bus.audit();
    audit.assert_balanced();
    assert_eq!((audit.published, audit.delayed, audit.withdrawn), (0, 0, 1), "LIB-377");
    let again = w.bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    again.publish_after("z", HOUR).await.unwrap();
    w.bus.close(SECOND).await;
    assert_eq!(again.publish_after("z", HOUR).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn lib_378_it_is_found_by_its_id_before_and_after() {
    let w = World::new().await;
    let mut ids: Vec<MessageId> = Vec::new();
    for nth in 0..2_000_u64 {
        // Due in an order of their own, among messages that do not wait.
        let delay = (nth * 7_919 % 1_000) as u32 * MILLI;
        let text = nth.to_string();
        let receipt = match nth % 3 {
            0 => w.topic.publish(text).await,
            _ => w.topic.publish_after(text, delay).await,
        };
        ids.push(receipt.unwrap().id());
        if nth % 10 == 0 {
            w.clock.advance(MILLI);
        }
    }
    assert!(ids.is_sorted(), "LIB-378: an id is given at acceptance");
    let standing = |id| w.worker.explain_delivery(id).unwrap().standing;
    let waits = |id: &&MessageId| matches!(standing(**id), Standing::Scheduled { .. });
    assert_eq!(ids.iter().filter(waits).count() as u64, w.topic.stats().delayed, "LIB-378");
    w.clock.advance(SECOND);
    let held = take(&w.worker, 5_000);
    assert_eq!(held.len(), ids.len());
    for delivery in &held {
        let text: u64 = String::from_utf8(delivery.data().to_vec()).unwrap().parse().unwrap();
        assert_eq!(delivery.id(), ids[text as usize]);
        assert!(matches!(standing(delivery.id()), Standing::Leased { .. }), "LIB-378: {text}");
    }
    drop(held);
    // All but one go, and are forgotten.
    for delivery in take(&w.worker, 5_000) {
        match delivery.id() == ids[1_001] {
            true => drop(delivery),
            false => drop(delivery.ack()),
        }
    }
    let ready = ids.iter().filter(|id| standing(**id) == Standing::Ready).count();
    assert_eq!((ready, standing(ids[1_001])), (1, Standing::Ready), "LIB-378");
}
