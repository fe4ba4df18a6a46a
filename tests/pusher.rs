//! Push set by configuration, against receivers on the loopback address: who is pushed to, from
//! when, until when.
//!
//! Time is a manual clock; answers and requests come by sockets, so a test waits for what it
//! expects and never for a span of real time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod receiver;

use std::sync::Arc;
use std::time::Duration;

use siftbus::{
    AdminError, Bus, Clock, Code, DeadLetterPolicy, Expiration, FlowControl, ManualClock,
    PUSH_WINDOW, PullError, PushConfig, Pusher, RetryPolicy, Subscription, SubscriptionConfig,
    SubscriptionUpdate, Topic, TopicConfig, Topology,
};
use tokio::sync::Semaphore;

use receiver::{Answer, Receiver};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct World {
    clock: ManualClock,
    bus: Bus,
    topic: Topic,
    pusher: Pusher,
}

impl World {
    async fn new() -> World {
        let clock = ManualClock::new();
        let bus = Bus::builder().clock(Clock::manual(&clock)).seed(7).build();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let pusher = Pusher::attach(&bus).unwrap();
        World { clock, bus, topic, pusher }
    }

    async fn pushed(&self, name: &str, url: &str) -> Subscription {
        let config = SubscriptionConfig::new().push_config(PushConfig::new(url));
        self.topic.subscribe(name, config).await.unwrap()
    }

    async fn publish(&self, texts: &[&'static str]) {
        for text in texts {
            self.topic.publish(*text).await.unwrap();
        }
    }

    fn succeeded(&self, subscription: &Subscription) -> u64 {
        self.pusher.stats(subscription).map_or(0, |stats| stats.succeeded)
    }

    fn is_pushed(&self, subscription: &Subscription) -> bool {
        self.pusher.stats(subscription).is_some()
    }
}

fn to(url: &str) -> SubscriptionUpdate {
    SubscriptionUpdate::new().push_config(Some(PushConfig::new(url)))
}

fn pull() -> SubscriptionUpdate {
    SubscriptionUpdate::new().push_config(None)
}

/// Lets everything else run until it is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

async fn next_data(receiver: &mut Receiver) -> String {
    receiver.next().await.data()
}

#[tokio::test]
async fn a_subscription_with_an_endpoint_is_pushed() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let billing = w.pushed("billing", &receiver.url).await;
    w.publish(&["one", "two"]).await;
    assert_eq!(next_data(&mut receiver).await, "one", "PUSH-1");
    assert_eq!(next_data(&mut receiver).await, "two", "PUSH-1");
    until(|| w.succeeded(&billing) == 2).await;
    assert_eq!(billing.stats().backlog, 0);
    let stored = billing.config().push_config.unwrap();
    assert_eq!(stored.attributes["x-goog-version"], "v1", "PUSH-3: always one");
}

#[tokio::test]
async fn a_live_subscription_switches_between_push_and_pull() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let billing = w.topic.subscribe("billing", SubscriptionConfig::new()).await.unwrap();
    w.publish(&["one", "two"]).await;
    let leased = billing.try_pull(1).unwrap();
    billing.update(to(&receiver.url)).await.unwrap();
    assert_eq!(next_data(&mut receiver).await, "two", "PUSH-1: the backlog is pushed");
    until(|| w.succeeded(&billing) == 1).await;
    assert_eq!(leased.ack_all().done, 1, "a lease of before goes on");

    billing.update(pull()).await.unwrap();
    until(|| !w.is_pushed(&billing)).await;
    w.publish(&["three", "four"]).await;
    let batch = billing.pull(10).await.unwrap();
    assert_eq!(batch.len(), 2, "PUSH-1: and can be pulled after the switch back");
    batch.nack_all();
    billing.update(to(&receiver.url)).await.unwrap();
    assert_eq!(next_data(&mut receiver).await, "three", "PUSH-1");
    assert_eq!(next_data(&mut receiver).await, "four", "PUSH-1");
}

