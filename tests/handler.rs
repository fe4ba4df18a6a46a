//! Handlers: concurrency, kept leases, what results mean, panics, back-off, draining.
//!
//! On a manual clock; the handlers wait for the clock or for the test, never for real time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use siftbus::{
    AdminError, Budget, Bus, Clock, Code, ConfigError, DEAD_LETTER_SOURCE_DELIVERY_ERROR_MESSAGE,
    DeadLetterPolicy, Failure, HANDLER_CONCURRENCY, Handler, HandlerOptions, Limits,
    MESSAGE_OVERHEAD, ManualClock, Message, PublishReason, PullError, REPLY_TO, Received,
    ReplyError, Requester, RetryPolicy, Subscription, SubscriptionConfig, SubscriptionUpdate,
    Topic, TopicConfig, Verdict,
};
use tokio::sync::Semaphore;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    clock: ManualClock,
    bus: Bus,
    topic: Topic,
    worker: Subscription,
}

impl World {
    async fn new() -> World {
        let clock = ManualClock::new();
        let bus = Bus::builder().clock(Clock::manual(&clock)).build();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
        World { clock, bus, topic, worker }
    }

    async fn publish(&self, count: usize) {
        for n in 0..count {
            self.topic.publish(n.to_string()).await.unwrap();
        }
        turns().await;
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance_settled(by).await;
        turns().await;
    }
}

/// Lets every task that can run do so.
async fn turns() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// What a handler has seen: data and attempt of each call.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, u32)>>>);

impl Seen {
    fn note(&self, received: &Received) {
        let data = String::from_utf8(received.data().to_vec()).unwrap();
        self.0.lock().unwrap().push((data, received.attempt()));
    }

    fn attempts(&self) -> Vec<u32> {
        self.0.lock().unwrap().iter().map(|(_, attempt)| *attempt).collect()
    }
}

/// A handler that gives the same answer each time.
fn always(
    w: &World,
    options: HandlerOptions,
    seen: &Seen,
    answer: impl Fn() -> Result<(), Failure> + Send + Sync + 'static,
) -> Handler {
    let seen = seen.clone();
    let handle = move |received: Received| {
        seen.note(&received);
        let answer = answer();
        async move { answer }
    };
    w.worker.handle(options, handle).unwrap()
}

#[tokio::test]
async fn a_result_settles_the_message() {
    let w = World::new().await;
    let seen = Seen::default();
    let handler = always(&w, HandlerOptions::new(), &seen, || Ok(()));
    w.publish(100).await;
    assert_eq!(handler.stats().succeeded, 100, "LIB-300");
    assert_eq!(w.worker.stats().backlog, 0, "LIB-300: Ok acknowledges");
    assert_eq!(seen.attempts(), [1; 100]);
}

#[tokio::test]
async fn a_failure_is_retried_later_each_time() {
    let w = World::new().await;
    let seen = Seen::default();
    let options = HandlerOptions::new().backoff(SECOND..=3 * SECOND);
    let handler = always(&w, options, &seen, || Err(Failure::retry("no")));
    w.publish(1).await;
    for (delay, attempt) in [(1, 2), (2, 3), (3, 4), (3, 5)] {
        w.advance(delay * SECOND - MILLI).await;
        assert_eq!(seen.attempts().len(), attempt - 1, "LIB-303: not before its delay");
        w.advance(MILLI).await;
        assert_eq!(seen.attempts().len(), attempt, "LIB-303: after its delay");
    }
    let stats = handler.stats();
    assert_eq!((stats.failed, stats.panicked, stats.succeeded), (5, 0, 0));
}

#[tokio::test]
async fn retry_after_says_when() {
    let w = World::new().await;
    let seen = Seen::default();
    let answer = || Err(Failure::retry_after(7 * SECOND).because("busy"));
    let _handler = always(&w, HandlerOptions::new(), &seen, answer);
    w.publish(1).await;
    w.advance(7 * SECOND - MILLI).await;
    assert_eq!(seen.attempts(), [1]);
    w.advance(MILLI).await;
    assert_eq!(seen.attempts(), [1, 2], "LIB-300");
}

