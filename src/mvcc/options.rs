//! What a transaction can be asked to be.

use crate::engine::{Durability, LockWait};
use std::fmt;
use std::time::Duration;

/// How much of what others do a transaction sees. `docs/isolation.md` shows each level with the anomalies it allows.
///
/// Writes take an exclusive lock on their key at every level, so a transaction never overwrites what another has
/// written and not yet committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isolation {
    /// Reads see the newest value, also what other transactions have not committed and may yet take back.
    ReadUncommitted,
    /// Every read (a get, a scan, an iterator) sees what was committed when it began.
    ReadCommitted,
    /// All reads see what was committed when the transaction began (snapshot isolation). A write to a key that
    /// somebody changed since then fails with `Conflict`.
    RepeatableRead,
    /// As if the transactions had run one after the other, in an order that agrees with real time (serializable
    /// snapshot isolation). What would break that fails with `Conflict`.
    Serializable,
}

impl Isolation {
    /// The level in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Isolation::ReadUncommitted => "read uncommitted",
            Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        }
    }

    /// Whether all reads of a transaction see one state.
    pub(crate) fn has_snapshot(self) -> bool {
        matches!(self, Isolation::RepeatableRead | Isolation::Serializable)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a transaction begins. See [`Db::begin_with`](crate::Db::begin_with).
///
/// ```
/// use esker::{Isolation, TransactionOptions};
/// use std::time::Duration;
/// let options = TransactionOptions::new(Isolation::Serializable)
///     .label("transfer")
///     .lock_timeout(Duration::from_millis(500));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct TransactionOptions {
    pub(crate) isolation: Isolation,
    pub(crate) label: Option<String>,
    pub(crate) read_only: bool,
    pub(crate) optimistic: bool,
    pub(crate) lazy_snapshot: bool,
    pub(crate) lock_wait: LockWait,
    pub(crate) priority: i32,
    pub(crate) expires_after: Option<Duration>,
    pub(crate) durability: Option<Durability>,
}

impl TransactionOptions {
    /// A transaction of this level, with everything else as usual: read and write, pessimistic, snapshot at `begin`.
    pub fn new(isolation: Isolation) -> TransactionOptions {
        TransactionOptions {
            isolation,
            label: None,
            read_only: false,
            optimistic: false,
            lazy_snapshot: false,
            lock_wait: LockWait::Default,
            priority: 0,
            expires_after: None,
            durability: None,
        }
    }

    /// A name for reports: of deadlocks, of who holds locks, of who keeps old versions.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Declares that the transaction only reads: it then never waits and never fails with `Conflict`, at any level.
    /// Writes and locking reads are `InvalidArgument`.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Takes no locks before the commit, which then checks that nothing written was changed by others since the
    /// snapshot. Pays where conflicts are rare. For REPEATABLE READ and SERIALIZABLE only.
    pub fn optimistic(mut self) -> Self {
        self.optimistic = true;
        self
    }

    /// Takes the snapshot at the first operation instead of at `begin`; when that operation locks, after the lock was
    /// granted, so that it does not conflict with those it waited for.
    pub fn lazy_snapshot(mut self) -> Self {
        self.lazy_snapshot = true;
        self
    }

    /// The longest wait for one lock.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_wait = LockWait::Timeout(timeout);
        self
    }

    /// Does not wait for locks: `LockTimeout` at once, which leaves the transaction as it was.
    pub fn no_wait(mut self) -> Self {
        self.lock_wait = LockWait::NoWait;
        self
    }

    /// Of the members of a deadlock, those with the lowest priority are chosen from first. Default 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Rolls the transaction back when it is still open after this time and others ask for locks: for clients that
    /// may vanish. Its locks are free and its writes gone then; its snapshot, and its share of the memory for writes, are
    /// held until its handle is used, which answers [`TransactionFailed`](crate::ErrorKind::TransactionFailed), or dropped.
    pub fn expires_after(mut self, age: Duration) -> Self {
        self.expires_after = Some(age);
        self
    }

    /// Durability of the commit, instead of the database's. `Memory` is refused.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// How often and how patiently [`Db::transact`](crate::Db::transact) tries again.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    pub(crate) attempts: u32,
    pub(crate) pause_min: Duration,
    pub(crate) pause_max: Duration,
}

impl Default for RetryPolicy {
    /// Ten attempts; pauses that double from 1 ms to at most 100 ms, each drawn at random between half and all of it.
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 10,
            pause_min: Duration::from_millis(1),
            pause_max: Duration::from_millis(100),
        }
    }
}

impl RetryPolicy {
    /// The usual policy.
    pub fn new() -> RetryPolicy {
        RetryPolicy::default()
    }

    /// The most attempts, the first included; at least 1.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Bounds of the pause between attempts.
    pub fn pause(mut self, min: Duration, max: Duration) -> Self {
        (self.pause_min, self.pause_max) = (min, max.max(min));
        self
    }
}
