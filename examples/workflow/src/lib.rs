//! A workflow engine on [`siftbus`]: flows in the classic FDL notation, run step by step.
//!
//! [`language`] turns text into checked definitions and evaluates their conditions and mappings.
//! [`engine`] runs them: executions as pure state machines, a write-ahead journal in a [`store`],
//! tasks over the bus. [`flows`] drives it for asynchronous programs, [`worker`] serves resources,
//! [`cases`] plays flows in virtual time, [`draw`] shows what has happened.
//! The package uses the public interface of the bus alone.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod bad_cases;
pub mod cases;
pub mod draw;
pub mod engine;
pub mod flows;
#[cfg(feature = "http")]
pub mod http_worker;
#[cfg(feature = "jobs")]
pub mod job_worker;
pub mod language;
mod poll;
pub mod store;
pub mod worker;

pub use language::{Definition, DefinitionError};
