//! `Core`: everything an open database shares between its handles and its background threads.
//!
//! Which lock guards what is in `docs/locking.md`. In short: `commit` orders commits and owns the log and the filling
//! memtables; `manifest` serialises edits and is held across their I/O; `state` guards what runs in the background
//! and every replacement of a view, and no I/O happens under it.

use super::events::Event;
use super::health::{Health, closed};
use super::keyspace::{Frozen, KeyspaceCore, View, is_reserved};
use super::obsolete::Garbage;
use super::options::{Durability, ResolvedOptions};
use super::pipeline::{Pipeline, SyncTarget};
use super::snapshot::Registry;
use super::stall::Stall;
use super::stats::Counters;
use super::tables::Tables;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Condvar, Mutex};
use crate::base::types::{DbId, FileNo, KeyspaceId, SegmentNo, SeqNo};
use crate::compaction::Running;
use crate::env::{Env, FileLock};
use crate::manifest::{Edit, EditOp, Manifest, Version};
use crate::memtable::{ActiveMemtable, Memtable};
use crate::wal::{Log, LogOptions, Segment};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// An open database.
pub(crate) struct Core {
    pub(crate) env: Env,
    pub(crate) dir: PathBuf,
    pub(crate) db_id: DbId,
    pub(crate) options: ResolvedOptions,
    pub(crate) health: Health,
    pub(crate) commit: Mutex<CommitState>,
    pub(crate) pipeline: Pipeline,
    pub(crate) manifest: Mutex<ManifestState>,
    pub(crate) files: FileNumbers,
    pub(crate) state: Mutex<State>,
    /// Whether background threads were started: not every world has them.
    pub(crate) has_threads: AtomicBool,
    /// Wakes background threads.
    pub(crate) work: Condvar,
    /// Wakes threads that wait for background work.
    pub(crate) progress: Condvar,
    pub(crate) registry: Arc<Registry>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) garbage: Garbage,
    pub(crate) stall: Stall,
    pub(crate) stats: Counters,
    pub(crate) cancel: AtomicBool,
    /// Number of a log segment to prepare ahead; 0 for none.
    pub(crate) prepare: AtomicU64,
    /// When the log was last synced for a commit, in nanoseconds of the clock, while a proof of it is due; 0: not due.
    pub(crate) proof_due: AtomicU64,
    /// When `Os` commits are to be synced, in nanoseconds of the clock; 0: nothing to sync.
    pub(crate) sync_due: AtomicU64,
    /// Tables hold garbage that only readers keep from being dropped.
    pub(crate) held_back: AtomicBool,
}

/// What the commit lock guards.
pub(crate) struct CommitState {
    /// The next operation's sequence number.
    pub(crate) next_seq: SeqNo,
    /// The log.
    pub(crate) log: Log,
    /// What a sync covers: the log's active segment.
    pub(crate) target: Option<(SegmentNo, Arc<dyn SyncTarget>)>,
    /// The filling memtable of each keyspace.
    pub(crate) active: BTreeMap<KeyspaceId, Active>,
    /// Bytes of batches since the memory of all memtables was looked at.
    pub(crate) unchecked_bytes: u64,
}

/// The filling memtable of a keyspace.
pub(crate) struct Active {
    pub(crate) keyspace: Arc<KeyspaceCore>,
    pub(crate) memtable: Arc<ActiveMemtable>,
    /// Oldest segment with an entry of the memtable.
    pub(crate) first_segment: Option<SegmentNo>,
    /// Whether anything (logged or not) was put into it.
    pub(crate) used: bool,
}

/// What the manifest lock guards: the log of edits, the version they add up to, and the right to write them.
pub(crate) struct ManifestState {
    pub(crate) manifest: Manifest,
    pub(crate) version: Version,
    /// The lock against a second opener; given back by the close, after which nothing of the directory is ours.
    pub(crate) lock: Option<Box<dyn FileLock>>,
}

