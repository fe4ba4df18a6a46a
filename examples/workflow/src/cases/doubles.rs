//! Worker doubles: what `workers.json` says, played on the bus.
//!
//! Doubles are outside of the engine: they live on when it crashes, remember what they have begun,
//! and answer a second invocation of the same task as they would have answered the first, at the
//! time at which they would have.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use siftbus::{Bus, Message, Subscription, SubscriptionConfig};

use super::files::null_is_absent;
use crate::engine::{REPLY_TOPIC, Timestamp, task_topic, worker_subscription};
use crate::language::Resource;
use crate::poll::at_once;

/// What stands in for a worker.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Double {
    /// Answers with its input.
    Echo {
        /// How long it takes.
        #[serde(default)]
        after_ms: u64,
    },
    /// Answers the k-th invocation with the k-th reply; the last repeats.
    Sequence {
        /// The replies.
        replies: Vec<Reply>,
        /// How long they take where they do not say.
        #[serde(default)]
        after_ms: u64,
    },
    /// Answers by what is in the input.
    ByInput {
        /// The first that matches counts.
        cases: Vec<InputCase>,
        /// How long they take where they do not say.
        #[serde(default)]
        after_ms: u64,
    },
}

/// A reply to inputs that hold something.
#[derive(Clone, Debug, Deserialize)]
pub struct InputCase {
    /// A subset of the input.
    #[serde(default)]
    when: Value,
    #[serde(flatten)]
    reply: Reply,
}

/// What a double answers.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Reply {
    #[serde(default, deserialize_with = "given")]
    output: Option<Value>,
    error: Option<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    cause: String,
    #[serde(default)]
    hang: bool,
    after_ms: Option<u64>,
}

/// An output that is `null` is no object; one that is absent is `{}`.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// The doubles of a case, and what they have seen.
#[derive(Debug, Default)]
pub struct Doubles {
    doubles: BTreeMap<String, (String, Double)>,
    /// Where they listen; anew on each bus.
    listening: Vec<(String, Subscription)>,
    /// What they have begun, by task: flow and task id.
    begun: HashMap<(String, String), Begun>,
    counts: BTreeMap<String, usize>,
    /// What is to be answered, by time and order of arrival.
    due: BTreeMap<(Timestamp, u64), Message>,
    arrivals: u64,
    inputs: BTreeMap<String, Vec<Value>>,
}

#[derive(Clone, Debug)]
struct Begun {
    /// When it answers; `None`: never.
    at: Option<Timestamp>,
    answer: Result<Value, (String, String)>,
}

impl Doubles {
    /// Doubles for resources; those of messages and child flows need none and get none.
    ///
    /// # Errors
    ///
    /// The text of a resource that is none, or of a double without replies.
    pub fn new(workers: &BTreeMap<String, Double>) -> Result<Self, String> {
        let mut doubles = BTreeMap::new();
        for (arn, double) in workers {
            let resource = Resource::parse(arn).ok_or_else(|| format!("{arn} is no resource"))?;
            let Some(topic) = task_topic(&resource.target) else { continue };
            if matches!(double, Double::Sequence { replies, .. } if replies.is_empty()) {
                return Err(format!("{arn}: a sequence has at least one reply"));
            }
            doubles.insert(topic, (arn.clone(), double.clone()));
        }
        Ok(Self { doubles, ..Self::default() })
    }

    /// Listens on a bus; what was to be answered on the one before is answered when its task is
    /// handed out again.
    ///
    /// # Errors
    ///
    /// What the bus answers.
    pub fn listen(&mut self, bus: &Bus) -> Result<(), siftbus::AdminError> {
        self.listening.clear();
        self.due.clear();
        for topic in self.doubles.keys() {
            let found = crate::engine::ensure_topic(bus, topic)?;
            let name = worker_subscription(topic);
            let subscription = at_once(found.subscribe(&name, SubscriptionConfig::new()))?;
            self.listening.push((topic.clone(), subscription));
        }
        Ok(())
    }

    /// Takes what has arrived; answers whether anything has.
    pub fn take(&mut self, bus: &Bus) -> bool {
        let now = Timestamp::from(bus.now());
        let mut messages = Vec::new();
        for (topic, subscription) in &self.listening {
            while let Ok(batch) = subscription.try_pull(TAKEN_AT_ONCE) {
                if batch.is_empty() {
                    break;
                }
                for delivery in &batch {
                    let message = delivery.message().clone();
                    messages.push((delivery.id(), topic.clone(), message));
                }
                batch.ack_all();
            }
        }
        // In the order in which they were published, whatever the topic.
        messages.sort_by_key(|(id, ..)| *id);
        let any = !messages.is_empty();
        for (_, topic, message) in messages {
            self.begin(bus, &topic, &message, now);
        }
        any
    }

    fn begin(&mut self, bus: &Bus, topic: &str, message: &Message, now: Timestamp) {
        let text = |key| message.attribute(key).unwrap_or_default().to_owned();
        let key = (text("flow"), text("task_id"));
        let input: Value = serde_json::from_slice(message.data()).unwrap_or_default();
        let begun = match self.begun.get(&key) {
            Some(begun) => begun.clone(),
            None => {
                let begun = self.decide(topic, &input, now);
                let token = message.attribute("task_token");
                let seen = token.map_or_else(|| input.clone(), |token| masked(&input, token));
                self.inputs.entry(topic.to_owned()).or_default().push(seen);
                self.begun.insert(key, begun.clone());
                begun
            }
        };
        answer(bus, reply(message, "started", Message::new("")));
        let Some(at) = begun.at else { return };
        let answer = match begun.answer {
            Ok(output) => reply(message, "ok", Message::new(output.to_string())),
            Err((error, cause)) => {
                reply(message, "error", Message::new(cause)).with_attribute("error", error)
            }
        };
        self.arrivals += 1;
        self.due.insert((at.max(now), self.arrivals), answer);
    }