#[tokio::test]
async fn a_rejected_message_goes_to_the_dead_letter_topic() {
    let w = World::new().await;
    let dead = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let dead = dead.subscribe("dead", SubscriptionConfig::new()).await.unwrap();
    let policy = DeadLetterPolicy::new("dead");
    let update = SubscriptionUpdate::new().dead_letter_policy(Some(policy));
    w.worker.update(update).await.unwrap();
    let seen = Seen::default();
    let answer = || Err(Failure::reject("never"));
    let handler = always(&w, HandlerOptions::new(), &seen, answer);
    w.publish(3).await;
    w.advance(60 * SECOND).await;
    let stats = handler.stats();
    assert_eq!((stats.rejected, stats.failed), (3, 0), "LIB-300");
    assert_eq!(seen.attempts(), [1, 1, 1]);
    let forwarded = dead.try_pull(10).unwrap();
    assert_eq!(forwarded.len(), 3, "LIB-300, LIB-102");
    let reason = DEAD_LETTER_SOURCE_DELIVERY_ERROR_MESSAGE;
    assert!(forwarded.iter().all(|one| one.attribute(reason) == Some("never")), "LIB-102");
}

#[tokio::test]
async fn a_rejected_message_without_dead_letter_topic_is_retried() {
    let w = World::new().await;
    let seen = Seen::default();
    let handler = always(&w, HandlerOptions::new(), &seen, || Err(Failure::reject("never")));
    w.publish(1).await;
    w.advance(100 * MILLI).await;
    assert_eq!(seen.attempts(), [1, 2], "LIB-300: nothing is lost, and no hot loop");
    assert_eq!((handler.stats().rejected, handler.stats().failed), (0, 2));
}

#[tokio::test]
async fn the_larger_of_retry_policy_and_backoff_counts() {
    let w = World::new().await;
    let retry = RetryPolicy::new().minimum_backoff(4 * SECOND).maximum_backoff(4 * SECOND);
    let update = SubscriptionUpdate::new().retry_policy(Some(retry));
    w.worker.update(update).await.unwrap();
    let seen = Seen::default();
    let options = HandlerOptions::new().backoff(SECOND..=60 * SECOND);
    let _handler = always(&w, options, &seen, || Err(Failure::retry("no")));
    w.publish(1).await;
    for delay in [4, 4, 4, 8] {
        let before = seen.attempts().len();
        w.advance(delay * SECOND - MILLI).await;
        assert_eq!(seen.attempts().len(), before, "LIB-303");
        w.advance(MILLI).await;
        assert_eq!(seen.attempts().len(), before + 1, "LIB-303");
    }
}

#[tokio::test]
async fn one_message_of_a_key_runs_at_a_time() {
    let w = World::new().await;
    let config = SubscriptionConfig::new().message_ordering(true);
    let ordered = w.topic.subscribe("ordered", config).await.unwrap();
    let (order, bus) = (Arc::new(Mutex::new(Vec::new())), w.bus.clone());
    let noted = Arc::clone(&order);
    let handler = ordered.handle(HandlerOptions::new().concurrency(8), move |one: Received| {
        let (noted, bus) = (Arc::clone(&noted), bus.clone());
        async move {
            bus.sleep(SECOND).await;
            noted.lock().unwrap().push(one.data().clone());
            Ok(())
        }
    });
    let handler = handler.unwrap();
    for text in ["a1", "a2", "a3", "b1", "b2"] {
        let message = Message::new(text).with_ordering_key(&text[..1]);
        w.topic.publish(message).await.unwrap();
    }
    turns().await;
    assert_eq!(handler.stats().running, 2, "LIB-301, ORD-9: one of each key");
    w.advance(3 * SECOND).await;
    let of = |key: u8| {
        let all = order.lock().unwrap().clone();
        all.into_iter().filter(|data| data[0] == key).collect::<Vec<_>>()
    };
    assert_eq!(
        (of(b'a'), of(b'b')),
        (vec!["a1".into(), "a2".into(), "a3".into()], vec!["b1".into(), "b2".into()]),
        "LIB-301, PUSH-27"
    );
}

