//! Whether something changed since a reader's sequence number: what a transaction asks before it overwrites.
//!
//! Nearly always answered from memory: tables whose newest entry is as old as the reader are left alone.

use super::core::Core;
use super::cursor::{Bounds, Source};
use super::keyspace::KeyspaceCore;
use super::run_iter::RunIter;
use crate::base::checksum::key_hash;
use crate::base::error::Result;
use crate::base::iter::InternalIter;
use crate::base::key::{KeyRef, Trailer};
use crate::base::types::SeqNo;
use crate::memtable::Memtable;
use crate::sstable::TableIterOptions;
use std::sync::Arc;

impl Core {
    /// Whether a key has a visible version newer than `seq`, a deletion included.
    pub(crate) fn find_newer(&self, keyspace: &KeyspaceCore, key: &[u8], seq: SeqNo) -> Result<bool> {
        keyspace.check_exists()?;
        self.health.check_open()?;
        // The view first: what is published by then is in it or in one that replaced it later, which is newer still.
        let view = keyspace.view();
        let visible = self.pipeline.visible();
        if visible <= seq {
            return Ok(false);
        }
        let hash = key_hash(key);
        let is_newer = |found: Option<Trailer>| found.map(|trailer| trailer.seq() > seq);
        let in_memory =
            |memtable: &Memtable| is_newer(memtable.get(key, hash, visible).map(|(trailer, _)| trailer));
        if let Some(answer) = is_newer(view.active.get(key, hash, visible).map(|(trailer, _)| trailer)) {
            return Ok(answer);
        }
        if let Some(answer) = view.frozen.iter().find_map(|frozen| in_memory(&frozen.memtable)) {
            return Ok(answer);
        }
        for (_, run) in view.tree.runs() {
            let Some(meta) = run.find(key).filter(|meta| meta.seq_max > seq) else { continue };
            let table = self.tables.get(meta)?;
            if !table.may_contain(hash) {
                continue;
            }
            if let Some((trailer, _)) = table.get(key, hash, visible)? {
                return Ok(trailer.seq() > seq);
            }
        }
        Ok(false)
    }

    /// The first key within bounds that has a visible version newer than `seq`, a deletion included.
    pub(crate) fn find_newer_in_range(
        &self,
        keyspace: &Arc<KeyspaceCore>,
        bounds: &Bounds,
        seq: SeqNo,
    ) -> Result<Option<Vec<u8>>> {
        keyspace.check_exists()?;
        self.health.check_open()?;
        let view = keyspace.view();
        let visible = self.pipeline.visible();
        if visible <= seq {
            return Ok(None);
        }
        let mut sources = vec![Source::Memtable(Memtable::List(Arc::clone(&view.active)).iter())];
        sources.extend(view.frozen.iter().map(|frozen| Source::Memtable(frozen.memtable.iter())));
        let options = TableIterOptions { fill_cache: true, bypass: false };
        let runs = view.tree.runs().map(|(_, run)| run);
        let newer = runs.filter(|run| run.tables.iter().any(|table| table.seq_max > seq));
        sources.extend(
            newer.map(|run| Source::Run(RunIter::new(Arc::clone(run), Arc::clone(&self.tables), options))),
        );
        let mut first: Option<Vec<u8>> = None;
        for mut source in sources {
            let found = first_newer(&mut source, bounds, seq, visible)?;
            first = match (first, found) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(first)
    }
}

/// The first key of a source within bounds with a version after `seq` and at or before `visible`.
fn first_newer(source: &mut Source, bounds: &Bounds, seq: SeqNo, visible: SeqNo) -> Result<Option<Vec<u8>>> {
    match &bounds.lower {
        Some(lower) => source.seek(KeyRef::new(lower, Trailer::FIRST))?,
        None => source.seek_to_first()?,
    }
    while source.valid() {
        let KeyRef { user, trailer } = source.key();
        if bounds.upper.as_ref().is_some_and(|upper| user >= upper.as_slice()) {
            return Ok(None);
        }
        if trailer.seq() > seq && trailer.seq() <= visible {
            return Ok(Some(user.to_vec()));
        }
        source.next()?;
    }
    Ok(None)
}
