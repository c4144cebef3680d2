//! Who is open and holds what, and what happened so far.

use super::Transactions;
use super::locks::LockStats;
use super::options::Isolation;
use super::ssi::SsiStats;
use crate::base::deadlock::LockDescription;
use crate::engine::VersionedStore;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An open transaction, for reports. See [`Db::transactions`](crate::Db::transactions).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransactionInfo {
    /// Its number, which also stands in errors and deadlock reports.
    pub id: u64,
    /// What it was called.
    pub label: Option<String>,
    /// Its level.
    pub isolation: Isolation,
    /// How long it is open.
    pub age: Duration,
    /// Keys written and not committed yet.
    pub writes: usize,
    /// Memory of these writes.
    pub write_bytes: usize,
    /// Locks it holds.
    pub locks: Vec<LockDescription>,
    /// The lock it waits for at this moment, and for how long.
    pub waiting_for: Option<(LockDescription, Duration)>,
}

impl fmt::Display for TransactionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}", self.id)?;
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        write!(
            f,
            ", {}, open for {:?}: {} keys written ({} bytes), {} locks",
            self.isolation,
            self.age,
            self.writes,
            self.write_bytes,
            self.locks.len()
        )?;
        match &self.waiting_for {
            Some((lock, waited)) => write!(f, ", has waited {waited:?} for {lock}"),
            None => Ok(()),
        }
    }
}

/// What transactions did so far. See [`Db::transaction_stats`](crate::Db::transaction_stats).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransactionStats {
    /// Transactions begun.
    pub begun: u64,
    /// Committed.
    pub committed: u64,
    /// Rolled back, by their owner or after an error.
    pub rolled_back: u64,
    /// Transactions that failed because a key was changed after their snapshot, found at a write or at the commit.
    pub write_conflicts: u64,
    /// Transactions that failed because there would be no serial order.
    pub serialization_conflicts: u64,
    /// Rolled back for their age.
    pub expired: u64,
    /// Open now.
    pub open: usize,
    /// Memory of all uncommitted writes.
    pub write_bytes: usize,
    /// Prepared and not ended.
    pub prepared: usize,
    /// Bytes of their records on disk.
    pub prepared_bytes: u64,
    /// The lock table.
    pub locks: LockStats,
    /// What SERIALIZABLE transactions need remembered.
    pub serializable: SerializableStats,
}

/// What the detection of conflicts between SERIALIZABLE transactions takes. Part of [`TransactionStats`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SerializableStats {
    /// Open transactions whose reads are tracked.
    pub open: usize,
    /// Commits that are remembered for them.
    pub retained_commits: usize,
    /// Memory of reads and commits.
    pub bytes: usize,
    /// Commits checked so far.
    pub checks: u64,
    /// Of them, refused.
    pub conflicts: u64,
    /// How often something was remembered more coarsely for want of memory.
    pub coarsened: u64,
    /// Whether commits are being remembered now.
    pub is_recording: bool,
}

impl From<SsiStats> for SerializableStats {
    fn from(stats: SsiStats) -> SerializableStats {
        let SsiStats { is_recording, open, prepared: _, retained, bytes, checks, conflicts, coarsened } =
            stats;
        SerializableStats {
            open,
            retained_commits: retained,
            bytes,
            checks,
            conflicts,
            coarsened,
            is_recording,
        }
    }
}

impl Transactions {
    /// All open transactions, oldest first.
    pub(crate) fn list(&self) -> Vec<TransactionInfo> {
        let mut open: Vec<_> = self.open.lock().values().cloned().collect();
        open.sort_unstable_by_key(|shared| shared.id);
        let now = self.now();
        let info = open.into_iter().map(|shared| {
            let (writes, write_bytes) = {
                let writes = shared.writes.lock();
                (writes.len(), writes.bytes())
            };
            TransactionInfo {
                id: shared.id,
                label: shared.label.as_deref().map(str::to_string),
                isolation: shared.isolation,
                age: now.saturating_sub(shared.started),
                writes,
                write_bytes,
                locks: self.locks.held_by(&shared.owner),
                waiting_for: self.locks.waiting_for(&shared.owner).map(|wanted| (wanted.lock, wanted.waited)),
            }
        });
        info.collect()
    }

    /// What happened so far.
    pub(crate) fn stats(&self) -> TransactionStats {
        let counters = &self.counters;
        let open = self.open.lock().len();
        let prepared = self.prepared_open.lock().len();
        self.ssi.collect(self.core.visible_seq());
        TransactionStats {
            begun: counters.begun.get(),
            committed: counters.committed.get(),
            rolled_back: counters.rolled_back.get(),
            write_conflicts: counters.write_conflicts.get(),
            serialization_conflicts: counters.serialization_conflicts.get(),
            expired: counters.expired.get(),
            open,
            write_bytes: self.write_bytes.load(Ordering::Relaxed),
            prepared,
            prepared_bytes: self.prepared.bytes(),
            locks: self.locks.stats(),
            serializable: self.ssi.stats().into(),
        }
    }
}
