//! A cell that readers read without a lock: the current version of something, protected by epochs.
//!
//! Epoch-based reclamation after Fraser (2004), as in crossbeam-epoch. The pin covers only the time it takes to clone
//! an `Arc`; nothing is read from disk and no user code runs under it.
#![expect(unsafe_code, reason = "dereferences and retires an epoch-protected pointer")]

use crossbeam_epoch::{Atomic, Owned, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Holds an `Arc<T>` that can be replaced while others read it.
#[derive(Debug)]
pub(crate) struct EpochCell<T> {
    current: Atomic<Arc<T>>,
}

impl<T: Send + Sync + 'static> EpochCell<T> {
    /// Starts with this value.
    pub(crate) fn new(value: Arc<T>) -> EpochCell<T> {
        EpochCell { current: Atomic::new(value) }
    }

    /// The current value.
    #[inline]
    pub(crate) fn load(&self) -> Arc<T> {
        let guard = pin();
        let shared = self.current.load(Ordering::Acquire, &guard);
        // SAFETY: `current` is never null: `new` and `store` put an owned pointer there and nothing takes it out
        // before `drop`, which has exclusive access. A pointer that `store` replaced is destroyed only after every
        // guard pinned at that time is gone, and `guard` was pinned before the load.
        let value = unsafe { shared.deref() };
        Arc::clone(value)
    }

    /// Replaces the value. Callers are serialised by the lock that guards the cause of the change.
    pub(crate) fn store(&self, value: Arc<T>) {
        let guard = pin();
        let old = self.current.swap(Owned::new(value), Ordering::AcqRel, &guard);
        // SAFETY: `old` was just unlinked by the swap, so no later load can reach it, and no other swap returns it.
        unsafe { guard.defer_destroy(old) };
        guard.flush();
    }
}

impl<T> Drop for EpochCell<T> {
    fn drop(&mut self) {
        let current = std::mem::replace(&mut self.current, Atomic::null());
        // SAFETY: `&mut self` excludes readers and writers; the pointer is the one that `new` or `store` put there.
        drop(unsafe { current.try_into_owned() });
    }
}