#[tokio::test]
async fn panics_are_caught_counted_and_backed_off() {
    let w = World::new().await;
    let seen = Seen::default();
    let causes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&causes);
    let options = HandlerOptions::new().on_failure(move |received, failure| {
        told.lock().unwrap().push((received.attempt(), failure.to_string()));
        panic!("LIB-304: this one is dropped");
    });
    let handler = always(&w, options, &seen, || panic!("at once"));
    w.publish(1).await;
    assert_eq!(handler.stats().panicked, 1, "LIB-304");
    w.advance(100 * MILLI - MILLI).await;
    assert_eq!(seen.attempts(), [1], "LIB-303: 100 ms by default");
    w.advance(MILLI).await;
    assert_eq!(seen.attempts(), [1, 2]);
    assert_eq!(causes.lock().unwrap()[1], (2, "to be tried again: panicked: at once".into()));
    drop(handler);

    // A panic in the middle, and one in what the future drops.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on drop");
        }
    }
    let bus = w.bus.clone();
    let handler = w.worker.handle(HandlerOptions::new(), move |received| {
        let bus = bus.clone();
        async move {
            let bomb = Bomb;
            bus.sleep(SECOND).await;
            std::mem::forget(bomb);
            assert!(received.attempt() > 3, "later");
            Ok(())
        }
    });
    let handler = handler.unwrap();
    w.advance(SECOND + 200 * MILLI).await;
    assert_eq!(handler.stats().panicked, 1, "LIB-304");
    w.advance(3 * SECOND).await;
    assert_eq!((handler.stats().succeeded, w.worker.stats().backlog), (1, 0));
    // The bomb goes off when the handler is dropped in the middle.
    w.publish(1).await;
    drop(handler);
    turns().await;
    assert_eq!(w.worker.stats().ready, 1, "LIB-305: released");
}

#[tokio::test]
async fn a_handler_that_only_fails_is_no_hot_loop() {
    let w = World::new().await;
    let seen = Seen::default();
    let options = HandlerOptions::new().concurrency(4);
    let handler = always(&w, options, &seen, || Err(Failure::retry("down")));
    w.publish(10_000).await;
    turns().await;
    assert_eq!(seen.attempts().len(), 4, "LIB-303: paused after one round of failures");
    assert!(handler.stats().is_paused);
    let mut calls = 0;
    for pause in [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000] {
        w.advance(pause * MILLI).await;
        let now = seen.attempts().len() - 4;
        assert_eq!(now, calls + 4, "LIB-303: one round after each pause of {pause} ms");
        calls = now;
    }
}

#[tokio::test]
async fn one_poisoned_message_delays_only_itself() {
    let w = World::new().await;
    let handler = w
        .worker
        .handle(HandlerOptions::new().concurrency(4), |received: Received| async move {
            if received.data() == "0" { Err(Failure::retry("poison")) } else { Ok(()) }
        })
        .unwrap();
    w.publish(1_000).await;
    let stats = handler.stats();
    assert_eq!((stats.succeeded, stats.failed, stats.is_paused), (999, 1, false), "LIB-303");
}

