//! The commit pipeline, and what it is made of: `parts`, which a model checker replaces by its own.

mod kernel;

pub(crate) use kernel::{Pipeline, SyncTarget, Ticket};

/// What the kernel synchronizes with.
mod parts {
    pub(super) use crate::base::sync::{Mutex, MutexGuard, Rank, Waiter};
    pub(super) use std::sync::atomic::AtomicU64;
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
