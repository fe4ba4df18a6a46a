//! Section 9: ordering keys (ORD).

use futures_util::FutureExt;
use siftbus::{
    AckError, AckFailure, Code, DeadLetterPolicy, Delivery, DeliveryStream, FlowControl, Limits,
    Message, Outcome, RetryPolicy, Subscription, SubscriptionConfig, SubscriptionUpdate,
    TopicConfig,
};

use crate::support::{
    HOUR, MILLI, MINUTE, SECOND, World, drain, nothing_ready, poll_once, take, take_one, text_of,
    texts,
};

fn ordered() -> SubscriptionConfig {
    SubscriptionConfig::new().message_ordering(true)
}

async fn world() -> World {
    World::with(ordered()).await
}

/// Publishes texts such as `a1`, whose first letter is the key; `-1` has none.
async fn publish(w: &World, texts: &str) {
    for text in texts.split(' ') {
        let key = &text[..1];
        let message = Message::new(text.to_owned());
        let message = if key == "-" { message } else { message.with_ordering_key(key) };
        w.topic.publish(message).await.unwrap();
    }
}

/// What a pull takes, in order, joined; kept leased.
fn pull(subscription: &Subscription, held: &mut Vec<Delivery>) -> String {
    let batch = subscription.try_pull(100).unwrap();
    let texts = texts(&batch).join(" ");
    held.extend(batch);
    texts
}

/// Takes the delivery of a text out of those held.
fn of(held: &mut Vec<Delivery>, text: &str) -> Delivery {
    let newest = held.iter().rposition(|delivery| text_of(delivery.message()) == text);
    held.remove(newest.expect("it is held"))
}

async fn next(stream: &mut DeliveryStream) -> Delivery {
    stream.next().await.unwrap().unwrap()
}

fn pending(stream: &mut DeliveryStream) -> bool {
    poll_once(Box::pin(stream.next()).as_mut()).is_pending()
}

#[tokio::test(start_paused = true)]
async fn ord_01_order_needs_a_key_and_an_ordered_subscription() {
    let w = world().await;
    let plain = w.topic.subscribe("plain", SubscriptionConfig::new()).await.unwrap();
    publish(&w, "a1 a2 -1 -2").await;
    for subscription in [&plain, &w.worker] {
        let first = take_one(subscription);
        assert_eq!(first.message().ordering_key(), "a", "ORD-1: the key is carried");
        first.into_ack_id();
    }
    // ORD-1, ORD-3: without order nothing waits; without a key nothing waits either.
    assert_eq!(pull(&plain, &mut Vec::new()), "a2 -1 -2");
    assert_eq!(pull(&w.worker, &mut Vec::new()), "-1 -2");
}

#[tokio::test(start_paused = true)]
async fn ord_02_order_is_fixed_at_creation() {
    let w = world().await;
    let update = SubscriptionUpdate::new().ack_deadline(MINUTE);
    // ORD-2: an update has no such field, and leaves it alone.
    assert!(w.worker.update(update).await.unwrap().message_ordering);
}

#[tokio::test(start_paused = true)]
async fn ord_03_keys_are_independent_and_in_order() {
    let w = world().await;
    publish(&w, "a1 b1 a2 -1 b2 c1 a3").await;
    let mut held = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let one = take_one(&w.worker);
        seen.push(text_of(one.message()));
        held.push(one);
    }
    assert_eq!(seen, ["a1", "b1", "-1", "c1"]); // ORD-3
    assert!(nothing_ready(&w.worker));
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.ready, stats.outstanding, stats.blocked), (7, 0, 4, 3));
    of(&mut held, "a1").ack().await.unwrap();
    assert_eq!((w.worker.stats().ready, w.worker.stats().blocked), (2, 1));
    assert_eq!(pull(&w.worker, &mut held), "a2 a3");
    of(&mut held, "b1").ack().await.unwrap();
    assert_eq!(pull(&w.worker, &mut held), "b2");
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn ord_04_05_one_response_has_several_and_later_ones_wait() {
    let w = world().await;
    publish(&w, "a1 a2 a3").await;
    let mut held = Vec::new();
    let batch = w.worker.try_pull(2).unwrap();
    assert_eq!(texts(&batch), ["a1", "a2"]); // ORD-4
    held.extend(batch);
    assert!(nothing_ready(&w.worker), "ORD-5: neither older nor newer");
    publish(&w, "a4 b1").await;
    assert_eq!(pull(&w.worker, &mut held), "b1", "ORD-5: what is published later waits too");
    of(&mut held, "a1").ack().await.unwrap();
    assert!(nothing_ready(&w.worker), "a2 is outstanding");
    let mut waiting = Box::pin(w.worker.pull(10));
    assert!(poll_once(waiting.as_mut()).is_pending());
    of(&mut held, "a2").ack().await.unwrap();
    assert_eq!(texts(&waiting.await.unwrap()), ["a3", "a4"]); // ORD-5, L9: who waits is told
}

