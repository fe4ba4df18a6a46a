//! A workflow engine on [`siftbus`]: flows in the classic FDL notation, run step by step.
//!
//! [`language`] turns text into checked definitions and evaluates their conditions and mappings.
//! The package uses the public interface of the bus alone.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod bad_cases;
pub mod cases;
pub mod engine;
pub mod language;
mod poll;
pub mod store;

pub use language::{Definition, DefinitionError};
