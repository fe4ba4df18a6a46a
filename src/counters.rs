//! Counts of what should be rare, for benches and tests (feature `internals`); nothing otherwise.

#[cfg(feature = "internals")]
mod counting {
    use std::sync::atomic::{AtomicU64, Ordering};

    static CLOCK_READS: AtomicU64 = AtomicU64::new(0);
    static NOTIFIES: AtomicU64 = AtomicU64::new(0);

    /// What all buses of the process have done so far.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub struct Counters {
        /// Readings of a clock.
        pub clock_reads: u64,
        /// Wakers woken.
        pub notifies: u64,
    }

    /// The counts so far.
    pub fn counters() -> Counters {
        Counters {
            clock_reads: CLOCK_READS.load(Ordering::Relaxed),
            notifies: NOTIFIES.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn clock_read() {
        CLOCK_READS.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn notified() {
        NOTIFIES.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(feature = "internals")]
pub use counting::{Counters, counters};
#[cfg(feature = "internals")]
pub(crate) use counting::{clock_read, notified};

#[cfg(not(feature = "internals"))]
pub(crate) fn clock_read() {}
#[cfg(not(feature = "internals"))]
pub(crate) fn notified() {}