/// What the engine state lock guards.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) keyspaces: BTreeMap<KeyspaceId, Arc<KeyspaceCore>>,
    /// Keyspaces being flushed.
    pub(crate) flushing: BTreeSet<KeyspaceId>,
    /// Compactions under way, and those that met damage: their tables are left alone until the next open.
    pub(crate) compacting: BTreeMap<KeyspaceId, Running>,
    /// Compactions under way.
    pub(crate) compactions: usize,
    /// Jobs running, of any kind.
    pub(crate) running: usize,
    /// No new jobs are started.
    pub(crate) closing: bool,
    /// Failed preparations of log segments.
    pub(crate) prepare_retry: Retry,
    /// Failed flushes.
    pub(crate) flush_retry: Retry,
    /// Failed compactions.
    pub(crate) compaction_retry: Retry,
}

/// After a job failed: why, and when to try again.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    pub(crate) failure: Option<Error>,
    at: Duration,
    pause: Duration,
}

/// First pause after a failed job, and the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

impl Retry {
    /// Notes a failure; the pauses grow.
    pub(crate) fn failed(&mut self, error: &Error, now: Duration) {
        self.failure = Some(error.clone());
        self.pause = self.pause.saturating_mul(2).clamp(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        self.at = now.saturating_add(self.pause);
    }

    /// Whether the pause is not over.
    pub(crate) fn is_waiting(&self, now: Duration) -> bool {
        self.failure.is_some() && now < self.at
    }

    /// When to try again, after a failure.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.failure.is_some().then_some(self.at)
    }
}

/// Numbers of table files, reserved in durable ranges before use.
pub(crate) struct FileNumbers {
    next: AtomicU64,
    reserved: AtomicU64,
}

/// File numbers reserved at a time.
const RESERVED_RANGE: u64 = 1000;

impl FileNumbers {
    /// Everything below `first` may have been used.
    pub(crate) fn new(first: FileNo) -> FileNumbers {
        FileNumbers { next: AtomicU64::new(first), reserved: AtomicU64::new(first) }
    }

    /// Numbers from here on are not used yet.
    pub(crate) fn next(&self) -> FileNo {
        self.next.load(Ordering::Acquire)
    }
}

impl Core {
    /// A table number that was never used.
    pub(crate) fn next_file(&self) -> Result<FileNo> {
        let number = self.files.next.fetch_add(1, Ordering::AcqRel);
        if number < self.files.reserved.load(Ordering::Acquire) {
            return Ok(number);
        }
        let mut manifest = self.manifest.lock();
        if number >= self.files.reserved.load(Ordering::Acquire) {
            let upto = number.saturating_add(RESERVED_RANGE);
            self.append_edit_locked(&mut manifest, &Edit(vec![EditOp::ReserveFiles(upto)]))?;
            self.files.reserved.store(upto, Ordering::Release);
        }
        Ok(number)
    }

    /// Makes an edit durable in both copies of the manifest. A failed write or sync poisons the engine: what is in the
    /// manifest is then unknown, and nothing may be deleted or built upon. A full disk changes nothing.
    pub(crate) fn append_edit_locked(&self, manifest: &mut ManifestState, edit: &Edit) -> Result<()> {
        self.health.check_not_poisoned()?;
        let Some(lock) = &manifest.lock else { return Err(closed()) };
        if !lock.is_intact() {
            let error = Error::new(ErrorKind::Poisoned, "the lock file was removed or replaced");
            self.poison(&error);
            return Err(error);
        }
        match manifest.manifest.append(&manifest.version, edit) {
            Ok(version) => {
                manifest.version = version;
                self.garbage.release_held();
                Ok(())
            }
            Err(error) => {
                let harmless = [ErrorKind::NoSpace, ErrorKind::InvalidArgument, ErrorKind::LimitExceeded];
                if !harmless.contains(&error.kind()) {
                    self.poison(&error);
                }
                Err(error)
            }
        }
    }

