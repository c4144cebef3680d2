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
            return self.write_freely(batch, durability);
        }
        self.write_locked(batch, durability, wait)
    }

    /// Runs `write`, which calls [`write_as`](Transactions::write_as), while its owner holds this key alone: however long
    /// that takes, unless it is the victim of a deadlock.
    pub(crate) fn holding<T>(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        write: impl FnOnce(&Arc<Owner>) -> Result<T>,
    ) -> Result<T> {
        let held = self.plain_owner();
        self.lock_turn(&held.owner, keyspace, key)?;
        write(&held.owner)
    }

    /// Commits a batch for an owner that holds locks already.
    pub(crate) fn write_as(
        &self,
        owner: &Arc<Owner>,
        batch: &BatchBuilder,
        durability: Durability,
        wait: LockWait,
    ) -> Result<SeqNo> {
        match self.gate.pass() {
            Some(_pass) => self.write_freely(batch, durability),
            None => self.write_owned(owner, batch, durability, wait),
        }
    }

    fn write_freely(&self, batch: &BatchBuilder, durability: Durability) -> Result<SeqNo> {
        let frozen = batch.freeze();
        self.core.timed_write(|| self.core.commit_batch(&frozen, batch.keyspaces(), durability, &|_| Ok(())))
    }

    fn write_locked(&self, batch: &BatchBuilder, durability: Durability, wait: LockWait) -> Result<SeqNo> {
        let held = self.plain_owner();
        self.write_owned(&held.owner, batch, durability, wait)
    }

    fn plain_owner(&self) -> Held<'_> {
        let owner = self.locks.register(OwnerInfo {
            id: self.new_id(),
            label: Some(Arc::from(LABEL)),
            level: "plain",
            priority: 0,
            started: self.now(),
        });
        Held { locks: &self.locks, owner }
    }

    fn write_owned(
        &self,
        owner: &Arc<Owner>,
        batch: &BatchBuilder,
        durability: Durability,
        wait: LockWait,
    ) -> Result<SeqNo> {
        let malformed = |_| Error::new(ErrorKind::InvalidArgument, "a batch that was not encoded here");
        let mut keys = ops(batch.bytes())
            .and_then(|ops| ops.map(|op| op.map(|op| (op.keyspace, op.key))).collect::<Result<Vec<_>, _>>())
            .map_err(malformed)?;
        keys.sort_unstable();
        keys.dedup();
        keys.iter().try_for_each(|(keyspace, key)| {
            let acquire = |wait| self.locks.acquire(owner, *keyspace, key, Mode::Exclusive, wait).map(|_| ());
            self.locked(wait, acquire)
        })?;
        self.commit_batch(batch, durability, None, owner.id())
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
