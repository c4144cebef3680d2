//! The handle of one transaction that tracks its reads. Dropping it ends the transaction, as an abort if it has not
//! committed.

use super::Ssi;
use super::check::Danger;
use super::reads::{End, ExportedReads, KeyspaceReads, RangeEnd, ReadSet, hash_of};
use super::steps::Mark;
use super::writes::{Edges, Since, lookups};
use crate::base::sync::{Mutex, MutexGuard, Rank};
use crate::base::types::{KeyspaceId, SeqNo};
use std::mem;
use std::sync::Arc;

/// Lookups, or writes of the log, in one hold of the lock.
const PIECE: usize = 256;

/// Keys or ranges that enter the index of finished readers in one hold of the lock.
const SETTLE_PIECE: usize = 128;

/// A serializable transaction that is open, or has committed and waits for its end.
#[derive(Debug)]
pub(crate) struct Tracker {
    ssi: Arc<Ssi>,
    id: u64,
    snapshot: SeqNo,
    local: Mutex<Local>,
}

#[derive(Debug, Default)]
struct Local {
    /// Empty once sealed.
    reads: ReadSet,
    /// How much of the reads is on the common account.
    charged: usize,
    sealed: Option<Sealed>,
    has_left: bool,
    unsettled: Option<Unsettled>,
}

/// The reads as they are checked, and what is known of them already.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) reads: Arc<ReadSet>,
    pub(super) edges: Edges,
    /// Commits before this place in the log are looked at.
    position: u64,
}

impl Tracker {
    /// For `Ssi`: a transaction that has entered its snapshot.
    pub(super) fn new(ssi: Arc<Ssi>, id: u64, snapshot: SeqNo) -> Tracker {
        Tracker { ssi, id, snapshot, local: Mutex::new(Rank::Leaf, Local::default()) }
    }

    /// Id of the transaction, given at its begin.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What the transaction sees: every commit up to here.
    pub(crate) fn snapshot(&self) -> SeqNo {
        self.snapshot
    }

    /// Notes a read of a key, present or absent. To be called before the read itself or after it, but before commit.
    #[inline]
    pub(crate) fn read_key(&self, keyspace: KeyspaceId, key: &[u8]) {
        let hash = hash_of(keyspace, key);
        let mut local = self.local.lock();
        local.unseal();
        local.reads.add_key(keyspace, hash);
        self.charge(local);
    }

    /// Notes a read of all keys from `start` to `end`, present and absent. An iterator calls it at every step, with one
    /// side fixed and the other growing.
    #[inline]
    pub(crate) fn read_range(&self, keyspace: KeyspaceId, start: &[u8], end: RangeEnd<'_>) {
        let mut local = self.local.lock();
        local.unseal();
        local.reads.add_range(keyspace, start, end);
        self.charge(local);
    }

    /// What has been read, as plain data.
    pub(crate) fn export_reads(&self) -> ExportedReads {
        let local = self.local.lock();
        local.sealed.as_ref().map_or(&local.reads, |sealed| &sealed.reads).export()
    }

    /// Puts growth on the common account, and makes room if that is full.
    #[inline]
    fn charge(&self, mut local: MutexGuard<'_, Local>) {
        if local.reads.bytes() == local.charged {
            return;
        }
        let is_over = local.charge(&self.ssi);
        if is_over {
            self.coarsen(local);
        }
    }

    /// Goes coarser down to a fair share of half the budget; below it, others give way.
    #[cold]
    fn coarsen(&self, mut local: MutexGuard<'_, Local>) {
        let share = self.ssi.fair_share();
        let mut steps = 0u64;
        while local.reads.bytes() > share && local.reads.coarsen() {
            steps = steps.saturating_add(1);
        }
        local.charge(&self.ssi);
        drop(local);
        self.ssi.note_coarsened(steps);
        if steps == 0 {
            self.ssi.tidy();
        }
    }

    /// Checks the reads against what has committed up to now, in pieces. To be called after the last read and before
    /// the commit lock is taken, so that under it only the commits since have to be looked at. Without it the commit
    /// itself does all.
    pub(crate) fn review(&self) {
        let mut sealed = self.sealed();
        if !sealed.reads.has_whole() && lookups(&sealed.reads) <= PIECE {
            return;
        }
        let since = self.since(&sealed);
        let (cost, is_log_cheaper, position) = self.ssi.cost(&sealed.reads, since);
        if cost <= PIECE {
            return;
        }
        if is_log_cheaper {
            self.review_log(&mut sealed);
        } else {
            self.review_reads(&mut sealed);
            sealed.position = position;
        }
        let mut local = self.local.lock();
        if local.sealed.is_some() {
            local.sealed = Some(sealed);
        }
    }

    /// Walks the log up to its end, or nearly.
    fn review_log(&self, sealed: &mut Sealed) {
        loop {
            let since = self.since(sealed);
            let state = self.ssi.lock();
            state.retained.coarse_edges(&sealed.reads, since, &mut sealed.edges);
            sealed.position = state.retained.log_edges(&sealed.reads, since, PIECE, &mut sealed.edges);
            if sealed.position >= state.retained.position() {
                return;
            }
        }
    }

