//! A node with its path, and the typed reading of it: every mistake is reported, none stops.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Number;

use crate::language::node::{
    Entry, Node, NodeKind, Problems, index_path, key_path, problem, shortened,
};
use crate::language::path::is_name;
use crate::language::suggest::nearest;
use crate::language::{Code, DefinitionError, LanguageLimits, Object, Position};

/// What the parser carries along: limits, names, and what was found wrong.
pub(crate) struct Report<'a> {
    pub(crate) limits: &'a LanguageLimits,
    /// The text, for places inside of scalars.
    pub(crate) text: &'a str,
    pub(crate) problems: Problems,
    /// Every step name of the document and where it stands first.
    pub(crate) names: HashMap<String, Position>,
    /// Gotos that name no sibling; judged when all names are known.
    pub(crate) lost_gotos: Vec<LostGoto>,
    pub(crate) next_step: usize,
}

/// A `goto` whose step is not in the list.
pub(crate) struct LostGoto {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) at: Position,
    /// The sibling that was meant, if any is near.
    pub(crate) siblings: Option<String>,
}

/// A node and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
}

/// The entries of a mapping with known keys.
pub(crate) struct Fields<'a> {
    entries: &'a [Entry],
    pub(crate) path: String,
    pub(crate) at: Position,
}

impl Report<'_> {
    pub(crate) fn add(&mut self, code: Code, place: &Place<'_>, message: String) {
        self.problems.push(problem(code, place.path.clone(), place.node.at, message));
    }

    pub(crate) fn add_with_hint(
        &mut self,
        code: Code,
        place: &Place<'_>,
        message: String,
        hint: Option<String>,
    ) {
        self.add_at(place.node.at, code, place, message, hint);
    }

    /// A problem at a character inside of the place.
    pub(crate) fn add_at(
        &mut self,
        position: Position,
        code: Code,
        place: &Place<'_>,
        message: String,
        hint: Option<String>,
    ) {
        let path = place.path.clone();
        self.problems.push(DefinitionError { code, path, position, message, hint });
    }

    fn wrong_type(&mut self, place: &Place<'_>, wanted: &str) {
        let message = format!("expected {wanted}, found {}", place.node.describe());
        self.add(Code::WrongType, place, message);
    }
}

impl<'a> Place<'a> {
    pub(crate) fn root(node: &'a Node) -> Self {
        Self { node, path: "$".into() }
    }

    /// The entries of the mapping, with FDL014 when it is none and FDL006 for unknown keys.
    pub(crate) fn fields(
        &self,
        what: &str,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Option<Fields<'a>> {
        let fields = self.open_fields(what, report)?;
        fields.refuse_unknown(what, known, |_| None, report);
        Some(fields)
    }