#[tokio::test]
async fn no_more_calls_than_allowed_run_at_once() {
    let w = World::new().await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, peak, bus) = (Arc::clone(&now), Arc::clone(&most), w.bus.clone());
    let handler = w.worker.handle(HandlerOptions::new().concurrency(5), move |_| {
        let (running, peak, bus) = (Arc::clone(&running), Arc::clone(&peak), bus.clone());
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            bus.sleep(SECOND).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let handler = handler.unwrap();
    w.publish(20).await;
    assert_eq!((handler.stats().running, w.worker.stats().outstanding), (5, 5), "LIB-301");
    for done in [5, 10, 15, 20] {
        w.advance(SECOND).await;
        assert_eq!(handler.stats().succeeded, done, "LIB-301");
    }
    assert_eq!(most.load(Ordering::SeqCst), 5, "LIB-301");
    assert_eq!(now.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_lease_is_kept_while_the_handler_runs() {
    let w = World::new().await;
    let seen = Seen::default();
    let (noted, bus) = (seen.clone(), w.bus.clone());
    let handler = w.worker.handle(HandlerOptions::new(), move |received: Received| {
        noted.note(&received);
        let bus = bus.clone();
        async move {
            // Five times the ack deadline.
            bus.sleep(50 * SECOND).await;
            assert!(!received.is_lost());
            Ok(())
        }
    });
    let handler = handler.unwrap();
    w.publish(1).await;
    for _ in 0..49 {
        w.advance(SECOND).await;
        assert_eq!(w.worker.stats().outstanding, 1, "LIB-302");
    }
    w.advance(SECOND).await;
    let stats = handler.stats();
    assert_eq!((stats.succeeded, stats.lost, stats.stale), (1, 0, 0), "LIB-302");
    assert_eq!(seen.attempts(), [1]);
    assert_eq!(w.worker.stats().expired_leases, 0);
}

#[tokio::test]
async fn a_lease_is_kept_up_to_the_maximum_and_then_told_to_be_lost() {
    let w = World::new().await;
    let losses = Arc::new(Mutex::new(Vec::new()));
    let (lost, bus) = (Arc::clone(&losses), w.bus.clone());
    let options = HandlerOptions::new().concurrency(1).max_extension(25 * SECOND);
    let start = w.bus.now();
    let handler = w.worker.handle(options, move |received: Received| {
        let (lost, bus) = (Arc::clone(&lost), bus.clone());
        async move {
            if received.attempt() == 1 {
                received.lost().await;
                lost.lock().unwrap().push(bus.now().duration_since(start).unwrap());
            }
            Ok(())
        }
    });
    let handler = handler.unwrap();
    w.publish(1).await;
    w.advance(25 * SECOND - MILLI).await;
    assert_eq!(w.worker.stats().outstanding, 1, "LIB-302");
    w.advance(MILLI).await;
    assert_eq!(*losses.lock().unwrap(), [25 * SECOND], "LIB-302: exactly at the maximum");
    assert_eq!(handler.stats().lost, 1);
    assert_eq!(w.worker.stats().expired_leases, 1);
}

#[tokio::test]
async fn a_maximum_below_the_ack_deadline_leaves_the_deadline() {
    let w = World::new().await;
    let options = HandlerOptions::new().max_extension(Duration::ZERO);
    let handler = w
        .worker
        .handle(options, |received: Received| async move {
            received.lost().await;
            Ok(())
        })
        .unwrap();
    w.publish(1).await;
    w.advance(10 * SECOND - MILLI).await;
    assert_eq!((handler.stats().lost, w.worker.stats().outstanding), (0, 1), "LIB-302");
    w.advance(MILLI).await;
    assert_eq!(handler.stats().lost, 1, "LIB-302");
}

#[tokio::test]
async fn a_result_after_the_message_was_taken_elsewhere_is_stale() {
    let w = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let options = HandlerOptions::new().concurrency(1).max_extension(Duration::ZERO);
    let handler = w.worker.handle(options, move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.acquire().await?.forget();
            Ok(())
        }
    });
    let handler = handler.unwrap();
    w.publish(1).await;
    w.advance(10 * SECOND).await;
    let elsewhere = w.worker.try_pull(1).unwrap();
    assert_eq!(elsewhere.len(), 1);
    gate.add_permits(1);
    turns().await;
    assert_eq!(handler.stats().stale, 1, "LIB-302");
    assert_eq!(elsewhere.ack_all().done, 1);
}

#[tokio::test]
async fn drain_finishes_what_runs_and_leaves_the_rest() {
    let w = World::new().await;
    let bus = w.bus.clone();
    let handler = w.worker.handle(HandlerOptions::new().concurrency(3), move |_| {
        let bus = bus.clone();
        async move {
            bus.sleep(SECOND).await;
            Ok(())
        }
    });
    let handler = handler.unwrap();
    w.publish(10).await;
    let drained = tokio::spawn(handler.drain());
    w.advance(SECOND).await;
    let stats = drained.await.unwrap();
    assert_eq!((stats.succeeded, stats.running), (3, 0), "LIB-305");
    let left = w.worker.stats();
    assert_eq!((left.ready, left.outstanding, left.redeliveries), (7, 0, 0), "LIB-305");

    // Nothing runs: it ends at once, although its tasks wait.
    let idle = w.worker.handle(HandlerOptions::new(), |_| async { Ok(()) }).unwrap();
    turns().await;
    assert_eq!(idle.drain().await.succeeded, 7);
}

#[tokio::test]
async fn dropping_a_handler_or_its_drain_releases_everything() {
    for drains in [false, true] {
        let w = World::new().await;
        let options = HandlerOptions::new().concurrency(3);
        let handler = w.worker.handle(options, |_| std::future::pending()).unwrap();
        w.publish(10).await;
        assert_eq!(w.worker.stats().outstanding, 3);
        if drains {
            let drained = w.bus.timeout(SECOND, handler.drain());
            let (drained, ()) = tokio::join!(drained, w.advance(SECOND));
            assert!(drained.is_err());
        } else {
            drop(handler);
        }
        turns().await;
        let left = w.worker.stats();
        assert_eq!((left.ready, left.outstanding), (10, 0), "LIB-305");
    }
}

#[tokio::test]
async fn a_handler_ends_with_its_subscription_or_bus() {
    let w = World::new().await;
    let handler = w.worker.handle(HandlerOptions::new(), |_| async { Ok(()) }).unwrap();
    turns().await;
    w.worker.delete().await.unwrap();
    assert!(matches!(handler.ended().await, PullError::NotFound { .. }), "LIB-305");
    let error = w.worker.handle(HandlerOptions::new(), |_| async { Ok(()) }).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);

    let worker = w.topic.subscribe("other", SubscriptionConfig::new()).await.unwrap();
    let handler = worker.handle(HandlerOptions::new(), |_| async { Ok(()) }).unwrap();
    turns().await;
    drop(w.bus);
    assert_eq!(handler.ended().await, PullError::Closed, "LIB-305");
    let error = worker.handle(HandlerOptions::new(), |_| async { Ok(()) }).unwrap_err();
    assert_eq!(error, AdminError::Closed);
}

