//! The time to live of single messages (LIB-370 … LIB-373).

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use siftbus::{
    BacklogLimit, Code, DeadLetterPolicy, Filter, FlowControl, Limits, Message, MessageState,
    Outcome, Overflow, Standing, Subscription, SubscriptionConfig, TopicConfig,
};

use crate::support::{
    DAY, HOUR, MILLI, MINUTE, SECOND, World, drain, manual_bus, nothing_ready, poll_once, take,
    take_one,
};

fn mortal(text: &'static str, ttl: Duration) -> Message {
    Message::new(text).with_ttl(ttl)
}

fn expired(subscription: &Subscription) -> u64 {
    subscription.stats().expired_messages
}

#[tokio::test(start_paused = true)]
async fn lib_370_it_is_handed_out_until_its_time_is_over_and_not_after() {
    let w = World::new().await;
    w.topic.publish(mortal("a", SECOND)).await.unwrap();
    w.topic.publish(mortal("b", SECOND + Duration::from_nanos(1))).await.unwrap();
    w.clock.advance(SECOND - MILLI);
    let held = take_one(&w.worker);
    assert_eq!(held.message().ttl(), Some(SECOND));
    held.nack().await.unwrap();
    w.clock.advance(MILLI);
    // LIB-370: to the millisecond, and the second was rounded up by one.
    assert_eq!(drain(&w.worker), ["b"]);
    assert_eq!((w.worker.stats().backlog, expired(&w.worker)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn lib_370_messages_with_and_without_are_told_apart_in_any_mixture() {
    let w = World::new().await;
    let odd = SubscriptionConfig::new().filter(Filter::has("odd"));
    let odd = w.topic.subscribe("odd", odd).await.unwrap();
    let mut kept = Vec::new();
    for nth in 0..10_000_u64 {
        let mut message = Message::new(nth.to_string());
        if nth % 2 == 1 {
            message = message.with_attribute("odd", "");
        }
        match nth % 5 {
            1 => message = message.with_ttl(MINUTE),
            2 => message = message.with_ttl(HOUR),
            _ => {}
        }
        if nth % 5 != 1 {
            kept.push(nth.to_string());
        }
        w.topic.publish(message).await.unwrap();
    }
    w.clock.advance(MINUTE);
    // LIB-370, and PUB-12 for what is left.
    assert_eq!(drain(&w.worker), kept);
    let kept_odd: Vec<_> = kept.iter().filter(|n| n.ends_with(['1', '3', '5', '7', '9'])).collect();
    assert_eq!(drain(&odd).iter().collect::<Vec<_>>(), kept_odd);
    assert_eq!((expired(&w.worker), expired(&odd)), (2_000, 1_000));
    assert_eq!((w.worker.stats().backlog, odd.stats().backlog), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn lib_370_a_delivery_in_hand_can_be_answered_until_its_lease_ends() {
    let w = World::new().await;
    for text in ["acked", "nacked", "lapsed", "extended", "never taken"] {
        w.topic.publish(mortal(text, SECOND)).await.unwrap();
    }
    let mut held = take(&w.worker, 4);
    w.clock.advance(5 * SECOND);
    let extended = held.pop().unwrap();
    assert_eq!(extended.set_deadline(MINUTE).await.unwrap(), Outcome::Done);
    let lapsed = held.pop().unwrap();
    // LIB-370
    assert_eq!(held.pop().unwrap().nack().await.unwrap(), Outcome::Done);
    assert_eq!(held.pop().unwrap().ack().await.unwrap(), Outcome::Done);
    assert!(nothing_ready(&w.worker));
    w.clock.advance(5 * SECOND);
    assert_eq!(lapsed.ack().await.unwrap(), Outcome::Stale, "LIB-370: no late ack (LS-8) then");
    w.clock.advance(30 * SECOND);
    assert_eq!(extended.ack().await.unwrap(), Outcome::Done);
    let stats = w.worker.stats();
    assert_eq!((stats.acknowledged, stats.expired_messages, stats.backlog), (2, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn lib_370_redelivery_delays_and_retries_end_with_it() {
    let w = World::new().await;
    for text in ["ready", "delayed", "stays"] {
        let ttl = if text == "stays" { HOUR } else { 10 * SECOND };
        w.topic.publish(mortal(text, ttl)).await.unwrap();
    }
    let mut held = take(&w.worker, 3);
    held.remove(0).nack().await.unwrap();
    held.remove(0).nack_after(MINUTE).await.unwrap();
    held.remove(0).nack_after(MINUTE).await.unwrap();
    w.clock.advance(MINUTE);
    assert_eq!(drain(&w.worker), ["stays"], "LIB-370");
    assert_eq!(expired(&w.worker), 2);
}

#[tokio::test(start_paused = true)]
async fn lib_370_streams_and_waiting_pulls_get_nothing_that_is_over() {
    let w = World::new().await;
    w.topic.publish(mortal("over", SECOND)).await.unwrap();
    w.clock.advance(SECOND);
    let mut pull = pin!(w.worker.pull(10));
    assert!(poll_once(pull.as_mut()).is_pending(), "LIB-370");
    w.topic.publish_many([mortal("good", HOUR), mortal("too", HOUR)]).await.unwrap();
    let Poll::Ready(batch) = poll_once(pull.as_mut()) else { panic!("it was woken") };
    batch.unwrap().ack_all();
    w.topic.publish_many([mortal("over too", SECOND), mortal("fine", HOUR)]).await.unwrap();
    w.clock.advance(SECOND);
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    let next = stream.next().await.unwrap().unwrap();
    assert_eq!(next.data().as_ref(), b"fine", "LIB-370");
}

#[tokio::test(start_paused = true)]
async fn lib_370_what_is_not_allowed_is_refused_and_comes_back() {
    let w = World::new().await;
    let none = mortal("x", Duration::ZERO);
    let error = w.topic.publish(none.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "LIB-370");
    assert_eq!(error.into_messages(), [none]);
    for ttl in [Duration::from_nanos(1), 40_000 * DAY, Duration::MAX] {
        w.topic.publish(mortal("x", ttl)).await.unwrap();
    }
    assert_eq!(mortal("x", Duration::MAX), Message::new("x"), "LIB-370: for ever is no limit");
    let mut limits = Limits::embedded();
    limits.message_ttl = SECOND..=MINUTE;
    let bounded = World::build(limits, TopicConfig::new(), SubscriptionConfig::new()).await;
    for (ttl, is_fine) in
        [(SECOND - MILLI, false), (SECOND, true), (MINUTE, true), (MINUTE + MILLI, false)]
    {
        assert_eq!(bounded.topic.try_publish(mortal("x", ttl)).is_ok(), is_fine, "{ttl:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lib_371_it_is_dropped_once_it_is_the_oldest_and_seen_by_nobody_before() {
    let w = World::new().await;
    w.publish(&["first"]).await;
    let id = w.topic.publish(mortal("over", SECOND)).await.unwrap().id();
    w.topic.publish(mortal("longer", HOUR)).await.unwrap();
    w.clock.advance(SECOND);
    // LIB-371: it counts until it is come to, and is not shown.
    assert_eq!(w.worker.stats().backlog, 3);
    let shown = w.worker.peek(10);
    let texts: Vec<_> = shown.iter().map(|seen| seen.message.data().as_ref()).collect();
    assert_eq!(texts, [&b"first"[..], b"longer"]);
    assert_eq!(w.worker.explain_delivery(id).unwrap().standing, Standing::Settled);
    let first = take_one(&w.worker);
    assert_eq!(w.worker.peek(1).first().map(|seen| seen.state), Some(MessageState::Outstanding));
    first.ack().await.unwrap();
    assert_eq!(w.worker.stats().backlog, 1, "LIB-371: by the next call");
    w.clock.advance(HOUR);
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn lib_371_memory_is_given_back_though_nobody_pulls() {
    let w = World::with(SubscriptionConfig::new().retention(30 * DAY)).await;
    for _ in 0..1_000 {
        w.topic.publish(mortal("x", MINUTE)).await.unwrap();
        w.clock.advance(MILLI);
    }
    w.clock.advance(MINUTE + SECOND);
    // LIB-371, RET-7: within a second of the bus's time. What shares a segment stays with it.
    w.bus.now();
    assert_eq!(w.topic.stats().retained_messages, 0);
    assert_eq!(expired(&w.worker), 1_000);
    let start = w.clock.now();
    let mut instants = 0;
    while let Some(due) = w.clock.next_due().filter(|due| *due < start + 7 * DAY) {
        w.clock.advance_to(due);
        instants += 1;
    }
    assert!(instants < 5, "{instants} instants in a week in which nothing can happen");
}

#[tokio::test(start_paused = true)]
async fn lib_371_a_limit_of_the_backlog_counts_what_is_left() {
    let limited =
        SubscriptionConfig::new().backlog_limit(BacklogLimit::new(2).overflow(Overflow::Reject));
    let w = World::with(limited).await;
    w.topic.publish_many([mortal("a", SECOND), mortal("b", SECOND)]).await.unwrap();
    assert!(w.topic.try_publish("c").is_err());
    w.clock.advance(SECOND);
    w.topic.try_publish("c").unwrap(); // LIB-371
    assert_eq!(drain(&w.worker), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn lib_372_the_earlier_of_retention_and_time_to_live_counts() {
    let w = World::with(SubscriptionConfig::new().retention(HOUR)).await;
    w.topic.publish_many([mortal("short", MINUTE), mortal("long", DAY)]).await.unwrap();
    w.clock.advance(MINUTE);
    assert_eq!(w.worker.stats().backlog, 1, "LIB-372");
    w.clock.advance(HOUR - MINUTE - MILLI);
    assert_eq!(w.worker.stats().backlog, 1);
    w.clock.advance(MILLI);
    assert_eq!(w.worker.stats().backlog, 0, "LIB-372, RET-1");
}

#[tokio::test(start_paused = true)]
async fn lib_372_nothing_that_is_over_becomes_a_dead_letter_and_those_do_not_end() {
    let policy = || DeadLetterPolicy::new("dead").max_delivery_attempts(1);
    let (clock, bus) = manual_bus(Limits::embedded());
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let dead = bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let inspect = dead.subscribe("inspect", SubscriptionConfig::new()).await.unwrap();
    let config = SubscriptionConfig::new().dead_letter_policy(policy());
    let worker = topic.subscribe("worker", config).await.unwrap();
    for text in ["in time", "nacked late", "lapses", "rejected late"] {
        topic.publish(mortal(text, SECOND)).await.unwrap();
    }
    let mut held = take(&worker, 4);
    held.remove(0).nack().await.unwrap();
    clock.advance(2 * SECOND);
    held.remove(0).nack().await.unwrap();
    held.remove(1).reject().await.unwrap();
    clock.advance(MINUTE);
    assert_eq!(expired(&worker), 3, "LIB-372, DLQ-14");
    clock.advance(DAY);
    let letters = take(&inspect, 10);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].data().as_ref(), b"in time", "LIB-372: a day later it is still there");
    assert_eq!(letters[0].message().ttl(), None);
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_372_no_seek_and_no_snapshot_brings_it_back() {
    let topic = TopicConfig::new().retention(DAY);
    let w = World::build(Limits::embedded(), topic, SubscriptionConfig::new()).await;
    let filtered = SubscriptionConfig::new().filter(Filter::has("k"));
    let start = w.clock.now();
    let keyed = |message: Message| message.with_attribute("k", "v");
    let batch = [mortal("over", MINUTE), Message::new("plain"), mortal("longer", HOUR)];
    w.topic.publish_many(batch.map(keyed)).await.unwrap();
    let snapshot = w.worker.create_snapshot("s").await.unwrap();
    w.worker.try_pull(10).unwrap().ack_all();
    w.clock.advance(MINUTE);
    assert_eq!(w.topic.messages(10).len(), 3, "LIB-372: the topic keeps it");
    w.worker.seek(start).await.unwrap();
    assert_eq!(drain(&w.worker), ["plain", "longer"], "LIB-372");
    w.worker.seek(&snapshot).await.unwrap();
    assert_eq!(drain(&w.worker), ["plain", "longer"], "LIB-372");
    // Its view has never had a message.
    let late = w.topic.subscribe("late", filtered).await.unwrap();
    late.seek(start).await.unwrap();
    assert_eq!(drain(&late), ["plain", "longer"], "LIB-372");
    w.topic.publish(keyed(Message::new("new"))).await.unwrap();
    assert_eq!((drain(&late), drain(&w.worker)), (vec!["new".into()], vec!["new".into()]));
}

#[tokio::test(start_paused = true)]
async fn lib_373_an_ordering_key_goes_on_with_the_next_message() {
    let w = World::with(SubscriptionConfig::new().message_ordering(true)).await;
    let keyed = |message: Message| message.with_ordering_key("k");
    let ttls = [("a", SECOND), ("b", HOUR), ("c", SECOND), ("d", HOUR)];
    for (text, ttl) in ttls {
        w.topic.publish(keyed(mortal(text, ttl))).await.unwrap();
    }
    let first = take_one(&w.worker);
    assert!(nothing_ready(&w.worker), "ORD-5: the rest is filed behind it");
    w.clock.advance(SECOND);
    first.nack().await.unwrap();
    assert_eq!(drain(&w.worker), ["b", "d"], "LIB-373");
    // What was handed out comes again after a failure, apart from what is over (ORD-7).
    for (text, ttl) in ttls {
        w.topic.publish(keyed(mortal(text, ttl))).await.unwrap();
    }
    let mut held = take(&w.worker, 4);
    held.remove(1).ack().await.unwrap();
    w.clock.advance(SECOND);
    held.remove(0).nack().await.unwrap();
    assert_eq!(drain(&w.worker), ["b", "d"], "LIB-373, ORD-7");
    assert_eq!((w.worker.stats().backlog, expired(&w.worker)), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn lib_373_a_key_does_not_wait_for_the_delay_of_what_is_over() {
    let config = SubscriptionConfig::new().message_ordering(true);
    let retry = siftbus::RetryPolicy::new().minimum_backoff(MINUTE);
    let w = World::with(config.retry_policy(retry)).await;
    w.topic.publish("in front").await.unwrap();
    w.topic.publish(mortal("a", 10 * SECOND).with_ordering_key("k")).await.unwrap();
    w.topic.publish(Message::new("b").with_ordering_key("k")).await.unwrap();
    let mut held = take(&w.worker, 2);
    held[0].set_deadline(HOUR).await.unwrap();
    held.pop().expect("two were taken").nack().await.unwrap();
    let mut pull = pin!(w.worker.pull(1));
    assert!(poll_once(pull.as_mut()).is_pending(), "ORD-11: its key waits with it");
    w.clock.advance(10 * SECOND - MILLI);
    assert!(poll_once(pull.as_mut()).is_pending());
    w.clock.advance(MILLI);
    let Poll::Ready(batch) = poll_once(pull.as_mut()) else { panic!("LIB-373: it waits on") };
    assert_eq!(batch.unwrap().iter().next().expect("one").data().as_ref(), b"b", "LIB-373");
    assert_eq!(expired(&w.worker), 1);
}

#[tokio::test(start_paused = true)]
async fn lib_371_what_is_over_when_its_delay_ends_goes_then() {
    let w = World::new().await;
    w.topic.publish("held").await.unwrap();
    w.topic.publish(mortal("given back", SECOND)).await.unwrap();
    let _held = take_one(&w.worker);
    take_one(&w.worker).nack_after(SECOND).await.unwrap();
    w.clock.advance(SECOND);
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.ready, stats.expired_messages), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn lib_370_fresh_messages_come_though_all_that_was_given_back_is_over() {
    let w = World::new().await;
    w.topic.publish("in front").await.unwrap();
    w.topic.publish(mortal("a", SECOND)).await.unwrap();
    let mut held = take(&w.worker, 2);
    held.pop().expect("two were taken").nack().await.unwrap();
    w.publish(&["b", "c"]).await;
    w.clock.advance(SECOND);
    // PULL-1: at least one is handed out if there is one, and as many as are asked for.
    assert_eq!(drain(&w.worker), ["b", "c"], "LIB-370");
}

#[tokio::test(start_paused = true)]
async fn lib_371_the_oldest_goes_also_if_an_ack_was_lost_on_it() {
    let w = World::new().await;
    w.publish(&["in front"]).await;
    w.topic.publish(mortal("a", SECOND)).await.unwrap();
    let mut held = take(&w.worker, 2);
    held.remove(0).ack().await.unwrap();
    assert_eq!(w.worker.stats().outstanding, 1);
    w.worker.faults().duplicate_deliveries(1);
    held.remove(0).ack().await.unwrap();
    assert_eq!(w.worker.stats().backlog, 1, "LIB-403");
    w.clock.advance(SECOND);
    assert_eq!((w.worker.stats().backlog, expired(&w.worker)), (0, 1), "LIB-371");
}
