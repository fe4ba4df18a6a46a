//! Counts of what should be rare, for benches and tests (feature `internals`); nothing otherwise.

#[cfg(feature = "internals")]
mod counting {
    use std::cell::Cell;

    thread_local! {
        // Of each thread, since counting with atomics costs as much as what is counted.
        static COUNTERS: Cell<Counters> = const { Cell::new(NONE) };
    }

    const NONE: Counters = Counters { clock_reads: 0, notifies: 0 };

    /// What all buses have done on this thread so far.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub struct Counters {
        /// Readings of a clock.
        pub clock_reads: u64,
        /// Wakers woken.
        pub notifies: u64,
    }

    /// The counts of this thread so far.
    pub fn counters() -> Counters {
        COUNTERS.get()
    }

    #[inline]
    pub(crate) fn clock_read() {
        COUNTERS.set(Counters { clock_reads: counters().clock_reads + 1, ..counters() });
    }

    #[inline]
    pub(crate) fn notified() {
        COUNTERS.set(Counters { notifies: counters().notifies + 1, ..counters() });
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