    fn decide(&mut self, topic: &str, input: &Value, now: Timestamp) -> Begun {
        let count = self.counts.entry(topic.to_owned()).or_default();
        *count += 1;
        let Some((_, double)) = self.doubles.get(topic) else {
            return Begun { at: None, answer: Ok(json!({})) };
        };
        let (found, after_ms) = match double {
            Double::Echo { after_ms } => {
                let output = Some(input.clone());
                (Some(Reply { output, ..Reply::default() }), *after_ms)
            }
            Double::Sequence { replies, after_ms } => {
                let nth = (*count - 1).min(replies.len().saturating_sub(1));
                (replies.get(nth).map(|reply| reply.filled(input)), *after_ms)
            }
            Double::ByInput { cases, after_ms } => {
                let case = cases.iter().find(|case| is_subset(&case.when, input));
                (case.map(|case| case.reply.filled(input)), *after_ms)
            }
        };
        let unknown = || Reply {
            error: Some("FC.Unknown".to_owned()),
            cause: "no reply fits the input".to_owned(),
            ..Reply::default()
        };
        let found = found.unwrap_or_else(unknown);
        let after = std::time::Duration::from_millis(found.after_ms.unwrap_or(after_ms));
        let answer = match found.error {
            Some(error) => Err((error, found.cause)),
            None => Ok(found.output.unwrap_or_else(|| json!({}))),
        };
        Begun { at: (!found.hang).then(|| now.after(after)), answer }
    }

    /// Publishes the answers that are due; answers whether there were any.
    pub fn answer_due(&mut self, bus: &Bus) -> bool {
        let now = Timestamp::from(bus.now());
        let mut any = false;
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            answer(bus, entry.remove());
            any = true;
        }
        any
    }

    /// When the next answer is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// How often a resource was invoked; the same task again does not count.
    pub fn invocations(&self, arn: &str) -> usize {
        topic_of(arn).and_then(|topic| self.counts.get(&topic)).copied().unwrap_or_default()
    }

    /// The inputs with which a resource was invoked; task tokens are written `<token>`.
    pub fn inputs(&self, arn: &str) -> Vec<Value> {
        topic_of(arn).and_then(|topic| self.inputs.get(&topic)).cloned().unwrap_or_default()
    }
}

impl Reply {
    fn filled(&self, input: &Value) -> Reply {
        let output = self.output.as_ref().map(|output| filled(output, input));
        Reply { output, ..self.clone() }
    }
}

/// A reply to an invocation, with what tells whose it is.
pub(crate) fn reply(invocation: &Message, status: &str, message: Message) -> Message {
    let mut message =
        message.with_attribute("type", "task-result").with_attribute("status", status);
    for key in ["engine_id", "flow", "correlid", "task_id"] {
        if let Some(value) = invocation.attribute(key) {
            message = message.with_attribute(key, value);
        }
    }
    message
}

fn answer(bus: &Bus, message: Message) {
    if let Ok(topic) = at_once(bus.topic(REPLY_TOPIC)) {
        // Without a reply topic there is no engine, and nobody to answer.
        let _ = topic.try_publish(message);
    }
}

fn topic_of(arn: &str) -> Option<String> {
    task_topic(&Resource::parse(arn)?.target)
}

/// `$in.key` replaced by that key of the input, wherever it stands.
fn filled(output: &Value, input: &Value) -> Value {
    match output {
        Value::String(text) => match text.strip_prefix("$in.") {
            Some(path) => match input.get(path) {
                Some(value) => value.clone(),
                None => {
                    let nested = path.split('.').try_fold(input, |value, key| value.get(key));
                    nested.cloned().unwrap_or_default()
                }
            },
            None => output.clone(),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, input)).collect(),
        Value::Object(object) => {
            let fill = |(key, value): (&String, &Value)| (key.clone(), filled(value, input));
            Value::Object(object.iter().map(fill).collect())
        }
        other => other.clone(),
    }
}

/// Whether everything in `part` is in `whole`: objects by key, everything else as it is.
pub(super) fn is_subset(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Null, _) => whole.is_null() || whole.is_object(),
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|found| is_subset_of_key(value, found))),
        _ => super::compare::same(part, whole),
    }
}

fn is_subset_of_key(part: &Value, whole: &Value) -> bool {
    match part {
        Value::Object(_) => is_subset(part, whole),
        _ => super::compare::same(part, whole),
    }
}

/// A value with a token written `<token>`.
pub(super) fn masked(value: &Value, token: &str) -> Value {
    match value {
        Value::String(text) if text.contains(token) => json!(text.replace(token, "<token>")),
        Value::Array(items) => items.iter().map(|item| masked(item, token)).collect(),
        Value::Object(object) => Value::Object(
            object.iter().map(|(key, value)| (key.clone(), masked(value, token))).collect(),
        ),
        other => other.clone(),
    }
}

const TAKEN_AT_ONCE: usize = 1_000;
