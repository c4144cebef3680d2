//! The narrow door through which the layer above sees the engine: a store of versions.
//!
//! Handles read and write through it, and so will transactions: they need snapshots that are one number, the newest
//! version of a key, a commit that is one batch, and the two ends of the commit order — what is visible and what was
//! assigned. Nothing of logs, tables or compaction shows.

use super::core::Core;
use super::cursor::{Bounds, Cursor};
use super::keyspace::KeyspaceCore;
use super::options::Durability;
use super::pins::PinKind;
use super::snapshot::Registration;
use crate::base::error::Result;
use crate::base::slice::Slice;
use crate::base::types::{KeyspaceId, SeqNo};
use crate::wal::FrozenBatch;
use std::sync::Arc;
use std::time::Duration;

/// A multi-version store: every commit has a sequence number, commits are totally ordered, and a reader sees all up to
/// its number.
pub(crate) trait VersionedStore {
    /// Registers a reader of what is visible now; its versions are kept until the registration ends, or until it is
    /// given up for its age. Whoever reads other than through [`read_at`](Self::read_at) and
    /// [`cursor_at`](Self::cursor_at), or concludes anything from the absence of a newer version, asks
    /// [`Registration::check`] after that and before the answer.
    fn reader(&self, kind: PinKind, label: Option<Arc<str>>) -> Registration;

    /// As [`reader`](Self::reader), for whoever holds a lock that the timer for old readers must not be set under. To
    /// be followed by [`reader_registered`](Self::reader_registered) without that lock.
    /// Its age counts from `started`, a time of the clock.
    fn reader_under_lock(&self, kind: PinKind, label: Option<Arc<str>>, started: Duration) -> Registration;

    /// See [`reader_under_lock`](Self::reader_under_lock).
    fn reader_registered(&self);

    /// Registers a reader of the state as of a sequence number.
    ///
    /// # Errors
    /// `InvalidArgument` above what is visible; `SnapshotTooOld` when versions may be gone.
    fn reader_at(&self, seq: SeqNo) -> Result<Registration>;

    /// Registers a reader of the state as of a time, in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// `SnapshotTooOld` when versions may be gone.
    fn reader_at_time(&self, at_micros: u64) -> Result<Registration>;

    /// Sequence number of the newest commit that a new reader sees.
    fn visible_seq(&self) -> SeqNo;

    /// Sequence number of the newest commit that has a place in the order, visible or not.
    fn assigned_seq(&self) -> SeqNo;

    /// Returns when everything up to `seq` is visible; `Poisoned` when that can no longer happen.
    fn wait_visible(&self, seq: SeqNo) -> Result<()>;

    /// The value of a key as of a registered reader.
    ///
    /// # Errors
    /// `SnapshotTooOld` when it was given up.
    fn read_at(&self, keyspace: &KeyspaceCore, key: &[u8], reader: &Registration) -> Result<Option<Slice>>;

    /// The newest visible value of a key.
    fn read_newest(&self, keyspace: &KeyspaceCore, key: &[u8]) -> Result<Option<Slice>>;

    /// Whether a key has a visible version, a deletion included, that a registered reader at `seq` does not see.
    fn changed_since(&self, keyspace: &KeyspaceCore, key: &[u8], seq: SeqNo) -> Result<bool>;

    /// A key within bounds of which that is so, if there is one.
    fn changed_in_range_since(
        &self,
        keyspace: &Arc<KeyspaceCore>,
        bounds: &Bounds,
        seq: SeqNo,
    ) -> Result<Option<Vec<u8>>>;

    /// A cursor as of a registered reader.
    fn cursor_at(&self, keyspace: &Arc<KeyspaceCore>, reader: Registration, bounds: Bounds)
    -> Result<Cursor>;

    /// Commits a batch over these keyspaces, whole or not at all. `check` is asked with the sequence number the commit
    /// will have, in the order of these numbers and one at a time; its error is answered and nothing was done.
    fn commit_batch(
        &self,
        batch: &FrozenBatch,
        keyspaces: &[KeyspaceId],
        durability: Durability,
        check: &dyn Fn(SeqNo) -> Result<()>,
    ) -> Result<SeqNo>;
}

impl VersionedStore for Arc<Core> {
    fn reader(&self, kind: PinKind, label: Option<Arc<str>>) -> Registration {
        let reader = self.reader_under_lock(kind, label, self.env.clock.now());
        self.reader_registered();
        reader
    }

    fn reader_under_lock(&self, kind: PinKind, label: Option<Arc<str>>, started: Duration) -> Registration {
        self.registry.register(&self.pipeline, kind, label, started)
    }

    fn reader_registered(&self) {
        self.plan_look();
    }

    fn reader_at(&self, seq: SeqNo) -> Result<Registration> {
        let reader = self.registry.register_at(&self.pipeline, seq)?;
        self.plan_look();
        Ok(reader)
    }

    fn reader_at_time(&self, at_micros: u64) -> Result<Registration> {
        let reader = self.registry.register_at_time(&self.pipeline, at_micros)?;
        self.plan_look();
        Ok(reader)
    }

    fn visible_seq(&self) -> SeqNo {
        self.pipeline.visible()
    }

    fn assigned_seq(&self) -> SeqNo {
        self.commit.lock().next_seq.saturating_sub(1)
    }

    fn wait_visible(&self, seq: SeqNo) -> Result<()> {
        self.pipeline.wait_published(seq)
    }

    fn read_at(&self, keyspace: &KeyspaceCore, key: &[u8], reader: &Registration) -> Result<Option<Slice>> {
        let value = self.get_at(keyspace, key, reader.seq())?;
        reader.check()?;
        Ok(value)
    }

    fn read_newest(&self, keyspace: &KeyspaceCore, key: &[u8]) -> Result<Option<Slice>> {
        self.get(keyspace, key)
    }

    fn changed_since(&self, keyspace: &KeyspaceCore, key: &[u8], seq: SeqNo) -> Result<bool> {
        self.find_newer(keyspace, key, seq)
    }

    fn changed_in_range_since(
        &self,
        keyspace: &Arc<KeyspaceCore>,
        bounds: &Bounds,
        seq: SeqNo,
    ) -> Result<Option<Vec<u8>>> {
        self.find_newer_in_range(keyspace, bounds, seq)
    }

    fn cursor_at(
        &self,
        keyspace: &Arc<KeyspaceCore>,
        reader: Registration,
        bounds: Bounds,
    ) -> Result<Cursor> {
        self.cursor(keyspace, reader, bounds)
    }

    fn commit_batch(
        &self,
        batch: &FrozenBatch,
        keyspaces: &[KeyspaceId],
        durability: Durability,
        check: &dyn Fn(SeqNo) -> Result<()>,
    ) -> Result<SeqNo> {
        self.commit(batch, keyspaces, durability, check)
    }
}

#[cfg(test)]
mod tests;
