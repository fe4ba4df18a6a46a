//! Push over HTTP: a message becomes a request, the status code of the answer its fate.
//!
//! Redirects are not followed. Time, windows and pauses are those of every push.

use std::fmt;
use std::future::pending;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value, json};

use super::PushEndpoint;
use crate::bus::Sleep;
use crate::error::EndpointError;
use crate::received::{Failure, Received};
use crate::runner::{Either, either};
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::time::Time;

/// Bytes of an answer's body that are read so that its connection can be used again; after a
/// longer one the connection is closed.
pub const MAX_PUSH_ANSWER: usize = 64 * 1024;

const AGENT: &str = "CloudPubSub-Google";
const PREFIX: &str = "x-goog-pubsub-";

type Authorize = dyn Fn() -> Result<HeaderValue, Failure> + Send + Sync;

/// A push endpoint that is reached by HTTP/1.1, with TLS if its address begins with `https`.
///
/// Every message is one `POST`; 102, 200, 201, 202 and 204 acknowledge it and nothing else does
/// (PUSH-16, PUSH-17). Connections are used again. Needs the feature `http`.
///
/// ```no_run
/// # async fn run(billing: siftbus::Subscription) -> Result<(), Box<dyn std::error::Error>> {
/// use siftbus::HttpEndpoint;
///
/// let endpoint = HttpEndpoint::new(&billing, "https://billing.example/push?key=1")?;
/// let push = billing.push_to(endpoint)?;
/// # drop(push);
/// # Ok(())
/// # }
/// ```
pub struct HttpEndpoint {
    subscription: Subscription,
    uri: Uri,
    envelope: Envelope,
    authorize: Option<Box<Authorize>>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

#[derive(Copy, Clone, Debug)]
enum Envelope {
    Wrapped,
    Raw { with_metadata: bool },
}

impl HttpEndpoint {
    /// An endpoint for messages of `subscription`, wrapped in JSON (PUSH-6).
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if `url` is no http or https URL with a host (PUSH-2).
    pub fn new(subscription: &Subscription, url: &str) -> Result<Self, EndpointError> {
        let refused = || EndpointError { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_http || uri.host().is_none_or(str::is_empty) {
            return Err(refused());
        }
        let provider = rustls::crypto::ring::default_provider();
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)
            .expect("the provider has the protocol's default versions")
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let (subscription, envelope) = (subscription.clone(), Envelope::Wrapped);
        Ok(Self { subscription, uri, envelope, authorize: None, client })
    }

    /// Sends the payload alone as the body (PUSH-9); `with_metadata` adds attributes and what is
    /// known of the message as headers (PUSH-11). Attributes that cannot be or must not be headers
    /// are left out (PUSH-12).
    #[must_use]
    pub fn unwrapped(mut self, with_metadata: bool) -> Self {
        self.envelope = Envelope::Raw { with_metadata };
        self
    }

    /// Asks before every push for the value of its `Authorization` header.
    ///
    /// If there is none to be had, the push fails and the message stays.
    #[must_use]
    pub fn authorize(
        mut self,
        header: impl Fn() -> Result<HeaderValue, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.authorize = Some(Box::new(header));
        self
    }

