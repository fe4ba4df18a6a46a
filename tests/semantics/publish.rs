//! Section 3: publish (PUB). Sizes and counts are in `limits.rs`.

use bytes::Bytes;
use siftbus::{Code, Message, MessageId, SubscriptionConfig, TopicConfig};

use crate::support::{HOUR, MILLI, SECOND, World, drain, nothing_ready, take, take_one, text_of};

#[tokio::test(start_paused = true)]
async fn pub_01_google_needs_data_or_an_attribute() {
    let google = World::google().await;
    for empty in [Message::new(""), Message::new("").with_ordering_key("key alone")] {
        let error = google.topic.publish(empty.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument); // PUB-1, ERR-21
        assert_eq!(error.into_messages(), [empty]);
    }
    // PUB-1: an attribute with an empty value counts.
    google.topic.publish(Message::new("").with_attribute("k", "")).await.unwrap();
    google.topic.publish("data alone").await.unwrap();
    // D10: the embedded preset allows empty messages.
    let embedded = World::new().await;
    embedded.topic.publish(Message::new("")).await.unwrap();
    assert_eq!(drain(&embedded.worker), [""]);
}

#[tokio::test(start_paused = true)]
async fn pub_02_a_request_is_all_or_nothing() {
    let w = World::new().await;
    let batch = || {
        let bad = Message::new("bad").with_attribute("", "empty key");
        [Message::new("good"), bad, Message::new("good too")]
    };
    let error = w.topic.publish_many(batch()).await.unwrap_err();
    // PUB-2; D16: all messages come back, in order.
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.into_messages(), batch());
    let error = w.topic.try_publish_many(batch()).unwrap_err();
    assert_eq!(error.into_messages(), batch());
    assert!(nothing_ready(&w.worker));
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn pub_03_one_id_per_message_in_request_order() {
    let w = World::new().await;
    let receipts = w.topic.publish_many(["a", "b", "c"]).await.unwrap();
    let ids: Vec<MessageId> = receipts.ids().collect();
    let delivered: Vec<(MessageId, String)> =
        take(&w.worker, 10).iter().map(|d| (d.id(), text_of(d.message()))).collect();
    // PUB-3
    assert_eq!(receipts.len(), 3);
    let expected: Vec<_> = ids.iter().copied().zip(["a", "b", "c"].map(String::from)).collect();
    assert_eq!(delivered, expected);
    assert_eq!(receipts.iter().map(|receipt| receipt.id()).collect::<Vec<_>>(), ids);
}

#[tokio::test(start_paused = true)]
async fn pub_04_ids_are_decimal_increase_over_the_bus_and_are_never_reused() {
    let w = World::new().await;
    let mut ids = w.publish(&["a", "b"]).await;
    let other = w.bus.create_topic("other", TopicConfig::new()).await.unwrap();
    ids.push(other.publish("c").await.unwrap().id());
    ids.extend(w.topic.publish_many(["d", "e"]).await.unwrap().ids());
    w.topic.delete().await.unwrap();
    let again = w.bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    ids.push(again.publish("f").await.unwrap().id());
    // PUB-4, D13
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    for id in ids {
        let text = id.to_string();
        assert_eq!(text, id.as_u64().to_string());
        assert_eq!(text.parse::<MessageId>().unwrap(), id);
    }
}

#[tokio::test(start_paused = true)]
async fn pub_05_id_and_time_belong_to_the_bus_also_when_a_message_is_published_again() {
    let w = World::new().await;
    let first = w.topic.publish("again").await.unwrap().id();
    let delivery = take_one(&w.worker);
    w.clock.advance(HOUR);
    let second = w.topic.publish(delivery.message().clone()).await.unwrap().id();
    delivery.ack().await.unwrap();
    let copy = take_one(&w.worker);
    // PUB-5
    assert!(second > first);
    assert_eq!((copy.id(), copy.publish_time()), (second, w.clock.now()));
}

#[tokio::test(start_paused = true)]
async fn pub_06_one_publish_time_per_request_that_never_decreases() {
    let w = World::new().await;
    let start = w.clock.now();
    w.topic.publish_many(["a", "b", "c"]).await.unwrap();
    w.clock.advance(1_234 * MILLI);
    w.topic.publish("d").await.unwrap();
    let times: Vec<_> = take(&w.worker, 10).iter().map(|d| d.publish_time()).collect();
    // PUB-6: the bus's time at receipt.
    assert_eq!(times, [start, start, start, start + 1_234 * MILLI]);
}

