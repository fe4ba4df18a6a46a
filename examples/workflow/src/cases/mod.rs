//! Flows as test cases: a folder holds a definition, an input, worker doubles, a script, and what
//! is expected; [`run`] plays it in virtual time.
//!
//! The format is described in `cases/README.md`. Doubles are of use beyond that: they stand in for
//! workers wherever a flow is to be tried without them.

mod compare;
mod doubles;
mod files;
mod keys;
mod runner;

pub use doubles::Doubles;
pub(crate) use doubles::reply as reply_to;
pub use files::{
    Action, ActionKind, Case, CaseError, Expected, flow_name, read_script, read_workers,
};
pub use runner::{CaseClock, CaseOptions, CaseStore, Outcome, run};
