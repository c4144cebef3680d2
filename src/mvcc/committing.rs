//! Which threads are inside a commit that holds locks. A listener that is called there must not wait for locks: it
//! could wait for those of the very commit that waits for it, and no search for deadlocks would see that.

use std::cell::Cell;

thread_local! {
    /// Commits of this thread that hold locks, one inside the other.
    static COMMITTING: Cell<u32> = const { Cell::new(0) };
}

/// Ends with the commit, however that ends.
struct Committing;

impl Drop for Committing {
    fn drop(&mut self) {
        COMMITTING.set(COMMITTING.get().wrapping_sub(1));
    }
}

/// Runs a commit that holds locks.
#[inline]
pub(super) fn committing<T>(commit: impl FnOnce() -> T) -> T {
    COMMITTING.set(COMMITTING.get().wrapping_add(1));
    let _committing = Committing;
    commit()
}

/// Whether the calling thread is inside such a commit.
pub(super) fn is_committing() -> bool {
    COMMITTING.get() > 0
}
