//! The lock table of transactions: shared and exclusive locks on keys and ranges, fair queues, and deadlocks found
//! when they arise.
//!
//! # Locks
//!
//! Strict two-phase locking (Eswaran, Gray, Lorie, Traiger 1976): an [`Owner`] collects locks and lets go of all of
//! them at once, at its end. A lock covers one key, whether it exists or not, or all keys of a range with the gaps
//! between them. Locks conflict when they overlap, belong to different owners, and at least one is exclusive.
//!
//! * Key locks lie in [`STRIPES`] stripes by the hash of the key, each an ordered map under a mutex (`queue.rs`).
//! * A range lock is known to every stripe; whoever adds, grants or removes one holds all stripes (`range.rs`). So a
//!   key's stripe alone decides about the key.
//!
//! # Waiting
//!
//! First come, first served, with a head start for those who hold locks already, because others wait for these
//! (`queue.rs`). A request waits for the conflicting holders, and for the conflicting requests ahead of it, except for
//! those that themselves wait for its own owner, directly or behind others that do, because waiting for them could
//! never end. This one exception says that an upgrade from shared to exclusive goes first, and that an owner may lock
//! more inside a range that another one waits for (compare Gray and Reuter, "Transaction Processing", 1993, where
//! conversions of held locks go before the queue).
//!
//! Whoever takes a lock away (end, timeout) decides who goes on and says so in the owner's slot, in the order of the
//! queue; a waiter only sleeps on its slot (`owner.rs`, `wait.rs`). A granted request is granted once, a request
//! that gave up is never granted: both happen under the slot's mutex.
//!
//! # Deadlocks
//!
//! A cycle in the wait-for graph (Coffman, Elphick, Shoshani 1971; Holt 1972). Its edges go from a waiting request to
//! what it waits for as above. The request that closes a cycle is always one that begins to wait, so whoever begins
//! to wait searches breadth first for the shortest cycle through itself (`stripes.rs`, `edges.rs`, `graph.rs`), unless it
//! holds nothing: then nobody waits for it yet. Searches exclude each other, and a victim counts as gone once it is
//! chosen, so each cycle costs one victim. Edges are read stripe by stripe, not at one moment; that is enough, because
//! an owner that waits lets go of nothing. And a grant, in whatever order, closes no cycle: its new edges lead to an
//! owner that does not wait. A request that gives up can: others then wait for those whom they passed because of it.
//! So a waiter looks again after [`wait::RECHECK`], and then ever more rarely, if others came or gave up meanwhile.
//!
//! The exception for those who wait for the requester looks at the queue of one stripe. A chain that leads through the
//! queues of other stripes is not seen, and can end as a deadlock that another order would have avoided.
//!
//! # Costs and limits
//!
//! A lock without contention costs one hash, two uncontended mutexes, one insertion into a small ordered map and one
//! allocation for the key; nothing of the above. The end of an owner is linear in its locks. A range lock takes all
//! stripes. While ranges are held or waited for, locking a key compares it with each of them, one after the other. A
//! search visits each holder and each waiter at most once, and of exclusive requests only those of holders; what it
//! looks at is counted. What is remembered is counted and bounded (`lock_bytes_max`).

mod edges;
mod graph;
mod owner;
mod queue;
mod range;
mod report;
mod span;
mod stripes;
mod table;
mod wait;

#[cfg(test)]
mod tests;

pub(crate) use crate::base::deadlock::LockMode as Mode;
pub use graph::{WaitEdge, WaitGraph};
pub(crate) use owner::{Owner, OwnerInfo};
#[cfg(test)]
pub(crate) use report::VictimPolicy;
pub use table::LockStats;
pub(crate) use table::{LockOptions, LockTable};

use std::time::Duration;

/// Number of a transaction; never reused while a process lives.
pub(crate) type TxnId = u64;

/// Stripes of the table.
pub(crate) const STRIPES: usize = 64;

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until this much time of the clock has passed.
    Upto(Duration),
}

/// A lock that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Whether there was a wait.
    pub(crate) waited: bool,
    /// Whether the owner had no lock of its own on exactly this before.
    pub(crate) fresh: bool,
}
