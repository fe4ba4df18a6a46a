//! The forms for plain threads: they park instead of awaiting.
//!
//! Without a runtime nobody drives the bus's timers, so a thread that is parked here takes that
//! role (D20): it wakes for the next due instant, and one that leaves hands the role to another.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::delivery::Deliveries;
use crate::error::{PublishError, PullError};
use crate::message::Message;
use crate::shell::core::BusCore;
use crate::subscription::Subscription;
use crate::sync::Arc;
use crate::topic::{Receipt, Receipts, Topic};

impl Topic {
    /// [`publish`](Self::publish) for a thread: parks while there is no room. Not to be called from
    /// async code, whose thread it would hold.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn blocking_publish(&self, message: impl Into<Message>) -> Result<Receipt, PublishError> {
        block_on(&self.shared().core, self.publish(message))
    }

    /// [`publish_many`](Self::publish_many) for a thread, as
    /// [`blocking_publish`](Self::blocking_publish).
    ///
    /// # Errors
    ///
    /// As [`publish_many`](Self::publish_many).
    pub fn blocking_publish_many(
        &self,
        messages: impl IntoIterator<Item = impl Into<Message>>,
    ) -> Result<Receipts, PublishError> {
        block_on(&self.shared().core, self.publish_many(messages))
    }
}

impl Subscription {
    /// [`pull`](Self::pull) for a thread: parks until there is a message. Not to be called from
    /// async code, whose thread it would hold.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// # use siftbus::{Bus, SubscriptionConfig, TopicConfig};
    /// # let bus = Bus::new();
    /// # let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    /// # let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    /// let work = move || billing.blocking_pull(10).map(|batch| batch.ack_all());
    /// let worker = std::thread::spawn(work);
    /// topic.publish("order 1").await?;
    /// assert_eq!(worker.join().expect("no panic")?.done, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn blocking_pull(&self, max_messages: usize) -> Result<Deliveries, PullError> {
        block_on(&self.shared().core, self.pull(max_messages))
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(core: &Arc<BusCore>, future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let cx = &mut Context::from_waker(&waker);
    let mut parked: Option<Parked<'_>> = None;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return output;
        }
        let parked = parked.get_or_insert_with(|| Parked::new(core));
        parked.drives = parked.drives || core.timers.claim_driver();
        if !parked.drives {
            std::thread::park();
            continue;
        }
        let mut changed = pin!(core.timers.changed.notified());
        let until = core.timers.arm();
        if changed.as_mut().poll(cx).is_pending() {
            match core.timeline.wait_until(until) {
                None => std::thread::park(),
                Some(span) => std::thread::park_timeout(span),
            }
        }
        core.read();
    }
}

/// A thread that is parked, and may drive the timers meanwhile.
struct Parked<'a> {
    core: &'a Arc<BusCore>,
    drives: bool,
}

impl<'a> Parked<'a> {
    fn new(core: &'a Arc<BusCore>) -> Self {
        core.parked.lock().push(std::thread::current());
        Self { core, drives: false }
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let own = std::thread::current().id();
        let mut others = self.core.parked.lock();
        if let Some(at) = others.iter().position(|thread| thread.id() == own) {
            others.swap_remove(at);
        }
        if self.drives {
            self.core.timers.driver_gone();
            // One of those that are left claims the role.
            others.iter().for_each(Thread::unpark);
        }
    }
}
