//! The narrow door through which the layer above sees the engine: a store of versions.
//!
//! Handles read and write through it, and so will transactions: they need snapshots that are one number, the newest
//! version of a key, a commit that is one batch, and the two ends of the commit order — what is visible and what was
//! assigned. Nothing of logs, tables or compaction shows.

use super::core::Core;
use super::cursor::{Bounds, Cursor};
use super::keyspace::KeyspaceCore;
use super::options::Durability;
use super::snapshot::Registration;
use crate::base::error::Result;
use crate::base::slice::Slice;
use crate::base::types::{KeyspaceId, SeqNo};
use crate::wal::FrozenBatch;
use std::sync::Arc;

/// A multi-version store: every commit has a sequence number, commits are totally ordered, and a reader sees all up to
/// its number.
pub(crate) trait VersionedStore {
    /// Registers a reader of what is visible now; its versions are kept until the registration ends.
    fn snapshot(&self) -> Registration;

    /// Sequence number of the newest commit that a new reader sees.
    fn visible_seq(&self) -> SeqNo;

    /// Sequence number of the newest commit that has a place in the order, visible or not.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the transaction layer, the next milestone"))]
    fn assigned_seq(&self) -> SeqNo;

    /// The value of a key as of a registered reader.
    fn read_at(&self, keyspace: &KeyspaceCore, key: &[u8], seq: SeqNo) -> Result<Option<Slice>>;

    /// Sequence number of the newest visible version of a key, a deletion included; `None` when it has none left.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the transaction layer, the next milestone"))]
    fn version_of(&self, keyspace: &KeyspaceCore, key: &[u8]) -> Result<Option<SeqNo>>;

    /// A cursor as of a registered reader.
    fn cursor_at(&self, keyspace: &Arc<KeyspaceCore>, reader: Registration, bounds: Bounds)
    -> Result<Cursor>;

    /// Commits a batch over these keyspaces, whole or not at all.
    fn commit_batch(
        &self,
        batch: &FrozenBatch,
        keyspaces: &[KeyspaceId],
        durability: Durability,
    ) -> Result<SeqNo>;
}

impl VersionedStore for Arc<Core> {
    fn snapshot(&self) -> Registration {
        self.registry.register(&self.pipeline)
    }

    fn visible_seq(&self) -> SeqNo {
        self.pipeline.visible()
    }

    fn assigned_seq(&self) -> SeqNo {
        self.commit.lock().next_seq.saturating_sub(1)
    }

    fn read_at(&self, keyspace: &KeyspaceCore, key: &[u8], seq: SeqNo) -> Result<Option<Slice>> {
        self.get_at(keyspace, key, seq)
    }

    fn version_of(&self, keyspace: &KeyspaceCore, key: &[u8]) -> Result<Option<SeqNo>> {
        let view = keyspace.view();
        let found = self.find(&view, key, self.pipeline.visible())?;
        Ok(found.map(|(trailer, _)| trailer.seq()))
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
    ) -> Result<SeqNo> {
        self.commit(batch, keyspaces, durability)
    }
}

#[cfg(test)]
mod tests;
