//! Workers behind HTTP: invocations are pushed to an address, the answer is the reply (F-115).
//!
//! The request is that of every push: the invocation wrapped in JSON, with its attributes. An
//! answer of any kind settles the task; without one the bus pushes again. A worker may therefore
//! see an invocation twice, and knows it by its `task_id`.

use std::time::Duration;

use serde_json::Value;
use siftbus::{
    AdminError, Bus, Failure, HttpClient, HttpEndpoint, Message, Push, PushAnswer, PushEndpoint,
    Received, SubscriptionConfig,
};

use crate::cases::reply_to as reply;
use crate::engine::{
    FUNCTION_UNKNOWN, REPLY_TOPIC, WORKER_LOST, ensure_topic, task_topic, worker_subscription,
};
use crate::language::Resource;
use crate::poll::at_once;
use crate::worker::{MAX_DELIVERY, TaskError, WorkerError};

/// How long a worker behind HTTP may take by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// How a worker behind HTTP is reached.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    timeout: Duration,
    authorization: Option<String>,
    client: HttpClient,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { timeout: DEFAULT_TIMEOUT, authorization: None, client: HttpClient::new() }
    }
}

impl HttpOptions {
    /// A minute for an answer, and no authorization.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the worker may take before the invocation is pushed again: the ack deadline of the
    /// subscription, which is made with it if it is new. Default: [`DEFAULT_TIMEOUT`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The value of the header `Authorization`, such as `Bearer …`.
    #[must_use]
    pub fn authorization(mut self, header: impl Into<String>) -> Self {
        self.authorization = Some(header.into());
        self
    }

    /// A client with certificates of one's own, or with connections to share.
    #[must_use]
    pub fn client(mut self, client: &HttpClient) -> Self {
        self.client = client.clone();
        self
    }
}

/// Serves a resource by pushing its invocations to `url`, until the push is dropped.
///
/// An answer of 2xx is the result of the task, its body the output, `{}` if it is empty. Any other
/// is an error: `FC.{errorCode}` with the cause `errorMessage` if the body is an object with these;
/// otherwise `FC.ResourceThrottled` for 429, `FC.InternalServerError` for 5xx, and `FC.Unknown`.
/// Without an answer the invocation is pushed again after a pause; after ten times the task has
/// failed with `FnF.WorkerLost`.
///
/// # Errors
///
/// [`WorkerError`].
pub fn serve_http(
    bus: &Bus,
    resource: &str,
    url: &str,
    options: HttpOptions,
) -> Result<Push, WorkerError> {
    let topic = Resource::parse(resource).and_then(|resource| task_topic(&resource.target));
    let topic = topic.ok_or_else(|| WorkerError::Resource(resource.to_owned()))?;
    ensure_topic(bus, REPLY_TOPIC)?;
    let found = ensure_topic(bus, &topic)?;
    let name = worker_subscription(&topic);
    let config = SubscriptionConfig::new().ack_deadline(options.timeout);
    let invocations = match at_once(found.subscribe(&name, config)) {
        Err(AdminError::AlreadyExists { .. }) => at_once(bus.subscription(&name))?,
        made => made?,
    };
    let mut endpoint = HttpEndpoint::with_client(&invocations, url, &options.client)?;
    if let Some(header) = options.authorization {
        endpoint = endpoint.authorize(move || Ok(header.clone()));
    }
    let replies = bus.clone();
    let endpoint = endpoint.judge(move |received, answer| settle(&replies, received, answer));
    Ok(invocations.push_to(Worker { endpoint, bus: bus.clone() })?)
}

struct Worker {
    endpoint: HttpEndpoint,
    bus: Bus,
}

impl PushEndpoint for Worker {
    async fn push(&self, received: Received) -> Result<(), Failure> {
        let invocation = received.message();
        if received.attempt() > MAX_DELIVERY {
            let cause = format!("{MAX_DELIVERY} deliveries without a reply");
            return publish(&self.bus, failed(invocation, TaskError::new(WORKER_LOST, cause)));
        }
        publish(&self.bus, reply(invocation, "started", Message::new("")))?;
        self.endpoint.push(received).await
    }
}

fn settle(bus: &Bus, received: &Received, answer: &PushAnswer) -> Result<(), Failure> {
    let invocation = received.message();
    publish(
        bus,
        match output(answer) {
            Ok(output) => reply(invocation, "ok", Message::new(output)),
            Err(error) => failed(invocation, error),
        },
    )
}

/// The text of the output; whether it is JSON is judged where all replies are.
fn output(answer: &PushAnswer) -> Result<String, TaskError> {
    let text = answer.body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned());
    let status = answer.status;
    if !(200..300).contains(&status) {
        return Err(error(status, text.as_deref().unwrap_or_default()));
    }
    match text {
        Some(text) if text.trim().is_empty() => Ok("{}".to_owned()),
        Some(text) => Ok(text),
        None => Err(TaskError::new(FUNCTION_UNKNOWN, "the answer is too long or breaks off")),
    }
}

fn error(status: u16, body: &str) -> TaskError {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |key: &str| body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let cause = match text("errorMessage") {
        Some(message) => message.to_owned(),
        None => format!("the worker answered with status {status}"),
    };
    let name = match (status, text("errorCode")) {
        (429, _) => "FC.ResourceThrottled".to_owned(),
        (_, Some(code)) => format!("FC.{code}"),
        (500.., None) => "FC.InternalServerError".to_owned(),
        (_, None) => FUNCTION_UNKNOWN.to_owned(),
    };
    TaskError::new(name, cause)
}

fn failed(invocation: &Message, TaskError { error, cause }: TaskError) -> Message {
    let error: String = error.chars().take(crate::worker::ERROR_CHARS).collect();
    reply(invocation, "error", Message::new(cause)).with_attribute("error", error)
}

fn publish(bus: &Bus, reply: Message) -> Result<(), Failure> {
    at_once(bus.topic(REPLY_TOPIC))?.try_publish(reply)?;
    Ok(())
}
