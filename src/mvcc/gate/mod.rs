//! The gate for plain writes, and what it is made of: `parts`, which a model checker replaces by its own.

mod kernel;

pub(crate) use kernel::{Gate, is_passing};

/// What the kernel synchronizes with.
mod parts {
    pub(super) use crate::base::metrics::thread_stripe;
    pub(super) use crate::base::sync::{Condvar, Mutex, Rank};
    pub(super) use std::sync::atomic::AtomicU64;
}

#[cfg(test)]
mod model;