    fn request(&self, received: &Received) -> Result<Request<Full<Bytes>>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let body = match self.envelope {
            Envelope::Wrapped => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Bytes::from(self.wrap(received).to_string())
            }
            Envelope::Raw { with_metadata } => {
                let binary = HeaderValue::from_static("application/octet-stream");
                headers.insert(CONTENT_TYPE, binary);
                if with_metadata {
                    self.add_metadata(received, &mut headers);
                }
                received.data().clone()
            }
        };
        if let Some(authorize) = &self.authorize {
            headers.insert(AUTHORIZATION, authorize()?);
        }
        let mut request = Request::post(self.uri.clone()).body(Full::new(body))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn wrap(&self, received: &Received) -> Value {
        let (id, time) = (received.id().as_u64().to_string(), publish_time(received));
        let mut message = Map::new();
        message.insert("data".into(), STANDARD.encode(received.data()).into());
        if !received.attributes().is_empty() {
            let attributes = received.attributes().iter();
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value.into()));
            message.insert("attributes".into(), Value::Object(attributes.collect()));
        }
        for (name, value) in [("messageId", &id), ("message_id", &id)] {
            message.insert(name.into(), value.as_str().into());
        }
        for name in ["publishTime", "publish_time"] {
            message.insert(name.into(), time.as_str().into());
        }
        let key = received.message().ordering_key();
        if !key.is_empty() {
            message.insert("orderingKey".into(), key.into());
        }
        let mut body = json!({ "message": message, "subscription": self.subscription.name() });
        if let (true, Some(body)) =
            (self.subscription.has_dead_letter_policy(), body.as_object_mut())
        {
            body.insert("deliveryAttempt".into(), received.attempt().into());
        }
        body
    }

    fn add_metadata(&self, received: &Received, headers: &mut HeaderMap) {
        for (key, value) in received.attributes().iter() {
            if let Some((name, value)) = header(key, value) {
                headers.insert(name, value);
            }
        }
        let attempt = self.subscription.has_dead_letter_policy().then(|| received.attempt());
        let key = received.message().ordering_key();
        let metadata = [
            ("subscription-name", Some(self.subscription.name().to_string())),
            ("message-id", Some(received.id().as_u64().to_string())),
            ("publish-time", Some(publish_time(received))),
            ("ordering-key", (!key.is_empty()).then(|| key.to_owned())),
            ("delivery-attempt", attempt.map(|attempt| attempt.to_string())),
        ];
        for (name, value) in metadata {
            let name = HeaderName::try_from(format!("{PREFIX}{name}"));
            let value = value.and_then(|value| sendable(&value));
            if let (Ok(name), Some(value)) = (name, value) {
                headers.insert(name, value);
            }
        }
    }

    /// Waits for the answer's head, which is kept in `status`, and reads its body so that the
    /// connection can be used again.
    async fn send(&self, request: Request<Full<Bytes>>, status: &AtomicU64) -> Option<String> {
        match self.client.request(request).await {
            Ok(answer) => {
                status.store(answer.status().as_u16().into(), Ordering::SeqCst);
                read(answer).await;
                None
            }
            Err(error) => Some(causes(&error)),
        }
    }
}

impl PushEndpoint for HttpEndpoint {
    async fn push(&self, received: Received) -> Result<(), Failure> {
        let mut request = self.request(&received)?;
        let status = Arc::new(AtomicU64::new(0));
        let interim = Arc::clone(&status);
        // An interim answer counts when nothing else follows (PUSH-17).
        hyper::ext::on_informational(&mut request, move |answer| {
            interim.store(answer.status().as_u16().into(), Ordering::SeqCst);
        });
        let shared = self.subscription.shared();
        let time_over = Sleep::new(&shared.core, shared.ack_deadline().to_duration());
        let error = match either(self.send(request, &status), time_over).await {
            Either::First(error) => error,
            Either::Second(()) => None,
        };
        match (status.load(Ordering::SeqCst), error) {
            (102 | 200 | 201 | 202 | 204, _) => Ok(()),
            (0, Some(error)) => Err(Failure::retry(error)),
            // The runner counts what has run out of time.
            (0, None) => pending().await,
            (status, _) => Err(Failure::retry(format!("answered with status {status}"))),
        }
    }
}

impl fmt::Debug for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEndpoint")
            .field("uri", &self.uri)
            .field("envelope", &self.envelope)
            .finish_non_exhaustive()
    }
}

async fn read(answer: Response<Incoming>) {
    let (mut body, mut bytes) = (answer.into_body(), 0_usize);
    while let Some(Ok(frame)) = body.frame().await {
        bytes = bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if bytes > MAX_PUSH_ANSWER {
            return;
        }
    }
}

fn publish_time(received: &Received) -> String {
    Time::from_system(received.publish_time()).to_rfc3339()
}

/// The header that an attribute becomes, if it may be one (PUSH-12).
fn header(key: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(key.as_bytes()).ok()?;
    let taken =
        ["host", "content-length", "transfer-encoding", "connection", AUTHORIZATION.as_str()];
    if taken.contains(&name.as_str()) || name.as_str().starts_with("x-goog-") {
        return None;
    }
    Some((name, sendable(value)?))
}

fn sendable(value: &str) -> Option<HeaderValue> {
    let is_plain = value.chars().all(|c| matches!(c, ' '..='~'));
    is_plain.then(|| HeaderValue::from_str(value).ok())?
}

/// An error with what has led to it, since the client's own text names only the stage.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
