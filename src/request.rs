//! Request and reply over topics: correlation ids, a filtered reply subscription, deadlines.
//!
//! A client of the public API, as any program could write it. Requests are ordinary messages: a
//! worker that dies is replaced by redelivery, so a request may be worked on twice; the first reply
//! counts.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::attributes::{Attributes, TRACE_KEYS};
use crate::bus::{Bus, timeout};
use crate::config::{Expiration, FlowControl, SubscriptionConfig};
use crate::delivery::{Deliveries, Delivery};
use crate::error::{AdminError, ReplyError, RequestError};
use crate::filter::Filter;
use crate::message::Message;
use crate::received::Received;
use crate::shell::core::BusCore;
use crate::stream::BatchStream;
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::topic::{Receipt, Topic};

/// The attribute that names the topic to reply to.
pub const REPLY_TO: &str = "reply_to";
/// The attribute that tells the requests of one requester apart.
pub const CORRELATION_ID: &str = "correlation_id";
/// The attribute that names the requester; its reply subscription filters by it.
pub const REQUESTER: &str = "requester";

/// After how much idle time a reply subscription that nobody deleted goes away.
const REPLY_EXPIRATION: Duration = Duration::from_secs(3_600);
/// Replies taken at once.
const REPLIES_AT_ONCE: usize = 256;

/// Sends requests to a topic and waits for the replies.
///
/// Owns a subscription on the reply topic, filtered to its own replies; the subscription goes when
/// the requester is dropped, or by itself if the program is gone. Many requests can be in flight;
/// share a requester by reference or in an `Arc`.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, Requester, SubscriptionConfig, TopicConfig};
/// use std::time::Duration;
///
/// let bus = Bus::new();
/// let requests = bus.create_topic("requests", TopicConfig::new()).await?;
/// bus.create_topic("replies", TopicConfig::new()).await?;
/// let work = requests.subscribe("work", SubscriptionConfig::new()).await?;
///
/// let worker = {
///     let bus = bus.clone();
///     tokio::spawn(async move {
///         for request in work.pull(1).await.expect("the subscription is there") {
///             let length = request.data().len().to_string();
///             siftbus::reply(&bus, &request, length).await.expect("replies exist");
///             request.ack();
///         }
///     })
/// };
///
/// let requester = Requester::new(&bus, "requests", "replies").await?;
/// let reply = requester.request("four", Duration::from_secs(5)).await?;
/// assert_eq!(reply.data().as_ref(), b"4");
/// # worker.await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Requester {
    core: Arc<BusCore>,
    requests: Topic,
    replies: Subscription,
    reply_to: String,
    name: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Who waits for which correlation id; `None` once replies can no longer arrive.
    pending: Mutex<Option<HashMap<u64, oneshot::Sender<Message>>>>,
    next: AtomicU64,
    ignored: AtomicU64,
}

impl Requester {
    /// A requester that publishes to one topic and listens on another; both must exist.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`] for either topic, [`AdminError::NoRuntime`] outside of a tokio
    /// runtime, and whatever creating a subscription may answer.
    ///
    /// # Cancel safety
    ///
    /// Acts in its first poll.
    pub async fn new(bus: &Bus, requests: &str, replies: &str) -> Result<Self, AdminError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| AdminError::NoRuntime)?;
        let requests = bus.topic(requests).await?;
        let topic = bus.topic(replies).await?;
        let core = Arc::clone(bus.core());
        let name = format!("requester-{:x}-{:x}", core.seed, core.take_object_id());
        let config = SubscriptionConfig::new()
            .filter(Filter::eq(REQUESTER, &name))
            .expiration(Expiration::After(REPLY_EXPIRATION.max(*core.limits.expiration.start())));
        let subscription = topic.subscribe(&subscription_name(topic.name(), &name), config).await?;
        let flow = FlowControl::new();
        let stream = subscription.batches(REPLIES_AT_ONCE, flow).map_err(|_| AdminError::Closed)?;
        let shared = Arc::new(Shared {
            pending: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
            ignored: AtomicU64::new(0),
        });
        runtime.spawn(take_replies(stream, Ended(Arc::clone(&shared))));
        let reply_to = topic.name().to_owned();
        Ok(Self { core, requests, replies: subscription, reply_to, name, shared })
    }

    /// Publishes a request and waits for the first reply, for at most `deadline` of the bus's time.
    ///
    /// The attributes [`REPLY_TO`], [`CORRELATION_ID`] and [`REQUESTER`] are added to the message.
    ///
    /// # Errors
    ///
    /// [`RequestError::Publish`] (the message comes back in it, with these attributes),
    /// [`RequestError::TimedOut`], [`RequestError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// If dropped, the request stays published and its reply will be ignored.
    pub async fn request(
        &self,
        message: impl Into<Message>,
        deadline: Duration,
    ) -> Result<Message, RequestError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let receiver = self.shared.expect(id).ok_or(RequestError::Closed)?;
        // From here on, whatever ends the call takes the entry away.
        let _waiting = Expected { shared: &self.shared, id };
        let message = message
            .into()
            .with_attribute(REPLY_TO, &self.reply_to)
            .with_attribute(REQUESTER, &self.name)
            .with_attribute(CORRELATION_ID, id.to_string());
        self.requests.publish(message).await?;
        match timeout(&self.core, deadline, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(RequestError::Closed),
            Err(_) if self.core.is_closed() => Err(RequestError::Closed),
            Err(_) => Err(RequestError::TimedOut { timeout: deadline }),
        }
    }

    /// Replies that nobody waited for: late ones, and second ones of one request.
    pub fn ignored_replies(&self) -> u64 {
        self.shared.ignored.load(Ordering::Relaxed)
    }

    /// The subscription on which the replies arrive.
    pub fn subscription(&self) -> &Subscription {
        &self.replies
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        // The task that takes replies ends with its subscription.
        self.replies.shared().delete();
    }
}

