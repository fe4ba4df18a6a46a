//! Which keys the files of a case may have: a misspelt one must not pass for an absent one.
//!
//! A key that is near a known one is an error; any other is noted, because it may be a remark.

use serde_json::Value;

use crate::language::nearest;

/// Keys that mean nothing.
#[derive(Debug, Default)]
pub(super) struct Unknown(Vec<String>);

impl Unknown {
    pub(super) fn report(self, place: &str, notes: &mut Vec<String>) {
        notes.extend(self.0.into_iter().map(|key| format!("{place}: `{key}` means nothing here")));
    }
}

type Checked = Result<Unknown, String>;

/// Whether a key is a remark by its name.
pub(super) fn is_remark(key: &str) -> bool {
    matches!(key, "about" | "comment" | "note" | "notes" | "description" | "title" | "rules")
        || key.starts_with("x-")
        || key.starts_with(['_', '$', '#'])
}

pub(super) fn expected(value: &Value) -> Checked {
    check(
        value,
        &[
            "status",
            "output",
            "error",
            "cause",
            "elapsed_ms",
            "visited",
            "visited_unordered",
            "invocations",
            "invocation_inputs",
            "published",
            "events_in_order",
            "event_count_max",
        ],
    )
}

pub(super) fn action(value: &Value) -> Checked {
    let of_report = ["token_of", "nth", "token", "expect"];
    let own: &[&str] = match value.get("do").and_then(Value::as_str) {
        Some("report_succeeded") => &["output"],
        Some("report_failed") => &["error", "cause"],
        Some("report_heartbeat") => &[],
        Some("stop") => return check(value, &["at_ms", "do", "error", "cause", "expect"]),
        Some("expect") => return check(value, &["at_ms", "do", "status", "last_event"]),
        // Another one is refused when the action is read.
        _ => return check(value, &["at_ms", "do"]),
    };
    check(value, &[&["at_ms", "do"], of_report.as_slice(), own].concat())
}

pub(super) fn double(value: &Value) -> Checked {
    let replies = |key: &str| value.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut unknown = match value.get("kind").and_then(Value::as_str) {
        Some("echo") => check(value, &["kind", "after_ms"])?,
        Some("sequence") => check(value, &["kind", "after_ms", "replies"])?,
        Some("by_input") => check(value, &["kind", "after_ms", "cases"])?,
        _ => check(value, &["kind"])?,
    };
    const REPLY: [&str; 5] = ["output", "error", "cause", "hang", "after_ms"];
    for reply in replies("replies") {
        unknown.0.extend(check(reply, &REPLY)?.0);
    }
    for case in replies("cases") {
        unknown.0.extend(check(case, &[&REPLY, ["when"].as_slice()].concat())?.0);
    }
    Ok(unknown)
}

fn check(value: &Value, known: &[&str]) -> Checked {
    let Value::Object(object) = value else { return Err("it is no object".to_owned()) };
    let mut unknown = Unknown::default();
    for key in object.keys().filter(|key| !known.contains(&key.as_str()) && !is_remark(key)) {
        match nearest(key, known) {
            Some(near) => return Err(format!("unknown key `{key}`; did you mean `{near}`?")),
            None => unknown.0.push(key.clone()),
        }
    }
    Ok(unknown)
}
