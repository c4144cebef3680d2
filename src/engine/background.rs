//! Background work: what is to be done next, and doing one piece of it.
//!
//! Threads loop over [`Core::run_one_job`]'s two halves; without threads the same call runs on whoever waits, so a
//! simulation walks the same path in an order of its choosing. Flushes come first and one thread does nothing else,
//! so that a long compaction cannot hold up writes; where there is one thread only, compactions make way for them.

use super::core::{Core, Retry, State};
use super::events::Event;
use super::keyspace::KeyspaceCore;
use super::options::SnapshotAgePolicy;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{KeyspaceId, SegmentNo};
use crate::compaction::{Reclaim, Running, Task, pick, reclaim};
use crate::wal;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

/// Which jobs a thread takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Everything short: flushes, log segments, syncs, removal of files.
    Flush,
    /// Everything.
    Any,
}

/// One piece of background work.
#[derive(Debug)]
pub(crate) enum Job {
    /// Create the next log segment ahead of its use.
    Prepare(SegmentNo),
    /// Turn the full memtables of a keyspace into a run.
    Flush(Arc<KeyspaceCore>),
    /// Merge, move or drop tables.
    Compact(Arc<KeyspaceCore>, Arc<Task>),
    /// Sync what `Os` commits left in the page cache.
    Sync,
    /// Write down how far the log is known to be durable.
    Proof,
    /// Look for readers that are too old.
    Readers,
    /// Remove files and memory that nobody reads any more.
    Collect,
}

impl Job {
    fn name(&self) -> &'static str {
        match self {
            Job::Prepare(_) => "preparing a log segment",
            Job::Flush(_) => "flush",
            Job::Compact(..) => "compaction",
            Job::Sync => "periodic sync",
            Job::Proof => "proof of sync",
            Job::Readers => "look for old readers",
            Job::Collect => "removal of obsolete files",
        }
    }
}

