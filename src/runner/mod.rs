//! Runs work on every delivery of a subscription: tasks that take one message at a time.
//!
//! What handlers and push have in common. There are as many tasks as deliveries at once, and one
//! that waits; they are started when they are needed. What is done with a delivery is the `Work`'s
//! business, which settles it; how many and when is the gate's.

mod gate;
mod pace;
mod panics;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use self::gate::{Either, Gate, GateView, either};
pub(crate) use self::pace::{HandlerPace, MAX_BACKOFF, MIN_BACKOFF, Pace, PushPace, doubled};
pub(crate) use self::panics::catch_panics;
use crate::delivery::Delivery;
use crate::error::PullError;
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};

/// What is done with each delivery.
pub(crate) trait Work: Send + Sync + 'static {
    /// Whether it pushes: only its success keeps a subscription from expiring (EXP-3).
    const IS_PUSH: bool;

    /// Works on a delivery and settles it. Does not panic.
    fn work(&self, delivery: Delivery, gate: &Gate) -> impl Future<Output = ()> + Send;
}

/// Tasks that work on a subscription; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Runner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    subscription: Subscription,
    gate: Gate,
    tasks: Mutex<JoinSet<()>>,
    /// Tasks that were started; none ends before the runner does.
    started: AtomicUsize,
    max_tasks: usize,
    runtime: Handle,
    ended: watch::Sender<Option<PullError>>,
}

impl Runner {
    /// Starts with one task; there are never more than `max_tasks`.
    pub(crate) fn start(
        subscription: &Subscription,
        runtime: Handle,
        pace: Pace,
        max_tasks: usize,
        work: Arc<impl Work>,
    ) -> Self {
        let shared = Arc::new(Shared {
            subscription: subscription.clone(),
            gate: Gate::new(&subscription.shared().core, pace),
            tasks: Mutex::new(JoinSet::new()),
            started: AtomicUsize::new(0),
            max_tasks,
            runtime,
            ended: watch::Sender::new(None),
        });
        shared.add_task(&work);
        Self { shared }
    }

    pub(crate) fn gate(&self) -> GateView {
        self.shared.gate.view()
    }

    /// Takes no more, finishes what runs.
    pub(crate) async fn drain(&self) {
        let mut tasks = self.stop();
        while tasks.join_next().await.is_some() {}
    }

    /// Takes no more; what runs goes on.
    #[cfg(feature = "http")]
    pub(crate) fn stop_taking(&self) {
        self.shared.gate.stop();
    }

    fn stop(&self) -> JoinSet<()> {
        self.shared.gate.stop();
        std::mem::take(&mut *self.shared.tasks.lock())
    }

    /// Waits until no more messages can come, and says why.
    pub(crate) async fn ended(&self) -> PullError {
        let mut ended = self.shared.ended.subscribe();
        let error = ended.wait_for(Option::is_some).await;
        error.ok().and_then(|error| error.clone()).unwrap_or(PullError::Closed)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Dropping the set ends the tasks, and what they hold is released.
        drop(self.stop());
    }
}

impl Shared {
    /// Whether every task has a delivery, and there may be one more.
    fn is_another_needed(&self, running: usize) -> bool {
        let started = self.started.load(Ordering::SeqCst);
        running >= started && started < self.max_tasks
    }

    fn add_task(self: &Arc<Self>, work: &Arc<impl Work>) {
        let mut tasks = self.tasks.lock();
        if self.gate.is_stopping() || tasks.len() >= self.max_tasks {
            return;
        }
        self.started.fetch_add(1, Ordering::SeqCst);
        tasks.spawn_on(take_turns(Arc::clone(self), Arc::clone(work)), &self.runtime);
    }

    /// The next message; `None` if something else is to be done first.
    async fn take(&self, is_push: bool) -> Result<Option<Delivery>, PullError> {
        if let Some(delivery) = self.subscription.try_pull_one(is_push)? {
            return Ok(Some(delivery));
        }
        let interruption = self.gate.interruption();
        if self.gate.is_closed() {
            return Ok(None);
        }
        // A pause that has begun comes before a message that is there.
        match either(interruption, self.subscription.pull_one(is_push)).await {
            Either::First(()) => Ok(None),
            Either::Second(pulled) => pulled.map(Some),
        }
    }
}

async fn take_turns<W: Work>(shared: Arc<Shared>, work: Arc<W>) {
    // A permit is kept from one message to the next: the fewer locks, the less two threads meet.
    let mut held = None;
    while let Some(mut permit) = shared.gate.enter(held.take()).await {
        match shared.take(W::IS_PUSH).await {
            Ok(Some(delivery)) => {
                let running = permit.run();
                if shared.is_another_needed(running) {
                    shared.add_task(&work);
                }
                work.work(delivery, &shared.gate).await;
                permit.rest();
            }
            Ok(None) => {}
            Err(error) => {
                shared.ended.send_replace(Some(error));
                shared.gate.stop();
                return;
            }
        }
        held = Some(permit);
        // Work that never waits must not keep everything else on this thread from running.
        tokio::task::coop::consume_budget().await;
    }
}
