//! Section 5.1: ack ids (ACK).
//!
//! A malformed id cannot become an `AckId`, so ACK-3 and ACK-4 are rules of its parser here; the
//! refusal of a whole request is shown with the id of another subscription (ACK-5).

use std::collections::HashSet;
use std::time::Duration;

use siftbus::{AckId, Code, FlowControl, Outcome, SubscriptionConfig};

use crate::support::{SECOND, World, nothing_ready, take, take_one};

#[tokio::test(start_paused = true)]
async fn ack_01_an_id_names_one_lease_and_changes_on_every_redelivery() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    let mut seen = HashSet::new();
    for _ in 0..10 {
        for delivery in take(&w.worker, 2) {
            assert!(seen.insert(delivery.ack_id())); // ACK-1
        }
    }
    let texts: HashSet<String> = seen.iter().map(AckId::to_string).collect();
    assert_eq!(texts.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn ack_02_an_id_is_url_safe_text_of_at_most_176_bytes() {
    let w = World::new().await;
    let name = "n".repeat(1_024);
    let long = w.topic.subscribe(&name, SubscriptionConfig::new()).await.unwrap();
    w.publish(&["a"]).await;
    for subscription in [&w.worker, &long] {
        let id = take_one(subscription).into_ack_id();
        let text = id.to_string();
        // ACK-2
        assert!((1..=176).contains(&text.len()), "{text}");
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
        assert!(text.chars().all(safe), "{text}");
        let parsed: AckId = text.parse().unwrap();
        assert_eq!(parsed, id);
        let acked = subscription.acknowledge(&[parsed]).await.unwrap();
        assert_eq!(acked, [Outcome::Done]);
    }
}

#[tokio::test(start_paused = true)]
async fn ack_03_a_malformed_id_is_refused() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let text = take_one(&w.worker).into_ack_id().to_string();
    let twice = format!("{text}{text}");
    let spaced = format!(" {text}");
    let half = &text[..text.len() / 2];
    let long = "A".repeat(177);
    for bad in ["garbage", "", "12345", "é", half, &twice, &spaced, &long] {
        assert!(bad.parse::<AckId>().is_err(), "{bad:?}"); // ACK-3
    }
}

#[tokio::test(start_paused = true)]
async fn ack_03_a_changed_id_never_takes_effect() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    let mut held = take(&w.worker, 2);
    let text = held.pop().unwrap().into_ack_id().to_string();
    for at in 0..text.len() {
        for other in ["A", "0", "z", "_"] {
            let mut changed = text.clone();
            changed.replace_range(at..=at, other);
            if changed == text {
                continue;
            }
            let Ok(id) = changed.parse::<AckId>() else { continue };
            // ACK-2: the check bits make an accident improbable; at the least nothing happens.
            match w.worker.acknowledge(&[id]).await {
                Ok(outcomes) => assert_eq!(outcomes, [Outcome::Stale], "{changed}"),
                Err(error) => assert_eq!(error.code(), Code::InvalidArgument, "{changed}"),
            }
        }
    }
    assert_eq!(w.worker.stats().outstanding, 2);
}

