//! From the log to memtables: the entries that are in no table yet, as one sorted run for each keyspace.
//!
//! Entries are collected while a segment is being read, and point into the segment's bytes.

use super::keyspace::Frozen;
use crate::base::error::{Error, Result};
use crate::base::key::Trailer;
use crate::base::slice::Slice;
use crate::base::types::{KeyspaceId, SegmentNo, SeqNo};
use crate::env::Env;
use crate::manifest::Version;
use crate::memtable::{Memtable, Place, RunList};
use crate::wal::{LogStart, OpRef, Replay, ReplayedBatch, Visit, ops, replay};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::path::Path;

/// What a replay found, its entries aside.
pub(super) struct Replayed {
    /// Commits read.
    pub(super) batches: u64,
    /// Last sequence number that the log knows; 0 if none.
    pub(super) last_seq: SeqNo,
    /// How the log goes on.
    pub(super) start: LogStart,
    /// Bytes at the end of the log that were dropped as a torn tail.
    pub(super) dropped_bytes: u64,
    /// Segments without content, to be removed.
    pub(super) unused: Vec<SegmentNo>,
    /// Segments before the first one needed, to be removed.
    pub(super) obsolete: Vec<SegmentNo>,
}

/// The memtables made of a log.
pub(super) type Memtables = BTreeMap<KeyspaceId, Frozen>;

/// Reads the log of a database whose manifest says `version`.
pub(super) fn read(
    env: &Env,
    dir: &Path,
    version: &Version,
    pool: Option<&ThreadPool>,
) -> Result<(Replayed, Memtables)> {
    let collector = || Collector { version, batches: 0, lists: BTreeMap::new() };
    let mut replay = replay(env, dir, version.db, version.log_number, pool, collector)?;
    let batches = replay.segments.iter().fold(0, |sum: u64, one| sum.saturating_add(one.batches.batches));
    let memtables = memtables(&mut replay, pool);
    let Replay { last_seq, start, dropped_bytes, unused, obsolete, segments: _ } = replay;
    Ok((Replayed { batches, last_seq, start, dropped_bytes, unused, obsolete }, memtables))
}

fn memtables(replay: &mut Replay<Collector<'_>>, pool: Option<&ThreadPool>) -> Memtables {
    let mut lists: BTreeMap<KeyspaceId, (Vec<RunList>, SegmentNo)> = BTreeMap::new();
    for segment in &mut replay.segments {
        for (id, list) in std::mem::take(&mut segment.batches.lists) {
            lists.entry(id).or_insert_with(|| (Vec::new(), segment.number)).0.push(list);
        }
    }
    let total: usize = replay.segments.iter().map(|segment| segment.bytes.len()).sum();
    let share = total.checked_div(lists.len()).unwrap_or(0);
    let memtables = lists.into_iter().map(|(id, (lists, first_segment))| {
        let memtable = Memtable::from_lists(lists, pool);
        memtable.charge_owner(share);
        (id, Frozen { memtable, last_seq: replay.last_seq, first_segment: Some(first_segment) })
    });
    memtables.collect()
}

/// Takes the entries of one segment that are in no table yet.
struct Collector<'a> {
    version: &'a Version,
    batches: u64,
    lists: BTreeMap<KeyspaceId, RunList>,
}

impl Visit for Collector<'_> {
    fn batch(&mut self, path: &Path, batch: ReplayedBatch) -> Result<()> {
        self.batches = self.batches.saturating_add(1);
        let mut seq = batch.first_seq;
        for op in ops(&batch.payload).map_err(|error| error.into_error(path, batch.offset))? {
            let op = op.map_err(|error| error.into_error(path, batch.offset))?;
            if self.is_needed(path, batch.offset, seq, op.keyspace)? {
                self.push(&batch.payload, seq, &op)?;
            }
            seq = seq.saturating_add(1);
        }
        Ok(())
    }
}

impl Collector<'_> {
    /// Whether an operation is neither in a table nor of a keyspace that was dropped since.
    fn is_needed(&self, path: &Path, offset: u64, seq: SeqNo, keyspace: KeyspaceId) -> Result<bool> {
        match self.version.keyspaces.get(&keyspace) {
            Some(record) => Ok(seq > record.flushed_seq),
            None if keyspace.0 < self.version.next_keyspace => Ok(false),
            None => {
                let found = format!("keyspace {}", keyspace.0);
                Err(Error::corrupt(path, offset, "a keyspace of the manifest", found))
            }
        }
    }

    fn push(&mut self, payload: &Slice, seq: SeqNo, op: &OpRef<'_>) -> Result<()> {
        let (owner, start) = payload.shared();
        let place = Place {
            key_start: start.saturating_add(op.key_start),
            key_len: op.key.len(),
            value_start: start.saturating_add(op.value_start),
            value_len: op.value.len(),
        };
        let list = self.lists.entry(op.keyspace).or_default();
        list.push(owner, place, Trailer::new(seq, op.kind))
    }
}
