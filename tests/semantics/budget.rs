//! Rules of our own: the budget, waiting publishers, limits of subscriptions (LIB-41 … LIB-45).

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use siftbus::filter::Filter;
use siftbus::{
    BacklogLimit, Budget, Bus, Code, Event, Expiration, MESSAGE_OVERHEAD, Message, Overflow,
    PublishReason, Subscription, SubscriptionConfig, SubscriptionUpdate, Topic, TopicConfig,
};

use crate::support::{SECOND, WakeCount, drain, nothing_ready, poll_once, take, take_one};

/// What a message of one byte takes of the budget.
const ONE: u64 = 1 + 16 + MESSAGE_OVERHEAD as u64;

/// A bus with room for `messages` of one byte, a topic and a subscription.
async fn world(messages: u64) -> (Bus, Topic, Subscription) {
    with_limit(messages, None).await
}

async fn with_limit(messages: u64, limit: Option<BacklogLimit>) -> (Bus, Topic, Subscription) {
    let bus = Bus::builder().budget(Budget::new(messages * ONE)).build();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let mut config = SubscriptionConfig::new();
    config.backlog_limit = limit;
    let subscription = topic.subscribe("s", config).await.unwrap();
    (bus, topic, subscription)
}

fn reason(result: Result<siftbus::Receipt, siftbus::PublishError>) -> PublishReason {
    result.unwrap_err().reason().clone()
}

