//! Compaction as the engine sees it: run a task that the policy chose, install what it answers; and `compact_range`.

use super::background::{is_background_thread, is_damage, waits_for_itself};
use super::core::Core;
use super::events::Event;
use super::flush::{Change, Purpose};
use super::keyspace::KeyspaceCore;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, Rank};
use crate::base::types::micros;
use crate::compaction::{self, Epoch, Goal, Manual, Running, Task, manual};
use crate::env::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

impl Core {
    /// Runs a compaction and installs it.
    pub(crate) fn compact(&self, keyspace: &Arc<KeyspaceCore>, task: &Task) -> Result<()> {
        let start = self.env.clock.now();
        let tree = Arc::clone(&keyspace.view().tree);
        if self.free_space_is_low() {
            return Err(Error::io(
                "compact",
                &self.dir,
                std::io::Error::from(std::io::ErrorKind::StorageFull),
            ));
        }
        let (outcome, floor) = self.with_context(keyspace, &tree, Purpose::Compaction, |context| {
            Ok((compaction::run(task, context)?, context.visible))
        })?;
        drop(tree);
        let epoch = match task.output_epoch {
            Epoch::New => None,
            Epoch::Existing(epoch) => Some(epoch),
        };
        let removed: Vec<_> = task
            .inputs
            .iter()
            .flat_map(|input| input.tables.iter().map(|table| (input.level, input.epoch, Arc::clone(table))))
            .collect();
        let moved = |number| removed.iter().any(|(_, _, table)| table.number == number);
        let added: Vec<_> =
            outcome.added.iter().map(|table| (task.output_level, epoch, table.clone())).collect();
        let change = Change { added, removed: removed.clone(), flushed: None, floor };
        let fresh: Vec<_> = outcome.added.iter().filter(|table| !moved(table.number)).cloned().collect();
        if !self.install_or_discard(keyspace, &change, &fresh)? {
            return Ok(());
        }
        drop(change);
        let kept = |number| outcome.added.iter().any(|table| table.number == number);
        let gone = removed.into_iter().map(|(_, _, table)| table).filter(|table| !kept(table.number));
        self.garbage.add_tables(self, gone);
        let took = self.env.clock.now().saturating_sub(start);
        self.stats.compactions.add(1);
        self.stats.bytes_compacted_in.add(outcome.bytes_read);
        self.stats.bytes_compacted_out.add(outcome.bytes_written);
        self.stats.entries_dropped.add(outcome.dropped);
        self.emit(&Event::Compacted {
            keyspace: keyspace.name.clone(),
            reason: task.reason,
            output_level: task.output_level,
            bytes_read: outcome.bytes_read,
            bytes_written: outcome.bytes_written,
            entries: (outcome.entries_in, outcome.dropped),
            micros: micros(took),
        });
        Ok(())
    }

    /// The last space is left to flushes and the manifest.
    fn free_space_is_low(&self) -> bool {
        let least = self.options.free_space_min;
        least > 0 && self.env.fs.free_space(&self.dir).is_ok_and(|free| free < least)
    }

    /// Rewrites a range of a keyspace into one run, dropping everything that no reader needs. `hi` is inclusive.
    pub(crate) fn compact_range(
        &self,
        keyspace: &Arc<KeyspaceCore>,
        lo: Option<&[u8]>,
        hi: Option<&[u8]>,
    ) -> Result<()> {
        self.health.check_writable()?;
        self.flush_keyspace(keyspace)?;
        let goal = Goal { lo, hi, seq_max: self.pipeline.visible(), files_below: self.files.next() };
        loop {
            keyspace.check_exists()?;
            self.health.check_writable()?;
            let mut state = self.state.lock();
            let none = Running::default();
            let running = state.compacting.get(&keyspace.id).unwrap_or(&none);
            match manual(&keyspace.view().tree, &keyspace.shape, running, &goal) {
                Manual::Done => return Ok(()),
                Manual::Wait if state.compactions == 0 => {
                    let message = "tables of the range are damaged; verify names them";
                    return Err(Error::new(ErrorKind::Corruption, message));
                }
                Manual::Wait => {
                    self.progress.wait_for(&mut state, Duration::from_millis(500));
                }
                Manual::Step(task) => {
                    let task = Arc::new(task);
                    state.start_compaction(keyspace.id, &task);
                    state.running = state.running.saturating_add(1);
                    drop(state);
                    self.manual_step(keyspace, &task)?;
                }
            }
        }
    }

