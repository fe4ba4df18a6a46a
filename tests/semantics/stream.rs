//! Section 7: streams (STR), as far as the library has them: flow control, sharing, endings.
//!
//! The requests and responses of the wire (STR-1 to STR-10, STR-14 to STR-16) are the server's.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use siftbus::{
    Bus, Code, Delivery, DeliveryStream, FlowControl, Message, SubscriptionConfig, TopicConfig,
};

use crate::support::{
    MILLI, MINUTE, SECOND, WakeCount, World, poll_once, take_one, text_of, texts,
};

#[tokio::test(start_paused = true)]
async fn str_11_a_stream_stops_at_max_outstanding_messages() {
    let w = World::new().await;
    w.publish(&["a", "b", "c", "d"]).await;
    let mut stream = w.worker.stream(FlowControl::new().max_outstanding_messages(2)).unwrap();
    let first = expect_next(&mut stream);
    let second = expect_next(&mut stream);
    assert!(is_pending(&mut stream)); // STR-11
    assert_eq!(w.worker.stats().outstanding, 2);
    first.ack().await.unwrap();
    let third = expect_next(&mut stream);
    assert!(is_pending(&mut stream));
    // STR-11: nack and lapse free the quota too.
    second.nack().await.unwrap();
    let fourth = expect_next(&mut stream);
    assert!(is_pending(&mut stream));
    drop((third, fourth));
}

#[tokio::test(start_paused = true)]
async fn str_11_a_lapse_frees_the_quota() {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    topic.publish_many(["a", "b"]).await.unwrap();
    let mut stream = worker.stream(FlowControl::new().max_outstanding_messages(1)).unwrap();
    let start = bus.now();
    let held = stream.next().await.unwrap().unwrap();
    let next = stream.next().await.unwrap().unwrap();
    let waited = bus.now().duration_since(start).unwrap();
    assert!(waited >= 10 * SECOND && waited <= 10 * SECOND + 10 * MILLI, "{waited:?}"); // STR-11
    drop((held, next));
}

#[tokio::test(start_paused = true)]
async fn str_11_a_stream_stops_at_max_outstanding_bytes() {
    let w = World::new().await;
    for _ in 0..3 {
        w.topic.publish(vec![0; 1_000]).await.unwrap();
    }
    // Two messages of a little over 1,000 bytes (LIM-27): the second is sent while less than
    // 1,500 bytes are outstanding, the third is not.
    let mut stream = w.worker.stream(FlowControl::new().max_outstanding_bytes(1_500)).unwrap();
    let first = expect_next(&mut stream);
    let second = expect_next(&mut stream);
    assert!(is_pending(&mut stream)); // STR-11
    first.ack().await.unwrap();
    let third = expect_next(&mut stream);
    assert!(is_pending(&mut stream));
    second.ack().await.unwrap();
    third.ack().await.unwrap();
    assert!(is_pending(&mut stream));
}

#[tokio::test(start_paused = true)]
async fn str_11_a_message_above_the_byte_limit_is_sent_when_nothing_is_outstanding() {
    let w = World::new().await;
    w.topic.publish(vec![0; 10_000]).await.unwrap();
    w.publish(&["small"]).await;
    let mut stream = w.worker.stream(FlowControl::new().max_outstanding_bytes(100)).unwrap();
    let large = expect_next(&mut stream);
    assert_eq!(large.data().len(), 10_000); // STR-11
    assert!(is_pending(&mut stream));
    large.ack().await.unwrap();
    assert_eq!(text_of(expect_next(&mut stream).message()), "small");
}

