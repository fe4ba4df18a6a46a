//! Auto traits of every handle and every future, as a table: they cannot change by accident.
//!
//! Nothing runs here; the test is that it compiles. Handles, streams and errors are `Send`, `Sync`,
//! `Unpin` and free of borrows; futures of async methods are `Send`, so that they can be spawned.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use siftbus::filter::{Filter, ParseError};
use siftbus::*;

fn value<T: Send + Sync + Unpin + 'static>() {}
fn borrowed<'a, T: Send + Sync + Unpin + 'a>() {}
fn future<T: Future + Send>(_: fn() -> T) {}
fn cloned<T: Clone>() {}
fn stream<T: futures_util::Stream + Send + Unpin>() {}

/// A value that exists for the type checker only.
fn any<T>() -> T {
    unreachable!("only compiled")
}

#[test]
fn handles_and_values_can_go_anywhere() {
    value::<Bus>();
    value::<BusBuilder>();
    value::<Clock>();
    value::<ManualClock>();
    value::<Topic>();
    value::<Subscription>();
    value::<Deliveries>();
    value::<Delivery>();
    value::<Settlement>();
    value::<DeliveryStream>();
    value::<BatchStream>();
    value::<Events>();
    value::<Event>();
    value::<Requester>();
    value::<Handler>();
    value::<HandlerOptions>();
    value::<HandlerStats>();
    value::<Push>();
    value::<PushConfig>();
    value::<PushOptions>();
    value::<PushStats>();
    value::<Received>();
    value::<Failure>();
    value::<Receipt>();
    value::<Receipts>();
    value::<Message>();
    value::<Permit>();
    value::<Peeked>();
    value::<Audit>();
    value::<Budget>();
    value::<Topology>();
    value::<BusStats>();
    value::<Attributes>();
    value::<MessageId>();
    value::<AckId>();
    value::<Outcome>();
    value::<BatchOutcome>();
    value::<Filter>();
    value::<Limits>();
    value::<TopicConfig>();
    value::<TopicUpdate>();
    value::<TopicStats>();
    value::<SubscriptionConfig>();
    value::<SubscriptionUpdate>();
    value::<SubscriptionStats>();
    value::<Expiration>();
    value::<FlowControl>();
    borrowed::<DeliveryRef<'_>>();
}

#[test]
fn errors_can_be_boxed_and_sent() {
    fn error<T: std::error::Error + Send + Sync + Unpin + 'static>() {}
    error::<AdminError>();
    error::<PublishError>();
    error::<PullError>();
    error::<AckError>();
    error::<RequestError>();
    error::<ReplyError>();
    error::<Elapsed>();
    error::<ParseError>();
    value::<Code>();
}

#[test]
fn handles_are_cheap_to_clone() {
    cloned::<Bus>();
    cloned::<Topic>();
    cloned::<Subscription>();
    cloned::<ManualClock>();
    cloned::<Message>();
    cloned::<AckId>();
    cloned::<Filter>();
}

#[test]
fn streams_are_streams_and_settlements_futures() {
    stream::<DeliveryStream>();
    stream::<BatchStream>();
    fn settles<T: Future<Output = Result<Outcome, AckError>> + Send + Sync + Unpin + 'static>() {}
    settles::<Settlement>();
    fn yields<T: futures_util::Stream<Item = Result<Delivery, PullError>>>() {}
    yields::<DeliveryStream>();
    fn yields_batches<T: futures_util::Stream<Item = Result<Deliveries, PullError>>>() {}
    yields_batches::<BatchStream>();
}

#[test]
fn every_future_can_be_spawned() {
    // Bus
    future(|| any::<&Bus>().create_topic("", any()));
    future(|| any::<&Bus>().topic(""));
    future(|| any::<&Bus>().create_subscription("", "", any()));
    future(|| any::<&Bus>().subscription(""));
    future(|| any::<&Bus>().delete_topic(""));
    future(|| any::<&Bus>().delete_subscription(""));
    future(|| any::<&Bus>().get_or_create_topic("", any()));
    future(|| any::<&Bus>().get_or_create_subscription("", "", any()));
    future(|| any::<&Bus>().declare(any()));
    future(|| any::<&Bus>().close(Duration::ZERO));
    future(|| any::<&Bus>().wait_idle());
    future(|| any::<&Bus>().sleep(Duration::ZERO));
    future(|| any::<&Bus>().timeout(Duration::ZERO, async {}));
    future(|| any::<&mut Events>().next());
    future(|| any::<&ManualClock>().advance_settled(Duration::ZERO));
    // Topic
    future(|| any::<&Topic>().publish("x"));
    future(|| any::<&Topic>().publish_many(["x"]));
    future(|| any::<&Topic>().publish_timeout("x", Duration::ZERO));
    future(|| any::<&Topic>().publish_after("x", Duration::ZERO));
    future(|| any::<&Topic>().publish_at("x", std::time::SystemTime::UNIX_EPOCH));
    future(|| any::<&Topic>().reserve(1));
    future(|| any::<&Topic>().subscribe("", any()));
    future(|| any::<&Topic>().update(any()));
    future(|| any::<&Topic>().delete());
    // Subscription
    future(|| any::<&Subscription>().pull(1));
    future(|| any::<&Subscription>().acknowledge(&[]));
    future(|| any::<&Subscription>().modify_ack_deadline(&[], Duration::ZERO));
    future(|| any::<&Subscription>().update(any()));
    future(|| any::<&Subscription>().delete());
    // Streams and settlements
    future(|| any::<&mut DeliveryStream>().next());
    future(|| any::<&mut BatchStream>().next());
    future(|| any::<Delivery>().ack());
    // Handlers and push
    future(|| any::<Handler>().drain());
    future(|| any::<&Handler>().ended());
    future(|| any::<Push>().drain());
    future(|| any::<&Push>().ended());
    future(|| any::<&Received>().lost());
    future(|| any::<&Received>().reply(any(), "x"));
    // Request and reply
    future(|| Requester::new(any(), "", ""));
    future(|| any::<&Requester>().request("x", Duration::ZERO));
    future(|| siftbus::reply(any(), any(), "x"));
}

#[cfg(feature = "http")]
#[test]
fn what_pushes_over_http() {
    use siftbus::{HttpClient, HttpEndpoint, PushEndpoint, Pusher, PusherBuilder};

    value::<HttpClient>();
    value::<HttpEndpoint>();
    value::<Pusher>();
    value::<PusherBuilder>();
    let _ = || {
        future(|| any::<Pusher>().drain());
        future(|| any::<&HttpEndpoint>().push(any()));
    };
}
