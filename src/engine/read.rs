//! Point reads: newest source first, the first source that knows the key answers.

use super::core::Core;
use super::cursor::Bounds;
use super::keyspace::{KeyspaceCore, View};
use crate::base::checksum::key_hash;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::key::Trailer;
use crate::base::slice::Slice;
use crate::base::types::{EntryKind, SeqNo, UnknownKind};
use std::path::Path;

impl Core {
    /// The value of a key at the newest published state.
    #[inline]
    pub(crate) fn get(&self, keyspace: &KeyspaceCore, key: &[u8]) -> Result<Option<Slice>> {
        // The view before the sequence number: an unregistered reader may only rely on versions that its view holds.
        let view = keyspace.view();
        self.get_in_view(keyspace, &view, key, self.pipeline.visible())
    }

    /// The value of a key at a registered sequence number.
    pub(crate) fn get_at(&self, keyspace: &KeyspaceCore, key: &[u8], seq: SeqNo) -> Result<Option<Slice>> {
        let view = keyspace.view();
        self.get_in_view(keyspace, &view, key, seq)
    }

    /// The value of a key in a view.
    pub(crate) fn get_in_view(
        &self,
        keyspace: &KeyspaceCore,
        view: &View,
        key: &[u8],
        seq: SeqNo,
    ) -> Result<Option<Slice>> {
        keyspace.check_exists()?;
        self.health.check_open()?;
        match self.find(view, key, seq)? {
            None => Ok(None),
            Some((trailer, value)) => match trailer.kind() {
                Ok(EntryKind::Put) => Ok(Some(value)),
                Ok(EntryKind::Delete) => Ok(None),
                Err(unknown) => Err(unknown_kind(&self.dir, unknown)),
            },
        }
    }

    /// The newest entry of a key at or before `seq`.
    pub(crate) fn find(&self, view: &View, key: &[u8], seq: SeqNo) -> Result<Option<(Trailer, Slice)>> {
        let hash = key_hash(key);
        if let Some(found) = view.active.get(key, hash, seq) {
            return Ok(Some(found));
        }
        for frozen in &view.frozen {
            if let Some(found) = frozen.memtable.get(key, hash, seq) {
                return Ok(Some(found));
            }
        }
        for level in &view.tree.levels {
            for run in &level.runs {
                let Some(meta) = run.find(key) else { continue };
                let table = self.tables.get(meta)?;
                if !table.may_contain(hash) {
                    continue;
                }
                if let Some(found) = table.get(key, hash, seq)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

impl Core {
    /// Bytes of tables between two keys, as the indexes tell.
    pub(crate) fn approximate_bytes(&self, keyspace: &KeyspaceCore, bounds: &Bounds) -> Result<u64> {
        keyspace.check_exists()?;
        self.health.check_open()?;
        let view = keyspace.view();
        let mut sum = 0u64;
        for (_, run) in view.tree.runs() {
            for meta in run.overlapping(bounds.lower.as_deref(), bounds.upper.as_deref()) {
                let table = self.tables.get(meta)?;
                let start = bounds.lower.as_ref().map_or(0, |key| table.approximate_offset(key));
                let end = bounds.upper.as_ref().map_or(meta.bytes, |key| table.approximate_offset(key));
                sum = sum.saturating_add(end.saturating_sub(start));
            }
        }
        Ok(sum)
    }
}

/// The error of meeting an entry kind that this version does not know.
pub(crate) fn unknown_kind(dir: &Path, unknown: UnknownKind) -> Error {
    match unknown {
        UnknownKind::Reserved(name) => Error::new(
            ErrorKind::VersionUnsupported,
            format!("an entry of kind \"{name}\" was written by a later version"),
        ),
        UnknownKind::Invalid(byte) => Error::corrupt(dir, None, "an entry kind", format!("byte {byte}")),
    }
}