#[tokio::test(start_paused = true)]
async fn str_11_a_limit_of_zero_is_refused() {
    // The wire reads zero as no limit (STR-11); in the library a limit of zero is a mistake.
    let w = World::new().await;
    let no_messages = FlowControl::new().max_outstanding_messages(0);
    let no_bytes = FlowControl::new().max_outstanding_bytes(0);
    for flow in [no_messages, no_bytes] {
        assert_eq!(w.worker.stream(flow).unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn str_11_batches_keep_to_both_limits() {
    let w = World::new().await;
    w.publish(&["a", "b", "c", "d", "e"]).await;
    let flow = FlowControl::new().max_outstanding_messages(3);
    let mut stream = w.worker.batches(2, flow).unwrap();
    let first = stream.next().await.unwrap().unwrap();
    let second = stream.next().await.unwrap().unwrap();
    // STR-11: at most two at once, at most three in all.
    assert_eq!((texts(&first), texts(&second)), (vec!["a".into(), "b".into()], vec!["c".into()]));
    assert!(poll_once(pin!(stream.next())).is_pending());
    first.ack_all();
    assert_eq!(texts(&stream.next().await.unwrap().unwrap()), ["d", "e"]);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn str_12_settling_on_any_channel_frees_the_quota_and_wakes_the_stream() {
    let w = World::new().await;
    w.publish(&["a", "b", "c", "d"]).await;
    let mut stream = w.worker.stream(FlowControl::new().max_outstanding_messages(1)).unwrap();
    let wakes = WakeCount::new();
    for way in ["ack by id", "nack by id", "lapse"] {
        let ids = [expect_next(&mut stream).into_ack_id()];
        let waker = Waker::from(Arc::clone(&wakes));
        let mut next = Box::pin(stream.next());
        assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "{way}");
        let before = wakes.get();
        // STR-12: unary calls on another handle.
        let handle = w.bus.subscription("worker").await.unwrap();
        match way {
            "ack by id" => drop(handle.acknowledge(&ids).await.unwrap()),
            "nack by id" => drop(handle.modify_ack_deadline(&ids, Duration::ZERO).await.unwrap()),
            _ => w.clock.advance(10 * SECOND),
        }
        assert_eq!(wakes.get() - before, 1, "{way}");
        let Poll::Ready(Some(Ok(came))) = poll_once(next.as_mut()) else {
            panic!("{way}: the quota is free and messages wait")
        };
        came.ack().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn str_12_a_pulled_message_does_not_use_a_streams_quota() {
    let w = World::new().await;
    w.publish(&["a", "b", "c"]).await;
    let mut stream = w.worker.stream(FlowControl::new().max_outstanding_messages(1)).unwrap();
    let pulled = take_one(&w.worker);
    let streamed = expect_next(&mut stream);
    assert!(is_pending(&mut stream));
    // STR-11: only what was sent on this stream counts.
    pulled.ack().await.unwrap();
    assert!(is_pending(&mut stream));
    streamed.ack().await.unwrap();
    assert_eq!(text_of(expect_next(&mut stream).message()), "c");
}

#[tokio::test(start_paused = true)]
async fn str_12_a_lease_revived_above_the_quota_counts() {
    let w = World::new().await;
    w.publish(&["x", "a", "b", "c"]).await;
    take_one(&w.worker).nack().await.unwrap();
    let x = take_one(&w.worker);
    x.set_deadline(MINUTE).outcome().unwrap();
    let mut stream = w.worker.stream(FlowControl::new().max_outstanding_messages(1)).unwrap();
    let a = expect_next(&mut stream);
    w.clock.advance(10 * SECOND);
    // "a" has lapsed and its quota is free. A redelivery of "x" makes a fresh message the next
    // (L13), so that the stream gets "b" while "a" is in nobody's hands.
    x.nack().await.unwrap();
    let x = take_one(&w.worker);
    let b = expect_next(&mut stream);
    assert_eq!((text_of(x.message()).as_str(), text_of(b.message()).as_str()), ("x", "b"));
    x.ack().await.unwrap();
    // LS-9: reviving "a" puts two leases on a quota of one; STR-11: nothing more until both end.
    a.set_deadline(MINUTE).outcome().unwrap();
    assert_eq!(w.worker.stats().outstanding, 2);
    assert!(is_pending(&mut stream));
    a.ack().await.unwrap();
    assert!(is_pending(&mut stream));
    b.ack().await.unwrap();
    assert_eq!(text_of(expect_next(&mut stream).message()), "c");
}

#[tokio::test(start_paused = true)]
async fn str_12_a_lease_of_a_closed_stream_is_nobody_elses() {
    let w = World::new().await;
    w.publish(&["a"]).await;
    let one = || FlowControl::new().max_outstanding_messages(1);
    let mut closed = w.worker.stream(one()).unwrap();
    let late = expect_next(&mut closed);
    w.clock.advance(10 * SECOND);
    drop(closed);
    let mut open = w.worker.stream(one()).unwrap();
    // LS-9 revives a lease that the closed stream was sent; STR-11: outstanding is what was sent
    // on this stream.
    late.set_deadline(MINUTE).outcome().unwrap();
    w.publish(&["b"]).await;
    assert_eq!(text_of(expect_next(&mut open).message()), "b");
    late.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn str_13_a_message_goes_to_one_stream_only() {
    let w = World::new().await;
    let mut streams: Vec<DeliveryStream> =
        (0..3).map(|_| w.worker.stream(FlowControl::new()).unwrap()).collect();
    let ids = w.topic.publish_many((0..30).map(|_| Message::new("x"))).await.unwrap();
    let mut seen = Vec::new();
    for turn in 0..30 {
        let delivery = expect_next(&mut streams[turn % 3]);
        seen.push(delivery.id());
        delivery.ack().await.unwrap();
    }
    // STR-13
    assert_eq!(seen, ids.ids().collect::<Vec<_>>());
    assert!(streams.iter_mut().all(is_pending));
}

#[tokio::test(start_paused = true)]
async fn str_13_waiting_streams_take_turns() {
    let w = World::new().await;
    let wakes = [WakeCount::new(), WakeCount::new(), WakeCount::new()];
    let mut streams: Vec<DeliveryStream> =
        (0..3).map(|_| w.worker.stream(FlowControl::new()).unwrap()).collect();
    let poll = |streams: &mut [DeliveryStream], i: usize| {
        let waker = Waker::from(Arc::clone(&wakes[i]));
        match pin!(streams[i].next()).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(next) => Some(next.unwrap().unwrap()),
            Poll::Pending => None,
        }
    };
    for i in 0..3 {
        assert!(poll(&mut streams, i).is_none());
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        let before = wakes.each_ref().map(|wake| wake.get());
        w.publish(&["x"]).await;
        let woken: Vec<usize> = (0..3).filter(|i| wakes[*i].get() > before[*i]).collect();
        // L9: a publish wakes one waiter.
        let [one] = woken[..] else { panic!("woken: {woken:?}") };
        order.push(one);
        poll(&mut streams, one).expect("the woken one gets it").ack().await.unwrap();
        assert!(poll(&mut streams, one).is_none());
    }
    // STR-13: round robin over streams with free quota.
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn str_13_a_stream_at_its_quota_leaves_the_message_to_others() {
    let w = World::new().await;
    let mut full = w.worker.stream(FlowControl::new().max_outstanding_messages(1)).unwrap();
    let mut free = w.worker.stream(FlowControl::new()).unwrap();
    w.publish(&["a"]).await;
    let held = expect_next(&mut full);
    let wakes = [WakeCount::new(), WakeCount::new()];
    for (stream, wake) in [&mut full, &mut free].into_iter().zip(&wakes) {
        let waker = Waker::from(Arc::clone(wake));
        assert!(pin!(stream.next()).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    w.publish(&["b"]).await;
    // STR-13, L9: a stream at its quota is no waiter.
    assert_eq!(text_of(expect_next(&mut free).message()), "b");
    assert!(is_pending(&mut full));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn str_17_a_stream_ends_not_found_when_its_subscription_is_deleted() {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    let mut stream = worker.stream(FlowControl::new()).unwrap();
    let mut batches = worker.batches(10, FlowControl::new()).unwrap();
    let start = bus.now();
    let (streamed, batched, _) = tokio::join!(stream.next(), batches.next(), async {
        bus.sleep(MINUTE).await;
        worker.delete().await.unwrap();
    });
    // STR-17, ERR-35: promptly, and only once.
    assert_eq!(streamed.unwrap().unwrap_err().code(), Code::NotFound);
    assert_eq!(batched.unwrap().unwrap_err().code(), Code::NotFound);
    assert!(bus.now().duration_since(start).unwrap() <= MINUTE + 10 * MILLI);
    assert!(stream.next().await.is_none());
    assert!(batches.next().await.is_none());
    assert_eq!(worker.stream(FlowControl::new()).unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn str_17_a_stream_ends_failed_precondition_when_its_subscription_is_detached() {
    let w = World::new().await;
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    assert!(is_pending(&mut stream));
    w.worker.detach().await.unwrap();
    // STR-17, RES-14: once.
    assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::FailedPrecondition);
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn str_17_a_stream_stays_open_when_the_topic_is_deleted() {
    let w = World::new().await;
    w.publish(&["a", "b"]).await;
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    let held = expect_next(&mut stream);
    w.topic.delete().await.unwrap();
    // STR-17
    expect_next(&mut stream).ack().await.unwrap();
    assert!(is_pending(&mut stream));
    held.nack().await.unwrap();
    let again = expect_next(&mut stream);
    assert_eq!(again.attempt(), 2);
    assert!(is_pending(&mut stream));
}

/// What the stream must have at once.
fn expect_next(stream: &mut DeliveryStream) -> Delivery {
    match poll_once(pin!(stream.next())) {
        Poll::Ready(Some(Ok(delivery))) => delivery,
        other => panic!("a delivery was expected, not {other:?}"),
    }
}

fn is_pending(stream: &mut DeliveryStream) -> bool {
    poll_once(pin!(stream.next())).is_pending()
}