    /// Looks up each read.
    fn review_reads(&self, sealed: &mut Sealed) {
        let reads = Arc::clone(&sealed.reads);
        let edges = &mut sealed.edges;
        let mut hashes = reads.hashes().peekable();
        while hashes.peek().is_some() {
            let piece = hashes.by_ref().take(PIECE);
            self.ssi.lock().retained.hash_edges(piece, self.snapshot, edges);
        }
        for (keyspace, of_keyspace) in reads.keyspaces() {
            for (start, end) in of_keyspace.ranges() {
                self.review_range(keyspace, (start, end), edges);
            }
        }
        // Last: what was collapsed between the pieces has left the indexes and is in here.
        let since = Since { snapshot: self.snapshot, position: sealed.position };
        self.ssi.lock().retained.coarse_edges(&reads, since, edges);
    }

    fn review_range(&self, keyspace: KeyspaceId, (start, end): (&[u8], &End), edges: &mut Edges) {
        let mut from: Arc<[u8]> = Arc::from(start);
        loop {
            let retained = &mut self.ssi.lock().retained;
            match retained.range_edges(keyspace, (&from, end), self.snapshot, PIECE, edges) {
                Some(next) => from = next,
                None => return,
            }
        }
    }

    pub(super) fn since(&self, sealed: &Sealed) -> Since {
        Since { snapshot: self.snapshot, position: sealed.position }
    }

    /// The reads, to be checked.
    pub(super) fn sealed(&self) -> Sealed {
        let mut local = self.local.lock();
        local.charge(&self.ssi);
        let Local { reads, sealed, .. } = &mut *local;
        let fresh = || Sealed { reads: Arc::new(mem::take(reads)), edges: Edges::NONE, position: 0 };
        sealed.get_or_insert_with(fresh).clone()
    }

    /// Notes that the transaction is no longer open. With a mark its reads are still to be settled; `kept` says that
    /// somebody else answers for their memory.
    pub(super) fn left(&self, mark: Option<Mark>, kept: bool) {
        let mut local = self.local.lock();
        local.has_left = true;
        let Some(sealed) = local.sealed.take() else { return };
        if let Some(mark) = mark {
            let ssi = Arc::clone(&self.ssi);
            local.unsettled = Some(Unsettled { ssi, reads: sealed.reads, mark });
            local.charged = 0;
        } else if kept {
            local.charged = 0;
        }
    }

    /// Puts the reads of a committed transaction where later commits find them fast, as the drop does: for tests that
    /// want it earlier.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        let unsettled = self.local.lock().unsettled.take();
        drop(unsettled);
    }

    /// Checks a transaction that ends without writes.
    pub(crate) fn commit_read_only(&self) -> Result<(), Danger> {
        self.review();
        self.ssi.commit_reader(self)
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let mut local = mem::take(&mut *self.local.lock());
        self.ssi.uncharge(local.charged);
        drop(local.unsettled.take());
        if !local.has_left {
            self.ssi.leave(self.snapshot);
        }
    }
}

impl Local {
    /// Another read after a check: what is known of the reads no longer holds for all of them.
    #[inline]
    fn unseal(&mut self) {
        if let Some(sealed) = self.sealed.take() {
            self.reads = Arc::try_unwrap(sealed.reads).unwrap_or_else(|shared| (*shared).clone());
        }
    }

    /// Brings the common account up to date. True if it is over the budget.
    fn charge(&mut self, ssi: &Ssi) -> bool {
        if self.sealed.is_some() {
            return false;
        }
        let (before, now) = (self.charged, self.reads.bytes());
        self.charged = now;
        if now < before {
            ssi.uncharge(before.saturating_sub(now));
            return false;
        }
        ssi.charge(now.saturating_sub(before))
    }
}

/// The reads of a finished transaction that are not in the index yet. Dropping it puts them there.
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) ssi: Arc<Ssi>,
    pub(super) reads: Arc<ReadSet>,
    pub(super) mark: Mark,
}

impl Unsettled {
    /// Puts the reads into the index, piece by piece.
    fn settle(&self) {
        let is_coarse = self.ssi.is_over();
        for (keyspace, reads) in self.reads.keyspaces() {
            if is_coarse || reads.is_whole() {
                self.ssi.lock().finished.add_whole(keyspace, self.mark);
            } else {
                self.settle_keyspace(keyspace, reads);
            }
        }
    }

    fn settle_keyspace(&self, keyspace: KeyspaceId, reads: &KeyspaceReads) {
        let mut hashes = reads.hashes().peekable();
        while hashes.peek().is_some() {
            let piece = hashes.by_ref().take(SETTLE_PIECE);
            self.ssi.lock().finished.add_keys(keyspace, piece, self.mark);
        }
        let mut ranges = reads.ranges().peekable();
        while ranges.peek().is_some() {
            let finished = &mut self.ssi.lock().finished;
            for (start, end) in ranges.by_ref().take(SETTLE_PIECE) {
                finished.add_range(keyspace, start, end.bound(), self.mark);
            }
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        let mut state = self.ssi.lock();
        // Unless nobody will ask for them.
        if self.mark.at > state.horizon() {
            drop(state);
            self.settle();
            state = self.ssi.lock();
        }
        state.finished.remove_pending(&self.reads);
        self.ssi.uncharge(self.reads.bytes());
        self.ssi.tidy_on(state);
    }
}
