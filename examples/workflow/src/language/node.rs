//! A document as a tree with positions: what both readers make and the parser takes.
//!
//! Nodes are shared, so that an alias costs no copy; the readers bound how large and deep the tree
//! is with every alias expanded.

use std::rc::Rc;

use serde_json::{Number, Value};

use crate::language::path::is_name;
use crate::language::{Code, DefinitionError, Object, Position};

/// A value of the document.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) at: Position,
    /// How many collections are nested in it, itself counted; 0 for scalars.
    pub(crate) height: usize,
}

#[derive(Debug)]
pub(crate) enum NodeKind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Rc<Node>,
}

/// What was found wrong, up to a limit: nobody reads a million errors, and a megabyte of text can
/// hold as many. The first ones are kept, in the order in which they are found.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<DefinitionError>,
}

/// How many problems of one definition are reported.
pub(crate) const MAX_PROBLEMS: usize = 1_000;

impl Problems {
    pub(crate) fn push(&mut self, problem: DefinitionError) {
        if !self.is_full() {
            self.list.push(problem);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<DefinitionError> {
        self.list
    }
}

/// A document that could not be read; nothing else is said about it (section 3.12).
pub(crate) type Unreadable = Vec<DefinitionError>;

impl Node {
    pub(crate) fn new(kind: NodeKind, at: Position) -> Self {
        let height = match &kind {
            NodeKind::List(items) => 1 + items.iter().map(|item| item.height).max().unwrap_or(0),
            NodeKind::Map(entries) => {
                1 + entries.iter().map(|entry| entry.value.height).max().unwrap_or(0)
            }
            _ => 0,
        };
        Self { kind, at, height }
    }

    /// The value as data; the depth of nodes is bounded, so the recursion is.
    pub(crate) fn to_value(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(value) => Value::Bool(*value),
            NodeKind::Number(number) => Value::Number(number.clone()),
            NodeKind::Text(text) => Value::String(text.clone()),
            NodeKind::List(items) => items.iter().map(|item| item.to_value()).collect(),
            NodeKind::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value()));
                Value::Object(pairs.collect::<Object>())
            }
        }
    }

    /// What the node is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Null => "null".into(),
            NodeKind::Bool(value) => format!("the boolean {value}"),
            NodeKind::Number(number) => format!("the number {number}"),
            NodeKind::Text(text) => format!("the string \"{}\"", shortened(text)),
            NodeKind::List(_) => "a list".into(),
            NodeKind::Map(_) => "a mapping".into(),
        }
    }
}

/// The path of a key below a path.
pub(crate) fn key_path(path: &str, key: &str) -> String {
    if is_name(key) {
        format!("{path}.{key}")
    } else {
        format!("{path}['{}']", shortened(key).replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

/// The path of an element below a path.
pub(crate) fn index_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Text of the document as it may stand in a message: a megabyte of it does not help.
pub(crate) fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

/// An error without a hint.
pub(crate) fn problem(code: Code, path: String, at: Position, message: String) -> DefinitionError {
    DefinitionError { code, path, position: at, message, hint: None }
}