#[tokio::test(start_paused = true)]
async fn ord_06_08_a_stream_runs_ahead_and_keeps_the_key() {
    let w = world().await;
    publish(&w, "a1 b1 a2").await;
    let mut one = w.worker.stream(FlowControl::new()).unwrap();
    let mut other = w.worker.stream(FlowControl::new()).unwrap();
    let first = next(&mut one).await;
    let second = next(&mut other).await;
    assert_eq!((first.data().as_ref(), second.data().as_ref()), (&b"a1"[..], &b"b1"[..]));
    assert!(pending(&mut other), "ORD-8: a belongs to the other stream");
    assert!(nothing_ready(&w.worker), "and to no pull");
    let third = next(&mut one).await;
    assert_eq!(third.data().as_ref(), b"a2"); // ORD-6: without an ack of a1
    // ORD-8, L9: the stream that has the key is woken for it.
    let mut waiting = Box::pin(one.next());
    assert!(poll_once(waiting.as_mut()).is_pending());
    publish(&w, "a3").await;
    assert!(pending(&mut other));
    let fourth = waiting.await.unwrap().unwrap();
    assert_eq!(fourth.data().as_ref(), b"a3");
    // Once nothing of it is outstanding, the key may move.
    for delivery in [first, third, fourth] {
        delivery.ack().await.unwrap();
    }
    publish(&w, "a4").await;
    assert_eq!(next(&mut other).await.data().as_ref(), b"a4");
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn ord_08_a_closed_stream_leaves_its_keys_once_its_leases_end() {
    let w = world().await;
    publish(&w, "a1 a2").await;
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    let delivery = next(&mut stream).await;
    drop(stream);
    assert!(nothing_ready(&w.worker), "ORD-8: a1 is still outstanding");
    let mut waiting = Box::pin(w.worker.pull(10));
    assert!(poll_once(waiting.as_mut()).is_pending());
    delivery.ack().await.unwrap();
    assert_eq!(texts(&waiting.await.unwrap()), ["a2"]);
}

#[tokio::test(start_paused = true)]
async fn ord_09_one_at_a_time_where_it_is_asked_for() {
    let w = world().await;
    publish(&w, "a1 a2 b1 -1 -2").await;
    let flow = FlowControl::new().one_per_ordering_key(true);
    let mut batches = w.worker.batches(10, flow).unwrap();
    let batch = batches.next().await.unwrap().unwrap();
    assert_eq!(texts(&batch), ["a1", "b1", "-1", "-2"]); // ORD-9
    assert!(poll_once(Box::pin(batches.next()).as_mut()).is_pending());
    batch.ack_all();
    let batch = batches.next().await.unwrap().unwrap();
    assert_eq!(texts(&batch), ["a2"]);
}

/// The cases of ORD-10: pulls all, answers, and says what comes again at once.
async fn again(answers: &[(&str, bool)]) -> String {
    let w = world().await;
    publish(&w, "a0 a1 a2 a3").await;
    let mut held = Vec::new();
    pull(&w.worker, &mut held);
    for (text, acks) in answers {
        let delivery = of(&mut held, text);
        if *acks {
            delivery.ack().await.unwrap();
        } else {
            delivery.nack().await.unwrap();
        }
    }
    let batch = w.worker.try_pull(100).unwrap();
    let came = batch.iter().map(|d| format!("{}#{}", text_of(d.message()), d.attempt()));
    let came: Vec<String> = came.collect();
    batch.ack_all();
    w.bus.audit().assert_balanced();
    came.join(" ")
}

#[tokio::test(start_paused = true)]
async fn ord_07_10_a_nack_rewinds_the_key() {
    // ORD-10, ORD-7 a and c: the whole tail, at once, in order; only the failed one counts.
    assert_eq!(again(&[("a0", false)]).await, "a0#2 a1#1 a2#1 a3#1");
    let all = [("a0", false), ("a1", false), ("a2", false), ("a3", false)];
    assert_eq!(again(&all).await, "a0#2 a1#1 a2#1 a3#1");
    assert_eq!(again(&[("a0", true), ("a1", true), ("a2", false)]).await, "a2#2 a3#1");
    // ORD-7 b: these acks were provisional.
    assert_eq!(again(&[("a1", true), ("a2", true), ("a0", false)]).await, "a0#2 a1#1 a2#1 a3#1");
    // While a0 is outstanding from that pull, nothing of the key comes (ORD-5).
    assert_eq!(again(&[("a2", false)]).await, "");
    assert_eq!(again(&[("a2", false), ("a0", true), ("a1", true)]).await, "a2#2 a3#1");
}

#[tokio::test(start_paused = true)]
async fn ord_07_ids_of_rewound_deliveries_are_dead() {
    let w = world().await;
    publish(&w, "a0 a1 a2").await;
    let mut held = Vec::new();
    pull(&w.worker, &mut held);
    let ids = [held[1].ack_id(), held[2].ack_id()];
    held.remove(0).nack().await.unwrap();
    // ORD-7 a, LS-11
    assert_eq!(w.worker.acknowledge(&ids).await.unwrap(), [Outcome::Stale; 2]);
    let extended = w.worker.modify_ack_deadline(&ids, HOUR).await.unwrap();
    assert_eq!(extended, [Outcome::Stale; 2]);
    assert_eq!(drain(&w.worker), ["a0", "a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn ord_07_provisional_acks_become_final_with_their_predecessors() {
    let w = world().await;
    publish(&w, "a0 a1 a2 a3").await;
    let mut held = Vec::new();
    pull(&w.worker, &mut held);
    for text in ["a1", "a2"] {
        let outcome = of(&mut held, text).ack().await.unwrap();
        assert_eq!(outcome, Outcome::Provisional, "ORD-7 b, ORD-10");
    }
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.outstanding, stats.provisional), (4, 2, 2));
    assert_eq!(of(&mut held, "a0").ack().await.unwrap(), Outcome::Done);
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.outstanding, stats.provisional), (1, 1, 0));
    assert_eq!(of(&mut held, "a3").ack().await.unwrap(), Outcome::Done);
    publish(&w, "a4 a5").await;
    let outcome = w.worker.try_pull(10).unwrap().ack_all();
    assert_eq!((outcome.done, outcome.provisional), (2, 0), "a batch is acked in order");
    // The earlier one last, in one call.
    publish(&w, "a6 a7").await;
    let mut ids: Vec<_> = take(&w.worker, 2).into_iter().map(|d| d.into_ack_id()).collect();
    ids.reverse();
    let outcomes = w.worker.acknowledge(&ids).await.unwrap();
    assert_eq!(outcomes, [Outcome::Provisional, Outcome::Done]);
    assert_eq!(w.worker.stats().backlog, 0);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn ord_07_a_lapse_rewinds_as_a_nack_does() {
    let w = world().await;
    publish(&w, "a0 a1 a2").await;
    let mut held = Vec::new();
    pull(&w.worker, &mut held);
    for delivery in &held[1..] {
        delivery.set_deadline(MINUTE).await.unwrap();
    }
    w.clock.advance(10 * SECOND);
    // ORD-10: the first lapses, the others were extended to 60 s.
    let batch = w.worker.try_pull(10).unwrap();
    let attempts: Vec<u32> = batch.iter().map(|delivery| delivery.attempt()).collect();
    assert_eq!((texts(&batch).join(" "), attempts), ("a0 a1 a2".to_owned(), vec![2, 1, 1]));
    for old in held {
        assert_eq!(old.ack().await.unwrap(), Outcome::Stale);
    }
    batch.ack_all();

    // Nack of the first of three, then the lapse of the rest (ORD-10).
    publish(&w, "b0 b1 b2").await;
    let mut held = Vec::new();
    pull(&w.worker, &mut held);
    let first = held.remove(0);
    let rest: Vec<_> = held.into_iter().map(|delivery| delivery.into_ack_id()).collect();
    first.nack().await.unwrap();
    w.clock.advance(10 * SECOND);
    assert_eq!(drain(&w.worker), ["b0", "b1", "b2"]);
    assert_eq!(w.worker.acknowledge(&rest).await.unwrap(), [Outcome::Stale; 2]);
}

