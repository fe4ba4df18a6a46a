//! The body of a wrapped push: a message as JSON (PUSH-6, PUSH-7).
//!
//! Written straight into the bytes that are sent, since a tree of values in between costs more than
//! everything else that the bus does for a push. What is sent unwrapped, and headers, are not here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::received::Received;
use crate::time::Time;

/// What is the same in the bodies of all messages of a subscription.
#[derive(Debug)]
pub(super) struct Envelope {
    /// From the end of the message on.
    end: Vec<u8>,
}

impl Envelope {
    pub(super) fn new(subscription: &str) -> Self {
        let mut end = b"},\"subscription\":".to_vec();
        put_text(&mut end, subscription);
        end.push(b'}');
        Self { end }
    }

    /// The body; `attempt` is told where there is a dead-letter policy.
    pub(super) fn wrap(&self, received: &Received, attempt: Option<u32>) -> Bytes {
        let (id, time) = (received.id().as_u64().to_string(), publish_time(received));
        let mut body = Vec::with_capacity(self.expected_len(received));
        body.push(b'{');
        if let Some(attempt) = attempt {
            put(&mut body, &["\"deliveryAttempt\":", &attempt.to_string(), ","]);
        }
        put(&mut body, &["\"message\":{"]);
        put_attributes(&mut body, received);
        put(&mut body, &["\"data\":\""]);
        put_base64(&mut body, received.data());
        put(&mut body, &["\",\"messageId\":\"", &id, "\",\"message_id\":\"", &id, "\","]);
        let key = received.message().ordering_key();
        if !key.is_empty() {
            put(&mut body, &["\"orderingKey\":"]);
            put_text(&mut body, key);
            body.push(b',');
        }
        put(&mut body, &["\"publishTime\":\"", &time, "\",\"publish_time\":\"", &time, "\""]);
        body.extend_from_slice(&self.end);
        body.into()
    }

    /// Enough, unless texts have to be escaped.
    fn expected_len(&self, received: &Received) -> usize {
        /// Names and punctuation, two ids, two times, the attempt.
        const FIXED: usize = 256;
        /// Quotes, colon and comma.
        const PER_ATTRIBUTE: usize = 6;
        let attributes = received.attributes();
        let texts = attributes.size() + received.message().ordering_key().len();
        let data = received.data().len().div_ceil(3) * 4;
        FIXED + self.end.len() + texts + attributes.len() * PER_ATTRIBUTE + data
    }
}

/// In UTC and always with milliseconds (PUSH-7).
pub(super) fn publish_time(received: &Received) -> String {
    Time::from_system(received.publish_time()).to_rfc3339_millis()
}

/// The attributes and what separates them from the next field; nothing if there are none.
fn put_attributes(body: &mut Vec<u8>, received: &Received) {
    let mut before = "\"attributes\":{";
    for (key, value) in received.attributes().iter() {
        put(body, &[before]);
        put_text(body, key);
        body.push(b':');
        put_text(body, value);
        before = ",";
    }
    if !received.attributes().is_empty() {
        put(body, &["},"]);
    }
}

fn put(body: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        body.extend_from_slice(part.as_bytes());
    }
}

/// With padding, by the alphabet that has `+` and `/`.
fn put_base64(body: &mut Vec<u8>, data: &[u8]) {
    let start = body.len();
    body.resize(start + data.len().div_ceil(3) * 4, 0);
    let room = body.get_mut(start..).unwrap_or_default();
    STANDARD.encode_slice(data, room).expect("the room is that of base64 with padding");
}

/// As a JSON string, quotes included.
fn put_text(body: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(body, text).expect("a text can be written to memory");
}