#[tokio::test(start_paused = true)]
async fn lib_41_a_budget_of_any_number_of_messages_is_exact() {
    for room in 1..=20 {
        let (bus, topic, subscription) = world(room).await;
        for _ in 0..room {
            topic.try_publish("x").unwrap();
        }
        let refused = topic.try_publish("y").unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "LIB-41");
        assert_eq!(refused.into_messages(), [Message::new("y")]);
        // Whichever is settled makes room for one, also behind one that is stuck.
        for round in 0..3 * room {
            let mut held = take(&subscription, 100);
            assert_eq!(held.len() as u64, room);
            let at = (round * 7 % room) as usize;
            held.remove(at).ack();
            topic.try_publish("x").unwrap();
            assert!(topic.try_publish("x").is_err(), "LIB-41: {room} messages");
        }
        bus.audit().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn lib_41_what_never_fits_fails_at_once() {
    let (_bus, topic, _subscription) = world(3).await;
    let large = Message::new(vec![0; 4 * ONE as usize]);
    let error = topic.publish(large.clone()).await.unwrap_err();
    assert!(matches!(error.reason(), PublishReason::AboveBudget { .. }), "LIB-41");
    assert_eq!((error.code(), error.into_messages()), (Code::InvalidArgument, vec![large]));
    let error = topic.publish_many(["1", "2", "3", "4"]).await.unwrap_err();
    assert_eq!((error.code(), error.into_messages().len()), (Code::InvalidArgument, 4));
    topic.publish_many(["1", "2", "3"]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lib_41_a_message_counts_once_for_all_and_until_the_last_has_settled_it() {
    let (_bus, topic, first) = world(1).await;
    let second = topic.subscribe("second", SubscriptionConfig::new()).await.unwrap();
    topic.try_publish("x").unwrap();
    drain(&first);
    assert!(topic.try_publish("x").is_err());
    drain(&second);
    topic.try_publish("x").unwrap();
    second.delete().await.unwrap();
    assert!(topic.try_publish("x").is_err());
    first.delete().await.unwrap();
    topic.try_publish("x").unwrap();
}

#[tokio::test(start_paused = true)]
async fn lib_41_leases_of_further_subscriptions_are_charged_at_hand_out() {
    let (bus, topic, first) = world(10).await;
    for _ in 0..8 {
        topic.publish("x").await.unwrap();
    }
    let second = topic.subscribe("second", SubscriptionConfig::new()).await.unwrap();
    let third = topic.subscribe("third", SubscriptionConfig::new()).await.unwrap();
    for _ in 0..2 {
        topic.try_publish("x").unwrap();
    }
    // From here on there is pressure, and everything is exact.
    assert!(topic.try_publish("x").is_err());
    assert_eq!(bus.stats().budget_used, 10 * ONE);
    let held = [take(&first, 10), take(&second, 10), take(&third, 10)];
    assert_eq!(held.each_ref().map(Vec::len), [10, 2, 2]);
    // Hand-outs never wait, and the charge of a message pays for one lease.
    assert_eq!(bus.stats().budget_used, 10 * ONE + 4 * 16, "LIB-41");
    assert_eq!(topic.stats().charged_bytes, 10 * ONE + 4 * 16);
    let [of_first, of_second, of_third] = held;
    of_third.into_iter().for_each(|delivery| drop(delivery.ack()));
    assert_eq!(bus.stats().budget_used, 10 * ONE + 2 * 16, "LIB-41: acknowledged, given back");
    second.delete().await.unwrap();
    drop(of_second);
    assert_eq!(bus.stats().budget_used, 10 * ONE, "LIB-41: gone, given back");
    drop(of_first);
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_41_filtered_subscriptions_keep_what_they_match() {
    let (bus, topic, all) = world(3).await;
    all.delete().await.unwrap();
    let filter = SubscriptionConfig::new().filter(Filter::has("k"));
    let some = topic.subscribe("some", filter).await.unwrap();
    let matching = || Message::new("").with_attribute("k", "v");
    for round in 0..100 {
        for _ in 0..10 {
            topic.try_publish("passes by").unwrap();
        }
        let mut taken = 0;
        while topic.try_publish(matching()).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, if round == 0 { 2 } else { 1 }, "LIB-41");
        let mut held = take(&some, 10);
        held.remove(round % 2).ack();
    }
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_42_publishers_wait_in_order_and_hand_their_turn_on() {
    let (_bus, topic, subscription) = world(1).await;
    topic.publish("0").await.unwrap();
    let counts = [WakeCount::new(), WakeCount::new(), WakeCount::new()];
    let wakers = counts.clone().map(Waker::from);
    let mut first = Box::pin(topic.publish("1"));
    let mut second = Box::pin(topic.publish("2"));
    let mut third = Box::pin(topic.publish("3"));
    assert!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
    assert!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
    assert!(third.as_mut().poll(&mut Context::from_waker(&wakers[2])).is_pending());
    take_one(&subscription).ack();
    let woken = || counts.clone().map(|count| count.get());
    assert_eq!(woken(), [1, 0, 0], "LIB-42: the first is woken");
    assert!(topic.try_publish("4").is_err(), "LIB-42: there is room, but others wait");
    assert!(poll_once(second.as_mut()).is_pending(), "LIB-42: not its turn");
    assert!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
    drop(first);
    assert_eq!(woken(), [1, 1, 0], "LIB-42: one that gives up hands its turn on");
    assert!(poll_once(second.as_mut()).is_ready());
    assert!(third.as_mut().poll(&mut Context::from_waker(&wakers[2])).is_pending());
    assert_eq!(drain(&subscription), ["2"]);
    assert!(poll_once(third.as_mut()).is_ready());
    assert_eq!(drain(&subscription), ["3"]);
    topic.try_publish("5").unwrap();
}

#[tokio::test(start_paused = true)]
async fn lib_42_the_end_of_things_wakes_who_waits() {
    let (bus, topic, subscription) = world(1).await;
    topic.publish("0").await.unwrap();
    let waiting = |text: &'static str| {
        let topic = topic.clone();
        tokio::spawn(async move { topic.publish(text).await })
    };
    let waiter = waiting("1");
    tokio::task::yield_now().await;
    subscription.delete().await.unwrap();
    assert!(waiter.await.unwrap().is_ok(), "LIB-42: the subscription is deleted");

    let expiring = SubscriptionConfig::new().expiration(Expiration::After(60 * SECOND));
    topic.subscribe("expiring", expiring).await.unwrap();
    topic.publish("0").await.unwrap();
    let since = bus.now();
    assert!(waiting("1").await.unwrap().is_ok(), "LIB-42: the subscription expires");
    assert_eq!(bus.now(), since + 60 * SECOND);

    let short = SubscriptionConfig::new().retention(30 * SECOND);
    let short = topic.subscribe("short", short).await.unwrap();
    topic.publish("0").await.unwrap();
    let since = bus.now();
    assert!(waiting("1").await.unwrap().is_ok(), "LIB-42: the message expires");
    assert!(bus.now() <= since + 31 * SECOND);
    assert_eq!(drain(&short), ["1"]);

    topic.publish("0").await.unwrap();
    let waiter = waiting("1");
    tokio::task::yield_now().await;
    topic.delete().await.unwrap();
    let error = waiter.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "LIB-42");
    assert_eq!(error.into_messages(), [Message::new("1")]);

    let topic = bus.create_topic("other", TopicConfig::new()).await.unwrap();
    let kept = topic.subscribe("kept", SubscriptionConfig::new()).await.unwrap();
    topic.publish("0").await.unwrap();
    let waiter = tokio::spawn(async move { topic.publish("1").await });
    tokio::task::yield_now().await;
    drop(bus);
    assert_eq!(waiter.await.unwrap().unwrap_err().code(), Code::Unavailable, "LIB-42");
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn lib_42_time_frees_one_topic_for_the_publisher_of_another() {
    let (bus, topic, subscription) = world(4).await;
    let other = bus.create_topic("other", TopicConfig::new()).await.unwrap();
    let short = SubscriptionConfig::new().retention(40 * SECOND);
    let stuck = other.subscribe("stuck", short).await.unwrap();
    for _ in 0..3 {
        other.publish("x").await.unwrap();
    }
    topic.publish("0").await.unwrap();
    let since = bus.now();
    // Nobody calls the bus meanwhile.
    topic.publish("1").await.unwrap();
    assert!(bus.now() > since + 39 * SECOND && bus.now() < since + 42 * SECOND, "LIB-42");
    assert_eq!((stuck.stats().expired_messages, subscription.stats().backlog), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn lib_42_a_publisher_that_waits_is_reported() {
    let (bus, topic, subscription) = world(1).await;
    let mut events = bus.events();
    topic.publish("0").await.unwrap();
    let error = topic.publish_timeout("1", 3 * SECOND).await.unwrap_err();
    assert!(matches!(error.reason(), PublishReason::TimedOut { .. }), "LIB-42");
    assert_eq!((error.code(), error.into_messages().len()), (Code::DeadlineExceeded, 1));
    let blocked =
        Event::PublisherBlocked { topic: "t".into(), waiting: 1, subscription: Some("s".into()) };
    assert_eq!(events.try_next(), Some(blocked), "LIB-42");
    drain(&subscription);
    topic.publish_timeout("1", SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lib_41_a_subscriber_that_never_acks_holds_up_until_its_retention() {
    let bus = Bus::builder().budget(Budget::new(10 * ONE)).build();
    let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
    let other = bus.create_topic("other", TopicConfig::new()).await.unwrap();
    let worker = other.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    let short = SubscriptionConfig::new().retention(100 * SECOND);
    let silent = topic.subscribe("silent", short).await.unwrap();
    let hoarding = tokio::spawn({
        let silent = silent.clone();
        async move {
            while let Ok(batch) = silent.pull(10).await {
                for delivery in batch {
                    let _ = delivery.into_ack_id();
                }
            }
        }
    });
    let since = bus.now();
    for _ in 0..10 {
        topic.publish("x").await.unwrap();
    }
    let late = topic.publish_timeout("y", 50 * SECOND).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "LIB-41");
    other.publish("z").await.unwrap();
    assert_eq!(drain(&worker), ["z"], "LIB-41: a topic below its reserve goes on");
    assert!(silent.stats().expired_leases >= 10);
    topic.publish("y").await.unwrap();
    assert!(bus.now() >= since + 100 * SECOND && bus.now() <= since + 102 * SECOND, "LIB-41");
    assert_eq!(silent.stats().expired_messages, 10, "RET-1: counted, so nothing is lost silently");
    bus.audit().assert_balanced();
    hoarding.abort();
}

#[tokio::test(start_paused = true)]
async fn lib_41_a_pipeline_cannot_block_itself() {
    for budget in [Budget::default(), Budget::new(1), Budget::new(ONE), Budget::new(5 * ONE)] {
        let budget = if budget.bytes == 1 { Budget::new(ONE) } else { budget };
        let bus = Bus::builder().budget(budget).build();
        let raw = bus.create_topic("raw", TopicConfig::new()).await.unwrap();
        let cooked = bus.create_topic("cooked", TopicConfig::new()).await.unwrap();
        let cook = raw.subscribe("cook", SubscriptionConfig::new()).await.unwrap();
        let eater = cooked.subscribe("eater", SubscriptionConfig::new()).await.unwrap();
        let source = tokio::spawn(async move {
            for _ in 0..300 {
                raw.publish("x").await.unwrap();
            }
        });
        let middle = tokio::spawn(async move {
            let mut done = 0;
            while done < 300 {
                for delivery in cook.pull(8).await.unwrap() {
                    cooked.publish("y").await.unwrap();
                    delivery.ack();
                    done += 1;
                }
            }
        });
        let mut eaten = 0;
        while eaten < 300 {
            eaten += eater.pull(4).await.unwrap().ack_all().done;
        }
        source.await.unwrap();
        middle.await.unwrap();
        bus.audit().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn lib_41_one_poisoned_message_does_not_block_the_rest() {
    for limit in [None, Some(BacklogLimit::new(3))] {
        let (bus, topic, subscription) = with_limit(4, limit).await;
        let consumer = tokio::spawn(async move {
            let mut done = 0;
            while done < 200 {
                for delivery in subscription.pull(2).await.unwrap() {
                    if delivery.data() == "poison" {
                        delivery.nack_after(Duration::from_millis(10));
                    } else {
                        done += 1;
                        delivery.ack();
                    }
                }
            }
            subscription
        });
        topic.publish("poison").await.unwrap();
        for _ in 0..200 {
            topic.publish("x").await.unwrap();
        }
        let subscription = consumer.await.unwrap();
        assert_eq!(subscription.stats().backlog, 1, "LIB-41");
        bus.audit().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn lib_43_what_is_done_for_a_delivery_and_by_permit_never_waits() {
    let (bus, topic, subscription) = world(1).await;
    topic.publish("0").await.unwrap();
    let delivery = take_one(&subscription);
    topic.publish_for(&delivery, "1").unwrap();
    assert!(topic.try_publish("2").is_err(), "LIB-43: it is charged");
    delivery.ack();
    assert!(topic.try_publish("2").is_err());
    let (_elsewhere, _topic, other) = world(1).await;
    _topic.publish("x").await.unwrap();
    let foreign = take_one(&other);
    let misused = reason(topic.publish_for(&foreign, "x"));
    assert!(matches!(misused, PublishReason::Misused { .. }), "LIB-43");
    drain(&subscription);

    let permit = topic.reserve(1 + 16).await.unwrap();
    assert!(topic.try_publish("2").is_err(), "LIB-43: a permit holds room");
    let mut next = pin!(topic.reserve(17));
    assert!(poll_once(next.as_mut()).is_pending());
    permit.publish("3").unwrap();
    assert!(poll_once(next.as_mut()).is_pending());
    assert_eq!(drain(&subscription), ["3"]);
    let Poll::Ready(Ok(permit)) = poll_once(next.as_mut()) else { panic!("LIB-43") };
    let large = permit.publish("larger than that").unwrap_err();
    assert_eq!(large.into_messages().len(), 1);
    topic.try_publish("4").expect("LIB-43: a spent permit holds nothing");
    let error = topic.reserve(10_000).await.unwrap_err();
    assert!(matches!(error.reason(), PublishReason::AboveBudget { .. }));
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_44_history_yields_to_live_messages() {
    let bus = Bus::builder().budget(Budget::new(1_000 * ONE)).build();
    let mut events = bus.events();
    let keeping = TopicConfig::new().retention(3_600 * SECOND);
    let old = bus.create_topic("old", keeping).await.unwrap();
    let live = bus.create_topic("live", TopicConfig::new()).await.unwrap();
    let worker = live.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    for _ in 0..900 {
        old.publish("x").await.unwrap();
    }
    for _ in 0..950 {
        live.publish("x").await.unwrap();
    }
    assert_eq!(worker.stats().backlog, 950, "LIB-44");
    assert!(old.stats().retained_messages < 100);
    let mut yielded = 0;
    while let Some(event) = events.try_next() {
        if let Event::HistoryYielded { topic, count } = event {
            assert_eq!(topic, "old");
            yielded += count;
        }
    }
    assert!(yielded >= 850, "LIB-44: {yielded}");
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_45_a_full_subscription_lets_publishers_wait() {
    let (bus, topic, subscription) = with_limit(1_000, Some(BacklogLimit::new(2))).await;
    let free = topic.subscribe("free", SubscriptionConfig::new()).await.unwrap();
    topic.publish_many(["0", "1"]).await.unwrap();
    let mut waiter = pin!(topic.publish("2"));
    assert!(poll_once(waiter.as_mut()).is_pending(), "LIB-45");
    let refused = reason(topic.try_publish("3"));
    assert!(matches!(refused, PublishReason::NoRoom { .. }));
    let never = topic.publish_many(["3", "4", "5"]).await.unwrap_err();
    assert!(matches!(
        never.reason(),
        PublishReason::NoRoom { .. } | PublishReason::AboveLimit { .. }
    ));
    let held = take(&subscription, 2);
    assert!(poll_once(waiter.as_mut()).is_pending(), "LIB-45: leased counts");
    drop(held);
    take_one(&subscription).ack();
    assert!(poll_once(waiter.as_mut()).is_ready(), "LIB-45");
    assert_eq!(drain(&subscription).len(), 2);
    assert_eq!(drain(&free), ["0", "1", "2"]);
    let never = topic.publish_many(["3", "4", "5"]).await.unwrap_err();
    assert!(matches!(never.reason(), PublishReason::AboveLimit { max: 2, .. }), "LIB-45");
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_45_changing_the_limit_acts_at_once() {
    let (_bus, topic, subscription) = with_limit(1_000, Some(BacklogLimit::new(1))).await;
    topic.publish("0").await.unwrap();
    let mut waiter = pin!(topic.publish("1"));
    assert!(poll_once(waiter.as_mut()).is_pending());
    let update = SubscriptionUpdate::new().backlog_limit(Some(BacklogLimit::new(2)));
    subscription.update(update).await.unwrap();
    assert!(poll_once(waiter.as_mut()).is_ready(), "LIB-45");
    assert!(topic.try_publish("2").is_err());
    subscription.update(SubscriptionUpdate::new().backlog_limit(None)).await.unwrap();
    topic.publish_many(["2", "3", "4"]).await.unwrap();
    let newest = BacklogLimit::new(2).overflow(Overflow::DropOldest);
    subscription.update(SubscriptionUpdate::new().backlog_limit(Some(newest))).await.unwrap();
    assert_eq!(drain(&subscription), ["3", "4"], "LIB-45");
    let zero = SubscriptionUpdate::new().backlog_limit(Some(BacklogLimit::new(0)));
    assert_eq!(subscription.update(zero).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn lib_45_reject_gives_the_messages_back() {
    let limit = BacklogLimit::new(1).overflow(Overflow::Reject);
    let (_bus, topic, subscription) = with_limit(1_000, Some(limit)).await;
    topic.publish("0").await.unwrap();
    let error = topic.publish("1").await.unwrap_err();
    assert_eq!(error.reason(), &PublishReason::BacklogFull { subscription: "s".into() }, "LIB-45");
    assert_eq!((error.code(), error.into_messages().len()), (Code::ResourceExhausted, 1));
    drain(&subscription);
    topic.publish("2").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lib_45_drop_oldest_keeps_the_newest_that_nobody_has_in_hand() {
    let limit = BacklogLimit::new(3).overflow(Overflow::DropOldest);
    let (bus, topic, subscription) = with_limit(1_000, Some(limit)).await;
    let mut events = bus.events();
    topic.publish_many(["0", "1", "2"]).await.unwrap();
    let held = take_one(&subscription);
    topic.publish_many(["3", "4", "5", "6"]).await.unwrap();
    assert_eq!(subscription.stats().backlog, 4);
    let dropped = Event::MessagesDropped { subscription: "s".into(), count: 3 };
    assert_eq!(events.try_next(), Some(dropped), "LIB-45");
    drop(held);
    topic.publish("7").await.unwrap();
    assert_eq!(drain(&subscription), ["5", "6", "7"], "LIB-45");
    topic.publish_many(["1", "2", "3", "4", "5"]).await.unwrap();
    assert_eq!(subscription.stats().dropped_messages, 3 + 2 + 2);
    assert_eq!(drain(&subscription), ["3", "4", "5"]);
    bus.audit().assert_balanced();
}

/// A message of this many bytes in all.
fn sized(bytes: usize) -> Message {
    Message::new(vec![b'x'; bytes - 16])
}

#[tokio::test(start_paused = true)]
async fn lib_45_a_limit_in_bytes_is_exact_on_both_sides() {
    let (bus, topic, subscription) = with_limit(10_000, Some(BacklogLimit::of_bytes(100))).await;
    topic.try_publish(sized(100)).unwrap();
    drain(&subscription);
    let never = topic.publish(sized(101)).await.unwrap_err();
    let above = PublishReason::AboveByteLimit { subscription: "s".into(), bytes: 101, max: 100 };
    assert_eq!(never.reason(), &above, "LIB-45");
    assert_eq!((never.code(), never.into_messages().len()), (Code::InvalidArgument, 1));
    let never = topic.publish_many([sized(50), sized(51)]).await.unwrap_err();
    assert!(matches!(never.reason(), PublishReason::AboveByteLimit { bytes: 101, .. }));

    topic.publish_many([sized(40), sized(60)]).await.unwrap();
    assert_eq!(subscription.stats().backlog_bytes, Some(100));
    assert!(topic.try_publish(sized(16)).is_err(), "LIB-45");
    let mut waiter = pin!(topic.publish(sized(41)));
    assert!(poll_once(waiter.as_mut()).is_pending(), "LIB-45");
    let mut held = take(&subscription, 2);
    assert_eq!(subscription.stats().backlog_bytes, Some(100), "LIB-45: leased counts");
    held.remove(0).ack();
    assert!(poll_once(waiter.as_mut()).is_pending(), "LIB-45: 40 are not enough for 41");
    held.remove(0).ack();
    assert!(poll_once(waiter.as_mut()).is_ready(), "LIB-45");
    assert_eq!(subscription.stats().backlog_bytes, Some(41));
    topic.try_publish(sized(59)).unwrap();
    assert!(topic.try_publish(sized(16)).is_err());
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_45_either_limit_may_be_reached_first() {
    let limit = BacklogLimit::new(3).bytes(100).overflow(Overflow::Reject);
    let (_bus, topic, subscription) = with_limit(10_000, Some(limit)).await;
    for _ in 0..3 {
        topic.try_publish(sized(20)).unwrap();
    }
    let full = PublishReason::BacklogFull { subscription: "s".into() };
    assert_eq!(reason(topic.try_publish(sized(20))), full, "LIB-45: messages");
    take_one(&subscription).ack();
    assert_eq!(reason(topic.try_publish(sized(61))), full, "LIB-45: bytes");
    topic.try_publish(sized(60)).unwrap();
    let zero = SubscriptionUpdate::new().backlog_limit(Some(BacklogLimit::of_bytes(0)));
    assert_eq!(subscription.update(zero).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn lib_45_drop_oldest_keeps_within_the_bytes() {
    let limit = BacklogLimit::of_bytes(100).overflow(Overflow::DropOldest);
    let (bus, topic, subscription) = with_limit(10_000, Some(limit)).await;
    for bytes in [30, 31, 32, 33] {
        topic.publish(sized(bytes)).await.unwrap();
    }
    let sizes = |deliveries: &[siftbus::Delivery]| -> Vec<usize> {
        deliveries.iter().map(|delivery| delivery.data().len() + 16).collect()
    };
    let held = take(&subscription, 10);
    assert_eq!(sizes(&held), [31, 32, 33], "LIB-45");
    topic.publish(sized(50)).await.unwrap();
    assert_eq!(subscription.stats().backlog_bytes, Some(96), "LIB-45: nothing else can go");
    drop(held);
    topic.publish(sized(20)).await.unwrap();
    assert_eq!(sizes(&take(&subscription, 10)), [32, 20, 33], "LIB-45");
    assert_eq!(subscription.stats().dropped_messages, 3);
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_45_a_limit_in_bytes_counts_what_was_there_before() {
    for filter in [Filter::all(), Filter::has("k")] {
        let (bus, topic, _all) = world(1_000_000).await;
        let config = SubscriptionConfig::new().filter(filter);
        let subscription = topic.subscribe("limited", config).await.unwrap();
        let message = |bytes: usize| sized(bytes - 2).with_attribute("k", "v");
        // More than one round of weighing; a message stuck in front, gaps behind.
        for _ in 0..5_000 {
            topic.publish(message(20)).await.unwrap();
        }
        let mut held = take(&subscription, 3_000);
        let stuck = held.remove(0);
        held.into_iter().for_each(|delivery| drop(delivery.ack()));
        let newest = BacklogLimit::of_bytes(2_001 * 20 + 10);
        let update = SubscriptionUpdate::new().backlog_limit(Some(newest));
        subscription.update(update).await.unwrap();
        for _ in 0..2 {
            let _ = topic.try_publish(message(100));
        }
        assert_eq!(subscription.stats().backlog_bytes, Some(2_001 * 20), "LIB-45");
        stuck.ack();
        topic.try_publish(message(30)).unwrap();
        assert!(topic.try_publish(message(18)).is_err(), "LIB-45");
        bus.audit().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn lib_45_the_bytes_agree_with_the_backlog_whatever_happens() {
    let mut compared = 0;
    for seed in 0..40u64 {
        let clock = siftbus::ManualClock::new();
        let bus = Bus::builder().clock(siftbus::Clock::manual(&clock)).seed(seed).build();
        let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
        let mut config = SubscriptionConfig::new().retention(100 * SECOND).retain_acked(true);
        config.message_ordering = seed % 3 == 0;
        if seed % 2 == 0 {
            config = config.filter(Filter::has("k"));
        }
        config.backlog_limit = Some(BacklogLimit::of_bytes(3_000).overflow(Overflow::Reject));
        let subscription = topic.subscribe("s", config).await.unwrap();
        let mut random = seed * 0x9e37_79b9 + 1;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut held = Vec::new();
        let start = clock.now();
        for step in 0..400 {
            match next(10) {
                0..=3 => {
                    let mut message = sized(16 + next(60) as usize);
                    if next(3) > 0 {
                        message = message.with_attribute("k", "v");
                    }
                    if seed % 3 == 0 {
                        message = message.with_ordering_key(["a", "b"][next(2) as usize]);
                    }
                    let _ = topic.try_publish(message);
                }
                4 | 5 => held.extend(take(&subscription, 1 + next(5) as usize)),
                6 | 7 if !held.is_empty() => {
                    let at = next(held.len() as u64) as usize;
                    held.swap_remove(at).ack();
                }
                8 if !held.is_empty() => drop(held.swap_remove(0)),
                9 if next(8) == 0 => subscription.purge().await.unwrap(),
                9 if next(8) == 0 => subscription.seek(start).await.unwrap(),
                _ => clock.advance(Duration::from_secs(next(8))),
            }
            // What a seek brings back through a filter is known once it was looked through, and
            // then counted from the next publish on.
            let _ = topic.try_publish(sized(4_000).with_attribute("k", "v"));
            if let Some(counted) = subscription.stats().backlog_bytes {
                let there = subscription.peek(1_000);
                let bytes: usize = there.iter().map(|peeked| peeked.message.size()).sum();
                assert_eq!(counted, bytes as u64, "LIB-45: seed {seed}, step {step}");
                compared += 1;
            }
        }
        drop(held);
        bus.audit().assert_balanced();
    }
    assert!(compared > 10_000, "{compared} comparisons");
}

#[tokio::test(start_paused = true)]
async fn lib_42_a_seek_wakes_who_waits_and_a_seek_back_holds_up() {
    for limit in [BacklogLimit::new(2), BacklogLimit::of_bytes(40)] {
        let bus = Bus::new();
        let topic = bus.create_topic("t", TopicConfig::new()).await.unwrap();
        let config = SubscriptionConfig::new().backlog_limit(limit).retain_acked(true);
        let subscription = topic.subscribe("s", config).await.unwrap();
        let start = bus.now();
        topic.publish_many([sized(20), sized(20)]).await.unwrap();
        let count = WakeCount::new();
        let waker = Waker::from(count.clone());
        let mut waiter = pin!(topic.publish(sized(20)));
        assert!(waiter.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        subscription.purge().await.unwrap();
        assert_eq!(count.get(), 1, "LIB-42: a purge makes room");
        assert!(poll_once(waiter.as_mut()).is_ready(), "LIB-42");
        drain(&subscription);
        assert_eq!(subscription.stats().backlog, 0);
        // Three come back: one more than there may be.
        subscription.seek(start).await.unwrap();
        assert_eq!(subscription.stats().backlog, 3);
        assert!(topic.try_publish(sized(20)).is_err(), "LIB-45: what came back counts");
        take_one(&subscription).ack();
        assert!(topic.try_publish(sized(20)).is_err());
        take_one(&subscription).ack();
        topic.try_publish(sized(20)).unwrap();
        bus.audit().assert_balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn lib_45_a_filter_decides_whose_limit_counts() {
    let (bus, topic, all) = world(1_000).await;
    let config =
        SubscriptionConfig::new().filter(Filter::eq("k", "a")).backlog_limit(BacklogLimit::new(2));
    let limited = topic.subscribe("limited", config).await.unwrap();
    let message = |value| Message::new("x").with_attribute("k", value);
    topic.publish_many([message("a"), message("b"), message("a")]).await.unwrap();
    topic.publish(message("b")).await.unwrap();
    let mut waiter = pin!(topic.publish(message("a")));
    assert!(poll_once(waiter.as_mut()).is_pending(), "LIB-45");
    take_one(&limited).ack();
    assert!(poll_once(waiter.as_mut()).is_ready(), "LIB-45");
    assert_eq!(drain(&limited).len(), 2);
    assert_eq!(drain(&all).len(), 5);
    assert!(nothing_ready(&limited));
    bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_42_a_waiting_call_may_be_dropped_after_any_poll() {
    for polls in 0..4 {
        let (bus, topic, subscription) = world(1).await;
        topic.publish("0").await.unwrap();
        {
            let mut publishing = pin!(topic.publish("d"));
            let mut reserving = pin!(topic.reserve(1));
            let mut timing = pin!(topic.publish_timeout("d", SECOND));
            for _ in 0..polls {
                assert!(poll_once(publishing.as_mut()).is_pending());
                assert!(poll_once(reserving.as_mut()).is_pending());
                assert!(poll_once(timing.as_mut()).is_pending());
            }
            // All three had been woken, or would be next.
            take_one(&subscription).ack();
        }
        assert_eq!(topic.stats().publishers_waiting, 0, "LIB-42");
        topic.try_publish("1").expect("LIB-42: a dropped waiter holds nothing");
        assert_eq!(drain(&subscription), ["1"], "D6: dropped before it was ready: not published");
        bus.audit().assert_balanced();
    }
}
