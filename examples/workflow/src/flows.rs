//! The engine for asynchronous programs: a handle, and the task that drives it.
//!
//! The task waits for three things: calls, replies on the bus, and what is due. Whatever is
//! ready at
//! one moment goes into one commit (F-125). With a durable store the commit runs where blocking is
//! allowed, so that a slow disk holds up nobody else.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use siftbus::Bus;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::engine::{
    Answer, Description, Engine, EngineOptions, EngineStats, Event, FlowError, OpenError, Report,
    StartExecution, Started, Status,
};
use crate::language::DefinitionError;
use crate::store::Store;
use crate::worker::{TaskContext, TaskError, Worker, WorkerError};

/// Runs flows on a bus.
///
/// Cheap to clone: clones are the same engine. It works while one of them lives; what is in its
/// store goes on when the store is opened again.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use serde_json::json;
/// use workflow::engine::{EngineOptions, StartExecution};
/// use workflow::flows::Flows;
/// use workflow::store::MemoryStore;
///
/// let bus = siftbus::Bus::new();
/// let flows = Flows::open(&bus, Arc::new(MemoryStore::new()), EngineOptions::default())?;
/// flows.register("acs:fc:::services/demo/functions/double", |input, _| async move {
///     let n = input["n"].as_i64().ok_or(("BadInput", "n is no number"))?;
///     Ok(json!({"n": 2 * n}))
/// })?;
/// let definition = "
/// version: v1
/// type: flow
/// steps:
///   - type: task
///     name: double
///     resourceArn: acs:fc:::services/demo/functions/double
/// ";
/// flows.create_flow("demo", definition).await?;
/// let start = StartExecution::new("demo", json!({"n": 21})).named("exec-1");
/// flows.start_execution(start).await?;
/// let ended = flows.wait("demo", "exec-1", Duration::from_secs(5)).await?;
/// assert_eq!(ended.output, Some(json!({"n": 42})));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Flows {
    bus: Bus,
    calls: mpsc::Sender<Call>,
    _driver: Arc<Driver>,
}

/// Stops the driver when the last handle goes.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A call, made on the engine by its driver. It stages what it changes; its answer is given once
/// that is committed.
type Call = Box<dyn FnOnce(&mut Engine) -> Answered + Send>;
/// Gives the answer: the argument says whether the commit failed.
type Answered = Box<dyn FnOnce(Result<(), FlowError>) + Send>;

