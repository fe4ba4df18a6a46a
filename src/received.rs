//! What a handler or a push endpoint is given, and what it answers with.
//!
//! The delivery itself stays with the runner, which keeps its lease and settles it.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::attributes::Attributes;
use crate::delivery::Delivery;
use crate::message::{Message, MessageId};
use crate::shell::core::BusCore;
use crate::sync::{Arc, AtomicBool, Ordering};

/// A message as a handler or a push endpoint gets it.
///
/// Cheap to clone. The answer is the result of the handler; there is nothing to settle here.
#[derive(Clone)]
pub struct Received {
    message: Message,
    id: MessageId,
    publish_time: SystemTime,
    attempt: u32,
    /// Which bus it is of: an address that is compared, and nothing else.
    bus: usize,
    /// What a push endpoint gets has none: its future ends with the lease.
    lease: Option<Arc<Lease>>,
}

/// What the runner and the one who works on the message tell each other.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    is_lost: AtomicBool,
    told: Notify,
}

impl Lease {
    pub(crate) fn lose(&self) {
        self.is_lost.store(true, Ordering::SeqCst);
        self.told.notify_waiters();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::SeqCst)
    }
}

impl Received {
    pub(crate) fn new(delivery: &Delivery, lease: Option<Arc<Lease>>) -> Self {
        Self {
            message: delivery.message().clone(),
            id: delivery.id(),
            publish_time: delivery.publish_time(),
            attempt: delivery.attempt(),
            bus: delivery.bus_address(),
            lease,
        }
    }

    /// The message as it was published.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The payload.
    pub fn data(&self) -> &Bytes {
        self.message.data()
    }

    /// All attributes.
    pub fn attributes(&self) -> &Attributes {
        self.message.attributes()
    }

    /// The value of one attribute.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.message.attribute(key)
    }

    /// The id of the message, the same in every delivery.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// When the message was published, in whole milliseconds (PUB-6).
    pub fn publish_time(&self) -> SystemTime {
        self.publish_time
    }

    /// Which delivery of this message on this subscription this is, counted from 1; more than
    /// 4,095 count as 4,095.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) fn is_of(&self, core: &Arc<BusCore>) -> bool {
        self.bus == Arc::as_ptr(core).addr()
    }

    /// Whether the lease has ended before the answer: the message may be worked on elsewhere.
    pub fn is_lost(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_lost())
    }

    /// Waits until the lease is lost; then it is best to stop (LIB-302). Never ready for what a
    /// push endpoint gets, whose future is dropped instead.
    ///
    /// # Cancel safety
    ///
    /// If dropped, nothing is left behind.
    pub async fn lost(&self) {
        let Some(lease) = &self.lease else { return std::future::pending().await };
        loop {
            let told = lease.told.notified();
            if lease.is_lost() {
                return;
            }
            told.await;
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("message", &self.message)
            .finish()
    }
}

/// Why a handler or a push endpoint did not do its work, and what is to become of the message.
///
/// Every error turns into a [`retry`](Self::retry) by `?`.
///
/// ```
/// use siftbus::{Failure, Received};
///
/// async fn handle(received: Received) -> Result<(), Failure> {
///     let text = std::str::from_utf8(received.data())?; // tried again
///     let number: u64 = text.parse().map_err(Failure::reject)?; // never will be one
///     println!("{number}");
///     Ok(())
/// }
/// # let _ = handle;
/// ```
#[derive(Debug)]
pub struct Failure {
    verdict: Verdict,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// What is to become of a message that was not worked on.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It is delivered again, later the more often it has failed.
    Retry,
    /// It is delivered again after this time.
    RetryAfter(Duration),
    /// It goes to the dead-letter topic at once; on a subscription without one it is retried, as
    /// nothing is to be lost (LIB-102).
    Reject,
}

impl Failure {
    /// The message is to be delivered again.
    pub fn retry(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { verdict: Verdict::Retry, cause: Some(cause.into()) }
    }

    /// The message is to be delivered again after `delay`, rounded up to whole milliseconds.
    pub fn retry_after(delay: Duration) -> Self {
        Self { verdict: Verdict::RetryAfter(delay), cause: None }
    }

    /// The message is to go to the dead-letter topic.
    pub fn reject(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { verdict: Verdict::Reject, cause: Some(cause.into()) }
    }

    /// Adds what went wrong.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What is to become of the message.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What went wrong, if it was said.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.cause.as_deref()
    }

    /// A push was not answered in time (PUSH-19).
    pub(crate) fn no_answer() -> Self {
        Self::retry(NoAnswer)
    }

    pub(crate) fn is_no_answer(&self) -> bool {
        self.cause.as_deref().is_some_and(|cause| cause.is::<NoAnswer>())
    }

    /// A panic, as the failure that it is.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self::retry(format!("panicked: {}", text.as_deref().unwrap_or("with no text")))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            Verdict::Retry => f.write_str("to be tried again")?,
            Verdict::RetryAfter(delay) => write!(f, "to be tried again after {delay:?}")?,
            Verdict::Reject => f.write_str("rejected")?,
        }
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self::retry(cause)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within the ack deadline")]
struct NoAnswer;
