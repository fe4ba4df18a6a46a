//! The only file that names lock and atomic types.
//!
//! Everything that two threads may touch goes through these names, so that a model checker can
//! take the place of the real primitives: `--cfg siftbus_loom` switches to loom's. The locks do
//! not poison. What happens while a lock is held is bounded and calls nothing foreign (I-7).

#[cfg(not(siftbus_loom))]
pub(crate) use self::real::*;

#[cfg(siftbus_loom)]
pub(crate) use self::modelled::*;

#[cfg(not(siftbus_loom))]
mod real {
    pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};
    pub(crate) use std::hint::spin_loop as spin;
    pub(crate) use std::sync::Arc;
    #[cfg(feature = "oidc")]
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

    /// A cell with loom's closure interface and no cost.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

#[cfg(siftbus_loom)]
mod modelled {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::Ordering;
    pub(crate) use loom::thread::yield_now as spin;
    pub(crate) use std::sync::Arc;
    #[cfg(feature = "oidc")]
    pub(crate) use std::sync::OnceLock;

    /// loom treats `SeqCst` as `AcqRel`, except in fences. What is relied on is that of two threads
    /// which each store and then load what the other stores, one sees the other: a fence before
    /// each such load gives that, and no more.
    macro_rules! sequential {
        ($($name:ident: $value:ty),*) => {$(
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    if order == Ordering::SeqCst {
                        loom::sync::atomic::fence(order);
                    }
                    self.0.load(order)
                }
            }

            impl std::ops::Deref for $name {
                type Target = loom::sync::atomic::$name;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }
        )*};
    }

    sequential!(AtomicBool: bool, AtomicU64: u64, AtomicUsize: usize);

    /// loom's mutex with the interface of `parking_lot`.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model that panics has failed already")
        }
    }

    /// loom's lock for reading and writing with the interface of `parking_lot`.
    #[derive(Debug)]
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
            self.0.read().expect("a model that panics has failed already")
        }

        pub(crate) fn try_read(&self) -> Option<loom::sync::RwLockReadGuard<'_, T>> {
            self.0.try_read().ok()
        }

        pub(crate) fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
            self.0.write().expect("a model that panics has failed already")
        }
    }
}

/// A value a cache line away from its neighbours, at any alignment: as [`Padded`] for what is
/// allocated often, since aligned memory costs several times as much.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Spaced<T> {
    before: Line,
    pub(crate) value: T,
    after: Line,
}

/// As much as a cache line holds.
type Line = [u64; 8];

impl<T> Spaced<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { before: Line::default(), value, after: Line::default() }
    }
}

/// A value on cache lines of its own: what one thread writes all the time must not slow down those
/// who read its neighbours.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}
