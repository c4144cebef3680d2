//! Serializable snapshot isolation: snapshot isolation whose commits fail when they would complete a dangerous structure.
//!
//! Pure logic in memory: it knows keyspaces, keys and sequence numbers, and nothing of the engine. Cahill, Röhm, Fekete,
//! "Serializable isolation for snapshot databases" (SIGMOD 2008); Ports, Grittner, "Serializable snapshot isolation in
//! PostgreSQL" (VLDB 2012); Fekete, O'Neil, O'Neil, "A read-only transaction anomaly under snapshot isolation"
//! (SIGMOD Record 2004).
//!
//! # Algorithm
//!
//! There is an edge R→W if R read a key, or a range around it, that a concurrent W committed a write to after R's
//! snapshot. Every history of snapshot isolation that is not serializable contains T1→T2→T3 (T1 may be T3) in which T3
//! committed first of the three, and before T1's snapshot if T1 has no writes. Whoever commits last of the three fails:
//!
//! * T2, the **pivot**: its oldest edge out leads to `out_min` (T3), and a finished reader of a key that it writes
//!   committed at or after `out_min`, or had no writes and a snapshot at or after `out_min`.
//! * T1: it has read over a committed pivot; one without writes fails only if `out_min` of the pivot is at or below its
//!   snapshot.
//!
//! So only finished transactions are looked at. Reads stay with their transaction until then: noting a read touches
//! nothing shared, a commit does not depend on how many readers are open, a reader that aborts, or turns out
//! to have no writes, has made nobody fail, and a long scan does not stop the writers under it. The price: of an
//! open reader and a pivot, the reader fails if it is the last to commit.
//!
//! Writers of weaker levels and plain writes take part as commits without reads.
//!
//! **Declared read-only transactions** track no reads and never fail. A pivot fails instead if any of them ever took a
//! snapshot at or after the pivot's `out_min`. One that has finished counts as one that is open: that it saw T3 and
//! missed T2, and has gone home with it, is Fekete's anomaly. One that begins between the check of a pivot and
//! its publication would see T3 and miss the pivot as well: it waits for that publication before it takes its
//! snapshot, which is the only thing a declared reader ever waits for.
//!
//! **Prepared transactions**: see `prepared`. They have no edge out and get none; who would write over their reads fails,
//! at every level. One that was found at open also counts as having an edge out: who has read what it writes fails.
//!
//! # Recording
//!
//! Commits are recorded only while somebody may ask for them. A transaction turns recording on, then asks for the last
//! assigned sequence number under the commit lock: every commit that takes the lock later sees that it has to
//! record, so all commits above that number are recorded, and the snapshot must not be below it. Recording
//! stops when no transaction has been open for 1024 recorded commits.
//!
//! Snapshots are taken under the lock of this module, so that what is dropped is known not to be needed: a commit is
//! dropped when no open snapshot, and no later visible number, is below it.
//!
//! # Costs and bounds
//!
//! * Noting a key: a hash, an uncontended lock, an insertion into a set of the transaction; a step of an iterator: a
//!   comparison and a copy into a buffer. Tens of nanoseconds.
//! * A commit of n writes: n insertions into a table and an ordered map; n lookups if it may be a pivot. Its reads are
//!   reviewed in pieces before the commit lock (`Tracker::review`), under it only against the commits since.
//! * After a commit its reads enter the index of finished readers, outside of the commit lock, if a transaction with an
//!   older snapshot is open.
//! * Memory: up to `bytes_max`, and a small constant per open transaction. Beyond its share a transaction's reads become
//!   coarser (ranges merge, then whole keyspaces), as do the oldest commits (one entry per keyspace that stands
//!   for any key) and the finished readers. Coarser only ever means more conflicts.
//! * Hashes of 64 bits stand for keys: a collision is a false conflict.

mod check;
mod finished;
mod prepared;
mod reads;
mod steps;
#[cfg(test)]
mod tests;
mod tracker;
mod writes;

