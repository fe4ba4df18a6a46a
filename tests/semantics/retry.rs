//! Section 10: the retry policy (RTY).

use std::time::Duration;

use siftbus::{
    Code, Limits, Outcome, RetryPolicy, SubscriptionConfig, SubscriptionUpdate, TopicConfig,
};

use crate::support::{
    HOUR, MILLI, MINUTE, SECOND, World, drain, nothing_ready, poll_once, take, take_one,
};

fn policy(minimum: Duration, maximum: Duration) -> RetryPolicy {
    RetryPolicy::new().minimum_backoff(minimum).maximum_backoff(maximum)
}

fn with(policy: RetryPolicy) -> SubscriptionConfig {
    SubscriptionConfig::new().retry_policy(policy)
}

/// How long the message that was just given back stays away, exactly.
fn delay(w: &World) -> Duration {
    let start = w.clock.now();
    while w.worker.stats().ready == 0 {
        let due = w.clock.next_due().expect("it comes back");
        w.clock.advance_to(due - MILLI);
        assert_eq!(w.worker.stats().ready, 0, "not a millisecond early");
        w.clock.advance_to(due);
    }
    w.clock.now().duration_since(start).unwrap()
}

#[tokio::test(start_paused = true)]
async fn rty_01_without_a_policy_redelivery_is_immediate() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    for attempt in 1..5 {
        let delivery = take_one(&w.worker); // RTY-1
        assert_eq!(delivery.attempt(), attempt);
        delivery.nack().await.unwrap();
    }
    take_one(&w.worker).into_ack_id();
    w.clock.advance(10 * SECOND);
    assert_eq!(take_one(&w.worker).attempt(), 6);
}

#[tokio::test(start_paused = true)]
async fn rty_02_03_06_nacks_wait_exponentially_longer_from_the_first_on() {
    let w = World::with(with(policy(SECOND, 10 * SECOND))).await;
    w.publish(&["a"]).await;
    // RTY-2, RTY-3, RTY-6: 1, 2, 4, 8, then the maximum.
    for (attempt, expected) in (1..).zip([1, 2, 4, 8, 10, 10]) {
        let delivery = take_one(&w.worker);
        assert_eq!(delivery.attempt(), attempt);
        delivery.nack().await.unwrap();
        let stats = w.worker.stats();
        assert_eq!((stats.backlog, stats.ready, stats.delayed), (1, 0, 1));
        w.clock.advance(expected * SECOND - MILLI);
        assert!(nothing_ready(&w.worker), "RTY-3: delay {attempt} is not over");
        w.clock.advance(MILLI);
    }
    assert_eq!(take_one(&w.worker).attempt(), 7);
}