impl Flows {
    /// Opens a store and starts to work. Workers that are to be there when what ran before goes on
    /// are registered right after, before the first `.await`, on a runtime of one thread; otherwise
    /// start them before.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn open(
        bus: &Bus,
        store: Arc<dyn Store>,
        options: EngineOptions,
    ) -> Result<Self, OpenError> {
        let durable = store.is_durable();
        let engine = Engine::open(bus, store, options)?;
        let (calls, taken) = mpsc::channel(CALLS);
        let driver = tokio::spawn(drive(engine, taken, durable));
        Ok(Self { bus: bus.clone(), calls, _driver: Arc::new(Driver(driver)) })
    }

    /// Serves a resource in this process (F-114): makes its topic and subscription, and a worker
    /// that runs `function` for each invocation. The worker ends with its subscription or runtime.
    ///
    /// # Errors
    ///
    /// [`WorkerError`].
    pub fn register<F, R>(&self, resource: &str, function: F) -> Result<(), WorkerError>
    where
        F: Fn(Value, TaskContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value, TaskError>> + Send + 'static,
    {
        Worker::new(&self.bus, resource)?.spawn(function);
        Ok(())
    }

    /// [`Engine::create_flow`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the flow may have been created.
    pub async fn create_flow(
        &self,
        name: &str,
        definition: &str,
    ) -> Result<Vec<DefinitionError>, FlowError> {
        let (name, definition) = (name.to_owned(), definition.to_owned());
        self.call(move |engine| engine.create_flow(&name, &definition)).await
    }

    /// [`Engine::update_flow`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the flow may have been changed.
    pub async fn update_flow(
        &self,
        name: &str,
        definition: &str,
    ) -> Result<Vec<DefinitionError>, FlowError> {
        let (name, definition) = (name.to_owned(), definition.to_owned());
        self.call(move |engine| engine.update_flow(&name, &definition)).await
    }

    /// [`Engine::start_execution`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the execution may have started: starting it again under the same name is safe.
    pub async fn start_execution(&self, start: StartExecution) -> Result<Started, FlowError> {
        self.call(move |engine| engine.stage_start(start, None)).await
    }

    /// [`Engine::stop_execution`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the execution may have been stopped.
    pub async fn stop_execution(
        &self,
        flow: &str,
        name: &str,
        error: &str,
        cause: &str,
    ) -> Result<(), FlowError> {
        let [flow, name, error, cause] = [flow, name, error, cause].map(str::to_owned);
        self.call(move |engine| engine.stage_stop(&flow, &name, &error, &cause)).await
    }

    /// [`Engine::report`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the report may have been taken: reporting the same again is safe.
    pub async fn report(&self, token: &str, report: Report) -> Result<Answer, FlowError> {
        let token = token.to_owned();
        self.call(move |engine| engine.stage_report(&token, report)).await
    }

    /// [`Engine::report_heartbeat`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the heartbeat may have been taken.
    pub async fn report_heartbeat(&self, token: &str) -> Result<(), FlowError> {
        let token = token.to_owned();
        self.call(move |engine| engine.stage_heartbeat(&token)).await
    }

    /// [`Engine::describe_execution`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn describe_execution(
        &self,
        flow: &str,
        name: &str,
    ) -> Result<Description, FlowError> {
        let (flow, name) = (flow.to_owned(), name.to_owned());
        self.call(move |engine| engine.describe_execution(&flow, &name)).await
    }

    /// [`Engine::history`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn history(
        &self,
        flow: &str,
        name: &str,
        after: u32,
        limit: usize,
    ) -> Result<Vec<Event>, FlowError> {
        let (flow, name) = (flow.to_owned(), name.to_owned());
        self.call(move |engine| engine.history(&flow, &name, after, limit)).await
    }

    /// What the engine has counted.
    ///
    /// # Errors
    ///
    /// [`FlowError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn stats(&self) -> Result<EngineStats, FlowError> {
        self.call(|engine| Ok(engine.stats())).await
    }

    /// Waits for the end of an execution, for at most `timeout` of the bus's time; answers it as it
    /// is then.
    ///
    /// # Errors
    ///
    /// As [`describe_execution`](Self::describe_execution).
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub async fn wait(
        &self,
        flow: &str,
        name: &str,
        timeout: Duration,
    ) -> Result<Description, FlowError> {
        let (told, end) = oneshot::channel();
        let (of, called) = (flow.to_owned(), name.to_owned());
        let running = self
            .call(move |engine| {
                let status = engine.describe_execution(&of, &called)?.status;
                let running = matches!(status, Status::Starting | Status::Running);
                if running {
                    engine.tell_end(&of, &called, told);
                }
                Ok(running)
            })
            .await?;
        if running {
            // Either way the answer is what the execution is by now.
            let _ = self.bus.timeout(timeout, end).await;
        }
        self.describe_execution(flow, name).await
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Engine) -> Result<T, FlowError> + Send + 'static,
    ) -> Result<T, FlowError> {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |engine| {
            let result = call(engine);
            Box::new(move |committed| {
                // Who has gone away needs no answer.
                let _ = answer.send(committed.and(result));
            })
        });
        self.calls.send(call).await.map_err(|_| FlowError::Closed)?;
        answered.await.map_err(|_| FlowError::Closed)?
    }
}

async fn drive(mut engine: Engine, mut calls: mpsc::Receiver<Call>, durable: bool) {
    let mut taken = Vec::new();
    loop {
        engine = match turn(engine, std::mem::take(&mut taken), durable).await {
            Some(engine) => engine,
            None => return,
        };
        let now = engine.bus().now();
        let due =
            engine.next_due().map(|due| due.to_system().duration_since(now).unwrap_or_default());
        let bus = engine.bus().clone();
        let replies = engine.replies().clone();
        let sleep = async {
            match due {
                Some(due) => bus.sleep(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = calls.recv_many(&mut taken, CALLS) => if count == 0 {
                return;
            },
            // The turn takes them again: what is dropped here is released at once.
            arrived = replies.pull(1) => if arrived.is_err() {
                return;
            },
            () = sleep => {}
        }
    }
}

/// Makes the calls and does what is possible; the engine comes back unless it cannot.
async fn turn(mut engine: Engine, calls: Vec<Call>, durable: bool) -> Option<Engine> {
    let work = move || {
        let answers: Vec<Answered> = calls.into_iter().map(|call| call(&mut engine)).collect();
        let committed = engine.commit();
        for answer in answers {
            answer(committed.clone());
        }
        // A store that failed answers every later call; there is nothing else to do then.
        let _ = engine.turn();
        let _ = engine.sweep_in_time();
        engine
    };
    match durable {
        false => Some(work()),
        true => tokio::task::spawn_blocking(work).await.ok(),
    }
}

/// Calls that wait for the driver.
const CALLS: usize = 256;