/// Replies to a request, on the topic that the request names.
///
/// Does not acknowledge the request: do that after. Never waits for room (LIB-43). In a handler it
/// is [`Received::reply`].
///
/// # Errors
///
/// [`ReplyError::NotARequest`] if the delivery lacks the attributes of a request,
/// [`ReplyError::Topic`] if the topic to reply to does not exist, [`ReplyError::Publish`].
///
/// # Cancel safety
///
/// A future that is dropped before it is ready has published nothing.
pub async fn reply(
    bus: &Bus,
    request: &Delivery,
    message: impl Into<Message>,
) -> Result<Receipt, ReplyError> {
    let (topic, message) = addressed(bus, request.attributes(), message.into()).await?;
    Ok(topic.publish_for(request, message)?)
}

impl Received {
    /// Replies to a request from within its handler, on the topic that the request names.
    ///
    /// The request is acknowledged when the handler answers `Ok`. Never waits for room (LIB-43).
    ///
    /// # Errors
    ///
    /// As [`reply`].
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready has published nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, HandlerOptions, Received, Requester, SubscriptionConfig, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let bus = Bus::new();
    /// let requests = bus.create_topic("requests", TopicConfig::new()).await?;
    /// bus.create_topic("replies", TopicConfig::new()).await?;
    /// let work = requests.subscribe("work", SubscriptionConfig::new()).await?;
    ///
    /// let replies = bus.clone();
    /// let worker = work.handle(HandlerOptions::new(), move |request: Received| {
    ///     let bus = replies.clone();
    ///     async move {
    ///         request.reply(&bus, request.data().len().to_string()).await?;
    ///         Ok(())
    ///     }
    /// })?;
    ///
    /// let requester = Requester::new(&bus, "requests", "replies").await?;
    /// let reply = requester.request("four", Duration::from_secs(5)).await?;
    /// assert_eq!(reply.data().as_ref(), b"4");
    /// # worker.drain().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn reply(
        &self,
        bus: &Bus,
        message: impl Into<Message>,
    ) -> Result<Receipt, ReplyError> {
        let (topic, message) = addressed(bus, self.attributes(), message.into()).await?;
        Ok(self.publish_to(&topic, message)?)
    }
}

/// A reply with what tells its requester which request it is for, and the topic it goes to.
async fn addressed(
    bus: &Bus,
    request: &Attributes,
    message: Message,
) -> Result<(Topic, Message), ReplyError> {
    let attribute = |attribute: &'static str| {
        request.get(attribute).ok_or(ReplyError::NotARequest { attribute })
    };
    let reply_to = attribute(REPLY_TO)?;
    let message = message
        .with_attribute(REQUESTER, attribute(REQUESTER)?)
        .with_attribute(CORRELATION_ID, attribute(CORRELATION_ID)?);
    let message = with_trace_of(request, message, bus.limits().attributes);
    Ok((bus.topic(reply_to).await?, message))
}

/// A reply is part of the trace of its request, unless it has a context of its own.
fn with_trace_of(request: &Attributes, mut reply: Message, max_attributes: usize) -> Message {
    if TRACE_KEYS.iter().any(|key| reply.attributes().get(key).is_some()) {
        return reply;
    }
    for key in TRACE_KEYS {
        if let Some(value) = request.get(key)
            && reply.attributes().len() < max_attributes
        {
            reply = reply.with_attribute(key, value);
        }
    }
    reply
}

/// A subscription beside the topic: in the same project if the name has one.
fn subscription_name(topic: &str, id: &str) -> String {
    match topic.split_once("/topics/") {
        Some((project, _)) => format!("{project}/subscriptions/{id}"),
        None => id.to_owned(),
    }
}

async fn take_replies(mut replies: BatchStream, ended: Ended) {
    while let Some(Ok(batch)) = replies.next().await {
        ended.0.hand_over(batch);
    }
}

impl Shared {
    fn expect(&self, id: u64) -> Option<oneshot::Receiver<Message>> {
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().as_mut()?.insert(id, sender);
        Some(receiver)
    }

    fn forget(&self, id: u64) -> Option<oneshot::Sender<Message>> {
        self.pending.lock().as_mut()?.remove(&id)
    }

    fn hand_over(&self, batch: Deliveries) {
        for delivery in &batch {
            let id = delivery.attribute(CORRELATION_ID).and_then(|id| id.parse().ok());
            let taken = id
                .and_then(|id| self.forget(id))
                .is_some_and(|sender| sender.send(delivery.message().clone()).is_ok());
            if !taken {
                self.ignored.fetch_add(1, Ordering::Relaxed);
            }
        }
        batch.ack_all();
    }
}

/// An entry among the pending requests, taken away when the call ends or is dropped.
struct Expected<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        drop(self.shared.forget(self.id));
    }
}

/// Dropped when the task ends, also with its runtime: nobody must wait for a reply any more.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        let pending = self.0.pending.lock().take();
        drop(pending);
    }
}
