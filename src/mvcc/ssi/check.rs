//! The rules: which commit would complete a dangerous structure. And the state that they are asked of.

use super::finished::Finished;
use super::prepared::{PreparedList, Reads};
use super::reads::ReadSet;
use super::steps::Mark;
use super::writes::{Edges, NEVER, Retained, Since, WriteKey, WriteKeys};
use crate::base::types::{KeyspaceId, SeqNo};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a transaction has to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It is the pivot: it has read over an older commit, and a finished transaction has read over it.
    Pivot,
    /// It is the pivot, and a declared read-only transaction, which tracks no reads, may have read over it.
    DeclaredReader,
    /// It has read over a committed pivot.
    CommittedPivot,
    /// It writes over what a prepared transaction has read.
    PreparedReader,
    /// It has read over what a prepared transaction writes.
    PreparedWriter,
    /// It was to be prepared and has read over a commit.
    EdgeOfPrepared,
}

/// A conflict that would make the history unserializable, or might.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Danger {
    /// Why.
    pub(crate) rule: Rule,
    /// The other transaction, where one is known: the reader, the pivot, the prepared one. Plain writes have no id.
    pub(crate) other: Option<u64>,
    /// A key over which the two conflict, where one is known.
    pub(crate) key: Option<(KeyspaceId, Arc<[u8]>)>,
}

impl Danger {
    pub(super) fn new(rule: Rule, other: Option<u64>, write: Option<&WriteKey>) -> Danger {
        let key = write.map(|write| (write.keyspace, Arc::clone(&write.key)));
        Danger { rule, other: other.filter(|id| *id != 0), key }
    }
}

/// Writes dropped by one commit beyond those that it adds, so that garbage shrinks and no commit pays for all of it.
const COLLECT_WRITES: usize = 64;

/// Recorded commits without an open serializable transaction after which recording stops.
pub(super) const IDLE_COMMITS: u32 = 1024;

/// What is guarded by the one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    /// All commits above this one are recorded; `None`: not recording, or recording began and nobody has asked yet.
    pub(super) since: Option<SeqNo>,
    /// Transactions between asking for recording and their snapshot.
    pub(super) beginning: usize,
    /// Snapshots of open transactions that track reads, with how many have each.
    pub(super) open: BTreeMap<SeqNo, usize>,
    /// A lower bound of all snapshots to come.
    pub(super) floor: SeqNo,
    /// The highest snapshot of a declared read-only transaction, finished ones included.
    pub(super) declared: SeqNo,
    pub(super) idle_commits: u32,
    pub(super) retained: Retained,
    pub(super) finished: Finished,
    pub(super) prepared: PreparedList,
    pub(super) checks: u64,
    pub(super) conflicts: u64,
    pub(super) collapsed: u64,
}

impl State {
    /// Nothing that begins or is open looks at commits up to here.
    pub(super) fn horizon(&self) -> SeqNo {
        self.open.keys().next().copied().unwrap_or(SeqNo::MAX).min(self.floor)
    }

    pub(super) fn bytes(&self) -> usize {
        self.retained.bytes().saturating_add(self.finished.bytes()).saturating_add(self.prepared.bytes())
    }

    pub(super) fn enter(&mut self, snapshot: SeqNo) {
        self.floor = self.floor.max(snapshot);
        let count = self.open.entry(snapshot).or_insert(0);
        *count = count.saturating_add(1);
        self.idle_commits = 0;
    }

