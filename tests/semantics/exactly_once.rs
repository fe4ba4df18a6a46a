//! Section 12: exactly-once delivery (EOD).

use siftbus::{
    AckError, AckFailure, AckId, Code, Outcome, Subscription, SubscriptionConfig,
    SubscriptionUpdate, TopicConfig,
};

use crate::support::{HOUR, MILLI, MINUTE, SECOND, World, drain, nothing_ready, take, take_one};

async fn world() -> World {
    World::with(SubscriptionConfig::new().exactly_once_delivery(true)).await
}

/// The ids that failed, with why.
async fn failures(subscription: &Subscription, ids: &[AckId]) -> Vec<(AckId, AckFailure)> {
    match subscription.acknowledge(ids).await {
        Err(AckError::ExactlyOnce { failures }) => failures,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn eod_01_no_delivery_while_outstanding_nor_after_a_successful_ack() {
    let w = world().await;
    w.publish(&["a", "a"]).await;
    let mut held = take(&w.worker, 2);
    assert!(nothing_ready(&w.worker)); // EOD-1
    assert_eq!(held.pop().unwrap().ack().await.unwrap(), Outcome::Done);
    w.clock.advance(HOUR);
    assert_eq!(drain(&w.worker), ["a"], "EOD-1: two publishes are two messages");
}

#[tokio::test(start_paused = true)]
async fn eod_03_only_the_newest_id_is_valid() {
    let w = world().await;
    w.publish(&["a"]).await;
    let old = take_one(&w.worker);
    let id = old.ack_id();
    old.nack().await.unwrap();
    let new = take_one(&w.worker);
    let failed = failures(&w.worker, std::slice::from_ref(&id)).await;
    assert_eq!(failed, [(id.clone(), AckFailure::InvalidAckId)]); // EOD-3, ERR-29
    let modified = w.worker.modify_ack_deadline(&[id], MINUTE).await.unwrap_err();
    assert_eq!(modified.code(), Code::InvalidArgument);
    assert_eq!(new.ack().await.unwrap(), Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn eod_04_a_lapsed_lease_cannot_be_answered() {
    let w = world().await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    let id = delivery.ack_id();
    w.clock.advance(10 * SECOND);
    // EOD-4: though it was not handed out again.
    let modified = delivery.set_deadline(MINUTE).await.unwrap_err();
    assert_eq!(modified.code(), Code::InvalidArgument);
    assert_eq!(failures(&w.worker, &[id]).await.len(), 1);
    assert!(matches!(delivery.ack().await, Err(AckError::ExactlyOnce { .. })));
    assert_eq!(take_one(&w.worker).attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn eod_04_acks_are_judged_by_a_reading_of_their_own() {
    // D15: with tokio's clock an ack reads none, unless exactly-once delivery is on.
    let bus = siftbus::Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let config = SubscriptionConfig::new().exactly_once_delivery(true);
    let worker = topic.subscribe("worker", config).await.unwrap();
    topic.publish_many(["a", "b"]).await.unwrap();
    let mut held: Vec<_> = worker.pull(2).await.unwrap().into_iter().collect();
    tokio::time::advance(10 * SECOND - MILLI).await;
    assert_eq!(held.pop().unwrap().ack().await.unwrap(), Outcome::Done);
    tokio::time::advance(MILLI).await;
    assert!(held.pop().unwrap().ack().await.is_err()); // EOD-4
}

#[tokio::test(start_paused = true)]
async fn eod_05_failing_ids_are_listed_and_the_others_succeed() {
    let w = world().await;
    w.publish(&["a", "b", "c"]).await;
    let ids: Vec<AckId> = take(&w.worker, 3).into_iter().map(|d| d.into_ack_id()).collect();
    assert_eq!(w.worker.acknowledge(&ids[..1]).await.unwrap(), [Outcome::Done]);
    let error = w.worker.acknowledge(&ids).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument); // EOD-5
    assert_eq!(error.to_string(), "Some acknowledgement ids in the request were invalid.");
    let AckError::ExactlyOnce { failures } = error else { panic!("{error:?}") };
    assert_eq!(failures, [(ids[0].clone(), AckFailure::InvalidAckId)]);
    assert_eq!(failures[0].1.reason(), "PERMANENT_FAILURE_INVALID_ACK_ID");
    w.clock.advance(HOUR);
    assert_eq!(w.worker.stats().backlog, 0, "ids not listed succeeded");
}

#[tokio::test(start_paused = true)]
async fn eod_06_a_foreign_id_is_listed_and_the_good_ones_are_applied() {
    let w = world().await;
    let other = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    w.publish(&["a"]).await;
    let ids = [take_one(&other).into_ack_id(), take_one(&w.worker).into_ack_id()];
    assert_eq!(failures(&w.worker, &ids).await, [(ids[0].clone(), AckFailure::InvalidAckId)]);
    assert_eq!(w.worker.stats().backlog, 0); // EOD-6
    assert_eq!(other.stats().backlog, 1);
}

#[tokio::test(start_paused = true)]
async fn eod_06_an_id_of_another_bus_names_nothing_here() {
    // Twins: the same names, made in the same order, and so the same numbers within.
    let (w, twin) = (world().await, world().await);
    w.publish(&["a"]).await;
    twin.publish(&["a"]).await;
    let ids = [take_one(&twin.worker).into_ack_id(), take_one(&w.worker).into_ack_id()];
    let failed = failures(&w.worker, &ids[..1]).await;
    assert_eq!(failed, [(ids[0].clone(), AckFailure::InvalidAckId)]); // EOD-6, ACK-5
    assert_eq!(w.worker.stats().backlog, 1, "LIB-20: their seeds differ");
    assert_eq!(w.worker.acknowledge(&ids[1..]).await.unwrap(), [Outcome::Done]);
}

#[tokio::test(start_paused = true)]
async fn eod_02_on_and_off_by_update_for_later_hand_outs() {
    let w = World::new().await;
    w.publish(&["before", "after", "off"]).await;
    let before = take_one(&w.worker);
    let on = |on| SubscriptionUpdate::new().exactly_once_delivery(on);
    assert!(w.worker.update(on(true)).await.unwrap().exactly_once_delivery);
    let after = take_one(&w.worker);
    w.clock.advance(10 * SECOND);
    // EOD-2: the lease that was handed out before keeps the right to a late ack (LS-8).
    assert_eq!(before.ack().await.unwrap(), Outcome::Done);
    assert!(after.ack().await.is_err());
    let strict = take_one(&w.worker);
    assert_eq!(strict.data().as_ref(), b"after");
    w.worker.update(on(false)).await.unwrap();
    let lenient = take_one(&w.worker);
    w.clock.advance(10 * SECOND);
    assert_eq!(lenient.ack().await.unwrap(), Outcome::Done); // LS-8 again
    assert_eq!(strict.ack().await.unwrap(), Outcome::Stale, "EOD-2: it was handed out as strict");
    assert_eq!(drain(&w.worker), ["after"]);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn eod_05_batches_count_what_did_not_take_effect() {
    let w = world().await;
    w.publish(&["a", "b"]).await;
    let batch = w.worker.try_pull(2).unwrap();
    w.worker.modify_ack_deadline(&[batch.iter().next().unwrap().ack_id()], HOUR).await.unwrap();
    w.clock.advance(10 * SECOND);
    let outcome = batch.ack_all();
    assert_eq!((outcome.done, outcome.stale), (1, 1)); // EOD-4
    assert_eq!(drain(&w.worker), ["b"]);
}
