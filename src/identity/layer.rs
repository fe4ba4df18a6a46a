//! The verifier as a tower layer, for services of axum, hyper or tonic.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::verifier::{IdentityError, Verifier};
use crate::sync::Arc;

type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Lets requests through to a service only with the right token; answers others with 401 or 403.
///
/// The [`Identity`](super::Identity) of the caller is put into the extensions of the request.
#[derive(Clone)]
pub struct VerifierLayer {
    verifier: Arc<Verifier>,
    now: Now,
}

impl VerifierLayer {
    /// Checks with `verifier`, at the time that `now` says, such as `move || bus.now()`.
    pub fn new(verifier: Verifier, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { verifier: Arc::new(verifier), now: Arc::new(now) }
    }
}

impl fmt::Debug for VerifierLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierLayer").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for VerifierLayer {
    type Service = VerifierService<S>;

    fn layer(&self, inner: S) -> VerifierService<S> {
        VerifierService { inner, layer: self.clone() }
    }
}

/// A service behind a [`VerifierLayer`].
#[derive(Clone, Debug)]
pub struct VerifierService<S> {
    inner: S,
    layer: VerifierLayer,
}

impl<S, B, R> Service<Request<B>> for VerifierService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = VerifierFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = (self.layer.now)();
        match self.layer.verifier.verify_headers(request.headers(), now) {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                VerifierFuture::Passed { future: self.inner.call(request) }
            }
            Err(error) => VerifierFuture::Refused { error },
        }
    }
}

pin_project! {
    /// The answer of a [`VerifierService`].
    #[project = Projected]
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    #[allow(missing_docs, reason = "only the layer makes and looks at them")]
    pub enum VerifierFuture<F> {
        #[doc(hidden)]
        Passed { #[pin] future: F },
        #[doc(hidden)]
        Refused { error: IdentityError },
    }
}

impl<F, R, E> Future for VerifierFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Passed { future } => Poll::Ready(ready!(future.poll(cx))),
            Projected::Refused { error } => Poll::Ready(Ok(refusal(error))),
        }
    }
}

/// Says no more than RFC 6750 asks for: what is wrong with a token is not for strangers.
fn refusal<R: Default>(error: &IdentityError) -> Response<R> {
    let mut response = Response::new(R::default());
    let forbidden = error.status() == StatusCode::FORBIDDEN.as_u16();
    *response.status_mut() =
        if forbidden { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
    if !forbidden {
        let challenge = match error {
            IdentityError::Missing => "Bearer",
            _ => "Bearer error=\"invalid_token\"",
        };
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}