#[tokio::test(start_paused = true)]
async fn ack_05_an_id_of_another_subscription_refuses_the_whole_request() {
    let w = World::new().await;
    let other = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    w.publish(&["a"]).await;
    let own = take_one(&w.worker).into_ack_id();
    let foreign = take_one(&other).into_ack_id();
    for ids in [vec![own.clone(), foreign.clone()], vec![foreign.clone(), own.clone()]] {
        // ACK-4, ACK-5, ERR-27: nothing is applied.
        let error = w.worker.acknowledge(&ids).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let error = w.worker.modify_ack_deadline(&ids, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!((w.worker.stats().outstanding, other.stats().outstanding), (1, 1));
    }
    assert_eq!(w.worker.acknowledge(&[own]).await.unwrap(), [Outcome::Done]);
    assert_eq!(other.acknowledge(&[foreign]).await.unwrap(), [Outcome::Done]);
}

#[tokio::test(start_paused = true)]
async fn ack_06_a_stale_id_is_an_outcome_and_no_error() {
    let w = World::new().await;
    w.publish(&["acked", "superseded", "live"]).await;
    let mut held = take(&w.worker, 3);
    let live = held.pop().unwrap();
    live.set_deadline(60 * SECOND).outcome().unwrap();
    let superseded = held.pop().unwrap().into_ack_id();
    let acked = held.pop().unwrap();
    let ids = [acked.ack_id(), superseded, live.ack_id()];
    acked.ack().await.unwrap();
    w.clock.advance(10 * SECOND);
    let again = take_one(&w.worker);
    // ACK-6: each id has an outcome of its own, in the order given.
    let outcomes = w.worker.acknowledge(&ids).await.unwrap();
    assert_eq!(outcomes, [Outcome::Stale, Outcome::Stale, Outcome::Done]);
    assert_eq!(again.ack().await.unwrap(), Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn ack_06_an_id_of_a_deleted_namesake_is_stale() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let old = [take_one(&w.worker).into_ack_id()];
    w.worker.delete().await.unwrap();
    let again = w.topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    w.publish(&["b"]).await;
    let new = take_one(&again).into_ack_id();
    // ACK-6, ACK-2: recognised by the incarnation, although message and lease count alike.
    assert_eq!(again.acknowledge(&old).await.unwrap(), [Outcome::Stale]);
    let nack = again.modify_ack_deadline(&old, Duration::ZERO).await.unwrap();
    assert_eq!(nack, [Outcome::Stale]);
    assert_eq!(again.stats().outstanding, 1);
    assert_eq!(again.acknowledge(&[new]).await.unwrap(), [Outcome::Done]);
}

#[tokio::test(start_paused = true)]
async fn ack_07_an_empty_list_is_refused_and_duplicates_are_fine() {
    let google = World::google().await;
    // ACK-7, LIM-13
    assert_eq!(google.worker.acknowledge(&[]).await.unwrap_err().code(), Code::InvalidArgument);
    let modified = google.worker.modify_ack_deadline(&[], SECOND).await;
    assert_eq!(modified.unwrap_err().code(), Code::InvalidArgument);

    let w = World::new().await;
    w.publish(&["a"]).await;
    let id = take_one(&w.worker).into_ack_id();
    let twice = [id.clone(), id];
    let extended = w.worker.modify_ack_deadline(&twice, SECOND).await.unwrap();
    assert_eq!(extended, [Outcome::Done, Outcome::Done]);
    // The second sees what the first did (LS-13).
    let acked = w.worker.acknowledge(&twice).await.unwrap();
    assert_eq!(acked, [Outcome::Done, Outcome::Stale]);
}

#[tokio::test(start_paused = true)]
async fn ack_08_absence_is_checked_before_the_ids() {
    let w = World::google().await;
    let other = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    w.publish(&["a"]).await;
    let foreign = [take_one(&other).into_ack_id()];
    w.worker.delete().await.unwrap();
    // ACK-8
    for ids in [&foreign[..], &[]] {
        assert_eq!(w.worker.acknowledge(ids).await.unwrap_err().code(), Code::NotFound);
        let modified = w.worker.modify_ack_deadline(ids, SECOND).await;
        assert_eq!(modified.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn ack_09_ids_may_be_acked_on_any_channel() {
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    let streamed = stream.next().await.unwrap().unwrap().into_ack_id();
    let pulled = take_one(&w.worker).into_ack_id();
    // ACK-9: another handle of the same subscription, from a look-up.
    let handle = w.bus.subscription("worker").await.unwrap();
    let outcomes = handle.acknowledge(&[streamed, pulled]).await.unwrap();
    assert_eq!(outcomes, [Outcome::Done, Outcome::Done]);
    drop(stream);
    assert_eq!(take_one(&w.worker).ack().await.unwrap(), Outcome::Done);
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn ack_10_the_attempt_is_1_plus_nacks_and_lapses() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    take_one(&w.worker).nack().await.unwrap();
    take_one(&w.worker).into_ack_id();
    w.clock.advance(10 * SECOND);
    let third = take_one(&w.worker);
    // ACK-10 as refined by D22: counted always; extensions do not count (DLQ-3).
    assert_eq!(third.attempt(), 3);
    third.set_deadline(60 * SECOND).outcome().unwrap();
    third.nack().await.unwrap();
    assert_eq!(take_one(&w.worker).attempt(), 4);
}