#[tokio::test]
async fn another_endpoint_gets_what_comes_next() {
    let w = World::new().await;
    let let_go = Arc::new(Semaphore::new(0));
    let mut first = Receiver::new([Answer::When(Arc::clone(&let_go))]).await;
    let mut second = Receiver::new([]).await;
    let billing = w.pushed("billing", &first.url).await;
    w.publish(&["one", "two"]).await;
    assert_eq!(next_data(&mut first).await, "one");
    billing.update(to(&second.url)).await.unwrap();
    assert_eq!(next_data(&mut second).await, "two", "PUSH-1");
    let_go.add_permits(1);
    until(|| billing.stats().backlog == 0).await;
    assert!(first.seen.try_recv().is_err(), "what was under way was left to finish, once");
}

#[tokio::test]
async fn an_update_of_something_else_changes_nothing() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let billing = w.pushed("billing", &receiver.url).await;
    w.publish(&["one"]).await;
    next_data(&mut receiver).await;
    until(|| w.succeeded(&billing) == 1).await;
    let longer = SubscriptionUpdate::new().ack_deadline(20 * SECOND);
    billing.update(longer).await.unwrap();
    w.publish(&["two"]).await;
    assert_eq!(receiver.next().await.connection, 0);
    until(|| w.succeeded(&billing) == 2).await;
}

#[tokio::test]
async fn a_pull_beside_push_competes_and_a_stream_is_refused() {
    let w = World::new().await;
    let mut receiver = Receiver::new([Answer::silence()]).await;
    let billing = w.topic.subscribe("billing", SubscriptionConfig::new()).await.unwrap();
    let mut stream = billing.stream(FlowControl::new()).unwrap();
    let waiting = tokio::spawn(async move { stream.next().await });
    tokio::task::yield_now().await;
    billing.update(to(&receiver.url)).await.unwrap();
    let refused = PullError::PushSubscription { subscription: "billing".into() };
    let ended = waiting.await.unwrap().unwrap().unwrap_err();
    assert_eq!(ended, refused, "STR-4: a stream that is open ends");
    assert_eq!(billing.stream(FlowControl::new()).unwrap_err(), refused, "STR-4, ERR-34");
    assert!(billing.batches(10, FlowControl::new()).is_err(), "STR-4, ERR-34");
    assert_eq!(refused.code(), Code::FailedPrecondition, "ERR-34");

    until(|| w.is_pushed(&billing)).await;
    w.publish(&["one", "two"]).await;
    assert_eq!(next_data(&mut receiver).await, "one");
    let batch = billing.try_pull(10).unwrap();
    assert_eq!(batch.iter().next().unwrap().data(), "two", "PULL-8, ERR-26");
    batch.ack_all();
    billing.update(pull()).await.unwrap();
    assert!(billing.stream(FlowControl::new()).is_ok(), "STR-4");
}

#[tokio::test]
async fn a_subscription_that_goes_is_pushed_no_more() {
    let w = World::new().await;
    let let_go = Arc::new(Semaphore::new(0));
    let held = || Answer::When(Arc::clone(&let_go));
    let mut receiver = Receiver::new([held(), held()]).await;
    let deleted = w.pushed("deleted", &receiver.url).await;
    w.publish(&["one", "two"]).await;
    assert_eq!(next_data(&mut receiver).await, "one");
    deleted.delete().await.unwrap();
    until(|| !w.is_pushed(&deleted)).await;

    let detached = w.pushed("detached", &receiver.url).await;
    w.publish(&["three", "four"]).await;
    assert_eq!(next_data(&mut receiver).await, "three");
    detached.detach().await.unwrap();
    until(|| !w.is_pushed(&detached)).await;
    // What is under way is left to finish, and its answer ignored.
    let_go.add_permits(2);
    w.pusher.drain().await;
    assert!(receiver.seen.try_recv().is_err(), "PUSH-29: no new pushes");
}

#[tokio::test]
async fn a_new_subscription_of_the_same_name_is_another() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let old = w.pushed("billing", &receiver.url).await;
    until(|| w.is_pushed(&old)).await;
    // Both happen before the pusher hears of the first.
    old.delete().await.unwrap();
    let new = w.pushed("billing", &receiver.url).await;
    w.publish(&["one"]).await;
    assert_eq!(next_data(&mut receiver).await, "one");
    until(|| w.succeeded(&new) == 1).await;
    assert!(!w.is_pushed(&old));
}

