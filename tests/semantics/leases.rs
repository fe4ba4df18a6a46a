//! Section 5: the ack-deadline state machine (LS), one test per line of its table.
//!
//! "Delayed" comes from `nack_after` here; retry policies and dead letters are not modelled yet.

use std::time::Duration;

use siftbus::filter::Filter;
use siftbus::{Code, Message, Outcome, SubscriptionConfig};

use crate::support::{
    HOUR, MILLI, MINUTE, SECOND, World, ack_deadline, drain, nothing_ready, take, take_one,
};

#[tokio::test(start_paused = true)]
async fn ls_01_a_published_message_is_ready() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let stats = w.worker.stats();
    // LS-1
    assert_eq!((stats.backlog, stats.ready, stats.delayed, stats.outstanding), (1, 1, 0, 0));
    assert_eq!(take_one(&w.worker).attempt(), 1);
}

#[tokio::test(start_paused = true)]
async fn ls_02_a_message_the_filter_rejects_is_acknowledged_at_once() {
    let filter = Filter::parse("attributes.k = \"v\"").unwrap();
    let w = World::with(SubscriptionConfig::new().filter(filter)).await;
    let receipt = w.topic.publish(Message::new("a").with_attribute("k", "w")).await.unwrap();
    // LS-2
    assert_eq!(receipt.recipients(), Some(0));
    assert_eq!(w.worker.stats().backlog, 0);
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn ls_03_a_hand_out_starts_a_lease_of_the_subscriptions_deadline() {
    let w = World::with(SubscriptionConfig::new().ack_deadline(30 * SECOND)).await;
    w.publish(&["a"]).await;
    w.clock.advance(5 * SECOND);
    let delivery = take_one(&w.worker);
    let stats = w.worker.stats();
    // LS-3
    assert_eq!((stats.backlog, stats.ready, stats.outstanding), (1, 0, 1));
    assert_eq!(delivery.attempt(), 1);
    let old_id = delivery.into_ack_id();
    w.clock.advance(30 * SECOND - MILLI);
    assert!(nothing_ready(&w.worker));
    w.clock.advance(MILLI);
    let again = take_one(&w.worker);
    assert_eq!(again.attempt(), 2);
    assert_ne!(again.ack_id(), old_id);
}

#[tokio::test(start_paused = true)]
async fn ls_04_an_acked_message_never_comes_back() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    assert_eq!(take_one(&w.worker).ack().await.unwrap(), Outcome::Done);
    assert_eq!(w.worker.stats().backlog, 0);
    w.clock.advance(HOUR);
    assert!(nothing_ready(&w.worker)); // LS-4
}

#[tokio::test(start_paused = true)]
async fn ls_05_a_new_deadline_counts_from_the_call_and_may_be_shorter() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    w.clock.advance(4 * SECOND);
    // LS-5: shortened to one second from now.
    assert_eq!(delivery.set_deadline(SECOND).outcome().unwrap(), Outcome::Done);
    let id = delivery.into_ack_id();
    w.clock.advance(SECOND - MILLI);
    assert_eq!(w.worker.stats().outstanding, 1);
    w.clock.advance(MILLI);
    assert_eq!(w.worker.stats().outstanding, 0);
    assert_eq!(w.worker.acknowledge(&[id]).await.unwrap(), [Outcome::Done]);
}

#[tokio::test(start_paused = true)]
async fn ls_05_a_lease_may_be_extended_again_and_again() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let ids = [take_one(&w.worker).into_ack_id()];
    for _ in 0..1_000 {
        w.clock.advance(9 * SECOND);
        // LS-5, STR-20: no total limit.
        let modified = w.worker.modify_ack_deadline(&ids, 10 * SECOND).await.unwrap();
        assert_eq!(modified, [Outcome::Done]);
        assert!(nothing_ready(&w.worker));
    }
    w.clock.advance(10 * SECOND);
    assert_eq!(take_one(&w.worker).attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn ls_06_a_nack_makes_the_message_ready_at_once_and_ends_its_id() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let ids = [take_one(&w.worker).into_ack_id()];
    let nack = w.worker.modify_ack_deadline(&ids, Duration::ZERO).await.unwrap();
    // LS-6
    assert_eq!(nack, [Outcome::Done]);
    let again = take_one(&w.worker);
    assert_eq!(again.attempt(), 2);
    assert_eq!(again.nack().await.unwrap(), Outcome::Done);
    let third = take_one(&w.worker);
    assert_eq!(third.attempt(), 3);
    assert_eq!(third.set_deadline(Duration::ZERO).outcome().unwrap(), Outcome::Done);
    assert_eq!(third.ack().await.unwrap(), Outcome::Stale);
    assert_eq!(take_one(&w.worker).attempt(), 4);
}