pub(crate) use check::{Danger, Rule};
pub(crate) use reads::{ExportedKeyspace, ExportedReads, RangeEnd};
pub(crate) use tracker::Tracker;
pub(crate) use writes::WriteKeys;

use crate::base::sync::{Mutex, MutexGuard, Rank};
use crate::base::types::SeqNo;
use check::State;
use prepared::{Prepared, Reads};
use reads::ReadSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use steps::Mark;
use tracker::Unsettled;
use writes::{NEVER, Since};

/// Writes dropped in one hold of the lock, outside of commits.
const TIDY_WRITES: usize = 256;

/// What serializable transactions of one database conflict over.
#[derive(Debug)]
pub(crate) struct Ssi {
    state: Mutex<State>,
    recording: AtomicBool,
    bytes_max: usize,
    /// Memory of the reads of transactions, not settled ones included.
    reads_bytes: AtomicUsize,
    /// Memory of the state, as of its last change.
    state_bytes: AtomicUsize,
    /// Open transactions that track reads.
    open: AtomicUsize,
    /// Steps by which reads of open transactions became coarser.
    coarsened: AtomicU64,
}

/// Numbers of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SsiStats {
    /// Commits are recorded.
    pub(crate) is_recording: bool,
    /// Open transactions that track reads.
    pub(crate) open: usize,
    /// Prepared transactions, of any level.
    pub(crate) prepared: usize,
    /// Retained commits.
    pub(crate) retained: usize,
    /// Memory on the account.
    pub(crate) bytes: usize,
    /// Commits checked, without writes or with, since the start.
    pub(crate) checks: u64,
    /// Of them, how many failed.
    pub(crate) conflicts: u64,
    /// How often something became coarser for want of memory.
    pub(crate) coarsened: u64,
}

/// What is known of the reads of a prepared transaction that was found at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecoveredReads {
    /// It is of a level below serializable.
    Untracked,
    /// They were stored with it.
    Known(ExportedReads),
    /// They were not: it counts as having read everything.
    Unknown,
}