#[tokio::test]
async fn events_that_were_missed_are_made_up_for() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let gone = w.pushed("gone", &receiver.url).await;
    until(|| w.is_pushed(&gone)).await;
    gone.delete().await.unwrap();
    let billing = w.pushed("billing", &receiver.url).await;
    for n in 0..siftbus::EVENT_CAPACITY + 10 {
        w.bus.create_topic(&n.to_string(), TopicConfig::new()).await.unwrap();
    }
    w.publish(&["one"]).await;
    assert_eq!(next_data(&mut receiver).await, "one", "LIB-422");
    assert!(w.is_pushed(&billing) && !w.is_pushed(&gone), "LIB-422");
}

#[tokio::test]
async fn one_pusher_at_a_time_and_the_next_goes_on() {
    let w = World::new().await;
    let mut receiver = Receiver::new([Answer::silence()]).await;
    let billing = w.pushed("billing", &receiver.url).await;
    let error = Pusher::attach(&w.bus).unwrap_err();
    assert_eq!(error, AdminError::PusherAttached, "LIB-420");
    assert_eq!(error.code(), Code::FailedPrecondition, "LIB-420");
    w.publish(&["one"]).await;
    assert_eq!(next_data(&mut receiver).await, "one");

    drop(w.pusher);
    until(|| billing.stats().outstanding == 0).await; // LIB-422: what was under way is released.
    let config = SubscriptionConfig::new().push_config(PushConfig::new(&receiver.url));
    let error = w.topic.subscribe("late", config).await.unwrap_err();
    assert_eq!(error, AdminError::NoPusher { subscription: "late".into() }, "LIB-420");
    // Other settings can be changed all the same.
    billing.update(SubscriptionUpdate::new().ack_deadline(SECOND)).await.unwrap();

    let next = Pusher::attach(&w.bus).unwrap();
    assert_eq!(next_data(&mut receiver).await, "one", "LIB-422");
    until(|| next.stats(&billing).unwrap().succeeded == 1).await;
}

#[tokio::test]
async fn drain_waits_for_what_is_under_way() {
    let w = World::new().await;
    let let_go = Arc::new(Semaphore::new(0));
    let mut receiver = Receiver::new([Answer::When(Arc::clone(&let_go))]).await;
    let billing = w.pushed("billing", &receiver.url).await;
    w.publish(&["one", "two"]).await;
    assert_eq!(next_data(&mut receiver).await, "one");
    let draining = tokio::spawn(w.pusher.drain());
    tokio::task::yield_now().await;
    let_go.add_permits(1);
    draining.await.unwrap();
    assert_eq!(billing.stats().backlog, 1, "LIB-422");
    assert_eq!(billing.try_pull(10).unwrap().len(), 1, "LIB-422");
}

#[tokio::test]
async fn a_declared_topology_pushes() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let config = SubscriptionConfig::new().push_config(PushConfig::new(&receiver.url));
    let topology = Topology::new().subscription("billing", "orders", config);
    w.bus.declare(&topology).await.unwrap();
    w.publish(&["one"]).await;
    assert_eq!(next_data(&mut receiver).await, "one", "LIB-48, PUSH-1");
}

