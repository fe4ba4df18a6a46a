//! The HTTP client of pushes: its connections, and whom it trusts.

use std::fmt;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::CertificateError;
use crate::sync::Arc;

/// Sends the requests of pushes. Clones, and endpoints that are given clones, share connections.
///
/// It trusts the certificate authorities that browsers do, which are built in, and those added by
/// [`trusting`](Self::trusting). Needs the feature `http`.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// Trusts the built-in certificate authorities.
    pub fn new() -> Self {
        Self::with_roots(built_in_roots())
    }

    /// Trusts the certificates in a PEM text, too: those of private authorities, or one that a
    /// receiver has signed itself.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if there is none in it, or one that is malformed.
    pub fn trusting(pem: &[u8]) -> Result<Self, CertificateError> {
        let mut roots = built_in_roots();
        let refused = |reason: &dyn fmt::Display| CertificateError { reason: reason.to_string() };
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| refused(&error))?;
            roots.add(certificate).map_err(|error| refused(&error))?;
            count += 1;
        }
        if count == 0 {
            return Err(refused(&"no certificate in the text"));
        }
        Ok(Self::with_roots(roots))
    }

    fn with_roots(roots: RootCertStore) -> Self {
        // Named, since a program may have two providers, and then none is the default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the protocol's default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        // A push is one small write, which must not wait for the answer to another.
        http.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Self { inner: Client::builder(TokioExecutor::new()).build(connector) }
    }

    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        self.inner.request(request).await
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

fn built_in_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}