impl Ssi {
    /// Nothing is open; reads and records take up to so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<Ssi> {
        Arc::new(Ssi {
            state: Mutex::new(Rank::Ssi, State::default()),
            recording: AtomicBool::new(false),
            bytes_max,
            reads_bytes: AtomicUsize::new(0),
            state_bytes: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            coarsened: AtomicU64::new(0),
        })
    }

    /// True if a commit has to call `check_and_record`. To be asked under the commit lock; before it, the answer is a hint.
    #[inline]
    pub(crate) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Acquire)
    }

    /// Begins a transaction that tracks its reads.
    ///
    /// `assigned` takes the commit lock and answers the last assigned sequence number; `published` returns when commits
    /// up to a number are visible; `take` registers a snapshot of what is visible, and may be called again after what it
    /// answered was dropped. Only `take` is called under a lock of this module.
    pub(crate) fn begin<R, E>(
        self: &Arc<Self>,
        id: u64,
        assigned: impl FnOnce() -> SeqNo,
        mut published: impl FnMut(SeqNo) -> Result<(), E>,
        mut take: impl FnMut() -> (R, SeqNo),
    ) -> Result<(R, Tracker), E> {
        // The usual case, in one hold of the lock: commits are being recorded already.
        let begun = self.begin_recorded(id, &mut self.lock(), &mut take);
        if let Ok(begun) = begun {
            return Ok(begun);
        }
        let beginning = Beginning::new(self);
        let since = match beginning.since {
            Some(since) => since,
            None => {
                let since = assigned();
                *self.lock().since.get_or_insert(since)
            }
        };
        loop {
            let mut state = self.lock();
            match self.begin_recorded(id, &mut state, &mut take) {
                Ok(begun) => {
                    beginning.end_locked(&mut state);
                    return Ok(begun);
                }
                Err(too_old) => {
                    drop(state);
                    drop(too_old);
                    published(since)?;
                }
            }
        }
    }

    /// Begins a transaction if all commits above its snapshot are recorded. Otherwise answers the registration, to be
    /// dropped without the lock.
    fn begin_recorded<R>(
        self: &Arc<Self>,
        id: u64,
        state: &mut State,
        take: &mut impl FnMut() -> (R, SeqNo),
    ) -> Result<(R, Tracker), Option<R>> {
        let Some(since) = state.since else { return Err(None) };
        let (registration, snapshot) = take();
        if snapshot < since {
            return Err(Some(registration));
        }
        state.enter(snapshot);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok((registration, Tracker::new(Arc::clone(self), id, snapshot)))
    }

    /// Begins a declared read-only transaction: it has no tracker, for it tracks nothing and never fails. The closures are
    /// as for `begin`.
    pub(crate) fn begin_declared<R, E>(
        &self,
        mut published: impl FnMut(SeqNo) -> Result<(), E>,
        mut take: impl FnMut() -> (R, SeqNo),
    ) -> Result<R, E> {
        loop {
            let mut state = self.lock();
            let (registration, snapshot) = take();
            let Some(pivot) = state.retained.unseen_pivot(snapshot) else {
                state.declared = state.declared.max(snapshot);
                state.floor = state.floor.max(snapshot);
                return Ok(registration);
            };
            drop(state);
            drop(registration);
            published(pivot)?;
        }
    }

    /// Checks a commit and, if it may pass, records it as the commit `seq`.
    ///
    /// To be called under the commit lock, so that calls come in the order of `seq`, when nothing else can refuse the
    /// commit any more. If its log record cannot be written after all, the record stays: it can only cause false
    /// conflicts, also when `seq` is given out again. `visible` is the published sequence number, loaded before the call.
    /// Plain writes and weaker levels have no tracker.
    pub(crate) fn check_and_record(
        &self,
        tracker: Option<&Tracker>,
        writes: &WriteKeys,
        seq: SeqNo,
        visible: SeqNo,
    ) -> Result<(), Danger> {
        let sealed = tracker.map(|tracker| (tracker, tracker.sealed()));
        let mut state = self.lock();
        state.floor = state.floor.max(visible);
        let edges = sealed
            .as_ref()
            .map(|(tracker, sealed)| state.edges(&sealed.reads, tracker.since(sealed), &sealed.edges));
        let reader = sealed.as_ref().zip(edges.as_ref()).map(|((_, sealed), edges)| (&*sealed.reads, edges));
        let checked = state.check_writer(reader, writes);
        self.counted(&mut state, checked)?;
        let out_min = edges.map_or(NEVER, |edges| edges.out_min);
        state.retained.record(seq, tracker.map(Tracker::id), out_min, writes.clone());
        if let Some((tracker, sealed)) = &sealed {
            self.finish(&mut state, tracker, &sealed.reads, seq);
        }
        self.tidy_locked(&mut state, writes.iter().len());
        if state.is_idle() {
            self.recording.store(false, Ordering::Release);
            state.stop();
            self.note_bytes(&state);
        }
        Ok(())
    }

    /// A commit that passed the check was not made after all. Declared readers do not wait for it any more.
    pub(crate) fn withdraw(&self, tracker: &Tracker) {
        self.lock().retained.withdraw(tracker.id());
    }

    /// For `Tracker`: checks a transaction without writes.
    fn commit_reader(&self, tracker: &Tracker) -> Result<(), Danger> {
        let sealed = tracker.sealed();
        let mut state = self.lock();
        let edges = state.edges(&sealed.reads, tracker.since(&sealed), &sealed.edges);
        let checked = state.check_reader(&sealed.reads, tracker.snapshot(), &edges);
        self.counted(&mut state, checked)?;
        self.finish(&mut state, tracker, &sealed.reads, tracker.snapshot());
        self.tidy_on(state);
        Ok(())
    }

    /// Ends a transaction that passed, `at` its commit, or its snapshot if it has no writes.
    fn finish(&self, state: &mut State, tracker: &Tracker, reads: &Arc<ReadSet>, at: SeqNo) {
        self.leave_locked(state, tracker.snapshot());
        let is_wanted = state.finish(tracker.id(), at, reads);
        tracker.left(is_wanted.then_some(Mark { at, id: tracker.id() }), false);
    }

    /// Checks a transaction that is to be prepared. From then on it cannot fail; it is known by its id until
    /// `commit_prepared` or `rollback_prepared`. All levels take part.
    pub(crate) fn prepare(
        &self,
        id: u64,
        tracker: Option<&Tracker>,
        writes: WriteKeys,
    ) -> Result<(), Danger> {
        if let Some(tracker) = tracker {
            tracker.review();
        }
        let sealed = tracker.map(|tracker| (tracker, tracker.sealed()));
        let mut state = self.lock();
        let edges = sealed
            .as_ref()
            .map(|(tracker, sealed)| state.edges(&sealed.reads, tracker.since(sealed), &sealed.edges));
        let reader = sealed.as_ref().zip(edges.as_ref()).map(|((_, sealed), edges)| (&*sealed.reads, edges));
        let checked = state.check_prepare(reader, &writes);
        self.counted(&mut state, checked)?;
        let reads = match &sealed {
            Some((tracker, sealed)) => {
                self.leave_locked(&mut state, tracker.snapshot());
                tracker.left(None, true);
                Reads::Known(Arc::clone(&sealed.reads))
            }
            None => Reads::Untracked,
        };
        state.prepared.add(Prepared { id, reads, writes, is_recovered: false });
        self.note_bytes(&state);
        Ok(())
    }

    /// Takes in a prepared transaction found at open, before the first commit.
    pub(crate) fn recover_prepared(&self, id: u64, writes: WriteKeys, reads: &RecoveredReads) {
        let reads = match reads {
            RecoveredReads::Untracked => Reads::Untracked,
            RecoveredReads::Known(exported) => Reads::Known(Arc::new(ReadSet::import(exported))),
            RecoveredReads::Unknown => Reads::Everything,
        };
        if let Reads::Known(reads) = &reads {
            self.charge(reads.bytes());
        }
        let mut state = self.lock();
        state.prepared.add(Prepared { id, reads, writes, is_recovered: true });
        if state.prepared.has_serializable() {
            self.recording.store(true, Ordering::Release);
        }
        self.note_bytes(&state);
    }

    /// Records the commit of a prepared transaction, under the commit lock like `check_and_record`, recording or not. The
    /// transaction stays prepared, for the log may yet refuse the commit: to be followed by `made_prepared` with the same
    /// number or by `withdraw_prepared`, outside of the commit lock.
    pub(crate) fn commit_prepared(&self, id: u64, seq: SeqNo, visible: SeqNo) {
        let mut state = self.lock();
        state.floor = state.floor.max(visible);
        let Some(prepared) = state.prepared.get(id).filter(|_| self.is_recording()) else { return };
        let (writes, out_min) = (prepared.writes.clone(), prepared.out_min());
        let added = writes.iter().len();
        state.retained.record(seq, Some(id), out_min, writes);
        self.tidy_locked(&mut state, added);
    }

    /// The commit `seq` of a prepared transaction was made: from now on it counts as one that has finished.
    pub(crate) fn made_prepared(self: &Arc<Self>, id: u64, seq: SeqNo) {
        let unsettled = {
            let mut state = self.lock();
            let Some(Prepared { reads, .. }) = state.prepared.remove(id) else { return };
            let reads = state.finish_prepared(id, seq, reads);
            self.note_bytes(&state);
            reads.map(|reads| Unsettled { ssi: Arc::clone(self), reads, mark: Mark { at: seq, id } })
        };
        // Enters the index piece by piece.
        drop(unsettled);
    }

    /// The commit of a prepared transaction was not made after all: it is prepared as before.
    pub(crate) fn withdraw_prepared(&self, id: u64) {
        self.lock().retained.withdraw(id);
    }

    /// Forgets a prepared transaction that is rolled back.
    pub(crate) fn rollback_prepared(&self, id: u64) {
        let mut state = self.lock();
        if let Some(Prepared { reads: Reads::Known(reads), .. }) = state.prepared.remove(id) {
            self.uncharge(reads.bytes());
        }
        self.note_bytes(&state);
    }

    /// Says what is visible now and drops what nobody needs any more.
    pub(crate) fn collect(&self, visible: SeqNo) {
        {
            let mut state = self.lock();
            state.floor = state.floor.max(visible);
        }
        self.tidy();
    }

    /// The numbers of now.
    pub(crate) fn stats(&self) -> SsiStats {
        let state = self.lock();
        SsiStats {
            is_recording: self.is_recording(),
            open: state.open.values().sum(),
            prepared: state.prepared.len(),
            retained: state.retained.commits(),
            bytes: state.bytes().saturating_add(self.reads_bytes.load(Ordering::Relaxed)),
            checks: state.checks,
            conflicts: state.conflicts,
            coarsened: state.collapsed.saturating_add(self.coarsened.load(Ordering::Relaxed)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn counted(&self, state: &mut State, checked: Result<(), Danger>) -> Result<(), Danger> {
        state.checks = state.checks.saturating_add(1);
        state.conflicts = state.conflicts.saturating_add(u64::from(checked.is_err()));
        checked
    }

    /// What a check of these reads costs, whether the log is the cheaper side, and where the log ends.
    fn cost(&self, reads: &ReadSet, since: Since) -> (usize, bool, u64) {
        let state = self.lock();
        let (cost, is_log_cheaper) = state.retained.cost(reads, since);
        (cost, is_log_cheaper, state.retained.position())
    }

    /// A transaction that was open has ended without a commit.
    fn leave(&self, snapshot: SeqNo) {
        let mut state = self.lock();
        self.leave_locked(&mut state, snapshot);
        self.tidy_on(state);
    }

    fn leave_locked(&self, state: &mut State, snapshot: SeqNo) {
        state.leave(snapshot);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Drops what is not needed, in pieces.
    fn tidy(&self) {
        self.tidy_on(self.lock());
    }

    /// As `tidy`; the first piece in this hold of the lock.
    fn tidy_on(&self, mut state: MutexGuard<'_, State>) {
        let mut has_more = self.tidy_locked(&mut state, TIDY_WRITES);
        drop(state);
        while has_more {
            has_more = self.tidy_locked(&mut self.lock(), TIDY_WRITES);
        }
    }

    fn tidy_locked(&self, state: &mut State, added: usize) -> bool {
        let left = self.bytes_max.saturating_sub(self.reads_bytes.load(Ordering::Relaxed));
        let has_more = state.tidy(added, left.max(self.bytes_max / 2));
        self.note_bytes(state);
        has_more
    }

    fn note_bytes(&self, state: &State) {
        self.state_bytes.store(state.bytes(), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let reads = self.reads_bytes.load(Ordering::Relaxed);
        reads.saturating_add(self.state_bytes.load(Ordering::Relaxed)) > self.bytes_max
    }

    fn charge(&self, bytes: usize) -> bool {
        self.reads_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.is_over()
    }

    fn uncharge(&self, bytes: usize) {
        self.reads_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn note_coarsened(&self, steps: u64) {
        self.coarsened.fetch_add(steps, Ordering::Relaxed);
    }

    /// What one open transaction may use when memory is short: half the budget, divided among all.
    fn fair_share(&self) -> usize {
        (self.bytes_max / 2).checked_div(self.open.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// A transaction between asking for recording and its snapshot: recording does not stop meanwhile.
struct Beginning<'a> {
    ssi: &'a Ssi,
    /// What is known of when recording began.
    since: Option<SeqNo>,
    has_ended: bool,
}

impl<'a> Beginning<'a> {
    fn new(ssi: &'a Ssi) -> Beginning<'a> {
        let mut state = ssi.lock();
        state.beginning = state.beginning.saturating_add(1);
        ssi.recording.store(true, Ordering::Release);
        Beginning { ssi, since: state.since, has_ended: false }
    }

    fn end_locked(mut self, state: &mut State) {
        state.beginning = state.beginning.saturating_sub(1);
        self.has_ended = true;
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let mut state = self.ssi.lock();
            state.beginning = state.beginning.saturating_sub(1);
        }
    }
}
