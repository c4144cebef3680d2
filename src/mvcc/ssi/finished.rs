//! What finished transactions have read, as long as a transaction that is still open may have written over it.
//!
//! Of all the finished readers of a key only the last one matters: a writer asks whether any of them finished at or
//! after some commit. So each key has one mark, and each keyspace a step function for its ranges. A reader enters in
//! pieces, after its commit and outside of the commit lock; until it is in, it stands in a short list.

use super::reads::{HashedMap, ReadSet, table_bytes};
use super::steps::{Mark, Steps};
use super::writes::WriteKey;
use crate::base::types::{KeyspaceId, SeqNo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pieces of the table of keys, a power of two; one is swept at a time.
const SHARDS: usize = 64;

/// The bits of a hash, shifted, that choose a shard.
const SHARD_MASK: usize = SHARDS - 1;

/// A finished reader that is not in the index yet.
#[derive(Debug)]
struct Pending {
    mark: Mark,
    reads: Arc<ReadSet>,
}

/// A piece of the table of keys.
#[derive(Debug, Default)]
struct Shard {
    marks: HashedMap<Mark>,
    /// Marks set since the last sweep.
    added: usize,
}

/// Finished readers.
#[derive(Debug)]
pub(super) struct Finished {
    shards: Vec<Shard>,
    ranges: BTreeMap<KeyspaceId, Steps>,
    whole: BTreeMap<KeyspaceId, Mark>,
    /// A reader of which nobody knows what it has read.
    everywhere: Mark,
    pending: Vec<Pending>,
    /// The highest mark in the index.
    last: SeqNo,
    /// Keyspaces with keys or ranges in the index.
    keyspaces: BTreeSet<KeyspaceId>,
    next_sweep: usize,
    shards_bytes: usize,
}

impl Default for Finished {
    fn default() -> Finished {
        Finished {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            ranges: BTreeMap::new(),
            whole: BTreeMap::new(),
            everywhere: Mark::default(),
            pending: Vec::new(),
            last: 0,
            keyspaces: BTreeSet::new(),
            next_sweep: 0,
            shards_bytes: 0,
        }
    }
}

fn shard_bytes(shard: &Shard) -> usize {
    table_bytes(shard.marks.capacity(), size_of::<(u64, Mark)>())
}

fn shard_of(hash: u64) -> usize {
    // Not the bits that the tables themselves use: those are the lowest and the highest.
    usize::from((hash >> 32) as u8) & SHARD_MASK
}

impl Finished {
    /// Memory of the index. Pending sets are on the account of their transactions.
    pub(super) fn bytes(&self) -> usize {
        let ranges: usize = self.ranges.values().map(Steps::bytes).sum();
        let whole = self.whole.len().saturating_mul(size_of::<(KeyspaceId, Mark)>());
        self.shards_bytes.saturating_add(ranges).saturating_add(whole)
    }

    /// Notes a reader; it stays in the list until `settled`.
    pub(super) fn add_pending(&mut self, mark: Mark, reads: Arc<ReadSet>) {
        self.pending.push(Pending { mark, reads });
    }

    /// Takes a reader out of the list.
    pub(super) fn remove_pending(&mut self, reads: &Arc<ReadSet>) {
        self.pending.retain(|pending| !Arc::ptr_eq(&pending.reads, reads));
    }

    pub(super) fn add_keys(&mut self, keyspace: KeyspaceId, hashes: impl Iterator<Item = u64>, mark: Mark) {
        self.last = self.last.max(mark.at);
        self.keyspaces.insert(keyspace);
        for hash in hashes {
            self.add_key(hash, mark);
        }
    }

    fn add_key(&mut self, hash: u64, mark: Mark) {
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else { return };
        let before = shard_bytes(shard);
        shard.marks.entry(hash).or_default().raise(mark);
        shard.added = shard.added.saturating_add(1);
        self.shards_bytes = self.shards_bytes.saturating_sub(before).saturating_add(shard_bytes(shard));
    }

    pub(super) fn add_range(&mut self, keyspace: KeyspaceId, start: &[u8], end: Option<&[u8]>, mark: Mark) {
        self.last = self.last.max(mark.at);
        self.keyspaces.insert(keyspace);
        self.ranges.entry(keyspace).or_default().raise(start, end, mark);
    }

    pub(super) fn add_whole(&mut self, keyspace: KeyspaceId, mark: Mark) {
        self.last = self.last.max(mark.at);
        self.whole.entry(keyspace).or_default().raise(mark);
    }

    pub(super) fn add_everywhere(&mut self, mark: Mark) {
        self.last = self.last.max(mark.at);
        self.everywhere.raise(mark);
    }

    /// A reader of this key that finished at or after this commit.
    pub(super) fn reader(&self, write: &WriteKey, since: SeqNo) -> Option<u64> {
        let in_shard = || self.shards.get(shard_of(write.hash))?.marks.get(&write.hash).copied();
        let in_ranges = || Some(self.ranges.get(&write.keyspace)?.get(&write.key));
        let in_whole = || self.whole.get(&write.keyspace).copied();
        let is_late = |mark: &Mark| mark.at >= since;
        let indexed = in_shard()
            .filter(is_late)
            .or_else(|| in_ranges().filter(is_late))
            .or_else(|| in_whole().filter(is_late))
            .or_else(|| Some(self.everywhere).filter(is_late));
        indexed.or_else(|| self.pending_reader(write, since)).map(|mark| mark.id)
    }

    fn pending_reader(&self, write: &WriteKey, since: SeqNo) -> Option<Mark> {
        let mut late = self.pending.iter().filter(|pending| pending.mark.at >= since);
        late.find(|pending| pending.reads.covers(write)).map(|pending| pending.mark)
    }

    /// Forgets readers up to the horizon: all at once if there are no others, else a piece at a time.
    pub(super) fn collect(&mut self, horizon: SeqNo) {
        if self.last <= horizon {
            if self.last > 0 {
                self.clear();
            }
            return;
        }
        self.whole.retain(|_, mark| mark.at > horizon);
        self.ranges.retain(|_, steps| {
            steps.sweep(horizon);
            !steps.is_empty()
        });
        self.sweep_shard(horizon);
    }

    fn sweep_shard(&mut self, horizon: SeqNo) {
        let Some(shard) = self.shards.get_mut(self.next_sweep) else { return };
        self.next_sweep = self.next_sweep.saturating_add(1) % SHARDS;
        if shard.added < shard.marks.len() / 2 {
            return;
        }
        let before = shard_bytes(shard);
        shard.added = 0;
        shard.marks.retain(|_, mark| mark.at > horizon);
        if shard.marks.len() < shard.marks.capacity() / 4 {
            shard.marks.shrink_to_fit();
        }
        self.shards_bytes = self.shards_bytes.saturating_sub(before).saturating_add(shard_bytes(shard));
    }

    /// Turns keys and ranges into whole keyspaces. False if there was nothing to turn.
    pub(super) fn collapse(&mut self) -> bool {
        if self.bytes() == 0 || self.keyspaces.is_empty() {
            return false;
        }
        let mark = Mark { at: self.last, id: 0 };
        let (whole, keyspaces) = (std::mem::take(&mut self.whole), std::mem::take(&mut self.keyspaces));
        let everywhere = self.everywhere;
        self.clear();
        self.last = mark.at;
        self.whole = whole;
        self.everywhere = everywhere;
        for keyspace in keyspaces {
            self.whole.entry(keyspace).or_default().raise(mark);
        }
        true
    }

    /// Forgets all that is in the index.
    pub(super) fn clear(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        *self = Finished { pending, ..Finished::default() };
    }
}
