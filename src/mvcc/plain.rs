//! Plain writes: puts, deletes and batches outside of transactions. While no transaction is open they pass; otherwise
//! they lock their keys in order, wait, take part in deadlock detection, and are seen by SERIALIZABLE transactions.

use super::Transactions;
use super::locks::{LockTable, Mode, Owner, OwnerInfo};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{KeyspaceId, SeqNo};
use crate::engine::{Durability, LockWait, VersionedStore};
use crate::wal::{BatchBuilder, ops};
use std::sync::Arc;

/// What a plain write that waits is called in reports.
const LABEL: &str = "plain write";

impl Transactions {
    /// Commits one write.
    #[inline]
    pub(crate) fn write_one(
        &self,
        keyspace: KeyspaceId,
        durability: Durability,
        wait: LockWait,
        fill: impl FnOnce(&mut BatchBuilder) -> Result<()>,
    ) -> Result<SeqNo> {
        if let Some(_pass) = self.gate.pass() {
            return self.core.write_one(keyspace, durability, &|_| Ok(()), fill);
        }
        let mut batch = BatchBuilder::new();
        fill(&mut batch)?;
        self.write_locked(&batch, durability, wait)
    }

    /// Commits a batch.
    pub(crate) fn write(
        &self,
        batch: &BatchBuilder,
        durability: Durability,
        wait: LockWait,
    ) -> Result<SeqNo> {
        if let Some(_pass) = self.gate.pass() {
            let frozen = batch.freeze();
            return self
                .core
                .timed_write(|| self.core.commit_batch(&frozen, batch.keyspaces(), durability, &|_| Ok(())));
        }
        self.write_locked(batch, durability, wait)
    }

    fn write_locked(&self, batch: &BatchBuilder, durability: Durability, wait: LockWait) -> Result<SeqNo> {
        let malformed = |_| Error::new(ErrorKind::InvalidArgument, "a batch that was not encoded here");
        let mut keys = ops(batch.bytes())
            .and_then(|ops| ops.map(|op| op.map(|op| (op.keyspace, op.key))).collect::<Result<Vec<_>, _>>())
            .map_err(malformed)?;
        keys.sort_unstable();
        keys.dedup();
        let id = self.new_id();
        let owner = self.locks.register(OwnerInfo {
            id,
            label: Some(Arc::from(LABEL)),
            level: "plain",
            priority: 0,
            started: self.now(),
        });
        let held = Held { locks: &self.locks, owner };
        let locked = keys.iter().try_for_each(|(keyspace, key)| {
            let acquire =
                |wait| self.locks.acquire(&held.owner, *keyspace, key, Mode::Exclusive, wait).map(|_| ());
            self.locked(wait, acquire)
        });
        locked.and_then(|()| self.commit_batch(batch, durability, None, id))
    }
}

/// The locks of a plain write; let go of however the write ends, a panic included.
struct Held<'a> {
    locks: &'a LockTable,
    owner: Arc<Owner>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.locks.release_all(&self.owner);
    }
}
