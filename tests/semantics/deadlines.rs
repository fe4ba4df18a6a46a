//! Section 5.2: when a lease ends (DL).
//!
//! Exact instants are looked at with the manual clock. What waits runs on tokio's paused clock,
//! whose timers may be late by their resolution: at most 10 ms are allowed (DL-3).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use siftbus::{Bus, FlowControl, SubscriptionConfig, TopicConfig};

use crate::support::{HOUR, MILLI, MINUTE, SECOND, World, nothing_ready, take_one};

#[tokio::test(start_paused = true)]
async fn dl_01_a_stream_leases_for_its_own_deadline_be_it_longer_or_shorter() {
    for (subscription, stream) in [(60, 10), (10, 60)] {
        let config = SubscriptionConfig::new().ack_deadline(subscription * SECOND);
        let w = World::with(config).await;
        w.publish(&["streamed", "pulled"]).await;
        let flow = FlowControl::new().ack_deadline(stream * SECOND);
        let mut open = w.worker.stream(flow).unwrap();
        open.next().await.unwrap().unwrap().into_ack_id();
        drop(open);
        take_one(&w.worker).into_ack_id();
        let (first, second) = (subscription.min(stream), subscription.max(stream));
        // DL-1
        w.clock.advance(first * SECOND - MILLI);
        assert_eq!(w.worker.stats().outstanding, 2);
        w.clock.advance(MILLI);
        assert_eq!(w.worker.stats().outstanding, 1);
        let came = take_one(&w.worker);
        let expected: &[u8] = if stream < subscription { b"streamed" } else { b"pulled" };
        assert_eq!(came.data().as_ref(), expected);
        came.ack().await.unwrap();
        w.clock.advance((second - first) * SECOND - MILLI);
        assert_eq!(w.worker.stats().outstanding, 1);
        w.clock.advance(MILLI);
        assert_eq!(w.worker.stats().outstanding, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn dl_01_a_stream_without_a_deadline_takes_the_subscriptions() {
    let w = World::with(SubscriptionConfig::new().ack_deadline(42 * SECOND)).await;
    w.publish(&["a"]).await;
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    stream.next().await.unwrap().unwrap().into_ack_id();
    drop(stream);
    w.clock.advance(42 * SECOND - MILLI);
    assert_eq!(w.worker.stats().outstanding, 1);
    w.clock.advance(MILLI);
    assert_eq!(w.worker.stats().outstanding, 0);
}

#[tokio::test(start_paused = true)]
async fn dl_02_the_deadline_counts_from_hand_out() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    w.clock.advance(HOUR);
    take_one(&w.worker).into_ack_id();
    w.clock.advance(10 * SECOND - MILLI);
    assert!(nothing_ready(&w.worker)); // DL-2: not from publish
    w.clock.advance(MILLI);
    assert_eq!(w.worker.stats().ready, 1);
}

#[tokio::test(start_paused = true)]
async fn dl_03_no_lease_ends_early_however_odd_its_length() {
    let odd = [
        Duration::from_nanos(1),
        Duration::from_micros(999),
        Duration::from_micros(1_001),
        Duration::from_micros(12_345_678),
    ];
    for length in odd {
        let w = World::with(SubscriptionConfig::new().ack_deadline(length)).await;
        w.publish(&["a"]).await;
        w.clock.advance(Duration::from_micros(300));
        take_one(&w.worker).into_ack_id();
        w.clock.advance(length - Duration::from_nanos(1));
        assert_eq!(w.worker.stats().outstanding, 1, "{length:?}"); // DL-3: never early
        // D10: rounded up to a millisecond; hand-out and deadline each by less than one.
        w.clock.advance(2 * MILLI);
        assert_eq!(w.worker.stats().outstanding, 0, "{length:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dl_03_a_jump_over_many_deadlines_ends_each_at_its_own_time() {
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    for seconds in [30, 10, 20] {
        let delivery = take_one(&w.worker);
        delivery.set_deadline(seconds * SECOND).outcome().unwrap();
        delivery.into_ack_id();
    }
    let start = w.clock.now();
    let mut ends = Vec::new();
    while let Some(due) = w.clock.next_due().filter(|due| *due <= start + MINUTE) {
        w.clock.advance_to(due);
        ends.push((due.duration_since(start).unwrap(), w.worker.stats().outstanding));
    }
    // An instant at which nothing ends is allowed: an extended lease may leave one behind (L13).
    ends.retain(|(_, outstanding)| *outstanding < 3);
    ends.dedup_by_key(|(_, outstanding)| *outstanding);
    // DL-3, D7: `next_due` steps through the instants.
    assert_eq!(ends, [(10 * SECOND, 2), (20 * SECOND, 1), (30 * SECOND, 0)]);
}

#[tokio::test(start_paused = true)]
async fn dl_04_leases_publish_times_and_retention_follow_one_timeline() {
    let w = World::with(SubscriptionConfig::new().retention(HOUR)).await;
    assert_eq!(w.bus.now(), w.clock.now());
    w.publish(&["a"]).await;
    assert_eq!(take_one(&w.worker).publish_time(), w.clock.now());
    w.clock.advance_to(w.clock.now() + HOUR);
    // DL-4, D7
    assert_eq!(w.bus.now(), w.clock.now());
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn dl_05_a_waiting_pull_is_woken_by_a_lapse() {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    topic.publish("a").await.unwrap();
    take_one(&worker).into_ack_id();
    let start = bus.now();
    let again = worker.pull(1).await.unwrap();
    let waited = bus.now().duration_since(start).unwrap();
    // DL-5, DL-3: by the lapse itself, no polling interval.
    assert!(waited >= 10 * SECOND && waited <= 10 * SECOND + 10 * MILLI, "{waited:?}");
    assert_eq!(again.iter().next().unwrap().attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn dl_05_an_open_stream_is_woken_by_a_lapse_and_by_the_end_of_a_delay() {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    topic.publish("a").await.unwrap();
    let mut stream = worker.stream(FlowControl::new().ack_deadline(3 * SECOND)).unwrap();
    let start = bus.now();
    stream.next().await.unwrap().unwrap().into_ack_id();
    let second = stream.next().await.unwrap().unwrap();
    let waited = bus.now().duration_since(start).unwrap();
    assert!(waited >= 3 * SECOND && waited <= 3 * SECOND + 10 * MILLI, "{waited:?}"); // DL-5
    second.nack_after(5 * SECOND).await.unwrap();
    let third = stream.next().await.unwrap().unwrap();
    let waited = bus.now().duration_since(start).unwrap();
    assert!(waited >= 8 * SECOND && waited <= 8 * SECOND + 20 * MILLI, "{waited:?}");
    assert_eq!(third.attempt(), 3);
}

#[tokio::test(start_paused = true)]
async fn dl_05_a_manual_clock_wakes_a_waiting_pull_too() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    take_one(&w.worker).into_ack_id();
    let worker = w.worker.clone();
    let waiting =
        tokio::spawn(async move { worker.pull(1).await.unwrap().iter().next().unwrap().attempt() });
    w.clock.advance_settled(10 * SECOND - MILLI).await;
    assert!(!waiting.is_finished());
    w.clock.advance_settled(MILLI).await;
    assert_eq!(waiting.await.unwrap(), 2); // DL-5
}

#[tokio::test(start_paused = true)]
async fn time_02_advance_settled_lets_sleepers_run_between_instants() {
    assert_eq!(ticks_in_ten_seconds().await, 10);
}

/// A task that sleeps a second at a time: how often does it wake in ten (TIME-2, D7)?
async fn ticks_in_ten_seconds() -> usize {
    let w = World::new().await;
    let ticks = Arc::new(AtomicUsize::new(0));
    let ticker = tokio::spawn({
        let (bus, ticks) = (w.bus.clone(), Arc::clone(&ticks));
        async move {
            for _ in 0..10 {
                bus.sleep(SECOND).await;
                ticks.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    while w.clock.next_due().is_none_or(|due| due > w.clock.now() + SECOND) {
        tokio::task::yield_now().await;
    }
    w.clock.advance_settled(10 * SECOND).await;
    let ticks = ticks.load(Ordering::SeqCst);
    ticker.abort();
    ticks
}