#[tokio::test]
async fn an_idle_handler_leases_nothing_and_wakes_for_a_publish() {
    let w = World::new().await;
    let handler = w.worker.handle(HandlerOptions::new(), |_| async { Ok(()) }).unwrap();
    w.advance(3_600 * SECOND).await;
    assert_eq!(w.worker.stats().outstanding, 0);
    w.publish(1).await;
    assert_eq!(handler.stats().succeeded, 1);
}

#[tokio::test]
async fn two_handlers_share_the_messages() {
    let w = World::new().await;
    let bus = w.bus.clone();
    let slow = move |_| {
        let bus = bus.clone();
        async move {
            bus.sleep(SECOND).await;
            Ok(())
        }
    };
    let one = w.worker.handle(HandlerOptions::new().concurrency(2), slow.clone()).unwrap();
    let two = w.worker.handle(HandlerOptions::new().concurrency(2), slow).unwrap();
    w.publish(8).await;
    w.advance(2 * SECOND).await;
    assert_eq!((one.stats().succeeded, two.stats().succeeded), (4, 4), "LIB-301");
}

#[tokio::test]
async fn options_out_of_range_are_refused() {
    let w = World::new().await;
    let handle = |options| w.worker.handle(options, |_| async { Ok(()) }).map(drop);
    let (least, most) = HANDLER_CONCURRENCY.into_inner();
    for concurrency in [least, most] {
        assert_eq!(handle(HandlerOptions::new().concurrency(concurrency)), Ok(()), "LIB-301");
    }
    for value in [least - 1, most + 1] {
        let error = handle(HandlerOptions::new().concurrency(value)).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "LIB-301");
        let field = "concurrency";
        let expected = ConfigError::CountOutOfRange { field, value, min: least, max: most };
        assert_eq!(error, AdminError::Config(expected));
    }
    let (min, max) = (2 * SECOND, SECOND);
    let error = handle(HandlerOptions::new().backoff(min..=max)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "LIB-303");
    assert_eq!(handle(HandlerOptions::new().backoff(max..=max)), Ok(()));
}

