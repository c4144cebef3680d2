//! The door to locks. A lock has a rank; in debug builds, taking one while holding a rank at or above its own
//! panics with both names, so that a lock order inversion fails the first test that walks the path.
//!
//! `docs/locking.md` lists who holds what.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Order in which locks may be taken: only upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Search for deadlocks among transactions, one at a time.
    LockGraph = 1,
    /// Stripes of the transactions' lock table.
    LockTable = 2,
    /// Commit queue: sequence numbers and log reservations.
    Commit = 3,
    /// Manifest log, held across its I/O.
    Manifest = 4,
    /// Engine state: memtable lists, current versions, jobs.
    Engine = 5,
    /// Publication of commits and sync of the log.
    Publish = 6,
    /// Sync of one log segment, held across the system call.
    LogSync = 7,
    /// What serializable transactions conflict over.
    Ssi = 8,
    /// Registered snapshots.
    Snapshots = 9,
    /// Leaves: never held while another lock of the engine is taken.
    Leaf = 10,
    /// Inside a device, the system's files or a simulated one: below everything of the engine.
    Device = 11,
}

#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn push(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            if let Some(top) = held.iter().max() {
                assert!(*top < rank, "lock order: taking {rank:?} while holding {top:?}");
            }
            held.push(rank);
        });
    }

    pub(super) fn push_next(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            if let Some(top) = held.iter().max() {
                assert!(*top <= rank, "lock order: taking a further {rank:?} while holding {top:?}");
            }
            held.push(rank);
        });
    }

    pub(super) fn pop(rank: Rank) {
        HELD.with_borrow_mut(|held| {
            if let Some(index) = held.iter().rposition(|other| *other == rank) {
                held.remove(index);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
mod held {
    use super::Rank;
    #[inline(always)]
    pub(super) fn push(_: Rank) {}
    #[inline(always)]
    pub(super) fn push_next(_: Rank) {}
    #[inline(always)]
    pub(super) fn pop(_: Rank) {}
}

/// A mutex with a rank. It owns the data it guards.
#[derive(Debug)]
pub(crate) struct Mutex<T> {
    rank: Rank,
    inner: parking_lot::Mutex<T>,
}

impl<T> Mutex<T> {
    /// A mutex of this rank.
    pub(crate) const fn new(rank: Rank, value: T) -> Mutex<T> {
        Mutex { rank, inner: parking_lot::Mutex::new(value) }
    }

    /// Takes the lock, waiting for it.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        held::push(self.rank);
        MutexGuard { guard: self.inner.lock(), rank: self.rank }
    }

    /// Takes the lock while others of the same rank may be held: those of one array, which everybody takes in the
    /// array's order.
    pub(crate) fn lock_next(&self) -> MutexGuard<'_, T> {
        held::push_next(self.rank);
        MutexGuard { guard: self.inner.lock(), rank: self.rank }
    }
}

/// A taken [`Mutex`].
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    guard: parking_lot::MutexGuard<'a, T>,
    rank: Rank,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        held::pop(self.rank);
    }
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    inner: parking_lot::Condvar,
}

impl Condvar {
    /// Waits until notified; wakes may be spurious.
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.inner.wait(&mut guard.guard);
    }

    /// Waits until notified or until the time has passed; says whether it timed out.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> bool {
        self.inner.wait_for(&mut guard.guard, timeout).timed_out()
    }

    /// Wakes all waiters.
    pub(crate) fn notify_all(&self) {
        self.inner.notify_all();
    }
}

/// Lets one thread wait until another wakes it. Made by the thread that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    thread: std::thread::Thread,
    woken: AtomicBool,
}

impl Waiter {
    /// A waiter for the calling thread.
    pub(crate) fn new() -> Waiter {
        Waiter { thread: std::thread::current(), woken: AtomicBool::new(false) }
    }

    /// Forgets earlier wakes.
    pub(crate) fn reset(&self) {
        self.woken.store(false, Ordering::Relaxed);
    }

    /// Returns once `wake` was called after the last `reset`.
    pub(crate) fn wait(&self) {
        while !self.woken.load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    /// Ends the wait.
    pub(crate) fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(debug_assertions)]
    fn taking_a_lower_rank_while_holding_a_higher_one_fails() {
        let commit = Mutex::new(Rank::Commit, ());
        let engine = Mutex::new(Rank::Engine, ());
        {
            let _first = commit.lock();
            let _second = engine.lock();
        }
        let inverted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _first = engine.lock();
            let _second = commit.lock();
        }));
        let message = *inverted.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("taking Commit while holding Engine"), "{message}");
    }

    #[test]
    #[cfg(debug_assertions)]
    fn locks_of_one_array_are_taken_together_but_not_under_higher_ones() {
        let stripes = [Mutex::new(Rank::LockTable, ()), Mutex::new(Rank::LockTable, ())];
        let commit = Mutex::new(Rank::Commit, ());
        drop(stripes.each_ref().map(Mutex::lock_next));
        let twice = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _first = stripes[0].lock();
            let _second = stripes[1].lock();
        }));
        assert!(twice.is_err(), "without saying so");
        let inverted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _first = commit.lock();
            let _second = stripes[0].lock_next();
        }));
        assert!(inverted.is_err(), "under a higher rank");
    }
}
