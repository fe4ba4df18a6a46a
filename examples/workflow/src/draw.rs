//! Pictures of an execution for terminals: its history as a table, its steps on a line of time.
//!
//! Text only, at most 80 columns; colours are left to whoever prints it.

use serde_json::Value;

use crate::engine::{Event, EventKind, Timestamp};

/// The history as a table: number, time since the start, event, step, detail (F-103).
///
/// ```
/// let empty = workflow::draw::history(&[], "exec-1");
/// assert!(empty.trim_start().starts_with("#"), "the names of the columns");
/// ```
pub fn history(events: &[Event], execution: &str) -> String {
    let mut table = line("#", "time", "event", "step", "detail");
    let start = events.first().map(|event| event.time).unwrap_or_default();
    let mut before = start;
    for event in events {
        let time = match event.time == before && event.id > 1 {
            true => String::new(),
            false => format!("+{}", seconds(event.time.since(start).as_millis())),
        };
        before = event.time;
        let detail = event.detail(execution);
        let detail = match &detail {
            Value::Object(object) if object.is_empty() => String::new(),
            other => other.to_string(),
        };
        let name = event.kind.name();
        table += &line(&event.id.to_string(), &time, name, &event.step, &detail);
    }
    table
}

/// The visits of steps on a line of time: a row for each, with a bar over the whole execution
/// (F-102). `now` ends the bars of what still runs.
pub fn timeline(events: &[Event], now: Timestamp) -> String {
    let Some(start) = events.first().map(|event| event.time) else { return String::new() };
    let end = events.last().map_or(start, |last| match last.kind.is_final() {
        true => last.time,
        false => now.max(last.time),
    });
    let whole = end.since(start).as_millis().max(1);
    let mut picture = String::new();
    for entered in events {
        if !matches!(entered.kind, EventKind::StepEntered { .. }) {
            continue;
        }
        let of = |event: &&Event| event.scheduled == entered.id;
        let exited = events.iter().filter(of).find(|event| {
            matches!(event.kind, EventKind::StepExited { .. }) && event.id > entered.id
        });
        let failed = events.iter().any(|event| {
            event.scheduled == entered.id && matches!(event.kind, EventKind::StepFailed(_))
        });
        let ended = events.last().is_some_and(|last| last.kind.is_final());
        let glyph = match (failed, exited, ended) {
            (true, ..) => '✗',
            (false, Some(_), _) => '✓',
            (false, None, true) => '–',
            (false, None, false) => '…',
        };
        let until = exited.map_or(end, |event| event.time);
        let place = |time: Timestamp| {
            (time.since(start).as_millis() * BAR_COLUMNS as u128 / whole) as usize
        };
        let (from, to) = (place(entered.time).min(BAR_COLUMNS - 1), place(until));
        let length = to.saturating_sub(from).max(1);
        let took = seconds(until.since(entered.time).as_millis());
        let name = cut(&entered.step, NAME_COLUMNS);
        let (gap, bar) = (" ".repeat(from), "━".repeat(length));
        let rest = " ".repeat(BAR_COLUMNS.saturating_sub(from + length));
        picture += &format!("{glyph} {name:<NAME_COLUMNS$} │{gap}{bar}{rest}│ {took:>9}\n");
    }
    picture
}

fn line(number: &str, time: &str, event: &str, step: &str, detail: &str) -> String {
    let (step, detail) = (cut(step, 16), cut(detail, DETAIL_COLUMNS));
    let text = format!("{number:>4} {time:>11}  {event:<20} {step:<16} {detail}");
    format!("{}\n", text.trim_end())
}

fn seconds(millis: u128) -> String {
    match millis % 1_000 {
        0 => format!("{} s", millis / 1_000),
        rest => format!("{}.{rest:03} s", millis / 1_000),
    }
}

/// A text in at most this many characters.
fn cut(text: &str, columns: usize) -> String {
    match text.chars().count() > columns {
        false => text.to_owned(),
        true => text.chars().take(columns - 1).chain(['…']).collect(),
    }
}

const NAME_COLUMNS: usize = 24;
const BAR_COLUMNS: usize = 40;
const DETAIL_COLUMNS: usize = 23;
