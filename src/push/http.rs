//! Push over HTTP: a message becomes a request, the status code of the answer its fate.
//!
//! Redirects are not followed. Time, windows and pauses are those of every push.

use std::fmt;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, Response, Uri};

use super::PushEndpoint;
#[cfg(feature = "oidc")]
use super::authorize::Account;
use super::authorize::Authorization;
use super::client::HttpClient;
use super::envelope::Envelope;
use super::headers::{self, Metadata};
use crate::bus::Sleep;
use crate::error::EndpointError;
#[cfg(feature = "oidc")]
use crate::identity::Issuer;
use crate::push_config::{PushConfig, PushWrapper, is_http_url};
use crate::received::{Failure, Received};
use crate::runner::{Either, either};
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicU64, Ordering};

/// Bytes of an answer's body that are read so that its connection can be used again. After a longer
/// one the connection is closed, unless all of it has come already.
pub const MAX_PUSH_ANSWER: usize = 64 * 1024;

/// Bytes of a request's body. A message that needs more is rejected: it goes to the dead letters,
/// or stays.
pub const MAX_PUSH_BODY: usize = 64 * 1024 * 1024;

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
    wrapper: PushWrapper,
    envelope: Envelope,
    authorization: Authorization,
    judge: Option<Box<Judge>>,
    client: HttpClient,
}

type Judge = dyn Fn(&Received, &PushAnswer) -> Result<(), Failure> + Send + Sync;

/// What an endpoint has answered, for [`HttpEndpoint::judge`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushAnswer {
    /// The status code.
    pub status: u16,
    /// The body; `None` if it has more than [`MAX_PUSH_ANSWER`] bytes or breaks off.
    pub body: Option<Bytes>,
}

impl HttpEndpoint {
    /// An endpoint for messages of `subscription`, wrapped in JSON (PUSH-6).
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if `url` is no http or https URL with a host (PUSH-2).
    pub fn new(subscription: &Subscription, url: &str) -> Result<Self, EndpointError> {
        Self::with_client(subscription, url, &HttpClient::new())
    }

    /// As [`new`](Self::new), with a client of one's own; its connections are shared with its
    /// other endpoints.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_client(
        subscription: &Subscription,
        url: &str,
        client: &HttpClient,
    ) -> Result<Self, EndpointError> {
        let uri = url.parse().ok().filter(|_| is_http_url(url));
        let uri = uri.ok_or_else(|| EndpointError { url: url.to_owned() })?;
        Ok(Self {
            subscription: subscription.clone(),
            uri,
            wrapper: PushWrapper::PubsubWrapper,
            envelope: Envelope::new(subscription.name()),
            authorization: Authorization::Nothing,
            judge: None,
            client: client.clone(),
        })
    }

    /// The endpoint that a configuration speaks of, without its token.
    pub(super) fn configured(
        subscription: &Subscription,
        config: &PushConfig,
        client: &HttpClient,
    ) -> Result<Self, EndpointError> {
        let endpoint = Self::with_client(subscription, &config.push_endpoint, client)?;
        Ok(Self { wrapper: config.wrapper, ..endpoint })
    }

    /// Sends the payload alone as the body (PUSH-9); `with_metadata` adds attributes and what is
    /// known of the message as headers (PUSH-11). Attributes that cannot be or must not be headers
    /// are left out (PUSH-12).
    #[must_use]
    pub fn unwrapped(mut self, with_metadata: bool) -> Self {
        self.wrapper = PushWrapper::NoWrapper { write_metadata: with_metadata };
        self
    }

    /// Asks before every push for the value of its `Authorization` header.
    ///
    /// If there is none to be had, or it cannot be sent, the push fails and the message stays.
    #[must_use]
    pub fn authorize(
        mut self,
        header: impl Fn() -> Result<String, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.authorization = Authorization::Said(Box::new(header));
        self
    }

    /// Decides what an answer means by its status and its body, instead of by its status alone:
    /// `Ok` acknowledges the message.
    ///
    /// Without an answer, or without the whole of it in time, nothing is asked and the message
    /// stays.
    ///
    /// ```no_run
    /// # async fn run(billing: siftbus::Subscription) -> Result<(), Box<dyn std::error::Error>> {
    /// use siftbus::{Failure, HttpEndpoint};
    ///
    /// let endpoint = HttpEndpoint::new(&billing, "https://billing.example/push")?;
    /// let endpoint = endpoint.judge(|_, answer| match answer.status {
    ///     200 | 409 => Ok(()),
    ///     status => Err(Failure::retry(format!("answered with status {status}"))),
    /// });
    /// # drop(billing.push_to(endpoint)?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn judge(
        mut self,
        judge: impl Fn(&Received, &PushAnswer) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        self.judge = Some(Box::new(judge));
        self
    }

    /// Sends a token of this service account along, for this audience, at the bus's time; a new
    /// one before it expires (PUSH-13, PUSH-14). Needs the feature `oidc`, too.
    #[cfg(feature = "oidc")]
    #[must_use]
    pub fn identify(
        mut self,
        issuer: &Arc<Issuer>,
        email: impl Into<String>,
        audience: impl Into<String>,
    ) -> Self {
        let issuer = Arc::clone(issuer);
        let (email, audience) = (email.into(), audience.into());
        self.authorization = Authorization::Token(Account { issuer, email, audience });
        self
    }

    async fn request(&self, received: &Received) -> Result<Request<Full<Bytes>>, Failure> {
        // What would be too long is not even built.
        check_body(received.data().len())?;
        let attempt = self.subscription.has_dead_letter_policy().then(|| received.attempt());
        let (mut headers, body) = match self.wrapper {
            PushWrapper::PubsubWrapper => {
                (headers::wrapped(), self.envelope.wrap(received, attempt))
            }
            PushWrapper::NoWrapper { write_metadata } => {
                let subscription = self.subscription.name();
                let metadata = Metadata { subscription, received, attempt };
                let headers = headers::unwrapped(write_metadata.then_some(metadata));
                (headers, received.data().clone())
            }
        };
        check_body(body.len())?;
        let core = &self.subscription.shared().core;
        if let Some(header) = self.authorization.header(core).await? {
            headers.insert(AUTHORIZATION, header);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Sends the request and waits for the answer's head, which is kept in `status`; reads its body
    /// so that the connection can be used again.
    async fn send(
        &self,
        received: &Received,
        status: &Arc<AtomicU64>,
    ) -> Result<Option<Bytes>, Failure> {
        let mut request = self.request(received).await?;
        let interim = Arc::clone(status);
        // An interim answer counts when nothing else follows (PUSH-17).
        hyper::ext::on_informational(&mut request, move |answer| {
            interim.store(answer.status().as_u16().into(), Ordering::SeqCst);
        });
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|error| Failure::retry(causes(&error)))?;
        status.store(answer.status().as_u16().into(), Ordering::SeqCst);
        Ok(read(answer, self.judge.is_some()).await)
    }
}

