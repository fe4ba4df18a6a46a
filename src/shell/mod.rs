//! The shell: locks, wake-ups and time around the broker's values.
//!
//! A call here takes its locks in the order topic → subscription → leaf, lets the broker decide,
//! and carries the effects out after the last lock is released (I-7).

pub(crate) mod batch;
pub(crate) mod books;
pub(crate) mod budget;
pub(crate) mod core;
pub(crate) mod driver;
pub(crate) mod effects;
pub(crate) mod lifecycle;
pub(crate) mod matcher;
pub(crate) mod publishers;
pub(crate) mod pushing;
pub(crate) mod snapshot;
pub(crate) mod subscription;
pub(crate) mod timers;
pub(crate) mod topic;
pub(crate) mod view;
pub(crate) mod waiters;
