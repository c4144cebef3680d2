//! The door to locks as a model checker sees it: the same surface as `sync`, over shuttle's primitives. A kernel that is
//! compiled a second time over these is tried in many interleavings. Tests only.

pub(crate) use super::sync::Rank;
pub(crate) use shuttle::sync::atomic::AtomicU64;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use std::ops::{Deref, DerefMut};

/// Runs a model in many interleavings, of both kinds that find different faults.
pub(crate) fn explore(model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), 300);
    shuttle::check_pct(model, 300, 3);
}

/// A number of the calling thread.
pub(crate) fn thread_stripe() -> usize {
    usize::from(shuttle::thread::current().id())
}

/// As `sync::Mutex`.
#[derive(Debug)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(_: Rank, value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap()))
    }
}

/// As `sync::MutexGuard`. Empty only while its thread waits for a condition.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap()
    }
}

/// As `sync::Condvar`.
#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.0 = guard.0.take().map(|taken| self.0.wait(taken).unwrap());
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// As `sync::Waiter`.
#[derive(Debug)]
pub(crate) struct Waiter {
    thread: shuttle::thread::Thread,
    woken: AtomicBool,
}

impl Waiter {
    pub(crate) fn new() -> Waiter {
        Waiter { thread: shuttle::thread::current(), woken: AtomicBool::new(false) }
    }

    pub(crate) fn reset(&self) {
        self.woken.store(false, Ordering::Relaxed);
    }

    pub(crate) fn wait(&self) {
        while !self.woken.load(Ordering::Acquire) {
            shuttle::thread::park();
        }
    }

    pub(crate) fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
