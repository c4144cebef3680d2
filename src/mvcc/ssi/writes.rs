//! What has been committed lately: which keys, by whom, and whether the writer had itself read over an older commit.
//!
//! A log of commits in commit order, and two indexes of it: by hash of the key, for keys read one by one, and by key,
//! for ranges. A question can be answered from either side: look up what was read, or walk the log and ask of each
//! write whether it was read; the cheaper one is taken. The indexes lag behind the log until somebody asks them: most
//! commits are forgotten before. Old commits under pressure of memory become one entry per keyspace, which stands for a
//! write of any key of it.

use super::reads::{End, HashedMap, ReadSet, hash_of, is_within};
use crate::base::types::{KeyspaceId, SeqNo};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// Stands for no commit: later than all.
pub(super) const NEVER: SeqNo = SeqNo::MAX;

/// A key that a commit writes.
#[derive(Debug, Clone)]
pub(crate) struct WriteKey {
    pub(super) keyspace: KeyspaceId,
    pub(super) hash: u64,
    pub(super) key: Arc<[u8]>,
}

/// The keys that a commit writes, copied and hashed: what can be done before the commit lock is taken.
#[derive(Debug, Clone)]
pub(crate) struct WriteKeys(Arc<[WriteKey]>);

impl WriteKeys {
    /// Copies the keys. One that is written twice may come twice.
    pub(crate) fn collect<'a>(keys: impl IntoIterator<Item = (KeyspaceId, &'a [u8])>) -> WriteKeys {
        let owned = |(keyspace, key): (KeyspaceId, &[u8])| WriteKey {
            keyspace,
            hash: hash_of(keyspace, key),
            key: Arc::from(key),
        };
        WriteKeys(keys.into_iter().map(owned).collect())
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, WriteKey> {
        self.0.iter()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// Memory while it is retained, indexes included.
    pub(super) fn bytes(&self) -> usize {
        self.iter().map(|write| write.key.len().saturating_add(KEY_BYTES)).sum::<usize>().saturating_add(64)
    }
}

/// Memory of a retained write beside its key: its place in the log and in both indexes.
const KEY_BYTES: usize = 160;

/// Writes by which an index may lag behind the log: so much is caught up with in one hold of the lock.
const PENDING_WRITES_MAX: u64 = 256;

/// Entries for which an empty index keeps its memory.
const EMPTY_CAPACITY: usize = 1024;

/// What reading over committed writes amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edges {
    /// The first commit that wrote over what was read.
    pub(super) out_min: SeqNo,
    /// Of the commits that did so and had read over an older commit themselves, the one with the oldest such.
    pub(super) pivot: Option<Pivot>,
}

/// A commit that had read over an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pivot {
    pub(super) commit: SeqNo,
    pub(super) out_min: SeqNo,
}

impl Edges {
    pub(super) const NONE: Edges = Edges { out_min: NEVER, pivot: None };

    fn add(&mut self, commit: SeqNo, pivot: Option<Pivot>) {
        self.out_min = self.out_min.min(commit);
        if let Some(pivot) = pivot
            && self.pivot.is_none_or(|known| pivot.out_min < known.out_min)
        {
            self.pivot = Some(pivot);
        }
    }
}

/// What it costs to look up all of these reads. Ranges are of unknown size: a few dozen writes in each.
pub(super) fn lookups(reads: &ReadSet) -> usize {
    reads.ranges_len().saturating_mul(32).saturating_add(reads.keys_len())
}

/// From where a transaction looks at commits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    /// Only commits above its snapshot,
    pub(super) snapshot: SeqNo,
    /// and of those only what was logged at or after this position. Positions, unlike sequence numbers, are not given
    /// out again after a commit whose log record could not be written.
    pub(super) position: u64,
}

/// A commit in the log.
#[derive(Debug)]
struct Logged {
    seq: SeqNo,
    /// Its transaction; `None` for a plain write.
    id: Option<u64>,
    out_min: SeqNo,
    keys: WriteKeys,
    /// Writes logged before it.
    writes_before: u64,
}