    /// Like [`Self::fields`] with any key.
    pub(crate) fn open_fields(&self, what: &str, report: &mut Report<'_>) -> Option<Fields<'a>> {
        match &self.node.kind {
            NodeKind::Map(entries) => {
                Some(Fields { entries, path: self.path.clone(), at: self.node.at })
            }
            _ => {
                report.wrong_type(self, &format!("a mapping for {what}"));
                None
            }
        }
    }

    pub(crate) fn list(&self, report: &mut Report<'_>) -> Option<Vec<Place<'a>>> {
        let NodeKind::List(items) = &self.node.kind else {
            report.wrong_type(self, "a list");
            return None;
        };
        let place = |(index, node)| Place { node, path: index_path(&self.path, index) };
        Some(items.iter().map(|item| &**item).enumerate().map(place).collect())
    }

    /// A list that must not be empty (FDL019).
    pub(crate) fn full_list(&self, report: &mut Report<'_>) -> Option<Vec<Place<'a>>> {
        let places = self.list(report)?;
        if places.is_empty() {
            report.add(Code::EmptyList, self, format!("{} is an empty list", self.key()));
        }
        Some(places)
    }

    pub(crate) fn text(&self, report: &mut Report<'_>) -> Option<&'a str> {
        match &self.node.kind {
            NodeKind::Text(text) => Some(text),
            _ => {
                report.wrong_type(self, "a string");
                None
            }
        }
    }

    pub(crate) fn boolean(&self, report: &mut Report<'_>) -> Option<bool> {
        match self.node.kind {
            NodeKind::Bool(value) => Some(value),
            _ => {
                report.wrong_type(self, "true or false");
                None
            }
        }
    }

    pub(crate) fn number(&self, report: &mut Report<'_>) -> Option<&'a Number> {
        match &self.node.kind {
            NodeKind::Number(number) => Some(number),
            _ => {
                report.wrong_type(self, "a number");
                None
            }
        }
    }

    /// A number within bounds, both included (FDL013).
    pub(crate) fn float(
        &self,
        least: f64,
        most: Option<f64>,
        report: &mut Report<'_>,
    ) -> Option<f64> {
        let value = self.number(report)?.as_f64()?;
        if value >= least && most.is_none_or(|most| value <= most) {
            return Some(value);
        }
        let range = match most {
            Some(most) => format!("from {least} to {most}"),
            None => format!("at least {least}"),
        };
        self.out_of_range(&range, report);
        None
    }

    /// A whole number within bounds, both included.
    pub(crate) fn integer(&self, least: u64, most: u64, report: &mut Report<'_>) -> Option<u64> {
        let number = self.number(report)?;
        // A float without a fraction is as good as an integer: JSON does not tell them apart.
        let float = number.as_f64()?;
        if float.fract() != 0.0 {
            report.wrong_type(self, "a whole number");
            return None;
        }
        let whole = number.as_u64().or_else(|| (float >= 0.0).then_some(float as u64));
        let value = whole.filter(|value| (least..=most).contains(value));
        if value.is_none() {
            self.out_of_range(&format!("from {least} to {most}"), report);
        }
        value
    }

    /// Seconds as a duration in whole milliseconds.
    pub(crate) fn seconds(
        &self,
        least: Least,
        most: Option<u64>,
        report: &mut Report<'_>,
    ) -> Option<Duration> {
        let value = self.number(report)?.as_f64()?;
        let above = match least {
            Least::Zero => value >= 0.0,
            Least::Positive => value > 0.0,
        };
        let duration = duration_of_seconds(value);
        if above && most.is_none_or(|most| value <= most as f64) && duration.is_some() {
            // What is positive stays so: a timeout of zero would mean something else.
            let shortest = Duration::from_millis(u64::from(least == Least::Positive));
            return duration.map(|duration| duration.max(shortest));
        }
        let range = match (least, most) {
            (Least::Zero, Some(most)) => format!("from 0 to {most} seconds"),
            (Least::Zero, None) => "0 seconds or more".into(),
            (Least::Positive, Some(most)) => format!("above 0, at most {most} seconds"),
            (Least::Positive, None) => "above 0 seconds".into(),
        };
        self.out_of_range(&range, report);
        None
    }

    fn out_of_range(&self, range: &str, report: &mut Report<'_>) {
        let (key, found) = (self.key(), self.node.describe());
        report.add(Code::OutOfRange, self, format!("{key} must be {range}, found {found}"));
    }

    /// A name of paths and targets; FDL007 otherwise.
    pub(crate) fn name(&self, report: &mut Report<'_>) -> Option<&'a str> {
        let name = self.text(report)?;
        if is_name(name) {
            return Some(name);
        }
        let message = format!("`{}` is no good {}", shortened(name), self.key());
        let hint = "a letter or _, then letters, digits, _ and -; no nesting".to_string();
        report.add_with_hint(Code::BadName, self, message, Some(hint));
        None
    }

    /// The last key of the path, for messages.
    pub(crate) fn key(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }

    /// Where a character of a scalar stands, if the scalar is on one line as it is written;
    /// otherwise where the scalar begins.
    pub(crate) fn position_of(&self, offset: usize, report: &Report<'_>) -> Position {
        let NodeKind::Text(text) = &self.node.kind else { return self.node.at };
        let start = self.node.at;
        exact_start(text, start, report.text).map_or(start, |column| Position {
            line: start.line,
            column: column + u32::try_from(offset).unwrap_or(0),
        })
    }
}

/// The smallest value of a duration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Least {
    Zero,
    Positive,
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<Place<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Place { node: &entry.value, path: key_path(&self.path, key) })
    }

    /// The field, with FDL005 when it is missing.
    pub(crate) fn require(&self, key: &str, report: &mut Report<'_>) -> Option<Place<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.missing(Code::MissingField, key, None, report);
        }
        found
    }

    pub(crate) fn missing(
        &self,
        code: Code,
        key: &str,
        hint: Option<&str>,
        report: &mut Report<'_>,
    ) {
        let message = format!("`{key}` is missing");
        let mut error = problem(code, self.path.clone(), self.at, message);
        error.hint = hint.map(Into::into);
        report.problems.push(error);
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Place<'a>)> {
        self.entries.iter().map(|entry| {
            let path = key_path(&self.path, &entry.key);
            (entry.key.as_str(), Place { node: &entry.value, path })
        })
    }

    /// The keys that do not change the execution: `x-*` and the given ones.
    pub(crate) fn annotations(&self, kept: &[&str]) -> Object {
        let is_kept = |entry: &&Entry| is_free(&entry.key) || kept.contains(&&*entry.key);
        let pairs = self.entries.iter().filter(is_kept);
        pairs.map(|entry| (entry.key.clone(), entry.value.to_value())).collect()
    }

    /// FDL006 for every key that is not known; `hint` may know better than "did you mean".
    pub(crate) fn refuse_unknown(
        &self,
        what: &str,
        known: &[&str],
        hint: impl Fn(&str) -> Option<String>,
        report: &mut Report<'_>,
    ) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if known.contains(&key) || is_free(key) {
                continue;
            }
            let near = || nearest(key, known).map(|near| format!("did you mean `{near}`?"));
            let message = format!("unknown field `{}` in {what}", shortened(key));
            let mut error =
                problem(Code::UnknownField, key_path(&self.path, key), entry.at, message);
            error.hint = near().or_else(|| hint(key));
            report.problems.push(error);
        }
    }
}

/// Keys that begin so are free (section 3.1).
fn is_free(key: &str) -> bool {
    key.starts_with("x-")
}

/// Seconds to a duration in whole milliseconds; `None` when negative or too long to be one.
pub(crate) fn duration_of_seconds(seconds: f64) -> Option<Duration> {
    let millis = (seconds * 1000.0).round();
    // Beyond 2^53 a float has no milliseconds any more.
    (0.0..=9_007_199_254_740_992.0).contains(&millis).then(|| Duration::from_millis(millis as u64))
}

/// The column of the first character of a scalar that stands in the text as it is, after its
/// quote if it has one.
fn exact_start(scalar: &str, at: Position, text: &str) -> Option<u32> {
    /// Longer lines are not searched: the work for one error stays small.
    const MAX_COLUMN: u32 = 4_096;
    if at.column > MAX_COLUMN || scalar.contains('\n') {
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = text.split('\n').nth(at.line.checked_sub(1)? as usize)?;
    let (start, _) = line.char_indices().nth(at.column.checked_sub(1)? as usize)?;
    let rest = line.get(start..)?;
    if rest.starts_with(scalar) {
        return Some(at.column);
    }
    let quoted = rest.strip_prefix(['"', '\''])?;
    quoted.starts_with(scalar).then_some(at.column + 1)
}