thread_local! {
    /// Whether this is a background thread of some database.
    static IS_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller is a background thread, which must not wait for background work or for its own end.
pub(crate) fn is_background_thread() -> bool {
    IS_BACKGROUND.get()
}

/// The error of waiting on a background thread.
pub(crate) fn waits_for_itself() -> Error {
    Error::new(ErrorKind::InvalidArgument, "an event listener cannot wait for background work")
}

/// How long the log must have been idle before a proof of the last sync is written.
const PROOF_IDLE: Duration = Duration::from_millis(100);

/// How long until another look at garbage that readers hold back.
const HELD_BACK_PAUSE: Duration = Duration::from_secs(5);

impl Core {
    /// Body of a background thread.
    pub(crate) fn background_loop(&self, class: Class) {
        IS_BACKGROUND.set(true);
        loop {
            let job = {
                let mut state = self.state.lock();
                loop {
                    if state.closing {
                        return;
                    }
                    let now = self.env.clock.now();
                    if let Some(job) = self.next_job_locked(&mut state, class, now) {
                        break job;
                    }
                    match self.next_timer_locked(&state, class, now) {
                        None => self.work.wait(&mut state),
                        Some(at) => {
                            let pause = at.saturating_sub(now).max(Duration::from_millis(1));
                            self.work.wait_for(&mut state, pause);
                        }
                    }
                }
            };
            self.run(job);
        }
    }

    /// Runs one queued job on this thread; says whether there was one.
    pub(crate) fn run_one_job(&self) -> bool {
        let job = {
            let mut state = self.state.lock();
            if state.closing {
                return false;
            }
            self.next_job_locked(&mut state, Class::Any, self.env.clock.now())
        };
        match job {
            Some(job) => {
                self.run(job);
                true
            }
            None => false,
        }
    }

    /// Runs what is queued but compactions, on a thread in the middle of one.
    pub(crate) fn run_short_jobs(&self) {
        loop {
            let job = {
                let mut state = self.state.lock();
                if state.closing {
                    return;
                }
                self.next_job_locked(&mut state, Class::Flush, self.env.clock.now())
            };
            let Some(job) = job else { return };
            self.run(job);
        }
    }

    /// Chooses the next job and marks what it works on.
    fn next_job_locked(&self, state: &mut State, class: Class, now: Duration) -> Option<Job> {
        let job = self.choose_locked(state, class, now)?;
        state.running = state.running.saturating_add(1);
        match &job {
            Job::Flush(keyspace) => {
                state.flushing.insert(keyspace.id);
            }
            Job::Compact(keyspace, task) => {
                state.start_compaction(keyspace.id, task);
            }
            _ => {}
        }
        Some(job)
    }

    fn choose_locked(&self, state: &State, class: Class, now: Duration) -> Option<Job> {
        if self.health.is_poisoned() {
            return None;
        }
        if !state.prepare_retry.is_waiting(now) {
            let segment = self.prepare.swap(0, Ordering::AcqRel);
            if segment != 0 {
                return Some(Job::Prepare(segment));
            }
        }
        if !state.flush_retry.is_waiting(now)
            && let Some(keyspace) = self.flush_candidate_locked(state)
        {
            return Some(Job::Flush(keyspace));
        }
        if is_due(&self.sync_due, now) {
            return Some(Job::Sync);
        }
        if is_due(&self.proof_due, now) {
            return Some(Job::Proof);
        }
        if self.registry.due().is_some_and(|at| now >= at) {
            return Some(Job::Readers);
        }
        if self.garbage.ready(now) {
            return Some(Job::Collect);
        }
        if class == Class::Any && !state.compaction_retry.is_waiting(now) {
            return self
                .compaction_candidate_locked(state)
                .map(|(keyspace, task)| Job::Compact(keyspace, task));
        }
        None
    }

    fn flush_candidate_locked(&self, state: &State) -> Option<Arc<KeyspaceCore>> {
        let mut candidates: Vec<_> = state
            .keyspaces
            .values()
            .filter(|keyspace| !state.flushing.contains(&keyspace.id))
            .filter_map(|keyspace| {
                let view = keyspace.view();
                let oldest = view.frozen.last()?.last_seq;
                Some((oldest, keyspace))
            })
            .collect();
        candidates.sort_by_key(|(oldest, _)| *oldest);
        candidates.first().map(|(_, keyspace)| Arc::clone(keyspace))
    }

    fn compaction_candidate_locked(&self, state: &State) -> Option<(Arc<KeyspaceCore>, Arc<Task>)> {
        for keyspace in state.keyspaces.values() {
            let none = Running::default();
            let running = state.compacting.get(&keyspace.id).unwrap_or(&none);
            if let Some(task) = pick(&keyspace.view().tree, &keyspace.shape, running) {
                return Some((Arc::clone(keyspace), Arc::new(task)));
            }
        }
        self.reclamation_candidate_locked(state)
    }

    /// With nothing out of shape: tables with much that only readers of the past needed, who are gone.
    fn reclamation_candidate_locked(&self, state: &State) -> Option<(Arc<KeyspaceCore>, Arc<Task>)> {
        let oldest = self.registry.peek(&self.pipeline).oldest();
        let mut held_back = false;
        let found = state.keyspaces.values().find_map(|keyspace| {
            let none = Running::default();
            let running = state.compacting.get(&keyspace.id).unwrap_or(&none);
            match reclaim(&keyspace.view().tree, &keyspace.shape, running, oldest) {
                Reclaim::Step(task) => Some((Arc::clone(keyspace), Arc::new(task))),
                Reclaim::HeldBack => {
                    held_back = true;
                    None
                }
                Reclaim::Nothing => None,
            }
        });
        self.held_back.store(held_back, Ordering::Relaxed);
        found
    }

    /// When the next job that waits for time alone becomes due.
    fn next_timer_locked(&self, state: &State, class: Class, now: Duration) -> Option<Duration> {
        if self.health.is_poisoned() {
            return None;
        }
        // A pause that is over holds nothing back any more: what there was to retry has been chosen or is gone.
        let prepare = state.prepare_retry.due().filter(|at| *at > now);
        let flush = state.flush_retry.due().filter(|at| *at > now);
        let compaction = state.compaction_retry.due().filter(|at| *at > now && class == Class::Any);
        let held_back = class == Class::Any && self.held_back.load(Ordering::Relaxed);
        let timers = [
            self.garbage.next_look(),
            prepare,
            flush,
            compaction,
            due_at(&self.proof_due),
            due_at(&self.sync_due),
            self.registry.due(),
            held_back.then(|| now.saturating_add(HELD_BACK_PAUSE)),
        ];
        timers.into_iter().flatten().min()
    }

    /// Runs a job, settles what became of it and tells whoever waits.
    fn run(&self, job: Job) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.execute(&job))).unwrap_or_else(|_| {
            let error =
                Error::new(ErrorKind::Poisoned, format!("a panic in background work ({})", job.name()));
            self.poison(&error);
            Err(error)
        });
        self.poison_if_fatal(&outcome);
        let event = outcome
            .as_ref()
            .err()
            .map(|error| Event::BackgroundError { job: job.name(), error: error.clone() });
        let has_space = {
            let mut state = self.state.lock();
            state.running = state.running.saturating_sub(1);
            match &job {
                Job::Flush(keyspace) => {
                    state.flushing.remove(&keyspace.id);
                }
                Job::Compact(keyspace, task) => state.end_compaction(keyspace.id, task, is_damage(&outcome)),
                _ => {}
            }
            self.note_outcome_locked(&mut state, &job, &outcome);
            self.update_stall_locked(&state);
            self.progress.notify_all();
            self.work.notify_all();
            // What takes space went through, and nothing that takes space waits for another try.
            let fails = state.prepare_retry.failure.is_some() || state.flush_retry.failure.is_some();
            matches!(job, Job::Prepare(_) | Job::Flush(_)) && !fails
        };
        self.health.announce();
        match &outcome {
            Ok(()) if has_space => self.health.clear_no_space(),
            Ok(()) => {}
            // A compaction leaves the last space to flushes: its failure does not stop writes.
            Err(error) if error.kind() == ErrorKind::NoSpace && !matches!(job, Job::Compact(..)) => {
                self.health.set_no_space(error);
            }
            Err(_) => {}
        }
        self.wake_if_poisoned();
        if let Some(event) = event
            && !self.cancel.load(Ordering::Acquire)
        {
            self.emit(&event);
        }
    }

    fn note_outcome_locked(&self, state: &mut State, job: &Job, outcome: &Result<()>) {
        let now = self.env.clock.now();
        let retry = match job {
            Job::Prepare(_) => &mut state.prepare_retry,
            Job::Flush(_) => &mut state.flush_retry,
            Job::Compact(..) => &mut state.compaction_retry,
            Job::Sync | Job::Proof | Job::Readers | Job::Collect => return,
        };
        let Err(error) = outcome else {
            *retry = Retry::default();
            return;
        };
        // A cancelled compaction is over, and after damage trying again cannot help.
        if matches!(job, Job::Compact(..)) && (error.kind() == ErrorKind::Closed || is_damage(outcome)) {
            return;
        }
        retry.failed(error, now);
        if let Job::Prepare(segment) = job {
            self.prepare.store(*segment, Ordering::Release);
        }
    }

    fn execute(&self, job: &Job) -> Result<()> {
        match job {
            Job::Prepare(segment) => self.prepare_segment(*segment),
            Job::Flush(keyspace) => self.flush(keyspace),
            Job::Compact(keyspace, task) => self.compact(keyspace, task),
            Job::Sync => self.periodic_sync(),
            Job::Proof => self.prove_sync(),
            Job::Readers => {
                self.look_for_old_readers();
                Ok(())
            }
            Job::Collect => self.collect(),
        }
    }

    /// Waits until nothing is left to do in the background.
    pub(crate) fn wait_for_background(&self) -> Result<()> {
        self.health.check_open()?;
        if is_background_thread() {
            return Err(waits_for_itself());
        }
        loop {
            while !self.has_threads() && self.run_one_job() {
                self.health.check_not_poisoned()?;
            }
            let mut state = self.state.lock();
            self.health.check_not_poisoned()?;
            self.health.check_open()?;
            if state.running == 0 && !self.has_work_locked(&state) {
                return Ok(());
            }
            let failed = state.flush_retry.failure.as_ref().or(state.compaction_retry.failure.as_ref());
            if state.running == 0
                && let Some(error) = failed
            {
                return Err(error.clone());
            }
            if self.has_threads() || state.running > 0 {
                self.work.notify_all();
                self.progress.wait_for(&mut state, Duration::from_millis(500));
            }
        }
    }

    fn has_work_locked(&self, state: &State) -> bool {
        self.flush_candidate_locked(state).is_some() || self.compaction_candidate_locked(state).is_some()
    }

    // Readers.

    /// After a registration.
    #[inline]
    pub(crate) fn plan_look(&self) {
        if self.registry.plan_look() {
            self.signal_work();
        }
    }

    /// Tells of readers that are too old, which are given up if that is the policy.
    fn look_for_old_readers(&self) {
        let mut pins = self.registry.look();
        self.estimate_bytes(&mut pins);
        let given_up = self.options.snapshot_age_policy == SnapshotAgePolicy::Fail;
        for pin in pins {
            self.emit(&Event::OldReader { pin, given_up });
        }
    }

    // Syncing in the background.

    /// After an `Os` commit: a sync is due within the interval.
    #[inline]
    pub(crate) fn arm_sync(&self) {
        let Some(interval) = self.options.sync_interval else { return };
        // The commit is visible. Either the periodic sync sees that, or this sees that the timer is off.
        fence(Ordering::SeqCst);
        if self.sync_due.load(Ordering::Relaxed) == 0 {
            self.arm(&self.sync_due, interval);
        }
    }

    fn periodic_sync(&self) -> Result<()> {
        self.sync_due.store(0, Ordering::Release);
        // The other side of the fence in `arm_sync`: off before what is visible is looked at.
        fence(Ordering::SeqCst);
        self.sync()
    }

    #[cold]
    fn arm(&self, timer: &AtomicU64, pause: Duration) {
        let at = self.env.clock.now().saturating_add(pause);
        timer.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        self.signal_work();
    }

    /// After a sync: a proof of it is due once the log is idle.
    #[inline]
    pub(crate) fn arm_proof(&self) {
        if self.proof_due.load(Ordering::Relaxed) == 0 {
            self.arm(&self.proof_due, PROOF_IDLE);
        }
    }

    /// Writes a record that says how far the log is durable, so that damage before it cannot pass for a torn tail.
    fn prove_sync(&self) -> Result<()> {
        self.proof_due.store(0, Ordering::Relaxed);
        let syncs = self.pipeline.syncs();
        if self.stats.seen_syncs.swap(syncs, Ordering::Relaxed) != syncs {
            // Not idle since the last look; a record to come may carry the proof for nothing.
            self.arm(&self.proof_due, PROOF_IDLE);
            return Ok(());
        }
        let segment = {
            let mut commit = self.commit.lock();
            let Some(segment) = commit.log.active() else { return Ok(()) };
            match commit.log.write_proof() {
                Ok(true) => segment,
                Ok(false) => return Ok(()),
                Err(error) => {
                    drop(commit);
                    if error.kind() == ErrorKind::Poisoned {
                        self.poison(&error);
                    }
                    return Err(error);
                }
            }
        };
        if let Err(error) = segment.sync() {
            self.poison(&error);
            return Err(error);
        }
        Ok(())
    }

    fn prepare_segment(&self, number: SegmentNo) -> Result<()> {
        if self.commit.lock().log.wants_prepared() != Some(number) {
            return Ok(());
        }
        let prepared = wal::prepare(&self.env, &self.dir, self.db_id, number, &self.log_options());
        let log = &mut self.commit.lock().log;
        match prepared {
            Ok(prepared) => log.offer_prepared(prepared),
            // The log went on without it, so its file was there already.
            Err(error) if error.kind() != ErrorKind::Poisoned && log.wants_prepared() != Some(number) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl State {
    /// Notes that a compaction begins.
    pub(crate) fn start_compaction(&mut self, keyspace: KeyspaceId, task: &Arc<Task>) {
        self.compacting.entry(keyspace).or_default().add(Arc::clone(task));
        self.compactions = self.compactions.saturating_add(1);
    }

    /// Notes that a compaction ended. After damage in its inputs its tables stay marked: trying again cannot help,
    /// and what is sound in them stays readable.
    pub(crate) fn end_compaction(&mut self, keyspace: KeyspaceId, task: &Arc<Task>, damaged: bool) {
        self.compactions = self.compactions.saturating_sub(1);
        if !damaged && let Some(running) = self.compacting.get_mut(&keyspace) {
            running.remove(task);
        }
    }
}

/// The moment a timer is set to; a timer at 0 is off.
fn due_at(timer: &AtomicU64) -> Option<Duration> {
    match timer.load(Ordering::Acquire) {
        0 => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

fn is_due(timer: &AtomicU64, now: Duration) -> bool {
    due_at(timer).is_some_and(|at| now >= at)
}

/// Whether a job failed for what is on the disk and will be there the next time too.
pub(crate) fn is_damage(outcome: &Result<()>) -> bool {
    let kind = outcome.as_ref().err().map(Error::kind);
    matches!(kind, Some(ErrorKind::Corruption | ErrorKind::VersionUnsupported))
}
