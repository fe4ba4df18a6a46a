//! The worker library: takes invocations of one resource, runs a function, replies.
//!
//! A worker is a client of the bus like any other. It holds its lease while it works, repeats the
//! reply of a task that comes again (F-110), gives up a task that killed too many workers, and
//! hears of cancellations.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use siftbus::{AdminError, Bus, Delivery, Filter, Message, Subscription, SubscriptionConfig};
use tokio::sync::watch;

use crate::cases::reply_to as reply;
use crate::engine::{
    CANCEL_TOPIC, FUNCTION_UNKNOWN, REPLY_TOPIC, WORKER_LOST, ensure_topic, task_topic,
    worker_subscription,
};
use crate::language::Resource;
use crate::poll::at_once;

/// An error of a task: a name that `retry` and `catch` match, and a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// The name; empty counts as `FC.Unknown` (F-63).
    pub error: String,
    /// An explanation for people.
    pub cause: String,
}

impl TaskError {
    /// An error with a name and a cause.
    pub fn new(error: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { error: error.into(), cause: cause.into() }
    }
}

impl<E: Into<String>, C: Into<String>> From<(E, C)> for TaskError {
    fn from((error, cause): (E, C)) -> Self {
        Self::new(error, cause)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.cause)
    }
}

impl std::error::Error for TaskError {}

/// What a function knows about the task that it works on.
#[derive(Clone, Debug)]
pub struct TaskContext {
    bus: Bus,
    invocation: Message,
    cancelled: watch::Receiver<bool>,
}

impl TaskContext {
    /// The idempotency key of the invocation: the same whenever it comes again (F-110).
    pub fn task_id(&self) -> &str {
        self.invocation.attribute("task_id").unwrap_or_default()
    }

    /// Which attempt of the step this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.invocation.attribute("attempt").and_then(|n| n.parse().ok()).unwrap_or(1)
    }

    /// A key that is the same whenever this invocation comes again, and never that of another
    /// engine's or flow's task.
    pub fn idempotency_key(&self) -> String {
        key_of(&self.invocation)
    }

    /// The pattern of the task: `requestResponse`, `sync` or `waitForCallback`.
    pub fn pattern(&self) -> &str {
        self.invocation.attribute("pattern").unwrap_or("requestResponse")
    }

    /// The token to report the result with, if the task waits for a callback.
    pub fn task_token(&self) -> Option<&str> {
        self.invocation.attribute("task_token")
    }

    /// The bus, whose time the function should use.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Waits until nobody wants the result any more.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn cancelled(&mut self) {
        // The sender lives as long as the function runs.
        let _ = self.cancelled.wait_for(|cancelled| *cancelled).await;
    }
}

/// A worker of one resource.
#[derive(Debug)]
pub struct Worker {
    bus: Bus,
    invocations: Subscription,
    cancellations: Subscription,
    max_delivery: u32,
}