#[tokio::test(start_paused = true)]
async fn rty_03_after_a_lapse_the_delay_counts_from_the_lapse() {
    let w = World::with(with(policy(4 * SECOND, HOUR))).await;
    w.publish(&["a"]).await;
    take_one(&w.worker).into_ack_id();
    // Nobody looks until long after the lapse: RTY-3 counts from it all the same.
    w.clock.advance(14 * SECOND - MILLI);
    assert!(nothing_ready(&w.worker));
    w.clock.advance(MILLI);
    assert_eq!(take_one(&w.worker).attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn rty_03_a_minimum_of_zero_means_no_delay() {
    let w = World::with(with(policy(Duration::ZERO, HOUR))).await;
    w.publish(&["a"]).await;
    for attempt in 1..6 {
        let delivery = take_one(&w.worker); // RTY-3
        assert_eq!(delivery.attempt(), attempt);
        drop(delivery);
    }
}

#[tokio::test(start_paused = true)]
async fn rty_02_delays_are_per_message_and_hold_up_nobody_else() {
    let w = World::with(with(policy(MINUTE, HOUR))).await;
    w.publish(&["a", "b"]).await;
    take_one(&w.worker).nack().await.unwrap();
    assert_eq!(drain(&w.worker), ["b"]); // RTY-2
    w.publish(&["c"]).await;
    assert_eq!(drain(&w.worker), ["c"]);
    w.clock.advance(MINUTE);
    assert_eq!(drain(&w.worker), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn rty_04_defaults_and_bounds() {
    let (google, embedded) = (World::google().await, World::new().await);
    let create = async |w: &World, policy| {
        let name = format!("subscription-{}", w.topic.subscriptions().len());
        w.topic.subscribe(&name, with(policy)).await
    };
    let milli_more = 600 * SECOND + MILLI;
    for w in [&google, &embedded] {
        // RTY-4, LIM-19, ERR-13: 5 s is less than the default minimum of 10 s.
        let error = create(w, RetryPolicy::new().maximum_backoff(5 * SECOND)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains("maximum_backoff is 5s"), "{error}");
        let error = create(w, policy(HOUR / 6, HOUR / 6 - MILLI)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        for (minimum, maximum) in [(Duration::ZERO, Duration::ZERO), (10 * SECOND, 600 * SECOND)] {
            create(w, policy(minimum, maximum)).await.unwrap();
        }
        let percent = create(w, RetryPolicy::new().jitter_percent(101)).await.unwrap_err();
        assert_eq!(percent.code(), Code::InvalidArgument, "LIB-101");
        create(w, RetryPolicy::new().jitter_percent(100)).await.unwrap();
    }
    // LIM-19 on both sides of the limit, for either field.
    create(&google, policy(600 * SECOND, 600 * SECOND)).await.unwrap();
    for (minimum, maximum) in [(SECOND, milli_more), (milli_more, milli_more)] {
        let error = create(&google, policy(minimum, maximum)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        create(&embedded, policy(minimum, maximum)).await.unwrap();
    }
    // An update is checked as well, and changes nothing if it is refused.
    let bad = SubscriptionUpdate::new().retry_policy(Some(policy(SECOND, milli_more)));
    assert_eq!(google.worker.update(bad).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(google.worker.config().retry_policy, None);
}

#[tokio::test(start_paused = true)]
async fn rty_05_defaults_are_read_back() {
    let w = World::with(with(RetryPolicy::new())).await;
    let policy = w.worker.config().retry_policy.unwrap();
    // RTY-5, RTY-4
    assert_eq!((policy.minimum_backoff, policy.maximum_backoff), (10 * SECOND, 600 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn rty_07_an_extension_is_no_failure() {
    let w = World::with(with(policy(SECOND, HOUR))).await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    for _ in 0..5 {
        delivery.set_deadline(MINUTE).await.unwrap();
        w.clock.advance(30 * SECOND);
    }
    delivery.nack().await.unwrap();
    assert_eq!(delay(&w), SECOND); // RTY-7: still the first delay
}

#[tokio::test(start_paused = true)]
async fn rty_07_a_seek_lets_the_delays_begin_anew() {
    let w = World::with(with(policy(SECOND, HOUR))).await;
    w.publish(&["a"]).await;
    for expected in [SECOND, 2 * SECOND] {
        take_one(&w.worker).nack().await.unwrap();
        assert_eq!(delay(&w), expected); // RTY-3
    }
    w.worker.seek(w.clock.now() - HOUR).await.unwrap();
    take_one(&w.worker).nack().await.unwrap();
    assert_eq!(delay(&w), SECOND); // RTY-7, DLQ-12
}

#[tokio::test(start_paused = true)]
async fn rty_08_an_ack_during_the_delay_counts_after_a_lapse_only() {
    let w = World::with(with(policy(MINUTE, HOUR))).await;
    w.publish(&["lapsed", "nacked"]).await;
    let mut held = take(&w.worker, 2);
    let (nacked, lapsed) = (held.pop().unwrap(), held.pop().unwrap());
    let ids = [nacked.ack_id(), lapsed.ack_id()];
    nacked.nack().await.unwrap();
    w.clock.advance(10 * SECOND);
    assert_eq!(w.worker.stats().delayed, 2);
    // RTY-8: LS-10 for the nacked one, LS-8 for the lapsed one.
    assert_eq!(w.worker.acknowledge(&ids).await.unwrap(), [Outcome::Stale, Outcome::Done]);
    assert_eq!(lapsed.ack().await.unwrap(), Outcome::Stale);
    w.clock.advance(HOUR);
    assert_eq!(drain(&w.worker), ["nacked"]);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn rty_08_an_extension_during_the_delay_revives_a_lapsed_lease() {
    let w = World::with(with(policy(MINUTE, HOUR))).await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    w.clock.advance(20 * SECOND);
    assert_eq!(delivery.set_deadline(HOUR).await.unwrap(), Outcome::Done); // LS-9
    w.clock.advance(HOUR - MILLI);
    assert_eq!(w.worker.stats().outstanding, 1);
    assert_eq!(delivery.ack().await.unwrap(), Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn rty_08_a_nack_during_the_delay_kills_the_id_and_keeps_the_delay() {
    let w = World::with(with(policy(MINUTE, HOUR))).await;
    w.publish(&["a"]).await;
    let delivery = take_one(&w.worker);
    let id = delivery.ack_id();
    w.clock.advance(20 * SECOND);
    assert_eq!(delivery.nack().await.unwrap(), Outcome::Done);
    assert_eq!(w.worker.acknowledge(&[id]).await.unwrap(), [Outcome::Stale]);
    assert_eq!(delay(&w), 50 * SECOND, "RTY-3: counted from the lapse");
    assert_eq!(take_one(&w.worker).attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn rty_09_removing_the_policy_ends_every_delay_of_it() {
    let w = World::with(with(policy(HOUR, HOUR))).await;
    w.publish(&["nacked", "lapsed", "wished"]).await;
    let mut held = take(&w.worker, 3);
    held.pop().unwrap().nack_after(2 * HOUR).await.unwrap();
    let lapsed = held.pop().unwrap();
    held.pop().unwrap().nack().await.unwrap();
    w.clock.advance(10 * SECOND);
    assert_eq!(w.worker.stats().delayed, 3);
    let mut waiting = Box::pin(w.worker.pull(10));
    assert!(poll_once(waiting.as_mut()).is_pending());
    w.worker.update(SubscriptionUpdate::new().retry_policy(None)).await.unwrap();
    let stats = w.worker.stats();
    // RTY-9; the wish of LIB-2 is the consumer's, not the policy's.
    assert_eq!((stats.ready, stats.delayed), (2, 1));
    assert_eq!(waiting.await.unwrap().len(), 2, "who waited was told");
    drop(lapsed);
    w.clock.advance(2 * HOUR);
    assert_eq!(drain(&w.worker), ["nacked", "lapsed", "wished"]);
}

#[tokio::test(start_paused = true)]
async fn rty_09_a_changed_policy_applies_from_the_next_failure_on() {
    let w = World::with(with(policy(MINUTE, HOUR))).await;
    w.publish(&["a"]).await;
    take_one(&w.worker).nack().await.unwrap();
    let shorter = SubscriptionUpdate::new().retry_policy(Some(policy(SECOND, HOUR)));
    w.worker.update(shorter).await.unwrap();
    assert_eq!(w.worker.stats().delayed, 1);
    let start = w.clock.now();
    w.clock.advance(MINUTE - MILLI);
    assert!(nothing_ready(&w.worker)); // RTY-9
    w.clock.advance(MILLI);
    take_one(&w.worker).nack().await.unwrap();
    assert_eq!(w.clock.now().duration_since(start).unwrap(), MINUTE);
    assert_eq!(delay(&w), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn lib_100_a_delayed_nack_lasts_for_the_longer_of_the_two() {
    let w = World::with(with(policy(MINUTE, HOUR))).await;
    w.publish(&["a"]).await;
    take_one(&w.worker).nack_after(SECOND).await.unwrap();
    assert_eq!(delay(&w), MINUTE); // LIB-100
    take_one(&w.worker).nack_after(HOUR).await.unwrap();
    assert_eq!(delay(&w), HOUR);
}

#[tokio::test(start_paused = true)]
async fn lib_101_jitter_repeats_with_the_seed() {
    let series = async |seed: u64| {
        let clock = siftbus::ManualClock::new();
        let bus = siftbus::Bus::builder()
            .clock(siftbus::Clock::manual(&clock))
            .seed(seed)
            .limits(Limits::embedded())
            .build();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let jittery = policy(1_000 * SECOND, 1_000 * SECOND).jitter_percent(50);
        let worker = topic.subscribe("worker", with(jittery)).await.unwrap();
        topic.publish_many((0..20).map(|n| n.to_string())).await.unwrap();
        worker.try_pull(20).unwrap().nack_all();
        let start = clock.now();
        let mut delays = Vec::new();
        while worker.stats().delayed > 0 {
            clock.advance_to(clock.next_due().unwrap());
            let ready = worker.try_pull(20).unwrap();
            delays.extend(ready.iter().map(|_| clock.now().duration_since(start).unwrap()));
            ready.ack_all();
        }
        delays
    };
    let (one, again, other) = (series(1).await, series(1).await, series(2).await);
    assert_eq!(one.len(), 20);
    // LIB-101
    assert!(one.iter().all(|d| (500 * SECOND..=1_000 * SECOND).contains(d)), "{one:?}");
    assert!(one.iter().max() > one.iter().min());
    assert_eq!(one, again);
    assert_ne!(one, other);
}