#[tokio::test(start_paused = true)]
async fn ls_06_a_dropped_delivery_is_released_and_counts_an_attempt() {
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    drop(take_one(&w.worker));
    assert_eq!(take_one(&w.worker).attempt(), 2); // D5
    drop(w.worker.try_pull(3).unwrap());
    // D5: a batch releases what is left, in order.
    let attempts: Vec<u32> = take(&w.worker, 3).iter().map(|d| d.attempt()).collect();
    assert_eq!(attempts, [4, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn ls_06_a_delayed_nack_is_delayed_exactly_so_long() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    assert_eq!(take_one(&w.worker).nack_after(MINUTE).await.unwrap(), Outcome::Done);
    let stats = w.worker.stats();
    // D5; the state is DELAYED of section 5.
    assert_eq!((stats.backlog, stats.ready, stats.delayed, stats.outstanding), (1, 0, 1, 0));
    w.clock.advance(MINUTE - MILLI);
    assert!(nothing_ready(&w.worker));
    w.clock.advance(MILLI);
    assert_eq!(take_one(&w.worker).attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn ls_07_a_lapsed_lease_makes_the_message_ready() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    w.clock.advance(10 * SECOND);
    let stats = w.worker.stats();
    // LS-7: at the deadline itself.
    assert_eq!((stats.backlog, stats.ready, stats.outstanding), (1, 1, 0));
    assert_eq!(take_one(&w.worker).attempt(), 2);
    drop(delivery);
}

#[tokio::test(start_paused = true)]
async fn ls_08_late_ack_before_redelivery_wins() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    w.clock.advance(HOUR);
    assert_eq!(delivery.ack().await.unwrap(), Outcome::Done); // LS-8
    assert!(nothing_ready(&w.worker));
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn ls_09_late_extension_before_redelivery_revives_the_lease() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    w.clock.advance(HOUR);
    assert_eq!(delivery.set_deadline(20 * SECOND).outcome().unwrap(), Outcome::Done);
    w.clock.advance(20 * SECOND - MILLI);
    assert!(nothing_ready(&w.worker)); // LS-9
    assert_eq!(w.worker.stats().outstanding, 1);
    w.clock.advance(MILLI);
    assert_eq!(take_one(&w.worker).attempt(), 2);
    assert_eq!(delivery.ack().await.unwrap(), Outcome::Stale);
}

#[tokio::test(start_paused = true)]
async fn ls_10_nothing_revives_a_nacked_id() {
    for delay in [Duration::ZERO, MINUTE] {
        let w = World::new().await;
        w.publish(&["a"]).await;
        let delivery = take_one(&w.worker);
        let ids = [delivery.ack_id()];
        delivery.nack_after(delay).await.unwrap();
        // LS-10: neither ack nor extension, ready or delayed.
        assert_eq!(w.worker.acknowledge(&ids).await.unwrap(), [Outcome::Stale]);
        let modified = w.worker.modify_ack_deadline(&ids, HOUR).await.unwrap();
        assert_eq!(modified, [Outcome::Stale]);
        let nacked = w.worker.modify_ack_deadline(&ids, Duration::ZERO).await.unwrap();
        assert_eq!(nacked, [Outcome::Stale]);
        assert_eq!(w.worker.stats().outstanding, 0);
        w.clock.advance(delay);
        assert_eq!(take_one(&w.worker).attempt(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn ls_11_an_old_id_cannot_ack_the_new_lease() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let old = take_one(&w.worker);
    w.clock.advance(10 * SECOND);
    let new = take_one(&w.worker).into_ack_id();
    assert_eq!(old.ack().await.unwrap(), Outcome::Stale); // LS-11
    assert_eq!(w.worker.stats().outstanding, 1);
    w.clock.advance(10 * SECOND);
    assert_eq!(take_one(&w.worker).attempt(), 3);
    assert_eq!(w.worker.acknowledge(&[new]).await.unwrap(), [Outcome::Stale]);
}

#[tokio::test(start_paused = true)]
async fn ls_12_an_old_id_cannot_move_the_new_deadline() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let old = take_one(&w.worker);
    w.clock.advance(10 * SECOND);
    let new = take_one(&w.worker);
    for deadline in [HOUR, SECOND, Duration::ZERO] {
        let outcome = old.set_deadline(deadline).outcome().unwrap();
        assert_eq!(outcome, Outcome::Stale, "{deadline:?}"); // LS-12
    }
    drop(old);
    w.clock.advance(10 * SECOND - MILLI);
    assert!(nothing_ready(&w.worker));
    w.clock.advance(MILLI);
    assert_eq!(w.worker.stats().ready, 1);
    assert_eq!(new.ack().await.unwrap(), Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn ls_13_a_second_ack_is_stale_and_no_error() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    let ids = [delivery.ack_id()];
    assert_eq!(delivery.ack().await.unwrap(), Outcome::Done);
    assert_eq!(w.worker.acknowledge(&ids).await.unwrap(), [Outcome::Stale]); // LS-13, ERR-28
}

#[tokio::test(start_paused = true)]
async fn ls_14_a_nack_cannot_undo_an_ack() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    let ids = [delivery.ack_id()];
    delivery.ack().await.unwrap();
    for deadline in [Duration::ZERO, MINUTE] {
        let outcomes = w.worker.modify_ack_deadline(&ids, deadline).await.unwrap();
        assert_eq!(outcomes, [Outcome::Stale]); // LS-14
    }
    w.clock.advance(HOUR);
    assert!(nothing_ready(&w.worker));
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn ls_15_retention_ends_a_message_also_while_it_is_leased() {
    let w = World::with(SubscriptionConfig::new().retention(10 * MINUTE)).await;
    w.publish(&["leased", "ready"]).await;
    let delivery = take_one(&w.worker);
    delivery.set_deadline(HOUR).outcome().unwrap();
    w.clock.advance(10 * MINUTE - MILLI);
    assert_eq!(w.worker.stats().backlog, 2);
    w.clock.advance(MILLI);
    let stats = w.worker.stats();
    // LS-15: exactly at publish time + retention; the message itself stays in the holder's hands.
    assert_eq!((stats.backlog, stats.outstanding, stats.ready), (0, 0, 0));
    assert_eq!(delivery.data().as_ref(), b"leased");
    assert_eq!(delivery.ack().await.unwrap(), Outcome::Stale);
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn ls_18_everything_answers_not_found_after_deletion() {
    let w = World::new().await;
    w.publish(&["a", "b", "c", "d"]).await;
    let mut held = take(&w.worker, 3);
    let batch = w.worker.try_pull(1).unwrap();
    let ids = [held[0].ack_id()];
    w.worker.delete().await.unwrap();
    // LS-18
    assert_eq!(w.worker.acknowledge(&ids).await.unwrap_err().code(), Code::NotFound);
    let modified = w.worker.modify_ack_deadline(&ids, MINUTE).await;
    assert_eq!(modified.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.worker.try_pull(1).unwrap_err().code(), Code::NotFound);
    assert_eq!(w.worker.pull(1).await.unwrap_err().code(), Code::NotFound);
    let update = w.worker.update(ack_deadline(MINUTE)).await;
    assert_eq!(update.unwrap_err().code(), Code::NotFound);
    assert_eq!(held.pop().unwrap().ack().await.unwrap_err().code(), Code::NotFound);
    assert_eq!(held.pop().unwrap().nack().await.unwrap_err().code(), Code::NotFound);
    let last = held.pop().unwrap();
    assert_eq!(last.set_deadline(MINUTE).outcome().unwrap_err().code(), Code::NotFound);
    assert_eq!(last.data().as_ref(), b"a");
    drop((last, batch));
}

#[tokio::test(start_paused = true)]
async fn ls_19_a_new_ack_deadline_holds_from_the_next_hand_out() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    take_one(&w.worker).into_ack_id();
    let config = w.worker.update(ack_deadline(MINUTE)).await.unwrap();
    assert_eq!(config.ack_deadline, MINUTE);
    take_one(&w.worker).into_ack_id();
    w.clock.advance(10 * SECOND);
    // LS-19: the running lease keeps its deadline.
    assert_eq!((w.worker.stats().ready, w.worker.stats().outstanding), (1, 1));
    w.clock.advance(50 * SECOND);
    assert_eq!((w.worker.stats().ready, w.worker.stats().outstanding), (2, 0));
    assert_eq!(drain(&w.worker), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_settled_whole_or_by_choice() {
    // D5: `Deliveries` as one owner of a batch.
    let w = World::new().await;
    w.publish(&["a", "b", "c", "d"]).await;
    let nacked = w.worker.try_pull(4).unwrap().nack_all();
    assert_eq!((nacked.done, nacked.stale), (4, 0));
    let batch = w.worker.try_pull(4).unwrap();
    assert_eq!((batch.len(), batch.is_empty()), (4, false));
    let chosen = batch.ack_where(|delivery| delivery.data().as_ref() < b"c".as_slice());
    assert_eq!((chosen.done, chosen.stale), (2, 0));
    assert_eq!(w.worker.stats().backlog, 2);
    let batch = w.worker.try_pull(4).unwrap();
    assert!(batch.iter().all(|delivery| delivery.attempt() == 3));
    w.clock.advance(10 * SECOND);
    let again = take_one(&w.worker);
    let acked = batch.ack_all();
    assert_eq!((acked.done, acked.stale), (1, 1)); // LS-8 for one, LS-11 for the other
    assert_eq!(again.ack().await.unwrap(), Outcome::Done);
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn settling_acts_at_the_call() {
    // D5: awaiting the settlement is only needed to learn the outcome.
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    let mut held = take(&w.worker, 3);
    drop(held.pop().unwrap().ack());
    assert_eq!(w.worker.stats().backlog, 2);
    drop(held.pop().unwrap().nack());
    assert_eq!(w.worker.stats().ready, 1);
    drop(held[0].set_deadline(SECOND));
    w.clock.advance(SECOND);
    assert_eq!(w.worker.stats().ready, 2);
}