/// Why a resource cannot be served.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It is no function and no job, or no resource at all.
    #[error("{0} takes no worker")]
    Resource(String),
    /// The bus refuses its topic or its subscription.
    #[error(transparent)]
    Bus(#[from] AdminError),
    /// The address of a worker behind HTTP is none.
    #[cfg(feature = "http")]
    #[error(transparent)]
    Endpoint(#[from] siftbus::EndpointError),
}

impl WorkerError {
    /// The canonical code.
    pub fn code(&self) -> siftbus::Code {
        match self {
            WorkerError::Resource(_) => siftbus::Code::InvalidArgument,
            #[cfg(feature = "http")]
            WorkerError::Endpoint(error) => error.code(),
            WorkerError::Bus(error) => error.code(),
        }
    }
}

impl Worker {
    /// A worker of a resource; makes the topic and the subscription that its workers share.
    ///
    /// # Errors
    ///
    /// [`WorkerError`].
    pub fn new(bus: &Bus, resource: &str) -> Result<Self, WorkerError> {
        let topic = Resource::parse(resource).and_then(|resource| task_topic(&resource.target));
        let topic = topic.ok_or_else(|| WorkerError::Resource(resource.to_owned()))?;
        ensure_topic(bus, REPLY_TOPIC)?;
        let found = ensure_topic(bus, &topic)?;
        let name = worker_subscription(&topic);
        let config = SubscriptionConfig::new().ack_deadline(LEASE);
        let invocations = match at_once(found.subscribe(&name, config)) {
            Err(AdminError::AlreadyExists { .. }) => at_once(bus.subscription(&name))?,
            made => made?,
        };
        let cancel = ensure_topic(bus, CANCEL_TOPIC)?;
        let name = format!("{topic}.cancel");
        let config = SubscriptionConfig::new().filter(Filter::eq("topic", &topic));
        let cancellations = match at_once(cancel.subscribe(&name, config)) {
            Err(AdminError::AlreadyExists { .. }) => at_once(bus.subscription(&name))?,
            made => made?,
        };
        Ok(Self { bus: bus.clone(), invocations, cancellations, max_delivery: MAX_DELIVERY })
    }

    /// After how many deliveries without a reply a task fails with `FnF.WorkerLost`; default 10.
    #[must_use]
    pub fn max_delivery(mut self, deliveries: u32) -> Self {
        self.max_delivery = deliveries;
        self
    }

    /// Starts to work, on a task of its own for each invocation. Ends with its subscription or its
    /// runtime; until then it keeps the bus open.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn<F, R>(self, function: F)
    where
        F: Fn(Value, TaskContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value, TaskError>> + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        tokio::spawn(take_cancellations(self.cancellations, Arc::clone(&shared)));
        let function = Arc::new(function);
        let (bus, invocations, max_delivery) = (self.bus, self.invocations, self.max_delivery);
        let worker = async move {
            while let Ok(batch) = invocations.pull(AT_ONCE).await {
                for delivery in batch {
                    let job = Job { bus: bus.clone(), shared: Arc::clone(&shared), max_delivery };
                    let function = Arc::clone(&function);
                    tokio::spawn(async move {
                        job.work(delivery, |input, context| function(input, context)).await;
                    });
                }
            }
        };
        tokio::spawn(worker);
    }
}

/// What the invocations of a worker share.
#[derive(Default)]
struct Shared {
    running: Mutex<HashMap<String, watch::Sender<bool>>>,
    replies: Mutex<Replies>,
}

/// The last replies, so that a task that comes again gets the same (F-110).
#[derive(Default)]
struct Replies {
    by_task: HashMap<String, Result<Value, TaskError>>,
    order: VecDeque<(SystemTime, String)>,
}

impl Replies {
    fn get(&mut self, key: &str, now: SystemTime) -> Option<Result<Value, TaskError>> {
        self.forget(now);
        self.by_task.get(key).cloned()
    }

    fn keep(&mut self, key: String, reply: Result<Value, TaskError>, now: SystemTime) {
        if self.by_task.insert(key.clone(), reply).is_none() {
            self.order.push_back((now, key));
        }
        self.forget(now);
    }

    fn forget(&mut self, now: SystemTime) {
        while let Some((at, key)) = self.order.front() {
            let age = now.duration_since(*at).unwrap_or_default();
            if self.order.len() <= REPLIES_KEPT && age < REPLIES_FOR {
                return;
            }
            self.by_task.remove(key);
            self.order.pop_front();
        }
    }
}

struct Job {
    bus: Bus,
    shared: Arc<Shared>,
    max_delivery: u32,
}

impl Job {
    async fn work<R>(&self, delivery: Delivery, function: impl FnOnce(Value, TaskContext) -> R)
    where
        R: Future<Output = Result<Value, TaskError>> + Send + 'static,
    {
        let invocation = delivery.message().clone();
        let key = key_of(&invocation);
        let known = lock(&self.shared.replies).get(&key, self.bus.now());
        let result = match known {
            Some(result) => Some(result),
            None if delivery.attempt() > self.max_delivery => {
                let cause = format!("{} deliveries without a reply", self.max_delivery);
                Some(Err(TaskError::new(WORKER_LOST, cause)))
            }
            None => {
                // The same task may be running here already: its lease has lapsed, not its work.
                let Some(cancelled) = self.begin(&key) else { return };
                self.publish(reply(&invocation, "started", Message::new("")));
                let result = self.run(&delivery, &invocation, cancelled, function).await;
                lock(&self.shared.running).remove(&key);
                result
            }
        };
        if let Some(result) = result {
            lock(&self.shared.replies).keep(key, result.clone(), self.bus.now());
            self.publish(match result {
                Ok(output) => reply(&invocation, "ok", Message::new(output.to_string())),
                Err(TaskError { error, cause }) => {
                    let error: String = error.chars().take(ERROR_CHARS).collect();
                    reply(&invocation, "error", Message::new(cause)).with_attribute("error", error)
                }
            });
        }
        // The reply is out: a second one would be ignored, so the ack may get lost.
        drop(delivery.ack());
    }

    fn begin(&self, key: &str) -> Option<watch::Receiver<bool>> {
        let mut running = lock(&self.shared.running);
        if running.contains_key(key) {
            return None;
        }
        let (sender, receiver) = watch::channel(false);
        running.insert(key.to_owned(), sender);
        Some(receiver)
    }

    /// Runs the function while the lease is kept; `None` if it was cancelled.
    async fn run<R>(
        &self,
        delivery: &Delivery,
        invocation: &Message,
        mut cancelled: watch::Receiver<bool>,
        function: impl FnOnce(Value, TaskContext) -> R,
    ) -> Option<Result<Value, TaskError>>
    where
        R: Future<Output = Result<Value, TaskError>> + Send + 'static,
    {
        let input = match serde_json::from_slice(invocation.data()) {
            Ok(input) => input,
            Err(error) => {
                return Some(Err(TaskError::new("FC.InvalidArgument", error.to_string())));
            }
        };
        let context = TaskContext {
            bus: self.bus.clone(),
            invocation: invocation.clone(),
            cancelled: cancelled.clone(),
        };
        let started = std::panic::catch_unwind(AssertUnwindSafe(|| function(input, context)));
        let Ok(running) = started else { return Some(Err(panicked())) };
        let mut running = tokio::spawn(running);
        loop {
            tokio::select! {
                ended = &mut running => {
                    return Some(ended.unwrap_or_else(|_| Err(panicked())));
                }
                _ = cancelled.wait_for(|cancelled| *cancelled) => {
                    // The function may listen and tidy up; nobody waits for it.
                    return None;
                }
                () = self.bus.sleep(LEASE / 3) => {
                    // A lease that is gone already is somebody else's; the reply still counts once.
                    drop(delivery.set_deadline(LEASE));
                    self.publish(reply(invocation, "heartbeat", Message::new("")));
                }
            }
        }
    }

    fn publish(&self, message: Message) {
        if let Ok(topic) = at_once(self.bus.topic(REPLY_TOPIC)) {
            // A bus that takes no replies is closed; the task comes again to whoever is there then.
            let _ = topic.try_publish(message);
        }
    }
}

async fn take_cancellations(cancellations: Subscription, shared: Arc<Shared>) {
    while let Ok(batch) = cancellations.pull(AT_ONCE).await {
        for delivery in &batch {
            let running = lock(&shared.running);
            if let Some(cancel) = running.get(&key_of(delivery.message())) {
                // Whoever listened may have gone.
                let _ = cancel.send(true);
            }
        }
        batch.ack_all();
    }
}

/// Task ids are unique within a flow of an engine.
fn key_of(message: &Message) -> String {
    ["engine_id", "flow", "task_id"]
        .map(|key| message.attribute(key).unwrap_or_default())
        .join("\n")
}

fn panicked() -> TaskError {
    TaskError::new(FUNCTION_UNKNOWN, "the function panicked")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a worker may be silent before its invocation goes to another.
const LEASE: Duration = Duration::from_secs(10);
pub(crate) const MAX_DELIVERY: u32 = 10;
const AT_ONCE: usize = 64;
const REPLIES_KEPT: usize = 1_024;
const REPLIES_FOR: Duration = Duration::from_secs(600);
pub(crate) const ERROR_CHARS: usize = 128;
