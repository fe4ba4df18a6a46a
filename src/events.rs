//! What happened on a bus, for those who want to know.

use tokio::sync::broadcast;

use crate::explain::FilterLint;
use crate::sync::{Arc, Mutex};

/// Something that happened on a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A topic was created.
    TopicCreated {
        /// Its name.
        topic: String,
    },
    /// A topic's configuration was changed.
    TopicUpdated {
        /// Its name.
        topic: String,
    },
    /// A topic was deleted; its subscriptions go on with their backlog (RES-11).
    TopicDeleted {
        /// Its name.
        topic: String,
    },
    /// A subscription was created.
    SubscriptionCreated {
        /// Its name.
        subscription: String,
        /// The topic it is attached to.
        topic: String,
    },
    /// A subscription was created whose filter is probably not meant as it stands (LIB-350).
    FilterLinted {
        /// The subscription's name.
        subscription: String,
        /// The topic it is attached to.
        topic: String,
        /// What is odd about its filter; at least one thing.
        lints: Vec<FilterLint>,
    },
    /// A subscription's configuration was changed.
    SubscriptionUpdated {
        /// Its name.
        subscription: String,
    },
    /// A subscription was deleted.
    SubscriptionDeleted {
        /// Its name.
        subscription: String,
    },
    /// A subscription that nobody used has gone away (EXP-2, EXP-8).
    SubscriptionExpired {
        /// Its name.
        subscription: String,
        /// The topic it was attached to.
        topic: String,
    },
    /// A subscription has dropped messages because of a policy with a name (LIB-45).
    MessagesDropped {
        /// Its name.
        subscription: String,
        /// How many.
        count: u64,
    },
    /// Messages that only retention kept were given up for live ones (LIB-44).
    HistoryYielded {
        /// The topic whose history is shorter now.
        topic: String,
        /// How many messages.
        count: u64,
    },
    /// A publisher has waited for room for a second (LIB-42).
    PublisherBlocked {
        /// The topic it publishes to.
        topic: String,
        /// How many publishers wait on that topic.
        waiting: usize,
        /// The subscription that is full, or has the largest backlog.
        subscription: Option<String>,
    },
    /// A subscription was detached from its topic (RES-14).
    SubscriptionDetached {
        /// Its name.
        subscription: String,
    },
    /// A snapshot was made.
    SnapshotCreated {
        /// Its name.
        snapshot: String,
        /// The subscription whose state it has.
        subscription: String,
    },
    /// A snapshot's labels or its life were changed.
    SnapshotUpdated {
        /// Its name.
        snapshot: String,
    },
    /// A snapshot was deleted.
    SnapshotDeleted {
        /// Its name.
        snapshot: String,
    },
    /// The life of a snapshot is over (SNP-10, EXP-8).
    SnapshotExpired {
        /// Its name.
        snapshot: String,
        /// The topic it belonged to.
        topic: String,
    },
    /// The listener was too slow: this many events were dropped.
    Missed(u64),
}

/// Events that a listener may be behind; older ones are dropped and counted.
pub const EVENT_CAPACITY: usize = 1_024;

/// A listener to the events of a bus, from the moment it was made on.
///
/// Keeps up to [`EVENT_CAPACITY`] events; what a slow listener loses is reported as
/// [`Event::Missed`]. While somebody listens, expirations happen on time even if nobody calls the
/// bus.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{Bus, Event, TopicConfig};
///
/// let bus = Bus::new();
/// let mut events = bus.events();
/// bus.create_topic("orders", TopicConfig::new()).await?;
/// assert_eq!(events.next().await, Some(Event::TopicCreated { topic: "orders".into() }));
/// # Ok::<(), siftbus::AdminError>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Events {
    receiver: Option<broadcast::Receiver<Event>>,
    /// Told when the listener goes.
    pub(crate) gone: Option<Gone>,
}

impl Events {
    /// The next event; `None` once the bus is closed.
    ///
    /// # Cancel safety
    ///
    /// If dropped, no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.receiver.as_mut()?.try_recv() {
            Ok(event) => Some(event),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                None
            }
        }
    }
}

/// Tells the bus that a listener has gone.
pub(crate) struct Gone(pub(crate) Arc<crate::shell::core::BusCore>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.events.left();
        if !self.0.events.has_listeners() {
            let _ = self.0.timers.observe_all(false);
        }
    }
}

impl std::fmt::Debug for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gone")
    }
}

/// Where events come from; costs nothing while nobody listens.
#[derive(Debug)]
pub(crate) struct EventSource {
    sender: Mutex<Option<broadcast::Sender<Event>>>,
    listeners: crate::sync::AtomicUsize,
}

impl EventSource {
    pub(crate) fn new() -> Self {
        let listeners = crate::sync::AtomicUsize::new(0);
        Self { sender: Mutex::new(None), listeners }
    }

    pub(crate) fn send(&self, event: Event) {
        crate::observe::happened(&event);
        if self.has_listeners()
            && let Some(sender) = &*self.sender.lock()
        {
            // Fails only if the last listener has just gone.
            let _ = sender.send(event);
        }
    }

    /// As `send`, for an event that is not worth making if nobody sees it.
    pub(crate) fn send_with(&self, event: impl FnOnce() -> Event) {
        if self.has_listeners() || cfg!(feature = "tracing") {
            self.send(event());
        }
    }

    /// A new listener; one that hears nothing if the bus is closed.
    pub(crate) fn listen(&self, closed: bool) -> Events {
        self.listeners.fetch_add(1, crate::sync::Ordering::SeqCst);
        let mut sender = self.sender.lock();
        if closed {
            return Events { receiver: None, gone: None };
        }
        let sender = sender.get_or_insert_with(|| broadcast::channel(EVENT_CAPACITY).0);
        Events { receiver: Some(sender.subscribe()), gone: None }
    }

    pub(crate) fn has_listeners(&self) -> bool {
        self.listeners.load(crate::sync::Ordering::SeqCst) > 0
    }

    fn left(&self) {
        self.listeners.fetch_sub(1, crate::sync::Ordering::SeqCst);
    }

    pub(crate) fn close(&self) {
        let sender = self.sender.lock().take();
        drop(sender);
    }
}