impl Logged {
    fn pivot(&self) -> Option<Pivot> {
        (self.out_min != NEVER).then_some(Pivot { commit: self.seq, out_min: self.out_min })
    }
}

/// The retained commits of one key.
#[derive(Debug)]
struct Versions {
    newest: SeqNo,
    /// Rarely there: a key that was committed more than once, or by a pivot.
    more: Option<Box<MoreVersions>>,
}

#[derive(Debug, Default)]
struct MoreVersions {
    /// All but the newest, ascending.
    older: VecDeque<SeqNo>,
    /// Pivots, ascending by commit and by `out_min`: each has the lowest one of all from it on.
    pivots: VecDeque<Pivot>,
}

impl Versions {
    fn add(&mut self, seq: SeqNo, pivot: Option<Pivot>) {
        if seq == self.newest && pivot.is_none() {
            return;
        }
        let more = self.more.get_or_insert_default();
        if self.newest < seq {
            more.older.push_back(self.newest);
            self.newest = seq;
        }
        if let Some(pivot) = pivot {
            while more.pivots.back().is_some_and(|last| last.out_min >= pivot.out_min) {
                more.pivots.pop_back();
            }
            more.pivots.push_back(pivot);
        }
    }

    /// Commits above this one count as this one.
    fn lower(&mut self, seq: SeqNo) {
        self.newest = self.newest.min(seq);
        let Some(more) = &mut self.more else { return };
        more.older.iter_mut().for_each(|commit| *commit = seq.min(*commit));
        more.pivots.iter_mut().for_each(|pivot| pivot.commit = seq.min(pivot.commit));
    }

    fn edges(&self, snapshot: SeqNo, edges: &mut Edges) {
        if self.newest <= snapshot {
            return;
        }
        let Some(more) = &self.more else { return edges.add(self.newest, None) };
        let first = more.older.get(more.older.partition_point(|commit| *commit <= snapshot));
        let pivot = more.pivots.get(more.pivots.partition_point(|pivot| pivot.commit <= snapshot));
        edges.add(first.copied().unwrap_or(self.newest), pivot.copied());
    }

    /// Forgets commits up to this one. True if none is left.
    fn forget(&mut self, upto: SeqNo) -> bool {
        if let Some(more) = &mut self.more {
            while more.older.front().is_some_and(|commit| *commit <= upto) {
                more.older.pop_front();
            }
            while more.pivots.front().is_some_and(|pivot| pivot.commit <= upto) {
                more.pivots.pop_front();
            }
        }
        self.newest <= upto
    }
}

/// Old commits of a keyspace in one: they may have written any key.
#[derive(Debug, Clone, Copy)]
struct Coarse {
    first: SeqNo,
    last: SeqNo,
    /// Behind the last of them in the log.
    position: u64,
    pivot: Option<Pivot>,
}

/// A key in the ordered index.
#[derive(Debug)]
struct Ordered {
    hash: u64,
    newest: SeqNo,
}

/// The committed writes that an open transaction, or one that begins now, may have read over.
#[derive(Debug, Default)]
pub(super) struct Retained {
    log: VecDeque<Logged>,
    /// Commits that have left the log.
    gone: u64,
    /// Writes ever logged.
    writes: u64,
    /// The highest number recorded.
    last: SeqNo,
    /// Pivots in the log.
    pivots: usize,
    /// By hash, commits up to the position `hashed`.
    versions: HashedMap<Versions>,
    hashed: u64,
    /// By key, commits up to the position `sorted`.
    ordered: BTreeMap<KeyspaceId, BTreeMap<Arc<[u8]>, Ordered>>,
    sorted: u64,
    coarse: BTreeMap<KeyspaceId, Coarse>,
    bytes: usize,
}

impl Retained {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn commits(&self) -> usize {
        self.log.len()
    }

    /// True if a retained commit had read over an older one.
    pub(super) fn has_pivots(&self) -> bool {
        self.pivots > 0 || self.coarse.values().any(|coarse| coarse.pivot.is_some())
    }

    /// Where the next commit will stand in the log.
    pub(super) fn position(&self) -> u64 {
        self.gone.saturating_add(self.log.len() as u64)
    }

