//! Where a subscription pushes, as a plain value (PUSH-1 … PUSH-4, PUSH-15).
//!
//! Here is the value and its check; who pushes is in `push/`. A bus stores such a value only while
//! a pusher is attached.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// Makes a subscription a push subscription: every message becomes an HTTP request (PUSH-1).
///
/// A `Pusher` (feature `http`) has to be attached to the bus. As data, in a
/// [`Topology`](crate::Topology), only the endpoint is needed.
///
/// ```
/// use siftbus::{OidcToken, PushConfig, SubscriptionConfig};
///
/// let push = PushConfig::new("https://billing.example/push?source=orders")
///     .no_wrapper(true)
///     .oidc_token(OidcToken::new("push@orders.example"));
/// let config = SubscriptionConfig::new().push_config(push);
/// # let _ = config;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PushConfig {
    /// An `http` or `https` URL (PUSH-2). A configuration without anything, this one included, is
    /// that of a pull subscription.
    pub push_endpoint: String,
    /// What the body of a request is.
    pub wrapper: PushWrapper,
    /// Whose token goes along (PUSH-13). Default: none does.
    pub oidc_token: Option<OidcToken>,
    /// `x-goog-version`: `v1` or `v1beta2`, which are the same. Filled in if it is not given
    /// (PUSH-3).
    pub attributes: BTreeMap<String, String>,
}

/// What the body of a push request is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PushWrapper {
    /// The message as JSON, with everything that is known of it (PUSH-6).
    #[default]
    PubsubWrapper,
    /// The payload alone (PUSH-9).
    NoWrapper {
        /// Whether attributes and what is known of the message become headers (PUSH-11). Those
        /// that cannot or must not be headers are left out (PUSH-12).
        write_metadata: bool,
    },
}

/// The identity with which a push comes: a signed token in its `Authorization` header (PUSH-13).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OidcToken {
    /// The e-mail of the service account in whose name is pushed (PUSH-15).
    pub service_account_email: String,
    /// Whom the token is for; empty: the endpoint's URL as it is configured.
    pub audience: String,
}

impl PushConfig {
    /// Pushes to this URL, wrapped, without a token.
    pub fn new(push_endpoint: impl Into<String>) -> Self {
        Self { push_endpoint: push_endpoint.into(), ..Self::default() }
    }

    /// Sends the payload alone; with `write_metadata` the rest goes along as headers.
    #[must_use]
    pub fn no_wrapper(mut self, write_metadata: bool) -> Self {
        self.wrapper = PushWrapper::NoWrapper { write_metadata };
        self
    }

    /// Sends a token along.
    #[must_use]
    pub fn oidc_token(mut self, token: OidcToken) -> Self {
        self.oidc_token = Some(token);
        self
    }

    /// Adds an attribute; there is only `x-goog-version` (PUSH-3).
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// Checks the value and fills in the version; `None` if it asks for nothing (PUSH-1).
    pub(crate) fn checked(mut self) -> Result<Option<Self>, ConfigError> {
        if self == Self::default() {
            return Ok(None);
        }
        if !is_http_url(&self.push_endpoint) {
            return Err(ConfigError::PushEndpoint { url: self.push_endpoint });
        }
        for (key, value) in &self.attributes {
            match (key.as_str(), value.as_str()) {
                (VERSION, "v1" | "v1beta2") => {}
                (VERSION, "v1beta1") => {
                    return Err(ConfigError::PushVersion { version: value.clone() });
                }
                _ => {
                    let (key, value) = (key.clone(), value.clone());
                    return Err(ConfigError::PushAttribute { key, value });
                }
            }
        }
        if self.oidc_token.as_ref().is_some_and(|token| token.service_account_email.is_empty()) {
            return Err(ConfigError::NoServiceAccount);
        }
        self.attributes.entry(VERSION.to_owned()).or_insert_with(|| "v1".to_owned());
        Ok(Some(self))
    }
}

impl OidcToken {
    /// A token of this service account, for the endpoint's URL.
    pub fn new(service_account_email: impl Into<String>) -> Self {
        Self { service_account_email: service_account_email.into(), audience: String::new() }
    }

    /// Sets whom the token is for.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = audience.into();
        self
    }
}

/// Whether something can be pushed to a text: `http` or `https`, a host, a port that is a number,
/// and nothing that a request line cannot have (PUSH-2).
pub(crate) fn is_http_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    is_http && has_host(authority) && url.bytes().all(|byte| byte.is_ascii_graphic()) && sends(url)
}

fn has_host(authority: &str) -> bool {
    let place = authority.rsplit('@').next().unwrap_or_default();
    // The colons of an IPv6 address stand in brackets.
    let after = place.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match place.get(after..).and_then(|rest| rest.find(':')) {
        Some(colon) => place.split_at(after + colon),
        None => (place, ""),
    };
    !host.is_empty() && (port.is_empty() || port.get(1..).is_some_and(|n| n.parse::<u16>().is_ok()))
}

/// Whether the client that pushes can read it, too.
#[cfg(feature = "http")]
fn sends(url: &str) -> bool {
    url.parse::<hyper::Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

#[cfg(not(feature = "http"))]
fn sends(_: &str) -> bool {
    true
}

const VERSION: &str = "x-goog-version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_with_a_host_are_endpoints() {
        for url in [
            "http://localhost",
            "http://127.0.0.1:8080/push?key=1&x=%20",
            "HTTPS://Billing.Example/",
            "https://[::1]:443/",
            "http://[::1]",
            "https://host?x=y",
        ] {
            assert!(is_http_url(url), "PUSH-2: {url}");
        }
        for url in [
            "",
            "nope",
            "ftp://host/",
            "/path",
            "host:80",
            "http:/host",
            "http://",
            "http:///path",
            "http://:80/",
            "http://host:port/",
            "http://host:70000/",
            "http://a b/",
            "http://h/a b",
            "http://h/\n",
            "http://h/\u{e4}",
            "mailto:a@b",
            "https://?x",
            "http://host:/",
        ] {
            assert!(!is_http_url(url), "PUSH-2: {url}");
        }
    }
}