#[tokio::test(start_paused = true)]
async fn ord_07_late_answers_to_a_lapsed_message_count() {
    let w = world().await;
    publish(&w, "a0 a1").await;
    let mut held = Vec::new();
    pull(&w.worker, &mut held);
    w.clock.advance(10 * SECOND);
    // LS-8: a0 has lapsed, a1 was taken back with it (ORD-7 a).
    assert_eq!(of(&mut held, "a1").ack().await.unwrap(), Outcome::Stale);
    assert_eq!(of(&mut held, "a0").ack().await.unwrap(), Outcome::Done);
    assert_eq!(pull(&w.worker, &mut held), "a1");
    of(&mut held, "a1").ack().await.unwrap();

    publish(&w, "b0 b1").await;
    pull(&w.worker, &mut held);
    w.clock.advance(10 * SECOND);
    let revived = of(&mut held, "b0");
    assert_eq!(revived.set_deadline(MINUTE).await.unwrap(), Outcome::Done); // LS-9
    assert!(nothing_ready(&w.worker), "ORD-5");
    revived.ack().await.unwrap();
    assert_eq!(drain(&w.worker), ["b1"]);

    // A stream: the second lapses alone and is acked late, before the first.
    publish(&w, "c0 c1 c2").await;
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    let first = next(&mut stream).await;
    let second = next(&mut stream).await;
    first.set_deadline(HOUR).await.unwrap();
    w.clock.advance(10 * SECOND);
    assert_eq!(second.ack().await.unwrap(), Outcome::Provisional);
    assert_eq!(next(&mut stream).await.ack().await.unwrap(), Outcome::Provisional);
    assert_eq!(first.ack().await.unwrap(), Outcome::Done);
    assert_eq!(w.worker.stats().backlog, 0);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn ord_11_back_off_delays_the_key_and_nothing_else() {
    let retry = RetryPolicy::new().minimum_backoff(MINUTE).maximum_backoff(HOUR);
    let w = World::with(ordered().retry_policy(retry)).await;
    publish(&w, "a0 a1 b0 -0").await;
    let mut held = Vec::new();
    pull(&w.worker, &mut held);
    of(&mut held, "a0").nack().await.unwrap();
    publish(&w, "a2 b1 -1").await;
    of(&mut held, "b0").ack().await.unwrap();
    assert_eq!(pull(&w.worker, &mut held), "b1 -1"); // ORD-11
    let stats = w.worker.stats();
    assert_eq!((stats.delayed, stats.blocked), (1, 2));
    w.clock.advance(MINUTE - MILLI);
    held.clear();
    let rest = w.worker.try_pull(10).unwrap();
    assert!(rest.iter().all(|delivery| delivery.message().ordering_key() != "a"));
    drop(rest);
    let mut waiting = Box::pin(w.worker.pull(10));
    w.clock.advance(MILLI);
    let batch = waiting.as_mut().await.unwrap();
    assert_eq!(texts(&batch), ["a0", "a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn ord_12_a_bad_message_blocks_its_key_until_it_goes() {
    let config = ordered().retention(10 * MINUTE);
    let w = World::with(config).await;
    publish(&w, "a0").await;
    w.clock.advance(MINUTE);
    publish(&w, "a1").await;
    for attempt in 1..20 {
        let bad = take_one(&w.worker);
        assert_eq!((text_of(bad.message()).as_str(), bad.attempt()), ("a0", attempt)); // ORD-12
        bad.nack().await.unwrap();
    }
    let last = take_one(&w.worker);
    last.set_deadline(HOUR).await.unwrap();
    let mut waiting = Box::pin(w.worker.pull(10));
    assert!(poll_once(waiting.as_mut()).is_pending());
    w.clock.advance(9 * MINUTE - MILLI);
    assert!(poll_once(waiting.as_mut()).is_pending());
    w.clock.advance(MILLI);
    // ORD-12: past retention it blocks no longer, and who waits is told at that moment.
    let batch = waiting.now_or_never().expect("woken").unwrap();
    assert_eq!(texts(&batch), ["a1"]);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn dlq_08_a_dead_letter_lets_its_key_go_on() {
    let w = world().await;
    let dead = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let inspect = dead.subscribe("inspect", ordered()).await.unwrap();
    let policy = DeadLetterPolicy::new("dead").max_delivery_attempts(2);
    let update = SubscriptionUpdate::new().dead_letter_policy(Some(policy));
    w.worker.update(update).await.unwrap();
    publish(&w, "a0 a1 a2").await;
    let mut waiting = Box::pin(inspect.pull(1));
    assert!(poll_once(waiting.as_mut()).is_pending());
    for expected in [["a0#1 a1#1 a2#1", "a0#2 a1#1 a2#1"], ["a1#1 a2#1", "a1#2 a2#1"]] {
        for expected in expected {
            let batch = w.worker.try_pull(10).unwrap();
            let came: Vec<String> =
                batch.iter().map(|d| format!("{}#{}", text_of(d.message()), d.attempt())).collect();
            assert_eq!(came.join(" "), expected); // DLQ-8, ORD-7 c
            batch.nack_all();
        }
    }
    let first = waiting.await.unwrap().into_iter().next().unwrap();
    assert_eq!((first.data().as_ref(), first.message().ordering_key()), (&b"a0"[..], "a"));
    first.ack().await.unwrap();
    assert_eq!(drain(&inspect), ["a1"], "in the order in which they failed");
    assert_eq!(drain(&w.worker), ["a2"]);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn lib_102_a_rejected_message_lets_later_ones_be() {
    let w = world().await;
    let dead = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let inspect = dead.subscribe("inspect", SubscriptionConfig::new()).await.unwrap();
    let policy = DeadLetterPolicy::new("dead");
    let update = SubscriptionUpdate::new().dead_letter_policy(Some(policy));
    w.worker.update(update).await.unwrap();
    publish(&w, "a0 a1 a2").await;
    let mut held = Vec::new();
    pull(&w.worker, &mut held);
    assert_eq!(of(&mut held, "a1").ack().await.unwrap(), Outcome::Provisional);
    of(&mut held, "a0").reject().await.unwrap(); // LIB-102
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.outstanding, stats.provisional), (1, 1, 0));
    assert_eq!(of(&mut held, "a2").ack().await.unwrap(), Outcome::Done);
    assert_eq!(drain(&inspect), ["a0"]);
    // Without the topic the message is back, and its key with it.
    dead.delete().await.unwrap();
    publish(&w, "b0 b1").await;
    pull(&w.worker, &mut held);
    of(&mut held, "b0").reject().await.unwrap();
    assert_eq!(of(&mut held, "b1").ack().await.unwrap(), Outcome::Stale);
    assert_eq!(drain(&w.worker), ["b0", "b1"]);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn eod_09_acks_out_of_order_are_refused_where_they_must_be_final() {
    let w = World::with(ordered().exactly_once_delivery(true)).await;
    publish(&w, "a0 a1 b0").await;
    let ids: Vec<_> = take(&w.worker, 3).into_iter().map(|d| d.into_ack_id()).collect();
    let error = w.worker.acknowledge(&ids[1..]).await.unwrap_err();
    let AckError::ExactlyOnce { failures } = &error else { panic!("{error:?}") };
    assert_eq!(failures, &[(ids[1].clone(), AckFailure::OutOfOrder)]); // EOD-9
    assert_eq!(error.code(), Code::InvalidArgument);
    let stats = w.worker.stats();
    assert_eq!((stats.backlog, stats.outstanding), (2, 2), "not applied; b0 was");
    // In order it works, in one call too.
    assert_eq!(w.worker.acknowledge(&ids[..2]).await.unwrap(), [Outcome::Done; 2]);
    assert_eq!(w.worker.stats().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn pub_11_mixed_keys_in_one_publish_are_refused_by_the_google_preset() {
    let w = World::build(Limits::google(), TopicConfig::new(), ordered()).await;
    let keyed = |key: &str| Message::new("x").with_ordering_key(key);
    for pair in [[keyed("a"), keyed("b")], [keyed("a"), Message::new("x")]] {
        let error = w.topic.publish_many(pair).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument); // PUB-11, ERR-22
    }
    w.topic.publish_many([keyed("a"), keyed("a")]).await.unwrap();
    assert_eq!(w.worker.stats().backlog, 2);
}

#[tokio::test(start_paused = true)]
async fn lib_104_quotas_of_streams_count_keyed_messages_on_any_channel() {
    let w = world().await;
    publish(&w, "a0 a1 a2 a3").await;
    let mut stream = w.worker.stream(FlowControl::new().max_outstanding_messages(2)).unwrap();
    let first = next(&mut stream).await;
    let second = next(&mut stream).await;
    assert!(pending(&mut stream)); // STR-11
    w.worker.acknowledge(&[first.ack_id()]).await.unwrap(); // STR-12
    let third = next(&mut stream).await;
    assert_eq!(third.data().as_ref(), b"a2");
    assert!(pending(&mut stream));
    // A rewind frees the places of all it takes back.
    second.nack().await.unwrap();
    assert_eq!(next(&mut stream).await.data().as_ref(), b"a1");
    drop((first, third));
}

#[tokio::test(start_paused = true)]
async fn ord_03_redeliveries_do_not_starve_fresh_messages_of_other_keys() {
    let w = world().await;
    publish(&w, "a0 b0 a1 c0").await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let one = take_one(&w.worker);
        let text = text_of(one.message());
        if text == "a0" {
            one.nack().await.unwrap();
        } else {
            one.ack().await.unwrap();
        }
        seen.push(text);
    }
    assert_eq!(seen, ["a0", "a0", "b0", "a0", "c0"]); // LIB-11, L13
}

#[tokio::test(start_paused = true)]
async fn lib_104_many_keys_cost_memory_only_while_they_have_messages() {
    let w = world().await;
    for round in 0..3 {
        let keyed = |n: u32| Message::new("x").with_ordering_key(format!("{round}-{n}"));
        w.topic.publish_many((0..20_000).map(keyed)).await.unwrap();
        let mut taken = 0;
        while taken < 20_000 {
            let batch = w.worker.try_pull(5_000).unwrap();
            taken += batch.len();
            batch.ack_all();
        }
    }
    assert_eq!(w.worker.stats().backlog, 0);
    w.bus.audit().assert_balanced();
}

#[tokio::test(start_paused = true)]
async fn ord_05_a_long_blocked_backlog_is_looked_through_once_and_wakes_in_the_end() {
    // More than one lock hold looks at (L6).
    let w = world().await;
    publish(&w, "a0").await;
    let first = take_one(&w.worker);
    w.topic
        .publish_many((0..10_000).map(|_| Message::new("a").with_ordering_key("a")))
        .await
        .unwrap();
    publish(&w, "b0").await;
    assert_eq!(drain(&w.worker), ["b0"]); // ORD-3
    let mut waiting = Box::pin(w.worker.pull(100_000));
    assert!(poll_once(waiting.as_mut()).is_pending());
    first.ack().await.unwrap();
    let batch = waiting.await.unwrap();
    assert_eq!(batch.len(), 10_000); // ORD-4
    assert_eq!(batch.ack_all().done, 10_000);
}
