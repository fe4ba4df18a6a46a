//! The broker: what is where, and what happens to it. Values only.
//!
//! Nothing here reads a clock, takes a lock, waits or wakes: `now`, the head of a view and the way
//! to look at messages are arguments, effects are answers. The shell around it is in `core.rs`.
//! The invariants I-1 … I-8 that assertions and tests cite are in `ARCHITECTURE.md`.

pub(crate) mod chunks;
pub(crate) mod deadlines;
pub(crate) mod deduplication;
pub(crate) mod delayed;
pub(crate) mod faults;
pub(crate) mod hops;
pub(crate) mod lease;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod ordering;
pub(crate) mod owners;
pub(crate) mod places;
pub(crate) mod policy;
pub(crate) mod replay;
pub(crate) mod slots;
pub(crate) mod subscription;
pub(crate) mod window;
