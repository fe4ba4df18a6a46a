//! Section 14: subscriptions without activity expire (EXP).

use std::time::Duration;

use siftbus::{
    Bus, Code, Event, Expiration, FlowControl, Limits, SubscriptionConfig, SubscriptionUpdate,
    TopicConfig,
};

use crate::support::{DAY, HOUR, MILLI, MINUTE, World, manual_bus, take_one};

fn after(ttl: Duration) -> SubscriptionConfig {
    SubscriptionConfig::new().expiration(Expiration::After(ttl))
}

async fn alive(w: &World) -> bool {
    match w.bus.subscription("worker").await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), Code::NotFound);
            false
        }
    }
}

#[tokio::test(start_paused = true)]
async fn exp_01_unset_is_31_days_a_ttl_is_that_ttl_and_never_is_never() {
    let w = World::with(SubscriptionConfig::new()).await;
    w.topic.subscribe("day", after(DAY)).await.unwrap();
    let never = SubscriptionConfig::new().expiration(Expiration::Never);
    w.topic.subscribe("never", never).await.unwrap();
    let names = || {
        let all = w.bus.subscriptions();
        all.iter().map(|s| s.name().to_owned()).collect::<Vec<_>>()
    };
    // EXP-1
    w.clock.advance(DAY - MILLI);
    assert_eq!(names(), ["day", "never", "worker"]);
    w.clock.advance(MILLI);
    assert_eq!(names(), ["never", "worker"]);
    w.clock.advance(30 * DAY - MILLI);
    assert_eq!(names(), ["never", "worker"]);
    w.clock.advance(MILLI);
    assert_eq!(names(), ["never"]);
    w.clock.advance(3_650 * DAY);
    assert_eq!(names(), ["never"]);
}

#[tokio::test(start_paused = true)]
async fn exp_01_an_unset_retention_is_no_longer_than_the_ttl() {
    for limits in [Limits::google(), Limits::embedded()] {
        let (_clock, bus) = manual_bus(limits);
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        // EXP-1: the article creates a subscription with a ttl of 24 h and no retention.
        let day = topic.subscribe("day", after(DAY)).await.unwrap();
        assert_eq!(day.config().retention, Some(DAY));
        let month = topic.subscribe("month", after(30 * DAY)).await.unwrap();
        assert_eq!(month.config().retention, Some(7 * DAY));
    }
}

