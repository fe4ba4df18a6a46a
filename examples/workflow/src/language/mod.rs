//! The language of flows: definitions, their errors, conditions and mappings.
//!
//! Text becomes a [`Definition`] or all its errors at once; conditions and mappings are evaluated
//! on JSON values. Everything here is pure: no clock, no lock, no I/O. Running a definition is
//! the engine's part.

mod ast;
mod condition;
mod condition_parse;
mod cursor;
mod error;
mod expressions;
mod flow_control;
mod handling;
mod limits;
mod mapping;
mod node;
mod parser;
mod path;
mod path_parse;
mod place;
mod read_json;
mod read_yaml;
mod resource;
mod scalar;
mod siblings;
mod steps;
mod suggest;
mod timestamp;

pub use ast::*;
pub use condition::{Condition, ConditionError};
pub use error::{Code, DefinitionError, Position};
pub use limits::LanguageLimits;
pub use mapping::{Mapped, Mapping, Roots, Source, evaluate_mappings, overlay};
pub use parser::Checked;
pub use path::{Path, PathError, Root, Segment};
pub(crate) use suggest::nearest;
pub use timestamp::{format_timestamp, parse_timestamp};

/// A JSON object; its keys keep the order in which they were inserted (F-11).
pub type Object = serde_json::Map<String, serde_json::Value>;
