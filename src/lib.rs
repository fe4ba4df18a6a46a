//! `siftbus`: an embeddable publish/subscribe message bus.
//!
//! Topics; named subscriptions with a backlog of their own, filtered by attributes; leases with ack
//! deadlines and redelivery; retention, expiration; pull and streams with flow control; request and
//! reply. The semantics are those of Google Cloud Pub/Sub, rule by rule, with every difference
//! listed.
//!
//! It lives in the memory of one process. There is **no disk** and **no network**: what was not
//! worked on when the process ends is gone, and nobody outside of it can publish or pull. It polls
//! nothing; an idle bus uses no CPU.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use siftbus::{Bus, Filter, Message, SubscriptionConfig, TopicConfig};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let bus = Bus::new();
//!     let orders = bus.create_topic("orders", TopicConfig::new()).await?;
//!
//!     // Two groups of consumers: one gets everything, the other what its filter lets through.
//!     let audit = orders.subscribe("audit", SubscriptionConfig::new()).await?;
//!     let european = SubscriptionConfig::new()
//!         .filter(Filter::parse(r#"attributes.region = "eu" AND NOT attributes:test"#)?)
//!         .ack_deadline(Duration::from_secs(30));
//!     let billing = orders.subscribe("billing", european).await?;
//!
//!     let receipt = orders.publish(Message::new("one").with_attribute("region", "eu")).await?;
//!     assert_eq!(receipt.recipients(), Some(2));
//!     orders.publish(Message::new("two").with_attribute("region", "us")).await?;
//!
//!     // A batch can be looked at and answered as a whole.
//!     let batch = audit.pull(10).await?;
//!     assert_eq!(batch.len(), 2);
//!     batch.ack_all();
//!
//!     // What is dropped without an answer comes again, to whoever pulls next.
//!     drop(billing.pull(10).await?);
//!     for delivery in billing.pull(10).await? {
//!         assert_eq!(delivery.data().as_ref(), b"one");
//!         assert_eq!(delivery.attempt(), 2);
//!         delivery.ack();
//!     }
//!     assert_eq!(billing.stats().backlog, 0);
//!     Ok(())
//! }
//! ```
//!
//! The rest of this page is a tour of ten minutes, whose examples run as well. Then come the
//! [guarantees](#guarantees) and a [map](#map).
//!
//! # Publish and subscribe
//!
//! A message goes to every subscription of its topic, each of which has a backlog of its own. What
//! two consumers pull from *one* subscription is shared between them.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use siftbus::{Bus, Message, SubscriptionConfig, TopicConfig};
//!
//! let bus = Bus::new();
//! let orders = bus.create_topic("orders", TopicConfig::new()).await?;
//! let billing = orders.subscribe("billing", SubscriptionConfig::new()).await?;
//! let audit = orders.subscribe("audit", SubscriptionConfig::new()).await?;
//!
//! orders.publish(Message::new("3 chairs").with_attribute("region", "eu")).await?;
//! orders.publish_many(["1 table", "2 lamps"]).await?;
//!
//! // `pull` waits for the first message and takes what else is there.
//! for delivery in billing.pull(10).await? {
//!     println!("{}: {:?}", delivery.id(), delivery.data());
//!     delivery.ack();
//! }
//! // A batch is answered as a whole, which is cheaper.
//! assert_eq!(audit.pull(10).await?.ack_all().done, 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Filters
//!
//! A subscription gets what its [`Filter`] lets through. Filters of a topic stand in an index:
//! a hundred thousand of them cost a publish hardly more than ten.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! # use siftbus::{Bus, Filter, Message, SubscriptionConfig, TopicConfig};
//! # let bus = Bus::new();
//! # let orders = bus.create_topic("orders", TopicConfig::new()).await?;
//! let filter = Filter::parse(r#"attributes.region = "eu" AND NOT attributes:test"#)?;
//! let config = SubscriptionConfig::new().filter(filter);
//! let europe = orders.subscribe("europe", config).await?;
//!
//! let chairs = Message::new("chairs").with_attribute("region", "eu");
//! let test = chairs.clone().with_attribute("test", "");
//! assert_eq!(orders.publish(chairs).await?.recipients(), Some(1));
//! assert_eq!(orders.publish(test.clone()).await?.recipients(), Some(0));
//!
//! // Why did it not come? The bus knows.
//! let why = orders.explain(&test);
//! assert!(!why.subscriptions[0].matches());
//! # drop(europe);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Leases
//!
//! Whoever pulls a message has it *leased* until its ack deadline. An ack ends that for good; a
//! nack, a drop or the deadline give the message to the next one who asks. So a consumer that dies
//! loses nothing, and no cleanup code is needed: dropping is enough.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! # use siftbus::{Bus, SubscriptionConfig, TopicConfig};
//! use siftbus::Outcome;
//! use std::time::Duration;
//!
//! # let bus = Bus::new();
//! # let orders = bus.create_topic("orders", TopicConfig::new()).await?;
//! let config = SubscriptionConfig::new().ack_deadline(Duration::from_secs(30));
//! let billing = orders.subscribe("billing", config).await?;
//! orders.publish("order").await?;
//!
//! drop(billing.pull(1).await?); // somebody panicked, was cancelled, or forgot
//! for delivery in billing.pull(1).await? {
//!     assert_eq!(delivery.attempt(), 2);
//!     delivery.set_deadline(Duration::from_secs(300)); // this one takes longer
//!     assert_eq!(delivery.ack().await?, Outcome::Done);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Work that fails
//!
//! [`Subscription::handle`] runs a function on every message, several at once, and keeps its lease
//! meanwhile. `Ok` acknowledges; an error brings the message again after a back-off; what has
//! failed often enough goes to a dead-letter topic.
//!
//! ```
//! # let mut builder = tokio::runtime::Builder::new_current_thread();
//! # builder.enable_time().start_paused(true);
//! # builder.build().unwrap().block_on(async {
//! # use siftbus::{Bus, SubscriptionConfig, TopicConfig};
//! use siftbus::{DeadLetterPolicy, Failure, HandlerOptions};
//!
//! # let bus = Bus::new();
//! # let orders = bus.create_topic("orders", TopicConfig::new()).await?;
//! let failed = bus.create_topic("failed-orders", TopicConfig::new()).await?;
//! let inspect = failed.subscribe("inspect", SubscriptionConfig::new()).await?;
//! let policy = DeadLetterPolicy::new("failed-orders").max_delivery_attempts(3);
//! let config = SubscriptionConfig::new().dead_letter_policy(policy);
//! let billing = orders.subscribe("billing", config).await?;
//!
//! let worker = billing.handle(HandlerOptions::new(), |order| async move {
//!     match order.data().as_ref() {
//!         b"bad" => Err(Failure::retry("the printer is on fire")),
//!         _ => Ok(()),
//!     }
//! })?;
//! orders.publish_many(["good", "bad"]).await?;
//!
//! let dead = inspect.pull(1).await?.into_iter().next().expect("forwarded");
//! assert_eq!(dead.data(), "bad");
//! worker.drain().await; // takes no more, finishes what runs
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Back-pressure
//!
//! Memory is bounded from the start, by a [`Budget`] of 256 MiB unless told otherwise. `publish`
//! waits for room, in order; `try_publish` gives the message back. A slow subscription gets a
//! [`BacklogLimit`] of its own, so that it does not hold up the others.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! # use siftbus::{Bus, SubscriptionConfig, TopicConfig};
//! use siftbus::{BacklogLimit, Budget, Overflow};
//!
//! let bus = Bus::builder().budget(Budget::new(64 * 1024 * 1024)).build();
//! # let prices = bus.create_topic("prices", TopicConfig::new()).await?;
//! let newest = BacklogLimit::new(2).overflow(Overflow::DropOldest);
//! let config = SubscriptionConfig::new().backlog_limit(newest);
//! let dashboard = prices.subscribe("dashboard", config).await?;
//!
//! prices.publish_many(["1.10", "1.11", "1.12"]).await?;
//! let seen: Vec<_> = dashboard.pull(10).await?.into_iter().map(|d| d.data().clone()).collect();
//! assert_eq!(seen, ["1.11", "1.12"]);
//! assert_eq!(dashboard.stats().dropped_messages, 1); // never silently
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Ask and be answered
//!
//! A [`Requester`] sends requests and waits for replies; the workers are an ordinary subscription,
//! so a worker that dies is replaced, and the request is worked on by another.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! # use siftbus::{Bus, SubscriptionConfig, TopicConfig};
//! use siftbus::{Requester, reply};
//! use std::time::Duration;
//!
//! # let bus = Bus::new();
//! # let sums = bus.create_topic("sums", TopicConfig::new()).await?;
//! # bus.create_topic("results", TopicConfig::new()).await?;
//! let workers = sums.subscribe("workers", SubscriptionConfig::new()).await?;
//! let (at, requester) = (bus.clone(), Requester::new(&bus, "sums", "results").await?);
//! tokio::spawn(async move {
//!     while let Ok(batch) = workers.pull(1).await {
//!         for request in batch {
//!             if reply(&at, &request, "42").await.is_ok() {
//!                 request.ack();
//!             }
//!         }
//!     }
//! });
//! let answer = requester.request("6 * 7", Duration::from_secs(5)).await?;
//! assert_eq!(answer.data(), "42");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Time, and proof
//!
//! Everything that takes time runs on the bus's clock. With a [`ManualClock`] a test passes a month
//! in microseconds, needs no runtime, and proves that nothing happened rather than waiting for it.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # use siftbus::{Bus, SubscriptionConfig, TopicConfig};
//! use siftbus::{Clock, ManualClock};
//! use std::time::Duration;
//!
//! let clock = ManualClock::new();
//! let bus = Bus::builder().clock(Clock::manual(&clock)).seed(7).build();
//! # let orders = bus.create_topic("orders", TopicConfig::new()).await?;
//! # let billing = orders.subscribe("billing", SubscriptionConfig::new()).await?;
//! orders.try_publish("order")?;
//! let held = billing.try_pull(1)?;
//! clock.advance(Duration::from_secs(10) - Duration::from_millis(1));
//! assert!(billing.try_pull(1)?.is_empty(), "the lease still runs");
//! clock.advance(Duration::from_millis(1));
//! assert_eq!(billing.try_pull(1)?.len(), 1, "it has lapsed");
//! # drop(held);
//! clock.advance(Duration::from_secs(31 * 24 * 3_600));
//! assert_eq!(billing.stats().backlog, 0, "past its retention, or past its expiration");
//! bus.audit().assert_balanced(); // every message is accounted for
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Look inside, and end
//!
//! [`Bus::stats`], [`Topic::stats`] and [`Subscription::stats`] are plain values with serde, cheap
//! enough to be read every second; [`Subscription::peek`] shows messages without leasing them;
//! [`Bus::events`] tells what happened. [`Bus::close`] takes no more, and waits for what is in
//! somebody's hand. Keep a [`Bus`]: when the last one is dropped the bus is closed, for the handles
//! of topics and subscriptions do not keep it open.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! # use siftbus::{Bus, SubscriptionConfig, TopicConfig};
//! # use std::time::Duration;
//! # let bus = Bus::new();
//! # let orders = bus.create_topic("orders", TopicConfig::new()).await?;
//! # let billing = orders.subscribe("billing", SubscriptionConfig::new()).await?;
//! orders.publish("order").await?;
//! assert_eq!(billing.peek(10)[0].message.data(), "order");
//! assert_eq!(bus.stats().held.messages.backlog, 1);
//! assert_eq!(bus.close(Duration::from_secs(10)).await, 0, "nothing was in anybody's hand");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Guarantees
//!
//! - A message goes to every subscription that is attached when it is published and whose filter
//!   matches; each has a backlog of its own (PUB-7).
//! - Delivery is at least once. A message stays until it is acknowledged, its retention has passed,
//!   or its subscription goes.
//! - While a lease runs nobody else gets the message (DL-3); an ack is for good (LS-4); a late ack
//!   counts until the next hand-out (LS-8).
//! - What is dropped without an answer is released at once. Any future may be dropped at any time:
//!   a lease is taken in the poll that returns it, so a dropped future strands nothing.
//! - A publish is all or nothing, and an error gives the messages back (PUB-2).
//! - Bad input is an error with a gRPC code, never a panic; every limit is a value.
//! - Time is a clock of your choice. With a manual one, a month passes in microseconds.
//!
//! Not there yet: a server.
//!
//! What the bus holds is bounded by a [`Budget`]; publishers that find no room wait, in order, or
//! get their messages back. Each subscription may have a [`BacklogLimit`] of its own.
//!
//! In the sources: `docs/guarantees.md`, the guarantees on one page, and what happens when things
//! go wrong; `docs/semantics.md`, every rule by number with its status, and every difference from
//! the service; `docs/back-pressure.md`, `docs/testing.md`, and `docs/comparison.md`, which says
//! when to use something else. How it is built is in `ARCHITECTURE.md`.
//!
//! # Map
//!
//! | to … | use |
//! | --- | --- |
//! | make, find and delete topics and subscriptions | [`Bus`], [`BusBuilder`] |
//! | publish | [`Topic`], [`Message`], [`Attributes`]; answers [`Receipt`], [`Receipts`] |
//! | take messages out | [`Subscription`]: `pull`, `try_pull`, `stream`, `batches` |
//! | answer for them | [`Deliveries`] (a batch), [`Delivery`] (one), [`Outcome`] |
//! | answer by id, from anywhere | [`AckId`], [`Subscription::acknowledge`] |
//! | say which messages | [`Filter`], and [`filter`] for its grammar and errors |
//! | see why a message would reach whom | [`Topic::explain`], [`Topic::would_match`], [`Topic::lint`], [`Topic::filter_stats`] |
//! | see where a message stands | [`Subscription::explain_delivery`], [`Subscription::peek`], [`Topic::messages`] |
//! | configure | [`TopicConfig`], [`SubscriptionConfig`], [`FlowControl`], [`Expiration`] |
//! | go back, or past | [`Subscription::seek`], [`Subscription::purge`], [`Snapshot`], [`SeekTarget`] |
//! | bound | [`Limits`]: presets `embedded` and `google`; [`Budget`], [`BacklogLimit`] |
//! | run code per message | [`Subscription::handle`], [`HandlerOptions`], [`Failure`], [`Received`] |
//! | be called with messages | [`Subscription::push_to`], [`PushEndpoint`], [`PushOptions`]; over HTTP [`PushConfig`] |
//! | ask and be answered | [`Requester`], [`reply()`] |
//! | watch | [`SubscriptionStats`], [`TopicStats`], [`Events`] |
//! | move time | [`Clock`], [`ManualClock`], [`Bus::now`], [`Bus::sleep`], [`Bus::timeout`] |
//! | make it fail, in tests | [`Subscription::faults`], [`Topic::faults`], [`FaultCounts`] |
//! | act on errors | one enum per boundary, such as [`PullError`]; each has a [`Code`] |
//!
//! # Runtime
//!
//! Waking a waiter when a lease lapses takes one background task, which the bus starts by itself on
//! the tokio runtime of whoever waits; the runtime needs its time enabled. Without a runtime the
//! `try_` calls work, and are as exact. A [`ManualClock`] needs no runtime. Publish, pull and
//! streams take part in tokio's cooperative scheduling: a loop that never waits yields now and
//! then.
//!
//! # Untrusted input
//!
//! Names, filters, messages, configurations and ack ids may come from strangers: nothing there
//! panics, recurses without bound or takes more than linear time. The default limits bound the
//! parts of a message but neither its size nor the number of messages; [`Limits::google`] bounds
//! sizes too, and a count of topics and subscriptions can be set. The [`Budget`] bounds backlogs.
//! Build filters from data with [`Filter::eq`] or [`filter::quote`], never by pasting. Ack ids are
//! checked for accidents, not signed: they give no permission.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `http` | off | push over HTTP: [`PushConfig`], `Pusher`, `HttpEndpoint` |
//! | `metrics` | off | `Bus::record_metrics`, for the recorder of the `metrics` facade |
//! | `oidc` | off | `identity`: signed tokens for pushes, and what checks them |
//! | `tracing` | off | spans and events with OpenTelemetry's messaging names, for `tracing` |
//! | `internals` | off | counters for benches and tests; no semver promise |

