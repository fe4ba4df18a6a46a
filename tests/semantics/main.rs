//! The rules of the pub/sub specification, one test per rule, named after it.
//!
//! Public API only and virtual time only: a manual clock where a test looks at exact instants,
//! tokio's paused clock where something waits. A test cites its rule beside the assertion; where
//! the design refines the specification, the refinement is cited too. No knowledge of the broker
//! belongs here, so that another engine can run the same tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod ack_ids;
mod budget;
mod dead_letter;
mod deadlines;
mod deduplication;
mod delayed;
mod exactly_once;
mod expiration;
mod faults;
mod filters;
mod leases;
mod lifecycle;
mod limits;
mod looking;
mod ordering;
mod publish;
mod pull;
mod push;
mod resources;
mod retention;
mod retry;
mod seek;
mod snapshots;
mod standing;
mod stream;
mod support;
mod ttl;
