//! Options of one write.

use super::Durability;
use std::time::Duration;

/// Choices of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    pub(crate) durability: Option<Durability>,
    pub(crate) lock_wait: LockWait,
}

impl WriteOptions {
    /// The database's defaults.
    pub fn new() -> WriteOptions {
        WriteOptions::default()
    }

    /// Durability of this write.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// What a write outside of transactions does when a transaction holds the lock of its key. Default: wait as long
    /// as [`Options::lock_timeout`](crate::Options::lock_timeout).
    pub fn lock_wait(mut self, wait: LockWait) -> Self {
        self.lock_wait = wait;
        self
    }
}

/// What to do when a lock is held by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LockWait {
    /// Wait as long as [`Options::lock_timeout`](crate::Options::lock_timeout) says.
    #[default]
    Default,
    /// Do not wait: `LockTimeout` at once.
    NoWait,
    /// Wait at most this long, then `LockTimeout`.
    Timeout(Duration),
}
