//! The commit of a transaction: locks (if it was optimistic), one batch, the check for dangerous structures in the
//! order of commits, and only after it is visible the end of its locks.

use super::Transactions;
use super::committing::committing;
use super::error::serialization;
use super::locks::Mode;
use super::ssi::{Tracker, WriteKeys};
use super::txn::{Claim, Txn, TxnId};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{KeyspaceId, SeqNo};
use crate::engine::{Durability, KeyspaceCore, VersionedStore};
use crate::wal::{BatchBuilder, FrozenBatch, ops};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A thread keeps its buffer for commits up to this size.
const BATCH_BYTES_KEPT: usize = 1 << 16;

thread_local! {
    /// Reused by the commits of a thread.
    static BATCH: Cell<Option<BatchBuilder>> = const { Cell::new(None) };
}

impl Txn {
    /// Commits; answers the sequence number of its last operation, or of its snapshot if it wrote nothing.
    pub(crate) fn commit(self: Box<Self>, durability: Option<Durability>) -> Result<SeqNo> {
        self.commit_with(durability, |_| Ok(()))
    }

    /// Commits together with what `add` puts into the batch.
    pub(crate) fn commit_with(
        self: Box<Self>,
        durability: Option<Durability>,
        add: impl FnOnce(&mut BatchBuilder) -> Result<()>,
    ) -> Result<SeqNo> {
        self.check_usable()?;
        let durability = self.manager.core.durability(durability.or(self.options.durability));
        if durability == Durability::Memory {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a transaction cannot have durability Memory, after a crash part of it would be there: give it Os or Disk in its \
                 options or at the commit",
            ));
        }
        if !self.shared.fate.settle() {
            return Err(super::error::expired(self.id()));
        }
        let result = self.try_commit(durability, add);
        if result.is_ok() {
            self.manager.counters.committed.add(1);
            self.end();
        }
        result.map_err(|error| self.failed(error))
    }

    fn try_commit(
        &self,
        durability: Durability,
        add: impl FnOnce(&mut BatchBuilder) -> Result<()>,
    ) -> Result<SeqNo> {
        if self.options.optimistic {
            self.validate()?;
        }
        // Whoever commits on this thread meanwhile, such as a listener, makes a buffer of its own.
        let mut batch = BATCH.take().unwrap_or_default();
        batch.clear();
        let filled = self.shared.writes.lock().append_to(&mut batch).and_then(|()| add(&mut batch));
        let committed = filled.and_then(|()| match batch.count() {
            0 => self.commit_reads(),
            _ => self.manager.commit_batch(&batch, durability, self.tracker.borrow().as_ref(), self.id()),
        });
        if batch.bytes_len() <= BATCH_BYTES_KEPT {
            BATCH.set(Some(batch));
        }
        committed
    }

    /// The commit of a transaction that wrote nothing.
    fn commit_reads(&self) -> Result<SeqNo> {
        if let Some(tracker) = &*self.tracker.borrow() {
            tracker.commit_read_only().map_err(|danger| serialization(&danger, self.id()))?;
        }
        self.check_reader()?;
        Ok(self.snapshot_seq().unwrap_or_else(|| self.manager.core.visible_seq()))
    }

    /// Locks what an optimistic transaction wrote and claimed, in an order in which such commits cannot deadlock with
    /// each other, and makes sure that nobody changed it since the snapshot.
    pub(super) fn validate(&self) -> Result<()> {
        let keyspaces = self.keyspaces.borrow();
        let find = |id: KeyspaceId| keyspaces.iter().find(|keyspace| keyspace.id == id);
        let mut keys: Vec<(Arc<KeyspaceCore>, Box<[u8]>)> = Vec::new();
        for (id, key, _) in self.shared.writes.lock().iter() {
            keys.extend(find(id).map(|keyspace| (Arc::clone(keyspace), Box::from(key))));
        }
        for claim in &*self.claims.borrow() {
            if let Claim::Key(keyspace, key) = claim {
                keys.push((Arc::clone(keyspace), key.clone()));
            }
        }
        keys.sort_unstable_by(|a, b| (a.0.id, &a.1).cmp(&(b.0.id, &b.1)));
        keys.dedup_by(|a, b| a.0.id == b.0.id && a.1 == b.1);
        for (keyspace, key) in &keys {
            self.lock_key(keyspace, key, Mode::Exclusive)?;
        }
        for claim in &*self.claims.borrow() {
            if let Claim::Range(keyspace, bounds) = claim {
                self.lock_range(keyspace, bounds)?;
            }
        }
        self.shared.is_hidden.store(false, Ordering::Release);
        Ok(())
    }
}

impl Transactions {
    /// Commits a batch whose keys are locked; answers the sequence number of its last operation.
    pub(super) fn commit_batch(
        &self,
        batch: &BatchBuilder,
        durability: Durability,
        tracker: Option<&Tracker>,
        id: TxnId,
    ) -> Result<SeqNo> {
        let frozen = batch.freeze();
        // Worked out before the commit lock, unless recording begins just now.
        let known = (tracker.is_some() || self.ssi.is_recording()).then(|| write_keys(&frozen));
        if let Some(tracker) = tracker {
            tracker.review();
        }
        let check = |seq: SeqNo| {
            if tracker.is_none() && !self.ssi.is_recording() {
                return Ok(());
            }
            let keys = known.clone().unwrap_or_else(|| write_keys(&frozen));
            let checked = self.ssi.check_and_record(tracker, &keys, seq, self.core.visible_seq());
            checked.map_err(|danger| serialization(&danger, id))
        };
        let commit = || self.core.commit_batch(&frozen, batch.keyspaces(), durability, &check);
        let committed = committing(|| self.core.timed_write(commit));
        if let (Err(error), Some(tracker)) = (&committed, tracker)
            && error.kind() != ErrorKind::Conflict
        {
            self.ssi.withdraw(tracker);
        }
        committed
    }
}

/// The keys that a batch writes.
fn write_keys(batch: &FrozenBatch) -> WriteKeys {
    WriteKeys::collect(ops(&batch.bytes).into_iter().flatten().flatten().map(|op| (op.keyspace, op.key)))
}
