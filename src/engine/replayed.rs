//! From the log to memtables: the entries that are in no table yet, as one sorted run for each keyspace.
//!
//! Entries are collected while a segment is being read, and point into the segment's bytes.

use super::keyspace::Frozen;
use crate::base::error::{Error, Result};
use crate::base::key::Trailer;
use crate::base::types::{KeyspaceId, SegmentNo, SeqNo};
use crate::env::Env;
use crate::manifest::Version;
use crate::memtable::{BufferNo, Memtable, Place, RunList};
use crate::wal::{LogStart, OpRef, Payload, Replay, ReplayedBatch, Visit, ops, replay};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

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
        for (id, Collected { list, .. }) in std::mem::take(&mut segment.batches.lists) {
            lists.entry(id).or_insert_with(|| (Vec::new(), segment.number)).0.push(list);
        }
    }
    let total: usize = replay.segments.iter().map(|segment| segment.len).sum();
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
    lists: BTreeMap<KeyspaceId, Collected>,
}

/// The entries of one keyspace.
struct Collected {
    list: RunList,
    /// The segment's bytes, which are still being read.
    segment: BufferNo,
    /// Whether any entry is there.
    shares: bool,
}

impl Default for Collected {
    fn default() -> Collected {
        let mut list = RunList::default();
        let segment = list.add_buffer(&Arc::default());
        Collected { list, segment, shares: false }
    }
}

impl Visit for Collector<'_> {
    fn batch(&mut self, path: &Path, batch: ReplayedBatch<'_>) -> Result<()> {
        self.batches = self.batches.saturating_add(1);
        let ReplayedBatch { first_seq, offset, payload, .. } = batch;
        match payload {
            Payload::Shared(payload, start) => {
                self.each_needed(path, first_seq, offset, payload, |collected, trailer, op| {
                    collected.shares = true;
                    collected.list.push(collected.segment, op.key, place(op, start), trailer)
                })
            }
            Payload::Own(payload) => {
                let payload: Arc<[u8]> = payload.into();
                self.each_needed(path, first_seq, offset, &payload, |collected, trailer, op| {
                    let buffer = collected.list.add_buffer(&payload);
                    collected.list.push(buffer, op.key, place(op, 0), trailer)
                })
            }
        }
    }

    fn end(&mut self, bytes: Arc<[u8]>) {
        for Collected { list, segment, shares } in self.lists.values_mut() {
            if *shares {
                list.set_buffer(*segment, &bytes);
            }
        }
    }
}

impl Collector<'_> {
    /// Calls `push` with each operation that is needed, and the list that it belongs to.
    fn each_needed(
        &mut self,
        path: &Path,
        first_seq: SeqNo,
        offset: u64,
        payload: &[u8],
        push: impl Fn(&mut Collected, Trailer, &OpRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut seq = first_seq;
        for op in ops(payload).map_err(|error| error.into_error(path, offset))? {
            let op = op.map_err(|error| error.into_error(path, offset))?;
            if self.is_needed(path, offset, seq, op.keyspace)? {
                push(self.lists.entry(op.keyspace).or_default(), Trailer::new(seq, op.kind), &op)?;
            }
            seq = seq.saturating_add(1);
        }
        Ok(())
    }

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
}

/// Where an operation's bytes are in a buffer in which its payload starts at `start`.
fn place(op: &OpRef<'_>, start: usize) -> Place {
    Place {
        key_start: start.saturating_add(op.key_start),
        key_len: op.key.len(),
        value_start: start.saturating_add(op.value_start),
        value_len: op.value.len(),
    }
}
