//! Paths into JSON values: a root and the steps from it, a subset of RFC 9535 (F-12).
//!
//! Filters and descendants (`..`) are not part of the subset. Evaluation is iterative and visits
//! a value at most once for each segment.

use std::fmt;

use serde_json::Value;

/// A parsed path: `$local.items[*].name`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Path {
    /// Where it starts.
    pub root: Root,
    /// The steps from there, in order.
    pub segments: Vec<Segment>,
}

/// Where a path starts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Root {
    /// `$`: what the place of the expression says (F-03, F-05).
    Whole,
    /// `$input`.
    Input,
    /// `$local`.
    Local,
    /// `$context` (F-15).
    Context,
}

/// One step of a path.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Segment {
    /// `.name`, `['any']` or `["any"]`: the value of a key of an object.
    Key(String),
    /// `[n]` or `[-n]`: an element of an array; negative numbers count from the end.
    Index(i64),
    /// `[*]` or `.*`: every element of an array, every value of an object.
    Wildcard,
    /// `[a:b]`: the elements of an array from `a` up to, not including, `b`.
    Slice(Option<i64>, Option<i64>),
}

/// Why a text is not a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathError {
    /// Where in the text, in characters from 0.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
}

impl Path {
    /// Whether the path may have any number of matches, so that it yields an array (F-13).
    pub fn is_multi(&self) -> bool {
        self.segments
            .iter()
            .any(|segment| matches!(segment, Segment::Wildcard | Segment::Slice(..)))
    }

    /// What the segments of the path find below `root`: the one value or `None` when it is
    /// missing; with a wildcard or slice always an array of all matches (F-13).
    pub fn find(&self, root: &Value) -> Option<Value> {
        if self.is_multi() {
            return Some(Value::Array(self.matches(root).into_iter().cloned().collect()));
        }
        self.find_one(root).cloned()
    }

    /// Like [`Self::find`] for a path that is not [multi](Self::is_multi), without a copy.
    pub(crate) fn find_one<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.segments.iter().try_fold(root, |value, segment| match segment {
            Segment::Key(key) => value.as_object()?.get(key),
            Segment::Index(index) => element(value.as_array()?, *index),
            Segment::Wildcard | Segment::Slice(..) => None,
        })
    }

    fn matches<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for segment in &self.segments {
            found = found.into_iter().flat_map(|value| segment.select(value)).collect();
        }
        found
    }
}

impl Segment {
    fn select<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Key(key), Value::Object(object)) => object.get(key).into_iter().collect(),
            (Self::Index(index), Value::Array(array)) => {
                element(array, *index).into_iter().collect()
            }
            (Self::Wildcard, Value::Array(array)) => array.iter().collect(),
            (Self::Wildcard, Value::Object(object)) => object.values().collect(),
            (Self::Slice(from, to), Value::Array(array)) => {
                slice(array, *from, *to).iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

fn element(array: &[Value], index: i64) -> Option<&Value> {
    let index = if index < 0 { index.checked_add_unsigned(array.len() as u64)? } else { index };
    array.get(usize::try_from(index).ok()?)
}

fn slice(array: &[Value], from: Option<i64>, to: Option<i64>) -> &[Value] {
    let bound = |at: i64| {
        let at = if at < 0 { at.saturating_add_unsigned(array.len() as u64) } else { at };
        usize::try_from(at.max(0)).unwrap_or(usize::MAX).min(array.len())
    };
    array.get(bound(from.unwrap_or(0))..to.map_or(array.len(), bound)).unwrap_or_default()
}

/// The root as written.
impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "$",
            Self::Input => "$input",
            Self::Local => "$local",
            Self::Context => "$context",
        })
    }
}

/// The path in a form that parses to the same path.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)?;
        let bound = |at: &Option<i64>| at.map(|at| at.to_string()).unwrap_or_default();
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Key(key) if is_name(key) => write!(f, ".{key}"),
            Segment::Key(key) => write!(f, "[{}]", Value::from(key.as_str())),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Wildcard => f.write_str("[*]"),
            Segment::Slice(from, to) => write!(f, "[{}:{}]", bound(from), bound(to)),
        })
    }
}

/// Whether the text is a name as paths and targets use it: `[A-Za-z_][A-Za-z0-9_-]*`.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(is_name_start) && text.chars().all(is_name_part)
}

pub(crate) fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

pub(crate) fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit() || c == '-'
}
