//! Faults on demand: LIB-400 … LIB-406, EOD-10.

use std::time::Duration;

use siftbus::{
    AckError, AckFailure, Code, DeadLetterPolicy, FaultCounts, FlowControl, Message, Outcome,
    PublishReason, RetryPolicy, SubscriptionConfig, SubscriptionUpdate, Topic, TopicConfig,
};

use crate::support::{
    MILLI, MINUTE, SECOND, World, drain, nothing_ready, poll_once, take, take_one, text_of, texts,
};

async fn exactly_once() -> World {
    World::with(SubscriptionConfig::new().exactly_once_delivery(true)).await
}

async fn ordered(config: SubscriptionConfig) -> World {
    World::with(config.message_ordering(true)).await
}

/// Publishes messages of one ordering key.
async fn publish_keyed(topic: &Topic, key: &str, texts: &[&'static str]) {
    for text in texts {
        topic.publish(Message::new(*text).with_ordering_key(key)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn lib_400_what_is_armed_and_what_has_happened_can_be_seen() {
    let w = World::new().await;
    let faults = w.worker.faults();
    assert_eq!((faults.armed(), faults.injected()), <(FaultCounts, FaultCounts)>::default());
    faults.lose_acks(2);
    faults.duplicate_deliveries(1);
    assert_eq!((faults.armed().lost_acks, faults.armed().duplicates), (2, 1), "LIB-400");
    w.publish(&["a", "b"]).await;
    assert_eq!(drain(&w.worker), ["a", "b"]);
    assert_eq!((faults.armed().lost_acks, faults.injected().lost_acks), (0, 2));
    // LIB-400: all handles share what is armed; disarming leaves what has happened.
    w.worker.clone().faults().disarm();
    assert_eq!(faults.armed(), FaultCounts::default());
    assert_eq!(faults.injected().lost_acks, 2);
    w.clock.advance(10 * SECOND);
    assert_eq!(drain(&w.worker), ["a", "b"]);
    assert!(nothing_ready(&w.worker), "LIB-400: what was disarmed does not happen");
    // LIB-400: only answers that would take effect are struck.
    faults.lose_acks(1);
    let id = {
        w.publish(&["c"]).await;
        let delivery = take_one(&w.worker);
        let id = delivery.ack_id();
        delivery.nack().await.unwrap();
        id
    };
    assert_eq!(w.worker.acknowledge(&[id]).await.unwrap(), [Outcome::Stale]);
    assert_eq!(faults.armed().lost_acks, 1, "LIB-400");
    faults.disarm();
    assert_eq!(drain(&w.worker), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn lib_400_a_fault_may_be_meant_for_one_message() {
    let w = World::new().await;
    let ids = w.publish(&["a", "b", "c"]).await;
    w.worker.faults().of(ids[1]).duplicate_deliveries(1);
    w.worker.faults().of(ids[2]).delay_deliveries(1, SECOND);
    assert_eq!(drain(&w.worker), ["a", "b"]);
    assert_eq!(drain(&w.worker), ["b"], "LIB-400");
    w.clock.advance(SECOND);
    assert_eq!(drain(&w.worker), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn lib_401_a_lost_ack_looks_like_any_other() {
    let w = World::new().await;
    w.worker.faults().lose_acks(1);
    w.publish(&["a", "b"]).await;
    let outcome = w.worker.try_pull(10).unwrap().ack_all();
    assert_eq!((outcome.done, outcome.stale), (2, 0), "LIB-401");
    assert_eq!((w.worker.stats().outstanding, w.worker.stats().acknowledged), (1, 1));
    w.clock.advance(10 * SECOND - MILLI);
    assert!(nothing_ready(&w.worker), "LIB-401, DL-3: the lease goes on");
    w.clock.advance(MILLI);
    let again = take_one(&w.worker);
    assert_eq!((text_of(again.message()), again.attempt()), ("a".to_owned(), 2), "LIB-401");
    assert_eq!(again.ack().await.unwrap(), Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn lib_401_late_acks_and_acks_by_id_are_lost_as_well() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let id = take_one(&w.worker).into_ack_id();
    w.clock.advance(10 * SECOND);
    w.worker.faults().lose_acks(1);
    let ids = std::slice::from_ref(&id);
    assert_eq!(w.worker.acknowledge(ids).await.unwrap(), [Outcome::Done], "LIB-401, LS-8");
    assert_eq!(w.worker.acknowledge(ids).await.unwrap(), [Outcome::Done], "this one arrives");
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn lib_401_a_success_stays_a_promise_with_exactly_once_delivery() {
    let w = exactly_once().await;
    w.worker.faults().lose_acks(1);
    w.publish(&["a"]).await;
    let error = take_one(&w.worker).ack().await.unwrap_err();
    let AckError::ExactlyOnce { failures } = &error else { panic!("{error:?}") };
    assert_eq!(failures[0].1, AckFailure::Transient, "LIB-401, EOD-1");
    assert!(error.is_transient());
    let id = failures[0].0.clone();
    assert_eq!(w.worker.acknowledge(&[id]).await.unwrap(), [Outcome::Done], "EOD-10");
    w.clock.advance(MINUTE);
    assert!(nothing_ready(&w.worker), "EOD-1");
}

#[tokio::test(start_paused = true)]
async fn lib_401_a_lost_ack_takes_the_rest_of_the_key_along() {
    let w = ordered(SubscriptionConfig::new()).await;
    publish_keyed(&w.topic, "k", &["1", "2", "3"]).await;
    w.worker.faults().lose_acks(1);
    let outcome = w.worker.try_pull(10).unwrap().ack_all();
    assert_eq!((outcome.done, outcome.provisional), (1, 2), "ORD-7: the first was not heard of");
    assert!(nothing_ready(&w.worker));
    w.clock.advance(10 * SECOND);
    let batch = w.worker.try_pull(10).unwrap();
    assert_eq!(texts(&batch), ["1", "2", "3"], "LIB-401, ORD-7");
    let attempts: Vec<u32> = batch.iter().map(|delivery| delivery.attempt()).collect();
    assert_eq!(attempts, [2, 1, 1], "ORD-7: only the one that lapsed has failed");
    assert_eq!(batch.ack_all().done, 3);
}

#[tokio::test(start_paused = true)]
async fn lib_402_a_delayed_delivery_is_overtaken() {
    let w = World::new().await;
    w.worker.faults().delay_deliveries(1, 5 * SECOND);
    w.publish(&["a", "b"]).await;
    assert_eq!(drain(&w.worker), ["b"], "LIB-402");
    assert_eq!((w.worker.stats().delayed, w.worker.stats().backlog), (1, 1));
    assert_eq!(w.worker.faults().injected().delayed_deliveries, 1);
    w.clock.advance(5 * SECOND - MILLI);
    assert!(nothing_ready(&w.worker));
    w.clock.advance(MILLI);
    let late = take_one(&w.worker);
    assert_eq!((text_of(late.message()), late.attempt()), ("a".to_owned(), 1), "LIB-402");
    assert_eq!(w.worker.stats().redeliveries, 0, "LIB-402: it is the first delivery");
    late.nack().await.unwrap();
    // LIB-402: a redelivery can be delayed like any other.
    w.worker.faults().delay_deliveries(1, SECOND);
    assert!(nothing_ready(&w.worker));
    w.clock.advance(SECOND);
    let again = take_one(&w.worker);
    assert_eq!((again.attempt(), w.worker.stats().redeliveries), (2, 1));
    again.ack();
}

#[tokio::test(start_paused = true)]
async fn lib_402_whoever_waits_is_woken_when_the_delay_is_over() {
    let w = World::new().await;
    w.worker.faults().delay_deliveries(1, SECOND);
    let mut pull = std::pin::pin!(w.worker.pull(1));
    assert!(poll_once(pull.as_mut()).is_pending());
    w.publish(&["a"]).await;
    assert!(poll_once(pull.as_mut()).is_pending(), "LIB-402");
    w.clock.advance(SECOND);
    assert_eq!(texts(&pull.await.unwrap()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn lib_402_a_delayed_delivery_holds_its_key_up_and_no_other() {
    let w = ordered(SubscriptionConfig::new()).await;
    publish_keyed(&w.topic, "k", &["k1", "k2"]).await;
    publish_keyed(&w.topic, "l", &["l1"]).await;
    w.worker.faults().delay_deliveries(1, SECOND);
    assert_eq!(drain(&w.worker), ["l1"], "LIB-402, ORD-3");
    assert_eq!(w.worker.stats().blocked, 1, "k2 waits for k1");
    w.clock.advance(SECOND);
    let batch = w.worker.try_pull(10).unwrap();
    assert_eq!(texts(&batch), ["k1", "k2"], "ORD-3");
    assert!(batch.iter().all(|delivery| delivery.attempt() == 1));
    assert_eq!(batch.ack_all().done, 2);
}

#[tokio::test(start_paused = true)]
async fn lib_402_a_delay_in_the_middle_of_a_key_keeps_what_came_before() {
    let w = ordered(SubscriptionConfig::new()).await;
    publish_keyed(&w.topic, "k", &["1", "2", "3"]).await;
    let mut stream = w.worker.stream(FlowControl::new().max_outstanding_messages(10)).unwrap();
    let first = stream.next().await.unwrap().unwrap();
    w.worker.faults().delay_deliveries(1, SECOND);
    {
        let mut next = std::pin::pin!(stream.next());
        assert!(poll_once(next.as_mut()).is_pending(), "ORD-6: 3 does not overtake 2");
    }
    assert_eq!(w.worker.stats().outstanding, 1, "LIB-402: the quota is free again");
    assert!(nothing_ready(&w.worker), "ORD-8");
    w.clock.advance(SECOND);
    for expected in ["2", "3"] {
        let delivery = stream.next().await.unwrap().unwrap();
        assert_eq!(text_of(delivery.message()), expected);
        assert_eq!(delivery.ack().await.unwrap(), Outcome::Provisional);
    }
    assert_eq!(first.ack().await.unwrap(), Outcome::Done);
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn lib_402_retention_does_not_wait_for_the_delay() {
    let w = World::with(SubscriptionConfig::new().retention(SECOND)).await;
    w.worker.faults().delay_deliveries(1, MINUTE);
    w.publish(&["a"]).await;
    assert!(nothing_ready(&w.worker));
    w.clock.advance(SECOND);
    assert_eq!(w.worker.stats().backlog, 0, "LIB-402, RET-1");
    w.clock.advance(MINUTE);
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn lib_403_a_duplicate_comes_after_a_successful_ack() {
    let w = World::new().await;
    w.worker.faults().duplicate_deliveries(1);
    w.publish(&["a", "b"]).await;
    let outcome = w.worker.try_pull(10).unwrap().ack_all();
    assert_eq!((outcome.done, outcome.stale), (2, 0), "LIB-403");
    let again = take_one(&w.worker);
    assert_eq!((text_of(again.message()), again.attempt()), ("a".to_owned(), 1), "LIB-403");
    assert_eq!(again.ack().await.unwrap(), Outcome::Done);
    assert!(nothing_ready(&w.worker));
    assert_eq!((w.worker.stats().acknowledged, w.worker.faults().injected().duplicates), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn lib_403_whoever_waits_gets_the_duplicate() {
    let w = World::new().await;
    w.worker.faults().duplicate_deliveries(2);
    w.publish(&["a"]).await;
    let first = take_one(&w.worker);
    let mut pull = std::pin::pin!(w.worker.pull(1));
    assert!(poll_once(pull.as_mut()).is_pending());
    first.ack();
    let second = pull.await.unwrap();
    assert_eq!(texts(&second), ["a"], "LIB-403");
    // A late ack is struck, too: the message is delivered again though it lapsed.
    w.clock.advance(10 * SECOND);
    assert_eq!(second.ack_all().done, 1);
    let third = take_one(&w.worker);
    assert_eq!(third.attempt(), 2, "LIB-403: the lapse was a failure, the duplicate is none");
    third.ack();
}

#[tokio::test(start_paused = true)]
async fn lib_403_there_are_no_duplicates_with_exactly_once_delivery() {
    let w = exactly_once().await;
    w.worker.faults().duplicate_deliveries(1);
    w.publish(&["a"]).await;
    assert_eq!(drain(&w.worker), ["a"]);
    assert!(nothing_ready(&w.worker), "LIB-403, EOD-1");
    assert_eq!(w.worker.faults().armed().duplicates, 1, "LIB-403: it is passed over");
    // EOD-2: it strikes the leases handed out after the mode was switched off.
    let off = SubscriptionUpdate::new().exactly_once_delivery(false);
    w.worker.update(off).await.unwrap();
    w.publish(&["b"]).await;
    assert_eq!(drain(&w.worker), ["b"]);
    assert_eq!(drain(&w.worker), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn lib_403_a_duplicate_keeps_the_order_of_its_key() {
    let w = ordered(SubscriptionConfig::new()).await;
    publish_keyed(&w.topic, "k", &["1", "2", "3"]).await;
    let held = take(&w.worker, 3);
    w.worker.faults().duplicate_deliveries(1);
    let mut held = held.into_iter();
    assert_eq!(held.next().unwrap().ack().await.unwrap(), Outcome::Done);
    let stale = held.next().unwrap().ack().await.unwrap();
    assert_eq!(stale, Outcome::Stale, "ORD-7: the later ones were taken back");
    drop(held);
    let batch = w.worker.try_pull(10).unwrap();
    assert_eq!(texts(&batch), ["1", "2", "3"], "LIB-403, ORD-7");
    assert!(batch.iter().all(|delivery| delivery.attempt() == 1), "LIB-403, ORD-7");
    assert_eq!(batch.ack_all().done, 3);
}

#[tokio::test(start_paused = true)]
async fn lib_403_a_provisional_ack_can_be_struck() {
    let w = ordered(SubscriptionConfig::new()).await;
    publish_keyed(&w.topic, "k", &["1", "2", "3"]).await;
    let mut held = take(&w.worker, 3);
    w.worker.faults().duplicate_deliveries(1);
    assert_eq!(held.remove(1).ack().await.unwrap(), Outcome::Provisional);
    assert_eq!((w.worker.stats().provisional, w.worker.stats().outstanding), (0, 1));
    assert_eq!(held.remove(0).ack().await.unwrap(), Outcome::Done);
    drop(held);
    assert_eq!(drain(&w.worker), ["2", "3"], "LIB-403");
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn lib_404_a_lease_ends_as_by_its_deadline() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    let mut held = take(&w.worker, 2);
    let id = held[0].ack_id();
    assert!(w.worker.faults().end_lease(&id), "LIB-404");
    assert!(!w.worker.faults().end_lease(&id), "LIB-404: it runs no longer");
    assert_eq!((w.worker.stats().outstanding, w.worker.stats().expired_leases), (1, 1));
    // LS-9: the id still acts until the next hand-out.
    let first = held.remove(0);
    assert_eq!(first.set_deadline(SECOND).await.unwrap(), Outcome::Done);
    assert!(w.worker.faults().end_lease(&id));
    let again = take_one(&w.worker);
    assert_eq!(again.attempt(), 2, "LIB-404");
    assert_eq!(first.ack().await.unwrap(), Outcome::Stale, "LS-11");
    again.ack();
    drop(held);
    assert_eq!(w.worker.faults().injected().ended_leases, 2);
    let other = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    assert!(!other.faults().end_lease(&id), "LIB-404: an id of another subscription");
    assert_eq!(drain(&w.worker), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn lib_404_all_leases_end_at_once() {
    let w = World::new().await;
    let ids = w.publish(&["a", "b", "c"]).await;
    let held = take(&w.worker, 3);
    assert_eq!(w.worker.faults().of(ids[1]).end_leases(), 1, "LIB-404");
    assert_eq!(drain(&w.worker), ["b"]);
    assert_eq!(w.worker.faults().of(ids[1]).end_leases(), 0);
    let mut pull = std::pin::pin!(w.worker.pull(10));
    assert!(poll_once(pull.as_mut()).is_pending());
    assert_eq!(w.worker.faults().end_leases(), 2, "LIB-404");
    assert_eq!(texts(&pull.await.unwrap()), ["a", "c"], "LIB-404: whoever waits is woken");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn lib_404_more_leases_than_one_hold_of_the_lock_ends() {
    let w = World::new().await;
    const MANY: usize = 10_000;
    w.topic.publish_many((0..MANY).map(|n| n.to_string())).await.unwrap();
    let held = w.worker.try_pull(MANY).unwrap();
    assert_eq!(w.worker.faults().end_leases(), MANY as u64, "LIB-404");
    assert_eq!(w.worker.stats().outstanding, 0);
    let again = w.worker.try_pull(MANY).unwrap();
    assert_eq!((held.ack_all().stale, again.ack_all().done), (MANY, MANY));
}

#[tokio::test(start_paused = true)]
async fn lib_404_an_ended_lease_of_exactly_once_delivery_is_dead() {
    let w = exactly_once().await;
    w.publish(&["a"]).await;
    let first = take_one(&w.worker);
    assert!(w.worker.faults().end_lease(&first.ack_id()));
    let error = first.ack().await.unwrap_err();
    assert!(!error.is_transient(), "LIB-404, EOD-4: {error:?}");
    assert_eq!(drain(&w.worker), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn lib_404_an_ended_lease_counts_for_policies() {
    let retry = RetryPolicy::new().minimum_backoff(SECOND).maximum_backoff(MINUTE);
    let dead = DeadLetterPolicy::new("dead").max_delivery_attempts(2);
    let w = World::new().await;
    let graves = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let grave = graves.subscribe("grave", SubscriptionConfig::new()).await.unwrap();
    let update = SubscriptionUpdate::new().retry_policy(Some(retry)).dead_letter_policy(Some(dead));
    w.worker.update(update).await.unwrap();
    w.publish(&["a"]).await;
    let first = take_one(&w.worker);
    assert!(w.worker.faults().end_lease(&first.ack_id()));
    assert!(nothing_ready(&w.worker), "LIB-404, RTY-2");
    w.clock.advance(SECOND);
    let second = take_one(&w.worker);
    assert_eq!(w.worker.faults().end_leases(), 1);
    assert_eq!(drain(&grave), ["a"], "LIB-404, DLQ-5: without a pull");
    assert_eq!(second.ack().await.unwrap(), Outcome::Stale);
    drop(first);
    assert_eq!(w.worker.stats().dead_lettered, 1);
}

#[tokio::test(start_paused = true)]
async fn lib_404_the_first_of_a_key_takes_the_others_along() {
    let w = ordered(SubscriptionConfig::new()).await;
    publish_keyed(&w.topic, "k", &["1", "2"]).await;
    publish_keyed(&w.topic, "l", &["3"]).await;
    let held = take(&w.worker, 3);
    assert_eq!(w.worker.faults().end_leases(), 2, "LIB-404, ORD-7");
    let batch = w.worker.try_pull(10).unwrap();
    let seen: Vec<(String, u32)> =
        batch.iter().map(|d| (text_of(d.message()), d.attempt())).collect();
    let expected = [("1", 2), ("2", 1), ("3", 2)].map(|(text, n)| (text.to_owned(), n));
    assert_eq!(seen, expected, "ORD-7");
    drop(held);
    assert_eq!(batch.ack_all().done, 3);
}

#[tokio::test(start_paused = true)]
async fn eod_10_transient_failures_can_be_repeated() {
    let w = exactly_once().await;
    w.worker.faults().fail_answers(2);
    w.publish(&["a", "b"]).await;
    let [a, b] = <[_; 2]>::try_from(take(&w.worker, 2)).ok().unwrap();
    let error = a.set_deadline(MINUTE).await.unwrap_err();
    let AckError::ExactlyOnce { failures } = error else { panic!("{error:?}") };
    assert_eq!(failures, [(a.ack_id(), AckFailure::Transient)], "EOD-10, LIB-405");
    assert!(failures[0].1.reason().starts_with("TRANSIENT_"), "EOD-5");
    // EOD-5: the ids of a request have a result each.
    let ids = [b.into_ack_id(), a.into_ack_id()];
    let error = w.worker.acknowledge(&ids).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let AckError::ExactlyOnce { failures } = error else { panic!("{error:?}") };
    assert_eq!(failures, [(ids[0].clone(), AckFailure::Transient)], "EOD-10");
    assert_eq!(w.worker.stats().outstanding, 1);
    assert_eq!(w.worker.acknowledge(&ids[..1]).await.unwrap(), [Outcome::Done]);
    assert_eq!(w.worker.faults().injected().failed_answers, 2);
    w.clock.advance(MINUTE);
    assert!(nothing_ready(&w.worker), "EOD-1");
}

#[tokio::test(start_paused = true)]
async fn lib_405_without_exactly_once_delivery_the_answer_fails_as_well() {
    let w = World::new().await;
    w.worker.faults().fail_answers(1);
    w.publish(&["a", "b"]).await;
    let outcome = w.worker.try_pull(10).unwrap().ack_all();
    assert_eq!((outcome.done, outcome.stale), (1, 1), "LIB-405");
    // LIB-405: what is given back is not concerned.
    w.worker.faults().fail_answers(1);
    w.clock.advance(10 * SECOND);
    take_one(&w.worker).nack().await.unwrap();
    let delivery = take_one(&w.worker);
    assert!(delivery.ack().await.unwrap_err().is_transient());
    assert_eq!(w.worker.stats().outstanding, 1, "LIB-405: the delivery is as it was");
    w.clock.advance(10 * SECOND);
    assert_eq!(drain(&w.worker), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn lib_406_a_publish_fails_with_the_code_asked_for() {
    let w = World::new().await;
    let faults = w.topic.faults();
    faults.fail_publishes(1, Code::Unavailable);
    faults.fail_publishes(1, Code::DeadlineExceeded);
    assert_eq!(faults.armed(), 2);
    let error = w.topic.publish("a").await.unwrap_err();
    let topic = "orders".to_owned();
    let reason = PublishReason::Fault { topic, code: Code::Unavailable };
    assert_eq!((error.reason(), error.code()), (&reason, Code::Unavailable), "LIB-406");
    assert_eq!(error.into_messages(), [Message::new("a")], "PUB-2");
    let error = w.topic.try_publish_many(["b", "c"]).unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "LIB-406: in the order of arming");
    assert_eq!(error.into_messages().len(), 2, "LIB-406, PUB-2: all or none");
    assert_eq!((faults.armed(), faults.injected()), (0, 2));
    w.publish(&["d"]).await;
    assert_eq!(drain(&w.worker), ["d"], "LIB-406: nothing else was published");
    assert_eq!(w.topic.stats().published, 1);
    faults.fail_publishes(1, Code::Unavailable);
    faults.disarm();
    w.publish(&["e"]).await;
    // What would be refused anyway uses no fault up.
    faults.fail_publishes(1, Code::Unavailable);
    let long = Message::new("f").with_attribute("k".repeat(257), "v");
    assert_eq!(w.topic.publish(long).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(faults.armed(), 1);
    assert_eq!(drain(&w.worker), ["e"]);
}

#[tokio::test(start_paused = true)]
async fn lib_406_dead_letters_are_not_concerned() {
    let w = World::new().await;
    let graves = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let grave = graves.subscribe("grave", SubscriptionConfig::new()).await.unwrap();
    let dead = DeadLetterPolicy::new("dead").max_delivery_attempts(1);
    w.worker.update(SubscriptionUpdate::new().dead_letter_policy(Some(dead))).await.unwrap();
    graves.faults().fail_publishes(1, Code::Unavailable);
    w.publish(&["a"]).await;
    take_one(&w.worker).nack().await.unwrap();
    assert_eq!(drain(&grave), ["a"], "LIB-406");
    assert_eq!(graves.faults().armed(), 1);
}

#[tokio::test(start_paused = true)]
async fn lib_400_faults_stay_through_a_seek_and_go_with_the_subscription() {
    let w = World::new().await;
    w.worker.faults().lose_acks(1);
    w.worker.faults().delay_deliveries(1, MINUTE);
    w.publish(&["a"]).await;
    assert!(nothing_ready(&w.worker));
    w.worker.purge().await.unwrap();
    assert_eq!(w.worker.stats().backlog, 0, "SEEK-5: a delayed delivery goes with the rest");
    w.clock.advance(MINUTE);
    assert!(nothing_ready(&w.worker));
    assert_eq!(w.worker.faults().armed().lost_acks, 1, "LIB-400");
    w.publish(&["b"]).await;
    let held = take(&w.worker, 1);
    w.worker.delete().await.unwrap();
    assert_eq!(w.worker.faults().end_leases(), 0);
    drop(held);
    let same = w.topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    assert_eq!(same.faults().armed(), FaultCounts::default(), "LIB-400");
}

#[tokio::test(start_paused = true)]
async fn lib_402_a_delay_of_nothing_changes_nothing() {
    let w = World::new().await;
    w.worker.faults().delay_deliveries(3, Duration::ZERO);
    w.worker.faults().delay_deliveries(0, MINUTE);
    w.publish(&["a", "b"]).await;
    let mut seen = drain(&w.worker);
    seen.sort();
    assert_eq!(seen, ["a", "b"], "LIB-402");
    assert_eq!(w.worker.faults().injected().delayed_deliveries, 3);
}
