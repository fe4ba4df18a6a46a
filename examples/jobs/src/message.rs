//! The message of a job: its id, its kind and the plain texts among its arguments (1.0).

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use siftbus::Message;
use smallvec::SmallVec;

use crate::document::Job;
use crate::limits::{MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTE_KEY_BYTES, MAX_ATTRIBUTES};

/// The attribute that names the job.
pub const JOB_ID: &str = "job_id";
/// The attribute that names its kind.
pub const KIND: &str = "kind";

type Pairs<'a> = SmallVec<[(Cow<'a, str>, Cow<'a, str>); 8]>;

/// The job's message: every top-level text of the arguments is an attribute too, if its name is
/// plain, so that subscriptions can filter by it.
pub(crate) fn job_message(job: &Job) -> Message {
    message_with(job, job.args.to_bytes())
}

/// The messages of jobs that are submitted together: short arguments share one piece of memory.
pub(crate) fn job_messages<'j>(jobs: impl Iterator<Item = &'j Job> + Clone) -> Vec<Message> {
    let short = jobs.clone().filter(|job| job.args.is_short());
    let packed: Vec<u8> = short.flat_map(|job| job.args.as_str().bytes()).collect();
    let mut packed = Bytes::from(packed);
    let message = |job: &Job| match job.args.is_short() {
        true => message_with(job, packed.split_to(job.args.len())),
        false => job_message(job),
    };
    jobs.map(message).collect()
}

fn message_with(job: &Job, data: Bytes) -> Message {
    let pairs = texts(job.args.as_str());
    let message = Message::new(data);
    job.id.with_str(|id| {
        let own = [(JOB_ID, id), (KIND, &job.kind)];
        let texts = pairs.iter().map(|(key, value)| (&**key, &**value));
        message.with_attributes(own.into_iter().chain(texts))
    })
}

/// Texts at the top level of a JSON object; none of anything else.
fn texts(args: &str) -> Pairs<'_> {
    let mut pairs = Pairs::new();
    if args.starts_with('{') {
        let mut json = serde_json::Deserializer::from_str(args);
        // It is valid JSON; what was found before an error would be right all the same.
        let _ = json.deserialize_map(Texts(&mut pairs));
    }
    pairs
}

struct Texts<'p, 'a>(&'p mut Pairs<'a>);

impl<'a> Visitor<'a> for Texts<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key_seed(Text)? {
            let value = map.next_value_seed(Text)?;
            let (Some(key), Some(value)) = (key, value) else { continue };
            if !is_plain(&key) || value.len() > MAX_ATTRIBUTE_BYTES {
                continue;
            }
            // Of two values under one key the last counts, as in the arguments.
            self.0.retain(|(before, _)| *before != key);
            if self.0.len() < MAX_ATTRIBUTES {
                self.0.push((key, value));
            }
        }
        Ok(())
    }
}

/// `[a-z][a-z0-9_]{0,63}`, but neither reserved here nor by the bus.
fn is_plain(key: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.len() <= MAX_ATTRIBUTE_KEY_BYTES
        && key.bytes().all(inner)
        && !matches!(key, JOB_ID | KIND)
        && !key.starts_with("goog")
}

/// A text, borrowed if it has no escapes, or nothing for any other value.
struct Text;

impl<'a> DeserializeSeed<'a> for Text {
    type Value = Option<Cow<'a, str>>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Text {
    type Value = Option<Cow<'a, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Some(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned().into()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<S: serde::de::SeqAccess<'a>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(args: &str) -> Vec<(String, String)> {
        let mut pairs: Vec<_> =
            texts(args).iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        pairs.sort();
        pairs
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn plain_texts_become_attributes_and_nothing_else_does() {
        let args = r#"{"path":"a\"b","n":1,"list":["x"],"deep":{"path":"y"},"none":null,"yes":true,
            "Upper":"x","1st":"x","job_id":"x","kind":"x","google":"x","a_1":"z","path":"last"}"#;
        assert_eq!(found(args), pairs(&[("a_1", "z"), ("path", "last")]));
        assert_eq!(found("[\"path\"]"), []);
        assert_eq!(found("\"path\""), []);
    }

    #[test]
    fn long_values_stay_in_the_arguments() {
        for (bytes, count) in [(MAX_ATTRIBUTE_BYTES, 1), (MAX_ATTRIBUTE_BYTES + 1, 0)] {
            let args = format!("{{\"path\":\"{}\"}}", "x".repeat(bytes));
            assert_eq!(found(&args).len(), count, "{bytes}");
        }
        for (bytes, count) in [(MAX_ATTRIBUTE_KEY_BYTES, 1), (MAX_ATTRIBUTE_KEY_BYTES + 1, 0)] {
            assert_eq!(found(&format!("{{\"{}\":\"\"}}", "k".repeat(bytes))).len(), count);
        }
        let many: Vec<String> = (0..=MAX_ATTRIBUTES).map(|n| format!("\"k{n}\":\"\"")).collect();
        assert_eq!(found(&format!("{{{}}}", many.join(","))).len(), MAX_ATTRIBUTES);
    }
}