    fn manual_step(&self, keyspace: &Arc<KeyspaceCore>, task: &Arc<Task>) -> Result<()> {
        let result = self.compact(keyspace, task);
        self.poison_if_fatal(&result);
        let mut state = self.state.lock();
        state.running = state.running.saturating_sub(1);
        state.end_compaction(keyspace.id, task, is_damage(&result));
        self.update_stall_locked(&state);
        self.progress.notify_all();
        self.work.notify_all();
        drop(state);
        self.announced(result)
    }

    /// Freezes what a keyspace holds in memory and returns when it is in tables.
    pub(crate) fn flush_keyspace(&self, keyspace: &Arc<KeyspaceCore>) -> Result<()> {
        self.health.check_not_poisoned()?;
        let last = {
            let mut commit = self.commit.lock();
            self.freeze_locked(&mut commit, keyspace.id);
            commit.next_seq
        };
        let is_done = || {
            let view = keyspace.view();
            view.frozen.last().is_none_or(|oldest| oldest.last_seq >= last)
        };
        self.wait_until(is_done)
    }

    /// Runs or waits for flushes until this holds.
    fn wait_until(&self, done: impl Fn() -> bool) -> Result<()> {
        while !done() {
            self.health.check_not_poisoned()?;
            if !self.has_threads() && self.run_one_job() {
                continue;
            }
            if is_background_thread() {
                return Err(waits_for_itself());
            }
            let mut state = self.state.lock();
            if done() {
                break;
            }
            if state.running == 0
                && let Some(error) = &state.flush_retry.failure
            {
                return Err(error.clone());
            }
            if !self.has_threads() {
                return Err(Error::new(ErrorKind::Stalled, "there is nothing to run that would flush"));
            }
            self.work.notify_all();
            self.progress.wait_for(&mut state, Duration::from_millis(500));
        }
        Ok(())
    }
}

/// Longest single pause of a paced writer.
const PACE_NAP_MAX: Duration = Duration::from_millis(50);

/// Keeps a writer of tables at a rate.
pub(crate) struct Pacer<'a> {
    clock: &'a dyn Clock,
    /// Ends every pause.
    cancel: &'a AtomicBool,
    bytes_per_second: u64,
    /// When everything written so far may have been written.
    free_at: Mutex<Duration>,
}

impl Pacer<'_> {
    /// 0 bytes a second: no limit.
    pub(crate) fn new<'a>(clock: &'a dyn Clock, cancel: &'a AtomicBool, bytes_per_second: u64) -> Pacer<'a> {
        Pacer { clock, cancel, bytes_per_second, free_at: Mutex::new(Rank::Leaf, Duration::ZERO) }
    }

    /// Waits until these bytes may be written, and calls `meanwhile` at least once.
    pub(crate) fn pace(&self, bytes: u64, meanwhile: impl Fn()) {
        meanwhile();
        if self.bytes_per_second == 0 {
            return;
        }
        let cost = Duration::try_from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let cost = cost.unwrap_or(Duration::MAX);
        let now = self.clock.now();
        let mut pause = {
            let mut free_at = self.free_at.lock();
            let start = (*free_at).max(now);
            *free_at = start.saturating_add(cost);
            start.saturating_sub(now)
        };
        // In short naps: a close must not wait for a slow rate.
        while !pause.is_zero() && !self.cancel.load(Ordering::Acquire) {
            let nap = pause.min(PACE_NAP_MAX);
            self.clock.sleep(nap);
            pause = pause.saturating_sub(nap);
            meanwhile();
        }
    }
}