impl PushEndpoint for HttpEndpoint {
    const KEEPS_TIME: bool = true;

    async fn push(&self, received: Received) -> Result<(), Failure> {
        let status = Arc::<AtomicU64>::default();
        let shared = self.subscription.shared();
        let time_over = Sleep::new(&shared.core, shared.ack_deadline().to_duration());
        let answer = match either(self.send(&received, &status), time_over).await {
            Either::First(answer) => answer.map(Some),
            Either::Second(()) => Ok(None),
        };
        let found = status.load(Ordering::SeqCst) as u16;
        match (answer, &self.judge) {
            (Ok(Some(body)), Some(judge)) => judge(&received, &PushAnswer { status: found, body }),
            (Ok(None), Some(_)) => Err(Failure::no_answer()),
            (answer, _) => judged(found, answer.err()),
        }
    }
}

/// What a status code means (PUSH-17); zero is none.
fn judged(status: u16, error: Option<Failure>) -> Result<(), Failure> {
    match (status, error) {
        (102 | 200 | 201 | 202 | 204, _) => Ok(()),
        (0, error) => Err(error.unwrap_or_else(Failure::no_answer)),
        (status, _) => Err(Failure::retry(format!("answered with status {status}"))),
    }
}

impl fmt::Debug for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEndpoint")
            .field("uri", &self.uri)
            .field("wrapper", &self.wrapper)
            .finish_non_exhaustive()
    }
}

fn check_body(bytes: usize) -> Result<(), Failure> {
    if bytes <= MAX_PUSH_BODY {
        return Ok(());
    }
    Err(Failure::reject(format!("{bytes} bytes to be pushed; at most {MAX_PUSH_BODY} are allowed")))
}

/// Reads the body; it is kept only if somebody asks for it.
async fn read(answer: Response<Incoming>, is_kept: bool) -> Option<Bytes> {
    let (mut body, mut bytes, mut kept) = (answer.into_body(), 0_usize, Vec::new());
    if body.size_hint().lower() > MAX_PUSH_ANSWER as u64 {
        return None;
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.ok()?;
        let Some(data) = frame.data_ref() else { continue };
        bytes = bytes.saturating_add(data.len());
        if bytes > MAX_PUSH_ANSWER {
            return None;
        }
        if is_kept {
            kept.extend_from_slice(data);
        }
    }
    Some(kept.into())
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