#[test]
fn without_a_runtime_a_handler_is_refused() {
    use futures_util::FutureExt;
    let w = World::new().now_or_never().unwrap();
    let error = w.worker.handle(HandlerOptions::new(), |_| async { Ok(()) }).unwrap_err();
    assert_eq!((error.code(), error), (Code::FailedPrecondition, AdminError::NoRuntime));
}

#[test]
fn failures_say_what_they_mean() {
    let from_error: Failure = "x".parse::<u8>().unwrap_err().into();
    assert_eq!(from_error.verdict(), Verdict::Retry, "LIB-300: `?` means retry");
    assert_eq!(from_error.to_string(), "to be tried again: invalid digit found in string");
    let reject = Failure::reject("bad");
    assert_eq!(
        (reject.verdict(), reject.cause().unwrap().to_string()),
        (Verdict::Reject, "bad".into())
    );
    let later = Failure::retry_after(SECOND);
    assert!(later.cause().is_none());
    assert_eq!(later.to_string(), "to be tried again after 1s");
}

/// The strict limits allow the longest ack deadline, which a kept lease must not exceed.
#[tokio::test]
async fn leases_are_kept_within_the_limits_of_the_service() {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).limits(Limits::google()).build();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let config = SubscriptionConfig::new().ack_deadline(600 * SECOND);
    let worker = topic.subscribe("worker", config).await.unwrap();
    let (sleeper, gate) = (bus.clone(), HandlerOptions::new());
    let handler = worker.handle(gate, move |_| {
        let bus = sleeper.clone();
        async move {
            bus.sleep(3_000 * SECOND).await;
            Ok(())
        }
    });
    let handler = handler.unwrap();
    topic.publish("x").await.unwrap();
    turns().await;
    clock.advance_settled(3_000 * SECOND).await;
    turns().await;
    assert_eq!((handler.stats().succeeded, handler.stats().lost), (1, 0), "LIB-302");
}

#[tokio::test]
async fn faults_strike_what_a_handler_does() {
    let w = World::new().await;
    let seen = Seen::default();
    let handler = always(&w, HandlerOptions::new(), &seen, || Ok(()));
    w.worker.faults().duplicate_deliveries(1);
    w.publish(1).await;
    assert_eq!(seen.attempts(), [1, 1], "LIB-403: twice, though the handler succeeded");
    w.worker.faults().lose_acks(1);
    w.publish(1).await;
    assert_eq!((handler.stats().succeeded, handler.stats().stale), (3, 0), "LIB-401");
    w.advance(10 * SECOND).await;
    assert_eq!(seen.attempts(), [1, 1, 1, 2], "LIB-401: after the ack deadline");
    w.worker.faults().delay_deliveries(1, SECOND);
    w.publish(1).await;
    assert_eq!(seen.attempts().len(), 4, "LIB-402");
    w.advance(SECOND).await;
    assert_eq!((seen.attempts().len(), w.worker.stats().backlog), (5, 0), "LIB-402");
    w.bus.audit().assert_balanced();
}