    /// Passes a result on; if it is an error, the listener hears of what it did to the engine. No lock may be held.
    pub(crate) fn announced<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.health.announce();
        }
        result
    }

    /// Stops writes for good and answers everybody who waits.
    pub(crate) fn poison(&self, cause: &Error) {
        self.health.poison(cause);
        self.pipeline.fail(cause);
        let state = self.state.lock();
        self.progress.notify_all();
        self.work.notify_all();
        drop(state);
    }

    /// Stops writes after work that failed so that nothing may be assumed of the disk.
    pub(crate) fn poison_if_fatal<T>(&self, outcome: &Result<T>) {
        if let Err(error) = outcome
            && matches!(error.kind(), ErrorKind::Poisoned | ErrorKind::OutcomeUnknown)
        {
            self.poison(error);
        }
    }

    /// Wakes the background threads.
    pub(crate) fn signal_work(&self) {
        let state = self.state.lock();
        self.work.notify_all();
        drop(state);
    }

    /// Whether background threads exist; without them the caller runs queued work itself.
    pub(crate) fn has_threads(&self) -> bool {
        self.has_threads.load(Ordering::Relaxed)
    }

    /// Durability of a write that did or did not choose.
    pub(crate) fn durability(&self, chosen: Option<Durability>) -> Durability {
        chosen.unwrap_or(self.options.durability)
    }

    /// A keyspace by name. The engine's own are found by [`system_keyspace`](Core::system_keyspace) only.
    pub(crate) fn find_keyspace(&self, name: &str) -> Option<Arc<KeyspaceCore>> {
        if is_reserved(name) { None } else { self.keyspace_named(name) }
    }

    /// A keyspace by name, the engine's own included.
    pub(crate) fn keyspace_named(&self, name: &str) -> Option<Arc<KeyspaceCore>> {
        self.state.lock().keyspaces.values().find(|keyspace| keyspace.name == name).cloned()
    }

    /// A reader let go of what it read; garbage may have become free.
    pub(crate) fn reader_gone(&self) {
        if self.garbage.is_waiting() {
            self.signal_work();
        }
    }

    /// Freezes the filling memtable of a keyspace, if anything is in it, so that it can be flushed.
    pub(crate) fn freeze_locked(&self, commit: &mut CommitState, id: KeyspaceId) -> bool {
        let last_seq = commit.next_seq.saturating_sub(1);
        let Some(active) = commit.active.get_mut(&id) else { return false };
        if !active.used {
            return false;
        }
        let fresh = Arc::new(ActiveMemtable::new(active.keyspace.write_buffer_bytes));
        let full = std::mem::replace(&mut active.memtable, Arc::clone(&fresh));
        let frozen =
            Frozen { memtable: Memtable::List(full), last_seq, first_segment: active.first_segment.take() };
        active.used = false;
        let keyspace = Arc::clone(&active.keyspace);
        let state = self.state.lock();
        let view = keyspace.view();
        let mut all = Vec::with_capacity(view.frozen.len().saturating_add(1));
        all.push(Arc::new(frozen));
        all.extend(view.frozen.iter().cloned());
        keyspace.set_view_locked(View { active: fresh, frozen: all, tree: Arc::clone(&view.tree) });
        self.update_stall_locked(&state);
        self.work.notify_all();
        drop(state);
        true
    }

    /// The oldest log segment that an unflushed entry needs, when these frozen memtables are flushed.
    pub(crate) fn oldest_needed_locked(&self, commit: &CommitState, flushed: &[Arc<Frozen>]) -> SegmentNo {
        let current = match commit.log.active() {
            Some(segment) => segment.number(),
            None => commit.log.next_number(),
        };
        let mut oldest = current;
        for active in commit.active.values() {
            let view = active.keyspace.view();
            let waiting = view
                .frozen
                .iter()
                .filter(|frozen| !flushed.iter().any(|gone| Arc::ptr_eq(gone, frozen)))
                .filter_map(|frozen| frozen.first_segment);
            oldest = waiting.chain(active.first_segment).fold(oldest, SegmentNo::min);
        }
        oldest
    }

    /// How log segments are made.
    pub(crate) fn log_options(&self) -> LogOptions {
        LogOptions { segment_bytes: self.options.wal_segment_bytes, mapped: self.options.wal_mapped }
    }

    /// Emits an event. No engine lock may be held.
    pub(crate) fn emit(&self, event: &Event) {
        self.health.emit(event);
        self.wake_if_poisoned();
    }

    /// Wakes everybody who waits for what will not happen any more. For after the listener was called: a panic in it
    /// poisons, and nothing else may be left that would wake them.
    pub(crate) fn wake_if_poisoned(&self) {
        if self.health.is_poisoned() {
            let state = self.state.lock();
            self.progress.notify_all();
            self.work.notify_all();
            drop(state);
        }
    }
}

/// A log segment as what the pipeline syncs.
pub(crate) struct SegmentTarget(pub(crate) Arc<Segment>);

impl SyncTarget for SegmentTarget {
    fn sync(&self) -> Result<SeqNo> {
        self.0.sync()
    }
}