#[tokio::test]
async fn only_success_keeps_a_subscription_from_expiring() {
    let w = World::new().await;
    let mut receiver = Receiver::new((0..2_000).map(|_| Answer::status(500))).await;
    let config = SubscriptionConfig::new()
        .expiration(Expiration::After(DAY))
        .push_config(PushConfig::new(&receiver.url));
    let failing = w.topic.subscribe("failing", config).await.unwrap();
    until(|| w.is_pushed(&failing)).await;
    w.clock.advance_settled(DAY / 2).await;
    w.publish(&["one"]).await;
    next_data(&mut receiver).await;
    until(|| w.pusher.stats(&failing).unwrap().failed == 1).await;
    w.clock.advance_settled(DAY / 2 - SECOND).await;
    assert!(w.bus.subscription("failing").await.is_ok());
    w.clock.advance_settled(SECOND).await;
    let error = w.bus.subscription("failing").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "EXP-3: waiting to push and failing are no activity");
    until(|| !w.is_pushed(&failing)).await;

    let mut receiver = Receiver::new([]).await;
    let config = SubscriptionConfig::new()
        .expiration(Expiration::After(DAY))
        .push_config(PushConfig::new(&receiver.url));
    let working = w.topic.subscribe("working", config).await.unwrap();
    until(|| w.is_pushed(&working)).await;
    w.clock.advance_settled(DAY / 2).await;
    w.publish(&["two"]).await;
    next_data(&mut receiver).await;
    until(|| w.succeeded(&working) == 1).await;
    w.clock.advance_settled(DAY - SECOND).await;
    assert!(w.bus.subscription("working").await.is_ok(), "EXP-3: success is activity");
    w.clock.advance_settled(SECOND).await;
    assert!(w.bus.subscription("working").await.is_err(), "EXP-3");
}

#[tokio::test]
async fn the_later_of_back_off_and_retry_policy_counts() {
    let w = World::new().await;
    let mut receiver = Receiver::new([Answer::status(500)]).await;
    let retry = RetryPolicy::new().minimum_backoff(10 * SECOND);
    let config =
        SubscriptionConfig::new().retry_policy(retry).push_config(PushConfig::new(&receiver.url));
    let billing = w.topic.subscribe("billing", config).await.unwrap();
    w.publish(&["one"]).await;
    assert_eq!(next_data(&mut receiver).await, "one");
    until(|| w.pusher.stats(&billing).unwrap().failed == 1).await;
    w.publish(&["two"]).await;
    w.clock.advance_settled(SECOND).await;
    assert_eq!(next_data(&mut receiver).await, "two", "RTY-10: the pause is over, for others");
    until(|| w.succeeded(&billing) == 1).await;
    w.clock.advance_settled(9 * SECOND).await;
    assert_eq!(next_data(&mut receiver).await, "one", "RTY-10");
}

#[tokio::test]
async fn a_message_that_cannot_be_pushed_goes_to_the_dead_letters() {
    let w = World::new().await;
    let dead = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let dead = dead.subscribe("dead", SubscriptionConfig::new()).await.unwrap();
    let mut receiver = Receiver::new((0..5).map(|_| Answer::status(500))).await;
    let config = SubscriptionConfig::new()
        .dead_letter_policy(DeadLetterPolicy::new("dead").max_delivery_attempts(5))
        .push_config(PushConfig::new(&receiver.url));
    let billing = w.topic.subscribe("billing", config).await.unwrap();
    w.publish(&["one"]).await;
    for attempt in 1..=5 {
        let seen = receiver.next().await;
        let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body["deliveryAttempt"], attempt, "PUSH-7");
        until(|| w.pusher.stats(&billing).unwrap().failed == attempt).await;
        // Longer than the pause, and shorter than the ack deadline.
        w.clock.advance_settled(2 * SECOND).await;
    }
    assert_eq!(dead.try_pull(10).unwrap().ack_all().done, 1, "PUSH-18");
    assert_eq!(billing.stats().backlog, 0, "PUSH-18");
}

#[tokio::test]
async fn a_pusher_needs_an_open_bus_and_a_window_within_limits() {
    let bus = Bus::new();
    let (least, most) = PUSH_WINDOW.into_inner();
    for max in [least - 1, most + 1] {
        let error = Pusher::builder().max_window(max).attach(&bus).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "PUSH-23");
    }
    for max in [least, most] {
        drop(Pusher::builder().max_window(max).attach(&bus).unwrap());
    }
    bus.close(Duration::ZERO).await;
    assert_eq!(Pusher::attach(&bus).unwrap_err(), AdminError::Closed, "LIB-420");
}

#[test]
fn a_pusher_needs_a_runtime() {
    assert_eq!(Pusher::attach(&Bus::new()).unwrap_err(), AdminError::NoRuntime, "LIB-420");
}