    /// Records a commit. Sequence numbers ascend, but for those of commits whose log record could not be written: they
    /// are given out again.
    pub(super) fn record(&mut self, seq: SeqNo, id: Option<u64>, out_min: SeqNo, keys: WriteKeys) {
        if seq < self.last {
            self.lower(seq);
        }
        self.last = seq;
        let commit = Logged { seq, id, out_min, keys, writes_before: self.writes };
        self.writes = self.writes.saturating_add(commit.keys.len() as u64);
        self.pivots = self.pivots.saturating_add(usize::from(commit.pivot().is_some()));
        self.bytes = self.bytes.saturating_add(commit.keys.bytes());
        self.log.push_back(commit);
        self.hash_pending(PENDING_WRITES_MAX);
        self.sort_pending(PENDING_WRITES_MAX);
    }

    /// Commits recorded above this one were never made. They count as made with it, so that everything stays in order and
    /// they hide no later one.
    fn lower(&mut self, seq: SeqNo) {
        for coarse in self.coarse.values_mut() {
            (coarse.first, coarse.last) = (coarse.first.min(seq), coarse.last.min(seq));
        }
        for commit in self.log.iter_mut().rev().take_while(|commit| commit.seq > seq) {
            commit.seq = seq;
            for write in commit.keys.iter() {
                if let Some(versions) = self.versions.get_mut(&write.hash) {
                    versions.lower(seq);
                }
                let keys = self.ordered.get_mut(&write.keyspace);
                if let Some(known) = keys.and_then(|keys| keys.get_mut(&*write.key)) {
                    known.newest = known.newest.min(seq);
                }
            }
        }
    }

    /// The commit of this transaction was recorded and then not made: it is no pivot.
    pub(super) fn withdraw(&mut self, id: u64) {
        let commit = self.log.iter_mut().rev().find(|commit| commit.id == Some(id));
        if let Some(commit) = commit.filter(|commit| commit.out_min != NEVER) {
            commit.out_min = NEVER;
            self.pivots = self.pivots.saturating_sub(1);
        }
    }

    /// The oldest commit that an index up to this position lacks, if it lacks more writes than this.
    fn pending(&self, indexed: u64, writes_max: u64) -> Option<&Logged> {
        let commit = self.log.get(usize::try_from(indexed.saturating_sub(self.gone)).ok()?)?;
        (self.writes.saturating_sub(commit.writes_before) > writes_max).then_some(commit)
    }

    /// Brings the index by hash up to the log, but for so many writes.
    fn hash_pending(&mut self, writes_max: u64) {
        while let Some(commit) = self.pending(self.hashed, writes_max) {
            let (seq, pivot, keys) = (commit.seq, commit.pivot(), commit.keys.clone());
            for write in keys.iter() {
                let versions = self.versions.entry(write.hash);
                versions.or_insert(Versions { newest: seq, more: None }).add(seq, pivot);
            }
            self.hashed = self.hashed.saturating_add(1);
        }
    }

    /// Brings the index by key up to the log, but for so many writes.
    fn sort_pending(&mut self, writes_max: u64) {
        while let Some(commit) = self.pending(self.sorted, writes_max) {
            let (seq, keys) = (commit.seq, commit.keys.clone());
            for write in keys.iter() {
                let of_keyspace = self.ordered.entry(write.keyspace).or_default();
                match of_keyspace.get_mut(&*write.key) {
                    Some(known) => known.newest = seq,
                    None => {
                        of_keyspace.insert(Arc::clone(&write.key), Ordered { hash: write.hash, newest: seq });
                    }
                }
            }
            self.sorted = self.sorted.saturating_add(1);
        }
    }

    fn unhash(&mut self, write: &WriteKey, upto: SeqNo) {
        if self.versions.get_mut(&write.hash).is_some_and(|versions| versions.forget(upto)) {
            self.versions.remove(&write.hash);
        }
    }

