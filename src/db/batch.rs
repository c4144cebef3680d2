//! `Batch`: several writes, over any keyspaces, that happen together or not at all.

use super::{Handle, Keyspace};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::KeyspaceId;
use crate::engine::{VersionedStore, WriteOptions};
use crate::wal::BatchBuilder;
use std::fmt;
use std::sync::Arc;

/// Collects writes and commits them atomically: to readers, and on disk.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// let (users, emails) = (db.keyspace("users")?, db.keyspace("emails")?);
/// let mut batch = db.batch();
/// batch.put(&users, "1", "ada")?;
/// batch.put(&emails, "ada@example.org", "1")?;
/// batch.commit()?;
/// # Ok(()) }
/// ```
pub struct Batch {
    pub(super) handle: Arc<Handle>,
    pub(super) builder: BatchBuilder,
}

/// Proof of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Sequence number of the commit's last operation: commits are ordered by it.
    pub seq: u64,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Batch {
    pub(super) fn new(handle: Arc<Handle>) -> Batch {
        Batch { handle, builder: BatchBuilder::new() }
    }

    /// Sets a key. Of several writes to one key the last wins.
    ///
    /// # Errors
    /// `InvalidArgument`, `LimitExceeded`: the entry is not added. `NotFound` for a dropped keyspace.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let id = self.check_keyspace(keyspace)?;
        self.check_size(key.len().saturating_add(value.len()))?;
        self.builder.put(id, key, value)
    }

    /// Removes a key, present or not.
    ///
    /// # Errors
    /// As [`put`](Batch::put).
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        let id = self.check_keyspace(keyspace)?;
        self.check_size(key.len())?;
        self.builder.delete(id, key)
    }

    /// Number of writes in it.
    pub fn len(&self) -> usize {
        self.builder.count() as usize
    }

    /// Whether it has no writes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all writes, keeping the memory.
    pub fn clear(&mut self) {
        self.builder.clear();
    }

    /// Commits with the database's durability.
    ///
    /// # Errors
    /// See [`Db::put`](crate::Db::put).
    pub fn commit(self) -> Result<Receipt> {
        self.commit_with(WriteOptions::new())
    }

    /// Commits.
    ///
    /// # Errors
    /// See [`Db::put`](crate::Db::put); `InvalidArgument` for
    /// [`Durability::Memory`](crate::Durability::Memory) over several keyspaces.
    pub fn commit_with(self, options: WriteOptions) -> Result<Receipt> {
        let core = self.handle.core();
        if self.is_empty() {
            core.health.check_writable()?;
            return Ok(Receipt { seq: core.visible_seq() });
        }
        let durability = core.durability(options.durability);
        let seq = self.handle.txns().write(&self.builder, durability, options.lock_wait)?;
        Ok(Receipt { seq })
    }

    fn check_keyspace(&self, keyspace: &Keyspace) -> Result<KeyspaceId> {
        if !keyspace.belongs_to(&self.handle) {
            return Err(Error::new(ErrorKind::InvalidArgument, "the keyspace belongs to another database"));
        }
        keyspace.core_keyspace().check_exists()?;
        Ok(keyspace.core_keyspace().id)
    }

    /// Refuses an entry of so many bytes if the batch would become too large with it.
    fn check_size(&self, more: usize) -> Result<()> {
        /// Most that an entry takes beside its key and value.
        const OVERHEAD: usize = 24;
        let bytes = self.builder.bytes_len().saturating_add(more).saturating_add(OVERHEAD);
        self.handle.core().options.check_batch(bytes as u64)
    }
}