#[tokio::test]
async fn a_closed_bus_ends_every_push() {
    let w = World::new().await;
    let mut receiver = Receiver::new([Answer::silence()]).await;
    let billing = w.pushed("billing", &receiver.url).await;
    w.publish(&["one"]).await;
    next_data(&mut receiver).await;
    drop(w.bus); // A pusher does not keep the bus open.
    until(|| w.topic.try_publish("late").is_err()).await;
    until(|| w.pusher.stats(&billing).is_none_or(|stats| stats.in_flight == 0)).await;
}

#[cfg(feature = "oidc")]
mod tokens {
    use siftbus::OidcToken;
    use siftbus::identity::{Issuer, SigningAlgorithm, Verifier};

    use super::*;

    const ACCOUNT: &str = "push@orders.example";

    async fn with_token(token: OidcToken) -> (World, Receiver, Subscription) {
        let clock = ManualClock::new();
        let bus = Bus::builder().clock(Clock::manual(&clock)).seed(7).build();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let issuer = Arc::new(Issuer::new(SigningAlgorithm::Es256));
        let pusher = Pusher::builder().issuer(&issuer).attach(&bus).unwrap();
        let w = World { clock, bus, topic, pusher };
        let receiver = Receiver::new([]).await;
        let push = PushConfig::new(&receiver.url).oidc_token(token);
        let config = SubscriptionConfig::new().push_config(push);
        let billing = w.topic.subscribe("billing", config).await.unwrap();
        (w, receiver, billing)
    }

    /// The token that the next request comes with.
    async fn token(w: &World, receiver: &mut Receiver) -> String {
        w.publish(&["one"]).await;
        let seen = receiver.next().await;
        seen.headers["authorization"].strip_prefix("Bearer ").unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_push_comes_with_a_token_for_its_endpoint() {
        let (w, mut receiver, _billing) = with_token(OidcToken::new(ACCOUNT)).await;
        let token = token(&w, &mut receiver).await;
        let keys = w.pusher.issuer().jwks().unwrap();
        let verifier = Verifier::new(&keys, &receiver.url, ACCOUNT).unwrap();
        assert_eq!(verifier.verify(&token, w.bus.now()).unwrap().email(), ACCOUNT, "PUSH-13");
    }

    #[tokio::test]
    async fn an_audience_that_is_given_is_taken() {
        let wanted = OidcToken::new(ACCOUNT).audience("orders");
        let (w, mut receiver, _billing) = with_token(wanted).await;
        let token = token(&w, &mut receiver).await;
        let verifier = Verifier::new(&w.pusher.issuer().jwks().unwrap(), "orders", ACCOUNT);
        assert!(verifier.unwrap().verify(&token, w.bus.now()).is_ok(), "PUSH-13");
    }

    #[tokio::test]
    async fn a_token_is_used_again_and_replaced_before_it_expires() {
        let (w, mut receiver, billing) = with_token(OidcToken::new(ACCOUNT)).await;
        let verifier =
            Verifier::new(&w.pusher.issuer().jwks().unwrap(), &receiver.url, ACCOUNT).unwrap();
        let verifier = verifier.leeway(Duration::ZERO);
        let mut tokens = Vec::new();
        for minutes in [0, 54, 2] {
            w.clock.advance_settled(60 * minutes * SECOND).await;
            tokens.push(token(&w, &mut receiver).await);
            let newest = tokens.last().unwrap();
            assert!(verifier.verify(newest, w.bus.now()).is_ok(), "PUSH-14");
            until(|| w.succeeded(&billing) == tokens.len() as u64).await;
        }
        assert_eq!(tokens[0], tokens[1], "PUSH-14");
        assert_ne!(tokens[1], tokens[2], "PUSH-14");
    }
}

#[cfg(not(feature = "oidc"))]
#[tokio::test]
async fn a_token_that_nobody_can_sign_is_refused() {
    let w = World::new().await;
    let push = PushConfig::new("http://127.0.0.1:1/");
    let push = push.oidc_token(siftbus::OidcToken::new("push@orders.example"));
    let config = SubscriptionConfig::new().push_config(push);
    let error = w.topic.subscribe("billing", config).await.unwrap_err();
    assert_eq!(error, AdminError::NoIssuer { subscription: "billing".into() }, "LIB-421");
    assert_eq!(error.code(), Code::FailedPrecondition, "LIB-421");
}