// The examples of the pages in `docs/` are run as tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/back-pressure.md")]
#[doc = include_str!("../docs/guarantees.md")]
#[doc = include_str!("../docs/testing.md")]
mod pages {}

mod ack_id;
mod arena;
mod attributes;
mod audit;
mod blocking;
mod broker;
mod budget;
mod bus;
mod clock;
mod config;
mod counters;
mod delivery;
mod error;
mod events;
mod explain;
mod faults;
pub mod filter;
mod handler;
#[cfg(feature = "oidc")]
pub mod identity;
mod later;
mod lifecycle;
mod limits;
#[cfg(all(test, siftbus_loom))]
mod loom_models;
mod message;
mod name;
mod observe;
mod peek;
mod policy;
mod publish;
mod push;
mod push_config;
mod received;
mod request;
mod runner;
mod shell;
mod snapshot;
mod stats;
mod stream;
mod subscription;
mod sync;
mod time;
mod topic;

pub use ack_id::{AckId, ParseAckIdError};
pub use attributes::{AttributeIter, Attributes};
pub use audit::{Account, Audit, SubscriptionAudit, TopicAudit};
pub use budget::{BacklogLimit, Budget, MESSAGE_OVERHEAD, Overflow};
pub use bus::{Bus, BusBuilder, Elapsed};
pub use clock::{Clock, ManualClock};
pub use config::{
    Expiration, FlowControl, MAX_HISTORY, SubscriptionConfig, SubscriptionUpdate, TopicConfig,
    TopicUpdate,
};
pub use delivery::{
    BatchOutcome, Deliveries, Delivery, DeliveryIntoIter, DeliveryIter, DeliveryRef, Outcome,
    Settlement,
};
pub use error::{
    AckError, AckFailure, AdminError, Code, ConfigError, MessageProblem, NameError, PublishError,
    PublishReason, PullError, ReplyError, RequestError, Resource,
};
#[cfg(feature = "http")]
pub use error::{CertificateError, EndpointError};
pub use events::{EVENT_CAPACITY, Event, Events};
pub use explain::{
    DeliveryExplanation, Explanation, FailedClause, FilterLint, FilterStats, Standing,
    SubscriptionExplanation,
};
pub use faults::{SubscriptionFaults, TopicFaults};
pub use filter::Filter;
pub use handler::{HANDLER_CONCURRENCY, Handler, HandlerOptions, HandlerStats};
pub use lifecycle::{Declared, Topology};
pub use limits::{Limits, NameGrammar};
pub use message::{Message, MessageId};
pub use name::MAX_NAME_BYTES;
pub use peek::{MessageState, Peeked};
pub use policy::{DeadLetterPolicy, RetryPolicy};
pub use publish::Permit;
pub use push::{DEFAULT_PUSH_WINDOW, PUSH_WINDOW, Push, PushEndpoint, PushOptions, PushStats};
#[cfg(feature = "http")]
pub use push::{
    HttpClient, HttpEndpoint, MAX_PUSH_ANSWER, MAX_PUSH_BODY, PushAnswer, Pusher, PusherBuilder,
};
pub use push_config::{OidcToken, PushConfig, PushWrapper};
pub use received::{Failure, Received, Verdict};
pub use request::{CORRELATION_ID, REPLY_TO, REQUESTER, Requester, reply};
pub use shell::subscription::forward::{
    DEAD_LETTER_SOURCE_DELIVERY_COUNT, DEAD_LETTER_SOURCE_DELIVERY_ERROR_MESSAGE,
    DEAD_LETTER_SOURCE_SUBSCRIPTION, DEAD_LETTER_SOURCE_SUBSCRIPTION_PROJECT,
    DEAD_LETTER_SOURCE_TOPIC_PUBLISH_TIME,
};
pub use snapshot::{SeekTarget, Snapshot, SnapshotUpdate};
pub use stats::{
    Blocked, BusStats, FaultCounts, Held, HeldBy, Rates, SubscriptionStats, Sum, TopicStats,
};
pub use stream::{BatchStream, DeliveryStream};
pub use subscription::Subscription;
pub use topic::{DELETED_TOPIC, Receipt, Receipts, Topic};

/// Parts that benches, models and fuzz targets look at. No semver promise.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::counters::{Counters, counters};
}