    fn unsort(&mut self, write: &WriteKey, upto: SeqNo) {
        if let Some(keys) = self.ordered.get_mut(&write.keyspace) {
            if keys.get(&*write.key).is_some_and(|known| known.newest <= upto) {
                keys.remove(&*write.key);
            }
            if keys.is_empty() {
                self.ordered.remove(&write.keyspace);
            }
        }
    }

    fn pop(&mut self) -> Option<Logged> {
        let commit = self.log.pop_front()?;
        let (is_hashed, is_sorted) = (self.gone < self.hashed, self.gone < self.sorted);
        self.gone = self.gone.saturating_add(1);
        (self.hashed, self.sorted) = (self.hashed.max(self.gone), self.sorted.max(self.gone));
        self.pivots = self.pivots.saturating_sub(usize::from(commit.pivot().is_some()));
        self.bytes = self.bytes.saturating_sub(commit.keys.bytes());
        // One that was refused may have its number in common with the one after it, whose entries stay.
        let is_shared = self.log.front().is_some_and(|next| next.seq == commit.seq);
        let upto = commit.seq.saturating_sub(u64::from(is_shared));
        if is_hashed {
            commit.keys.iter().for_each(|write| self.unhash(write, upto));
        }
        if is_sorted {
            commit.keys.iter().for_each(|write| self.unsort(write, upto));
        }
        if self.log.is_empty() && self.versions.capacity() > EMPTY_CAPACITY {
            self.versions = HashedMap::default();
        }
        Some(commit)
    }

    /// Drops commits up to the horizon, as many as have about this many writes. True if there may be more.
    pub(super) fn collect(&mut self, horizon: SeqNo, writes_max: usize) -> bool {
        self.coarse.retain(|_, coarse| coarse.last > horizon);
        let mut writes = 0usize;
        while self.log.front().is_some_and(|commit| commit.seq <= horizon) {
            if writes >= writes_max {
                return true;
            }
            let popped = self.pop().map_or(0, |commit| commit.keys.len());
            writes = writes.saturating_add(popped).saturating_add(1);
        }
        false
    }

    /// Turns the oldest commit into coarse entries. False if there is none.
    pub(super) fn collapse(&mut self) -> bool {
        let Some(commit) = self.pop() else { return false };
        let (seq, position, pivot) = (commit.seq, self.gone, commit.pivot());
        for write in commit.keys.iter() {
            let fresh = Coarse { first: seq, last: seq, position, pivot };
            let coarse = self.coarse.entry(write.keyspace).or_insert(fresh);
            coarse.first = coarse.first.min(seq);
            coarse.last = coarse.last.max(seq);
            coarse.position = position;
            let mut edges = Edges { out_min: NEVER, pivot: coarse.pivot };
            edges.add(seq, pivot);
            coarse.pivot = edges.pivot;
        }
        true
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        let gone = self.position();
        *self = Retained { gone, hashed: gone, sorted: gone, writes: self.writes, ..Retained::default() };
    }

    /// The commit up to which a read-only snapshot has to wait, if between it and the snapshot stands a pivot that had
    /// read over something visible in the snapshot.
    pub(super) fn unseen_pivot(&self, snapshot: SeqNo) -> Option<SeqNo> {
        let is_bad = |pivot: Pivot| pivot.out_min != 0 && pivot.out_min <= snapshot;
        let unseen = self.log.iter().rev().take_while(|commit| commit.seq > snapshot);
        let fine = unseen.filter(|commit| commit.pivot().is_some_and(is_bad)).map(|commit| commit.seq);
        let coarse = self.coarse.values().filter(|coarse| coarse.last > snapshot);
        let coarse = coarse.filter(|coarse| coarse.pivot.is_some_and(is_bad)).map(|coarse| coarse.last);
        fine.chain(coarse).max()
    }

    /// Who committed this, and a key of the commit that was read.
    pub(super) fn culprit(&self, commit: SeqNo, reads: &ReadSet) -> (Option<u64>, Option<WriteKey>) {
        let first = self.log.partition_point(|logged| logged.seq < commit);
        let same = self.log.iter().skip(first).take_while(|logged| logged.seq == commit);
        let mut found = same.filter_map(|logged| {
            let key = logged.keys.iter().find(|write| reads.covers(write))?;
            Some((logged.id, Some(key.clone())))
        });
        found.next().unwrap_or((None, None))
    }

