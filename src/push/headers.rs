//! The headers of a push request (PUSH-8, PUSH-10 … PUSH-12), without those that the client adds.

use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, FROM, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};

use super::envelope::publish_time;
use crate::received::Received;

const AGENT: HeaderValue = HeaderValue::from_static("CloudPubSub-Google");
const SENDER: HeaderValue = HeaderValue::from_static("noreply@google.com");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Headers of most requests, those that the client adds included.
const USUAL: usize = 6;

/// What a message has about it that becomes headers, if metadata are written.
pub(super) struct Metadata<'a> {
    pub(super) subscription: &'a str,
    pub(super) received: &'a Received,
    /// Where there is a dead-letter policy.
    pub(super) attempt: Option<u32>,
}

/// Those of a wrapped message.
pub(super) fn wrapped() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(USUAL);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(FROM, SENDER);
    headers.insert(CONTENT_TYPE, JSON);
    headers
}

/// Those of an unwrapped message.
pub(super) fn unwrapped(metadata: Option<Metadata<'_>>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(USUAL);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(CONTENT_TYPE, BINARY);
    if let Some(metadata) = metadata {
        metadata.add_to(&mut headers);
    }
    headers
}

impl Metadata<'_> {
    fn add_to(&self, headers: &mut HeaderMap) {
        for (key, value) in self.received.attributes().iter() {
            if let Some((name, value)) = attribute(key, value) {
                headers.insert(name, value);
            }
        }
        let mut add = |name, value: &str| {
            if let Some(value) = sendable(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        add("x-goog-pubsub-subscription-name", self.subscription);
        add("x-goog-pubsub-message-id", &self.received.id().as_u64().to_string());
        add("x-goog-pubsub-publish-time", &publish_time(self.received));
        let key = self.received.message().ordering_key();
        if !key.is_empty() {
            add("x-goog-pubsub-ordering-key", key);
        }
        if let Some(attempt) = self.attempt {
            add("x-goog-pubsub-delivery-attempt", &attempt.to_string());
        }
    }
}

/// The header that an attribute becomes, if it may be one (PUSH-12).
fn attribute(key: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
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