#[tokio::test]
async fn a_kept_lease_survives_failed_extensions_but_not_its_end() {
    let w = World::new().await;
    let (calls, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, waits) = (Arc::clone(&calls), Arc::clone(&go_on));
    let handle = move |_: Received| {
        counted.fetch_add(1, Ordering::SeqCst);
        let waits = Arc::clone(&waits);
        async move {
            waits.acquire().await.unwrap().forget();
            Ok::<(), Failure>(())
        }
    };
    let handler = w.worker.handle(HandlerOptions::new(), handle).unwrap();
    w.worker.faults().fail_answers(2);
    w.publish(1).await;
    for _ in 0..30 {
        w.advance(SECOND).await;
    }
    assert_eq!(w.worker.faults().injected().failed_answers, 2);
    assert_eq!((handler.stats().lost, calls.load(Ordering::SeqCst)), (0, 1), "LIB-302, LIB-405");
    // LIB-302, LIB-404: another call takes the message before the first can keep it.
    assert_eq!(w.worker.faults().end_leases(), 1);
    turns().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2, "LIB-404");
    go_on.add_permits(2);
    turns().await;
    assert_eq!((handler.stats().succeeded, handler.stats().stale), (2, 1), "LS-11");
    assert_eq!(w.worker.stats().backlog, 0);
    w.bus.audit().assert_balanced();
}

/// With room for one message, which is the one that is worked on.
#[tokio::test(start_paused = true)]
async fn a_handler_publishes_and_replies_without_waiting_for_room() {
    let payload = "x".repeat(200);
    let budget = Budget::new(MESSAGE_OVERHEAD as u64 + 500);
    let bus = Bus::builder().budget(budget).build();
    let other = Bus::new().create_topic("replies", TopicConfig::new()).await.unwrap();
    let requests = bus.create_topic("requests", TopicConfig::new()).await.unwrap();
    let replies = bus.create_topic("replies", TopicConfig::new()).await.unwrap();
    let worker = requests.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    let kept = replies.subscribe("kept", SubscriptionConfig::new()).await.unwrap();
    let (bus_of_replies, again) = (bus.clone(), requests.clone());
    let handler = worker
        .handle(HandlerOptions::new(), move |request: Received| {
            let (bus, again, other) = (bus_of_replies.clone(), again.clone(), other.clone());
            async move {
                let error = request.publish_to(&other, "astray").unwrap_err();
                assert!(matches!(error.reason(), PublishReason::Misused { .. }), "LIB-43");
                let Some(_) = request.attribute(REPLY_TO) else {
                    let error = request.reply(&bus, "to nobody").await.unwrap_err();
                    assert!(matches!(error, ReplyError::NotARequest { .. }));
                    return Ok(());
                };
                let full = again.try_publish("y".repeat(400)).unwrap_err();
                assert!(matches!(full.reason(), PublishReason::NoRoom { .. }), "{full}");
                request.publish_to(&again, "y".repeat(400))?;
                request.reply(&bus, "z".repeat(400)).await?;
                Ok(())
            }
        })
        .unwrap();
    let requester = Requester::new(&bus, "requests", "replies").await.unwrap();
    let reply = requester.request(payload, SECOND).await.unwrap();
    assert_eq!(reply.data().len(), 400, "LIB-43");
    let batch = kept.pull(1).await.unwrap();
    assert_eq!(batch.ack_all().done, 1);
    bus.timeout(SECOND, bus.wait_idle()).await.unwrap();
    let stats = handler.drain().await;
    assert_eq!((stats.succeeded, stats.failed, stats.panicked), (2, 0, 0), "LIB-43, LIB-300");
}