    /// All edges since then.
    pub(super) fn edges(&mut self, reads: &ReadSet, since: Since, edges: &mut Edges) {
        self.coarse_edges(reads, since, edges);
        if self.cost(reads, since).1 {
            self.log_edges(reads, since, usize::MAX, edges);
            return;
        }
        self.hash_edges(reads.hashes(), since.snapshot, edges);
        for (keyspace, of_keyspace) in reads.keyspaces() {
            for (start, end) in of_keyspace.ranges() {
                self.range_edges(keyspace, (start, end), since.snapshot, usize::MAX, edges);
            }
        }
    }

    /// Writes or lookups that a check costs, and whether walking the log is the cheaper way.
    pub(super) fn cost(&self, reads: &ReadSet, since: Since) -> (usize, bool) {
        let first = self.log.get(self.first_since(since));
        let writes = first.map_or(0, |commit| self.writes.saturating_sub(commit.writes_before));
        let writes = usize::try_from(writes).unwrap_or(usize::MAX);
        let lookups = lookups(reads);
        let is_log_cheaper = reads.has_whole() || writes <= lookups;
        (if is_log_cheaper { writes } else { lookups }, is_log_cheaper)
    }

    fn first_since(&self, since: Since) -> usize {
        let position = usize::try_from(since.position.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        position.max(self.log.partition_point(|commit| commit.seq <= since.snapshot))
    }

    /// Edges to coarse entries, which stand for a write of every key.
    pub(super) fn coarse_edges(&self, reads: &ReadSet, since: Since, edges: &mut Edges) {
        for (keyspace, coarse) in &self.coarse {
            let is_later = coarse.last > since.snapshot && coarse.position > since.position;
            if is_later && reads.reads_of(*keyspace).is_some() {
                edges.add(coarse.first.max(since.snapshot.saturating_add(1)), coarse.pivot);
            }
        }
    }

    /// Edges to at most so many writes in the log. Answers the position behind the last one.
    pub(super) fn log_edges(
        &self,
        reads: &ReadSet,
        since: Since,
        writes_max: usize,
        edges: &mut Edges,
    ) -> u64 {
        let mut position = self.gone.saturating_add(self.first_since(since) as u64);
        let mut writes = 0usize;
        for commit in self.log.iter().skip(self.first_since(since)) {
            if writes >= writes_max {
                break;
            }
            if commit.keys.iter().any(|write| reads.covers(write)) {
                edges.add(commit.seq, commit.pivot());
            }
            writes = writes.saturating_add(commit.keys.len());
            position = position.saturating_add(1);
        }
        position
    }

    /// Edges to the keys with these hashes.
    pub(super) fn hash_edges(
        &mut self,
        hashes: impl Iterator<Item = u64>,
        snapshot: SeqNo,
        edges: &mut Edges,
    ) {
        self.hash_pending(0);
        for hash in hashes {
            if let Some(versions) = self.versions.get(&hash) {
                versions.edges(snapshot, edges);
            }
        }
    }

    /// Edges to at most so many keys of a range. Answers the key to go on with, if there are more.
    pub(super) fn range_edges(
        &mut self,
        keyspace: KeyspaceId,
        (start, end): (&[u8], &End),
        snapshot: SeqNo,
        keys_max: usize,
        edges: &mut Edges,
    ) -> Option<Arc<[u8]>> {
        self.hash_pending(0);
        self.sort_pending(0);
        let keys = self.ordered.get(&keyspace)?;
        let upto = end.bound().map_or(Bound::Unbounded, Bound::Excluded);
        let mut inside = keys.range::<[u8], _>((Bound::Included(start), upto));
        for (key, known) in inside.by_ref().take(keys_max) {
            if known.newest > snapshot
                && is_within(start, end, key)
                && let Some(versions) = self.versions.get(&known.hash)
            {
                versions.edges(snapshot, edges);
            }
        }
        inside.next().map(|(key, _)| Arc::clone(key))
    }
}