#[tokio::test(start_paused = true)]
async fn pub_07_fan_out_gives_every_subscription_the_same_message_with_a_lease_of_its_own() {
    let w = World::new().await;
    let second = w.topic.subscribe("second", SubscriptionConfig::new()).await.unwrap();
    let receipt = w.topic.publish("a").await.unwrap();
    assert_eq!(receipt.recipients(), Some(2)); // D12
    let (left, right) = (take_one(&w.worker), take_one(&second));
    // PUB-7
    assert_eq!(left.id(), receipt.id());
    assert_eq!((left.id(), left.publish_time()), (right.id(), right.publish_time()));
    assert_eq!(left.message(), right.message());
    assert_ne!(left.ack_id(), right.ack_id());
    left.ack().await.unwrap();
    right.nack().await.unwrap();
    assert!(nothing_ready(&w.worker));
    assert_eq!(take_one(&second).attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn pub_08_a_later_subscription_does_not_see_the_message() {
    let w = World::new().await;
    w.publish(&["before"]).await;
    let late = w.topic.subscribe("late", SubscriptionConfig::new()).await.unwrap();
    // PUB-8
    assert_eq!(late.stats().backlog, 0);
    assert!(nothing_ready(&late));
    w.publish(&["after"]).await;
    assert_eq!(drain(&late), ["after"]);
    assert_eq!(drain(&w.worker), ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn pub_09_publishing_without_subscriptions_succeeds() {
    let w = World::new().await;
    let forgets = w.bus.create_topic("forgets", TopicConfig::new()).await.unwrap();
    let keeps = w.bus.create_topic("keeps", TopicConfig::new().retention(HOUR)).await.unwrap();
    // PUB-9: kept only if the topic has retention.
    assert_eq!(forgets.publish("a").await.unwrap().recipients(), Some(0));
    assert_eq!(keeps.publish("a").await.unwrap().recipients(), Some(0));
    assert_eq!(forgets.stats().retained_messages, 0);
    assert_eq!(keeps.stats().retained_messages, 1);
}

#[tokio::test(start_paused = true)]
async fn pub_10_a_deleted_topic_is_not_found_and_gives_the_messages_back() {
    let w = World::new().await;
    w.topic.delete().await.unwrap();
    let error = w.topic.publish_many(["a", "b"]).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound); // PUB-10
    assert_eq!(error.into_messages(), [Message::from("a"), Message::from("b")]);
}

#[tokio::test(start_paused = true)]
async fn pub_11_google_refuses_mixed_ordering_keys_in_one_request() {
    let keyed = |key: &'static str| Message::new("x").with_ordering_key(key);
    let mixed = [[keyed("a"), keyed("b")], [keyed("a"), Message::new("x")]];
    let alike = [[keyed("a"), keyed("a")], [Message::new("x"), Message::new("x")]];
    let (google, embedded) = (World::google().await, World::new().await);
    for batch in mixed {
        let error = google.topic.publish_many(batch.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument); // PUB-11, ERR-22
        assert_eq!(error.into_messages(), batch);
        embedded.topic.publish_many(batch).await.unwrap(); // D10
    }
    for batch in alike {
        google.topic.publish_many(batch).await.unwrap();
    }
    assert_eq!((google.worker.stats().backlog, embedded.worker.stats().backlog), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn pub_12_never_delivered_messages_come_in_publish_order() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    w.topic.publish_many(["c", "d", "e"]).await.unwrap();
    // PUB-12
    let first: Vec<String> = take(&w.worker, 2).into_iter().map(ack).collect();
    assert_eq!(first, ["a", "b"]);
    w.publish(&["f"]).await;
    assert_eq!(drain(&w.worker), ["c", "d", "e", "f"]);
}

#[tokio::test(start_paused = true)]
async fn pub_12_redeliveries_come_in_publish_order_whatever_the_order_of_failure() {
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    let mut held = take(&w.worker, 3);
    held.reverse();
    for delivery in held {
        delivery.nack().await.unwrap();
    }
    assert_eq!(drain(&w.worker), ["a", "b", "c"]); // PUB-12
}

#[tokio::test(start_paused = true)]
async fn pub_12_redeliveries_take_at_most_every_second_place_while_fresh_messages_wait() {
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    drop(take(&w.worker, 3));
    w.publish(&["u", "v"]).await;
    // L13: merged by publish order, but every second place is for a fresh message.
    assert_eq!(drain(&w.worker), ["a", "u", "b", "v", "c"]);

    // The turn is kept from one call to the next, so a poisoned message cannot starve the rest.
    w.publish(&["poison", "x", "y"]).await;
    let mut seen = Vec::new();
    while w.worker.stats().backlog > 1 {
        let delivery = take_one(&w.worker);
        seen.push(text_of(delivery.message()));
        if seen.last().unwrap() == "poison" {
            delivery.nack().await.unwrap();
        } else {
            delivery.ack().await.unwrap();
        }
    }
    let fresh = seen.iter().filter(|text| *text != "poison").count();
    assert!(fresh == 2 && seen.len() <= 5, "{seen:?}");

    // Without fresh messages nothing holds redeliveries back.
    assert_eq!(drain(&w.worker), ["poison"]);
    w.publish(&["p", "q"]).await;
    drop(take(&w.worker, 2));
    w.clock.advance(SECOND);
    assert_eq!(drain(&w.worker), ["p", "q"]);
}

#[tokio::test(start_paused = true)]
async fn pub_15_all_subscriptions_share_one_allocation() {
    let w = World::new().await;
    let second = w.topic.subscribe("second", SubscriptionConfig::new()).await.unwrap();
    let data = Bytes::from(vec![7; 64 * 1_024]);
    let address = data.as_ptr();
    w.topic.publish(data).await.unwrap();
    // PUB-15: nothing is copied between the publisher and any consumer.
    assert_eq!(take_one(&w.worker).data().as_ptr(), address);
    assert_eq!(take_one(&second).data().as_ptr(), address);
}

fn ack(delivery: siftbus::Delivery) -> String {
    let text = text_of(delivery.message());
    delivery.ack().outcome().unwrap();
    text
}