#[tokio::test(start_paused = true)]
async fn exp_02_an_expired_subscription_is_deleted() {
    let w = World::with(after(DAY)).await;
    w.publish(&["a"]).await;
    let held = take_one(&w.worker);
    let waiting = {
        let other = w.topic.subscribe("other", after(DAY)).await.unwrap();
        other.stream(FlowControl::new()).unwrap()
    };
    w.clock.advance(DAY);
    // EXP-2: as DeleteSubscription: RES-13, STR-17, PULL-9, LS-18.
    assert_eq!(w.worker.try_pull(1).unwrap_err().code(), Code::NotFound);
    assert_eq!(held.ack().await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.worker.delete().await.unwrap_err().code(), Code::NotFound);
    let listed: Vec<String> = w.topic.subscriptions().iter().map(|s| s.name().to_owned()).collect();
    assert_eq!(listed, ["other"]);
    // The name is free again and starts empty.
    let again = w.topic.subscribe("worker", after(DAY)).await.unwrap();
    assert_eq!(again.stats().backlog, 0);
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn exp_03_activity_restarts_the_clock() {
    for activity in ["empty pull", "pull", "ack", "ack by id", "modify", "stale ack", "update"] {
        let w = World::with(after(DAY).ack_deadline(10 * DAY)).await;
        w.publish(&["a"]).await;
        let held = take_one(&w.worker);
        w.clock.advance(DAY - MILLI);
        let ids = [held.ack_id()];
        match activity {
            "empty pull" => assert!(w.worker.try_pull(1).unwrap().is_empty()),
            "pull" => {
                w.publish(&["b"]).await;
                take_one(&w.worker).into_ack_id();
            }
            "ack" => drop(held.ack()),
            "ack by id" => drop(w.worker.acknowledge(&ids).await.unwrap()),
            "modify" => drop(w.worker.modify_ack_deadline(&ids, HOUR).await.unwrap()),
            "stale ack" => {
                held.ack().await.unwrap();
                w.clock.advance(HOUR);
                w.worker.acknowledge(&ids).await.unwrap();
            }
            _ => drop(w.worker.update(SubscriptionUpdate::new().ack_deadline(HOUR)).await),
        }
        // EXP-3, exact by EXP-4.
        w.clock.advance(DAY - MILLI);
        assert!(alive(&w).await, "{activity}");
        w.clock.advance(MILLI);
        assert!(!alive(&w).await, "{activity}");
    }
}

#[tokio::test(start_paused = true)]
async fn exp_03_looks_lists_and_publishes_are_no_activity() {
    let w = World::with(after(DAY)).await;
    for _ in 0..24 {
        assert!(alive(&w).await);
        w.publish(&["a"]).await;
        assert_eq!(w.bus.subscriptions().len(), 1);
        assert_eq!(w.topic.subscriptions().len(), 1);
        assert_eq!(w.worker.config().retention, Some(DAY));
        assert!(w.worker.stats().backlog > 0);
        w.clock.advance(HOUR);
    }
    assert!(!alive(&w).await); // EXP-3
}

#[tokio::test(start_paused = true)]
async fn exp_03_an_open_stream_is_activity_for_as_long_as_it_is_open() {
    let w = World::with(after(DAY)).await;
    let stream = w.worker.stream(FlowControl::new()).unwrap();
    let batches = w.worker.batches(10, FlowControl::new()).unwrap();
    w.clock.advance(100 * DAY);
    assert!(alive(&w).await); // EXP-3
    drop(stream);
    w.clock.advance(100 * DAY);
    assert!(alive(&w).await);
    drop(batches);
    w.clock.advance(DAY - MILLI);
    assert!(alive(&w).await);
    w.clock.advance(MILLI);
    assert!(!alive(&w).await);
}

#[tokio::test(start_paused = true)]
async fn exp_04_the_clock_starts_at_creation_and_ends_exactly() {
    let w = World::with(after(DAY)).await;
    w.clock.advance(DAY - MILLI);
    assert!(alive(&w).await);
    w.clock.advance(MILLI);
    // EXP-4: NotFound at the first instant, for every operation.
    assert_eq!(w.worker.pull(1).await.unwrap_err().code(), Code::NotFound);
    let stream = w.worker.stream(FlowControl::new());
    assert_eq!(stream.unwrap_err().code(), Code::NotFound);
    let update = w.worker.update(SubscriptionUpdate::new().ack_deadline(MINUTE)).await;
    assert_eq!(update.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.topic.publish("a").await.unwrap().recipients(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn exp_05_a_new_ttl_applies_from_then_on() {
    let w = World::with(after(10 * DAY)).await;
    w.clock.advance(5 * DAY);
    let shorter = SubscriptionUpdate::new().expiration(Expiration::After(2 * DAY));
    let config = w.worker.update(shorter).await.unwrap();
    assert_eq!(config.expiration, Expiration::After(2 * DAY));
    // EXP-5: the update restarted the clock.
    w.clock.advance(2 * DAY - MILLI);
    assert!(alive(&w).await);
    let never = SubscriptionUpdate::new().expiration(Expiration::Never);
    w.worker.update(never).await.unwrap();
    w.clock.advance(1_000 * DAY);
    assert!(alive(&w).await);
    let again = SubscriptionUpdate::new().expiration(Expiration::After(DAY));
    w.worker.update(again).await.unwrap();
    w.clock.advance(DAY);
    assert!(!alive(&w).await);
}

#[tokio::test(start_paused = true)]
async fn exp_08_an_event_tells_what_expired() {
    let w = World::with(after(DAY)).await;
    let mut events = w.bus.events();
    w.clock.advance(DAY);
    let mut expired = Vec::new();
    while let Some(event) = events.try_next() {
        if let Event::SubscriptionExpired { subscription, .. } = event {
            expired.push(subscription.to_string());
        }
    }
    assert_eq!(expired, ["worker"]); // EXP-8
}

#[tokio::test(start_paused = true)]
async fn exp_08_a_listener_hears_of_it_when_it_happens_though_nobody_calls() {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    topic.subscribe("worker", after(DAY)).await.unwrap();
    let mut events = bus.events();
    let start = bus.now();
    let event = events.next().await.unwrap();
    let waited = bus.now().duration_since(start).unwrap();
    // EXP-8, L14: what listeners wait for is observed.
    assert!(matches!(event, Event::SubscriptionExpired { .. }), "{event:?}");
    assert!(waited >= DAY && waited <= DAY + 10 * MILLI, "{waited:?}");
}