    pub(super) fn leave(&mut self, snapshot: SeqNo) {
        if let Some(count) = self.open.get_mut(&snapshot) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.open.remove(&snapshot);
            }
        }
    }

    /// Rules for a commit with writes. `reader` is absent for a plain write and for weaker levels: they have no edge
    /// out, so they are no pivot, and fail only if they write over what a prepared transaction has read.
    pub(super) fn check_writer(
        &self,
        reader: Option<(&ReadSet, &Edges)>,
        writes: &WriteKeys,
    ) -> Result<(), Danger> {
        self.prepared.check_writes(writes)?;
        let Some((reads, edges)) = reader else { return Ok(()) };
        self.prepared.check_reads(reads, false)?;
        let skipped = cfg!(plant_skip_ssi_edge); // Planted fault, in builds that ask for it only: edges to pivots are forgotten.
        if let Some(pivot) = edges.pivot
            && !skipped
        {
            return Err(self.danger_at(Rule::CommittedPivot, pivot.commit, reads));
        }
        self.check_pivot(edges.out_min, writes)
    }

    /// Rule for a transaction whose oldest edge out leads to `out_min`: nobody has read over what it writes and
    /// finished at or after that.
    fn check_pivot(&self, out_min: SeqNo, writes: &WriteKeys) -> Result<(), Danger> {
        if out_min == NEVER {
            return Ok(());
        }
        if self.declared >= out_min {
            return Err(Danger::new(Rule::DeclaredReader, None, writes.iter().next()));
        }
        for write in writes.iter() {
            if let Some(id) = self.finished.reader(write, out_min) {
                return Err(Danger::new(Rule::Pivot, Some(id), Some(write)));
            }
        }
        Ok(())
    }

    /// Rule for a transaction without writes: a pivot that it has read over is harmless if what that one missed was
    /// committed after the snapshot.
    pub(super) fn check_reader(&self, reads: &ReadSet, snapshot: SeqNo, edges: &Edges) -> Result<(), Danger> {
        self.prepared.check_reads(reads, false)?;
        match edges.pivot {
            Some(pivot) if pivot.out_min <= snapshot => {
                Err(self.danger_at(Rule::CommittedPivot, pivot.commit, reads))
            }
            _ => Ok(()),
        }
    }

    /// Rule for a transaction that is to be prepared: no edge out, to nobody committed or prepared.
    pub(super) fn check_prepare(
        &self,
        reader: Option<(&ReadSet, &Edges)>,
        writes: &WriteKeys,
    ) -> Result<(), Danger> {
        self.prepared.check_writes(writes)?;
        let Some((reads, edges)) = reader else { return Ok(()) };
        self.prepared.check_reads(reads, true)?;
        if edges.out_min == NEVER {
            return Ok(());
        }
        Err(self.danger_at(Rule::EdgeOfPrepared, edges.out_min, reads))
    }

    fn danger_at(&self, rule: Rule, commit: SeqNo, reads: &ReadSet) -> Danger {
        let (id, write) = self.retained.culprit(commit, reads);
        Danger::new(rule, id, write.as_ref())
    }

    pub(super) fn edges(&mut self, reads: &ReadSet, since: Since, known: &Edges) -> Edges {
        let mut edges = *known;
        self.retained.edges(reads, since, &mut edges);
        edges
    }

    /// Notes that a transaction finished, if one that is open, or begins, may ask for its reads. `at` is its commit, or
    /// its snapshot if it had no writes. True if the reads are to be settled.
    pub(super) fn finish(&mut self, id: u64, at: SeqNo, reads: &Arc<ReadSet>) -> bool {
        let matters = at > self.horizon() && !reads.is_empty();
        if matters {
            self.finished.add_pending(Mark { at, id }, Arc::clone(reads));
        }
        matters
    }

    /// Drops some of what nobody asks for any more; collapses some of the rest while it takes more than this.
    pub(super) fn tidy(&mut self, added: usize, bytes_max: usize) -> bool {
        let horizon = self.horizon();
        let pace = added.saturating_mul(2).saturating_add(COLLECT_WRITES);
        let has_more = self.retained.collect(horizon, pace);
        self.finished.collect(horizon);
        if self.bytes() <= bytes_max {
            return has_more;
        }
        let mut left = pace;
        while left > 0 && self.retained.bytes() > bytes_max / 2 && self.retained.collapse() {
            self.collapsed = self.collapsed.saturating_add(1);
            left = left.saturating_sub(1);
        }
        if self.finished.bytes() > bytes_max / 2 && self.finished.collapse() {
            self.collapsed = self.collapsed.saturating_add(1);
        }
        has_more
    }

    /// Counts a recorded commit that no open transaction looks at. True if recording may stop: not while anything is
    /// prepared, and not before a read-only snapshot can no longer stand between a pivot and what that had missed.
    pub(super) fn is_idle(&mut self) -> bool {
        let is_used = !self.open.is_empty() || self.beginning > 0 || self.prepared.has_serializable();
        self.idle_commits = if is_used { 0 } else { self.idle_commits.saturating_add(1) };
        self.idle_commits >= IDLE_COMMITS && !self.retained.has_pivots()
    }

    /// Forgets all commits and finished readers.
    pub(super) fn stop(&mut self) {
        self.since = None;
        self.idle_commits = 0;
        self.retained.clear();
        self.finished.clear();
    }

    /// The reads of a prepared transaction that commits, as a finished reader's.
    pub(super) fn finish_prepared(&mut self, id: u64, seq: SeqNo, reads: Reads) -> Option<Arc<ReadSet>> {
        match reads {
            Reads::Untracked => None,
            Reads::Known(reads) => {
                self.finish(id, seq, &reads);
                Some(reads)
            }
            Reads::Everything => {
                self.finished.add_everywhere(Mark { at: seq, id });
                None
            }
        }
    }
}
